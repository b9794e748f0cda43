package imapproxy_test

import (
	"context"
	"crypto/tls"
	"testing"

	"postern/authstore"
	"postern/gateway/live"
	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/doortest"
	"postern/protocols/imapproxy"
)

// door is a front door that serves, with the registry that it has in production.
type door struct {
	*doortest.Door
	sessions *live.Registry
}

func newDoor(t testing.TB, change ...func(*doortest.Door)) *door {
	t.Helper()
	sessions := &live.Registry{}
	withSessions := func(d *doortest.Door) { d.Sessions = sessions }
	return &door{doortest.Serve(t, imapproxy.Door{}, append(change, withSessions)...), sessions}
}

// toDovecot leads to a lab's Dovecot by its master user, unless change says otherwise.
func toDovecot(dovecot *testlab.DovecotServer, security protocols.Security, change ...func(*protocols.Route)) func(*doortest.Door) {
	address := dovecot.IMAP
	if security == protocols.ImplicitTLS {
		address = dovecot.IMAPS
	}
	return func(d *doortest.Door) {
		d.Routes = func(g authstore.Grant) (*protocols.Route, error) {
			r := &protocols.Route{Backend: doortest.Backend, Network: "tcp", Address: address, Security: security,
				TLS: &tls.Config{RootCAs: dovecot.CA.Pool}, Login: g.Address,
				Open: func(context.Context) (protocols.Credential, error) {
					return protocols.Credential{Authzid: g.Address, Authcid: dovecot.MasterUser, Password: []byte(dovecot.MasterPassword)}, nil
				}}
			for _, f := range change {
				f(r)
			}
			return r, nil
		}
	}
}
