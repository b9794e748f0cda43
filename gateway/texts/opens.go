package texts

import (
	"cmp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"postern/authstore"
)

// contained are scopes that say nothing more beside another.
var contained = map[authstore.Scopes]authstore.Scopes{
	authstore.ScopeMail: authstore.ScopeMailRead, authstore.ScopeCalendar: authstore.ScopeCalendarRead, authstore.ScopeContacts: authstore.ScopeContactsRead,
}

// Opened is a part of what an app password opens.
type Opened struct {
	Text   string
	Titles []string // of single calendars or address books, as Title has them; none: the text says it all
	Read   string   // that these can only be read; empty: changed too
}

func (o Opened) String() string {
	text := o.Text
	if len(o.Titles) > 0 {
		text += ": " + strings.Join(o.Titles, ", ")
	}
	if o.Read != "" {
		text += " " + o.Read
	}
	return text
}

// Opens says what an app password opens: first what it opens whole, then single calendars and address books, by what they were called
// when it was made.
func (p *Printer) Opens(s authstore.Scopes, narrowed []authstore.Collection, titles authstore.Titles) (list []Opened) {
	grant := authstore.Grant{Collections: narrowed}
	whole := s
	for _, kind := range authstore.CollectionKinds(s) {
		if grant.Whole(kind) {
			continue
		}
		opening := authstore.KindScopes(kind)
		list = append(list, p.singly(kind, s&opening, narrowed, titles))
		if whole &^= opening; kind == authstore.CalendarCollection {
			whole &^= authstore.ScopeSchedule // it goes with all calendars only
		}
	}
	if whole != 0 {
		list = slices.Insert(list, 0, Opened{Text: p.scopes(whole)})
	}
	return list
}

func (p *Printer) singly(kind string, s authstore.Scopes, narrowed []authstore.Collection, titles authstore.Titles) (o Opened) {
	for _, c := range narrowed {
		if c.Kind == kind {
			o.Titles = append(o.Titles, Title(titles[c], c.Name))
		}
	}
	if len(o.Titles) == 0 {
		return Opened{Text: p.Say("opens.none_" + kind)}
	}
	slices.SortFunc(o.Titles, ByTitle)
	o.Text = p.Say("opens."+kind, len(o.Titles))
	if !s.Any(authstore.ScopeCalendar | authstore.ScopeContacts) {
		o.Read = p.Say("opens.read")
	}
	return o
}

// scopes says what scopes open: the preset's name where they are exactly one, else each in words. An app password may be older than
// invitations, and lack them beside its preset.
func (p *Printer) scopes(s authstore.Scopes) string {
	for whole, part := range contained {
		if s.Any(whole) {
			s &^= part
		}
	}
	for _, preset := range authstore.Presets {
		switch preset.Scopes {
		case s:
			return p.Say("preset." + preset.Name)
		case s | authstore.ScopeSchedule:
			return p.Say("opens.no_invitations", p.Say("preset."+preset.Name))
		}
	}
	var words []string
	for _, name := range s.Names() {
		words = append(words, p.Say("scope."+name))
	}
	return capital(p.List(words))
}

// List joins words as in "a, b and c".
func (p *Printer) List(words []string) string {
	n := len(words)
	if n < 2 {
		return strings.Join(words, "")
	}
	return p.Say("words.and", strings.Join(words[:n-1], ", "), words[n-1])
}

func capital(s string) string {
	r, size := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(r)) + s[size:]
}

// maxTitle is how much of a title is shown, in characters.
const maxTitle = 60

// Title is what a calendar or an address book is called, on one line that is not too long, by the rules of authstore.CleanLabel: its title
// as far as that can be shown, else its name.
func Title(title, name string) string {
	for _, text := range []string{title, name} {
		text = strings.Join(strings.Fields(strings.Map(shown, text)), " ")
		if r := []rune(text); len(r) > maxTitle {
			text = strings.TrimSpace(string(r[:maxTitle-1])) + "…"
		}
		if clean, err := authstore.CleanLabel(text); err == nil {
			return clean
		}
	}
	return "?"
}

// shown takes away what can't be shown, and what would turn the writing around it too.
func shown(r rune) rune {
	switch {
	case unicode.IsSpace(r):
		return ' '
	case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == utf8.RuneError:
		return -1
	}
	return r
}

// ByTitle orders titles by their letters, capitals or not.
func ByTitle(a, b string) int {
	return cmp.Or(cmp.Compare(strings.ToLower(a), strings.ToLower(b)), cmp.Compare(a, b))
}
