package imapproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/emersion/go-imap/v2"

	"postern/protocols"
	"postern/protocols/wire"
)

// maxCapabilities bounds a backend's list for the client's line, in bytes.
const maxCapabilities = 4 << 10

// LogInBackend logs in with SASL PLAIN. Where the backend can take it, the client's address (ID, RFC 2971, with Dovecot's fields) and
// the credential go in one write behind the greeting.
func (Door) LogInBackend(ctx context.Context, nc net.Conn, r *protocols.Route, c *protocols.Conn) (*protocols.Backend, error) {
	if c.Hops <= 1 {
		return nil, protocols.ErrLoop
	}
	return logIn(ctx, nc, r, clientID(c))
}

// clientID is what a backend is told of the client. Nothing in it needs quoting.
func clientID(c *protocols.Conn) string {
	if !c.Client.IsValid() {
		return fmt.Sprintf(`("x-session-id" "%s" "x-proxy-ttl" "%d")`, c.Facts.Conn, c.Hops-1)
	}
	return fmt.Sprintf(`("x-originating-ip" "%s" "x-originating-port" "%d" "x-session-id" "%s" "x-proxy-ttl" "%d")`,
		c.Client.Addr(), c.Client.Port(), c.Facts.Conn, c.Hops-1)
}

// Errors of backends.
var (
	errPreauth  = errors.New("it says that everybody is logged in already (PREAUTH); it must ask for a login")
	errNeedsTLS = errors.New("it takes no logins without TLS (LOGINDISABLED)")
	errNoPlain  = errors.New("it does not offer AUTH=PLAIN")
	errNoSense  = errors.New("it does not speak IMAP")
	errNoList   = errors.New("it lists no capabilities")
)

// server is a backend before its login is over.
type server struct {
	protocols.Talk
	caps capabilities
}

func newServer(nc net.Conn) *server { return &server{Talk: protocols.NewTalk(nc)} }

// logIn leads the dialogue from the greeting to the end of the login. id may be empty.
func logIn(ctx context.Context, nc net.Conn, r *protocols.Route, id string) (b *protocols.Backend, err error) {
	s := newServer(nc)
	defer s.R.Release()
	if err := s.open(ctx, r); err != nil {
		return nil, err
	}
	if err := s.prove(ctx, r, id); err != nil {
		return nil, err
	}
	if s.caps == "" {
		if err := s.ask("C", "CAPABILITY"); err != nil {
			return nil, err
		}
	}
	list := forClient(string(s.caps))
	if list == "" {
		return nil, errNoList
	}
	return &protocols.Backend{Conn: s.Conn, Rest: s.R.Take(), Capabilities: list}, nil
}

// open takes the greeting, starts TLS if it is to, and learns what the backend can do.
func (s *server) open(ctx context.Context, r *protocols.Route) error {
	line, err := s.Line()
	if err != nil {
		return err
	}
	status, ok := parseStatus(bytes.TrimPrefix(line, []byte("* ")))
	switch {
	case !ok || !bytes.HasPrefix(line, []byte("* ")):
		return errNoSense
	case status.Type == imap.StatusResponseTypePreAuth:
		return errPreauth
	case status.Type != imap.StatusResponseTypeOK:
		return refused(status)
	}
	s.learn(status)
	if r.Security == protocols.StartTLS {
		if err := s.startTLS(ctx, r); err != nil {
			return err
		}
	}
	if s.caps == "" {
		return s.ask("C", "CAPABILITY")
	}
	return nil
}

// startTLS forgets what was said in plain text.
func (s *server) startTLS(ctx context.Context, r *protocols.Route) error {
	if s.caps != "" && !s.caps.has("STARTTLS") {
		return protocols.ErrNoStartTLS
	}
	if err := s.ask("S", "STARTTLS"); err != nil {
		return err
	}
	s.caps = ""
	return s.Secure(ctx, r)
}

// prove sends the client's address and our credential.
func (s *server) prove(ctx context.Context, r *protocols.Route, id string) error {
	switch {
	case s.caps.has("LOGINDISABLED") && !s.OverTLS():
		return errNeedsTLS
	case !s.caps.has("AUTH=PLAIN"):
		return errNoPlain
	}
	if id != "" && s.caps.has("ID") && !r.Quirks.NoClientID {
		id = "I ID " + id + "\r\n"
	} else {
		id = ""
	}
	encoded, err := r.Plain(ctx)
	if err != nil {
		return err
	}
	defer clear(encoded)
	if err := s.sendCredential(id, encoded, s.caps.has("SASL-IR") && !r.Quirks.NoPipelining); err != nil {
		return err
	}
	s.caps = "" // those before login say nothing of those after it
	status, err := s.result("L")
	switch {
	case err != nil:
		return err
	case status.Type != imap.StatusResponseTypeOK:
		return loginRefused(status)
	}
	s.learn(status)
	return nil
}

func (s *server) sendCredential(id string, encoded []byte, atOnce bool) error {
	if atOnce {
		return s.SendSecret(id+"L AUTHENTICATE PLAIN ", encoded)
	}
	if id != "" {
		if err := s.Send([]byte(id)); err != nil {
			return err
		}
		if _, err := s.result("I"); err != nil { // whatever it answers: it may not know ID after all
			return err
		}
	}
	if err := s.Send([]byte("L AUTHENTICATE PLAIN\r\n")); err != nil {
		return err
	}
	if err := s.challenge(); err != nil {
		return err
	}
	return s.SendSecret("", encoded)
}

// challenge waits for the empty challenge.
func (s *server) challenge() error {
	for {
		line, err := s.Line()
		if err != nil {
			return err
		}
		switch {
		case bytes.HasPrefix(line, []byte("+")):
			return nil
		case bytes.HasPrefix(line, []byte("L ")):
			status, _ := parseStatus(line[2:])
			return loginRefused(status)
		}
	}
}

// ask sends a command that must succeed.
func (s *server) ask(tag, command string) error {
	if err := s.Send([]byte(tag + " " + command + "\r\n")); err != nil {
		return err
	}
	status, err := s.result(tag)
	if err == nil && status.Type != imap.StatusResponseTypeOK {
		return fmt.Errorf("%s: %w", command, refused(status))
	}
	return err
}

// result reads up to the end of a command and returns its status. Untagged capabilities are noted on the way; the answer to ID,
// sent in the same write as the login, is passed over.
func (s *server) result(tag string) (imap.StatusResponse, error) {
	for {
		line, err := s.Line()
		if err != nil {
			return imap.StatusResponse{}, err
		}
		word, rest, _ := bytes.Cut(line, []byte(" "))
		status, isStatus := parseStatus(rest)
		switch {
		case string(word) == tag && isStatus:
			return status, nil
		case string(word) == "*" && isStatus && status.Type == imap.StatusResponseTypeBye:
			return status, refused(status)
		case string(word) == "*" && !isStatus:
			if err := s.untagged(rest); err != nil {
				return status, err
			}
		case string(word) != "*" && string(word) != "I":
			return status, errNoSense
		}
	}
}

// untagged takes data: capabilities, or anything else with its literals.
func (s *server) untagged(data []byte) error {
	if name, list, _ := bytes.Cut(data, []byte(" ")); strings.EqualFold(string(name), "CAPABILITY") {
		s.caps = capabilities(list)
		return nil
	}
	for {
		_, literal, ok, err := wire.TrailingLiteral(data, wire.MaxLiteral)
		if !ok || err != nil {
			return err
		}
		if _, err := s.R.Literal(literal.Size); err != nil {
			return err
		}
		if data, err = s.Line(); err != nil {
			return err
		}
	}
}

func (s *server) learn(status imap.StatusResponse) {
	if list, ok := strings.CutPrefix(string(status.Code), "CAPABILITY "); ok {
		s.caps = capabilities(list)
	}
}

// capabilities is a backend's list as it came; empty: it has told none.
type capabilities string

// has looks for a name in capitals.
func (c capabilities) has(name string) bool {
	for one := range strings.FieldsSeq(string(c)) {
		if strings.EqualFold(one, name) {
			return true
		}
	}
	return false
}

// parseStatus parses what stands behind a tag or "*" in a status response. The code is whole, arguments included. A bracket
// further on is text: Exchange greets with one.
func parseStatus(rest []byte) (imap.StatusResponse, bool) {
	word, text, _ := strings.Cut(string(rest), " ")
	status := imap.StatusResponse{Type: imap.StatusResponseType(strings.ToUpper(word)), Text: text}
	switch status.Type {
	case imap.StatusResponseTypeOK, imap.StatusResponseTypeNo, imap.StatusResponseTypeBad, imap.StatusResponseTypeBye, imap.StatusResponseTypePreAuth:
	default:
		return status, false
	}
	if strings.HasPrefix(text, "[") {
		if end := strings.IndexByte(text, ']'); end > 0 {
			status.Code, status.Text = imap.ResponseCode(upperFirst(text[1:end])), strings.TrimPrefix(text[end+1:], " ")
		}
	}
	return status, true
}

func upperFirst(code string) string {
	name, arguments, ok := strings.Cut(code, " ")
	if !ok {
		return strings.ToUpper(name)
	}
	return strings.ToUpper(name) + " " + arguments
}

// refusedError is a backend's own answer.
type refusedError struct{ imap.StatusResponse }

func refused(s imap.StatusResponse) error { return &refusedError{s} }

func (e *refusedError) Error() string {
	said := string(e.Type)
	if e.Code != "" {
		said += " [" + string(e.Code) + "]"
	}
	return protocols.Answered(said + " " + e.Text)
}

// loginRefused tells a refused credential from a backend that has other troubles (RFC 5530). Exchange says BAD to a known user of
// whom it can't find the mailbox.
func loginRefused(s imap.StatusResponse) error {
	switch s.Code {
	case imap.ResponseCodeUnavailable, imap.ResponseCodeInUse, imap.ResponseCodeLimit, imap.ResponseCodeServerBug, imap.ResponseCodePrivacyRequired:
		return refused(s)
	}
	if s.Type != imap.StatusResponseTypeNo {
		return refused(s)
	}
	return fmt.Errorf("%w: %w", protocols.ErrCredential, refused(s))
}

// forClient is a backend's list for the client: without what belongs before the login, and without UNAUTHENTICATE (RFC 8437), which
// would lead to the backend's own login. What is no capability is left out: it would end up in a line of ours.
func forClient(list string) string {
	var b strings.Builder
	for name := range strings.FieldsSeq(list) {
		upper := strings.ToUpper(name)
		switch {
		case strings.HasPrefix(upper, "AUTH="), upper == "STARTTLS", upper == "LOGINDISABLED", upper == "UNAUTHENTICATE":
			continue
		case strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`(){%*"\]`, r) }):
			continue
		case b.Len()+1+len(name) > maxCapabilities:
			return b.String()
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(name)
	}
	return b.String()
}
