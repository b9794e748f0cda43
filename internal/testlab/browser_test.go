package testlab_test

import (
	"crypto/tls"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"postern/internal/testlab"
)

const strict = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'"

// shop is a small web server of the strict kind. Its pages are named by their paths.
type shop struct {
	*httptest.Server
	url   string
	ca    *testlab.CA
	posts atomic.Int32
}

const shopForm = `<h1>Order</h1><form method="post" action="/order">
<p><label for="mail">Email address</label> <input id="mail" name="mail" type="email" autocomplete="email">
<p><label>Secret <input type="password" name="secret" autocomplete="off"></label>
<p><label>Day <input type="date" name="day"></label>
<p><label>Colour <select name="colour"><option>red<option value="g">green</select></label>
<p><label><input type="checkbox" name="gift"> As a gift</label>
<fieldset><legend>Size</legend><label><input type="radio" name="size" value="s"> Small</label> <label><input type="radio" name="size" value="l"> Large</label></fieldset>
<p><button>Buy</button></form>
<ul><li>Apples <a href="/thing?name=apples">Look</a></li><li>Pears <a href="/thing?name=pears">Look</a></li></ul>
<p><a href="/file">Receipt</a> <a href="#end">Down</a> <button type="button" id="copy">Copy</button> <button type="button" id="key">Make a key</button> <p id="said"></p><p id="end">End</p>`

const shopScript = `
const said = text => document.getElementById("said").textContent = text
document.getElementById("copy").addEventListener("click", () => navigator.clipboard.writeText("copied text").then(() => said("Copied."), e => said("" + e)))
document.getElementById("key").addEventListener("click", () => navigator.credentials.create({publicKey: {
	challenge: new Uint8Array(16), rp: {name: "shop"}, user: {id: new Uint8Array(8), name: "alice", displayName: "Alice"},
	pubKeyCredParams: [{type: "public-key", alg: -7}], authenticatorSelection: {residentKey: "preferred", userVerification: "preferred"}}}).
	then(c => said("Key of " + c.authenticatorAttachment), e => said("" + e)))
said(new Date(0).toLocaleString("en-GB", {timeZoneName: "short"}) + " " + navigator.language)
`

func newShop(t *testing.T) *shop {
	s := &shop{ca: testlab.NewCA(t)}
	_, _, cert := s.ca.Issue("shop.example.test")
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	t.Cleanup(s.Close)
	_, port, _ := strings.Cut(s.Listener.Addr().String(), ":")
	s.url = "https://localhost:" + port
	return s
}

func (s *shop) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", strict)
	h.Set("Content-Type", "text/html; charset=utf-8")
	page := func(body string, args ...any) {
		fmt.Fprintf(w, `<!doctype html><html lang="en"><head><meta name="viewport" content="width=device-width"><title>Shop</title><link rel="icon" href="/icon">`+
			`<link rel="stylesheet" href="/style.css"></head><body><main>`+body+`</main></body></html>`, args...)
	}
	switch r.URL.Path {
	case "/":
		http.SetCookie(w, &http.Cookie{Name: "__Host-visit", Value: "1", Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
		page("%s<script src=/script.js></script>", shopForm)
	case "/order":
		if s.posts.Add(1); r.FormValue("secret") == "" {
			w.WriteHeader(http.StatusUnprocessableEntity)
			page("<h1>No secret</h1>")
			return
		}
		http.Redirect(w, r, "/done?"+r.Form.Encode(), http.StatusSeeOther)
	case "/done":
		r.ParseForm()
		page("<h1>Thank you</h1><pre>%s</pre>", html.EscapeString(fmt.Sprint(r.Form)))
	case "/thing":
		page("<h1>%s</h1>", html.EscapeString(r.FormValue("name")))
	case "/told":
		page("<h1>You</h1><p>%s</p><p>%s</p>", html.EscapeString(r.UserAgent()), html.EscapeString(r.Header.Get("Accept-Language")))
	case "/file":
		h.Set("Content-Disposition", `attachment; filename="receipt.csv"`)
		fmt.Fprint(w, "a,b\n")
	case "/inline":
		page(`<h1>Inline</h1><script>document.title = "ran"</script>`)
	case "/throws":
		page("<h1>Throws</h1><script src=/throw.js></script>")
	case "/alert":
		page("<h1>Alert</h1><script src=/alert.js></script>")
	case "/console":
		page("<h1>Console</h1><script src=/console.js></script>")
	case "/lacks":
		page("<h1>Lacks</h1><img src=/nothing alt=''>")
	case "/foreign":
		h.Set("Content-Security-Policy", "")
		page("<h1>Foreign</h1><img src=https://images.example.com/1.png alt=''>")
	case "/unlabelled":
		page("<h1>Unlabelled</h1><img src=/icon><input name=x>")
	case "/wide":
		page(`<h1>Wide</h1><p class="wide">wide</p>`)
	case "/script.js", "/throw.js", "/alert.js", "/console.js":
		h.Set("Content-Type", "text/javascript")
		fmt.Fprint(w, map[string]string{"/script.js": shopScript, "/throw.js": `throw new Error("thrown")`, "/alert.js": `alert("1")`, "/console.js": `console.error("moan", 1)`}[r.URL.Path])
	case "/style.css":
		h.Set("Content-Type", "text/css")
		fmt.Fprint(w, `.wide { width: 500px } h1 { color: black } @media (prefers-color-scheme: dark) { body { background: black; color: white } h1::after { content: " at night" } }`)
	case "/icon":
		h.Set("Content-Type", "image/svg+xml")
		fmt.Fprint(w, `<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>`)
	default:
		http.NotFound(w, r)
	}
}

// A page is used as a person does.
func TestBrowser(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	b := testlab.Browser(t, s.ca)
	for name, prepare := range map[string]func(*testlab.Page){
		"with script": func(*testlab.Page) {}, "without": func(p *testlab.Page) { p.WithoutScript() }, "phone": func(p *testlab.Page) { p.Phone() }} {
		t.Run(name, func(t *testing.T) {
			p := b.Page(t)
			prepare(p)
			p.Open(s.url).HasText("Order", "Apples").HasNoText("Oranges").Axe().FitsWidth().Screenshot("order " + name)
			p.Fill("Email address", "alice@example.test").Fill("Secret", "wrong").Fill("Secret", "s3cret & all").Fill("Day", "2026-12-31")
			p.Choose("Colour", "green").Tick("As a gift").Tick("Large").Click("Buy")
			if got := p.Text(); !strings.Contains(got, "map[colour:[g] day:[2026-12-31] gift:[on] mail:[alice@example.test] secret:[s3cret & all] size:[l]]") {
				t.Errorf("after a click on Buy the page shows %q", got)
			}
			p.Back().HasText("Order")
			p.In("Pears").Click("Look")
			if got := p.Path(); got != "/thing?name=pears" {
				t.Errorf("Look beside Pears led to %s", got)
			}
			p.Open(s.url).Click("Down").Fill("Secret", "").Press("Enter").HasText("No secret")
			if got := p.Status(); got != http.StatusUnprocessableEntity {
				t.Errorf("status %d, want 422", got)
			}
			p.Open(s.url)
			file, content := p.Download(func() { p.Click("Receipt") })
			if file != "receipt.csv" || string(content) != "a,b\n" {
				t.Errorf("downloaded %s: %q", file, content)
			}
			if p.Header().Get("Content-Security-Policy") != strict || p.Title() != "Shop" {
				t.Errorf("title %q, header %v", p.Title(), p.Header())
			}
		})
	}
}

// A form that is sent again by a reload or a second click is sent twice.
func TestBrowserRepeats(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	p := testlab.Browser(t, s.ca).Page(t)
	p.Open(s.url).Click("Buy")
	p.HasText("No secret").Reload().HasText("No secret")
	if got := s.posts.Load(); got != 2 {
		t.Errorf("sent %d times, want 2", got)
	}
}

// Each person has cookies, a place, a language and an authenticator of their own.
func TestBrowserPersons(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	b := testlab.Browser(t, s.ca)
	alice, bob := b.Page(t).AllowClipboard(), b.Page(t).Zone("Europe/Berlin").Languages("de,en").UserAgent("Bob's <b>browser</b>")
	alice.Open(s.url).HasText("01/01/1970, 0:00:00 UTC en")
	if got := alice.Cookies(); len(got) != 1 || got[0].Name != "__Host-visit" || len(alice.Tab().Cookies()) != 1 || len(bob.Cookies()) != 0 {
		t.Errorf("alice has cookies %+v, bob %d", got, len(bob.Cookies()))
	}
	bob.Open(s.url).HasText("01/01/1970, 1:00:00 CET de")
	bob.Open(s.url+"/told").HasText("Bob's <b>browser</b>", "de")
	alice.Dark().Open(strings.Replace(s.url, "localhost", "shop.example.test", 1)).HasText("Order")
	var night string
	if alice.Eval(`getComputedStyle(document.querySelector("h1"), "::after").content`, &night); night != `" at night"` {
		t.Errorf("dark colours give %s", night)
	}
	if alice.Click("Copy").HasText("Copied."); alice.Clipboard() != "copied text" {
		t.Errorf("copied %q", alice.Clipboard())
	}
	key := alice.Authenticator(testlab.DeviceKey)
	alice.Click("Make a key").HasText("Key of platform")
	if kept := key.Credentials(); len(kept) != 1 || !kept[0].IsResidentCredential || len(bob.Authenticator(testlab.DeviceKey).Add(kept...).Credentials()) != 1 {
		t.Errorf("the key keeps %v", kept)
	}
	key.Remove()
	alice.Authenticator(testlab.PlainKey)
	alice.Click("Make a key").HasText("Key of cross-platform")
}

// What a page should not do fails the test.
func TestBrowserTells(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	b := testlab.Browser(t, s.ca)
	for path, want := range map[string]string{
		"/inline": "content security policy: script-src-elem forbids ", "/throws": "uncaught: Error: thrown", "/alert": "dialogue: alert: 1",
		"/console": `console: "moan" 1`, "/lacks": "status 404: GET " + s.url + "/nothing", "/foreign": "not loaded: GET https://images.example.com/1.png: net::ERR_NAME_NOT_RESOLVED",
		"/unlabelled": "axe: label (critical): Form elements must have labels", "/wide": "is wider than the window: 5",
	} {
		t.Run(path, func(t *testing.T) {
			told := tell(t, func(t testing.TB) {
				p := b.Page(t).Phone().Open(s.url + path)
				if path == "/unlabelled" {
					p.Axe()
				}
				p.FitsWidth()
			})
			if !strings.Contains(told, want) {
				t.Errorf("%s tells %q, want %q in it", path, told, want)
			}
			if !strings.Contains(want, "axe") && !strings.Contains(want, "wider") {
				if told := tell(t, func(t testing.TB) { b.Page(t).Expect(want).Open(s.url + path) }); told != "" {
					t.Errorf("%s tells %q although it was expected", path, told)
				}
			}
		})
	}
	if told := tell(t, func(t testing.TB) { b.Page(t).Expect("rain").Open(s.url) }); !strings.Contains(told, `it did not come: "rain"`) {
		t.Errorf("nothing tells that what was expected did not come: %q", told)
	}
	told := tell(t, func(t testing.TB) { b.Page(t).Open(s.url).HasNoText("Apples") })
	_, picture, _ := strings.Cut(told, "picture: ")
	picture, _, _ = strings.Cut(picture, "\n")
	if png, err := os.ReadFile(picture); err != nil || !strings.HasPrefix(string(png), "\x89PNG") || !strings.Contains(told, s.url) || !strings.Contains(told, "Pears") {
		t.Errorf("a failure tells %q; picture: %v", told, err)
	}
	os.Remove(picture)
}

func TestScreenshot(t *testing.T) {
	s := newShop(t)
	dir := t.TempDir()
	t.Setenv("POSTERN_SCREENSHOTS", dir)
	testlab.Browser(t, s.ca).Page(t).Open(s.url).Screenshot("the shop")
	if png, err := os.ReadFile(filepath.Join(dir, "the-shop.png")); err != nil || !strings.HasPrefix(string(png), "\x89PNG") {
		t.Errorf("%.20q, %v", png, err)
	}
}

// listener is a test whose failures are heard, and do no harm.
type listener struct {
	testing.TB
	said     []string
	cleanups []func()
}

func tell(t *testing.T, run func(testing.TB)) string {
	t.Helper()
	l := &listener{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			for i := len(l.cleanups) - 1; i >= 0; i-- {
				l.cleanups[i]()
			}
		}()
		run(l)
	}()
	<-done
	return strings.Join(l.said, "\n")
}

func (l *listener) Cleanup(f func())          { l.cleanups = append(l.cleanups, f) }
func (l *listener) Errorf(f string, a ...any) { l.said = append(l.said, fmt.Sprintf(f, a...)) }
func (l *listener) Failed() bool              { return false }
func (l *listener) Fatalf(f string, a ...any) { l.Errorf(f, a...); runtime.Goexit() }
