package davproxy

import (
	"bytes"
	"unicode/utf8"
)

// byteSet is a set of bytes.
type byteSet [256]bool

func setOf(has func(c byte) bool) *byteSet {
	var s byteSet
	for i := range s {
		s[i] = has(byte(i))
	}
	return &s
}

// Where scanning stops to look: what is no plain character, and what means something there.
var (
	stopsInText  = setOf(func(c byte) bool { return special(c) || c == '<' || c == '&' || c == ']' })
	stopsInCDATA = setOf(func(c byte) bool { return special(c) || c == ']' })
	stopsInValue = setOf(func(c byte) bool { return special(c) || c == '<' || c == '&' })
	stopsInNote  = setOf(special) // comments, processing instructions, names
)

// special tells what must be looked at: control characters are forbidden, and beyond ASCII not all is UTF-8.
func special(c byte) bool { return c < ' ' && !isSpace(c) || c >= utf8.RuneSelf }

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// trimLeft is without what bytes.TrimLeft needs to learn each time which characters are meant.
func trimLeft(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	return b
}

func trimSpace(b []byte) []byte { return trimRight(trimLeft(b)) }

func trimRight(b []byte) []byte {
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

// Characters and references that are not as they must be.
var (
	errChar      = malformed("a character that may not be")
	errReference = malformed("a reference")
)

// run goes on from the token's i-th byte to one of stops, or to the limit, or to the end of what there is.
func (t *tokenizer) run(i int, stops *byteSet) (b []byte, at int, err error) {
	b = t.buf[t.first:t.last]
	for {
		for end := min(len(b), maxPiece); i < end && !stops[b[i]]; {
			i++
		}
		switch {
		case i >= maxPiece:
			return b, i, nil
		case i == len(b):
			if b, err = t.need(i + 1); err != nil {
				return b, i, nil // whoever asks for more is told
			}
		case b[i] < utf8.RuneSelf:
			return b, i, nil
		default:
			n, err := t.rune(i)
			if err != nil {
				return b, i, err
			}
			i += n
			b = t.buf[t.first:t.last]
		}
	}
}

// rune judges the character beyond ASCII at the token's i-th byte and returns its length.
func (t *tokenizer) rune(i int) (int, error) {
	b := t.buf[t.first+i : t.last]
	for !utf8.FullRune(b) {
		all, err := t.need(i + len(b) + 1)
		if err != nil {
			return 0, cut(err)
		}
		b = all[i:]
	}
	if n := runeLen(b); n > 0 && !t.ascii {
		return n, nil
	}
	return 0, errChar
}

// reference judges the reference at the token's i-th byte and returns its length.
func (t *tokenizer) reference(i int) (int, error) {
	for {
		b := t.buf[t.first+i : t.last]
		if _, n := reference(b); n > 0 {
			return n, nil
		}
		if len(b) >= maxReference || bytes.IndexByte(b, ';') >= 0 {
			return 0, errReference
		}
		if _, err := t.need(i + len(b) + 1); err != nil {
			return 0, cut(err)
		}
	}
}

// valid judges bytes that are all here.
func (t *tokenizer) valid(b []byte, stops *byteSet) bool {
	for i := 0; i < len(b); {
		n := 1
		switch {
		case !stops[b[i]]:
		case b[i] == '&':
			_, n = reference(b[i:])
		case b[i] >= utf8.RuneSelf && !t.ascii:
			n = runeLen(b[i:])
		default:
			return false
		}
		if n == 0 {
			return false
		}
		i += n
	}
	return true
}

// runeLen returns the length of a character beyond ASCII; 0: it may not be.
func runeLen(b []byte) int {
	r, n := utf8.DecodeRune(b)
	if r == utf8.RuneError && n == 1 || !isChar(r) {
		return 0
	}
	return n
}

// isChar tells whether XML has a place for a character (XML 1.0 section 2.2).
func isChar(r rune) bool {
	return r >= ' ' && r < 0xd800 || r == '\t' || r == '\n' || r == '\r' || r > 0xdfff && r < 0xfffe || r > 0xffff && r <= utf8.MaxRune
}

// maxReference bounds a reference, in bytes: &#x0010ffff; and no row of zeros.
const maxReference = 16

// reference reads the reference at the beginning; n is 0 if there is none, or not all of it.
func reference(b []byte) (r rune, n int) {
	end := bytes.IndexByte(b[:min(len(b), maxReference)], ';')
	if end < 0 {
		return 0, 0
	}
	switch name := b[1:end]; {
	case string(name) == "amp":
		r = '&'
	case string(name) == "lt":
		r = '<'
	case string(name) == "gt":
		r = '>'
	case string(name) == "quot":
		r = '"'
	case string(name) == "apos":
		r = '\''
	case bytes.HasPrefix(name, []byte("#x")):
		r = number(name[2:], 16)
	case bytes.HasPrefix(name, []byte("#")):
		r = number(name[1:], 10)
	}
	if !isChar(r) { // as 0 is none
		return 0, 0
	}
	return r, end + 1
}

// number reads digits; what is no number is 0, and so is what is no character.
func number(digits []byte, base rune) rune {
	r := rune(0)
	for _, c := range digits {
		d := base
		switch {
		case '0' <= c && c <= '9':
			d = rune(c - '0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			d = rune(c|0x20-'a') + 10
		}
		r = r*base + d
		if d >= base || r > utf8.MaxRune {
			return 0
		}
	}
	return r
}

// inner is the text as it stands, without what begins and ends a CDATA section.
func (tok *token) inner() []byte { return tok.raw[tok.lead : len(tok.raw)-int(tok.tail)] }

// appendText appends what a text token says: with references resolved, and line ends as parsers hand them on.
func (tok *token) appendText(dst []byte) []byte {
	if tok.cdata || bytes.IndexByte(tok.inner(), '&') < 0 {
		return appendLines(dst, tok.inner())
	}
	for b := tok.inner(); len(b) > 0; {
		n := bytes.IndexByte(b, '&')
		if n < 0 {
			return appendLines(dst, b)
		}
		dst = appendLines(dst, b[:n])
		r, size := reference(b[n:])
		dst = utf8.AppendRune(dst, r)
		b = b[n+size:]
	}
	return dst
}

// blank tells whether a text token is white space, as it stands.
func (tok *token) blank() bool { return len(trimSpace(tok.inner())) == 0 }

// appendLines appends text with each CR LF and each lone CR as LF (XML 1.0 section 2.11).
func appendLines(dst, b []byte) []byte {
	for {
		n := bytes.IndexByte(b, '\r')
		if n < 0 {
			return append(dst, b...)
		}
		dst = append(append(dst, b[:n]...), '\n')
		b = bytes.TrimPrefix(b[n+1:], []byte("\n"))
	}
}
