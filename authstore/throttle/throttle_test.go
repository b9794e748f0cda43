package throttle

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

var client = netip.MustParseAddr("192.0.2.1")

var tried int // makes every wrong password of a test another one

// failures counts how many different wrong passwords pass before the client is over its budget.
func failures(t *testing.T, l *Limiter, client netip.Addr) int {
	for n := range 1000 {
		if l.Over(client) {
			return n
		}
		tried++
		l.Wrong(t.Context(), client, "alice@example.test", fmt.Append(nil, "wrong", tried))
	}
	t.Fatal("never over the budget")
	return 0
}

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(nil, nil)
		if got := failures(t, l, client); got != 20 {
			t.Errorf("%d wrong passwords at once, want 20", got)
		}
		if l.Over(netip.MustParseAddr("192.0.2.2")) {
			t.Error("the neighbour pays as well")
		}
		time.Sleep(30 * time.Second)
		if got := failures(t, l, client); got != 1 {
			t.Errorf("after half a minute %d more, want 1", got)
		}
		time.Sleep(time.Hour)
		if got := failures(t, l, client); got != 20 {
			t.Errorf("after an hour %d, want 20 again", got)
		}
	})
}

func TestCosts(t *testing.T) {
	for name, tt := range map[string]struct {
		fail func(l *Limiter)
		want int
	}{
		"the same again": {func(l *Limiter) { l.Wrong(context.Background(), client, "alice", []byte("old")) }, 1 + (20000-1000)/50 - 4},
		"misshapen":      {func(l *Limiter) { l.Misshapen(context.Background(), client) }, 80},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, got := New(nil, nil), 0
				for ; !l.Over(client) && got < 1000; got++ {
					tt.fail(l)
				}
				if got != tt.want {
					t.Errorf("%d passed, want %d", got, tt.want)
				}
			})
		})
	}
}

func TestSource(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1":          "192.0.2.1/32",
		"::ffff:192.0.2.1":   "192.0.2.1/32",
		"2001:db8:1:2:3::4":  "2001:db8:1:2::/64",
		"fe80::1%eth0":       "fe80::/64",
		"2001:db8:1:2:ff::1": "2001:db8:1:2::/64",
	} {
		if got := Source(netip.MustParseAddr(addr)); got.String() != want {
			t.Errorf("Source(%s) = %s, want %s", addr, got, want)
		}
	}
}

type shared struct {
	debt time.Duration
	err  error
}

func (s *shared) Charge(context.Context, string, time.Duration, time.Duration) (time.Duration, error) {
	return s.debt, s.err
}

func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shared{debt: maxDebt}
		l := New(s, nil)
		l.Misshapen(t.Context(), client)
		if !l.Over(client) {
			t.Error("what other nodes counted has no effect")
		}
		time.Sleep(time.Hour)
		s.debt = 1000 * time.Hour // forged
		l.Misshapen(t.Context(), client)
		time.Sleep(2 * time.Minute)
		if l.Over(client) {
			t.Error("a forged debt locks a source out for longer than a full bucket")
		}
		*s = shared{err: errors.New("gone")}
		time.Sleep(time.Hour)
		if got := failures(t, l, client); got != 20 {
			t.Errorf("without the shared buckets %d wrong passwords at once, want 20", got)
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	l := New(nil, nil)
	over := netip.MustParseAddr("203.0.113.9")
	failures(t, l, over)
	for i := range uint32(maxSources + 1000) {
		l.Misshapen(t.Context(), netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if got := len(l.sources); got != maxSources {
		t.Errorf("%d buckets, want %d", got, maxSources)
	}
	if !l.Over(over) {
		t.Error("a flood of cheap sources freed a full bucket")
	}
}
