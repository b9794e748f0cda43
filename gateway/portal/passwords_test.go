package portal

import (
	"context"
	"encoding/csv"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/authstore/secret"
	"postern/protocols"
)

// wanted is a form that asks for an app password, filled in.
func (p *person) wanted(change url.Values) url.Values {
	p.t.Helper()
	f := p.get("/passwords/new").says(200).form()
	f.Set("label", "Laptop")
	f.Set("preset", "mail")
	for name, values := range change {
		f[name] = values
	}
	return f
}

// shown is the secret on a page.
func (r reply) shown() string {
	r.t.Helper()
	n := r.element("id", "secret")
	if n == nil {
		r.t.Fatalf("no secret is shown: %s\n%s", r.Status, r.text())
	}
	var b strings.Builder
	for part := range n.ChildNodes() {
		b.WriteString(part.FirstChild.Data)
	}
	return b.String()
}

func TestCreate(t *testing.T) {
	t.Parallel()
	p := newLab(t, nil).person(alice)
	p.get("/passwords").says(200, "You have no app passwords.", "An app password is a password for one app")
	form := p.wanted(url.Values{"label": {"Thunderbird"}, "preset": {"everything"}, "app": {"thunderbird"}, "networks": {"192.0.2.9/24\n2001:db8::1"}, "expires": {"90"}})
	r := p.post("/passwords/new", form).says(200, "It is shown only now.", "mail.example.test", "993", "SSL/TLS", alice, "https://mail.example.test/dav/", "Normal password")
	if got := r.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control: %q", got)
	}
	typed, err := secret.Parse([]byte(r.shown()))
	if err != nil {
		t.Fatalf("%q is no app password: %v", r.shown(), err)
	}
	if open := r.element("open", ""); open == nil || !strings.Contains(r.body, `<details class="app" name="app" open>`) {
		t.Error("the chosen app is not open")
	}
	made := p.active()
	if len(made) != 1 {
		t.Fatalf("%d app passwords", len(made))
	}
	got := made[0]
	if got.Label != "Thunderbird" || got.Scopes != authstore.Presets[0].Scopes || fmt.Sprint(got.Networks) != "[192.0.2.0/24 2001:db8::1/128]" ||
		got.Expires.Sub(time.Now().Add(90*day)).Abs() > time.Minute {
		t.Errorf("made %+v", got)
	}
	snapshot, err := p.store.Load(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	digest, _ := p.keys.Digest(snapshot.Active[0].Key, int64(p.account), &typed)
	if digest != snapshot.Active[0].Digest {
		t.Error("what was shown is not what was stored")
	}
	page := fmt.Sprintf("/passwords/%d", got.ID)
	events, _ := p.accounts.Events(t.Context(), authstore.EventQuery{Account: p.account, Limit: 1})
	if e := events[0]; e.Kind != "password.created" || e.Actor.Name != "portal" || !e.Actor.Client.IsLoopback() {
		t.Errorf("event %+v", e)
	}

	again := p.post("/passwords/new", form).says(200, "It was made already", "Thunderbird").silent(r.shown()[:5])
	if again.element("href", page) == nil || len(p.active()) != 1 {
		t.Errorf("a reload leaves %d app passwords", len(p.active()))
	}
	p.get("/passwords").says(200, "Thunderbird", "Mail, calendars and contacts", "never").silent(r.shown()[:5])
	p.get(page).says(200, "192.0.2.0/24", "2001:db8::1").silent(r.shown()[:5])
}

// A form that is sent twice at once makes one.
func TestDoubleSubmit(t *testing.T) {
	t.Parallel()
	p := newLab(t, nil).person(alice)
	form := p.wanted(nil)
	var wg sync.WaitGroup
	replies := make([]reply, 8)
	for i := range replies {
		wg.Go(func() { replies[i] = p.post("/passwords/new", form) })
	}
	wg.Wait()
	shown := 0
	for _, r := range replies {
		if r.StatusCode == 200 && r.element("id", "secret") != nil {
			shown++
		}
	}
	if shown != 1 || len(p.active()) != 1 {
		t.Errorf("%d shown, %d made, want one", shown, len(p.active()))
	}
}

func TestTwentyFive(t *testing.T) {
	t.Parallel()
	p := newLab(t, nil).person(alice)
	for i := range authstore.MaxActive - 1 {
		p.made(fmt.Sprint("App ", i), authstore.ScopeMail)
	}
	forms := []url.Values{p.wanted(nil), p.wanted(nil), p.wanted(nil)}
	var wg sync.WaitGroup
	replies := make([]reply, len(forms))
	for i := range forms {
		wg.Go(func() { replies[i] = p.post("/passwords/new", forms[i]) })
	}
	wg.Wait()
	made := 0
	for _, r := range replies {
		if r.StatusCode == 200 {
			made++
			continue
		}
		r.says(http.StatusUnprocessableEntity, "there can't be more", "25 app passwords")
	}
	if made != 1 || len(p.active()) != authstore.MaxActive {
		t.Errorf("%d made, %d active", made, len(p.active()))
	}
	p.get("/passwords").says(200, "You have 25 app passwords", "first revoke one").silent(`href="/passwords/new"`)
	p.get("/passwords/new").says(200, "You have 25 app passwords").silent("<form method=\"post\" action=\"/passwords/new\"")
}

func TestRefusedForms(t *testing.T) {
	t.Parallel()
	l := newLab(t, func(o *Options) {
		o.Longest = 100 * day
		o.Served &^= authstore.ScopePOP
	})
	p := l.person(alice)
	page := p.get("/passwords/new").says(200, "at most 100 days", "In 90 days").silent(`value="365"`, `value="never"`, `value="pop"`)
	if got := page.form().Get("expires"); got != "90" {
		t.Errorf("the longest that is allowed should be chosen, not %q", got)
	}
	far := time.Now().AddDate(0, 0, 101).Format(time.DateOnly)
	for name, tt := range map[string]struct {
		change url.Values
		field  string
		says   string
	}{
		"no label":            {url.Values{"label": {"  "}}, "label", "Give it a name."},
		"a long label":        {url.Values{"label": {strings.Repeat("ä", 101)}}, "label", "at most 100 characters"},
		"a control character": {url.Values{"label": {"a\x00b"}}, "label", "invisible character"},
		"bytes":               {url.Values{"label": {"\xff"}}, "label", "invisible character"},
		"no preset":           {url.Values{"preset": {""}}, "preset", "Choose what it may open."},
		"not enforced":        {url.Values{"preset": {"pop"}}, "preset", "Choose what it may open."},
		"not enforced, exact": {url.Values{"preset": {""}, "scope": {"pop"}}, "preset", "Choose what it may open."},
		"no such scope":       {url.Values{"scope": {"root"}}, "preset", "Choose what it may open."},
		"for ever":            {url.Values{"expires": {"never"}}, "expires", "at most 100 days"},
		"a year":              {url.Values{"expires": {"365"}}, "expires", "at most 100 days"},
		"other days":          {url.Values{"expires": {"31"}}, "expires", "Choose when it expires."},
		"a far date":          {url.Values{"expires": {"date"}, "until": {far}}, "expires", "at most 100 days"},
		"yesterday":           {url.Values{"expires": {"date"}, "until": {time.Now().AddDate(0, 0, -2).Format(time.DateOnly)}}, "expires", "That day is over."},
		"a date, unchosen":    {url.Values{"expires": {"30"}, "until": {"2027-01-01"}}, "expires", "“On a date” is not chosen"},
		"no date":             {url.Values{"expires": {"date"}, "until": {""}}, "expires", "Enter the date"},
		"a wrong network":     {url.Values{"networks": {"192.0.2.0/33"}}, "networks", "“192.0.2.0/33” is no address"},
		"a name":              {url.Values{"networks": {"<b>home</b>"}}, "networks", "“<b>home</b>” is no address"},
		"a zone":              {url.Values{"networks": {"fe80::1%eth0"}}, "networks", "is no address"},
		"all of IPv4":         {url.Values{"networks": {"0.0.0.0/0"}}, "networks", "the whole internet"},
		"all, in disguise":    {url.Values{"networks": {"::ffff:0.0.0.0/96"}}, "networks", "the whole internet"},
		"no network at all":   {url.Values{"networks": {"::ffff:192.0.2.0/24"}}, "networks", "is no address"},
		"too many networks":   {url.Values{"networks": {manyNetworks(33)}}, "networks", "at most 32"},
		"a misfit":            {url.Values{"app": {"davx5"}}, "app", "DAVx⁵ is for calendars"},
	} {
		form := p.wanted(tt.change)
		r := p.post("/passwords/new", form).says(http.StatusUnprocessableEntity, tt.says, "marked below")
		wrong := r.element("id", tt.field+"-wrong")
		if wrong == nil || attribute(wrong, "role") != "alert" {
			t.Errorf("%s: there is no alert at the field", name)
		}
		if got := r.form(); got.Get("request") != form.Get("request") || name != "no label" && name != "bytes" && got.Get("label") != strings.TrimSpace(form.Get("label")) && name != "a control character" {
			t.Errorf("%s: the form has forgotten what was typed: %v", name, got)
		}
	}
	if n := len(p.active()); n != 0 {
		t.Errorf("%d were made", n)
	}
	p.post("/passwords/new", p.wanted(url.Values{"expires": {"date"}, "until": {time.Now().In(berlin(t)).AddDate(0, 0, 100).Format(time.DateOnly)}})).says(200, "It is shown only now.")
	if got := p.active(); len(got) != 1 || got[0].Expires.Sub(got[0].Created) > 100*day+time.Minute {
		t.Errorf("on the last day: %+v", got)
	}
}

// The last day of all is over an hour or more later in the west than in UTC.
func TestTheLastDay(t *testing.T) {
	t.Parallel()
	p := newLab(t, nil).person(alice)
	made := p.made("Laptop", authstore.ScopeMail)
	page := fmt.Sprintf("/passwords/%d", made.ID)
	p.post("/security", url.Values{"zone": {"America/New_York"}}).leads("/security?done=reader")
	edited := p.get(page + "/edit").form()
	for name, values := range map[string]string{"expires": "date", "until": "9999-12-31"} {
		edited.Set(name, values)
	}
	p.post(page+"/edit", edited).says(http.StatusUnprocessableEntity, "Enter the date")
	p.post("/passwords/new", p.wanted(url.Values{"expires": {"date"}, "until": {"9999-12-31"}})).says(http.StatusUnprocessableEntity, "Enter the date")
	edited.Set("until", "9999-12-30")
	p.post(page+"/edit", edited).leads(page + "?saved")
	p.get(page).says(200, "9999")
}

func berlin(t *testing.T) *time.Location {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func manyNetworks(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "192.0.2.%d\n", i)
	}
	return b.String()
}

// What is ticked exactly goes before the preset.
func TestExactScopes(t *testing.T) {
	t.Parallel()
	p := newLab(t, nil).person(alice)
	p.post("/passwords/new", p.wanted(url.Values{"preset": {"everything"}, "scope": {"calendar:read", "submit"}})).says(200, "Sending mail and calendars (read only)")
	if got := p.active()[0].Scopes; got != authstore.ScopeCalendarRead|authstore.ScopeSubmit {
		t.Errorf("it opens %s", got)
	}
	p.reads = "de"
	p.get("/passwords").says(200, "Mail versenden und Kalender (nur lesen)", "Erstellt am")
}

// Whatever changes something needs a second factor that is fresh.
func TestStepUp(t *testing.T) {
	t.Parallel()
	p := newLab(t, nil).person(alice)
	made := p.made("Laptop", authstore.ScopeMail)
	form := p.wanted(nil)
	page := fmt.Sprintf("/passwords/%d", made.ID)
	edited := p.get(page + "/edit").form()
	edited.Set("label", "Desk")
	p.pass(6 * time.Minute)
	for path, f := range map[string]url.Values{"/passwords/new": form, page + "/edit": edited, page + "/revoke": {}, "/passwords/revoke-all": {}} {
		p.post(path, f).says(http.StatusUnprocessableEntity, "Confirm that it is you")
		f.Set("code", "000000")
		p.post(path, f).says(http.StatusUnprocessableEntity, "The code is wrong")
	}
	if got := p.active(); len(got) != 1 || got[0].Label != "Laptop" {
		t.Fatalf("something was changed: %+v", got)
	}
	form.Set("code", p.code())
	p.post("/passwords/new", form).says(200, "It is shown only now.")
	p.post(page+"/edit", edited).leads(page + "?saved") // it is fresh now
	p.get(page+"?saved").says(200, "Saved.", "Desk")
}

func TestEdit(t *testing.T) {
	t.Parallel()
	p := newLab(t, nil).person(alice)
	made := p.made("Laptop", authstore.ScopeMail)
	page := fmt.Sprintf("/passwords/%d", made.ID)
	form := p.get(page+"/edit").says(200, "Never, as it is now").form()
	if form.Get("label") != "Laptop" || form.Get("expires") != "keep" {
		t.Fatalf("the form begins with %v", form)
	}
	p.post(page+"/edit", form).leads(page + "?saved")
	form.Set("label", "")
	p.post(page+"/edit", form).says(http.StatusUnprocessableEntity, "Give it a name.")
	form.Set("label", "=Desk")
	form.Set("networks", "198.51.100.7, 2001:db8::/32")
	form.Set("expires", "30")
	p.post(page+"/edit", form).leads(page + "?saved")
	got := p.active()[0]
	if got.Label != "=Desk" || fmt.Sprint(got.Networks) != "[198.51.100.7/32 2001:db8::/32]" || got.Expires.IsZero() {
		t.Errorf("changed to %+v", got)
	}
	p.get(page).says(200, "198.51.100.7", "2001:db8::/32", "Name: from “Laptop” to “=Desk”.", "May be used only from: 198.51.100.7, 2001:db8::/32.")
	if _, err := p.accounts.Revoke(t.Context(), made.ID, ""); err != nil {
		t.Fatal(err)
	}
	p.get(page + "/edit").leads(page)
	p.post(page+"/edit", form).leads(page)
	p.get(page).says(200, "It was revoked")
}

func (p *person) used(batch ...authstore.Usage) {
	p.t.Helper()
	if err := p.store.Used(context.Background(), batch); err != nil {
		p.t.Fatal(err)
	}
}

// open enters a session of an app.
func (p *person) open(id authstore.PasswordID, protocol, app, client string) protocols.Entry {
	return p.live.Enter(&authstore.Grant{Account: p.account, Password: id, Address: alice},
		&protocols.Facts{Conn: "c" + app, Protocol: protocol, App: app, Client: netip.AddrPortFrom(netip.MustParseAddr(client), 5000)}, func(error) {})
}

func TestUseAndRevoke(t *testing.T) {
	t.Parallel()
	p := newLab(t, func(o *Options) { o.Places = atlas{} }).person(alice)
	made, other := p.made("Laptop", authstore.ScopeMail|authstore.ScopeSubmit), p.made("Phone", authstore.ScopeMail)
	now := p.clock()
	network := netip.MustParsePrefix("192.0.2.0/24")
	p.used(authstore.Usage{Password: made.ID, Account: p.account, Protocol: "imap", App: "Thunderbird 140", Network: network, Operator: "AS64496 Example Net",
		First: now.Add(-40 * day), Last: now.Add(-40 * day), Count: 3})
	p.used(authstore.Usage{Password: made.ID, Account: p.account, Protocol: "submission", Network: network, Operator: "192.0.0.0/16", First: now, Last: now, Count: 1200, Failures: 2})
	p.used(authstore.Usage{Password: made.ID, Account: p.account, Protocol: "imap", App: "Long gone", Network: network, First: now.Add(-40 * day), Last: now.Add(-40 * day), Count: 3})
	p.used(authstore.Usage{Password: made.ID, Account: p.account, Protocol: "imap", App: "Never let in", Network: network, First: now, Last: now, Failures: 1})
	p.open(made.ID, "imap", "Thunderbird 140", "192.0.2.7")
	p.open(other.ID, "imap", "K-9", "192.0.2.8")

	p.get("/passwords").says(200, "Connected now", "sending", "192.0.2.0/24, Germany")
	page := fmt.Sprintf("/passwords/%d", made.ID)
	p.get(page).says(200, "Thunderbird 140", "an app that tells no name", "Example Net, Germany", "192.0.2.7, Germany", "1,200", "Day by day", "was used for the first time", "Refused means").silent("K-9", "192.0.0.0/16")
	p.get(page+"/revoke").says(200, "Will be signed out: one connection", "Thunderbird 140", "an app that tells no name (sending)").silent("K-9", "Long gone", "Never let in")
	p.post(page+"/revoke", nil).says(200, "“Laptop” is revoked", "That is done everywhere")
	p.post(page+"/revoke", nil).says(200, "“Laptop” is revoked") // a reload
	p.get(page+"/revoke").says(200, "It is revoked already")
	if got := p.active(); len(got) != 1 || got[0].ID != other.ID {
		t.Errorf("active: %+v", got)
	}
	p.get("/passwords").says(200, "Phone").silent("Laptop")
	p.get("/passwords?ended").says(200, "Laptop", "revoked on")
	p.reads = "de"
	p.get("/passwords/revoke-all").says(200, "Sie haben ein App-Passwort.", "Phone")
	p.post("/passwords/revoke-all", nil).says(200, "Alle App-Passwörter sind widerrufen")
	p.get("/passwords/revoke-all").says(200, "keine App-Passwörter, die sich widerrufen")
	if n := len(p.active()); n != 0 {
		t.Errorf("%d active after all were revoked", n)
	}
}

type atlas struct{}

func (atlas) Country(a netip.Addr) string {
	if netip.MustParsePrefix("192.0.2.0/24").Contains(a) {
		return "DE"
	}
	return ""
}

// What is not confirmed is said in words, for one server and for more.
func TestUnconfirmed(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	if err := l.store.Register(t.Context(), "silent", nil); err != nil {
		t.Fatal(err)
	}
	p := l.person(alice)
	made := p.made("Laptop", authstore.ScopeMail)
	page := fmt.Sprintf("/passwords/%d", made.ID)
	form := p.get(page + "/edit").form()
	form.Set("label", "Desk")
	p.post(page+"/edit", form).says(200, "One of our servers has not confirmed yet that it has closed")
	p.post(page+"/revoke", nil).says(200, "It opens nothing any more, anywhere. One of our servers has not confirmed")
}

func TestForeign(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	p, eve := l.person(alice), l.person("eve@example.test")
	made := p.made("Laptop", authstore.ScopeMail)
	form := eve.wanted(nil)
	for _, id := range []string{fmt.Sprint(made.ID), "0", "-1", "99999999999999999999", "x", "999"} {
		for _, path := range []string{"", "/edit", "/revoke"} {
			eve.get("/passwords/"+id+path).says(404, "it is not yours").silent("Laptop")
			if path != "" {
				eve.post("/passwords/"+id+path, form).says(404)
			}
		}
	}
	eve.get(fmt.Sprintf("/history?password=%d", made.ID)).says(404)
	eve.get(fmt.Sprintf("/history.csv?password=%d", made.ID)).says(404)
	eve.get("/history").says(200).silent("Laptop")
	if got := p.active(); len(got) != 1 || got[0].Label != "Laptop" {
		t.Errorf("it is %+v now", got)
	}
	// a form's name is its account's: another's does not tell what it made
	mine := p.wanted(nil)
	p.post("/passwords/new", mine).says(200)
	form.Set("request", mine.Get("request"))
	eve.post("/passwords/new", form).says(200, "It is shown only now.")
}

// corpus is what strangers try.
var corpus = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, `</title><script>alert(1)</script>`,
	`javascript:alert(1)`, `{{.T "x"}}`, `</textarea><svg onload=alert(1)>`, "a`b${alert(1)}", `%3Cscript%3E`, `&lt;script&gt;`,
}

func TestHostileNamesAreText(t *testing.T) {
	t.Parallel()
	p := newLab(t, nil).person(alice)
	for i, evil := range corpus {
		p.agent = evil
		r := p.post("/passwords/new", p.wanted(url.Values{"label": {evil}})).says(200, evil)
		p.inert(r)
		id := p.active()[i].ID
		p.used(authstore.Usage{Password: id, Account: p.account, Protocol: "imap", App: evil, Network: netip.MustParsePrefix("192.0.2.0/24"), First: p.clock(), Last: p.clock(), Count: 1, Operator: "AS1 " + evil})
		p.open(id, "imap", evil, "192.0.2.7")
		page := fmt.Sprintf("/passwords/%d", id)
		for _, path := range []string{page, page + "/edit", page + "/revoke"} {
			p.inert(p.get(path).says(200, evil))
		}
	}
	for _, path := range []string{"/passwords", "/history", "/passwords/revoke-all"} {
		p.inert(p.get(path).says(200, corpus...))
	}
	p.inert(p.post("/passwords/new", p.wanted(url.Values{"label": {corpus[1]}, "networks": {corpus[6]}, "until": {corpus[1]}, "request": {corpus[1]}})))
	p.inert(p.get("/history?show=" + url.QueryEscape(corpus[1])))
	p.inert(p.post("/passwords/revoke-all", nil))
}

// inert fails the test if a page has an element or an attribute that none of our templates has.
func (p *person) inert(r reply) {
	p.t.Helper()
	doc := r.element("lang", "en")
	for n := range doc.Descendants() {
		if n.Data == "svg" || n.Data == "script" && n.FirstChild != nil || n.Data == "img" && !strings.HasPrefix(attribute(n, "src"), "/assets/") {
			p.t.Errorf("%s: %s was let in", r.Request.URL, n.Data)
		}
		for _, a := range n.Attr {
			if strings.HasPrefix(a.Key, "on") || a.Key == "style" || a.Key == "href" && !strings.HasPrefix(a.Val, "/") && a.Val != "#content" {
				p.t.Errorf("%s: %s=%q was let in", r.Request.URL, a.Key, a.Val)
			}
		}
	}
}

func TestHistory(t *testing.T) {
	t.Parallel()
	p := newLab(t, nil).person(alice)
	for i := range 30 {
		made := p.made(fmt.Sprintf("App %02d", i), authstore.ScopeMail)
		if _, err := p.accounts.Revoke(t.Context(), made.ID, fmt.Sprintf("reason %02d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.accounts.AddAlias(t.Context(), p.account, "ally@example.test"); err != nil {
		t.Fatal(err)
	}
	all := p.get("/history").says(200, "The address ally@example.test was added.", "The app password “App 29” was revoked.", "Reason: reason 23", "by the administration (cli:root)").silent("App 00")
	older := all.element("href", "/history?before="+before(all))
	if older == nil {
		t.Fatal("there is no way to the older ones")
	}
	p.get(attribute(older, "href")).says(200, "The app password “App 00” was made.", "The second factor “Phone” was added.", "You signed in.", "The account was made.", "Back to the latest").silent("App 29")
	p.get("/history?show=admin").says(200, "ally@example.test", "The account was made.").silent("App 29")
	p.get("/history?show=passwords").says(200, "App 29").silent("ally@")
	p.get("/history?show=factors").says(200, "The second factor “Phone” was added.").silent("App 29", "ally@")
	p.get("/history?show=sign_in").says(200, "You signed in.").silent("App 29")
	p.get("/history?show=primary").says(200, "The primary password was set").silent("App 29")
	p.get("/history?show=nonsense&before=x&password=y").says(200, "App 29")
	p.get("/history?before=1").says(200, "Nothing has happened of this kind.")
	p.reads = "de"
	p.get("/history").says(200, "Das App-Passwort „App 29“ wurde widerrufen.", "Grund: reason 23")
}

func before(r reply) string {
	_, rest, _ := strings.Cut(r.body, "/history?before=")
	number, _, _ := strings.Cut(rest, `"`)
	return number
}

// Every kind of event has words, in each language.
func TestEventsHaveWords(t *testing.T) {
	t.Parallel()
	p := newLab(t, nil).person(alice)
	kinds := []string{"account.added", "account.suspended", "account.resumed", "account.gone", "account.returned", "account.removed", "account.backend_name", "account.admin_made", "account.admin_ended", "tie.made", "tie.removed", "token.created", "token.revoked", "alias.added", "alias.removed",
		"password.created", "password.revoked", "password.revoked_all", "password.rekeyed", "password.edited", "password.first_use", "password.new_use", "password.idle", "password.yearly",
		"credential.stored", "portal.signed_in", "portal.sign_in_refused", "portal.signed_out", "portal.session_ended", "portal.sessions_ended",
		"factor.added", "factor.refused", "factor.removed", "factor.renamed", "recovery.renewed", "recovery.used", "primary.set", "portal.first_sign_in", "primary.changed", "invitation.made", "invitation.accepted",
		authstore.KindConnectionMade, authstore.KindConnectionFailed, authstore.KindConnectionRemoved, "portal.ended_there", "portal.first_vouched", "factors.reset"}
	for _, language := range []string{"en", "de"} {
		for _, kind := range kinds {
			for _, detail := range []string{"", "detail", "reused", authstore.NewUse{Protocol: "imap", App: "App", NewApp: true}.String()} {
				v := (&Server{}).newVisit(nil, newRequest(language))
				v.s.o.Places = nil
				text, _ := v.sentence(authstore.Event{Kind: kind, Detail: detail}, authstore.AppPassword{Label: "Label", Scopes: authstore.ScopeMail})
				if strings.Contains(text, kind) || strings.Contains(text, "event.") || strings.Contains(text, "%!") {
					t.Errorf("%s in %s: %q", kind, language, text)
				}
			}
		}
	}
	_ = p
}

func newRequest(language string) *http.Request {
	r, _ := http.NewRequest(http.MethodGet, "/history", nil)
	r.Header.Set("Accept-Language", language)
	return r
}

func TestCSV(t *testing.T) {
	t.Parallel()
	p := newLab(t, nil).person(alice)
	p.agent = "=cmd|' /C calc'!A0"
	p.post("/passwords/new", p.wanted(url.Values{"label": {"Küche, \"oben\""}})).says(200)
	if _, err := p.store.Act(t.Context(), authstore.Actor{Name: "test"}, p.account, func(tx identity.Tx) error {
		for range historyBatch + 10 {
			if err := tx.Event(t.Context(), "portal.signed_in", "password totp"); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	r := p.get("/history.csv")
	if got := r.Header.Get("Content-Type"); r.StatusCode != 200 || !strings.HasPrefix(got, "text/csv; charset=utf-8") {
		t.Errorf("%s %s", r.Status, got)
	}
	if got := r.Header.Get("Content-Disposition"); got != "attachment; filename=history.csv" {
		t.Errorf("Content-Disposition: %q", got)
	}
	rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(r.body, "\ufeff"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	events, _ := p.accounts.Events(t.Context(), authstore.EventQuery{Account: p.account, Limit: 10000})
	if len(rows) != len(events)+1 || rows[0][0] != "When" {
		t.Fatalf("%d rows for %d events; the first is %q", len(rows), len(events), rows[0])
	}
	var found []string
	for _, row := range rows[1:] {
		if at, err := time.Parse(time.RFC3339, row[0]); err != nil || at.Sub(p.clock()).Abs() > time.Hour || strings.HasSuffix(row[0], "Z") {
			t.Errorf("time %q, not of Berlin", row[0])
		}
		if strings.Contains(row[1], "Küche") {
			found = row
		}
	}
	if found == nil || found[1] != `The app password “Küche, "oben"” was made.` || found[6] != "'"+p.agent {
		t.Errorf("the row is %q", found)
	}
	if rows, _ := csv.NewReader(strings.NewReader(p.get("/history.csv?show=primary").body)).ReadAll(); len(rows) != 2 {
		t.Errorf("filtered: %q", rows)
	}
}

func TestInert(t *testing.T) {
	for cell, want := range map[string]string{"": "", "a=b": "a=b", "=1": "'=1", "+1": "'+1", "-1": "'-1", "@x": "'@x", "\tx": "'\tx", "\rx": "'\rx", "ä": "ä",
		`Mail;=HYPERLINK("x")`: `Mail;'=HYPERLINK("x")`, `Mail; "=1"`: `Mail;' "=1"`, "＝1": "'＝1", "Mozilla/5.0 (X11; Linux) K-9+": "Mozilla/5.0 (X11; Linux) K-9+"} {
		if got := inert(cell); got != want {
			t.Errorf("inert(%q) = %q, want %q", cell, got, want)
		}
	}
}

// An app that is explained gets one way to each server, TLS from the first byte where there is one; others are told all ways.
func TestWaysToAServer(t *testing.T) {
	t.Parallel()
	v := (&Server{o: Options{Settings: settings}}).newVisit(nil, newRequest("en"))
	for app, want := range map[string]string{
		"thunderbird": "Account Incoming mail (IMAP) 993 Outgoing mail (SMTP) 465",
		"other":       "Account Incoming mail (IMAP) 993 Or: Incoming mail (IMAP) 143 Outgoing mail (SMTP) 465 Or: Outgoing mail (SMTP) 587 Mail filters (ManageSieve) 4190",
	} {
		for _, h := range v.appHelp(app, authstore.ScopeMail|authstore.ScopeSubmit|authstore.ScopeSieve) {
			if h.Name != app {
				continue
			}
			var got []string
			for _, g := range h.Groups {
				got = append(got, g.Title)
				if len(g.Rows) > 1 {
					got = append(got, g.Rows[1].Value)
				}
			}
			if got := strings.Join(got, " "); got != want || !h.Open {
				t.Errorf("%s: %s, want %s", app, got, want)
			}
		}
	}
}

// The longest time that is allowed can be chosen.
func TestLongestIsOffered(t *testing.T) {
	t.Parallel()
	p := newLab(t, func(o *Options) { o.Longest = 90 * day }).person(alice)
	form := p.get("/passwords/new").says(200, "In 90 days").silent(`value="365"`).form()
	if got := form.Get("expires"); got != "90" {
		t.Errorf("%q is chosen", got)
	}
	form.Set("label", "Phone")
	form.Set("preset", "mail")
	p.post("/passwords/new", form).says(200, "It is shown only now.")
}

func TestPolicyIsOffered(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	p := l.person(alice)
	p.post("/passwords/new", p.wanted(url.Values{"networks": {"198.51.100.7"}})).says(200)
	l.accounts.SetPolicies(authstore.Policies{{Policy: authstore.Policy{MustExpire: true, Presets: []string{"mail-read", "calendar"}, MostActive: 2,
		Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}}})
	page := p.get("/passwords/new").says(200, "Mail, read only", "In 365 days", "from these networks only: 192.0.2.0/24").silent(`value="never"`, `value="everything"`, `value="submit"`)
	form := page.form()
	if got := form.Get("expires"); got != "365" {
		t.Errorf("%q is chosen", got)
	}
	form.Set("label", "Phone")
	for change, want := range map[[2]string]string{
		{"preset", "mail"}:              "Choose what it may open.",
		{"scope", "submit"}:             "may not open that much",
		{"expires", "never"}:            "must have an expiry",
		{"networks", "198.51.100.0/24"}: "outside the networks from which app passwords may be used here: 192.0.2.0/24",
	} {
		form := maps.Clone(form)
		form.Set("preset", "mail-read")
		form.Set(change[0], change[1])
		p.post("/passwords/new", form).says(422, want)
	}
	form.Set("preset", "mail-read")
	p.post("/passwords/new", form).says(200, "It is shown only now.")
	p.get("/passwords/new").says(200, "2 app passwords")
	list, err := l.accounts.Passwords(t.Context(), p.account, false)
	if err != nil || len(list) != 2 || fmt.Sprint(list[1].Networks) != "[192.0.2.0/24]" {
		t.Fatalf("%+v, %v", list, err)
	}
	edit := fmt.Sprintf("/passwords/%d/edit", list[0].ID)
	form = p.get(edit).says(200).form()
	form.Set("label", "Older than the policy")
	p.post(edit, form)
	p.get("/passwords").says(200, "Older than the policy")
	form.Set("networks", "198.51.100.0/24")
	p.post(edit, form).says(422, "outside the networks")
}
