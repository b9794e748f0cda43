package protocols

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// newcomerTime is how long is waited for the first request of a connection. http.Server.Shutdown waits no longer for it itself.
	newcomerTime = 5 * time.Second
	// newcomerPoll is how often it is looked whether all have sent theirs.
	newcomerPoll = 20 * time.Millisecond
)

// Newcomers are an HTTP server's connections whose first request it has not read yet. Shutdown hangs up on them when it comes, so a front
// door that is to drain closes its listener, waits for them, and then calls it: at a reload nobody who has just come is turned away. The
// zero value is ready; goroutines may share it.
type Newcomers struct {
	mu   sync.Mutex // guards open
	open map[net.Conn]struct{}
}

// State belongs into the server's ConnState.
func (n *Newcomers) State(nc net.Conn, state http.ConnState) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if state != http.StateNew {
		delete(n.open, nc)
		return
	}
	if n.open == nil {
		n.open = make(map[net.Conn]struct{})
	}
	n.open[nc] = struct{}{}
}

// Wait returns when all have sent their first request, when that takes too long, or when ctx ends.
func (n *Newcomers) Wait(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, newcomerTime)
	defer cancel()
	tick := time.NewTicker(newcomerPoll)
	defer tick.Stop()
	for none := false; ; { // twice: one may just be on its way from the listener, or from its request to its answer
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n.mu.Lock()
		before := none
		none = len(n.open) == 0
		n.mu.Unlock()
		if none && before {
			return
		}
	}
}
