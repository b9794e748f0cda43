package upstream

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of what a backend says besides bodies, in bytes.
const (
	maxHeader  = 64 << 10
	maxTrailer = 4 << 10
)

// longAgo as a deadline wakes whoever reads or writes.
var longAgo = time.Unix(1, 0)

// link is a connection to a backend. One request at a time uses it. It is the one place that moves its deadlines.
type link struct {
	nc     net.Conn
	lowest net.Conn        // beneath TLS
	raw    syscall.RawConn // nil: it is no socket
	r      *bufio.Reader   // reads by way of Read
	cuts   func()          // cut, made once
	polls  func(uintptr)   // poll, made once
	silent bool            // what poll has found
	limit  time.Duration
	since  time.Time // when it was put among the idle ones

	mu       sync.Mutex // guards the fields below, and the deadlines
	isCut    bool
	sending  bool      // a body is on its way: an answer is not waited for yet
	stopped  bool      // sending it was ended
	failed   error     // why sending it ended early by itself
	readSet  time.Time // when the deadlines were moved last
	writeSet time.Time
}

func newLink(nc net.Conn, limit time.Duration) *link {
	l := &link{nc: nc, lowest: nc, limit: limit}
	if tc, ok := nc.(*tls.Conn); ok {
		l.lowest = tc.NetConn()
	}
	if sc, ok := l.lowest.(syscall.Conn); ok {
		l.raw, _ = sc.SyscallConn()
	}
	l.r = bufio.NewReaderSize(l, 16<<10)
	l.cuts, l.polls = l.cut, l.poll
	return l
}

// quiet tells whether an idle connection is open and has nothing to say.
func (l *link) quiet() bool {
	if l.raw == nil {
		return true
	}
	err := l.raw.Control(l.polls)
	return err == nil && l.silent && (!l.isTLS() || l.hasReadNothing())
}

// poll finds out whether there is nothing to be read from a socket.
func (l *link) poll(fd uintptr) {
	p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p[:], 0)
	l.silent = n == 0 && err == nil
}

func (l *link) isTLS() bool { return l.nc != l.lowest }

// hasReadNothing tells whether TLS holds nothing that was in the socket before: it reads on behind the record that it is asked for.
// With its deadline in the past, a Read takes nothing from the socket. Nobody else uses an idle connection.
func (l *link) hasReadNothing() bool {
	l.mu.Lock()
	l.readSet = time.Time{} // so that begin moves it on
	l.nc.SetReadDeadline(longAgo)
	l.mu.Unlock()
	n, err := l.nc.Read(make([]byte, 1))
	return n == 0 && isTimeout(err)
}

// hangUp closes a connection whose answer nobody waits for: TLS would take five seconds to say goodbye to who takes nothing.
func (l *link) hangUp() { l.lowest.Close() }

// cut wakes whoever reads or writes, for good.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut = true
	l.nc.SetDeadline(longAgo)
}

// begin gives a request's first bytes and the wait for its answer their time.
func (l *link) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); !l.isCut && (l.stale(l.readSet, now) || l.stale(l.writeSet, now)) {
		l.readSet, l.writeSet = now, now
		l.nc.SetDeadline(now.Add(l.limit))
	}
}

// stale tells whether a deadline has to be moved. It is left standing if that was done only just now.
func (l *link) stale(set, now time.Time) bool { return now.Sub(set) > l.limit/64 }

// Read gives each wait its time.
func (l *link) Read(p []byte) (int, error) {
	l.mu.Lock()
	if now := time.Now(); !l.isCut && !l.sending && l.stale(l.readSet, now) {
		l.readSet = now
		l.nc.SetReadDeadline(now.Add(l.limit))
	}
	l.mu.Unlock()
	return l.nc.Read(p)
}

func (l *link) write(p []byte) (int, error) {
	l.mu.Lock()
	if now := time.Now(); !l.isCut && !l.stopped && l.stale(l.writeSet, now) {
		l.writeSet = now
		l.nc.SetWriteDeadline(now.Add(l.limit))
	}
	l.mu.Unlock()
	return l.nc.Write(p)
}

// send says that a body is on its way, and an answer not waited for yet.
func (l *link) send() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sending, l.stopped, l.failed = true, false, nil
	if !l.isCut {
		l.readSet = time.Time{} // so that the next Read moves it on
		l.nc.SetReadDeadline(time.Time{})
	}
}

// sent says how sending a body has ended, and gives the answer its time. Also after an error: where the backend has hung up, it may
// have said why. Where it took nothing, or the client's words ended, nobody waits for it.
func (l *link) sent(err error) {
	_, ofClient := errors.AsType[*BodyError](err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sending = false
	if l.stopped || l.isCut {
		return
	}
	l.failed = err
	if ofClient || isTimeout(err) {
		l.isCut = true
		l.nc.SetReadDeadline(longAgo)
		return
	}
	l.readSet = time.Now()
	l.nc.SetReadDeadline(l.readSet.Add(l.limit))
}

// stopSending ends sending a body; reading goes on. It tells whether there was something to end.
func (l *link) stopSending() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sending {
		l.stopped = true
		l.nc.SetWriteDeadline(longAgo)
	}
	return l.sending
}

// outcome tells how sending a body has ended.
func (l *link) outcome() (whole bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.stopped && !l.isCut && l.failed == nil, l.failed
}

// readHead reads the head of the final answer, without memory of its own where it fits into room. Those that only say that it will come
// (RFC 9110 section 15.2) are skipped; together they are bounded as one is.
func (l *link) readHead(room []byte) (head, progress, error) {
	for left := maxHeader; ; {
		b, err := l.readLines(room[:0], left)
		far := sent
		if len(b) > 0 {
			far = answered
		}
		if err != nil {
			return head{}, far, err
		}
		h, err := parseHead(b)
		if err != nil || h.status >= 200 || h.status == http.StatusSwitchingProtocols {
			return h, answered, err
		}
		left -= len(b)
	}
}

// readLines appends everything up to and with an empty line, of at most so many bytes.
func (l *link) readLines(b []byte, most int) ([]byte, error) {
	for begin := 0; ; {
		part, err := l.r.ReadSlice('\n')
		b = append(b, part...)
		switch {
		case len(b) > most:
			return b, fmt.Errorf("%w: a header of more than %d bytes", errHead, most)
		case err == bufio.ErrBufferFull:
			continue
		case err != nil:
			return b, err
		}
		if line := b[begin:]; len(line) == 1 || len(line) == 2 && line[0] == '\r' {
			return b, nil
		}
		begin = len(b)
	}
}

// chunks reads a body in chunks, without the trailer.
func (l *link) chunks() io.Reader { return httputil.NewChunkedReader(l.r) }

// skipTrailer reads what stands behind the last chunk.
func (l *link) skipTrailer() error {
	_, err := l.readLines(nil, maxTrailer)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// isAlert tells TLS's word of why the other side ended it (RFC 8446 section 6).
func isAlert(err error) bool {
	told, ok := errors.AsType[*net.OpError](err)
	return ok && told.Op == "remote error"
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
