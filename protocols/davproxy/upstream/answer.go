package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
)

// answerBody is what follows an answer's header.
type answerBody struct {
	transport *Transport
	link      *link
	ctx       context.Context
	release   func() bool // lets the context go; false: it has cut the connection
	keep      bool        // the connection can be used again after the end
	chunks    io.Reader   // nil: there are none
	left      int64       // bytes; -1: until the backend hangs up
	over      bool
	err       error // after over
}

// errNoEnd says that an answer ended with its connection, which somebody in between can bring about: crypto/tls does not tell whether
// the backend has said goodbye.
var errNoEnd = errors.New("over TLS it must say its length, or come in chunks")

// frame says where the body ends.
func (a *answerBody) frame(h head, method string) {
	switch {
	case h.bodiless(method):
		a.keep = a.keep && h.status >= 200 // behind 101 comes another protocol
	case h.chunked:
		a.chunks = a.link.chunks()
	default:
		a.left = h.length
		a.keep = a.keep && h.length >= 0
	}
}

// Read tells of an end only if the answer is whole.
func (a *answerBody) Read(p []byte) (n int, err error) {
	if a.over {
		return 0, a.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	switch {
	case a.chunks != nil:
		n, err = a.chunks.Read(p)
		if err == io.EOF {
			err = a.link.skipTrailer()
			if err == nil {
				err = io.EOF
			}
		}
	case a.left < 0:
		n, err = a.link.r.Read(p)
		if err == io.EOF && a.link.isTLS() {
			err = errNoEnd
		}
	default:
		n, err = a.link.r.Read(p[:min(int64(len(p)), a.left)])
		if a.left -= int64(n); a.left == 0 {
			err = io.EOF
		} else if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
	}
	switch err {
	case nil:
	case io.EOF:
		a.finish()
	default:
		err = &AnswerError{a.explain(err)}
		a.fail(err)
	}
	return n, err
}

// finish is called at the end of the answer.
func (a *answerBody) finish() {
	a.over, a.err = true, io.EOF
	if a.release() && a.keep {
		a.transport.put(a.link)
	} else {
		a.link.hangUp()
	}
}

func (a *answerBody) fail(err error) {
	a.over, a.err = true, err
	a.release()
	a.link.hangUp()
}

// Close ends an answer. What of it was not read ends the connection.
func (a *answerBody) Close() error {
	if !a.over {
		a.fail(http.ErrBodyReadAfterClose)
	}
	return nil
}

// explain finds the cause of an error on the connection.
func (a *answerBody) explain(err error) error {
	if _, ok := errors.AsType[*BodyError](err); ok {
		return err
	}
	switch {
	case a.ctx.Err() != nil:
		return context.Cause(a.ctx)
	case isTimeout(err):
		return ErrStalled
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}
