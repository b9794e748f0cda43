// Package sieveproxy is the ManageSieve front door (RFC 5804): what is said before login, the login at the backend, and the answers to
// refusals. After login the words of both are relayed; a guard reads the client's commands, and passes them on in a form of which every
// server reads the same, so that nothing in them leads to a second login.
package sieveproxy

import (
	"context"
	"errors"
	"time"

	"postern/authstore"
	"postern/protocols"
	"postern/protocols/wire"
)

// Protocol is the front door's name in configuration, routes, logs and metrics, and for TLS (RFC 7301's registry).
const Protocol = "managesieve"

// Scopes are those that it enforces.
const Scopes = authstore.ScopeSieve

// IdleTimeout is for its sessions: RFC 5804 section 1.2 asks for 30 minutes at least. Backends have a limit of their own.
const IdleTimeout = 35 * time.Minute

// Door is the ManageSieve front door, for protocols.Server. Goroutines may share it.
type Door struct {
	Offers *protocols.Offers // what clients are told of the backends before they log in
}

var _ protocols.FrontDoor = Door{}

// Protocol is "managesieve".
func (Door) Protocol() string { return Protocol }

// Scopes is what opens it.
func (Door) Scopes() authstore.Scopes { return Scopes }

// Login greets, then takes commands until one has logged in.
func (d Door) Login(ctx context.Context, c *protocols.Conn) (*protocols.Session, error) {
	cl := &client{Conn: c, door: d}
	if err := cl.tellCapabilities(ctx, "Postern ready."); err != nil {
		return nil, err
	}
	for cl.session == nil {
		if err := cl.next(ctx); err != nil {
			return nil, err
		}
	}
	return cl.session, nil
}

// Goodbye is what a client is told whose connection ends before login.
func (Door) Goodbye(reason error) []byte { return goodbye(reason) }

// client is one client before login.
type client struct {
	*protocols.Conn
	door    Door
	session *protocols.Session // set: it is in
}

// next reads one command and answers it.
func (c *client) next(ctx context.Context) error {
	cmd, err := c.read(wire.MaxLine)
	if err != nil {
		return c.ends(err)
	}
	defer cmd.Clear()
	n := c.Tally.Command()
	if n == 1 {
		if isHTTP(cmd) { // a web page that makes a browser talk to us must not see its words come back
			return protocols.ErrOver
		}
		protocols.Deepen()
	}
	if n > protocols.MaxCommands {
		return c.bye("Too many commands before login.")
	}
	return c.do(ctx, cmd)
}

// read reads a command, or an answer to a challenge, with its literals.
func (c *client) read(most int) (*wire.Text, error) {
	return read(c.R, c.R.Line, most, false)
}

func (c *client) do(ctx context.Context, cmd *wire.Text) error {
	verb := takeVerb(cmd)
	switch verb {
	case "CAPABILITY", "LOGOUT", "STARTTLS":
		if len(cmd.Rest) > 0 {
			return c.refuse("No arguments here.")
		}
	}
	switch verb {
	case "CAPABILITY":
		return c.tellCapabilities(ctx, "Done.")
	case "NOOP":
		return c.noop(cmd)
	case "LOGOUT":
		return c.Bye(status("OK", "", "Logging out."))
	case "STARTTLS":
		return c.startTLS(ctx)
	case "AUTHENTICATE":
		return c.authenticate(ctx, cmd)
	}
	return c.refuse("Unknown command, or not before login.")
}

// tellCapabilities is the list as it stands in the greeting and in the answer to CAPABILITY (RFC 5804 section 1.7).
func (c *client) tellCapabilities(ctx context.Context, text string) error {
	return c.Say(capabilities(c.door.Offers.Common(ctx), c.MayLogIn(), c.OffersTLS()) + status("OK", "", text))
}

// noop gives the client its tag back (RFC 5804 section 2.13).
func (c *client) noop(cmd *wire.Text) error {
	if len(cmd.Rest) == 0 {
		return c.Say(status("OK", "", "Done."))
	}
	tag, ok := argument(cmd)
	if !ok || len(cmd.Rest) > 0 {
		return c.refuse("Bad arguments.")
	}
	return c.Say(status("OK", "TAG "+str(string(tag)), "Done."))
}

// startTLS follows RFC 5804 section 2.2: the list is told again, unasked.
func (c *client) startTLS(ctx context.Context) error {
	if !c.OffersTLS() {
		return c.refuse("No STARTTLS here.")
	}
	err := c.StartTLS(status("OK", "", "Begin TLS negotiation now."))
	switch {
	case errors.Is(err, protocols.ErrInjected):
		return c.bye("Commands behind STARTTLS.")
	case err != nil:
		return err
	}
	return c.tellCapabilities(ctx, "TLS negotiation successful.")
}

// refuse answers what is no command.
func (c *client) refuse(text string) error {
	if err := c.Say(status("NO", "", text)); err != nil {
		return err
	}
	if c.Tally.Bad() {
		return c.bye("Too many bad commands.")
	}
	return nil
}

func (c *client) bye(text string) error {
	return c.Bye(status("BYE", "", text))
}

// ends says goodbye to a client whose words can't be told apart any more.
func (c *client) ends(err error) error {
	switch {
	case errors.Is(err, wire.ErrTooLong):
		return c.bye("Line too long.")
	case errors.Is(err, wire.ErrLiteral):
		return c.bye("Literal too long, or not as {5+}.")
	case errors.Is(err, wire.ErrNUL):
		return c.bye("NUL in a command.")
	}
	return err
}
