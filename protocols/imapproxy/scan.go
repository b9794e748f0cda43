package imapproxy

import (
	"bytes"
	"fmt"

	"postern/protocols/relay"
	"postern/protocols/wire"
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

// up takes bytes of the client, and may change them; see relay.Guard.
func (s *scanner) up(p []byte) (relay.Step, error) {
	i := 0
	for i < len(p) {
		switch s.state {
		case opaque:
			return relay.Step{Taken: len(p), Pass: p}, nil
		case asking, idling, compressed:
			return relay.Step{Taken: i, Pass: p[:i]}, nil
		case atHead:
			st, passed, err := s.atHead(p, i)
			switch {
			case err != nil:
				return st, err
			case passed:
				i = st.Taken
			case st.Taken > 0 || len(st.Pass) > 0: // else it was refused at its first byte: nothing is done yet
				return st, nil
			}
		case inLine:
			st, passed, err := s.inLine(p, i)
			if err != nil || !passed {
				return st, err
			}
			i = st.Taken
		case inLiteral:
			i += s.inLiteral(p[i:])
		case refusedLine, refusedLiteral:
			if i > 0 {
				return relay.Step{Taken: i, Pass: p[:i]}, nil
			}
			return s.refused(p)
		}
	}
	return relay.Step{Taken: i, Pass: p[:i]}, nil
}

// inLine takes p[i:] up to the line's end. passed says that the step is only how far p may pass.
func (s *scanner) inLine(p []byte, i int) (st relay.Step, passed bool, err error) {
	n, ended, err := s.end.find(p[i:])
	if err != nil {
		return relay.Step{Taken: i, Pass: p[:i]}, false, err
	}
	s.keep(p[i : i+n])
	kept, cut := announced[:s.plus], 0
	if !ended {
		cut = s.end.plus()
		s.plus = byte(cut)
	} else {
		kind, err := s.lineEnded()
		if err != nil {
			return relay.Step{Taken: i, Pass: p[:i]}, false, err
		}
		s.plus = 0
		switch {
		case kind == nonSync && len(kept) > 0:
			kept = kept[1:]
		case kind == nonSync:
			at := i + bytes.LastIndexByte(p[i:i+n], '+')
			copy(p[at:], p[at+1:i+n])
			return relay.Step{Taken: i + n, Pass: p[:i+n-1]}, false, nil
		}
	}
	if len(kept) == 0 {
		return relay.Step{Taken: i + n, Pass: p[:i+n-cut]}, cut == 0, nil
	}
	s.out = append(append(s.out[:0], kept...), p[:n]...) // it is the first of p
	return relay.Step{Taken: n, Pass: s.out[:len(s.out)-cut]}, false, nil
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
func (s *scanner) refused(p []byte) (relay.Step, error) {
	if s.state == refusedLiteral {
		return relay.Step{Taken: s.inLiteral(p)}, nil
	}
	n, ended, err := s.end.find(p)
	if err != nil {
		return relay.Step{}, err
	}
	s.keep(p[:n])
	if ended {
		if _, err = s.lineEnded(); err != nil {
			return relay.Step{}, err
		}
	}
	if s.state != atHead {
		return relay.Step{Taken: n}, nil
	}
	return relay.Step{Taken: n, Answer: s.answer}, nil
}

// lineEnded is called at a line's end, which may be that of a command.
func (s *scanner) lineEnded() (kind literalKind, err error) {
	size, kind, err := trailingLiteral(s.end.tail.Bytes())
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
		cmd := &command{Text: wire.Text{Rest: line}}
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

// atHead judges the command at p[i:], or at what was kept of an earlier piece and p. passed says that the step is only how far p may pass.
func (s *scanner) atHead(p []byte, i int) (st relay.Step, passed bool, err error) {
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
		return relay.Step{Taken: len(p), Pass: p[:i]}, false, nil
	}
	if v != passes && i > 0 { // what stands before goes first
		return relay.Step{Taken: i, Pass: p[:i]}, false, nil
	}
	s.head = nil
	if v == refusal {
		s.state = refusedLine
		_, _, err := s.end.find(head[:n]) // a literal's size may stand across it
		return relay.Step{Taken: n - kept}, false, err
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
		return relay.Step{Taken: n - kept, Pass: s.out}, false, nil
	case kept > 0:
		return relay.Step{Taken: n - kept, Pass: head[:n]}, false, nil
	}
	return relay.Step{Taken: i + n, Pass: p[:i+n]}, v == passes, nil
}
