package imapproxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/authstore"
	"postern/gateway/live"
	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/imapproxy"
)

// The app password of the lab's users. The store that knows real ones is proven elsewhere.
const appPassword = "abcde-fghjk-mnopq-rstuv"

// verifier stands for the store: it gives what a test says.
type verifier struct {
	verify  func(ctx context.Context, a authstore.Attempt) (authstore.Grant, error) // nil: appPassword opens everything
	confirm func(ctx context.Context, g authstore.Grant) error

	mu    sync.Mutex
	uses  []authstore.Use
	named []authstore.Use
	tried []authstore.Attempt // without secrets
}

func (v *verifier) Verify(ctx context.Context, a authstore.Attempt) (authstore.Grant, error) {
	v.mu.Lock()
	tried := a
	tried.Secret = nil
	v.tried = append(v.tried, tried)
	v.mu.Unlock()
	if v.verify != nil {
		return v.verify(ctx, a)
	}
	if string(a.Secret) != appPassword {
		return authstore.Grant{}, &authstore.Refusal{Code: authstore.Wrong}
	}
	return authstore.Grant{Account: 1, Password: 11, Address: strings.ToLower(a.Login), Scopes: authstore.ScopeMail}, nil
}

func (v *verifier) Confirm(ctx context.Context, g authstore.Grant) error {
	if v.confirm != nil {
		return v.confirm(ctx, g)
	}
	return nil
}

func (v *verifier) Used(g authstore.Grant, u authstore.Use) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.uses = append(v.uses, u)
}

func (v *verifier) Named(_ authstore.Grant, u authstore.Use) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.named = append(v.named, u)
}

// observer keeps what it is told.
type observer struct {
	logins chan protocols.LoginEvent
	ended  chan protocols.EndEvent
	steps  atomic.Int64
}

func newObserver() *observer {
	return &observer{logins: make(chan protocols.LoginEvent, 10000), ended: make(chan protocols.EndEvent, 10000)}
}

func (o *observer) Login(e protocols.LoginEvent)                 { o.logins <- e }
func (o *observer) Ended(e protocols.EndEvent)                   { o.ended <- e }
func (o *observer) Backend(string, string, time.Duration, error) { o.steps.Add(1) }

type routerFunc func(authstore.Grant) (*protocols.Route, error)

func (f routerFunc) Route(_ context.Context, protocol string, g authstore.Grant) (*protocols.Route, error) {
	if protocol != imapproxy.Protocol {
		return nil, protocols.ErrNoRoute
	}
	return f(g)
}

// toDovecot leads to a lab's Dovecot by its master user.
func toDovecot(d *testlab.DovecotServer, security protocols.Security) routerFunc {
	address := d.IMAP
	if security == protocols.ImplicitTLS {
		address = d.IMAPS
	}
	return func(g authstore.Grant) (*protocols.Route, error) {
		return &protocols.Route{Backend: "dovecot", Network: "tcp", Address: address, Security: security,
			TLS: &tls.Config{RootCAs: d.CA.Pool}, Login: g.Address,
			Open: func(context.Context) (protocols.Credential, error) {
				return protocols.Credential{Authzid: g.Address, Authcid: d.MasterUser, Password: []byte(d.MasterPassword)}, nil
			}}, nil
	}
}

// door is a front door that serves.
type door struct {
	*protocols.Server
	addr     string
	verifier *verifier
	observer *observer
	sessions *live.Registry
	log      *syncBuffer
	drain    context.CancelCauseFunc // ends accepting
	kill     context.CancelFunc      // ends life
	served   chan error
}

type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// newDoor starts a front door on loopback; plain, unless change says otherwise.
func newDoor(t testing.TB, router protocols.Router, change ...func(*door)) *door {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{addr: ln.Addr().String(), verifier: &verifier{}, observer: newObserver(), sessions: &live.Registry{}, log: &syncBuffer{}, served: make(chan error, 1)}
	d.Server = &protocols.Server{
		Door: imapproxy.Door{}, Verifier: d.verifier, Sessions: d.sessions, Router: router, Observer: d.observer,
		Limits: &protocols.Limits{PreAuthPerNetwork: 1000}, Log: slog.New(slog.NewTextHandler(d.log, nil)),
	}
	for _, f := range change {
		f(d)
	}
	ctx, drain := context.WithCancelCause(context.Background())
	life, kill := context.WithCancel(context.Background())
	d.drain, d.kill = drain, kill
	go func() { d.served <- d.Serve(ctx, life, ln); close(d.served) }()
	t.Cleanup(func() {
		drain(nil)
		kill()
		if err := <-d.served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if t.Failed() {
			t.Logf("log of the front door:\n%s", d.log)
		}
	})
	return d
}

// talker is a client that writes and reads as it is told.
type talker struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func dialDoor(t testing.TB, d *door) *talker {
	t.Helper()
	nc, err := net.Dial("tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	return talk(t, nc)
}

func talk(t testing.TB, nc net.Conn) *talker {
	t.Cleanup(func() { nc.Close() })
	nc.SetReadDeadline(time.Now().Add(30 * time.Second))
	return &talker{t, nc, bufio.NewReader(nc)}
}

func (k *talker) send(format string, args ...any) {
	k.t.Helper()
	if _, err := fmt.Fprintf(k.Conn, format, args...); err != nil {
		k.t.Fatalf("send: %v", err)
	}
}

// line reads a line without its end.
func (k *talker) line() string {
	k.t.Helper()
	line, err := k.r.ReadString('\n')
	if err != nil {
		k.t.Fatalf("got %q, %v; want a line", line, err)
	}
	return strings.TrimRight(line, "\r\n")
}

// until reads up to the line with a tag, and returns all lines.
func (k *talker) until(tag string) string {
	k.t.Helper()
	var all strings.Builder
	for {
		line := k.line()
		all.WriteString(line + "\n")
		if strings.HasPrefix(line, tag+" ") {
			return all.String()
		}
	}
}

// rest reads up to the end of the connection.
func (k *talker) rest() string {
	k.t.Helper()
	b, err := io.ReadAll(k.r)
	if err != nil {
		k.t.Fatalf("got %q, %v; want the end", b, err)
	}
	return string(b)
}
