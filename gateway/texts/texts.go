// Package texts holds what Postern says to people, in the portal and by mail: one file for each language, en.toml, de.toml. A further
// language is one more file with the same keys. Messages are golang.org/x/text's: %[1]s, %[2]d take the arguments by their places, and a
// table with "one" and "other" is chosen by the number in the first.
package texts

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"golang.org/x/text/feature/plural"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
	"golang.org/x/text/message/catalog"
)

//go:embed *.toml
var files embed.FS

// fallback is the language of who asks for none that is here, and the one that has every key.
var fallback = language.English

var all = mustLoad()

type library struct {
	tags     []language.Tag // fallback first
	keys     map[language.Tag]map[string]bool
	matcher  language.Matcher
	printers map[language.Tag]*Printer
}

// Printer says things in one language. Goroutines may share it.
type Printer struct {
	Tag  language.Tag
	keys map[string]bool
	p    *message.Printer
}

func mustLoad() *library {
	l, err := load(files)
	if err != nil {
		panic("texts: " + err.Error()) // they are part of the program, and tests read them all
	}
	return l
}

func load(from fs.FS) (*library, error) {
	names, err := fs.Glob(from, "*.toml")
	if err != nil {
		return nil, err
	}
	b := catalog.NewBuilder(catalog.Fallback(fallback))
	l := &library{keys: make(map[language.Tag]map[string]bool), printers: make(map[language.Tag]*Printer)}
	for _, name := range names {
		tag, err := language.Parse(strings.TrimSuffix(name, ".toml"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		text, err := fs.ReadFile(from, name)
		if err != nil {
			return nil, err
		}
		var tree map[string]any
		if err := toml.Unmarshal(text, &tree); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		l.keys[tag] = make(map[string]bool)
		if err := l.add(b, tag, "", tree); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		l.tags = append(l.tags, tag)
	}
	slices.SortFunc(l.tags, func(a, b language.Tag) int {
		if a == fallback {
			return -1
		}
		if b == fallback {
			return 1
		}
		return strings.Compare(a.String(), b.String())
	})
	l.matcher = language.NewMatcher(l.tags)
	for _, tag := range l.tags {
		l.printers[tag] = &Printer{tag, l.keys[tag], message.NewPrinter(tag, message.Catalog(b))}
	}
	return l, nil
}

func (l *library) add(b *catalog.Builder, tag language.Tag, prefix string, tree map[string]any) error {
	for key, value := range tree {
		key = prefix + key
		switch v := value.(type) {
		case string:
			l.keys[tag][key] = true
			if err := b.SetString(tag, key, v); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		case map[string]any:
			one, isPlural := v["one"].(string)
			other, hasOther := v["other"].(string)
			if !isPlural || !hasOther {
				if err := l.add(b, tag, key+".", v); err != nil {
					return err
				}
				continue
			}
			l.keys[tag][key] = true
			if err := b.Set(tag, key, plural.Selectf(1, "%d", "one", one, "other", other)); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		default:
			return fmt.Errorf("%s is no text", key)
		}
	}
	return nil
}

// Languages lists the languages that are here, English first.
func Languages() []language.Tag { return all.tags }

// In finds the printer for the first of the wishes that a language here fits; each is a BCP 47 tag or an Accept-Language header, and may
// be empty or rubbish.
func In(wishes ...string) *Printer {
	for _, wish := range wishes {
		if len(wish) > 200 { // parsing is not linear
			continue
		}
		tags, _, err := language.ParseAcceptLanguage(wish)
		if err != nil || len(tags) == 0 {
			continue
		}
		if _, i, c := all.matcher.Match(tags...); c >= language.High {
			return all.printers[all.tags[i]]
		}
	}
	return all.printers[fallback]
}

// Say gives the text of a key. A key that is nowhere is a mistake of ours, and stands there itself.
func (p *Printer) Say(key string, args ...any) string {
	return p.p.Sprintf(message.Key(key, key), args...)
}

// Has reports whether the language has a text of that key.
func (p *Printer) Has(key string) bool { return p.keys[key] }

// Time writes a time, to the minute, with the zone's name: 2 Jan 2026, 15:04 CET.
func (p *Printer) Time(t time.Time) string { return t.Format(p.Say("layout.time")) }

// Day writes a day: 2 Jan 2026.
func (p *Printer) Day(t time.Time) string { return t.Format(p.Say("layout.day")) }
