package sieveproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"

	"postern/protocols"
	"postern/protocols/wire"
)

// LogInBackend logs in with SASL, PLAIN or a token, and learns what the backend can do: it may say so only now.
func (d Door) LogInBackend(ctx context.Context, nc net.Conn, r *protocols.Route, c *protocols.Conn) (*protocols.Backend, error) {
	if c.Hops <= 1 {
		return nil, protocols.ErrLoop
	}
	s := newServer(nc)
	defer s.R.Release()
	if err := s.logIn(ctx, r, c.XCLIENT()); err != nil {
		return nil, err
	}
	d.Offers.Learn(r.Backend, forClient(s.caps))
	return &protocols.Backend{Conn: s.Conn, Rest: s.R.Take()}, nil
}

// Errors of backends.
var (
	errNeedsTLS = errors.New("it takes no logins without TLS")
	errNoSense  = errors.New("it does not speak ManageSieve")
	errTooOld   = errors.New(`it does not say VERSION "1.0" (RFC 5804)`)
)

// server is a backend before its login is over.
type server struct {
	protocols.Talk
	caps protocols.Capabilities
}

func newServer(nc net.Conn) *server { return &server{Talk: protocols.NewTalk(nc)} }

// logIn leads the dialogue from the greeting to the capabilities behind the login. xclient may be empty.
func (s *server) logIn(ctx context.Context, r *protocols.Route, xclient string) error {
	if err := s.open(ctx, r); err != nil {
		return err
	}
	if err := s.prove(ctx, r, xclient); err != nil {
		return err
	}
	if err := s.ask("CAPABILITY"); err != nil {
		return err
	}
	// A server that did not know a command would take the literals in it for commands: this one has to know all that the guard lets pass.
	if version, _ := s.caps.Get("VERSION"); version != "1.0" {
		return errTooOld
	}
	return nil
}

// open takes the greeting, starts TLS if it is to, and learns what the backend can do.
func (s *server) open(ctx context.Context, r *protocols.Route) error {
	if err := s.succeed(""); err != nil {
		return err
	}
	if r.Security != protocols.StartTLS {
		return nil
	}
	if !s.caps.Has("STARTTLS") {
		return protocols.ErrNoStartTLS
	}
	if err := s.ask("STARTTLS"); err != nil {
		return err
	}
	if err := s.Secure(ctx, r); err != nil {
		return err
	}
	return s.succeed("") // the list again, unasked
}

// prove sends the client's address and our credential.
func (s *server) prove(ctx context.Context, r *protocols.Route, xclient string) (err error) {
	mechanism, err := s.mechanism(r)
	if err != nil {
		return err
	}
	if xclient != "" && s.caps.Has("XCLIENT") && !r.Quirks.NoClientID {
		if err := s.Send([]byte(xclient + "\r\n")); err != nil {
			return err
		}
		if _, err := s.response(); err != nil { // whatever it answers: it may believe others only
			return err
		}
	}
	proof, err := r.Prove(ctx, mechanism)
	if err != nil {
		return err
	}
	defer func() { err = proof.End(err) }()
	answer, err := s.sendCredential(proof)
	switch {
	case err != nil:
		return err
	case answer.word != "OK":
		return loginRefused(answer, proof)
	}
	return nil
}

// sendCredential returns the backend's last word about it. A literal has no limit but the server's for a command (RFC 5804 section 4).
func (s *server) sendCredential(proof *protocols.Proof) (answer, error) {
	initial := proof.Initial(0, math.MaxInt)
	words, line := fmt.Sprintf("AUTHENTICATE \"%s\" {%d+}\r\n", proof.Mechanism, len(initial)), initial
	for {
		if err := s.SendSecret(words, line); err != nil {
			return answer{}, err
		}
		challenge, a, err := s.step()
		if err != nil || a.word != "" {
			return a, err
		}
		if line, err = proof.Answer(challenge); err != nil {
			return answer{}, err
		}
		words = fmt.Sprintf("{%d+}\r\n", len(line))
	}
}

// mechanism is what to log in with.
func (s *server) mechanism(r *protocols.Route) (string, error) {
	if offered, _ := s.caps.Get("SASL"); offered == "" && !s.OverTLS() {
		return "", errNeedsTLS
	}
	return r.Mechanism(func(mechanism string) bool { return s.caps.HasWord("SASL", mechanism) })
}

// ask sends a command that must succeed.
func (s *server) ask(command string) error {
	if err := s.Send([]byte(command + "\r\n")); err != nil {
		return err
	}
	return s.succeed(command)
}

// succeed takes a response that must be OK.
func (s *server) succeed(command string) error {
	answer, err := s.response()
	switch {
	case err != nil:
		return err
	case answer.word == "OK":
		return nil
	case command == "":
		return answer
	}
	return fmt.Errorf("%s: %w", command, answer)
}

// answer is the line that ends a response. As an error it is for the log.
type answer struct {
	word string // "OK", "NO" or "BYE"
	code string // in capitals, without what stands behind it; empty: there is none
	text string
}

// response takes a response. A list of capabilities in it takes the place of the one before it.
func (s *server) response() (answer, error) {
	var list protocols.Capabilities
	for {
		t, err := read(s.R, func(int) ([]byte, error) { return s.Line() }, wire.MaxLine, true)
		if err != nil {
			return answer{}, err
		}
		switch word := firstWord(t.Rest); word {
		case "OK", "NO", "BYE":
			if len(list) > 0 {
				s.caps = list
			}
			return parseAnswer(word, t), nil
		}
		name, ok := t.Str()
		if !ok {
			return answer{}, errNoSense
		}
		value, _ := argument(t)
		list.Add(string(name), string(value))
	}
}

// step takes what follows a response of SASL: a challenge, which is a string alone (RFC 5804 section 2.1) and valid until more is read, or, with a word, the
// end.
func (s *server) step() (challenge []byte, end answer, err error) {
	t, err := read(s.R, func(int) ([]byte, error) { return s.Line() }, wire.MaxLine, true)
	if err != nil {
		return nil, answer{}, err
	}
	switch word := firstWord(t.Rest); word {
	case "OK", "NO", "BYE":
		return nil, parseAnswer(word, t), nil
	}
	challenge, ok := t.Str()
	if !ok {
		return nil, answer{}, errNoSense
	}
	return challenge, answer{}, nil
}

// firstWord is what stands before a blank, in capitals.
func firstWord(line []byte) string {
	word, _, _ := bytes.Cut(line, []byte(" "))
	return strings.ToUpper(string(word))
}

// parseAnswer parses OK, NO or BYE with its code and text (RFC 5804 section 1.2).
func parseAnswer(word string, t *wire.Text) answer {
	a := answer{word: word}
	t.Rest = t.Rest[len(word):]
	if blanks(t) && t.Take("(") {
		code, text, _ := bytes.Cut(t.Rest, []byte(")"))
		a.code = firstWord(code)
		t.Rest = text
		blanks(t)
	}
	if text, ok := t.Str(); ok {
		a.text = string(text)
	}
	return a
}

func (a answer) Error() string {
	said := a.word
	if a.code != "" {
		said += " (" + a.code + ")"
	}
	return protocols.Answered(said + " " + a.text)
}

// loginRefused tells a refused credential from a backend that has other troubles (RFC 5804 section 1.3).
func loginRefused(a answer, proof *protocols.Proof) error {
	if code := a.code; a.word != "NO" || code == tryLater || code == encryptNeeded || code == "REFERRAL" {
		return a
	}
	return proof.Refusal(a)
}
