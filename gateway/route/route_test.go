package route

import (
	"context"
	"errors"
	"strings"
	"testing"

	"postern/authstore"
	"postern/protocols"
)

type vault map[authstore.AccountID]string

func (v vault) BackendPassword(_ context.Context, id authstore.AccountID, _ string) ([]byte, error) {
	if p, ok := v[id]; ok {
		return []byte(p), nil
	}
	return nil, authstore.ErrNotFound
}

func TestRoute(t *testing.T) {
	table, err := New([]Backend{
		{Name: "dovecot", Address: "a:143", Login: "{address}", Kind: Master, User: "gateway", Password: []byte("m")},
		{Name: "hosted", Address: "b:993", Login: "{local}", Kind: Stored},
		{Name: "radicale", Address: "c:80", Login: "{address}", Principal: "/{login}/", Kind: Header, Header: "X-Remote-User"},
		{Name: "basic", Address: "d:80", Login: "{domain}/{local}", Principal: "/dav/{address}/", Kind: Basic, Password: []byte("b")},
		{Name: "nginx", Address: "e:443", Login: "{address}", Principal: "/{login}/", Kind: Bearer, Header: "X-Remote-User", Password: []byte("t")},
	}, []Rule{
		{"*", "imap", "dovecot"}, {"other.test", "imap", "hosted"},
		{"*", "calendar", "radicale"}, {"other.test", "calendar", "basic"}, {"third.test", "calendar", "nginx"},
	}, vault{7: "stored"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		protocol string
		grant    authstore.Grant
		backend  string
		login    string
		path     string
		authzid  string
		authcid  string
		password string
		header   string // besides a credential
		err      string
	}{
		"the default": {protocol: "imap", grant: authstore.Grant{Account: 1, Address: "alice@example.test"},
			backend: "dovecot", login: "alice@example.test", authzid: "alice@example.test", authcid: "gateway", password: "m"},
		"an override": {protocol: "imap", grant: authstore.Grant{Account: 1, Address: "alice@example.test", BackendName: "u17"},
			backend: "dovecot", login: "u17", authzid: "u17", authcid: "gateway", password: "m"},
		"a domain of its own, stored password": {protocol: "imap", grant: authstore.Grant{Account: 7, Address: "bob@other.test"},
			backend: "hosted", login: "bob", authcid: "bob", password: "stored"},
		"nothing stored": {protocol: "imap", grant: authstore.Grant{Account: 8, Address: "eve@other.test"},
			backend: "hosted", login: "eve", err: "no password is stored for account 8"},
		"header": {protocol: "calendar", grant: authstore.Grant{Account: 1, Address: "alice@example.test"},
			backend: "radicale", login: "alice@example.test", path: "/alice@example.test/"},
		"header with an override": {protocol: "calendar", grant: authstore.Grant{Account: 1, Address: "alice@example.test", BackendName: "u17"},
			backend: "radicale", login: "u17", path: "/u17/"},
		"a name with a slash": {protocol: "calendar", grant: authstore.Grant{Account: 1, Address: "a/../b@example.test"},
			err: "can't stand in a path"},
		"an override that climbs": {protocol: "calendar", grant: authstore.Grant{Account: 1, Address: "a@example.test", BackendName: ".."},
			err: "can't stand in a path"},
		"a name that looks like a template": {protocol: "imap", grant: authstore.Grant{Account: 7, Address: "{domain}@other.test"},
			backend: "hosted", login: "{domain}", authcid: "{domain}", password: "stored"},
		"a token and the header": {protocol: "calendar", grant: authstore.Grant{Account: 1, Address: "alice@third.test"},
			backend: "nginx", login: "alice@third.test", path: "/alice@third.test/", authcid: "alice@third.test", password: "t", header: "X-Remote-User"},
		"no route": {protocol: "contacts", grant: authstore.Grant{Account: 1, Address: "alice@example.test"},
			err: protocols.ErrNoRoute.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := table.Route(t.Context(), tt.protocol, tt.grant)
			if err != nil {
				wantErr(t, err, tt.err)
				return
			}
			if r.Backend != tt.backend || r.Login != tt.login || r.Path != tt.path {
				t.Errorf("Route = %s, %q, %q; want %s, %q, %q", r.Backend, r.Login, r.Path, tt.backend, tt.login, tt.path)
			}
			if r.Open == nil {
				if r.Header == "" || tt.password != "" {
					t.Errorf("no credential and header %q", r.Header)
				}
				return
			}
			if r.Header != tt.header || r.Bearer != (tt.header != "") {
				t.Errorf("header %q, bearer %v", r.Header, r.Bearer)
			}
			c, err := r.Open(t.Context())
			if err != nil {
				wantErr(t, err, tt.err)
				return
			}
			if c.Authzid != tt.authzid || c.Authcid != tt.authcid || string(c.Password) != tt.password {
				t.Errorf("credential = %q, %q, %q", c.Authzid, c.Authcid, c.Password)
			}
			c.Clear()
			if again, _ := r.Open(t.Context()); string(again.Password) != tt.password {
				t.Error("clearing an opened credential cleared the configured one")
			}
		})
	}
}

func wantErr(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" || !strings.Contains(err.Error(), want) {
		t.Errorf("error %q, want one with %q", err, want)
	}
}

func TestUnknownBackend(t *testing.T) {
	if _, err := New(nil, []Rule{{"*", "imap", "gone"}}, nil, nil); err == nil || errors.Is(err, protocols.ErrNoRoute) {
		t.Errorf("New with a rule to nowhere: %v", err)
	}
}
