package davproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postern/protocols"
)

// Times and bounds towards backends.
const (
	metadataTime = 15 * time.Second // for a question of our own
	idleTime     = 30 * time.Second // of a pooled connection: less than servers allow
	maxMetadata  = 256 << 10        // of an answer to a question of our own, in bytes
	maxHeader    = 64 << 10         // of an answer, in bytes
	maxIdle      = 64               // pooled connections by backend
	maxPools     = 64               // backends; a reload makes new ones
)

// mount joins one public home to its place at a backend.
type mount struct {
	kind      kind
	id        string // public
	route     *protocols.Route
	principal []string // path segments at the backend
	home      []string
	boxes
}

// boxes are what a backend has for invitations.
type boxes struct {
	inbox, outbox []string // path segments; none: it has no such box
	automatic     bool     // it sends and takes invitations by itself (RFC 6638 section 2)
	addresses     []string // mailto: URLs under which it knows the account
}

// of returns where a box is; nil: nowhere, or it is none.
func (b *boxes) of(k kind) []string {
	switch k {
	case inbox:
		return b.inbox
	case outbox:
		return b.outbox
	}
	return nil
}

// inward is a target's path at the backend, escaped. A box that the backend does not have has none.
func (m *mount) inward(t target) string {
	if !t.kind.isBox() {
		return join(m.home) + t.below()
	}
	if box := m.of(t.kind); len(box) > 0 {
		return join(box) + t.below()
	}
	return ""
}

// outward says what a backend's href is in this mount.
func (m *mount) outward(href string) (target, bool) {
	segments, slash, ok := m.read(href)
	if !ok {
		return target{}, false
	}
	for _, k := range []kind{inbox, outbox} { // first: they may lie in the home
		if below, ok := under(m.of(k), segments); ok {
			t := insideBox(k, m.id, below, slash)
			return t, t.place != nowhere
		}
	}
	below, ok := under(m.home, segments)
	if !ok || len(below) > 2 || len(below) == 2 && slash {
		return target{}, false
	}
	return inside(m.kind, m.id, below), true
}

// under returns what path segments have behind those of a place, if they are the place or lie in it.
func under(place, segments []string) (below []string, ok bool) {
	if len(place) == 0 || len(segments) < len(place) || !slices.Equal(segments[:len(place)], place) {
		return nil, false
	}
	return segments[len(place):], true
}

// isBox tells whether a path in the home is a box at the backend: there it can't be anything else.
func (m *mount) isBox(t target) bool {
	path := m.inward(t)
	return len(m.inbox) > 0 && path == join(m.inbox) || len(m.outbox) > 0 && path == join(m.outbox)
}

// leads tells whether an href leads to this backend.
func (m *mount) leads(href string) bool {
	_, err := pathOf(href, hostOf(m.route))
	return err == nil
}

// isPrincipal tells whether a backend's href is the account's own principal.
func (m *mount) isPrincipal(href string) bool {
	segments, _, ok := m.read(href)
	return ok && join(segments) == join(m.principal)
}

// read takes a backend's href apart: a path, or a URL of this backend.
func (m *mount) read(href string) (segments []string, slash, ok bool) {
	path, err := pathOf(href, hostOf(m.route))
	if err != nil {
		return nil, false, false
	}
	segments, slash, err = split(path)
	return segments, slash, err == nil
}

// join writes path segments in our spelling, with a slash behind them.
func join(segments []string) string {
	var b strings.Builder
	b.WriteByte('/')
	for _, s := range segments {
		b.WriteString(encode(s))
		b.WriteByte('/')
	}
	return b.String()
}

// request makes a request to the mount's backend. Its path is in our spelling, and there is no query.
func (m *mount) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	return http.NewRequestWithContext(ctx, method, base(m.route)+path, body)
}

func base(r *protocols.Route) string {
	if r.Security == protocols.ImplicitTLS {
		return "https://" + hostOf(r)
	}
	return "http://" + hostOf(r)
}

func hostOf(r *protocols.Route) string {
	if r.Network == "unix" {
		return "localhost"
	}
	return r.Address
}

// pools holds the connections to backends. The zero value is ready.
type pools struct {
	mu   sync.Mutex // guards open
	open map[poolKey]*http.Transport
}

type poolKey struct {
	backend, network, address string
	security                  protocols.Security
	tls                       *tls.Config
}

// of returns a backend's connections. They are made by what the route says of the backend, nothing that it says of the account.
func (p *pools) of(r *protocols.Route, o protocols.Observer) *http.Transport {
	key := poolKey{r.Backend, r.Network, r.Address, r.Security, r.TLS}
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.open[key]; t != nil {
		return t
	}
	if len(p.open) >= maxPools { // reloads left them behind; a request that is under way keeps its connection
		p.empty()
	}
	if p.open == nil {
		p.open = make(map[poolKey]*http.Transport)
	}
	t := newTransport(r, o)
	p.open[key] = t
	return t
}

// empty is called with mu held.
func (p *pools) empty() {
	for key, t := range p.open {
		delete(p.open, key)
		t.CloseIdleConnections()
	}
}

// close closes the pooled connections.
func (p *pools) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.empty()
}

// errStartTLS says what HTTP has not.
var errStartTLS = errors.New(`HTTP has no STARTTLS; set tls = "implicit", or "none" on a link that nobody else reaches`)

// newTransport speaks HTTP/1.1 without following redirects, decompressing or repeating what may change something.
func newTransport(r *protocols.Route, o protocols.Observer) *http.Transport {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		began := time.Now()
		nc, err := connect(ctx, r)
		o.Backend(r.Backend, "connect", time.Since(began), err)
		return nc, err
	}
	only1 := new(http.Protocols)
	only1.SetHTTP1(true)
	return &http.Transport{
		DialContext:            dial,
		DialTLSContext:         dial,
		Protocols:              only1,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        idleTime,
		MaxResponseHeaderBytes: maxHeader,
		WriteBufferSize:        16 << 10,
		ReadBufferSize:         16 << 10,
	}
}

func connect(ctx context.Context, r *protocols.Route) (net.Conn, error) {
	if r.Security == protocols.StartTLS {
		return nil, errStartTLS
	}
	return protocols.Dial(ctx, r)
}

// do sends a request to a backend: the one place where the gateway's credential is put on, and the one way there. The grant is
// confirmed right before.
func (ss *session) do(r *protocols.Route, req *http.Request) (*http.Response, error) {
	if err := authorize(req, r); err != nil {
		return nil, err
	}
	if client := ss.facts.Client.Addr(); client.IsValid() {
		req.Header.Set("X-Forwarded-For", client.String())
	}
	if err := ss.confirm(); err != nil {
		return nil, &endedError{err}
	}
	s := ss.server
	began := time.Now()
	resp, err := bounded(s.pools.of(r, s.o.Observer), req, s.o.BackendTimeout)
	s.o.Observer.Backend(r.Backend, "request", time.Since(began), err)
	if err == nil && (resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusProxyAuthRequired) {
		discard(resp) // it refused us, not the client
		err = protocols.ErrCredential
	}
	if err != nil {
		return nil, fmt.Errorf("%s to backend %s: %w", req.Method, r.Backend, err)
	}
	return resp, nil
}

// errStalled says that a backend did nothing for a time.
var errStalled = errors.New("it has stalled")

// bounded sends a request and bounds each wait for the backend: for a connection, for it to take a part of the body, for the
// beginning of its answer, for the next part of that. Waiting for the client is not counted.
func bounded(to http.RoundTripper, req *http.Request, limit time.Duration) (*http.Response, error) {
	ctx, end := context.WithCancelCause(req.Context())
	var answered atomic.Bool
	waiting := time.AfterFunc(limit, func() {
		if !answered.Load() {
			end(errStalled)
		}
	})
	req = req.WithContext(ctx)
	if req.Body != nil {
		req.Body = &sending{req.Body, waiting, limit}
	}
	resp, err := to.RoundTrip(req)
	answered.Store(true)
	waiting.Stop()
	if err != nil {
		if context.Cause(ctx) == errStalled {
			err = errStalled
		}
		end(nil)
		return nil, err
	}
	stalled := time.AfterFunc(limit, func() { end(errStalled) })
	stalled.Stop()
	resp.Body = &receiving{resp.Body, ctx, end, stalled, limit}
	return resp, nil
}

// sending is a request's body.
type sending struct {
	io.ReadCloser
	waiting *time.Timer
	limit   time.Duration
}

func (s *sending) Read(p []byte) (int, error) {
	s.waiting.Stop()
	defer s.waiting.Reset(s.limit)
	return s.ReadCloser.Read(p)
}

// receiving is an answer's body.
type receiving struct {
	io.ReadCloser
	ctx     context.Context
	end     context.CancelCauseFunc
	stalled *time.Timer
	limit   time.Duration
}

func (r *receiving) Read(p []byte) (int, error) {
	r.stalled.Reset(r.limit)
	n, err := r.ReadCloser.Read(p)
	r.stalled.Stop()
	if err != nil && err != io.EOF {
		if context.Cause(r.ctx) == errStalled {
			err = errStalled
		}
		err = &answerError{err}
	}
	return n, err
}

func (r *receiving) Close() error {
	defer r.end(nil)
	return r.ReadCloser.Close()
}

// answerError says that a backend's answer could not be read to its end.
type answerError struct{ cause error }

func (e *answerError) Error() string { return "the answer: " + e.cause.Error() }
func (e *answerError) Unwrap() error { return e.cause }

// endedError says that the grant no longer holds, or that this can't be known.
type endedError struct{ cause error }

func (e *endedError) Error() string { return "the grant has ended: " + e.cause.Error() }
func (e *endedError) Unwrap() error { return e.cause }

// authorize puts the gateway's credential on a request. The header of a request holds nothing of the client's that could be taken
// for one: it is made from an allow-list.
func authorize(req *http.Request, r *protocols.Route) error {
	if req.Body == nil || req.GetBody != nil {
		switch req.Method {
		case "PROPFIND", "REPORT": // these change nothing: where a pooled connection has died, another one is tried
			req.Header["X-Idempotency-Key"] = []string{} // for http.Transport; it is not sent
		}
	}
	if r.Header != "" {
		req.Header.Set(r.Header, r.Login)
	}
	if r.Open == nil {
		return nil
	}
	c, err := r.Open(req.Context())
	if err != nil {
		return fmt.Errorf("open the credential of backend %s: %w", r.Backend, err)
	}
	defer c.Clear()
	if r.Bearer { // net/http's headers are strings: the rule to clear secrets ends here
		req.Header.Set("Authorization", "Bearer "+string(c.Password))
	} else {
		req.SetBasicAuth(c.Authcid, string(c.Password))
	}
	return nil
}

// discard ends an answer that nobody reads. A short rest is read, so that the connection can be used again.
func discard(resp *http.Response) {
	io.CopyN(io.Discard, resp.Body, 4<<10)
	resp.Body.Close()
}
