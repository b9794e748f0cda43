// Package popproxy is the POP3 front door: what is said before login (RFC 1939, with CAPA of RFC 2449, STLS of RFC 2595 and AUTH of RFC
// 5034), the login at the backend, and the answers to refusals (RFC 3206). After login the words of both are relayed; a guard lets nothing
// pass but the commands of a mailbox, and knows where answers end, to say goodbye in time.
package popproxy

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"postern/authstore"
	"postern/protocols"
	"postern/protocols/saslauth"
	"postern/protocols/wire"
)

// Protocol is the front door's name in configuration, routes, logs and metrics, and for TLS (RFC 7301's registry).
const Protocol = "pop3"

// Scopes are those that it enforces. Who may read mail by IMAP may not delete it here.
const Scopes = authstore.ScopePOP

// IdleTimeout is for its sessions: RFC 1939 section 3 asks for ten minutes at least. Backends have a limit of their own.
const IdleTimeout = 15 * time.Minute

// Door is the POP3 front door, for protocols.Server. Goroutines may share it.
type Door struct {
	Offers *protocols.Offers // what clients are told of the backends before they log in
}

var _ protocols.FrontDoor = Door{}

// Protocol is "pop3".
func (Door) Protocol() string { return Protocol }

// Scopes is what opens it.
func (Door) Scopes() authstore.Scopes { return Scopes }

// Login greets, then takes commands until one has logged in.
func (d Door) Login(ctx context.Context, c *protocols.Conn) (*protocols.Session, error) {
	cl := &client{Conn: c, door: d}
	if err := cl.ok("Postern ready."); err != nil { // no timestamp in it: there is no APOP, for which one must know the secret itself
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
	name    string             // of USER; empty: PASS may not come
	session *protocols.Session // set: it is in
}

// next reads one command and answers it.
func (c *client) next(ctx context.Context) error {
	line, err := c.R.Line(wire.MaxLine)
	if err != nil {
		return c.ends(err)
	}
	n := c.Tally.Command()
	if n == 1 {
		if bytes.Contains(line, []byte(" HTTP/")) { // a web page makes a browser talk to us
			return protocols.ErrOver
		}
		protocols.Deepen()
	}
	if n > protocols.MaxCommands {
		return c.bye("Too many commands before login.")
	}
	name, argument, hasArgument := bytes.Cut(line, []byte(" "))
	return c.do(ctx, strings.ToUpper(string(name)), argument, hasArgument)
}

func (c *client) do(ctx context.Context, name string, argument []byte, hasArgument bool) error {
	switch name {
	case "CAPA", "STLS", "QUIT":
		if hasArgument {
			return c.refuse("No arguments here.")
		}
	}
	switch name {
	case "CAPA":
		return c.ok("Capabilities follow.\r\n" + c.capabilities(ctx) + ".")
	case "STLS":
		return c.startTLS()
	case "USER":
		return c.user(argument)
	case "PASS":
		return c.pass(ctx, argument)
	case "AUTH":
		return c.auth(ctx, argument)
	case "QUIT":
		return c.Bye("+OK Logging out.\r\n")
	}
	return c.refuse("Unknown command, or not before login.")
}

// capabilities is the list before login (RFC 2449 section 5), a line each: what all backends have, and what is ours.
func (c *client) capabilities(ctx context.Context) string {
	var list []string
	for _, one := range c.door.Offers.Common(ctx) {
		list = append(list, one.Name)
	}
	list = append(list, "RESP-CODES", "AUTH-RESP-CODE")
	if c.OffersTLS() {
		list = append(list, "STLS")
	}
	if c.MayLogIn() {
		list = append(list, "USER", "SASL "+saslauth.Plain)
	}
	return strings.Join(list, "\r\n") + "\r\n"
}

// startTLS follows RFC 2595 section 4. Nothing that the client said before counts: USER wants TLS.
func (c *client) startTLS() error {
	if !c.OffersTLS() {
		return c.refuse("No STLS here.")
	}
	err := c.StartTLS("+OK Begin TLS negotiation now.\r\n")
	if errors.Is(err, protocols.ErrInjected) {
		return c.bye("Commands behind STLS.")
	}
	return err
}

func (c *client) ok(text string) error { return c.Say("+OK " + text + "\r\n") }

// refuse answers a command that is none. Each command has one answer: the last one's is that it was one too many.
func (c *client) refuse(text string) error {
	if c.Tally.Bad() {
		return c.bye("Too many bad commands.")
	}
	return c.Say("-ERR " + text + "\r\n")
}

func (c *client) bye(text string) error {
	return c.Bye("-ERR " + text + "\r\n")
}

// ends says goodbye to a client whose words can't be told apart any more.
func (c *client) ends(err error) error {
	switch {
	case errors.Is(err, wire.ErrTooLong):
		return c.bye("Line too long.")
	case errors.Is(err, wire.ErrNUL):
		return c.bye("NUL in a command.")
	}
	return err
}

// Goodbye is what a client is told whose connection ends before login.
func (Door) Goodbye(reason error) []byte { return goodbye(reason) }
