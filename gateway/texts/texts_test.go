package texts

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/text/language"
)

func TestLanguagesSayTheSameThings(t *testing.T) {
	for _, tag := range Languages() {
		for key := range all.keys[fallback] {
			if !all.keys[tag][key] {
				t.Errorf("%s.toml lacks %s", tag, key)
			}
		}
		for key := range all.keys[tag] {
			if !all.keys[fallback][key] {
				t.Errorf("%s.toml has %s, which %s.toml lacks", tag, key, fallback)
			}
		}
	}
}

// Each language puts in the same arguments: a forgotten one would be seen as %!(EXTRA ...) by people.
func TestTextsTakeTheSameArguments(t *testing.T) {
	verb := regexp.MustCompile(`%\[(\d)\][sd]`)
	args := func(p *Printer, key string) []string {
		text := p.Say(key, "\x01%[1]s", "\x01%[2]s", "\x01%[3]s", "\x01%[4]s")
		found := slices.Compact(slices.Sorted(slices.Values(verb.FindAllString(text, -1))))
		return found
	}
	for _, key := range slices.Sorted(maps.Keys(all.keys[fallback])) {
		want := args(all.printers[fallback], key)
		for _, tag := range Languages() {
			if got := args(all.printers[tag], key); !slices.Equal(got, want) {
				t.Errorf("%s in %s takes %v, in %s %v", key, tag, got, fallback, want)
			}
		}
	}
}

// Every text is said somewhere: its key stands in the source of a program or a page, or what it is put together from does.
func TestEveryTextIsSaid(t *testing.T) {
	var source strings.Builder
	for _, pattern := range []string{"../*/*.go", "../portal/templates/*.html"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(file, "_test.go") {
				source.Write(text)
			}
		}
	}
	said := func(part string) bool { return strings.Contains(source.String(), `"`+part+`"`) }
	for _, key := range slices.Sorted(maps.Keys(all.keys[fallback])) {
		found := said(key)
		for i, r := range key {
			found = found || (r == '.' || r == '_') && said(key[:i+1]) || r == '.' && said(key[i:])
		}
		if !found {
			t.Errorf("nobody says %s", key)
		}
	}
}

func TestIn(t *testing.T) {
	for _, tt := range []struct {
		wishes []string
		want   language.Tag
	}{
		{nil, language.English},
		{[]string{"", "de-AT,de;q=0.9,en;q=0.5"}, language.German},
		{[]string{"en", "de"}, language.English},
		{[]string{"fr-FR,fr"}, language.English},
		{[]string{"fr", "de"}, language.German},
		{[]string{"%%%", "de-CH"}, language.German},
	} {
		if got := In(tt.wishes...).Tag; got != tt.want {
			t.Errorf("In(%q) is %s, want %s", tt.wishes, got, tt.want)
		}
	}
}

func TestPlurals(t *testing.T) {
	l, err := load(fstest.MapFS{"en.toml": {Data: []byte("plain = \"no %[1]s\"\n[apps]\none = \"one app\"\nother = \"%[1]d apps\"\n[a.b]\nc = \"deep\"\n")}})
	if err != nil {
		t.Fatal(err)
	}
	p := l.printers[language.English]
	for want, got := range map[string]string{"one app": p.Say("apps", 1), "3 apps": p.Say("apps", 3), "no <b>": p.Say("plain", "<b>"), "deep": p.Say("a.b.c"), "gone": p.Say("gone")} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestTimes(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip(err)
	}
	at := time.Date(2026, 7, 2, 13, 4, 0, 0, time.UTC).In(berlin)
	if got, want := In("en").Time(at), "2 Jul 2026, 15:04 CEST"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := In("de").Time(at), "02.07.2026, 15:04 CEST"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
