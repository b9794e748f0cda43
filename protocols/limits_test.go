package protocols

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
)

func TestTheOldestMakesRoom(t *testing.T) {
	l := &Limits{PreAuth: 3}
	var evicted []string
	enter := func(name string) *Slot { return l.Enter(func() { evicted = append(evicted, name) }) }
	enter("a")
	b := enter("b")
	c := enter("c")
	b.Leave()
	enter("d")
	if len(evicted) != 0 {
		t.Fatalf("evicted %v with room left", evicted)
	}
	enter("e")
	enter("f")
	if want := []string{"a", "c"}; !slices.Equal(evicted, want) {
		t.Errorf("evicted %v, want %v", evicted, want)
	}
	c.Leave() // it has left already
	if n := l.waiting.Len(); n != 3 {
		t.Errorf("%d wait, want 3", n)
	}
}

func TestNetworksHaveTheirShare(t *testing.T) {
	l := &Limits{PreAuthPerNetwork: 2}
	for name, tt := range map[string]struct{ same, other []string }{
		"IPv4":        {[]string{"192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1"}, []string{"192.0.2.2"}},
		"IPv6":        {[]string{"2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::1"}, []string{"2001:db8:0:1::1"}},
		"one's zones": {[]string{"fe80::1%eth0", "fe80::1%eth1", "fe80::2"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var slots []*Slot
			for i, address := range tt.same {
				s := l.Enter(func() {})
				slots = append(slots, s)
				err := s.Locate(netip.MustParseAddr(address))
				if want := i == 2; errors.Is(err, ErrTooMany) != want {
					t.Errorf("number %d, %s: %v", i+1, address, err)
				}
			}
			for _, address := range tt.other {
				s := l.Enter(func() {})
				if err := s.Locate(netip.MustParseAddr(address)); err != nil {
					t.Errorf("another network, %s: %v", address, err)
				}
				s.Leave()
			}
			slots[0].Leave()
			slots[0].Leave()
			next := l.Enter(func() {})
			if err := next.Locate(netip.MustParseAddr(tt.same[0])); err != nil {
				t.Errorf("after one has left: %v", err)
			}
			next.Leave()
			slots[1].Leave()
			slots[2].Leave()
		})
	}
	unix := l.Enter(func() {})
	if err := unix.Locate(netip.Addr{}); err != nil {
		t.Errorf("no address: %v", err)
	}
	unix.Leave()
	if len(l.networks) != 0 || l.waiting.Len() != 0 {
		t.Errorf("left behind: %v, %d", l.networks, l.waiting.Len())
	}
}

func TestOneAccountLeavesRoomForOthers(t *testing.T) {
	l := &Limits{Sessions: 200}
	for range 100 {
		if err := l.EnterSession(7); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.EnterSession(7); !errors.Is(err, ErrTooMany) {
		t.Errorf("beyond its share: %v", err)
	}
	if err := l.EnterSession(8); err != nil {
		t.Errorf("another account: %v", err)
	}
	l.LeaveSession(7)
	if err := l.EnterSession(7); err != nil {
		t.Errorf("after one has left: %v", err)
	}
}

func TestSessionsAreCounted(t *testing.T) {
	l := &Limits{Sessions: 1}
	if err := l.EnterSession(1); err != nil {
		t.Fatal(err)
	}
	if err := l.EnterSession(1); !errors.Is(err, ErrTooMany) {
		t.Errorf("one too many: %v", err)
	}
	l.LeaveSession(1)
	if err := l.EnterSession(1); err != nil {
		t.Errorf("after the first has left: %v", err)
	}
}
