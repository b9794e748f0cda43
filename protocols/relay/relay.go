// Package relay carries bytes between a client and its backend after login. It knows neither protocol nor account: who may pass is
// decided before, and that somebody may not any more comes as a call of Session.End.
//
// A direction in which something happens has a goroutine and a buffer. One in which nothing has happened for a moment (Relay.Park) has neither:
// it is parked until its peer says something (park.go). Data that nobody looks at passes inside the kernel where both sides are plain
// (splice_linux.go).
package relay

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"postern/protocols/parking"
)

// Reasons why a session ended, besides what Session.End and Relay.Cut were given.
var (
	ErrClientClosed  = errors.New("client closed")
	ErrBackendClosed = errors.New("backend closed")
	ErrIdle          = errors.New("idle")
	ErrStalled       = errors.New("stalled") // a peer took no bytes for too long
)

// Relay carries sessions. The zero value has the defaults; goroutines may share it. Its times don't change once it is used.
type Relay struct {
	Idle   time.Duration // without a byte either way; 0: 35 minutes, for RFC 9051 section 5.4 asks for 30 at least
	Stall  time.Duration // how long a peer may take no bytes while some wait; 0: 5 minutes
	Linger time.Duration // how long one direction goes on when the other has ended; 0: 10 seconds
	Park   time.Duration // how long a direction without a byte keeps its goroutine; 0: half a second. One that was quiet before: a sixteenth

	mu       sync.Mutex // guards the fields below
	sessions map[*Session]struct{}
	cut      error       // why no session lives any more; nil: they do
	sweeper  *time.Timer // looks for idle sessions while there are any; nil: never started
	lot      parking.Lot // of quiet directions; nil: none was parked yet
}

// Pair is two connections whose logins are over. A connection over another one (TLS) has NetConn. Nothing else may have been set to
// happen at a deadline of theirs.
type Pair struct {
	Client, Backend     net.Conn
	ToBackend, ToClient []byte // what was read from the other side already; written first
	Guard               Guard  // nil: nobody looks at what passes, and a session that must end is cut
}

// Result tells how a session went.
type Result struct {
	Up, Down int64 // bytes towards the backend and towards the client
	Reason   error // one of the above, what End or Cut were given, what the guard said, or *PanicError
}

// PanicError is a defect of ours that ended a session.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Start relays until either side closes, nothing happens, or the session is ended. Both connections are closed when done is called,
// from a goroutine of the relay's. Start itself does not wait, so that a session need not cost a stack.
func (r *Relay) Start(p Pair, done func(Result)) *Session {
	s := &Session{relay: r, pair: p, done: done, running: 2, atBoundary: true}
	s.up, s.down = direction{Session: s}, direction{Session: s}
	s.touch()
	cut := r.enter(s)
	go s.up.run()
	go s.down.run()
	if cut != nil {
		s.end(cut)
	}
	return s
}

func (r *Relay) enter(s *Session) (cut error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sessions == nil {
		r.sessions = make(map[*Session]struct{})
	}
	r.sessions[s] = struct{}{}
	switch {
	case len(r.sessions) > 1:
	case r.sweeper == nil:
		r.sweeper = time.AfterFunc(r.sweepEvery(), r.sweep)
	default:
		r.sweeper.Reset(r.sweepEvery())
	}
	return r.cut
}

func (r *Relay) leave(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if delete(r.sessions, s); len(r.sessions) == 0 {
		r.sweeper.Stop()
	}
}

// Cut ends all sessions at once, also those that wait to end in good order, and those that are started later.
func (r *Relay) Cut(reason error) {
	r.mu.Lock()
	r.cut = reason
	r.mu.Unlock()
	for _, s := range r.all() {
		s.end(reason)
	}
}

// Close gives back what the relay has for its sessions, all of which have ended.
func (r *Relay) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lot != nil {
		r.lot.Close()
	}
}

func (r *Relay) all() []*Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*Session, 0, len(r.sessions))
	for s := range r.sessions {
		list = append(list, s)
	}
	return list
}

// Defaults.
func (r *Relay) idle() time.Duration   { return cmp.Or(r.Idle, 35*time.Minute) }
func (r *Relay) stall() time.Duration  { return cmp.Or(r.Stall, 5*time.Minute) }
func (r *Relay) linger() time.Duration { return cmp.Or(r.Linger, 10*time.Second) }

// park is short: of a burst of logins as many goroutines are there at once as come in this time, and Go never frees what describes one.
func (r *Relay) park() time.Duration { return cmp.Or(r.Park, time.Second/2) }

// sweepEvery is how exactly idleness is noticed. One look at all sessions then costs less than a timer for each.
func (r *Relay) sweepEvery() time.Duration { return min(r.idle()/10, 15*time.Second) }

// sweep ends the sessions in which nothing has happened for too long.
func (r *Relay) sweep() {
	before := int64(clock() - r.idle())
	for _, s := range r.all() {
		if s.active.Load() <= before {
			s.end(ErrIdle)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sessions) > 0 {
		r.sweeper.Reset(r.sweepEvery())
	}
}
