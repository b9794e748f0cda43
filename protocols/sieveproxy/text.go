package sieveproxy

import (
	"bytes"
	"fmt"
	"strings"

	"postern/protocols/wire"
)

// read reads a command or a response to its end. Where that is is decided by lines and literals alone (RFC 5804 section 4), before anything
// in it is understood. line reads a line of at most so many bytes, most is for all of them; waits tells that literals are {5}, as servers
// send them, and else {5+}: of any other nobody knows what follows.
func read(r *wire.Reader, line func(left int) ([]byte, error), most int, waits bool) (*wire.Text, error) {
	t := &wire.Text{}
	for literals := wire.MaxLiteral; ; {
		l, err := line(most)
		if err != nil {
			t.Clear()
			return nil, err
		}
		t.Add(l)
		_, literal, ok, err := wire.TrailingLiteral(l, literals)
		switch {
		case err != nil || ok && literal.Wait != waits:
			t.Clear()
			return nil, wire.ErrLiteral
		case !ok:
			t.Rest = t.All
			return t, nil
		}
		octets, err := r.Literal(literal.Size)
		if err != nil {
			t.Clear()
			return nil, err
		}
		t.Add([]byte("\r\n"))
		t.Add(octets)
		literals -= literal.Size
		if most -= len(l); most <= 0 {
			t.Clear()
			return nil, wire.ErrTooLong
		}
	}
}

// takeVerb takes a command's name, and returns it in capitals.
func takeVerb(t *wire.Text) string {
	verb := t.Rest
	if end := bytes.IndexByte(verb, ' '); end >= 0 {
		verb = verb[:end]
	}
	t.Rest = t.Rest[len(verb):]
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' { // there are letters beyond ASCII whose capital is in it
			return r - 'a' + 'A'
		}
		return r
	}, string(verb))
}

// argument takes blanks and a string.
func argument(t *wire.Text) ([]byte, bool) {
	if !blanks(t) {
		return nil, false
	}
	return t.Str()
}

func blanks(t *wire.Text) bool {
	rest := bytes.TrimLeft(t.Rest, " ")
	taken := len(rest) < len(t.Rest)
	t.Rest = rest
	return taken
}

func isHTTP(t *wire.Text) bool { return bytes.Contains(t.All, []byte(" HTTP/")) }

// maxQuoted bounds a quoted string, in bytes (RFC 5804 section 4).
const maxQuoted = 1024

// quoted writes a string with quotes; false: it needs a literal. Cyrus takes nothing beyond ASCII in quotes.
func quoted(s string) (string, bool) {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", false
	}
	q := escapes.Replace(s)
	return `"` + q + `"`, len(q) <= maxQuoted
}

var escapes = strings.NewReplacer(`"`, `\"`, `\`, `\\`)

// str writes a string as a server does.
func str(s string) string {
	if q, ok := quoted(s); ok {
		return q
	}
	return fmt.Sprintf("{%d}\r\n%s", len(s), s)
}
