package identity

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/trustelem/zxcvbn"
)

const (
	minPrimary = 10  // characters
	maxPrimary = 256 // bytes
	minScore   = 3   // of zxcvbn's 4: beyond ten thousand million guesses
	// maxGuessed bounds what zxcvbn looks at, in characters, for its time grows faster than the length; the rest can only make it better.
	maxGuessed = 72
)

// Strength says how good a new primary password is, from 0 to 4, and why it would be refused (empty: it would not).
func (p *People) Strength(address string, password []byte) (score int, w Weakness) {
	score, w, _ = p.strength(address, password)
	return score, w
}

// strength is Strength, and the error of a list of breached passwords that can't be read.
func (p *People) strength(address string, password []byte) (score int, w Weakness, err error) {
	if len(password) > maxPrimary {
		return 0, TooLong, nil
	}
	score = p.guessable(address, password)
	if utf8.RuneCount(password) < minPrimary {
		return min(score, minScore-1), TooShort, nil
	}
	if score < minScore {
		return score, Guessable, nil
	}
	if p.o.Breached != nil {
		known, err := p.o.Breached(password)
		if err != nil {
			return score, "", err
		}
		if known {
			return 0, Breached, nil
		}
	}
	return score, "", nil
}

func (p *People) guessable(address string, password []byte) int {
	text := strings.ToValidUTF8(string(password), "")
	if runes := []rune(text); len(runes) > maxGuessed {
		text = string(runes[:maxGuessed])
	}
	known := strings.FieldsFunc(strings.ToLower(address+" "+p.o.Issuer+" "+p.o.Site), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	return zxcvbn.PasswordStrength(text, append(known, strings.ToLower(address))).Score
}

// check is for a new primary password; *Weak.
func (p *People) check(address string, password []byte) error {
	_, w, err := p.strength(address, password)
	if err == nil && w != "" {
		return &Weak{w}
	}
	return err
}
