// Package doortest is what the tests of the front doors share: a server around one, with a store and a registry that do as a test
// says; a client that says what it is told; and words run through a guard as a relay does.
package doortest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/authstore"
	"postern/protocols"
)

// AppPassword opens everything, where a test does not say otherwise.
const AppPassword = "abcde-fghjk-mnopq-rstuv"

// Door is a front door that serves.
type Door struct {
	*protocols.Server
	Addr    string
	Verify  func(a authstore.Attempt) (authstore.Grant, error)
	Confirm func(g authstore.Grant) error
	Routes  func(g authstore.Grant) (*protocols.Route, error)
	Logins  chan protocols.LoginEvent
	Endings chan protocols.EndEvent
	Drain   context.CancelCauseFunc // ends accepting, for this reason

	mu   sync.Mutex // guards ends
	ends []context.CancelCauseFunc
}

// Serve starts a front door on loopback; in plain text and leading nowhere, unless change says otherwise.
func Serve(t testing.TB, door protocols.FrontDoor, change ...func(*Door)) *Door {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &Door{Addr: ln.Addr().String(), Logins: make(chan protocols.LoginEvent, 10000), Endings: make(chan protocols.EndEvent, 10000)}
	d.Verify = func(a authstore.Attempt) (authstore.Grant, error) {
		if string(a.Secret) != AppPassword {
			return authstore.Grant{}, &authstore.Refusal{Code: authstore.Wrong}
		}
		return authstore.Grant{Account: 1, Password: 11, Address: strings.ToLower(a.Login), Scopes: a.Need}, nil
	}
	d.Confirm = func(authstore.Grant) error { return nil }
	d.Routes = func(authstore.Grant) (*protocols.Route, error) { return nil, protocols.ErrNoRoute }
	d.Server = &protocols.Server{Door: door, Verifier: verifier{d}, Sessions: sessions{d}, Router: router{d}, Observer: observer{d},
		Limits: &protocols.Limits{PreAuthPerNetwork: 1000}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	for _, f := range change {
		f(d)
	}
	ctx, drain := context.WithCancelCause(context.Background())
	life, kill := context.WithCancel(context.Background())
	d.Drain = drain
	served := make(chan error, 1)
	go func() { served <- d.Server.Serve(ctx, life, ln) }()
	t.Cleanup(func() {
		drain(nil)
		kill()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return d
}

// EndSessions ends all that were entered.
func (d *Door) EndSessions(reason error) {
	d.mu.Lock()
	ends := d.ends
	d.ends = nil
	d.mu.Unlock()
	for _, end := range ends {
		end(reason)
	}
}

type verifier struct{ *Door }

func (v verifier) Verify(_ context.Context, a authstore.Attempt) (authstore.Grant, error) {
	return v.Door.Verify(a)
}
func (v verifier) Confirm(_ context.Context, g authstore.Grant) error { return v.Door.Confirm(g) }
func (verifier) Used(authstore.Grant, authstore.Use)                  {}
func (verifier) Named(authstore.Grant, authstore.Use)                 {}

type router struct{ *Door }

func (r router) Route(_ context.Context, protocol string, g authstore.Grant) (*protocols.Route, error) {
	if protocol != r.Door.Server.Door.Protocol() {
		return nil, protocols.ErrNoRoute
	}
	return r.Routes(g)
}

type sessions struct{ *Door }

func (s sessions) Enter(_ *authstore.Grant, _ *protocols.Facts, end context.CancelCauseFunc) protocols.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends = append(s.ends, end)
	return entry{}
}

type entry struct{}

func (entry) Called(string) {}
func (entry) Leave()        {}

type observer struct{ *Door }

func (o observer) Login(e protocols.LoginEvent)               { o.Logins <- e }
func (o observer) Ended(e protocols.EndEvent)                 { o.Endings <- e }
func (observer) Backend(string, string, time.Duration, error) {}

// Client says what it is told.
type Client struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

// Dial connects to a front door.
func (d *Door) Dial(t testing.TB) *Client {
	t.Helper()
	nc, err := net.Dial("tcp", d.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return Talk(t, nc)
}

// Talk is a client over a connection, which is closed with the test.
func Talk(t testing.TB, nc net.Conn) *Client {
	t.Cleanup(func() { nc.Close() })
	nc.SetReadDeadline(time.Now().Add(30 * time.Second)) // only a test that would hang ends so
	return &Client{nc, t, bufio.NewReader(nc)}
}

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
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("got %q, %v; want a line", line, err)
	}
	return strings.TrimRight(line, "\r\n")
}

// Rest reads up to the end of the connection.
func (c *Client) Rest() string {
	c.t.Helper()
	b, err := io.ReadAll(c.r)
	if err != nil {
		c.t.Fatalf("got %q, %v; want the end", b, err)
	}
	return string(b)
}
