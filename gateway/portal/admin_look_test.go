package portal

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/internal/testlab"
)

// The pages for administrators fit their windows and are fit to use, in both languages, with what gathers in some months.
func TestAdministrationInChromium(t *testing.T) {
	t.Parallel()
	l := newLabWith(t, func(who *identity.Options, o *Options) {
		who.AdminGroups, o.Places = []string{"postmasters"}, atlas{}
	})
	admin, p := l.administrator("root@example.test"), l.person("donaudampfschifffahrtsgesellschaftskapitaen@rather-long-name-of-a-choir.example.test")
	p.furnish()
	if _, err := l.accounts.AddAlias(t.Context(), p.account, "kapitaen@rather-long-name-of-a-choir.example.test"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.store.Act(t.Context(), authstore.Actor{Name: "test"}, p.account, func(tx identity.Tx) error {
		return tx.SetTie(t.Context(), identity.Tie{Issuer: "https://login.example.test/realms/choir", Subject: "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", Groups: []string{"tenors", "board"}, Seen: l.clock()})
	}); err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		if _, err := l.accounts.Add(t.Context(), fmt.Sprintf("member%02d@choir.test", i)); err != nil {
			t.Fatal(err)
		}
	}
	id := p.active()[3].ID
	page := admin.page(testlab.Browser(t, l.ca))
	look := func(name, path string) {
		t.Helper()
		page.Open(l.site + path)
		fitInBoth(page, "admin-"+name)
	}
	// what has the parts of another page is looked at where it is narrowest
	glance := func(path string) {
		t.Helper()
		page.Open(l.site + path).Phone().FitsWidth().Axe().Desktop()
	}
	look("accounts", "/admin")
	page.Open(l.site+"/passwords").Click("Administration").At("/admin").Fill("Part of an address", "kapitaen").Click("Show").HasText("rather-long-name")
	page.Click("donaudampfschifffahrtsgesellschaftskapitaen@rather-long-name-of-a-choir.example.test").At(p.adminPage())
	fitInBoth(page, "admin-account")
	glance(fmt.Sprint("/admin/accounts/", p.account+1))
	glance(admin.adminPage())
	glance(fmt.Sprintf("%s/passwords/%d", p.adminPage(), id))
	look("audit", "/admin/audit")
	glance("/admin/audit?account=nobody")
	page.Open(l.site + "/admin/domain")
	page.Fill("Domain", "rather-long-name-of-a-choir.example.test").Click("Go on").HasText("One account of")
	fitInBoth(page, "admin-domain-counts")

	look("invite", p.adminPage()+"/invite")
	glance(p.adminPage() + "/reset-factors")
	glance(p.adminPage() + "/passwords/new")
	page.Fill("Which app or device is it for?", "Scanner").Tick("Mail").Click("Make app password").HasText("It is shown only now.")
	page.Click("Done").At(p.adminPage()).HasText("made by the administrator root@example.test")
	page.Click("Revoke “Scanner”").HasText("signed out at once")
	fitInBoth(page, "admin-revoke")
	page.Fill("Reason", "the scanner was sold").Click("Revoke").HasText("all servers have confirmed")
	page.Open(p.site + p.adminPage()).Click("Make a link").Tick("A new primary password and a new second factor").Click("Make the link").HasText("It is shown only now")
	fit(page, "admin-link")

	l.pass(6 * time.Minute)
	glance(p.adminPage() + "/passwords/revoke-all")
	page.Fill("Code from your authenticator app, or a recovery code", "000000").Click("Revoke all").HasText("code is wrong")
	page.Fill("Code from your authenticator app, or a recovery code", admin.code()).Click("Revoke all").HasText("All app passwords are revoked")
}

// The app passwords of a domain end in steps that go on by themselves; without a script, by a button. All is within reach of the keyboard.
func TestDomainInChromium(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	l.server.batch = 1
	admin := l.administrator("root@example.test")
	people := func() (list []*person) {
		for i := range 3 {
			p := l.person(fmt.Sprintf("p%d-%d@leaves.test", l.clock().UnixNano(), i))
			p.made("Phone", authstore.ScopeMail)
			list = append(list, p)
		}
		return list
	}
	b := testlab.Browser(t, l.ca)
	page := admin.page(b)
	first := people()
	page.Open(l.site + "/admin/domain?domain=leaves.test").HasText("3 accounts of leaves.test")
	page.Fill("To go on, type the domain: leaves.test", "leaves").Click("Revoke all of them").HasText("another domain")
	fit(page, "admin-domain-differs")
	page.Fill("To go on, type the domain: leaves.test", "leaves.test").Click("Revoke all of them").HasText("All app passwords of leaves.test are revoked. Accounts: 3.")
	fit(page, "admin-domain-done")
	for _, p := range first {
		if n := len(p.active()); n > 0 {
			t.Errorf("%d are active", n)
		}
	}
	l.pass(time.Second)
	people()
	plain := b.Page(t).WithoutScript()
	plain.SetCookie(l.site+"/", sessionCookie, string(admin.token))
	plain.Open(l.site+"/admin/domain?domain=leaves.test").Fill("To go on, type the domain: leaves.test", "leaves.test")
	plain.Click("Revoke all of them").HasText("1 of 3 accounts are done")
	fit(plain, "admin-domain-running")
	plain.Click("Go on").HasText("2 of 3").Click("Go on").HasText("Accounts: 3.")
}

// An administrator needs no mouse: the way from the search to a suspended account.
func TestAdministrationByKeyboard(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	admin, p := l.administrator("root@example.test"), l.person(alice)
	p.made("Phone", authstore.ScopeMail)
	page := admin.page(testlab.Browser(t, l.ca))
	tabTo := func(name string) {
		t.Helper()
		for range 60 {
			if page.Press("Tab"); strings.TrimSpace(page.Focused()) == name {
				return
			}
		}
		t.Fatalf("%s can't be reached by the keyboard on %s", name, page.Path())
	}
	page.Open(l.site+"/admin").Fill("Part of an address", "alice").Press("Enter").At("/admin?")
	tabTo(alice)
	page.Press("Enter").At(p.adminPage())
	for _, name := range []string{"Suspend", "Make an app password for a device", "Phone", "Revoke", "Revoke all app passwords", "Make a link", "Take away second factors", "Sign out everywhere", "All that happened with this account"} {
		tabTo(name)
	}
	page.Open(l.site + p.adminPage())
	tabTo("Suspend")
	page.Press("Enter").At(p.adminPage() + "/suspend")
	tabTo("Suspend")
	page.Press("Enter").HasText("is suspended", "all servers have confirmed")
	tabTo("Back")
	page.Press("Enter").At(p.adminPage()).HasText("suspended since")
}
