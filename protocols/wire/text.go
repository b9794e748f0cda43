package wire

import (
	"bytes"
	"strings"
)

// Text is a command or a response that was read to its end, each literal behind its announcement and CRLF: nothing in it can be taken for
// the next one. It may hold credentials, so whoever has read it clears it.
type Text struct {
	All  []byte
	Rest []byte // of All, what is not parsed yet
}

// Clear overwrites it.
func (t *Text) Clear() { clear(t.All) }

// Add appends to All. Where that has to move, nothing stays behind.
func (t *Text) Add(p []byte) {
	if len(t.All)+len(p) > cap(t.All) {
		grown := append(make([]byte, 0, 2*(len(t.All)+len(p))), t.All...)
		t.Clear()
		t.All = grown
	}
	t.All = append(t.All, p...)
}

// Take takes a word, in whatever case.
func (t *Text) Take(word string) bool {
	if len(t.Rest) < len(word) || !strings.EqualFold(string(t.Rest[:len(word)]), word) {
		return false
	}
	t.Rest = t.Rest[len(word):]
	return true
}

// Str takes a quoted string or a literal (RFC 9051 section 9, RFC 5804 section 4). What it returns lies in All.
func (t *Text) Str() ([]byte, bool) {
	if t.Take(`"`) {
		return t.quoted()
	}
	line, after, ok := bytes.Cut(t.Rest, []byte("\r\n"))
	if !ok {
		return nil, false
	}
	before, literal, ok, err := TrailingLiteral(line, MaxLiteral)
	if !ok || err != nil || len(before) > 0 || literal.Size > len(after) {
		return nil, false
	}
	t.Rest = after[literal.Size:]
	return after[:literal.Size], true
}

// quoted takes the rest of a quoted string and unescapes it where it stands.
func (t *Text) quoted() ([]byte, bool) {
	n := 0
	for i := 0; i < len(t.Rest); i++ {
		switch b := t.Rest[i]; b {
		case '"':
			s := t.Rest[:n]
			t.Rest = t.Rest[i+1:]
			return s, true
		case '\r', '\n':
			return nil, false
		case '\\':
			if i++; i == len(t.Rest) || t.Rest[i] != '"' && t.Rest[i] != '\\' {
				return nil, false
			}
		}
		t.Rest[n] = t.Rest[i]
		n++
	}
	return nil, false
}
