package protocols

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"
)

// How long the steps towards a backend may take.
const (
	connectTime = 5 * time.Second  // connecting, and TLS where it is implicit
	backendTime = 15 * time.Second // everything from the greeting to the end of the login
)

// Backend is a connection to a backend whose login is over.
type Backend struct {
	Conn         net.Conn
	Rest         []byte // what the backend sent behind its answer: it belongs to the client
	Capabilities string // what the client is told of the backend, in the words of the protocol
}

// ErrCredential marks that a backend refused the gateway's own credential. It needs somebody now: nobody gets in.
var ErrCredential = errors.New("the backend refused the gateway's credential")

// Connect connects to a backend, or takes a connection of the route's pool, and has talk log in there; a second time, over a new
// connection, where that of the pool failed. What talk does ends with ctx or after 15 seconds, for its reads and
// writes fail then. observe is told how long "connect" and "login" took; nil: nobody.
func Connect(ctx context.Context, r *Route, observe func(step string, d time.Duration, err error), talk func(context.Context, net.Conn) (*Backend, error)) (*Backend, error) {
	if observe == nil {
		observe = func(string, time.Duration, error) {}
	}
	began := time.Now()
	if nc := r.Pool.take(r); nc != nil {
		b, err := logIn(ctx, nc, r, talk)
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrCredential) {
			observe("login", time.Since(began), err)
			return b, err
		}
		began = time.Now() // the backend may have hung up meanwhile: a new connection tells whether that was all
	}
	nc, err := Dial(ctx, r)
	observe("connect", time.Since(began), err)
	if err != nil {
		if ctx.Err() != nil { // net says "operation was canceled"
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("connect to backend %s: %w", r.Backend, err)
	}
	began = time.Now()
	b, err := logIn(ctx, nc, r, talk)
	observe("login", time.Since(began), err)
	return b, err
}

func logIn(ctx context.Context, nc net.Conn, r *Route, talk func(context.Context, net.Conn) (*Backend, error)) (*Backend, error) {
	b, err := converse(ctx, nc, talk)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("log in to backend %s: %w", r.Backend, err)
	}
	return b, nil
}

// Dial connects to a backend, with TLS if it is implicit. It takes at most five seconds.
func Dial(ctx context.Context, r *Route) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	d := net.Dialer{KeepAlive: -1} // see keepBackend
	if r.Security == PlainText {
		d.ControlContext = insideOnly
	}
	nc, err := d.DialContext(ctx, r.Network, r.Address)
	if err != nil {
		return nil, err
	}
	keepBackend(nc)
	if r.Security != ImplicitTLS {
		return nc, nil
	}
	tc, err := Secure(ctx, nc, r)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return tc, nil
}

var errOutside = errors.New("no address of loopback or of a private network")

// insideOnly keeps plain text, and the gateway's credential in it, in the house, whatever a name means today: that of a container
// that has stopped is asked of the world's name servers.
func insideOnly(_ context.Context, _, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if a := at.Addr().Unmap(); err == nil && !a.IsLoopback() && !a.IsPrivate() {
		return errOutside
	}
	return nil // or a Unix socket
}

// Secure starts TLS towards a backend and verifies it. After an error nc is of no use.
func Secure(ctx context.Context, nc net.Conn, r *Route) (*tls.Conn, error) {
	cfg := r.TLS
	if cfg.ServerName == "" {
		host, _, err := net.SplitHostPort(r.Address)
		if err != nil {
			return nil, fmt.Errorf("no server name to verify: %w", err)
		}
		cfg = cfg.Clone()
		cfg.ServerName = host
	}
	tc := tls.Client(nc, cfg)
	return tc, tc.HandshakeContext(ctx)
}

// longAgo as a deadline wakes whoever reads or writes.
var longAgo = time.Unix(1, 0)

func converse(ctx context.Context, nc net.Conn, talk func(context.Context, net.Conn) (*Backend, error)) (*Backend, error) {
	ctx, cancel := context.WithTimeout(ctx, backendTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(longAgo) })
	b, err := talk(ctx, nc)
	if !stop() { // its end is the cause of whatever went wrong
		return nil, context.Cause(ctx)
	}
	return b, err
}

// Visit connects to a backend, has talk do there what it likes, and hangs up.
func Visit(ctx context.Context, r *Route, talk func(context.Context, net.Conn) (*Backend, error)) error {
	b, err := Connect(ctx, r, nil, talk)
	if err != nil {
		return err
	}
	return b.Conn.Close()
}

// Explain turns an error of visiting a backend into what is wrong and what to do, for people who set one up. They know which backend it is
// about. remedy is what the protocol knows to do about it; empty: nothing. No error stays none.
func Explain(r *Route, err error, remedy string) error {
	if err == nil {
		return nil
	}
	where := r.Address
	if remedy != "" {
		return fmt.Errorf("%s: %s: %w", where, remedy, err)
	}
	unknown, okUnknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, okName := errors.AsType[x509.HostnameError](err)
	invalid, okInvalid := errors.AsType[x509.CertificateInvalidError](err)
	dns, okDNS := errors.AsType[*net.DNSError](err)
	_, okRecord := errors.AsType[tls.RecordHeaderError](err)
	told, okTold := errors.AsType[*net.OpError](err)
	switch {
	case okUnknown:
		issuer := ""
		if unknown.Cert != nil {
			issuer = fmt.Sprintf(" (%s)", unknown.Cert.Issuer)
		}
		return fmt.Errorf("%s: its certificate is signed by an authority that this machine does not know%s; name the authority's certificate as ca_file, or give the backend a certificate of a known one: %w", where, issuer, err)
	case okName:
		return fmt.Errorf("%s: its certificate is for another name; set server_name to a name that stands in it, or address to that name: %w", where, err)
	case okInvalid && invalid.Reason == x509.Expired:
		return fmt.Errorf("%s: its certificate has expired or is not valid yet; renew it there, and look at both clocks: %w", where, err)
	case okInvalid:
		return fmt.Errorf("%s: its certificate can't be used; give it another one: %w", where, err)
	case okRecord:
		return fmt.Errorf("%s: it does not speak TLS from the start; set tls = \"starttls\" (IMAP on port 143, submission on 587), or the port that speaks TLS: %w", where, err)
	case okTold && told.Op == "remote error" && strings.Contains(told.Error(), "certificate"): // a TLS alert, RFC 8446 section 6.2
		return fmt.Errorf("%s: it wants a certificate of ours that it trusts; set client_cert and client_key to one that its own authority for clients has signed (Radicale: certificate_authority; "+
			"nginx: ssl_client_certificate): %w", where, err)
	case okDNS && dns.IsNotFound:
		return fmt.Errorf("%s: there is no such host; look at its address: %w", where, err)
	case okDNS:
		return fmt.Errorf("%s: its name can't be looked up; look at this machine's name servers: %w", where, err)
	case errors.Is(err, errOutside):
		return fmt.Errorf("%s: without TLS only loopback and private networks are reached; set tls, or look at the address: %w", where, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s: nobody listens there; start it, or look at host and port: %w", where, err)
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s: there is no such socket; start it, or look at its path: %w", where, err)
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%s: it hung up; look at its log, and whether it knows the account by the name that login gives: %w", where, err)
	case errors.Is(err, ErrNoBearer):
		return fmt.Errorf("%s: this backend has credential = \"oauth\", and no mechanism that takes a token is there; allow one (Dovecot: auth_mechanisms, and a passdb or oauth2 settings that look at tokens), set tls if it hides them without TLS, "+
			"or use another credential: %w", where, err)
	case errors.Is(err, ErrCredential) && r.Bearer:
		return fmt.Errorf("%s: it refuses the token for %s; look whether the provider gives tokens for this server and protocol (scopes), whether %s is the name of whoever is connected, as the backend knows it (login), and connect the account again; "+
			"Exchange Online: whether the protocol is switched on for the mailbox (docs/oauth.md): %w", where, r.Login, r.Login, err)
	case errors.Is(err, ErrCredential):
		return fmt.Errorf("%s: it refuses the login; a wrong password in password_file (or stored by \"postern account credential\"), a wrong user, or (with a master user) one that may not act for others: "+
			"Dovecot needs a passdb with master = yes, and the account %s must exist there: %w", where, r.Login, err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		hint := ""
		if r.Security != ImplicitTLS {
			hint = ` or speaks TLS from the start (then set tls = "implicit")`
		}
		return fmt.Errorf("%s: it does not answer in time; look at host, port and firewalls, and whether it hangs%s: %w", where, hint, err)
	}
	return fmt.Errorf("%s: %w", where, err)
}
