package submission

import (
	"context"
	"errors"
	"fmt"
	"net"

	"postern/protocols"
)

// probeName is what Postern calls itself where nobody listens for more.
const probeName = "postern.invalid"

// Ask asks a backend what it can do, for Offers.
func Ask(ctx context.Context, r *protocols.Route) (list protocols.Capabilities, err error) {
	err = protocols.Visit(ctx, r, func(ctx context.Context, nc net.Conn) (*protocols.Backend, error) {
		s := newServer(nc, probeName)
		defer s.R.Release()
		if err := s.open(ctx, r); err != nil {
			return nil, err
		}
		list = forClient(string(s.said))
		s.Send([]byte("QUIT\r\n"))
		return &protocols.Backend{Conn: s.Conn}, nil
	})
	return list, err
}

// Probe tries a backend as a login does, and says in plain words what is wrong and what to do; nil: all is well. Where the route is that of
// an account it logs in. It speaks to the backend with the same code as real logins, so that what it says is what they meet.
func Probe(ctx context.Context, r *protocols.Route) error {
	err := protocols.Visit(ctx, r, func(ctx context.Context, nc net.Conn) (*protocols.Backend, error) { return probe(ctx, nc, r) })
	return protocols.Explain(r, err, remedyFor(r, err))
}

func probe(ctx context.Context, nc net.Conn, r *protocols.Route) (*protocols.Backend, error) {
	s := newServer(nc, probeName)
	defer s.R.Release()
	if err := s.open(ctx, r); err != nil {
		return nil, err
	}
	switch {
	case r.XClient && r.Login == "":
		if !s.said.has("XCLIENT", "LOGIN") {
			return nil, errNoXClient
		}
	case r.XClient:
		if err := s.introduce(r, &protocols.Conn{Hops: protocols.MaxHops}); err != nil {
			return nil, err
		}
		if err := s.ask("MAIL FROM:<>", 250); err != nil { // Dovecot takes LOGIN, and lets nobody in by it
			return nil, fmt.Errorf("%w: %w", errNoXClient, err)
		}
	case r.Open != nil:
		if err := s.prove(ctx, r); err != nil {
			return nil, err
		}
		if err := s.ask("NOOP", 250); err != nil { // Dovecot says only now that the server that it sends by is gone
			return nil, fmt.Errorf("%w: %w", errNoSending, err)
		}
	default:
		if _, err := r.Mechanism(s.said.offers); err != nil {
			return nil, err
		}
	}
	s.Send([]byte("QUIT\r\n"))
	return &protocols.Backend{Conn: s.Conn}, nil
}

var errNoSending = errors.New("it lets in and is of no use then")

// remedyFor says what to do about what a backend answered; empty: nothing is known.
func remedyFor(r *protocols.Route, err error) string {
	switch {
	case errors.Is(err, errNoSense):
		return `look at its port; submission is on 587 with tls = "starttls", on 465 with "implicit"`
	case errors.Is(err, errNoSending):
		return "the login as " + r.Login + " works, but it can't send; Dovecot: look whether the server of submission_relay_host is up"
	case errors.Is(err, errNoXClient), r.XClient && errors.Is(err, protocols.ErrCredential):
		return "it takes no login by XCLIENT from this host; Postfix: a service of its own for Postern (docs/sending.md, section 1) has Postern's address in smtpd_authorized_xclient_hosts, and smtpd_sasl_auth_enable = yes; " +
			"where it asks for TLS before logins (smtpd_tls_auth_only) set tls = \"starttls\" here; other servers: use another credential"
	case errors.Is(err, errShutOut):
		return "it knows " + r.Login + " and does not let it send; Exchange Online: switch Authenticated SMTP on for the mailbox (Set-CASMailbox -SmtpClientAuthenticationDisabled $false), " +
			"and look at security defaults and conditional access (docs/oauth.md)"
	case errors.Is(err, protocols.ErrNoPlain):
		return `it does not offer AUTH PLAIN; allow that mechanism there (Dovecot: auth_mechanisms; Postfix: smtpd_sasl_security_options), or, if it hides it without TLS, set tls = "starttls" or "implicit"`
	case errors.Is(err, protocols.ErrCredential) && !r.Bearer:
		return "it refuses the login; a wrong password in password_file (or stored by \"postern account credential\"), a wrong user, or (with a master user) one that may not act for others: " +
			"the passdb behind it needs master = yes, and the account " + r.Login + " must exist there"
	}
	return ""
}
