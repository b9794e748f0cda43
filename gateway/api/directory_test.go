package api_test

import (
	"fmt"
	"strings"
	"testing"

	"postern/authstore/apitoken"
	"postern/gateway/api"
	"postern/internal/testlab"
)

// A look into the directory is made by who may suspend accounts, and read by who may read them.
func TestDirectoryLook(t *testing.T) {
	t.Parallel()
	s := testlab.Slapd(t, 12)
	l := newLab(t, "", `portal = { url = "https://passwords.example.test" }`, "",
		"[[policy]]", fmt.Sprintf(`[portal]
url = "https://passwords.example.test"
sign_in = "ldap"
[portal.ldap]
address = %q
ca_file = %q
bind_dn = %q
password_file = %q
base = %q
look_every = "0s"
[[policy]]`, s.TLS, s.CA.File, testlab.SlapdReader, s.PasswordFile, testlab.SlapdPeople))
	l.document()
	read, write := l.token(apitoken.AccountsRead), l.token(apitoken.AccountsWrite)
	l.must(404, request{method: "GET", path: "/directory/look", token: read})
	list, err := l.desk.ListDirectory(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	var accounts []api.WantedAccount
	for _, w := range list {
		accounts = append(accounts, api.WantedAccount{Address: w.Address, Issuer: w.Issuer, Subject: w.Subject})
	}
	l.must(200, request{method: "POST", path: "/import", body: m{"accounts": accounts}, token: write})
	// a slip in a subject must not suspend the account at the next look
	slip := api.WantedAccount{Address: "slip@example.test", Issuer: "ldap", Subject: "00000000-0000-0000-0000-000000000000"}
	if r := l.must(200, request{method: "POST", path: "/import", body: m{"accounts": []api.WantedAccount{slip}}, token: write}); r.get("wrong") != "1" || !strings.Contains(r.text, "the directory has nobody with the entryUUID") {
		t.Errorf("an import of somebody who is not there: %s", r.text)
	}
	admins := l.token(apitoken.Everything)
	if r := l.must(422, request{method: "POST", path: "/accounts/u1@example.test/ties", body: m{"issuer": "ldap", "subject": slip.Subject}, token: admins}); !strings.Contains(r.text, "the directory has nobody") {
		t.Errorf("a tie to somebody who is not there: %s", r.text)
	}
	l.must(403, request{method: "POST", path: "/directory/look", token: read})
	if r := l.must(200, request{method: "POST", path: "/directory/look", token: write}); r.get("accounts") != fmt.Sprint(len(list)) || r.get("lost") != "0" || r.get("problem") != "" {
		t.Errorf("all there: %s", r.text)
	}
	gone := "u0@example.test"
	s.Delete("uid=u0," + testlab.SlapdPeople)
	for range 2 { // nothing is changed by the first
		if r := l.must(200, request{method: "POST", path: "/directory/look", body: m{"dry_run": true}, token: write}); r.get("lost") != "1" || r.get("dry") != "true" || r.get("named.0.address") != gone {
			t.Errorf("a dry run: %s", r.text)
		}
	}
	l.must(200, request{method: "POST", path: "/directory/look", body: m{"accept_losses": true}, token: write})
	if r := l.must(200, request{method: "GET", path: "/directory/look", token: read}); r.get("lost") != "1" || r.get("named.0.what") != "gone" {
		t.Errorf("the last: %s", r.text)
	}
	if r := l.must(200, request{method: "GET", path: "/accounts/" + gone, token: read}); r.get("status") != "gone" {
		t.Errorf("the account: %s", r.text)
	}
}
