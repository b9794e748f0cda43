package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// DAV is a run against a CalDAV or CardDAV server: the same request again and again, with Basic authentication.
type DAV struct {
	Target      *Target
	Load        Load
	Credentials []Credential // one for each worker, in turn
	Method      string       // PROPFIND, GET or PUT
	Path        string       // escaped; {address} and {id} stand for the credential's
	Depth       string       // of PROPFIND
	Size        int          // of what is PUT, in bytes
	HTTP2       bool
	Reconnect   bool // each request over a connection of its own
}

// Requests measures requests.
func Requests(ctx context.Context, o DAV) (*Result, error) {
	if o.HTTP2 && o.Target.Security != ImplicitTLS {
		return nil, errors.New("HTTP/2 is spoken over TLS only")
	}
	if o.Target.Security == StartTLS {
		return nil, errors.New("HTTP has no STARTTLS")
	}
	var resumed resumptions
	m, err := o.Load.run(ctx, o.Target.Processes, o.clients(&resumed))
	if err != nil {
		return nil, err
	}
	r := newResult("dav", o.Target, o.Load, m)
	r.Request = o.describe()
	if o.Target.Resume && o.Reconnect && !o.HTTP2 {
		r.Resumed = resumed.share()
	}
	if m.Received > large {
		r.transferred(m.Received)
	}
	return r, nil
}

// clients makes a worker's client.
func (o *DAV) clients(resumed *resumptions) func(context.Context, int) (worker, error) {
	return func(ctx context.Context, n int) (worker, error) {
		r, err := o.request(o.Credentials[n%len(o.Credentials)])
		if err != nil {
			return nil, err
		}
		cfg := o.Target.clientTLS()
		if o.HTTP2 {
			cfg.NextProtos = []string{"h2"}
			return o.newStreams(ctx, cfg, r), nil
		}
		return o.newRequests(ctx, cfg, r, resumed), nil
	}
}

func (o *DAV) newRequests(ctx context.Context, cfg *tls.Config, r *request, resumed *resumptions) *requests {
	if cfg != nil {
		cfg.NextProtos = []string{"http/1.1"}
	}
	return &requests{ctx: ctx, o: o, cfg: cfg, r: r, text: r.wire(), resumed: resumed}
}

// IdleClients weighs connections: Load.Count of them, opened Load.Workers at a time within Load.Duration, each left open after one
// request over HTTP/1.1, and asked once more when all have been weighed.
func IdleClients(ctx context.Context, o DAV, i IdleOptions) (*Result, error) {
	switch {
	case i.Settle < 0 || i.Settle > maxSettle:
		return nil, fmt.Errorf("%v is no time to wait before weighing: at most %v", i.Settle, maxSettle)
	case o.HTTP2 || o.Reconnect:
		return nil, errors.New("what is weighed are connections of HTTP/1.1 that are kept")
	}
	warm := Load{Workers: min(8, o.Load.Workers), Count: 64, Duration: opTimeout}
	if _, err := warm.run(ctx, nil, o.clients(new(resumptions))); err != nil {
		return nil, err
	}
	time.Sleep(time.Second) // for what has ended to be cleared away
	before, err := o.Target.Processes.usageWithMemory()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	clients := make([]*requests, o.Load.Count)
	defer func() {
		for _, c := range clients {
			if c != nil {
				c.close()
			}
		}
	}()
	err = o.openIdle(ctx, clients)
	took := time.Since(began)
	if err != nil {
		return nil, err
	}
	pause(ctx, i.Settle)
	after, err := o.Target.Processes.usageWithMemory()
	if err := errors.Join(err, ctx.Err(), askAgain(clients)); err != nil {
		return nil, err
	}
	r := newResult("idle", o.Target, o.Load, &Measured{Operations: len(clients), Seconds: took.Seconds()})
	r.Request = o.describe()
	r.weighed(before, after)
	return r, nil
}

// openIdle has each client send its first request.
func (o *DAV) openIdle(ctx context.Context, clients []*requests) error {
	opening, cancel := context.WithTimeoutCause(ctx, o.Load.Duration, fmt.Errorf("not all were open within %v", o.Load.Duration))
	defer cancel()
	errs := make([]error, len(clients))
	each(o.Load.Workers, len(clients), func(n int) {
		if opening.Err() != nil {
			errs[n] = context.Cause(opening)
			return
		}
		r, err := o.request(o.Credentials[n%len(o.Credentials)])
		if err == nil {
			clients[n] = o.newRequests(ctx, o.Target.clientTLS(), r, new(resumptions))
			_, err = clients[n].once()
		}
		if errs[n] = err; err != nil {
			cancel()
		}
	})
	for n, err := range errs {
		if err != nil {
			return fmt.Errorf("client %d of %d: %w", n+1, len(clients), err)
		}
	}
	return nil
}

// askAgain sends a second request over each connection: those that did not live to be weighed would make the others seem light.
func askAgain(clients []*requests) error {
	errs := make([]error, len(clients))
	each(16, len(clients), func(n int) {
		if _, errs[n] = clients[n].once(); errs[n] == nil && clients[n].opened > 1 {
			errs[n] = errors.New("a new connection was needed")
		}
	})
	for n, err := range errs {
		if err != nil {
			return fmt.Errorf("client %d of %d had ended when it was weighed: %w", n+1, len(clients), err)
		}
	}
	return nil
}

// large is from where on bytes are worth telling of.
const large = 100 << 20

func (o *DAV) describe() string {
	text := o.Method + " HTTP/1.1"
	if o.HTTP2 {
		text = o.Method + " HTTP/2"
	}
	if o.Reconnect {
		text += ", a connection each"
	}
	return text
}

// request is what a worker sends. Its header holds a secret.
type request struct {
	method, host, path, authorization, depth string
	contentType                              string
	body                                     []byte
}

// askedProps is what calendar apps ask a collection every few minutes.
const askedProps = `<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:" xmlns:CS="http://calendarserver.org/ns/">` +
	`<prop><resourcetype/><displayname/><sync-token/><CS:getctag/></prop></propfind>`

func (o *DAV) request(c Credential) (*request, error) {
	r := &request{method: o.Method, host: o.Target.Address,
		path:          strings.NewReplacer("{address}", c.Address, "{id}", c.ID).Replace(o.Path),
		authorization: "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Address+":"+c.secret))}
	if !strings.HasPrefix(r.path, "/") || strings.ContainsAny(r.path, " \r\n") {
		return nil, fmt.Errorf("%q is no path", r.path)
	}
	switch o.Method {
	case http.MethodGet:
	case http.MethodPut:
		if o.Size < 0 || o.Size > maxItem {
			return nil, fmt.Errorf("%d bytes: at most %d can be put", o.Size, maxItem)
		}
		parts := item(o.Size)
		r.contentType, r.body = "text/calendar; charset=utf-8", slices.Concat(parts[0], parts[1], parts[2])
	case "PROPFIND":
		r.contentType, r.body, r.depth = "application/xml; charset=utf-8", []byte(askedProps), o.Depth
	default:
		return nil, fmt.Errorf("%q is neither PROPFIND nor GET nor PUT", o.Method)
	}
	return r, nil
}

// wire writes a request out for HTTP/1.1.
func (r *request) wire() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: %s\r\nUser-Agent: postern-bench\r\nAccept: */*\r\n", r.method, r.path, r.host, r.authorization)
	if r.depth != "" {
		fmt.Fprintf(&b, "Depth: %s\r\n", r.depth)
	}
	if r.body != nil {
		fmt.Fprintf(&b, "Content-Type: %s\r\nContent-Length: %d\r\n", r.contentType, len(r.body))
	}
	b.WriteString("\r\n")
	b.Write(r.body)
	return b.Bytes()
}

// unexpected says that a status is no success.
func unexpected(status int) error {
	if status >= 200 && status < 300 {
		return nil
	}
	return fmt.Errorf("the answer is %d %s", status, http.StatusText(status))
}

// requests is a client with one HTTP/1.1 connection at a time.
type requests struct {
	ctx  context.Context
	o    *DAV
	cfg  *tls.Config
	r    *request
	text []byte
	conn *httpConn // nil: there is none

	opened  int
	resumed *resumptions
}

func (q *requests) once() (int64, error) {
	if q.conn == nil {
		if err := q.connect(); err != nil {
			return 0, err
		}
	}
	status, received, open, err := q.conn.do(q.text)
	if err != nil || !open || q.o.Reconnect {
		q.close()
	}
	if err != nil {
		return 0, err
	}
	return received, unexpected(status)
}

func (q *requests) connect() error {
	c, err := openHTTP(q.ctx, q.o.Target, q.cfg)
	if err != nil {
		return err
	}
	q.conn = c
	if q.opened++; q.opened > 1 {
		q.resumed.note(c.nc)
	}
	return nil
}

func (q *requests) close() {
	if q.conn != nil {
		q.conn.close()
		q.conn = nil
	}
}

// streams is a client with one HTTP/2 connection, which net/http keeps.
type streams struct {
	ctx       context.Context
	transport *http.Transport
	url       string
	r         *request
	reconnect bool
}

func (o *DAV) newStreams(ctx context.Context, cfg *tls.Config, r *request) *streams {
	only2 := new(http.Protocols)
	only2.SetHTTP2(true)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return o.Target.connect(ctx, cfg) }
	return &streams{ctx, &http.Transport{DialTLSContext: dial, Protocols: only2, DisableCompression: true},
		"https://" + r.host + r.path, r, o.Reconnect}
}

func (s *streams) once() (int64, error) {
	ctx, cancel := context.WithTimeout(s.ctx, opTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, s.r.method, s.url, bytes.NewReader(s.r.body))
	if err != nil {
		return 0, err
	}
	req.Header = http.Header{"Authorization": {s.r.authorization}, "User-Agent": {"postern-bench"}}
	if s.r.depth != "" {
		req.Header["Depth"] = []string{s.r.depth}
	}
	if s.r.contentType != "" {
		req.Header["Content-Type"] = []string{s.r.contentType}
	}
	if s.reconnect {
		defer s.close()
	}
	resp, err := s.transport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	received, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		return received, err
	}
	return received, unexpected(resp.StatusCode)
}

func (s *streams) close() { s.transport.CloseIdleConnections() }
