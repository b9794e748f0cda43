package doortest

import (
	"bytes"
	"strings"

	"postern/protocols/relay"
)

// Script is what client and backend say after a login, run through a guard as a relay does.
type Script struct {
	Guard    relay.Guard
	Backend  bytes.Buffer // what reached it
	Client   bytes.Buffer // what reached the client of the backend's words
	Answers  bytes.Buffer // and of ours
	Boundary int          // the last one in what reached the client; -1: none
	Err      error        // that ended it

	said []byte // by the client, and not taken yet
}

// Run says lines in pieces of a size: those that begin with "S: " are the backend's, others the client's. "\n" stands for CRLF, unless raw.
func (s *Script) Run(lines []string, piece int, raw bool) {
	s.Boundary = -1
	for _, line := range lines {
		words, isBackend := strings.CutPrefix(line, "S: ")
		if !raw {
			words = strings.ReplaceAll(strings.ReplaceAll(words, "\nS: ", "\n"), "\n", "\r\n")
		}
		for p := []byte(words); len(p) > 0; {
			n := min(piece, len(p))
			if isBackend {
				s.hear(bytes.Clone(p[:n]))
			} else {
				s.said = append(s.said, p[:n]...)
			}
			s.pump()
			p = p[n:]
		}
	}
}

func (s *Script) hear(p []byte) {
	pass, boundary := s.Guard.Down(p)
	if boundary >= 0 {
		s.Boundary = s.Client.Len() + boundary
	}
	s.Client.Write(pass)
}

func (s *Script) pump() {
	for s.Err == nil && len(s.said) > 0 {
		st, err := s.Guard.Up(s.said)
		s.Backend.Write(st.Pass)
		s.Answers.Write(st.Answer)
		s.said = s.said[st.Taken:]
		switch {
		case err != nil:
			s.Err = err
		case st.End != nil:
			s.Err = st.End
		case st.Taken == 0 && len(st.Pass) == 0 && !s.isWoken():
			return
		}
	}
}

func (s *Script) isWoken() bool {
	select {
	case <-s.Guard.Woken():
		return true
	default:
		return false
	}
}
