package acceptance

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-imap/v2"

	"postern/authstore"
	"postern/internal/testlab"
)

// everything is a portal in front of a server for each protocol.
type everything struct {
	*portal
	postfix     *testlab.PostfixServer
	pop3, sieve string // host:port; TLS, STARTTLS
}

func portalOfEverything(t *testing.T) *everything {
	t.Helper()
	s := newSite(t)
	postfix, radicale := testlab.Postfix(t), testlab.Radicale(t)
	dovecot := testlab.Dovecot(t, testlab.POP3(), testlab.Sieve())
	radicale.MakeCalendar(alice, "personal")
	radicale.MakeAddressBook(alice, "friends")
	radicale.Put(alice, "/"+alice+"/personal/x.ics", testlab.Event("x"))
	radicale.Put(alice, "/"+alice+"/friends/enzo.vcf", testlab.Card("enzo"))
	dovecot.Deliver(alice, "INBOX", testlab.Mails()[0])
	rename := func(name, backend string) string {
		return strings.Replace(backend, `name = "dovecot"`, `name = "`+name+`"`, 1)
	}
	s.backend = dovecotBackend(t, dovecot, s.dir) + rename("pop", otherBackend(t, dovecot, t.TempDir(), "pop3", dovecot.POP3, "")) +
		rename("sieve", otherBackend(t, dovecot, t.TempDir(), "managesieve", dovecot.Sieve, "")) +
		submissionBackend("postfix", postfix.Submission, postfix.CAFile, xclient) + davBackend("radicale", radicale.URL)
	ports := testlab.Ports(t, 2)
	e := &everything{postfix: postfix, pop3: fmt.Sprintf("127.0.0.1:%d", ports[0]), sieve: fmt.Sprintf("127.0.0.1:%d", ports[1])}
	s.doors = fmt.Sprintf("  { protocol = \"pop3\", address = %q },\n  { protocol = \"managesieve\", address = %q },\n", e.pop3, e.sieve)
	e.portal = openPortal(t, s, "")
	return e
}

// make fills in the form, and returns the secret that is shown.
func (a *person) make(label, preset string, more ...func()) string {
	a.t.Helper()
	a.open("/passwords/new").Fill("Which app or device is it for?", label).Tick(preset)
	for _, f := range more {
		f()
	}
	a.Click("Make app password").HasText("Your new app password", label)
	return a.secret()
}

func (a *person) secret() string {
	a.t.Helper()
	var secret string
	a.Eval(`document.getElementById("secret").textContent.trim()`, &secret)
	if !regexp.MustCompile(`^[0-9a-zA-Z]+(-[0-9a-zA-Z]+)+$`).MatchString(secret) {
		a.t.Fatalf("the secret is shown as %q", secret)
	}
	return secret
}

// opens tries all that an app could do with a secret, at once: each refusal takes its time. A try that ends early fails the test too.
func (e *everything) opens(t *testing.T, address, secret string) (can []string) {
	t.Helper()
	tlsConn := func(address string) net.Conn {
		conn, err := dialAny(e.site, address, true)
		if err != nil {
			t.Error(err)
			runtime.Goexit()
		}
		return conn
	}
	dav := func(method, path, body, kind string) bool {
		status, _, _ := e.do(e.gateway, address, secret, method, path, body, "Content-Type", kind)
		return status >= 200 && status < 300
	}
	home := "/" + e.publicID(e.gateway) + "/"
	tries := []struct {
		what []string // in this order; all behind the last that went well are refused
		do   func() int
	}{
		{[]string{"read mail", "change mail"}, func() int {
			c := e.dial(e.gateway, nil)
			defer c.Close()
			if err := c.Login(address, secret).Wait(); err != nil {
				return 0
			}
			_, err := c.Select("INBOX", nil).Wait()
			if _, store := c.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagFlagged}}, nil).Collect(); err != nil || store != nil {
				return 1
			}
			return 2
		}},
		{[]string{"send"}, func() int {
			m := newMailer(t, tlsConn(e.submit))
			defer m.Close()
			m.ask("250 ", "EHLO phone.example")
			fmt.Fprintf(m, "AUTH PLAIN %s\r\n", plainResponse(address, secret))
			reply, _ := m.hear()
			return count(strings.HasPrefix(reply, "235 "))
		}},
		{[]string{"pop"}, func() int {
			k := newPopper(t, tlsConn(e.pop3))
			defer k.Close()
			k.wants("", "+OK")
			k.wants("USER "+address, "+OK")
			fmt.Fprintf(k, "PASS %s\r\n", secret)
			line, _ := k.r.ReadString('\n')
			return count(strings.HasPrefix(line, "+OK"))
		}},
		{[]string{"filter"}, func() int { return count(e.sieveOpens(t, address, secret)) }},
		{[]string{"see calendars"}, func() int { return count(dav("GET", "/dav/cal"+home+"personal/x.ics", "", "text/calendar")) }},
		{[]string{"change calendars"}, func() int {
			return count(dav("PUT", "/dav/cal"+home+"personal/y.ics", testlab.Event("y"), "text/calendar"))
		}},
		{[]string{"see contacts"}, func() int { return count(dav("GET", "/dav/card"+home+"friends/enzo.vcf", "", "text/vcard")) }},
		{[]string{"change contacts"}, func() int {
			return count(dav("PUT", "/dav/card"+home+"friends/ada.vcf", testlab.Card("ada"), "text/vcard"))
		}},
	}
	could := make([]int, len(tries))
	var all sync.WaitGroup
	for i, try := range tries {
		all.Go(func() { could[i] = try.do() })
	}
	all.Wait()
	for i, try := range tries {
		can = append(can, try.what[:could[i]]...)
	}
	return can
}

func count(ok bool) int {
	if ok {
		return 1
	}
	return 0
}

func (e *everything) sieveOpens(t *testing.T, address, secret string) bool {
	t.Helper()
	s := &sieveSite{site: e.site, gateway: e.gateway, sieve: e.sieve, t: t}
	k, _ := s.startTLS()
	defer k.Close()
	fmt.Fprintf(k, "AUTHENTICATE \"PLAIN\" %q\r\n", plainResponse(address, secret))
	line, _ := k.r.ReadString('\n')
	return strings.HasPrefix(line, "OK")
}

// Each preset opens what it says, with the secret that is shown, and nothing beyond.
func TestPortalPresets(t *testing.T) {
	t.Parallel()
	e := portalOfEverything(t)
	a := e.person(t, alice)
	a.HasText("You have no app passwords.").Screenshot("no-app-passwords").Click("Make the first app password").HasText("What may it open?")
	for preset, want := range map[string][]string{
		"Mail, calendars and contacts": {"read mail", "change mail", "send", "filter", "see calendars", "change calendars", "see contacts", "change contacts"},
		"Mail":                         {"read mail", "change mail", "send", "filter"},
		"Mail by POP3":                 {"send", "pop"},
		"Sending mail only":            {"send"},
		"Mail, read only":              {"read mail"},
		"Calendars and contacts":       {"see calendars", "change calendars", "see contacts", "change contacts"},
		"Calendars":                    {"see calendars", "change calendars"},
		"Contacts":                     {"see contacts", "change contacts"},
		"Calendars, read only":         {"see calendars"},
	} {
		secret := a.make("for "+preset, preset)
		var both sync.WaitGroup
		both.Go(func() {
			if got := e.opens(t, bob, secret); got != nil {
				t.Errorf("%s: under another's name it opens %q", preset, got)
			}
		})
		for typed, secret := range map[string]string{"as shown": secret, "in capitals, without dashes": strings.ToUpper(strings.ReplaceAll(secret, "-", ""))} {
			if typed != "as shown" && preset != "Mail" {
				continue
			}
			if got := e.opens(t, alice, secret); !slices.Equal(got, want) {
				t.Errorf("%s, %s: opens %q, want %q", preset, typed, got, want)
			}
		}
		both.Wait()
	}
	secret := a.make("exactly", "Mail", func() {
		a.Click("Adjust exactly").Tick("Read mail, change nothing (IMAP)").Tick("See contacts, change nothing (CardDAV)")
	})
	if got, want := e.opens(t, alice, secret), []string{"read mail", "see contacts"}; !slices.Equal(got, want) {
		t.Errorf("exact scopes open %q, want %q", got, want)
	}
	a.open("/passwords").HasText("Mail (read only) and contacts (read only)")
	if n := strings.Count(a.Text(), "Made on"); n != len(authstore.Presets)+1 {
		t.Errorf("the list shows %d app passwords", n)
	}
}

// The secret is shown once: it can be copied, and neither Done nor Back nor a reload shows it again or makes another.
func TestPortalSecretIsShownOnce(t *testing.T) {
	t.Parallel()
	s, dovecot := newSite(t), testlab.Dovecot(t)
	s.backend = dovecotBackend(t, dovecot, s.dir) + davBackend("nobody", "http://127.0.0.1:9")
	p := openPortal(t, s, "")
	a := p.person(t, alice)
	a.AllowClipboard()
	secret := a.make("Thunderbird", "Mail, calendars and contacts", func() { a.Choose("Which app do you want to set up?", "Thunderbird") })
	if got := a.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q", got)
	}
	a.Click("Copy app password").HasText("Copied")
	if got := a.Clipboard(); got != secret {
		t.Errorf("copied %q, shown %q", got, secret)
	}
	p.login(p.gateway, alice, a.Clipboard())
	_, imaps, _ := strings.Cut(p.IMAP, ":")
	a.HasText("localhost", imaps, alice, "SSL/TLS", p.DAV).Screenshot("new-app-password")
	a.In("User name").Click("Copy")
	if got := a.Clipboard(); got != alice {
		t.Errorf("copied %q as user name", got)
	}

	if a.Has("Deutsch") {
		t.Error("the choice of a language would lead away from the secret")
	}
	a.Reload().HasText("It was made already", "Thunderbird").HasNoText(secret)
	a.Expect("net::ERR_CACHE_MISS") // the browser would have to send the form again, and asks first
	a.Back().HasNoText(secret)
	a.Forward().HasNoText(secret)
	second := a.make("Phone", "Mail")
	a.Click("Done").HasText("Phone", "Thunderbird").HasNoText(second)
	if text := a.Back().Text(); strings.Contains(text, second) {
		t.Errorf("Back shows the secret again")
	}
	if got := p.cli(p.config, "password", "list", alice); strings.Count(got, "Thunderbird") != 1 || strings.Count(got, "Phone") != 1 {
		t.Errorf("made: %s", got)
	}

	// An impatient person clicks twice; somebody without script sends twice.
	a.open("/passwords/new").Fill("Which app or device is it for?", "Twice").Tick("Mail").DoubleClick("Make app password").HasText("Your new app password", "Twice")
	b := a.elsewhere()
	b.WithoutScript()
	b.signIn()
	b.open("/passwords/new").Fill("Which app or device is it for?", "Thrice").Tick("Mail").DoubleClick("Make app password").HasText("Thrice")
	form := url.Values{"label": {"Race"}, "preset": {"mail"}, "expires": {"never"}, "app": {"other"}, "request": {"0123456789ABCDEF"}}
	var shown, before int
	for _, body := range p.postAtOnce(t, a, "/passwords/new", form, 8) {
		if strings.Contains(body, `id="secret"`) {
			shown++
		}
		if strings.Contains(body, "It was made already") {
			before++
		}
	}
	if shown != 1 || before != 7 {
		t.Errorf("of 8 requests with one form %d show a secret and %d say that it was made", shown, before)
	}
	for _, label := range []string{"Twice", "Thrice", "Race"} {
		if n := strings.Count(p.cli(p.config, "password", "list", alice), label); n != 1 {
			t.Errorf("%s was made %d times", label, n)
		}
	}
}

// postAtOnce sends a form n times at once, as the person's browser would, and returns the pages.
func (p *portal) postAtOnce(t *testing.T, a *person, path string, form url.Values, n int) []string {
	t.Helper()
	client := a.Client(p.ca)
	pages := make([]string, n)
	var sent sync.WaitGroup
	for i := range pages {
		sent.Go(func() {
			req, _ := http.NewRequest("POST", p.url+path, strings.NewReader(form.Encode()))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Origin", p.url)
			req.Header.Set("Sec-Fetch-Site", "same-origin")
			resp, err := client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			page, _ := io.ReadAll(resp.Body)
			pages[i] = string(page)
		})
	}
	sent.Wait()
	return pages
}

// An app password is looked at, changed and revoked; what apps do with it shows.
func TestPortalAppPasswords(t *testing.T) {
	t.Parallel()
	s, dovecot := newSite(t), testlab.Dovecot(t)
	s.backend = dovecotBackend(t, dovecot, s.dir)
	p := openPortal(t, s, "")
	a := p.person(t, alice)

	// Use shows at once.
	secret := a.make("Laptop", "Mail")
	open := p.login(p.gateway, alice, secret)
	a.open("/passwords").HasText("Laptop", "Connected now")
	a.Click("Laptop").HasText("Connected now", "mail", "127.0.0.1")

	// Renamed, and bound to a network; the app goes on or not at once.
	a.Click("Change").Fill("Which app or device is it for?", "Old laptop").Click("Save").HasText("Saved.", "Old laptop")
	a.Click("Change").Click("Only from certain networks").Fill("Networks or addresses", "nonsense").Click("Save").HasText("“nonsense” is no address and no network")
	a.Fill("Networks or addresses", "192.0.2.0/24 2001:db8::/32").Click("Save").HasText("Saved.", "192.0.2.0/24", "2001:db8::/32")
	p.wantRefused(t, alice, secret)
	eventually(t, "the session from elsewhere has ended", func() bool { return open.Noop().Wait() != nil })

	// It shows later too: where from, how often. It is written every ten seconds.
	eventually(t, "the use shows", func() bool { return strings.Contains(a.open("/passwords").Text(), "127.0.0.") })
	a.Click("Old laptop").HasText("mail", "127.0.0.", "No app is connected").Screenshot("app-password")
	a.Click("Change").Fill("Networks or addresses", "127.0.0.0/8").Click("Save").HasText("Saved.")
	open = p.login(p.gateway, alice, secret)

	// It expires when its owner says; never before it is made.
	a.Click("Change").Tick("In 30 days").Click("Save").HasText("Saved.").HasNoText("Expires never")
	a.open("/passwords/new").Fill("Which app or device is it for?", "Late").Tick("Mail").Tick("On a date").Fill("Last day on which it works", "2020-01-01")
	a.Eval(`document.querySelectorAll("form").forEach(f => f.noValidate = true)`, nil)
	a.Click("Make app password").HasText("That day is over.")
	if got := a.Value("Which app or device is it for?"); got != "Late" {
		t.Errorf("after a refusal the name is %q", got)
	}

	// Revoked: the page says what will sign out, and when it is done everywhere it is.
	a.open("/passwords").Click("Old laptop").Click("Revoke").HasText("Will be signed out: one connection").Screenshot("revoke")
	a.Click("Cancel").Click("Revoke").Click("Revoke").HasText("“Old laptop” is revoked", "done everywhere").Screenshot("revoked")
	if err := open.Noop().Wait(); err == nil {
		t.Error("the page says that connections are closed, and one is not")
	}
	p.wantRefused(t, alice, secret)
	a.open("/passwords").HasNoText("Old laptop").Click("Show those that have ended").HasText("Old laptop", "revoked on")
	eventually(t, "the refused login shows", func() bool {
		a.open("/passwords?ended").Click("Old laptop")
		return strings.Contains(a.Text(), "Refused means")
	})

	// The history tells it all, in a table too.
	a.open("/history").HasText("The app password “Old laptop” was revoked.", "was made", "“Laptop” to “Old laptop”").Screenshot("history")
	a.make("=HYPERLINK(\"http://evil.test\")", "Mail")
	a.open("/history").In("Administration").Click("App passwords").HasText("Old laptop").HasNoText("You signed in.")
	a.Click("Second factors").HasNoText("Old laptop")
	name, content := a.open("/history").Download(func() { a.Click("Download as a table (CSV)") })
	rows, err := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(content, []byte("\ufeff")))).ReadAll()
	if err != nil || name != "history.csv" || len(rows) < 6 || !slices.Contains(rows[0], "When") {
		t.Errorf("%s: %v\n%s", name, err, content)
	}
	for _, row := range rows {
		for _, cell := range row {
			if cell != "" && strings.ContainsRune("=+-@", rune(cell[0])) {
				t.Errorf("a spreadsheet would run the cell %q", cell)
			}
		}
	}

	// After five minutes a second factor is asked for, and what was typed stays.
	a.tire()
	a.open("/passwords/new").Fill("Which app or device is it for?", "Fresh").Tick("Mail").Click("Adjust exactly").Tick("See and change contacts (CardDAV)")
	a.Fill("Code from your authenticator app", "000000").Click("Make app password").HasText("The code is wrong")
	a.Fill("Code from your authenticator app", a.code()).Click("Make app password").HasText("Your new app password", "Fresh", "Contacts")
	a.tire()
	a.open("/passwords").Click("Fresh").Click("Revoke").HasText("Confirm that it is you")
	a.Fill("Code from your authenticator app", a.code()).Click("Revoke").HasText("“Fresh” is revoked")

	// Revoke all.
	a.make("One", "Mail")
	a.make("Two", "Mail")
	a.open("/passwords").Click("Revoke all app passwords").HasText("One", "Two", "You have 3 app passwords").Click("Revoke all").HasText("All app passwords are revoked", "done everywhere")
	a.open("/passwords").HasText("You have no app passwords.")
}

// There are 25 and no more, also when two are made at once.
func TestPortalMost(t *testing.T) {
	t.Parallel()
	p := openPortal(t, newSite(t), "longest_days = 90")
	a := p.person(t, alice)
	form := func(n int) url.Values {
		return url.Values{"label": {"race"}, "preset": {"mail"}, "expires": {"30"}, "app": {"other"}, "request": {fmt.Sprintf("request%d", n)}}
	}
	p.password(p.config, alice, "--for", "mail", "--label", "by the administrator")
	for n := range 22 {
		if page := p.postAtOnce(t, a, "/passwords/new", form(100+n), 1)[0]; !strings.Contains(page, `id="secret"`) {
			t.Fatalf("number %d is not made:\n%s", n+2, page)
		}
	}

	// Here none lasts for ever.
	a.open("/passwords/new").HasText("at most 90 days")
	if slices.Contains(a.Names(), "Never") || slices.Contains(a.Names(), "In 365 days") {
		t.Errorf("there is more to choose than 90 days: %q", a.Names())
	}
	a.make("the 24th", "Mail")
	pages := make(chan []string)
	for n := range 3 {
		go func() { pages <- p.postAtOnce(t, a, "/passwords/new", form(n), 1) }()
	}
	made, full := 0, 0
	for range 3 {
		switch page := (<-pages)[0]; {
		case strings.Contains(page, `id="secret"`):
			made++
		case strings.Contains(page, "Meanwhile another app password was made"):
			full++
		}
	}
	if made != 1 || full != 2 {
		t.Errorf("at 24, three at once: %d made, %d refused", made, full)
	}
	never := form(4)
	never.Set("expires", "never")
	if page := p.postAtOnce(t, a, "/passwords/new", never, 1)[0]; strings.Contains(page, `id="secret"`) {
		t.Error("a forged form makes one that lasts for ever")
	}
	a.open("/passwords").HasText("You have 25 app passwords").Screenshot("full")
	if a.Has("New app password") {
		t.Error("a 26th is offered")
	}
	a.open("/passwords/new").HasText("You have 25 app passwords")
	a.open("/passwords").Click("the 24th").Click("Revoke").Click("Revoke").HasText("is revoked")
	a.make("the next", "Mail")
}
