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
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of messages, in bytes.
const (
	maxAtOnce  = 16 << 10 // of a body that is sent together with its header
	pieceSize  = 32 << 10 // of a longer one
	maxHeader  = 64 << 10 // of an answer
	maxTrailer = 4 << 10
)

// message is a request as it is sent: head and short body in one piece, or the head, and a long body behind it.
type message struct {
	req    *http.Request
	text   *[]byte
	rest   io.ReadCloser // nil: text is all
	length int64         // of rest; -1: unknown
	used   bool          // some of rest was read
}

var texts = sync.Pool{New: func() any { b := make([]byte, 0, maxAtOnce+2<<10); return &b }}

// compose reads a short body whole, so that a client's slowness or end is no matter between us and the backend.
func compose(req *http.Request) (*message, error) {
	m := &message{req: req, text: texts.Get().(*[]byte)}
	if req.Body != nil && req.Body != http.NoBody {
		if m.length = req.ContentLength; m.length == 0 {
			m.length = -1
		}
	}
	b, err := appendHead((*m.text)[:0], req, m.length)
	switch {
	case err != nil:
	case m.length < 0, m.length > maxAtOnce:
		m.rest = req.Body
	case m.length > 0:
		n := len(b)
		b = append(b, make([]byte, m.length)...)
		if _, errBody := io.ReadFull(req.Body, b[n:]); errBody != nil {
			err = &BodyError{errBody}
		}
	}
	*m.text = b
	if err != nil {
		m.free()
		return nil, err
	}
	return m, nil
}

func (m *message) free() {
	if m.text != nil && cap(*m.text) <= 2*maxAtOnce {
		clear(*m.text) // there may be a credential in it
		texts.Put(m.text)
	}
	m.text = nil
}

// again tells whether a request that failed may be sent once more, and makes it ready for that.
func (m *message) again(far progress) bool {
	switch m.req.Method {
	case http.MethodGet, http.MethodHead, "PROPFIND", "REPORT": // they change nothing
		if far == answered {
			return false
		}
	default:
		if far != unsent {
			return false
		}
	}
	if !m.used {
		return true
	}
	body, ok := m.rest.(io.Seeker)
	if !ok {
		return false
	}
	_, err := body.Seek(0, io.SeekStart)
	m.used = false
	return err == nil
}

// longAgo as a deadline wakes whoever reads or writes.
var longAgo = time.Unix(1, 0)

// link is a connection to a backend. One request at a time uses it. It is the one place that moves its deadlines.
type link struct {
	nc     net.Conn
	lowest net.Conn        // beneath TLS
	raw    syscall.RawConn // nil: it is no socket
	r      *bufio.Reader   // reads by way of Read
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
	return l
}

// quiet tells whether an idle connection is open and has nothing to say.
func (l *link) quiet() bool {
	if l.raw == nil {
		return true
	}
	quiet := false
	err := l.raw.Control(func(fd uintptr) {
		p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p[:], 0)
		quiet = n == 0 && err == nil
	})
	return err == nil && quiet
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
	if l.isCut {
		return
	}
	now := time.Now()
	l.readSet, l.writeSet = now, now
	l.nc.SetDeadline(now.Add(l.limit))
}

// Read gives each wait its time. A deadline is left standing that was moved only just now.
func (l *link) Read(p []byte) (int, error) {
	l.mu.Lock()
	if now := time.Now(); !l.isCut && !l.sending && now.Sub(l.readSet) > l.limit/64 {
		l.readSet = now
		l.nc.SetReadDeadline(now.Add(l.limit))
	}
	l.mu.Unlock()
	return l.nc.Read(p)
}

func (l *link) write(p []byte) (int, error) {
	l.mu.Lock()
	if now := time.Now(); !l.isCut && !l.stopped && now.Sub(l.writeSet) > l.limit/64 {
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

// converse sends a request and reads the head of its answer. whole: all of the request was sent.
func (l *link) converse(m *message, method string) (h *head, whole bool, far progress, err error) {
	if m.rest != nil {
		return l.converseLong(m)
	}
	n, errSend := l.write(*m.text)
	if errSend != nil && n == 0 {
		return nil, false, unsent, errSend
	}
	if errSend != nil && isTimeout(errSend) {
		return nil, false, sent, errSend
	}
	h, far, err = l.readHead() // where it has hung up in the middle, it may have said why
	if err != nil && errSend != nil {
		err = errSend
	}
	return h, errSend == nil, far, err
}

// converseLong sends a long body and waits for the answer meanwhile: a backend may refuse before it has taken all, or while the
// client rests. A refusal ends the upload; a success waits for its end, or else the client would be told of half a body.
func (l *link) converseLong(m *message) (h *head, whole bool, far progress, err error) {
	l.send()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.sent(l.sendAll(m))
	}()
	h, far, err = l.readHead()
	refused := err != nil || h.status >= 300
	if refused && l.stopSending() {
		m.rest.Close() // wakes a Read of the client's body
	}
	<-ended
	whole, errSend := l.outcome()
	if errSend != nil && (err != nil || !refused) {
		h, err = nil, errSend
	}
	return h, whole, max(far, sent), err
}

var pieces = sync.Pool{New: func() any { return new([pieceSize + chunkHead + 2]byte) }}

const chunkHead = 10 // in front of a piece, for its length in hexadecimal

func (l *link) sendAll(m *message) error {
	if _, err := l.write(*m.text); err != nil {
		return err
	}
	buf := pieces.Get().(*[pieceSize + chunkHead + 2]byte)
	defer pieces.Put(buf)
	m.used = true
	for left := m.length; left != 0; {
		room := buf[chunkHead : chunkHead+pieceSize]
		if left > 0 {
			room = room[:min(left, pieceSize)]
		}
		n, err := m.rest.Read(room)
		if n > 0 {
			if errWrite := l.sendPiece(buf, n, left < 0); errWrite != nil {
				return errWrite
			}
		}
		if left > 0 {
			left -= int64(n)
		}
		switch {
		case err == io.EOF && left < 0:
			_, err = l.write([]byte("0\r\n\r\n"))
			return err
		case err == io.EOF && left > 0:
			return &BodyError{io.ErrUnexpectedEOF}
		case err != nil && left != 0:
			return &BodyError{err}
		}
	}
	return nil
}

// sendPiece sends n bytes that stand behind the room for a chunk's head.
func (l *link) sendPiece(buf *[pieceSize + chunkHead + 2]byte, n int, chunked bool) error {
	from, to := chunkHead, chunkHead+n
	if chunked {
		size := strconv.AppendInt(buf[:0:chunkHead], int64(n), 16)
		from -= len(size) + 2
		copy(buf[from:], size)
		copy(buf[chunkHead-2:], "\r\n")
		to += copy(buf[to:], "\r\n")
	}
	_, err := l.write(buf[from:to])
	return err
}

// readHead reads the head of the final answer. Those that only say that it will come (RFC 9110 section 15.2) are skipped; together
// they are bounded as one is.
func (l *link) readHead() (*head, progress, error) {
	text := texts.Get().(*[]byte)
	defer func() { texts.Put(text) }()
	for left := maxHeader; ; {
		b, err := l.readLines((*text)[:0], left)
		if cap(b) <= 2*maxAtOnce {
			*text = b
		}
		far := sent
		if len(b) > 0 {
			far = answered
		}
		if err != nil {
			return nil, far, err
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

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
