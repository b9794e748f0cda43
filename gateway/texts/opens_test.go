package texts

import (
	"strings"
	"testing"

	"postern/authstore"
)

// An app password of another making is shown too: by its names, with nothing of a kind, without invitations.
func TestOpensInWords(t *testing.T) {
	t.Parallel()
	for want, p := range map[string]authstore.AppPassword{
		"Mail, calendars and contacts":                            {Scopes: preset("everything")},
		"Mail, calendars and contacts, without invitations":       {Scopes: preset("everything") &^ authstore.ScopeSchedule},
		"Calendars, without invitations":                          {Scopes: authstore.ScopeCalendar},
		"Contacts":                                                {Scopes: authstore.ScopeContacts},
		"Calendars (read only) and invitations with free/busy":    {Scopes: authstore.ScopeCalendarRead | authstore.ScopeSchedule},
		"Calendar: work":                                          {Scopes: authstore.ScopeCalendar | authstore.ScopeCalendarRead | authstore.ScopeSchedule, Collections: only("calendar/work")},
		"No calendar; Address book: team":                         {Scopes: preset("dav"), Collections: only("contacts/team")},
		"Mail; Calendars: a, b (read only); Address book: Friend": {Scopes: preset("mail") | authstore.ScopeCalendarRead | authstore.ScopeContacts, Collections: only("calendar/a", "calendar/b", "contacts/c"), Titles: authstore.Titles{only("contacts/c")[0]: "Friend"}},
	} {
		var parts []string
		for _, part := range In("en").Opens(p.Scopes, p.Collections, p.Titles) {
			parts = append(parts, part.String())
		}
		if got := strings.Join(parts, "; "); got != want {
			t.Errorf("%s to %v: %q, want %q", p.Scopes, p.Collections, got, want)
		}
	}
}

// preset is what a preset opens.
func preset(name string) authstore.Scopes {
	for _, p := range authstore.Presets {
		if p.Name == name {
			return p.Scopes
		}
	}
	panic(name)
}

func only(texts ...string) (list []authstore.Collection) {
	for _, text := range texts {
		kind, name, _ := strings.Cut(text, "/")
		list = append(list, authstore.Collection{Kind: kind, Name: name})
	}
	return list
}
