package portal

import (
	"slices"
	"strings"
	"testing"
	"time"

	"postern/authstore/identity"
	"postern/internal/testlab"
)

// fit looks at the page that is shown: it fits its window, and axe-core finds nothing serious on it, on a desk and on a phone, light and dark.
func fit(page *testlab.Page, name string) {
	for _, window := range []string{"desktop", "phone"} {
		if page.Desktop(); window == "phone" {
			page.Phone()
		}
		for _, colours := range []string{"light", "dark"} {
			if page.Light(); colours == "dark" {
				page.Dark()
			}
			if page.FitsWidth(); (window == "phone") != (colours == "dark") { // it takes long, and both are seen in both
				page.Axe()
			}
			page.Screenshot(strings.Join([]string{name, window, colours}, "-"))
		}
	}
	page.Desktop().Light()
}

// fitInBoth looks at a page that can be shown again, in each language: German has the longest words. The switch at its foot leads back to it.
func fitInBoth(page *testlab.Page, name string) {
	path, _, _ := strings.Cut(page.Path(), "?")
	fit(page, name+"-en")
	page.Click("Deutsch").At(path)
	page.FitsWidth().Screenshot(name + "-de-desktop-light")
	page.Phone().FitsWidth().Axe().Screenshot(name + "-de-phone-light")
	page.Desktop().Click("English").At(path)
}

// shownCodes are the recovery codes on the page.
func shownCodes(page *testlab.Page) (codes []string) {
	page.Eval(`[...document.querySelectorAll("#codes li")].map(li => li.textContent)`, &codes)
	return codes
}

// Somebody's first day, in a real browser: the invitation, the set-up with an authenticator app, the recovery codes, a passkey besides.
func TestFirstDayInChromium(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	a := p.account(alice)
	page := testlab.Browser(t, p.ca).Page(t).Zone("Europe/Berlin").AllowClipboard()
	them := p.browser() // for the app's codes

	page.Open(p.site + p.invite(a, identity.Begin)).HasText("This link is for " + alice)
	fitInBoth(page, "invitation")
	page.Fill("New primary password", "password").Fill("The new primary password again", "password").Click("Go on").HasText("too short")
	fit(page, "invitation-refused")
	page.Fill("New primary password", goodPrimary).Fill("The new primary password again", goodPrimary).Click("Go on").At("/set-up")
	fitInBoth(page, "set-up")
	page.Click("Type in the key instead")
	var seed string
	page.Eval(`document.getElementById("key").textContent`, &seed)
	page.Click("Copy")
	if got := page.Clipboard(); got == "" || strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(seed, " ", "") {
		t.Errorf("copied %q of %q", got, seed)
	}
	them.seed = strings.ReplaceAll(seed, " ", "")
	page.Fill("Type in the six digits that the app shows now", them.wrongCode()).In("With an authenticator app").Click("Go on")
	page.HasText("code is wrong")
	page.Fill("Type in the six digits that the app shows now", them.code()).In("With an authenticator app").Click("Go on")
	page.HasText("They are shown only now")
	fit(page, "codes")
	codes := shownCodes(page)
	page.Click("Copy")
	if got := strings.Fields(page.Clipboard()); len(codes) != 10 || !slices.Equal(got, codes) {
		t.Errorf("copied %q of %q", got, codes)
	}
	name, file := page.Download(func() { page.Click("Save as a file") })
	if name != "recovery-codes.txt" || !strings.Contains(string(file), strings.Join(codes, "\r\n")) {
		t.Errorf("the file %s holds %q", name, file)
	}
	page.Click("Go on to the app passwords") // not before the box is ticked
	page.HasText("They are shown only now")
	page.Tick("I have kept these codes").Click("Go on to the app passwords").At("/passwords")
	page.Expect("ERR_CACHE_MISS").Back().HasNoText(codes[0]) // browsers ask before they send the form once more

	page.Open(p.site+"/security").HasText("10 codes are left", "this browser")
	fitInBoth(page, "security-first")
	page.Authenticator(testlab.DeviceKey)
	page.Click("Add a passkey or security key").At("/security/passkey")
	fitInBoth(page, "new-passkey")
	page.Fill("Name of this passkey", "Laptop").Click("Make a passkey").At("/security?done=passkey").HasText("The passkey is added", "Laptop")

	// It proves who sits there, when that was long ago.
	p.pass(6 * time.Minute)
	page.Click("Add an authenticator app").HasText("Confirm that it is you")
	fitInBoth(page, "confirm")
	page.Click("Use a passkey or security key").HasText("Scan this picture")
	fitInBoth(page, "new-app")
	p.pass(6 * time.Minute)
	page.Open(p.site + "/security/recovery")
	fitInBoth(page, "renew")
	page.Click("Use a passkey or security key").HasText("The old ones are not valid any more")
	page.Tick("I have kept these codes").Click("Go on to the app passwords").At("/passwords")

	page.Click("Sign out").At("/sign-in?out")
	fitInBoth(page, "sign-in")
	page.Click("Sign in with a passkey").At("/passwords")
	page.Click("Sign out")
	page.Open(p.site+"/security").At("/sign-in?to=").Fill("Email address", alice).Fill("Primary password", goodPrimary).Click("Sign in").At("/sign-in/factor")
	fitInBoth(page, "factor")
	p.pass(identity.SignInTime)
	page.Expect("403").Click("Use a passkey or security key").HasText("That took too long. Load the page again.")
	fit(page, "factor-late")
	page.Reload().At("/sign-in?to=").Fill("Email address", alice).Fill("Primary password", goodPrimary).Click("Sign in").At("/sign-in/factor")
	page.Fill("Code from your authenticator app, or a recovery code", them.wrongCode()).Click("Go on").HasText("The code is wrong")
	fit(page, "factor-refused")
	page.Fill("Code from your authenticator app, or a recovery code", them.code()).Click("Go on").At("/security")
}

// All but passkeys works without a script, and what needs one is not offered.
func TestWithoutScriptInChromium(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	a := p.account(alice)
	browser := testlab.Browser(t, p.ca)
	page := browser.Page(t).WithoutScript()
	them := p.browser()
	page.Open(p.site+p.invite(a, identity.Begin)).Fill("New primary password", goodPrimary).Fill("The new primary password again", goodPrimary).Click("Go on").At("/set-up")
	page.HasText("Passkeys need JavaScript")
	if page.Has("Make a passkey") || page.Has("Copy") {
		t.Error("what needs a script is offered")
	}
	page.Click("Type in the key instead")
	var seed string
	page.Eval(`document.getElementById("key").textContent`, &seed)
	them.seed = strings.ReplaceAll(seed, " ", "")
	page.Fill("Type in the six digits that the app shows now", them.code()).In("With an authenticator app").Click("Go on")
	page.HasText("They are shown only now")
	codes := shownCodes(page)
	if _, file := page.Download(func() { page.Click("Save as a file") }); len(codes) != 10 || !strings.Contains(string(file), codes[9]) {
		t.Errorf("the file holds %q", file)
	}
	page.Tick("I have kept these codes").Click("Go on to the app passwords").At("/passwords")

	page.Open(p.site + "/security")
	page.Choose("Language", "Deutsch").Choose("Time zone", "Tokyo").Click("Save").HasText("Sprache und Zeitzone sind gespeichert", "JST")
	page.Click("English")
	phone := p.browser()
	phone.agent, phone.seed = iPhone, them.seed
	phone.signIn(alice, goodPrimary)
	page.Reload().HasText("Safari on iPhone")
	fitInBoth(page, "security")
	page.In("Safari on iPhone").Click("Sign out Safari on iPhone")
	page.HasText("That browser is signed out")

	page.Open(p.site + "/security/factors/1")
	fitInBoth(page, "rename")
	page.Fill("Name", "Telefon, „alt“ <b>").Click("Save").HasText("Telefon, „alt“ <b>")
	page.Open(p.site + "/security/app")
	page.Click("Type in the key instead")
	page.Eval(`document.getElementById("key").textContent`, &seed)
	second := p.browser()
	second.seed = strings.ReplaceAll(seed, " ", "")
	page.Fill("Type in the six digits that the app shows now", second.code()).Fill("Name", "Tablet").Click("Add").HasText("The authenticator app is added")
	page.Click("Remove “Tablet”")
	fitInBoth(page, "remove")
	page.Click("Remove").HasText("The second factor is removed")

	p.madePasswords(a, "Thunderbird", "Donaudampfschifffahrtsgesellschaftskapitänskajütenschlüsselbundanhänger")
	page.Open(p.site+"/security/primary").HasText("2 app passwords end", "Thunderbird")
	fitInBoth(page, "primary")
	page.Fill("Primary password so far", otherPrimary).Fill("New primary password", otherPrimary).Fill("The new primary password again", otherPrimary).Click("Change the password")
	page.HasText("so far is wrong")
	fit(page, "primary-refused")
	page.Fill("Primary password so far", goodPrimary).Fill("New primary password", otherPrimary).Fill("The new primary password again", otherPrimary).Click("Change the password")
	page.HasText("2 app passwords have ended", "confirmed everywhere")
	fit(page, "primary-changed")
	page.Open(p.site + "/no/such/page").HasText("no such page")
	page.Open(p.site + p.invite(a, identity.NewFactor)).HasText("First give your primary password")
	fitInBoth(page, "invitation-factor")
}
