package authstore_test

import (
	"errors"
	"strings"
	"testing"

	"postern/authstore"
)

func TestCollections(t *testing.T) {
	for text, good := range map[string]bool{
		"calendar/work": true, "contacts/Familie & Co": true, "calendar/*": true, "calendar/50%25": true,
		"": false, "calendar": false, "calendar/": false, "mail/work": false, "calendar/a/b": false, "calendar/..": false, "calendar/a\\b": false,
		"calendar/a\nb": false, "calendar/\xff": false, "calendar/" + strings.Repeat("x", 256): false,
	} {
		c, err := authstore.ParseCollection(text)
		if (err == nil) != good || good && c.String() != text {
			t.Errorf("ParseCollection(%q) = %v, %v", text, c, err)
		}
	}
}

func TestNarrowedGrants(t *testing.T) {
	for name, tt := range map[string]struct {
		narrowed             []authstore.Collection
		work, home, friends  bool
		calendars, addresses bool
	}{
		"not narrowed":           {nil, true, true, true, true, true},
		"one calendar":           {collections(t, "calendar/work"), true, false, false, false, false},
		"one of each":            {collections(t, "calendar/work", "contacts/friends"), true, false, true, false, false},
		"one calendar, all else": {collections(t, "calendar/work", "contacts/*"), true, false, true, false, true},
		"a book of that name":    {collections(t, "contacts/work"), false, false, false, false, false},
	} {
		g := authstore.Grant{Collections: tt.narrowed}
		for what, got := range map[string]struct{ is, want bool }{
			"calendar/work": {g.Opens("calendar", "work"), tt.work}, "calendar/home": {g.Opens("calendar", "home"), tt.home},
			"contacts/friends": {g.Opens("contacts", "friends"), tt.friends},
			"all calendars":    {g.Whole("calendar"), tt.calendars}, "all contacts": {g.Whole("contacts"), tt.addresses},
		} {
			if got.is != got.want {
				t.Errorf("%s: %s is open: %v", name, what, got.is)
			}
		}
	}
}

// Titles are kept of what is narrowed to and of nothing else, and only ones that can be shown.
func TestTitles(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	list := collections(t, "calendar/4711", "contacts/*")
	work, every := list[0], list[1]
	request := authstore.PasswordRequest{Account: a.ID, Label: "Phone", Scopes: authstore.ScopeCalendar | authstore.ScopeContacts, Collections: list,
		Titles: authstore.Titles{work: " Work, 工作 ", {Kind: authstore.CalendarCollection, Name: "another"}: "Private"}}
	p, _, err := s.desk.CreatePassword(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if p, err = s.desk.Password(t.Context(), p.ID); err != nil || len(p.Titles) != 1 || p.Titles[work] != "Work, 工作" {
		t.Errorf("the titles of %v are %v, %v", p.Collections, p.Titles, err)
	}
	for _, title := range []string{"", "a\tb", "a\nb", "\u202eshown backwards", strings.Repeat("x", authstore.MaxLabel+1), "\xff"} {
		request.Titles = authstore.Titles{work: title, every: "all"}
		if _, _, err := s.desk.CreatePassword(t.Context(), request); !errors.Is(err, authstore.ErrLabel) {
			t.Errorf("the title %q: %v", title, err)
		}
	}
}
