package davproxy

import (
	"context"
	"errors"
	"sync"
	"time"

	"postern/authstore"
)

// Bounds of what requests cost at once, for nothing bounds how often one app password is used.
const (
	maxRequests = 32               // of one account, on all its connections
	maxLarge    = 3                // answers under way that hold an item of more than largeItem: each may take 80 MiB
	largeItem   = 1 << 20          // in bytes
	largeTime   = 10 * time.Second // to wait for one's turn
)

// errBusy says that too many answers with large items are under way.
var errBusy = errors.New("too many large items at once")

// shares hands the bounds out.
type shares struct {
	large chan struct{} // one for each turn that is taken

	mu       sync.Mutex // guards requests
	requests map[authstore.AccountID]int
}

func newShares() *shares {
	return &shares{large: make(chan struct{}, maxLarge), requests: make(map[authstore.AccountID]int)}
}

// enter counts a request of an account until leave; false: it has its share.
func (s *shares) enter(id authstore.AccountID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.requests[id] >= maxRequests {
		return false
	}
	s.requests[id]++
	return true
}

func (s *shares) leave(id authstore.AccountID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.requests[id]--; s.requests[id] == 0 {
		delete(s.requests, id)
	}
}

// turn waits for leave to hold a large item; done gives it back, if it was given.
func (s *shares) turn(ctx context.Context) (done func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, largeTime, errBusy)
	defer cancel()
	select {
	case s.large <- struct{}{}:
		return func() { <-s.large }, nil
	case <-ctx.Done():
		return func() {}, context.Cause(ctx)
	}
}
