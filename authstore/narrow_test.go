package authstore_test

import (
	"fmt"
	"strings"
	"testing"

	"postern/authstore"
)

func collections(t testing.TB, texts ...string) (list []authstore.Collection) {
	t.Helper()
	for _, text := range texts {
		c, err := authstore.ParseCollection(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	return list
}

func TestNarrow(t *testing.T) {
	const (
		mail, schedule = authstore.ScopeMail, authstore.ScopeSchedule
		cal, reading   = authstore.ScopeCalendar, authstore.ScopeCalendarRead
		card           = authstore.ScopeContacts
	)
	var many []string
	for i := range authstore.MaxCollections + 1 {
		many = append(many, fmt.Sprint("calendar/", i))
	}
	long := strings.Repeat("x", 200)
	for name, tt := range map[string]struct {
		scopes authstore.Scopes
		asked  []string
		left   authstore.Scopes
		want   string // the collections, or an error's words
	}{
		"nothing asked":              {cal | schedule, nil, cal | schedule, ""},
		"one":                        {cal | schedule, []string{"calendar/work"}, cal, "calendar/work"},
		"reading only":               {reading, []string{"calendar/work"}, reading, "calendar/work"},
		"sorted, none twice":         {mail | cal | card, []string{"contacts/b", "calendar/z", "calendar/a", "contacts/b"}, mail | cal | card, "calendar/a, calendar/z, contacts/b"},
		"all of one kind":            {cal | card | schedule, []string{"calendar/*", "contacts/team"}, cal | card | schedule, "calendar/*, contacts/team"},
		"all of the other":           {cal | card | schedule, []string{"contacts/*", "calendar/work"}, cal | card, "calendar/work, contacts/*"},
		"all of both":                {mail | cal | card | schedule, []string{"contacts/*", "calendar/*"}, mail | cal | card | schedule, ""},
		"all of the only one":        {cal | schedule, []string{"calendar/*"}, cal | schedule, ""},
		"a kind is not named":        {cal | card, []string{"calendar/work"}, 0, "add contacts/* for all of that kind"},
		"calendars are not named":    {reading | card, []string{"contacts/team"}, 0, "add calendar/* for all of that kind"},
		"a kind is not opened":       {cal, []string{"calendar/work", "contacts/team"}, 0, "contacts/team can't be opened alone"},
		"no calendars at all":        {mail, []string{"calendar/*"}, 0, "calendar/* can't be opened alone"},
		"schedule opens no calendar": {schedule | card, []string{"calendar/work", "contacts/*"}, 0, "calendar/work can't be opened alone"},
		"all and one of them":        {cal, []string{"calendar/work", "calendar/*"}, 0, "leave out the one or the others"},
		"as many as there may be":    {cal, many[1:], cal, "calendar/1, calendar/10, calendar/11"},
		"too many":                   {cal, many, 0, "at most 64"},
		"too long together": {cal, []string{"calendar/0" + long, "calendar/1" + long, "calendar/2" + long, "calendar/3" + long, "calendar/4" + long, "calendar/5" + long,
			"calendar/6" + long, "calendar/7" + long, "calendar/8" + long, "calendar/9" + long, "calendar/a" + long, "calendar/b" + long, "calendar/c" + long,
			"calendar/d" + long, "calendar/e" + long, "calendar/f" + long, "calendar/g" + long, "calendar/h" + long, "calendar/i" + long, "calendar/j" + long}, 0, "more than 4096 bytes"},
	} {
		left, list, err := authstore.Narrow(tt.scopes, collections(t, tt.asked...))
		switch {
		case err != nil:
			if tt.left != 0 || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %q", name, err, tt.want)
			}
		case left != tt.left || !strings.HasPrefix(authstore.JoinCollections(list), tt.want) || tt.want == "" && list != nil:
			t.Errorf("%s: %v, %v; want %v, %s", name, left, list, tt.left, tt.want)
		}
	}
	if _, _, err := authstore.Narrow(cal, []authstore.Collection{{Kind: "calendar", Name: "a\nb"}}); err == nil {
		t.Error("a name with a line break is taken")
	}
}

// What an app password is narrowed to is in the grant, wherever its snapshot comes from.
func TestGrantsAreNarrowed(t *testing.T) {
	t.Parallel()
	s := newRedisSite(t)
	a := s.account("alice@example.test")
	p, typed := s.password(authstore.PasswordRequest{Account: a.ID, Scopes: enforced,
		Collections: collections(t, "contacts/*", "calendar/Zu Hause", "calendar/work")})
	const want = "[calendar/Zu Hause calendar/work contacts/*]"
	if fmt.Sprint(p.Collections) != want || p.Scopes != enforced {
		t.Errorf("made: %v, %v", p.Collections, p.Scopes)
	}
	if list, err := s.desk.Passwords(t.Context(), a.ID, false); err != nil || fmt.Sprint(list[0].Collections) != want || list[0].Scopes != enforced {
		t.Errorf("listed: %+v, %v", list, err)
	}
	verify := func(n *node) authstore.Grant {
		g := n.mustLogin(attempt("alice@example.test", typed)).grant
		if fmt.Sprint(g.Collections) != want || g.Scopes != enforced {
			t.Errorf("granted: %v, %v", g.Collections, g.Scopes)
		}
		return g
	}
	first, fromSQL := s.node(authstore.Options{})
	if one, two := verify(first), verify(first); &one.Collections[0] != &two.Collections[0] {
		t.Error("each grant has a copy of the collections")
	}
	s.values(1)
	second, fromRedis := s.node(authstore.Options{})
	verify(second)
	if fromSQL.sql.Load() != 1 || fromSQL.l1.Load() != 1 || fromRedis.redis.Load() != 1 {
		t.Errorf("the first node's layers: %d SQL, %d L1; the second's: %d Redis", fromSQL.sql.Load(), fromSQL.l1.Load(), fromRedis.redis.Load())
	}
}
