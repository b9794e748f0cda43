package authstore_test

import (
	"slices"
	"testing"

	"postern/authstore"
)

// What nothing serves is not offered, and a site without filters, or one that only reads, offers mail all the same.
func TestPresetsThatAreServed(t *testing.T) {
	const mail, dav = authstore.ScopeMail | authstore.ScopeMailRead, authstore.ScopeCalendar | authstore.ScopeCalendarRead | authstore.ScopeContacts | authstore.ScopeContactsRead
	for name, tt := range map[string]struct {
		served authstore.Scopes
		want   []string
	}{
		"nothing":              {0, nil},
		"reading mail":         {mail, []string{"mail", "mail-read"}},
		"mail":                 {mail | authstore.ScopeSubmit, []string{"mail", "send", "mail-read"}},
		"mail and filters":     {mail | authstore.ScopeSubmit | authstore.ScopeSieve, []string{"mail", "send", "mail-read"}},
		"filters":              {authstore.ScopeSieve, nil},
		"sending":              {authstore.ScopeSubmit, []string{"send"}},
		"POP3 without sending": {authstore.ScopePOP, []string{"pop"}},
		"calendars, contacts":  {dav, []string{"dav", "calendar", "contacts", "calendar-read"}},
		"invitations":          {authstore.ScopeSchedule, nil},
		"calendars, invited":   {authstore.ScopeCalendar | authstore.ScopeSchedule, []string{"calendar"}},
		"mail and calendars":   {mail | dav, []string{"everything", "mail", "mail-read", "dav", "calendar", "contacts", "calendar-read"}},
	} {
		var got []string
		for _, p := range authstore.Presets {
			if p.ServedBy(tt.served) {
				got = append(got, p.Name)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
