package doortest

import (
	"bytes"
	"strings"

	"postern/protocols/relay"
)

// Script is what client and backend say after a login, run through a guard as a relay does.
type Script struct {
	Guard      relay.Guard
	Backend    bytes.Buffer // what reached it
	Passed     bytes.Buffer // what reached the client of the backend's words
	Answers    bytes.Buffer // and of ours
	Told       bytes.Buffer // both, in their order
	Boundaries []int        // in Passed
	Left       []byte       // what the client has said and the guard has not taken
	Err        error        // that ended it

	woken <-chan struct{} // what it waits for; nil: nothing
}

// CRLF is words of a script as they are sent: "\n" stands for CRLF.
func CRLF(words string) string { return strings.ReplaceAll(words, "\n", "\r\n") }

// Run says lines in pieces of a size: those that begin with "S: " are the backend's, others the client's. "\n" stands for CRLF.
func (s *Script) Run(lines []string, piece int) {
	for _, line := range lines {
		if words, isBackend := strings.CutPrefix(line, "S: "); isBackend {
			s.Hear(CRLF(strings.ReplaceAll(words, "\nS: ", "\n")), piece)
		} else {
			s.Say(CRLF(line), piece)
		}
	}
}

// Say has the client say words, in pieces of a size.
func (s *Script) Say(words string, piece int) {
	for len(words) > 0 {
		n := min(piece, len(words))
		s.Left = append(s.Left, words[:n]...)
		words = words[n:]
		s.up()
	}
}

func (s *Script) up() {
	for s.Err == nil && len(s.Left) > 0 && !s.waiting() {
		st, err := s.Guard.Up(s.Left)
		s.Backend.Write(st.Pass)
		s.Answers.Write(st.Answer)
		s.Told.Write(st.Answer)
		s.Left = s.Left[st.Taken:]
		if st.Taken == 0 && len(st.Pass) == 0 {
			s.woken = s.Guard.Woken()
		}
		if s.Err = err; err == nil {
			s.Err = st.End
		}
	}
}

func (s *Script) waiting() bool {
	if s.woken == nil {
		return false
	}
	select {
	case <-s.woken:
		s.woken = nil
		return false
	default:
		return true
	}
}

// Hear has the backend say words, in pieces of a size.
func (s *Script) Hear(words string, piece int) {
	for len(words) > 0 {
		n := min(piece, len(words))
		pass, boundary := s.Guard.Down([]byte(words[:n]))
		if boundary >= 0 {
			s.Boundaries = append(s.Boundaries, s.Passed.Len()+boundary)
		}
		s.Passed.Write(pass)
		s.Told.Write(pass)
		words = words[n:]
		s.up()
	}
}

// Boundary is the last one; -1: there is none.
func (s *Script) Boundary() int {
	if len(s.Boundaries) == 0 {
		return -1
	}
	return s.Boundaries[len(s.Boundaries)-1]
}
