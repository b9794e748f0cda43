// Package relay carries bytes between a client and its backend after login. It knows neither protocol nor account: who may pass is
// decided before, and that somebody may not any more comes as the end of a context.
package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Reasons why a session ended, besides the cause of its context.
var (
	ErrClientClosed  = errors.New("client closed")
	ErrBackendClosed = errors.New("backend closed")
	ErrIdle          = errors.New("idle")
	ErrStalled       = errors.New("stalled") // a peer took no bytes for too long
)

// Relay holds the times of sessions. The zero value has the defaults; goroutines may share it.
type Relay struct {
	Idle   time.Duration // without a byte either way; 0: 35 minutes, for RFC 9051 section 5.4 asks for 30 at least
	Stall  time.Duration // how long a peer may take no bytes while some wait; 0: 5 minutes
	Linger time.Duration // how long one direction goes on when the other has ended; 0: 10 seconds
}

// Pair is two connections whose logins are over. A connection over another one (TLS) has NetConn.
type Pair struct {
	Client, Backend     net.Conn
	ToBackend, ToClient []byte // what was read from the other side already; written first
	Guard               Guard  // nil: nobody looks at what passes, and a session that must end is cut

	// Life ends a session at once, also one that waits to end in good order; nil: nothing does.
	Life context.Context
}

// Result tells how a session went.
type Result struct {
	Up, Down int64 // bytes towards the backend and towards the client
	Reason   error // one of the above, the cause of the context, or *PanicError
}

// PanicError is a defect of ours that ended a session.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Start relays until either side closes, nothing happens, or ctx ends: then with a goodbye, if the guard has one and it can be told
// in time, and else in the middle of anything. Both connections are closed when done is called, from a goroutine of the relay's.
// Start itself does not wait, so that a session need not cost a stack.
func (r *Relay) Start(ctx context.Context, p Pair, done func(Result)) {
	s := &session{pair: p, idle: cmp.Or(r.Idle, 35*time.Minute), stall: cmp.Or(r.Stall, 5*time.Minute), linger: cmp.Or(r.Linger, 10*time.Second),
		over: make(chan struct{}), atBoundary: true}
	s.touch()
	stop := context.AfterFunc(ctx, func() { s.leave(context.Cause(ctx)) })
	stopLife := func() bool { return true }
	if p.Life != nil {
		stopLife = context.AfterFunc(p.Life, func() { s.end(context.Cause(p.Life)) })
	}
	up := &direction{session: s, up: true, from: p.Client, to: p.Backend, first: p.ToBackend, fromClosed: ErrClientClosed, toClosed: ErrBackendClosed}
	down := &direction{session: s, from: p.Backend, to: p.Client, first: p.ToClient, fromClosed: ErrBackendClosed, toClosed: ErrClientClosed}
	var both sync.WaitGroup
	both.Go(up.run)
	go func() {
		down.run()
		both.Wait()
		stop()
		stopLife()
		s.end(nil)
		done(Result{Up: up.copied, Down: down.copied, Reason: s.why()})
	}()
}

// session is what its two directions share.
type session struct {
	pair                Pair
	idle, stall, linger time.Duration
	active              atomic.Int64 // when a byte last came, either way, in Unix nanoseconds

	over   chan struct{} // closed when the session is to end: nothing more of the client's passes
	toward sync.Mutex    // held while something is written to the client

	mu         sync.Mutex // guards the fields below
	reason     error      // the first one
	closed     bool
	lingering  *time.Timer
	atBoundary bool   // all that was written to the client is whole responses
	words      []byte // of the guard's, for the client
	leaving    bool
	orderly    bool   // it leaves when no command is under way
	goodbye    []byte // the last words
}

func (s *session) touch() time.Time {
	now := time.Now()
	s.active.Store(now.UnixNano())
	return now
}

// end closes both connections below TLS: a goodbye of TLS's could block for seconds on a peer that reads nothing.
func (s *session) end(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.because(reason)
	if s.closed {
		return
	}
	s.closed = true
	if !s.leaving {
		close(s.over)
	}
	if s.lingering != nil {
		s.lingering.Stop()
	}
	lowest(s.pair.Client).Close()
	lowest(s.pair.Backend).Close()
}

// halfClosed lets the other direction go on for a while.
func (s *session) halfClosed(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.because(reason)
	if !s.closed && s.lingering == nil {
		s.lingering = time.AfterFunc(s.linger, func() { s.end(nil) })
	}
}

func (s *session) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

// because is called with mu held.
func (s *session) because(reason error) {
	if s.reason == nil {
		s.reason = reason
	}
}

// direction copies one way.
type direction struct {
	*session
	up                   bool // from the client
	from, to             net.Conn
	first                []byte
	fromClosed, toClosed error // what it means when that side closes
	copied               int64
	writeUntil           time.Time // to's write deadline
}

func (d *direction) run() {
	defer func() {
		if v := recover(); v != nil {
			d.end(&PanicError{v, debug.Stack()})
		}
	}()
	reason := d.copy()
	switch {
	case reason == errLeaving: // the other direction says goodbye
		return
	case reason != d.fromClosed:
		d.end(reason)
		return
	}
	d.halfClosed(reason)
	if !closeWrite(d.to) {
		d.end(nil)
	}
}

// bufferSize is a TLS record's (RFC 8446 section 5.1): larger ones gain nothing.
const bufferSize = 16 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

func (d *direction) copy() error {
	if len(d.first) > 0 {
		if err := d.pass(d.first); err != nil {
			return err
		}
		d.first = nil
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	if !d.await(time.Now().Add(d.idle)) {
		return errLeaving
	}
	for {
		n, err := d.from.Read(buf[:])
		if n > 0 {
			if err := d.pass(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == nil:
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return d.fromClosed
		case !d.await(time.Unix(0, d.active.Load()).Add(d.idle)):
			return errLeaving
		case d.isIdle():
			return ErrIdle
		}
	}
}

// await sets until when a read may wait; false: nothing more is to be read from the client. The client's deadline moves with mu held,
// or the wake-up of leave would be lost.
func (d *direction) await(until time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.leaving && d.up {
		return false
	}
	d.from.SetReadDeadline(until)
	return true
}

// pass hands on what was read, past the guard.
func (d *direction) pass(p []byte) error {
	switch {
	case d.pair.Guard == nil:
		return d.write(p)
	case d.up:
		return d.passUp(p)
	}
	return d.passDown(p)
}

// isIdle is asked when the read deadline has passed. That is not moved with each byte; only then, if there were some meanwhile.
func (d *direction) isIdle() bool { return time.Since(time.Unix(0, d.active.Load())) >= d.idle }

func (d *direction) write(p []byte) error {
	now := d.touch()
	if d.writeUntil.Sub(now) < d.stall*3/4 { // so that not each write moves the deadline
		d.writeUntil = now.Add(d.stall)
		d.to.SetWriteDeadline(d.writeUntil)
	}
	n, err := d.to.Write(p)
	d.copied += int64(n)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrStalled
	}
	return d.toClosed
}

// lowest is the socket below TLS and other layers.
func lowest(c net.Conn) net.Conn {
	for {
		over, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		c = over.NetConn()
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
	if low, ok := lowest(c).(writeCloser); ok && lowest(c) != c {
		err = low.CloseWrite()
	}
	return err == nil || errors.Is(err, io.EOF)
}
