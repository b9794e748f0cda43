package submission

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"postern/protocols"
	"postern/protocols/saslauth"
)

// LogInBackend logs in by XCLIENT (Postfix's XCLIENT_README) or with SASL PLAIN. Where the backend takes XCLIENT, it learns the client's
// address by that in any case.
func (d *Door) LogInBackend(ctx context.Context, nc net.Conn, r *protocols.Route, c *protocols.Conn) (*protocols.Backend, error) {
	if c.Hops <= 1 {
		return nil, protocols.ErrLoop
	}
	s := newServer(nc, d.Name)
	defer s.R.Release()
	if err := s.open(ctx, r); err != nil {
		return nil, err
	}
	if err := s.introduce(r, c); err != nil {
		return nil, err
	}
	if !r.XClient {
		if err := s.prove(ctx, r); err != nil {
			return nil, err
		}
	}
	list := forClient(s.said)
	d.Offers.Learn(r.Backend, list)
	if lacks := c.Offered.Without(list); lacks != "" {
		return nil, fmt.Errorf("it does not offer %s to this client, which was told so before its login; the next one is not", lacks)
	}
	return &protocols.Backend{Conn: s.Conn, Rest: s.R.Take()}, nil
}

// Errors of backends.
var (
	errNoSense   = errors.New("it does not speak SMTP")
	errNoPlain   = errors.New("it does not offer AUTH PLAIN")
	errNoXClient = errors.New("it does not let Postern say who logs in (XCLIENT with LOGIN)")
)

// server is a backend before its login is over.
type server struct {
	protocols.Talk
	name string                 // we call ourselves
	said protocols.Capabilities // by its last EHLO
}

func newServer(nc net.Conn, name string) *server {
	return &server{Talk: protocols.NewTalk(nc), name: name}
}

// open takes the greeting, starts TLS if it is to, and learns what the backend can do.
func (s *server) open(ctx context.Context, r *protocols.Route) error {
	if err := s.expect(220); err != nil {
		return err
	}
	if err := s.ehlo(s.name); err != nil {
		return err
	}
	if r.Security != protocols.StartTLS {
		return nil
	}
	if !s.said.Has("STARTTLS") {
		return protocols.ErrNoStartTLS
	}
	if err := s.ask("STARTTLS", 220); err != nil {
		return err
	}
	if err := s.Secure(ctx, r); err != nil {
		return err
	}
	return s.ehlo(s.name)
}

func (s *server) ehlo(name string) error {
	if err := s.Send([]byte("EHLO " + name + "\r\n")); err != nil {
		return err
	}
	s.said = nil
	first := true
	status, err := s.reply(func(line string) {
		if !first {
			name, value, _ := strings.Cut(strings.Replace(line, "AUTH=", "AUTH ", 1), " ")
			s.said.Add(name, value)
		}
		first = false
	})
	if err == nil && status.code != 250 {
		return fmt.Errorf("EHLO: %w", status)
	}
	return err
}

// introduce tells the backend of the client, and who it is where that is the login.
func (s *server) introduce(r *protocols.Route, c *protocols.Conn) error {
	words := s.xclient(r, c)
	switch {
	case r.XClient && !s.said.HasWord("XCLIENT", "LOGIN"):
		return errNoXClient
	case words == "":
		return nil
	}
	if err := s.ask("XCLIENT"+words, 220); err != nil {
		if r.XClient {
			return fmt.Errorf("%w: %w", protocols.ErrCredential, err)
		}
		return err
	}
	name := s.name
	if forXClient(c.Host) != "" {
		name = c.Host // it stands in the message's Received line
	}
	return s.ehlo(name)
}

// xclient is what XCLIENT says, of what the backend takes.
func (s *server) xclient(r *protocols.Route, c *protocols.Conn) string {
	var b strings.Builder
	add := func(name, value string) {
		if value != "" && s.said.HasWord("XCLIENT", name) {
			b.WriteString(" " + name + "=" + value)
		}
	}
	if !r.Quirks.NoClientID {
		if c.Client.IsValid() {
			add("NAME", "[UNAVAILABLE]") // else it would be that of Postern's host
			address := c.Client.Addr().Unmap()
			prefix := ""
			if address.Is6() {
				prefix = "IPV6:"
			}
			add("ADDR", prefix+address.WithZone("").String())
			add("PORT", strconv.Itoa(int(c.Client.Port())))
		}
		add("PROTO", "ESMTP")
		add("HELO", forXClient(c.Host))
		add("SESSION", c.Facts.Conn)
		add("TTL", strconv.Itoa(c.Hops-1))
	}
	if r.XClient {
		add("LOGIN", xtext(r.Login))
	}
	return b.String()
}

// forXClient is a client's name as it may stand in XCLIENT; empty: it may not.
func forXClient(host string) string {
	if strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '+' || r == '=' || r == '<' || r == '>' }) {
		return ""
	}
	return host
}

// xtext encodes a value (RFC 3461 section 4).
func xtext(value string) string {
	var b strings.Builder
	for i := range len(value) {
		if c := value[i]; c <= ' ' || c >= 0x7f || c == '+' || c == '=' {
			fmt.Fprintf(&b, "+%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// prove sends our credential, by SASL PLAIN.
func (s *server) prove(ctx context.Context, r *protocols.Route) error {
	if !s.said.HasWord("AUTH", saslauth.Plain) {
		return errNoPlain
	}
	credential, err := r.Open(ctx)
	if err != nil {
		return err
	}
	defer credential.Clear()
	words := make([]byte, 0, 256)
	defer func() { clear(words[:cap(words)]) }()
	if words, err = saslauth.AppendPlain(append(words, "AUTH PLAIN "...), credential.Authzid, credential.Authcid, credential.Password); err != nil {
		return err
	}
	if err := s.Send(append(words, "\r\n"...)); err != nil {
		return err
	}
	status, err := s.reply(nil)
	switch {
	case err != nil:
		return err
	case status.code == 235:
		return nil
	case status.code == 535 || status.code == 534:
		return fmt.Errorf("%w: %w", protocols.ErrCredential, status)
	}
	return status
}

// ask sends a command that must be answered with a code.
func (s *server) ask(command string, code int) error {
	if err := s.Send([]byte(command + "\r\n")); err != nil {
		return err
	}
	if err := s.expect(code); err != nil {
		verb, _, _ := strings.Cut(command, " ")
		return fmt.Errorf("%s: %w", verb, err)
	}
	return nil
}

func (s *server) expect(code int) error {
	status, err := s.reply(nil)
	if err == nil && status.code != code {
		return status
	}
	return err
}

// reply reads a reply, which may have several lines (RFC 5321 section 4.2.1). each is called with the text of every line.
func (s *server) reply(each func(text string)) (*status, error) {
	for {
		line, err := s.Line()
		if err != nil {
			return nil, err
		}
		code, last, ok := parseReply(line)
		if !ok {
			return nil, errNoSense
		}
		text := bytes.TrimLeft(line[min(len(line), 4):], " ")
		if each != nil {
			each(string(text))
		}
		if last {
			return &status{code, string(text)}, nil
		}
	}
}

// parseReply reads the code of a reply's line, and whether it is the last one.
func parseReply(line []byte) (code int, last, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' {
		return 0, false, false
	}
	for _, c := range line[:3] {
		if c < '0' || c > '9' {
			return 0, false, false
		}
		code = code*10 + int(c-'0')
	}
	if len(line) == 3 {
		return code, true, true
	}
	return code, line[3] != '-', line[3] == ' ' || line[3] == '-'
}

// status is a backend's own answer. As an error it is for the log: quoted and cut short, for its words are foreign.
type status struct {
	code int
	text string
}

func (s *status) Error() string {
	const most = 120
	return "it answered " + strconv.QuoteToASCII(strconv.Itoa(s.code)+" "+s.text[:min(len(s.text), most)])
}

// forClient is a backend's list for the client, without what it refuses to whoever has logged in, and without commands that the guard does
// not let pass: those of a private kind, and BURL, which sends what lies in a mailbox (RFC 4468).
func forClient(said protocols.Capabilities) protocols.Capabilities {
	var list protocols.Capabilities
	for _, one := range said {
		switch one.Name {
		case "AUTH", "STARTTLS", "BURL", "ATRN", "TURN":
			continue
		}
		if !strings.HasPrefix(one.Name, "X") {
			list = append(list, one)
		}
	}
	return list
}
