// Package davproxy is the CalDAV and CardDAV front door: app passwords checked on every request, one namespace of its own in
// front of backends with any other, scopes applied by method, by path and by what a collection holds. It stores nothing and parses
// XML only to keep people to their own. The gateway builds a Server and hands it listeners.
package davproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"postern/protocols"
)

// Protocol is the front door's name in configuration, logs and metrics.
const Protocol = "dav"

// Bounds of clients' connections. Bodies have no bound in time but in progress: see deadlines.
const (
	headerTime     = 10 * time.Second // for a request's header, and for TLS
	keepTime       = 120 * time.Second
	parkTime       = 3 * time.Second  // less than it takes the gateway to find a burst over: then all of it is given back at once
	stallTime      = 60 * time.Second // for one read or write of a body
	restTime       = 10 * time.Second // for what is left of a request when it is answered
	maxClientBytes = 32 << 10         // of a request's header
	maxStreams     = maxRequests      // at once on an HTTP/2 connection
)

// Options are a Server's parts.
type Options struct {
	Verifier protocols.Verifier
	Sessions protocols.Sessions
	Router   protocols.Router // asked for "calendar" and "contacts"
	Observer protocols.Observer
	Limits   *protocols.Limits // nil: one of its own
	Log      *slog.Logger      // nil: the default one

	// TLS is for Serve; nil: plain text, or a listener that does TLS itself. Its NextProtos are set here.
	TLS *tls.Config
	// Proxies are load balancers that send the PROXY header: see protocols.Listener.
	Proxies []netip.Prefix
	// TrustedProxies are HTTP proxies whose X-Forwarded-For names the client. They must pass on Host.
	TrustedProxies protocols.TrustedProxies
	// Hosts are other names on the same listener and what answers there, in lower case and without a port. They share the bounds of
	// connections; DAV is not served under them.
	Hosts map[string]http.Handler
	// MaxBody is the largest event or card that is taken, in bytes; zero: 20 MiB.
	MaxBody int64
	// BackendTimeout is how long a backend may do nothing while it is waited for; zero: a minute.
	BackendTimeout time.Duration
	// Panicked is told of each defect of ours that ended a request; nil: nobody.
	Panicked func(protocol string)

	times times // tests have less
}

// times bound what a client may take in HTTP/1.1.
type times struct{ header, keep, park time.Duration }

// Server answers DAV requests. Goroutines may share it.
type Server struct {
	o        Options
	pools    pools
	homes    cache[homeKey, homePaths]
	kinds    kinds
	shares   shares
	clock    clock
	refusals protocols.Refusals
}

// New makes a server.
func New(o Options) *Server {
	if o.Limits == nil {
		o.Limits = &protocols.Limits{}
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.BackendTimeout == 0 {
		o.BackendTimeout = time.Minute
	}
	if o.MaxBody == 0 {
		o.MaxBody = 20 << 20
	}
	if o.times == (times{}) {
		o.times = times{headerTime, keepTime, parkTime}
	}
	return &Server{o: o, refusals: protocols.Refusals{Protocol: Protocol, Log: o.Log}}
}

// Serve accepts until ctx ends, then waits for the requests that are under way; they go on until life ends. It closes the pooled
// connections to backends behind it.
func (s *Server) Serve(ctx, life context.Context, ln net.Listener) error {
	defer s.pools.close()
	conns := &connections{ctx: ctx, back: newComeback(), early: s.o.times.keep - s.o.times.park}
	defer conns.close()
	ws := newWorkers(s.handle)
	defer ws.end()
	defer conns.Wait()
	srv := s.httpServer(life, conns, ws)
	ln = &protocols.Listener{Listener: ln, Proxies: s.o.Proxies, Refused: s.refusals.Add}
	shut := sync.OnceFunc(func() {
		ln.Close()
		conns.newcomers.Wait(life)
		conns.drain()
		srv.Shutdown(life)
		conns.hangUp()
		srv.Close()
	})
	defer context.AfterFunc(ctx, shut)()
	fresh := &lines{Listener: ln, server: s, tls: srv.TLSConfig, conns: conns} // net/http makes a configuration where there is none, for HTTP/2
	conns.Go(func() { srv.Serve(conns.back) })
	err := srv.Serve(fresh)
	shut()
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (s *Server) httpServer(life context.Context, conns *connections, ws *workers) *http.Server {
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c := r.Context().Value(connKey{}).(*conn)
			if !c.begin() {
				panic(http.ErrAbortHandler)
			}
			defer c.done()
			if r.ProtoMajor == 2 {
				ws.answer(c, w, r)
				return
			}
			s.handle(c, w, r)
		}),
		ReadHeaderTimeout: s.o.times.header,
		IdleTimeout:       s.o.times.keep,
		WriteTimeout:      stallTime, // see deadlines, which move it where a request lasts
		MaxHeaderBytes:    maxClientBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:          slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug), // what strangers get wrong
		BaseContext:       func(net.Listener) context.Context { return life },
		ConnContext: func(base context.Context, nc net.Conn) context.Context {
			l, _ := conns.open.Load(nc)
			return context.WithValue(base, connKey{}, l.(*line).conn)
		},
		ConnState: conns.state,
	}
	if s.o.TLS != nil {
		srv.TLSConfig = s.o.TLS.Clone()
		srv.TLSConfig.NextProtos = []string{"h2", "http/1.1"}
	}
	return srv
}

// handle answers one request.
func (s *Server) handle(c *conn, rw http.ResponseWriter, r *http.Request) {
	if s.endsInDoubt(r) {
		rw.Header().Set("Connection", "close")
	}
	if len(s.o.Hosts) > 0 {
		if h := s.o.Hosts[hostName(r.Host)]; h != nil {
			s.serveHost(c, rw, r, h)
			return
		}
	}
	w := newWriter(rw, r)
	defer w.finish()
	defer s.recover()
	guard(r.Method, w.Header())
	w.clock = &s.clock
	client := s.o.TrustedProxies.Client(r)
	t, err := locate(r.RequestURI, r.Host)
	switch {
	case c.locate(client) != nil:
		w.Header().Set("Connection", "close")
		unavailable.write(w)
		return
	case err != nil:
		badRequest.write(w)
		return
	case t.place == wellKnown: // before the login: clients look here without one
		w.Header().Set("Location", "/dav/")
		w.WriteHeader(http.StatusMovedPermanently)
		return
	}
	switch r.ProtoMajor {
	case 1:
		w.deadlines.line = c.line
	case 2:
		w.corked = c.line.corked
	}
	if a := s.admit(w, r, c, client, t); a.status > 0 {
		a.write(w)
	}
}

// endsInDoubt tells whether a proxy in front may see the end of a request elsewhere, and what follows it on the connection could be another client's, or
// meant to swallow another client's: a Content-Length beside chunks, and chunks in HTTP/1.0. net/http takes away what would tell (RFC 9112 section 6.1).
func (s *Server) endsInDoubt(r *http.Request) bool {
	return !r.ProtoAtLeast(1, 1) || len(r.TransferEncoding) > 0 && len(s.o.TrustedProxies) > 0
}

// recover logs a defect and has net/http cut the connection: its own log is for what strangers do.
func (s *Server) recover() {
	v := recover()
	if v == nil {
		return
	}
	if v != http.ErrAbortHandler {
		s.o.Log.Error("defect in a connection; please report it", "proto", Protocol, "err", fmt.Sprint(v), "stack", string(debug.Stack()))
		if s.o.Panicked != nil {
			s.o.Panicked(Protocol)
		}
	}
	panic(http.ErrAbortHandler)
}

// admit verifies a request and has it answered under its session. An answer with a status is still to be written.
func (s *Server) admit(w *writer, r *http.Request, c *conn, client netip.AddrPort, t target) answer {
	began := time.Now()
	ss := &session{server: s, facts: protocols.Facts{Conn: c.id, Protocol: Protocol, Client: client, TLS: r.TLS != nil, App: appOf(r)}}
	if refusal := ss.authenticate(r); refusal.status != 0 {
		return refusal
	}
	if !s.shares.enter(ss.grant.Account) {
		return unavailable
	}
	defer s.shares.leave(ss.grant.Account)
	ctx := new(ending) // not the request's, which also ends when we end reading
	ss.ctx = ctx
	defer ctx.end(context.Canceled)
	cut := func(cause error) {
		ctx.end(cause)
		go w.deadlines.cut()
	}
	w.deadlines.watch(r.Context(), cut)
	defer s.o.Sessions.Enter(&ss.grant, &ss.facts, cut).Leave()
	if err := ss.confirm(); err != nil {
		ss.tell(err, began)
		return refused(err)
	}
	if err := c.accept(ss, t, began); err != nil {
		return unavailable
	}
	w.down = &ss.login.down
	defer func() { ss.login.note(ctx.Err()) }()
	return ss.answer(w, r, t)
}

// answer does what the rules say.
func (ss *session) answer(w *writer, r *http.Request, t target) answer {
	if !t.owned(&ss.grant) {
		return notThere
	}
	switch judge(r.Method, t, &ss.grant) {
	case forward:
		return ss.forward(w, r, t)
	case serve:
		return ss.serve(w, r, t)
	case notAllowed:
		w.Header().Set("Allow", allowed(t, &ss.grant))
		if isBrowser(r) {
			return noPage
		}
		return wrongMethod
	case needPrivileges:
		return unprivileged
	case refuseProps:
		return ss.refuseProps(w, r, t)
	case refuseReport:
		return unsupported
	}
	return notThere
}
