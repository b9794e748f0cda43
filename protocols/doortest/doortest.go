// Package doortest is what the tests of the front doors share: a server around one, with a store and a router that do as a test says; a
// client that says what it is told; words run through a guard as a relay does; and rules that are the same for all.
package doortest

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/authstore"
	"postern/internal/testlab"
	"postern/protocols"
)

// AppPassword opens everything, where a test does not say otherwise. The store that knows real ones is proven elsewhere.
const AppPassword = "abcde-fghjk-mnopq-rstuv"

// Backend is the name of the only backend.
const Backend = "backend"

// Door is a front door that serves.
type Door struct {
	*protocols.Server
	Addr    string
	CA      *testlab.CA // see OverTLS
	Verify  func(a authstore.Attempt) (authstore.Grant, error)
	Routes  func(g authstore.Grant) (*protocols.Route, error)
	Logins  chan protocols.LoginEvent
	Endings chan protocols.EndEvent
	Uses    chan authstore.Use
	Named   chan authstore.Use      // of which app a login is that was noted without one
	Steps   atomic.Int64            // towards backends
	Drain   context.CancelCauseFunc // ends accepting, for this reason
	Served  chan error              // what Serve returns
}

// Serve starts a front door on loopback; in plain text and leading nowhere, unless change says otherwise.
func Serve(t testing.TB, door protocols.FrontDoor, change ...func(*Door)) *Door {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const many = 10000
	d := &Door{Addr: ln.Addr().String(), Logins: make(chan protocols.LoginEvent, many), Endings: make(chan protocols.EndEvent, many),
		Uses: make(chan authstore.Use, many), Named: make(chan authstore.Use, many), Served: make(chan error, 1)}
	d.Verify = func(a authstore.Attempt) (authstore.Grant, error) {
		if string(a.Secret) != AppPassword {
			return authstore.Grant{}, &authstore.Refusal{Code: authstore.Wrong}
		}
		return authstore.Grant{Account: 1, Password: 11, Address: strings.ToLower(a.Login), Scopes: a.Need}, nil
	}
	d.Routes = func(authstore.Grant) (*protocols.Route, error) { return nil, protocols.ErrNoRoute }
	d.Server = &protocols.Server{Door: door, Verifier: verifier{d}, Sessions: sessions{}, Router: router{d}, Observer: observer{d},
		Limits: &protocols.Limits{PreAuthPerNetwork: 1000}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	for _, f := range change {
		f(d)
	}
	ctx, drain := context.WithCancelCause(context.Background())
	life, kill := context.WithCancel(context.Background())
	d.Drain = drain
	go func() { d.Served <- d.Server.Serve(ctx, life, ln); close(d.Served) }()
	t.Cleanup(func() {
		drain(nil)
		kill()
		if err := <-d.Served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return d
}

// OverTLS has a door serve with a certificate of an authority of its own.
func OverTLS(t testing.TB, security protocols.Security) func(*Door) {
	ca := testlab.NewCA(t)
	_, _, cert := ca.Issue()
	return func(d *Door) {
		d.CA, d.Security, d.TLS = ca, security, &tls.Config{Certificates: []tls.Certificate{cert}}
	}
}

// Trust is what a client needs for TLS with a door.
func (d *Door) Trust() *tls.Config {
	return &tls.Config{RootCAs: d.CA.Pool, ServerName: "localhost", NextProtos: []string{d.Server.Door.Protocol()}}
}

// Offers are those of a backend that can do what is listed; nothing is known of it without.
func Offers(t testing.TB, list ...protocols.Capability) *protocols.Offers {
	o := protocols.NewOffers(slog.New(slog.DiscardHandler), Backend)
	go o.Watch(t.Context(), func(context.Context, string) (protocols.Capabilities, error) { return list, nil })
	return o
}

type verifier struct{ *Door }

func (v verifier) Verify(_ context.Context, a authstore.Attempt) (authstore.Grant, error) {
	return v.Door.Verify(a)
}
func (verifier) Confirm(context.Context, authstore.Grant) error { return nil }
func (v verifier) Used(_ authstore.Grant, u authstore.Use)      { v.Uses <- u }
func (v verifier) Named(_ authstore.Grant, u authstore.Use)     { v.Door.Named <- u }

type router struct{ *Door }

func (r router) Route(_ context.Context, protocol string, g authstore.Grant) (*protocols.Route, error) {
	if protocol != r.Server.Door.Protocol() {
		return nil, protocols.ErrNoRoute
	}
	return r.Routes(g)
}

// sessions are ended by nobody. In production it is a registry, which some tests put in its place.
type sessions struct{}

func (sessions) Enter(*authstore.Grant, *protocols.Facts, context.CancelCauseFunc) protocols.Entry {
	return entry{}
}

type entry struct{}

func (entry) Called(string) {}
func (entry) Leave()        {}

type observer struct{ *Door }

func (o observer) Login(e protocols.LoginEvent)                 { o.Logins <- e }
func (o observer) Ended(e protocols.EndEvent)                   { o.Endings <- e }
func (o observer) Backend(string, string, time.Duration, error) { o.Steps.Add(1) }

// Client says what it is told.
type Client struct {
	net.Conn
	R *bufio.Reader // what it is answered

	t testing.TB
}

// Dial connects to a front door.
func (d *Door) Dial(t testing.TB) *Client {
	t.Helper()
	return Dial(t, d.Addr)
}

// Dial connects to a server.
func Dial(t testing.TB, address string) *Client {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return Talk(t, nc)
}

// Talk is a client over a connection, which is closed with the test.
func Talk(t testing.TB, nc net.Conn) *Client {
	t.Cleanup(func() { nc.Close() })
	nc.SetReadDeadline(time.Now().Add(30 * time.Second)) // only a test that would hang ends so
	return &Client{nc, bufio.NewReader(nc), t}
}

// OverTLS is the client from where TLS begins.
func (c *Client) OverTLS(trust *tls.Config) *Client { return Talk(c.t, tls.Client(c.Conn, trust)) }

// Send writes words.
func (c *Client) Send(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.Conn, format, args...); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// Line reads a line, and returns it without its end.
func (c *Client) Line() string {
	c.t.Helper()
	line, err := c.R.ReadString('\n')
	if err != nil {
		c.t.Fatalf("got %q, %v; want a line", line, err)
	}
	return strings.TrimRight(line, "\r\n")
}

// Until reads up to a line of which one of these is the first word, and returns all of them with "\n" between.
func (c *Client) Until(words ...string) string {
	c.t.Helper()
	var lines []string
	for {
		line := c.Line()
		lines = append(lines, line)
		first, _, _ := strings.Cut(line, " ")
		for _, word := range words {
			if first == word {
				return strings.Join(lines, "\n")
			}
		}
	}
}

// Ask sends a line and reads one.
func (c *Client) Ask(format string, args ...any) string {
	c.t.Helper()
	c.Send(format+"\r\n", args...)
	return c.Line()
}

// Rest reads up to the end of the connection.
func (c *Client) Rest() string {
	c.t.Helper()
	b, err := io.ReadAll(c.R)
	if err != nil {
		c.t.Fatalf("got %q, %v; want the end", b, err)
	}
	return string(b)
}
