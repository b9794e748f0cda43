package portal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/html"

	"postern/authstore"
	"postern/internal/testlab"
)

// shelf is what an account's servers tell of its calendars and address books.
type shelf struct {
	mu    sync.Mutex // guards what follows
	holds map[string][]Collection
	down  map[string]error
	asked int
	waits bool // whether each who asked would wait for a while and no longer
}

func (s *shelf) list(ctx context.Context, address, kind string) ([]Collection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	until, bounded := ctx.Deadline()
	s.waits = bounded && time.Until(until) <= listTime
	if address != alice {
		return nil, fmt.Errorf("asked for %s", address)
	}
	return s.holds[kind], s.down[kind]
}

// set changes what they tell; the first two errors are the calendars' server's and the address books'.
func (s *shelf) set(holds map[string][]Collection, down ...error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds, s.down = holds, make(map[string]error)
	for i, err := range down {
		s.down[authstore.CollectionKinds(authstore.NarrowedScopes)[i]] = err
	}
}

func (s *shelf) times() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

const (
	workName    = "3f2a9c1e-77b0-4c55-9d1f-0b7f6f7e2a10"
	privateName = "b5d0c6f2-2f1e-4f0a-8f59-6a9d0c1b2e3f"
	friendsName = "0d9e8f7a-6b5c-4d3e-2f1a-0b9c8d7e6f5a"
)

// ordinary is what somebody has.
func ordinary(more ...Collection) map[string][]Collection {
	return map[string][]Collection{
		authstore.CalendarCollection: append([]Collection{{workName, "Work"}, {privateName, "Private"}}, more...),
		authstore.ContactsCollection: {{friendsName, "Friends"}, {"colleagues", "Colleagues"}},
	}
}

// labWithShelf is a portal whose people have calendars and address books.
func labWithShelf(t *testing.T, holds map[string][]Collection) (*person, *shelf) {
	t.Helper()
	s := &shelf{holds: holds}
	return newLab(t, func(o *Options) { o.Collections = s.list }).person(alice), s
}

// Somebody chooses one calendar: the app password is narrowed to it, and pages call it as it was called, whatever becomes of it.
func TestChooseSingle(t *testing.T) {
	t.Parallel()
	p, shelf := labWithShelf(t, ordinary())
	page := p.get("/passwords/new").says(200, "Only some calendars or address books", "Work", "Private", "Friends", "All calendars")
	if form := page.form(); form.Get("calendar") != "all" || form.Get("contacts") != "all" || form.Has("calendar_only") || form.Has("preset") || has(page.single(), "open") {
		t.Errorf("the form begins with %v", form)
	}
	if !shelf.waits {
		t.Error("the page would wait for ever")
	}
	for name, tt := range map[string]struct {
		change      url.Values
		collections string
		scopes      authstore.Scopes
		opens       string
	}{
		"all":                     {url.Values{"preset": {"dav"}}, "", preset("dav"), "Calendars and contacts"},
		"one calendar":            {url.Values{"preset": {"calendar"}, "calendar": {"only"}, "calendar_only": {workName}}, "calendar/" + workName, authstore.ScopeCalendar, "Calendar: Work"},
		"one to look at":          {url.Values{"preset": {"calendar-read"}, "calendar": {"only"}, "calendar_only": {workName}}, "calendar/" + workName, authstore.ScopeCalendarRead, "Calendar: Work (read only)"},
		"two":                     {url.Values{"preset": {"calendar"}, "calendar": {"only"}, "calendar_only": {workName, privateName}}, "calendar/" + workName + ", calendar/" + privateName, authstore.ScopeCalendar, "Calendars: Private, Work"},
		"one, and all contacts":   {url.Values{"preset": {"dav"}, "calendar": {"only"}, "calendar_only": {workName}}, "calendar/" + workName + ", contacts/*", dav &^ (authstore.ScopeCalendarRead | authstore.ScopeContactsRead), "Contacts · Calendar: Work"},
		"one book, all calendars": {url.Values{"preset": {"dav"}, "contacts": {"only"}, "contacts_only": {friendsName}}, "calendar/*, contacts/" + friendsName, preset("dav"), "Calendars · Address book: Friends"},
		"one of each, and mail": {url.Values{"preset": {"everything"}, "calendar": {"only"}, "calendar_only": {workName}, "contacts": {"only"}, "contacts_only": {friendsName}},
			"calendar/" + workName + ", contacts/" + friendsName, preset("everything") &^ authstore.ScopeSchedule, "Mail · Calendar: Work · Address book: Friends"},
		"exact scopes": {url.Values{"scope": {"submit", "contacts:read"}, "contacts": {"only"}, "contacts_only": {"colleagues"}},
			"contacts/colleagues", authstore.ScopeSubmit | authstore.ScopeContactsRead, "Sending mail only · Address book: Colleagues (read only)"},
		"of a kind that is not opened": {url.Values{"preset": {"contacts"}, "calendar": {"only"}, "calendar_only": {workName}}, "", authstore.ScopeContacts, "Contacts"},
		"only mail":                    {url.Values{"preset": {"mail"}, "calendar": {"only"}, "calendar_only": {workName}}, "", preset("mail"), "Mail"},
	} {
		made := p.post("/passwords/new", p.wanted(tt.change)).says(200, "It is shown only now.").opens("Opens: " + tt.opens)
		got := p.active()[len(p.active())-1]
		if authstore.JoinCollections(got.Collections) != tt.collections || got.Scopes != tt.scopes {
			t.Errorf("%s: %v, %s; want %s, %s\n%s", name, authstore.JoinCollections(got.Collections), got.Scopes, tt.collections, tt.scopes, made.text())
		}
		// Nobody asks the server afterwards, and no name of its own is shown.
		asked := shelf.times()
		own := fmt.Sprintf("/passwords/%d", got.ID)
		for _, path := range []string{"/passwords", own, own + "/revoke"} {
			p.get(path).says(200).silent(workName, friendsName).opens(tt.opens)
		}
		p.get("/history").says(200, "Opens: "+strings.ReplaceAll(tt.opens, " · ", "; "))
		p.get("/history.csv").silent(workName)
		if n := shelf.times() - asked; n != 0 {
			t.Errorf("%s: the server was asked %d times for pages that need nothing of it", name, n)
		}
		if _, err := p.accounts.Revoke(t.Context(), got.ID, ""); err != nil {
			t.Fatal(err)
		}
		p.get("/passwords?ended").says(200).opens(tt.opens)
	}
}

// opens fails the test unless the page says what an app password opens, on one line or on several, isolated titles and all.
func (r reply) opens(want string) reply {
	r.t.Helper()
	if said := strings.ReplaceAll(r.text(), " , ", ", "); !strings.Contains(said, want) {
		r.t.Errorf("%s does not say %q:\n%s", r.Request.URL, want, said)
	}
	return r
}

// preset is what a preset opens.
func preset(name string) authstore.Scopes {
	i := slices.IndexFunc(authstore.Presets, func(p authstore.Preset) bool { return p.Name == name })
	return authstore.Presets[i].Scopes
}

// single is the form's part.
func (r reply) single() *html.Node { return r.element("class", "single") }

// What a page would not send is refused in words, and what was chosen stays.
func TestRefusedSingle(t *testing.T) {
	t.Parallel()
	p, shelf := labWithShelf(t, ordinary())
	var many []string
	var rest []Collection
	for i := range authstore.MaxCollections + 1 {
		many = append(many, fmt.Sprint("many", i))
		rest = append(rest, Collection{fmt.Sprint("many", i), fmt.Sprint("Number ", i)})
	}
	var long []string
	for i := range 20 {
		long = append(long, fmt.Sprint(i)+strings.Repeat("x", 220))
		rest = append(rest, Collection{long[i], fmt.Sprint("Long ", i)})
	}
	shelf.set(ordinary(rest...))
	for name, tt := range map[string]struct {
		change url.Values
		field  string
		says   string
	}{
		"nothing is ticked":        {url.Values{"calendar": {"only"}}, "calendar", "Tick the calendars"},
		"no book is ticked":        {url.Values{"contacts": {"only"}}, "contacts", "Tick the address books"},
		"ticked, but all":          {url.Values{"calendar_only": {workName}}, "calendar", "“All calendars” is chosen"},
		"somebody else's":          {url.Values{"calendar": {"only"}, "calendar_only": {workName, "bobs"}}, "calendar", "“bobs” is none of your calendars"},
		"a book as a calendar":     {url.Values{"calendar": {"only"}, "calendar_only": {friendsName}}, "calendar", "is none of your calendars"},
		"a calendar as a book":     {url.Values{"contacts": {"only"}, "contacts_only": {workName}}, "contacts", "is none of your address books"},
		"all of them by a star":    {url.Values{"calendar": {"only"}, "calendar_only": {"*"}}, "calendar", "“*” is none of your calendars"},
		"a way out of the home":    {url.Values{"calendar": {"only"}, "calendar_only": {"../bob/work"}}, "calendar", "is none of your calendars"},
		"hostile":                  {url.Values{"calendar": {"only"}, "calendar_only": {"</p><script>alert(1)</script>\u202e\x00\xff"}}, "calendar", "“</p><script>alert(1)</script>” is none"},
		"no such choice":           {url.Values{"calendar": {"some"}, "calendar_only": nil}, "calendar", "That can't be chosen."},
		"too many":                 {url.Values{"calendar": {"only"}, "calendar_only": many}, "calendar", "at most 64"},
		"too many of both":         {url.Values{"calendar": {"only"}, "calendar_only": many[1:], "contacts": {"only"}, "contacts_only": {friendsName}}, "contacts", "at most 64"},
		"names too long together":  {url.Values{"calendar": {"only"}, "calendar_only": long}, "calendar", "fewer where their names are long"},
		"invitations, no calendar": {url.Values{"preset": {""}, "scope": {"schedule", "contacts"}}, "preset", "Invitations need calendars"},
	} {
		change := url.Values{"preset": {"dav"}}
		maps.Copy(change, tt.change)
		form := p.wanted(change)
		r := p.post("/passwords/new", form).says(http.StatusUnprocessableEntity, tt.says, "marked below").silent("<script>alert")
		if wrong := r.element("id", tt.field+"-wrong"); wrong == nil || attribute(wrong, "role") != "alert" {
			t.Errorf("%s: there is no alert at the field", name)
		}
		if got := r.form(); tt.field != "preset" && (!has(r.single(), "open") || len(change["calendar"]) > 0 && got.Get("calendar") != change.Get("calendar") && name != "no such choice") {
			t.Errorf("%s: the form has forgotten what was chosen: %v", name, got)
		}
	}
	if n := len(p.active()); n != 0 {
		t.Errorf("%d were made", n)
	}

	// Another field's mistake, and a second factor that is asked for, leave the ticks as they are.
	form := p.wanted(url.Values{"preset": {"dav"}, "calendar": {"only"}, "calendar_only": {workName}, "label": {""}})
	got := p.post("/passwords/new", form).says(http.StatusUnprocessableEntity, "Give it a name.").form()
	if got.Get("calendar") != "only" || got.Get("calendar_only") != workName {
		t.Errorf("a mistake elsewhere leaves %v", got)
	}
	got.Set("label", "Laptop")
	p.pass(6 * time.Minute)
	got = p.post("/passwords/new", got).says(http.StatusUnprocessableEntity, "Confirm that it is you").form()
	got.Set("code", p.code())
	p.post("/passwords/new", got).says(200, "Calendar: Work")
}

// Nothing that somebody calls a calendar breaks the page, and two of a title can be told apart.
func TestHostileTitles(t *testing.T) {
	t.Parallel()
	p, _ := labWithShelf(t, map[string][]Collection{authstore.CalendarCollection: {
		{"a", `"><script>alert(1)</script>`}, {"b", "\u202egnp.exe\u2066"}, {"c", strings.Repeat("W", 5000)}, {"d", "\x00\r\n\t"}, {"e", "Same"}, {"f", "Same"},
		{"g\u202eh", "\xff\xfe"}, {`"><b>i`, ""}, {"j", "  two\n lines  "}, {"\u202e", "\u202e"},
	}})
	page := p.get("/passwords/new").says(200, "two lines", "gnp.exe", "Same e", "Same f", "gh", `"><b>i`, `"><script>alert(1)</script>`, strings.Repeat("W", 59)+"…")
	page.silent("<script>alert", "\u2066", "<b>", strings.Repeat("W", 60))
	if strings.Contains(page.text(), "\u202e") { // names stand unchanged in the boxes' values, where nobody sees them
		t.Error("a title turns the writing around")
	}
	var all []string
	for n := range page.single().Descendants() {
		if attribute(n, "name") == "calendar_only" {
			all = append(all, attribute(n, "value"))
		}
	}
	if len(all) != 10 {
		t.Fatalf("%d boxes: %q", len(all), all)
	}
	r := p.post("/passwords/new", p.wanted(url.Values{"preset": {"calendar"}, "calendar": {"only"}, "calendar_only": all})).says(200, "It is shown only now.", "Calendars: ")
	r.silent("<script>alert", "\u202e", "<b>")
	if got := p.active()[0]; len(got.Collections) != 10 {
		t.Errorf("narrowed to %v", got.Collections)
	}
	p.get("/passwords").says(200, `"><script>alert(1)</script>`, "gh").opens("Same, Same, two lines").silent("<script>alert", "\u202e", "<b>")
	p.get("/history").says(200, "two lines").silent("<script>alert", "\u202e", "<b>")
}

// A server that does not answer takes nothing but the choice away.
func TestSingleWhereTheServerIsDown(t *testing.T) {
	t.Parallel()
	p, shelf := labWithShelf(t, ordinary())
	chosen := p.wanted(url.Values{"preset": {"calendar"}, "calendar": {"only"}, "calendar_only": {workName}})
	refused := errors.New("connection refused")
	shelf.set(nil, refused, refused)
	p.get("/passwords/new").says(200, "Your calendars can't be listed at the moment", "Your address books can't be listed").silent(`value="only"`, "connection refused")
	r := p.post("/passwords/new", chosen).says(http.StatusUnprocessableEntity, "It can't be checked at the moment which calendars are yours.", workName)
	form := r.form()
	if form.Get("calendar_only") != workName {
		t.Errorf("what was chosen is forgotten: %v", form)
	}
	asked := shelf.times()
	p.post("/passwords/new", p.wanted(url.Values{"preset": {"dav"}})).says(200, "It is shown only now.", "Calendars and contacts")
	if n := shelf.times() - asked; n != 2 {
		t.Errorf("asked %d times for a form that chooses nothing, want once for each kind, for the page", n)
	}
	shelf.set(ordinary(), nil, refused)
	p.get("/passwords/new").says(200, "Work", "Your address books can't be listed").silent("Your calendars can")
	shelf.set(nil)
	p.get("/passwords/new").says(200, "You have no calendar yet.", "You have no address book yet.").silent(`value="only"`, "can't be listed")
	shelf.set(ordinary(), nil, ErrNotServed)
	p.get("/passwords/new").says(200, "Work").silent("Friends", `name="contacts"`, "address book yet", "address books can")
	p.post("/passwords/new", p.wanted(url.Values{"preset": {"dav"}, "calendar": {"only"}, "calendar_only": {workName}})).says(200, "Contacts · Calendar: Work")
	gone := p.wanted(url.Values{"preset": {"dav"}, "contacts": {"only"}, "contacts_only": {friendsName}}) // a page from before; it must not open all of them
	p.post("/passwords/new", gone).says(http.StatusUnprocessableEntity, "It can't be checked at the moment which address books are yours.", friendsName)
	shelf.set(ordinary())
	p.post("/passwords/new", form).says(200, "Calendar: Work")
}

// Where no calendars and contacts are served, nobody is asked and nothing is offered.
func TestNothingSingleIsServed(t *testing.T) {
	t.Parallel()
	s := &shelf{}
	p := newLab(t, func(o *Options) { o.Collections, o.Served = s.list, o.Served&^(dav|authstore.ScopeSchedule) }).person(alice)
	p.get("/passwords/new").says(200).silent("Only some calendars", `name="calendar"`, `value="schedule"`)
	p.post("/passwords/new", p.wanted(url.Values{"calendar": {"only"}, "calendar_only": {"x"}})).says(200, "It is shown only now.")
	if n := s.times(); n != 0 {
		t.Errorf("asked %d times", n)
	}
	newLab(t, nil).person(alice).get("/passwords/new").says(200).silent("Only some calendars")
}

func only(texts ...string) (list []authstore.Collection) {
	for _, text := range texts {
		kind, name, _ := strings.Cut(text, "/")
		list = append(list, authstore.Collection{Kind: kind, Name: name})
	}
	return list
}

// In a real browser the part shows what the choice above opens, and a tick chooses.
func TestSingleInChromium(t *testing.T) {
	t.Parallel()
	p, _ := labWithShelf(t, ordinary())
	browser := testlab.Browser(t, p.ca)
	page := p.page(browser)
	page.Open(p.site+"/passwords/new").HasNoText("Friends").Click("Only some calendars or address books").HasText("Work", "Friends")
	page.Tick("Contacts").HasText("Friends").HasNoText("Work")
	page.Tick("Mail").HasNoText("Only some calendars")
	page.Click("Adjust exactly").Tick("See calendars, change nothing (CalDAV)").HasText("Work").HasNoText("Friends")
	page.Tick("Work").Tick("Private").Tick("All calendars").Tick("Work")
	page.Fill("Which app or device is it for?", "Wall display").Click("Make app password").HasText("It is shown only now.", "Calendar: Work (read only)").HasNoText("Private")
	page.Open(p.site + "/passwords/new").Click("Only some calendars or address books")
	page.Fill("Which app or device is it for?", "Laptop").Tick("Calendars and contacts").Tick("Friends").Click("Make app password").HasText("Calendars", "Address book: Friends")

	// Without script all is there, and what contradicts itself is asked again.
	page = p.page(browser).WithoutScript()
	page.Open(p.site+"/passwords/new").Click("Only some calendars or address books").HasText("Work", "Friends")
	page.Fill("Which app or device is it for?", "Phone").Tick("Calendars").Tick("Work").Click("Make app password").HasText("“All calendars” is chosen")
	page.Tick("Only these calendars:").Click("Make app password").HasText("It is shown only now.", "Calendar: Work")
	if got := p.active(); len(got) != 3 || authstore.JoinCollections(got[2].Collections) != "calendar/"+workName {
		t.Errorf("made %+v", got)
	}
}
