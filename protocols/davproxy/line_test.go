package davproxy_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/authstore"
	"postern/protocols"
	"postern/protocols/davproxy"
)

// The tests of parked connections are not parallel: they look at all goroutines.

// parkSoon has connections parked at once.
func parkSoon(o *davproxy.Options) { o.Times(patience, patience, time.Millisecond) }

// parked waits until nobody serves HTTP/1.1: each connection is parked or closed.
func parked(t testing.TB) { waitUntil(t, "nobody to be served", false) }

// served waits until somebody is.
func served(t testing.TB) { waitUntil(t, "somebody to be served", true) }

func waitUntil(t testing.TB, what string, served bool) {
	t.Helper()
	all := make([]byte, 8<<20)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if bytes.Contains(all[:runtime.Stack(all, true)], []byte("net/http.(*conn).serve(")) == served {
			return
		}
	}
	t.Fatalf("waited in vain for %s", what)
}

// keeper is a client that keeps its connection, over TLS if its door has that.
type keeper struct {
	t testing.TB
	net.Conn
	socket *slow
	r      *bufio.Reader
}

// slow is a socket that writes in parts, if it is to.
type slow struct {
	*net.TCPConn
	part  int    // bytes; 0: all at once
	pause func() // between parts
}

func (s *slow) Write(b []byte) (n int, err error) {
	for s.part > 0 && err == nil && len(b)-n > s.part {
		m := 0
		m, err = s.TCPConn.Write(b[n : n+s.part])
		n += m
		s.pause()
	}
	if err == nil {
		m := 0
		m, err = s.TCPConn.Write(b[n:])
		n += m
	}
	return n, err
}

// keep connects. header goes before TLS.
func (d *door) keep(header string) *keeper {
	d.t.Helper()
	_, address, _ := strings.Cut(d.url, "://")
	nc, err := net.Dial("tcp", address)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { nc.Close() })
	io.WriteString(nc, header)
	k := &keeper{t: d.t, socket: &slow{TCPConn: nc.(*net.TCPConn)}}
	k.Conn = k.socket
	if strings.HasPrefix(d.url, "https:") {
		k.Conn = tls.Client(k.socket, &tls.Config{RootCAs: d.ca.Pool, ServerName: "127.0.0.1"})
	}
	k.r = bufio.NewReader(k.Conn)
	return k
}

// asking is a request that the front door answers itself, with 207.
func asking(password string) string {
	return fmt.Sprintf("PROPFIND %s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n%s", self, basic(password), len(askAll), askAll)
}

func (k *keeper) say(text string) {
	k.t.Helper()
	k.socket.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(k, text); err != nil {
		k.t.Fatal(err)
	}
}

func (k *keeper) sayInParts(text string, bytes int, pause func()) {
	k.t.Helper()
	k.socket.part, k.socket.pause = bytes, pause
	k.say(text)
	k.socket.part = 0
}

func (k *keeper) want(status int) {
	k.t.Helper()
	resp, err := http.ReadResponse(k.r, nil)
	if err != nil {
		k.t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != status {
		k.t.Fatalf("status %d, %v, want %d", resp.StatusCode, err, status)
	}
}

// kinds of front doors, and what comes before the first request.
var kinds = map[string]struct {
	change func(*davproxy.Options)
	header string
	client string
}{
	"TLS":        {func(*davproxy.Options) {}, "", "127.0.0.1:"},
	"plain text": {func(o *davproxy.Options) { o.TLS = nil }, "", "127.0.0.1:"},
	"behind a balancer": {func(o *davproxy.Options) { o.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} },
		"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n", "203.0.113.9:4711"},
}

// TestParkedClientsAreServed: however the next request comes, no byte of it is lost, and it is the same connection.
func TestParkedClientsAreServed(t *testing.T) {
	ask := asking("cal")
	for name, kind := range kinds {
		for how, next := range map[string]func(k *keeper){
			"at once":     func(k *keeper) { k.say(ask); k.want(207) },
			"two at once": func(k *keeper) { k.say(ask + ask); k.want(207); k.want(207) },
			"in parts":    func(k *keeper) { k.sayInParts(ask, 100, func() { time.Sleep(3 * time.Millisecond) }); k.want(207) },
			"in bytes":    dribble,
			"one and a byte of another": func(k *keeper) {
				k.say(ask + ask[:1])
				k.want(207)
				time.Sleep(20 * time.Millisecond) // it may be parked only where nothing of a request is there
				k.say(ask[1:2])
				time.Sleep(20 * time.Millisecond)
				k.say(ask[2:])
				k.want(207)
			},
			"one and the header of another": func(k *keeper) {
				k.say(ask + ask[:len(ask)-len(askAll)])
				k.want(207)
				time.Sleep(20 * time.Millisecond)
				k.say(askAll)
				k.want(207)
			},
			"with another password": func(k *keeper) { k.say(asking("guess")); k.want(401) },
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				d := open(t, routes{}, parkSoon, kind.change)
				k := d.keep(kind.header)
				k.say(ask)
				k.want(207)
				for range 3 {
					parked(t)
					next(k)
				}
				parked(t)
				k.Close()
				e := wantOneSession(t, d, "client closed")
				if client := e.Client.String(); !strings.HasPrefix(client, kind.client) || e.TLS != (name != "plain text") {
					t.Errorf("told of %+v", e.Facts)
				}
			})
		}
	}
}

// TestParkedAgain: what wakes a client's connection, and is no request yet, is kept while it is parked again.
func TestParkedAgain(t *testing.T) {
	d := open(t, routes{}, func(o *davproxy.Options) { o.Times(500*time.Millisecond, patience, time.Millisecond) })
	k := d.keep("")
	k.say(asking("cal"))
	k.want(207)
	parked(t)
	k.sayInParts(asking("cal"), 150, func() { // of one record, which TLS needs whole
		served(t)
		parked(t)
	})
	k.want(207)
	k.Close()
	wantOneSession(t, d, "client closed")
}

// TestFirstBytesBeforeParking: the rest of a request has its time, though it would be parked by now.
func TestFirstBytesBeforeParking(t *testing.T) {
	const park = 300 * time.Millisecond
	d := open(t, routes{}, func(o *davproxy.Options) { o.Times(patience, patience, park) })
	k := d.keep("")
	ask := asking("cal")
	k.say(ask)
	k.want(207)
	k.say(ask[:1])
	time.Sleep(park + park/4)
	k.say(ask[1:])
	k.want(207)
}

// dribble sends the first bytes of a request one by one, each in a record of its own.
func dribble(k *keeper) {
	ask := asking("cal")
	for i := range 6 {
		k.say(ask[i : i+1])
		time.Sleep(5 * time.Millisecond) // it is not parked again
	}
	k.say(ask[6:])
	k.want(207)
}

// wantOneSession waits for the end of a connection with one login, and looks that nothing else was told.
func wantOneSession(t *testing.T, d *door, reason string) protocols.EndEvent {
	t.Helper()
	e := next(t, "the end", d.observer.ended)
	if e.Reason != reason {
		t.Errorf("it ended because of %q, want %q", e.Reason, reason)
	}
	var logins []protocols.LoginEvent
	for len(d.observer.logins) > 0 {
		if l := <-d.observer.logins; l.Err == nil {
			logins = append(logins, l)
		}
	}
	if len(logins) != 1 || logins[0].Conn != e.Conn || len(d.observer.ended) > 0 {
		t.Errorf("logins %+v, %d more ends; the first was of %s", logins, len(d.observer.ended), e.Conn)
	}
	return e
}

// TestQuietConnectionsEnd, and it is told once.
func TestQuietConnectionsEnd(t *testing.T) {
	const short = 200 * time.Millisecond
	gone := errors.New("the client has closed")
	for name, tt := range map[string]struct {
		after  string // comes with the first request; empty: the connection is parked
		keeps  time.Duration
		end    func(*door, *keeper)
		sees   error
		reason string
	}{
		"the client closes":              {"", patience, func(_ *door, k *keeper) { k.Close() }, gone, "client closed"},
		"the client would still read":    {"", patience, func(_ *door, k *keeper) { k.closeWrite() }, io.EOF, "client closed"},
		"the client is gone":             {"", patience, func(_ *door, k *keeper) { k.reset() }, gone, "client closed"},
		"draining":                       {"", patience, func(d *door, _ *keeper) { d.drain() }, io.EOF, "drained"},
		"the end of life":                {"", patience, func(d *door, _ *keeper) { d.kill(); d.drain() }, io.EOF, "drained"},
		"its time is over":               {"", short, func(*door, *keeper) {}, io.EOF, "idle"},
		"its time is over, with a byte":  {"P", short, func(*door, *keeper) {}, io.EOF, "client closed"},
		"its time is over, with 3 bytes": {"PRO", short, func(*door, *keeper) {}, io.EOF, "client closed"},
	} {
		for _, kind := range []string{"TLS", "plain text"} {
			t.Run(name+", "+kind, func(t *testing.T) {
				d := open(t, routes{}, kinds[kind].change, func(o *davproxy.Options) { o.Times(patience, tt.keeps, time.Millisecond) })
				k := d.keep("")
				k.say(asking("cal") + tt.after)
				k.want(207)
				if tt.keeps == patience {
					parked(t)
				}
				tt.end(d, k)
				if tt.sees != gone {
					if _, err := k.r.ReadByte(); err != tt.sees {
						t.Errorf("the client saw %v", err)
					}
				}
				wantOneSession(t, d, tt.reason)
				d.drain()
				d.ended(t, 0)
			})
		}
	}
}

// TestDrainingDoesNotKeepTheParked while it waits for a request that is under way.
func TestDrainingDoesNotKeepTheParked(t *testing.T) {
	goOn := make(chan struct{})
	b := newFake(t, func(w http.ResponseWriter, _ *http.Request) {
		<-goOn
		w.WriteHeader(204)
	})
	d := open(t, routes{"calendar": b.route}, parkSoon)
	k := d.keep("")
	k.say(asking("card"))
	k.want(207)
	parked(t)
	got := d.start(d.newClient(false), "cal", "DELETE", cal+"work/1.ics", nil)
	next(t, "the request", b.seen)
	d.drain()
	if _, err := k.r.ReadByte(); err != io.EOF {
		t.Errorf("the client saw %v", err)
	}
	close(goOn)
	if a := next(t, "an answer", got); a.err != nil || a.StatusCode != 204 {
		t.Errorf("got %+v", a)
	}
}

func (k *keeper) closeWrite() { k.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// reset is what a client's system does when the client was killed.
func (k *keeper) reset() {
	k.socket.SetLinger(0)
	k.socket.Close()
}

// TestParkedClientsCount: they have their places, and lose them, as others do.
func TestParkedClientsCount(t *testing.T) {
	for kind, c := range kinds {
		t.Run(kind, func(t *testing.T) {
			d := open(t, routes{}, parkSoon, c.change, func(o *davproxy.Options) { o.Limits = &protocols.Limits{PreAuth: 1, Sessions: 1} })
			stranger := d.keep(c.header)
			stranger.say(asking("guess"))
			stranger.want(401)
			parked(t)
			session := d.keep(c.header) // takes the only place of who has not logged in
			if _, err := stranger.r.ReadByte(); err == nil {
				t.Error("a parked connection did not make room")
			}
			session.say(asking("cal"))
			session.want(207)
			parked(t)
			other := d.keep(c.header)
			other.say(asking("cal"))
			other.want(503)
			parked(t)
			session.Close()
			wantOneSession(t, d, "client closed")
			other.say(asking("cal"))
			other.want(207)
		})
	}
}

// TestRevokedWhileParked: no request of a password that does not hold any more is answered; the connection may have others'.
func TestRevokedWhileParked(t *testing.T) {
	d := open(t, routes{}, parkSoon)
	k := d.keep("")
	k.say(asking("cal"))
	k.want(207)
	parked(t)
	d.revoke("cal")
	d.verifier.set(func(v *verifier) { v.refuse = &authstore.Refusal{Code: authstore.Wrong} })
	k.say(asking("cal"))
	k.want(401)
	k.Close()
	wantOneSession(t, d, "client closed")
}

// TestManyParkedClients: none has a goroutine, each is served again, and all of them leave when the front door drains.
func TestManyParkedClients(t *testing.T) {
	for _, kind := range []string{"TLS", "plain text"} {
		t.Run(kind, func(t *testing.T) {
			d := open(t, routes{}, parkSoon, kinds[kind].change, func(o *davproxy.Options) { o.Log = slog.New(slog.DiscardHandler) })
			before := runtime.NumGoroutine() // with those of tests that wait for their turn
			clients := make([]*keeper, 400)
			for i := range clients {
				clients[i] = d.keep("")
				clients[i].say(asking("cal"))
				clients[i].want(207)
			}
			for range 2 {
				parked(t)
				if n := runtime.NumGoroutine() - before; n > len(clients)/40 {
					t.Errorf("%d parked clients have %d goroutines", len(clients), n)
				}
				for _, k := range clients { // all at once
					k.say(asking("wrong"))
				}
				for _, k := range clients {
					k.want(401)
				}
				for some := range slices.Chunk(clients, 20) { // an account may have 32 requests under way
					for _, k := range some {
						k.say(asking("cal"))
					}
					for _, k := range some {
						k.want(207)
					}
				}
			}
			parked(t)
			d.drain()
			for range clients {
				if e := next(t, "an end", d.observer.ended); e.Reason != "drained" {
					t.Errorf("ended because of %q", e.Reason)
				}
			}
			d.ended(t, 0)
		})
	}
}

// TestParkingRaces: requests come just when a connection is being parked, and so does what ends it.
func TestParkingRaces(t *testing.T) {
	for _, kind := range []string{"TLS", "plain text"} {
		t.Run(kind, func(t *testing.T) {
			d := open(t, routes{}, parkSoon, kinds[kind].change, func(o *davproxy.Options) { o.Log = slog.New(slog.DiscardHandler) })
			var all sync.WaitGroup
			const clients = 16
			for i := range clients {
				k := d.keep("")
				all.Go(func() {
					ask := asking("cal")
					for range 60 {
						k.socket.SetDeadline(time.Now().Add(patience))
						cut := rand.IntN(len(ask))
						io.WriteString(k, ask[:cut])
						if rand.IntN(2) == 0 {
							time.Sleep(rand.N(2 * time.Millisecond))
						}
						io.WriteString(k, ask[cut:])
						resp, err := http.ReadResponse(k.r, nil)
						if err != nil || resp.StatusCode != 207 {
							t.Errorf("got %v, %v", resp, err)
							return
						}
						io.Copy(io.Discard, resp.Body)
						time.Sleep(rand.N(4 * time.Millisecond))
					}
					switch i % 4 {
					case 0:
						k.Close()
					case 1:
						k.reset()
					case 2:
						k.closeWrite()
					}
				})
			}
			all.Wait()
			d.drain()
			if err := next(t, "Serve to return", d.served); err != nil {
				t.Errorf("Serve() = %v", err)
			}
			d.served <- nil
			if logins, ends := len(d.observer.logins), len(d.observer.ended); logins != clients || ends != clients {
				t.Errorf("%d logins and %d ends of %d clients", logins, ends, clients)
			}
		})
	}
}

// TestHTTPWithoutTLS: who forgot the s of https is told.
func TestHTTPWithoutTLS(t *testing.T) {
	t.Parallel()
	d := open(t, routes{})
	for request, told := range map[string]bool{asking("cal"): true, "GET / HTTP/1.0\r\n\r\n": true, "\x80\x2e\x01\x00\x02": false} {
		nc, err := net.Dial("tcp", strings.TrimPrefix(d.url, "https://"))
		if err != nil {
			t.Fatal(err)
		}
		nc.SetDeadline(time.Now().Add(patience))
		io.WriteString(nc, request)
		text, _ := io.ReadAll(nc)
		nc.Close()
		if bytes.HasPrefix(text, []byte("HTTP/1.0 400 Bad Request\r\n")) != told {
			t.Errorf("%q was answered %q", request, text)
		}
	}
}
