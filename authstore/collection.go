package authstore

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The kinds of collections.
const (
	CalendarCollection = "calendar"
	ContactsCollection = "contacts"
)

// EveryCollection as a name stands for all collections of a kind, those made later as well.
const EveryCollection = "*"

// Bounds of what narrows an app password.
const (
	MaxCollections    = 64
	maxCollectionName = 255 // bytes
)

// Collection is one calendar or address book of an account. Its name is its place in the home, as it stands decoded in its URL: it
// stays where people give the calendar another title.
type Collection struct{ Kind, Name string }

// ParseCollection reads what String gives: "calendar/work".
func ParseCollection(text string) (Collection, error) {
	kind, name, _ := strings.Cut(text, "/")
	c := Collection{kind, name}
	if !c.valid() {
		return Collection{}, fmt.Errorf(`%q names no collection; write "calendar/NAME" or "contacts/NAME", or * for all of a kind`, text)
	}
	return c, nil
}

func (c Collection) String() string { return c.Kind + "/" + c.Name }

func (c Collection) valid() bool {
	if c.Kind != CalendarCollection && c.Kind != ContactsCollection {
		return false
	}
	return c.Name != "" && c.Name != "." && c.Name != ".." && len(c.Name) <= maxCollectionName && utf8.ValidString(c.Name) &&
		!strings.ContainsFunc(c.Name, func(r rune) bool { return r == '/' || r == '\\' || unicode.IsControl(r) })
}

// Titles are what people called collections when an app password was narrowed to them, for those who look at it later: many apps name
// a calendar by a random number. They decide nothing. One without a title is called by its name.
type Titles map[Collection]string

// clean gives the titles of a list as CleanLabel does. ErrLabel.
func (t Titles) clean(list []Collection) (Titles, error) {
	var clean Titles
	for _, c := range list {
		title, ok := t[c]
		if !ok {
			continue
		}
		title, err := CleanLabel(title)
		if err != nil {
			return nil, fmt.Errorf("the title of %s: %w", c, err)
		}
		if clean == nil {
			clean = make(Titles)
		}
		clean[c] = title
	}
	return clean, nil
}

// Opens reports whether a grant may reach a collection, as far as it is narrowed. A grant that names no collections is not; one
// that names some opens these alone.
func (g *Grant) Opens(kind, name string) bool {
	if len(g.Collections) == 0 {
		return true
	}
	for _, c := range g.Collections {
		if c.Kind == kind && (c.Name == name || c.Name == EveryCollection) {
			return true
		}
	}
	return false
}

// Whole reports whether a grant opens all collections of a kind.
func (g *Grant) Whole(kind string) bool { return g.Opens(kind, EveryCollection) }
