package portal

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postern/authstore"
	"postern/internal/testlab"
)

// furnish gives a person what gathers in some months, with names as long as people and apps make them.
func (p *person) furnish() {
	p.t.Helper()
	long := "Thunderbird on the old laptop in the study upstairs, the one with the broken hinge and the blue sticker"
	labels := []string{"Thunderbird on the laptop", "iPhone", "DAVx⁵", "Scanner, 2nd floor", "Donaudampfschifffahrtsgesellschaftskapitänskajütenschlüsselbundanhänger", long[:100], "Wall display in the kitchen"}
	scopes := []authstore.Scopes{authstore.Presets[0].Scopes, authstore.Presets[1].Scopes, dav, authstore.ScopeSubmit, authstore.ScopeMailRead | authstore.ScopeCalendarRead | authstore.ScopeContacts | authstore.ScopePOP, authstore.Presets[1].Scopes, authstore.ScopeCalendarRead}
	now := p.clock()
	for i, label := range labels {
		r := authstore.PasswordRequest{Account: p.account, Label: label, Scopes: scopes[i]}
		if i == 2 || i == 4 {
			r.Collections = only("calendar/"+workName, "calendar/choir", "contacts/*")
			r.Titles = authstore.Titles{r.Collections[0]: "Work", r.Collections[1]: "Donaudampfschifffahrtsgesellschaftskapitänskajütenschlüsselbund"}
		}
		if i == 6 {
			r.Collections, r.Titles = only("calendar/"+workName), authstore.Titles{only("calendar/" + workName)[0]: "Work"}
		}
		if i == 1 {
			r.Expires = now.Add(9 * day)
		}
		if i == 3 {
			r.Networks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:1234:5678::/64")}
			r.Expires = now.Add(365 * day)
		}
		made, _, err := p.accounts.CreatePassword(p.t.Context(), r)
		if err != nil {
			p.t.Fatal(err)
		}
		if i == 6 {
			continue
		}
		for d := range 40 - 5*i {
			at := now.Add(-time.Duration(d) * day)
			p.used(authstore.Usage{Password: made.ID, Account: p.account, Protocol: "imap", App: "Thunderbird 140.3.0", Network: netip.MustParsePrefix("192.0.2.0/24"), Operator: "AS64496 Example Net", First: at, Last: at, Count: int64(1 + d*7%23), Failures: int64(d % 9 / 8)})
		}
		p.used(authstore.Usage{Password: made.ID, Account: p.account, Protocol: "dav", App: "DAVx5/4.4.8-ose (dav4jvm; okhttp/4.12.0) Android/15", Network: netip.MustParsePrefix("2001:db8:ff::/48"), Operator: "AS64497 A Mobile Carrier With A Rather Long Name GmbH & Co. KG", First: now, Last: now, Count: 12345})
	}
	list := p.active()
	p.open(list[0].ID, "imap", "Thunderbird 140.3.0", "192.0.2.7")
	p.open(list[0].ID, "dav", "DAVx5/4.4.8-ose (dav4jvm; okhttp/4.12.0) Android/15", "2001:db8:ff:1234:5678:9abc:def0:1234")
	p.open(list[1].ID, "imap", "", "192.0.2.7")
	gone := p.made("Old phone", authstore.ScopeMail)
	if _, err := p.accounts.Revoke(p.t.Context(), gone.ID, "phone lost on the train to Bergen"); err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.accounts.EditPassword(p.t.Context(), list[3].ID, authstore.PasswordEdit{Label: "Scanner, 2nd floor, by the window", Expires: now.Add(300 * day), Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *person) page(b *testlab.Chromium) *testlab.Page {
	page := b.Page(p.t).Zone("Europe/Berlin")
	page.SetCookie(p.site+"/", sessionCookie, string(p.token))
	return page
}

// Each page fits its window, and axe-core finds nothing serious on it: on a desk and on a phone, light and dark, in both languages, with the
// names of real apps.
func TestPagesAreFitToUse(t *testing.T) {
	t.Parallel()
	s := &shelf{holds: ordinary(Collection{"choir", "Donaudampfschifffahrtsgesellschaftskapitänskajütenschlüsselbundanhänger"}, Collection{"w", strings.Repeat("W", 100)}, Collection{"work", "Work"})}
	l := newLab(t, func(o *Options) { o.Places, o.Collections = atlas{}, s.list })
	p, eve := l.person(alice), l.person("eve@example.test")
	p.furnish()
	id := p.active()[0].ID
	b := testlab.Browser(t, l.ca)
	page, empty := p.page(b), eve.page(b)
	look := func(page *testlab.Page, name, path string, prepare func(*testlab.Page)) {
		t.Helper()
		page.Open(l.site + path)
		if prepare != nil {
			prepare(page)
		}
		for _, window := range []string{"desktop", "phone"} {
			if page.Desktop(); window == "phone" {
				page.Phone()
			}
			for _, colours := range []string{"light", "dark"} {
				if page.Light(); colours == "dark" {
					page.Dark()
				}
				page.Eval(`Promise.race([Promise.allSettled(document.getAnimations().map(a => a.finished)), new Promise(r => setTimeout(r, 500))]).then(() => 0)`, nil) // colours fade
				if page.FitsWidth(); (window == "phone") != (colours == "dark") {                                                                                       // it takes long, and both are seen in both
					page.Axe()
				}
				page.Screenshot(strings.Join([]string{name, window, colours}, "-"))
			}
		}
	}
	unfold := func(page *testlab.Page) {
		page.Eval(`document.querySelectorAll("main details:not([name])").forEach(d => { d.open = true })`, nil)
	}
	for _, language := range []string{"en", "de"} {
		page.Languages(language)
		empty.Languages(language)
		look(empty, "empty-"+language, "/passwords", nil)
		look(page, "passwords-"+language, "/passwords?ended", nil)
		look(page, "new-"+language, "/passwords/new", unfold)
		look(page, "detail-"+language, fmt.Sprintf("/passwords/%d", id), unfold)
		look(page, "edit-"+language, fmt.Sprintf("/passwords/%d/edit", id), unfold)
		look(page, "revoke-"+language, fmt.Sprintf("/passwords/%d/revoke", id), nil)
		look(page, "revoke-all-"+language, "/passwords/revoke-all", nil)
		look(page, "history-"+language, "/history", nil)
	}
	page.Languages("en")
	look(page, "wrong", "/passwords/new", func(page *testlab.Page) {
		page.Eval(`document.querySelector("#label").required = false; document.querySelector("#networks").value = "home"`, nil)
		page.Click("Make app password").HasText("It is marked below")
	})
	for _, app := range []string{"Thunderbird", "Outlook", "iPhone, iPad or Mac", "Another app or device"} {
		look(page, "made-"+app[:5], "/passwords/new", func(page *testlab.Page) {
			page.Fill("Which app or device is it for?", "Laptop").Tick("Mail, calendars and contacts").Choose("Which app do you want to set up?", app)
			page.Click("Make app password").HasText("It is shown only now.")
		})
	}
	look(page, "revoked", fmt.Sprintf("/passwords/%d/revoke", id), func(page *testlab.Page) { page.Click("Revoke").HasText("That is done everywhere") })
	look(page, "single", "/passwords/new", func(page *testlab.Page) {
		page.Click("Only some calendars or address books").Tick("Mail, calendars and contacts").Tick("Private").Tick("Only these address books:")
		page.Fill("Which app or device is it for?", "Laptop").Click("Make app password").HasText("Tick the address books")
	})
	look(page, "made-single", "/passwords/new", func(page *testlab.Page) {
		page.Fill("Which app or device is it for?", "Laptop").Tick("Mail, calendars and contacts").Click("Only some calendars or address books").Tick("Private").Tick("Friends")
		page.Click("Make app password").HasText("Calendar: Private")
	})
	refused := errors.New("connection refused")
	s.set(nil, refused, refused)
	look(page, "single-down", "/passwords/new", unfold)
	l.pass(6 * time.Minute)
	look(page, "confirm", "/passwords/revoke-all", nil)
}

// The secret is shown once: it can be copied, and neither Back nor a reload shows it again.
func TestSecretIsShownOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	p := l.person(alice)
	page := p.page(testlab.Browser(t, l.ca)).AllowClipboard()
	page.Open(l.site + "/passwords").Click("Make the first app password")
	page.Fill("Which app or device is it for?", "Laptop").Tick("Mail").Click("Make app password").HasText("It is shown only now.")
	var shown string
	page.Eval(`document.getElementById("secret").textContent`, &shown)
	page.Click("Copy app password")
	if got := page.Clipboard(); got != shown || len(got) != 23 {
		t.Errorf("copied %q of %q", got, shown)
	}
	page.Click("Done").At("/passwords").HasText("Laptop")
	page.Expect("net::ERR_CACHE_MISS") // Chromium asks whether the form shall be sent again
	page.Back().HasNoText(shown)
	page.Open(l.site + "/passwords/new")
	page.Fill("Which app or device is it for?", "Phone").Tick("Mail").Click("Make app password").HasText("It is shown only now.")
	page.Eval(`document.getElementById("secret").textContent`, &shown)
	page.Reload().HasText("It was made already").HasNoText(shown)
	if n := len(p.active()); n != 2 {
		t.Errorf("%d app passwords, want 2", n)
	}
}
