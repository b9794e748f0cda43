package secret

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

func TestTicket(t *testing.T) {
	one := NewKeyring()
	both, err := one.Add()
	if err != nil {
		t.Fatal(err)
	}
	second, err := both.Without(1)
	if err != nil {
		t.Fatal(err)
	}
	noon := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	state := []byte("what TLS knows of a session")
	seal := func(k *Keyring, now time.Time) []byte {
		t.Helper()
		ticket, err := k.SealTicket(state, now)
		if err != nil {
			t.Fatal(err)
		}
		return ticket
	}
	old, fresh := seal(one, noon), seal(both, noon)
	anotherHour := bytes.Clone(old)
	anotherHour[7]--
	for name, tt := range map[string]struct {
		keys   *Keyring
		ticket []byte
		at     time.Time
		want   error
	}{
		"at once":                           {one, old, noon, nil},
		"a key was added since":             {both, old, noon, nil},
		"its key was retired":               {second, old, noon, ErrUnknownKey},
		"sealed with the newest":            {second, fresh, noon, nil},
		"a node that lacks the newest":      {one, fresh, noon, ErrUnknownKey},
		"another site's key of that number": {NewKeyring(), old, noon, ErrNotOpened},
		"an evening and a night later":      {one, old, noon.Add(23*time.Hour + 59*time.Minute), nil},
		"a day later":                       {one, old, noon.Add(24 * time.Hour), ErrNotOpened},
		"a clock that is slow":              {one, old, noon.Add(-time.Hour), nil},
		"a clock that is wrong":             {one, old, noon.Add(-time.Hour - time.Second), ErrNotOpened},
		"says it is of another hour":        {one, anotherHour, noon, ErrNotOpened},
		"empty":                             {one, nil, noon, ErrNotOpened},
		"cut short":                         {one, old[:8], noon, ErrNotOpened},
	} {
		got, err := tt.keys.OpenTicket(tt.ticket, tt.at)
		if !errors.Is(err, tt.want) || tt.want == nil && !bytes.Equal(got, state) {
			t.Errorf("%s: OpenTicket = %q, %v, want %v", name, got, err, tt.want)
		}
	}
	for i := range old {
		altered := bytes.Clone(old)
		altered[i] ^= 1
		if got, err := one.OpenTicket(altered, noon); err == nil {
			t.Fatalf("altered at %d it opens: %q", i, got)
		}
	}
	if bytes.Equal(old, seal(one, noon)) || bytes.Contains(old, state) {
		t.Error("a ticket shows what is in it")
	}
}

func BenchmarkTicket(b *testing.B) {
	k, state, now := NewKeyring(), make([]byte, 90), time.Now()
	for b.Loop() {
		ticket, err := k.SealTicket(state, now)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := k.OpenTicket(ticket, now); err != nil {
			b.Fatal(err)
		}
	}
}
