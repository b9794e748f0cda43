package portal

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
)

func TestHeaders(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	in, _ := p.signedUp(alice)
	for _, b := range []*browser{p.browser().get("/sign-in"), p.browser().get("/no/such/page"), p.browser().get("/invitation/x"), in.get("/security"), in.get("/security/recovery")} {
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cache-Control": "no-store",
			"Referrer-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin", "Content-Type": "text/html; charset=utf-8",
		} {
			if got := b.header.Get(name); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %s is %q, want %q", b.path, name, got, want)
			}
		}
		for n := range b.root.Descendants() {
			for _, a := range n.Attr {
				if strings.HasPrefix(a.Key, "on") || a.Key == "style" || n.Data == "script" && n.FirstChild != nil || n.Data == "style" {
					t.Errorf("%s: <%s %s> would be refused by the policy", b.path, n.Data, a.Key)
				}
			}
		}
	}
}

// Browsers are told to come by https only where the host is the portal's alone: they know no ports there.
func TestStrictTransport(t *testing.T) {
	t.Parallel()
	for site, want := range map[string]string{"https://passwords.example.org": "max-age=31536000", "https://mail.example.org:8443": "", "http://localhost:8080": ""} {
		s, err := New(Options{Site: site})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/sign-in", nil))
		if got := w.Header().Get("Strict-Transport-Security"); got != want || w.Code != http.StatusOK {
			t.Errorf("%s: %q with %d, want %q", site, got, w.Code, want)
		}
	}
}

// Half a download is cut off, and no page is put behind it as if it were whole.
func TestHalfAnAnswerIsCutOff(t *testing.T) {
	t.Parallel()
	s, err := New(Options{Site: "https://passwords.example.org"})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	defer func() {
		if p := recover(); p != http.ErrAbortHandler || w.Body.String() != "half" {
			t.Errorf("panic %v after %q", p, w.Body)
		}
	}()
	s.guarded(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "half")
		panic(http.ErrAbortHandler)
	})).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/history.csv", nil))
}

func TestCookies(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	b, _ := p.signedUp(alice)
	b.submitSignOut()
	var got []*http.Cookie
	b.client.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		got = append(got, r.Response.Cookies()...)
		return nil
	}
	b.signIn(alice, goodPrimary).get("/security").submit("/language language=de", nil)
	var names []string
	for _, c := range got {
		names = append(names, c.Name)
		if !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" {
			t.Errorf("%s", c)
		}
	}
	slices.Sort(names)
	if names := slices.Compact(names); len(names) != 3 {
		t.Errorf("the cookies are %q", names)
	}
}

// What another site sends in a person's name changes nothing.
func TestOtherSites(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	b, a := p.signedUp(alice)
	before := len(p.events(a))
	for name, header := range map[string]http.Header{
		"cross-site":      {"Sec-Fetch-Site": {"cross-site"}},
		"same-site":       {"Sec-Fetch-Site": {"same-site"}},
		"other origin":    {"Origin": {"https://evil.example"}},
		"null origin":     {"Origin": {"null"}},
		"plain-text twin": {"Origin": {"https://localhost:8443"}},
	} {
		for _, path := range []string{"/sign-out", "/sign-in", "/language", "/security", "/security/recovery", "/security/sessions/end", "/passkey/prove", "/set-up/kept", "/no/such"} {
			r, _ := http.NewRequest("POST", b.site+path, strings.NewReader(url.Values{"language": {"de"}, "zone": {"UTC"}}.Encode()))
			r.Header = header.Clone()
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if b.do(r); b.status != http.StatusForbidden {
				t.Errorf("POST %s, %s: %d", path, name, b.status)
			}
		}
	}
	b.get("/security").at("/security")
	if got := p.events(a); len(got) != before {
		t.Errorf("the history has grown: %s", got)
	}
}

func TestWithoutASession(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	for path, want := range map[string]string{
		"/": "/sign-in", "/security": "/sign-in?to=%2Fsecurity", "/sign-in/factor": "/sign-in", "/set-up": "/sign-in", "/security/app": "/sign-in",
		"/security/passkey": "/sign-in", "/security/primary": "/sign-in", "/security/recovery": "/sign-in", "/security/factors/1": "/sign-in", "/security/factors/1/remove": "/sign-in",
	} {
		p.browser().get(path).at(want)
	}
	for _, path := range []string{"/sign-in/factor", "/set-up", "/set-up/kept", "/recovery-codes", "/security", "/security/app", "/security/passkey", "/security/primary",
		"/security/recovery", "/security/factors/1", "/security/factors/1/remove", "/security/sessions/1/end", "/security/sessions/end"} {
		p.browser().post(path, nil).at("/sign-in")
	}
	// A cookie that is none of ours is no session. It is left alone: of a form that was sent twice, the second brings the cookie that the first
	// has just replaced, and must not take the new one away.
	b := p.browser()
	site, _ := url.Parse(b.site)
	b.client.Jar.SetCookies(site, []*http.Cookie{{Name: sessionCookie, Value: strings.Repeat("A", 43), Secure: true, Path: "/"}})
	if b.get("/security").at("/sign-in?to=%2Fsecurity&ended"); b.cookie(sessionCookie) == "" {
		t.Error("the cookie was taken away")
	}
}

func TestLargeForms(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	b := p.browser().post("/sign-in", url.Values{"password": {strings.Repeat("x", maxBody)}})
	if b.status != http.StatusRequestEntityTooLarge {
		t.Errorf("%d", b.status)
	}
	if b := p.browser().post("/sign-in", url.Values{"a": make([]string, 20_000)}); b.status != http.StatusBadRequest { // no defect of ours
		t.Errorf("20,000 fields: %d", b.status)
	}
	b.post("/invitation/"+strings.Repeat("x", 3000), nil).says("not valid any more")
	for n := range b.elements("script") {
		if n.FirstChild != nil && n.FirstChild.Type == html.TextNode {
			t.Error("a script stands in the page")
		}
	}
}

// Who has just connected when the server drains, at a reload say, is answered.
func TestDrainAnswersNewcomers(t *testing.T) {
	t.Parallel()
	s, err := New(Options{Site: "https://example.test"})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, drain := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- s.Serve(ctx, t.Context(), ln) }()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	fmt.Fprint(nc, "GET /assets/none HTTP/1.1\r\n")
	time.Sleep(100 * time.Millisecond) // it is accepted
	drain()
	time.Sleep(200 * time.Millisecond)
	fmt.Fprint(nc, "Host: example.test\r\n\r\n")
	if r, err := http.ReadResponse(bufio.NewReader(nc), nil); err != nil || r.StatusCode != http.StatusNotFound {
		t.Errorf("got %v, %v", r, err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
