package davproxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"postern/protocols"
	"postern/protocols/davproxy/upstream"
)

// Times and bounds towards backends.
const (
	metadataTime = 15 * time.Second // for a question of our own
	maxMetadata  = 256 << 10        // of an answer to a question of our own, in bytes
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
	place := m.home
	if t.kind.isBox() {
		if place = m.of(t.kind); len(place) == 0 {
			return ""
		}
	}
	b := appendSegments(append(make([]byte, 0, usualPath), '/'), place...)
	return string(t.appendBelow(b))
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
	return ok && slices.Equal(segments, m.principal)
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

// request makes a request to the mount's backend. Its path is in our spelling, and there is no query; so there is nothing to parse.
// length is that of the body; -1: unknown.
func (m *mount) request(ctx context.Context, method, path string, h http.Header, body io.ReadCloser, length int64) *http.Request {
	req := http.Request{
		Method: method, URL: &url.URL{Scheme: scheme(m.route), Host: hostOf(m.route), Opaque: path}, Header: h,
		Body: body, ContentLength: length,
	}
	return req.WithContext(ctx)
}

// held is a body that is here. It can be sent again.
type held struct{ bytes.Reader }

func hold(text []byte) *held {
	h := &held{}
	h.Reset(text)
	return h
}

func (*held) Close() error { return nil }

func base(r *protocols.Route) string {
	return scheme(r) + "://" + hostOf(r)
}

func scheme(r *protocols.Route) string {
	if r.Security == protocols.ImplicitTLS {
		return "https"
	}
	return "http"
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
	open map[poolKey]*upstream.Transport
}

type poolKey struct {
	backend, network, address string
	security                  protocols.Security
	tls                       *tls.Config
}

// of returns a backend's connections. They are made by what the route says of the backend, nothing that it says of the account.
func (p *pools) of(r *protocols.Route, o protocols.Observer, limit time.Duration) *upstream.Transport {
	key := poolKey{r.Backend, r.Network, r.Address, r.Security, r.TLS}
	p.mu.Lock()
	defer p.mu.Unlock()
	if u := p.open[key]; u != nil {
		return u
	}
	if len(p.open) >= maxPools { // reloads left them behind; a request that is under way keeps its connection
		p.empty()
	}
	if p.open == nil {
		p.open = make(map[poolKey]*upstream.Transport)
	}
	u := transport(r, o, limit)
	p.open[key] = u
	return u
}

// empty is called with mu held.
func (p *pools) empty() {
	for key, u := range p.open {
		delete(p.open, key)
		u.Close()
	}
}

// close closes the pooled connections.
func (p *pools) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.empty()
}

// transport makes the way to the backend of a route.
func transport(r *protocols.Route, o protocols.Observer, limit time.Duration) *upstream.Transport {
	return upstream.New(limit, func(ctx context.Context) (net.Conn, error) {
		began := time.Now()
		nc, err := connect(ctx, r)
		o.Backend(r.Backend, "connect", time.Since(began), err)
		return nc, err
	})
}

// errStartTLS says what HTTP has not.
var errStartTLS = errors.New(`HTTP has no STARTTLS; set tls = "implicit", or "none" on a link that nobody else reaches`)

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
	resp, err := s.pools.of(r, s.o.Observer, s.o.BackendTimeout).RoundTrip(req)
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

// endedError says that the grant no longer holds, or that this can't be known.
type endedError struct{ cause error }

func (e *endedError) Error() string { return "the grant has ended: " + e.cause.Error() }
func (e *endedError) Unwrap() error { return e.cause }

// authorize puts the gateway's credential on a request. The header of a request holds nothing of the client's that could be taken
// for one: it is made from an allow-list.
func authorize(req *http.Request, r *protocols.Route) error {
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
