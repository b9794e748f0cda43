package popproxy

import (
	"bytes"

	"postern/protocols/wire"
)

// tracker reads what a backend sends after the login: where an answer ends, so that words of ours can come between. In whatever pieces the
// bytes come, the outcome is the same.
type tracker struct {
	at   place
	ok   bool // the answer began with "+"
	dots wire.Dots
}

// place is where in an answer.
type place byte

const (
	between place = iota
	inStatus
	inLines
)

// down takes bytes of the backend, at most to the end of an answer. lines tells whether +OK is followed by lines in this one; -ERR never is.
func (t *tracker) down(p []byte, lines bool) (n int, ended bool) {
	if t.at == inLines {
		return t.lines(p)
	}
	if t.at == between {
		t.at, t.ok = inStatus, p[0] == '+'
	}
	n = bytes.IndexByte(p, '\n') + 1
	switch {
	case n == 0:
		return len(p), false
	case t.ok && lines:
		t.at, t.dots = inLines, wire.Dots{}
		return n, false
	}
	t.at = between
	return n, true
}

// lines takes what follows the status. Odd dots end nothing: what a client may take for an end, it would without us.
func (t *tracker) lines(p []byte) (n int, ended bool) {
	for n < len(p) {
		scanned, found := t.dots.Scan(p[n:])
		n += scanned
		if found == wire.End {
			t.at = between
			return n, true
		}
	}
	return n, false
}
