package davproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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
	refused, err := authorize(req, r)
	if err != nil {
		return nil, err
	}
	if ss.login.forwarded != nil {
		req.Header["X-Forwarded-For"] = ss.login.forwarded
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
		if refused != nil {
			refused()
		}
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
// for one: it is made from an allow-list. refused, which may be nil, is to be called where the backend takes the credential for none.
func authorize(req *http.Request, r *protocols.Route) (refused func(), err error) {
	if r.Header != "" {
		req.Header.Set(r.Header, r.Login)
	}
	if r.Open == nil {
		return nil, nil
	}
	c, err := r.Open(req.Context())
	if err != nil {
		return nil, fmt.Errorf("open the credential of backend %s: %w", r.Backend, err)
	}
	defer c.Clear()
	if r.Bearer { // net/http's headers are strings: the rule to clear secrets ends here
		req.Header.Set("Authorization", "Bearer "+string(c.Password))
	} else {
		req.SetBasicAuth(c.Authcid, string(c.Password))
	}
	return c.Refused, nil
}

// discard ends an answer that nobody reads. A short rest is read, so that the connection can be used again.
func discard(resp *http.Response) {
	if _, err := resp.Body.Read(nil); err != io.EOF { // as it is where all was read
		io.CopyN(io.Discard, resp.Body, 4<<10)
	}
	resp.Body.Close()
}
