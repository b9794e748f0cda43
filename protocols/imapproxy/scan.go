package imapproxy

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// scanner reads what a client sends after its login, command by command, and decides what reaches the backend. It knows of the grammar
// only what ends a command: lines, and the literals at their ends. In whatever pieces the bytes come, the outcome is the same.
type scanner struct {
	readOnly   bool             // nothing that writes passes
	noCompress bool             // COMPRESS is refused
	called     func(app string) // told of the name in ID; nil: nobody

	state   scanState
	head    [maxHead]byte // of a command that can't be judged yet
	headed  int
	end     lineEnd
	literal int64  // bytes left of one
	tag     []byte // of the command under way
	busy    int    // commands that the backend has not answered yet, but for IDLE
	idles   bool   // IDLE is under way
	waits   waitFor
	answer  []byte // what a refused command gets when it is over
	out     []byte // a head that was changed
	names   bool   // the line is ID's, and kept
	name    []byte // as much of it as came
}

type scanState byte

const (
	atHead scanState = iota
	inLine
	inLiteral
	refusedLine
	refusedLiteral
	waiting // for the backend to answer, before more can be told apart
	opaque  // compressed: nothing can be told any more
)

// waitFor is what a command's line is followed by.
type waitFor byte

const (
	nothing    waitFor = iota
	aLiteral           // a synchronising one: the backend may refuse it, and then a command follows
	idling             // IDLE (RFC 2177): so that no other command's literal takes its "+" for an invitation
	compressed         // COMPRESS (RFC 4978): if it succeeds
)

// maxHead bounds tag and command, in bytes. Lines and literals after the login are the backend's to bound.
const maxHead = 160

// Errors that end a session: servers differ in where such a line ends.
var (
	errBareCR = errors.New("a bare CR in a command")
	errNUL    = errors.New("a NUL in a command")
)

// step is what is to be done about some bytes of a client.
type step struct {
	taken  int    // so many of them are done with; fewer than all: the rest comes again, after the backend's answer if nothing passed
	pass   []byte // for the backend; good until the next call
	answer []byte // for the client
}

// up takes bytes of the client.
func (s *scanner) up(p []byte) (step, error) {
	i := 0
	for i < len(p) {
		switch s.state {
		case opaque:
			return step{taken: len(p), pass: p}, nil
		case waiting:
			return step{taken: i, pass: p[:i]}, nil
		case atHead:
			st, passed, err := s.atHead(p, i)
			switch {
			case err != nil:
				return st, err
			case passed:
				i = st.taken
			case st.taken > 0 || len(st.pass) > 0: // else it was refused at its first byte: nothing is done yet
				return st, nil
			}
		case inLine, refusedLine:
			if s.state == refusedLine && i > 0 {
				return step{taken: i, pass: p[:i]}, nil
			}
			n, ended, err := s.end.find(p[i:])
			if err != nil {
				return step{taken: i, pass: p[:i]}, err
			}
			if s.names {
				s.keepName(p[i : i+n])
			}
			refused := s.state == refusedLine
			if ended {
				if err := s.lineEnded(); err != nil {
					return step{taken: i, pass: p[:i]}, err
				}
			}
			if i += n; refused {
				return step{taken: i, answer: s.takeAnswer()}, nil
			}
		case inLiteral, refusedLiteral:
			refused := s.state == refusedLiteral
			if refused && i > 0 {
				return step{taken: i, pass: p[:i]}, nil
			}
			n := min(s.literal, int64(len(p)-i))
			s.skip(n)
			if i += int(n); refused {
				return step{taken: i}, nil
			}
		}
	}
	return step{taken: i, pass: p[:i]}, nil
}

// skip passes over bytes of a literal.
func (s *scanner) skip(n int64) {
	if s.literal -= n; s.literal == 0 {
		s.state-- // to the line that it stands in
	}
}

// takeAnswer is what the client is told, if the refused command is over.
func (s *scanner) takeAnswer() []byte {
	if s.state != atHead {
		return nil
	}
	return s.answer
}

// lineEnded is called at a line's end, which may be that of a command.
func (s *scanner) lineEnded() error {
	size, kind, err := s.end.literal()
	s.end.reset()
	if s.names {
		s.tellName(kind)
	}
	switch {
	case err != nil:
		return err
	case kind == nonSync && size > 0: // the rest of the command comes behind it
		s.literal = size
		s.state++
	case kind == nonSync:
	case s.state == refusedLine: // a synchronising literal that nobody asks for is not sent
		s.state = atHead
	case kind == syncing:
		s.literal, s.waits, s.state = size, aLiteral, waiting
	case s.waits != nothing:
		s.state = waiting
	default:
		s.state = atHead
	}
	return nil
}

// keepName keeps a piece of ID's line. One that is longer than any app's is not looked at.
func (s *scanner) keepName(p []byte) {
	if s.name = append(s.name, p...); len(s.name) > maxID {
		s.names, s.name = false, nil
	}
}

// tellName reads the line of ID (RFC 2971). A name in a literal is not read: no app sends one.
func (s *scanner) tellName(kind literalKind) {
	cmd := &command{rest: bytes.TrimRight(s.name, "\r\n")}
	s.names, s.name = false, nil
	if kind != noLiteral {
		return
	}
	if fields, ok := cmd.fields(); ok {
		if app := appOf(fields); app != "" {
			s.called(app)
		}
	}
}

// continued takes the backend's "+".
func (s *scanner) continued() {
	if s.state != waiting {
		return
	}
	switch s.waits {
	case aLiteral:
		s.waits = nothing
		if s.state = inLiteral; s.literal == 0 {
			s.state = inLine
		}
	case idling:
		s.waits, s.state, s.idles = nothing, atHead, true
		s.busy--
	}
}

// completed takes the backend's tagged answer to a command.
func (s *scanner) completed(tag []byte, ok bool) {
	switch {
	case s.idles:
		s.idles = false
	case s.busy > 0:
		s.busy--
	}
	if s.state != waiting || !bytes.Equal(tag, s.tag) {
		return
	}
	if s.state = atHead; s.waits == compressed && ok {
		s.state = opaque
	}
	s.waits = nothing
}

// verdict is what becomes of a command.
type verdict byte

const (
	undecided verdict = iota
	passes
	examines // SELECT, as EXAMINE
	refusal
)

// atHead judges the command at p[i:], or at what was kept of an earlier piece and p. passed says that the step is only how far p may pass.
func (s *scanner) atHead(p []byte, i int) (st step, passed bool, err error) {
	head, kept := p[i:min(len(p), i+maxHead)], s.headed
	if kept > 0 {
		n := copy(s.head[kept:], p)
		head = s.head[:kept+n]
	}
	v, n := s.judge(head)
	switch {
	case v == undecided && len(head) == maxHead:
		v, n = s.refuse("*", "BAD", "", "Command too long."), len(head)
	case v == undecided:
		if kept == 0 {
			copy(s.head[:], head)
		}
		s.headed = len(head)
		return step{taken: len(p), pass: p[:i]}, false, nil
	}
	if v != passes && i > 0 { // what stands before goes first
		return step{taken: i, pass: p[:i]}, false, nil
	}
	s.headed = 0
	if v == refusal {
		s.state = refusedLine
		_, _, err := s.end.find(head[:n]) // a literal's size may stand across it
		return step{taken: n - kept}, false, err
	}
	s.state = inLine
	if len(s.tag) > 0 {
		s.busy++
	}
	switch {
	case v == examines:
		s.out = fmt.Appendf(s.out[:0], "%s EXAMINE", s.tag)
		return step{taken: n - kept, pass: s.out}, false, nil
	case kept > 0:
		return step{taken: n - kept, pass: head[:n]}, false, nil
	}
	return step{taken: i + n}, true, nil
}

// judge reads a head: tag, command and, with UID, the command's second word. n is its length without what ends it.
func (s *scanner) judge(head []byte) (v verdict, n int) {
	tag, n, ok := word(head, 0)
	if !ok {
		return undecided, 0
	}
	s.waits = nothing
	if n == len(head) || head[n] != ' ' { // a line of one word: DONE (RFC 2177), or nonsense that does nothing
		s.tag = s.tag[:0]
		return passes, n
	}
	if len(tag) == 0 || len(tag) > maxTag || bytes.ContainsFunc(tag, notInTag) {
		return s.refuse("*", "BAD", "", "Invalid tag."), n
	}
	s.tag = append(s.tag[:0], tag...)
	name, n, ok := word(head, n+1)
	if !ok {
		return undecided, 0
	}
	if bytes.EqualFold(name, []byte("UID")) && n < len(head) && head[n] == ' ' {
		start := n - len(name)
		if _, n, ok = word(head, n+1); !ok {
			return undecided, 0
		}
		name = head[start:n]
	}
	if bytes.ContainsFunc(name, func(r rune) bool { return r < ' ' || r >= 0x7f }) {
		return s.refuse(string(tag), "BAD", "", "Unknown command."), n
	}
	return s.rule(string(tag), strings.ToUpper(string(name))), n
}

// word returns what stands from at up to a blank or a line's end.
func word(b []byte, at int) (w []byte, end int, ok bool) {
	n := bytes.IndexAny(b[at:], " \r\n")
	if n < 0 {
		return nil, 0, false
	}
	return b[at : at+n], at + n, true
}

// rule is what becomes of a command by its name. A list of what is allowed, where only reading is: what is unknown may write.
func (s *scanner) rule(tag, name string) verdict {
	switch name {
	case "LOGIN", "AUTHENTICATE", "STARTTLS":
		return s.refuse(tag, "BAD", "", "You are logged in already.")
	case "UNAUTHENTICATE": // RFC 8437: would lead to the backend's own login, and its primary passwords
		return s.refuse(tag, "NO", imap.ResponseCodeCannot, "Close the connection instead.")
	case "IDLE":
		s.waits = idling
		return passes
	case "ID":
		s.names = s.called != nil
		return passes
	case "COMPRESS":
		if s.readOnly || s.noCompress {
			return s.refuse(tag, "NO", imap.ResponseCodeCannot, "No compression here.")
		}
		s.waits = compressed
		return passes
	}
	switch {
	case !s.readOnly || reads[name]:
		return passes
	case name == "SELECT":
		return examines
	}
	return s.refuse(tag, "NO", imap.ResponseCodeNoPerm, "This app password may only read.")
}

// reads are the commands that change nothing in a mailbox that was opened by EXAMINE, where FETCH sets no \Seen and CLOSE removes
// nothing (RFC 9051 sections 6.3.3 and 6.4.1).
var reads = map[string]bool{
	"CAPABILITY": true, "NOOP": true, "LOGOUT": true, "ID": true, "ENABLE": true, "NAMESPACE": true, "LANGUAGE": true, "COMPARATOR": true,
	"EXAMINE": true, "LIST": true, "LSUB": true, "XLIST": true, "RLIST": true, "RLSUB": true, "STATUS": true, "CHECK": true, "CLOSE": true,
	"UNSELECT": true, "NOTIFY": true, "ESEARCH": true, "CANCELUPDATE": true,
	"FETCH": true, "SEARCH": true, "SORT": true, "THREAD": true,
	"UID FETCH": true, "UID SEARCH": true, "UID SORT": true, "UID THREAD": true,
	"GETQUOTA": true, "GETQUOTAROOT": true, "GETACL": true, "MYRIGHTS": true, "LISTRIGHTS": true, "GETMETADATA": true,
}

// refuse sets what the client is told when the command is over. tag "*" stands for one that was none.
func (s *scanner) refuse(tag, status string, code imap.ResponseCode, text string) verdict {
	s.waits = nothing
	s.answer = append(append(append(s.answer[:0], tag...), ' '), status...)
	if code != "" {
		s.answer = fmt.Appendf(s.answer, " [%s]", code)
	}
	s.answer = fmt.Appendf(s.answer, " %s\r\n", text)
	return refusal
}

// lineEnd finds the end of a line that comes in pieces, and what stands right before it.
type lineEnd struct {
	tail [maxSpec]byte
	n    int
	cr   bool // the last byte was one
}

// maxSpec is the longest size of a literal, in bytes: "~{", 18 digits, "+}", CR.
const maxSpec = 24

// find looks for a line's end in p. n is the bytes up to it or, where it does not stand in p, all.
func (e *lineEnd) find(p []byte) (n int, ended bool, err error) {
	n = bytes.IndexByte(p, '\n') + 1
	line := p[:n]
	if n == 0 {
		n, line = len(p), p
	}
	ended = n > 0 && p[n-1] == '\n'
	if bytes.IndexByte(line, 0) >= 0 {
		return 0, false, errNUL
	}
	if e.cr && len(line) > 0 && line[0] != '\n' {
		return 0, false, errBareCR
	}
	body := line
	if ended {
		body = line[:n-1]
	}
	if at := bytes.IndexByte(body, '\r'); at >= 0 && at != len(body)-1 {
		return 0, false, errBareCR
	}
	if len(body) > 0 {
		e.cr = body[len(body)-1] == '\r'
		e.keep(body)
	}
	return n, ended, nil
}

// keep remembers the last bytes of a line.
func (e *lineEnd) keep(b []byte) {
	if len(b) >= maxSpec {
		e.n = copy(e.tail[:], b[len(b)-maxSpec:])
		return
	}
	if over := e.n + len(b) - maxSpec; over > 0 {
		e.n = copy(e.tail[:], e.tail[over:e.n])
	}
	e.n += copy(e.tail[e.n:], b)
}

func (e *lineEnd) reset() { e.n, e.cr = 0, false }

// literalKind tells literals apart (RFC 7888).
type literalKind byte

const (
	noLiteral literalKind = iota
	syncing
	nonSync
)

var errLiteral = errors.New("a literal of a size that has no sense")

// literal reads the size of a literal that follows the line. A quoted string can't hold a line's end, so looking at the end is exact.
func (e *lineEnd) literal() (size int64, kind literalKind, err error) {
	b, ok := bytes.CutSuffix(bytes.TrimSuffix(e.tail[:e.n], []byte("\r")), []byte("}"))
	if !ok {
		return 0, noLiteral, nil
	}
	kind = syncing
	if b, ok = bytes.CutSuffix(b, []byte("+")); ok {
		kind = nonSync
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
	case len(b)-digits > maxDigits:
		return 0, noLiteral, errLiteral
	}
	for _, d := range b[digits:] {
		size = size*10 + int64(d-'0')
	}
	return size, kind, nil
}

// maxDigits is as many as fit an int64.
const maxDigits = 18
