package api_test

import (
	"fmt"
	"testing"

	"postern/authstore"
	"postern/authstore/apitoken"
)

// The webhook ends all or nothing, for whom it names; and it can be called again.
func TestPrimaryChanged(t *testing.T) {
	t.Parallel()
	l := newLab(t, "")
	l.document()
	all, hook := l.token(apitoken.Everything), l.token(apitoken.PrimaryChanged)
	for _, name := range []string{"alice", "bob"} {
		l.must(201, request{method: "POST", path: "/accounts", body: m{"address": name + "@example.test"}, token: all})
		for i := range 3 {
			l.must(201, request{method: "POST", path: "/accounts/" + name + "@example.test/passwords", body: m{"label": fmt.Sprint(i), "for": "mail"}, token: all})
		}
	}
	l.must(200, request{method: "POST", path: "/accounts/bob@example.test/ties", body: m{"issuer": "https://id.example.test", "subject": "b"}, token: all})
	active := func(name string) string {
		t.Helper()
		return l.must(200, request{method: "GET", path: "/accounts/" + name + "@example.test", token: all}).get("active_app_passwords")
	}
	post := func(status int, body m) reply {
		t.Helper()
		return l.must(status, request{method: "POST", path: "/primary-changed", body: body, token: hook})
	}
	before := l.fingerprint()
	post(404, m{"address": "eve@example.test"})
	post(404, m{"issuer": "https://id.example.test", "subject": "a"})
	post(404, m{"issuer": "https://id.example.org", "subject": "b"})
	post(422, m{"issuer": "https://id.example.test"})
	post(422, m{"subject": "b"})
	post(422, m{"address": "alice@example.test", "issuer": "https://id.example.test", "subject": "b"})
	post(422, m{})
	if l.fingerprint() != before {
		t.Error("a call that named nobody changed something")
	}
	if r := post(200, m{"issuer": "https://id.example.test", "subject": "b"}); r.get("address") != "bob@example.test" || r.get("revoked_app_passwords") != "3" || r.get("unconfirmed_nodes.0") != "" {
		t.Errorf("bob: %s", r.text)
	}
	if active("bob") != "0" || active("alice") != "3" {
		t.Errorf("active: alice %s, bob %s", active("alice"), active("bob"))
	}
	if r := post(200, m{"address": "ALICE@example.test"}); r.get("address") != "alice@example.test" || r.get("revoked_app_passwords") != "3" {
		t.Errorf("alice: %s", r.text)
	}
	if r := post(200, m{"address": "alice@example.test"}); r.get("revoked_app_passwords") != "0" {
		t.Errorf("again: %s", r.text)
	}
	events, err := l.desk.Events(t.Context(), authstore.EventQuery{Kinds: []string{"primary.changed"}})
	if err != nil || len(events) != 3 || events[2].Actor.Name != "api:token1" || events[2].Detail != "3" {
		t.Errorf("the history: %+v, %v", events, err)
	}
	l.must(403, request{method: "GET", path: "/accounts", token: hook})
}
