package davproxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/authstore"
	"postern/gateway/live"
	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/davproxy"
)

// challenge is what every 401 has. It never changes: Thunderbird keys saved passwords by the realm.
const challenge = `Basic realm="Postern", charset="UTF-8"`

// patience ends a test that hangs.
const patience = 30 * time.Second

// next receives what a test waits for.
func next[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("waited for %s in vain", what)
	}
	return v
}

// dial opens a connection for bytes of a test's own making, in HTTP/1.1.
func (d *door) dial() (net.Conn, *bufio.Reader) {
	d.t.Helper()
	nc, err := tls.Dial("tcp", strings.TrimPrefix(d.url, "https://"), &tls.Config{RootCAs: d.ca.Pool})
	if err != nil {
		d.t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(patience))
	d.t.Cleanup(func() { nc.Close() })
	return nc, bufio.NewReader(nc)
}

// basic is the header Authorization of alice.
func basic(password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(testlab.Alice+":"+password))
}

// start sends a request that is expected to take time.
func (d *door) start(client *http.Client, password, method, path string, body io.Reader) <-chan outcome {
	d.t.Helper()
	req, err := http.NewRequestWithContext(context.WithoutCancel(d.t.Context()), method, d.url+path, body)
	if err != nil {
		d.t.Fatal(err)
	}
	req.SetBasicAuth(testlab.Alice, password)
	if body != nil {
		req.ContentLength = -1
		req.Header.Set("Content-Type", "text/calendar")
	}
	c := make(chan outcome, 1)
	go func() {
		resp, err := client.Do(req)
		c <- outcome{resp, err}
	}()
	return c
}

type outcome struct {
	*http.Response
	err error
}

// revoke ends the sessions of one app password, and returns when they have left.
func (d *door) revoke(password string) {
	d.t.Helper()
	gone := d.sessions.Review(0, func(g authstore.Grant) error {
		if g.Scopes == scopesOf[password] {
			return errors.New("revoked")
		}
		return nil
	})
	next(d.t, "revoked sessions to leave", gone)
}

func (v *verifier) set(change func(*verifier)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change(v)
}

func (v *verifier) counts() (attempts, uses int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.attempts), len(v.uses)
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	d := open(t, routes{})
	encode := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	for name, tt := range map[string]struct {
		header []string
		want   int
		login  string // of the attempt; empty: there is none
	}{
		"none":                      {nil, 401, ""},
		"another scheme":            {[]string{"Bearer abc"}, 401, ""},
		"Digest":                    {[]string{`Digest username="alice@example.test"`}, 401, ""},
		"no words":                  {[]string{"Basic"}, 401, ""},
		"no base64":                 {[]string{"Basic !!!!"}, 401, ""},
		"no colon":                  {[]string{encode("alice@example.test")}, 401, ""},
		"over-long":                 {[]string{encode("alice@example.test:" + strings.Repeat("x", 4000))}, 401, ""},
		"two headers":               {[]string{basic("both"), basic("both")}, 400, ""},
		"two, one of another kind":  {[]string{"Bearer abc", basic("both")}, 400, ""},
		"right":                     {[]string{basic("both")}, 207, testlab.Alice},
		"right, scheme in capitals": {[]string{strings.Replace(basic("both"), "Basic ", "BASIC  ", 1)}, 207, testlab.Alice},
		"wrong":                     {[]string{basic("guess")}, 401, testlab.Alice},
		"empty password":            {[]string{basic("")}, 401, testlab.Alice},
		"a colon in the password":   {[]string{basic("both:")}, 401, testlab.Alice},
		"UTF-8":                     {[]string{encode("jörg@example.test:guess")}, 401, "jörg@example.test"},
		"Latin-1":                   {[]string{encode("j\xf6rg@example.test:guess")}, 401, "jörg@example.test"},
	} {
		for _, major := range []int{1, 2} {
			client := d.newClient(major == 2)
			before, _ := d.verifier.counts()
			req, err := http.NewRequest("PROPFIND", d.url+"/dav/", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header["Authorization"] = tt.header
			resp, err := client.Do(req)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			resp.Body.Close()
			client.CloseIdleConnections()
			if resp.StatusCode != tt.want || resp.ProtoMajor != major {
				t.Errorf("%s: HTTP/%d, status %d, want HTTP/%d, %d", name, resp.ProtoMajor, resp.StatusCode, major, tt.want)
			}
			if got := resp.Header.Values("WWW-Authenticate"); (tt.want == 401) != (len(got) == 1 && got[0] == challenge) {
				t.Errorf("%s: status %d with challenge %q", name, tt.want, got)
			}
			tried := d.verifier.attempts[before:]
			if tt.login == "" && len(tried) > 0 || tt.login != "" && (len(tried) != 1 || tried[0].Login != tt.login || tried[0].Mechanism != "Basic" || tried[0].Protocol != davproxy.Protocol) {
				t.Errorf("%s: attempts %+v, want the login %q", name, tried, tt.login)
			}
		}
	}
}

// TestRefusals: DAVx5 takes 503 with Retry-After for a delay, and Thunderbird forgets a password on 401.
func TestRefusals(t *testing.T) {
	t.Parallel()
	wrong, throttled := &authstore.Refusal{Code: authstore.Wrong}, &authstore.Refusal{Code: authstore.Throttled}
	suspended, broken := &authstore.Refusal{Code: authstore.Suspended}, errors.New("connection refused")
	for name, tt := range map[string]struct {
		verify, confirm error
		want            int
	}{
		"wrong":                        {wrong, nil, 401},
		"throttled":                    {throttled, nil, 503},
		"suspended":                    {suspended, nil, 403},
		"no store":                     {broken, nil, 503},
		"revoked in between":           {nil, wrong, 401},
		"no store any more":            {nil, broken, 503},
		"suspended, throttled besides": {suspended, throttled, 403},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := open(t, routes{})
			d.verifier.refuse = tt.verify
			d.verifier.confirm = func(context.Context, authstore.Grant) error { return tt.confirm }
			a := d.want(tt.want, "both", "PROPFIND", "/dav/", "")
			if got := a.Header.Get("WWW-Authenticate"); (got != "") != (tt.want == 401) || got != "" && got != challenge {
				t.Errorf("challenge %q", got)
			}
			if got := a.Header.Get("Retry-After"); (got != "") != (tt.want == 503) {
				t.Errorf("Retry-After: %q", got)
			}
			var doc struct {
				XMLName xml.Name `xml:"DAV: error"`
			}
			if err := xml.Unmarshal([]byte(a.text), &doc); err != nil { // Evolution shows any other body as a warning
				t.Errorf("%v in %s", err, a.text)
			}
			e := next(t, "the login's event", d.observer.logins)
			if e.Err == nil || e.Grant.Account != 0 {
				t.Errorf("told of %+v", e)
			}
			if attempts, uses := d.verifier.counts(); attempts != 1 || uses != 0 {
				t.Errorf("%d attempts, %d uses", attempts, uses)
			}
		})
	}
}

func TestClientsAddress(t *testing.T) {
	t.Parallel()
	b := newFake(t, item)
	for name, tt := range map[string]struct {
		trusted []string
		told    []string
		want    string
	}{
		"nobody is trusted":         {nil, []string{"203.0.113.9"}, "127.0.0.1"},
		"others are":                {[]string{"192.0.2.0/24"}, []string{"203.0.113.9"}, "127.0.0.1"},
		"one proxy":                 {[]string{"127.0.0.0/8"}, []string{"203.0.113.9"}, "203.0.113.9"},
		"forged in front":           {[]string{"127.0.0.0/8"}, []string{"198.51.100.1, 203.0.113.9"}, "203.0.113.9"},
		"forged header in front":    {[]string{"127.0.0.0/8"}, []string{"198.51.100.1", "203.0.113.9"}, "203.0.113.9"},
		"two proxies":               {[]string{"127.0.0.0/8", "192.0.2.0/24"}, []string{"198.51.100.1, 203.0.113.9, 192.0.2.5"}, "203.0.113.9"},
		"only proxies":              {[]string{"127.0.0.0/8", "192.0.2.0/24"}, []string{"192.0.2.6, 192.0.2.5"}, "192.0.2.6"},
		"no header":                 {[]string{"127.0.0.0/8"}, nil, "127.0.0.1"},
		"no address":                {[]string{"127.0.0.0/8"}, []string{"203.0.113.9, unknown"}, "127.0.0.1"},
		"no address behind a proxy": {[]string{"127.0.0.0/8", "192.0.2.0/24"}, []string{"unknown, 192.0.2.5"}, "192.0.2.5"},
		"IPv6":                      {[]string{"127.0.0.0/8"}, []string{"2001:db8::7"}, "2001:db8::7"},
		"IPv4 in IPv6":              {[]string{"127.0.0.0/8"}, []string{"::ffff:203.0.113.9"}, "203.0.113.9"},
	} {
		d := open(t, routes{"calendar": b.route}, func(o *davproxy.Options) {
			for _, p := range tt.trusted {
				o.TrustedProxies = append(o.TrustedProxies, netip.MustParsePrefix(p))
			}
		})
		req, err := http.NewRequest("GET", d.url+cal+"work/1.ics", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(testlab.Alice, "cal")
		req.Header["X-Forwarded-For"] = tt.told
		resp, err := d.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := next(t, "the request", b.seen).Header["X-Forwarded-For"]; len(got) != 1 || got[0] != tt.want {
			t.Errorf("%s: the backend was told %q, want %s", name, got, tt.want)
		}
		if got := d.verifier.attempts[0].Client.String(); got != tt.want {
			t.Errorf("%s: the verifier was told %s, want %s", name, got, tt.want)
		}
		if got := next(t, "the login's event", d.observer.logins).Client.Addr().String(); got != tt.want {
			t.Errorf("%s: the observer was told %s, want %s", name, got, tt.want)
		}
	}
}

func TestPROXYHeader(t *testing.T) {
	t.Parallel()
	const header = "PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n"
	for name, tt := range map[string]struct {
		proxies, header string
		want            string // the client's address; empty: cut
	}{
		"a listed balancer":                   {"127.0.0.0/8", header, "203.0.113.9:4711"},
		"a listed balancer speaks for itself": {"127.0.0.0/8", "PROXY UNKNOWN\r\n", "127.0.0.1"},
		"without a header":                    {"127.0.0.0/8", "", ""},
		"with a bad one":                      {"127.0.0.0/8", "PROXY TCP4 nobody\r\n", ""},
		"somebody else":                       {"192.0.2.0/24", header, ""},
		"somebody else without a header":      {"192.0.2.0/24", "", ""},
		"nobody is listed":                    {"", header, ""},
	} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", h2 ", h2), func(t *testing.T) {
				t.Parallel()
				d := open(t, routes{}, func(o *davproxy.Options) {
					if tt.proxies != "" {
						o.Proxies = []netip.Prefix{netip.MustParsePrefix(tt.proxies)}
					}
				})
				client := d.newClient(h2)
				defer client.CloseIdleConnections()
				client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
					nc, err := new(net.Dialer).DialContext(ctx, network, address)
					if err == nil {
						_, err = io.WriteString(nc, tt.header)
					}
					return nc, err
				}
				got := next(t, "an answer", d.start(client, "cal", "PROPFIND", "/dav/", nil))
				if tt.want == "" {
					if got.err == nil {
						t.Errorf("status %d", got.StatusCode)
					}
					if attempts, _ := d.verifier.counts(); attempts != 0 {
						t.Errorf("%d attempts", attempts)
					}
					return
				}
				if got.err != nil || got.StatusCode != 207 {
					t.Fatalf("got %+v", got)
				}
				got.Body.Close()
				e := next(t, "the login's event", d.observer.logins)
				if client := e.Client.String(); !strings.HasPrefix(client, tt.want) || !e.TLS {
					t.Errorf("told of %+v, want the client %s", e.Facts, tt.want)
				}
			})
		}
	}
}

// TestOneLoginOfEachAppPasswordOnAConnection: apps send credentials with every request; the log has one line.
func TestOneLoginOfEachAppPasswordOnAConnection(t *testing.T) {
	t.Parallel()
	for _, major := range []int{1, 2} {
		b := newFake(t, item)
		d := open(t, routes{"calendar": b.route})
		d.client = d.newClient(major == 2)
		d.want(401, "", "PROPFIND", "/dav/", "")
		for range 3 {
			d.want(200, "cal", "GET", cal+"work/1.ics", "", "User-Agent", "Lab/1")
		}
		d.want(201, "cal", "PUT", cal+"work/2.ics", testlab.Event("2"))
		for range 2 {
			d.want(207, "card", "PROPFIND", self, "")
		}
		first, second := next(t, "a login", d.observer.logins), next(t, "another login", d.observer.logins)
		if len(d.observer.logins) > 0 {
			t.Errorf("HTTP/%d: %d events too many", major, len(d.observer.logins))
		}
		if first.Err != nil || first.Mechanism != "Basic" || first.Protocol != "dav" || first.Backend != "fake" || first.App != "Lab/1" ||
			first.Grant.Scopes != scopesOf["cal"] || !first.TLS || first.Conn == "" || !first.Client.IsValid() {
			t.Errorf("HTTP/%d: the first login: %+v", major, first)
		}
		if second.Err != nil || second.Backend != "" || second.Grant.Scopes != scopesOf["card"] || second.Conn != first.Conn {
			t.Errorf("HTTP/%d: the second login: %+v", major, second)
		}
		if attempts, uses := d.verifier.counts(); attempts != 6 || uses != 2 || d.verifier.uses[0] != (authstore.Use{Protocol: "dav", App: "Lab/1"}) {
			t.Errorf("HTTP/%d: %d attempts, uses %+v", major, attempts, d.verifier.uses)
		}
		if len(d.observer.ended) > 0 {
			t.Errorf("HTTP/%d: an end before the end: %+v", major, next(t, "", d.observer.ended))
		}
		d.client.CloseIdleConnections()
		ends := map[authstore.Scopes]protocols.EndEvent{}
		for range 2 {
			e := next(t, "an end", d.observer.ended)
			ends[e.Grant.Scopes] = e
		}
		c := ends[scopesOf["cal"]]
		if c.Up != int64(len(testlab.Event("2"))) || c.Down != 3*int64(len(testlab.Event("1"))) || c.Facts != first.Facts || c.Backend != "fake" || c.Reason != "client closed" {
			t.Errorf("HTTP/%d: the end of cal: %+v", major, c)
		}
		if e := ends[scopesOf["card"]]; e.Up != 0 || e.Down == 0 || e.Conn != first.Conn {
			t.Errorf("HTTP/%d: the end of card: %+v", major, e)
		}
	}
}

// TestRevocationCutsWhatIsUnderWay: wherever the request is, the client's connection ends (HTTP/1.1) or its stream (HTTP/2), and
// the backend is let go.
func TestRevocationCutsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T, *door, *fake) (cut func() error){
		"download":                          downloadUnderWay,
		"download that the client lets lie": downloadNotTaken,
		"list":                              listUnderWay,
		"upload":                            uploadUnderWay,
		"upload that the backend lets lie":  uploadNotTaken,
		"waiting for the backend":           waitingForAnswer,
	} {
		for _, major := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, HTTP/%d", name, major), func(t *testing.T) {
				t.Parallel()
				b := newFake(t, nil)
				d := open(t, routes{"calendar": b.route}, func(o *davproxy.Options) { o.MaxBody = 1 << 40 })
				d.client = d.newClient(major == 2)
				cut := start(t, d, b)
				d.revoke("cal")
				if err := cut(); err == nil || errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && name == "download" {
					t.Errorf("the client saw %v", err)
				}
				next(t, "the backend to be let go", b.gone)
				if major == 2 { // the connection goes on
					d.want(207, "card", "PROPFIND", self, "")
					if a, b := next(t, "a login", d.observer.logins), next(t, "a login", d.observer.logins); a.Conn != b.Conn {
						t.Errorf("the connection was ended with the stream")
					}
					d.client.CloseIdleConnections()
				}
				for e := range d.observer.ended {
					if e.Grant.Scopes != scopesOf["cal"] {
						continue
					}
					if e.Reason != "revoked" {
						t.Errorf("ended because of %q", e.Reason)
					}
					break
				}
			})
		}
	}
}

// begin is the beginning of an event that goes on.
var begin = strings.Replace(testlab.Event("long"), "END:VEVENT", "X-LONG:"+strings.Repeat("x", 100<<10), 1)

// holding serves a handler's work, and then holds the request until it is cancelled.
func (b *fake) holding(work http.HandlerFunc) {
	b.handle = func(w http.ResponseWriter, r *http.Request) {
		work(w, r)
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
}

func send(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/calendar")
		io.WriteString(w, text)
		w.(http.Flusher).Flush()
	}
}

// cut says how a request was cut. Where it was waiting it may have got an answer yet.
func (o outcome) cut() error {
	if o.err == nil && o.StatusCode == 503 {
		o.Body.Close()
		return errors.New(o.Status)
	}
	return o.rest()
}

// rest reads what is left of an answer.
func (o outcome) rest() error {
	if o.err != nil {
		return o.err
	}
	defer o.Body.Close()
	_, err := io.Copy(io.Discard, o.Body)
	return err
}

func downloadUnderWay(t *testing.T, d *door, b *fake) func() error {
	b.holding(send(begin))
	got := next(t, "an answer", d.start(d.client, "cal", "GET", cal+"work/1.ics", nil))
	if got.err != nil || got.StatusCode != 200 {
		t.Fatalf("got %+v", got)
	}
	if _, err := io.ReadFull(got.Body, make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	}
	return got.rest
}

func downloadNotTaken(t *testing.T, d *door, b *fake) func() error {
	b.handle = func(w http.ResponseWriter, r *http.Request) {
		send(begin)(w, r)
		for r.Context().Err() == nil {
			io.WriteString(w, begin)
		}
		panic(http.ErrAbortHandler)
	}
	got := next(t, "an answer", d.start(d.client, "cal", "GET", cal+"work/1.ics", nil))
	if got.err != nil || got.StatusCode != 200 {
		t.Fatalf("got %+v", got)
	}
	return got.rest
}

func listUnderWay(t *testing.T, d *door, b *fake) func() error {
	b.holding(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(207)
		io.WriteString(w, `<multistatus xmlns="DAV:">`)
		for i := range 1000 {
			io.WriteString(w, responseOf(fmt.Sprintf("/%s/work/%d.ics", testlab.Alice, i), `<getetag>"1"</getetag>`))
		}
		w.(http.Flusher).Flush()
	})
	got := next(t, "an answer", d.start(d.client, "cal", "PROPFIND", cal+"work/", nil))
	if got.err != nil || got.StatusCode != 207 {
		t.Fatalf("got %+v", got)
	}
	if _, err := io.ReadFull(got.Body, make([]byte, 16<<10)); err != nil {
		t.Fatal(err)
	}
	return got.rest
}

func uploadUnderWay(t *testing.T, d *door, b *fake) func() error {
	took := make(chan struct{})
	b.handle = func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadFull(r.Body, make([]byte, 64<<10)); err != nil {
			t.Errorf("the backend could not read: %v", err)
		}
		close(took)
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			t.Error("the backend saw an upload that was whole")
		}
		panic(http.ErrAbortHandler)
	}
	got := d.start(d.client, "cal", "PUT", cal+"work/1.ics", endless(t))
	next(t, "the backend to get it", took)
	return func() error { return next(t, "the client's end", got).cut() }
}

// endless is an event that never ends.
func endless(t *testing.T) io.Reader {
	r, w := io.Pipe()
	t.Cleanup(func() { w.Close() })
	go func() {
		for {
			if _, err := io.WriteString(w, begin); err != nil {
				return
			}
		}
	}()
	return r
}

func uploadNotTaken(t *testing.T, d *door, b *fake) func() error {
	took := make(chan struct{})
	b.handle = func(_ http.ResponseWriter, r *http.Request) {
		close(took)
		<-b.closing
		panic(http.ErrAbortHandler)
	}
	got := d.start(d.client, "cal", "PUT", cal+"work/1.ics", endless(t))
	next(t, "the backend to be asked", took)
	return func() error {
		defer b.close()
		return next(t, "the client's end", got).cut()
	}
}

func waitingForAnswer(t *testing.T, d *door, b *fake) func() error {
	b.holding(func(http.ResponseWriter, *http.Request) {})
	got := d.start(d.client, "cal", "DELETE", cal+"work/1.ics", nil)
	next(t, "the backend to be asked", b.seen)
	return func() error { return next(t, "the client's end", got).cut() }
}

// TestRevocationLeavesOtherStreamsAlone: a proxy's connection carries many people's requests.
func TestRevocationLeavesOtherStreamsAlone(t *testing.T) {
	t.Parallel()
	goOn := make(chan struct{})
	b := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		send(begin)(w, r)
		select {
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		case <-goOn:
			io.WriteString(w, "END")
		}
	})
	d := open(t, routes{"calendar": b.route})
	revoked := next(t, "an answer", d.start(d.client, "cal", "GET", cal+"work/1.ics", nil))
	kept := next(t, "an answer", d.start(d.client, "both", "GET", cal+"work/1.ics", nil))
	if a, b := next(t, "a login", d.observer.logins), next(t, "a login", d.observer.logins); a.Conn != b.Conn || revoked.ProtoMajor != 2 {
		t.Fatalf("two connections: %+v, %+v", a, b)
	}
	d.revoke("cal")
	if err := revoked.rest(); err == nil {
		t.Error("the revoked download ended well")
	}
	close(goOn)
	text, err := io.ReadAll(kept.Body)
	kept.Body.Close()
	if err != nil || string(text) != begin+"END" {
		t.Errorf("the other download: %d bytes, %v", len(text), err)
	}
}

// TestConfirmedRightBeforeTheBackend: whatever took time, nothing goes to the backend for a grant that no longer holds.
func TestConfirmedRightBeforeTheBackend(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err  error
		want int
	}{
		"revoked":  {&authstore.Refusal{Code: authstore.Wrong}, 401},
		"no store": {errors.New("connection refused"), 503},
	} {
		b := newFake(t, item)
		d := open(t, routes{"calendar": b.route})
		cold := 0 // confirmations that a first request takes: also before each question of the gateway's own
		d.verifier.set(func(v *verifier) { v.confirm = func(context.Context, authstore.Grant) error { cold++; return nil } })
		d.want(200, "cal", "GET", cal+"work/1.ics", "")
		next(t, "the request", b.seen)
		if asked := int(b.asked.Load()); cold != asked+2 {
			t.Errorf("%d confirmations for one request and %d questions", cold, asked)
		}
		for holds := range cold {
			fresh := open(t, routes{"calendar": b.route})
			n := 0
			fresh.verifier.set(func(v *verifier) {
				v.confirm = func(context.Context, authstore.Grant) error {
					if n++; n > holds {
						return tt.err
					}
					return nil
				}
			})
			a := fresh.want(tt.want, "cal", "GET", cal+"work/1.ics", "")
			if (a.Header.Get("WWW-Authenticate") == challenge) != (tt.want == 401) {
				t.Errorf("%s after %d confirmations: challenge %q", name, holds, a.Header.Get("WWW-Authenticate"))
			}
		}
		for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "PROPFIND"} { // with what was learned
			n := 0
			d.verifier.set(func(v *verifier) {
				v.confirm = func(context.Context, authstore.Grant) error {
					if n++; n == 2 {
						return tt.err
					}
					return nil
				}
			})
			body := map[string]string{"PUT": testlab.Event("1"), "PROPFIND": askAll}[method]
			d.want(tt.want, "cal", method, cal+"work/1.ics", body)
		}
		if len(b.seen) > 0 {
			t.Errorf("%s: the backend saw a %s", name, next(t, "", b.seen).Method)
		}
	}
}

func TestDrainingWaitsForRequests(t *testing.T) {
	t.Parallel()
	for _, major := range []int{1, 2} {
		t.Run(fmt.Sprintf("HTTP/%d", major), func(t *testing.T) {
			t.Parallel()
			goOn := make(chan struct{})
			b := newFake(t, func(w http.ResponseWriter, r *http.Request) {
				send(begin)(w, r)
				<-goOn
				io.WriteString(w, "END")
			})
			d := open(t, routes{"calendar": b.route})
			idle, idleReader := d.dial()
			fmt.Fprintf(idle, "PROPFIND %s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n\r\n", self, basic("card"))
			if resp, err := http.ReadResponse(idleReader, nil); err != nil || resp.StatusCode != 207 || resp.Write(io.Discard) != nil {
				t.Fatalf("%v, %v", resp, err)
			}
			got := next(t, "an answer", d.start(d.newClient(major == 2), "cal", "GET", cal+"work/1.ics", nil))
			if got.err != nil || got.StatusCode != 200 {
				t.Fatalf("got %+v", got)
			}
			d.drain()
			if _, err := idleReader.ReadByte(); err != io.EOF {
				t.Errorf("the idle connection: %v", err)
			}
			if nc, err := net.Dial("tcp", strings.TrimPrefix(d.url, "https://")); err == nil {
				nc.Close()
				t.Error("a new connection was accepted")
			}
			select {
			case err := <-d.served:
				t.Fatalf("Serve returned %v with a request under way", err)
			default:
			}
			close(goOn)
			text, err := io.ReadAll(got.Body)
			got.Body.Close()
			if err != nil || string(text) != begin+"END" {
				t.Errorf("%d bytes, %v", len(text), err)
			}
			d.ended(t, 2)
			for range 2 {
				if e := next(t, "an end", d.observer.ended); e.Reason != "drained" {
					t.Errorf("ended because of %q", e.Reason)
				}
			}
		})
	}
}

// ended waits for Serve, and looks whether all that was to be told by then was told.
func (d *door) ended(t *testing.T, sessions int) {
	t.Helper()
	if err := next(t, "Serve to return", d.served); err != nil {
		t.Errorf("Serve() = %v", err)
	}
	if n := len(d.observer.ended); n != sessions {
		t.Errorf("%d sessions had ended when Serve returned, want %d", n, sessions)
	}
	d.served <- nil // for the door's own cleanup
}

func TestLifeEndsWithRequestsUnderWay(t *testing.T) {
	t.Parallel()
	for _, major := range []int{1, 2} {
		for name, start := range map[string]func(*testing.T, *door, *fake) (cut func() error){
			"download": downloadUnderWay, "not taken": downloadNotTaken, "upload": uploadUnderWay, "waiting": waitingForAnswer,
		} {
			t.Run(fmt.Sprintf("%s, HTTP/%d", name, major), func(t *testing.T) {
				t.Parallel()
				b := newFake(t, nil)
				d := open(t, routes{"calendar": b.route}, func(o *davproxy.Options) { o.MaxBody = 1 << 40 })
				d.client = d.newClient(major == 2)
				cut := start(t, d, b)
				d.drain()
				d.kill()
				if err := cut(); err == nil {
					t.Error("the request ended well")
				}
				next(t, "the backend to be let go", b.gone)
				d.ended(t, 1)
				if e := next(t, "the end", d.observer.ended); e.Reason != "drained" {
					t.Errorf("ended because of %q", e.Reason)
				}
				if d.sessions.Count() != 0 {
					t.Errorf("%d sessions are left", d.sessions.Count())
				}
			})
		}
	}
}

// TestNoLoginOnAConnectionThatHasGone: nobody would tell its end, nor take it off the count of sessions.
func TestNoLoginOnAConnectionThatHasGone(t *testing.T) {
	t.Parallel()
	d := open(t, routes{}, func(o *davproxy.Options) { o.Limits = &protocols.Limits{Sessions: 1} })
	sockets := make(chan net.Conn, 1)
	d.client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, network, address)
		sockets <- nc
		return nc, err
	}
	d.want(207, "card", "PROPFIND", self, "")
	next(t, "a login", d.observer.logins)
	asked := make(chan struct{}, 1)
	d.verifier.set(func(v *verifier) {
		v.confirm = func(ctx context.Context, g authstore.Grant) error {
			if g.Scopes == scopesOf["cal"] {
				asked <- struct{}{}
				<-ctx.Done()
			}
			return nil
		}
	})
	failed := d.start(d.client, "cal", "PROPFIND", self, strings.NewReader(askAll))
	next(t, "the verifier to be asked", asked)
	next(t, "the socket", sockets).Close()
	if got := next(t, "the client's end", failed); got.err == nil {
		t.Errorf("status %d", got.StatusCode)
	}
	next(t, "the first login's end", d.observer.ended)
	d.client = d.newClient(true)
	d.verifier.set(func(v *verifier) { v.confirm = nil })
	d.want(207, "card", "PROPFIND", self, "") // or else the place is lost
	d.client.CloseIdleConnections()
	for logins := 1 + len(d.observer.logins); logins > 1; logins-- {
		next(t, "the end of each login", d.observer.ended)
	}
}

// TestOthersAreServedWhileSomeHang, before TLS, in the header, in the body, and with an answer that they don't take.
func TestOthersAreServedWhileSomeHang(t *testing.T) {
	t.Parallel()
	b := newFake(t, item)
	d := open(t, routes{"calendar": b.route})
	for range 3 {
		silent, err := net.Dial("tcp", strings.TrimPrefix(d.url, "https://"))
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		header, _ := d.dial()
		io.WriteString(header, "PROPFIND / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
		upload, _ := d.dial()
		fmt.Fprintf(upload, "PUT %swork/1.ics HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Length: 1000\r\n\r\nBEGIN", cal, basic("cal"))
		stranger, _ := d.dial()
		fmt.Fprintf(stranger, "PUT %swork/1.ics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nBEGIN", cal)
	}
	for _, major := range []int{1, 2} {
		d.client.CloseIdleConnections()
		d.client = d.newClient(major == 2)
		d.want(200, "cal", "GET", cal+"work/1.ics", "")
	}
}

// TestHangingClientsAreCut: what each may take is bounded.
func TestHangingClientsAreCut(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		says, dribble string // dribble: again and again
		answered      string // yes, no, or maybe
		until         time.Duration
	}{
		"says nothing":                  {"", "", "no", 10 * time.Second},
		"dribbles a header":             {"GET / HTTP/1.1\r\nHost: x\r\n", "A: b\r\n", "no", 10 * time.Second},
		"a body that never comes":       {"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", "", "yes", time.Minute},
		"a body that dribbles":          {"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", "x", "yes", time.Minute},
		"chunks that never come":        {"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "", "yes", time.Minute},
		"a question that does not come": {"PROPFIND / HTTP/1.1\r\nHost: x\r\nAuthorization: " + basic("cal") + "\r\nContent-Length: 1000\r\n\r\n", "", "maybe", 2 * time.Minute},
		"is done":                       {"OPTIONS / HTTP/1.1\r\nHost: x\r\nAuthorization: " + basic("cal") + "\r\n\r\n", "", "yes", 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // the minutes take no time
				ctx, end := context.WithCancel(context.Background())
				ln := newPipes()
				o := davproxy.Options{
					Verifier: &verifier{}, Sessions: &live.Registry{}, Router: routes{}, Log: slog.New(slog.DiscardHandler),
					Observer: &observer{make(chan protocols.LoginEvent, 10), make(chan protocols.EndEvent, 10)},
				}
				var served sync.WaitGroup
				served.Go(func() { davproxy.New(o).Serve(ctx, ctx, ln) })
				defer served.Wait()
				defer end()
				client := ln.dial()
				defer client.Close()
				began := time.Now()
				if tt.says != "" {
					io.WriteString(client, tt.says)
				}
				if tt.dribble != "" {
					served.Go(func() {
						for {
							if _, err := io.WriteString(client, tt.dribble); err != nil {
								return
							}
							time.Sleep(time.Second)
						}
					})
				}
				text, err := io.ReadAll(client)
				answered := map[bool]string{true: "yes", false: "no"}[bytes.HasPrefix(text, []byte("HTTP/1.1 "))]
				if err != nil || tt.answered != "maybe" && tt.answered != answered {
					t.Errorf("got %q, %v", text, err)
				}
				if d := time.Since(began); d > tt.until {
					t.Errorf("after %v, want %v", d, tt.until)
				}
			})
		})
	}
}

// pipes is a listener without sockets.
type pipes struct {
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{accept: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.accept <- server
	return client
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case nc := <-p.accept:
		return nc, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

func TestLimits(t *testing.T) {
	t.Parallel()
	limited := func(l *protocols.Limits) *door {
		return open(t, routes{}, func(o *davproxy.Options) { o.Limits = l })
	}
	ask := func(d *door, nc net.Conn, r *bufio.Reader, authorization string) (int, http.Header) {
		t.Helper()
		fmt.Fprintf(nc, "PROPFIND %s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n\r\n", self, authorization)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, resp.Header
	}

	d := open(t, routes{}, func(o *davproxy.Options) { // behind a proxy the client is known with its first request
		o.Limits, o.TrustedProxies = &protocols.Limits{PreAuthPerNetwork: 1}, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	first, r1 := d.dial()
	ask(d, first, r1, "")
	second, r2 := d.dial()
	status, h := ask(d, second, r2, basic("cal"))
	if _, err := r2.ReadByte(); status != 503 || h.Get("Retry-After") == "" || err != io.EOF {
		t.Errorf("a network's second connection: %d %v, then %v", status, h, err)
	}
	if attempts, _ := d.verifier.counts(); attempts != 0 {
		t.Errorf("%d attempts", attempts)
	}
	if status, _ := ask(d, first, r1, basic("cal")); status != 207 {
		t.Errorf("the first one's login: %d", status)
	}
	third, r3 := d.dial()
	if status, _ := ask(d, third, r3, ""); status != 401 {
		t.Errorf("a third one, after the first has logged in: %d", status)
	}

	d = limited(&protocols.Limits{PreAuth: 1})
	first, r1 = d.dial()
	ask(d, first, r1, basic("cal"))
	second, r2 = d.dial()
	ask(d, second, r2, "")
	third, r3 = d.dial()
	ask(d, third, r3, "")
	if _, err := r2.ReadByte(); err == nil {
		t.Error("the oldest connection without a login stayed")
	}
	if status, _ := ask(d, first, r1, basic("cal")); status != 207 {
		t.Errorf("a connection that had logged in: %d", status)
	}

	d = limited(&protocols.Limits{Sessions: 1})
	first, r1 = d.dial()
	ask(d, first, r1, basic("cal"))
	second, r2 = d.dial()
	if status, h := ask(d, second, r2, basic("cal")); status != 503 || h.Get("Retry-After") == "" {
		t.Errorf("a session too many: %d %v", status, h)
	}
	first.Close()
	next(t, "the first one's end", d.observer.ended)
	if status, _ := ask(d, second, r2, basic("cal")); status != 207 {
		t.Errorf("the next session: %d", status)
	}
}

// TestADefectEndsOneRequest, and is told.
func TestADefectEndsOneRequest(t *testing.T) {
	t.Parallel()
	told := make(chan string, 1)
	broken := func(authstore.Grant) *protocols.Route { panic("a defect of ours") }
	d := open(t, routes{"calendar": broken}, func(o *davproxy.Options) { o.Panicked = func(p string) { told <- p } })
	for _, major := range []int{1, 2} {
		d.client = d.newClient(major == 2)
		if got := next(t, "an end", d.start(d.client, "cal", "PROPFIND", cal, nil)); got.err == nil {
			t.Errorf("HTTP/%d: status %d", major, got.StatusCode)
		}
		if p := next(t, "the defect to be told", told); p != davproxy.Protocol {
			t.Errorf("told of %q", p)
		}
		d.want(207, "cal", "PROPFIND", self, "")
		d.client.CloseIdleConnections()
	}
	for range 2 {
		next(t, "an end", d.observer.ended)
	}
	if n := d.sessions.Count(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// One address has its share of the connections that have not logged in, from their first moment on; the well-known redirect is no login.
func TestConnectionsOfOneAddress(t *testing.T) {
	t.Parallel()
	limits := &protocols.Limits{PreAuthPerNetwork: 4}
	d := open(t, routes{}, func(o *davproxy.Options) { o.Limits = limits })
	address := strings.TrimPrefix(d.url, "https://")
	var kept []net.Conn
	for range 4 {
		nc, err := tls.Dial("tcp", address, &tls.Config{RootCAs: d.ca.Pool, NextProtos: []string{"http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		kept = append(kept, nc)
	}
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if n, err := nc.Read(make([]byte, 1)); err == nil {
		t.Errorf("a fifth was sent %d bytes", n)
	}
	fmt.Fprintf(kept[0], "GET /.well-known/caldav HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(kept[0]), nil); err != nil || resp.StatusCode != 301 {
		t.Errorf("well-known: %v %v", resp, err)
	}
	again, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if n, err := again.Read(make([]byte, 1)); err == nil {
		t.Errorf("a fifth after the redirect was sent %d bytes", n)
	}
}

// One account has its share of the requests under way, whatever the number of its connections.
func TestRequestsOfOneAccount(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	b := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		<-release
		w.WriteHeader(204)
	})
	d := open(t, routes{"calendar": b.route})
	var answers []<-chan outcome
	clients := []*http.Client{d.newClient(true), d.newClient(true)}
	for i := range 32 {
		answers = append(answers, d.start(clients[i%2], "cal", "DELETE", cal+"work/1.ics", nil))
	}
	for range answers {
		next(t, "a request at the backend", b.seen)
	}
	a := d.want(503, "cal", "DELETE", cal+"work/1.ics", "")
	if a.Header.Get("Retry-After") == "" {
		t.Error("it does not say when to come again")
	}
	close(release)
	for _, c := range answers {
		if got := next(t, "an answer", c); got.StatusCode != 204 {
			t.Errorf("one of its share: %+v", got)
		}
	}
}

// Who has just connected when the front door drains, at a reload say, is answered.
func TestDrainAnswersNewcomers(t *testing.T) {
	d := open(t, nil, func(o *davproxy.Options) { o.TLS = nil })
	nc, err := net.Dial("tcp", strings.TrimPrefix(d.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	fmt.Fprint(nc, "PROPFIND /dav/ HTTP/1.1\r\n")
	time.Sleep(100 * time.Millisecond) // it is accepted
	d.drain()
	time.Sleep(200 * time.Millisecond)
	fmt.Fprint(nc, "Host: example.test\r\n\r\n")
	if r, err := http.ReadResponse(bufio.NewReader(nc), nil); err != nil || r.StatusCode != http.StatusUnauthorized {
		t.Errorf("got %v, %v", r, err)
	}
}
