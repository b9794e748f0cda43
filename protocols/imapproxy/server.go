// Package imapproxy is the IMAP front door: what is said before login (IMAP4rev1 of RFC 3501, with what apps need of its
// extensions), the login at the backend, and the answers to refusals. After login the words of both are relayed; a guard reads them as
// far as it takes to keep a client from a second login, and from writing where it may only read, and to say goodbye in time.
package imapproxy

import (
	"context"
	"errors"

	"postern/authstore"
	"postern/protocols"
	"postern/protocols/saslauth"
	"postern/protocols/wire"
)

// Protocol is the front door's name in configuration, routes, logs and metrics, and for TLS (RFC 7301's registry).
const Protocol = "imap"

// Scopes are those that it enforces.
const Scopes = authstore.ScopeMail | authstore.ScopeMailRead

// Door is the IMAP front door, for protocols.Server. The zero value is ready; goroutines may share it.
type Door struct {
	// NoCompress refuses COMPRESS (RFC 4978). A session that compresses can't be told why it ends.
	NoCompress bool
}

var _ protocols.FrontDoor = Door{}

// Protocol is "imap".
func (Door) Protocol() string { return Protocol }

// Scopes is what opens it.
func (Door) Scopes() authstore.Scopes { return Scopes }

// Login greets, then takes commands until one has logged in.
func (d Door) Login(ctx context.Context, c *protocols.Conn) (*protocols.Session, error) {
	cl := &client{Conn: c, door: d}
	if err := cl.Say("* OK [CAPABILITY " + cl.capabilities() + "] Postern ready.\r\n"); err != nil {
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
	door    Door
	session *protocols.Session // set: it is in
}

// next reads one command and answers it.
func (c *client) next(ctx context.Context) error {
	cmd, err := c.read()
	if err != nil {
		return c.ends(err)
	}
	defer cmd.Clear()
	n := c.Tally.Command()
	if n == 1 {
		if cmd.isHTTP { // a web page that makes a browser talk to us must not see its words come back
			return protocols.ErrOver
		}
		protocols.Deepen()
	}
	if cmd.bad != "" {
		return c.refuse(cmd.tag, cmd.bad)
	}
	if n > protocols.MaxCommands {
		return c.bye("Too many commands before login.")
	}
	return c.do(ctx, cmd)
}

func (c *client) do(ctx context.Context, cmd *command) error {
	switch cmd.name {
	case "CAPABILITY", "NOOP", "LOGOUT", "STARTTLS":
		if cmd.hasArguments() {
			return c.refuse(cmd.tag, "No arguments here.")
		}
	}
	switch cmd.name {
	case "CAPABILITY":
		return c.Say("* CAPABILITY " + c.capabilities() + "\r\n" + cmd.tag + " OK Done.\r\n")
	case "NOOP":
		return c.Say(cmd.tag + " OK Done.\r\n")
	case "ID":
		return c.id(cmd)
	case "LOGOUT":
		return c.Bye("* BYE Logging out.\r\n" + cmd.tag + " OK Done.\r\n")
	case "STARTTLS":
		return c.startTLS(cmd)
	case "LOGIN":
		return c.logIn(ctx, cmd)
	case "AUTHENTICATE":
		return c.authenticate(ctx, cmd)
	}
	return c.refuse(cmd.tag, "Unknown command, or not before login.")
}

// capabilities is the list before login, in a fixed order: Dovecot's own, but LITERAL- (RFC 7888) for LITERAL+.
func (c *client) capabilities() string {
	list := "IMAP4rev1 SASL-IR LITERAL- ID ENABLE IDLE"
	if c.OffersTLS() {
		list += " STARTTLS"
	}
	if !c.MayLogIn() {
		return list + " LOGINDISABLED"
	}
	return list + " AUTH=" + saslauth.Plain + " AUTH=" + saslauth.Login
}

// startTLS follows RFC 9051 section 6.2.1. What the client said before it counts for nothing afterwards.
func (c *client) startTLS(cmd *command) error {
	if !c.OffersTLS() {
		return c.refuse(cmd.tag, "No STARTTLS here.")
	}
	err := c.StartTLS(cmd.tag + " OK Begin TLS negotiation now.\r\n")
	if errors.Is(err, protocols.ErrInjected) {
		return c.bye("Commands behind STARTTLS.")
	}
	c.App, c.Hops = "", protocols.MaxHops
	return err
}

// refuse answers BAD. tag "*" stands for one that was none.
func (c *client) refuse(tag, text string) error {
	if err := c.Say(tag + " BAD " + text + "\r\n"); err != nil {
		return err
	}
	if c.Tally.Bad() {
		return c.bye("Too many bad commands.")
	}
	return nil
}

func (c *client) bye(text string) error {
	return c.Bye("* BYE " + text + "\r\n")
}

// ends says goodbye to a client whose words can't be told apart any more.
func (c *client) ends(err error) error {
	switch {
	case errors.Is(err, wire.ErrTooLong):
		return c.bye("Line too long.")
	case errors.Is(err, wire.ErrLiteral):
		return c.bye("Literal too long.")
	case errors.Is(err, wire.ErrNUL):
		return c.bye("NUL in a command.")
	}
	return err
}

// answered tells a client why its login was refused.
func (c *client) answered(tag string, err error) error {
	a := protocols.AnswerTo(err, "mail over IMAP")
	if err := c.Say(refusedLogin(tag, a)); err != nil {
		return err
	}
	if c.Tally.Refused(a) {
		return c.bye("Too many failed logins.")
	}
	return nil
}

// Goodbye is what a client is told whose connection ends before login.
func (Door) Goodbye(reason error) []byte { return goodbye(reason) }
