// Package upstream is HTTP/1.1 towards one backend, in place of http.Transport: connections that are kept, answers whose end is beyond
// doubt, waits that are bounded. It knows nothing of DAV, of accounts or of credentials. The front door for DAV makes a Transport for each
// backend.
package upstream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Bounds of what is kept.
const (
	idleTime = 30 * time.Second // of a connection: less than servers allow
	maxIdle  = 64               // connections
)

// Transport is the way to one backend: HTTP/1.1 over connections that are kept for the next request. A request and its answer are
// written and read by the goroutine that asks; only a long body has a second one, until RoundTrip returns. (http.Transport has two
// for each connection, and cost a third of a request's CPU.) It follows no redirects, decompresses nothing, and repeats nothing that
// may have changed something. Goroutines may share it.
type Transport struct {
	dial  func(context.Context) (net.Conn, error)
	limit time.Duration

	mu     sync.Mutex // guards the fields below
	idle   []*link    // the one that was used last comes last, and is used next
	expiry *time.Timer
	closed bool
}

// New makes a Transport whose connections come from dial. limit is of each wait for the backend: to connect, to take bytes, to answer,
// to go on. Waiting for whoever supplies a request's body or reads an answer's is not counted.
func New(limit time.Duration, dial func(context.Context) (net.Conn, error)) *Transport {
	return &Transport{dial: dial, limit: limit}
}

// RoundTrip sends a request and reads the beginning of its answer. It is an http.RoundTripper but for one thing: it closes a
// request's body only to end a Read of it that is under way. What a kept connection did not answer goes over a new one, once, if
// the backend has nothing of it or it changes nothing (GET, HEAD, PROPFIND, REPORT), and its body is short, unread or an io.Seeker.
// Errors are ErrStalled, a *BodyError, the cause of the request's context, or what befell the connection; those of an answer's body
// stand in an *AnswerError.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	m, err := compose(req)
	if err != nil {
		return nil, err
	}
	defer m.free()
	l := t.take()
	for {
		reused := l != nil
		if !reused {
			if l, err = t.connect(req.Context()); err != nil {
				return nil, err
			}
		}
		resp, far, err := t.exchange(l, req, m)
		if err == nil {
			return resp, nil
		}
		l.hangUp()
		if !reused || req.Context().Err() != nil || errors.Is(err, ErrStalled) || !m.again(far) {
			return nil, err
		}
		l = nil // the backend had hung up: a new connection tells whether that was all
	}
}

// take returns a connection that was kept and that the backend still holds; nil: there is none. One that has something to say while
// nobody asks is of no use: it would be taken for the next answer.
func (t *Transport) take() *link {
	for {
		t.mu.Lock()
		n := len(t.idle)
		if n == 0 {
			t.mu.Unlock()
			return nil
		}
		l := t.idle[n-1]
		t.idle[n-1] = nil
		t.idle = t.idle[:n-1]
		t.mu.Unlock()
		if l.quiet() {
			return l
		}
		l.hangUp()
	}
}

// put keeps a connection for the next request.
func (t *Transport) put(l *link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || len(t.idle) >= maxIdle || l.r.Buffered() > 0 {
		l.nc.Close()
		return
	}
	l.since = time.Now()
	t.idle = append(t.idle, l)
	if t.expiry == nil {
		t.expiry = time.AfterFunc(idleTime, t.expire)
	}
}

// expire closes what nobody has used for a time.
func (t *Transport) expire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	old := 0
	for old < len(t.idle) && now.Sub(t.idle[old].since) >= idleTime {
		t.idle[old].nc.Close()
		old++
	}
	t.idle = slices.Delete(t.idle, 0, old)
	if t.expiry = nil; len(t.idle) > 0 {
		t.expiry = time.AfterFunc(idleTime-now.Sub(t.idle[0].since), t.expire)
	}
}

// Close closes what is idle, and the others after their requests.
func (t *Transport) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, l := range t.idle {
		l.nc.Close()
	}
	t.idle = nil
	if t.expiry != nil {
		t.expiry.Stop()
	}
}

func (t *Transport) connect(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, t.limit, ErrStalled)
	defer cancel()
	nc, err := t.dial(ctx)
	if err != nil {
		if ctx.Err() != nil { // net says "operation was canceled"
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return newLink(nc, t.limit), nil
}

// progress is how far a request came that failed.
type progress uint8

const (
	unsent progress = iota // the backend has nothing of it
	sent
	answered // it has begun to answer
)

// exchange sends a request over a connection and reads the beginning of the answer. After an error the connection is of no use.
func (t *Transport) exchange(l *link, req *http.Request, m *message) (*http.Response, progress, error) {
	ctx := req.Context()
	if ctx.Err() != nil { // while the client's words were waited for; cutting comes too late for a request that goes at once
		return nil, unsent, context.Cause(ctx)
	}
	made := &struct {
		resp http.Response
		body answerBody
	}{}
	a := &made.body
	*a = answerBody{transport: t, link: l, ctx: ctx, release: after(ctx, l.cuts)}
	l.begin()
	h, whole, far, err := l.converse(m)
	if err != nil {
		err = a.explain(err)
		a.release()
		return nil, far, err
	}
	a.keep = whole && !h.close
	resp := &made.resp
	*resp = http.Response{
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

// after is context.AfterFunc, but for its allocations where a context does it itself.
func after(ctx context.Context, f func()) (stop func() bool) {
	if c, ok := ctx.(interface {
		AfterFunc(func()) func() bool
	}); ok {
		return c.AfterFunc(f)
	}
	return context.AfterFunc(ctx, f)
}

// ErrStalled says that a backend did nothing for a time.
var ErrStalled = errors.New("it has stalled")

// AnswerError says that a backend's answer could not be read to its end.
type AnswerError struct{ Cause error }

func (e *AnswerError) Error() string { return "the answer: " + e.Cause.Error() }
func (e *AnswerError) Unwrap() error { return e.Cause }

// BodyError says that a request's body could not be read. It is no fault of the backend's.
type BodyError struct{ Cause error }

func (e *BodyError) Error() string { return "the request's body: " + e.Cause.Error() }
func (e *BodyError) Unwrap() error { return e.Cause }
