// Package live knows this node's open sessions by their grant, so that a revocation, an expiry or draining ends them. Front
// doors enter sessions; the change feed (authstore) and the gateway end them. It holds no sockets: a session is ended by
// calling the function that it was entered with.
package live

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"postern/authstore"
	"postern/protocols"
)

// ErrExpired ends a session. Such reasons travel as the cause of its context, so that each protocol says goodbye in its own words.
var ErrExpired = errors.New("the app password has expired")

// Registry holds the open sessions. The zero value is ready; goroutines may share it.
type Registry struct {
	mu       sync.Mutex                                    // guards accounts and every session's fields
	accounts map[authstore.AccountID]map[*session]struct{} // only accounts that have sessions
	count    int
}

var _ protocols.Sessions = (*Registry)(nil)
var _ authstore.Sessions = (*Registry)(nil)

type session struct {
	grant  authstore.Grant
	facts  protocols.Facts
	end    context.CancelCauseFunc
	expiry *time.Timer   // nil: the app password never expires
	left   chan struct{} // closed by leave
	ended  bool
}

// Enter files a session under its grant; see protocols.Sessions.
func (r *Registry) Enter(g authstore.Grant, f protocols.Facts, end context.CancelCauseFunc) (leave func()) {
	s := &session{grant: g, facts: f, end: end, left: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.accounts == nil {
		r.accounts = make(map[authstore.AccountID]map[*session]struct{})
	}
	of := r.accounts[g.Account]
	if of == nil {
		of = make(map[*session]struct{})
		r.accounts[g.Account] = of
	}
	of[s] = struct{}{}
	r.count++
	if !g.Expires.IsZero() {
		s.expiry = time.AfterFunc(time.Until(g.Expires), func() { r.finish(s, ErrExpired) })
	}
	return sync.OnceFunc(func() { r.leave(s) })
}

func (r *Registry) leave(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.expiry != nil {
		s.expiry.Stop()
	}
	of := r.accounts[s.grant.Account]
	delete(of, s)
	if len(of) == 0 {
		delete(r.accounts, s.grant.Account)
	}
	r.count--
	close(s.left)
}

// finish calls a session's end once.
func (r *Registry) finish(s *session, cause error) {
	r.mu.Lock()
	first := !s.ended
	s.ended = true
	r.mu.Unlock()
	if first {
		s.end(cause)
	}
}

// Review ends the sessions of an account (zero: of all) for whose grant ended gives a cause; see authstore.Sessions.
func (r *Registry) Review(id authstore.AccountID, ended func(authstore.Grant) error) <-chan struct{} {
	return r.review(id, func(s *session) error { return ended(s.grant) })
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
			<-s.left
		}
	}()
	return gone
}

func (r *Registry) sessions(id authstore.AccountID) []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id != 0 {
		return slices.Collect(maps.Keys(r.accounts[id]))
	}
	list := make([]*session, 0, r.count)
	for _, of := range r.accounts {
		list = slices.AppendSeq(list, maps.Keys(of))
	}
	return list
}

// Drain ends the sessions of which says so, and returns a channel that is closed when they have left.
func (r *Registry) Drain(which func(protocols.Facts) bool) <-chan struct{} {
	return r.review(0, func(s *session) error {
		if which(s.facts) {
			return protocols.ErrDraining
		}
		return nil
	})
}

// Count tells how many sessions are open.
func (r *Registry) Count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}
