package api_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"postern/authstore/apitoken"
	"postern/internal/testlab"
)

type m = map[string]any

// Every operation of the document is called, and every answer that it names for one is seen and held against it.
func TestEveryOperation(t *testing.T) {
	t.Parallel()
	dav := testlab.Radicale(t)
	dav.MakeCalendar(testlab.Alice, "work")
	l := newLab(t, strings.TrimPrefix(dav.URL, "http://"))
	all := l.token(apitoken.Everything)
	seen := make(map[string]bool) // "operation status"
	try := func(status int, method, path string, body any, header ...string) reply {
		t.Helper()
		r := l.must(status, request{method, path, body, all, header})
		seen[fmt.Sprint(l.operation(method, path), " ", status)] = true
		return r
	}
	const alice = "/accounts/" + testlab.Alice
	nobody := "/accounts/nobody@example.test"

	// accounts
	if r := try(201, "POST", "/accounts", m{"address": strings.ToUpper(testlab.Alice)}); r.get("names.0") != testlab.Alice || r.get("status") != "active" {
		t.Errorf("added %s", r.text)
	}
	try(409, "POST", "/accounts", m{"address": testlab.Alice})
	try(422, "POST", "/accounts", m{"address": "not an address"})
	try(201, "POST", "/accounts", m{"address": "bob@example.test"})
	first := try(200, "GET", "/accounts?limit=1", nil)
	if first.get("accounts.0.names.0") != testlab.Alice || first.get("accounts.1") != "" || first.get("next") != testlab.Alice {
		t.Errorf("the first page: %s", first.text)
	}
	if second := try(200, "GET", "/accounts?limit=1&after="+first.get("next"), nil); second.get("accounts.0.names.0") != "bob@example.test" || second.get("next") != "" {
		t.Errorf("the second page: %s", second.text)
	}
	for query, want := range map[string]string{"text=bob": "bob@example.test", "domain=example.test&status=active&text=ali": testlab.Alice, "status=suspended": ""} {
		if r := try(200, "GET", "/accounts?"+query, nil); r.get("accounts.0.names.0") != want {
			t.Errorf("%s: %s", query, r.text)
		}
	}
	// names
	try(200, "POST", alice+"/aliases", m{"alias": "al@example.test"})
	try(409, "POST", alice+"/aliases", m{"alias": "bob@example.test"})
	try(422, "POST", alice+"/aliases", m{"alias": "x"})
	try(404, "POST", nobody+"/aliases", m{"alias": "z@example.test"})
	try(200, "PUT", "/accounts/al@example.test/backend-name", m{"backend_name": "u17"})
	try(422, "PUT", alice+"/backend-name", m{"backend_name": "a\nb"})
	try(404, "PUT", nobody+"/backend-name", m{"backend_name": "u"})
	try(200, "POST", alice+"/ties", m{"issuer": "https://id.example.test", "subject": "4711"})
	try(200, "POST", alice+"/ties", m{"issuer": "https://id.example.test", "subject": "4711"})
	try(409, "POST", alice+"/ties", m{"issuer": "https://id.example.test", "subject": "4712"})
	try(409, "POST", "/accounts/bob@example.test/ties", m{"issuer": "https://id.example.test", "subject": "4711"})
	try(422, "POST", alice+"/ties", m{"issuer": "a\tb", "subject": "4711"})
	try(404, "POST", nobody+"/ties", m{"issuer": "ldap", "subject": "1"})
	try(200, "PUT", alice+"/administrator", m{"administrator": true})
	try(404, "PUT", nobody+"/administrator", m{"administrator": true})
	shown := try(200, "GET", alice, nil)
	for path, want := range map[string]string{"names.1": "al@example.test", "backend_name": "u17", "ties.0.subject": "4711", "administrator": "true",
		"portal.primary_password": "false", "events.0.kind": "account.admin_made", "events.0.actor": "api:token0"} {
		if got := shown.get(path); got != want {
			t.Errorf("shown %s is %q, want %q", path, got, want)
		}
	}
	try(404, "GET", nobody, nil)
	try(200, "PUT", alice+"/administrator", m{"administrator": false})
	try(200, "DELETE", alice+"/ties?issuer=https%3A%2F%2Fid.example.test", nil)
	try(404, "DELETE", alice+"/ties?issuer=https%3A%2F%2Fid.example.test", nil)
	try(200, "DELETE", alice+"/aliases/al@example.test", nil)
	try(404, "DELETE", alice+"/aliases/"+testlab.Alice, nil)
	try(200, "POST", alice+"/suspend", nil)
	try(404, "POST", nobody+"/suspend", nil)
	try(200, "POST", alice+"/resume", nil)
	try(404, "POST", nobody+"/resume", nil)
	try(200, "PUT", alice+"/credentials/dovecot", m{"password": "hunter2"})
	for _, backend := range []string{"radicale", "dovekot"} {
		try(422, "PUT", alice+"/credentials/"+backend, m{"password": "hunter2"})
	}
	try(404, "PUT", nobody+"/credentials/dovecot", m{"password": "hunter2"})
	try(200, "PUT", alice+"/backend-name", m{"backend_name": ""})

	// app passwords
	if r := try(200, "GET", alice+"/collections", nil); r.get("collections.0.name") != "work" {
		t.Errorf("collections: %s", r.text)
	}
	try(404, "GET", nobody+"/collections", nil)
	made := try(201, "POST", alice+"/passwords", m{"label": "Thunderbird", "for": "everything", "expires": "2199-01-01T00:00:00Z", "networks": []string{"192.0.2.1"}}, "Idempotency-Key", "one")
	if len(made.get("secret")) != 23 || made.get("settings.user_name") != testlab.Alice || made.get("networks.0") != "192.0.2.1/32" || made.get("expires") != "2199-01-01T00:00:00Z" {
		t.Errorf("made %s", made.text)
	}
	if again := try(409, "POST", alice+"/passwords", m{"label": "Thunderbird", "for": "everything"}, "Idempotency-Key", "one"); again.get("app_password") != made.get("id") ||
		strings.Contains(again.text, made.get("secret")) {
		t.Errorf("the same request again: %s", again.text)
	}
	narrowed := try(201, "POST", alice+"/passwords", m{"label": "Display", "scopes": []string{"calendar:read"}, "collections": []m{{"kind": "calendar", "name": "work"}}})
	if narrowed.get("collections.0.name") != "work" {
		t.Errorf("narrowed: %s", narrowed.text)
	}
	for fault, body := range map[string]m{
		"say what it opens":                      {"label": "x"},
		"either by":                              {"label": "x", "for": "mail", "scopes": []string{"mail"}},
		"unknown preset; the presets are":        {"label": "x", "for": "emails"},
		"unknown scope":                          {"label": "x", "scopes": []string{"emails"}},
		"networks[1] is neither":                 {"label": "x", "for": "mail", "networks": []string{"192.0.2.0/24", "home"}},
		"expired already":                        {"label": "x", "for": "mail", "expires": "2001-01-01T00:00:00Z"},
		"after the year 9999":                    {"label": "x", "for": "mail", "expires": "9999-12-31T23:59:59-01:00"},
		"1 to 100 printable":                     {"label": " ", "for": "mail"},
		"collections[0] is not there":            {"label": "x", "for": "calendar", "collections": []m{{"kind": "calendar", "name": "wrok"}}},
		"schedule goes with calendars":           {"label": "x", "scopes": []string{"schedule"}},
		"does not fit the document":              {"label": "x", "for": "mail", "expires": "soon"},
		"does not fit the document at /api/v1/o": {"label": "x", "for": "mail", "colour": "red"},
	} {
		if r := try(422, "POST", alice+"/passwords", body); !strings.Contains(r.get("detail"), fault) {
			t.Errorf("%v: %s, want %q", body, r.text, fault)
		}
	}
	try(404, "POST", nobody+"/passwords", m{"label": "x", "for": "mail"})
	listed := try(200, "GET", alice+"/passwords", nil)
	if listed.get("app_passwords.1.label") != "Display" || listed.get("app_passwords.2") != "" || strings.Contains(listed.text, "secret") {
		t.Errorf("listed: %s", listed.text)
	}
	try(404, "GET", nobody+"/passwords", nil)
	one := "/passwords/" + made.get("id")
	try(200, "PATCH", one, m{"label": "Laptop"})
	try(200, "PATCH", one, m{"networks": []string{}, "never_expires": true})
	if r := try(200, "GET", one, nil); r.get("label") != "Laptop" || r.get("networks.0") != "" || r.get("expires") != "" || r.get("state") != "active" || r.get("secret") != "" {
		t.Errorf("edited: %s", r.text)
	}
	try(422, "PATCH", one, m{"expires": "2001-01-01T00:00:00Z"})
	try(422, "PATCH", one, m{"expires": "1970-01-01T00:00:00Z"})
	try(422, "PATCH", one, m{"expires": "2199-01-01T00:00:00Z", "never_expires": true})
	try(404, "PATCH", "/passwords/4711", m{"label": "x"})
	try(404, "GET", "/passwords/4711", nil)
	try(200, "POST", one+"/revoke", m{"why": "lost"})
	try(200, "POST", one+"/revoke", nil)
	try(422, "POST", one+"/revoke", m{"why": "a\u202eb"})
	try(404, "POST", "/passwords/4711/revoke", nil)
	try(409, "PATCH", one, m{"label": "x"})
	try(200, "POST", alice+"/passwords/revoke", m{})
	try(404, "POST", nobody+"/passwords/revoke", nil)
	if r := try(200, "GET", alice+"/passwords?ended=true", nil); r.get("app_passwords.0.state") != "revoked" || r.get("app_passwords.0.why") != "lost" {
		t.Errorf("ended: %s", r.text)
	}
	try(201, "POST", "/accounts/bob@example.test/passwords", m{"label": "Phone", "for": "mail"})
	if r := try(200, "POST", "/domains/example.test/passwords/revoke", m{"why": "move"}); r.get("accounts") != "1" || r.get("left") != "0" {
		t.Errorf("the domain: %s", r.text)
	}
	// policies
	try(201, "POST", "/accounts", m{"address": "eve@strict.example.test"})
	try(422, "POST", "/accounts/eve@strict.example.test/passwords", m{"label": "x", "for": "mail"})
	try(201, "POST", "/accounts/eve@strict.example.test/passwords", m{"label": "x", "for": "mail", "beyond_policy": true})

	// the portal
	if r := try(201, "POST", alice+"/invitation", nil); !strings.HasPrefix(r.get("link"), "https://passwords.example.test/invitation/") || r.get("sets_primary_password") != "true" {
		t.Errorf("invited: %s", r.text)
	}
	try(201, "POST", alice+"/invitation", m{"new_factor": true})
	try(404, "POST", nobody+"/invitation", nil)
	try(200, "POST", alice+"/factors/reset", nil)
	try(404, "POST", nobody+"/factors/reset", nil)
	try(200, "POST", alice+"/sign-out", nil)
	try(404, "POST", nobody+"/sign-out", nil)

	// what other servers say
	try(200, "GET", alice+"/connections", nil)
	try(404, "GET", nobody+"/connections", nil)
	try(404, "DELETE", alice+"/connections/idp", nil)
	try(409, "GET", "/directory/look", nil)
	try(409, "POST", "/directory/look", nil)

	// connections
	try(200, "GET", "/sessions?account="+testlab.Alice+"&app_password="+made.get("id"), nil)
	try(404, "GET", "/sessions?account=nobody@example.test", nil)
	try(200, "POST", "/sessions/end", m{"account": testlab.Alice})
	try(404, "POST", "/sessions/end", m{"id": "nothing"})
	try(422, "POST", "/sessions/end", m{})
	try(422, "POST", "/sessions/end", m{"account": testlab.Alice, "app_password": 1})

	// the import and the webhook have tests of their own
	try(200, "POST", "/import", m{"accounts": []m{{"address": "dave@example.test"}}})
	try(422, "POST", "/import", m{"accounts": []m{{"adress": "dave@example.test"}}})
	try(200, "POST", "/import/csv?dry_run=true", "address\ndave@example.test\n", "Content-Type", "text/csv")
	try(422, "POST", "/import/csv", "dave@example.test\n", "Content-Type", "text/csv")
	try(200, "POST", "/primary-changed", m{"address": testlab.Alice})
	try(404, "POST", "/primary-changed", m{"address": "nobody@example.test"})
	try(422, "POST", "/primary-changed", m{})

	// history and gateway
	page := try(200, "GET", "/events?limit=2&kind=password.,account.added&actor=api:token0&since=2001-01-01T00:00:00Z&until=2199-01-01T00:00:00Z", nil)
	if page.get("events.1.id") != page.get("next") || page.get("events.2") != "" {
		t.Errorf("a page of history: %s", page.text)
	}
	if r := try(200, "GET", "/events?before="+page.get("next")+"&account="+testlab.Alice, nil); r.get("events.0.id") >= page.get("next") && len(r.get("events.0.id")) >= len(page.get("next")) {
		t.Errorf("the next page: %s", r.text)
	}
	try(404, "GET", "/events?account=nobody@example.test", nil)
	if r := try(200, "GET", "/health", nil); r.get("ready") != "true" || r.get("version") == "" {
		t.Errorf("health: %s", r.text)
	}
	if r := try(200, "GET", "/token", nil); r.get("name") != "token0" || r.get("scopes.0") != "everything" || strings.Contains(r.text, "postern_") {
		t.Errorf("token: %s", r.text)
	}
	if r := try(200, "GET", "/keys", nil); r.get("keys.0.number") != "1" {
		t.Errorf("keys: %s", r.text)
	}
	try(200, "DELETE", alice, nil)
	try(404, "DELETE", alice, nil)
	try(404, "DELETE", nobody+"/aliases/x@example.test", nil)

	l.unseen(seen)
	if text := l.log.String(); strings.Contains(text, "hunter2") || strings.Contains(text, made.get("secret")) || strings.Contains(text, all) {
		t.Error("a secret stands in the log")
	}
}

// operation is the document's name of what a request asks for.
func (l *lab) operation(method, path string) string {
	l.t.Helper()
	r, err := http.NewRequest(method, "http://api/api/v1"+path, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	route, _, err := l.router.FindRoute(r)
	if err != nil {
		l.t.Fatalf("%s %s: %v", method, path, err)
	}
	return route.Operation.OperationID
}

// unseen tells which answers of the document were never given. Those that every operation has, and what only another configuration or a
// backend that is down gives, have tests of their own.
func (l *lab) unseen(seen map[string]bool) {
	l.t.Helper()
	elsewhere := []string{"default", "401", "403", "429", "502"}
	other := []string{"sign-out 409", "invite 409", "reset-factors 409", "list-collections 409", "remove-connection 200", "last-look 200", "last-look 404", "look 200"}
	for _, item := range l.spec.Paths.Map() {
		for _, op := range item.Operations() {
			for _, status := range slices.Sorted(maps.Keys(op.Responses.Map())) {
				name := op.OperationID + " " + status
				if !slices.Contains(elsewhere, status) && !slices.Contains(other, name) && !seen[name] {
					l.t.Errorf("nobody saw %s", name)
				}
			}
		}
	}
}
