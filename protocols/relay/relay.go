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

// Start relays until either side closes, nothing happens, or ctx ends; then at once, in the middle of anything. Both connections are
// closed when done is called, from a goroutine of the relay's. Start itself does not wait, so that a session need not cost a stack.
func (r *Relay) Start(ctx context.Context, p Pair, done func(Result)) {
	s := &session{pair: p, idle: cmp.Or(r.Idle, 35*time.Minute), stall: cmp.Or(r.Stall, 5*time.Minute), linger: cmp.Or(r.Linger, 10*time.Second)}
	s.touch()
	stop := context.AfterFunc(ctx, func() { s.end(context.Cause(ctx)) })
	up := &direction{session: s, from: p.Client, to: p.Backend, first: p.ToBackend, fromClosed: ErrClientClosed, toClosed: ErrBackendClosed}
	down := &direction{session: s, from: p.Backend, to: p.Client, first: p.ToClient, fromClosed: ErrBackendClosed, toClosed: ErrClientClosed}
	var both sync.WaitGroup
	both.Go(up.run)
	go func() {
		down.run()
		both.Wait()
		stop()
		s.end(nil)
		done(Result{Up: up.copied, Down: down.copied, Reason: s.why()})
	}()
}

// session is what its two directions share.
type session struct {
	pair                Pair
	idle, stall, linger time.Duration
	active              atomic.Int64 // when a byte last came, either way, in Unix nanoseconds

	mu        sync.Mutex // guards the fields below
	reason    error      // the first one
	closed    bool
	lingering *time.Timer
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
	if reason != d.fromClosed {
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
		if err := d.write(d.first); err != nil {
			return err
		}
		d.first = nil
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	d.from.SetReadDeadline(time.Now().Add(d.idle))
	for {
		n, err := d.from.Read(buf[:])
		if n > 0 {
			if err := d.write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == nil:
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return d.fromClosed
		case d.isIdle():
			return ErrIdle
		}
	}
}

// isIdle is asked when the read deadline has passed. It is not moved with each byte; only here, if there were some meanwhile.
func (d *direction) isIdle() bool {
	until := time.Unix(0, d.active.Load()).Add(d.idle)
	if time.Until(until) <= 0 {
		return true
	}
	d.from.SetReadDeadline(until)
	return false
}

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
