package davproxy_test

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/authstore"
	"postern/gateway/live"
	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/davproxy"
)

// The app passwords of each of the lab's users, by what they open. The store that knows real ones is proven elsewhere.
var scopesOf = map[string]authstore.Scopes{
	"both":  authstore.ScopeCalendar | authstore.ScopeContacts,
	"cal":   authstore.ScopeCalendar,
	"card":  authstore.ScopeContacts,
	"calro": authstore.ScopeCalendarRead,
	"ro":    authstore.ScopeCalendarRead | authstore.ScopeContactsRead,
	"mail":  authstore.ScopeMail,

	"sched":   authstore.ScopeCalendar | authstore.ScopeSchedule,
	"schedro": authstore.ScopeCalendarRead | authstore.ScopeSchedule,
	"work":    authstore.ScopeCalendar | authstore.ScopeContacts | authstore.ScopeSchedule,
	"worknew": authstore.ScopeCalendar | authstore.ScopeContacts | authstore.ScopeSchedule,
}

// narrowed are the collections that some of them open alone.
var narrowed = map[string][]authstore.Collection{
	"work":    {{Kind: authstore.CalendarCollection, Name: "work"}},
	"worknew": {{Kind: authstore.CalendarCollection, Name: "work"}, {Kind: authstore.CalendarCollection, Name: "new"}, {Kind: authstore.ContactsCollection, Name: authstore.EveryCollection}},
}

// publicIDs are the lab's users' ids in URLs.
var publicIDs = map[string]string{testlab.Alice: "alicepubid", testlab.Bob: "bobspublic"}

// verifier stands for the store: it gives what a test says.
type verifier struct {
	mu       sync.Mutex
	refuse   error                                        // of every Verify
	confirm  func(context.Context, authstore.Grant) error // nil: all is confirmed
	attempts []authstore.Attempt                          // without secrets
	uses     []authstore.Use
}

func (v *verifier) Verify(_ context.Context, a authstore.Attempt) (authstore.Grant, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	scopes, ok := scopesOf[string(a.Secret)]
	only := narrowed[string(a.Secret)]
	a.Secret = nil
	v.attempts = append(v.attempts, a)
	switch {
	case v.refuse != nil:
		return authstore.Grant{}, v.refuse
	case !ok || publicIDs[a.Login] == "":
		return authstore.Grant{}, &authstore.Refusal{Code: authstore.Wrong}
	}
	return authstore.Grant{
		Account: authstore.AccountID(len(a.Login)), PublicID: publicIDs[a.Login], Address: a.Login, Password: authstore.PasswordID(scopes), Scopes: scopes,
		Client: a.Client, Collections: only,
	}, nil
}

func (v *verifier) Confirm(ctx context.Context, g authstore.Grant) error {
	v.mu.Lock()
	confirm := v.confirm
	v.mu.Unlock()
	if confirm == nil {
		return nil
	}
	return confirm(ctx, g)
}

func (*verifier) Named(authstore.Grant, authstore.Use) {}

func (v *verifier) Used(_ authstore.Grant, u authstore.Use) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.uses = append(v.uses, u)
}

// observer keeps what it is told.
type observer struct {
	logins chan protocols.LoginEvent
	ended  chan protocols.EndEvent
}

func (o *observer) Login(e protocols.LoginEvent)                 { o.logins <- e }
func (o *observer) Ended(e protocols.EndEvent)                   { o.ended <- e }
func (o *observer) Backend(string, string, time.Duration, error) {}

// routes leads to backends by kind: "calendar", "contacts".
type routes map[string]func(g authstore.Grant) *protocols.Route

func (rs routes) Route(_ context.Context, kind string, g authstore.Grant) (*protocols.Route, error) {
	route, ok := rs[kind]
	if !ok {
		return nil, protocols.ErrNoRoute
	}
	return route(g), nil
}

// by leads everybody to /ADDRESS/ at an address, named by a trusted header.
func by(name, address string) func(authstore.Grant) *protocols.Route {
	return func(g authstore.Grant) *protocols.Route {
		return &protocols.Route{
			Backend: name, Network: "tcp", Address: address, Path: "/" + g.Address + "/", Login: g.Address, Header: "X-Remote-User",
		}
	}
}

func to(d *testlab.DAVServer) func(authstore.Grant) *protocols.Route {
	return func(g authstore.Grant) *protocols.Route {
		r := by("lab", strings.TrimPrefix(d.URL, "http://"))(g)
		r.Path = d.Principal(g.Address)
		return r
	}
}

// toCyrus leads everybody to a Cyrus, named by a token.
func toCyrus(c *testlab.CyrusServer) func(authstore.Grant) *protocols.Route {
	return func(g authstore.Grant) *protocols.Route {
		r := to(c.DAVServer)(g)
		r.Header, r.Bearer = "", true
		r.Open = func(context.Context) (protocols.Credential, error) {
			return protocols.Credential{Authcid: g.Address, Password: []byte(c.Token(g.Address))}, nil
		}
		return r
	}
}

// door is a front door that serves HTTPS.
type door struct {
	t        testing.TB
	url      string
	ca       *testlab.CA
	client   *http.Client
	verifier *verifier
	observer *observer
	sessions *live.Registry
	drain    context.CancelFunc
	kill     context.CancelFunc
	served   chan error
}

func open(t testing.TB, r protocols.Router, change ...func(*davproxy.Options)) *door {
	t.Helper()
	d := &door{
		t: t, ca: testlab.NewCA(t), verifier: &verifier{}, sessions: &live.Registry{}, served: make(chan error, 1),
		observer: &observer{make(chan protocols.LoginEvent, 10_000), make(chan protocols.EndEvent, 10_000)},
	}
	_, _, cert := d.ca.Issue()
	o := davproxy.Options{
		Verifier: d.verifier, Sessions: d.sessions, Router: r, Observer: d.observer, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		TLS: &tls.Config{Certificates: []tls.Certificate{cert}},
	}
	for _, f := range change {
		f(&o)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.url = "https://" + ln.Addr().String()
	if o.TLS == nil {
		d.url = "http://" + ln.Addr().String()
	}
	ctx, drain := context.WithCancel(context.Background())
	life, kill := context.WithCancel(context.Background())
	d.drain, d.kill = drain, kill
	go func() { d.served <- davproxy.New(o).Serve(ctx, life, ln) }()
	d.client = d.newClient(true)
	t.Cleanup(func() {
		d.client.CloseIdleConnections()
		kill()
		drain()
		<-d.served
	})
	return d
}

// newClient follows no redirects.
func (d *door) newClient(h2 bool) *http.Client {
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: d.ca.Pool}, ForceAttemptHTTP2: h2},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// answer is what a client got.
type answer struct {
	*http.Response
	text string
}

// do sends a request as alice with one of her app passwords; empty: without a login.
func (d *door) do(password, method, path, body string, header ...string) answer {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, d.url+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	if body == "" {
		req.Body = nil
		req.ContentLength = 0
	}
	if password != "" {
		req.SetBasicAuth(testlab.Alice, password)
	}
	switch {
	case strings.HasPrefix(body, "BEGIN:VCALENDAR"):
		req.Header.Set("Content-Type", "text/calendar; charset=utf-8")
	case strings.HasPrefix(body, "BEGIN:VCARD"):
		req.Header.Set("Content-Type", "text/vcard; charset=utf-8")
	case body != "":
		req.Header.Set("Content-Type", "application/xml; charset=utf-8")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := d.client.Do(req)
	if err != nil {
		d.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatalf("%s %s: read the answer: %v", method, path, err)
	}
	return answer{resp, string(text)}
}

// want sends a request and fails unless it gets a status.
func (d *door) want(status int, password, method, path, body string, header ...string) answer {
	d.t.Helper()
	a := d.do(password, method, path, body, header...)
	if a.StatusCode != status {
		d.t.Errorf("%s %s with %q: status %d, want %d\n%s", method, path, password, a.StatusCode, status, a.text)
	}
	return a
}

const (
	cal  = "/dav/cal/alicepubid/"
	card = "/dav/card/alicepubid/"
	self = "/dav/p/alicepubid/"

	askAll   = `<propfind xmlns="DAV:"><prop><resourcetype/><displayname/><getetag/><current-user-principal/><owner/></prop></propfind>`
	makeCal  = `<C:mkcalendar xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><set><prop><displayname>New</displayname></prop></set></C:mkcalendar>`
	makeCard = `<mkcol xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:carddav"><set><prop><resourcetype><collection/><C:addressbook/></resourcetype></prop></set></mkcol>`
)
