package acceptance

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/internal/testlab"
)

// The people of the portal's tests, beside alice.
const (
	bob   = testlab.Bob
	carol = testlab.Carol
)

// strong is a primary password that no list knows.
const strong = "violet kettle orbits 9 quiet barns"

// portal is a site whose people have a portal, and a browser to look at it.
type portal struct {
	*site
	*gateway
	browser *testlab.Chromium
	url     string // https://localhost:port
	submit  string // host:port of submission, TLS
}

// openPortal starts a gateway with a portal. settings are lines of its [portal]; backends and what else there is stand in s.backend.
func openPortal(t *testing.T, s *site, settings string) *portal {
	t.Helper()
	ports := testlab.Ports(t, 2)
	p := &portal{site: s, url: fmt.Sprintf("https://localhost:%d", ports[0]), submit: fmt.Sprintf("127.0.0.1:%d", ports[1])}
	if s.backend == "" {
		s.backend = noBackend // for tests in which no app logs in
	}
	s.doors += fmt.Sprintf("  { protocol = \"portal\", address = \"127.0.0.1:%d\" },\n", ports[0])
	if strings.Contains(s.backend, `"submission"`) {
		s.doors += fmt.Sprintf("  { protocol = \"submission\", address = \"127.0.0.1:%d\" },\n", ports[1])
	}
	s.backend = fmt.Sprintf("\n[portal]\nurl = %q\nname = \"Example Choir\"\n%s\n", p.url, settings) + s.backend
	p.gateway = s.serve()
	p.browser = testlab.Browser(t, s.ca)
	return p
}

// sql changes the store behind the program's back: nobody waits for hours in a test.
func (p *portal) sql(t *testing.T, statement string) string {
	t.Helper()
	return strings.TrimSpace(testlab.Run(t, testlab.Command(t, "sqlite3", "-cmd", ".timeout 10000", filepath.Join(p.data, "postern.db"), statement)))
}

// invite adds an account and returns the path of the link that its owner gets.
func (p *portal) invite(t *testing.T, address string, args ...string) string {
	t.Helper()
	if !strings.Contains(p.cli(p.config, "account", "list"), address) {
		p.cli(p.config, "account", "add", address)
	}
	out := p.cli(p.config, append([]string{"account", "invite", address}, args...)...)
	link := regexp.MustCompile(regexp.QuoteMeta(p.url) + `(/invitation/\S+)`).FindStringSubmatch(out)
	if link == nil {
		t.Fatalf("account invite prints no link of %s: %s", p.url, out)
	}
	return link[1]
}

// person is one who uses the portal: a browser, and what its owner knows and has.
type person struct {
	*testlab.Page
	t        *testing.T
	p        *portal
	address  string
	primary  string
	seed     string // of the authenticator app
	last     *int64 // the time step of the last code, of all browsers
	recovery []string
}

// visitor opens a browser of somebody's.
func (p *portal) visitor(t *testing.T, address string) *person {
	t.Helper()
	name, _, _ := strings.Cut(address, "@")
	return &person{Page: p.browser.Page(t).Named(name), t: t, p: p, address: address, primary: strong, last: new(int64)}
}

// open goes to a path of the portal.
func (a *person) open(path string) *testlab.Page {
	a.t.Helper()
	return a.Open(a.p.url + path)
}

// elsewhere is the same person at another browser.
func (a *person) elsewhere() *person {
	b := *a
	b.Page = a.p.browser.Page(a.t).Named("elsewhere")
	return &b
}

// person has gone through invitation and set-up.
func (p *portal) person(t *testing.T, address string) *person {
	t.Helper()
	a := p.visitor(t, address)
	a.open(p.invite(t, address))
	a.choosePrimary()
	a.setUp()
	return a
}

// totp is what an authenticator app shows for a seed in a step of 30 seconds (RFC 6238).
func totp(t *testing.T, seed string, step int64) string {
	t.Helper()
	key, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(strings.ReplaceAll(seed, " ", "")))
	if err != nil {
		t.Fatalf("the seed %q: %v", seed, err)
	}
	mac := hmac.New(sha1.New, key)
	binary.Write(mac, binary.BigEndian, step)
	sum := mac.Sum(nil)
	at := sum[19] & 15
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[at:at+4])&0x7fffffff%1000000)
}

// code is what the authenticator app shows. Each is good once; so that a test need not wait half a minute for the next, the store forgets which was last.
func (a *person) code() string {
	a.t.Helper()
	now := time.Now().Unix() / 30
	if *a.last >= now {
		a.p.sql(a.t, fmt.Sprintf("UPDATE factor SET step = 0 WHERE account = (SELECT account FROM login_name WHERE address = '%s')", a.address))
	}
	*a.last = now
	return totp(a.t, a.seed, now)
}

// scan takes the seed from the page, as the phone's camera does.
func (a *person) scan() {
	a.t.Helper()
	var link, key string
	a.Eval(`document.querySelector('a[href^="otpauth:"]').href`, &link)
	u, err := url.Parse(link)
	if err != nil || u.Query().Get("secret") == "" {
		a.t.Fatalf("the link for the app is %q: %v", link, err)
	}
	a.seed, *a.last = u.Query().Get("secret"), 0
	a.Eval(`document.body.textContent.replace(/\s/g, "")`, &key)
	if !strings.Contains(key, a.seed) {
		a.t.Errorf("the key for typing is not that of the link")
	}
	if !strings.Contains(link, "Example%20Choir") || !strings.Contains(link, url.PathEscape(a.address)) && !strings.Contains(link, a.address) {
		a.t.Errorf("the app would call it %q", link)
	}
}

// choosePrimary answers the invitation's page.
func (a *person) choosePrimary() {
	a.t.Helper()
	a.HasText("This link is for " + a.address)
	a.Fill("New primary password", a.primary).Fill("The new primary password again", a.primary).Click("Go on")
}

// setUp sets up an authenticator app, keeps the recovery codes, and goes on to the app passwords.
func (a *person) setUp() {
	a.t.Helper()
	a.HasText("Set up your second factor")
	a.scan()
	a.Fill("Type in the six digits that the app shows now", a.code())
	a.In("With an authenticator app").Click("Go on").HasText("Recovery codes")
	a.keepCodes()
	a.At("/passwords")
}

// keepCodes notes the recovery codes that the page shows, and says so.
func (a *person) keepCodes() {
	a.t.Helper()
	a.recovery = nil
	a.Eval(`[...document.querySelectorAll("#codes li")].map(e => e.textContent.trim())`, &a.recovery)
	if len(a.recovery) != 10 {
		a.t.Fatalf("recovery codes: %q", a.recovery)
	}
	a.Tick("I have kept these codes").Click("Go on to the app passwords")
}

// givePrimary fills in the sign-in page.
func (a *person) givePrimary() *testlab.Page {
	a.t.Helper()
	a.open("/sign-in")
	return a.Fill("Email address", a.address).Fill("Primary password", a.primary).Click("Sign in")
}

// giveCode gives a second factor where the page asks for one.
func (a *person) giveCode(code string) *testlab.Page {
	a.t.Helper()
	return a.Fill("Code from your authenticator app, or a recovery code", code).Click("Go on")
}

// signIn signs in with the primary password and the authenticator app.
func (a *person) signIn() *person {
	a.t.Helper()
	a.givePrimary().HasText("Second factor")
	a.giveCode(a.code()).At("/passwords")
	return a
}

// tire makes the last second factor older than the five minutes for which it counts.
func (a *person) tire() {
	a.t.Helper()
	a.p.sql(a.t, fmt.Sprintf("UPDATE portal_session SET factor_at = factor_at - 301 WHERE account = (SELECT account FROM login_name WHERE address = '%s')", a.address))
}
