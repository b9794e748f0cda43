package davproxy

import (
	"sync"

	"postern/authstore"
)

// maxRequests bounds the requests of one account that are under way, on all its connections: nothing else bounds how often one app
// password is used at once.
const maxRequests = 32

// shares counts the requests of each account. The zero value is ready.
type shares struct {
	mu       sync.Mutex // guards requests
	requests map[authstore.AccountID]int
}

// enter counts a request of an account until leave; false: it has its share.
func (s *shares) enter(id authstore.AccountID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.requests[id]
	if n >= maxRequests {
		return false
	}
	if s.requests == nil {
		s.requests = make(map[authstore.AccountID]int)
	}
	s.requests[id] = n + 1
	return true
}

func (s *shares) leave(id authstore.AccountID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.requests[id]; n > 1 {
		s.requests[id] = n - 1
	} else {
		delete(s.requests, id)
	}
}
