package portal

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"
	"github.com/pquerna/otp/totp"
	"golang.org/x/net/html"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/internal/testlab"
)

const (
	firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
	iPhone  = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"

	goodPrimary  = "lamp orbit velvet tractor"
	otherPrimary = "quiet anchor marble sunrise"
)

// scene is a lab whose log is read.
type scene struct {
	*lab
	log *lines
}

// lines is a log.
type lines struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newScene serves a portal. change may set what it needs besides; nil: nothing.
func newScene(t *testing.T, change func(*identity.Options, *Options)) *scene {
	t.Helper()
	p := &scene{log: new(lines)}
	p.lab = newLabWith(t, func(who *identity.Options, o *Options) {
		who.Names = authstore.Names{DefaultDomain: "example.test"}
		o.Log = slog.New(slog.NewTextHandler(p.log, nil))
		if change != nil {
			change(who, o)
		}
	})
	return p
}

func (p *scene) account(address string) authstore.Account {
	p.t.Helper()
	a, err := p.accounts.Add(context.Background(), address)
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

// invite makes a link's path.
func (p *scene) invite(a authstore.Account, purpose identity.Purpose) string {
	p.t.Helper()
	link, _, err := p.people.Invite(context.Background(), authstore.Actor{Name: "test"}, a.ID, purpose)
	if err != nil {
		p.t.Fatal(err)
	}
	return "/invitation/" + link
}

// browser is a person's, without script: it keeps cookies, follows links and fills in forms.
type browser struct {
	*scene
	client   *http.Client
	agent    string
	language string
	seed     string // of the person's authenticator app
	*page           // what it shows
}

// page is what a browser shows.
type page struct {
	path   string // with the query
	status int
	header http.Header
	source string
	root   *html.Node
}

func (p *scene) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	return &browser{scene: p, agent: firefox, language: "en", client: &http.Client{Jar: jar, Timeout: 20 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.ca.Pool}}}}
}

// get goes to a path.
func (b *browser) get(path string) *browser {
	b.t.Helper()
	r, err := http.NewRequest("GET", b.site+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.do(r)
}

// post sends what no form of a page need hold, as a page of ours would.
func (b *browser) post(path string, fields url.Values) *browser {
	b.t.Helper()
	r, err := http.NewRequest("POST", b.site+path, strings.NewReader(fields.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", b.site)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return b.do(r)
}

// do sends a request and shows what it leads to.
func (b *browser) do(r *http.Request) *browser {
	b.t.Helper()
	r.Header.Set("User-Agent", b.agent)
	r.Header.Set("Accept-Language", b.language)
	resp, err := b.client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	b.page = &page{path: resp.Request.URL.RequestURI(), status: resp.StatusCode, header: resp.Header, source: string(body)}
	if b.root, err = html.Parse(bytes.NewReader(body)); err != nil {
		b.t.Fatal(err)
	}
	return b
}

// submit sends the page's form that goes to an action, with its hidden and prefilled fields and these. It fails where the form lacks one of them.
// A value of "button=value" as the action's second word presses that button: "/language language=de".
func (b *browser) submit(action string, fields map[string]string) *browser {
	b.t.Helper()
	action, button, _ := strings.Cut(action, " ")
	for form := range b.elements("form") {
		to := attribute(form, "action")
		if to == "" {
			to, _, _ = strings.Cut(b.path, "?")
		}
		if to != action || attribute(form, "method") != "post" {
			continue
		}
		values, names := filled(form)
		missing := false
		for name := range fields {
			missing = missing || !names[name]
		}
		if missing {
			continue
		}
		for name, value := range fields {
			values.Set(name, value)
		}
		if name, value, ok := strings.Cut(button, "="); ok {
			values.Set(name, value)
		}
		return b.post(to, values)
	}
	b.t.Fatalf("%s has no form for %s with %v:\n%s", b.path, action, slices.Sorted(maps.Keys(fields)), b.text())
	return b
}

// filled reads a form as it stands.
func filled(form *html.Node) (values url.Values, names map[string]bool) {
	values, names = make(url.Values), make(map[string]bool)
	for n := range form.Descendants() {
		name := attribute(n, "name")
		if n.Type != html.ElementNode || name == "" || n.Data == "button" {
			continue
		}
		names[name] = true
		kind := attribute(n, "type")
		switch {
		case n.Data == "select":
			values.Set(name, "")
			for o := range n.Descendants() {
				if o.Data == "option" && (has(o, "selected") || values.Get(name) == "" && !values.Has(name)) {
					values.Set(name, attribute(o, "value"))
				}
			}
		case n.Data == "textarea":
			values.Add(name, textOf(n))
		case kind == "checkbox" || kind == "radio":
			if has(n, "checked") {
				values.Add(name, attribute(n, "value"))
			}
		default:
			values.Add(name, attribute(n, "value"))
		}
	}
	return values, names
}

// elements are the page's elements of a name.
func (p *page) elements(name string) func(func(*html.Node) bool) {
	return func(yield func(*html.Node) bool) {
		for n := range p.root.Descendants() {
			if n.Type == html.ElementNode && n.Data == name && !yield(n) {
				return
			}
		}
	}
}

// with finds the text of the first element that has an attribute's value: a class, an id.
func (p *page) with(name, value string) string {
	for n := range p.root.Descendants() {
		if n.Type == html.ElementNode && slices.Contains(strings.Fields(attribute(n, name)), value) {
			return strings.Join(strings.Fields(textOf(n)), " ")
		}
	}
	return ""
}

// alert is what the form was refused for.
func (p *page) alert() string { return p.with("id", "problem") }

// title is the page's first heading.
func (p *page) title() string {
	for n := range p.elements("h1") {
		return textOf(n)
	}
	return ""
}

// text is what the person reads, without the layout.
func (p *page) text() string { return p.with("id", "content") }

func textOf(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return b.String()
}

// at fails unless the browser has come to a path.
func (b *browser) at(path string) *browser {
	b.t.Helper()
	if b.path != path {
		b.t.Fatalf("at %s (%d, %q), want %s\n%s", b.path, b.status, b.alert(), path, b.log)
	}
	return b
}

// says fails unless the page shows a text.
func (b *browser) says(text string) *browser {
	b.t.Helper()
	if !strings.Contains(b.text(), text) {
		b.t.Fatalf("%s does not say %q:\n%s", b.path, text, b.text())
	}
	return b
}

// refused fails unless the form was, with a text.
func (b *browser) refused(text string) *browser {
	b.t.Helper()
	if b.status != http.StatusUnprocessableEntity || !strings.Contains(b.alert(), text) {
		b.t.Fatalf("%s: %d, %q, want a refusal that says %q\n%s", b.path, b.status, b.alert(), text, b.text())
	}
	return b
}

// cookie is a cookie's value; empty: there is none.
func (b *browser) cookie(name string) string {
	site, _ := url.Parse(b.site)
	for _, c := range b.client.Jar.Cookies(site) {
		if c.Name == name {
			return c.Value
		}
	}
	return ""
}

// code is what the person's authenticator app shows next. Each is good once, so time passes.
func (b *browser) code() string {
	b.t.Helper()
	b.pass(30 * time.Second)
	code, err := totp.GenerateCode(b.seed, b.clock())
	if err != nil {
		b.t.Fatal(err)
	}
	return code
}

// wrongCode is none of those that would be taken now.
func (b *browser) wrongCode() string {
	now := []string{}
	for _, d := range []time.Duration{-time.Minute, -30 * time.Second, 0, 30 * time.Second, time.Minute} {
		code, _ := totp.GenerateCode(b.seed, b.clock().Add(d))
		now = append(now, code)
	}
	for _, code := range []string{"000000", "111111", "222222", "333333", "444444", "555555"} {
		if !slices.Contains(now, code) {
			return code
		}
	}
	return "666666"
}

var shownCode = regexp.MustCompile(`^[0-9a-z]{5}-[0-9a-z]{5}$`)

// codes are the recovery codes that the page shows.
func (b *browser) codes() []string {
	var codes []string
	for n := range b.elements("li") {
		if code := textOf(n); shownCode.MatchString(code) {
			codes = append(codes, code)
		}
	}
	return codes
}

// setUp does the set-up with an authenticator app, to the page of recovery codes.
func (b *browser) setUp() *browser {
	b.t.Helper()
	b.at("/set-up")
	b.seed = strings.ReplaceAll(b.with("id", "key"), " ", "")
	return b.submit("/set-up", map[string]string{"app_code": b.code()})
}

// signedUp is a new account's browser: invited, set up, signed in a moment ago.
func (p *scene) signedUp(address string) (*browser, authstore.Account) {
	p.t.Helper()
	a := p.account(address)
	b := p.browser().get(p.invite(a, identity.Begin))
	b.submit(b.path, map[string]string{"password": goodPrimary, "again": goodPrimary, "zone": "Europe/Berlin"}).setUp()
	if len(b.codes()) != 10 {
		p.t.Fatalf("no recovery codes after the set-up: %s %s", b.path, b.text())
	}
	return b, a
}

// signIn signs in again with the authenticator app of another browser.
func (b *browser) signIn(address, password string) *browser {
	b.t.Helper()
	b.get("/sign-in").submit("/sign-in", map[string]string{"address": address, "password": password}).at("/sign-in/factor")
	return b.submit("/sign-in/factor", map[string]string{"code": b.code()})
}

// events are the kinds of an account's events, the newest first.
func (p *scene) events(a authstore.Account) []string {
	p.t.Helper()
	list, err := p.accounts.Events(context.Background(), authstore.EventQuery{Account: a.ID, Limit: 100})
	if err != nil {
		p.t.Fatal(err)
	}
	var kinds []string
	for _, e := range list {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

// key is a software authenticator with one passkey, and the script that asks it.
type key struct {
	auth virtualwebauthn.Authenticator
	cred virtualwebauthn.Credential
}

func (p *scene) relyingParty() virtualwebauthn.RelyingParty {
	return virtualwebauthn.RelyingParty{ID: "localhost", Name: "Example", Origin: p.site}
}

func newKey() *key {
	return &key{virtualwebauthn.NewAuthenticator(), testlab.NewPasskey()}
}

// ask gets a challenge as the script does. The page stays.
func (b *browser) ask(kind string) (status int, c ceremony) {
	b.t.Helper()
	shown := b.page
	b.post("/passkey/"+kind, nil)
	if err := json.Unmarshal([]byte(b.source), &c); err != nil {
		b.t.Fatalf("POST /passkey/%s: %v in %q", kind, err, b.source)
	}
	status, b.page = b.status, shown
	return status, c
}

// prove answers a challenge with a passkey.
func (b *browser) prove(k *key, kind string) map[string]string {
	b.t.Helper()
	_, c := b.ask(kind)
	o, err := virtualwebauthn.ParseAssertionOptions(string(c.Options))
	if err != nil {
		b.t.Fatalf("%v in %s %s", err, c.Options, c.Problem)
	}
	k.cred.Counter++
	return map[string]string{"state": c.State, "answer": virtualwebauthn.CreateAssertionResponse(b.relyingParty(), k.auth, k.cred, *o)}
}

// make makes a passkey.
func (b *browser) make(k *key) map[string]string {
	b.t.Helper()
	_, c := b.ask("new")
	o, err := virtualwebauthn.ParseAttestationOptions(string(c.Options))
	if err != nil {
		b.t.Fatalf("%v in %s %s", err, c.Options, c.Problem)
	}
	k.auth.Options.UserHandle = []byte(o.UserID)
	return map[string]string{"new_state": c.State, "new_answer": virtualwebauthn.CreateAttestationResponse(b.relyingParty(), k.auth, k.cred, *o)}
}

// madePasswords makes app passwords without the portal.
func (p *scene) madePasswords(a authstore.Account, labels ...string) {
	p.t.Helper()
	for _, label := range labels {
		if _, _, err := p.accounts.CreatePassword(p.t.Context(), authstore.PasswordRequest{Account: a.ID, Label: label, Scopes: authstore.ScopeMail}); err != nil {
			p.t.Fatal(err)
		}
	}
}
