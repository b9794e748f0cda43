package popproxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/authstore"
	"postern/gateway/live"
	"postern/protocols"
	"postern/protocols/popproxy"
)

// The app password of the tests. The store that knows real ones is proven elsewhere.
const appPassword = "abcde-fghjk-mnopq-rstuv"

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// verifier stands for the store.
type verifier struct {
	err error // nil: appPassword opens POP3

	mu    sync.Mutex
	tried []authstore.Attempt
}

func (v *verifier) Verify(_ context.Context, a authstore.Attempt) (authstore.Grant, error) {
	v.mu.Lock()
	a.Secret = append([]byte(nil), a.Secret...)
	v.tried = append(v.tried, a)
	v.mu.Unlock()
	switch {
	case v.err != nil:
		return authstore.Grant{}, v.err
	case string(a.Secret) != appPassword:
		return authstore.Grant{}, &authstore.Refusal{Code: authstore.Wrong}
	}
	return authstore.Grant{Account: 1, Password: 11, Address: strings.ToLower(a.Login), Scopes: authstore.ScopePOP}, nil
}

func (v *verifier) attempts() []authstore.Attempt {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.tried
}

func (*verifier) Confirm(context.Context, authstore.Grant) error { return nil }
func (*verifier) Used(authstore.Grant, authstore.Use)            {}
func (*verifier) Named(authstore.Grant, authstore.Use)           {}

type routerFunc func(authstore.Grant) (*protocols.Route, error)

func (f routerFunc) Route(_ context.Context, _ string, g authstore.Grant) (*protocols.Route, error) {
	return f(g)
}

// nowhere leads to no backend.
var nowhere = routerFunc(func(authstore.Grant) (*protocols.Route, error) { return nil, protocols.ErrNoRoute })

// observer keeps the logins.
type observer struct{ logins chan protocols.LoginEvent }

func (o observer) Login(e protocols.LoginEvent)               { o.logins <- e }
func (observer) Ended(protocols.EndEvent)                     {}
func (observer) Backend(string, string, time.Duration, error) {}

// door is a front door that serves.
type door struct {
	*protocols.Server
	addr     string
	verifier *verifier
	observer observer
	sessions *live.Registry
	drain    context.CancelCauseFunc // ends accepting
}

// newDoor starts a front door on loopback; plain, unless change says otherwise.
func newDoor(t testing.TB, router protocols.Router, change ...func(*door)) *door {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{addr: ln.Addr().String(), verifier: &verifier{}, observer: observer{make(chan protocols.LoginEvent, 1000)}, sessions: &live.Registry{}}
	d.Server = &protocols.Server{
		Door: popproxy.Door{}, Verifier: d.verifier, Sessions: d.sessions, Router: router, Observer: d.observer,
		Limits: &protocols.Limits{PreAuthPerNetwork: 1000}, Log: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(d)
	}
	ctx, drain := context.WithCancelCause(context.Background())
	life, kill := context.WithCancel(context.Background())
	d.drain = drain
	served := make(chan error)
	go func() { served <- d.Serve(ctx, life, ln) }()
	t.Cleanup(func() {
		drain(nil)
		kill()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return d
}

// withSTLS has a door offer STLS.
func withSTLS(cert tls.Certificate) func(*door) {
	return func(d *door) {
		d.Security, d.TLS = protocols.StartTLS, &tls.Config{Certificates: []tls.Certificate{cert}}
	}
}

// talker is a client that writes and reads as it is told.
type talker struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

// dialDoor connects and takes the greeting.
func dialDoor(t testing.TB, d *door) *talker {
	t.Helper()
	nc, err := net.Dial("tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	k := talk(t, nc)
	if got := k.line(); got != "+OK Postern ready." {
		t.Fatalf("greeting %q", got)
	}
	return k
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

// asks sends a command and reads one line.
func (k *talker) asks(command string) string {
	k.t.Helper()
	k.send("%s\r\n", command)
	return k.line()
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
