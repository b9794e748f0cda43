package popproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"postern/protocols"
	"postern/protocols/saslauth"
)

// maxCommand is the longest command that a server must take, in bytes with CRLF (RFC 2449 section 4).
const maxCommand = 255

// LogInBackend logs in with SASL: PLAIN, or a token. Where the backend can take it, the client's address (Dovecot's XCLIENT) goes before the credential in
// the same write.
func (Door) LogInBackend(ctx context.Context, nc net.Conn, r *protocols.Route, c *protocols.Conn) (*protocols.Backend, error) {
	if c.Hops <= 1 {
		return nil, protocols.ErrLoop
	}
	s := newServer(nc)
	defer s.R.Release()
	if err := s.open(ctx, r); err != nil {
		return nil, err
	}
	mechanism, err := s.mechanism(r)
	if err != nil {
		return nil, err
	}
	if err := s.prove(ctx, r, mechanism, c.XCLIENT()+"\r\n"); err != nil {
		return nil, err
	}
	return &protocols.Backend{Conn: s.Conn, Rest: s.R.Take()}, nil
}

// Errors of backends.
var (
	errNoSense = errors.New("it does not speak POP3")
)

// server is a backend before its login is over.
type server struct {
	protocols.Talk
	takesXCLIENT bool
}

func newServer(nc net.Conn) *server { return &server{Talk: protocols.NewTalk(nc)} }

// open takes the greeting, and starts TLS if it is to.
func (s *server) open(ctx context.Context, r *protocols.Route) error {
	greeting, err := s.accepted()
	if err != nil {
		return err
	}
	// Nothing but the greeting tells it. In plain text somebody may have changed that: then XCLIENT is missed, or refused, and no more.
	s.takesXCLIENT = greeting.code == "XCLIENT"
	if r.Security != protocols.StartTLS {
		return nil
	}
	if err := s.ask("STLS"); err != nil {
		if _, refused := errors.AsType[status](err); refused {
			return fmt.Errorf("%w: %w", protocols.ErrNoStartTLS, err)
		}
		return err
	}
	return s.Secure(ctx, r)
}

// mechanism is what to log in with. For PLAIN nobody is asked, for all have it; of the two for tokens Microsoft's server has one and others the other.
func (s *server) mechanism(r *protocols.Route) (string, error) {
	if !r.Bearer {
		return saslauth.Plain, nil
	}
	list, err := s.capabilities()
	if err != nil {
		return "", err
	}
	return mechanismIn(list, r)
}

// mechanismIn is what to log in with to a backend with a list. Where it has none it is the older one.
func mechanismIn(list protocols.Capabilities, r *protocols.Route) (string, error) {
	return r.Mechanism(func(mechanism string) bool {
		return list.HasWord("SASL", mechanism) || len(list) == 0 && mechanism != saslauth.OAuthBearer
	})
}

// prove sends the client's address, which may be empty, and our credential.
func (s *server) prove(ctx context.Context, r *protocols.Route, mechanism, xclient string) (err error) {
	if !s.takesXCLIENT || r.Quirks.NoClientID {
		xclient = ""
	}
	proof, err := r.Prove(ctx, mechanism)
	if err != nil {
		return err
	}
	defer func() { err = proof.End(err) }()
	answer, err := s.sendCredential(xclient, proof)
	switch {
	case err != nil:
		return err
	case answer.word == refuses:
		return loginRefused(answer, proof)
	case answer.word != accepts:
		return errNoSense
	}
	return nil
}

// sendCredential returns the backend's last word about it. The initial response of RFC 5034 saves a round trip. It is kept back where the
// command would be too long with it, as with every token: Exchange Online ends the connection then. It is sent again where it is asked for, as by a server
// that knows RFC 1734 only.
func (s *server) sendCredential(xclient string, proof *protocols.Proof) (status, error) {
	command := "AUTH " + proof.Mechanism
	words, line := xclient+command, []byte(nil)
	if initial := proof.Initial(len(command)+len(" \r\n"), maxCommand); initial != nil {
		words, line = words+" ", initial
	}
	for first := true; ; first = false {
		if err := s.SendSecret(words, line); err != nil {
			return status{}, err
		}
		if first && xclient != "" {
			if _, err := s.status(); err != nil { // whatever it answers: only its log needs the address
				return status{}, err
			}
		}
		challenge, answer, err := s.answer()
		if err != nil || answer.word != challenges {
			return answer, err
		}
		words = ""
		if line, err = proof.Answer(challenge); err != nil {
			return status{}, err
		}
	}
}

// ask sends a command that must succeed.
func (s *server) ask(command string) error {
	if err := s.Send([]byte(command + "\r\n")); err != nil {
		return err
	}
	_, err := s.accepted()
	return err
}

// capabilities asks for the list (RFC 2449 section 5). It is empty where the backend knows no CAPA.
func (s *server) capabilities() (protocols.Capabilities, error) {
	list := protocols.Capabilities{}
	if err := s.ask("CAPA"); err != nil {
		if _, refused := errors.AsType[status](err); refused {
			return list, nil
		}
		return nil, err
	}
	for {
		line, err := s.Line()
		if err != nil {
			return nil, err
		}
		if string(line) == "." {
			return list, nil
		}
		name, value, _ := strings.Cut(string(line), " ")
		list.Add(name, value)
	}
}

// accepted reads an answer that must be +OK.
func (s *server) accepted() (status, error) {
	answer, err := s.status()
	switch {
	case err != nil:
		return answer, err
	case answer.word == refuses:
		return answer, answer
	case answer.word != accepts:
		return answer, errNoSense
	}
	return answer, nil
}

// status reads the first line of an answer.
func (s *server) status() (status, error) {
	_, answer, err := s.answer()
	return answer, err
}

// answer is status with what stands behind the word, until the next line is read.
func (s *server) answer() (text []byte, answer status, err error) {
	line, err := s.Line()
	if err != nil {
		return nil, status{}, err
	}
	_, text, _ = bytes.Cut(line, []byte(" "))
	answer, err = parseStatus(line)
	return text, answer, err
}

// status is the first line of an answer: "+OK [CODE] text". As an error it is for the log.
type status struct{ word, code, text string }

// The words of a status.
const (
	accepts    = "+OK"
	refuses    = "-ERR"
	challenges = "+"
)

// parseStatus takes a code from directly behind the word only (RFC 2449 section 8).
func parseStatus(line []byte) (status, error) {
	word, text, _ := bytes.Cut(line, []byte(" "))
	s := status{word: string(word), text: string(text)}
	switch s.word {
	case accepts, refuses, challenges:
	default:
		return s, errNoSense
	}
	if code, ok := strings.CutPrefix(s.text, "["); ok {
		if code, text, ok := strings.Cut(code, "]"); ok {
			s.code, s.text = strings.ToUpper(code), strings.TrimPrefix(text, " ")
		}
	}
	return s, nil
}

func (s status) Error() string {
	said := s.word
	if s.code != "" {
		said += " [" + s.code + "]"
	}
	return protocols.Answered(said + " " + s.text)
}

// loginRefused tells a refused credential, for which servers that know no codes say nothing but -ERR, from a backend that has other troubles.
func loginRefused(s status, proof *protocols.Proof) error {
	if s.code != "" && s.code != codeAuth {
		return s
	}
	return proof.Refusal(s)
}
