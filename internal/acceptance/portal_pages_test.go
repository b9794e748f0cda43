package acceptance

import (
	"fmt"
	"strings"
	"testing"

	"postern/internal/testlab"
)

// look has a page looked at as different people see it: on a desk and on a phone, by day and by night, by a screen reader. Axe takes long, and sees both
// windows and both colours in two looks.
func (a *person) look(name string) {
	a.t.Helper()
	a.Desktop().FitsWidth().Screenshot(name + "-desktop")
	a.Dark().Axe().Screenshot(name + "-dark")
	a.Light().Phone().Axe().FitsWidth().Screenshot(name + "-phone")
	a.Desktop()
	title := a.Title()
	if main, _, ok := strings.Cut(title, " – "); !ok || main == "" || !strings.HasSuffix(title, "Example Choir") {
		a.t.Errorf("%s has the title %q", name, title)
	}
}

// Every page can be used with a screen reader, a keyboard and a phone, by day and by night.
func TestPortalPages(t *testing.T) {
	t.Parallel()
	s, dovecot := newSite(t), testlab.Dovecot(t)
	s.backend = dovecotBackend(t, dovecot, s.dir) + davBackend("nobody", "http://127.0.0.1:9")
	p := openPortal(t, s, "")
	a := p.visitor(t, alice)
	a.Zone("Europe/Berlin")
	link := p.invite(t, alice)
	a.open("/sign-in")
	a.look("sign-in")
	a.Fill("Email address", alice).Fill("Primary password", "wrong").Click("Sign in").HasText("wrong")
	a.look("sign-in-refused")
	a.open(link)
	a.look("invitation")
	a.choosePrimary()
	a.look("set-up")
	a.Click("Type in the key instead")
	a.look("set-up-typed")
	a.scan()
	a.Fill("Type in the six digits that the app shows now", a.code()).In("With an authenticator app").Click("Go on").HasText("Recovery codes")
	a.look("recovery-codes")
	a.keepCodes()
	a.At("/passwords")
	a.look("no-app-passwords")
	a.open("/passwords/new")
	a.look("new")
	a.Click("Adjust exactly").Click("Only from certain networks").Fill("Which app or device is it for?", "Wide").Fill("Networks or addresses", "nonsense").Click("Make app password").HasText("Choose what it may open.")
	a.look("new-refused")
	var secret string
	for _, app := range []string{"Thunderbird", "Outlook", "iPhone, iPad or Mac", "DAVx⁵ (Android)", "Another app or device"} {
		preset := map[string]string{"Outlook": "Mail", "DAVx⁵ (Android)": "Calendars and contacts"}[app]
		if preset == "" {
			preset = "Mail, calendars and contacts"
		}
		secret = a.make("My "+app, preset, func() { a.Choose("Which app do you want to set up?", app) })
		a.look("made-" + app)
	}
	a.Reload().HasText("It was made already")
	a.look("made-already")
	long := strings.Repeat("W", 100)
	a.make(long, "Mail", func() {
		a.Click("Only from certain networks").Fill("Networks or addresses", "2001:db8:1111:2222:3333:4444:5555:6666\n192.0.2.0/24").Tick("In 30 days")
	})
	p.login(p.gateway, alice, secret)
	a.open("/passwords").HasText("Connected now")
	a.look("app-passwords")
	a.Click("My Another app").HasText("Connected now")
	a.look("app-password")
	a.Click("Change")
	a.look("change")
	a.open("/passwords").Click(long)
	a.look("app-password-long")
	a.Click("Revoke")
	a.look("revoke")
	a.Click("Revoke").HasText("is revoked")
	a.look("revoked")
	a.open("/passwords?ended")
	a.look("ended")
	a.open("/passwords/revoke-all")
	a.look("revoke-all")
	a.open("/history")
	a.look("history")
	other := a.elsewhere()
	other.signIn()
	a.open("/security")
	a.look("security")
	a.Click("Add an authenticator app")
	a.look("add-app")
	a.open("/security/passkey")
	a.look("add-passkey")
	a.open("/security").Click("Rename “Authenticator app”")
	a.look("rename")
	a.open("/security/recovery")
	a.look("new-codes")
	a.tire()
	a.open("/security/primary").HasText("Confirm that it is you")
	a.look("confirm")
	a.Fill("Code from your authenticator app", a.code()).Click("Go on").HasText("The new primary password again")
	a.look("primary")
	next := "another " + strong
	a.Fill("Primary password so far", a.primary).Fill("New primary password", next).Fill("The new primary password again", next).Click("Change the password").HasText("Primary password changed")
	a.look("primary-changed")
	other.open("/passwords").At("/sign-in")
	other.primary = next
	other.givePrimary().HasText("Second factor")
	other.look("second-factor")
	a.open("/nowhere")
	a.look("not-found")
}

// The same in German, on a phone, where words are longer; and the language is chosen at the foot of a page.
func TestPortalInGerman(t *testing.T) {
	t.Parallel()
	p := openPortal(t, newSite(t), "")
	a := p.person(t, alice)
	a.Phone()
	a.open("/passwords").Click("Deutsch").HasText("App-Passwörter")
	for i, path := range []string{"/passwords", "/passwords/new", "/security", "/history", "/security/app", "/security/passkey", "/security/primary", "/security/recovery", "/passwords/revoke-all", "/nowhere"} {
		a.open(path).FitsWidth().Screenshot(fmt.Sprintf("de-%d", i))
		var lang string
		if a.Eval("document.documentElement.lang", &lang); lang != "de" {
			t.Errorf("%s is in %q", path, lang)
		}
	}

	// It stays with the account, and a browser in German is answered so from the first page on.
	b := a.elsewhere()
	b.Languages("de-AT,en")
	b.open("/sign-in").HasText("Passwort")
	b.open("/sign-in").Click("English").HasText("Primary password")
}

// Times are the reader's.
func TestPortalTimes(t *testing.T) {
	t.Parallel()
	p := openPortal(t, newSite(t), "")
	a := p.visitor(t, alice)
	a.Zone("Asia/Tokyo")
	a.open(p.invite(t, alice))
	a.choosePrimary()
	a.setUp()
	a.HasText("Times are those of Asia/Tokyo.")
	a.open("/history").HasText("JST")
	a.open("/security").Choose("Time zone", "Berlin").In("Time zone").Click("Save").HasText("Language and time zone are noted.", "Times are those of Europe/Berlin.")
	a.open("/history").HasText("CET")
}

// Everything but passkeys works without script.
func TestPortalWithoutScript(t *testing.T) {
	t.Parallel()
	s, dovecot := newSite(t), testlab.Dovecot(t)
	s.backend = dovecotBackend(t, dovecot, s.dir)
	p := openPortal(t, s, "")
	a := p.visitor(t, alice)
	a.WithoutScript()
	a.open(p.invite(t, alice))
	a.choosePrimary()
	a.HasText("Passkeys need JavaScript.")
	a.scan()
	a.Fill("Type in the six digits that the app shows now", a.code()).In("With an authenticator app").Click("Go on").HasText("Recovery codes")
	name, content := a.Download(func() { a.Click("Save as a file") })
	a.keepCodes()
	if name != "recovery-codes.txt" || !strings.Contains(string(content), a.recovery[9]) || !strings.Contains(string(content), alice) {
		t.Errorf("%s: %s", name, content)
	}
	a.At("/passwords")
	secret := a.make("Laptop", "Mail", func() { a.Click("Only from certain networks").Fill("Networks or addresses", "127.0.0.0/8") })
	if a.Has("Copy app password") {
		t.Error("without script there is a button to copy")
	}
	c := p.login(p.gateway, alice, secret)
	a.Click("Done").HasText("Laptop").Click("Laptop").Click("Change").Fill("Which app or device is it for?", "Old laptop").Click("Save").HasText("Saved.", "Old laptop")
	a.open("/history").HasText("“Laptop” to “Old laptop”")
	if _, content := a.Download(func() { a.Click("Download as a table (CSV)") }); !strings.Contains(string(content), "Old laptop") {
		t.Errorf("CSV: %s", content)
	}
	a.open("/passwords").Click("Old laptop").Click("Revoke").Click("Revoke").HasText("done everywhere")
	if err := c.Noop().Wait(); err == nil {
		t.Error("the app is still connected")
	}
	a.open("/security").Click("Rename “Authenticator app”").Fill("Name", "Phone").Click("Save").HasText("The new name is noted.")
	a.Click("Add an authenticator app")
	old, last := a.seed, *a.last
	a.scan()
	a.Fill("Type in the six digits", a.code()).Fill("Name", "Tablet").Click("Add").HasText("The authenticator app is added.", "Tablet")
	a.Click("Remove “Tablet”").Click("Remove").HasText("The second factor is removed.")
	a.seed, *a.last = old, last
	a.tire()
	a.Click("Make new recovery codes").Fill("Code from your authenticator app", a.code()).Click("Make new codes").HasText("new recovery codes")
	a.keepCodes()
	a.open("/security").Click("Deutsch").HasText("Sicherheit").Click("English").HasText("Security")
	next := "another " + strong
	a.Click("Change the primary password").Fill("Primary password so far", a.primary).Fill("New primary password", next).Fill("The new primary password again", next).Click("Change the password").HasText("Primary password changed")
	a.Click("Sign out").HasText("You are signed out.", "Passkeys need JavaScript.")
	a.primary = next
	a.signIn()
}

// Somebody with a keyboard alone gets in.
func TestPortalKeyboard(t *testing.T) {
	t.Parallel()
	p := openPortal(t, newSite(t), "")
	a := p.person(t, alice)
	a.Click("Sign out")
	a.open("/sign-in").Press("Tab")
	if got := a.Focused(); got != "To the content" {
		t.Errorf("the first thing that Tab reaches is %q", got)
	}
	a.Press("Enter")
	var seen []string
	for range 4 {
		a.Press("Tab")
		seen = append(seen, strings.TrimSpace(a.Focused()))
	}
	if want := "Email address|Primary password|Sign in"; !strings.HasPrefix(strings.Join(seen, "|"), want) {
		t.Errorf("behind it Tab reaches %q, want %s", seen, want)
	}
	a.open("/sign-in").Fill("Email address", a.address).Fill("Primary password", a.primary).Press("Enter").HasText("Second factor")
	a.Fill("Code from your authenticator app", a.code()).Press("Enter").At("/passwords")
}
