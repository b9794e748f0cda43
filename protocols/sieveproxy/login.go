package sieveproxy

import (
	"context"
	"errors"
	"strings"

	"postern/protocols"
	"postern/protocols/saslauth"
	"postern/protocols/wire"
)

// authenticate is AUTHENTICATE (RFC 5804 section 2.1).
func (c *client) authenticate(ctx context.Context, cmd *wire.Text) error {
	if !c.MayLogIn() {
		return c.Say(status("NO", encryptNeeded, "Start TLS first."))
	}
	mechanism, ok := argument(cmd)
	if !ok {
		return c.refuse("Missing mechanism.")
	}
	if !strings.EqualFold(string(mechanism), saslauth.Plain) {
		return c.refuse("Unknown mechanism.")
	}
	var initial []byte
	if len(cmd.Rest) > 0 {
		if initial, ok = argument(cmd); !ok || len(cmd.Rest) > 0 {
			return c.refuse("Bad arguments.")
		}
	}
	var answer wire.Text
	defer func() { answer.Clear() }()
	credentials, err := saslauth.Run(saslauth.NewExchange(saslauth.Plain), initial, func(challenge string) ([]byte, error) {
		if err := c.Say(str(challenge) + "\r\n"); err != nil {
			return nil, err
		}
		said, err := c.read(wire.MaxSASLLine)
		if err != nil {
			return nil, err
		}
		answer = *said
		line, ok := answer.Str()
		if !ok || len(answer.Rest) > 0 {
			return nil, saslauth.ErrMalformed
		}
		return line, nil
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
	return c.admit(ctx, protocols.Attempt{Mechanism: saslauth.Plain, Authzid: credentials.Authzid, Authcid: credentials.Authcid,
		Secret: credentials.Secret})
}

// admit has an attempt decided, and tells the client. No capabilities follow: there is no security layer.
func (c *client) admit(ctx context.Context, a protocols.Attempt) error {
	s, err := c.Admit(ctx, a)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return c.answered(err)
	}
	c.session = s
	return c.Accept(ctx, s, status("OK", "", "Logged in."))
}

// answered tells a client why its login was refused.
func (c *client) answered(err error) error {
	a := protocols.AnswerTo(err, "mail filters")
	if err := c.Say(refusedLogin(a)); err != nil {
		return err
	}
	if c.Tally.Refused(a) {
		return c.bye("Too many failed logins.")
	}
	return nil
}
