package authstore

import (
	"strings"
	"testing"
)

func TestCanonical(t *testing.T) {
	n := Names{DefaultDomain: "example.test"}
	for typed, want := range map[string]string{
		"alice@example.test":         "alice@example.test",
		"Alice@Example.TEST":         "alice@example.test",
		"alice":                      "alice@example.test",
		"a.b-c_d+e@sub.example.test": "a.b-c_d+e@sub.example.test",
		"ALİCE@example.test":         "ali̇ce@example.test",
		"größe@bücher.test":          "größe@xn--bcher-kva.test",
		"größe@xn--bcher-kva.test":   "größe@xn--bcher-kva.test",
		"ａlice@example.test":         "alice@example.test", // full width
		"o'brien@example.test":       "o'brien@example.test",
	} {
		if got, err := n.Canonical(typed); err != nil || got != want {
			t.Errorf("Canonical(%q) = %q, %v; want %q", typed, got, err, want)
		}
	}
	for _, typed := range []string{"", "@example.test", "alice@", "a b@example.test", "a\x00b@example.test", "a\r\nb@example.test",
		"alice@exa mple.test", "alice@-x.test", "alice@x-.test", "alice@.test", "alice@a..test", "alice@test.", "a/../b@example.test",
		"a*b@example.test", "a%b@example.test", "a@b@example.test", "alice@[192.0.2.1]", strings.Repeat("a", 400), "\xff@example.test"} {
		if got, err := n.Canonical(typed); err == nil {
			t.Errorf("Canonical(%q) = %q; want an error", typed, got)
		}
	}
	if _, err := (Names{}).Canonical("alice"); err == nil {
		t.Error("a bare name without a default domain is taken")
	}
	plus := Names{PlusAddresses: true}
	if got, _ := plus.Canonical("alice+lists@example.test"); got != "alice@example.test" {
		t.Errorf("plus address = %q", got)
	}
	if got, _ := plus.Canonical("+x@example.test"); got != "+x@example.test" {
		t.Errorf("a name that begins with plus = %q", got)
	}
}

func TestLookAlikesAreRefusedAtCreation(t *testing.T) {
	var n Names
	for _, typed := range []string{"аlice@example.test", "асе@example.test", "alice@eхample.test", "αlice@example.test"} {
		if got, err := n.forCreation(typed); err == nil {
			t.Errorf("forCreation(%q) = %q", typed, got)
		}
	}
	for _, typed := range []string{"alice@example.test", "größe@bücher.test", "борис@example.test", "李小龍@example.test", "山田たろう@example.test", "123@example.test"} {
		if _, err := n.forCreation(typed); err != nil {
			t.Errorf("forCreation(%q): %v", typed, err)
		}
	}
}

func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"alice@example.test", "ALİCE@EXAMPLE.test", "größe@bücher.test", "a@xn--bcher-kva.test", "\u212a@k.test", "x@ß.test", "alice"} {
		f.Add(s)
	}
	n := Names{DefaultDomain: "example.test"}
	f.Fuzz(func(t *testing.T, typed string) {
		once, err := n.Canonical(typed)
		if err != nil {
			return
		}
		if twice, err := n.Canonical(once); err != nil || twice != once {
			t.Errorf("Canonical(%q) = %q, and of that %q, %v", typed, once, twice, err)
		}
		if strings.ContainsAny(once, "\x00\r\n /*%") || strings.Count(once, "@") != 1 {
			t.Errorf("Canonical(%q) = %q", typed, once)
		}
	})
}
