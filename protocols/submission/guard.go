package submission

import (
	"context"
	"errors"
	"sync"
	"time"

	"postern/authstore"
	"postern/protocols"
	"postern/protocols/relay"
)

// guard watches a session after its login. It implements relay.Guard.
type guard struct {
	door    *Door
	conn    string // its id, for the log
	account authstore.AccountID

	mu    sync.Mutex // guards the fields below
	scan  scanner
	track tracker
	woken relay.Alarm
}

// Guard watches what passes after the login.
func (d *Door) Guard(c *protocols.Conn, g authstore.Grant, _ func(app string)) relay.Guard {
	return &guard{door: d, conn: c.Facts.Conn, account: g.Account, scan: scanner{rules: newRules(c.Offered, d.Owner != nil), lax: d.PassSmuggling}}
}

// Up takes what the client sent. Whose an address is is asked without holding anything up.
func (g *guard) Up(p []byte) (relay.Step, error) {
	for {
		g.mu.Lock()
		g.scan.rules.asks = ""
		st, err := g.scan.up(p)
		st.Bulk = g.scan.state == asking
		sender := g.scan.rules.asks
		g.mu.Unlock()
		if sender == "" || st.Taken > 0 { // what stands before goes first
			return st, err
		}
		refusal := g.refuses(sender)
		g.mu.Lock()
		g.scan.rules.sender, g.scan.rules.refusal = sender, refusal
		g.mu.Unlock()
	}
}

// ownerTime bounds looking up an address.
const ownerTime = 5 * time.Second

// refuses is the answer to a sender that is none of the account's; empty: it is.
func (g *guard) refuses(sender string) string {
	ctx, cancel := context.WithTimeout(context.Background(), ownerTime)
	defer cancel()
	switch account, err := g.door.Owner(ctx, sender); {
	case err != nil:
		return askLater
	case account != g.account:
		g.door.Log.Info("sender refused", "conn", g.conn, "proto", Protocol, "account", g.account)
		return notOwn
	}
	return ""
}

// Down takes what the backend sent, all of which is for the client.
func (g *guard) Down(p []byte) (pass []byte, boundary int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	boundary = -1
	for i := 0; i < len(p); {
		n, code := g.track.line(p[i:])
		if i += n; code != 0 {
			boundary = i
			g.scan.answered(code)
		}
	}
	if !g.scan.waits() {
		g.woken.Ring()
	}
	return p, boundary
}

// Woken says that Up may take what it did not.
func (g *guard) Woken() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.woken.Await(g.scan.waits())
}

// Data is what is left of a chunk.
func (g *guard) Data(up bool) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if up && g.scan.state == inChunk {
		return g.scan.chunk
	}
	return 0
}

// Skip notes that so much of it has passed.
func (g *guard) Skip(_ bool, n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.scan.skip(n)
}

// Busy tells whether the client waits for something that goes before its goodbye. The reply to a message that the backend has whole does:
// without it the client would send it again.
func (g *guard) Busy(orderly bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.scan.busy(orderly)
}

// Goodbye is what a client is told at the next end of a reply.
func (g *guard) Goodbye(reason error) (words []byte, orderly bool) {
	return goodbye(reason), errors.Is(reason, protocols.ErrDraining)
}
