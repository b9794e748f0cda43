package sieveproxy

import (
	"context"
	"errors"
	"fmt"
	"net"

	"postern/protocols"
)

// Ask logs in to a backend and returns what clients are told of it.
func Ask(ctx context.Context, r *protocols.Route) (protocols.Capabilities, error) {
	var list protocols.Capabilities
	err := protocols.Visit(ctx, r, func(ctx context.Context, nc net.Conn) (*protocols.Backend, error) {
		s := newServer(nc)
		defer s.R.Release()
		if err := s.logIn(ctx, r, ""); err != nil {
			return nil, err
		}
		list = forClient(s.caps)
		s.Send([]byte("LOGOUT\r\n"))
		return &protocols.Backend{Conn: s.Conn}, nil
	})
	return list, err
}

// Probe tries a backend as a login does, and says in plain words what is wrong and what to do; nil: all is well. Where the route opens a
// credential, it logs in and lists the account's scripts. It speaks to the backend with the same code as real logins, so that what it says is
// what they meet.
func Probe(ctx context.Context, r *protocols.Route) error {
	err := protocols.Visit(ctx, r, func(ctx context.Context, nc net.Conn) (*protocols.Backend, error) { return probe(ctx, nc, r) })
	return protocols.Explain(r, err, remedyFor(r, err))
}

func probe(ctx context.Context, nc net.Conn, r *protocols.Route) (*protocols.Backend, error) {
	s := newServer(nc)
	defer s.R.Release()
	if r.Open == nil {
		if err := s.open(ctx, r); err != nil {
			return nil, err
		}
		_, err := s.mechanism(r)
		return &protocols.Backend{Conn: s.Conn}, err
	}
	if err := s.logIn(ctx, r, ""); err != nil {
		return nil, err
	}
	if err := s.ask("LISTSCRIPTS"); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoScripts, err)
	}
	s.Send([]byte("LOGOUT\r\n"))
	return &protocols.Backend{Conn: s.Conn}, nil
}

var errNoScripts = errors.New("the scripts are not listed")

// remedyFor says what to do about what a backend answered; empty: nothing is known.
func remedyFor(r *protocols.Route, err error) string {
	a, said := errors.AsType[answer](err)
	switch {
	case said && a.code == encryptNeeded, errors.Is(err, errNeedsTLS):
		return `it takes no logins without TLS; set tls = "starttls" for it`
	case errors.Is(err, protocols.ErrNoPlain):
		return "it does not offer SASL PLAIN; allow that mechanism there (Dovecot: auth_mechanisms)"
	case errors.Is(err, errNoSense):
		return `it does not speak ManageSieve; look at host and port (4190), and, if it speaks TLS from the start, set tls = "implicit"`
	case errors.Is(err, errTooOld):
		return `it does not say VERSION "1.0" and so is older than RFC 5804; put a newer server there`
	case errors.Is(err, errNoScripts):
		return fmt.Sprintf("the login as %s works, but its scripts can't be listed; look at that account's folder for scripts, and at the server's log", r.Login)
	case said && !errors.Is(err, protocols.ErrCredential):
		return "it has troubles of its own, or does not know " + r.Login + "; look at its log, and whether login names the account as it does"
	}
	return ""
}
