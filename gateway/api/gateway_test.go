package api_test

import (
	"strings"
	"testing"

	"postern/authstore/apitoken"
)

// What is not there is said.
func TestWithoutPortalAndBackend(t *testing.T) {
	t.Parallel()
	l := newLab(t, "", `  { protocol = "portal", address = "[::1]:0", tls = "none" },`, "", `portal = { url = "https://passwords.example.test" }`, "",
		`name = "radicale"
protocol = "dav"`, `name = "radicale"
protocol = "imap"`, `credential = "header"`, `credential = "stored"`, "[[policy]]", "[[route]]\nprotocol = \"imap\"\nbackend = \"dovecot\"\n[[policy]]")
	l.document()
	all := l.token(apitoken.Everything)
	l.must(201, request{method: "POST", path: "/accounts", body: m{"address": "alice@example.test"}, token: all})
	l.must(409, request{method: "POST", path: "/accounts/alice@example.test/invitation", token: all})
	l.must(409, request{method: "POST", path: "/accounts/alice@example.test/sign-out", token: all})
	l.must(409, request{method: "POST", path: "/accounts/alice@example.test/factors/reset", token: all})
	l.must(409, request{method: "GET", path: "/accounts/alice@example.test/collections", token: all})
	l.must(422, request{method: "POST", path: "/accounts/alice@example.test/passwords", body: m{"label": "x", "for": "calendar", "collections": []m{{"kind": "calendar", "name": "work"}}}, token: all})
	if r := l.must(200, request{method: "GET", path: "/accounts/alice@example.test", token: all}); strings.Contains(r.text, `"portal"`) {
		t.Errorf("shown: %s", r.text)
	}
	// a backend that does not answer
	d := newLab(t, "")
	d.document()
	all = d.token(apitoken.Everything)
	d.must(201, request{method: "POST", path: "/accounts", body: m{"address": "alice@example.test"}, token: all})
	if r := d.must(502, request{method: "GET", path: "/accounts/alice@example.test/collections", token: all}); strings.Contains(r.text, "127.0.0.1") {
		t.Errorf("it tells too much: %s", r.text)
	}
}
