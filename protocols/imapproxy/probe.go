package imapproxy

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/emersion/go-imap/v2"

	"postern/protocols"
)

// Probe tries a backend as a login does, and says in plain words what is wrong and what to do; nil: all is well. Where the route
// opens a credential, it logs in and looks at INBOX. It speaks to the backend with the same code as real logins, so that what it
// says is what they meet.
func Probe(ctx context.Context, r *protocols.Route) error {
	err := protocols.Visit(ctx, r, func(ctx context.Context, nc net.Conn) (*protocols.Backend, error) { return probe(ctx, nc, r) })
	return protocols.Explain(r, err, remedyFor(r, err))
}

func probe(ctx context.Context, nc net.Conn, r *protocols.Route) (*protocols.Backend, error) {
	s := newServer(nc)
	defer s.R.Release()
	if err := s.open(ctx, r); err != nil {
		return nil, err
	}
	if r.Open != nil {
		if err := s.prove(ctx, r, ""); err != nil {
			return nil, err
		}
		if err := s.settle(r); err != nil {
			return nil, err
		}
		if err := s.ask("P", "EXAMINE INBOX"); err != nil {
			return nil, fmt.Errorf("%w: %w", errNoInbox, err)
		}
	} else if _, err := s.mechanism(r); err != nil {
		return nil, err
	}
	s.Send([]byte("Q LOGOUT\r\n"))
	return &protocols.Backend{Conn: s.Conn}, nil
}

var errNoInbox = errors.New("INBOX does not open")

// remedyFor says what to do about what a backend answered; empty: nothing is known.
func remedyFor(r *protocols.Route, err error) string {
	var said imap.ResponseCode
	if answer, ok := errors.AsType[*refusedError](err); ok {
		said = answer.Code
	}
	switch {
	case errors.Is(err, errNoSense):
		return "look at host and port (143, or 993 with tls = \"implicit\")"
	case said == imap.ResponseCodePrivacyRequired, errors.Is(err, errNeedsTLS):
		return `it takes no logins without TLS; set tls = "starttls" or "implicit" for it`
	case errors.Is(err, protocols.ErrNoPlain):
		return `it does not offer AUTH=PLAIN; allow that mechanism there (Dovecot: auth_mechanisms), or, if it hides it without TLS, set tls = "starttls" or "implicit"`
	case errors.Is(err, errNoInside):
		return "it takes the token for " + r.Login + " and opens no mailbox; look whether there is one of that name, with a licence and not blocked, whether IMAP is switched on for it " +
			"(Exchange Online: Get-CASMailbox), and whether who is connected may open it: a shared mailbox needs full access, an app with client credentials Add-MailboxPermission (docs/oauth.md)"
	case errors.Is(err, errNoInbox):
		return fmt.Sprintf("the login as %s works, but it may not open INBOX; with Dovecot's acl plugin set acl_user (docs/dovecot.md), or the master user has no rights", r.Login)
	case said == imap.ResponseCodeAuthorizationFailed && !r.Bearer:
		return "it takes the gateway's password, but not for " + r.Login + ": look whether that account exists there, and whether the passdb behind the masters' can look it up without a password"
	case said == imap.ResponseCodeUnavailable, said == imap.ResponseCodeServerBug, said == imap.ResponseCodeInUse, said == imap.ResponseCodeLimit:
		return "it has troubles of its own, or does not know " + r.Login + "; look at its log, and whether login names the account as it does"
	}
	return ""
}
