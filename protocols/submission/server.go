// Package submission is the front door for mail that apps send (RFC 6409, over TLS from the start as RFC 8314 wants it, or with
// STARTTLS): SMTP's words before the login, the login at the backend, and the answers to refusals. After login the bytes of both are
// relayed: Postern never has a message, so only the backend's 250 tells a client that it was taken. A guard reads commands, and where messages end.
package submission

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"postern/authstore"
	"postern/protocols"
	"postern/protocols/saslauth"
	"postern/protocols/wire"
)

// Protocol is the front door's name in configuration, routes, logs and metrics, and for TLS (RFC 7301; its registry has none for SMTP).
const Protocol = "submission"

// IdleTimeout is how long a session may pass no byte either way: longer than a client waits for the answer to a message (RFC 5321 section
// 4.5.3.2.6), for without that it sends it again. The backend ends idle ones earlier.
const IdleTimeout = 15 * time.Minute

// Scopes are those that it enforces.
const Scopes = authstore.ScopeSubmit

// Door is the front door, for protocols.Server. Goroutines may share it.
type Door struct {
	Name   string            // of this host, in the greeting and towards backends
	Offers *protocols.Offers // what EHLO tells
	// Owner tells whose an address is; zero: nobody's. With it the sender of a message must be an address of the account's; nil: that is
	// the backend's affair.
	Owner func(ctx context.Context, address string) (authstore.AccountID, error)
	Log   *slog.Logger // with Owner: told whose senders were refused
	// PassSmuggling leaves it to the backend to see what is no end of a message.
	PassSmuggling bool

	before before
}

var _ protocols.FrontDoor = (*Door)(nil)

// Protocol is "submission".
func (*Door) Protocol() string { return Protocol }

// Scopes is what opens it.
func (*Door) Scopes() authstore.Scopes { return Scopes }

// Login greets, then takes commands until one has logged in.
func (d *Door) Login(ctx context.Context, c *protocols.Conn) (*protocols.Session, error) {
	cl := &client{Conn: c, door: d}
	if err := cl.say("220 " + d.Name + " ESMTP Postern ready"); err != nil {
		return nil, err
	}
	for cl.session == nil {
		if err := cl.next(ctx); err != nil {
			return nil, err
		}
	}
	return cl.session, nil
}

// client is one client before login.
type client struct {
	*protocols.Conn
	door    *Door
	greeted bool               // by EHLO
	session *protocols.Session // set: it is in
}

// next reads one command and answers it.
func (c *client) next(ctx context.Context) error {
	line, err := c.R.StrictLine(wire.MaxSASLLine) // an initial response is as long as a later one (RFC 4954 section 4)
	if err != nil {
		return c.ends(err)
	}
	n := c.Tally.Command()
	if n == 1 {
		if bytes.Contains(line, []byte(" HTTP/")) { // a web page that makes a browser talk to us must not see its words come back
			return protocols.ErrOver
		}
		protocols.Deepen()
	}
	if n > protocols.MaxCommands {
		return c.bye("421 4.7.0 Too many commands before login.")
	}
	verb, argument, _ := bytes.Cut(line, []byte(" "))
	return c.do(ctx, string(bytes.ToUpper(verb)), bytes.Trim(argument, " "))
}

func (c *client) do(ctx context.Context, verb string, argument []byte) error {
	switch verb {
	case "EHLO", "HELO":
		return c.greet(ctx, verb, string(argument))
	case "STARTTLS":
		return c.startTLS(argument)
	case "AUTH":
		return c.authenticate(ctx, argument)
	case "NOOP", "RSET":
		return c.say("250 2.0.0 OK")
	case "HELP":
		return c.say("214 2.0.0 Log in with your mail address and an app password.")
	case "QUIT":
		return c.bye("221 2.0.0 Bye.")
	case "MAIL", "RCPT", "DATA", "BDAT", "BURL", "VRFY", "EXPN", "ETRN":
		if !c.MayLogIn() {
			return c.say("530 5.7.0 Start TLS first.") // RFC 3207 section 4
		}
		return c.say("530 5.7.0 Authentication required.") // RFC 4954 section 6
	}
	return c.refuse("500 5.5.2 Unknown command.")
}

// greet answers EHLO with what all backends have that the login may lead to (RFC 5321 section 4.1.1.1), for the client will not ask again.
func (c *client) greet(ctx context.Context, verb, name string) error {
	if name == "" || len(name) > maxHost || strings.ContainsFunc(name, notInHost) {
		return c.refuse("501 5.5.4 Give the name of your host.")
	}
	c.greeted, c.Host = true, name
	if verb == "HELO" {
		c.Offered = nil
		return c.say("250 " + c.door.Name)
	}
	c.Offered = c.door.Offers.Common(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var r reply
	r.add(c.door.Name, "")
	for _, one := range c.Offered {
		r.add(one.Name, one.Value)
	}
	if c.OffersTLS() {
		r.add("STARTTLS", "")
	}
	if c.MayLogIn() {
		r.add("AUTH", saslauth.Plain+" "+saslauth.Login)
	}
	return c.Say(r.text())
}

// maxHost bounds EHLO's name, in bytes (RFC 5321 section 4.5.3.1.2).
const maxHost = 255

// notInHost leaves what apps put there: names with underscores, addresses in brackets, names of people's machines beyond ASCII.
func notInHost(r rune) bool { return r <= ' ' || r == 0x7f }

// reply is 250 of several lines.
type reply struct {
	lines []byte
	last  int // where the last one begins
}

func (r *reply) add(keyword, value string) {
	if r.lines == nil {
		r.lines = make([]byte, 0, 512)
	}
	r.last = len(r.lines)
	r.lines = append(append(r.lines, "250-"...), keyword...)
	if value != "" {
		r.lines = append(append(r.lines, ' '), value...)
	}
	r.lines = append(r.lines, "\r\n"...)
}

func (r *reply) text() string {
	r.lines[r.last+len("250")] = ' '
	return string(r.lines)
}

// startTLS follows RFC 3207. What the client said before it counts for nothing afterwards: it has to say EHLO again.
func (c *client) startTLS(argument []byte) error {
	switch {
	case !c.OffersTLS():
		return c.refuse("502 5.5.1 No STARTTLS here.")
	case len(argument) > 0:
		return c.refuse("501 5.5.4 No arguments here.")
	}
	err := c.StartTLS("220 2.0.0 Begin TLS negotiation now.\r\n")
	if errors.Is(err, protocols.ErrInjected) {
		return c.bye("421 4.7.0 Commands behind STARTTLS.")
	}
	c.greeted = false
	return err
}

func (c *client) say(line string) error { return c.Say(line + "\r\n") }

// refuse answers a command that is none.
func (c *client) refuse(line string) error {
	if err := c.say(line); err != nil {
		return err
	}
	if c.Tally.Bad() {
		return c.bye("421 4.7.0 Too many bad commands.")
	}
	return nil
}

func (c *client) bye(line string) error {
	return c.Bye(line + "\r\n")
}

// ends says goodbye to a client whose words can't be told apart any more.
func (c *client) ends(err error) error {
	switch {
	case errors.Is(err, wire.ErrLineEnd):
		return c.refuse("500 5.5.2 A line must end in CRLF.")
	case errors.Is(err, wire.ErrTooLong):
		return c.bye("421 4.5.2 Line too long.")
	case errors.Is(err, wire.ErrNUL):
		return c.bye("421 4.5.2 NUL in a command.")
	}
	return err
}

// Goodbye is what a client is told whose connection ends before login.
func (*Door) Goodbye(reason error) []byte { return goodbye(reason) }
