package acceptance

import (
	"debug/elf"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"postern/config"
	"postern/internal/testlab"
)

const root = "../../"

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(root + path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What the pages and the compose file tell people to write into postern.toml is taken.
func TestConfigurationsInDocsAreTaken(t *testing.T) {
	t.Parallel()
	if _, err := config.Parse("postern.toml", []byte(read(t, "deploy/compose/postern.toml"))); err != nil {
		t.Error(err)
	}
	block := regexp.MustCompile(`(?m)^    \[\[backend\]\]\n(    .+\n)+`)
	for _, page := range []string{"docs/dovecot.md", "docs/radicale.md"} {
		blocks := block.FindAllString(read(t, page), -1)
		if len(blocks) == 0 {
			t.Errorf("%s shows no [[backend]]", page)
		}
		for _, text := range blocks {
			for _, text := range []string{text, strings.ReplaceAll(text, "# login", "login")} {
				if _, err := config.Parse(page, []byte("listener = [{ protocol = \"imap\", address = \"127.0.0.1:143\", tls = \"none\" }]\n"+text)); err != nil {
					t.Errorf("%s: %v\n%s", page, err, text)
				}
			}
		}
	}
}

func TestTheUnitIsHardened(t *testing.T) {
	t.Parallel()
	testlab.Need(t, "systemd-analyze")
	unit, err := filepath.Abs(root + "deploy/postern.service")
	if err != nil {
		t.Fatal(err)
	}
	testlab.Run(t, testlab.Command(t, "systemd-analyze", "--no-pager", "security", "--offline=true", "--threshold=20", unit))
}

// The Dockerfile's own build command gives a binary that needs nothing beside it.
func TestTheImagesBinaryIsStatic(t *testing.T) {
	t.Parallel()
	build := regexp.MustCompile(`(?m)^RUN (CGO_ENABLED=0 go build .*) -o /out/postern \.$`).FindStringSubmatch(read(t, "Dockerfile"))
	if build == nil {
		t.Fatal("the Dockerfile builds something else")
	}
	binary := filepath.Join(testlab.Dir(t), "postern")
	cmd := testlab.Command(t, "sh", "-c", build[1]+" -o "+binary+" .")
	cmd.Dir, cmd.Env = root, os.Environ() // Go's caches are there
	testlab.Run(t, cmd)
	f, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("it has a segment %v", p.Type)
		}
	}
	if out := testlab.Run(t, testlab.Command(t, binary, "version")); !strings.HasPrefix(out, "postern ") {
		t.Errorf("version: %q", out)
	}
}
