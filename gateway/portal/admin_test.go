package portal

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/gateway/oidcsignin"
)

// administrator is a person who may administer.
func (l *lab) administrator(address string) *person {
	l.t.Helper()
	p := l.person(address)
	if _, err := l.accounts.SetAdmin(l.t.Context(), p.account, true); err != nil {
		l.t.Fatal(err)
	}
	return p
}

// page is the path of a person's page for administrators.
func (p *person) adminPage() string { return accountPath(p.account) }

// state is all that an administrator could change of a person.
func (p *person) state() string {
	p.t.Helper()
	ctx := context.Background()
	a, err := p.accounts.Numbered(ctx, p.account)
	if err != nil {
		p.t.Fatal(err)
	}
	list, _ := p.accounts.Passwords(ctx, p.account, true)
	o, err := p.people.Overview(ctx, p.account)
	if err != nil {
		p.t.Fatal(err)
	}
	events, _ := p.accounts.Events(ctx, authstore.EventQuery{Account: p.account, Limit: 1000})
	return fmt.Sprint(a, list, o, events)
}

// last is the newest line of a person's history.
func (p *person) last() authstore.Event {
	p.t.Helper()
	events, err := p.accounts.Events(context.Background(), authstore.EventQuery{Account: p.account, Limit: 1})
	if err != nil || len(events) == 0 {
		p.t.Fatalf("%v, %v", events, err)
	}
	return events[0]
}

// Whoever is no administrator learns nothing of the pages for administrators, whatever is asked of them.
func TestNoAdministrationForOthers(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	p, was, bob := l.person(alice), l.administrator("was@example.test"), l.person("bob@example.test")
	id := bob.made("Phone", authstore.ScopeMail).ID
	was.get("/admin").says(200)
	l.accounts.SetAdmin(t.Context(), was.account, false)
	nobody := l.person("nobody@example.test")
	nobody.browser.Jar = nil
	half := l.administrator("half@example.test")
	half.browser.Jar = nil
	half.awaitsFactor()
	if n := len(l.server.administration); n < 20 {
		t.Fatalf("%d patterns", n)
	}
	before := bob.state()
	for name, them := range map[string]*person{"a person": p, "a former administrator": was, "nobody": nobody, "an administrator without a second factor": half} {
		ordinary := them.get("/no/such").says(http.StatusNotFound).text()
		for _, pattern := range l.server.administration {
			_, path, _ := strings.Cut(pattern, " ")
			path = strings.NewReplacer("{account}", strconv.FormatInt(int64(bob.account), 10), "{id}", strconv.FormatInt(int64(id), 10)).Replace(path)
			for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
				form := url.Values{"purpose": {"begin"}, "label": {"x"}, "preset": {"mail"}, "expires": {"never"}, "domain": {"example.test"}, "typed": {"example.test"}}
				if r := them.do(method, path, form); r.StatusCode != http.StatusNotFound || r.text() != ordinary {
					t.Errorf("%s, %s %s: %s %s", name, method, path, r.Status, r.text())
				}
			}
		}
	}
	if bob.state() != before {
		t.Error("somebody changed something")
	}
	p.get("/passwords").says(200).silent("/admin")
	// Who is led to the sign-in has had a session a moment ago.
	was.browser.Jar.SetCookies(was.address(), []*http.Cookie{{Name: sessionCookie, Value: strings.Repeat("A", 43), Path: "/", Secure: true}})
	was.get("/admin").leads("/sign-in?to=%2Fadmin&ended")
}

func (p *person) address() *url.URL {
	u, err := url.Parse(p.site)
	if err != nil {
		p.t.Fatal(err)
	}
	return u
}

// awaitsFactor gives the person's browser a session that has only got to the primary password.
func (p *person) awaitsFactor() {
	p.t.Helper()
	token, s, err := p.people.SignIn(p.t.Context(), identity.Visitor{}, "half@example.test", []byte("plum anchor velvet 93 drizzle"))
	if err != nil || s.Stage != identity.AwaitsFactor {
		p.t.Fatalf("%+v, %v", s, err)
	}
	p.browser.Transport = withCookie{p.browser.Transport, &http.Cookie{Name: sessionCookie, Value: string(token)}}
}

type withCookie struct {
	http.RoundTripper
	cookie *http.Cookie
}

func (w withCookie) RoundTrip(r *http.Request) (*http.Response, error) {
	r.AddCookie(w.cookie)
	return w.RoundTripper.RoundTrip(r)
}

// Each act is asked before, needs a fresh second factor, hits the named account and no other, and stands in its history with who did it.
func TestAdministratorsActs(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	admin, bob := l.administrator("root@example.test"), l.person("bob@example.test")
	bob.made("Phone", authstore.ScopeMail)
	for i, tt := range []struct {
		path, asks, says string
		form             url.Values
		kind, detail     string
		check            func(*person) string // what is wrong; empty: nothing
	}{
		{"/suspend", "All apps of this account are signed out", "is suspended", nil, "account.suspended", "", func(p *person) string {
			if a, _ := p.accounts.Numbered(t.Context(), p.account); a.Status != authstore.AccountPaused {
				return "it is " + a.Status.String()
			}
			return ""
		}},
		{"/sign-out", "All browsers in which this person is signed in", "", nil, "portal.sessions_ended", "1", func(p *person) string {
			if o, _ := p.people.Overview(t.Context(), p.account); len(o.Sessions) > 0 {
				return "sessions go on"
			}
			return ""
		}},
		{"/reset-factors", "needs a link", "", nil, "factors.reset", "1", func(p *person) string {
			if o, _ := p.people.Overview(t.Context(), p.account); len(o.Sessions)+len(o.Factors.List)+o.Factors.Recovery > 0 || len(p.active()) != 2 {
				return fmt.Sprintf("%+v is left, and %d app passwords", o, len(p.active()))
			}
			return ""
		}},
		{"/invite", "is told by mail", "shown only now", url.Values{"purpose": {"factor"}}, "invitation.made", "factor", nil},
		{"/invite", "whoever has it gets in", "2 app passwords end with it.", url.Values{"purpose": {"begin"}}, "invitation.made", "begin", nil},
		{"/passwords/revoke-all", "has 2 app passwords", "All app passwords are revoked", url.Values{"reason": {"left the company"}}, "password.revoked_all", "left the company", func(p *person) string {
			if n := len(p.active()); n > 0 {
				return fmt.Sprint(n, " are active")
			}
			return ""
		}},
		{"/passwords/{id}/revoke", "signed out at once", "“Scanner” is revoked", url.Values{"reason": {"lost"}}, "password.revoked", "lost", func(p *person) string {
			if list := p.active(); len(list) != 1 || list[0].Label != "Phone" {
				return fmt.Sprint(list)
			}
			return ""
		}},
		{"/passwords/new", "It is shown once, to you", "It is shown only now.", url.Values{"label": {"Copier"}, "preset": {"mail"}, "expires": {"never"}, "app": {"other"}}, "password.created", "Copier", func(p *person) string {
			list := p.active()
			if made := list[len(list)-1]; made.MadeBy != "root@example.test" || len(list) != 3 {
				return fmt.Sprintf("%+v", made)
			}
			return ""
		}},
	} {
		p := l.person(fmt.Sprintf("p%d@example.test", i))
		p.made("Phone", authstore.ScopeMail)
		path := p.adminPage() + strings.Replace(tt.path, "{id}", strconv.FormatInt(int64(p.made("Scanner", authstore.ScopeSubmit).ID), 10), 1)
		before, own := p.state(), admin.active()
		l.pass(6 * time.Minute)
		form := admin.get(path).says(200, tt.asks, "Confirm that it is you").form()
		for name, values := range tt.form {
			form[name] = values
		}
		admin.post(path, form).says(http.StatusUnprocessableEntity, "Confirm that it is you")
		form.Set("code", "000000x")
		admin.post(path, form).says(http.StatusUnprocessableEntity, "code is wrong")
		if p.state() != before {
			t.Errorf("%s without a second factor changed something", tt.path)
		}
		form.Set("code", admin.code())
		bobs := bob.state() // now: his sessions run out while the clock is moved
		if r := admin.post(path, form); tt.says == "" {
			r.leads(p.adminPage() + "?done=" + map[string]string{"/sign-out": "signed_out", "/reset-factors": "factors"}[tt.path])
		} else {
			r.says(200, tt.says)
		}
		e := p.last()
		if e.Kind != tt.kind || e.Detail != tt.detail || e.Actor.Name != "admin:root@example.test" || e.Actor.Client.String() != "127.0.0.1" || !strings.Contains(e.Actor.Agent, "Go-http-client") {
			t.Errorf("%s: the history has %+v", tt.path, e)
		}
		if tt.check != nil {
			if wrong := tt.check(p); wrong != "" {
				t.Errorf("%s: %s", tt.path, wrong)
			}
		}
		if bob.state() != bobs || len(admin.active()) != len(own) {
			t.Errorf("%s hit somebody else", tt.path)
		}
	}
}

func TestSuspendAndResume(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	admin, p := l.administrator("root@example.test"), l.person(alice)
	admin.post(p.adminPage()+"/suspend", nil).says(200, "alice@example.test is suspended", "all servers have confirmed")
	admin.get(p.adminPage()).says(200, "suspended since", "Resume").silent("/suspend\"", "/invite")
	p.get("/passwords").leads("/sign-in?to=%2Fpasswords&ended")
	admin.get("/admin?status=suspended").says(200, alice).silent("root@example.test</a>")
	admin.post(p.adminPage()+"/resume", nil).says(200, "alice@example.test is open again")
	admin.get(p.adminPage()).says(200, "active since")
}

// An administrator's own account is changed where everybody's is.
func TestAdministratorsOwnAccount(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	admin := l.administrator("root@example.test")
	id := admin.made("Phone", authstore.ScopeMail).ID
	before := admin.state()
	n := 0
	for _, pattern := range l.server.administration {
		method, path, _ := strings.Cut(pattern, " ")
		if path == "/admin/accounts/{account}" || path == "/admin/accounts/{account}/passwords/{id}" || !strings.Contains(path, "{account}") {
			continue
		}
		path = strings.NewReplacer("{account}", strconv.FormatInt(int64(admin.account), 10), "{id}", strconv.FormatInt(int64(id), 10)).Replace(path)
		admin.do(method, path, url.Values{"purpose": {"begin"}, "label": {"x"}, "preset": {"mail"}, "expires": {"never"}}).says(http.StatusForbidden, "your own account")
		n++
	}
	if n < 16 || admin.state() != before {
		t.Errorf("%d tried; the account is\n%s\nand was\n%s", n, admin.state(), before)
	}
	admin.get(admin.adminPage()).says(200, "your own account", "Phone").silent("/suspend", "/revoke", "/invite", admin.adminPage()+"/sign-out", "/reset-factors")
}

// Nobody who has one administrator's browser can stay as another one.
func TestAdministratorsSignInIsNotRenewed(t *testing.T) {
	t.Parallel()
	l := newLabWith(t, func(who *identity.Options, _ *Options) {
		who.Vouching, who.AdminGroups = "ldap", []string{"postmasters"}
	})
	admin, other, member := l.administrator("root@example.test"), l.administrator("other@example.test"), l.person("member@example.test")
	if _, err := l.store.Act(t.Context(), authstore.Actor{Name: "test"}, member.account, func(tx identity.Tx) error {
		return tx.SetTie(t.Context(), identity.Tie{Issuer: "ldap", Subject: "m", Groups: []string{"postmasters"}, Seen: l.clock()})
	}); err != nil {
		t.Fatal(err)
	}
	member.get("/admin").says(200, "root@example.test")
	for _, p := range []*person{other, member} {
		before := p.state()
		admin.post(p.adminPage()+"/invite", url.Values{"purpose": {"begin"}}).says(http.StatusForbidden, "at the command line only")
		admin.post(p.adminPage()+"/reset-factors", nil).says(http.StatusForbidden, "at the command line only")
		admin.get(p.adminPage()).says(200, "at the command line only").silent("/invite", "/reset-factors")
		if p.state() != before {
			t.Error("something has changed")
		}
	}
	admin.get(member.adminPage()).says(200, "by a group", "the directory", "groups: postmasters")
	admin.post(other.adminPage()+"/suspend", nil).says(200, "is suspended") // of one whose browser is in wrong hands
	other.get("/admin").leads("/sign-in?to=%2Fadmin&ended")
}

// An app password is looked at and revoked under its own account only.
func TestAdministratorsPathsBelongTogether(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	admin, p, bob := l.administrator("root@example.test"), l.person(alice), l.person("bob@example.test")
	id := bob.made("Phone", authstore.ScopeMail).ID
	for _, path := range []string{fmt.Sprintf("%s/passwords/%d", p.adminPage(), id), fmt.Sprintf("%s/passwords/%d/revoke", p.adminPage(), id),
		"/admin/accounts/4711", "/admin/accounts/x", "/admin/accounts/0", "/admin/accounts/-1/suspend"} {
		admin.get(path).says(http.StatusNotFound)
		admin.post(path, nil).says(http.StatusNotFound)
	}
	if len(bob.active()) != 1 {
		t.Error("it was revoked")
	}
	admin.get(fmt.Sprintf("%s/passwords/%d", bob.adminPage(), id)).says(200, "Phone", "bob@example.test", "was made").silent("/edit")
}

// What an administrator made for a device is known as such wherever its owner looks.
func TestMadeForADevice(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	admin, p := l.administrator("root@example.test"), l.person(alice)
	path := p.adminPage() + "/passwords/new"
	form := admin.get(path).says(200, "For a scanner").form()
	form.Set("label", "Scanner <2nd floor>")
	form.Set("preset", "scanner")
	if !strings.Contains(admin.get(path).body, `value="scanner"`) {
		form.Set("preset", "mail")
	}
	r := admin.post(path, form).says(200, "It is shown only now.", "Scanner <2nd floor>", alice)
	secret := strings.Join(strings.Fields(r.shown()), "")
	if len(secret) < 20 {
		t.Fatalf("the page shows %q", secret)
	}
	admin.post(path, form).says(200, "made already").silent(secret) // a reload
	admin.get(p.adminPage()).says(200, "made by the administrator root@example.test").silent(secret)
	id := p.active()[0].ID
	for _, path := range []string{"/passwords", fmt.Sprintf("/passwords/%d", id), "/history"} {
		p.get(path).says(200, "by the administrator root@example.test").silent(secret)
	}
	form.Set("request", "other")
	form.Set("label", "")
	admin.post(path, form).says(http.StatusUnprocessableEntity, "Give it a name.")
	p.post(fmt.Sprintf("/passwords/%d/revoke", id), nil).says(200, "is revoked") // its owner's as any other
	p.get("/passwords?ended").says(200, "made by the administrator")
}

// What an administrator makes is bound by the policy of the account, not by his own.
func TestMadeForADeviceKeepsToThePolicy(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	admin, p := l.administrator("root@example.test"), l.person("bob@narrow.test")
	l.accounts.SetPolicies(authstore.Policies{{Domains: []string{"narrow.test"}, Policy: authstore.Policy{Presets: []string{"mail-read"}, MostActive: 1}}})
	path := p.adminPage() + "/passwords/new"
	form := admin.get(path).says(200, "Mail, read only").silent(`value="everything"`).form()
	form.Set("label", "Scanner")
	form.Set("scope", "submit")
	admin.post(path, form).says(http.StatusUnprocessableEntity, "may not open that much")
	form.Del("scope")
	form.Set("preset", "mail-read")
	admin.post(path, form).says(200, "It is shown only now.")
	admin.get(path).says(200, "no more than one")
	admin.get(p.adminPage()).says(200, "no more than one").silent("/passwords/new")
}

// Accounts are found by parts of their names, and listed page by page.
func TestFindAccounts(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	admin := l.administrator("root@example.test")
	for i := range 60 {
		if _, err := l.accounts.Add(t.Context(), fmt.Sprintf("member%02d@choir.test", i)); err != nil {
			t.Fatal(err)
		}
	}
	first := admin.get("/admin").says(200, "member00@", "member49@").silent("member50@", "root@example.test</a>")
	next := attribute(first.element("role", "button"), "href")
	admin.get(next).says(200, "member50@", "member59@", "root@example.test", "To the first").silent("member49@")
	admin.get("/admin?q=EMBER3&domain=Choir.Test").says(200, "member30@", "member39@").silent("member40@", "root@example.test</a>")
	admin.get("/admin?q=%25").says(200, "No account is like that.")
	admin.get("/admin?domain=not+a+domain").says(200, "No account is like that.")
	admin.get("/admin?status=gone").says(200, "No account is like that.")
}

// All app passwords of a domain end in steps; each says truly how far it has got.
func TestDomain(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	l.server.batch = 2
	admin, bob := l.administrator("root@example.test"), l.person("bob@other.test")
	bob.made("Phone", authstore.ScopeMail)
	var of []*person
	for i := range 5 {
		p := l.person(fmt.Sprintf("p%d@leaves.test", i))
		p.made("Phone", authstore.ScopeMail)
		p.made("Laptop", authstore.ScopeMail)
		of = append(of, p)
	}
	if _, err := l.accounts.AddAlias(t.Context(), bob.account, "bob@leaves.test"); err != nil {
		t.Fatal(err)
	}
	before := bob.state()
	admin.get("/admin/domain").says(200, "how many")
	admin.get("/admin/domain?domain=nothing.test").says(200, "No account of nothing.test has")
	form := admin.get("/admin/domain?domain=Leaves.TEST").says(200, "5 accounts of leaves.test", "10 of them").form()
	admin.post("/admin/domain", form).says(http.StatusUnprocessableEntity, "another domain")
	form.Set("typed", "other.test")
	admin.post("/admin/domain", form).says(http.StatusUnprocessableEntity, "another domain")
	if n := len(of[0].active()); n != 2 {
		t.Fatalf("%d are active before it is confirmed", n)
	}
	form.Set("typed", "leaves.test")
	form.Set("reason", "the choir has left")
	r := admin.post("/admin/domain", form).says(200, "2 of 5 accounts are done")
	l.pass(6 * time.Minute)
	r = admin.post("/admin/domain", r.form()).says(http.StatusUnprocessableEntity, "Confirm that it is you", "2 of 5")
	form = r.form()
	form.Set("code", admin.code())
	r = admin.post("/admin/domain", form).says(200, "4 of 5 accounts are done").silent("Confirm that it is you")
	admin.post("/admin/domain", r.form()).says(200, "All app passwords of leaves.test are revoked. Accounts: 5.", "all servers have confirmed")
	for _, p := range of {
		if e := p.last(); len(p.active()) != 0 || e.Kind != "password.revoked_all" || e.Detail != "the choir has left" || e.Actor.Name != "admin:root@example.test" {
			t.Errorf("%d are active; %+v", len(p.active()), e)
		}
	}
	if bob.state() != before || len(bob.active()) != 1 {
		t.Error("somebody of another domain was hit, by an alias")
	}
	// A node that is silent is told of at the end, though the last request has found nothing to do.
	if err := l.store.Register(t.Context(), "silent", l.keys.Numbers()); err != nil {
		t.Fatal(err)
	}
	of[0].made("Phone", authstore.ScopeMail)
	form = url.Values{"domain": {"leaves.test"}, "typed": {"leaves.test"}, "total": {"1"}}
	admin.post("/admin/domain", form).says(200, "One of our servers has not confirmed")
	admin.post("/admin/domain", form).says(200, "One of our servers has not confirmed")
}

// The audit tells what happened to all accounts, by whom, when.
func TestAudit(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	admin, p, bob := l.administrator("root@example.test"), l.person(alice), l.person("bob@example.test")
	made := p.made("=Phone", authstore.ScopeMail)
	bob.made("Tablet", authstore.ScopeMail)
	admin.post(p.adminPage()+"/passwords/revoke-all", url.Values{"reason": {"=1+1"}}).says(200)
	admin.get("/admin/audit").says(200, "“=Phone” was made", "“Tablet” was made", alice, "bob@example.test", "by the administrator root@example.test", "The person signed in.", "by the person").silent("You signed in")
	admin.get("/admin/audit?account="+url.QueryEscape("ALICE@example.test")).says(200, "“=Phone” was made").silent("Tablet")
	admin.get("/admin/audit?by=Root%40example.test").says(200, "All app passwords were revoked", "=1+1").silent("was made")
	admin.get("/admin/audit?by=cli%3Aroot&show=passwords").says(200, "was made").silent("All app passwords were revoked")
	admin.get("/admin/audit?show=factors&account="+alice).says(200, "second factor").silent("was made")
	admin.get("/admin/audit?account=nobody%40example.test").says(http.StatusUnprocessableEntity, "There is no account").silent("was made")
	admin.get("/admin/audit.csv?account=nobody%40example.test").says(http.StatusNotFound)
	admin.get("/admin/audit?from=yesterday").says(http.StatusUnprocessableEntity, "That is no day")
	tomorrow, today := l.clock().Add(36*time.Hour).Format(time.DateOnly), l.clock().Add(-36*time.Hour).Format(time.DateOnly)
	admin.get("/admin/audit?from="+tomorrow).says(200, "Nothing has happened of this kind.")
	admin.get("/admin/audit?to="+today).says(200, "Nothing has happened of this kind.")
	admin.get("/admin/audit?from="+today+"&to="+tomorrow).says(200, "Tablet")
	admin.get(p.adminPage()).says(200, "by the administrator root@example.test", "Reason: =1+1", "The person signed in.")
	p.get("/history").says(200, "by the administrator root@example.test", "You signed in.", "Reason: =1+1")

	for i := range historyBatch + 60 {
		if _, err := l.accounts.EditPassword(t.Context(), bob.active()[0].ID, authstore.PasswordEdit{Label: fmt.Sprint("Tablet ", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.accounts.Remove(t.Context(), bob.account); err != nil {
		t.Fatal(err)
	}
	first := admin.get("/admin/audit").says(200, "an account that is gone", "The account was removed.")
	older := admin.get(attribute(first.element("role", "button"), "href")).says(200, "Back to the latest")
	if older.text() == first.text() {
		t.Error("the older ones are the same")
	}
	r := admin.get("/admin/audit.csv")
	if got := r.Header.Get("Content-Disposition"); got != "attachment; filename=audit.csv" {
		t.Errorf("Content-Disposition: %s", got)
	}
	rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(r.body, "\ufeff"))).ReadAll()
	events, _ := l.accounts.Events(t.Context(), authstore.EventQuery{Limit: 10000})
	if err != nil || len(rows) != len(events)+1 || len(rows[0]) != 8 || rows[0][0] != "Account" {
		t.Fatalf("%d rows of %d events, %v", len(rows), len(events), err)
	}
	seen := make(map[string]bool)
	for _, row := range rows[1:] {
		seen[row[0]] = true
		if strings.HasPrefix(row[3], "=") {
			t.Errorf("a spreadsheet takes %q for a formula", row[3])
		}
	}
	if !seen[alice] || !seen[""] || !seen["root@example.test"] {
		t.Errorf("the accounts are %v", seen)
	}
	if one, _ := csv.NewReader(strings.NewReader(admin.get("/admin/audit.csv?by=root%40example.test").body)).ReadAll(); len(one) != 2 {
		t.Errorf("of the administrator: %v", one)
	}
	_ = made
}

// An administrator's forms have a budget of their own.
func TestAdministratorsBudget(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	admin, p := l.administrator("root@example.test"), l.person(alice)
	for i := range 120 {
		if r := admin.post(p.adminPage()+"/passwords/4711/revoke", nil); r.StatusCode != http.StatusNotFound {
			t.Fatalf("form %d: %s", i, r.Status)
		}
	}
	admin.post(p.adminPage()+"/suspend", nil).says(http.StatusTooManyRequests)
	admin.get(p.adminPage()).says(200, "active")
	admin.post("/security/sessions/end", nil).leads("/security?done=sessions") // what is his own has another one
	l.pass(5 * time.Second)
	admin.post(p.adminPage()+"/suspend", nil).says(200, "is suspended")
}

// A form that an administrator had begun changes nothing once his session has ended or his role was taken back.
func TestAFormThatComesTooLateForItsAdministrator(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		end  func(*person)
		want int
	}{
		"role": {func(p *person) { p.accounts.SetAdmin(context.Background(), p.account, false) }, http.StatusNotFound},
		"session": {func(p *person) {
			p.people.SignOutAll(context.Background(), authstore.Actor{Name: "cli:root"}, p.account)
		}, http.StatusSeeOther},
		"account": {func(p *person) { p.accounts.Suspend(context.Background(), p.account) }, http.StatusSeeOther},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, nil)
			admin, p := l.administrator("root@example.test"), l.person(alice)
			before := p.state()
			body, rest := io.Pipe()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, l.site+p.adminPage()+"/suspend", body)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			answered := make(chan *http.Response, 1)
			go func() {
				defer close(answered)
				if resp, err := admin.browser.Do(r); err == nil {
					resp.Body.Close()
					answered <- resp
				}
			}()
			io.WriteString(rest, "x=")
			time.Sleep(200 * time.Millisecond) // for the server to have begun
			tt.end(admin)
			rest.Close()
			if resp := <-answered; resp == nil || resp.StatusCode != tt.want {
				t.Errorf("the answer is %+v, want %d", resp, tt.want)
			}
			if p.state() != before {
				t.Error("something was changed")
			}
			// and where it ends behind the page's own look, the store refuses: storetest has each change of it
			who := l.people.Administrator(identity.Visitor{}, identity.Session{ID: 1, Account: admin.account, Address: "root@example.test"})
			if err := l.people.ResetFactors(t.Context(), who, p.account); err == nil {
				t.Error("second factors were reset all the same")
			}
			if _, _, err := l.people.Invite(t.Context(), who, p.account, identity.Begin); err == nil {
				t.Error("a link was made all the same")
			}
			if p.state() != before {
				t.Error("something was changed")
			}
		})
	}
}

// A link is shown once, works once, and what it is for is what was chosen.
func TestAdministratorsLink(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	admin, p := l.administrator("root@example.test"), l.person(alice)
	fresh, err := l.accounts.Add(t.Context(), "fresh@example.test")
	if err != nil {
		t.Fatal(err)
	}
	admin.get(p.adminPage()+"/invite").says(200, "A new second factor", "A new primary password")
	admin.get(accountPath(fresh.ID)+"/invite").says(200, "A new primary password").silent("purpose-factor")
	before := p.state()
	admin.post(p.adminPage()+"/invite", url.Values{"purpose": {"own"}}).says(http.StatusUnprocessableEntity, "Choose what the link is for.")
	if p.state() != before {
		t.Error("a link of no purpose was made")
	}
	r := admin.post(p.adminPage()+"/invite", url.Values{"purpose": {"factor"}}).says(200, "asks for the primary password")
	_, secret, ok := strings.Cut(r.text(), l.site+"/invitation/")
	secret, _, _ = strings.Cut(secret, " ")
	if i, err := l.people.Invitation(t.Context(), secret); !ok || err != nil || i.SetsPrimary || i.Address != alice {
		t.Errorf("the link is %+v, %v", i, err)
	}
	if slices.ContainsFunc([]string{p.adminPage(), "/admin/audit"}, func(path string) bool { return strings.Contains(admin.get(path).body, secret) }) {
		t.Error("the link stands on another page")
	}
}

// An administrator whose second factor is at the provider gives it there, before the form; there is no link to make.
func TestAdministratorAtTheProvider(t *testing.T) {
	t.Parallel()
	p := newIDP(t, func(who *identity.Options, _ *oidcsignin.Options) { who.AdminGroups = []string{"staff"} })
	v := p.victim() // who is of the staff, at the provider
	b, page := v.browser, accountPath(v.bob.ID)
	b.get("/admin").at("/admin").says(bob)
	b.get(page).at(page).says("People sign in at Example ID.")
	if strings.Contains(b.source, "/invite") {
		t.Error("a link is offered")
	}
	b.get(page + "/invite").says("no such page")
	b.post(page+"/invite", url.Values{"purpose": {"factor"}}).says("no such page")
	p.pass(6 * time.Minute)
	for _, path := range []string{page + "/suspend", page + "/passwords/new", page + "/passwords/revoke-all", "/admin/domain"} {
		b.get(path).at(path).says("You give it at Example ID")
		if b.with("href", "/sign-in/oidc/again?to="+url.QueryEscape(path)) != "Confirm with Example ID" || strings.Contains(b.source, `name="label"`) {
			t.Errorf("%s: %s", path, b.source)
		}
	}
	b.post(page+"/suspend", nil).says("Confirm with Example ID")
	if a, _ := p.accounts.Numbered(t.Context(), v.bob.ID); a.Status != authstore.Active {
		t.Error("it is suspended without a second factor")
	}
	b.get("/sign-in/oidc/again?to="+url.QueryEscape(page+"/suspend")).at(page+"/suspend").submit(page+"/suspend", nil).says("bob@example.test is suspended")
	if e, _ := p.accounts.Events(t.Context(), authstore.EventQuery{Account: v.bob.ID, Limit: 1}); e[0].Kind != "account.suspended" || e[0].Actor.Name != "admin:"+alice {
		t.Errorf("%+v", e)
	}
}
