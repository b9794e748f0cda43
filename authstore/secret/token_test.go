package secret

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestToken(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		made := NewToken()
		text := made.Reveal()
		if seen[text] || len(text) != TokenSize || !strings.HasPrefix(text, "postern_") || strings.Trim(text[8:], "abcdefghijklmnopqrstuvwxyz234567") != "" {
			t.Fatalf("made %s", text)
		}
		seen[text] = true
		read, err := ParseToken(text)
		if err != nil || read != made || read.Digest() != made.Digest() {
			t.Fatalf("ParseToken(%s) = %v", text, err)
		}
	}
	a, b := NewToken(), NewToken()
	if a.Digest() == b.Digest() {
		t.Error("two tokens have one digest")
	}
	shown, err := json.Marshal(struct{ T Token }{a})
	if text := fmt.Sprintf("%v %+v %s %#v %x", a, a, a, a, a) + string(shown); err != nil || strings.Contains(text, a.Reveal()[8:20]) {
		t.Errorf("it shows itself: %s", text)
	}
}

// Each single slip is seen without a look-up.
func TestTokenSlips(t *testing.T) {
	made := NewToken()
	text := made.Reveal()
	for name, wrong := range map[string]string{
		"nothing": "", "prefix alone": "postern_", "another prefix": "Postern_" + text[8:], "capitals": strings.ToUpper(text), "a blank behind": text + " ",
		"a blank before": " " + text, "cut": text[:len(text)-1], "longer": text + "a", "a line break": text[:20] + "\n" + text[21:], "not ASCII": text[:20] + "é" + text[22:],
	} {
		if _, err := ParseToken(wrong); err == nil {
			t.Errorf("%s is taken: %q", name, wrong)
		}
	}
	for i := len("postern_"); i < len(text); i++ {
		other := byte('a')
		if text[i] == other {
			other = 'b'
		}
		if _, err := ParseToken(text[:i] + string(other) + text[i+1:]); err == nil {
			t.Errorf("a slip at %d is taken", i)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	made := NewToken()
	f.Add(made.Reveal())
	f.Add("postern_")
	f.Add("")
	f.Add("postern_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	f.Fuzz(func(t *testing.T, text string) {
		read, err := ParseToken(text)
		if err == nil && read.Reveal() != text { // one token has one text
			t.Errorf("%q is taken for %q", text, read.Reveal())
		}
		if err != nil && read != (Token{}) {
			t.Errorf("%q gives an error and a token", text)
		}
	})
}
