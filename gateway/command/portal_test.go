package command

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/gateway/view"
)

// withPortal is configured with a portal.
func withPortal(t *testing.T, more string) (file string) {
	t.Helper()
	file = configured(t)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), "listener = [", "listener = [\n  { protocol = \"portal\", address = \"127.0.0.1:8081\", tls = \"none\" },", 1) +
		"\n[portal]\nurl = \"https://passwords.example.test\"\n" + more
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestInvite(t *testing.T) {
	t.Parallel()
	file := withPortal(t, "")
	must := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := run(t, "", append(args, "-c", file)...)
		if code != 0 {
			t.Fatalf("%v: %d %s", args, code, stderr)
		}
		return stdout
	}
	must("account", "add", "alice@example.test")
	out := must("account", "invite", "alice@example.test")
	link := regexp.MustCompile(`(?m)^    https://passwords\.example\.test/invitation/[A-Z2-7]{26}$`)
	if !link.MatchString(out) || !strings.Contains(out, "It sets a new primary password and a new second factor.") || strings.Contains(out, "app password") {
		t.Errorf("invite says\n%s", out)
	}
	var v view.Invitation
	if err := json.Unmarshal([]byte(must("account", "invite", "alice@example.test", "--json")), &v); err != nil {
		t.Fatal(err)
	}
	if life := time.Until(v.Expires); v.Address != "alice@example.test" || !v.SetsPrimary || v.Revokes != 0 || life < 71*time.Hour || life > 72*time.Hour {
		t.Errorf("invite --json: %+v", v)
	}
	out = must("account", "show", "alice@example.test")
	for _, want := range []string{"primary       not set; its owner begins", "factors       none", "signed in     0", "invitation.made"} {
		if !strings.Contains(out, want) {
			t.Errorf("show lacks %q:\n%s", want, out)
		}
	}
	if out := must("account", "show", "alice@example.test", "--json"); !strings.Contains(out, `"primary_password": false`) {
		t.Errorf("show --json:\n%s", out)
	}
	if out := must("account", "sign-out", "alice@example.test"); out != "signed alice@example.test out of the portal: sessions ended: 0\n" {
		t.Errorf("sign-out says %q", out)
	}
	const next = "took away the second factors of alice@example.test; \"postern account invite alice@example.test --new-factor\" makes the link that sets up a new one\n"
	if out := must("account", "reset-factors", "alice@example.test", "--yes"); out != next {
		t.Errorf("reset-factors says %q", out)
	}
	if out := must("account", "show", "alice@example.test"); !strings.Contains(out, "factors.reset") {
		t.Errorf("the history lacks it:\n%s", out)
	}
}

// Where people sign in at a provider, who has lost his second factor sets up another one at the next sign-in; administrators too.
func TestResetFactors(t *testing.T) {
	t.Parallel()
	file := withPortal(t, "sign_in = \"oidc\"\n[portal.oidc]\nissuer = \"https://id.example.test\"\nclient_id = \"postern\"\n")
	for _, args := range [][]string{{"account", "add", "alice@example.test"}, {"account", "admin", "alice@example.test"}} {
		if code, _, stderr := run(t, "", append(args, "-c", file)...); code != 0 {
			t.Fatalf("%v: %d %s", args, code, stderr)
		}
	}
	if code, _, stderr := run(t, "n\n", "account", "reset-factors", "alice@example.test", "-c", file); code != 1 || !strings.Contains(stderr, "nothing was taken away") {
		t.Errorf("without a yes: %d %q", code, stderr)
	}
	code, stdout, stderr := run(t, "y\n", "account", "reset-factors", "alice@example.test", "-c", file)
	if code != 0 || stdout != "took away the second factors of alice@example.test; the next sign-in sets up a new one\n" {
		t.Errorf("reset-factors: %d %q %q", code, stdout, stderr)
	}
}

// Without a portal the commands say what to write.
func TestNoPortal(t *testing.T) {
	t.Parallel()
	file := configured(t)
	run(t, "", "account", "add", "alice@example.test", "-c", file)
	for _, command := range []string{"invite", "sign-out", "reset-factors"} {
		code, _, stderr := run(t, "", "account", command, "alice@example.test", "-c", file)
		if code != 1 || !strings.Contains(stderr, `write a [[listener]] with protocol = "portal"`) {
			t.Errorf("account %s: %d %q", command, code, stderr)
		}
	}
	if _, stdout, _ := run(t, "", "account", "show", "alice@example.test", "-c", file); strings.Contains(stdout, "primary") {
		t.Errorf("account show tells of a portal:\n%s", stdout)
	}
}

// Each thing that [portal] names is looked at.
func TestCheckPortal(t *testing.T) {
	t.Parallel()
	file := withPortal(t, "sign_in = \"imap\"\n[portal.imap]\naddress = \"127.0.0.1:1\"\ntls = \"none\"\n")
	if _, stdout, _ := run(t, "", "check", "-c", file); !strings.Contains(stdout, "FAIL  portal sign-in: 127.0.0.1:1: nobody listens there") {
		t.Errorf("check says\n%s", stdout)
	}
	file = withPortal(t, "breached_passwords = \"/nowhere/pwned.txt\"\n")
	if _, stdout, _ := run(t, "", "check", "-c", file); !strings.Contains(stdout, "FAIL  breached passwords: open /nowhere/pwned.txt") {
		t.Errorf("check says\n%s", stdout)
	}
}

// Who adds an account is told how its owner begins.
func TestAddSaysWhatIsNext(t *testing.T) {
	t.Parallel()
	imap := "[portal.imap]\naddress = \"127.0.0.1:1\"\ntls = \"none\"\n"
	for want, file := range map[string]string{
		"postern password create alice@example.test":                 configured(t),
		"a link for its owner: postern account invite alice":         withPortal(t, ""),
		"its owner signs in at https://passwords.example.test with ": withPortal(t, "sign_in = \"imap\"\n"+imap),
		"postern account invite alice@example.test\n":                withPortal(t, "sign_in = \"imap\"\nenrolment = \"invite\"\n"+imap),
	} {
		if code, stdout, stderr := run(t, "", "account", "add", "alice@example.test", "-c", file); code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("%d %s%s, want %q", code, stdout, stderr, want)
		}
	}
}

// oidc configures a provider that nobody can reach: it is not needed at the command line.
const oidc = "sign_in = \"oidc\"\n[portal.oidc]\nissuer = \"http://127.0.0.1:1/id\"\nclient_id = \"postern\"\nname = \"Example ID\"\n"

func TestTies(t *testing.T) {
	t.Parallel()
	file := withPortal(t, oidc)
	must := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := run(t, "", append(args, "-c", file)...)
		if code != 0 {
			t.Fatalf("%v: %d %s", args, code, stderr)
		}
		return stdout
	}
	fails := func(want string, args ...string) {
		t.Helper()
		code, _, stderr := run(t, "", append(args, "-c", file)...)
		if code != 1 || !strings.Contains(stderr, want) {
			t.Errorf("%v: %d %q, want %q", args, code, stderr, want)
		}
	}
	if out := must("account", "add", "alice@example.test"); !strings.Contains(out, "its owner signs in at https://passwords.example.test with Example ID\n") {
		t.Errorf("add says %q", out)
	}
	must("account", "add", "bob@example.test")
	fails("nobody needs a link: people sign in at https://passwords.example.test with Example ID", "account", "invite", "alice@example.test")
	if out := must("account", "tie", "alice@example.test", "a-1"); out != "bound alice@example.test to a-1 of http://127.0.0.1:1/id; sessions ended: 0\n" {
		t.Errorf("tie says %q", out)
	}
	fails("or a-1 to another account", "account", "tie", "bob@example.test", "a-1")
	must("account", "tie", "alice@example.test", "a-2", "--issuer", "https://old.example.test")
	out := must("account", "show", "alice@example.test")
	for _, want := range []string{"bound to      a-1 of http://127.0.0.1:1/id\n", "bound to      a-2 of https://old.example.test\n", "primary       none here", "tie.made"} {
		if !strings.Contains(out, want) {
			t.Errorf("show lacks %q:\n%s", want, out)
		}
	}
	if out := must("account", "ties", "alice@example.test"); !strings.Contains(out, "ISSUER") || !strings.Contains(out, "a-2") {
		t.Errorf("ties says\n%s", out)
	}
	if out := must("account", "untie", "alice@example.test", "--json"); !strings.Contains(out, `"ended": 0`) {
		t.Errorf("untie says %q", out)
	}
	fails("is bound to nobody of http://127.0.0.1:1/id", "account", "untie", "alice@example.test")
	if out := must("account", "ties", "alice@example.test", "--json"); strings.Contains(out, "a-1") || !strings.Contains(out, `"subject": "a-2"`) {
		t.Errorf("ties says\n%s", out)
	}
	if _, stdout, _ := run(t, "", "check", "-c", file); !strings.Contains(stdout, "portal sign-in: http://127.0.0.1:1/id: ") || !strings.Contains(stdout, "connection refused") {
		t.Errorf("check says\n%s", stdout)
	}
	file = withPortal(t, "sign_in = \"ldap\"\n[portal.ldap]\naddress = \"127.0.0.1:1\"\ntls = \"none\"\nbase = \"dc=example\"\n")
	must("account", "add", "alice@example.test")
	fails("nobody listens there", "account", "tie", "alice@example.test", "4711") // the directory is asked whether it knows him
	fails("is bound to nobody of ldap", "account", "untie", "alice@example.test")
	file = withPortal(t, "")
	must("account", "add", "alice@example.test")
	fails("people sign in here, at no other server", "account", "tie", "alice@example.test", "a-1")
}
