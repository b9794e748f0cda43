package portal

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
)

func TestFactors(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	b, a := p.signedUp(alice)
	b.get("/security").says("Authenticator app").says("only one")
	if strings.Contains(b.source, "/security/factors/1/remove") {
		t.Error("the only second factor has a button that removes it")
	}
	b.get("/security/factors/1/remove").submit("/security/factors/1/remove", nil).refused("only second factor")

	k := newKey()
	b.get("/security/passkey")
	fields := b.make(k)
	fields["passkey_label"] = "Key on my key ring"
	b.submit("/security/passkey", fields).at("/security?done=passkey").says("The passkey is added").says("Key on my key ring")

	// A second app, after the last second factor has grown old: the question comes first, and the page after it.
	p.pass(6 * time.Minute)
	b.get("/security/app").says("Confirm that it is you")
	if b.with("id", "key") != "" {
		t.Fatal("the key is shown without a fresh second factor")
	}
	b.submit("/security/app", map[string]string{"code": b.wrongCode()}).refused("code is wrong")
	before := b.cookie(sessionCookie)
	b.submit("/security/app", b.prove(k, "prove")).at("/security/app")
	if b.cookie(sessionCookie) == before {
		t.Error("the cookie is the one from before the step-up")
	}
	first := b.seed
	b.seed = strings.ReplaceAll(b.with("id", "key"), " ", "")
	b.submit("/security/app", map[string]string{"app_code": b.wrongCode(), "app_label": "Tablet"}).refused("code is wrong")
	if got := strings.ReplaceAll(b.with("id", "key"), " ", ""); got != b.seed || !strings.Contains(b.source, `value="Tablet"`) {
		t.Errorf("a wrong code loses what was filled in: %s", b.text())
	}
	b.submit("/security/app", map[string]string{"app_code": b.code(), "app_label": "Tablet"}).at("/security?done=app").says("Tablet")

	b.get("/security/factors/3").submit("/security/factors/3", map[string]string{"label": "Old tablet"}).at("/security?done=renamed").says("Old tablet")
	p.pass(6 * time.Minute)
	b.get("/security/factors/3/remove").says("Remove “Old tablet”?").submit("/security/factors/3/remove", map[string]string{"code": b.wrongCode()}).refused("code is wrong")
	b.submit("/security/factors/3/remove", map[string]string{"code": b.code()}).at("/security?done=removed")
	if strings.Contains(b.text(), "Old tablet") {
		t.Error("the removed factor is listed")
	}
	b.seed = first
	b.get("/security/factors/3").says("no such page")
	b.get("/security/factors/x").says("no such page")
	if got := strings.Join(p.events(a), " "); !strings.Contains(got, "factor.removed portal.sign_in_refused factor.renamed factor.added") {
		t.Errorf("the history is %s", got)
	}

	// Another account's are not to be seen.
	bob, _ := p.signedUp("bob@example.test")
	for _, path := range []string{"/security/factors/1", "/security/factors/1/remove"} {
		bob.get(path).says("no such page")
		bob.post(path, url.Values{"label": {"Bob's"}}).says("no such page")
	}
	b.get("/security").says("Authenticator app")
}

// What people and browsers call themselves is text on a page, and nothing in a header.
func TestLabelsAndAgentsAreText(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	b, _ := p.signedUp(alice)
	for label, taken := range map[string]bool{
		"<img src=x onerror=alert(1)>": true, `"><script>alert(1)</script>`: true, "Käthes Schlüssel 🔑": true, "{{.Session}}": true, "👩\u200d💻": true,
		"": false, "   ": false, "a\r\nSet-Cookie: x=y": false, "a\x00b": false, "a\u202eb": false, strings.Repeat("x", authstore.MaxLabel+1): false, "\xff\xfe": false,
	} {
		b.get("/security/factors/1").submit("/security/factors/1", map[string]string{"label": label})
		if !taken {
			b.refused("Give it a name")
			continue
		}
		b.at("/security?done=renamed").says(label)
		if strings.Contains(b.source, "<img src=x") || strings.Contains(b.source, "<script>alert") {
			t.Errorf("%q stands in the page as it is", label)
		}
		b.get("/security/factors/1/remove").says(label)
	}
	evil := p.browser()
	evil.agent, evil.seed = `<script>alert(1)</script> Firefox/1 "onload="x`, b.seed
	evil.signIn(alice, goodPrimary)
	if b.get("/security").says("Firefox"); strings.Contains(b.source, "<script>alert") {
		t.Error("a User-Agent is a script")
	}
}

func TestSessionsList(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	b, a := p.signedUp(alice)
	phone := p.browser()
	phone.agent, phone.seed = iPhone, b.seed
	phone.signIn(alice, goodPrimary)
	third := p.browser()
	third.seed = b.seed
	third.signIn(alice, goodPrimary)

	b.get("/security").says("Firefox on Linux this browser").says("Safari on iPhone").says("from 127.0.0.1")
	p.pass(6 * time.Minute)
	action := ""
	for n := range b.elements("form") {
		if to := attribute(n, "action"); to != "/security/sessions/end" && strings.HasSuffix(to, "/end") && strings.Contains(textOf(n.Parent), "iPhone") {
			action = to
		}
	}
	b.submit(action, nil).says("Confirm that it is you")
	phone.get("/security").at("/security")
	b.submit(action, map[string]string{"code": b.code()}).at("/security?done=session")
	phone.get("/security").at("/sign-in?to=%2Fsecurity&ended")
	third.get("/security").at("/security")
	b.submit("/security/sessions/end", nil).at("/security?done=sessions")
	third.get("/security").at("/sign-in?to=%2Fsecurity&ended")

	bob, _ := p.signedUp("bob@example.test")
	if bob.post("/security/sessions/1/end", nil); bob.status != 404 {
		t.Errorf("another account's session: %d", bob.status)
	}
	bob.post("/security/sessions/x/end", nil).says("no such page")
	b.get("/security").at("/security")
	b.get("/security/sessions/1/end").at("/security")
	if got := strings.Join(p.events(a), " "); !strings.Contains(got, "portal.sessions_ended portal.session_ended") {
		t.Errorf("the history is %s", got)
	}
}

func TestRecoveryCodesAreMadeAnew(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	b, _ := p.signedUp(alice)
	old := b.codes()
	p.pass(6 * time.Minute)
	b.get("/security/recovery").says("10 codes that are left are not valid any more then")
	b.submit("/security/recovery", map[string]string{"code": old[0]}).says("The old ones are not valid any more")
	fresh := b.codes()
	if len(fresh) != 10 || fresh[0] == old[0] {
		t.Fatalf("the new codes are %q", fresh)
	}
	b.submitSignOut().submit("/sign-in", map[string]string{"address": alice, "password": goodPrimary})
	b.submit("/sign-in/factor", map[string]string{"code": old[1]}).refused("code is wrong")
	b.submit("/sign-in/factor", map[string]string{"code": fresh[1]})
	b.get("/security").says("9 codes are left")

	// The file gives back codes, and nothing else that is sent to it.
	for _, codes := range [][]string{nil, {"<script>"}, {"abcde-fghij\r\nX: y"}, make([]string, 60), {strings.Repeat("a", 41)}} {
		if b.post("/recovery-codes", url.Values{"codes": codes}); b.path != "/security" {
			t.Errorf("%q gives %s", codes, b.source)
		}
	}
}

func TestPrimaryIsChanged(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	b, a := p.signedUp(alice)
	p.madePasswords(a, "Thunderbird", "<b>Phone</b>")
	other := p.browser()
	other.seed = b.seed
	other.signIn(alice, goodPrimary)
	p.pass(6 * time.Minute)

	b.get("/security/primary").says("Confirm that it is you")
	b.submit("/security/primary", map[string]string{"code": b.code()}).at("/security/primary")
	b.says("2 app passwords end").says("Thunderbird").says("<b>Phone</b>")
	change := func(old, fresh, again string) *browser {
		return b.submit("/security/primary", map[string]string{"password": old, "new": fresh, "again": again})
	}
	change(otherPrimary, otherPrimary, otherPrimary).refused("so far is wrong")
	change(goodPrimary, otherPrimary, goodPrimary).refused("not the same")
	change(goodPrimary, goodPrimary, goodPrimary).refused("have already")
	change(goodPrimary, "password12", "password12").refused("easy to guess")
	if strings.Contains(b.source, goodPrimary) || strings.Contains(b.source, "password12") {
		t.Error("a password stands in the page")
	}
	if left, _ := p.accounts.Passwords(context.Background(), a.ID, false); len(left) != 2 {
		t.Fatalf("refusals have left %d app passwords", len(left))
	}
	before := b.cookie(sessionCookie)
	change(goodPrimary, otherPrimary, otherPrimary).says("2 app passwords have ended").says("confirmed everywhere").says("Thunderbird")
	if b.cookie(sessionCookie) == before {
		t.Error("the cookie has stayed")
	}
	if left, _ := p.accounts.Passwords(context.Background(), a.ID, false); len(left) != 0 {
		t.Errorf("%d app passwords are left", len(left))
	}
	other.get("/security").at("/sign-in?to=%2Fsecurity&ended")
	b.get("/security").at("/security")
	b.submitSignOut().submit("/sign-in", map[string]string{"address": alice, "password": goodPrimary}).refused("wrong")
	b.submit("/sign-in", map[string]string{"address": alice, "password": otherPrimary}).at("/sign-in/factor")
}

// elsewhere is a server that checks primary passwords.
type elsewhere struct{ err error }

func (e *elsewhere) Check(_ context.Context, _ string, password []byte) (identity.Claims, error) {
	if e.err == nil && string(password) != goodPrimary {
		return identity.Claims{}, identity.ErrWrong
	}
	return identity.Claims{}, e.err
}

func TestPrimaryIsKeptElsewhere(t *testing.T) {
	t.Parallel()
	server := new(elsewhere)
	p := newScene(t, func(o *identity.Options, _ *Options) { o.Checker = server })
	a := p.account(alice)
	b := p.browser().get("/sign-in").submit("/sign-in", map[string]string{"address": alice, "password": goodPrimary, "zone": "Asia/Tokyo"})
	b.setUp().get("/security").says("kept by your mail server").says("JST")
	b.get("/security/primary").says("no such page")
	b.post("/security/primary", url.Values{"password": {goodPrimary}, "new": {otherPrimary}, "again": {otherPrimary}}).says("no such page")

	// A lost phone: the administrator's link asks for the password that the server knows.
	b = p.browser().get(p.invite(a, identity.NewFactor)).says("First give your primary password")
	b.submit(b.path, map[string]string{"password": otherPrimary}).refused("not your primary password")
	b.submit(b.path, map[string]string{"password": goodPrimary}).setUp().says("Recovery codes")

	server.err = context.DeadlineExceeded
	p.browser().get("/sign-in").submit("/sign-in", map[string]string{"address": alice, "password": goodPrimary}).refused("does not answer")
}

func TestOnlyByInvitation(t *testing.T) {
	t.Parallel()
	p := newScene(t, func(o *identity.Options, _ *Options) { o.Checker, o.InviteOnly = new(elsewhere), true })
	p.account(alice)
	p.browser().get("/sign-in").submit("/sign-in", map[string]string{"address": alice, "password": goodPrimary}).refused("Ask your administrator for an invitation")
}

func TestInvitationSaysWhatEnds(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	b, a := p.signedUp(alice)
	p.madePasswords(a, "Phone")
	p.browser().get(p.invite(a, identity.NewFactor)).says("First give your primary password")
	visitor := p.browser().get(p.invite(a, identity.Begin)).says("One app password ends with that")
	visitor.submit(visitor.path, map[string]string{"password": otherPrimary, "again": otherPrimary}).at("/set-up")
	b.get("/security").at("/sign-in?to=%2Fsecurity&ended")
}

func TestReader(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	b := p.browser()
	b.language = "de-AT,de;q=0.9"
	if b.get("/sign-in?to=/history"); b.title() != "Anmelden" {
		t.Errorf("a German browser reads %q", b.title())
	}
	if b.submit("/language language=en", nil).at("/sign-in?to=%2Fhistory"); b.title() != "Sign in" {
		t.Errorf("after the switch: %q", b.title())
	}
	if b.post("/language", url.Values{"language": {"tlh"}, "back": {"/sign-in"}}); b.title() != "Sign in" {
		t.Errorf("after a language that is not here: %q", b.title())
	}

	b, _ = p.signedUp(alice)
	b.get("/security").says("CET")
	b.submit("/security", map[string]string{"language": "de", "zone": "America/New_York"}).at("/security?done=reader").says("gespeichert")
	if !strings.Contains(b.text(), "EST") && !strings.Contains(b.text(), "EDT") || b.with("class", "container") == "" {
		t.Errorf("no time of New York: %s", b.text())
	}
	b.submit("/security", map[string]string{"zone": "Mars/Olympus"}).at("/security?done=reader_unknown").says("gibt es nicht")
	b.submit("/security", map[string]string{"zone": "Local"}).at("/security?done=reader_unknown")
	b.submit("/security", map[string]string{"language": "", "zone": "Europe/Berlin"}).at("/security?done=reader").says("noted")
	// It is the account's, in another browser too.
	b.submit("/language language=de", nil)
	again := p.browser()
	again.seed = b.seed
	if again.signIn(alice, goodPrimary).get("/security"); again.title() != "Sicherheit" {
		t.Errorf("another browser reads %q", again.title())
	}
}

func TestZones(t *testing.T) {
	t.Parallel()
	for _, name := range strings.Fields(zoneList) {
		if _, err := time.LoadLocation(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	found := false
	for _, r := range regions("Asia/Calcutta") { // an old name that browsers still give
		for _, z := range r.Zones {
			found = found || z.Name == "Asia/Calcutta" && r.Name == "Asia" && z.City == "Calcutta"
		}
	}
	if !found {
		t.Error("the chosen zone is not in the list")
	}
}

// Whoever is signed in fills no history without end, and can sign out all the same.
func TestFormsAreCounted(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	b, a := p.signedUp(alice)
	label := url.Values{"label": {"Phone"}}
	n := 0
	for ; n < 200; n++ {
		if b.post("/security/factors/1", label); b.status == http.StatusTooManyRequests {
			break
		}
	}
	if n < 90 || n > 100 {
		t.Errorf("%d forms were taken at once, want about 100", n)
	}
	if b.says("Too many attempts"); b.header.Get("Retry-After") == "" {
		t.Error("it is not said when to come again")
	}
	if got := strings.Count(strings.Join(p.events(a), " "), "factor.renamed"); got != n {
		t.Errorf("%d lines of history of %d forms", got, n)
	}
	b.get("/security").says("Phone")
	p.pass(10 * time.Second)
	b.post("/security/factors/1", url.Values{"label": {"Tablet"}}).at("/security?done=renamed")
	b.submitSignOut().at("/sign-in?out")
}
