package portal

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/authstore/secret"
	"postern/authstore/sqlstore"
	"postern/gateway/appsettings"
	"postern/gateway/live"
	"postern/internal/testlab"
)

// alice is who most tests are about.
const alice = "alice@example.test"

// lab is a portal with a database behind it, and a clock of its own for sessions.
type lab struct {
	t        *testing.T
	ca       *testlab.CA
	site     string
	store    *sqlstore.Store
	keys     *secret.Keyring
	accounts *authstore.Accounts
	people   *identity.People
	live     live.Registry
	server   *Server

	mu  sync.Mutex
	now time.Time
}

func newLab(t *testing.T, change func(*Options)) *lab {
	t.Helper()
	return newLabWith(t, func(_ *identity.Options, o *Options) {
		if change != nil {
			change(o)
		}
	})
}

// newLabWith is newLab with other rules of signing in as well.
func newLabWith(t *testing.T, change func(*identity.Options, *Options)) *lab {
	t.Helper()
	l := &lab{t: t, ca: testlab.NewCA(t), keys: secret.NewKeyring(), now: time.Now()}
	_, _, cert := l.ca.Issue()
	srv := httptest.NewUnstartedServer(nil)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	_, port, _ := strings.Cut(srv.Listener.Addr().String(), ":")
	l.site = "https://localhost:" + port

	var err error
	if l.store, err = sqlstore.Open(t.Context(), sqlstore.Options{Path: filepath.Join(t.TempDir(), "p.db"), Now: l.clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.store.Close() })
	enforced := ^authstore.Scopes(0) >> 6
	l.accounts, err = authstore.NewAccounts(t.Context(), authstore.AccountsOptions{Truth: l.store, Keys: l.keys, Enforced: enforced, Actor: authstore.Actor{Name: "cli:root"}, Now: l.clock})
	if err != nil {
		t.Fatal(err)
	}
	who := identity.Options{Truth: l.store, Accounts: l.accounts, Keys: l.accounts.Keyring, Site: l.site, Now: l.clock, RefusalDelay: -1}
	o := Options{Accounts: l.accounts, Sessions: &l.live, Served: enforced, Settings: settings, Site: l.site, Name: "Example Mail",
		Client: func(r *http.Request) netip.Addr {
			return netip.MustParseAddrPort(r.RemoteAddr).Addr().Unmap()
		}}
	change(&who, &o)
	if l.people, err = identity.New(who); err != nil {
		t.Fatal(err)
	}
	o.People = l.people
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	srv.Config.Handler, l.server = s, s
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return l
}

func settings(address string, s authstore.Scopes) appsettings.Settings {
	set := appsettings.Settings{UserName: address, Server: "mail.example.test"}
	if s.Any(reads) {
		set.IMAP = []appsettings.Port{{Number: "143", Security: appsettings.STARTTLS}, {Number: "993", Security: appsettings.TLS}}
	}
	if s.Any(authstore.ScopeSubmit) {
		set.Submission = []appsettings.Port{{Number: "465", Security: appsettings.TLS}, {Number: "587", Security: appsettings.STARTTLS}}
	}
	if s.Any(authstore.ScopeSieve) {
		set.Sieve = []appsettings.Port{{Number: "4190", Security: appsettings.STARTTLS}}
	}
	if s.Any(authstore.ScopePOP) {
		set.POP3 = []appsettings.Port{{Number: "995", Security: appsettings.TLS}}
	}
	if s.Any(dav) {
		set.DAV = "https://mail.example.test/dav/"
	}
	return set
}

func (l *lab) clock() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

func (l *lab) pass(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = l.now.Add(d)
}

// person is somebody who is signed in, with a browser.
type person struct {
	*lab
	account authstore.AccountID
	browser *http.Client
	token   identity.Token
	seed    string
	agent   string
	reads   string // Accept-Language
}

func (l *lab) person(address string) *person {
	l.t.Helper()
	ctx := context.Background()
	v := identity.Visitor{Client: netip.MustParseAddr("192.0.2.7"), Agent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", Zone: "Europe/Berlin"}
	a, err := l.accounts.Add(ctx, address)
	if err != nil {
		l.t.Fatal(err)
	}
	link, _, err := l.people.Invite(ctx, authstore.Actor{Name: "cli:root"}, a.ID, identity.Begin)
	if err != nil {
		l.t.Fatal(err)
	}
	_, s, err := l.people.Accept(ctx, v, link, []byte("plum anchor velvet 93 drizzle"))
	if err != nil {
		l.t.Fatal(err)
	}
	e, err := l.people.EnrolTOTP(ctx, s)
	if err != nil {
		l.t.Fatal(err)
	}
	p := &person{lab: l, account: a.ID, seed: e.Key}
	if p.token, _, err = l.people.AddTOTP(ctx, v, s, e.State, p.code(), "Phone"); err != nil {
		l.t.Fatal(err)
	}
	jar, _ := cookiejar.New(nil)
	site, _ := url.Parse(l.site)
	jar.SetCookies(site, []*http.Cookie{{Name: sessionCookie, Value: string(p.token), Path: "/", Secure: true}})
	p.browser = &http.Client{Jar: jar, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: l.ca.Pool}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return p
}

// code is what the person's authenticator app shows.
func (p *person) code() string {
	code, err := totp.GenerateCode(p.seed, p.clock())
	if err != nil {
		p.t.Fatal(err)
	}
	return code
}

// reply is a page that the person got.
type reply struct {
	*http.Response
	body string
	t    *testing.T
}

func (p *person) get(path string) reply {
	p.t.Helper()
	return p.do(http.MethodGet, path, nil)
}

func (p *person) post(path string, form url.Values) reply {
	p.t.Helper()
	return p.do(http.MethodPost, path, form)
}

func (p *person) do(method, path string, form url.Values) reply {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), method, p.site+path, strings.NewReader(form.Encode()))
	if err != nil {
		p.t.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if p.agent != "" {
		r.Header.Set("User-Agent", p.agent)
	}
	r.Header.Set("Accept-Language", p.reads)
	resp, err := p.browser.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return reply{resp, string(body), p.t}
}

// text is what the page says.
func (r reply) text() string {
	doc, err := html.Parse(strings.NewReader(r.body))
	if err != nil {
		r.t.Fatal(err)
	}
	var b strings.Builder
	for n := range doc.Descendants() {
		if n.Type == html.TextNode && n.Parent.DataAtom != atom.Script && n.Parent.DataAtom != atom.Style {
			b.WriteString(n.Data + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// says fails the test unless the page has a status and says all of the texts.
func (r reply) says(status int, texts ...string) reply {
	r.t.Helper()
	if r.StatusCode != status {
		r.t.Errorf("%s %s: %s, want %d\n%s", r.Request.Method, r.Request.URL, r.Status, status, r.text())
	}
	said := r.text()
	for _, want := range texts {
		if !strings.Contains(said, want) {
			r.t.Errorf("%s %s does not say %q:\n%s", r.Request.Method, r.Request.URL, want, said)
		}
	}
	return r
}

func (r reply) silent(texts ...string) reply {
	r.t.Helper()
	for _, text := range texts {
		if strings.Contains(r.body, text) {
			r.t.Errorf("%s %s says %q", r.Request.Method, r.Request.URL, text)
		}
	}
	return r
}

// leads fails the test unless the answer leads to another page.
func (r reply) leads(to string) {
	r.t.Helper()
	if got := r.Header.Get("Location"); r.StatusCode != http.StatusSeeOther || got != to {
		r.t.Errorf("%s %s: %s to %q, want %q\n%s", r.Request.Method, r.Request.URL, r.Status, got, to, r.text())
	}
}

// element finds the first element with an attribute of a value.
func (r reply) element(name, value string) *html.Node {
	doc, err := html.Parse(strings.NewReader(r.body))
	if err != nil {
		r.t.Fatal(err)
	}
	for n := range doc.Descendants() {
		if attribute(n, name) == value {
			return n
		}
	}
	return nil
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// form is a page's fields as a browser would send them if the person touched none.
func (r reply) form() url.Values {
	doc, err := html.Parse(strings.NewReader(r.body))
	if err != nil {
		r.t.Fatal(err)
	}
	form := make(url.Values)
	main := r.within(doc, "main")
	for n := range main.Descendants() {
		name := attribute(n, "name")
		switch {
		case n.Type != html.ElementNode || name == "":
		case n.DataAtom == atom.Input && (attribute(n, "type") == "radio" || attribute(n, "type") == "checkbox"):
			if has(n, "checked") {
				form.Add(name, attribute(n, "value"))
			}
		case n.DataAtom == atom.Input:
			form.Add(name, attribute(n, "value"))
		case n.DataAtom == atom.Textarea && n.FirstChild != nil:
			form.Add(name, n.FirstChild.Data)
		case n.DataAtom == atom.Select:
			for o := range n.Descendants() {
				if has(o, "selected") {
					form.Add(name, attribute(o, "value"))
				}
			}
		}
	}
	return form
}

func (r reply) within(doc *html.Node, tag string) *html.Node {
	for n := range doc.Descendants() {
		if n.Data == tag {
			return n
		}
	}
	r.t.Fatalf("there is no %s on %s", tag, r.Request.URL)
	return nil
}

// made is an app password that was made without the portal.
func (p *person) made(label string, s authstore.Scopes) authstore.AppPassword {
	p.t.Helper()
	made, _, err := p.accounts.CreatePassword(p.t.Context(), authstore.PasswordRequest{Account: p.account, Label: label, Scopes: s})
	if err != nil {
		p.t.Fatal(err)
	}
	return made
}

func (p *person) active() []authstore.AppPassword {
	p.t.Helper()
	list, err := p.accounts.Passwords(p.t.Context(), p.account, false)
	if err != nil {
		p.t.Fatal(err)
	}
	return list
}

func has(n *html.Node, name string) bool {
	for _, a := range n.Attr {
		if a.Key == name {
			return true
		}
	}
	return false
}
