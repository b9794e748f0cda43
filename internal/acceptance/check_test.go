package acceptance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testlab"
)

// What "postern check" says about real backends, and that its words lead to what is wrong.
func TestCheck(t *testing.T) {
	t.Parallel()
	s, dovecot, _ := full(t)
	good := s.backend
	ports := testlab.Ports(t, 4)
	s.cli(s.writeConfig(ports), "init")
	check := func(backend string) (string, error) {
		s.backend = backend
		out, err := testlab.Command(t, s.program, "check", "-c", s.writeConfig(ports)).CombinedOutput()
		return string(out), err
	}
	if out, err := check(good); err != nil || strings.Count(out, "the login was not tried") != 2 {
		t.Errorf("without an account: %v\n%s", err, out)
	}
	s.cli(s.writeConfig(ports), "account", "add", alice)
	if out, err := check(good); err != nil || strings.Count(out, "logged in for "+alice) != 2 || strings.Contains(out, "FAIL") {
		t.Errorf("all is well: %v\n%s", err, out)
	}
	if out, err := check(good[:strings.Index(good, "\n[[backend]]\nname = \"radicale\"")]); err == nil || !strings.Contains(out, ": no backend serves dav; write a [[backend]]") {
		t.Errorf("without a backend for DAV: %v\n%s", err, out)
	}
	wrong := filepath.Join(s.dir, "wrong")
	if err := os.WriteFile(wrong, []byte("wrong\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(s.dir, "open")
	if err := os.WriteFile(open, []byte("open\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	password := filepath.Join(s.dir, "dovecot.password")
	for name, tt := range map[string]struct{ old, new, want string }{
		"wrong master password":    {password, wrong, "it refuses the login; a wrong password in password_file"},
		"no such master user":      {`"` + dovecot.MasterUser + `"`, `"nobody"`, "a wrong user"},
		"password file for all":    {password, open, "can be read by everybody; run: chmod 0400"},
		"no password file":         {password, password + "s", "no such file or directory"},
		"another authority":        {dovecot.CAFile, s.ca.File, "signed by an authority that this machine does not know"},
		"another name":             {`credential = "master"`, "server_name = \"mail.example.test\"\ncredential = \"master\"", "set server_name to a name that stands in it"},
		"TLS where there is none":  {`"starttls"`, `"implicit"`, `set tls = "starttls"`},
		"an account it lacks":      {`credential = "master"`, "login = \"no-{local}\"\ncredential = \"master\"", "no-alice"},
		"unknown host":             {`"` + dovecot.IMAP + `"`, `"nowhere.invalid:143"`, "there is no such host"},
		"header not believed":      {`credential = "header"`, "credential = \"header\"\nheader = \"X-User\"", "it does not take the account's name from the header X-User"},
		"a domain without a route": {good, good + "\n[[route]]\ndomain = \"example.org\"\nprotocol = \"imap\"\nbackend = \"dovecot\"\n", "routes of imap: none leads " + alice + " anywhere; write [[route]] with protocol = \"imap\" and domain = \"example.test\""},
		"wrong principal":          {`credential = "header"`, "credential = \"header\"\nprincipal = \"/{login}/no/such/\"", "principal"},
	} {
		t.Run(name, func(t *testing.T) {
			backend := strings.Replace(good, tt.old, tt.new, 1)
			if backend == good {
				t.Fatalf("%q does not stand in\n%s", tt.old, good)
			}
			out, err := check(backend)
			if err == nil || strings.Count(out, "FAIL  ") != 1 || !strings.Contains(out, tt.want) {
				t.Errorf("%v, want one FAIL with %q:\n%s", err, tt.want, out)
			}
			if strings.Contains(out, dovecot.MasterPassword) {
				t.Error("the master password is shown")
			}
		})
	}
}
