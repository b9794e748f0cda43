package davproxy_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"postern/authstore"
	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/davproxy"
)

// scripted is a backend that writes its answers byte by byte. It answers the gateway's own questions as a good one.
type scripted struct {
	ln     net.Listener
	handle func(*visit) bool // answers a client's request; false: hang up
	conns  atomic.Int64
	asked  atomic.Int64 // the clients' requests
}

// visit is a client's request at a scripted backend.
type visit struct {
	net.Conn
	r    *bufio.Reader
	req  *http.Request // its body is to be read by handle
	text string        // PROPFIND: the body
	nth  int           // on this connection, from 1
}

func (v *visit) say(format string, args ...any) bool {
	fmt.Fprintf(v, format, args...)
	return true
}

func newScripted(t testing.TB, ln net.Listener, handle func(*visit) bool) *scripted {
	t.Helper()
	if ln == nil {
		var err error
		if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	b := &scripted{ln: ln, handle: handle}
	var serving sync.WaitGroup
	var open sync.Map
	serving.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			open.Store(nc, nil)
			b.conns.Add(1)
			serving.Go(func() {
				defer nc.Close()
				b.serve(nc)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		open.Range(func(nc, _ any) bool { nc.(net.Conn).Close(); return true })
		serving.Wait()
	})
	return b
}

func (b *scripted) serve(nc net.Conn) {
	r := bufio.NewReader(nc)
	for nth := 1; ; {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		v := &visit{nc, r, req, "", nth}
		if req.Method == "PROPFIND" {
			text, err := io.ReadAll(req.Body)
			if err != nil {
				return
			}
			if v.text = string(text); !strings.Contains(v.text, "displayname") && v.text != "" {
				answerOwn(v)
				continue
			}
		}
		b.asked.Add(1)
		nth++
		if !b.handle(v) {
			return
		}
	}
}

func answerOwn(v *visit) {
	own, is := "<href>/"+v.req.Header.Get("X-Remote-User")+"/</href>", ""
	if strings.HasSuffix(v.req.URL.Path, "/work/") {
		is = "<C:calendar/>"
	}
	v.xml(listOf(responseOf(v.req.URL.Path, "<current-user-principal>"+own+"</current-user-principal><C:calendar-home-set>"+own+
		"</C:calendar-home-set><resourcetype><collection/>"+is+"</resourcetype>")))
}

func (v *visit) xml(text string) bool {
	return v.say("HTTP/1.1 207 Multi-Status\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
}

// event answers with an event that has a name.
func (v *visit) event(uid string) bool {
	text := testlab.Event(uid)
	return v.say("HTTP/1.1 200 OK\r\nContent-Type: text/calendar\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
}

func (b *scripted) route(g authstore.Grant) *protocols.Route {
	r := by("scripted", b.ln.Addr().String())(g)
	r.Network = b.ln.Addr().Network()
	return r
}

const aList = `<multistatus xmlns="DAV:"></multistatus>`

// TestConnectionsToABackendAreUsedAgain wherever the end of the last answer was beyond doubt.
func TestConnectionsToABackendAreUsedAgain(t *testing.T) {
	t.Parallel()
	event := testlab.Event("1")
	chunk := fmt.Sprintf("%x\r\n%s\r\n0\r\n", len(event), event)
	for name, tt := range map[string]struct {
		method, answer string
		want           int
		again          bool
	}{
		"a length":                       {"GET", fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/calendar\r\nContent-Length: %d\r\n\r\n%s", len(event), event), 200, true},
		"chunks":                         {"GET", "HTTP/1.1 200 OK\r\nContent-Type: text/calendar\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + "\r\n", 200, true},
		"chunks with a trailer":          {"GET", "HTTP/1.1 200 OK\r\nContent-Type: text/calendar\r\nTrailer: Set-Cookie\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + "Set-Cookie: a\r\nETag: \"9\"\r\n\r\n", 200, true},
		"interim answers":                {"GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nA: b\r\n\r\nHTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n", 404, true},
		"line feeds alone":               {"GET", "HTTP/1.1 404 x\nContent-Length: 0\n\n", 404, true},
		"no body by HEAD":                {"HEAD", "HTTP/1.1 200 OK\r\nContent-Type: text/calendar\r\nContent-Length: 1000\r\n\r\n", 200, true},
		"no body by HEAD, in chunks":     {"HEAD", "HTTP/1.1 200 OK\r\nContent-Type: text/calendar\r\nTransfer-Encoding: chunked\r\n\r\n", 200, true},
		"no body by 204":                 {"DELETE", "HTTP/1.1 204 No Content\r\n\r\n", 204, true},
		"no body by 204, with a length":  {"DELETE", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, true},
		"no body by 304":                 {"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n", 304, true},
		"a short page that is discarded": {"GET", "HTTP/1.1 404 Not Found\r\nContent-Length: 1000\r\n\r\n" + strings.Repeat("x", 1000), 404, true},
		"a long page that is discarded":  {"GET", "HTTP/1.1 404 Not Found\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000), 404, false},
		"the word close":                 {"GET", "HTTP/1.1 404 x\r\nConnection: Keep-Alive, Close\r\nContent-Length: 0\r\n\r\n", 404, false},
		"HTTP/1.0":                       {"GET", "HTTP/1.0 404 x\r\nContent-Length: 0\r\n\r\n", 404, false},
		"HTTP/1.0 that says keep-alive":  {"GET", "HTTP/1.0 404 x\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", 404, false},
		"more than the length says":      {"GET", fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/calendar\r\nContent-Length: %d\r\n\r\n%sHTTP/1.1 403 x\r\nContent-Length: 0\r\n\r\n", len(event), event), 200, false},
		"more than no body":              {"DELETE", "HTTP/1.1 204 x\r\n\r\nHTTP/1.1 403 x\r\nContent-Length: 0\r\n\r\n", 204, false},
		"more than the trailer":          {"GET", "HTTP/1.1 200 OK\r\nContent-Type: text/calendar\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + "\r\nHTTP/1.1 403 x\r\nContent-Length: 0\r\n\r\n", 200, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var first atomic.Bool
			b := newScripted(t, nil, func(v *visit) bool {
				if first.CompareAndSwap(false, true) {
					io.WriteString(v, tt.answer)
					return true
				}
				if again := v.nth == 2; again != tt.again {
					t.Errorf("used again: %t", again)
				}
				return v.event("2")
			})
			d := open(t, routes{"calendar": b.route})
			a := d.want(tt.want, "cal", tt.method, cal+"work/1.ics", "")
			if a.Header.Get("Etag") != "" || a.Header.Get("Set-Cookie") != "" || len(a.Trailer) > 0 {
				t.Errorf("the client was told %v, %v", a.Header, a.Trailer)
			}
			if a := d.want(200, "cal", "GET", cal+"work/2.ics", ""); !strings.Contains(a.text, "UID:2") {
				t.Errorf("the second answer is %q", a.text)
			}
		})
	}
}

// TestAnAnswerUntilTheBackendHangsUp is whole when it does.
func TestAnAnswerUntilTheBackendHangsUp(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"1.0", "1.1"} {
		b := newScripted(t, nil, func(v *visit) bool {
			v.say("HTTP/%s 200 OK\r\nContent-Type: text/calendar\r\n\r\n%s", version, testlab.Event("1"))
			return false
		})
		d := open(t, routes{"calendar": b.route})
		for range 2 {
			if a := d.want(200, "cal", "GET", cal+"work/1.ics", ""); a.text != testlab.Event("1") {
				t.Errorf("HTTP/%s: %q", version, a.text)
			}
		}
	}
}

// TestBackendsThatHangUp between requests are no matter; in the middle of one it is asked again only if that changes nothing.
func TestBackendsThatHangUp(t *testing.T) {
	t.Parallel()
	long := `<C:calendar-multiget xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><prop><displayname/></prop>` +
		strings.Repeat("<href>"+cal+"work/1.ics</href>", 2000) + `</C:calendar-multiget>` // does not go with its header
	bodies := map[string]string{"PUT": testlab.Event("1"), "PROPFIND": askAll, "REPORT": long}
	for method, repeated := range map[string]bool{"GET": true, "HEAD": true, "PROPFIND": true, "REPORT": true, "PUT": false, "DELETE": false, "PROPPATCH": false, "COPY": false} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			path := cal + "work/1.ics"
			if method == "REPORT" {
				path = cal + "work/"
			}
			header := []string{"Destination", cal + "work/2.ics"}
			body := bodies[method]
			if method == "PROPPATCH" {
				body = `<propertyupdate xmlns="DAV:"><set><prop><displayname>x</displayname></prop></set></propertyupdate>`
			}
			for name, how := range map[string]func(*visit) bool{
				"at once":    func(*visit) bool { return false },
				"in a while": func(v *visit) bool { io.Copy(io.Discard, v.req.Body); return false },
			} {
				var breaks atomic.Bool
				b := newScripted(t, nil, func(v *visit) bool {
					if breaks.CompareAndSwap(true, false) {
						return how(v)
					}
					io.Copy(io.Discard, v.req.Body)
					switch method {
					case "PROPFIND", "REPORT", "PROPPATCH":
						return v.xml(aList)
					case "GET":
						return v.event("1")
					}
					return v.say("HTTP/1.1 201 x\r\nContent-Type: text/calendar\r\nContent-Length: 0\r\n\r\n")
				})
				d := open(t, routes{"calendar": b.route})
				well := d.do("cal", method, path, body, header...).StatusCode
				if well >= 300 {
					t.Fatalf("%s: %d", method, well)
				}
				before := b.asked.Load()
				breaks.Store(true)
				want, asked := 503, int64(1)
				if repeated {
					want, asked = well, 2
				}
				d.want(want, "cal", method, path, body, header...)
				if got := b.asked.Load() - before; got != asked {
					t.Errorf("%s: it was asked %d times, want %d", name, got, asked)
				}
				d.want(well, "cal", method, path, body, header...)
			}
			// On a connection that is new nothing is tried again.
			b := newScripted(t, nil, func(v *visit) bool { return false })
			d := open(t, routes{"calendar": b.route})
			d.want(207, "cal", "PROPFIND", self, "")
			d.want(503, "cal", method, path, body, header...)
			if got := b.asked.Load(); got > 2 {
				t.Errorf("it was asked %d times", got)
			}
		})
	}
	// Between two requests: whatever the method, the next one goes over a new connection.
	hung := make(chan struct{}, 10)
	b := newScripted(t, nil, func(v *visit) bool {
		io.Copy(io.Discard, v.req.Body)
		v.say("HTTP/1.1 204 x\r\n\r\n")
		v.Close()
		hung <- struct{}{}
		return false
	})
	d := open(t, routes{"calendar": b.route})
	for range 3 {
		for _, method := range []string{"DELETE", "PUT"} {
			d.want(204, "cal", method, cal+"work/1.ics", map[string]string{"PUT": testlab.Event("1")}[method])
			next(t, "the backend to hang up", hung)
		}
	}
}

// TestWhatABackendSaysUnasked is nobody's answer, also when it comes late.
func TestWhatABackendSaysUnasked(t *testing.T) {
	t.Parallel()
	said := make(chan struct{})
	goOn := make(chan struct{})
	b := newScripted(t, nil, func(v *visit) bool {
		uid := v.req.URL.Path[len(v.req.URL.Path)-5 : len(v.req.URL.Path)-4]
		v.event(uid)
		if uid == "1" {
			<-goOn
			v.event("X")
			close(said)
		}
		return true
	})
	d := open(t, routes{"calendar": b.route})
	d.want(200, "cal", "GET", cal+"work/1.ics", "")
	close(goOn)
	next(t, "the backend to speak", said)
	for _, uid := range []string{"2", "3"} {
		if a := d.want(200, "cal", "GET", cal+"work/"+uid+".ics", ""); !strings.Contains(a.text, "UID:"+uid) {
			t.Errorf("asked for %s, got %q", uid, a.text)
		}
	}
}

// TestARefusalDoesNotWaitForTheBody: neither for a client that rests nor for one that never ends.
func TestARefusalDoesNotWaitForTheBody(t *testing.T) {
	t.Parallel()
	for _, status := range []int{401, 403, 413, 507} {
		for _, major := range []int{1, 2} {
			for _, rests := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d, HTTP/%d, rests %t", status, major, rests), func(t *testing.T) {
					t.Parallel()
					left := make(chan struct{}, 10)
					b := newScripted(t, nil, func(v *visit) bool {
						v.say("HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n", status)
						io.Copy(io.Discard, v.req.Body)
						left <- struct{}{}
						return false
					})
					d := open(t, routes{"calendar": b.route}, func(o *davproxy.Options) { o.MaxBody = 1 << 40 })
					d.client = d.newClient(major == 2)
					body := endless(t)
					if rests {
						r, w := io.Pipe()
						t.Cleanup(func() { w.Close() })
						go w.Write(bytes.Repeat([]byte(begin), 20)) // more than is held back
						body = r
					}
					got := next(t, "an answer", d.start(d.client, "cal", "PUT", cal+"work/1.ics", body))
					want := status
					if status == 401 {
						want = 503
					}
					next(t, "the backend to be let go", left)
					switch {
					case got.err != nil && major == 1 && !rests: // who goes on sending over HTTP/1.1 has half a second to read it
					case got.err != nil || got.StatusCode != want:
						t.Fatalf("got %+v", got)
					default:
						got.Body.Close()
					}
					d.client.CloseIdleConnections()
					d.client = d.newClient(major == 2)
					d.want(207, "cal", "PROPFIND", self, "")
				})
			}
		}
	}
}

// TestASuccessWaitsForTheBody: a backend that thanks too early has half of it when the client breaks off.
func TestASuccessWaitsForTheBody(t *testing.T) {
	t.Parallel()
	thanked, whole := make(chan struct{}, 10), make(chan error, 10)
	b := newScripted(t, nil, func(v *visit) bool {
		v.say("HTTP/1.1 201 x\r\nContent-Length: 0\r\n\r\n")
		thanked <- struct{}{}
		_, err := io.Copy(io.Discard, v.req.Body)
		whole <- err
		return err == nil
	})
	d := open(t, routes{"calendar": b.route})
	nc, r := d.dial()
	fmt.Fprintf(nc, "PUT %swork/1.ics HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n%s", cal, basic("cal"), 2*len(begin), begin)
	next(t, "the backend's thanks", thanked)
	nc.(*tls.Conn).CloseWrite()
	if resp, err := http.ReadResponse(r, nil); err == nil && resp.StatusCode < 300 {
		t.Errorf("told of %s", resp.Status)
	}
	if err := next(t, "the backend's end", whole); err == nil {
		t.Error("the backend took half a body for whole")
	}
	d.want(201, "cal", "PUT", cal+"work/1.ics", begin+begin)
	if err := next(t, "the backend's end", whole); err != nil {
		t.Error(err)
	}
}

// TestOtherWaysToABackend: TLS with a name that is verified, and a socket in the file system.
func TestOtherWaysToABackend(t *testing.T) {
	t.Parallel()
	answers := func(v *visit) bool {
		io.Copy(io.Discard, v.req.Body)
		if v.req.Method == "PUT" {
			return v.say("HTTP/1.1 201 x\r\nContent-Length: 0\r\n\r\n")
		}
		return v.event("1")
	}
	ca := testlab.NewCA(t)
	_, _, cert := ca.Issue()
	secure, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	overTLS, overSocket := newScripted(t, secure, answers), newScripted(t, socket, answers)
	trusting, doubting := &tls.Config{RootCAs: ca.Pool}, &tls.Config{}
	byTLS := func(cfg *tls.Config) func(g authstore.Grant) *protocols.Route {
		return func(g authstore.Grant) *protocols.Route {
			r := overTLS.route(g)
			r.Security, r.TLS = protocols.ImplicitTLS, cfg
			return r
		}
	}
	for name, tt := range map[string]struct {
		b     *scripted
		route func(authstore.Grant) *protocols.Route
		ok    bool
	}{"TLS": {overTLS, byTLS(trusting), true}, "TLS of a stranger": {overTLS, byTLS(doubting), false}, "socket": {overSocket, overSocket.route, true}} {
		d := open(t, routes{"calendar": tt.route})
		before := tt.b.conns.Load()
		if !tt.ok {
			d.want(503, "cal", "GET", cal+"work/1.ics", "")
			continue
		}
		for range 3 {
			d.want(200, "cal", "GET", cal+"work/1.ics", "")
			d.want(201, "cal", "PUT", cal+"work/1.ics", begin)
		}
		if n := tt.b.conns.Load() - before; n != 1 {
			t.Errorf("%s: %d connections", name, n)
		}
	}
}

// TestManyAtOnceGetTheirOwn answers, whatever is kept and cut meanwhile.
func TestManyAtOnceGetTheirOwn(t *testing.T) {
	t.Parallel()
	b := newScripted(t, nil, func(v *visit) bool {
		uid := strings.TrimSuffix(v.req.URL.Path[strings.LastIndexByte(v.req.URL.Path, '/')+1:], ".ics")
		v.event(uid)
		return v.nth%5 != 0
	})
	d := open(t, routes{"calendar": b.route})
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() {
			client := d.newClient(i%2 == 0)
			defer client.CloseIdleConnections()
			for j := range 50 {
				uid := fmt.Sprintf("%d-%d", i, j)
				got := <-d.start(client, "cal", "GET", cal+"work/"+uid+".ics", nil)
				if got.err != nil {
					t.Error(got.err)
					return
				}
				if j%7 == 3 { // leaves the rest
					got.Body.Close()
					continue
				}
				text, err := io.ReadAll(got.Body)
				got.Body.Close()
				if err != nil || !strings.Contains(string(text), "UID:"+uid+"\r\n") {
					t.Errorf("asked for %s, got %q, %v", uid, text, err)
				}
			}
		})
	}
	clients.Wait()
}
