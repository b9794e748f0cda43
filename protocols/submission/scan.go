package submission

import (
	"bytes"
	"errors"

	"postern/protocols/relay"
	"postern/protocols/wire"
)

// scanner reads what a client sends after its login: commands, each of which the backend has to read the same way and answer once, and
// messages up to where they end. In whatever pieces the bytes come, the outcome is the same.
//
// A command reaches the backend as a whole line, if it is one that may pass. Replies come in the order of the commands, so one that is
// refused here is answered when those before it have been. Whether a message follows DATA is the backend's word (354), and nothing
// passes before it is said.
type scanner struct {
	rules rules
	lax   bool // an odd end of a message is the backend's affair

	state scanState
	open  int    // commands and messages that the backend has not answered yet
	owed  int    // so many of them up to a message's end; 0: none of them is one
	mail  bool   // a transaction is under way
	head  []byte // of a line that has not come whole
	after string // what the client is told when what nobody gets is over
	chunk int64  // bytes left of BDAT's
	last  bool   // they are the message's last
	dots  wire.Dots
	out   []byte // what passes with a byte that was kept back
}

type scanState byte

const (
	atCommand scanState = iota
	asking              // DATA has been sent
	inMessage           // and answered with 354
	inChunk             // behind BDAT
	refusing            // a line, when all has been answered that came before it
	skipsLine
	skipsChunk
	skipsMessage // the rest of one that some server could take for more than one
	confused     // the backend has answered what was not said
)

// waits tells whether the backend has to answer before more can be judged.
func (s *scanner) waits() bool { return s.state == asking || s.state == refusing && s.open > 0 }

// busy tells whether the client waits: orderly, for the end of anything; else for the answer to a message that the backend has got whole.
func (s *scanner) busy(orderly bool) bool {
	return s.owed > 0 || orderly && (s.open > 0 || s.mail || s.state != atCommand)
}

// Errors that end a session.
var (
	errSmuggling = errors.New("the client sent something that some servers take for the end of a message")
	errConfused  = errors.New("the backend answered what was not said")
)

// Answers of ours.
const (
	lineEndRefused = "500 5.5.2 A line must end in CRLF, and hold no other CR and no NUL.\r\n"
	lengthRefused  = "500 5.5.2 Line too long.\r\n"
	endRefused     = "550 5.6.11 The message has a dot between line ends that are not CRLF; some servers take that for its end.\r\n"
)

// maxLine bounds a command line, in bytes with its CRLF: RFC 5321 section 4.5.3.1.4, and what extensions add to it, which is less. Of a longer
// one Postfix reads only the beginning (line_length_limit), and would act on another command than was judged.
const maxLine = 2 << 10

// up takes bytes of the client; see relay.Guard.
func (s *scanner) up(p []byte) (relay.Step, error) {
	i := 0
	for i < len(p) {
		st, plain, err := s.step(p[i:], i == 0)
		switch {
		case plain:
			i += st.Taken
		case i == 0:
			return st, err
		default: // what stands before it goes first
			return relay.Step{Taken: i, Pass: p[:i]}, nil
		}
	}
	return relay.Step{Taken: i, Pass: p[:i]}, nil
}

// step takes what can be told at once. plain says that the bytes taken pass as they are. What is not plain is done only alone, not behind
// other bytes that pass.
func (s *scanner) step(p []byte, alone bool) (st relay.Step, plain bool, err error) {
	switch s.state {
	case atCommand:
		st, plain = s.line(p, alone)
		return st, plain, nil
	case inMessage: // it begins alone: the backend has answered before
		st, plain = s.message(p)
		return st, plain, nil
	case inChunk:
		n := min(s.chunk, int64(len(p)))
		s.skip(n)
		return relay.Step{Taken: int(n)}, true, nil
	case confused:
		return relay.Step{}, false, errConfused
	}
	if !alone || s.waits() {
		return relay.Step{}, false, nil
	}
	switch s.state {
	case refusing:
		s.state = atCommand
		st, _ = s.line(p, true)
		return st, false, nil
	case skipsLine:
		return s.skipLine(p), false, nil
	case skipsChunk:
		n := min(s.chunk, int64(len(p)))
		if s.chunk -= n; s.chunk > 0 {
			return relay.Step{Taken: int(n)}, false, nil
		}
		return s.answer(int(n), s.after), false, nil
	}
	return s.skipMessage(p), false, nil
}

// line takes a command, or what has come of it.
func (s *scanner) line(p []byte, alone bool) (st relay.Step, plain bool) {
	n := bytes.IndexByte(p, '\n') + 1
	come := n
	if n == 0 {
		come = len(p)
	}
	switch {
	case len(s.head)+come > maxLine:
		return s.tooLong(p, alone), false
	case n == 0 && alone:
		s.head = append(s.head, p...)
		return relay.Step{Taken: len(p)}, false
	case n == 0:
		return relay.Step{}, false
	}
	line := p[:n]
	if len(s.head) > 0 {
		line = append(s.head, line...)
	}
	v := s.rules.judge(line)
	switch {
	case v.refusal != "" || v.asks:
		return s.refuse(n, v, alone), false
	case len(s.head) > 0:
		s.head = nil
		s.sent(v)
		return relay.Step{Taken: n, Pass: line}, false
	}
	s.sent(v)
	return relay.Step{Taken: n}, true
}

// tooLong skips a line.
func (s *scanner) tooLong(p []byte, alone bool) relay.Step {
	if !alone || s.mustWait() {
		return relay.Step{}
	}
	s.head, s.after, s.state = nil, lengthRefused, skipsLine
	return s.skipLine(p)
}

// refuse answers a line of n bytes that does not pass, and takes it, when its turn has come.
func (s *scanner) refuse(n int, v verdict, alone bool) relay.Step {
	if !alone || v.asks || s.mustWait() {
		return relay.Step{}
	}
	s.head, s.rules.sender = nil, ""
	if v.chunk > 0 { // which the client sends in any case (RFC 3030 section 2)
		s.chunk, s.after, s.state = v.chunk, v.refusal, skipsChunk
		return relay.Step{Taken: n}
	}
	return s.answer(n, v.refusal)
}

// mustWait tells whether a line can't be refused yet.
func (s *scanner) mustWait() bool {
	if s.open > 0 {
		s.state = refusing
	}
	return s.open > 0
}

// answer takes n bytes with an answer of ours.
func (s *scanner) answer(n int, words string) relay.Step {
	s.state = atCommand
	return relay.Step{Taken: n, Answer: []byte(words)}
}

// sent notes a command that passes.
func (s *scanner) sent(v verdict) {
	s.open++
	s.rules.sender = ""
	switch v.verb {
	case "DATA":
		s.state = asking
	case "BDAT":
		s.chunk, s.last, s.state = v.chunk, v.last, inChunk
		s.skip(0)
	case "MAIL":
		s.mail = true
	case "EHLO", "HELO":
		s.mail, s.rules.helo = false, v.verb == "HELO"
	case "RSET":
		s.mail = false
	}
}

// skip notes bytes of a chunk that have passed.
func (s *scanner) skip(n int64) {
	if s.state != inChunk {
		return
	}
	if s.chunk -= n; s.chunk > 0 {
		return
	}
	s.state = atCommand
	if s.last {
		s.owed, s.mail = s.open, false
	}
}

// message takes bytes of a message.
func (s *scanner) message(p []byte) (st relay.Step, plain bool) {
	held := s.dots.Holds()
	n, found := s.dots.Scan(p)
	for found == wire.Odd && s.lax {
		var more int
		more, found = s.dots.Scan(p[n:])
		n += more
	}
	switch found {
	case wire.Odd:
		s.state = skipsMessage
		st = s.skipMessage(p[n:])
		st.Taken += n
		return st, false
	case wire.End:
		s.open++
		s.owed, s.mail, s.state = s.open, false, atCommand
	}
	pass := p[:n]
	if s.dots.Holds() {
		pass = p[:n-1]
	}
	if held {
		s.out = append(append(s.out[:0], '\r'), pass...)
		return relay.Step{Taken: n, Pass: s.out}, false
	}
	return relay.Step{Taken: n, Pass: pass}, len(pass) == n
}

// skipMessage takes what is left of a message that is refused. Its beginning lies at the backend, which gets no end of it.
func (s *scanner) skipMessage(p []byte) relay.Step {
	for n := 0; n < len(p); {
		more, found := s.dots.Scan(p[n:])
		if n += more; found == wire.End {
			return relay.Step{Taken: n, Answer: []byte(endRefused), End: errSmuggling}
		}
	}
	return relay.Step{Taken: len(p)}
}

// skipLine takes what is left of a line that is refused.
func (s *scanner) skipLine(p []byte) relay.Step {
	n := bytes.IndexByte(p, '\n') + 1
	if n == 0 {
		return relay.Step{Taken: len(p)}
	}
	return s.answer(n, s.after)
}

// answered takes the code of a reply of the backend's.
func (s *scanner) answered(code int) {
	if s.open == 0 { // it says goodbye by itself
		return
	}
	s.open--
	s.owed = max(0, s.owed-1)
	asked := s.state == asking && s.open == 0
	switch {
	case code == goAhead && !asked, s.state == inChunk && s.open == 0:
		s.state = confused // it reads commands where we pass a message, or the other way round
	case asked && code == goAhead:
		s.state, s.dots = inMessage, wire.Dots{}
	case asked:
		s.state = atCommand
	}
}

// goAhead is the reply to DATA after which the message comes.
const goAhead = 354
