package davproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"postern/protocols"
)

// upstream is the way to one backend: HTTP/1.1 over connections that are kept for the next request. A request and its answer are
// written and read by the goroutine that asks; only a long body has a second one, until RoundTrip returns. (http.Transport has two
// for each connection, and cost a third of a request's CPU.) It follows no redirects, decompresses nothing, and repeats nothing that
// may have changed something. Goroutines may share it.
type upstream struct {
	connect func(context.Context) (net.Conn, error)
	limit   time.Duration // of each wait for the backend: to connect, to take bytes, to answer, to go on. Waiting for the client is not counted

	mu     sync.Mutex // guards the fields below
	idle   []*link    // the one that was used last comes last, and is used next
	expiry *time.Timer
	closed bool
}

func newUpstream(r *protocols.Route, o protocols.Observer, limit time.Duration) *upstream {
	return &upstream{limit: limit, connect: func(ctx context.Context) (net.Conn, error) {
		began := time.Now()
		nc, err := connect(ctx, r)
		o.Backend(r.Backend, "connect", time.Since(began), err)
		return nc, err
	}}
}

// RoundTrip sends a request and reads the beginning of its answer. It is an http.RoundTripper but for one thing: it closes a
// request's body only to end a Read of it that is under way.
func (u *upstream) RoundTrip(req *http.Request) (*http.Response, error) {
	m, err := compose(req)
	if err != nil {
		return nil, err
	}
	defer m.free()
	l := u.take()
	for {
		reused := l != nil
		if !reused {
			if l, err = u.dial(req.Context()); err != nil {
				return nil, err
			}
		}
		resp, far, err := u.exchange(l, req, m)
		if err == nil {
			return resp, nil
		}
		l.hangUp()
		if !reused || req.Context().Err() != nil || errors.Is(err, errStalled) || !m.again(far) {
			return nil, err
		}
		l = nil // the backend had hung up: a new connection tells whether that was all
	}
}

// take returns a connection that was kept and that the backend still holds; nil: there is none. One that has something to say while
// nobody asks is of no use: it would be taken for the next answer.
func (u *upstream) take() *link {
	for {
		u.mu.Lock()
		n := len(u.idle)
		if n == 0 {
			u.mu.Unlock()
			return nil
		}
		l := u.idle[n-1]
		u.idle[n-1] = nil
		u.idle = u.idle[:n-1]
		u.mu.Unlock()
		if l.quiet() {
			return l
		}
		l.hangUp()
	}
}

// put keeps a connection for the next request.
func (u *upstream) put(l *link) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed || len(u.idle) >= maxIdle || l.r.Buffered() > 0 {
		l.nc.Close()
		return
	}
	l.since = time.Now()
	u.idle = append(u.idle, l)
	if u.expiry == nil {
		u.expiry = time.AfterFunc(idleTime, u.expire)
	}
}

// expire closes what nobody has used for a time.
func (u *upstream) expire() {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	old := 0
	for old < len(u.idle) && now.Sub(u.idle[old].since) >= idleTime {
		u.idle[old].nc.Close()
		old++
	}
	u.idle = slices.Delete(u.idle, 0, old)
	if u.expiry = nil; len(u.idle) > 0 {
		u.expiry = time.AfterFunc(idleTime-now.Sub(u.idle[0].since), u.expire)
	}
}

// close closes what is idle, and the others after their requests.
func (u *upstream) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	for _, l := range u.idle {
		l.nc.Close()
	}
	u.idle = nil
	if u.expiry != nil {
		u.expiry.Stop()
	}
}

func (u *upstream) dial(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, u.limit, errStalled)
	defer cancel()
	nc, err := u.connect(ctx)
	if err != nil {
		if ctx.Err() != nil { // net says "operation was canceled"
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return newLink(nc, u.limit), nil
}

// progress is how far a request came that failed.
type progress uint8

const (
	unsent progress = iota // the backend has nothing of it
	sent
	answered // it has begun to answer
)

// exchange sends a request over a connection and reads the beginning of the answer. After an error the connection is of no use.
func (u *upstream) exchange(l *link, req *http.Request, m *message) (*http.Response, progress, error) {
	ctx := req.Context()
	a := &answerBody{upstream: u, link: l, ctx: ctx, release: context.AfterFunc(ctx, l.cut)}
	l.begin()
	h, whole, far, err := l.converse(m, req.Method)
	if err != nil {
		err = a.explain(err)
		a.release()
		return nil, far, err
	}
	a.keep = whole && !h.close
	resp := &http.Response{
		Status: h.reason, StatusCode: h.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h.header, ContentLength: h.length, Body: a, Request: req,
	}
	a.frame(h, req.Method)
	if a.left == 0 && a.chunks == nil {
		a.finish()
		resp.Body = http.NoBody
	}
	return resp, answered, nil
}

// errStalled says that a backend did nothing for a time.
var errStalled = errors.New("it has stalled")

// answerError says that a backend's answer could not be read to its end.
type answerError struct{ cause error }

func (e *answerError) Error() string { return "the answer: " + e.cause.Error() }
func (e *answerError) Unwrap() error { return e.cause }

// answerBody is what follows an answer's header.
type answerBody struct {
	upstream *upstream
	link     *link
	ctx      context.Context
	release  func() bool // lets the context go; false: it has cut the connection
	keep     bool        // the connection can be used again after the end
	chunks   io.Reader   // nil: there are none
	left     int64       // bytes; -1: until the backend hangs up
	over     bool
	err      error // after over
}

// frame says where the body ends.
func (a *answerBody) frame(h *head, method string) {
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
		err = &answerError{a.explain(err)}
		a.fail(err)
	}
	return n, err
}

// finish is called at the end of the answer.
func (a *answerBody) finish() {
	a.over, a.err = true, io.EOF
	if a.release() && a.keep {
		a.upstream.put(a.link)
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
	if _, ok := errors.AsType[*bodyError](err); ok {
		return err
	}
	switch {
	case a.ctx.Err() != nil:
		return context.Cause(a.ctx)
	case isTimeout(err):
		return errStalled
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}
