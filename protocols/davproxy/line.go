package davproxy

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"postern/protocols/parking"
)

// line is a client's connection as net/http has it in HTTP/1.1, above TLS. Between two requests net/http keeps a goroutine and two buffers
// for it, two thirds of what such a client costs. So when a client has said nothing for a while, net/http is told that reading took too
// long: it ends its goroutine and closes the line, which does not close but is parked. When the client says something, net/http gets the
// line again, as if from a listener. What TLS has read of a record stays with it.
type line struct {
	net.Conn         // *tls.Conn or, in plain text, the client's own
	corked   *corked // beneath TLS; nil: plain text
	conns    *connections
	conn     *conn
	parks    bool        // it has a socket to wait for
	kept     atomic.Bool // net/http may close it, but it goes on: parked, or as HTTP/2

	// Of the goroutine that serves it.
	room     int       // what net/http asks for when it has buffered nothing
	answered bool      // the next deadline is that of the wait for the next request
	quiet    bool      // nothing has come yet of the next request
	until    time.Time // how long it may be quiet
	early    bool      // the deadline comes before that
	again    bool      // it was parked, and nobody has begun to read

	mu     sync.Mutex // guards the fields below
	parked bool
	over   *time.Timer // ends it when it was quiet for too long
	spot   parking.Spot
}

// peeked is how much of a request net/http waits for before it sets the deadline for all of its header.
const peeked = 4

// forHTTP is what net/http gets to serve.
func (l *line) forHTTP() net.Conn {
	if _, ok := l.Conn.(*tls.Conn); ok {
		return secureLine{l}
	}
	return l
}

// rest is called when a request was answered.
func (l *line) rest() { l.answered = l.parks }

func (l *line) SetReadDeadline(t time.Time) error {
	switch {
	case l.answered:
		l.answered, l.quiet, l.until, l.early = false, true, t, true
		t = t.Add(-l.conns.early)
	case l.again: // the first one, before anything is read
		l.again = false
	case l.quiet: // a request is there, which came with the last one: nobody has read meanwhile
		l.quiet, l.early = false, false
	}
	return l.Conn.SetReadDeadline(t)
}

func (l *line) Read(b []byte) (int, error) {
	if !l.quiet {
		if l.room == 0 {
			l.room = len(b)
		}
		return l.Conn.Read(b)
	}
	empty := len(b) == l.room
	if !empty { // a part of the next request came with the last one; it would be lost
		l.patient()
	}
	n, err := l.Conn.Read(b)
	switch {
	case n >= peeked:
		l.quiet = false
	case n > 0:
		l.quiet = false
		l.patient()
	case empty && errors.Is(err, os.ErrDeadlineExceeded):
		l.early, l.again = false, true
		l.kept.Store(true)
	}
	return n, err
}

// patient gives a client the time that it has if its connection is not parked.
func (l *line) patient() {
	if l.early {
		l.early = false
		l.Conn.SetReadDeadline(l.until)
	}
}

// Close is called by who serves it, and by http.Server while it drains.
func (l *line) Close() error {
	if l.kept.Load() {
		return nil
	}
	return l.Conn.Close()
}

// CloseWrite is what net/http does, if it can, before it stops reading.
func (l *line) CloseWrite() error {
	if c, ok := l.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// park is called when net/http has let go of the line.
func (l *line) park() {
	l.kept.Store(false)
	if !l.enterLot() {
		l.end(l.conns.reason())
	}
}

func (l *line) enterLot() bool {
	lot, err := l.conns.parkingLot()
	if err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns.draining.Load() {
		return false
	}
	l.Conn.SetReadDeadline(time.Time{}) // a deadline is a timer of the runtime's
	l.parked, l.over = true, time.AfterFunc(time.Until(l.until), l.expire)
	if lot.Park(l.Conn, l, &l.spot) != nil { // it has been closed
		l.leave()
		return false
	}
	return true
}

// leave is called with mu held. true: it was parked, and whoever called is the one to go on with it.
func (l *line) leave() bool {
	if !l.parked {
		return false
	}
	l.parked = false
	l.over.Stop()
	l.over = nil
	return true
}

func (l *line) unpark() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leave()
}

// Unpark has net/http serve the line again: the client has said something, or has closed.
func (l *line) Unpark() {
	if l.unpark() && !l.conns.back.give(l.forHTTP()) {
		go l.end(l.conns.reason())
	}
}

// expire ends a line that was quiet for too long.
func (l *line) expire() {
	if l.unpark() {
		l.end("idle")
	}
}

// drain ends a line that is parked.
func (l *line) drain() {
	if l.unpark() {
		go l.end(l.conns.reason()) // each its own: TLS may wait for who takes nothing
	}
}

// hangUp cuts the connection. It does not wait for TLS's goodbye.
func (l *line) hangUp() {
	parking.Lowest(l.Conn).Close()
	if l.unpark() { // else who serves it notices
		l.end(l.conns.reason())
	}
}

// end closes a line that nobody serves.
func (l *line) end(reason string) {
	l.Conn.Close()
	l.closed(l.forHTTP(), reason)
}

// closed is called once, when the connection is closed, with what net/http had of it last.
func (l *line) closed(served net.Conn, reason string) {
	l.conns.open.Delete(served)
	if l.spot != 0 { // nobody parks it any more
		l.conns.lot.Leave(&l.spot)
	}
	l.conn.close(reason)
}
