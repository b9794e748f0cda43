package demo

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"postern/authstore"
	"postern/internal/testlab"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func newTour(dir string) Tour {
	t := Tour{Dir: dir, Address: alice, PublicID: "qwertzuvop", IMAPSPort: 41993, IMAPPort: 41143, DAVPort: 41443, SubmissionsPort: 41465, SubmissionPort: 41587,
		PortalPort: 41444, SignIn: SignIn{"primary-secret", []string{"abcde-fghjk", "mnpqr-stvwx"}, strings.Repeat("ABCDEFGH", 4)}}
	for i, p := range append(slices.Clone(authstore.Presets), authstore.Preset{Name: Single, Title: "The calendar Work alone, read only"}) {
		t.Passwords = append(t.Passwords, Password{p, strings.Repeat("secre-", 3) + "tsec" + string(rune('a'+i))})
	}
	return t
}

func TestTourText(t *testing.T) {
	tour := newTour("/tmp/postern-demo")
	got := tour.Text()
	golden := filepath.Join("testdata", "tour.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	commands := map[string]bool{}
	for _, command := range tour.Commands() {
		commands[command] = true
		if strings.Contains(command, "secre") {
			t.Errorf("a secret stands in the list of processes: %s", command)
		}
	}
	for line := range strings.Lines(got) {
		line = strings.TrimSuffix(line, "\n")
		if commands[line] {
			delete(commands, line)
		} else if len(line) > 80 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
	if len(commands) > 0 {
		t.Errorf("not on a line of its own: %v", commands)
	}
}

// Whatever the folder is called, commands read files that are there, and only their owner can.
func TestTourFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "it's a $folder")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	tour := newTour(dir)
	tour.Address = `al"i\ce@example.test`
	write(t, tour.loginFile("mail"), "old")
	if err := os.Chmod(tour.loginFile("mail"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := tour.WriteFiles(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != len(tour.Passwords)+1 {
		t.Errorf("files: %v, %v", files, err)
	}
	for _, file := range files {
		if info, err := file.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", file.Name(), info.Mode(), err)
		}
	}
	login, err := os.ReadFile(tour.loginFile("mail"))
	if want := `user = "al\"i\\ce@example.test:` + tour.Passwords[1].Secret + "\"\n"; !strings.HasSuffix(string(login), want) {
		t.Errorf("got %q, %v, want %q", login, err, want)
	}
	write(t, filepath.Join(dir, "ca.pem"), "") // NewCA's
	// The shell's own view of each command: its words, of which those under dir must be files.
	for _, command := range tour.Commands() {
		out, err := exec.Command("sh", "-c", `curl() { printf '%s\n' "$@"; }; openssl() { curl "$@"; }; `+command).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", command, err, out)
		}
		for word := range strings.Lines(string(out)) {
			word = strings.TrimSuffix(word, "\n")
			if strings.HasPrefix(word, filepath.Dir(dir)) {
				if _, err := os.Stat(word); err != nil {
					t.Errorf("%s: %v", command, err)
				}
			}
		}
	}
}

func TestTourNeedsItsFolder(t *testing.T) {
	if err := newTour(filepath.Join(t.TempDir(), "none")).WriteFiles(); err == nil {
		t.Error("no error")
	}
}

// curl understands the login file: it is asked for nothing but a DAV server's answer.
func TestCurlReadsTheLogin(t *testing.T) {
	testlab.Need(t, "curl")
	b := start(t)
	tour := newTour(t.TempDir())
	tour.Passwords = []Password{{authstore.Presets[0], string(b.DAVPassword)}}
	if err := tour.WriteFiles(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "curl", "-K", tour.loginFile("everything"), "-X", "PROPFIND", "-H", "Depth:1",
		"http://"+b.DAVAddress+calendarHome).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "<d:displayname>Personal</d:displayname>") {
		t.Errorf("%v: %s", err, out)
	}
}
