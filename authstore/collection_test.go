package authstore_test

import (
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
	collections := func(texts ...string) (list []authstore.Collection) {
		for _, text := range texts {
			c, err := authstore.ParseCollection(text)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, c)
		}
		return list
	}
	for name, tt := range map[string]struct {
		narrowed             []authstore.Collection
		work, home, friends  bool
		calendars, addresses bool
	}{
		"not narrowed":           {nil, true, true, true, true, true},
		"one calendar":           {collections("calendar/work"), true, false, false, false, false},
		"one of each":            {collections("calendar/work", "contacts/friends"), true, false, true, false, false},
		"one calendar, all else": {collections("calendar/work", "contacts/*"), true, false, true, false, true},
		"a book of that name":    {collections("contacts/work"), false, false, false, false, false},
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
