package gateway

import (
	"context"
	"errors"
	"net"
	"net/smtp"
	"net/textproto"
	"os"

	"postern/config"
	"postern/protocols"
)

// relayRoute is the way to the server that takes notices.
func relayRoute(c *config.Notices) (*protocols.Route, error) {
	return routeTo("notices", c.Address, c.TLS, c.CAFile, c.ServerName)
}

var (
	errNoStartTLS = errors.New("it does not offer STARTTLS")
	errNoAuth     = errors.New("it offers no login")
)

// probeRelay tries the server that takes notices as far as one can without sending any, and says what is wrong and what to do.
func probeRelay(ctx context.Context, c *config.Notices) error {
	r, err := relayRoute(c)
	if err != nil {
		return err
	}
	if c.PasswordFile != "" {
		password, err := readPassword(c.PasswordFile)
		if err != nil {
			return err
		}
		clear(password)
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	err = greetRelay(ctx, r, c.User != "")
	_, foreign := errors.AsType[textproto.ProtocolError](err)
	remedy := ""
	switch {
	case foreign:
		remedy = "that is no mail server; look at host and port (25 on this machine, or 465)"
	case errors.Is(err, errNoStartTLS):
		remedy = `set tls = "implicit" with the port for it (465), or tls = "none" for a server on this machine`
	case errors.Is(err, errNoAuth):
		remedy = "take user and password_file out if it takes mail from this machine without a login, or allow PLAIN or LOGIN there"
	}
	return protocols.Explain(r, err, remedy)
}

func greetRelay(ctx context.Context, r *protocols.Route, login bool) error {
	bare := *r
	bare.Security = protocols.StartTLS // TLS is ours to start; and without a login, plain text may leave the house
	nc, err := protocols.Dial(ctx, &bare)
	if err != nil {
		return err
	}
	defer nc.Close()
	until, _ := ctx.Deadline()
	nc.SetDeadline(until)
	if r.Security == protocols.ImplicitTLS {
		tc, err := protocols.Secure(ctx, nc, r)
		if err != nil {
			return err
		}
		nc = tc
	}
	host, _, _ := net.SplitHostPort(r.Address)
	client, err := smtp.NewClient(nc, host)
	if err != nil {
		return err
	}
	name, _ := os.Hostname()
	if err := client.Hello(name); err != nil {
		return err
	}
	if r.Security == protocols.StartTLS {
		if offered, _ := client.Extension("STARTTLS"); !offered {
			return errNoStartTLS
		}
		if err := client.StartTLS(r.TLS); err != nil {
			return err
		}
	}
	if offered, _ := client.Extension("AUTH"); login && !offered {
		return errNoAuth
	}
	return client.Quit()
}
