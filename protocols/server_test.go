package protocols

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/authstore"
	"postern/internal/testlab"
	"postern/protocols/relay"
)

// tinyDoor is the smallest front door: "pass AUTHZID AUTHCID SECRET", "stls", "quit", "panic". Its backends greet with a line
// and answer the account's name with "ok".
type tinyDoor struct{}

func (tinyDoor) Protocol() string                                       { return "tiny" }
func (tinyDoor) Scopes() authstore.Scopes                               { return authstore.ScopePOP }
func (tinyDoor) Guard(*Conn, authstore.Grant, func(string)) relay.Guard { return nil }

func (tinyDoor) Goodbye(reason error) []byte {
	return []byte("bye " + reason.Error() + "\n")
}

func (tinyDoor) Login(ctx context.Context, c *Conn) (*Session, error) {
	if err := c.Say("hello\n"); err != nil {
		return nil, err
	}
	for {
		line, err := c.R.Line(100)
		if err != nil {
			return nil, err
		}
		words := strings.Split(string(line), " ")
		switch words[0] {
		case "pass":
			s, err := c.Admit(ctx, Attempt{Mechanism: "pass", Authzid: words[1], Authcid: words[2], Secret: []byte(words[3])})
			if err == nil {
				return s, c.Accept(ctx, s, "in: "+s.Capabilities()+"\n")
			}
			if err := c.Say(fmt.Sprintf("no: %v\n", err)); err != nil {
				return nil, err
			}
		case "stls":
			if err := c.StartTLS("begin\n"); err != nil {
				return nil, err
			}
		case "panic":
			panic("a defect")
		default:
			return nil, io.EOF
		}
	}
}

func (tinyDoor) LogInBackend(ctx context.Context, nc net.Conn, r *Route, c *Conn) (*Backend, error) {
	br := bufio.NewReader(nc)
	if _, err := br.ReadString('\n'); err != nil {
		return nil, err
	}
	fmt.Fprintf(nc, "%s\n", r.Login)
	answer, err := br.ReadString('\n')
	if err != nil {
		return nil, err
	}
	if answer == "panic\n" {
		panic("a defect")
	}
	if answer != "ok\n" {
		return nil, fmt.Errorf("%w: %q", ErrCredential, answer)
	}
	rest, _ := br.Peek(br.Buffered())
	return &Backend{Conn: nc, Rest: rest, Capabilities: "tiny things"}, nil
}

// site is a Server with the parts around it, which are functions that a test may replace.
type site struct {
	Server
	verify  func(context.Context, authstore.Attempt) (authstore.Grant, error)
	confirm func(authstore.Grant) error
	enter   func(context.CancelCauseFunc)
	route   *Route

	log    strings.Builder // of one goroutine at a time
	used   chan authstore.Use
	logins chan LoginEvent
	ended  chan EndEvent
	left   chan struct{}
	panics chan string

	accept chan net.Conn
	served chan error
}

func newSite() *site {
	s := &site{used: make(chan authstore.Use, 9), logins: make(chan LoginEvent, 9), ended: make(chan EndEvent, 9), left: make(chan struct{}, 9),
		panics: make(chan string, 9), accept: make(chan net.Conn), served: make(chan error, 1)}
	s.Server = Server{Door: tinyDoor{}, Verifier: s, Sessions: s, Router: s, Observer: s, Limits: &Limits{}, Security: PlainText,
		Log: slog.New(slog.NewTextHandler(&s.log, nil)), Panicked: func(protocol string) { s.panics <- protocol }}
	return s
}

func (s *site) Verify(ctx context.Context, a authstore.Attempt) (authstore.Grant, error) {
	if s.verify != nil {
		return s.verify(ctx, a)
	}
	if string(a.Secret) != "good" {
		return authstore.Grant{}, &authstore.Refusal{Code: authstore.Wrong}
	}
	return authstore.Grant{Account: 1, Address: a.Login}, nil
}

func (s *site) Confirm(_ context.Context, g authstore.Grant) error {
	if s.confirm != nil {
		return s.confirm(g)
	}
	return nil
}

func (s *site) Used(_ authstore.Grant, u authstore.Use) { s.used <- u }

func (s *site) Named(authstore.Grant, authstore.Use) {}

func (s *site) Enter(_ *authstore.Grant, _ *Facts, end context.CancelCauseFunc) Entry {
	if s.enter != nil {
		s.enter(end)
	}
	return s
}

func (s *site) Called(string) {}
func (s *site) Leave()        { s.left <- struct{}{} }

func (s *site) Route(context.Context, string, authstore.Grant) (*Route, error) {
	if s.route == nil {
		return nil, ErrNoRoute
	}
	return s.route, nil
}

func (s *site) Login(e LoginEvent)                           { s.logins <- e }
func (s *site) Ended(e EndEvent)                             { s.ended <- e }
func (s *site) Backend(string, string, time.Duration, error) {}

// serve serves pipes. It ends with the test.
func (s *site) serve(t *testing.T, ctx, life context.Context) {
	ctx, stop := context.WithCancel(ctx)
	life, kill := context.WithCancel(life)
	ln := &pipes{accept: s.accept, closed: make(chan struct{})}
	go func() { s.served <- s.Serve(ctx, life, ln) }()
	t.Cleanup(func() { stop(); kill(); <-s.served })
}

func (s *site) dial(t *testing.T) net.Conn {
	client, server := net.Pipe()
	t.Cleanup(func() { client.Close() })
	s.accept <- server
	return client
}

// pipes is a listener of pipes.
type pipes struct {
	accept chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case nc := <-p.accept:
		return nc, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

func (s *site) backend(t *testing.T, talk func(net.Conn)) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	s.route = &Route{Backend: "store", Network: "tcp", Address: ln.Addr().String(), Login: "alice"}
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				talk(nc)
			}()
		}
	}()
}

// friendly takes any login and echoes afterwards.
func friendly(nc net.Conn) {
	io.WriteString(nc, "welcome\n")
	br := bufio.NewReader(nc)
	br.ReadString('\n')
	io.WriteString(nc, "ok\nnews\n")
	io.Copy(nc, br)
}

func expect(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	if got, err := r.ReadString('\n'); got != want+"\n" {
		t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

func TestLoginTimeoutIsAbsolute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.serve(t, context.Background(), context.Background())
		client := s.dial(t)
		began := time.Now()
		r := bufio.NewReader(client)
		expect(t, r, "hello")
		var slow sync.WaitGroup
		defer slow.Wait()
		slow.Go(func() { // one byte each second
			for {
				if _, err := client.Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		expect(t, r, "bye no login in time")
		if after := time.Since(began); after != time.Minute {
			t.Errorf("after %v", after)
		}
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("then %v", err)
		}
	})
}

func TestNobodyTakesTheGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		ctx, stop := context.WithCancel(context.Background())
		life, kill := context.WithCancel(context.Background())
		s.serve(t, ctx, life)
		client := s.dial(t)
		expect(t, bufio.NewReaderSize(client, 16), "hello")
		stop()
		synctest.Wait()
		began := time.Now()
		kill()
		if err := <-s.served; err != nil || time.Since(began) != goodbyeTime {
			t.Errorf("Serve = %v after %v", err, time.Since(began))
		}
		s.served <- nil
	})
}

func TestHandshakeTimeout(t *testing.T) {
	_, _, cert := testlab.NewCA(t).Issue()
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.Security, s.TLS = ImplicitTLS, &tls.Config{Certificates: []tls.Certificate{cert}}
		s.serve(t, context.Background(), context.Background())
		client := s.dial(t)
		began := time.Now()
		if _, err := client.Read(make([]byte, 1)); err != io.EOF || time.Since(began) != handshakeTime {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// Who wonders why an app does not connect finds it in the log at level debug.
func TestFailedHandshakeIsLogged(t *testing.T) {
	_, _, cert := testlab.NewCA(t).Issue()
	s := newSite()
	var log strings.Builder
	s.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.Security, s.TLS = ImplicitTLS, &tls.Config{Certificates: []tls.Certificate{cert}}
	s.serve(t, context.Background(), context.Background())
	client := s.dial(t)
	io.WriteString(client, "pass alice secret\n") // it was told to speak without TLS
	io.Copy(io.Discard, client)
	for _, want := range []string{`level=DEBUG msg="TLS handshake" conn=`, "proto=tiny", "first record does not look like a TLS handshake"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q: %s", want, log.String())
		}
	}
	if strings.Contains(log.String(), "alice") || strings.Contains(log.String(), "secret") {
		t.Errorf("the log has what the client wrote: %s", log.String())
	}
}

func TestDraining(t *testing.T) {
	for name, tt := range map[string]struct {
		cause error
		want  string
	}{
		"shutting down": {ErrDraining, "bye the gateway is shutting down"},
		"reloading":     {nil, "bye no login in time"}, // connections go on as they were accepted
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite()
				ctx, drain := context.WithCancelCause(context.Background())
				s.serve(t, ctx, context.Background())
				r := bufio.NewReader(s.dial(t))
				expect(t, r, "hello")
				drain(tt.cause)
				expect(t, r, tt.want)
			})
		})
	}
}

func TestEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.Limits.PreAuth = 2
		s.serve(t, context.Background(), context.Background())
		var readers []*bufio.Reader
		for range 3 {
			r := bufio.NewReader(s.dial(t))
			readers = append(readers, r)
			if len(readers) == 3 {
				expect(t, readers[0], "bye "+ErrEvicted.Error())
			}
			expect(t, r, "hello")
		}
	})
}

func TestDefectEndsOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.serve(t, context.Background(), context.Background())
		bad, good := s.dial(t), s.dial(t)
		badReader, goodReader := bufio.NewReader(bad), bufio.NewReader(good)
		expect(t, badReader, "hello")
		expect(t, goodReader, "hello")
		io.WriteString(bad, "panic\n")
		if _, err := badReader.ReadByte(); err != io.EOF {
			t.Errorf("the connection with the defect: %v", err)
		}
		if got := <-s.panics; got != "tiny" {
			t.Errorf("counted for %q", got)
		}
		if !strings.Contains(s.log.String(), "panic: a defect") || !strings.Contains(s.log.String(), "server_test.go") {
			t.Errorf("log: %s", s.log.String())
		}
		io.WriteString(good, "pass - alice wrong\n")
		expect(t, goodReader, "no: authzid is another's name")
	})
}

func TestClientGoneWhileVerifying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.verify = func(ctx context.Context, _ authstore.Attempt) (authstore.Grant, error) {
			<-ctx.Done()
			return authstore.Grant{}, ctx.Err()
		}
		s.serve(t, context.Background(), context.Background())
		client := s.dial(t)
		expect(t, bufio.NewReader(client), "hello")
		io.WriteString(client, "pass  alice@example.test good\nmore")
		synctest.Wait()
		client.Close()
		if e := <-s.logins; e.Err != ErrClientGone || e.Domain != "example.test" {
			t.Errorf("event %+v", e)
		}
	})
}

func TestVerifyGetsWhatItNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		tried := make(chan authstore.Attempt, 1)
		s.verify = func(_ context.Context, a authstore.Attempt) (authstore.Grant, error) {
			a.Secret = append([]byte(nil), a.Secret...)
			tried <- a
			return authstore.Grant{}, errors.New("the database is down")
		}
		s.serve(t, context.Background(), context.Background())
		client := s.dial(t)
		r := bufio.NewReader(client)
		expect(t, r, "hello")
		io.WriteString(client, "pass  alice@example.test secret\n")
		expect(t, r, "no: the database is down")
		a := <-tried
		if a.Protocol != "tiny" || a.Mechanism != "pass" || a.Login != "alice@example.test" || string(a.Secret) != "secret" || a.Need != authstore.ScopePOP {
			t.Errorf("attempt %+v", a)
		}
	})
}

func TestAuthzid(t *testing.T) {
	names := authstore.Names{DefaultDomain: "example.test"}
	for _, tt := range []struct {
		authzid, authcid string
		want             bool
	}{
		{"", "alice@example.test", true},
		{"alice@example.test", "alice@example.test", true},
		{"Alice@Example.test", "alice@example.test", true},
		{"alice", "alice@example.test", true},
		{"bob@example.test", "alice@example.test", false},
		{"alice@example.test", "bob@example.test", false},
		{"\x01", "\x02", false},
		{"\x01", "\x01", true}, // whoever that is, it is the same
	} {
		s := &running{Server: &Server{Names: names}}
		if got := s.same(tt.authzid, tt.authcid); got != tt.want {
			t.Errorf("same(%q, %q) = %v, want %v", tt.authzid, tt.authcid, got, tt.want)
		}
	}
}

func TestSessionFromLoginToEnd(t *testing.T) {
	s := newSite()
	s.backend(t, friendly)
	ctx, drain := context.WithCancelCause(context.Background())
	life, kill := context.WithCancel(context.Background())
	defer kill()
	s.serve(t, ctx, life)
	client := s.dial(t)
	r := bufio.NewReader(client)
	expect(t, r, "hello")
	go io.WriteString(client, "pass  alice good\npipelined\n")
	expect(t, r, "in: tiny things")
	if e := <-s.logins; e.Err != nil || e.Backend != "store" || e.Grant.Account != 1 || e.Mechanism != "pass" {
		t.Errorf("event %+v", e)
	}
	if u := <-s.used; u.Protocol != "tiny" {
		t.Errorf("use %+v", u)
	}
	got := map[string]bool{} // the backend's news and our echo come in either order
	for range 2 {
		line, _ := r.ReadString('\n')
		got[line] = true
	}
	if !got["news\n"] || !got["pipelined\n"] {
		t.Errorf("got %v", got)
	}
	drain(ErrDraining) // is not for those who are in
	io.WriteString(client, "still here\n")
	expect(t, r, "still here")
	client.Close()
	e := <-s.ended
	if e.Reason != "client closed" || e.Backend != "store" || e.Up != 21 || e.Down != 26 || e.Protocol != "tiny" || len(e.Conn) != 13 {
		t.Errorf("ended %+v", e)
	}
	<-s.left
	if err := <-s.served; err != nil {
		t.Error(err)
	}
	s.served <- nil
}

func TestRevokedWhileEntering(t *testing.T) {
	revoked := errors.New("revoked")
	for name, change := range map[string]func(*site){
		"ended, then confirmed": func(s *site) { s.enter = func(end context.CancelCauseFunc) { end(revoked) } },
		"not confirmed": func(s *site) {
			s.confirm = func(authstore.Grant) error { return &authstore.Refusal{Code: authstore.Wrong, Cause: revoked} }
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite()
			backendClosed := make(chan struct{})
			s.backend(t, func(nc net.Conn) { friendly(nc); close(backendClosed) })
			change(s)
			s.serve(t, context.Background(), context.Background())
			client := s.dial(t)
			r := bufio.NewReader(client)
			expect(t, r, "hello")
			io.WriteString(client, "pass  alice good\n")
			got, _ := r.ReadString('\n')
			if strings.HasPrefix(got, "in") {
				t.Errorf("the client was told %q", got)
			}
			if e := <-s.logins; e.Err == nil {
				t.Error("the login counts as accepted")
			}
			<-s.left
			<-backendClosed
			if len(s.used) != 0 {
				t.Error("the login counts as use")
			}
		})
	}
}

func TestRevokedInSession(t *testing.T) {
	s := newSite()
	s.backend(t, friendly)
	var end context.CancelCauseFunc
	s.enter = func(e context.CancelCauseFunc) { end = e }
	s.serve(t, context.Background(), context.Background())
	client := s.dial(t)
	r := bufio.NewReader(client)
	expect(t, r, "hello")
	io.WriteString(client, "pass  alice good\n")
	expect(t, r, "in: tiny things")
	expect(t, r, "news")
	end(errors.New("revoked"))
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("then %v", err)
	}
	if e := <-s.ended; e.Reason != "revoked" {
		t.Errorf("ended %+v", e)
	}
}

func TestBackendTroubles(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*testing.T, *site)
		want   error
		logged bool // loudly
	}{
		"no route":   {func(*testing.T, *site) {}, ErrNoRoute, false},
		"too many":   {func(t *testing.T, s *site) { s.backend(t, friendly); s.Limits.Sessions = -1 }, ErrTooMany, false},
		"credential": {func(t *testing.T, s *site) { s.backend(t, func(nc net.Conn) { io.WriteString(nc, "hi\nwrong\n") }) }, ErrCredential, true},
		"hangs up":   {func(t *testing.T, s *site) { s.backend(t, func(net.Conn) {}) }, io.EOF, false},
		"not there":  {func(t *testing.T, s *site) { s.route = &Route{Network: "unix", Address: "/nonexistent"} }, nil, false},
		"speaks none": {func(t *testing.T, s *site) {
			s.backend(t, friendly)
			s.route.Security, s.route.TLS = ImplicitTLS, &tls.Config{}
		}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite()
			tt.change(t, s)
			s.serve(t, context.Background(), context.Background())
			client := s.dial(t)
			r := bufio.NewReader(client)
			expect(t, r, "hello")
			io.WriteString(client, "pass  alice good\n")
			if line, _ := r.ReadString('\n'); !strings.HasPrefix(line, "no: ") {
				t.Errorf("got %q", line)
			}
			e := <-s.logins
			if e.Err == nil || tt.want != nil && !errors.Is(e.Err, tt.want) {
				t.Errorf("event's error: %v, want %v", e.Err, tt.want)
			}
			if got := strings.Contains(s.log.String(), "level=ERROR"); got != tt.logged {
				t.Errorf("logged: %q", s.log.String())
			}
			if s.Limits.sessions != 0 {
				t.Errorf("%d sessions counted", s.Limits.sessions)
			}
		})
	}
}

// A defect in the dialogue with a backend costs its account no session.
func TestDefectWithBackend(t *testing.T) {
	s := newSite()
	s.backend(t, func(nc net.Conn) { io.WriteString(nc, "hi\npanic\n") })
	s.serve(t, context.Background(), context.Background())
	client := s.dial(t)
	expect(t, bufio.NewReader(client), "hello")
	io.WriteString(client, "pass  alice good\n")
	<-s.panics
	io.Copy(io.Discard, client)
	if s.Limits.sessions != 0 {
		t.Errorf("%d sessions counted", s.Limits.sessions)
	}
}

func TestTLS(t *testing.T) {
	ca := testlab.NewCA(t)
	_, _, cert := ca.Issue()
	for name, tt := range map[string]struct {
		protocols []string
		ok        bool
	}{
		"our own protocol":  {[]string{"tiny"}, true},
		"no protocol named": {nil, true},
		"another protocol":  {[]string{"http/1.1"}, false}, // ALPACA: a browser led here by somebody in between
		"one of several":    {[]string{"h2", "tiny"}, true},
	} {
		for _, security := range []Security{ImplicitTLS, StartTLS} {
			t.Run(fmt.Sprint(name, security), func(t *testing.T) {
				s := newSite()
				s.Security, s.TLS = security, &tls.Config{Certificates: []tls.Certificate{cert}}
				s.serve(t, context.Background(), context.Background())
				client := s.dial(t)
				if security == StartTLS {
					r := bufio.NewReader(client)
					expect(t, r, "hello")
					io.WriteString(client, "stls\n")
					expect(t, r, "begin")
				}
				tc := tls.Client(client, &tls.Config{RootCAs: ca.Pool, ServerName: "localhost", NextProtos: tt.protocols})
				if err := tc.Handshake(); (err == nil) != tt.ok {
					t.Fatalf("handshake: %v", err)
				}
				if !tt.ok {
					return
				}
				r := bufio.NewReader(tc)
				if security == ImplicitTLS {
					expect(t, r, "hello")
				}
				io.WriteString(tc, "pass  alice wrong\n")
				expect(t, r, "no: refused: wrong")
				if e := <-s.logins; !e.TLS {
					t.Error("the facts say that there was no TLS")
				}
			})
		}
	}
}

func TestTooManyFromOneNetwork(t *testing.T) {
	s := newSite()
	s.Limits.PreAuthPerNetwork = 2
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancelCause(context.Background())
	go func() { s.served <- s.Serve(ctx, context.Background(), ln) }()
	t.Cleanup(func() { stop(ErrDraining); <-s.served })
	dial := func() *bufio.Reader {
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		return bufio.NewReader(nc)
	}
	expect(t, dial(), "hello")
	expect(t, dial(), "hello")
	if got, err := dial().ReadString('\n'); err != io.EOF {
		t.Errorf("the third got %q, %v", got, err)
	}
}

// Who has been told that it is in no longer counts as one that is not.
func TestWhoIsInMayComeAgainAtOnce(t *testing.T) {
	const many = 100
	s := newSite()
	s.used, s.logins, s.ended, s.left = make(chan authstore.Use, many), make(chan LoginEvent, many), make(chan EndEvent, many), make(chan struct{}, many)
	s.Limits.PreAuthPerNetwork = 1
	s.backend(t, friendly)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() { s.served <- s.Serve(ctx, context.Background(), ln) }()
	for range many {
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(nc)
		expect(t, r, "hello")
		io.WriteString(nc, "pass  alice good\n")
		expect(t, r, "in: tiny things")
		defer nc.Close()
	}
	stop()
	t.Cleanup(func() { <-s.served }) // when the clients have closed
}

func TestSessionBehindALoadBalancer(t *testing.T) {
	s := newSite()
	s.Proxies = loopback
	s.backend(t, friendly)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() { s.served <- s.Serve(ctx, context.Background(), ln) }()
	t.Cleanup(func() { stop(); <-s.served })
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	io.WriteString(nc, "PROXY TCP4 192.0.2.7 192.0.2.1 4000 993\r\npass  alice good\n"+strings.Repeat("x", 3000)+"\n") // more than one read takes
	r := bufio.NewReader(nc)
	expect(t, r, "hello")
	expect(t, r, "in: tiny things")
	if e := <-s.logins; e.Client != netip.MustParseAddrPort("192.0.2.7:4000") {
		t.Errorf("client %v", e.Client)
	}
	lines := []string{strings.Repeat("x", 3000), "news"}
	for range lines {
		line, err := r.ReadString('\n')
		if line = strings.TrimSpace(line); line != lines[0] && line != lines[1] {
			t.Errorf("got %d bytes, %v", len(line), err)
		}
	}
}

type flaky struct {
	net.Listener
	mu   sync.Mutex
	errs []error
}

func (f *flaky) Accept() (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.errs) > 0 {
		err := f.errs[0]
		f.errs = f.errs[1:]
		return nil, err
	}
	return nil, net.ErrClosed
}
func (f *flaky) Close() error   { return nil }
func (f *flaky) Addr() net.Addr { return &net.TCPAddr{} }

func TestAcceptGoesOnAfterErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		began := time.Now()
		if err := s.Serve(t.Context(), t.Context(), &flaky{errs: []error{errors.New("no descriptors left"), errors.New("again")}}); err != nil {
			t.Error(err)
		}
		if after := time.Since(began); after != 2*acceptPause || strings.Count(s.log.String(), "no descriptors left") != 1 {
			t.Errorf("after %v: %s", after, s.log.String())
		}
	})
}
