package portal

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern/authstore/identity"
	"postern/authstore/secret"
)

func TestInvitationToAppPasswords(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	a := p.account(alice)
	link := p.invite(a, identity.Begin)
	b := p.browser()

	b.get(link).says("This link is for " + alice).says("until")
	b.get(link).says("choose") // looking does not use it up
	b.submit(link, map[string]string{"password": goodPrimary, "again": otherPrimary}).refused("not the same both times")
	b.submit(link, map[string]string{"password": "short", "again": "short"}).refused("too short")
	b.submit(link, map[string]string{"password": "alice@example.test", "again": "alice@example.test"}).refused("easy to guess")
	if strings.Contains(b.source, "value=\"alice@example.test\" aria") {
		t.Error("a refused password stands in the page")
	}
	b.submit(link, map[string]string{"password": goodPrimary, "again": goodPrimary, "zone": "Europe/Berlin"}).at("/set-up")
	before := b.cookie(sessionCookie)

	for _, path := range []string{"/", "/security", "/passwords", "/sign-in/factor", "/security/app"} {
		if path == "/passwords" { // the other pages' affair
			continue
		}
		b.get(path).at("/set-up")
	}
	key := b.with("id", "key")
	b.seed = strings.ReplaceAll(key, " ", "")
	b.submit("/set-up", map[string]string{"app_code": b.wrongCode()}).refused("code is wrong")
	if got := b.with("id", "key"); got != key {
		t.Errorf("after a wrong code the key is %q, was %q: the app that has scanned it would show wrong codes", got, key)
	}
	if !strings.Contains(b.source, "data:image/png;base64,iVBOR") {
		t.Error("no QR code")
	}
	b.submit("/set-up", map[string]string{"app_code": b.code()}).says("Recovery codes")
	codes := b.codes()
	if len(codes) != 10 || b.cookie(sessionCookie) == before {
		t.Fatalf("recovery codes %q, the cookie has changed: %v", codes, b.cookie(sessionCookie) != before)
	}
	if strings.Contains(b.source, `action="/language"`) {
		t.Error("the page that is shown once has a switch that leads away from it")
	}
	shown := b.page
	b.submit("/recovery-codes", nil)
	if got := b.header.Get("Content-Disposition"); got != `attachment; filename="recovery-codes.txt"` || !strings.Contains(b.source, strings.Join(codes, "\r\n")) {
		t.Errorf("the file: %s\n%s", got, b.source)
	}
	b.page = shown
	if b.submit("/set-up/kept", nil); b.path != "/passwords" {
		t.Errorf("after the set-up at %s", b.path)
	}
	b.get("/set-up")
	if b.path != "/passwords" {
		t.Errorf("the set-up again leads to %s", b.path)
	}
	p.browser().get(link).says("not valid any more")

	b.get("/security").says("10 codes are left")
	want := "portal.signed_in"
	if got := strings.Join(p.events(a), " "); !strings.Contains(got, want) || !strings.Contains(got, "factor.added") || !strings.Contains(got, "invitation.accepted") {
		t.Errorf("the history is %s", got)
	}
	if log := p.log.String(); !strings.Contains(log, `msg="signed in" proto=portal client=127.0.0.1 account=1 method="invitation totp"`) {
		t.Errorf("the log:\n%s", log)
	}
}

func TestSignIn(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	b, _ := p.signedUp(alice)
	b.get("/sign-in").at("/passwords")
	b.submitSignOut().at("/sign-in?out").says("You are signed out")
	if b.cookie(sessionCookie) != "" {
		t.Error("the session's cookie has stayed")
	}
	b.get("/security").at("/sign-in?to=%2Fsecurity")

	b.submit("/sign-in", map[string]string{"address": alice, "password": otherPrimary}).refused("address or the password is wrong")
	known := b.source
	b.get("/sign-in?to=/security").submit("/sign-in", map[string]string{"address": "nobody@example.test", "password": otherPrimary})
	if got := strings.ReplaceAll(b.source, "nobody@example.test", alice); got != known {
		t.Errorf("the page tells unknown names from wrong passwords:\n%s\n%s", known, got)
	}
	app := secret.Generate()
	b.submit("/sign-in", map[string]string{"address": alice, "password": app.Reveal()}).refused("app password")
	if strings.Contains(b.source, app.Reveal()) {
		t.Error("the page shows the app password")
	}

	b.submit("/sign-in", map[string]string{"address": "Alice", "password": goodPrimary}).at("/sign-in/factor?to=%2Fsecurity")
	half := b.cookie(sessionCookie)
	b.get("/security").at("/sign-in/factor?to=%2Fsecurity")
	b.get("/set-up").at("/sign-in/factor")
	b.get("/").at("/sign-in/factor")
	b.get("/sign-in/factor?to=/security")
	b.submit("/sign-in/factor", map[string]string{"code": " "}).refused("Type in the code")
	b.submit("/sign-in/factor", map[string]string{"code": b.wrongCode()}).refused("code is wrong")
	b.submit("/sign-in/factor", map[string]string{"code": b.code()}).at("/security")
	if now := b.cookie(sessionCookie); now == half || now == "" {
		t.Error("the cookie is the one that knew the password alone")
	}
	if b.cookie(deviceCookie) == "" {
		t.Error("the browser is not known")
	}
	log := p.log.String()
	for _, want := range []string{`msg="signed out" proto=portal client=127.0.0.1 account=1`, `msg="sign-in refused" proto=portal client=127.0.0.1 account=0 method=password code=wrong`,
		`account=1 method=factor code=wrong`, `method="password totp"`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s:\n%s", want, log)
		}
	}
	for _, never := range []string{"nobody", goodPrimary, otherPrimary, half, app.Reveal()} {
		if strings.Contains(log, never) {
			t.Errorf("the log holds %q", never)
		}
	}
}

// submitSignOut presses the button in the head of each page.
func (b *browser) submitSignOut() *browser {
	b.t.Helper()
	return b.get("/security").submit("/sign-out", nil)
}

func TestAnotherAccountTakesTheSessionsPlace(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	b, _ := p.signedUp(alice)
	old := identity.Token(b.cookie(sessionCookie))
	b.get(p.invite(p.account("bob@example.test"), identity.Begin))
	b.submit(b.path, map[string]string{"password": otherPrimary, "again": otherPrimary}).at("/set-up")
	if _, err := p.people.Session(context.Background(), identity.Visitor{}, old); err == nil {
		t.Error("the session that was there before goes on")
	}
	// Who got stuck half way begins again.
	b.submit("/sign-out", nil).at("/sign-in?out")
}

func TestRecoveryCodeSignsIn(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	b, _ := p.signedUp(alice)
	code := b.codes()[3]
	for range 2 {
		b.submitSignOut().submit("/sign-in", map[string]string{"address": alice, "password": goodPrimary}).at("/sign-in/factor")
		b.submit("/sign-in/factor", map[string]string{"code": strings.ToUpper(strings.ReplaceAll(code, "-", " "))})
		if b.path == "/sign-in/factor" {
			break
		}
		b.get("/security").says("9 codes are left")
	}
	b.refused("was used before")
}

func TestTooManyAttempts(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	p.account(alice)
	b := p.browser()
	for range 50 {
		b.get("/sign-in").submit("/sign-in", map[string]string{"address": alice, "password": otherPrimary})
		if !strings.Contains(b.alert(), "wrong") {
			break
		}
	}
	b.refused("Too many attempts. Try again in")
	b.language = "de"
	b.get("/sign-in").submit("/sign-in", map[string]string{"address": alice, "password": otherPrimary}).refused("Zu viele Versuche. Versuchen Sie es in")
	if !strings.Contains(p.log.String(), "code=throttled") {
		t.Errorf("the log:\n%s", p.log)
	}
}

// The way back from the sign-in leads to a few pages of ours and nowhere else.
func TestNoOpenRedirect(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	b, _ := p.signedUp(alice)
	for to, want := range map[string]string{
		"/security":                        "/security",
		"/passwords/17":                    "/passwords/17",
		"/history":                         "/history",
		"":                                 "/passwords",
		"//evil.example":                   "/passwords",
		"https://evil.example":             "/passwords",
		"/\\evil.example":                  "/passwords",
		"/security/../..//evil":            "/passwords",
		"/security\r\nX-Evil: 1":           "/passwords",
		"/security\n/x":                    "/passwords",
		"/security?x=//evil":               "/passwords",
		"/sign-out":                        "/passwords",
		"javascript:alert(1)":              "/passwords",
		"/passwords/17/revoke":             "/passwords",
		"/security@evil.example":           "/passwords",
		"/passwords/999999999999999999999": "/passwords",
	} {
		b.submitSignOut().get("/sign-in?to=" + url.QueryEscape(to))
		for form := range b.elements("form") {
			if values, _ := filled(form); attribute(form, "action") != "/language" && attribute(form, "action") != "/sign-out" && values.Has("to") != (want == to) {
				t.Errorf("the sign-in to %q carries %q on", to, values["to"])
			}
		}
		b.post("/sign-in", url.Values{"address": {alice}, "password": {goodPrimary}, "to": {to}})
		if b.post("/sign-in/factor", url.Values{"code": {b.code()}, "to": {to}}); b.path != want {
			t.Errorf("a form that is sent with %q leads to %s, want %s", to, b.path, want)
		}
	}
	for back, want := range map[string]string{
		"/security": "/security", "//evil.example": "/passwords", "/\\evil.example": "/passwords", "https://evil.example": "/passwords", "/%2f/evil": "/passwords",
		"/security\r\nSet-Cookie: x=y": "/passwords", "security": "/passwords", "": "/passwords",
	} {
		if b.post("/language", url.Values{"language": {"en"}, "back": {back}}); b.path != want || b.header.Get("Set-Cookie") != "" && b.cookie("x") != "" {
			t.Errorf("the language's form with %q leads to %s, want %s", back, b.path, want)
		}
	}
}

func TestPasskeyAlone(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	a := p.account(alice)
	b := p.browser().get(p.invite(a, identity.Begin))
	b.submit(b.path, map[string]string{"password": goodPrimary, "again": goodPrimary}).at("/set-up")
	k := newKey()
	fields := b.make(k)
	fields["passkey_label"] = "My laptop"
	b.submit("/set-up", fields).says("Recovery codes")

	b.submitSignOut()
	before := p.log.String()
	if b.submit("/sign-in/passkey", b.prove(k, "sign-in")); b.path != "/passwords" {
		t.Fatalf("at %s: %s", b.path, b.alert())
	}
	if log := strings.TrimPrefix(p.log.String(), before); !strings.Contains(log, "account=1 method=passkey") {
		t.Errorf("the log:\n%s", log)
	}

	b.submitSignOut()
	used := b.prove(k, "sign-in")
	b.submit("/sign-in/passkey", used)
	b.submitSignOut().submit("/sign-in/passkey", used).refused("did not work")
	b.submit("/sign-in/passkey", map[string]string{"state": "x", "answer": "{}"}).refused("did not work")
	b.get("/sign-in/passkey").at("/sign-in") // where a language's button leads back to

	b.get("/sign-in").submit("/sign-in", map[string]string{"address": alice, "password": goodPrimary}).at("/sign-in/factor").says("Recovery code")
	if strings.Contains(b.text(), "authenticator app, or") {
		t.Error("a code is asked for of an app that was never set up")
	}
	if b.submit("/sign-in/factor", b.prove(k, "prove")); b.path != "/passwords" {
		t.Fatalf("at %s: %s", b.path, b.alert())
	}
	b.get("/security").says("My laptop").says("only one")
}

// The script is told in words why it gets no challenge, and never led to a page.
func TestChallengesAreForWhoMayHaveThem(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	b := p.browser()
	for kind, want := range map[string]int{"sign-in": http.StatusOK, "prove": http.StatusForbidden, "new": http.StatusForbidden} {
		if status, c := b.ask(kind); status != want || (status == http.StatusOK) != (c.State != "") || (status == http.StatusOK) != (c.Problem == "") {
			t.Errorf("a stranger's %s: %d %+v", kind, status, c)
		}
	}
	b, _ = p.signedUp(alice)
	if status, c := b.ask("prove"); status != http.StatusUnprocessableEntity || !strings.Contains(c.Problem, "no passkey") {
		t.Errorf("who has no passkey: %d %+v", status, c)
	}
	if status, _ := b.ask("new"); status != http.StatusOK {
		t.Errorf("a fresh session's new: %d", status)
	}
	p.pass(6 * time.Minute)
	if status, c := b.ask("new"); status != http.StatusForbidden || c.Problem == "" {
		t.Errorf("a session's that is not fresh: %d %+v", status, c)
	}
	p.pass(time.Hour)
	if status, c := b.ask("prove"); status != http.StatusForbidden || c.Problem == "" {
		t.Errorf("a session's that has ended: %d %+v", status, c)
	}
}

func TestSessionsEndByThemselves(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	b, _ := p.signedUp(alice)
	p.pass(31 * time.Minute)
	b.get("/security").at("/sign-in?to=%2Fsecurity&ended").says("You are not signed in any more")
	b.submit("/sign-in", map[string]string{"address": alice, "password": goodPrimary})
	p.pass(11 * time.Minute)
	b.submit("/sign-in/factor", map[string]string{"code": b.code()})
	if !strings.HasPrefix(b.path, "/sign-in?") {
		t.Errorf("a second factor after eleven minutes leads to %s", b.path)
	}
}
