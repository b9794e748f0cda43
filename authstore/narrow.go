package authstore

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// NarrowedScopes are those whose reach an app password's collections narrow.
const NarrowedScopes = ScopeCalendar | ScopeCalendarRead | ScopeContacts | ScopeContactsRead | ScopeSchedule

// KindScopes are the scopes that open collections of a kind; none: it is no kind.
func KindScopes(kind string) Scopes {
	switch kind {
	case CalendarCollection:
		return ScopeCalendar | ScopeCalendarRead
	case ContactsCollection:
		return ScopeContacts | ScopeContactsRead
	}
	return 0
}

// CollectionKinds lists the kinds of collections that scopes open, in the order in which people are told of them.
func CollectionKinds(s Scopes) []string {
	var kinds []string
	for _, kind := range []string{CalendarCollection, ContactsCollection} {
		if s.Any(KindScopes(kind)) {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// maxCollectionText bounds what the collections of one app password take as text, in bytes: each login holds them in memory.
const maxCollectionText = 4096

// Narrow checks the collections that scopes are to be narrowed to, sorts them, and gives the scopes that are left. Where they name
// all of every kind that the scopes open, nothing is narrowed, and there are none. A kind that is opened but not named would be
// closed without a word: that is an error which says what to add.
func Narrow(s Scopes, asked []Collection) (Scopes, []Collection, error) {
	if len(asked) == 0 {
		return s, nil, nil
	}
	list := slices.Clone(asked)
	slices.SortFunc(list, func(a, b Collection) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name)) })
	list = slices.Compact(list)
	if len(list) > MaxCollections {
		return 0, nil, fmt.Errorf("at most %d calendars and address books", MaxCollections)
	}
	size := 0
	for _, c := range list {
		size += len(c.String()) + 1
		switch {
		case !c.valid():
			return 0, nil, fmt.Errorf("%q is no calendar or address book", c.String())
		case !s.Any(KindScopes(c.Kind)):
			return 0, nil, fmt.Errorf("%s can't be opened alone: the app password opens nothing of the kind %s", c, c.Kind)
		}
	}
	if size > maxCollectionText {
		return 0, nil, fmt.Errorf("the names of the calendars and address books have more than %d bytes", maxCollectionText)
	}
	whole := true
	for _, kind := range CollectionKinds(s) {
		every := Collection{kind, EveryCollection}
		all, named := slices.Contains(list, every), slices.ContainsFunc(list, func(c Collection) bool { return c.Kind == kind })
		switch {
		case !named:
			return 0, nil, fmt.Errorf("the app password opens %[1]s too, of which nothing is named; add %[2]s for all of that kind, or choose what opens no %[1]s", kind, every)
		case all && slices.ContainsFunc(list, func(c Collection) bool { return c.Kind == kind && c != every }):
			return 0, nil, fmt.Errorf("%s is all of that kind, and single ones are named besides; leave out the one or the others", every)
		case !all && kind == CalendarCollection:
			s &^= ScopeSchedule // invitations are to the account, not to one calendar of it
			whole = false
		case !all:
			whole = false
		}
	}
	if whole {
		return s, nil, nil
	}
	return s, list, nil
}

// covers reports whether what an app password is narrowed to opens all that a grant is narrowed to. None: not narrowed.
func covers(held, granted []Collection) bool {
	if len(held) == 0 {
		return true
	}
	holder := Grant{Collections: held}
	return len(granted) > 0 && !slices.ContainsFunc(granted, func(c Collection) bool { return !holder.Opens(c.Kind, c.Name) })
}

// CollectionTexts writes collections as ParseCollection reads them.
func CollectionTexts(list []Collection) []string {
	texts := make([]string, len(list))
	for i, c := range list {
		texts[i] = c.String()
	}
	return texts
}

// JoinCollections writes what an app password is narrowed to on one line, for people.
func JoinCollections(list []Collection) string { return strings.Join(CollectionTexts(list), ", ") }
