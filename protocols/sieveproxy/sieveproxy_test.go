package sieveproxy_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"testing"

	"postern/authstore"
	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/doortest"
	"postern/protocols/sieveproxy"
)

// serve starts a front door that knows nothing of its backends, unless change says otherwise.
func serve(t testing.TB, change ...func(*doortest.Door)) *doortest.Door {
	t.Helper()
	return doortest.Serve(t, sieveproxy.Door{Offers: doortest.Offers(t)}, change...)
}

// to leads to a backend in plain text.
func to(address string) func(*doortest.Door) {
	return func(d *doortest.Door) {
		d.Routes = func(g authstore.Grant) (*protocols.Route, error) { return routeTo(address, g.Address), nil }
	}
}

func routeTo(address, login string) *protocols.Route {
	return &protocols.Route{Backend: doortest.Backend, Network: "tcp", Address: address, Login: login, Open: func(context.Context) (protocols.Credential, error) {
		return protocols.Credential{Authzid: login, Authcid: "gateway", Password: []byte("gateway-secret")}, nil
	}}
}

// toDovecot leads to a lab's Dovecot by its master user.
func toDovecot(dovecot *testlab.DovecotServer) func(*doortest.Door) {
	return func(d *doortest.Door) {
		d.Routes = func(g authstore.Grant) (*protocols.Route, error) { return routeToDovecot(dovecot, g.Address), nil }
	}
}

func routeToDovecot(d *testlab.DovecotServer, login string) *protocols.Route {
	r := routeTo(d.Sieve, login)
	r.Security, r.TLS = protocols.StartTLS, &tls.Config{RootCAs: d.CA.Pool}
	return r
}

// answer reads up to the end of an answer.
func answer(k *doortest.Client) string { return k.Until("OK", "NO", "BYE") }

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func plain(authcid, secret string) string { return b64("\x00" + authcid + "\x00" + secret) }

// login logs in behind the greeting.
func login(t testing.TB, k *doortest.Client, authcid string) {
	t.Helper()
	answer(k)
	k.Send("AUTHENTICATE \"PLAIN\" \"%s\"\r\n", plain(authcid, doortest.AppPassword))
	if got := answer(k); got != `OK "Logged in."` {
		t.Fatalf("the login: %q", got)
	}
}
