package directory

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"postern/protocols"
)

// The bounds of what a server may send as one answer, in bytes.
const (
	maxAnswer = 1 << 20
	maxBatch  = 32 << 20
)

const (
	maxIdle  = 4           // connections that are kept for the next search
	idleTime = time.Minute // for so long; servers and firewalls end them silently some time
)

var (
	errNoSense  = errors.New("it does not speak LDAP")
	errLong     = errors.New("it sends too much")
	errReferral = errors.New("it refers to another server for a part of the answer")
)

// refused is an answer other than success. why is more than the code says: Active Directory's, or the server's words, which are not told of a bind.
type refused struct {
	code uint16
	why  string
}

func (e *refused) Error() string {
	name := ldap.LDAPResultCodeMap[e.code]
	if name == "" {
		name = "an unknown result"
	}
	if e.why == "" {
		return fmt.Sprintf("it answers %q (%d)", name, e.code)
	}
	return fmt.Sprintf("it answers %q (%d): %s", name, e.code, e.why)
}

// bounded is a connection that gives a bounded number of bytes for each question. It remembers why no more was read, of which go-ldap makes text.
type bounded struct {
	net.Conn

	mu     sync.Mutex // guards the fields below
	left   int
	failed error
}

func (b *bounded) allow(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = n
}

func (b *bounded) Read(p []byte) (int, error) {
	b.mu.Lock()
	left := b.left
	b.mu.Unlock()
	if left <= 0 {
		return 0, b.note(errLong)
	}
	n, err := b.Conn.Read(p[:min(len(p), left)])
	b.mu.Lock()
	b.left -= n
	b.mu.Unlock()
	return n, b.note(err)
}

func (b *bounded) note(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil && b.failed == nil {
		b.failed = err
	}
	return err
}

func (b *bounded) cause() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

// link is one connection. One goroutine at a time uses it.
type link struct {
	nc   *bounded
	ldap *ldap.Conn
	used time.Time
}

// dial connects and starts TLS; nobody is bound. go-ldap's own StartTLS loses the reason of a failed handshake, and can wait for ever.
func (d *Directory) dial(ctx context.Context) (*link, error) {
	bare := *d.o.Route
	if bare.Security == protocols.ImplicitTLS {
		bare.Security = protocols.StartTLS // so that the handshake has the question's time
	}
	plain, err := protocols.Dial(ctx, &bare)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		plain.SetDeadline(deadline)
	}
	defer context.AfterFunc(ctx, func() { plain.Close() })()
	nc, err := secure(ctx, plain, d.o.Route) // another variable: ctx may end while this one is written
	if err != nil {
		return nil, err
	}
	nc.SetDeadline(time.Time{})
	l := &link{nc: &bounded{Conn: nc}, used: time.Now()}
	l.ldap = ldap.NewConn(l.nc, d.o.Route.Security != protocols.PlainText)
	l.ldap.SetTimeout(d.o.Time + time.Second) // behind ctx; without it go-ldap's Close may wait for ever
	l.nc.allow(maxAnswer)
	l.ldap.Start()
	return l, nil
}

func secure(ctx context.Context, nc net.Conn, r *protocols.Route) (net.Conn, error) {
	if r.Security == protocols.PlainText {
		return nc, nil
	}
	if r.Security == protocols.StartTLS {
		if err := askTLS(nc); err != nil {
			nc.Close()
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, err
		}
	}
	tc, err := protocols.Secure(ctx, nc, r)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return tc, nil
}

// startTLS is the request (RFC 4511 section 4.14.1), as message 1.
var startTLS = append([]byte{0x30, 0x1d, 0x02, 0x01, 0x01, 0x77, 0x18, 0x80, 0x16}, "1.3.6.1.4.1.1466.20037"...)

// askTLS asks for TLS, and reads the answer and not a byte more: what came behind it in plain text would be read as TLS, and fail.
func askTLS(nc net.Conn) (err error) {
	defer survive(&err)
	if _, err := nc.Write(startTLS); err != nil {
		return err
	}
	b := &bounded{Conn: nc, left: 4096}
	answer, err := ber.ReadPacket(b)
	switch {
	case b.cause() != nil:
		return b.cause()
	case err != nil || len(answer.Children) < 2 || answer.Children[1].Tag != ldap.ApplicationExtendedResponse:
		return errNoSense
	}
	return judge(ldap.GetLDAPError(answer), nil)
}

// survive makes an error of a panic in go-ldap over rubbish.
func survive(err *error) {
	if recover() != nil {
		*err = errNoSense
	}
}

// do asks one question. It returns when ctx ends, whatever go-ldap waits for; the connection is closed then.
func do[T any](ctx context.Context, l *link, most int, question func() (T, error)) (T, error) {
	type outcome struct {
		v   T
		err error
	}
	l.nc.allow(most)
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() { done <- o }()
		defer survive(&o.err)
		o.v, o.err = question()
	}()
	select {
	case o := <-done:
		l.used = time.Now()
		return o.v, judge(o.err, l.nc)
	case <-ctx.Done():
		l.nc.Close()
		var none T
		return none, context.Cause(ctx)
	}
}

// judge tells a server's refusal from what went wrong on the way.
func judge(err error, nc *bounded) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*ldap.Error](err); ok && e.ResultCode != 0 && e.ResultCode < ldap.ErrorNetwork {
		return &refused{code: e.ResultCode, why: fmt.Sprintf("%.200q", e.Err.Error())}
	}
	if nc != nil && nc.cause() != nil {
		return nc.cause()
	}
	return errNoSense
}

// whyAD is how Active Directory says in its words of error 49 what is the matter.
var whyAD = regexp.MustCompile(`, data ([0-9a-f]{1,8}),`)

// closedAD are its reasons that are no wrong password.
var closedAD = map[string]string{
	"530": "may not log on now", "531": "may not log on from here", "532": "password expired", "533": "disabled", "568": "in too many groups",
	"701": "account expired", "773": "must change the password first", "775": "locked",
}

// bind proves who we are. Nothing that the server says of it is told but codes: it might quote the password.
func (l *link) bind(ctx context.Context, dn string, password []byte) error {
	_, err := do(ctx, l, maxAnswer, func() (*ldap.SimpleBindResult, error) {
		return l.ldap.SimpleBind(&ldap.SimpleBindRequest{Username: dn, Password: string(password)})
	})
	if r, ok := errors.AsType[*refused](err); ok {
		why := ""
		if m := whyAD.FindStringSubmatch(r.why); m != nil {
			why = closedAD[m[1]]
		}
		return &refused{code: r.code, why: why}
	}
	return err
}

// search asks for entries below base. The answer is whole, or there is an error; with it come the entries that were sent before.
func (l *link) search(ctx context.Context, base, filter string, attributes []string, limit, most int, controls ...ldap.Control) ([]*ldap.Entry, error) {
	r, err := l.searched(ctx, ldap.ScopeWholeSubtree, base, filter, attributes, limit, most, controls...)
	if r == nil {
		return nil, err
	}
	return r.Entries, err
}

func (l *link) searched(ctx context.Context, scope int, base, filter string, attributes []string, limit, most int, controls ...ldap.Control) (*ldap.SearchResult, error) {
	seconds := 0
	if deadline, ok := ctx.Deadline(); ok {
		seconds = max(1, int(time.Until(deadline).Seconds()))
	}
	q := ldap.NewSearchRequest(base, scope, ldap.NeverDerefAliases, limit, seconds, false, filter, attributes, controls)
	r, err := do(ctx, l, most, func() (*ldap.SearchResult, error) { return l.ldap.Search(q) })
	if err == nil && elsewhere(r.Referrals) {
		err = errReferral
	}
	return r, err
}

// elsewhere reports whether references lead to where people may be. Active Directory's root always refers to its parts for DNS and for its
// configuration, where nobody is.
func elsewhere(referrals []string) bool {
	for _, r := range referrals {
		u, err := url.Parse(r)
		if err != nil {
			return true
		}
		dn := strings.ToLower(strings.TrimPrefix(u.Path, "/"))
		if !strings.HasPrefix(dn, "dc=domaindnszones,") && !strings.HasPrefix(dn, "dc=forestdnszones,") && !strings.HasPrefix(dn, "cn=configuration,") {
			return true
		}
	}
	return false
}

// unbind ends a session (RFC 4511 section 4.3), as a message of a number that none had.
var unbind = []byte{0x30, 0x08, 0x02, 0x04, 0x7f, 0xff, 0xff, 0xff, 0x42, 0x00}

// close says goodbye and hangs up. go-ldap's goroutines end with the connection.
func (l *link) close() {
	l.nc.SetWriteDeadline(time.Now().Add(time.Second))
	if l.nc.cause() == nil {
		l.nc.Write(unbind)
	}
	l.nc.Close()
}

// open gives a connection that is bound for searches.
func (d *Directory) open(ctx context.Context) (*link, error) {
	l, err := d.dial(ctx)
	if err != nil || d.o.BindDN == "" {
		return l, err
	}
	password, err := d.o.Password()
	if err == nil {
		defer clear(password)
		if err = l.bind(ctx, d.o.BindDN, password); err != nil {
			err = &ownBind{d.o.BindDN, err}
		}
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// ownBind is a refusal of our own bind.
type ownBind struct {
	dn  string
	err error
}

func (e *ownBind) Error() string { return fmt.Sprintf("bind as %s: %v", e.dn, e.err) }
func (e *ownBind) Unwrap() error { return e.err }

// withLink has do ask over a connection that was kept, or a new one. What fails over a kept one is asked again over a new one: it may have ended
// meanwhile.
func (d *Directory) withLink(ctx context.Context, do func(*link) error) error {
	if l := d.kept(); l != nil {
		err := do(l)
		if d.keep(l, err) || ctx.Err() != nil || errors.Is(err, errLong) {
			return err
		}
	}
	l, err := d.open(ctx)
	if err != nil {
		return err
	}
	err = do(l)
	d.keep(l, err)
	return err
}

func (d *Directory) kept() *link {
	for {
		select {
		case l := <-d.idle:
			if l.nc.cause() == nil && time.Since(l.used) < idleTime {
				return l
			}
			l.close()
		default:
			return nil
		}
	}
}

// keep keeps a connection that is well, and reports whether it is: what the server answered over it counts.
func (d *Directory) keep(l *link, err error) bool {
	_, answered := errors.AsType[*refused](err)
	if err != nil && !answered && !errors.Is(err, errNoOne) && !errors.Is(err, errMany) && !errors.Is(err, errReferral) || l.nc.cause() != nil {
		l.close()
		return false
	}
	if r, _ := errors.AsType[*refused](err); r != nil && (r.code == ldap.LDAPResultBusy || r.code == ldap.LDAPResultUnavailable || r.code == ldap.LDAPResultUnwillingToPerform) {
		l.close() // it may be about to end
		return true
	}
	select {
	case d.idle <- l:
		if d.closed.Load() { // who closes may have looked before it was there
			d.Close()
		}
	default:
		l.close()
	}
	return true
}
