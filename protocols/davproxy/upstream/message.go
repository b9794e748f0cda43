package upstream

import (
	"io"
	"net/http"
	"strconv"
	"sync"
)

// How bodies are sent, in bytes.
const (
	maxAtOnce = 16 << 10 // together with the header
	pieceSize = 32 << 10 // of a longer one
)

// message is a request as it is sent: head and short body in one piece, or the head, and a long body behind it.
type message struct {
	req    *http.Request
	text   []byte
	rest   io.ReadCloser // nil: text is all
	length int64         // of rest; -1: unknown
	used   bool          // some of rest was read
}

var messages = sync.Pool{New: func() any { return &message{text: make([]byte, 0, maxAtOnce+2<<10)} }}

// compose reads a short body whole, so that a client's slowness or end is no matter between us and the backend.
func compose(req *http.Request) (*message, error) {
	m := messages.Get().(*message)
	m.req = req
	if req.Body != nil && req.Body != http.NoBody {
		if m.length = req.ContentLength; m.length == 0 {
			m.length = -1
		}
	}
	b, err := appendHead(m.text, req, m.length)
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
	if b != nil { // else it can't be written
		m.text = b
	}
	if err != nil {
		m.free()
		return nil, err
	}
	return m, nil
}

func (m *message) free() {
	clear(m.text) // there may be a credential in it
	*m = message{text: m.text[:0]}
	if cap(m.text) <= 2*maxAtOnce {
		messages.Put(m)
	}
}

// room is what is left behind the text.
func (m *message) room() []byte { return m.text[len(m.text):cap(m.text)] }

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

// converse sends a request and reads the head of its answer. whole: all of the request was sent.
func (l *link) converse(m *message) (h head, whole bool, far progress, err error) {
	if m.rest != nil {
		return l.converseLong(m)
	}
	n, errSend := l.nc.Write(m.text) // begin has just given it its time
	switch {
	case errSend == nil:
	case n == 0 && isTimeout(errSend):
		return head{}, false, unsent, errSend
	case n == 0:
		if _, _, err := l.readHead(m.room()); isAlert(err) { // it does not take our certificate, which TLS 1.3 tells behind the handshake
			errSend = err
		}
		return head{}, false, unsent, errSend
	case isTimeout(errSend):
		return head{}, false, sent, errSend
	}
	h, far, err = l.readHead(m.room()) // where it has hung up in the middle, it may have said why
	if err != nil && errSend != nil {
		err = errSend
	}
	return h, errSend == nil, far, err
}

// converseLong sends a long body and waits for the answer meanwhile: a backend may refuse before it has taken all, or while the
// client rests. A refusal ends the upload; a success waits for its end, or else the client would be told of half a body.
func (l *link) converseLong(m *message) (h head, whole bool, far progress, err error) {
	l.send()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.sent(l.sendAll(m))
	}()
	h, far, err = l.readHead(m.room())
	refused := err != nil || h.status >= 300
	if refused && l.stopSending() {
		m.rest.Close() // wakes a Read of the client's body
	}
	<-ended
	whole, errSend := l.outcome()
	if errSend != nil && (err != nil || !refused) {
		h, err = head{}, errSend
	}
	return h, whole, max(far, sent), err
}

// piece is a part of a body, with room for a chunk's head in front of it and the line end behind.
type piece [chunkHead + pieceSize + 2]byte

const chunkHead = 10 // the length in hexadecimal, with its line end

var pieces = sync.Pool{New: func() any { return new(piece) }}

func (l *link) sendAll(m *message) error {
	if _, err := l.write(m.text); err != nil {
		return err
	}
	buf := pieces.Get().(*piece)
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
func (l *link) sendPiece(buf *piece, n int, chunked bool) error {
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
