package submission

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"postern/protocols"
)

// maxCommand is the longest command that a server must take, in bytes with CRLF (RFC 5321 section 4.5.3.1.4), AUTH with its initial response included
// (RFC 4954 section 4). Dovecot takes 1024, Gmail some 1000: tokens wait to be asked for.
const maxCommand = 512

// LogInBackend logs in by XCLIENT (Postfix's XCLIENT_README) or with SASL: PLAIN, or a token. Where the backend takes XCLIENT, it learns the client's
// address by that in any case.
func (d *Door) LogInBackend(ctx context.Context, nc net.Conn, r *protocols.Route, c *protocols.Conn) (*protocols.Backend, error) {
	if c.Hops <= 1 {
		return nil, protocols.ErrLoop
	}
	s := newServer(nc, d.Name)
	defer s.R.Release()
	if !r.Quirks.NoPipelining {
		s.before = d.before.of(r.Backend)
	}
	err := s.logIn(ctx, r, c)
	d.before.note(r.Backend, s.first, err)
	if err != nil {
		return nil, err
	}
	list := d.Offers.Heard(r.Backend, string(s.said), forClient)
	if lacks := c.Offered.Without(list); lacks != "" {
		return nil, fmt.Errorf("it does not offer %s to this client, which was told so before its login; the next one is not", lacks)
	}
	return &protocols.Backend{Conn: s.Conn, Rest: s.R.Take()}, nil
}

// logIn leads the dialogue from the greeting to the end of the login.
func (s *server) logIn(ctx context.Context, r *protocols.Route, c *protocols.Conn) error {
	if err := s.open(ctx, r); err != nil {
		return err
	}
	if err := s.introduce(r, c); err != nil || r.XClient {
		return err
	}
	return s.prove(ctx, r)
}

// before remembers what backends with XCLIENT said to the first EHLO of the last login. It need not be asked again: XCLIENT may come first,
// and all begins anew behind it. Goroutines may share it.
type before struct{ said sync.Map } // said by the backend's name

func (b *before) of(backend string) said {
	v, _ := b.said.Load(backend)
	s, _ := v.(said)
	return s
}

// note takes what a backend said now; first is empty where it was not asked.
func (b *before) note(backend string, first said, err error) {
	if _, ok := first.of("XCLIENT"); ok && err == nil {
		b.said.Store(backend, first)
	} else if err != nil {
		b.said.Delete(backend)
	}
}

// Errors of backends.
var (
	errNoSense   = errors.New("it does not speak SMTP")
	errShutOut   = errors.New("it lets this account not send; look there whether sending by SMTP is switched on for it and for all")
	errNoXClient = errors.New("it does not let Postern say who logs in (XCLIENT with LOGIN)")
)

// server is a backend before its login is over.
type server struct {
	protocols.Talk
	name   string // we call ourselves
	said   said
	before said // at an earlier login; empty: it is asked
	first  said // to the first EHLO of this one, if it was asked
}

func newServer(nc net.Conn, name string) *server {
	return &server{Talk: protocols.NewTalk(nc), name: name}
}

// open takes the greeting, starts TLS if it is to, and learns what the backend can do.
func (s *server) open(ctx context.Context, r *protocols.Route) error {
	if err := s.expect(220); err != nil {
		return err
	}
	if r.Security != protocols.StartTLS {
		return s.learn()
	}
	if err := s.ehlo(s.name); err != nil {
		return err
	}
	if _, ok := s.said.of("STARTTLS"); !ok {
		return protocols.ErrNoStartTLS
	}
	if err := s.ask("STARTTLS", 220); err != nil {
		return err
	}
	if err := s.Secure(ctx, r); err != nil {
		return err
	}
	return s.learn()
}

// learn asks what it can do, unless that is known.
func (s *server) learn() error {
	if s.said = s.before; s.said != "" {
		return nil
	}
	err := s.ehlo(s.name)
	s.first = s.said
	return err
}

func (s *server) ehlo(name string) error {
	if err := s.Send([]byte("EHLO " + name + "\r\n")); err != nil {
		return err
	}
	lines := make([]byte, 0, 512)
	status, err := s.reply(func(text []byte) { lines = append(append(lines, text...), '\n') })
	if err == nil && status.code != 250 {
		return fmt.Errorf("EHLO: %w", status)
	}
	_, list, _ := strings.Cut(string(lines), "\n") // the first is its name
	s.said = said(list)
	return err
}

// said are the lines of an answer to EHLO, without the first.
type said string

// of returns what stands behind a keyword.
func (s said) of(keyword string) (value string, ok bool) {
	for line := range strings.Lines(string(s)) {
		word, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if strings.EqualFold(word, keyword) {
			return value, true
		}
	}
	return "", false
}

// has tells whether a word stands behind a keyword.
func (s said) has(keyword, word string) bool {
	value, _ := s.of(keyword)
	for one := range strings.FieldsSeq(value) {
		if strings.EqualFold(one, word) {
			return true
		}
	}
	return false
}

// offers tells whether it takes logins by a mechanism.
func (s said) offers(mechanism string) bool { return s.has("AUTH", mechanism) }

// introduce tells the backend of the client, and who it is where that is the login. Then all begins anew.
func (s *server) introduce(r *protocols.Route, c *protocols.Conn) error {
	if r.XClient && !s.said.has("XCLIENT", "LOGIN") {
		return errNoXClient
	}
	words := s.xclient(r, c, c.Client)
	switch {
	case words == "" && s.before == "":
		return nil
	case words == "": // nothing begins anew, so it has to be asked
		s.before = ""
		return s.learn()
	}
	status, err := s.begin(c, words)
	if err == nil && status.code != 220 && s.before != "" { // it has changed its mind
		s.before = ""
		return s.introduce(r, c)
	}
	if err == nil && status.code == 501 && c.Client.IsValid() { // Postfix without IPv6 takes no such address
		status, err = s.begin(c, s.xclient(r, c, netip.AddrPort{}))
	}
	_, hasAuth := s.said.of("AUTH")
	switch {
	case err != nil:
		return err
	case status.code != 220 && r.XClient:
		return fmt.Errorf("XCLIENT: %w: %w", protocols.ErrCredential, status)
	case status.code != 220:
		return fmt.Errorf("XCLIENT: %w", status)
	case r.XClient && !hasAuth: // Postfix says 220, but takes a login only where AUTH would do
		return errNoXClient
	}
	return nil
}

// begin sends XCLIENT, and EHLO when that was answered. The name in it will stand in the messages' Received lines. The two don't go together:
// Postfix takes that for improper pipelining, hangs up (since 3.9), or refuses messages where reject_unauth_pipelining stands.
func (s *server) begin(c *protocols.Conn, words string) (*status, error) {
	name := s.name
	if forXClient(c.Host) != "" {
		name = c.Host
	}
	if err := s.Send([]byte("XCLIENT" + words + "\r\n")); err != nil {
		return nil, err
	}
	status, err := s.reply(nil)
	switch {
	case err != nil:
		return nil, err
	case status.code == 421: // it hangs up: too many connections of that client, to Postfix
		return nil, fmt.Errorf("XCLIENT: %w", status)
	}
	return status, s.ehlo(name)
}

// xclient is what XCLIENT says, of what the backend takes.
func (s *server) xclient(r *protocols.Route, c *protocols.Conn, client netip.AddrPort) string {
	var b strings.Builder
	b.Grow(256)
	add := func(name, value string) {
		if value != "" && s.said.has("XCLIENT", name) {
			b.WriteByte(' ')
			b.WriteString(name)
			b.WriteByte('=')
			b.WriteString(value)
		}
	}
	if !r.Quirks.NoClientID {
		add("NAME", "[UNAVAILABLE]") // else it would be that of Postern's host
		add("REVERSE_NAME", "[UNAVAILABLE]")
		if client.IsValid() {
			address := client.Addr().Unmap()
			prefix := ""
			if address.Is6() {
				prefix = "IPV6:"
			}
			add("ADDR", prefix+address.WithZone("").String())
			add("PORT", strconv.Itoa(int(client.Port())))
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

// prove sends our credential.
func (s *server) prove(ctx context.Context, r *protocols.Route) (err error) {
	mechanism, err := r.Mechanism(s.said.offers)
	if err != nil {
		return err
	}
	proof, err := r.Prove(ctx, mechanism)
	if err != nil {
		return err
	}
	defer func() { err = proof.End(err) }()
	status, err := s.sendCredential(proof)
	switch {
	case err != nil:
		return err
	case status.code == 235:
		return nil
	}
	return loginRefused(status, proof)
}

// sendCredential returns the backend's last word about it.
func (s *server) sendCredential(proof *protocols.Proof) (*status, error) {
	command := "AUTH " + proof.Mechanism
	words, line := command, []byte(nil)
	if initial := proof.Initial(len(command)+len(" \r\n"), maxCommand); initial != nil {
		words, line = command+" ", initial
	}
	for {
		if err := s.SendSecret(words, line); err != nil {
			return nil, err
		}
		status, err := s.reply(nil)
		if err != nil || status.code != 334 {
			return status, err
		}
		words = ""
		if line, err = proof.Answer([]byte(status.text)); err != nil {
			return nil, err
		}
	}
}

// switchedOff is what Exchange Online says where an administrator's rules keep an account from sending, whatever it proves itself by.
const switchedOff = "5.7.139"

// loginRefused tells a refused credential from a backend that has other troubles.
func loginRefused(s *status, proof *protocols.Proof) error {
	switch {
	case strings.HasPrefix(s.text, switchedOff):
		return fmt.Errorf("%w: %w", errShutOut, s)
	case s.code == 535 || s.code == 534:
		return proof.Refusal(s)
	}
	return s
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

// reply reads a reply, which may have several lines (RFC 5321 section 4.2.1). each is called with the text of every line, which it does
// not keep.
func (s *server) reply(each func(text []byte)) (*status, error) {
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
			each(text)
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

// status is a backend's own answer. As an error it is for the log.
type status struct {
	code int
	text string
}

func (s *status) Error() string {
	return protocols.Answered(strconv.Itoa(s.code) + " " + s.text)
}

// forClient is a backend's list for the client, without what it refuses to whoever has logged in, and without commands that the guard does
// not let pass: those of a private kind, and BURL, which sends what lies in a mailbox (RFC 4468).
func forClient(said string) protocols.Capabilities {
	list := protocols.Capabilities{}
	for line := range strings.Lines(said) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch upper := strings.ToUpper(name); {
		case upper == "AUTH", upper == "STARTTLS", upper == "BURL", upper == "ATRN", upper == "TURN", strings.HasPrefix(upper, "AUTH="), strings.HasPrefix(upper, "X"):
		default:
			list.Add(name, value)
		}
	}
	return list
}
