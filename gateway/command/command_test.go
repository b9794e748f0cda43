package command

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/gateway/view"
)

// run executes a command line in this process.
func run(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	code = Run(ctx, args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

// configured writes a configuration whose backends nobody serves, and makes its keys.
func configured(t *testing.T) (file string) {
	t.Helper()
	dir := t.TempDir()
	file = filepath.Join(dir, "postern.toml")
	text := `hostname = "mail.example.test"
listener = [
  { protocol = "imap", address = "127.0.0.1:993", tls = "none" },
  { protocol = "dav", address = "127.0.0.1:8080", tls = "none" },
]
store = { database = "` + dir + `/postern.db", key_file = "` + dir + `/root.key", ballast = "0" }
[[backend]]
name = "dovecot"
protocol = "imap"
address = "127.0.0.1:1"
tls = "none"
credential = "stored"
[[backend]]
name = "radicale"
protocol = "dav"
address = "127.0.0.1:1"
tls = "none"
credential = "header"
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := run(t, "", "init", "-c", file); code != 0 {
		t.Fatal(stderr)
	}
	return file
}

// Who runs two gateways on a machine learns which key the address belongs to that no line of theirs names.
func TestOperationsAddressInUse(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	file := configured(t)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte(":993"), []byte(":0"), 1)
	text = bytes.Replace(text, []byte("127.0.0.1:8080"), []byte("[::1]:0"), 1)
	if err := os.WriteFile(file, append(text, "[operations]\naddress = \""+ln.Addr().String()+"\"\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := run(t, "", "serve", "-c", file); code != 1 || !strings.Contains(stderr, ln.Addr().String()+" (address of [operations])") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}

func TestFaultsOfTheCommandLine(t *testing.T) {
	t.Parallel()
	file := configured(t)
	for name, tt := range map[string]struct {
		args []string
		code int
		want string
	}{
		"unknown command":      {[]string{"sevre"}, 2, "unknown command"},
		"unknown flag":         {[]string{"serve", "--port", "1"}, 2, `see "postern serve --help"`},
		"missing argument":     {[]string{"account", "add", "-c", file}, 2, "accepts 1 arg(s), received 0: postern account add ADDRESS"},
		"no configuration":     {[]string{"account", "list", "-c", "/nowhere"}, 1, `"postern config example" prints one`},
		"nobody":               {[]string{"account", "show", "eve@example.test", "-c", file}, 1, `there is no account "eve@example.test"`},
		"no address":           {[]string{"account", "add", "eve", "-c", file}, 1, "not an address"},
		"no password":          {[]string{"password", "show", "99", "-c", file}, 1, "there is no app password 99"},
		"a label for a number": {[]string{"password", "revoke", "Thunderbird", "-c", file}, 2, "is not the number of an app password"},
		"unknown preset":       {[]string{"password", "create", "eve@example.test", "--label", "x", "--for", "emails", "-c", file}, 2, "the presets are everything, mail"},
		"preset and scopes":    {[]string{"password", "create", "eve@example.test", "--label", "x", "--for", "mail", "--scopes", "mail", "-c", file}, 2, "--for and --scopes both say what it opens; leave one"},
		"neither":              {[]string{"password", "create", "eve@example.test", "--label", "x", "-c", file}, 2, "say what it opens, with --for: everything, "},
		"no label":             {[]string{"password", "create", "eve@example.test", "--for", "mail", "-c", file}, 2, `"label" not set; see "postern password create --help"`},
		"a bad expiry":         {[]string{"password", "create", "eve@example.test", "--label", "x", "--for", "mail", "--expires", "soon", "-c", file}, 2, "neither never, a number of days"},
		"an expiry gone by":    {[]string{"password", "create", "eve@example.test", "--label", "x", "--for", "mail", "--expires", "2001-01-01", "-c", file}, 2, "has passed already"},
		"a bad network":        {[]string{"password", "create", "eve@example.test", "--label", "x", "--for", "mail", "--network", "home", "-c", file}, 2, "neither an address nor a network"},
		"keys made twice":      {[]string{"init", "-c", file}, 1, "are there already; nothing was changed"},
		"retire the only key":  {[]string{"key", "retire", "1", "-c", file}, 1, "key 1"},
		"nobody answers":       {[]string{"healthcheck", "-c", file}, 1, "no gateway answers on 127.0.0.1:9180"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := run(t, "", tt.args...)
			if code != tt.code || !strings.Contains(stderr, tt.want) || stdout != "" {
				t.Errorf("exit code %d, %q, %q; want %d with %q", code, stdout, stderr, tt.code, tt.want)
			}
		})
	}
}

// An administrator's day: each step's words, and the same as JSON.
func TestAccountsAndPasswords(t *testing.T) {
	t.Parallel()
	file := configured(t)
	ok := func(want string, args ...string) string {
		t.Helper()
		code, stdout, stderr := run(t, "", append(args, "-c", file)...)
		if code != 0 || !strings.Contains(stdout, want) {
			t.Fatalf("postern %s: %d %q %q; want %q", strings.Join(args, " "), code, stdout, stderr, want)
		}
		return stdout
	}
	ok("added alice@example.test", "account", "add", "Alice@Example.test")
	if code, _, stderr := run(t, "", "account", "add", "alice@example.test", "-c", file); code != 1 || !strings.Contains(stderr, "belongs to an account already") {
		t.Errorf("twice: %d %q", code, stderr)
	}
	ok("added alias al@example.test: confirmed everywhere", "account", "alias", "add", "alice@example.test", "al@example.test")
	created := ok("It is shown only now", "password", "create", "al@example.test", "-l", "Thunderbird", "--for", "everything")
	for _, want := range []string{"IMAP         mail.example.test, port 993, no encryption", "DAV          http://mail.example.test:8080/dav/", "user name    alice@example.test", "(mail submit sieve calendar contacts schedule)"} {
		if !strings.Contains(created, want) {
			t.Errorf("password create lacks %q:\n%s", want, created)
		}
	}
	var made view.Password
	if err := json.Unmarshal([]byte(ok(`"secret"`, "password", "create", "alice@example.test", "-l", "Tablet", "--scopes", "calendar:read", "--expires", "90d", "--network", "192.0.2.1", "--json")), &made); err != nil {
		t.Fatal(err)
	}
	if made.ID != 2 || len(made.Secret) != 23 || made.Expires == nil || made.Networks[0] != "192.0.2.1/32" || made.Scopes[0] != "calendar:read" {
		t.Errorf("created %+v", made)
	}
	list := ok("Thunderbird", "password", "list", "alice@example.test")
	if strings.Contains(list, made.Secret) || !strings.Contains(list, "calendar:read") || !strings.Contains(list, "never") {
		t.Errorf("list:\n%s", list)
	}
	if shown := ok("192.0.2.1/32", "password", "show", "2"); strings.Contains(shown, made.Secret) || !strings.Contains(shown, "refused    -\n") {
		t.Errorf("show tells the secret, or not how often it was refused:\n%s", shown)
	}
	ok("revoked app password 2: confirmed everywhere", "password", "revoke", "2", "--why", "lost")
	ok("revoked app password 2: confirmed everywhere", "password", "revoke", "2")
	ok(`"state": "revoked"`, "password", "list", "alice@example.test", "--all", "--json")
	ok(`"unconfirmed_nodes": []`, "password", "revoke", "2", "--json")
	ok("revoked all app passwords", "password", "revoke-all", "alice@example.test")
	ok("suspended alice@example.test", "account", "suspend", "alice@example.test")
	ok("suspended", "account", "list")
	ok("resumed alice@example.test", "account", "resume", "alice@example.test")
	ok("password.revoked", "account", "show", "alice@example.test")
	ok(`"kind": "password.revoked"`, "account", "show", "alice@example.test", "--json")
	ok("made alice@example.test an administrator: confirmed everywhere", "account", "admin", "alice@example.test")
	ok("administrator yes", "account", "show", "alice@example.test")
	ok(`"administrator": true`, "account", "list", "--json")
	ok("account.admin_made", "account", "show", "alice@example.test")
	ok("alice@example.test is no administrator any more", "account", "admin", "alice@example.test", "--revoke")
	ok(`"administrator": false`, "account", "show", "alice@example.test", "--json")
	ok("set the backend name", "account", "backend-name", "alice@example.test", "u17")
	ok("u17", "account", "show", "alice@example.test")
	ok("removed alias", "account", "alias", "remove", "alice@example.test", "al@example.test")
	for alias, want := range map[string]string{"al@example.test": `"al@example.test" is no alias of alice@example.test`,
		"ALICE@example.test": "alice@example.test is the address that the account was made with, and stays"} {
		if code, _, stderr := run(t, "", "account", "alias", "remove", "alice@example.test", alias, "-c", file); code != 1 || !strings.Contains(stderr, want) {
			t.Errorf("remove alias %s: %d %q, want %q", alias, code, stderr, want)
		}
	}
	secret := filepath.Join(t.TempDir(), "secret")
	os.WriteFile(secret, []byte("hunter2\n"), 0o600)
	ok("stored the password", "account", "credential", "alice@example.test", "--backend", "dovecot", "--password-file", secret)
	for backend, want := range map[string]string{
		"dovekot":  `there is no backend "dovekot"; the configuration has dovecot, radicale`,
		"radicale": `backend "radicale" has credential = "header" and takes no stored passwords`,
	} {
		if code, _, stderr := run(t, "", "account", "credential", "alice@example.test", "--backend", backend, "--password-file", secret, "-c", file); code != 1 || !strings.Contains(stderr, want) {
			t.Errorf("credential at %s: %d %q, want %q", backend, code, stderr, want)
		}
	}
	if code, _, stderr := run(t, "", "account", "credential", "alice@example.test", "--backend", "dovecot", "--password-file", "-", "-c", file); code != 1 || !strings.Contains(stderr, "standard input holds no password") {
		t.Errorf("credential of nothing: %d %q", code, stderr)
	}
	ok("No listener here serves what it opens.", "password", "create", "alice@example.test", "-l", "Scanner", "--for", "send")
	ok("added key 2", "key", "add")
	ok(`"added": 3`, "key", "add", "--json")
	ok(`"retired": 2`, "key", "retire", "2", "--json")
	ok("makes new app passwords", "key", "list")
	if code, _, stderr := run(t, "", "key", "retire", "1", "-c", file); code != 1 || !strings.Contains(stderr, "still need key 1") {
		t.Errorf("retire a needed key: %d %q", code, stderr)
	}
	copied := filepath.Join(t.TempDir(), "copy.db")
	ok("wrote "+copied, "backup", copied)
	if info, err := os.Stat(copied); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the copy: %v, %v", info, err)
	}
	if code, _, stderr := run(t, "", "backup", copied, "-c", file); code != 1 || !strings.Contains(stderr, "file exists") {
		t.Errorf("over a copy: %d %q", code, stderr)
	}
	if code, _, stderr := run(t, "n\n", "account", "remove", "alice@example.test", "-c", file); code != 1 || !strings.Contains(stderr, "nothing was removed") {
		t.Errorf("not sure: %d %q", code, stderr)
	}
	if code, stdout, _ := run(t, "yes\n", "account", "remove", "alice@example.test", "-c", file); code != 0 || !strings.Contains(stdout, "removed alice@example.test") {
		t.Errorf("sure: %d %q", code, stdout)
	}
	if got := ok("[]", "account", "list", "--json"); strings.TrimSpace(got) != "[]" {
		t.Errorf("accounts left: %s", got)
	}
}

// Every command in the pages is one, with its flags and as many arguments as it takes.
func TestPagesShowCommands(t *testing.T) {
	t.Parallel()
	pages, _ := filepath.Glob("../../docs/*.md")
	shown := 0
	for _, page := range append(pages, "../../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^    (?:.* -- |.* \| )?(?:\./)?postern ([^#>\n]+)`).FindAllStringSubmatch(string(text), -1) {
			shown++
			var args []string
			for _, word := range regexp.MustCompile(`(?:"[^"]*"|\$\([^)]*\)|\S)+`).FindAllString(m[1], -1) {
				args = append(args, strings.Trim(strings.ReplaceAll(word, "$(pidof postern)", "1"), `"`))
			}
			root := newRoot(slog.New(slog.DiscardHandler))
			c, rest, err := root.Find(args)
			if err == nil {
				err = c.ParseFlags(rest)
			}
			if err == nil {
				err = cmp.Or(c.ValidateArgs(c.Flags().Args()), c.ValidateRequiredFlags(), c.ValidateFlagGroups())
			}
			if err != nil || !c.Runnable() || c.HasSubCommands() {
				t.Errorf("%s: %q is no command: %v", page, m[0], err)
			}
		}
	}
	if shown < 30 {
		t.Errorf("only %d commands found", shown)
	}
}

func TestTwentySixthIsRefused(t *testing.T) {
	t.Parallel()
	file := configured(t)
	run(t, "", "account", "add", "alice@example.test", "-c", file)
	for i := range 26 {
		code, _, stderr := run(t, "", "password", "create", "alice@example.test", "-l", "x", "--for", "mail", "-c", file)
		if want := i == 25; (code != 0) != want || want && !strings.Contains(stderr, "25 active app passwords already; revoke one first") {
			t.Errorf("app password %d: %d %q", i+1, code, stderr)
		}
	}
}

func TestCheckTellsAllAtOnce(t *testing.T) {
	t.Parallel()
	file := configured(t)
	run(t, "", "account", "add", "alice@example.test", "-c", file)
	code, stdout, _ := run(t, "", "check", "-c", file)
	for _, want := range []string{"ok    configuration", "ok    store", "accounts: 1", "FAIL  backend dovecot: ", "nobody listens there", "FAIL  backend radicale: "} {
		if !strings.Contains(stdout, want) {
			t.Errorf("check lacks %q:\n%s", want, stdout)
		}
	}
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	broken := filepath.Join(t.TempDir(), "broken.toml")
	os.WriteFile(broken, []byte("[stor]\n"), 0o600)
	if code, stdout, _ := run(t, "", "check", "-c", broken); code != 1 || !strings.Contains(stdout, `did you mean "store"?`) {
		t.Errorf("check of a broken file: %d %q", code, stdout)
	}
}

func TestWhatNeedsNoConfiguration(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"postern ":               {"version"},
		"[[backend]]":            {"config", "example"},
		"# login_timeout":        {"config", "defaults"},
		"App passwords for mail": {"--help"},
		"everything":             {"password", "create", "--help"},
		"bash completion":        {"completion", "bash"},
	} {
		if code, stdout, stderr := run(t, "", args...); code != 0 || !strings.Contains(stdout, want) {
			if want != "App passwords for mail" || !strings.Contains(stdout, "Postern stands in front") {
				t.Errorf("postern %s: %d %q %q", strings.Join(args, " "), code, stdout, stderr)
			}
		}
	}
}

func TestPolicyBindsTheCommandLine(t *testing.T) {
	t.Parallel()
	file := configured(t)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(text, "\n[[policy]]\ndomains = [\"example.test\"]\nlongest_days = 90\nmost_active = 2\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "", "account", "add", "alice@example.test", "-c", file)
	run(t, "", "account", "add", "alice@example.org", "-c", file)
	for _, tt := range []struct {
		address, more string
		wrong         string
	}{
		{"alice@example.test", "--expires=never", "lives 90 days at most, and must expire; to make it all the same: --beyond-policy"},
		{"alice@example.test", "--expires=91d", "lives 90 days at most"},
		{"alice@example.test", "--expires=90d", ""},
		{"alice@example.test", "--beyond-policy", ""},
		{"alice@example.test", "--beyond-policy", "there are 2 active app passwords already"},
		{"alice@example.org", "--expires=never", ""},
	} {
		code, _, stderr := run(t, "", "password", "create", tt.address, "-l", "x", "--for", "mail", tt.more, "-c", file)
		if (code != 0) != (tt.wrong != "") || !strings.Contains(stderr, tt.wrong) {
			t.Errorf("%s %s: %d %q", tt.address, tt.more, code, stderr)
		}
	}
}
