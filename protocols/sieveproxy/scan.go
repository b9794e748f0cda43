package sieveproxy

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"postern/protocols/relay"
	"postern/protocols/wire"
)

// scanner reads what a client sends after its login, command by command, and decides what reaches the backend. In whatever pieces the bytes
// come, the outcome is the same.
//
// Literals are sent without being asked for, so a server that refuses a command before it has read them takes them for commands. Dovecot does
// so with what it does not know and with names that are no UTF-8, Cyrus with quoted strings beyond ASCII. So nothing passes before the whole
// command is known, all but the octets of its script, and what passes is written anew: a command of the standard, with names that fit it, in
// strings of which every server reads the same.
type scanner struct {
	state   scanState
	text    []byte // of the command, its literals behind their announcements; but for its script
	line    int    // where in text the line begins that is read now
	refusal string // why the command gets no further; empty: it may
	literal int64  // bytes left of one
	open    int    // commands that the backend has not answered yet
	out     []byte // what passes
}

type scanState byte

const (
	inLine scanState = iota
	inName
	inScript
	afterScript
	inRefused
)

// Bounds of what a client says, in bytes.
const (
	maxText   = wire.MaxLine + wire.MaxLiteral // of a command without its script
	maxName   = maxQuoted                      // of a script's name, or a tag of NOOP
	maxScript = 999_999_999                    // servers refuse what they find too large, and read it all the same
)

// Errors that end a session: nobody knows what follows.
var (
	errTooLong = errors.New("a command that is too long")
	errScript  = errors.New("words behind a script")
)

// arguments are the commands of RFC 5804 section 2 that pass, with what they take.
var arguments = map[string][]argumentKind{
	"CAPABILITY":   {},
	"LISTSCRIPTS":  {},
	"LOGOUT":       {},
	"NOOP":         {anOptional},
	"HAVESPACE":    {aName, aNumber},
	"SETACTIVE":    {aName},
	"GETSCRIPT":    {aName},
	"DELETESCRIPT": {aName},
	"RENAMESCRIPT": {aName, aName},
	"PUTSCRIPT":    {aName, aScript},
	"CHECKSCRIPT":  {aScript},
}

type argumentKind byte

const (
	aName      argumentKind = iota
	anOptional              // name, or nothing
	aNumber
	aScript
)

// refusals are for those that do not pass; any other is unknown.
var refusals = map[string]string{
	"AUTHENTICATE":   "You are logged in already.",
	"STARTTLS":       "You are logged in already.",
	"UNAUTHENTICATE": "Close the connection instead.", // would lead to the backend's own login, and its primary passwords
}

// up takes bytes of the client; see relay.Guard.
func (s *scanner) up(p []byte) (relay.Step, error) {
	if s.literal > 0 {
		return s.inLiteral(p[:min(s.literal, int64(len(p)))]), nil
	}
	n := bytes.IndexByte(p, '\n')
	if n < 0 {
		return relay.Step{Taken: len(p)}, s.gather(p)
	}
	if err := s.gather(p[:n]); err != nil {
		return relay.Step{}, err
	}
	if s.state == afterScript {
		return s.scriptEnded(n)
	}
	return s.lineEnded(n)
}

func (s *scanner) inLiteral(p []byte) relay.Step {
	step := relay.Step{Taken: len(p)}
	switch s.state {
	case inScript:
		step.Pass = p
	case inName:
		s.text = append(s.text, p...)
	}
	s.skip(int64(len(p)))
	return step
}

// skip passes over bytes of a literal.
func (s *scanner) skip(n int64) {
	if s.literal -= n; s.literal > 0 {
		return
	}
	switch s.state { // it is over, unless there was none
	case inScript:
		s.state = afterScript
	case inName:
		s.state, s.line = inLine, len(s.text)
	case inRefused:
		s.state = inLine
	}
}

func (s *scanner) gather(p []byte) error {
	if len(s.text)+len(p) > maxText {
		return errTooLong
	}
	s.text = append(s.text, p...)
	return nil
}

// lineEnded is called at a line's end, of which the LF stands at p[n] and is not taken yet.
func (s *scanner) lineEnded(n int) (relay.Step, error) {
	line, whole := bytes.CutSuffix(s.text[s.line:], []byte("\r"))
	_, literal, announced, err := wire.TrailingLiteral(line, maxScript)
	if err != nil || announced && literal.Wait { // nobody knows whether it comes
		return relay.Step{}, wire.ErrLiteral
	}
	if s.refusal == "" && (!whole || bytes.ContainsAny(line, "\r\x00")) {
		s.refusal = "A line without CRLF."
	}
	if s.refusal == "" {
		s.judge(bytes.TrimSuffix(s.text, []byte("\r")), announced, literal.Size)
	}
	step := relay.Step{Taken: n + 1}
	switch {
	case s.refusal != "" && announced:
		s.text, s.line = nil, 0
		s.state = inRefused
	case s.refusal != "" && s.open > 0: // answers have no tags: ours comes in its turn
		return relay.Step{Taken: n}, nil
	case s.refusal != "":
		step.Answer = []byte(status("NO", "", s.refusal))
		s.next()
	case s.state == inName:
		s.text = append(s.text, '\n')
	default:
		step.Pass = s.out
		s.open++
		s.next()
	}
	if s.literal = int64(literal.Size); s.literal == 0 {
		s.skip(0)
	}
	return step, nil
}

// scriptEnded is called at the end of the line behind a script. There is nothing in it.
func (s *scanner) scriptEnded(n int) (relay.Step, error) {
	if string(s.text) != "\r" {
		return relay.Step{}, errScript
	}
	s.state = inLine
	s.next()
	return relay.Step{Taken: n + 1, Pass: []byte("\r\n")}, nil
}

// next begins another command.
func (s *scanner) next() { s.text, s.line, s.refusal = nil, 0, "" }

// judge reads a command as far as it came, and writes what passes. If it goes on with a literal, of some bytes, text ends with the
// announcement.
func (s *scanner) judge(text []byte, announced bool, size int) {
	if announced {
		text = text[:bytes.LastIndexByte(text, '{')]
	}
	t := &wire.Text{All: bytes.Clone(text)} // strings are unescaped where they stand
	t.Rest = t.All
	verb := takeVerb(t)
	kinds, ok := arguments[verb]
	if !ok {
		if s.refusal = refusals[verb]; s.refusal == "" {
			s.refusal = "Unknown command."
		}
		return
	}
	s.out = append(s.out[:0], verb...)
	for _, kind := range kinds {
		apart := blanks(t)
		switch {
		case len(t.Rest) == 0 && kind == anOptional && !announced:
			continue
		case !apart:
			s.refusal = "Missing arguments."
		case len(t.Rest) > 0:
			s.takeArgument(t, kind)
		case announced && kind == aScript:
			s.out = fmt.Appendf(s.out, " {%d+}", size)
			s.state = inScript
			announced = false
		case announced && kind != aNumber && size <= maxName:
			s.state = inName
			return
		default:
			s.refusal = "Bad arguments."
		}
		if s.refusal != "" {
			return
		}
	}
	if blanks(t); len(t.Rest) > 0 || announced {
		s.refusal = "Too many arguments."
	}
	s.out = append(s.out, "\r\n"...)
}

// takeArgument takes an argument that is there, and writes it as every server reads it.
func (s *scanner) takeArgument(t *wire.Text, kind argumentKind) {
	if kind == aNumber {
		digits := len(t.Rest) - len(bytes.TrimLeft(t.Rest, "0123456789"))
		if digits == 0 || digits > 10 {
			s.refusal = "Bad arguments."
			return
		}
		s.out = append(append(s.out, ' '), t.Rest[:digits]...)
		t.Rest = t.Rest[digits:]
		return
	}
	b, ok := t.Str()
	if !ok || kind != aScript && !isName(b) {
		s.refusal = "Bad arguments."
		return
	}
	if q, ok := quoted(string(b)); ok {
		s.out = fmt.Appendf(s.out, " %s", q)
	} else {
		s.out = fmt.Appendf(s.out, " {%d+}\r\n%s", len(b), b)
	}
}

// isName tells what may be a script's name, or a tag (RFC 5804 section 1.6): Dovecot does not even read another one to its end.
func isName(b []byte) bool {
	return len(b) <= maxName && utf8.Valid(b) && !slices.ContainsFunc(b, func(c byte) bool { return c < ' ' || c == 0x7f })
}

// between tells whether all that the client has said has passed.
func (s *scanner) between() bool { return s.state == inLine && len(s.text) == 0 }
