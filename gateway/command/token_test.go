package command

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"postern/authstore"
	"postern/authstore/apitoken"
	"postern/gateway"
	"postern/gateway/view"
)

// lines are a shell that tells what went otherwise.
type lines struct {
	t    *testing.T
	file string
}

func (l lines) ok(want string, args ...string) string {
	l.t.Helper()
	code, stdout, stderr := run(l.t, "", append(args, "-c", l.file)...)
	if code != 0 || !strings.Contains(stdout, want) {
		l.t.Fatalf("postern %s: %d %q %q; want %q", strings.Join(args, " "), code, stdout, stderr, want)
	}
	return stdout
}

func (l lines) fails(code int, want string, args ...string) string {
	l.t.Helper()
	got, stdout, stderr := run(l.t, "", append(args, "-c", l.file)...)
	if got != code || !strings.Contains(stderr, want) {
		l.t.Errorf("postern %s: %d %q %q; want %d %q", strings.Join(args, " "), got, stdout, stderr, code, want)
	}
	return stdout
}

func TestToken(t *testing.T) {
	t.Parallel()
	l := lines{t, configured(t)}
	out := l.ok("Token keycloak, expires never, may: primary:changed.", "token", "create", "keycloak", "--scope", "primary:changed")
	secret := regexp.MustCompile(`postern_[a-z2-7]{38}`).FindString(out)
	if secret == "" || !strings.Contains(out, "http://127.0.0.1:9180/api/v1") {
		t.Errorf("create says\n%s", out)
	}
	var made view.Token
	if err := json.Unmarshal([]byte(l.ok(`"secret"`, "token", "create", "script-2", "--scope", "passwords:write,accounts:read", "--scope", "accounts:read", "--expires", "90d", "--json")), &made); err != nil {
		t.Fatal(err)
	}
	if made.Name != "script-2" || strings.Join(made.Scopes, " ") != "accounts:read passwords:write" || made.Expires == nil || len(made.Secret) != 46 {
		t.Errorf("made %+v", made)
	}
	if list := l.ok("primary:changed", "token", "list"); strings.Contains(list, secret[8:]) || !strings.Contains(list, "script-2") {
		t.Errorf("list:\n%s", list)
	}
	if list := l.ok(`"name": "keycloak"`, "token", "list", "--json"); strings.Contains(list, "secret") {
		t.Errorf("list --json:\n%s", list)
	}
	l.fails(1, `there is a token "keycloak" already`, "token", "create", "keycloak", "--scope", "everything")
	l.fails(1, "a token's name has 1 to 64 small letters", "token", "create", "Key Cloak", "--scope", "everything")
	l.fails(2, `unknown scope "accounts:all"; the scopes are accounts:read`, "token", "create", "x", "--scope", "accounts:all")
	l.fails(2, `"scope" not set`, "token", "create", "x")
	l.fails(2, "neither never", "token", "create", "x", "--scope", "everything", "--expires", "soon")
	l.ok("revoked token keycloak", "token", "revoke", "keycloak")
	l.ok(`"revoked": "script-2"`, "token", "revoke", "script-2", "--json")
	l.fails(1, `there is no token "keycloak"`, "token", "revoke", "keycloak")
	l.ok("[]", "token", "list", "--json")
	for _, s := range apitoken.Scopes {
		if _, _, help := run(t, "", "token", "create"); help == "" {
			t.Error("no help")
		}
		if _, help, _ := run(t, "", "token", "create", "--help"); !strings.Contains(help, string(s.Scope)+" ") {
			t.Errorf("the help lacks %s", s.Scope)
		}
	}
}

// The same file again changes nothing, a wrong line stops all, and a dry run says what would be done.
func TestAccountImport(t *testing.T) {
	t.Parallel()
	l := lines{t, configured(t)}
	list := filepath.Join(t.TempDir(), "people.csv")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l.ok("added", "account", "add", "alice@example.test")
	write("\ufeffaddress;aliases;backend_name;issuer;subject\r\nAlice@Example.test;al@example.test;u17;ldap;4711\r\nbob@example.test;;;;\r\n")
	out := l.ok("nothing was done; it would be: 1 added, 1 changed, 0 unchanged, 0 wrong", "account", "import", list, "--dry-run")
	for _, want := range []string{"line 2: changed alice@example.test: alias al@example.test, backend name u17, tie to ldap\n", "line 3: added bob@example.test\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("the dry run lacks %q:\n%s", want, out)
		}
	}
	if accounts := l.ok("alice", "account", "list"); strings.Contains(accounts, "bob") {
		t.Errorf("the dry run did something:\n%s", accounts)
	}
	l.ok("done: 1 added, 1 changed, 0 unchanged, 0 wrong", "account", "import", list)
	if again := l.ok("done: 0 added, 0 changed, 2 unchanged, 0 wrong", "account", "import", list); strings.Contains(again, "line") {
		t.Errorf("again:\n%s", again)
	}
	shown := l.ok("bound to      4711 of ldap", "account", "show", "alice@example.test")
	for _, want := range []string{"al@example.test", "u17", "tie.made"} {
		if !strings.Contains(shown, want) {
			t.Errorf("show lacks %q:\n%s", want, shown)
		}
	}
	// who has a new main address elsewhere is known by the tie
	write("address,issuer,subject\nalice.new@example.test,ldap,4711\n")
	l.ok("line 2: changed alice@example.test: alias alice.new@example.test", "account", "import", list)

	wrong := "address,aliases,issuer,subject\n" +
		"carol@example.test,,,\n" + // good
		"al@example.test,,,\n" +
		"dave@example.test,bob@example.test,,\n" +
		"erin@example.test,,ldap,\n" +
		"not an address,,,\n" +
		"carol@example.test,,,\n" +
		"bob@example.test,,ldap,4711\n" +
		"alice@example.test,,ldap,4712\n" +
		"frank@example.test,,ldap,1\n" +
		"grace@example.test,,ldap,1\n" +
		"\u0430lice@example.test,,,\n"
	write(wrong)
	out = l.fails(1, "nothing was imported, for some lines are wrong; mend them, or leave them out with --skip-wrong", "account", "import", list)
	for _, want := range []string{
		"line 3: wrong al@example.test: al@example.test is an alias of alice@example.test already",
		"line 4: wrong dave@example.test: bob@example.test is a name of bob@example.test already",
		"line 5: wrong erin@example.test: an issuer needs a subject, and a subject an issuer",
		`line 6: wrong not an address: "not an address": not an address such as`,
		"line 7: wrong carol@example.test: carol@example.test stands at line 2 already",
		"line 8: wrong bob@example.test: bob@example.test is a name of bob@example.test, but that subject belongs to alice@example.test",
		"line 9: wrong alice@example.test: alice@example.test belongs to another person at ldap",
		"line 11: wrong grace@example.test: that subject stands at line 10 already",
		"line 12: wrong \u0430lice@example.test: ",
		"2 added, 0 changed, 0 unchanged, 9 wrong",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the report lacks %q:\n%s", want, out)
		}
	}
	if accounts := l.ok("bob", "account", "list"); strings.Contains(accounts, "carol") {
		t.Errorf("some of it was done:\n%s", accounts)
	}
	l.fails(1, "without --dry-run nothing would be imported", "account", "import", list, "--dry-run")
	var v view.Import
	if err := json.Unmarshal([]byte(l.ok(`"done": true`, "account", "import", list, "--skip-wrong", "--json")), &v); err != nil || v.Added != 2 || v.Wrong != 9 || v.Lines[0].Outcome != "wrong" || v.Lines[10].Where != "line 10" {
		t.Errorf("with --skip-wrong: %+v, %v", v, err)
	}
	l.ok("carol@example.test", "account", "list")
	l.fails(1, "no such file", "account", "import", list+"x")
	if code, stdout, stderr := run(t, "address\nheidi@example.test\n", "account", "import", "-", "-c", l.file); code != 0 || !strings.Contains(stdout, "1 added") {
		t.Errorf("from standard input: %d %s %s", code, stdout, stderr)
	}
}

// Thousands are imported in batches, none twice.
func TestLargeImport(t *testing.T) {
	t.Parallel()
	file := configured(t)
	cfg, err := loadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	d, err := gateway.OpenDesk(t.Context(), cfg, authstore.Actor{Name: "test"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var b strings.Builder
	b.WriteString("address,aliases\n")
	for i := range 1001 {
		n := string(rune('a'+i/26/26)) + string(rune('a'+i/26%26)) + string(rune('a'+i%26))
		b.WriteString("u" + n + "@example.test,v" + n + "@example.test\n")
	}
	for _, want := range []gateway.Outcome{gateway.Added, gateway.Unchanged} {
		list, err := gateway.ReadAccountList(strings.NewReader(b.String()))
		if err != nil {
			t.Fatal(err)
		}
		plan, err := d.PlanImport(t.Context(), list, nil)
		if err != nil || plan.Count(want) != 1001 {
			t.Fatalf("%d are %s, %v", plan.Count(want), want, err)
		}
		if err := d.ApplyImport(t.Context(), authstore.Actor{Name: "test"}, plan, false); err != nil || !plan.Done {
			t.Fatal(err)
		}
	}
	if n, _, err := d.Count(t.Context(), authstore.AccountQuery{Text: "v"}); err != nil || n != 1001 {
		t.Errorf("%d accounts have their alias, %v", n, err)
	}
}

func TestPrimaryChanged(t *testing.T) {
	t.Parallel()
	l := lines{t, configured(t)}
	l.ok("added", "account", "add", "alice@example.test")
	l.ok("It is shown only now", "password", "create", "alice@example.test", "-l", "Phone", "--for", "mail")
	if code, _, stderr := run(t, "n\n", "account", "primary-changed", "alice@example.test", "-c", l.file); code != 1 ||
		!strings.Contains(stderr, "Revoke all 1 active app passwords of alice@example.test and end all sessions? [y/N]") || !strings.Contains(stderr, "nothing was revoked") {
		t.Errorf("not sure: %d %s", code, stderr)
	}
	l.ok("active", "password", "list", "alice@example.test")
	l.ok("revoked 1 app passwords of alice@example.test and ended all sessions: confirmed everywhere", "account", "primary-changed", "alice@example.test", "--yes")
	l.ok("primary.changed", "account", "show", "alice@example.test")
	l.ok(`"revoked_app_passwords": 0`, "account", "primary-changed", "alice@example.test", "--yes", "--json")
	l.fails(1, `there is no account "eve@example.test"`, "account", "primary-changed", "eve@example.test", "--yes")
}

// "check" says where the API is.
func TestCheckTellsOfTheAPI(t *testing.T) {
	t.Parallel()
	l := lines{t, withPortal(t, "[api]\nlisteners = [\"operations\", \"portal\"]\n[operations]\naddress = \"unix:/run/x.sock\"\n")}
	l.ok("to http://localhost/api/v1 on the socket /run/x.sock and https://passwords.example.test/api/v1.", "token", "create", "one", "--scope", "everything")
	_, out, _ := run(t, "", "check", "-c", l.file)
	if !strings.Contains(out, "ok    api: http://localhost/api/v1 on the socket /run/x.sock and https://passwords.example.test/api/v1, tokens: 1\n") {
		t.Errorf("check says\n%s", out)
	}
}
