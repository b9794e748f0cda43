package imapproxy

import (
	"bytes"
	"errors"

	"postern/protocols/wire"
)

// Errors that end a session: servers differ in where such a line ends.
var (
	errBareCR = errors.New("a bare CR in a command")
	errNUL    = errors.New("a NUL in a command")
)

// lineEnd finds the end of a line that comes in pieces, and what stands right before it.
type lineEnd struct {
	tail wire.Tail
	cr   bool // the last byte was one
}

// find looks for a line's end in p. n is the bytes up to it or, where it does not stand in p, all.
func (e *lineEnd) find(p []byte) (n int, ended bool, err error) {
	n = bytes.IndexByte(p, '\n') + 1
	line, body := p[:n], p[:max(0, n-1)]
	if ended = n > 0; !ended {
		n, line, body = len(p), p, p
	}
	if bytes.IndexByte(line, 0) >= 0 {
		return 0, false, errNUL
	}
	if e.cr && line[0] != '\n' {
		return 0, false, errBareCR
	}
	at := bytes.IndexByte(body, '\r')
	if at >= 0 && at != len(body)-1 {
		return 0, false, errBareCR
	}
	switch {
	case !ended || len(e.tail.Bytes()) > 0:
		e.cr = at >= 0
		e.tail.Keep(body)
	case endsInBrace(body): // most lines don't, and need not be kept
		e.tail.Keep(body)
	}
	return n, ended, nil
}

func (e *lineEnd) reset() {
	e.tail.Reset()
	e.cr = false
}

// plus tells how many bytes at the end may be those of a literal's announcement from "+" on.
func (e *lineEnd) plus() int {
	tail := e.tail.Bytes()
	at := bytes.LastIndexByte(tail, '+')
	if at < 0 || !bytes.HasPrefix([]byte(announced), tail[at:]) {
		return 0
	}
	digits := bytes.TrimRight(tail[:at], "0123456789")
	if len(digits) == at || !bytes.HasSuffix(digits, []byte("{")) {
		return 0
	}
	return len(tail) - at
}

// endsInBrace tells whether a line, without its LF, may announce a literal.
func endsInBrace(line []byte) bool {
	n := len(line)
	return n > 0 && (line[n-1] == '}' || n > 1 && line[n-1] == '\r' && line[n-2] == '}')
}

// literalKind tells literals apart (RFC 7888).
type literalKind byte

const (
	noLiteral literalKind = iota
	syncing
	nonSync
)

var errLiteral = errors.New("a literal of a size that has no sense")

// trailingLiteral reads the size of a literal that follows a line, which comes without its LF. A quoted string can't hold a line's end,
// so looking at the end is exact.
func trailingLiteral(line []byte) (size int64, kind literalKind, err error) {
	b, ok := bytes.CutSuffix(bytes.TrimSuffix(line, []byte("\r")), []byte("}"))
	if !ok || len(b) == 0 {
		return 0, noLiteral, nil
	}
	kind = syncing
	sign := b[len(b)-1]
	if sign == '+' || sign == '-' {
		kind, b = nonSync, b[:len(b)-1]
	}
	digits := len(b)
	for digits > 0 && '0' <= b[digits-1] && b[digits-1] <= '9' {
		digits--
	}
	switch {
	case digits == 0 && len(b) > maxDigits:
		return 0, noLiteral, errLiteral
	case digits == len(b), digits == 0, b[digits-1] != '{':
		return 0, noLiteral, nil
	case len(b)-digits > maxDigits, sign == '-': // of which servers may make what they like
		return 0, noLiteral, errLiteral
	}
	for _, d := range b[digits:] {
		size = size*10 + int64(d-'0')
	}
	return size, kind, nil
}

// maxDigits is as many as fit an int64.
const maxDigits = 18
