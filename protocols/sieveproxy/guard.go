package sieveproxy

import (
	"errors"
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
	woken relay.Alarm // when all commands are answered
}

// Guard watches what passes after the login.
func (Door) Guard(*protocols.Conn, authstore.Grant, func(app string)) relay.Guard { return &guard{} }

// Up takes what the client sent.
func (g *guard) Up(p []byte) (relay.Step, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.scan.up(p)
}

// Down takes what the backend sent. All of it is for the client.
func (g *guard) Down(p []byte) (pass []byte, boundary int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	boundary, answers := g.track.down(p)
	g.scan.open = max(0, g.scan.open-answers)
	if g.scan.open == 0 {
		g.woken.Ring()
	}
	return p, boundary
}

// Woken says that Up may take what it did not.
func (g *guard) Woken() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.woken.Await(g.scan.open > 0)
}

// Data is what is left of a script, either way.
func (g *guard) Data(up bool) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case !up:
		return g.track.literal
	case g.scan.state == inScript:
		return g.scan.literal
	}
	return 0
}

// Skip notes that so much of it has passed.
func (g *guard) Skip(up bool, n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if up {
		g.scan.skip(n)
	} else {
		g.track.skip(n)
	}
}

// Busy tells whether the client waits for an answer. Where the goodbye is not to be orderly, one that the backend can give without more of the
// client's is waited for all the same: it says whether a script was stored.
func (g *guard) Busy(orderly bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.scan.open > 0 && (orderly || g.scan.between())
}

// Goodbye is what a client is told behind an answer.
func (g *guard) Goodbye(reason error) (words []byte, orderly bool) {
	return goodbye(reason), errors.Is(reason, protocols.ErrDraining)
}
