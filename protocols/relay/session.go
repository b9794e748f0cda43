package relay

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"postern/protocols/parking"
)

// Session is two connections between which bytes are carried. Goroutines may share it.
type Session struct {
	relay    *Relay
	pair     Pair
	done     func(Result)
	up, down direction
	active   atomic.Int64 // when a byte last came, either way, by clock
	toward   sync.Mutex   // held while something is written to the client

	mu         sync.Mutex // guards the fields below
	running    int        // directions that have not ended
	reason     error      // the first one
	closed     bool
	lingering  *time.Timer
	over       chan struct{} // closed when the session is to end: nothing more of the client's passes; nil: nobody waits for it
	atBoundary bool          // all that was written to the client is whole responses
	words      []byte        // of the guard's, for the client
	leaving    bool
	orderly    bool   // it leaves when no command is under way
	goodbye    []byte // the last words
	told       bool   // the goodbye is written, or being written
}

// End ends a session: with a goodbye, if the guard has one and it can be told in time, and else in the middle of anything. It does not
// wait. What comes after the first call is too late, but for Cut, and for what is not orderly where the first was.
func (s *Session) End(reason error) { go s.leave(reason) }

func (s *Session) touch() time.Duration {
	now := clock()
	s.active.Store(int64(now))
	return now
}

// end closes both connections below TLS: a goodbye of TLS's could block for seconds on a peer that reads nothing.
func (s *Session) end(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.because(reason)
	if s.closed {
		return
	}
	s.closed = true
	s.wakeWaiter()
	if s.lingering != nil {
		s.lingering.Stop()
	}
	parking.Lowest(s.pair.Client).Close()
	parking.Lowest(s.pair.Backend).Close()
	s.up.finishParked()
	s.down.finishParked()
}

// halfClosed lets the other direction go on for a while; false: it has ended already.
func (s *Session) halfClosed(reason error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.because(reason)
	if s.closed || s.running < 2 {
		return false
	}
	if s.lingering == nil {
		s.lingering = time.AfterFunc(s.relay.linger(), func() { s.end(nil) })
	}
	return true
}

// because is called with mu held.
func (s *Session) because(reason error) {
	if s.reason == nil {
		s.reason = reason
	}
}

// finish is the end of one direction; with that of the second the session is over, which conclude is to tell. It is called with mu held.
func (s *Session) finish() (over bool) {
	s.running--
	return s.running == 0
}

func (s *Session) conclude() {
	s.end(nil)
	s.relay.leave(s)
	s.done(Result{Up: s.up.copied, Down: s.down.copied, Reason: s.why()})
}

func (s *Session) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

// ended is closed when nothing more of the client's passes.
func (s *Session) ended() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over == nil {
		s.over = make(chan struct{})
		if s.closed || s.leaving {
			close(s.over)
		}
	}
	return s.over
}

// wakeWaiter is called with mu held.
func (s *Session) wakeWaiter() {
	if s.over != nil && !s.leaving {
		close(s.over)
	}
}

// closeWrite tells a peer that no more comes, in each layer. It reports whether the connection has such a thing.
func closeWrite(c net.Conn) bool {
	type writeCloser interface{ CloseWrite() error }
	top, ok := c.(writeCloser)
	if !ok {
		return false
	}
	err := top.CloseWrite()
	if low, ok := parking.Lowest(c).(writeCloser); ok && parking.Lowest(c) != c {
		err = low.CloseWrite()
	}
	return err == nil || err == io.EOF
}
