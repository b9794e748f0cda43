package acceptance

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"postern/config"
	"postern/internal/testlab"
)

const root = "../.."

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What a reader copies from deploy/ and from the pages about backends is a configuration.
func TestDeployConfigurations(t *testing.T) {
	t.Parallel()
	parse := func(name, text string) {
		if _, err := config.Parse(name, []byte(text)); err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
	files, err := filepath.Glob(root + "/deploy/*/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no configuration in deploy: %v", err)
	}
	for _, file := range files {
		name := strings.TrimPrefix(file, root+"/")
		parse(name, readFile(t, name))
	}
	const listener = "listener = [{ protocol = \"imap\", address = \"127.0.0.1:143\", tls = \"none\" }]\n"
	block := regexp.MustCompile("(?ms)^```toml\n(.*?)^```")
	for _, page := range []string{"docs/dovecot.md", "docs/radicale.md", "docs/sending.md", "docs/cyrus.md", "docs/davical.md", "docs/xandikos.md", "docs/otherdav.md"} {
		found := block.FindAllStringSubmatch(readFile(t, page), -1)
		if len(found) == 0 {
			t.Errorf("%s shows no [[backend]]", page)
		}
		for _, b := range found {
			parse(page, listener+b[1])
		}
	}
}

// The snippet of docs/dovecot.md for the installed version, and the whole file of deploy/compose where that version takes it.
func TestDeployDovecot(t *testing.T) {
	t.Parallel()
	testlab.Need(t, "dovecot", "doveconf")
	version := testlab.Run(t, testlab.Command(t, "dovecot", "--version"))[:3]
	_, text, found := strings.Cut(readFile(t, "docs/dovecot.md"), "Dovecot "+version+":\n")
	if !found {
		t.Fatalf("docs/dovecot.md has nothing for Dovecot %s", version)
	}
	var snippet strings.Builder
	for line := range strings.Lines(text) {
		if line != "\n" && !strings.HasPrefix(line, "    ") {
			break
		}
		snippet.WriteString(line)
	}
	dir := testlab.Dir(t)
	check := func(name, text string, want ...string) {
		file := filepath.Join(dir, "dovecot.conf")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out := testlab.Run(t, testlab.Command(t, "doveconf", "-n", "-c", file))
		for _, line := range want {
			if !strings.Contains(out, line) {
				t.Errorf("%s: doveconf lacks %q:\n%s", name, line, out)
			}
		}
	}
	understood := []string{"master = yes", "/etc/dovecot/postern-master", "login_trusted_networks = 127.0.0.1", "mail_max_userip_connections = 50"}
	if version == "2.3" {
		check("docs/dovecot.md", "ssl = no\n"+snippet.String(), understood...)
		return
	}
	check("docs/dovecot.md", "dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\nssl = no\n"+snippet.String(), understood...)
	check("deploy/compose/dovecot.conf", readFile(t, "deploy/compose/dovecot.conf"), "master = yes", "login_trusted_networks = 172.31.93.0/29")
}

func TestDeployUnit(t *testing.T) {
	t.Parallel()
	testlab.Need(t, "systemd-analyze")
	testlab.Run(t, testlab.Command(t, "systemd-analyze", "security", "--offline=true", "--threshold=20", filepath.Join(root, "deploy/postern.service")))
}

// The image is empty but for the program: it must need no library, say its version, and do with no folder but that of the state.
func TestDeployImage(t *testing.T) {
	t.Parallel()
	build := regexp.MustCompile(`(?m)^RUN (CGO_ENABLED=0 go build .*) -o /out/postern \.$`).FindStringSubmatch(readFile(t, "Dockerfile"))
	if build == nil {
		t.Fatal("the Dockerfile has no line that builds /out/postern")
	}
	program := filepath.Join(testlab.Dir(t), "postern")
	cmd := exec.Command("sh", "-c", build[1]+` -o "$OUT" .`)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "VERSION=v1.2.3-test", "OUT="+program)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build[1], err, out)
	}
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the program is not static: it has %v", p.Type)
		}
	}
	if got := testlab.Run(t, testlab.Command(t, program, "version")); !strings.HasPrefix(got, "postern v1.2.3-test (") {
		t.Errorf("version: got %q", got)
	}
	image := newImage(t, program)
	image.run("init")
	testlab.Run(t, testlab.Command(t, "sqlite3", filepath.Join(image.root, "var/lib/postern/postern.db"), `
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
  INSERT INTO account (public_id, status, version, backend_name, created) SELECT i, 1, 1, '', 0 FROM n;
INSERT INTO login_name SELECT hex(randomblob(40)) || '@example.test', id, 0 FROM account;`))
	if got := strings.Count(image.run("account", "list"), "@example.test"); got != 30000 {
		t.Errorf("%d accounts are listed", got)
	}
}

// image is what the Dockerfile makes, without a container: a root that can't be written to, but for the state.
type image struct {
	t    *testing.T
	root string
}

func newImage(t *testing.T, program string) image {
	t.Helper()
	testlab.Need(t, "unshare", "mount", "sqlite3")
	i := image{t, testlab.Dir(t)}
	for _, dir := range []string{"etc/postern", "var/lib/postern"} {
		if err := os.MkdirAll(filepath.Join(i.root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(program, filepath.Join(i.root, "postern")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(i.root, "etc/postern/postern.toml"), []byte("listener = [{ protocol = \"dav\", address = \"127.0.0.1:1\", tls = \"none\" }]\n"+
		davBackend("radicale", "http://127.0.0.1:1")), 0o600); err != nil {
		t.Fatal(err)
	}
	return i
}

// run runs the image's program and returns what it printed.
func (i image) run(args ...string) string {
	i.t.Helper()
	return testlab.Run(i.t, testlab.Command(i.t, "unshare", append([]string{"--mount", "--map-root-user", "sh", "-c",
		`mount --bind "$0" "$0" && mount --bind "$0/var/lib/postern" "$0/var/lib/postern" && mount -o remount,bind,ro "$0" && exec chroot "$0" /postern "$@"`,
		i.root}, args...)...))
}
