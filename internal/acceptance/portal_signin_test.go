package acceptance

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/testlab"
)

// From the administrator's link to being signed in, and what may go wrong on the way.
func TestPortalBegins(t *testing.T) {
	t.Parallel()
	p := openPortal(t, newSite(t), "")
	a := p.visitor(t, alice)
	link := p.invite(t, alice)

	// Whoever looks at the link, such as a mail scanner, does not use it up.
	p.visitor(t, alice).open(link).HasText("Welcome", alice)
	a.open(link).Screenshot("invitation")
	a.Fill("New primary password", "password12").Fill("The new primary password again", "password12").Click("Go on").HasText("easy to guess")
	a.Fill("New primary password", strong).Fill("The new primary password again", strong+"x").Click("Go on").HasText("not the same both times")
	a.choosePrimary()
	a.HasText("Set up your second factor").Screenshot("set-up")

	// Nothing else is open before the second factor is set up.
	for _, path := range []string{"/passwords", "/passwords/new", "/security", "/history", "/history.csv"} {
		if got := a.open(path).Path(); got != "/set-up" {
			t.Errorf("before the set-up %s leads to %s", path, got)
		}
	}
	a.scan()
	a.Fill("Type in the six digits that the app shows now", "000000").In("With an authenticator app").Click("Go on").HasText("The code is wrong")
	a.setUp()
	a.HasText("App passwords")

	// The link was used.
	p.visitor(t, alice).open(link).HasText("not valid any more")

	// The first page that a signed-out person sees is the sign-in. A wrong password, a name that nobody has, and a wrong code say no more than they must.
	a.Click("Sign out").HasText("You are signed out.")
	if got := a.open("/passwords").Path(); !strings.HasPrefix(got, "/sign-in") {
		t.Errorf("signed out, /passwords leads to %s", got)
	}
	for _, address := range []string{alice, "nobody@example.test"} {
		a.open("/sign-in").Fill("Email address", address).Fill("Primary password", "wrong").Click("Sign in").HasText("The address or the password is wrong.")
	}
	a.givePrimary().HasText("Second factor").Screenshot("second-factor")
	a.giveCode("000000").HasText("The code is wrong")
	code := a.code()
	a.giveCode(code).At("/passwords")

	// A code is taken once.
	b := a.elsewhere()
	b.givePrimary()
	b.giveCode(code).HasText("used before")

	// A recovery code takes its place, once, and then another browser.
	b.giveCode(a.recovery[3]).At("/passwords")
	c := a.elsewhere()
	c.givePrimary()
	c.giveCode(a.recovery[3]).HasText("used before")
	b.open("/security").HasText("9 codes are left.")
	b.Click("Make new recovery codes").HasText("9 codes")
	b.Click("Make new codes").HasText("These are your new recovery codes.")
	b.keepCodes()
	c.giveCode(a.recovery[4]).HasText("used before")
	c.giveCode(b.recovery[0]).At("/passwords")

	// Two who type the same recovery code at the same moment: one gets in.
	locations := make(chan string)
	for range 4 {
		e := a.elsewhere()
		e.givePrimary().HasText("Second factor")
		client := e.Client(p.ca)
		go func() {
			req, _ := http.NewRequest("POST", p.url+"/sign-in/factor", strings.NewReader("code="+b.recovery[1]))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Origin", p.url)
			resp, err := client.Do(req)
			if err != nil {
				locations <- err.Error()
				return
			}
			resp.Body.Close()
			locations <- resp.Header.Get("Location")
		}()
	}
	in := 0
	for range 4 {
		if <-locations == "/passwords" {
			in++
		}
	}
	if in != 1 {
		t.Errorf("one recovery code lets %d browsers in", in)
	}

	// The invitation of an administrator is the way back of who has lost everything: it ends what there was.
	again := p.invite(t, alice)
	d := a.elsewhere()
	d.primary = "another " + strong
	d.open(again)
	d.choosePrimary()
	d.setUp()
	if got := c.open("/passwords").Path(); !strings.HasPrefix(got, "/sign-in") {
		t.Errorf("after the new invitation the old session is at %s", got)
	}
	a.givePrimary().HasText("The address or the password is wrong.")
}

// Passkeys and security keys.
func TestPortalKeys(t *testing.T) {
	t.Parallel()
	p := openPortal(t, newSite(t), "")

	// A passkey is set up in place of an authenticator app, and signs in without a name or a password.
	a := p.visitor(t, alice)
	device := a.Authenticator(testlab.DeviceKey)
	a.open(p.invite(t, alice))
	a.choosePrimary()
	a.HasText("Set up your second factor").Fill("Name of this passkey", "My laptop").Click("Make a passkey").HasText("Recovery codes")
	a.keepCodes()
	a.At("/passwords").Click("Sign out")
	a.open("/sign-in").Click("Sign in with a passkey").At("/passwords")
	a.open("/security").HasText("My laptop").Screenshot("security")

	// It is a second factor too.
	a.Click("Sign out")
	a.givePrimary().HasText("Second factor").Click("Use a passkey or security key").At("/passwords")

	// A device that does not recognise its owner does not sign in alone.
	a.Click("Sign out")
	device.Verify(false)
	a.open("/sign-in").Click("Sign in with a passkey").HasText("That did not work.")
	device.Verify(true)

	// The passkey is known on another device of its owner's, and nothing at another's.
	b := a.elsewhere()
	b.Authenticator(testlab.DeviceKey).Add(device.Credentials()...)
	b.open("/sign-in").Click("Sign in with a passkey").At("/passwords")

	// A plain security key, without a PIN, is a second factor, and no more.
	carols := p.person(t, carol)
	key := carols.Authenticator(testlab.PlainKey)
	carols.open("/security").Click("Add a passkey or security key").Fill("Name of this passkey", "Key ring").Click("Make a passkey").HasText("The passkey is added.", "Key ring")
	carols.Click("Sign out")
	carols.givePrimary().Click("Use a passkey or security key").At("/passwords")
	if n := len(key.Credentials()); n != 1 {
		t.Errorf("the key keeps %d credentials", n)
	}
	carols.Click("Sign out")
	carols.open("/sign-in").Click("Sign in with a passkey").HasText("That did not work.")

	// Renaming, and removing but for the last.
	carols.signIn()
	carols.open("/security").Click("Rename “Key ring”").Fill("Name", "Key at home").Click("Save").HasText("The new name is noted.", "Key at home")
	carols.Click("Remove “Key at home”").HasText("Remove “Key at home”?").Click("Remove").HasText("The second factor is removed.").HasNoText("Key at home")
	if carols.Has("Remove “Authenticator app”") {
		t.Error("the only second factor can be removed")
	}
	carols.Click("Sign out")
	carols.givePrimary().HasText("Second factor")
	if carols.Has("Use a passkey or security key") {
		t.Error("the key that was removed is asked for")
	}
	carols.open("/sign-in")
}

// Sessions are listed, ended one by one and all, and end by themselves. What matters needs a fresh second factor.
func TestPortalSessions(t *testing.T) {
	t.Parallel()
	p := openPortal(t, newSite(t), "")
	a := p.person(t, alice)
	browsers := map[string]string{
		"Firefox": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
		"iPhone":  "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.0 Mobile/15E148 Safari/604.1",
	}
	others := make(map[string]*person)
	for name, agent := range browsers {
		others[name] = a.elsewhere()
		others[name].UserAgent(agent)
		others[name].signIn()
	}
	a.open("/security").HasText("Firefox on Linux", "Safari on iPhone", "this browser", "127.0.0.1").Screenshot("sessions")
	a.Click("Sign out Firefox on Linux").HasText("That browser is signed out.").HasNoText("Firefox on Linux")
	signedOut(t, others["Firefox"])
	others["iPhone"].open("/passwords").HasText("App passwords")

	// After five minutes the second factor is asked for again.
	a.tire()
	a.open("/security").Click("Sign out all other browsers").HasText("Confirm that it is you")
	a.Fill("Code from your authenticator app", "000000").Click("Sign out all other browsers").HasText("The code is wrong")
	a.Fill("Code from your authenticator app", a.code()).Click("Sign out all other browsers").HasText("All other browsers are signed out.")
	signedOut(t, others["iPhone"])
	for _, path := range []string{"/security/app", "/security/passkey", "/security/primary", "/security/recovery"} {
		a.tire()
		a.open(path).HasText("Confirm that it is you")
		a.Fill("Code from your authenticator app", a.recovery[0])
		a.recovery = a.recovery[1:]
		a.Press("Enter").HasNoText("Confirm that it is you", "The code is wrong")
	}

	// A session that nobody has used for half an hour has ended, and one that began twelve hours ago.
	a.p.sql(t, "UPDATE portal_session SET seen = seen - 1801")
	signedOut(t, a)
	a.signIn()
	a.p.sql(t, "UPDATE portal_session SET began = began - 43201")
	signedOut(t, a)
}

func signedOut(t *testing.T, a *person) {
	t.Helper()
	if got := a.open("/passwords").Path(); !strings.HasPrefix(got, "/sign-in") {
		t.Errorf("a browser that is signed out sees %s", got)
	}
}

// A new primary password ends all app passwords and all other sessions, and says so first.
func TestPortalPrimaryChange(t *testing.T) {
	t.Parallel()
	s, dovecot := newSite(t), testlab.Dovecot(t)
	s.backend = dovecotBackend(t, dovecot, s.dir)
	p := openPortal(t, s, "")
	a := p.person(t, alice)
	secret := p.password(p.config, alice, "--for", "mail", "--label", "Laptop").Secret
	open := p.login(p.gateway, alice, secret)
	other := a.elsewhere().signIn()

	const next = "granite spoons 42 under maple fog"
	a.open("/security").Click("Change the primary password").HasText("One app password ends", "Laptop").Screenshot("primary-password")
	a.Fill("Primary password so far", "wrong").Fill("New primary password", next).Fill("The new primary password again", next).Click("Change the password").HasText("The primary password so far is wrong.")
	a.Fill("Primary password so far", a.primary).Fill("New primary password", a.primary).Fill("The new primary password again", a.primary).Click("Change the password").HasText("That is the password you have already.")
	if err := open.Noop().Wait(); err != nil {
		t.Fatalf("the app's session ended before the primary password was changed: %v", err)
	}
	a.Fill("Primary password so far", a.primary).Fill("New primary password", next).Fill("The new primary password again", next).Click("Change the password").
		HasText("Primary password changed", "one app password has ended", "confirmed everywhere").Screenshot("primary-password-changed")
	p.wantRefused(t, alice, secret)
	eventually(t, "the app's session has ended", func() bool { return open.Noop().Wait() != nil })
	signedOut(t, other)
	a.open("/passwords").HasText("App passwords").HasNoText("Laptop")
	other.givePrimary().HasText("The address or the password is wrong.")
	other.primary = next
	other.signIn()
}

// wantRefused makes sure that IMAP refuses a secret.
func (p *portal) wantRefused(t *testing.T, address, secret string) {
	t.Helper()
	c := p.dial(p.gateway, nil)
	if err := c.Login(address, secret).Wait(); err == nil {
		t.Errorf("%s still logs in", address)
	}
}

// Accounts whose primary password is the mail server's.
func TestPortalIMAPSignIn(t *testing.T) {
	t.Parallel()
	s, dovecot := newSite(t), testlab.Dovecot(t)
	s.backend = dovecotBackend(t, dovecot, s.dir)
	p := openPortal(t, s, imapSignIn(dovecot))
	p.cli(p.config, "account", "add", alice)
	p.cli(p.config, "account", "add", bob)

	// The first sign-in leads through the set-up.
	a := p.visitor(t, alice)
	a.primary = "wrong"
	a.givePrimary().HasText("The address or the password is wrong.")
	a.primary = testlab.Primary(alice)
	a.givePrimary()
	a.setUp()
	a.open("/security").HasText("It is kept by your mail server")
	if a.Has("Change the primary password") {
		t.Error("the portal would change a password that is not its own")
	}
	secret := p.password(p.config, alice, "--for", "mail", "--label", "Laptop").Secret
	open := p.login(p.gateway, alice, secret)
	other := a.elsewhere().signIn()

	// A wrong password, and a server that is gone, end nothing.
	wrong := a.elsewhere()
	wrong.primary = "wrong"
	wrong.givePrimary().HasText("The address or the password is wrong.")
	dovecot.Pause()
	wrong.primary = a.primary
	began := time.Now()
	wrong.givePrimary().HasText("Signing in is not possible at the moment")
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the answer took %v", took)
	}
	dovecot.Resume()
	p.WaitLine("primary passwords can't be checked")
	other.open("/passwords").HasText("Laptop")
	if err := open.Noop().Wait(); err != nil {
		t.Fatalf("the app's session: %v", err)
	}

	// The first sign-in with a changed password ends all app passwords and all that is signed in.
	dovecot.SetPrimary(alice, "changed at the mail server")
	p.login(p.gateway, alice, secret).Logout()
	again := a.elsewhere()
	again.primary = "changed at the mail server"
	again.signIn().HasNoText("Laptop")
	p.wantRefused(t, alice, secret)
	eventually(t, "the app's session has ended", func() bool { return open.Noop().Wait() != nil })
	signedOut(t, a)
	signedOut(t, other)
	again.open("/history").HasText("primary password")
	wrong.primary = testlab.Primary(alice)
	wrong.givePrimary().HasText("The address or the password is wrong.")
	for _, secret := range []string{testlab.Primary(alice), again.primary} {
		if strings.Contains(p.Output(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// imapSignIn are the lines of [portal] that have a Dovecot check the primary passwords.
func imapSignIn(d *testlab.DovecotServer) string {
	return "sign_in = \"imap\"\n[portal.imap]\naddress = \"" + d.IMAPS + "\"\nca_file = \"" + d.CAFile + "\"\n"
}

// Where an invitation is needed, the mail server's password alone sets nothing up.
func TestPortalIMAPInvited(t *testing.T) {
	t.Parallel()
	s, dovecot := newSite(t), testlab.Dovecot(t)
	s.backend = dovecotBackend(t, dovecot, s.dir)
	p := openPortal(t, s, "enrolment = \"invite\"\n"+imapSignIn(dovecot))
	link := p.invite(t, alice)
	a := p.visitor(t, alice)
	a.primary = testlab.Primary(alice)
	a.givePrimary().HasText("Ask your administrator for an invitation link.")
	a.open(link).Fill("Primary password", "wrong").Click("Go on").HasText("That is not your primary password.")
	a.Fill("Primary password", a.primary).Click("Go on")
	a.setUp()
	a.Click("Sign out")
	a.signIn()
}

// Somebody who tries out passwords or codes is stopped, and who knows them and sits at a browser that has signed in before is not.
func TestPortalGuessing(t *testing.T) {
	t.Parallel()
	p := openPortal(t, newSite(t), "")
	a := p.person(t, alice)
	a.Click("Sign out")
	// All at once, for those who guess do not wait for an answer either.
	guess := func(address string) (taken int) {
		thief := p.visitor(t, address)
		thief.primary = "guessed"
		thief.givePrimary().HasText("The address or the password is wrong.")
		form := url.Values{"address": {address}, "password": {"guessed"}}
		for _, page := range p.postAtOnce(t, thief, "/sign-in", form, 15) {
			switch {
			case strings.Contains(page, "The address or the password is wrong."):
				taken++
			case !strings.Contains(page, "Too many attempts"):
				t.Errorf("a guess at %s is answered\n%s", address, page)
			}
		}
		thief.givePrimary().HasText("Too many attempts")
		return taken
	}
	tries := guess(alice)
	if tries < 5 || tries > 14 {
		t.Errorf("a stranger may guess %d times more", tries)
	}
	if guesses := guess("nobody@example.test"); guesses != tries {
		t.Errorf("a name that nobody has may be tried %d times more, alice's %d times", guesses, tries)
	}
	a.signIn()

	// Codes are few, and a thief who has the password gets no more of them with another browser.
	thief := a.elsewhere()
	codes := 0
	a.p.sql(t, "DELETE FROM budget")
	thief.givePrimary().HasText("Second factor")
	for ; codes < 30 && !strings.Contains(thief.giveCode("123456").Text(), "Too many attempts"); codes++ {
	}
	if codes < 3 || codes > 10 {
		t.Errorf("a thief may try %d codes", codes)
	}
	a.open("/history").HasText("Somebody could not sign in here")
}

// An administrator's link works for 72 hours, and a newer one takes its place.
func TestPortalInvitationEnds(t *testing.T) {
	t.Parallel()
	p := openPortal(t, newSite(t), "")
	first := p.invite(t, alice)
	second := p.invite(t, alice)
	a := p.visitor(t, alice)
	a.open(first).HasText("not valid any more")
	a.open("/invitation/" + strings.Repeat("A", 26)).HasText("not valid any more")
	a.open(second).HasText("Welcome")
	p.sql(t, "UPDATE invitation SET expires = expires - 72*3600")
	a.Reload().HasText("not valid any more")
	if got := a.Status(); got != http.StatusNotFound {
		t.Errorf("status %d", got)
	}
	if log := p.Output(); slices.ContainsFunc([]string{first, second}, func(link string) bool { return strings.Contains(log, strings.TrimPrefix(link, "/invitation/")) }) {
		t.Error("the log has an invitation's secret")
	}
}
