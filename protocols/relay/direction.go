package relay

import (
	"errors"
	"math"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"postern/protocols/parking"
)

// direction is one way. A copier has it, or it is parked.
type direction struct {
	*Session
	copied int64         // bytes
	since  time.Duration // when it was last parked; 0: never
	spot   parking.Spot  // in the relay's lot
	parked bool          // guarded by Session.mu
}

// copier copies one way until the direction ends or is parked. One goroutine has it.
type copier struct {
	*direction
	from, to   net.Conn
	read       time.Duration // when something was last read, by clock
	parks      bool          // when nothing comes for a while, which patience is
	patience   time.Duration
	expects    int           // bytes at least of what comes next, so that it finds room
	readUntil  time.Duration // from's read deadline, but for what stopReading does; 0: none
	writeUntil time.Duration // to's write deadline
}

func (d *direction) from() net.Conn {
	if d.isUp() {
		return d.pair.Client
	}
	return d.pair.Backend
}

func (d *direction) to() net.Conn {
	if d.isUp() {
		return d.pair.Backend
	}
	return d.pair.Client
}

func (d *direction) isUp() bool { return d == &d.Session.up }

// fromClosed and toClosed are what it means when that side closes.
func (d *direction) fromClosed() error {
	if d.isUp() {
		return ErrClientClosed
	}
	return ErrBackendClosed
}

func (d *direction) toClosed() error {
	if d.isUp() {
		return ErrBackendClosed
	}
	return ErrClientClosed
}

// run copies until the direction ends or is parked.
func (d *direction) run() {
	switch reason := d.carry(); reason {
	case errParked:
		return
	case errLeaving: // the other direction says goodbye
	case d.fromClosed():
		if !d.halfClosed(reason) || !closeWrite(d.to()) {
			d.end(nil)
		}
	default:
		d.end(reason)
	}
	d.finished()
}

func (d *direction) carry() (reason error) {
	defer func() {
		if v := recover(); v != nil {
			reason = &PanicError{v, debug.Stack()}
		}
	}()
	return (&copier{direction: d, from: d.from(), to: d.to()}).copy()
}

func (d *direction) finished() {
	d.mu.Lock()
	d.leaveLot()
	over := d.finish()
	d.mu.Unlock()
	if over {
		d.conclude()
	}
}

// Sizes of buffers. The small one holds the usual command or answer, so that a session that has just become quiet holds no more; a large one
// is a TLS record's (RFC 8446 section 5.1); the huge one saves system calls where bytes come in bulk and can't be spliced.
const (
	smallBuffer = 1 << 10
	largeBuffer = 16 << 10
	hugeBuffer  = 128 << 10
)

var (
	small = sync.Pool{New: func() any { return newBuffer(smallBuffer) }}
	large = sync.Pool{New: func() any { return newBuffer(largeBuffer) }}
	huge  = sync.Pool{New: func() any { return newBuffer(hugeBuffer) }}
)

func newBuffer(size int) *[]byte {
	b := make([]byte, size)
	return &b
}

// buffer is a pooled one, as large as what came last asks for.
type buffer struct {
	held *[]byte
	pool *sync.Pool // it is of
}

// bytes fits the buffer to what was read last, which is gone afterwards.
func (b *buffer) bytes(last int) []byte {
	pool := &small
	switch {
	case last >= largeBuffer:
		pool = &huge
	case last >= smallBuffer:
		pool = &large
	}
	if b.pool != pool {
		b.release()
		b.held, b.pool = pool.Get().(*[]byte), pool
	}
	return *b.held
}

func (b *buffer) release() {
	if b.pool != nil {
		b.pool.Put(b.held)
		b.held, b.pool = nil, nil
	}
}

func (d *copier) copy() error {
	d.read, d.parks = clock(), parking.Can(d.from)
	d.writeUntil = d.read // none is set
	if first := d.first(); len(first) > 0 {
		if err := d.pass(first); err != nil {
			return err
		}
	}
	var buf buffer
	defer buf.release()
	d.patience = d.relay.park()
	if d.since == 0 || d.read-d.since > d.patience {
		d.patience /= 16
	}
	if !d.await() {
		return errLeaving
	}
	for n := 0; ; {
		var err error
		p := buf.bytes(max(n, d.expects))
		d.expects = 0
		if n, err = d.from.Read(p); n == largeBuffer && len(p) > n && !isPlain(d.from) {
			n = d.more(p, n)
		}
		if n > 0 {
			d.read = d.touch()
			if d.isUp() && d.isStopped() { // the deadline that was to wake it came too late
				return errLeaving
			}
			if err := d.pass(p[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == nil:
			if n < len(p) || !d.canSplice() {
				continue
			}
			if err := d.splice(); err != nil {
				return err
			}
			if !d.await() {
				return errLeaving
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			if err := d.waited(); err != nil {
				return err
			}
		default:
			return d.fromClosed()
		}
	}
}

// isPlain tells whether what is read comes as it is from a socket.
func isPlain(c net.Conn) bool {
	switch c.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true
	}
	return false
}

// more reads the records of TLS that came together with a full one, and waits for none: to pass each by itself costs a system call, and the
// peer a wake-up.
func (d *copier) more(p []byte, n int) int {
	if !d.awaitUntil(past) {
		return n // who comes after sees that it is to stop
	}
	for len(p)-n >= largeBuffer {
		more, err := d.from.Read(p[n:])
		n += more
		if err != nil { // it comes again, unless it is that there is no more
			break
		}
	}
	d.await()
	return n
}

// past is a time by clock that has been.
const past = 1

// first is what was read of that side before.
func (d *direction) first() (p []byte) {
	if d.isUp() {
		p, d.pair.ToBackend = d.pair.ToBackend, nil
	} else {
		p, d.pair.ToClient = d.pair.ToClient, nil
	}
	return p
}

// waited is called when a read has ended without a byte: the direction is parked if it was quiet for long enough. Where the time has
// not come, it was either woken to stop, or will fail for ever: a layer between may keep its first error.
func (d *copier) waited() error {
	now := clock()
	switch {
	case d.isStopped():
		return errLeaving
	case now < d.readUntil:
		return d.fromClosed()
	}
	if now-d.read >= d.patience {
		if err := d.park(); err == errParked || err == errLeaving {
			return err
		}
		d.parks = false // it waits here instead
	}
	if !d.await() {
		return errLeaving
	}
	return nil
}

// await sets how long a read may wait: one that parks has to look whether it is time to. false: nothing more is to be read from the
// client.
func (d *copier) await() bool {
	if !d.parks {
		return d.awaitUntil(0)
	}
	return d.awaitUntil(d.read + d.patience)
}

// awaitUntil moves the deadline with mu held, or the wake-up of stopReading would be lost.
func (d *copier) awaitUntil(until time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped() {
		return false
	}
	d.readUntil = until
	d.from.SetReadDeadline(deadline(until))
	return true
}

// data is how much comes that nobody looks at, in bytes.
func (d *direction) data() int64 {
	if d.pair.Guard == nil {
		return math.MaxInt64
	}
	return d.pair.Guard.Data(d.isUp())
}

func (d *direction) isStopped() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stopped()
}

// stopped is called with mu held.
func (d *direction) stopped() bool { return d.closed || d.leaving && d.isUp() }

// pass hands on what was read, past the guard.
func (d *copier) pass(p []byte) error {
	switch {
	case d.pair.Guard == nil:
		return d.write(p)
	case d.isUp():
		return d.passUp(p)
	}
	return d.passDown(p)
}

func (d *copier) write(p []byte) error {
	d.mayStall(d.read)
	n, err := d.to.Write(p)
	d.copied += int64(n)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrStalled
	}
	return d.toClosed()
}

// mayStall sets how long the next write may take. Not each one moves the deadline.
func (d *copier) mayStall(now time.Duration) {
	if stall := d.relay.stall(); d.writeUntil-now < stall*3/4 {
		d.writeUntil = now + stall
		d.to.SetWriteDeadline(deadline(d.writeUntil))
	}
}
