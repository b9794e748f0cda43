package authstore

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/secure/precis"
)

// Names makes login names canonical: one form at every entrance, in the store, in keys, in logs and towards backends.
type Names struct {
	DefaultDomain string // appended to a name without @; empty: such a name is nobody's
	PlusAddresses bool   // user+tag@domain logs in to user@domain
}

// maxName bounds a login name as typed, in bytes (RFC 5321 section 4.5.3.1: 64 + 1 + 255).
const maxName = 320

var errName = errors.New("not an address")

// Canonical maps a name as typed to its one form: PRECIS UsernameCaseMapped (RFC 8265 section 3.3) before the @, IDNA's ASCII
// form behind it. It is idempotent.
func (n Names) Canonical(typed string) (string, error) {
	if len(typed) == 0 || len(typed) > maxName || !utf8.ValidString(typed) {
		return "", errName
	}
	local, domain := typed, n.DefaultDomain
	if at := strings.LastIndexByte(typed, '@'); at >= 0 {
		local, domain = typed[:at], typed[at+1:]
	}
	if n.PlusAddresses {
		if plus := strings.IndexByte(local, '+'); plus > 0 {
			local = local[:plus]
		}
	}
	if len(local)+1+len(domain) == len(typed) && isPlain(typed) {
		return typed, nil // the common case, without allocation
	}
	local, err := canonicalLocal(local)
	if err != nil {
		return "", err
	}
	domain, err = canonicalDomain(domain)
	if err != nil {
		return "", err
	}
	if len(local)+1+len(domain) > maxName {
		return "", errName
	}
	return local + "@" + domain, nil
}

// isPlain reports whether a name is canonical at a glance: lower-case ASCII letters, digits and a few signs around one @.
func isPlain(s string) bool {
	at := strings.IndexByte(s, '@')
	if at <= 0 || at > 64 || at != strings.LastIndexByte(s, '@') || strings.Contains(s, "xn--") {
		return false
	}
	label := byte('.')
	for i := at + 1; i < len(s); i++ { // labels that neither begin nor end with a dash, nor are empty
		c := s[i]
		edge := label == '.' || i+1 == len(s) || s[i+1] == '.'
		if !isAlnum(c) && !(c == '-' && !edge) && !(c == '.' && label != '.' && i+1 < len(s)) {
			return false
		}
		label = c
	}
	for i := range at {
		if c := s[i]; !isAlnum(c) && c != '.' && c != '-' && c != '_' && c != '+' {
			return false
		}
	}
	return at+1 < len(s)
}

func isAlnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

func canonicalLocal(local string) (string, error) {
	if strings.ContainsAny(local, "@*%\"\\/:;,<>()[]") { // signs that mean something to a backend's login dialogue or a path
		return "", errName
	}
	mapped, err := precis.UsernameCaseMapped.String(local)
	if err != nil || mapped == "" || len(mapped) > 64*utf8.UTFMax {
		return "", errName
	}
	if again, err := precis.UsernameCaseMapped.String(mapped); err != nil || again != mapped { // a few runes take two rounds
		return "", errName
	}
	return mapped, nil
}

// domains is IDNA2008's look-up profile, strict about what a host name may hold.
var domains = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(true), idna.BidiRule(), idna.ValidateLabels(true), idna.VerifyDNSLength(true))

func canonicalDomain(domain string) (string, error) {
	ascii, err := domains.ToASCII(domain)
	if err != nil || strings.HasSuffix(ascii, ".") {
		return "", errName
	}
	if again, err := domains.ToASCII(ascii); err != nil || again != ascii {
		return "", errName
	}
	return ascii, nil
}

// forCreation is Canonical with what is refused only when a name is made: one that looks like another.
func (n Names) forCreation(typed string) (string, error) {
	name, err := n.Canonical(typed)
	if err != nil {
		return "", fmt.Errorf("%q is not an address such as alice@example.org", typed)
	}
	at := strings.LastIndexByte(name, '@')
	unicodeDomain, err := domains.ToUnicode(name[at+1:])
	if err != nil {
		return "", fmt.Errorf("%q is not an address such as alice@example.org", typed)
	}
	for _, part := range append(strings.Split(unicodeDomain, "."), name[:at]) {
		if looksLikeAnother(part) {
			return "", fmt.Errorf("%q is refused: %q mixes scripts or looks like a Latin name, so that it could be taken for another", typed, part)
		}
	}
	return name, nil
}

// latinLookAlikes are the letters of other scripts that people take for a Latin letter (Unicode TR 39).
const latinLookAlikes = "аеорсухіјѕһԁԛԝѵӏкмтвнгп" + "αοριυνκτχγωηε" + "օսցոհզ"

// looksLikeAnother reports whether a label mixes scripts, or is written in another script with letters that all look Latin.
func looksLikeAnother(label string) bool {
	var script *unicode.RangeTable
	allAlike := true
	for _, r := range label {
		if !unicode.IsLetter(r) {
			continue
		}
		s := scriptOf(r)
		if script != nil && s != script {
			return true
		}
		script = s
		allAlike = allAlike && strings.ContainsRune(latinLookAlikes, r)
	}
	return script != nil && script != unicode.Latin && allAlike
}

// scriptOf names a letter's script; Japanese and Korean mix theirs by nature and count as one.
func scriptOf(r rune) *unicode.RangeTable {
	for _, s := range []*unicode.RangeTable{unicode.Latin, unicode.Cyrillic, unicode.Greek, unicode.Armenian, unicode.Hebrew, unicode.Arabic, unicode.Thai} {
		if unicode.Is(s, r) {
			return s
		}
	}
	for _, s := range []*unicode.RangeTable{unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul, unicode.Bopomofo} {
		if unicode.Is(s, r) {
			return unicode.Han
		}
	}
	return unicode.Common
}
