package wire

import (
	"bytes"
	"errors"
	"strconv"
)

// ErrLiteral says that a line ends in something like a literal's announcement that is none, or one of a size nobody needs before
// login. What follows it can't be told from commands.
var ErrLiteral = errors.New("bad literal")

// Announced is a literal that the end of a line announces.
type Announced struct {
	Size int  // in bytes
	Wait bool // the sender waits for our leave: {n}; without it the bytes follow at once: {n+} (RFC 7888)
}

// TrailingLiteral returns the literal that a line announces at its end, and the line before it. ok is false if it announces none.
// A size over limit, or braces around anything else, are ErrLiteral, {n-} among them: no standard says whether bytes follow.
// A quoted string can't hold a line's end, so looking at the end is exact (RFC 9051 section 9).
func TrailingLiteral(line []byte, limit int) (before []byte, a Announced, ok bool, err error) {
	if !bytes.HasSuffix(line, []byte("}")) {
		return line, Announced{}, false, nil
	}
	open := bytes.LastIndexByte(line, '{')
	if open < 0 {
		return line, Announced{}, false, ErrLiteral
	}
	digits, noWait := bytes.CutSuffix(line[open+1:len(line)-1], []byte("+"))
	if len(digits) == 0 || len(digits) > 9 || bytes.ContainsFunc(digits, func(c rune) bool { return c < '0' || c > '9' }) {
		return line, Announced{}, false, ErrLiteral
	}
	n, _ := strconv.Atoi(string(digits))
	if n > limit {
		return line, Announced{}, false, ErrLiteral
	}
	return line[:open], Announced{Size: n, Wait: !noWait}, true, nil
}
