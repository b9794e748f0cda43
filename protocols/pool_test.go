package protocols

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/testlab"
)

// counting is a backend that greets each connection with its number, and counts those that are open.
type counting struct {
	net.Listener
	accepted, open atomic.Int64
	hangUp         atomic.Bool // behind the greeting
}

func newCounting(t *testing.T, ln net.Listener, err error) *counting {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	b := &counting{Listener: ln}
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			n := b.accepted.Add(1)
			b.open.Add(1)
			go func() {
				defer b.open.Add(-1)
				defer nc.Close()
				fmt.Fprintf(nc, "%d\n", n)
				if !b.hangUp.Load() {
					io.Copy(nc, nc)
				}
			}()
		}
	}()
	return b
}

func listenTCP() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

// number reads a counting backend's greeting, and has it echo a word.
func number(_ context.Context, nc net.Conn) (*Backend, error) {
	r := bufio.NewReader(nc)
	greeting, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	io.WriteString(nc, "echo\n")
	if _, err := r.ReadString('\n'); err != nil {
		return nil, err
	}
	return &Backend{Conn: nc, Capabilities: greeting[:len(greeting)-1]}, nil
}

// logInTo logs in, and tells which of the backend's connections it got.
func logInTo(t *testing.T, r *Route) string {
	t.Helper()
	b, err := Connect(t.Context(), r, nil, number)
	if err != nil {
		t.Fatal(err)
	}
	b.Conn.Close()
	return b.Capabilities
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

func (p *Pool) kept() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle)
}

func TestPool(t *testing.T) {
	t.Parallel()
	ca := testlab.NewCA(t)
	_, _, cert := ca.Issue()
	secure := func() (net.Listener, error) {
		return tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	}
	for name, tt := range map[string]struct {
		listen func() (net.Listener, error)
		route  Route
	}{
		"TCP":         {listenTCP, Route{Network: "tcp"}},
		"TLS":         {secure, Route{Network: "tcp", Security: ImplicitTLS, TLS: &tls.Config{RootCAs: ca.Pool}}},
		"Unix socket": {func() (net.Listener, error) { return net.Listen("unix", filepath.Join(testlab.Dir(t), "s")) }, Route{Network: "unix"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln, err := tt.listen()
			backend := newCounting(t, ln, err)
			r := &tt.route
			r.Backend, r.Address, r.Pool = "store", ln.Addr().String(), NewPool(2)
			defer r.Pool.Close()
			if got := logInTo(t, r); got != "1" || r.Pool.kept() != 0 {
				t.Fatalf("the first login got %s; kept are %d", got, r.Pool.kept())
			}
			logInTo(t, r)
			eventually(t, "one is kept", func() bool { return r.Pool.kept() == 1 })
			accepted := backend.accepted.Load()
			if got := logInTo(t, r); got != "3" && got != "2" {
				t.Errorf("with one kept, a login got connection %s", got)
			}
			eventually(t, "it has been replaced", func() bool { return r.Pool.kept() == 1 && backend.accepted.Load() == accepted+1 })
			r.Pool.Close()
			eventually(t, "the backend is left", func() bool { return backend.open.Load() == 0 })
			if logInTo(t, r); r.Pool.kept() != 0 || backend.accepted.Load() != accepted+2 {
				t.Errorf("a closed pool keeps %d", r.Pool.kept())
			}
		})
	}
}

// What was kept too long, and what the backend has closed meanwhile, disturbs no login.
func TestPoolOfDeadConnections(t *testing.T) {
	t.Parallel()
	ln, err := listenTCP()
	backend := newCounting(t, ln, err)
	r := &Route{Backend: "store", Network: "tcp", Address: ln.Addr().String(), Pool: NewPool(8)}
	defer r.Pool.Close()
	backend.hangUp.Store(true)
	for range 3 { // fail, but have others dialled
		Connect(t.Context(), r, nil, number)
	}
	eventually(t, "some are kept, and none is dialled", func() bool {
		r.Pool.mu.Lock()
		defer r.Pool.mu.Unlock()
		return len(r.Pool.idle) > 0 && r.Pool.coming == 0
	})
	nc, err := net.Dial("tcp", r.Address) // the backend takes it after all that are kept, so then it knows of them
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := io.ReadAll(nc); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the backend has hung up", func() bool { return backend.open.Load() == 0 })
	backend.hangUp.Store(false)
	var steps []string
	b, err := Connect(t.Context(), r, func(step string, _ time.Duration, err error) { steps = append(steps, fmt.Sprint(step, err)) }, number)
	if err != nil || fmt.Sprint(steps) != "[connect<nil> login<nil>]" {
		t.Fatalf("over a dead connection: %v; steps %v", err, steps)
	}
	b.Conn.Close()

	r.Pool.Close()
	r.Pool = NewPool(8)
	r.Pool.keep = 50 * time.Millisecond
	logInTo(t, r)
	logInTo(t, r)
	before := numberBehind(t, r)
	eventually(t, "nothing is kept while nobody logs in", func() bool { return r.Pool.kept() == 0 && backend.open.Load() == 0 })
	time.Sleep(2 * r.Pool.keep)
	logInTo(t, r)
	if n := numberBehind(t, r); n != before+2 {
		t.Errorf("a login that comes alone had %d other connections dialled", n-before-2)
	}
}

// numberBehind is the number of a connection behind all that the pool has dialled: the backend takes them in turn.
func numberBehind(t *testing.T, r *Route) (n int) {
	t.Helper()
	eventually(t, "nothing is being dialled", func() bool {
		r.Pool.mu.Lock()
		defer r.Pool.mu.Unlock()
		return r.Pool.coming == 0
	})
	nc, err := net.Dial("tcp", r.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := fmt.Fscanln(nc, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// A pool's connection is no second try with a credential that was refused, or for a client that has gone.
func TestPoolTriesOnce(t *testing.T) {
	t.Parallel()
	ln, err := listenTCP()
	newCounting(t, ln, err)
	gone := errors.New("client gone")
	for _, want := range []error{ErrCredential, gone} {
		r := &Route{Backend: "store", Network: "tcp", Address: ln.Addr().String(), Pool: NewPool(1)}
		defer r.Pool.Close()
		logInTo(t, r)
		logInTo(t, r)
		eventually(t, "one is kept", func() bool { return r.Pool.kept() == 1 })
		ctx, cancel := context.WithCancelCause(t.Context())
		tries := 0
		_, err := Connect(ctx, r, nil, func(context.Context, net.Conn) (*Backend, error) {
			tries++
			if want == gone {
				cancel(gone)
			}
			return nil, want
		})
		if !errors.Is(err, want) || tries != 1 {
			t.Errorf("%d tries: %v, want one: %v", tries, err, want)
		}
		cancel(nil)
	}
}
