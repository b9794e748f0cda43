package davproxy

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"net/http"
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
	socket net.Conn // nil: none that may be closed
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
}

const (
	maxLogins = 256             // on one connection: a proxy's serves many
	usedEvery = 5 * time.Minute // "last used" of a connection that goes on
)

// newConn takes a place for a connection; nil: there is none to close. ended is called when it has closed and its requests have
// ended.
func (s *Server) newConn(nc net.Conn, ended func()) *conn {
	if tc, ok := nc.(*tls.Conn); ok {
		nc = tc.NetConn() // whose Close does not wait for the peer
	}
	c := &conn{id: strings.ToLower(rand.Text()[:13]), server: s, socket: nc, logins: make(map[loginKey]*loginState), ended: ended}
	c.slot = s.o.Limits.Enter(c.hangUp)
	if nc == nil || len(s.o.Proxies) > 0 {
		return c // who the client is comes later
	}
	if from, err := netip.ParseAddrPort(nc.RemoteAddr().String()); err == nil && !s.o.TrustedProxies.Trusts(protocols.Unmapped(from).Addr()) {
		if err := c.locate(protocols.Unmapped(from)); err != nil {
			s.refusals.Add(nc.RemoteAddr(), err)
			c.hangUp()
		}
	}
	return c
}

// connOf finds a request's connection. done is to be called when it is answered.
func (s *Server) connOf(r *http.Request) (c *conn, done func()) {
	if c, ok := r.Context().Value(connKey{}).(*conn); ok {
		return c, func() {}
	}
	c = s.newConn(nil, func() {})
	return c, func() { c.close("client closed") }
}

// hangUp cuts the connection.
func (c *conn) hangUp() {
	if c.socket != nil {
		c.socket.Close()
	}
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
	now := time.Now().Unix()
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

// longAgo as a deadline wakes whoever reads or writes.
var longAgo = time.Unix(1, 0)

// deadlines is the one place that moves a request's deadlines. While somebody waits for the client a timer runs, and a deadline is
// moved, into the past, only when it has run out. A deadline of its own for each read and write would be a message to another
// goroutine on HTTP/2, and would end the stream even while nobody waits.
type deadlines struct {
	ctl http.ResponseController

	mu      sync.Mutex // guards the fields below
	over    bool       // the request has ended, or was cut: nobody may move them any more
	stopped bool       // stopReading was called
	conn    *conn      // the connection, if it is only this request's; nil: it isn't
	reading time.Time  // until when somebody may wait for words of the client's; zero: nobody does
	writing time.Time  // until when somebody may wait for the client to take ours
	timer   *time.Timer
	due     time.Time // when the timer runs out; zero: it does not run
}

// read says that reading may take so long from now on; 0: it is over.
func (d *deadlines) read(most time.Duration) { d.expect(&d.reading, most) }

// write says that writing may take so long from now on; 0: it is over.
func (d *deadlines) write(most time.Duration) { d.expect(&d.writing, most) }

func (d *deadlines) expect(until *time.Time, most time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if *until = (time.Time{}); most > 0 {
		*until = time.Now().Add(most)
	}
	d.wind()
}

// wind sets the timer to what comes next. One that runs is left alone: most waits are over long before, and when it runs out it is
// set to what is waited for then. It is called with mu held.
func (d *deadlines) wind() {
	next := d.reading
	if next.IsZero() || !d.writing.IsZero() && d.writing.Before(next) {
		next = d.writing
	}
	if d.over || next.IsZero() || !d.due.IsZero() && !d.due.After(next) {
		return
	}
	d.due = next
	if d.timer == nil {
		d.timer = time.AfterFunc(time.Until(next), d.expire)
	} else {
		d.timer.Reset(time.Until(next))
	}
}

// expire wakes whoever has waited too long.
func (d *deadlines) expire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return
	}
	d.due = time.Time{}
	now := time.Now()
	if !d.reading.IsZero() && !now.Before(d.reading) {
		d.reading = time.Time{}
		d.ctl.SetReadDeadline(longAgo) // a server without deadlines has none
	}
	if !d.writing.IsZero() && !now.Before(d.writing) {
		d.writing = time.Time{}
		d.ctl.SetWriteDeadline(longAgo)
		d.ctl.SetReadDeadline(longAgo) // net/http reads what is left of a request before it answers
	}
	d.wind()
}

// stopReading wakes whoever reads from the client, for good.
func (d *deadlines) stopReading() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.over {
		d.stopped = true
		d.ctl.SetReadDeadline(longAgo)
	}
}

// hasStopped tells whether stopReading was called. An answer is about to be written then.
func (d *deadlines) hasStopped() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stopped
}

// cut wakes whoever reads from or writes to the client.
func (d *deadlines) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.over {
		d.leave()
		d.ctl.SetWriteDeadline(longAgo) // first: who is woken from reading shall not answer
		d.ctl.SetReadDeadline(longAgo)
		if d.conn != nil {
			d.conn.hangUp() // TLS would take five seconds to say goodbye to who takes nothing
		}
	}
}

// leave is called with mu held.
func (d *deadlines) leave() {
	d.over = true
	if d.timer != nil {
		d.timer.Stop()
	}
}

// finish gives what net/http does after the handler its time: it reads what is left of the request, if reads, and sends the last
// bytes. The connection may serve another request then.
func (d *deadlines) finish(reads bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return
	}
	d.leave()
	d.ctl.SetWriteDeadline(time.Now().Add(stallTime))
	if reads {
		d.ctl.SetReadDeadline(time.Now().Add(restTime))
	}
}

// writer is the way to the client.
type writer struct {
	http.ResponseWriter
	deadlines deadlines
	reads     bool          // something of the request's body is left
	expects   bool          // reading it may wait for the client to take our "100 Continue"
	begun     bool          // the header was sent
	down      *atomic.Int64 // counts bytes; nil: nobody does
}

func newWriter(rw http.ResponseWriter, r *http.Request) *writer {
	w := &writer{ResponseWriter: rw, deadlines: deadlines{ctl: *http.NewResponseController(rw)}}
	if r.ProtoMajor == 1 {
		w.reads, w.expects = r.ContentLength != 0, r.Header.Get("Expect") != ""
		w.deadlines.ctl.SetWriteDeadline(time.Time{}) // the last request's stands
	}
	return w
}

func (w *writer) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(b []byte) (int, error) {
	w.begun = true
	w.deadlines.write(stallTime)
	n, err := w.ResponseWriter.Write(b)
	w.deadlines.write(0)
	if w.down != nil {
		w.down.Add(int64(n))
	}
	return n, err
}

func (w *writer) finish() { w.deadlines.finish(w.reads) }

// body reads a request's body.
type body struct {
	from io.Reader
	w    *writer // to the client whose body it is
	up   *atomic.Int64
	over atomic.Bool // all was read, or as much as can be
}

func (b *body) Read(p []byte) (int, error) {
	b.w.deadlines.read(stallTime)
	if b.w.expects {
		b.w.deadlines.write(stallTime)
	}
	n, err := b.from.Read(p)
	b.w.deadlines.read(0)
	if b.w.expects {
		b.w.deadlines.write(0)
		b.w.expects = false
	}
	b.up.Add(int64(n))
	if err != nil {
		b.over.Store(true)
	}
	if err == io.EOF {
		b.w.reads = false // nobody writes meanwhile
	}
	return n, err
}

// Close ends a Read that is under way. What is left of the body stays unread, and the connection closes after the answer.
func (b *body) Close() error {
	if !b.over.Load() {
		b.w.deadlines.stopReading()
		// net/http gives a client that goes on sending half a second to read the answer, if it is told that the body is too large.
		http.MaxBytesReader(b.w.ResponseWriter, io.NopCloser(strings.NewReader("x")), 0).Read(make([]byte, 1))
	}
	return nil
}
