package davproxy

import (
	"context"
	"crypto/rand"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postern/authstore"
	"postern/protocols"
)

// connKey finds the conn in a request's context.
type connKey struct{}

// conn is a client's connection, or a proxy's. Each request on it is verified; a login is told of once for each app password and
// address, and its end when the connection ends.
type conn struct {
	id     string
	server *Server
	line   *line
	slot   *protocols.Slot

	located sync.Once
	tooMany error

	mu       sync.Mutex // guards the fields below
	logins   map[loginKey]*loginState
	account  authstore.AccountID // whose session it counts as; zero: it has not logged in
	requests int                 // under way; on HTTP/2 they may outlast the connection
	closed   bool
	reason   string // why it closed
	ended    func() // called when it has closed and its requests have ended
}

type loginKey struct {
	password authstore.PasswordID
	client   netip.Addr
}

// loginState is what is known of one login on a connection.
type loginState struct {
	facts  protocols.Facts
	grant  authstore.Grant
	began  time.Time
	up     atomic.Int64
	down   atomic.Int64
	used   atomic.Int64          // when Used was told last, Unix time
	reason atomic.Pointer[error] // why a request was cut

	forwarded []string // the value of X-Forwarded-For; nil: the client is not known
}

const (
	maxLogins = 256             // on one connection: a proxy's serves many
	usedEvery = 5 * time.Minute // "last used" of a connection that goes on
)

// newConn takes a place for a connection. ended is called when it has closed and its requests have ended.
func (s *Server) newConn(l *line, ended func()) *conn {
	c := &conn{id: strings.ToLower(rand.Text()[:13]), server: s, line: l, logins: make(map[loginKey]*loginState), ended: ended}
	c.slot = s.o.Limits.Enter(l.hangUp)
	if len(s.o.Proxies) > 0 {
		return c // who the client is comes later
	}
	if from, err := netip.ParseAddrPort(l.RemoteAddr().String()); err == nil && !s.o.TrustedProxies.Trusts(protocols.Unmapped(from).Addr()) {
		if err := c.locate(protocols.Unmapped(from)); err != nil {
			s.refusals.Add(l.RemoteAddr(), err)
			l.hangUp()
		}
	}
	return c
}

// locate counts the connection for its client's network.
func (c *conn) locate(client netip.AddrPort) error {
	c.located.Do(func() { c.tooMany = c.slot.Locate(client.Addr()) })
	return c.tooMany
}

// accept finds or makes the login of a confirmed session, and tells of it. The error says that there are too many sessions.
func (c *conn) accept(ss *session, t target, began time.Time) error {
	login, first, err := c.loginOf(ss)
	if err != nil {
		return err
	}
	ss.login = login
	if first {
		login.facts.Backend = ss.backendOf(t)
		ss.server.o.Observer.Login(protocols.LoginEvent{
			Facts: login.facts, Mechanism: "Basic", Grant: ss.grant, Duration: time.Since(began),
		})
	}
	now := began.Unix()
	if last := login.used.Load(); now-last >= int64(usedEvery/time.Second) && login.used.CompareAndSwap(last, now) {
		ss.server.o.Verifier.Used(ss.grant, authstore.Use{Protocol: Protocol, App: ss.facts.App})
	}
	return nil
}

func (c *conn) loginOf(ss *session) (login *loginState, first bool, err error) {
	key := loginKey{ss.grant.Password, ss.facts.Client.Addr()}
	c.mu.Lock()
	defer c.mu.Unlock()
	if login := c.logins[key]; login != nil {
		return login, false, nil
	}
	if c.account == 0 {
		if err := c.server.o.Limits.EnterSession(ss.grant.Account); err != nil {
			return nil, false, err
		}
		c.account = ss.grant.Account
		c.slot.Leave()
	}
	if len(c.logins) == maxLogins {
		c.endAll("many logins on one connection")
	}
	login = &loginState{facts: ss.facts, grant: ss.grant, began: time.Now()}
	if key.client.IsValid() {
		login.forwarded = []string{key.client.String()}
	}
	c.logins[key] = login
	return login, true, nil
}

// begin counts a request; false: the connection has closed, and the request came too late.
func (c *conn) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.requests++
	}
	return !c.closed
}

// done counts a request that has ended.
func (c *conn) done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests--
	c.end()
}

// close is called once, when the connection is closed.
func (c *conn) close(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed, c.reason = true, reason
	c.slot.Leave()
	c.end()
}

// end tells the end of the logins of a connection that has closed, when the last of its requests has ended. It is called with mu
// held.
func (c *conn) end() {
	if !c.closed || c.requests > 0 {
		return
	}
	if c.account != 0 {
		c.server.o.Limits.LeaveSession(c.account)
	}
	c.endAll(c.reason)
	c.ended()
}

// endAll is called with mu held; the observer does not block.
func (c *conn) endAll(reason string) {
	for key, login := range c.logins {
		delete(c.logins, key)
		e := protocols.EndEvent{
			Facts: login.facts, Grant: login.grant, Reason: reason, Duration: time.Since(login.began),
			Up: login.up.Load(), Down: login.down.Load(),
		}
		if cause := login.reason.Load(); cause != nil {
			e.Reason = (*cause).Error()
		}
		c.server.o.Observer.Ended(e)
	}
}

// note keeps the cause that cut a request, other than that the client has gone.
func (l *loginState) note(cause error) {
	if cause != nil && cause != context.Canceled {
		l.reason.Store(&cause)
	}
}

// backendOf names the backend that a request will be led to; empty: none.
func (ss *session) backendOf(t target) string {
	if t.kind == unknown {
		return ""
	}
	r, err := ss.server.o.Router.Route(ss.ctx, t.kind.content().String(), ss.grant)
	if err != nil {
		return ""
	}
	return r.Backend
}
