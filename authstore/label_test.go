package authstore_test

import (
	"errors"
	"strings"
	"testing"

	"postern/authstore"
)

func TestCleanLabel(t *testing.T) {
	for typed, want := range map[string]string{
		"  Thunderbird ": "Thunderbird", "Küche, oben": "Küche, oben", "👨‍👩‍👧 tablet": "👨‍👩‍👧 tablet", "טלפון": "טלפון", "<img onerror=alert(1)>": "<img onerror=alert(1)>",
		strings.Repeat("ä", 100): strings.Repeat("ä", 100), strings.Repeat("ä", 101): "", "": "", " \t": "", "a\nb": "", "a\x00": "", "a\x85b": "", "\xff": "",
		"phone\u202egpj.exe": "", "\u2067a": "", "\u200fa": "",
	} {
		got, err := authstore.CleanLabel(typed)
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, authstore.ErrLabel) {
			t.Errorf("%q is %q, %v, want %q", typed, got, err, want)
		}
	}
}
