// Package live knows this node's open sessions by their grant, so that a revocation, an expiry or draining ends them. Front
// doors enter sessions; the change feed (authstore) and the gateway end them. It holds no sockets: a session is ended by
// calling the function that it was entered with.
package live

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"postern/authstore"
	"postern/protocols"
)

// Reasons that end a session. They travel as the cause of its context, so that each protocol says goodbye in its own words.
var (
	ErrExpired = errors.New("the app password has expired")
	ErrEnded   = errors.New("ended by an administrator")
)

// Registry holds the open sessions. The zero value is ready; goroutines may share it.
type Registry struct {
	mu       sync.Mutex                       // guards the fields below and every session's
	accounts map[authstore.AccountID]*session // the first session of each account that has some
	count    int
	draining func(protocol string) bool // nil: it isn't
}

var _ protocols.Sessions = (*Registry)(nil)
var _ authstore.Sessions = (*Registry)(nil)

type session struct {
	registry *Registry
	grant    *authstore.Grant
	facts    *protocols.Facts
	began    time.Time
	end      context.CancelCauseFunc
	expiry   *time.Timer   // nil: the app password never expires
	expires  time.Time     // when that is, which may have moved since the grant was given
	left     chan struct{} // closed by Leave; nil: nobody waits for it
	gone     bool
	ended    bool
	drained  bool // all that it was told is that, and it may take its time

	before, after *session // of the same account
}

// Enter files a session under its grant; see protocols.Sessions.
func (r *Registry) Enter(g *authstore.Grant, f *protocols.Facts, end context.CancelCauseFunc) protocols.Entry {
	s := &session{registry: r, grant: g, facts: f, began: time.Now(), end: end}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.draining != nil && r.draining(f.Protocol) {
		go r.finish(s, protocols.ErrDraining)
	}
	if r.accounts == nil {
		r.accounts = make(map[authstore.AccountID]*session)
	}
	if s.after = r.accounts[g.Account]; s.after != nil {
		s.after.before = s
	}
	r.accounts[g.Account] = s
	r.count++
	s.expireAt(g.Expires)
	return s
}

// expireAt is called with mu held.
func (s *session) expireAt(t time.Time) {
	if s.expires.Equal(t) {
		return
	}
	if s.expiry != nil {
		s.expiry.Stop()
	}
	s.expires, s.expiry = t, nil
	if !t.IsZero() {
		s.expiry = time.AfterFunc(time.Until(t), func() { s.registry.finish(s, ErrExpired) })
	}
}

// Expire moves the time at which sessions of an account end by themselves; see authstore.Sessions.
func (r *Registry) Expire(id authstore.AccountID, at func(authstore.Grant) (time.Time, bool)) {
	for _, s := range r.sessions(id) {
		t, ok := at(*s.grant)
		if !ok {
			continue
		}
		r.mu.Lock()
		if !s.gone {
			s.expireAt(t)
		}
		r.mu.Unlock()
	}
}

// Called notes the name that the session's app gives itself.
func (s *session) Called(app string) {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	s.facts.App = app
}

// Leave takes the session out.
func (s *session) Leave() {
	r := s.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.gone {
		return
	}
	s.gone = true
	if s.expiry != nil {
		s.expiry.Stop()
	}
	switch {
	case s.before != nil:
		s.before.after = s.after
	case s.after != nil:
		r.accounts[s.grant.Account] = s.after
	default:
		delete(r.accounts, s.grant.Account)
	}
	if s.after != nil {
		s.after.before = s.before
	}
	r.count--
	if s.left != nil {
		close(s.left)
	}
}

// hasLeft gives what Leave closes.
func (s *session) hasLeft() <-chan struct{} {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	if s.left == nil {
		s.left = make(chan struct{})
		if s.gone {
			close(s.left)
		}
	}
	return s.left
}

// finish calls a session's end once, and once more for one that was only drained: a client that is busy may stay until the grace is
// over, but not when its app password is revoked.
func (r *Registry) finish(s *session, cause error) {
	drains := cause == protocols.ErrDraining
	r.mu.Lock()
	tells := !s.ended || s.drained && !drains
	if tells {
		s.ended, s.drained = true, drains
	}
	r.mu.Unlock()
	if tells {
		s.end(cause)
	}
}

// Review ends the sessions of an account (zero: of all) for whose grant ended gives a cause; see authstore.Sessions.
func (r *Registry) Review(id authstore.AccountID, ended func(authstore.Grant) error) <-chan struct{} {
	return r.review(id, func(s *session) error { return ended(*s.grant) })
}

func (r *Registry) review(id authstore.AccountID, ended func(*session) error) <-chan struct{} {
	var leaving []*session
	for _, s := range r.sessions(id) {
		if cause := ended(s); cause != nil {
			r.finish(s, cause)
			leaving = append(leaving, s)
		}
	}
	gone := make(chan struct{})
	if len(leaving) == 0 {
		close(gone)
		return gone
	}
	go func() { // ends with the last of these sessions, which their front doors own
		defer close(gone)
		for _, s := range leaving {
			<-s.hasLeft()
		}
	}()
	return gone
}

func (r *Registry) sessions(id authstore.AccountID) []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id != 0 {
		return slices.Collect(r.accounts[id].andAfter())
	}
	list := make([]*session, 0, r.count)
	for _, first := range r.accounts {
		list = slices.AppendSeq(list, first.andAfter())
	}
	return list
}

// andAfter goes through a session and those after it. It is called with mu held.
func (s *session) andAfter() iter.Seq[*session] {
	return func(yield func(*session) bool) {
		for ; s != nil && yield(s); s = s.after {
		}
	}
}

// drainStep is the time between two goodbyes while draining, so that clients don't all connect elsewhere at once.
const drainStep = 10 * time.Millisecond

// Drain ends the sessions of which says so, spread over a time at most, and those that come later at once. It does not wait.
func (r *Registry) Drain(which func(protocol string) bool, over time.Duration) {
	r.mu.Lock()
	r.draining = which
	r.mu.Unlock()
	list := slices.DeleteFunc(r.sessions(0), func(s *session) bool { return !which(s.facts.Protocol) })
	if len(list) == 0 {
		return
	}
	step := min(over/time.Duration(len(list)), drainStep)
	go func() { // ends after that time
		for i, s := range list {
			if i > 0 {
				time.Sleep(step)
			}
			r.finish(s, protocols.ErrDraining)
		}
	}()
}

// Count tells how many sessions are open.
func (r *Registry) Count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}
