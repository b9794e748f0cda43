package submission

import (
	"bytes"
	"context"
	"errors"

	"postern/protocols"
	"postern/protocols/saslauth"
	"postern/protocols/wire"
)

// authenticate is AUTH (RFC 4954), with an initial response or without.
func (c *client) authenticate(ctx context.Context, argument []byte) error {
	name, initial, hasInitial := bytes.Cut(argument, []byte(" "))
	mechanism := string(bytes.ToUpper(name))
	exchange := saslauth.NewExchange(mechanism)
	switch {
	case !c.greeted:
		return c.refuse("503 5.5.1 Say EHLO first.")
	case !c.MayLogIn():
		return c.say("538 5.7.11 Start TLS first.")
	case exchange == nil:
		return c.refuse("504 5.5.4 Unknown mechanism.")
	case !hasInitial:
		initial = nil
	}
	credentials, err := saslauth.Run(exchange, initial, func(challenge string) ([]byte, error) {
		if err := c.say("334 " + challenge); err != nil {
			return nil, err
		}
		return c.R.StrictLine(wire.MaxSASLLine)
	})
	switch {
	case errors.Is(err, saslauth.ErrCancelled):
		return c.refuse("501 5.7.0 Cancelled.")
	case errors.Is(err, saslauth.ErrMalformed):
		return c.refuse("501 5.5.2 Invalid response.")
	case err != nil:
		return c.ends(err)
	}
	defer credentials.Clear()
	return c.admit(ctx, protocols.Attempt{Mechanism: mechanism, Authzid: credentials.Authzid, Authcid: credentials.Authcid,
		Secret: credentials.Secret})
}

// admit has an attempt decided, and tells the client.
func (c *client) admit(ctx context.Context, a protocols.Attempt) error {
	s, err := c.Admit(ctx, a)
	switch {
	case err == nil:
		c.session = s
		return c.Accept(ctx, s, "235 2.7.0 Logged in.\r\n")
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return c.answered(protocols.AnswerTo(err, "the sending of mail"))
}

// answered tells a client why its login was refused.
func (c *client) answered(a protocols.Answer) error {
	if err := c.say(codes[a.Reason] + " " + a.Text); err != nil {
		return err
	}
	if c.Tally.Refused(a) {
		return c.bye("421 4.7.0 Too many failed logins.")
	}
	return nil
}
