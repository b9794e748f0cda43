package authstore_test

import (
	"fmt"
	"net/netip"
	"testing"

	"postern/authstore"
	"postern/authstore/rediscache"
	"postern/internal/testlab"
)

// BenchmarkVerify is one login of an account with five app passwords, by the layer that answers it. Refusals are given at once here, and
// each comes from a network of its own, or the budgets would answer.
func BenchmarkVerify(b *testing.B) {
	s := newSite(b)
	a := s.account("alice@example.test")
	var typed []byte
	for range 5 {
		_, typed = s.password(authstore.PasswordRequest{Account: a.ID})
	}
	wrong := anotherPassword()
	redis := rediscache.New(rediscache.Options{Addresses: []string{testlab.Redis(b).Addr}})
	b.Cleanup(func() { redis.Close() })
	cached, uncached, shared := s.node(authstore.Options{}), s.node(authstore.Options{L1Bytes: 1}), s.node(authstore.Options{L1Bytes: 1, Cache: redis})
	for _, bm := range []struct {
		name  string
		node  *node
		login string
		typed []byte
		good  bool
	}{
		{"L1", cached, "alice@example.test", typed, true},
		{"Redis", shared, "alice@example.test", typed, true},
		{"SQL", uncached, "alice@example.test", typed, true},
		{"Wrong", cached, "alice@example.test", wrong, false},
		{"Unknown", cached, "nobody@example.test", wrong, false},
		{"NotAppPassword", cached, "alice@example.test", []byte("letmein"), false},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			n := uint32(0)
			try := func() error {
				at := attempt(bm.login, bm.typed)
				if !bm.good {
					n++
					at.Client = netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
				}
				g, err := bm.node.Verify(b.Context(), at)
				if err == nil {
					err = bm.node.Confirm(b.Context(), g)
				}
				return err
			}
			try()
			for b.Loop() {
				if err := try(); (err == nil) != bm.good {
					b.Fatal(fmt.Errorf("%s: %w", bm.login, err))
				}
			}
		})
	}
}
