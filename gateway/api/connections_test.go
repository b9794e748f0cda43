package api_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/apitoken"
	"postern/authstore/sqlstore"
)

// store opens the lab's database beside the gateway.
func (l *lab) store() *sqlstore.Store {
	l.t.Helper()
	s, err := sqlstore.Open(l.t.Context(), sqlstore.Options{Path: filepath.Join(filepath.Dir(l.socket), "postern.db"), MustExist: true})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { s.Close() })
	return s
}

// An account's connections are seen and removed, whatever the authorization server says of it.
func TestConnections(t *testing.T) {
	t.Parallel()
	l := newLab(t, "", `credential = "stored"`, `credential = "oauth"
oauth = "idp"`, "[[policy]]", `[[oauth]]
name = "idp"
issuer = "http://127.0.0.1:1"
client_id = "postern"
scopes = ["mail"]
[[policy]]`)
	l.document()
	all := l.token(apitoken.Everything)
	l.must(201, request{method: "POST", path: "/accounts", body: m{"address": "alice@example.test"}, token: all})
	const path = "/accounts/alice@example.test/connections"
	if r := l.must(200, request{method: "GET", path: path, token: all}); r.get("connections.0.provider") != "idp" || r.get("connections.0.state") != "none" || r.get("connections.0.needed") != "true" {
		t.Errorf("before: %s", r.text)
	}
	l.must(404, request{method: "DELETE", path: path + "/idp", token: all})
	a, err := l.desk.Get(t.Context(), "alice@example.test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.store().Connect(t.Context(), authstore.Actor{Name: "test"}, authstore.UpstreamToken{Account: a.ID, Provider: "idp", Key: 1, Sealed: []byte("sealed"),
		Expires: time.Now().Add(time.Hour), Refreshed: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if r := l.must(200, request{method: "GET", path: path, token: all}); r.get("connections.0.state") != "connected" || r.get("connections.0.since") == "" {
		t.Errorf("connected: %s", r.text)
	}
	l.must(403, request{method: "DELETE", path: path + "/idp", token: l.token(apitoken.AccountsWrite)})
	if r := l.must(200, request{method: "DELETE", path: path + "/idp", token: all}); r.get("revoked") != "false" || !strings.Contains(r.get("done"), "alice@example.test from idp") {
		t.Errorf("removed: %s", r.text)
	}
	l.must(404, request{method: "DELETE", path: path + "/idp", token: all})
	events, err := l.desk.Events(t.Context(), authstore.EventQuery{Kinds: []string{authstore.KindConnectionRemoved}})
	if err != nil || len(events) != 1 || events[0].Actor.Name != "api:token0" {
		t.Errorf("the history: %+v, %v", events, err)
	}
}
