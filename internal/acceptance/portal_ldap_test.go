package acceptance

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"postern/internal/testlab"
)

// People of a directory: whom it knows can be imported or sign in, whom it does not know any more is suspended until he is back, and a directory
// that fails or has lost its people changes nothing.
func TestPortalSignInByLDAP(t *testing.T) {
	t.Parallel()
	d := testlab.Slapd(t, 0)
	d.AddPerson("dora", "grüße an Dora", "dora@example.test", "dorothea@example.test")
	s := portalBesideDAV(t, fmt.Sprintf(`sign_in = "ldap"
[portal.ldap]
address = %q
tls = "starttls"
ca_file = %q
server_name = "ldap.example.test"
bind_dn = %q
password_file = %q
base = %q
disabled_filter = "(pwdAccountLockedTime=000001010000Z)"
look_every = "10s"
[provisioning]
domains = ["example.test"]
`, d.Addr, d.CA.File, testlab.SlapdReader, d.PasswordFile, testlab.SlapdPeople))
	g := s.serve()
	// tried runs the command line where it may say that something is wrong.
	tried := func(args ...string) string {
		cmd := testlab.Command(t, s.program, append(args, "-c", g.config)...)
		cmd.Env = append(cmd.Env, noSleep)
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	says := func(what, out string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Errorf("%s lacks %q:\n%s", what, want, out)
			}
		}
	}
	says("check", tried("check"), "ok    directory: "+d.Addr+" answers")
	signIn := func(address, password string) (*http.Response, string) {
		t.Helper()
		return visit(t, func() (*http.Response, error) {
			return s.browser(strings.TrimPrefix(strings.Replace(g.DAV, "localhost", "127.0.0.1", 1), "https://")).
				PostForm("https://"+portalName+"/sign-in", url.Values{"address": {address}, "password": {password}})
		})
	}
	wants := func(what, address, password, path, words string) {
		t.Helper()
		if resp, text := signIn(address, password); resp.Request.URL.Path != path || !strings.Contains(text, words) {
			t.Errorf("%s leads to %s, %s, without %q:\n%s", what, resp.Status, resp.Request.URL.Path, words, text)
		}
	}

	const wrong = "The address or the password is wrong."
	filter := "(|(uid=alice)(uid=bob)(uid=carol))"
	says("a dry import", s.cli(g.config, "account", "import", "--from", "ldap", "--filter", filter, "--dry-run"), "added alice@example.test: tie to ldap", "3 added")
	says("the import", s.cli(g.config, "account", "import", "--from", "ldap", "--filter", filter), "done: 3 added")
	says("the next", s.cli(g.config, "account", "import", "--from", "ldap", "--filter", filter), "3 unchanged")
	says("a tie to nobody", tried("account", "tie", carol, "f3c1e2d4"), "the directory has nobody with the entryUUID")
	says("no tie", s.cli(g.config, "account", "untie", carol), "bound to nobody of ldap any more")
	says("the tie again", s.cli(g.config, "account", "import", "--from", "ldap", "--filter", filter), "1 changed")
	says("an account", s.cli(g.config, "account", "show", carol), "the directory of [portal.ldap] has it; nobody has signed in yet")
	says("a filter without a directory", tried("account", "import", "--filter", filter, "-"), "--filter needs --from ldap")
	wants("the primary password", alice, testlab.Primary(alice), "/set-up", "")
	wants("a wrong one", alice, "wrong", "/sign-in", wrong)
	wants("none", alice, "", "/sign-in", "problem")
	wants("a filter for a name", "*", testlab.Primary(alice), "/sign-in", wrong)
	wants("who is provisioned, by an alias", "dorothea@example.test", "grüße an Dora", "/set-up", "")
	says("her account", s.cli(g.config, "account", "show", "dora@example.test"), "address       dorothea@example.test", "aliases       dora@example.test")

	p := s.password(g.config, alice, "--for", "calendar")
	revoked := func() bool {
		return strings.Contains(s.cli(g.config, "password", "show", fmt.Sprint(p.ID)), "revoked")
	}
	says("a look", s.cli(g.config, "directory", "look"), "4 bound to people of the directory, 4 of these are there")
	d.Set(testlab.PersonDN("alice"), "userPassword", "another one")
	eventually(t, "the gateway has heard of the changed primary password", revoked) // by its own look

	bob := testlab.Bob
	locked := func() bool { return strings.Contains(s.cli(g.config, "account", "show", bob), "status        gone") }
	d.Set(testlab.PersonDN("bob"), "pwdAccountLockedTime", "000001010000Z")
	tried("directory", "look") // or the gateway does at this moment
	eventually(t, "bob is suspended", locked)
	wants("who is disabled", bob, testlab.Primary(bob), "/sign-in", wrong)
	d.Set(testlab.PersonDN("bob"), "pwdAccountLockedTime")
	tried("directory", "look")
	eventually(t, "bob is back", func() bool { return !locked() })
	wants("who is back", bob, testlab.Primary(bob), "/set-up", "")
	says("his history", s.cli(g.config, "account", "show", bob), "account.gone", "account.returned", "directory")

	// the directory is down, and nothing follows
	q := s.password(g.config, bob, "--for", "calendar")
	d.Kill()
	if resp, text := signIn(bob, testlab.Primary(bob)); resp.Request.URL.Path != "/sign-in" || strings.Contains(text, wrong) {
		t.Errorf("without the directory the sign-in says\n%s", text)
	}
	says("a look without the directory", tried("directory", "look"), "nobody listens there")
	eventually(t, "the status tells of the outage", func() bool { return strings.Contains(tried("directory", "status"), "PROBLEM") })
	says("a check without the directory", tried("check"), "FAIL  directory: ", "nobody listens there", "FAIL  directory look: ")
	d.Start()
	wants("the directory is back", bob, testlab.Primary(bob), "/set-up", "")

	// it has lost half of its people
	d.Delete(testlab.PersonDN("bob"))
	d.Delete(testlab.PersonDN("carol"))
	says("a look at the losses", tried("directory", "look", "--dry-run"), "2 of 4 people are suddenly gone", "--accept-losses")
	if locked() {
		t.Error("bob is suspended though half of the directory was lost")
	}
	says("a dry look that believes it", s.cli(g.config, "directory", "look", "--dry-run", "--accept-losses"), "2 accounts of people who are gone or disabled would be suspended", "gone        "+bob)
	eventually(t, "the losses are accepted", func() bool {
		return strings.Contains(tried("directory", "look", "--accept-losses"), "2 of these are there")
	})
	if !locked() || !strings.Contains(s.cli(g.config, "password", "show", fmt.Sprint(q.ID)), "active") {
		t.Error("bob is not suspended, or has lost his app password")
	}
	for _, secret := range []string{testlab.Primary(alice), "another one", "Dora\"", d.Password} {
		if strings.Contains(g.Output(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
	g.Terminate()
}
