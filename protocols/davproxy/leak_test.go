package davproxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/authstore"
	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/davproxy"
)

// The leak matrix: each backend, by app passwords of each kind, asked by every trick that we know to make it tell or change what
// the app password does not open. One function judges all answers, and the backend is asked itself what has changed.

// leakBackends are the backends of the matrix.
var leakBackends = map[string]func(testing.TB) leakBackend{
	"radicale": func(t testing.TB) leakBackend { d := testlab.Radicale(t); return leakBackend{d, to(d)} },
	"xandikos": func(t testing.TB) leakBackend { d := testlab.Xandikos(t); return leakBackend{d, to(d)} },
	"sabre":    func(t testing.TB) leakBackend { d := testlab.Sabre(t); return leakBackend{d, to(d)} },
	"davical":  func(t testing.TB) leakBackend { d := testlab.DAViCal(t); return leakBackend{d, to(d)} },
	"cyrus":    func(t testing.TB) leakBackend { c := testlab.Cyrus(t); return leakBackend{c.DAVServer, toCyrus(c)} },
}

type leakBackend struct {
	*testlab.DAVServer
	route func(authstore.Grant) *protocols.Route
}

// leakGrants are the app passwords of the matrix.
var leakGrants = map[string]authstore.Grant{
	"everything":           {Scopes: everything},
	"calendar":             {Scopes: authstore.ScopeCalendar},
	"calendar, schedule":   {Scopes: authstore.ScopeCalendar | authstore.ScopeSchedule},
	"contacts":             {Scopes: authstore.ScopeContacts},
	"calendar:read":        {Scopes: authstore.ScopeCalendarRead},
	"contacts:read":        {Scopes: authstore.ScopeContactsRead},
	"both read":            {Scopes: authstore.ScopeCalendarRead | authstore.ScopeContactsRead},
	"schedule alone":       {Scopes: authstore.ScopeSchedule},
	"mail":                 {Scopes: authstore.ScopeMail | authstore.ScopeSubmit},
	"one calendar":         {Scopes: everything, Collections: []authstore.Collection{{Kind: "calendar", Name: "zpawork"}}},
	"one calendar to read": {Scopes: authstore.ScopeCalendarRead, Collections: []authstore.Collection{{Kind: "calendar", Name: "zpawork"}}},
	"one address book":     {Scopes: everything, Collections: []authstore.Collection{{Kind: "contacts", Name: "zpafriends"}}},
	"one calendar, all contacts": {Scopes: everything, Collections: []authstore.Collection{
		{Kind: "calendar", Name: "zpawork"}, {Kind: "contacts", Name: authstore.EveryCollection}}},
}

// leftOut are rows that resemble others. DAViCal takes ten times as long for an answer as the others do.
var leftOut = []string{"calendar, schedule", "calendar:read", "contacts:read", "schedule alone", "one calendar to read", "one address book", "one calendar, all contacts"}

// allLeaks tells whether nothing is left out: half an hour for the whole matrix.
func allLeaks() bool { return os.Getenv("POSTERN_TEST_LEAKS") == "all" }

const everything = authstore.ScopeCalendar | authstore.ScopeContacts | authstore.ScopeSchedule

// stash is one collection of the matrix, with one item. Its place is a name that a stranger may guess: it may be told only to who
// names it. Its secret stands in the title, in the item's text and in its UID, and is told to nobody who may not read it.
type stash struct {
	user, kind string // "calendar", "contacts"
	name       string // "zpawork"
	secret     string // "zqawork"
	etag       string // of the item
}

func newStash(user, kind, name string) *stash {
	return &stash{user: user, kind: kind, name: "zp" + user[:1] + name, secret: "zq" + user[:1] + name}
}

func stashes() []*stash {
	var all []*stash
	for _, user := range []string{testlab.Alice, testlab.Bob} {
		all = append(all, newStash(user, "calendar", "work"), newStash(user, "contacts", "friends"))
	}
	return append(all, newStash(testlab.Alice, "calendar", "private"), newStash(testlab.Alice, "contacts", "family"))
}

func (s *stash) mount() string {
	return map[string]string{"calendar": "cal", "contacts": "card"}[s.kind]
}

func (s *stash) file() string {
	return s.name + map[string]string{"calendar": ".ics", "contacts": ".vcf"}[s.kind]
}

// path is the collection's public path, and the item's.
func (s *stash) path() string {
	return "/dav/" + s.mount() + "/" + publicIDs[s.user] + "/" + s.name + "/"
}
func (s *stash) item() string { return s.path() + s.file() }

// home is where the backend has the collection.
func (s *stash) home(b leakBackend) string {
	if s.kind == "contacts" {
		return b.AddressBooks(s.user)
	}
	return b.Calendars(s.user)
}

func (s *stash) body() string {
	if s.kind == "contacts" {
		return strings.Replace(testlab.Card(s.secret), "FN:", "FN:"+s.secret+" ", 1)
	}
	return strings.Replace(testlab.Event(s.secret), "SUMMARY:", "SUMMARY:"+s.secret+" ", 1)
}

// opened tells whether a grant may read a stash, and written whether it may change it.
func (s *stash) opened(g *authstore.Grant) bool {
	read, write := authstore.ScopeCalendarRead, authstore.ScopeCalendar
	if s.kind == "contacts" {
		read, write = authstore.ScopeContactsRead, authstore.ScopeContacts
	}
	return s.user == testlab.Alice && g.Scopes.Any(read|write) && g.Opens(s.kind, s.name)
}

func (s *stash) written(g *authstore.Grant) bool {
	write := map[string]authstore.Scopes{"calendar": authstore.ScopeCalendar, "contacts": authstore.ScopeContacts}[s.kind]
	return s.opened(g) && g.Scopes.Any(write)
}

// leakVerifier takes the name of a grant as the app password.
type leakVerifier struct{ verifier }

func (v *leakVerifier) Verify(_ context.Context, a authstore.Attempt) (authstore.Grant, error) {
	g, ok := leakGrants[string(a.Secret)]
	if !ok || publicIDs[a.Login] == "" {
		return authstore.Grant{}, &authstore.Refusal{Code: authstore.Wrong}
	}
	g.Account, g.PublicID, g.Address, g.Client = authstore.AccountID(len(a.Login)), publicIDs[a.Login], a.Login, a.Client
	return g, nil
}

func TestLeaks(t *testing.T) {
	t.Parallel()
	for name, start := range leakBackends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t)
			asked := new(atomic.Int64)
			d := open(t, routes{"calendar": b.route, "contacts": b.route}, func(o *davproxy.Options) {
				o.Verifier, o.Observer = &leakVerifier{}, leakObserver{asked: asked}
			})
			m := &matrix{b: b, door: d, all: stashes(), asked: asked, dirty: true}
			for _, password := range slices.Sorted(maps.Keys(leakGrants)) {
				if name == "davical" && !allLeaks() && slices.Contains(leftOut, password) {
					continue
				}
				t.Run(password, func(t *testing.T) { m.row(t, password) })
			}
		})
	}
}

// matrix is one backend's part.
type matrix struct {
	b     leakBackend
	door  *door
	all   []*stash
	asked *atomic.Int64 // how often the front door has asked the backend
	dirty bool          // something may not be as it should
}

// clear removes what a row has left.
func (r *row) clear() {
	for _, user := range []string{testlab.Alice, testlab.Bob} {
		for _, home := range slices.Compact([]string{r.b.Calendars(user), r.b.AddressBooks(user)}) {
			for place := range r.collections(user, home) {
				if status, text := r.b.Do(user, "DELETE", (&url.URL{Path: place + "/"}).EscapedPath(), ""); status >= 300 {
					r.t.Fatalf("DELETE %s at the backend: %d\n%s", place, status, text)
				}
			}
		}
	}
}

// seed makes all collections and items.
func (r *row) seed() {
	r.t.Helper()
	for _, s := range r.all {
		if s.kind == "contacts" {
			r.b.MakeAddressBook(s.user, s.name)
		} else {
			r.b.MakeCalendar(s.user, s.name)
		}
		at := s.home(r.b) + s.name + "/"
		r.b.Do(s.user, "PROPPATCH", at, `<propertyupdate xmlns="DAV:"><set><prop><displayname>`+s.secret+`</displayname></prop></set></propertyupdate>`)
		r.b.Put(s.user, at+s.file(), s.body())
		s.etag = r.etag(s)
	}
}

func (r *row) etag(s *stash) string {
	_, list := r.b.Do(s.user, "PROPFIND", s.home(r.b)+s.name+"/"+s.file(), `<propfind xmlns="DAV:"><prop><getetag/></prop></propfind>`, "Depth", "0")
	_, etag, _ := strings.Cut(list, "getetag>")
	etag, _, _ = strings.Cut(etag, "<")
	etag = strings.Trim(strings.ReplaceAll(etag, "&quot;", `"`), `"`)
	if len(etag) < 8 {
		r.t.Fatalf("the ETag of %s: %q in %s", s.name, etag, list)
	}
	return etag
}

// row plays all tricks with one app password.
func (m *matrix) row(t *testing.T, name string) {
	g := leakGrants[name]
	r := &row{matrix: m, t: t, password: name, grant: &g}
	if m.dirty {
		r.clear()
		r.seed()
	}
	m.dirty = true
	r.control()
	r.asked = m.asked.Load()
	before := r.state()
	for _, tr := range r.chosen() {
		r.play(tr)
	}
	r.control()
	after := r.state()
	for place, was := range before {
		if after[place] != was {
			t.Errorf("%s was changed from\n%s\nto\n%s\nby one of these, which were answered with success:\n%s", place, was, after[place], strings.Join(r.successes, "\n"))
		}
	}
	for place := range after {
		if _, ok := before[place]; !ok {
			t.Errorf("%s was made by one of these, which were answered with success:\n%s", place, strings.Join(r.successes, "\n"))
		}
	}
	if r.asked = m.asked.Load() - r.asked; len(r.open()) > 0 && r.asked < 10 {
		t.Errorf("the backend was asked %d times", r.asked)
	}
	m.dirty = t.Failed() || len(r.successes) > 0
	t.Logf("%d tricks, on which the backend was asked %d times", r.played, r.asked)
}

// chosen are the tricks that are played: each in some of its places, others in each row, if not all are wanted.
func (r *row) chosen() []trick {
	const most = 3
	places := make(map[string][]trick)
	for _, tr := range r.tricks() {
		key := tr.method + " " + tr.name
		if !slices.ContainsFunc(places[key], func(o trick) bool { return o.path == tr.path && o.body == tr.body && slices.Equal(o.header, tr.header) }) {
			places[key] = append(places[key], tr)
		}
	}
	var list []trick
	for i, key := range slices.Sorted(maps.Keys(places)) {
		of := places[key]
		if len(of) <= most || allLeaks() {
			list = append(list, of...)
			continue
		}
		for n := range most {
			list = append(list, of[(n*len(of)/most+len(r.password)*7+i)%len(of)])
		}
	}
	return list
}

// leakObserver counts what is asked of the backend.
type leakObserver struct{ asked *atomic.Int64 }

func (leakObserver) Login(protocols.LoginEvent) {}
func (leakObserver) Ended(protocols.EndEvent)   {}

func (o leakObserver) Backend(_, what string, _ time.Duration, err error) {
	if what == "request" && err == nil {
		o.asked.Add(1)
	}
}

// row is the matrix for one app password.
type row struct {
	*matrix
	t         testing.TB
	password  string
	grant     *authstore.Grant
	wire      *wire
	played    int
	asked     int64
	successes []string // tricks that may have changed something
}

// trick is one request. Its path is sent as it stands.
type trick struct {
	name, method, path, body string
	header                   []string
	refuse                   bool // whatever is told, it must not be success
}

// control proves that the backend is there and that the row's app password sees what it opens: else nothing that follows says anything.
func (r *row) control() {
	r.t.Helper()
	lists := make(map[string]told)
	for _, mount := range []string{"cal", "card"} {
		lists[mount] = r.send(r.password, trick{method: "PROPFIND", path: homeOf(mount), body: askAll, header: []string{"Depth", "1"}})
	}
	for _, s := range r.all {
		opened, list := s.opened(r.grant), lists[s.mount()]
		own := r.send(r.password, trick{method: "GET", path: s.item()})
		if opened != (own.status == 200) || opened != strings.Contains(own.text, s.secret) {
			r.t.Fatalf("GET %s: %d\n%s", s.item(), own.status, own.text)
		}
		if list.status != 207 || opened != strings.Contains(list.text, s.path()) || opened != strings.Contains(list.text, s.secret) {
			r.t.Fatalf("the list of homes, in which %s is %v: %d\n%s", s.path(), opened, list.status, list.text)
		}
		if opened || s.user != testlab.Alice {
			continue
		}
		if full := r.send("everything", trick{method: "GET", path: s.item()}); full.status != 200 || !strings.Contains(full.text, s.secret) {
			r.t.Fatalf("GET %s by the full app password: %d\n%s", s.item(), full.status, full.text)
		}
	}
}

// play sends a trick and judges the answer.
func (r *row) play(tr trick) {
	r.t.Helper()
	a := r.send(r.password, tr)
	r.played++
	for _, leak := range r.leaks(tr, a) {
		r.t.Errorf("%s: %s\n%s %s\n%v\n%.500s\n-> %d %v\n%.2000s", tr.name, leak, tr.method, tr.path, tr.header, tr.body, a.status, a.header, a.text)
	}
	if a.status < 300 && !slices.Contains([]string{"GET", "HEAD", "OPTIONS", "PROPFIND", "REPORT"}, tr.method) {
		r.successes = append(r.successes, fmt.Sprintf("%s: %s %s %v", tr.name, tr.method, tr.path, tr.header))
	}
	if a.status >= 500 {
		r.t.Logf("%s: %s %s: %d", tr.name, tr.method, tr.path, a.status)
	}
}

// clientHeaders are all that a client is ever told.
var clientHeaders = map[string]bool{
	"Allow": true, "Cache-Control": true, "Connection": true, "Content-Disposition": true, "Content-Length": true, "Content-Security-Policy": true,
	"Content-Type": true, "Dav": true, "Date": true, "Etag": true, "Last-Modified": true, "Location": true, "Preference-Applied": true,
	"Retry-After": true, "Schedule-Tag": true, "Www-Authenticate": true, "X-Content-Type-Options": true, "Content-Language": true,
}

// leaks says what an answer tells that it must not.
func (r *row) leaks(tr trick, a told) []string {
	var found []string
	asked := tr.path + tr.body + strings.Join(tr.header, "\n")
	var headers strings.Builder
	a.header.Write(&headers)
	said := headers.String() + a.text
	for _, s := range r.all {
		if s.opened(r.grant) {
			continue
		}
		if strings.Contains(said, s.secret) {
			found = append(found, "tells the secret "+s.secret)
		}
		if strings.Contains(said, s.etag) {
			found = append(found, "tells the ETag of "+s.name)
		}
		if strings.Contains(said, s.name) && !strings.Contains(asked, s.name) {
			found = append(found, "tells of "+s.name)
		}
	}
	for _, word := range r.inner() {
		if strings.Contains(said, word) && !strings.Contains(asked, word) {
			found = append(found, "tells the backend's own "+word)
		}
	}
	for name := range a.header {
		if !clientHeaders[name] {
			found = append(found, "has the header "+name)
		}
	}
	if l := a.header.Get("Location"); l != "" && !strings.HasPrefix(l, "/dav/") {
		found = append(found, "leads to "+l)
	}
	if tr.refuse && (a.status < 300 && a.status != 207 || a.status == 207 && strings.Contains(a.text, " 200 OK")) {
		found = append(found, "was done")
	}
	return found
}

// inner are words that only the backend's side has: where it is, where things are there, how we act for somebody.
func (r *row) inner() []string {
	words := []string{
		strings.TrimPrefix(r.b.URL, "http://"), r.b.Dir, testlab.Primary(testlab.Alice), testlab.Bob,
		"Cyrus-HTTP", "Server at", "sabredav-version", "Sabre\\", "aiohttp", "WSGIServer", "Traceback", "PHP", "Radicale", "DAViCal",
	}
	for _, user := range []string{testlab.Alice, testlab.Bob} {
		for _, place := range []string{r.b.Principal(user), r.b.Calendars(user), r.b.AddressBooks(user)} {
			words = append(words, place, strings.ReplaceAll(place, "@", "%40"))
		}
	}
	for _, s := range r.all {
		words = append(words, strings.Trim(s.home(r.b), "/")+"/"+s.name)
	}
	return words
}

// state is all that the app password must not change, as the backend itself has it.
func (r *row) state() map[string]string {
	r.t.Helper()
	state := make(map[string]string)
	for _, user := range []string{testlab.Alice, testlab.Bob} {
		for _, home := range slices.Compact([]string{r.b.Calendars(user), r.b.AddressBooks(user)}) {
			for place, what := range r.collections(user, home) {
				state[place] = what
			}
		}
	}
	for _, s := range r.all {
		if s.written(r.grant) {
			delete(state, s.home(r.b)+s.name)
		}
	}
	return state
}

// folder is what a PROPFIND tells of one resource.
type folder struct {
	Href string `xml:"DAV: href"`
	Prop []struct {
		Type struct {
			XML string `xml:",innerxml"`
		} `xml:"DAV: prop>resourcetype"`
		Name string `xml:"DAV: prop>displayname"`
	} `xml:"DAV: propstat"`
}

func (r *row) list(user, at string) []folder {
	r.t.Helper()
	status, text := r.b.Do(user, "PROPFIND", at, askAll, "Depth", "1")
	var list struct {
		Response []folder `xml:"DAV: response"`
	}
	if err := xml.Unmarshal([]byte(text), &list); status != 207 || err != nil {
		r.t.Fatalf("PROPFIND %s at the backend: %d, %v\n%s", at, status, err, text)
	}
	for i, f := range list.Response {
		if u, err := url.Parse(f.Href); err == nil {
			list.Response[i].Href = u.Path
		}
	}
	return list.Response
}

func (r *row) collections(user, home string) map[string]string {
	r.t.Helper()
	found := make(map[string]string)
	for _, f := range r.list(user, home) {
		kind, title := "", ""
		for _, p := range f.Prop {
			for _, k := range []string{"calendar", "addressbook"} {
				if strings.Contains(p.Type.XML, ":"+k+"/>") || strings.Contains(p.Type.XML, ":"+k+" ") || strings.Contains(p.Type.XML, "<"+k) {
					kind += k
				}
			}
			title += p.Name
		}
		if f.Href == home || kind == "" {
			continue
		}
		what := kind + " " + title
		for _, item := range r.list(user, f.Href) {
			if strings.TrimSuffix(item.Href, "/") == strings.TrimSuffix(f.Href, "/") {
				continue
			}
			_, text := r.b.Do(user, "GET", (&url.URL{Path: item.Href}).EscapedPath(), "")
			what += "\n" + item.Href + ": " + text
		}
		found[strings.TrimSuffix(f.Href, "/")] = what
	}
	return found
}

// told is what a trick got.
type told struct {
	status int
	header http.Header
	text   string
}

// wire is a connection on which requests are written as they are, which no HTTP library would do.
type wire struct {
	*tls.Conn
	r *bufio.Reader
}

// send writes a request byte for byte. Connections are used again as long as the server lets them.
func (r *row) send(password string, tr trick) told {
	r.t.Helper()
	var lastErr error
	for range 3 {
		if r.wire == nil {
			nc, err := tls.Dial("tcp", strings.TrimPrefix(r.door.url, "https://"), &tls.Config{RootCAs: r.door.ca.Pool, NextProtos: []string{"http/1.1"}})
			if err != nil {
				r.t.Fatal(err)
			}
			r.t.Cleanup(func() { nc.Close() })
			r.wire = &wire{nc, bufio.NewReader(nc)}
		}
		a, err := r.wire.exchange(r.request(password, tr), tr.method)
		if err != nil || a.header.Get("Connection") == "close" {
			r.wire.Close()
			r.wire = nil
		}
		if err == nil {
			return a
		}
		lastErr = err
	}
	r.t.Fatalf("%s: %s %s: %v", tr.name, tr.method, tr.path, lastErr)
	return told{}
}

func (r *row) request(password string, tr trick) string {
	var b strings.Builder
	host := strings.TrimPrefix(r.door.url, "https://")
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", tr.method, tr.path)
	if !slices.Contains(tr.header, "Host") {
		fmt.Fprintf(&b, "Host: %s\r\n", host)
	}
	fmt.Fprintf(&b, "Authorization: Basic %s\r\n", base64.StdEncoding.EncodeToString([]byte(testlab.Alice+":"+password)))
	for i := 0; i+1 < len(tr.header); i += 2 {
		fmt.Fprintf(&b, "%s: %s\r\n", tr.header[i], tr.header[i+1])
	}
	if tr.body != "" && !slices.Contains(tr.header, "Content-Type") {
		switch {
		case strings.HasPrefix(tr.body, "BEGIN:VCALENDAR"):
			b.WriteString("Content-Type: text/calendar; charset=utf-8\r\n")
		case strings.HasPrefix(tr.body, "BEGIN:VCARD"):
			b.WriteString("Content-Type: text/vcard; charset=utf-8\r\n")
		default:
			b.WriteString("Content-Type: application/xml; charset=utf-8\r\n")
		}
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(tr.body), tr.body)
	return b.String()
}

func (w *wire) exchange(request, method string) (told, error) {
	if _, err := io.WriteString(w, request); err != nil {
		return told{}, err
	}
	resp, err := http.ReadResponse(w.r, &http.Request{Method: method})
	if err != nil {
		return told{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if resp.Close {
		resp.Header.Set("Connection", "close")
	}
	return told{resp.StatusCode, resp.Header, string(text)}, err
}
