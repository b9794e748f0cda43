package protocols

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"postern/authstore"
	"postern/protocols/relay"
)

// FrontDoor is what one line protocol adds to a Server: the words before login, the dialogue with its backends, and the answers.
// It is shared by all connections.
type FrontDoor interface {
	// Protocol is its name in routes, logs and metrics, and for TLS (ALPN): "imap".
	Protocol() string
	// Scopes opens it: an app password must have one of them.
	Scopes() authstore.Scopes
	// Login greets a client and speaks with it until one of its attempts is accepted (Conn.Admit, then Conn.Accept). Any error ends
	// the connection; what is to be said about it has been said by then (Conn.Bye), unless it is ctx that has ended.
	Login(ctx context.Context, c *Conn) (*Session, error)
	// LogInBackend logs in over a new connection to a backend, from the greeting on, on behalf of c's client.
	LogInBackend(ctx context.Context, nc net.Conn, r *Route, c *Conn) (*Backend, error)
	// Goodbye is what a client that has not logged in is told when its connection ends for this reason: one of those below, ErrEvicted,
	// that its grant was revoked just then, or whatever ends the life of Serve.
	Goodbye(reason error) []byte
	// Guard watches a session after c's login; nil: nobody does. It keeps nothing of c. called is for the name that the client gives
	// itself then.
	Guard(c *Conn, g authstore.Grant, called func(app string)) relay.Guard
}

// Reasons that end a connection before login.
var (
	ErrLoginTimeout = errors.New("no login in time")
	ErrDraining     = errors.New("the gateway is shutting down")
)

// Server serves one listener of a line protocol. What is not said to be optional is needed. It doesn't change once it serves.
type Server struct {
	Door     FrontDoor
	Verifier Verifier
	Sessions Sessions
	Router   Router
	Observer Observer
	Names    authstore.Names // tells whether two names are the same
	Limits   *Limits         // shared by all listeners
	Log      *slog.Logger

	Security     Security              // of the listener; PlainText lets people log in without TLS
	TLS          *tls.Config           // with a certificate; unused with PlainText
	Proxies      []netip.Prefix        // see Listener
	LoginTimeout time.Duration         // from accepting to a finished login; 0: 60 s
	IdleTimeout  time.Duration         // of sessions; 0: 35 minutes
	Panicked     func(protocol string) // told of each defect of ours that ended a connection; nil: nobody
}

const (
	handshakeTime = 15 * time.Second // of the login timeout
	goodbyeTime   = time.Second      // for the last words before login
	acceptPause   = 100 * time.Millisecond
)

// Serve accepts until ctx ends, then waits for its connections; they go on until life ends. If the cause of ctx's end is
// ErrDraining, those that have not logged in are sent away at once. It returns nil.
func (s *Server) Serve(ctx, life context.Context, ln net.Listener) error {
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	run := &running{Server: s, relay: &relay.Relay{Idle: s.IdleTimeout}, refusals: Refusals{Protocol: s.Door.Protocol(), Log: s.Log}}
	if s.Security != PlainText {
		run.tls = s.TLS.Clone()
		run.tls.NextProtos = []string{s.Door.Protocol()} // another protocol's client is refused; one that names none is not
	}
	defer run.relay.Close()
	defer context.AfterFunc(life, func() { run.relay.Cut(context.Cause(life)) })()
	defer run.conns.Wait()
	from := &Listener{Listener: ln, Proxies: s.Proxies, Refused: run.refusals.Add}
	for {
		nc, err := from.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil: // no descriptors left, or the client has gone: say so, wait, go on
			s.Log.Warn("accept", "listener", ln.Addr().String(), "err", err)
			pause(ctx, acceptPause)
		default:
			run.conns.Go(func() { run.serve(ctx, life, nc) })
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// running is a Server that serves.
type running struct {
	*Server
	tls      *tls.Config
	relay    *relay.Relay
	conns    sync.WaitGroup // and their sessions
	refusals Refusals
}

// serve leads one connection from its first byte to the relay.
func (s *running) serve(accepting, life context.Context, nc net.Conn) {
	c := newConn(s, life, nc)
	session, err := c.login(accepting)
	if err != nil {
		c.close(err)
		return
	}
	s.conns.Add(1)
	c.relay(session)
}

// login returns a session that is accepted, or an error. A defect of ours ends this connection and no other.
func (c *Conn) login(accepting context.Context) (session *Session, err error) {
	defer func() {
		if v := recover(); v != nil {
			session, err = nil, c.server.defect(&relay.PanicError{Value: v, Stack: debug.Stack()})
		}
	}()
	c.settle = context.AfterFunc(c.ctx, c.wake)
	defer c.settle()
	defer time.AfterFunc(c.server.loginTimeout(), func() { c.end(ErrLoginTimeout) }).Stop()
	defer context.AfterFunc(accepting, func() {
		if cause := context.Cause(accepting); errors.Is(cause, ErrDraining) {
			c.end(cause)
		}
	})()
	c.slot = c.server.Limits.Enter(func() { c.end(ErrEvicted) })

	c.Client = addrPort(c.nc.RemoteAddr())
	if err := c.slot.Locate(c.Client.Addr()); err != nil {
		c.server.refusals.Add(c.nc.RemoteAddr(), err)
		return nil, err
	}
	if c.server.Security == ImplicitTLS {
		if err := c.secure(); err != nil {
			return nil, err
		}
	}
	session, err = c.server.Door.Login(c.ctx, c)
	if err != nil && c.ctx.Err() != nil {
		c.farewell(c.server.Door.Goodbye(context.Cause(c.ctx)))
	}
	return session, err
}

func (s *Server) loginTimeout() time.Duration { return cmp.Or(s.LoginTimeout, time.Minute) }

// defect notes a panic.
func (s *running) defect(p *relay.PanicError) error {
	s.Log.Error("defect in a connection; please report it", "proto", s.Door.Protocol(), "err", p, "stack", string(p.Stack))
	if s.Panicked != nil {
		s.Panicked(s.Door.Protocol())
	}
	return p
}
