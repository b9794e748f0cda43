// Package imapsignin checks primary passwords by logging in to an IMAP server: once for each sign-in at the portal, and gone again. No
// protocol of apps uses it, and nothing it is told is kept.
package imapsignin

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"postern/authstore/identity"
	"postern/protocols"
)

// The bounds of one check. A server's certificates are the most that an honest one sends.
const (
	checkTime  = 10 * time.Second
	logoutTime = time.Second
	maxRead    = 64 << 10
	maxAtOnce  = 16
)

// Checker checks primary passwords. Goroutines may share it.
type Checker struct {
	route *protocols.Route
	login func(ctx context.Context, address string) (string, error)
	log   *slog.Logger

	places     chan struct{}
	complained atomic.Int64 // when the log was last told of trouble, in Unix seconds
}

var _ identity.Checker = (*Checker)(nil)

// New makes a checker for the server at the end of a route, whose credential is not used. login gives the name there of the account with an
// address.
func New(r *protocols.Route, login func(ctx context.Context, address string) (string, error), log *slog.Logger) *Checker {
	return &Checker{route: r, login: login, log: log, places: make(chan struct{}, maxAtOnce)}
}

var errBusy = errors.New("too many sign-ins are being checked")

// Check tells whether the server takes a primary password for the account with an address: nil, identity.ErrWrong, or another error where
// that can't be known. No error says anything of the password, and a mail server says nothing of whose it is.
func (c *Checker) Check(ctx context.Context, address string, password []byte) (identity.Claims, error) {
	return identity.Claims{}, c.ask(ctx, address, password)
}

func (c *Checker) ask(ctx context.Context, address string, password []byte) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	select {
	case c.places <- struct{}{}:
		defer func() { <-c.places }()
	case <-ctx.Done():
		return errBusy
	}
	login, err := c.login(ctx, address)
	if err != nil {
		return err
	}
	if !sayable(login, password) {
		return identity.ErrWrong
	}
	if err := c.check(ctx, login, password); err != nil {
		if ctx.Err() != nil { // it is the cause of whatever went wrong
			err = context.Cause(ctx)
		}
		if errors.Is(err, identity.ErrWrong) {
			return identity.ErrWrong
		}
		err = fmt.Errorf("sign in at %s: %w", c.route.Address, err)
		c.complain(err)
		return err
	}
	return nil
}

// complain tells the log that primary passwords can't be checked, at most once a minute. It is not told of who gave up.
func (c *Checker) complain(err error) {
	now, last := time.Now().Unix(), c.complained.Load()
	if !errors.Is(err, context.Canceled) && now-last >= 60 && c.complained.CompareAndSwap(last, now) {
		c.log.Error("primary passwords can't be checked", "err", err)
	}
}

// sayable reports whether PLAIN can carry a name and a password (RFC 4616 section 2).
func sayable(login string, password []byte) bool {
	return login != "" && len(password) > 0 && strings.IndexByte(login, 0) < 0 && bytes.IndexByte(password, 0) < 0
}

func (c *Checker) check(ctx context.Context, login string, password []byte) error {
	v, err := visit(ctx, c.route)
	if err != nil {
		return err
	}
	defer v.close()
	if v.plain {
		err = v.client.Authenticate(&plain{login, password})
	} else {
		err = v.client.Login(login, string(password)).Wait()
	}
	if err == nil {
		v.logout()
		return nil
	}
	return c.judge(login, v.blame(err))
}

// judge reads the server's answer to a login.
func (c *Checker) judge(login string, err error) error {
	answer, ok := errors.AsType[*imap.Error](err)
	if !ok {
		return err
	}
	code := imap.ResponseCode(strings.ToUpper(string(answer.Code)))
	if answer.Type == imap.StatusResponseTypeNo {
		switch code {
		case "", imap.ResponseCodeAuthenticationFailed:
			return identity.ErrWrong
		case imap.ResponseCodeExpired, imap.ResponseCodeContactAdmin:
			c.log.Warn("the server of [portal.imap] lets nobody in by this name", "login", login, "code", string(code))
			return identity.ErrWrong
		}
	}
	return &refused{answer.Type, code} // its text is the server's, and could hold anything
}

// refused is an answer that says nothing of the password.
type refused struct {
	kind imap.StatusResponseType
	code imap.ResponseCode
}

func (e *refused) Error() string {
	if e.code == "" {
		return fmt.Sprintf("it answers the login with %s", e.kind)
	}
	return fmt.Sprintf("it answers the login with %s [%s]", e.kind, e.code)
}

// plain is SASL PLAIN with the response made when it is sent.
type plain struct {
	login    string
	password []byte
}

func (p *plain) Start() (string, []byte, error) {
	response := append([]byte("\x00"+p.login+"\x00"), p.password...)
	return "PLAIN", response, nil
}

func (p *plain) Next([]byte) ([]byte, error) { return nil, errNoSense }

// Probe tries the server as far as one can without a password, and says in plain words what is wrong and what to do; nil: all is well.
func Probe(ctx context.Context, r *protocols.Route) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	v, err := visit(ctx, r)
	if err == nil {
		v.logout()
		v.close()
	}
	if err != nil && ctx.Err() != nil { // it is the cause of whatever went wrong
		err = context.Cause(ctx)
	}
	remedy := ""
	switch {
	case errors.Is(err, errNoSense):
		remedy = `look at host and port (143, or 993 with tls = "implicit")`
	case errors.Is(err, io.EOF) && r.Security != protocols.ImplicitTLS:
		remedy = `it hangs up; if it speaks TLS from the start, set tls = "implicit"`
	case errors.Is(err, errSentAway):
		remedy = `look at its log: it may be full or shutting down (Dovecot: client_limit, process_limit), or not want this machine`
	case errors.Is(err, errNoLogin):
		remedy = `allow AUTH=PLAIN there (Dovecot: auth_mechanisms), or, if it hides it without TLS, set tls = "starttls" or "implicit"`
	}
	return protocols.Explain(r, err, remedy)
}

var (
	errNoSense  = errors.New("it does not speak IMAP")
	errSentAway = errors.New("it sends us away")
	errNoLogin  = errors.New("it offers neither AUTH=PLAIN nor LOGIN")
	errLong     = errors.New("it sends too much")
)

// visited is a connection up to the login.
type visited struct {
	client *imapclient.Client
	conn   *bounded
	plain  bool // AUTHENTICATE PLAIN, not LOGIN
	stop   func() bool
}

// visit connects, starts TLS, and asks what the server can do. ctx bounds the whole visit, and must have a deadline.
func visit(ctx context.Context, r *protocols.Route) (*visited, error) {
	bare := *r
	if r.Security == protocols.ImplicitTLS {
		bare.Security = protocols.StartTLS // so that the handshake is read within the bounds, too
	}
	nc, err := protocols.Dial(ctx, &bare)
	if err != nil {
		return nil, err
	}
	until, _ := ctx.Deadline()
	nc.SetDeadline(until.Add(time.Second)) // behind ctx, whose end tells the cause
	v := &visited{conn: &bounded{Conn: nc, left: maxRead}}
	v.stop = context.AfterFunc(ctx, func() { nc.Close() })
	if err := v.open(ctx, r); err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

func (v *visited) open(ctx context.Context, r *protocols.Route) error {
	if err := v.greet(ctx, r); err != nil {
		return err
	}
	if v.client.State() != imap.ConnStateNotAuthenticated {
		return errNoSense // PREAUTH is no answer about a password
	}
	caps, err := v.client.Capability().Wait() // anew: what was said before TLS could be anybody's
	switch {
	case err != nil:
		return v.explain(err)
	case caps.Has(imap.AuthCap("PLAIN")):
		v.plain = true
	case caps.Has(imap.CapLoginDisabled):
		return errNoLogin
	}
	return nil
}

func (v *visited) greet(ctx context.Context, r *protocols.Route) error {
	switch r.Security {
	case protocols.ImplicitTLS:
		tc, err := protocols.Secure(ctx, v.conn, r)
		if err != nil {
			return err
		}
		return v.start(tc, nil)
	case protocols.StartTLS:
		return v.start(v.conn, named(r))
	}
	return v.start(v.conn, nil)
}

// start makes the client once the server has greeted it. startTLS is the configuration to go on to TLS with; nil: it does not.
func (v *visited) start(nc net.Conn, startTLS *tls.Config) error {
	nc, err := greeted(nc)
	switch {
	case err != nil:
	case startTLS != nil:
		v.client, err = imapclient.NewStartTLS(nc, &imapclient.Options{TLSConfig: startTLS})
	default:
		v.client = imapclient.New(nc, nil)
		err = v.client.WaitGreeting()
	}
	if err != nil {
		return v.explain(err)
	}
	return nil
}
