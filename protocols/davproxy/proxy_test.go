package davproxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/authstore"
	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/davproxy"
)

// fake is a backend that can be made to misbehave. It answers the gateway's own questions as a good one: alice has the calendar
// "work". Clients' requests it leaves to a test.
type fake struct {
	address string
	handle  http.HandlerFunc
	is      func(path string) string // a collection's type; nil: "work" is a calendar
	has     string                   // what a principal has besides its calendars, as properties
	asked   atomic.Int64             // the gateway's own questions
	seen    chan *http.Request       // the clients'; they have no body
	gone    chan struct{}            // one for each of these that has ended
	closing chan struct{}
	once    sync.Once
}

func newFake(t testing.TB, handle http.HandlerFunc) *fake {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &fake{
		address: ln.Addr().String(), handle: handle, seen: make(chan *http.Request, 1000), gone: make(chan struct{}, 1000),
		closing: make(chan struct{}),
	}
	srv := &http.Server{Handler: b}
	var serving sync.WaitGroup
	serving.Go(func() { srv.Serve(ln) })
	t.Cleanup(func() {
		b.close()
		srv.Close()
		serving.Wait()
	})
	return b
}

func (b *fake) close() { b.once.Do(func() { close(b.closing) }) }

func (b *fake) route(g authstore.Grant) *protocols.Route { return by("fake", b.address)(g) }

func (b *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == "PROPFIND" {
		text, _ := io.ReadAll(r.Body)
		if !bytes.Contains(text, []byte("displayname")) && len(text) > 0 {
			b.asked.Add(1)
			if r.Header.Get("Depth") != "0" { // what lies in a collection must not be taken for it
				w.WriteHeader(400)
				return
			}
			b.answerQuestion(w, r.URL.Path)
			return
		}
	}
	noBody := r.Clone(r.Context())
	noBody.Body = nil
	b.seen <- noBody
	defer func() { b.gone <- struct{}{} }()
	b.handle(w, r)
}

func (b *fake) answerQuestion(w http.ResponseWriter, path string) {
	own, is := "<href>/"+testlab.Alice+"/</href>", ""
	switch {
	case b.is != nil:
		is = b.is(path)
	case strings.HasSuffix(path, "/work/"):
		is = "<C:calendar/>"
	}
	if status, err := strconv.Atoi(is); err == nil {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(207)
	io.WriteString(w, listOf(responseOf(path, "<current-user-principal>"+own+"</current-user-principal><C:calendar-home-set>"+own+
		"</C:calendar-home-set>"+b.has+"<resourcetype><collection/>"+is+"</resourcetype>")))
}

func listOf(responses ...string) string {
	return `<multistatus xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav">` + strings.Join(responses, "") + "</multistatus>"
}

func responseOf(href, props string) string {
	return "<response><href>" + href + "</href><propstat><prop>" + props + "</prop><status>HTTP/1.1 200 OK</status></propstat></response>"
}

// item serves an event, and takes any.
func item(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	if r.Method == "PUT" {
		w.WriteHeader(201)
		return
	}
	send(testlab.Event("1"))(w, r)
}

// TestWhatABackendIsTold: nothing that a client may not say. WSGI servers read X_Remote_User as X-Remote-User, and what Connection
// names would be taken away by a proxy in between.
func TestWhatABackendIsTold(t *testing.T) {
	t.Parallel()
	client := http.Header{
		"X-Remote-User": {"bob@example.test"}, "X_Remote_User": {"bob@example.test"}, "X-Forwarded-For": {"203.0.113.9"}, "X-Real-Ip": {"203.0.113.9"},
		"Forwarded": {"for=203.0.113.9"}, "X-Forwarded-Host": {"evil.example"}, "X-Forwarded-User": {"bob@example.test"}, "Authorize-As": {"bob@example.test"},
		"Proxy-Authorization": {"Basic Ym9iOmJvYg=="}, "Proxy-Connection": {"keep-alive"}, "Cookie": {"session=bob"}, "Remote-User": {"bob@example.test"},
		"X-Http-Method-Override": {"DELETE"}, "Range": {"bytes=0-1"}, "Accept-Encoding": {"gzip"}, "Origin": {"https://evil.example"}, "X-Idempotency-Key": {"1"},
		"Accept": {"text/calendar"}, "If-None-Match": {`"1", "2"`}, "Prefer": {"return=minimal, Return = Representation"}, "User-Agent": {"Lab/1"}, "Depth": {"infinity"},
	}
	want := http.Header{
		"X-Remote-User": {testlab.Alice}, "X-Forwarded-For": {"127.0.0.1"}, "Accept": {"text/calendar"}, "If-None-Match": {`"1", "2"`},
		"Prefer": {"return=minimal"}, "User-Agent": {"Lab/1"}, "Accept-Encoding": {"identity"},
	}
	basicWant := maps.Clone(want)
	delete(basicWant, "X-Remote-User")
	basicWant["Authorization"] = []string{basic(testlab.Primary(testlab.Alice))}
	b := newFake(t, item)
	byBasic := func(g authstore.Grant) *protocols.Route {
		r := b.route(g)
		r.Header = ""
		r.Open = func(context.Context) (protocols.Credential, error) {
			return protocols.Credential{Authcid: testlab.Alice, Password: []byte(testlab.Primary(testlab.Alice))}, nil
		}
		return r
	}
	for name, tt := range map[string]struct {
		route func(authstore.Grant) *protocols.Route
		want  http.Header
	}{"trusted header": {b.route, want}, "basic": {byBasic, basicWant}} {
		d := open(t, routes{"calendar": tt.route})
		for _, major := range []int{1, 2} {
			d.client = d.newClient(major == 2)
			req, err := http.NewRequest("GET", d.url+cal+"work/1.ics", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header = client.Clone()
			req.Header.Set("Authorization", basic("cal"))
			if major == 1 {
				req.Header.Set("Connection", "X-Remote-User, Depth, If-None-Match, Authorization")
				req.Header.Set("Te", "trailers")
				req.Header.Set("Upgrade", "h2c")
			}
			resp, err := d.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			d.client.CloseIdleConnections()
			got := next(t, "the request", b.seen)
			if resp.StatusCode != 200 || !maps.EqualFunc(got.Header, tt.want, slices.Equal) {
				t.Errorf("%s, HTTP/%d: status %d, the backend got\n%v, want\n%v", name, major, resp.StatusCode, got.Header, tt.want)
			}
			if got.Host != b.address || got.RequestURI != "/alice@example.test/work/1.ics" {
				t.Errorf("%s, HTTP/%d: %s at %s", name, major, got.RequestURI, got.Host)
			}
		}
	}
}

func TestHeadersThatMayStandOnce(t *testing.T) {
	t.Parallel()
	b := newFake(t, item)
	d := open(t, routes{"calendar": b.route})
	for _, name := range []string{"Content-Type", "Depth", "Destination", "If", "Overwrite"} {
		req, err := http.NewRequest("MOVE", d.url+cal+"work/1.ics", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(testlab.Alice, "cal")
		req.Header[name] = []string{"a", "b"}
		resp, err := d.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 400 {
			t.Errorf("two headers %s: %d", name, resp.StatusCode)
		}
	}
	d.want(415, "cal", "PUT", cal+"work/1.ics", testlab.Event("1"), "Content-Encoding", "gzip")
	if len(b.seen) > 0 {
		t.Error("the backend was asked")
	}
}

func TestABackendThatWantsAPassword(t *testing.T) {
	t.Parallel()
	b := testlab.RadicaleBasic(t)
	b.MakeCalendar(testlab.Alice, "work")
	var password atomic.Value
	password.Store(testlab.Primary(testlab.Alice))
	route := func(g authstore.Grant) *protocols.Route {
		r := to(b)(g)
		r.Header = ""
		r.Open = func(context.Context) (protocols.Credential, error) {
			return protocols.Credential{Authcid: g.Address, Password: []byte(password.Load().(string))}, nil
		}
		return r
	}
	d := open(t, routes{"calendar": route})
	d.want(201, "cal", "PUT", cal+"work/1.ics", testlab.Event("1"))
	d.want(200, "cal", "GET", cal+"work/1.ics", "")
	password.Store("changed")
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "PROPFIND"} { // an app would ask its owner for a new password on 401
		a := d.want(503, "cal", method, cal+"work/1.ics", map[string]string{"PUT": testlab.Event("1")}[method])
		if a.Header.Get("Retry-After") == "" || a.Header.Get("WWW-Authenticate") != "" {
			t.Errorf("%s: %v", method, a.Header)
		}
	}
	fresh := open(t, routes{"calendar": route})
	fresh.want(503, "cal", "PROPFIND", cal, askAll)
}

// TestWhatAClientIsTold of a backend's answer.
func TestWhatAClientIsTold(t *testing.T) {
	t.Parallel()
	b := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		for _, name := range []string{"Set-Cookie", "Server", "Alt-Svc", "Upgrade", "X-Powered-By", "Www-Authenticate", "Access-Control-Allow-Origin", "Link", "Refresh", "Trailer"} {
			h.Set(name, "x")
		}
		h.Set("Etag", `"1"`)
		h.Set("Last-Modified", "Mon, 05 Jan 2026 08:30:00 GMT")
		h.Set("Schedule-Tag", `"2"`)
		h.Set("Cache-Control", "public, max-age=1000")
		w.WriteHeader(http.StatusProcessing)
		w.WriteHeader(http.StatusEarlyHints)
		item(w, r)
	})
	d := open(t, routes{"calendar": b.route})
	for _, major := range []int{1, 2} {
		d.client = d.newClient(major == 2)
		a := d.want(200, "cal", "GET", cal+"work/1.ics", "")
		if date, err := http.ParseTime(a.Header.Get("Date")); err != nil || time.Since(date).Abs() > 10*time.Second {
			t.Errorf("HTTP/%d: the date is %q", major, a.Header["Date"])
		}
		for _, name := range []string{"Date", "Content-Length"} {
			a.Header.Del(name)
		}
		want := http.Header{
			"Etag": {`"1"`}, "Last-Modified": {"Mon, 05 Jan 2026 08:30:00 GMT"}, "Schedule-Tag": {`"2"`}, "Content-Type": {"text/calendar"},
			"Content-Disposition": {"attachment"}, "Content-Security-Policy": {"sandbox; default-src 'none'"},
			"X-Content-Type-Options": {"nosniff"}, "Cache-Control": {"private, no-cache"},
		}
		if !maps.EqualFunc(a.Header, want, slices.Equal) || a.text != testlab.Event("1") {
			t.Errorf("HTTP/%d: got %v\nwant %v", major, a.Header, want)
		}
		d.client.CloseIdleConnections()
	}
}

// TestAnswersOfABackend: the client's answer to each.
func TestAnswersOfABackend(t *testing.T) {
	t.Parallel()
	says := func(status int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			if status >= 400 && r.Method != "HEAD" {
				io.WriteString(w, "<html>at backend.internal, see /alice@example.test/")
			}
		}
	}
	raw := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			nc, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				panic(err)
			}
			defer nc.Close()
			io.WriteString(nc, text)
		}
	}
	xml := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/xml")
			w.WriteHeader(207)
			io.WriteString(w, text)
		}
	}
	event := testlab.Event("1")
	const inMount, outside = "/alice@example.test/work/2.ics", "http://evil.example/alice@example.test/work/2.ics"
	for name, tt := range map[string]struct {
		method string
		answer http.HandlerFunc
		want   int    // 0: cut
		header string // NAME: VALUE that the client must get
	}{
		"401":                             {"GET", says(401, "WWW-Authenticate", `Basic realm="backend"`), 503, "Retry-After: 30"},
		"407":                             {"GET", says(407, "Proxy-Authenticate", `Basic realm="backend"`), 503, "Retry-After: 30"},
		"401 to an upload":                {"PUT", says(401, "WWW-Authenticate", `Basic realm="backend"`), 503, "Retry-After: 30"},
		"401 to a question":               {"PROPFIND", says(401, "WWW-Authenticate", `Basic realm="backend"`), 503, "Retry-After: 30"},
		"403":                             {"PUT", says(403), 403, ""},
		"404":                             {"GET", says(404), 404, ""},
		"404 to HEAD":                     {"HEAD", says(404), 404, ""},
		"405":                             {"PUT", says(405, "Allow", "TRACE"), 405, "Allow: OPTIONS, GET, HEAD, PROPFIND, PROPPATCH, PUT, DELETE, COPY, MOVE"},
		"412":                             {"PUT", says(412), 412, ""},
		"429":                             {"GET", says(429), 503, "Retry-After: 30"},
		"500":                             {"GET", says(500), 503, "Retry-After: 30"},
		"502":                             {"DELETE", says(502), 503, "Retry-After: 30"},
		"503 with its own delay":          {"GET", says(503, "Retry-After", "100000"), 503, "Retry-After: 30"},
		"507":                             {"PUT", says(507), 507, ""},
		"redirect inside":                 {"GET", says(301, "Location", inMount), 301, "Location: " + cal + "work/2.ics"},
		"redirect elsewhere":              {"GET", says(301, "Location", outside), 502, "Location: "},
		"redirect to another account":     {"PROPFIND", says(302, "Location", "/bob@example.test/work/1.ics"), 502, "Location: "},
		"redirect to another collection":  {"GET", says(301, "Location", "/alice@example.test/private/2.ics"), 502, "Location: "},
		"redirect nowhere":                {"PUT", says(307), 502, ""},
		"created elsewhere":               {"PUT", says(201, "Location", outside), 201, "Location: "},
		"created in another collection":   {"PUT", says(201, "Content-Location", "/alice@example.test/friends/1.vcf"), 201, "Content-Location: "},
		"properties set, not told":        {"PROPPATCH", says(204), 204, ""},
		"properties set, minimal":         {"PROPPATCH", says(200, "Preference-Applied", "return=minimal"), 200, "Preference-Applied: return=minimal"},
		"created":                         {"PUT", says(201, "Location", inMount, "ETag", `"1"`), 201, `Etag: "1"`},
		"not modified":                    {"GET", says(304, "ETag", `"1"`), 304, `Etag: "1"`},
		"a part":                          {"GET", raw("HTTP/1.1 206 Partial Content\r\nContent-Type: text/calendar\r\nContent-Length: 15\r\n\r\nBEGIN:VCALENDAR"), 502, ""},
		"another protocol":                {"GET", raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), 502, "Upgrade: "},
		"no HTTP":                         {"GET", raw("220 mail.example.test ESMTP\r\n"), 503, "Retry-After: 30"},
		"nothing":                         {"DELETE", raw(""), 503, "Retry-After: 30"},
		"a huge header":                   {"GET", raw("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n"), 503, ""},
		"endless 1xx":                     {"GET", raw(strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: "+strings.Repeat("x", 1000)+"\r\n\r\n", 1000)), 503, ""},
		"a page for an event":             {"GET", raw("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"), 404, "Etag: "},
		"a page that is called an event":  {"GET", raw("HTTP/1.1 200 OK\r\nContent-Type: text/calendar\r\nContent-Length: 6\r\n\r\n<html>"), 404, ""},
		"an event in gzip":                {"GET", raw("HTTP/1.1 200 OK\r\nContent-Type: text/calendar\r\nContent-Encoding: gzip\r\nContent-Length: 15\r\n\r\nBEGIN:VCALENDAR"), 404, ""},
		"half an event":                   {"GET", raw(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/calendar\r\nContent-Length: %d\r\n\r\n%s", len(begin)+1, begin)), 0, ""},
		"half an event in chunks":         {"GET", raw(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/calendar\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(begin), begin)), 0, ""},
		"bad chunks":                      {"GET", raw(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/calendar\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\nxyz\r\n", len(begin), begin)), 0, ""},
		"two lengths":                     {"GET", raw("HTTP/1.1 200 OK\r\nContent-Type: text/calendar\r\nContent-Length: 15\r\nContent-Length: 16\r\n\r\nBEGIN:VCALENDAR"), 503, ""},
		"a list":                          {"PROPFIND", xml(listOf(responseOf("/alice@example.test/work/1.ics", "<getetag>1</getetag>"))), 207, "Content-Type: application/xml; charset=utf-8"},
		"a list that is no XML":           {"PROPFIND", xml("{}"), 502, ""},
		"a list with loose ends":          {"PROPFIND", xml(`<multistatus xmlns="DAV:"><response>`), 502, ""},
		"a list with wrong ends":          {"PROPFIND", xml(`<multistatus xmlns="DAV:"><response></multistatus></response>`), 502, ""},
		"a list with entities":            {"PROPFIND", xml(`<!DOCTYPE a [<!ENTITY x "y">]><multistatus xmlns="DAV:">&x;</multistatus>`), 502, ""},
		"a list without a type":           {"PROPFIND", says(207), 502, ""},
		"a list that is a page":           {"PROPFIND", says(200, "Content-Type", "text/html"), 502, ""},
		"a list in another encoding":      {"PROPFIND", says(207, "Content-Type", "text/xml; charset=utf-16"), 502, ""},
		"a list in gzip":                  {"PROPFIND", says(207, "Content-Type", "text/xml", "Content-Encoding", "gzip"), 502, ""},
		"a list of long words":            {"PROPFIND", xml(`<multistatus xmlns="DAV:"><` + strings.Repeat("x", 300<<10)), 502, ""},
		"a list of one long response":     {"PROPFIND", xml(`<multistatus xmlns="DAV:"><response><propstat>` + strings.Repeat("<x/>", 100<<10)), 502, ""},
		"a list that ends after a while":  {"PROPFIND", xml(`<multistatus xmlns="DAV:">` + strings.Repeat(responseOf("/alice@example.test/work/1.ics", "<getetag>1</getetag>"), 1000)), 0, ""},
		"a list that is cut after while":  {"PROPFIND", raw("HTTP/1.1 207 x\r\nContent-Type: text/xml\r\n\r\n" + `<multistatus xmlns="DAV:">` + strings.Repeat(responseOf("/alice@example.test/work/1.ics", "<getetag>1</getetag>"), 1000)), 0, ""},
		"an error that tells of its home": {"PUT", raw("HTTP/1.1 409 Conflict\r\nContent-Type: text/xml\r\n\r\n" + `<error xmlns="DAV:"><x><href>/bob@example.test/</href></x></error>`), 409, ""},
		"a huge error":                    {"DELETE", raw("HTTP/1.1 423 Locked\r\nContent-Type: text/xml\r\n\r\n" + `<error xmlns="DAV:">` + strings.Repeat("<x/>", 100<<10) + "</error>"), 423, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFake(t, tt.answer)
			d := open(t, routes{"calendar": b.route})
			body := map[string]string{"PUT": event, "PROPFIND": askAll, "PROPPATCH": `<propertyupdate xmlns="DAV:"><set><prop><displayname>1</displayname></prop></set></propertyupdate>`}[tt.method]
			req, err := http.NewRequest(tt.method, d.url+cal+"work/1.ics", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.SetBasicAuth(testlab.Alice, "cal")
			var text []byte
			resp, err := d.client.Do(req)
			if err == nil {
				text, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			if tt.want == 0 {
				if err == nil {
					t.Errorf("status %d and a whole body: %.1000q", resp.StatusCode, text)
				}
				return
			}
			if err != nil || resp.StatusCode != tt.want {
				t.Fatalf("got %+v, %v, want %d", resp, err, tt.want)
			}
			if name, value, ok := strings.Cut(tt.header, ": "); ok && resp.Header.Get(name) != value {
				t.Errorf("%s: %q, want %q", name, resp.Header.Get(name), value)
			}
			if resp.StatusCode != 401 && resp.Header.Get("WWW-Authenticate") != "" || resp.Header.Get("Proxy-Authenticate") != "" {
				t.Errorf("challenged with %d", resp.StatusCode)
			}
			for _, secret := range []string{"backend", "alice@", "bob@", "evil", b.address} {
				if strings.Contains(string(text), secret) || strings.Contains(fmt.Sprint(resp.Header), secret) {
					t.Errorf("the client is told of %q: %v\n%s", secret, resp.Header, text)
				}
			}
			if tt.want >= 400 && tt.method != "HEAD" && !strings.HasPrefix(string(text), "<?xml") {
				t.Errorf("no XML: %s", text)
			}
			d.want(207, "cal", "PROPFIND", self, "") // others don't suffer
		})
	}
}

// TestAnEndlessListStreams: memory is bounded whatever the length. The client sees the beginning before the end is there.
func TestAnEndlessListStreams(t *testing.T) {
	t.Parallel()
	b := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(207)
		io.WriteString(w, `<multistatus xmlns="DAV:">`)
		for r.Context().Err() == nil {
			io.WriteString(w, responseOf("/alice@example.test/work/1.ics", "<getetag>1</getetag>"))
		}
	})
	d := open(t, routes{"calendar": b.route})
	got := next(t, "an answer", d.start(d.client, "cal", "PROPFIND", cal+"work/", nil))
	if got.err != nil || got.StatusCode != 207 {
		t.Fatalf("got %+v", got)
	}
	if _, err := io.CopyN(io.Discard, got.Body, 256<<10); err != nil {
		t.Error(err)
	}
	got.Body.Close()
	next(t, "the backend to be let go", b.gone)
}

func TestABackendThatIsDown(t *testing.T) {
	t.Parallel()
	b := testlab.Radicale(t)
	b.MakeCalendar(testlab.Alice, "work")
	d := open(t, routes{"calendar": to(b), "contacts": by("never", "127.0.0.1:1")})
	d.want(201, "both", "PUT", cal+"work/1.ics", testlab.Event("1"))
	b.Kill()
	for _, method := range []string{"GET", "PROPFIND", "PUT", "DELETE"} {
		a := d.want(503, "both", method, cal+"work/1.ics", map[string]string{"PUT": testlab.Event("1")}[method])
		if a.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", method)
		}
	}
	d.want(503, "both", "PROPFIND", card, askAll)
	d.want(207, "both", "PROPFIND", self, "") // the account itself is ours
	b.Start()
	d.want(200, "both", "GET", cal+"work/1.ics", "")
}

// hanging is when a backend is given up here.
const hanging = 300 * time.Millisecond

// TestABackendThatHangs at any point is given up, and its client gets an answer or an end.
func TestABackendThatHangs(t *testing.T) {
	t.Parallel()
	hang := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done(); panic(http.ErrAbortHandler) }
	for name, tt := range map[string]struct {
		method string
		handle http.HandlerFunc
		want   int // 0: cut
	}{
		"before the answer":        {"GET", hang, 503},
		"before an upload's":       {"PUT", func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); hang(w, r) }, 503},
		"in an event":              {"GET", func(w http.ResponseWriter, r *http.Request) { send(begin)(w, r); hang(w, r) }, 0},
		"in an event's first line": {"GET", func(w http.ResponseWriter, r *http.Request) { send("BEGIN")(w, r); hang(w, r) }, 503},
		"in an error":              {"GET", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404); send("<html>")(w, r); hang(w, r) }, 404},
		"in a list": {"PROPFIND", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/xml")
			w.WriteHeader(207)
			io.WriteString(w, `<multistatus xmlns="DAV:">`)
			w.(http.Flusher).Flush()
			hang(w, r)
		}, 502},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFake(t, tt.handle)
			d := open(t, routes{"calendar": b.route}, func(o *davproxy.Options) { o.BackendTimeout = hanging })
			var body io.Reader
			if tt.method == "PUT" {
				body = strings.NewReader(testlab.Event("1"))
			}
			got := next(t, "an answer", d.start(d.client, "cal", tt.method, cal+"work/1.ics", body))
			err := got.rest()
			if tt.want == 0 && err == nil || tt.want != 0 && (err != nil || got.StatusCode != tt.want) {
				t.Errorf("got %+v, %v", got, err)
			}
			next(t, "the backend to be let go", b.gone)
			d.want(207, "cal", "PROPFIND", self, "")
		})
	}
}

// TestAStoppedBackend: a real one that stands still, asked what is not known yet.
func TestAStoppedBackend(t *testing.T) {
	t.Parallel()
	b := testlab.Radicale(t)
	b.MakeCalendar(testlab.Alice, "work")
	d := open(t, routes{"calendar": to(b)}, func(o *davproxy.Options) { o.BackendTimeout = hanging })
	b.Pause()
	d.want(503, "cal", "PROPFIND", cal+"work/", askAll)
	d.want(207, "cal", "PROPFIND", self, "")
	b.Resume()
}

// TestAnUploadThatTheBackendLetsLie does not keep its client for ever.
func TestAnUploadThatTheBackendLetsLie(t *testing.T) {
	t.Parallel()
	b := newFake(t, nil)
	b.handle = func(http.ResponseWriter, *http.Request) { <-b.closing; panic(http.ErrAbortHandler) }
	d := open(t, routes{"calendar": b.route}, func(o *davproxy.Options) { o.BackendTimeout, o.MaxBody = hanging, 1<<40 })
	got := next(t, "an answer", d.start(d.client, "cal", "PUT", cal+"work/1.ics", endless(t)))
	if got.err != nil || got.StatusCode != 503 {
		t.Errorf("got %+v", got)
	}
	b.close()
}

func TestLargeBodiesAreRefused(t *testing.T) {
	t.Parallel()
	const limit = 5 << 18 // more than is held back to learn a body's length
	whole := make(chan string, 10)
	b := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err == nil {
			whole <- string(text)
			w.WriteHeader(201)
		}
	})
	d := open(t, routes{"calendar": b.route}, func(o *davproxy.Options) { o.MaxBody = limit })
	event := func(size int) string { return begin + strings.Repeat("x", size-len(begin)) }
	for _, major := range []int{1, 2} {
		d.client.CloseIdleConnections()
		d.client = d.newClient(major == 2)
		d.want(413, "cal", "PUT", cal+"work/1.ics", event(limit+1))
		if n := len(b.seen); n > 0 {
			t.Errorf("HTTP/%d: the backend was asked", major)
		}
		d.want(201, "cal", "PUT", cal+"work/1.ics", event(limit))
		if got := next(t, "an upload", whole); got != event(limit) {
			t.Errorf("HTTP/%d: the backend got %d bytes", major, len(got))
		}
		for _, size := range []int{limit, limit + 1} {
			got := next(t, "an answer", d.start(d.client, "cal", "PUT", cal+"work/1.ics", strings.NewReader(event(size))))
			err := got.rest()
			switch {
			case size == limit && (err != nil || got.StatusCode != 201 || next(t, "an upload", whole) != event(limit)):
				t.Errorf("HTTP/%d: in chunks: %+v, %v", major, got, err)
			case size > limit && err == nil && got.StatusCode != 413:
				t.Errorf("HTTP/%d: too large in chunks: %+v", major, got)
			}
		}
		for range 3 {
			next(t, "the backend to be done", b.gone)
			next(t, "what it was asked", b.seen)
		}
		if len(whole) > 0 {
			t.Errorf("HTTP/%d: the backend stored what is too large", major)
		}
		question := strings.Replace(askAll, "<prop>", "<prop>"+strings.Repeat(" ", 1<<20), 1)
		d.want(413, "cal", "PROPFIND", cal+"work/", question)
		d.want(413, "cal", "PROPFIND", self, question)
	}
}

func TestLargeBodiesDoNotReachRadicale(t *testing.T) {
	t.Parallel()
	b := testlab.Radicale(t)
	b.MakeCalendar(testlab.Alice, "work")
	d := open(t, routes{"calendar": to(b)}, func(o *davproxy.Options) { o.MaxBody = 4000 })
	event := strings.Replace(testlab.Event("1"), "SUMMARY:", "SUMMARY:"+strings.Repeat("x", 4000), 1)
	d.want(413, "cal", "PUT", cal+"work/1.ics", event)
	for _, major := range []int{1, 2} {
		d.client = d.newClient(major == 2)
		got := next(t, "an answer", d.start(d.client, "cal", "PUT", cal+"work/1.ics", strings.NewReader(event)))
		if err := got.rest(); err != nil || got.StatusCode != 413 {
			t.Errorf("HTTP/%d, in chunks: %+v, %v", major, got, err)
		}
		d.client.CloseIdleConnections()
	}
	if status, _ := b.Do(testlab.Alice, "GET", "/"+testlab.Alice+"/work/1.ics", ""); status != 404 {
		t.Errorf("it was stored: %d", status)
	}
}

// TestUploadsOfUnknownLength reach a WSGI server, which takes no chunks.
func TestUploadsOfUnknownLength(t *testing.T) {
	t.Parallel()
	b := testlab.Radicale(t)
	b.MakeCalendar(testlab.Alice, "work")
	d := open(t, routes{"calendar": to(b)})
	for i, major := range []int{1, 2} {
		d.client = d.newClient(major == 2)
		uid := strconv.Itoa(i)
		got := next(t, "an answer", d.start(d.client, "cal", "PUT", cal+"work/"+uid+".ics", strings.NewReader(testlab.Event(uid))))
		if err := got.rest(); err != nil || got.StatusCode != 201 {
			t.Errorf("HTTP/%d: %+v, %v", major, got, err)
		}
		if _, text := b.Do(testlab.Alice, "GET", "/"+testlab.Alice+"/work/"+uid+".ics", ""); !strings.Contains(text, "UID:"+uid) {
			t.Errorf("HTTP/%d: stored %q", major, text)
		}
		d.client.CloseIdleConnections()
	}
}

// TestUploadsThatBreakOff are not stored, and are no fault of the backend's.
func TestUploadsThatBreakOff(t *testing.T) {
	t.Parallel()
	b := testlab.Radicale(t)
	b.MakeCalendar(testlab.Alice, "work")
	var log lockedBuffer
	d := open(t, routes{"calendar": to(b)}, func(o *davproxy.Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	d.want(207, "cal", "PROPFIND", cal+"work/", askAll)
	next(t, "a login", d.observer.logins)
	for name, tt := range map[string]struct {
		head, body string
		answer     string // empty: the client has left
	}{
		"too short":   {fmt.Sprintf("Content-Length: %d", len(begin)+1000), begin, ""},
		"a bad chunk": {"Transfer-Encoding: chunked", fmt.Sprintf("%x\r\n%s\r\nxyz\r\n\r\n", len(begin), begin), "HTTP/1.1 400 "},
		"chunks end":  {"Transfer-Encoding: chunked", fmt.Sprintf("%x\r\n%s\r\n", len(begin), begin), ""},
	} {
		nc, r := d.dial()
		fmt.Fprintf(nc, "PUT %swork/1.ics HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n%s\r\n\r\n%s", cal, basic("cal"), tt.head, tt.body)
		if tt.answer == "" {
			nc.Close()
		} else if line, err := r.ReadString('\n'); !strings.HasPrefix(line, tt.answer) {
			t.Errorf("%s: %q, %v", name, line, err)
		}
		nc.Close()
		next(t, "the end", d.observer.ended)
	}
	d.want(404, "cal", "GET", cal+"work/1.ics", "")
	if text := log.String(); strings.Contains(text, "WARN") {
		t.Errorf("logged:\n%s", text)
	}
}

// TestAnUploadThatBreaksOffLate, when it is on its way to the backend already.
func TestAnUploadThatBreaksOffLate(t *testing.T) {
	t.Parallel()
	broke := make(chan error, 1)
	b := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		broke <- err
	})
	var log lockedBuffer
	d := open(t, routes{"calendar": b.route}, func(o *davproxy.Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	nc, r := d.dial()
	fmt.Fprintf(nc, "PUT %swork/1.ics HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nTransfer-Encoding: chunked\r\n\r\n", cal, basic("cal"))
	fmt.Fprintf(nc, "%x\r\n%s\r\nxyz\r\n\r\n", 12*len(begin), strings.Repeat(begin, 12))
	if line, err := r.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 400 ") {
		t.Errorf("answered %q, %v", line, err)
	}
	if err := next(t, "the backend's end", broke); err == nil {
		t.Error("the backend took it for whole")
	}
	if text := log.String(); strings.Contains(text, "WARN") {
		t.Errorf("logged:\n%s", text)
	}
}

type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// TestExpectContinue: who may not write learns so before the body is on its way.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	b := testlab.Radicale(t)
	b.MakeCalendar(testlab.Alice, "work")
	d := open(t, routes{"calendar": to(b)}, func(o *davproxy.Options) { o.MaxBody = 4000 })
	event := testlab.Event("1")
	for name, tt := range map[string]struct {
		authorization, path string
		length              int
		want                int
	}{
		"no login":             {"", "work/1.ics", len(event), 401},
		"wrong":                {basic("guess"), "work/1.ics", len(event), 401},
		"for contacts":         {basic("card"), "work/1.ics", len(event), 404},
		"read-only":            {basic("calro"), "work/1.ics", len(event), 403},
		"too large":            {basic("cal"), "work/1.ics", 4001, 413},
		"no such calendar":     {basic("cal"), "other/1.ics", len(event), 404},
		"a calendar's place":   {basic("cal"), "work/", len(event), 405},
		"somebody else's":      {basic("cal"), "../../bobspublic/work/1.ics", len(event), 400},
		"an event that may be": {basic("cal"), "work/1.ics", len(event), 100},
	} {
		nc, r := d.dial()
		fmt.Fprintf(nc, "PUT %s%s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Type: text/calendar\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n",
			cal, tt.path, tt.authorization, tt.length)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if resp.StatusCode != tt.want || tt.want != 100 && !resp.Close { // or else the body would be read as a request
			t.Errorf("%s: status %d, close %t, want %d", name, resp.StatusCode, resp.Close, tt.want)
		}
		if tt.want == 100 {
			io.WriteString(nc, event)
			if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 201 {
				t.Errorf("%s: then %+v, %v", name, resp, err)
			}
		}
	}
}

// TestStreaming: the first half arrives before the second is sent, both ways.
func TestStreaming(t *testing.T) {
	t.Parallel()
	for _, major := range []int{1, 2} {
		half := make(chan struct{})
		b := newFake(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "GET" {
				send(begin)(w, r)
				<-half
				io.WriteString(w, "END")
				return
			}
			if _, err := io.ReadFull(r.Body, make([]byte, 64<<10)); err != nil {
				t.Error(err)
			}
			half <- struct{}{}
			rest, err := io.Copy(io.Discard, r.Body)
			if rest != 1<<20-64<<10 || err != nil || r.ContentLength != 1<<20 {
				t.Errorf("%d more of %d bytes, %v", rest, r.ContentLength, err)
			}
			w.WriteHeader(201)
		})
		d := open(t, routes{"calendar": b.route})
		d.client = d.newClient(major == 2)
		got := next(t, "an answer", d.start(d.client, "cal", "GET", cal+"work/1.ics", nil))
		if got.err != nil {
			t.Fatal(got.err)
		}
		if _, err := io.ReadFull(got.Body, make([]byte, 90<<10)); err != nil {
			t.Error(err)
		}
		half <- struct{}{}
		if text, err := io.ReadAll(got.Body); err != nil || !strings.HasSuffix(string(text), "END") {
			t.Errorf("HTTP/%d: the second half: %d bytes, %v", major, len(text), err)
		}
		got.Body.Close()

		r, w := io.Pipe()
		req, err := http.NewRequest("PUT", d.url+cal+"work/1.ics", r)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = 1 << 20
		req.SetBasicAuth(testlab.Alice, "cal")
		done := make(chan outcome, 1)
		go func() {
			resp, err := d.client.Do(req)
			done <- outcome{resp, err}
		}()
		io.WriteString(w, begin)
		next(t, "the first half", half)
		w.Write(bytes.Repeat([]byte("x"), 1<<20-len(begin)))
		w.Close()
		if got := next(t, "an answer", done); got.rest() != nil || got.StatusCode != 201 {
			t.Errorf("HTTP/%d: upload: %+v", major, got)
		}
		d.client.CloseIdleConnections()
	}
}

func TestConditionsAndParts(t *testing.T) {
	t.Parallel()
	b := testlab.Radicale(t)
	b.MakeCalendar(testlab.Alice, "work")
	d := open(t, routes{"calendar": to(b)})
	path, event := cal+"work/1.ics", testlab.Event("1")
	d.want(412, "cal", "PUT", path, event, "If-Match", `"1"`)
	d.want(201, "cal", "PUT", path, event, "If-None-Match", "*")
	d.want(412, "cal", "PUT", path, event, "If-None-Match", "*")
	got := d.want(200, "cal", "GET", path, "", "Range", "bytes=0-1", "Accept-Encoding", "gzip")
	tag := got.Header.Get("Etag")
	if !strings.HasPrefix(got.text, "BEGIN:VCALENDAR") || !strings.Contains(got.text, "END:VCALENDAR") || got.ContentLength != int64(len(got.text)) {
		t.Errorf("%q", got.text)
	}
	head := d.want(200, "cal", "HEAD", path, "")
	if head.ContentLength != got.ContentLength || head.Header.Get("Etag") != tag || head.text != "" || head.Header.Get("Content-Type") != got.Header.Get("Content-Type") {
		t.Errorf("HEAD: %v, after GET: %v", head.Header, got.Header)
	}
	d.want(412, "cal", "DELETE", path, "", "If-Match", `"other"`)
	d.want(200, "cal", "DELETE", path, "", "If-Match", tag)
	d.want(404, "cal", "HEAD", path, "")
}
