package protocols

import (
	"cmp"
	"container/list"
	"errors"
	"net/netip"
	"sync"

	"postern/authstore"
)

// Errors of Limits.
var (
	ErrTooMany = errors.New("too many connections")
	ErrEvicted = errors.New("made room for newer connections")
)

// Limits bound what clients take before and after login. All listeners of a process share one. The zero value has the defaults;
// goroutines may share it; its numbers don't change once it is used.
type Limits struct {
	PreAuth           int // connections that have not logged in; 0: 4096. Beyond it the oldest goes
	PreAuthPerNetwork int // the same of one IPv4 address or IPv6 /64; 0: 32. Beyond it the newest goes: the others get their turn
	Sessions          int // logged in; 0: 50000. One account may have a fiftieth of them, and at least 100

	mu       sync.Mutex // guards the fields below
	waiting  list.List  // of *Slot, the oldest first
	networks map[netip.Prefix]int
	accounts map[authstore.AccountID]int // sessions
	sessions int
}

// Slot is the place of one connection that has not logged in.
type Slot struct {
	limits  *Limits
	evict   func()
	place   *list.Element // nil: it has left
	network netip.Prefix  // zero: not known yet
}

// Enter gives a new connection its place. evict is called, at most once and from any goroutine, if it has to make room.
func (l *Limits) Enter(evict func()) *Slot {
	l.mu.Lock()
	var oldest *Slot
	if l.waiting.Len() >= cmp.Or(l.PreAuth, 4096) {
		oldest = l.waiting.Front().Value.(*Slot)
		oldest.leave()
	}
	s := &Slot{limits: l, evict: evict}
	s.place = l.waiting.PushBack(s)
	l.mu.Unlock()
	if oldest != nil {
		oldest.evict()
	}
	return s
}

// Locate counts the connection for its client's network; ErrTooMany if that has its share. An unknown address has no network.
func (s *Slot) Locate(client netip.Addr) error {
	network := networkOf(client)
	s.limits.mu.Lock()
	defer s.limits.mu.Unlock()
	if s.place == nil || !network.IsValid() {
		return nil
	}
	if s.limits.networks[network] >= cmp.Or(s.limits.PreAuthPerNetwork, 32) {
		return ErrTooMany
	}
	if s.limits.networks == nil {
		s.limits.networks = make(map[netip.Prefix]int)
	}
	s.network = network
	s.limits.networks[network]++
	return nil
}

// Leave gives the place back: the connection has logged in or gone. Twice does no harm.
func (s *Slot) Leave() {
	s.limits.mu.Lock()
	defer s.limits.mu.Unlock()
	s.leave()
}

// leave is called with mu held.
func (s *Slot) leave() {
	if s.place == nil {
		return
	}
	s.limits.waiting.Remove(s.place)
	s.place = nil
	if !s.network.IsValid() {
		return
	}
	if s.limits.networks[s.network]--; s.limits.networks[s.network] == 0 {
		delete(s.limits.networks, s.network)
	}
}

// EnterSession counts a session of an account until LeaveSession; ErrTooMany.
func (l *Limits) EnterSession(id authstore.AccountID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	most := cmp.Or(l.Sessions, 50_000)
	if l.sessions >= most || l.accounts[id] >= max(most/50, 100) {
		return ErrTooMany
	}
	if l.accounts == nil {
		l.accounts = make(map[authstore.AccountID]int)
	}
	l.sessions++
	l.accounts[id]++
	return nil
}

// LeaveSession is called once for each session that has entered.
func (l *Limits) LeaveSession(id authstore.AccountID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions--
	if l.accounts[id]--; l.accounts[id] == 0 {
		delete(l.accounts, id)
	}
}

// networkOf is what one customer of an access provider has: an IPv4 address, an IPv6 /64.
func networkOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}
