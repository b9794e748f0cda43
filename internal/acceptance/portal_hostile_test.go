package acceptance

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"postern/internal/testlab"
)

// evil is a web site that somebody else runs, in the same browser. The same pages are to be had under https://localhost:port, which browsers call
// another origin but the same site.
func (p *portal) evil(t *testing.T, pages map[string]string) (crossSite, sameSite string) {
	t.Helper()
	_, _, cert := p.ca.Issue("evil.test")
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Referrer-Policy", "unsafe-url")
		fmt.Fprintf(w, `<!doctype html><title>Evil</title><link rel=icon href="data:,"><body>%s</body>`, pages[r.URL.Path])
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	t.Cleanup(s.Close)
	_, port, _ := strings.Cut(s.Listener.Addr().String(), ":")
	return "https://evil.test:" + port, "https://localhost:" + port
}

// What other sites send in somebody's name is refused, by a real browser and in all the ways that a request may look.
func TestPortalRefusesOtherSites(t *testing.T) {
	t.Parallel()
	p := openPortal(t, newSite(t), "")
	a := p.person(t, alice)
	p.password(p.config, alice, "--for", "mail", "--label", "Laptop")
	forms := map[string]string{}
	for path, fields := range map[string]string{
		"/passwords/revoke-all": "", "/passwords/1/revoke": "", "/sign-out": "", "/security/sessions/end": "", "/security/recovery": "",
		"/passwords/new": `<input name=label value=Evil><input name=preset value=mail><input name=expires value=never><input name=app value=other>`,
		"/sign-in":       `<input name=address value="mallory@evil.test"><input name=password value=secret>`,
		"/language":      `<input name=language value=de>`,
	} {
		forms["/form"+path] = fmt.Sprintf(`<form method=post action="%s%s">%s</form><script>document.forms[0].submit()</script>`, p.url, path, fields)
		forms["/fetch"+path] = fmt.Sprintf(`<script>fetch("%s%s", {method: "POST", mode: "no-cors", credentials: "include"}).finally(() => document.body.append("sent"))</script>`, p.url, path)
	}
	forms["/frame"] = fmt.Sprintf(`<iframe src="%s/passwords"></iframe>`, p.url)
	crossSite, sameSite := p.evil(t, forms)
	for _, site := range []string{crossSite, sameSite} {
		for page := range forms {
			tab := a.Tab().Named(page)
			switch {
			case page == "/frame":
				tab.Expect("frame-ancestors").Expect("ERR_BLOCKED_BY_RESPONSE") // the browser says why it does not show it
				tab.Open(site + page)
				var inner string
				tab.Eval(`(() => { try { return document.querySelector("iframe").contentDocument.body.innerText } catch { return "another origin" } })()`, &inner)
				if inner != "another origin" {
					t.Errorf("the frame holds %q", inner)
				}
			case strings.HasPrefix(page, "/form"):
				tab.Open(site + page).At(strings.TrimPrefix(page, "/form")).HasText("Another web site tried to do that in your name.")
				if got := tab.Status(); got != http.StatusForbidden {
					t.Errorf("%s: status %d", page, got)
				}
			default:
				tab.Expect("BlockedByResponse").Expect("NotSameOrigin").Expect("Failed to fetch") // the answer is not even seen
				tab.Open(site + page).HasText("sent")
			}
		}
	}
	a.open("/passwords").HasText("Laptop", "App passwords").HasNoText("Evil")
	a.open("/security").HasText("10 codes are left.")

	client := a.Client(p.ca)
	post := func(path string, headers ...string) int {
		req, _ := http.NewRequest("POST", p.url+path, strings.NewReader("x=1"))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Sec-Fetch-Site", "cross-site", "Origin", p.url}, {"Origin", "https://evil.test"},
		{"Origin", "null"}, {"Origin", p.url + "1"}, {"Origin", "https://localhost"}, {"Sec-Fetch-Site", "nonsense"},
		{"Sec-Fetch-Site", "cross-site", "X-HTTP-Method-Override", "GET"},
	} {
		if got := post("/sign-out", headers...); got != http.StatusForbidden {
			t.Errorf("with %q: status %d", headers, got)
		}
	}
	a.open("/passwords").HasText("Laptop")
}

// A cookie that somebody planted before the sign-in opens nothing after it, and each step has a cookie of its own.
func TestPortalSessionIsNew(t *testing.T) {
	t.Parallel()
	p := openPortal(t, newSite(t), "")
	a := p.person(t, alice)
	mallory := p.person(t, "mallory@example.test")
	const name = "__Host-postern"
	token := func(of *person) string {
		for _, c := range of.Cookies() {
			if c.Name == name {
				if !c.HTTPOnly || !c.Secure || c.SameSite != "Lax" || c.Path != "/" || strings.HasPrefix(c.Domain, ".") {
					t.Errorf("cookie %+v", c)
				}
				return c.Value
			}
		}
		return ""
	}
	page := func(cookie string) string {
		b := p.browser.Page(t)
		b.SetCookie(p.url, name, cookie)
		return b.Open(p.url + "/passwords").Path()
	}
	a.Click("Sign out")
	if got := token(a); got != "" {
		t.Errorf("after signing out there is the cookie %q", got)
	}
	planted := token(mallory)
	a.SetCookie(p.url, name, planted)
	a.open("/sign-in") // mallory is signed in here now, and alice signs her out without knowing
	if a.Has("Sign out") {
		a.Click("Sign out")
	}
	mallory.signIn()
	planted = token(mallory)
	b := a.elsewhere()
	b.givePrimary()
	half := token(b)
	b.SetCookie(p.url, name, half)
	b.giveCode(b.code()).At("/passwords")
	whole := token(b)
	if half == whole || half == planted || whole == planted {
		t.Error("a step of signing in keeps the cookie of the one before")
	}
	for what, cookie := range map[string]string{"of the password alone": half, "nonsense": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "empty": "", "an SQL": "' OR 1=1 --"} {
		if got := page(cookie); !strings.HasPrefix(got, "/sign-in") {
			t.Errorf("the cookie %s opens %s", what, got)
		}
	}
	if got := page(whole); got != "/passwords" {
		t.Fatalf("the right cookie opens %s", got)
	}
	b.tire()
	b.open("/security/recovery").Fill("Code from your authenticator app", b.code()).Click("Make new codes").HasText("new recovery codes")
	if got := page(whole); !strings.HasPrefix(got, "/sign-in") {
		t.Errorf("after a fresh second factor the old cookie opens %s", got)
	}
	fresh := token(b)
	b.open("/security").Click("Sign out")
	if got := page(fresh); !strings.HasPrefix(got, "/sign-in") {
		t.Errorf("after signing out the cookie opens %s", got)
	}
}

// Nobody is led to another host, and nothing typed becomes a header.
func TestPortalLeadsNowhereElse(t *testing.T) {
	t.Parallel()
	p := openPortal(t, newSite(t), "")
	a := p.person(t, alice)
	a.Click("Sign out")
	elsewhere := []string{"//evil.test/", "https://evil.test/", `/\evil.test`, `\\evil.test`, "/%2f/evil.test", "javascript:alert(1)", "/passwords/../../evil", "/passwords\r\nSet-Cookie: x=1", "@evil.test", "/sign-out", "/passwords//evil.test"}
	client := a.Client(p.ca)
	for _, to := range elsewhere {
		p.sql(t, "DELETE FROM budget") // so often nobody signs in
		for _, form := range []struct {
			path   string
			fields url.Values
		}{
			{"/language", url.Values{"language": {"de"}, "back": {to}}},
			{"/language", url.Values{"language": {"en\r\nX-Evil: 1"}, "back": {"/sign-in"}, "to": {to}}},
			{"/sign-in", url.Values{"address": {alice}, "password": {strong}, "to": {to}}},
			{"/sign-in?to=" + url.QueryEscape(to), url.Values{"address": {alice}, "password": {strong}}},
		} {
			req, _ := http.NewRequest("POST", p.url+form.path, strings.NewReader(form.fields.Encode()))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Origin", p.url)
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			location := resp.Header.Get("Location")
			if u, err := url.Parse(location); err != nil || u.Host != "" || u.Scheme != "" || !strings.HasPrefix(location, "/") || strings.HasPrefix(location, "//") || strings.Contains(location, "evil") || strings.ContainsAny(location, "\\\r\n") {
				t.Errorf("%s with %q leads to %q", form.path, form.fields, location)
			}
			if resp.Header.Get("X-Evil") != "" {
				t.Errorf("%s with %q makes a header", form.path, form.fields)
			}
			for _, c := range resp.Cookies() {
				if !strings.HasPrefix(c.Name, "__Host-postern") {
					t.Errorf("%s with %q makes the cookie %s", form.path, form.fields, c)
				}
			}
		}
	}
	p.sql(t, "DELETE FROM budget")

	// What was asked for is shown after the sign-in, if it is a page here.
	a.open("/history").At("/sign-in")
	a.Fill("Email address", a.address).Fill("Primary password", a.primary).Click("Sign in").HasText("Second factor")
	a.giveCode(a.code()).At("/history")
	for _, to := range []string{"//evil.test/", "https://evil.test/"} {
		a.Click("Sign out")
		a.open("/sign-in?to="+url.QueryEscape(to)).Fill("Email address", a.address).Fill("Primary password", a.primary).Click("Sign in").HasText("Second factor")
		a.giveCode(a.code()).At("/passwords")
	}
}

// What strangers and apps write shows as what they wrote.
func TestPortalShowsTextAsText(t *testing.T) {
	t.Parallel()
	s, dovecot, radicale := full(t)
	radicale.MakeCalendar(alice, "personal")
	p := openPortal(t, s, "")
	a := p.person(t, alice)
	const script = `<img src=x onerror=alert(1)>`
	labels := []string{script, `"><script>alert(2)</script>`, `javascript:alert(3)`, `{{.Session}}`, `</title><svg onload=alert(4)>`, `' onfocus=alert(5) autofocus='`}
	var secret string
	for _, label := range labels {
		secret = a.make(label, "Mail, calendars and contacts")
	}
	if dovecot.IMAP == "" {
		t.Fatal("no IMAP")
	}

	// An IMAP client and a calendar app with names of the same kind; a browser that failed to sign in, and one that did.
	c := p.login(p.gateway, alice, secret)
	if _, err := c.ID(&imap.IDData{Name: `<b onmouseover=alert(6)>Mail</b>`, Version: script, Vendor: script, OS: script, SupportURL: "javascript:alert(7)"}).Wait(); err != nil {
		t.Fatal(err)
	}
	if status, _, _ := p.do(p.gateway, alice, secret, "PROPFIND", "/dav/", "", "Depth", "0", "User-Agent", `<script>alert(8)</script>/1.0`); status != http.StatusMultiStatus {
		t.Fatalf("PROPFIND: status %d", status)
	}
	other := a.elsewhere()
	other.UserAgent(`<script>alert(9)</script> "Firefox/1`)
	right := other.primary
	other.primary = "wrong"
	other.givePrimary()
	other.primary = right
	other.signIn()
	stranger := p.visitor(t, bob)
	stranger.open("/sign-in?to=" + url.QueryEscape(script) + "&ended=" + url.QueryEscape(script)).HasText("Sign in").HasNoText("onerror")
	stranger.open("/" + url.PathEscape(script)).HasText("Not found").HasNoText("onerror")
	stranger.open("/sign-in").Fill("Email address", script).Fill("Primary password", "wrong").Click("Sign in").HasText("The address or the password is wrong.")
	if got := stranger.Value("Email address"); got != script {
		t.Errorf("the address that was typed is shown as %q", got)
	}

	eventually(t, "the uses show", func() bool {
		text := a.open("/passwords").Text()
		return strings.Contains(text, "127.0.0.")
	})
	var shown string
	look := func(path string) {
		t.Helper()
		shown += a.open(path).Text() + a.Title()
		var made []string
		a.Eval(`[...document.querySelectorAll("main script, main iframe, [onerror], [onload], [onfocus], [onmouseover], main svg, main b, a[href^='javascript'], img[src='x']")].map(e => e.outerHTML)`, &made)
		if len(made) > 0 {
			t.Errorf("%s has become part of %s", made, path)
		}
	}
	for _, path := range []string{"/passwords", "/security", "/history", "/passwords/revoke-all", "/passwords?ended"} {
		look(path)
	}
	for n := range labels {
		for _, page := range []string{"", "/edit", "/revoke"} {
			look(fmt.Sprintf("/passwords/%d%s", n+1, page))
		}
	}
	a.open("/passwords/1").Click("Revoke").Click("Revoke").HasText(labels[0])
	look("/passwords/1")
	look("/history?password=1")
	for _, label := range labels {
		if !strings.Contains(shown, label) {
			t.Errorf("the label %s is not shown as it is", label)
		}
	}

	// A factor's name, and a passkey's.
	a.open("/security").Click("Rename “Authenticator app”").Fill("Name", script).Click("Save").HasText(script)
	look("/security")

	// What a calendar holds is no page of the portal's, under whichever path.
	for _, path := range []string{"/dav/", "/.well-known/caldav", "/dav/cal/" + p.publicID(p.gateway) + "/personal/"} {
		if a.open(path).HasText("Not found"); a.Status() != http.StatusNotFound {
			t.Errorf("%s in the portal: status %d", path, a.Status())
		}
	}
}

// A calendar's content, on the portal's own address under the other host, runs as nothing in a browser.
func TestPortalBesideCalendars(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	radicale := testlab.Radicale(t)
	path := radicale.MakeCalendar(alice, "personal")
	radicale.Put(alice, path+"x.ics", strings.Replace(testlab.Event("x"), "SUMMARY:", "SUMMARY:<script>alert(1)</script>", 1))
	port := testlab.Ports(t, 1)[0]
	address := fmt.Sprintf("127.0.0.1:%d", port)
	s.doors = fmt.Sprintf("  { protocol = \"portal\", address = %q },\n  { protocol = \"dav\", address = %q },\n", address, address)
	p := &portal{site: s, url: fmt.Sprintf("https://passwords.example.test:%d", port)}
	s.backend = fmt.Sprintf("\n[portal]\nurl = %q\nname = \"Example Choir\"\n", p.url) + davBackend("radicale", radicale.URL)
	s.names = []string{"passwords.example.test", "dav.example.test"}
	s.top = "hostname = \"dav.example.test\"\n"
	p.gateway = s.serve()
	p.browser = testlab.Browser(t, s.ca)
	a := p.person(t, alice)
	secret := a.make("Phone", "Calendars")
	dav := fmt.Sprintf("https://dav.example.test:%d", port)
	a.HasText("https://dav.example.test:")

	// The other host has no portal, and the portal no calendars.
	item := "/dav/cal/" + p.publicID(p.gateway) + "/personal/x.ics"
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.ca.Pool}, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}}
	get := func(url string) (*http.Response, string) {
		req, _ := http.NewRequest("GET", url, nil)
		req.SetBasicAuth(alice, secret)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp, string(body)
	}
	if resp, _ := get(p.url + item); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a calendar under the portal's name: status %d", resp.StatusCode)
	}
	for _, path := range []string{"/sign-in", "/passwords"} {
		if resp, body := get(dav + path); resp.StatusCode == http.StatusOK || strings.Contains(body, "Primary password") {
			t.Errorf("%s under the calendars' name: status %d", path, resp.StatusCode)
		}
	}
	resp, body := get(dav + item)
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, "<script>") || resp.Header.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/calendar") {
		t.Errorf("the item: status %d, header %v\n%s", resp.StatusCode, resp.Header, body)
	}
	for _, c := range resp.Cookies() {
		t.Errorf("calendars set the cookie %s", c)
	}
}

// What belongs to somebody else is not found, and forms are bounded.
func TestPortalKeepsPeopleApart(t *testing.T) {
	t.Parallel()
	p := openPortal(t, newSite(t), "")
	a, b := p.person(t, alice), p.person(t, bob)
	a.make("Laptop", "Contacts")
	ids := strings.Fields(p.sql(t, "SELECT (SELECT max(id) FROM app_password) || ' ' || (SELECT min(id) FROM factor) || ' ' || (SELECT min(id) FROM portal_session WHERE account = 1)"))
	for _, path := range []string{"/passwords/" + ids[0], "/passwords/" + ids[0] + "/edit", "/passwords/" + ids[0] + "/revoke", "/history?password=" + ids[0], "/history.csv?password=" + ids[0],
		"/security/factors/" + ids[1], "/security/factors/" + ids[1] + "/remove", "/passwords/99", "/passwords/-1", "/passwords/abc", "/passwords/99999999999999999999"} {
		if b.open(path).HasText("Not found").HasNoText("Laptop"); b.Status() != http.StatusNotFound {
			t.Errorf("%s of alice's is for bob %d", path, b.Status())
		}
	}
	client := b.Client(p.ca)
	post := func(path, body string) int {
		req, _ := http.NewRequest("POST", p.url+path, strings.NewReader(body))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", p.url)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for _, path := range []string{"/passwords/" + ids[0] + "/revoke", "/passwords/" + ids[0] + "/edit", "/security/factors/" + ids[1] + "/remove", "/security/factors/" + ids[1], "/security/sessions/" + ids[2] + "/end"} {
		if got := post(path, "label=mine&expires=never"); got != http.StatusNotFound && got != http.StatusUnprocessableEntity && got != http.StatusSeeOther {
			t.Errorf("POST %s: status %d", path, got)
		}
	}
	if got := post("/passwords/new", "label="+strings.Repeat("x", 1<<20)); got != http.StatusRequestEntityTooLarge {
		t.Errorf("a megabyte: status %d", got)
	}
	a.open("/passwords").HasText("Laptop")
	a.open("/security").HasText("Authenticator app")
	h := a.Header()
	for name, want := range map[string]string{"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Cache-Control": "no-store",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin"} {
		if got := h.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	policy := strings.Split(h.Get("Content-Security-Policy"), "; ")
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'", "require-trusted-types-for 'script'"} {
		if !slices.Contains(policy, want) {
			t.Errorf("the policy lacks %s: %q", want, policy)
		}
	}
	for _, c := range a.Cookies() {
		if !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || !c.HTTPOnly {
			t.Errorf("cookie %+v", c)
		}
	}
}
