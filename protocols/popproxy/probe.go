package popproxy

import (
	"context"
	"errors"
	"fmt"
	"net"

	"postern/protocols"
)

// Probe tries a backend as a login does, and says in plain words what is wrong and what to do; nil: all is well. Where the route
// opens a credential, it logs in and looks at the mailbox. It speaks to the backend with the same code as real logins, so that what it
// says is what they meet.
func Probe(ctx context.Context, r *protocols.Route) error {
	err := visit(ctx, r, func(s *server, list protocols.Capabilities) error {
		mechanism, err := mechanismIn(list, r)
		if err != nil || r.Open == nil {
			return err
		}
		if err := s.prove(ctx, r, mechanism, ""); err != nil {
			return err
		}
		if err := s.ask("STAT"); err != nil {
			return fmt.Errorf("%w: %w", errNoMailbox, err)
		}
		return nil
	})
	return protocols.Explain(r, err, remedyFor(r, err))
}

// told are the capabilities that clients are told of before they log in. EXPIRE and LOGIN-DELAY are not, for they may be another account's
// (RFC 2449 sections 6.5 and 6.7): the backend tells them after the login. UTF8 and LANG (RFC 6856) are commands that go before
// the login: they would have to be said again to the backend before ours, and are answered before anybody knows which one that is.
var told = []string{"TOP", "UIDL", "PIPELINING"}

// Ask asks a backend what clients may be told of it before they log in, for protocols.Offers.
func Ask(ctx context.Context, r *protocols.Route) (protocols.Capabilities, error) {
	offered := protocols.Capabilities{}
	err := visit(ctx, r, func(_ *server, list protocols.Capabilities) error {
		for _, name := range told {
			if list.Has(name) {
				offered.Add(name, "")
			}
		}
		return nil
	})
	return offered, err
}

// visit asks a backend what it can do, has something more done there, and takes leave.
func visit(ctx context.Context, r *protocols.Route, do func(*server, protocols.Capabilities) error) error {
	return protocols.Visit(ctx, r, func(ctx context.Context, nc net.Conn) (*protocols.Backend, error) {
		s := newServer(nc)
		defer s.R.Release()
		if err := s.open(ctx, r); err != nil {
			return nil, err
		}
		list, err := s.capabilities()
		if err != nil {
			return nil, err
		}
		if err := do(s, list); err != nil {
			return nil, err
		}
		s.Send([]byte("QUIT\r\n"))
		return &protocols.Backend{Conn: s.Conn}, nil
	})
}

var errNoMailbox = errors.New("the mailbox does not open")

// remedyFor says what to do about what a backend answered; empty: nothing is known.
func remedyFor(r *protocols.Route, err error) string {
	var said string
	if answer, ok := errors.AsType[status](err); ok {
		said = answer.code
	}
	switch {
	case errors.Is(err, errNoSense):
		return "look at host and port (110, or 995 with tls = \"implicit\")"
	case errors.Is(err, protocols.ErrNoPlain):
		return `it does not offer SASL PLAIN; allow that mechanism there (Dovecot: auth_mechanisms), or, if it hides it without TLS, set tls = "starttls" or "implicit"`
	case said == codeInUse:
		return "another POP3 session has the mailbox of " + r.Login + " open; try again later, or let several in (Dovecot: pop3_lock_session = no)"
	case said == codeLoginDelay:
		return "it wants a pause between two logins of " + r.Login + "; try again later"
	case errors.Is(err, errNoMailbox):
		return "the login as " + r.Login + " works, but the mailbox does not open; look at its log"
	case said == codeTemporary, said == codePermanent:
		return "it has troubles of its own, or may not open the mailbox of " + r.Login + " (with Dovecot's acl plugin set acl_user, docs/dovecot.md); look at its log"
	}
	return ""
}
