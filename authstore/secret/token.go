package secret

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"strings"
)

// tokenPrefix is how people, and programs that search for leaked secrets, know a token of the API.
const tokenPrefix = "postern_"

const (
	tokenBytes = 20 // of randomness
	tokenText  = 32 // letters that hold them
	checkText  = 6  // letters that tell a slip from a token that is not known, before any look-up: 30 bits
	// TokenSize is the length of a token, in bytes.
	TokenSize = len(tokenPrefix) + tokenText + checkText
)

// ErrToken says that a text is no token of the API, from the text alone.
var ErrToken = errors.New("not the shape of a token: \"postern_\" and 38 letters and digits")

// base32 in lower case (RFC 4648 section 6), which a double click selects whole.
var tokenLetters = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Token is a bearer token of the API. No verb prints it; the zero value opens nothing.
type Token struct{ text [tokenText]byte }

// NewToken makes a token from crypto/rand.
func NewToken() Token {
	var random [tokenBytes]byte
	rand.Read(random[:])
	var t Token
	tokenLetters.Encode(t.text[:], random[:])
	clear(random[:])
	return t
}

// ParseToken reads a token as Reveal gives it, and nothing else; ErrToken.
func ParseToken(text string) (Token, error) {
	var t Token
	rest, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok || len(text) != TokenSize {
		return t, ErrToken
	}
	copy(t.text[:], rest)
	var random [tokenBytes]byte
	if _, err := tokenLetters.Decode(random[:], t.text[:]); err != nil || t.Reveal() != text {
		return Token{}, ErrToken
	}
	return t, nil
}

// Reveal gives the text that is shown once.
func (t *Token) Reveal() string {
	sum := sha256.Sum256(t.text[:])
	return tokenPrefix + string(t.text[:]) + tokenLetters.EncodeToString(sum[:])[:checkText]
}

// Digest is what is kept of a token: SHA-256 is enough for 160 random bits, and needs no key that could be lost.
func (t *Token) Digest() [sha256.Size]byte {
	return sha256.Sum256([]byte("postern api token v1 " + string(t.text[:])))
}

// Format hides the token from every verb.
func (Token) Format(f fmt.State, _ rune) { io.WriteString(f, "[secret]") }

// MarshalText hides the token from encoders.
func (Token) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }
