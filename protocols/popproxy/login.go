package popproxy

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"postern/protocols"
	"postern/protocols/saslauth"
	"postern/protocols/wire"
)

// user is USER (RFC 1939 section 7). Whoever it names, the answer is the same.
func (c *client) user(name []byte) error {
	switch {
	case !c.MayLogIn():
		return c.needsTLS()
	case len(name) == 0:
		return c.refuse("Missing name.")
	}
	c.name = string(name)
	return c.ok("Go on with PASS.")
}

// pass is PASS. Blanks are a part of the secret.
func (c *client) pass(ctx context.Context, secret []byte) error {
	name := c.name
	c.name = ""
	switch {
	case !c.MayLogIn():
		return c.needsTLS()
	case name == "":
		return c.refuse("Begin with USER.")
	case len(secret) == 0:
		return c.refuse("Missing password.")
	}
	secret = bytes.Clone(secret) // what the client sends meanwhile may move the line
	defer clear(secret)
	return c.admit(ctx, protocols.Attempt{Mechanism: "PASS", Authcid: name, Secret: secret})
}

// auth is AUTH (RFC 5034 section 4). Without a mechanism it lists them, as servers did before there was CAPA.
func (c *client) auth(ctx context.Context, argument []byte) error {
	name, initial, hasInitial := bytes.Cut(argument, []byte(" "))
	mechanism := strings.ToUpper(string(name))
	switch {
	case !c.MayLogIn():
		return c.needsTLS()
	case mechanism == "":
		return c.ok("Mechanisms follow.\r\n" + saslauth.Plain + "\r\n.")
	case mechanism != saslauth.Plain:
		return c.refuse("Unknown mechanism.")
	}
	if !hasInitial {
		initial = nil
	}
	credentials, err := saslauth.Run(saslauth.NewExchange(mechanism), initial, func(challenge string) ([]byte, error) {
		if err := c.Say("+ " + challenge + "\r\n"); err != nil {
			return nil, err
		}
		return c.R.Line(wire.MaxSASLLine)
	})
	switch {
	case errors.Is(err, saslauth.ErrCancelled):
		return c.refuse("Cancelled.")
	case errors.Is(err, saslauth.ErrMalformed):
		return c.refuse("Invalid response.")
	case err != nil:
		return c.ends(err)
	}
	defer credentials.Clear()
	return c.admit(ctx, protocols.Attempt{Mechanism: mechanism, Authzid: credentials.Authzid, Authcid: credentials.Authcid,
		Secret: credentials.Secret})
}

func (c *client) needsTLS() error { return c.Say(refusal(codePermanent, "Start TLS first.")) }

// admit has an attempt decided, and tells the client.
func (c *client) admit(ctx context.Context, a protocols.Attempt) error {
	s, err := c.Admit(ctx, a)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return c.answered(err)
	}
	c.session = s
	return c.Accept(ctx, s, "+OK Logged in.\r\n")
}

// answered tells a client why its login was refused.
func (c *client) answered(err error) error {
	a := protocols.AnswerTo(err, "POP3")
	if err := c.Say(refusedLogin(a, err)); err != nil {
		return err
	}
	if c.Tally.Refused(a) {
		return protocols.ErrOver
	}
	return nil
}
