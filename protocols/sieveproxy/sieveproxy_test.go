package sieveproxy_test

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
	"testing"
	"time"

	"postern/authstore"
	"postern/gateway/live"
	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/sieveproxy"
)

// The app password of the lab's users. The store that knows real ones is proven elsewhere.
const appPassword = "abcde-fghjk-mnopq-rstuv"

// verifier stands for the store; nil: appPassword opens everything.
type verifier func(a authstore.Attempt) (authstore.Grant, error)

func (v verifier) Verify(_ context.Context, a authstore.Attempt) (authstore.Grant, error) {
	switch {
	case v != nil:
		return v(a)
	case a.Need != authstore.ScopeSieve || string(a.Secret) != appPassword:
		return authstore.Grant{}, &authstore.Refusal{Code: authstore.Wrong}
	}
	return authstore.Grant{Account: 1, Password: 11, Address: strings.ToLower(a.Login), Scopes: authstore.ScopeSieve}, nil
}

func (verifier) Confirm(context.Context, authstore.Grant) error { return nil }
func (verifier) Used(authstore.Grant, authstore.Use)            {}
func (verifier) Named(authstore.Grant, authstore.Use)           {}

// observer keeps the logins it is told of.
type observer chan protocols.LoginEvent

func (o observer) Login(e protocols.LoginEvent)               { o <- e }
func (observer) Ended(protocols.EndEvent)                     {}
func (observer) Backend(string, string, time.Duration, error) {}

type routerFunc func(authstore.Grant) (*protocols.Route, error)

func (f routerFunc) Route(_ context.Context, _ string, g authstore.Grant) (*protocols.Route, error) {
	return f(g)
}

// nowhere leads to no backend.
func nowhere(authstore.Grant) (*protocols.Route, error) { return nil, protocols.ErrNoRoute }

// to leads to a backend in plain text.
func to(address string) routerFunc {
	return func(g authstore.Grant) (*protocols.Route, error) { return routeTo(address, g.Address), nil }
}

func routeTo(address, login string) *protocols.Route {
	return &protocols.Route{Backend: "dovecot", Network: "tcp", Address: address, Login: login, Open: func(context.Context) (protocols.Credential, error) {
		return protocols.Credential{Authzid: login, Authcid: "gateway", Password: []byte("gateway-secret")}, nil
	}}
}

// toDovecot leads to a lab's Dovecot by its master user.
func toDovecot(d *testlab.DovecotServer) routerFunc {
	return func(g authstore.Grant) (*protocols.Route, error) { return routeToDovecot(d, g.Address), nil }
}

func routeToDovecot(d *testlab.DovecotServer, login string) *protocols.Route {
	r := routeTo(d.Sieve, login)
	r.Security, r.TLS = protocols.StartTLS, &tls.Config{RootCAs: d.CA.Pool}
	return r
}

// door is a front door that serves.
type door struct {
	protocols.Server
	addr   string
	logins observer
	offers *protocols.Offers
	drain  context.CancelCauseFunc // ends accepting
}

// newDoor starts a front door on loopback; plain, unless change says otherwise.
func newDoor(t testing.TB, router routerFunc, change ...func(*door)) *door {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	d := &door{addr: ln.Addr().String(), logins: make(observer, 1000), offers: protocols.NewOffers(log, "dovecot")}
	d.Server = protocols.Server{Door: sieveproxy.Door{Offers: d.offers}, Verifier: verifier(nil), Sessions: &live.Registry{}, Router: router, Observer: d.logins,
		Limits: &protocols.Limits{PreAuthPerNetwork: 1000}, Log: log}
	for _, f := range change {
		f(d)
	}
	ctx, drain := context.WithCancelCause(context.Background())
	life, kill := context.WithCancel(context.Background())
	d.drain = drain
	served := make(chan error, 1)
	go func() { served <- d.Serve(ctx, life, ln) }()
	go d.offers.Watch(ctx, func(context.Context, string) (protocols.Capabilities, error) { return nil, nil })
	t.Cleanup(func() {
		drain(nil)
		kill()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
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

func dial(t testing.TB, address string) *talker {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return talk(t, nc)
}

func talk(t testing.TB, nc net.Conn) *talker {
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(30 * time.Second))
	return &talker{t, nc, bufio.NewReader(nc)}
}

func (k *talker) send(format string, args ...any) {
	k.t.Helper()
	if _, err := fmt.Fprintf(k.Conn, format, args...); err != nil {
		k.t.Fatalf("send: %v", err)
	}
}

// answer reads lines up to one that begins with OK, NO or BYE.
func (k *talker) answer() string {
	k.t.Helper()
	var all strings.Builder
	for {
		line, err := k.r.ReadString('\n')
		if err != nil {
			k.t.Fatalf("got %q, %v; want an answer", all.String()+line, err)
		}
		all.WriteString(strings.TrimSuffix(line, "\r\n"))
		if word := strings.Fields(line + " x")[0]; word == "OK" || word == "NO" || word == "BYE" {
			return all.String()
		}
		all.WriteString("\n")
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

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func plain(authcid, secret string) string { return b64("\x00" + authcid + "\x00" + secret) }

// login logs in behind the greeting.
func (k *talker) login(authcid string) {
	k.t.Helper()
	k.answer()
	k.send("AUTHENTICATE \"PLAIN\" \"%s\"\r\n", plain(authcid, appPassword))
	if got := k.answer(); got != `OK "Logged in."` {
		k.t.Fatalf("the login: %q", got)
	}
}
