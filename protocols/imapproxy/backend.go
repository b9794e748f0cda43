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

// maxInitial is the longest line with an initial response, in bytes with CRLF. RFC 2683 section 3.2.1.5 has servers take 8000, and not all do; a
// longer response waits to be asked for, and then has no such limit.
const maxInitial = 4 << 10

// LogInBackend logs in with SASL: PLAIN, or a token. Where the backend can take it, the client's address (ID, RFC 2971, with Dovecot's fields) and
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
	errNoSense  = errors.New("it does not speak IMAP")
	errNoList   = errors.New("it lists no capabilities")
	errNoInside = errors.New("it knows the account and opens no mailbox for it; look there for its licence and whether IMAP is switched on, \"postern check\" says more")
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
	if err := s.settle(r); err != nil {
		return nil, err
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

// offers tells whether it takes logins by a mechanism.
func (s *server) offers(mechanism string) bool { return s.caps.has("AUTH=" + mechanism) }

// mechanism is what to log in with.
func (s *server) mechanism(r *protocols.Route) (string, error) {
	if s.caps.has("LOGINDISABLED") && !s.OverTLS() {
		return "", errNeedsTLS
	}
	return r.Mechanism(s.offers)
}

// prove sends the client's address and our credential.
func (s *server) prove(ctx context.Context, r *protocols.Route, id string) (err error) {
	mechanism, err := s.mechanism(r)
	if err != nil {
		return err
	}
	if id != "" && s.caps.has("ID") && !r.Quirks.NoClientID {
		id = "I ID " + id + "\r\n"
	} else {
		id = ""
	}
	proof, err := r.Prove(ctx, mechanism)
	if err != nil {
		return err
	}
	defer func() { err = proof.End(err) }()
	if err := s.sendCredential(id, proof, s.caps.has("SASL-IR") && !r.Quirks.NoPipelining); err != nil {
		return err
	}
	s.caps = "" // those before login say nothing of those after it
	status, err := s.outcome("L", proof)
	switch {
	case err != nil:
		return err
	case status.Type != imap.StatusResponseTypeOK:
		return loginRefused(status, proof)
	}
	s.learn(status)
	return nil
}

// sendCredential sends what goes before the backend's first word about it.
func (s *server) sendCredential(id string, proof *protocols.Proof, atOnce bool) error {
	command := "L AUTHENTICATE " + proof.Mechanism
	if atOnce {
		if initial := proof.Initial(len(command)+len(" \r\n"), maxInitial); initial != nil {
			return s.SendSecret(id+command+" ", initial)
		}
	}
	if id != "" {
		if err := s.Send([]byte(id)); err != nil {
			return err
		}
		if _, err := s.result("I"); err != nil { // whatever it answers: it may not know ID after all
			return err
		}
	}
	return s.Send([]byte(command + "\r\n"))
}

// settle learns what the backend can do now. A token that it took says that it knows the account, and not that there is a mailbox: Exchange Online says
// OK, tells its capabilities, and answers each command that has to do with mail by "BAD User is authenticated but not connected", as long as one asks.
// So we ask first, together with the capabilities, which it does not tell by itself: that costs no time.
func (s *server) settle(r *protocols.Route) error {
	var words string
	asks := s.caps == ""
	if asks {
		words = "C CAPABILITY\r\n"
	}
	if r.Bearer {
		words += "M LIST \"\" INBOX\r\n"
	}
	if words == "" {
		return nil
	}
	if err := s.Send([]byte(words)); err != nil {
		return err
	}
	if asks {
		if err := s.succeeds("C", "CAPABILITY"); err != nil {
			return err
		}
	}
	if r.Bearer {
		if err := s.succeeds("M", "LIST"); err != nil {
			return fmt.Errorf("%w: %w", errNoInside, err)
		}
	}
	return nil
}

// ask sends a command that must succeed.
func (s *server) ask(tag, command string) error {
	if err := s.Send([]byte(tag + " " + command + "\r\n")); err != nil {
		return err
	}
	return s.succeeds(tag, command)
}

// succeeds takes the answer to a command that must succeed.
func (s *server) succeeds(tag, command string) error {
	status, err := s.result(tag)
	if err == nil && status.Type != imap.StatusResponseTypeOK {
		return fmt.Errorf("%s: %w", command, refused(status))
	}
	return err
}

// result reads up to the end of a command and returns its status. Untagged capabilities are noted on the way.
func (s *server) result(tag string) (imap.StatusResponse, error) { return s.outcome(tag, nil) }

// outcome is result for a command that brings a proof, which may be nil. The answer to ID, sent in the same write, is passed over.
func (s *server) outcome(tag string, proof *protocols.Proof) (imap.StatusResponse, error) {
	for {
		line, err := s.Line()
		if err != nil {
			return imap.StatusResponse{}, err
		}
		word, rest, _ := bytes.Cut(line, []byte(" "))
		status, isStatus := parseStatus(rest)
		switch {
		case string(word) == "+" && proof != nil:
			response, err := proof.Answer(rest)
			if err != nil {
				return status, err
			}
			if err := s.SendSecret("", response); err != nil {
				return status, err
			}
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

// notConnected is what Exchange Online says, after the login or instead of it, to whom it knows and for whom it opens no mailbox.
const notConnected = "authenticated but not connected"

// loginRefused tells a refused credential from a backend that has other troubles (RFC 5530). Exchange says BAD to a known user of
// whom it can't find the mailbox.
func loginRefused(s imap.StatusResponse, proof *protocols.Proof) error {
	if strings.Contains(s.Text, notConnected) {
		return fmt.Errorf("%w: %w", errNoInside, refused(s))
	}
	switch s.Code {
	case imap.ResponseCodeUnavailable, imap.ResponseCodeInUse, imap.ResponseCodeLimit, imap.ResponseCodeServerBug, imap.ResponseCodePrivacyRequired:
		return refused(s)
	}
	if s.Type != imap.StatusResponseTypeNo {
		return refused(s)
	}
	return proof.Refusal(refused(s))
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
