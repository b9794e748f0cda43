package protocols

import (
	"sync"
	"time"

	"postern/authstore"
	"postern/protocols/relay"
)

// Session is an admitted login. It is kept for as long as its connections are open, so it holds nothing that only the login needs.
type Session struct {
	Grant authstore.Grant

	server  *running
	facts   Facts // when it is entered
	entry   Entry
	ending  ending
	relayed time.Time // since when
	login   *login    // nil from then on
}

// login is what only the login of a session needs.
type login struct {
	Attempt // without its secret
	began   time.Time
	route   *Route
	backend *Backend
}

// Capabilities is what the client is to be told of its backend, before Accept.
func (s *Session) Capabilities() string { return s.login.backend.Capabilities }

// ending leads the word that a session must end to who has its connection at that time: first the login, then the relay.
type ending struct {
	mu    sync.Mutex // guards the fields below
	cause error      // the first one that is not ErrDraining, or that; nil: it goes on
	by    func(error)
}

// end must not block.
func (e *ending) end(cause error) {
	e.mu.Lock()
	if e.cause == nil || e.cause == ErrDraining {
		e.cause = cause
	}
	by := e.by
	e.mu.Unlock()
	by(cause)
}

// handTo has the session ended by another from now on. If it was to end before, that is told at once.
func (e *ending) handTo(by func(error)) {
	e.mu.Lock()
	e.by = by
	cause := e.cause
	e.mu.Unlock()
	if cause != nil {
		by(cause)
	}
}

// abandon gives up a session that no client was told of.
func (s *Session) abandon() {
	s.login.backend.Conn.Close()
	s.leave()
}

func (s *Session) leave() {
	s.entry.Leave()
	s.server.Limits.LeaveSession(s.Grant.Account)
}

// relay hands the connection over. The goroutine that served it ends, and its Conn with it.
func (c *Conn) relay(s *Session) {
	pair := relay.Pair{Client: c.bare(), Backend: s.login.backend.Conn, ToBackend: c.R.Take(), ToClient: s.login.backend.Rest,
		Guard: c.server.Door.Guard(c, s.Grant, s.called)}
	s.relayed, s.login = time.Now(), nil
	c.raw.SetDeadline(time.Time{})
	s.ending.handTo(c.server.relay.Start(pair, s.ended).End)
	c.end(nil)
}

// ended is called when both connections are closed.
func (s *Session) ended(r relay.Result) {
	defer s.server.conns.Done()
	Deepen()
	s.leave()
	if p, ok := r.Reason.(*relay.PanicError); ok {
		s.server.defect(p)
	}
	s.server.Observer.Ended(EndEvent{Facts: s.facts, Grant: s.Grant, Reason: r.Reason.Error(), Duration: time.Since(s.relayed), Up: r.Up, Down: r.Down})
}

// called notes what a client calls itself after its login, for its owner to see. The relay's guard calls it, one at a time.
func (s *Session) called(app string) {
	if app == s.facts.App {
		return
	}
	if s.facts.App == "" {
		s.server.Verifier.Named(s.Grant, authstore.Use{Protocol: s.facts.Protocol, App: app})
	}
	s.entry.Called(app)
}
