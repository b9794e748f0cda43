package imapproxy

import (
	"errors"
	"math"
	"sync"

	"postern/authstore"
	"postern/protocols"
	"postern/protocols/relay"
)

// guard watches a session after its login. It implements relay.Guard.
type guard struct {
	mu    sync.Mutex // guards the fields below; held for as long as it takes to look through a buffer
	scan  scanner
	track tracker
	hides bool // a line with "+" has begun that is not for the client
	woken relay.Alarm
}

// Guard watches what passes after the login.
func (d Door) Guard(_ *protocols.Conn, g authstore.Grant, called func(app string)) relay.Guard {
	return &guard{scan: scanner{readOnly: !g.Scopes.Any(authstore.ScopeMail), noCompress: d.NoCompress, called: called}}
}

// Up takes what the client sent.
func (g *guard) Up(p []byte) (relay.Step, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.scan.up(p)
}

// Down takes what the backend sent.
func (g *guard) Down(p []byte) (pass []byte, boundary int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	boundary = -1
	kept := 0 // of p, what the client gets
	i := 0
	for i < len(p) && g.scan.state != opaque {
		if !g.track.split {
			g.hides = g.scan.hides()
		}
		f := g.track.down(p[i:])
		to := i + f.taken
		switch {
		case f.plus >= 0 && g.hides: // it begins at a boundary
			kept += copy(p[kept:], p[i:i+f.plus])
			boundary = kept
		default:
			if f.boundary >= 0 {
				boundary = kept + f.boundary
			}
			if kept < i {
				copy(p[kept:], p[i:to])
			}
			kept += f.taken
		}
		i = to
		g.tell(f.event)
	}
	kept += copy(p[kept:], p[i:])
	if g.scan.state == opaque {
		boundary = -1
	}
	return p[:kept], boundary
}

// tell tells the scanner what the backend answered. It is called with mu held.
func (g *guard) tell(e event) {
	waited := g.scan.state.waits()
	switch e {
	case goesOn:
		g.scan.continued()
	case completes:
		tag, ok := g.track.answered()
		g.scan.completed(tag, ok)
	}
	if waited && !g.scan.state.waits() {
		g.woken.Ring()
	}
}

// Woken says that Up may take what it did not.
func (g *guard) Woken() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.woken.Await(g.scan.state.waits())
}

// Data is what is left of a literal, or, in a session that compresses, all that comes.
func (g *guard) Data(up bool) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.scan.state == opaque:
		return math.MaxInt64
	case up && g.scan.state == inLiteral:
		return g.scan.literal
	case !up:
		return g.track.literal
	}
	return 0
}

// Skip notes that so much of it has passed.
func (g *guard) Skip(up bool, n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.scan.state == opaque:
	case up:
		g.scan.skip(n)
	default:
		g.track.skip(n)
	}
}

// Busy tells whether a command is under way, other than IDLE. None of them is worth a session's life.
func (g *guard) Busy(orderly bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return orderly && g.scan.busy()
}

// Goodbye is what a client is told at the next end of a response; nil: it can't be told anything.
func (g *guard) Goodbye(reason error) (words []byte, orderly bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.scan.state == opaque {
		return nil, false
	}
	return goodbye(reason), errors.Is(reason, protocols.ErrDraining)
}
