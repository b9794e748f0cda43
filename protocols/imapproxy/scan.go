package imapproxy

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/emersion/go-imap/v2"
)

// scanner reads what a client sends after its login, command by command, and decides what reaches the backend. It knows of the grammar
// only what ends a command: lines, and the literals at their ends. In whatever pieces the bytes come, the outcome is the same.
//
// Nothing of a literal passes before the backend has asked for it: one that does not read a literal, for it has refused the command
// or never looked at what stands behind it, takes the bytes for commands. So a literal that does not wait (RFC 7888) is announced
// as one that does, and the "+" is kept from the client. Only the command under way can be answered by a "+"; that none will come is
// certain when all commands are answered. So each command must be one for the backend, too, and be answered once.
type scanner struct {
	readOnly   bool             // nothing that writes passes
	noCompress bool             // COMPRESS is refused
	called     func(app string) // told of the name in ID; nil: nobody

	state      scanState
	keeps      keeping
	idles      bool // IDLE (RFC 2177) is under way, and only DONE may come
	compresses bool // the command is COMPRESS (RFC 4978)
	hidden     bool // the literal's "+" is not for the client
	plus       byte // how much of announced, at the end of what came, is kept back
	tagged     byte // length of tag
	tag        [maxTag]byte
	end        lineEnd
	open       int    // commands that the backend has not answered yet
	literal    int64  // bytes left of one
	head       []byte // of a command that can't be judged yet
	answer     []byte // what a refused command gets when it is over
	out        []byte // what passes instead of what came
	line       []byte // as much as came of one that is kept
}

// keeping is why a line is kept.
type keeping byte

const (
	notKept keeping = iota
	itsName         // ID: the session is shown with it
	itsBox          // MYRIGHTS: it is answered here
)

type scanState byte

const (
	atHead scanState = iota
	inLine
	inLiteral
	refusedLine
	refusedLiteral
	asking     // for a literal: the backend may refuse it, and then a command follows
	idling     // IDLE has been sent
	compressed // COMPRESS has been sent
	opaque     // it succeeded: nothing can be told any more
)

// waits tells whether the backend has to answer before more can be told apart.
func (s scanState) waits() bool { return asking <= s && s <= compressed }

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

// up takes bytes of the client. It may change them.
func (s *scanner) up(p []byte) (step, error) {
	i := 0
	for i < len(p) {
		switch s.state {
		case opaque:
			return step{taken: len(p), pass: p}, nil
		case asking, idling, compressed:
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
		case inLine:
			st, passed, err := s.inLine(p, i)
			if err != nil || !passed {
				return st, err
			}
			i = st.taken
		case inLiteral:
			i += s.inLiteral(p[i:])
		case refusedLine, refusedLiteral:
			if i > 0 {
				return step{taken: i, pass: p[:i]}, nil
			}
			return s.refused(p)
		}
	}
	return step{taken: i, pass: p[:i]}, nil
}

// inLine takes p[i:] up to the line's end. passed says that the step is only how far p may pass.
func (s *scanner) inLine(p []byte, i int) (st step, passed bool, err error) {
	n, ended, err := s.end.find(p[i:])
	if err != nil {
		return step{taken: i, pass: p[:i]}, false, err
	}
	s.keep(p[i : i+n])
	kept, cut := announced[:s.plus], 0
	if !ended {
		cut = s.end.plus()
		s.plus = byte(cut)
	} else {
		kind, err := s.lineEnded()
		if err != nil {
			return step{taken: i, pass: p[:i]}, false, err
		}
		s.plus = 0
		switch {
		case kind == nonSync && len(kept) > 0:
			kept = kept[1:]
		case kind == nonSync:
			at := i + bytes.LastIndexByte(p[i:i+n], '+')
			copy(p[at:], p[at+1:i+n])
			return step{taken: i + n, pass: p[:i+n-1]}, false, nil
		}
	}
	if len(kept) == 0 {
		return step{taken: i + n, pass: p[:i+n-cut]}, cut == 0, nil
	}
	s.out = append(append(s.out[:0], kept...), p[:n]...) // it is the first of p
	return step{taken: n, pass: s.out[:len(s.out)-cut]}, false, nil
}

// announced is what may be kept back of a line.
const announced = "+}\r"

func (s *scanner) inLiteral(p []byte) (n int) {
	n = int(min(s.literal, int64(len(p))))
	s.skip(int64(n))
	return n
}

// skip passes over bytes of a literal.
func (s *scanner) skip(n int64) {
	if s.literal -= n; s.literal == 0 {
		s.state-- // to the line that it stands in
	}
}

// refused takes what no one gets.
func (s *scanner) refused(p []byte) (step, error) {
	if s.state == refusedLiteral {
		return step{taken: s.inLiteral(p)}, nil
	}
	n, ended, err := s.end.find(p)
	if err != nil {
		return step{}, err
	}
	s.keep(p[:n])
	if ended {
		if _, err = s.lineEnded(); err != nil {
			return step{}, err
		}
	}
	if s.state != atHead {
		return step{taken: n}, nil
	}
	return step{taken: n, answer: s.answer}, nil
}

// lineEnded is called at a line's end, which may be that of a command.
func (s *scanner) lineEnded() (kind literalKind, err error) {
	size, kind, err := trailingLiteral(s.end.tail[:s.end.n])
	s.end.reset()
	s.read(kind)
	switch {
	case err != nil:
		return kind, err
	case s.state == refusedLine && kind == nonSync: // the rest of the command comes behind it
		s.discard(size)
	case s.state == refusedLine: // a synchronising literal that nobody asks for is not sent
		s.state = atHead
	case kind != noLiteral:
		s.literal, s.hidden, s.state = size, kind == nonSync, asking
		if s.open == 0 { // the backend did not even read up to here
			s.notAsked()
		}
	case s.compresses && s.open > 0:
		s.state = compressed
	default:
		s.state = atHead
	}
	return kind, nil
}

// discard goes on with a literal and what follows, which nobody gets.
func (s *scanner) discard(size int64) {
	if s.literal, s.state = size, refusedLine; size > 0 {
		s.state = refusedLiteral
	}
}

// notAsked says that the backend wants no literal: the command is over, though the client may still send its rest.
func (s *scanner) notAsked() {
	if s.state = atHead; s.hidden {
		s.answer = s.answer[:0]
		s.discard(s.literal)
	}
	s.hidden = false
}

// keep keeps a piece of a line that is to be read. One that is longer than any of its kind is not.
func (s *scanner) keep(p []byte) {
	if s.keeps == notKept {
		return
	}
	if s.line = append(s.line, p...); len(s.line) > maxID {
		s.keeps, s.line = notKept, nil
	}
}

// read reads a line that was kept. What stands in a literal is not read: no app sends one.
func (s *scanner) read(literal literalKind) {
	line, keeps := bytes.TrimRight(s.line, "\r\n"), s.keeps
	s.line, s.keeps = nil, notKept
	switch {
	case literal != noLiteral:
	case keeps == itsName:
		cmd := &command{rest: line}
		if fields, ok := cmd.fields(); ok {
			if app := appOf(fields); app != "" {
				s.called(app)
			}
		}
	case keeps == itsBox && len(line) > 1:
		s.answer = fmt.Appendf(s.answer[:0], "* MYRIGHTS%s lr\r\n%s OK These are the app password's.\r\n", line, s.tag[:s.tagged])
	}
}

// hides tells whether a "+" that begins now is not for the client.
func (s *scanner) hides() bool { return s.state == asking && s.hidden }

// continued takes the backend's "+".
func (s *scanner) continued() {
	switch s.state {
	case asking:
		s.hidden = false
		if s.state = inLiteral; s.literal == 0 {
			s.state = inLine
		}
	case idling:
		s.state, s.idles = atHead, true
	}
}

// completed takes the backend's tagged answer to a command.
func (s *scanner) completed(tag []byte, ok bool) {
	if isDone(tag) { // it came when the backend had ended IDLE by itself
		return
	}
	s.open = max(0, s.open-1)
	own := bytes.Equal(tag, s.tag[:s.tagged])
	s.idles = s.idles && !own
	switch {
	case s.state == compressed && own && ok:
		s.state = opaque
	case s.open > 0 || !s.state.waits():
	case s.state == asking:
		s.notAsked()
	default:
		s.state = atHead
	}
}

// busy tells whether a command is under way, other than IDLE.
func (s *scanner) busy() bool { return s.state != opaque && (s.open > 1 || s.open == 1 && !s.idles) }

// verdict is what becomes of a command.
type verdict byte

const (
	undecided verdict = iota
	passes
	examines // SELECT, as EXAMINE
	ends     // DONE
	refusal
)

// atHead judges the command at p[i:], or at what was kept of an earlier piece and p. passed says that the step is only how far p may pass.
func (s *scanner) atHead(p []byte, i int) (st step, passed bool, err error) {
	head, kept := p[i:min(len(p), i+maxHead)], len(s.head)
	if kept > 0 {
		s.head = append(s.head, p[:min(len(p), maxHead-kept)]...)
		head = s.head
	}
	v, n := s.judge(head)
	switch {
	case v == undecided && len(head) == maxHead:
		v, n = s.refuse("*", "BAD", "", "Command too long."), len(head)
	case v == undecided:
		if kept == 0 {
			s.head = append(make([]byte, 0, maxHead), head...)
		}
		return step{taken: len(p), pass: p[:i]}, false, nil
	}
	if v != passes && i > 0 { // what stands before goes first
		return step{taken: i, pass: p[:i]}, false, nil
	}
	s.head = nil
	if v == refusal {
		s.state = refusedLine
		_, _, err := s.end.find(head[:n]) // a literal's size may stand across it
		return step{taken: n - kept}, false, err
	}
	switch {
	case v == ends:
		s.idles = false
	case head[n-1] == '\n': // IDLE is judged with its line's end
		s.state = idling
		s.open++
	default:
		s.state = inLine
		s.open++
	}
	switch {
	case v == examines:
		s.out = append(append(s.out[:0], s.tag[:s.tagged]...), " EXAMINE"...)
		return step{taken: n - kept, pass: s.out}, false, nil
	case kept > 0:
		return step{taken: n - kept, pass: head[:n]}, false, nil
	}
	return step{taken: i + n, pass: p[:i+n]}, v == passes, nil
}

// judge reads a head: tag, command and, with UID, the command's second word. n is its length without what ends it.
func (s *scanner) judge(head []byte) (v verdict, n int) {
	tag, n, ok := word(head, 0)
	if !ok {
		return undecided, 0
	}
	s.compresses = false
	valid := isTag(tag) && !isDone(tag)
	switch {
	case s.idles && isDone(tag) && head[n] != ' ':
		return s.alone(head, n, ends)
	case s.idles && valid: // the backend would take the line, or a part of it, for the end of IDLE
		return s.refuse(string(tag), "BAD", "", "Expected DONE."), n
	case s.idles:
		return s.refuse("*", "BAD", "", "Expected DONE."), n
	case head[n] != ' ' && isDone(tag): // the backend had ended IDLE by itself
		return s.refuse("*", "BAD", "", "Nothing to be done."), n
	case !valid:
		return s.refuse("*", "BAD", "", "Invalid tag."), n
	case head[n] != ' ':
		return s.refuse(string(tag), "BAD", "", "Missing command."), n
	}
	name, n, ok := word(head, n+1)
	if !ok {
		return undecided, 0
	}
	if len(name) == len("UID") && head[n] == ' ' && bytes.EqualFold(name, []byte("UID")) {
		start := n - len(name)
		if _, n, ok = word(head, n+1); !ok {
			return undecided, 0
		}
		name = head[start:n]
	}
	var upper [maxName]byte
	if !capitals(upper[:], name) {
		return s.refuse(string(tag), "BAD", "", "Unknown command."), n
	}
	v = s.rule(tag, upper[:len(name)])
	if v != refusal || s.keeps == itsBox {
		s.tagged = byte(copy(s.tag[:], tag))
	}
	if v == passes && string(upper[:len(name)]) == "IDLE" {
		return s.alone(head, n, passes)
	}
	return v, n
}

// alone is the verdict on what may be followed by nothing but the line's end. That is of its head, for servers act on IDLE before
// they have read it.
func (s *scanner) alone(head []byte, n int, v verdict) (verdict, int) {
	switch {
	case head[n] == '\n':
		return v, n + 1
	case head[n] == '\r' && n+1 == len(head):
		return undecided, 0
	case head[n] == '\r' && head[n+1] == '\n':
		return v, n + 2
	case head[n] == '\r': // which the line's reader finds fault with
		n++
	}
	return s.refuse(string(s.tag[:s.tagged]), "BAD", "", "No arguments here."), n
}

// word returns what stands from at up to a blank or a line's end.
func word(b []byte, at int) (w []byte, end int, ok bool) {
	for i := at; i < len(b); i++ {
		if b[i] == ' ' || b[i] == '\n' || b[i] == '\r' {
			return b[at:i], i, true
		}
	}
	return nil, 0, false
}

func isDone(word []byte) bool { return len(word) == 4 && bytes.EqualFold(word, []byte("DONE")) }

func isTag(word []byte) bool {
	for _, c := range word {
		if !tagBytes[c] {
			return false
		}
	}
	return 0 < len(word) && len(word) <= maxTag
}

// tagBytes are those of a tag that each server answers. Dovecot doesn't with a "]", and what may pass is counted by answers.
var tagBytes = func() (table [256]bool) {
	for i := range 0x80 {
		table[i] = !notInTag(rune(i)) && i != ']'
	}
	return table
}()

// maxName bounds a command's name, in bytes.
const maxName = 32

// capitals writes a command's name in capitals; false: that is none, for any server.
func capitals(upper, name []byte) bool {
	if len(name) == 0 || len(name) > len(upper) {
		return false
	}
	for i, c := range name {
		switch {
		case 'a' <= c && c <= 'z':
			c -= 'a' - 'A'
		case 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == ' ' && i == len("UID"):
		default:
			return false
		}
		upper[i] = c
	}
	return true
}

// rule is what becomes of a command by its name. A list of what is allowed, where only reading is: what is unknown may write.
func (s *scanner) rule(tag, name []byte) verdict {
	switch string(name) {
	case "LOGIN", "AUTHENTICATE", "STARTTLS":
		return s.refuse(string(tag), "BAD", "", "You are logged in already.")
	case "UNAUTHENTICATE": // RFC 8437: would lead to the backend's own login, and its primary passwords
		return s.refuse(string(tag), "NO", imap.ResponseCodeCannot, "Close the connection instead.")
	case "IDLE":
		return passes
	case "ID":
		if s.called != nil {
			s.keeps = itsName
		}
		return passes
	case "COMPRESS":
		if s.readOnly || s.noCompress {
			return s.refuse(string(tag), "NO", imap.ResponseCodeCannot, "No compression here.")
		}
		s.compresses = true
		return passes
	}
	switch {
	case !s.readOnly || reads[string(name)]:
		return passes
	case string(name) == "SELECT":
		return examines
	case string(name) == "MYRIGHTS": // mutt takes [READ-ONLY] for nothing where there are rights (RFC 4314)
		s.keeps = itsBox
		return s.refuse(string(tag), "NO", imap.ResponseCodeCannot, "No literal here.")
	}
	return s.refuse(string(tag), "NO", imap.ResponseCodeNoPerm, "This app password may only read.")
}

// reads are the commands that change nothing in a mailbox that was opened by EXAMINE, where FETCH sets no \Seen and CLOSE removes
// nothing (RFC 9051 sections 6.3.3 and 6.4.1).
var reads = map[string]bool{
	"CAPABILITY": true, "NOOP": true, "LOGOUT": true, "ID": true, "ENABLE": true, "NAMESPACE": true, "LANGUAGE": true, "COMPARATOR": true,
	"EXAMINE": true, "LIST": true, "LSUB": true, "XLIST": true, "RLIST": true, "RLSUB": true, "STATUS": true, "CHECK": true, "CLOSE": true,
	"UNSELECT": true, "NOTIFY": true, "ESEARCH": true, "CANCELUPDATE": true,
	"FETCH": true, "SEARCH": true, "SORT": true, "THREAD": true,
	"UID FETCH": true, "UID SEARCH": true, "UID SORT": true, "UID THREAD": true,
	"GETQUOTA": true, "GETQUOTAROOT": true, "GETACL": true, "LISTRIGHTS": true, "GETMETADATA": true,
}

// refuse sets what the client is told when the command is over. tag "*" stands for one that was none.
func (s *scanner) refuse(tag, status string, code imap.ResponseCode, text string) verdict {
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
	n    int8
	cr   bool // the last byte was one
}

// maxSpec is the longest size of a literal, in bytes: "~{", 18 digits, "+}", CR.
const maxSpec = 24

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
	case !ended || e.n > 0:
		e.cr = at >= 0
		e.keep(body)
	case endsInBrace(body): // most lines don't, and need not be kept
		e.keep(body)
	}
	return n, ended, nil
}

// keep remembers the last bytes of a line.
func (e *lineEnd) keep(b []byte) {
	if len(b) >= maxSpec {
		e.n = int8(copy(e.tail[:], b[len(b)-maxSpec:]))
		return
	}
	if over := int(e.n) + len(b) - maxSpec; over > 0 {
		e.n = int8(copy(e.tail[:], e.tail[over:e.n]))
	}
	e.n += int8(copy(e.tail[e.n:], b))
}

func (e *lineEnd) reset() { e.n, e.cr = 0, false }

// plus tells how many bytes at the end may be those of a literal's announcement from "+" on.
func (e *lineEnd) plus() int {
	tail := e.tail[:e.n]
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
