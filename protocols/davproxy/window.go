package davproxy

import (
	"bytes"
	"io"
)

// windowSize is how much of a document is held at once, in bytes.
const windowSize = 32 << 10

// window is the part of a document that is being read. It slides over the bytes of src and is never larger than buf.
type window struct {
	src   io.Reader
	buf   []byte
	first int // where the token begins; what stands before is forgotten
	last  int
	err   error // of src, for when all is read
}

// need returns what is here from the token's beginning on, at least n bytes of it, or the reason why it ends.
func (w *window) need(n int) ([]byte, error) {
	for w.last-w.first < n {
		if err := w.fill(); err != nil {
			return w.buf[w.first:w.last], err
		}
	}
	return w.buf[w.first:w.last], nil
}

// maxEmptyReads is how often in a row a reader may return nothing.
const maxEmptyReads = 100

func (w *window) fill() error {
	if w.err != nil {
		return w.err
	}
	if w.first > 0 {
		w.last = copy(w.buf, w.buf[w.first:w.last])
		w.first = 0
	}
	if w.last == len(w.buf) {
		return errTooLarge
	}
	for range maxEmptyReads {
		n, err := w.src.Read(w.buf[w.last:])
		w.last += n
		w.err = err
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// take returns the token's first n bytes; the next token begins behind them.
func (w *window) take(n int) []byte {
	b := w.buf[w.first : w.first+n]
	w.first += n
	return b
}

// cut tells that a document ends where it must not.
func cut(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// has tells whether certain bytes begin at the token's i-th one.
func (w *window) has(i int, what string) bool {
	b, _ := w.need(i + len(what)) // whoever asks for more is told
	return bytes.HasPrefix(b[i:], []byte(what))
}

// until takes what reaches to an end mark, with it; from is where to look first.
func (w *window) until(from int, end string) ([]byte, error) {
	b := w.buf[w.first:w.last]
	for {
		if i := bytes.Index(b[min(from, len(b)):], []byte(end)); i >= 0 {
			return w.take(from + i + len(end)), nil
		}
		from = max(from, len(b)-len(end)+1)
		var err error
		if b, err = w.need(len(b) + 1); err != nil {
			return nil, cut(err)
		}
	}
}
