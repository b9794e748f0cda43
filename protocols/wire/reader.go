// Package wire reads lines and literals of line protocols (IMAP, ManageSieve, SMTP, POP3) from peers that are not trusted:
// nothing is longer than its limit, and no byte is lost when the connection is handed over. It knows no command.
package wire

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// Limits before login, in bytes.
const (
	MaxLine     = 8 << 10  // of a command line with its CRLF, literals not counted (RFC 7162 section 4)
	MaxSASLLine = 16 << 10 // of an answer in a SASL exchange with its CRLF: OAuth tokens are long
	MaxLiteral  = 4 << 10  // of one literal, and of all literals of one command (RFC 7888 section 5)
)

// What ends a connection. Reading on after one of these would take the rest of something for a command, so a front door says
// goodbye and closes.
var (
	ErrTooLong = errors.New("line too long")
	ErrNUL     = errors.New("NUL byte")
	ErrFull    = errors.New("buffer full") // only from Watch
)

// ErrLineEnd says that a line ends in something else than CRLF, or has a CR inside. Servers differ in where it ends; this reader has
// taken it up to its LF.
var ErrLineEnd = errors.New("a line without CRLF")

// Reader is a bounded reader. Its buffer starts small, grows once, and is overwritten with zeros when it is released, because
// credentials were in it. A read that fails (by a deadline, for instance) loses nothing: it can be tried again. One goroutine uses
// it at a time.
type Reader struct {
	src        io.Reader
	buf        *[]byte // nil: nothing is buffered
	start, end int     // of what is buffered
}

// Sizes of the pooled buffers. Nearly every login fits into the small one.
const (
	smallBuffer = 1 << 10
	largeBuffer = MaxSASLLine
)

var (
	small = sync.Pool{New: func() any { b := make([]byte, smallBuffer); return &b }}
	large = sync.Pool{New: func() any { b := make([]byte, largeBuffer); return &b }}
)

// NewReader returns a reader of src.
func NewReader(src io.Reader) *Reader { return &Reader{src: src} }

// Line reads a line of at most limit bytes with its end, which is LF or CRLF, and returns it without. It is valid until the next
// call. The errors are ErrTooLong, ErrNUL, and the source's.
func (r *Reader) Line(limit int) ([]byte, error) {
	line, err := r.line(limit)
	return bytes.TrimSuffix(line, []byte("\r")), err
}

// StrictLine is Line for protocols in which only CRLF ends a line (RFC 5321 section 2.3.8); any other is ErrLineEnd.
func (r *Reader) StrictLine(limit int) ([]byte, error) {
	line, err := r.line(limit)
	if err == nil && (len(line) == 0 || bytes.IndexByte(line, '\r') != len(line)-1) {
		return nil, ErrLineEnd
	}
	return bytes.TrimSuffix(line, []byte("\r")), err
}

// line reads a line up to its LF, without that.
func (r *Reader) line(limit int) ([]byte, error) {
	for looked := 0; ; {
		have := r.Buffered()
		if i := bytes.IndexByte(have[looked:], '\n'); i >= 0 && looked+i < limit {
			line := have[:looked+i]
			r.start += len(line) + 1
			if bytes.IndexByte(line, 0) >= 0 {
				return nil, ErrNUL
			}
			return line, nil
		}
		if len(have) >= limit {
			return nil, ErrTooLong
		}
		looked = len(have)
		if err := r.fill(limit); err != nil {
			return nil, err
		}
	}
}

// Literal reads exactly n bytes. They are valid until the next call. A NUL among them is ErrNUL (CHAR8, RFC 9051 section 9).
func (r *Reader) Literal(n int) ([]byte, error) {
	if n > largeBuffer {
		return nil, ErrTooLong
	}
	for len(r.Buffered()) < n {
		if err := r.fill(n); err != nil {
			return nil, err
		}
	}
	literal := r.Buffered()[:n]
	r.start += n
	if bytes.IndexByte(literal, 0) >= 0 {
		return nil, ErrNUL
	}
	return literal, nil
}

// Buffered returns what has been read from the source and not been taken yet. It is valid until the next call.
func (r *Reader) Buffered() []byte {
	if r.buf == nil {
		return nil
	}
	return (*r.buf)[r.start:r.end]
}

// Watch reads ahead until the source fails, and returns its error; or ErrFull when MaxLine bytes wait. So one learns whether a
// peer is still there while nobody wants its words.
func (r *Reader) Watch() error {
	for len(r.Buffered()) < MaxLine {
		if err := r.fill(MaxLine); err != nil {
			return err
		}
	}
	return ErrFull
}

// Take hands over a copy of what is buffered, or nil, and releases the buffer.
func (r *Reader) Take() []byte {
	rest := bytes.Clone(r.Buffered())
	r.Release()
	if len(rest) == 0 {
		return nil
	}
	return rest
}

// Release clears the buffer and gives it back. What was buffered is lost; the Reader can be used again.
func (r *Reader) Release() {
	if r.buf == nil {
		return
	}
	clear(*r.buf)
	if len(*r.buf) == smallBuffer {
		small.Put(r.buf)
	} else {
		large.Put(r.buf)
	}
	r.buf, r.start, r.end = nil, 0, 0
}

// Reset releases the buffer and reads from another source from now on.
func (r *Reader) Reset(src io.Reader) {
	r.Release()
	r.src = src
}

// fill reads once from the source. want is how many bytes in a row the caller is after.
func (r *Reader) fill(want int) error {
	r.makeRoom(want)
	n, err := r.src.Read((*r.buf)[r.end:])
	r.end += n
	switch {
	case n > 0:
		return nil // an error comes again at the next read
	case err == nil:
		return io.ErrNoProgress
	}
	return err
}

// makeRoom moves what is buffered to the front where that helps, and to the large buffer where the small one is full.
func (r *Reader) makeRoom(want int) {
	switch {
	case r.buf == nil:
		r.buf = small.Get().(*[]byte)
	case r.start == r.end:
		clear((*r.buf)[:r.end])
		r.start, r.end = 0, 0
	case r.start > 0 && r.start+want > len(*r.buf):
		n := copy(*r.buf, r.Buffered())
		clear((*r.buf)[n:r.end])
		r.start, r.end = 0, n
	}
	if r.end == len(*r.buf) && len(*r.buf) == smallBuffer {
		grown := large.Get().(*[]byte)
		n := copy(*grown, r.Buffered())
		r.Release()
		r.buf, r.end = grown, n
	}
}
