package protocols

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"postern/authstore"
	"postern/protocols/relay"
	"postern/protocols/wire"
)

// Conn is one client that has not logged in. Its front door's goroutine uses it.
type Conn struct {
	Facts
	R     *wire.Reader // what the client says
	Tally Tally
	// Offered is what the client was told of its backend before anybody knew which one that is, where its protocol tells such things: the
	// login must not lead to one that can do less.
	Offered Capabilities
	// Host is what the client calls its machine, by EHLO; empty: it did not say.
	Host string
	Hops int // how many gateways a login may still pass on its way to the data, this one included

	server   *running
	nc       net.Conn        // the socket, or TLS over it
	raw      net.Conn        // the socket
	ctx      context.Context // of the connection, up to the end of its login
	end      context.CancelCauseFunc
	settle   func() bool // takes it out of the login's limits of time; false: too late
	slot     *Slot
	admitted *Session // entered

	mu    sync.Mutex // guards ended and the read deadline
	ended bool
}

// MaxHops is where Conn.Hops starts, as in Dovecot (LOGIN_PROXY_TTL).
const MaxHops = 5

func newConn(s *running, life context.Context, nc net.Conn) *Conn {
	c := &Conn{server: s, nc: nc, raw: nc, Hops: MaxHops}
	c.ctx, c.end = context.WithCancelCause(life)
	c.Facts = Facts{Conn: strings.ToLower(rand.Text()[:13]), Protocol: s.Door.Protocol()}
	c.R = wire.NewReader(nc)
	nc.SetWriteDeadline(time.Now().Add(s.loginTimeout()))
	return c
}

// MayLogIn reports whether credentials may be sent as the connection is now.
func (c *Conn) MayLogIn() bool { return c.TLS || c.server.Security == PlainText }

// OffersTLS reports whether the client may start TLS now.
func (c *Conn) OffersTLS() bool { return !c.TLS && c.server.Security == StartTLS }

// Say tells the client something.
func (c *Conn) Say(words string) error {
	_, err := c.nc.Write([]byte(words))
	return err
}

// Bye tells the client that this is the end, and returns the error that ends the login.
func (c *Conn) Bye(words string) error {
	if err := c.Say(words); err != nil {
		return err
	}
	return ErrOver
}

// ErrOver says that the connection is over, and that there is nothing more to be said about it.
var ErrOver = errors.New("over")

// farewell writes the last words, if they are taken soon.
func (c *Conn) farewell(p []byte) {
	c.raw.SetWriteDeadline(time.Now().Add(goodbyeTime))
	c.nc.Write(p)
}

// ErrInjected says that a client sent words behind STARTTLS, in plain text: whoever sent them, they may not count as said under TLS.
var ErrInjected = errors.New("words behind STARTTLS")

// StartTLS starts TLS, after the client has been told to begin. What was read of it before that ends the connection (ErrInjected).
func (c *Conn) StartTLS(begin string) error {
	if len(c.R.Buffered()) > 0 {
		return ErrInjected
	}
	if err := c.Say(begin); err != nil {
		return err
	}
	return c.secure()
}

func (c *Conn) secure() error {
	tc := tls.Server(c.raw, c.server.tls)
	c.setReadDeadline(time.Now().Add(handshakeTime))
	if err := c.handshake(tc); err != nil {
		c.server.Log.Debug("TLS handshake", "conn", c.Facts.Conn, "proto", c.Protocol, "client", c.Client.Addr().String(), "err", err) // an old app, or one that doesn't trust us
		return fmt.Errorf("TLS handshake: %w", err)
	}
	c.setReadDeadline(time.Time{})
	c.nc, c.TLS = tc, true
	c.R.Reset(tc)
	return nil
}

// handshake runs in a goroutine of its own, which takes its deep stack away when it ends: ours would keep 8 KiB until the login. That the
// login has ended comes as a deadline, see wake.
func (c *Conn) handshake(tc *tls.Conn) error {
	done := make(chan error, 1)
	go func() {
		Deepen()
		defer func() {
			if v := recover(); v != nil {
				done <- c.server.defect(&relay.PanicError{Value: v, Stack: debug.Stack()})
			}
		}()
		done <- tc.Handshake()
	}()
	return <-done
}

// bare returns the connection without what hid its socket while there was something to hide.
func (c *Conn) bare() net.Conn {
	if p, ok := c.nc.(*proxied); ok && len(p.rest) == 0 {
		return p.Conn
	}
	return c.nc
}

// wake makes the front door's read fail, whoever waits in it. A client that does not take its goodbye is cut.
func (c *Conn) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.raw.SetReadDeadline(longAgo)
	time.AfterFunc(goodbyeTime, func() { c.raw.Close() })
}

func (c *Conn) setReadDeadline(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.raw.SetReadDeadline(t)
	}
}

// close ends a connection that leads to no session. What the client still sends is thrown away for a moment: closing a socket
// with bytes unread resets it, and the goodbye would be lost.
func (c *Conn) close(reason error) {
	defer c.slot.Leave()
	c.R.Release()
	if c.admitted != nil {
		c.admitted.abandon()
	}
	c.end(reason)
	defer c.raw.Close()
	if errors.Is(reason, io.EOF) || errors.Is(reason, ErrTooMany) {
		return
	}
	defer time.AfterFunc(goodbyeTime, func() { c.raw.Close() }).Stop()
	if half, ok := c.bare().(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		c.raw.SetReadDeadline(time.Now().Add(goodbyeTime))
		io.CopyN(io.Discard, c.raw, 64<<10)
	}
}

// ErrClientGone says that a client went away while its login was under way.
var ErrClientGone = errors.New("client gone")

// watchAfter is how long a login may take before anybody looks whether its client is still there. Most are over by then, and refusals
// have been told.
const watchAfter = time.Second

// watched runs do, and ends the connection if its client goes away meanwhile. What the client sends meanwhile stays in R.
func (c *Conn) watched(ctx context.Context, do func() error) error {
	watching := make(chan struct{})
	watch := time.AfterFunc(watchAfter, func() {
		defer close(watching)
		defer func() {
			if v := recover(); v != nil {
				c.end(c.server.defect(&relay.PanicError{Value: v, Stack: debug.Stack()}))
			}
		}()
		if err := c.R.Watch(); err != wire.ErrFull && !errors.Is(err, os.ErrDeadlineExceeded) {
			c.end(ErrClientGone)
		}
	})
	defer func() {
		if watch.Stop() {
			return
		}
		c.setReadDeadline(longAgo)
		<-watching
		c.setReadDeadline(time.Time{})
	}()
	err := do()
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Attempt is a try to log in as a front door read it.
type Attempt struct {
	Mechanism string // the SASL mechanism, or the command
	Authzid   string // empty: the same as Authcid
	Authcid   string
	Secret    []byte // the caller clears it
}

// ErrAuthzid says that somebody wants to act as somebody else.
var ErrAuthzid = errors.New("authzid is another's name")

// Admit decides an attempt, leads it to its backend, logs in there and enters the session. All that is left is to tell the client:
// Accept. The errors are *authstore.Refusal, ErrAuthzid, ErrNoRoute, ErrTooMany, ErrClientGone, and whatever went wrong with the
// backend; Observer has been told.
func (c *Conn) Admit(ctx context.Context, a Attempt) (*Session, error) {
	s := &Session{server: c.server, login: &login{Attempt: a, began: time.Now()}}
	s.login.Secret = nil
	s.ending.handTo(c.end)
	c.Backend = ""
	if err := c.watched(ctx, func() error { return c.admit(ctx, s, a) }); err != nil {
		return nil, c.decided(s, err)
	}
	c.admitted = s
	return s, nil
}

// decided tells of the end of an attempt.
func (c *Conn) decided(s *Session, err error) error {
	c.server.Observer.Login(LoginEvent{Facts: c.Facts, Mechanism: s.login.Mechanism, Grant: s.Grant, Domain: domainOf(s.login.Authcid),
		Err: err, Duration: time.Since(s.login.began)})
	return err
}

func (c *Conn) admit(ctx context.Context, s *Session, a Attempt) error {
	if !c.server.same(a.Authzid, a.Authcid) {
		return ErrAuthzid
	}
	var err error
	s.Grant, err = c.server.Verifier.Verify(ctx, authstore.Attempt{Protocol: c.Protocol, Mechanism: a.Mechanism, Login: a.Authcid,
		Secret: a.Secret, Client: c.Client.Addr(), Need: c.server.Door.Scopes()})
	if err != nil {
		return err
	}
	if s.login.route, err = c.server.Router.Route(ctx, c.Protocol, s.Grant); err != nil {
		return err
	}
	c.Backend = s.login.route.Backend
	if err := c.server.Limits.EnterSession(s.Grant.Account); err != nil {
		return err
	}
	entered := false
	defer func() {
		if !entered { // a defect of ours counts as well: a backend that has found one would use up its accounts' sessions
			c.server.Limits.LeaveSession(s.Grant.Account)
		}
	}()
	if err := c.logIn(ctx, s); err != nil {
		return err
	}
	s.facts = c.Facts
	s.entry = c.server.Sessions.Enter(&s.Grant, &s.facts, s.ending.end)
	entered = true
	if err := c.server.Verifier.Confirm(ctx, s.Grant); err != nil {
		s.abandon()
		return err
	}
	return nil
}

// logIn connects and logs in to the session's backend.
func (c *Conn) logIn(ctx context.Context, s *Session) error {
	observe := func(step string, d time.Duration, err error) {
		c.server.Observer.Backend(s.login.route.Backend, step, d, err)
	}
	var err error
	s.login.backend, err = Connect(ctx, s.login.route, observe, func(ctx context.Context, nc net.Conn) (*Backend, error) {
		return c.server.Door.LogInBackend(ctx, nc, s.login.route, c)
	})
	if errors.Is(err, ErrCredential) {
		c.server.Log.Error("the backend refused the gateway's login", "conn", c.Conn, "proto", c.Protocol, "account", s.Grant.Account,
			"backend", s.login.route.Backend, "err", err)
	}
	return err
}

// Accept tells the client that it is in. Then the connection is the session's: Login returns it.
func (c *Conn) Accept(ctx context.Context, s *Session, words string) error {
	if !c.settle() { // the login has been ended: the reader is told to stop
		return c.decided(s, context.Cause(ctx))
	}
	c.slot.Leave() // before the client can know and come again: 16 at a time would take the place of 32
	if err := c.Say(words); err != nil {
		return c.decided(s, ErrClientGone)
	}
	c.server.Verifier.Used(s.Grant, authstore.Use{Protocol: c.Protocol, App: c.App})
	return c.decided(s, nil)
}

// same reports whether an authzid asks for nobody else than the authcid proves.
func (s *running) same(authzid, authcid string) bool {
	if authzid == "" || authzid == authcid {
		return true
	}
	a, err := s.Names.Canonical(authzid)
	b, err2 := s.Names.Canonical(authcid)
	return err == nil && err2 == nil && a == b
}

// domainOf is all that may be logged of a name that belongs to nobody.
func domainOf(name string) string {
	at := strings.LastIndexByte(name, '@')
	if at < 0 {
		return ""
	}
	return strings.ToLower(name[at+1:])
}
