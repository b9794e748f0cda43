package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"postern/internal/testlab"
)

// On a full disk logins go on, making an app password fails in plain words, and a revocation still works.
func TestTheDiskIsFull(t *testing.T) {
	t.Parallel()
	testlab.Need(t, "unshare", "nsenter", "mount")
	s, _, _ := full(t)
	s.smallDisk("2m")
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	kept, lost := s.password(g.config, alice, "--for", "mail"), s.password(g.config, alice, "--for", "mail")
	s.inside("sh", "-c", "cat /dev/zero > "+filepath.Join(s.data, "filling")+"; true")
	out, err := testlab.Command(t, s.program, "password", "create", alice, "--label", "x", "--for", "mail", "-c", g.config).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "disk is full") {
		t.Errorf("create on a full disk: %v %q", err, out)
	}
	s.login(g, alice, kept.Secret)
	if out := s.cli(g.config, "password", "revoke", fmt.Sprint(lost.ID)); !strings.Contains(out, "confirmed everywhere") {
		t.Errorf("revoke on a full disk: %q", out)
	}
	wantIMAP(t, s.dial(g, nil).Login(alice, lost.Secret).Wait(), imap.ResponseCodeAuthenticationFailed)
	s.login(g, alice, kept.Secret)
}

// smallDisk puts the database on a file system of its own, which the site's programs alone see.
func (s *site) smallDisk(size string) {
	s.t.Helper()
	s.data = testlab.Dir(s.t)
	space := testlab.Exec(s.t, nil, "unshare", "--mount", "--map-root-user", "sh", "-c",
		fmt.Sprintf("mount -t tmpfs -o size=%s none %s && echo mounted && exec sleep 1000", size, s.data))
	space.WaitLine("mounted")
	program := filepath.Join(s.dir, "postern-inside")
	text := fmt.Sprintf("#!/bin/sh\nexec nsenter --preserve-credentials --user --mount -t %d %s \"$@\"\n", space.PID(), s.program)
	if err := os.WriteFile(program, []byte(text), 0o700); err != nil {
		s.t.Fatal(err)
	}
	s.program = program
}

// inside runs a command where the site's programs run.
func (s *site) inside(args ...string) {
	s.t.Helper()
	text, err := os.ReadFile(s.program)
	if err != nil {
		s.t.Fatal(err)
	}
	words := strings.Fields(strings.TrimPrefix(string(text), "#!/bin/sh\nexec "))
	testlab.Run(s.t, testlab.Command(s.t, words[0], append(words[1:6], args...)...))
}
