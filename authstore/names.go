package authstore

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
	"golang.org/x/text/secure/precis"
)

// Names makes login names canonical: one form at every entrance, in the store, in keys, in logs and towards backends. The zero
// value takes whole addresses only.
type Names struct {
	DefaultDomain string // appended to a name without @; empty: such a name is nobody's
	PlusAddresses bool   // user+tag@domain logs in to user@domain
}

// maxName bounds a login name, in bytes, as typed and in its canonical form (RFC 5321 section 4.5.3.1.3, without the brackets).
const maxName = 254

var errName = errors.New("not an address such as alice@example.org")

// Canonical maps a name as typed to its one form: PRECIS UsernameCaseMapped (RFC 8265 section 3.3) before the @, IDNA's look-up
// profile in ASCII (RFC 5891) behind it. It is idempotent, and allocates only where it changes something.
func (n Names) Canonical(typed string) (string, error) {
	if len(typed) > maxName {
		return "", fmt.Errorf("%w: longer than %d bytes", errName, maxName)
	}
	typedLocal, typedDomain := typed, n.DefaultDomain
	if at := strings.LastIndexByte(typed, '@'); at >= 0 {
		typedLocal, typedDomain = typed[:at], typed[at+1:]
	}
	local, err := canonicalLocal(typedLocal)
	if err != nil {
		return "", err
	}
	if plus := strings.IndexByte(local, '+'); n.PlusAddresses && plus > 0 {
		if local, err = canonicalLocal(local[:plus]); err != nil {
			return "", err
		}
	}
	domain, err := canonicalDomain(typedDomain)
	if err != nil {
		return "", err
	}
	if len(local)+1+len(domain) > maxName {
		return "", fmt.Errorf("%w: longer than %d bytes", errName, maxName)
	}
	if local == typedLocal && domain == typedDomain && len(typed) == len(local)+1+len(domain) {
		return typed, nil // the common case
	}
	return local + "@" + domain, nil
}

// localSigns is what may stand before the @ besides letters and digits. Left out is what means something in a path, a header, a
// template or a backend's login dialogue.
const localSigns = ".-_+'=~&"

func canonicalLocal(local string) (string, error) {
	if strings.ContainsFunc(local, func(r rune) bool { return !isLocalASCII(r) }) {
		var err error
		if local, err = enforce(local); err != nil {
			return "", err
		}
		for _, r := range local { // full-width signs have become ASCII ones
			if r < 0x80 && !isLocalASCII(r) {
				return "", fmt.Errorf("%w: a sign in it can't stand before the @", errName)
			}
		}
	}
	if local == "" || local[0] == '.' || local[len(local)-1] == '.' || strings.Contains(local, "..") {
		return "", fmt.Errorf("%w: nothing, or a stray dot, before the @ (RFC 5321 section 4.1.2)", errName)
	}
	return local, nil
}

// isLocalASCII reports whether r is in its final form and needs no look at Unicode.
func isLocalASCII(r rune) bool {
	return r < 0x80 && (isPlain(byte(r)) || strings.IndexByte(localSigns, byte(r)) >= 0)
}

func isPlain(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// enforce applies the profile until nothing changes: RFC 8264 section 7 knows names that need it more than once.
func enforce(local string) (string, error) {
	for range 4 {
		mapped, err := precis.UsernameCaseMapped.String(local)
		if err != nil {
			return "", fmt.Errorf("%w: a sign in it can't stand before the @", errName) // the library's words quote what was typed
		}
		if mapped == local {
			return local, nil
		}
		local = mapped
	}
	return "", fmt.Errorf("%w: it has no stable form", errName)
}

func canonicalDomain(domain string) (string, error) {
	if isHostname(domain) && !strings.Contains(domain, "--") { // no label of IDNA's
		return domain, nil
	}
	if domain == "" {
		return "", fmt.Errorf("%w: the domain is missing", errName)
	}
	ascii, err := idna.Lookup.ToASCII(domain)
	if err != nil {
		return "", fmt.Errorf("%w: its domain can't be one", errName) // the library's words quote what was typed
	}
	if again, err := idna.Lookup.ToASCII(ascii); err != nil || again != ascii || !isHostname(ascii) {
		return "", fmt.Errorf("%w: its domain can't be one", errName)
	}
	return ascii, nil
}

// isHostname reports whether s is a lower-case host name (RFC 1123 section 2.1).
func isHostname(s string) bool {
	for rest, more := s, true; more; {
		var label string
		label, rest, more = strings.Cut(rest, ".")
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !isPlain(c) && c != '-' {
				return false
			}
		}
	}
	return len(s) <= 253
}

// forCreation is Canonical with what is refused only when a name is given to an account: a name that people take for another,
// and one that nobody could log in with.
func (n Names) forCreation(typed string) (string, error) {
	name, err := n.Canonical(typed)
	if err != nil {
		return "", fmt.Errorf("%q: %w", typed, err)
	}
	local, domain, _ := strings.Cut(name, "@")
	if asked, _, _ := strings.Cut(typed, "@"); n.PlusAddresses && strings.Contains(asked[1:], "+") {
		return "", fmt.Errorf("%q can't be a name of its own: addresses with + lead to %s", typed, name)
	}
	shown, err := idna.ToUnicode(domain)
	if err != nil {
		return "", fmt.Errorf("%q: %w: %v", typed, errName, err)
	}
	for _, part := range append(strings.Split(shown, "."), local) {
		if err := lookAlike(part); err != nil {
			return "", fmt.Errorf("%q is refused: %w, so that it could be taken for another name", typed, err)
		}
	}
	return name, nil
}

// together lists the scripts that one word may mix (UTS 39 section 5.2, "highly restrictive").
var together = [][]string{
	{"Latin", "Han", "Hiragana", "Katakana"},
	{"Latin", "Han", "Bopomofo"},
	{"Latin", "Han", "Hangul"},
}

// latinLookAlikes are the letters of other scripts that people take for a Latin letter (UTS 39, confusables).
const latinLookAlikes = "аеорсухіјѕһԁԛԝѵӏкмтвнгп" + "αοριυνκτχγωηε" + "օսցոհզ"

// lookAlike says why a word could be taken for another: it mixes scripts, or all its letters look Latin and are not.
func lookAlike(word string) error {
	scripts := scriptsOf(word)
	mixed := len(scripts) > 1 && !slices.ContainsFunc(together, func(set []string) bool {
		return !slices.ContainsFunc(scripts, func(s string) bool { return !slices.Contains(set, s) })
	})
	switch {
	case mixed:
		return fmt.Errorf("%q mixes %s letters", word, strings.Join(scripts, " and "))
	case len(scripts) == 1 && scripts[0] != "Latin" && !strings.ContainsFunc(word, func(r rune) bool {
		return unicode.IsLetter(r) && !strings.ContainsRune(latinLookAlikes, r)
	}):
		return fmt.Errorf("%q looks Latin and is %s", word, scripts[0])
	}
	return nil
}

func scriptsOf(word string) []string {
	var scripts []string
	for _, r := range word {
		if s := scriptOf(r); s != "" && !slices.Contains(scripts, s) {
			scripts = append(scripts, s)
		}
	}
	return scripts
}

// scriptNames are Unicode's scripts in a fixed order.
var scriptNames = slices.Sorted(maps.Keys(unicode.Scripts))

// scriptOf names a letter's script; empty for what scripts share, such as digits and marks.
func scriptOf(r rune) string {
	if unicode.In(r, unicode.Common, unicode.Inherited) {
		return ""
	}
	for _, name := range scriptNames {
		if unicode.Is(unicode.Scripts[name], r) {
			return name
		}
	}
	return "unknown"
}

// CanonicalDomain is a domain as addresses have it; an error says that it can't be one.
func CanonicalDomain(typed string) (string, error) {
	return canonicalDomain(strings.TrimSpace(typed))
}
