package imapproxy

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"postern/authstore"
	"postern/protocols"
	"postern/protocols/saslauth"
	"postern/protocols/wire"
)

// logIn is the LOGIN command (RFC 9051 section 6.2.3).
func (c *client) logIn(ctx context.Context, cmd *command) error {
	if !c.MayLogIn() {
		return c.Say(no(cmd.tag, imap.ResponseCodePrivacyRequired, "Start TLS first."))
	}
	if !cmd.space() {
		return c.refuse(cmd.tag, "Missing name.")
	}
	name, ok := cmd.astring()
	if !ok || !cmd.space() {
		return c.refuse(cmd.tag, "Missing password.")
	}
	secret, ok := cmd.astring()
	if !ok || cmd.hasArguments() {
		return c.refuse(cmd.tag, "Bad arguments; quote what has spaces in it.")
	}
	return c.admit(ctx, cmd.tag, protocols.Attempt{Mechanism: "LOGIN", Authcid: string(name), Secret: secret})
}

// authenticate is AUTHENTICATE (RFC 9051 section 6.2.2), with the initial response of SASL-IR (RFC 4959).
func (c *client) authenticate(ctx context.Context, cmd *command) error {
	if !c.MayLogIn() {
		return c.Say(no(cmd.tag, imap.ResponseCodePrivacyRequired, "Start TLS first."))
	}
	name, rest, hasInitial := bytes.Cut(bytes.TrimPrefix(cmd.Rest, []byte(" ")), []byte(" "))
	mechanism := string(bytes.Map(upperASCII, name))
	exchange := saslauth.NewExchange(mechanism)
	if exchange == nil {
		if c.Tally.Bad() {
			return c.bye("Too many bad commands.")
		}
		return c.Say(no(cmd.tag, imap.ResponseCodeCannot, "Unknown mechanism."))
	}
	if !hasInitial {
		rest = nil
	}
	credentials, err := saslauth.Run(exchange, rest, func(challenge string) ([]byte, error) {
		if err := c.Say("+ " + challenge + "\r\n"); err != nil {
			return nil, err
		}
		return c.R.Line(wire.MaxSASLLine)
	})
	switch {
	case errors.Is(err, saslauth.ErrCancelled):
		return c.refuse(cmd.tag, "Cancelled.")
	case errors.Is(err, saslauth.ErrMalformed):
		return c.refuse(cmd.tag, "Invalid response.")
	case err != nil:
		return c.ends(err)
	}
	defer credentials.Clear()
	return c.admit(ctx, cmd.tag, protocols.Attempt{Mechanism: mechanism, Authzid: credentials.Authzid, Authcid: credentials.Authcid,
		Secret: credentials.Secret})
}

// admit has an attempt decided, and tells the client.
func (c *client) admit(ctx context.Context, tag string, a protocols.Attempt) error {
	s, err := c.Admit(ctx, a)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return c.answered(tag, err)
	}
	c.session = s
	return c.Accept(ctx, s, tag+" OK [CAPABILITY "+c.offered(s)+"] Logged in.\r\n")
}

// offered are the backend's capabilities without what the guard refuses.
func (c *client) offered(s *protocols.Session) string {
	if s.Grant.Scopes.Any(authstore.ScopeMail) && !c.door.NoCompress {
		return s.Capabilities()
	}
	list := strings.Fields(s.Capabilities())
	return strings.Join(slices.DeleteFunc(list, func(name string) bool { return strings.HasPrefix(strings.ToUpper(name), "COMPRESS=") }), " ")
}

// Bounds of ID (RFC 2971 section 3.3).
const (
	maxFields = 30
	maxField  = 30
	maxValue  = 1024
	maxApp    = 64
	maxID     = 4096 // of the whole command after the login; there the backend bounds it
)

// id is ID. The client's name is noted for its owner to see; its address is believed from nobody.
func (c *client) id(cmd *command) error {
	fields, ok := cmd.fields()
	if !ok {
		return c.refuse(cmd.tag, "Bad list of fields.")
	}
	if app := appOf(fields); app != "" {
		c.App = app
	}
	if n, ok := hops(fields["x-proxy-ttl"]); ok {
		c.Hops = min(c.Hops, n)
	}
	return c.Say("* ID (\"name\" \"Postern\")\r\n" + cmd.tag + " OK Done.\r\n")
}

// appOf is the app's name and version; empty: it does not tell.
func appOf(fields map[string][]byte) string {
	name := printable(fields["name"])
	if name == "" {
		return ""
	}
	app := strings.TrimSpace(name + " " + printable(fields["version"]))
	return strings.TrimSpace(app[:min(len(app), maxApp)])
}

// fields takes ID's list, or NIL.
func (cmd *command) fields() (map[string][]byte, bool) {
	if !cmd.space() {
		return nil, false
	}
	if cmd.Take("NIL") {
		return nil, !cmd.hasArguments()
	}
	if !cmd.Take("(") {
		return nil, false
	}
	fields := make(map[string][]byte)
	for n := 0; !cmd.Take(")"); n++ {
		if n == maxFields || n > 0 && !cmd.space() {
			return nil, false
		}
		field, ok := cmd.Str()
		if !ok || len(field) > maxField || !cmd.space() {
			return nil, false
		}
		if cmd.Take("NIL") {
			continue
		}
		value, ok := cmd.Str()
		if !ok || len(value) > maxValue {
			return nil, false
		}
		fields[strings.ToLower(string(field))] = value
	}
	return fields, !cmd.hasArguments()
}

// printable leaves out what has no place in a log line or on a page.
func printable(value []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, string(value))
}
