package testlab

import (
	"context"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// commandTime bounds a client program that should end by itself.
const commandTime = time.Minute

// Command prepares a program that ends by itself, such as curl or mbsync: with an empty home, without the machine's proxies and settings, and killed with
// all it started after a minute or when the test ends. Its caller may set Stdin and Dir, add to Env, and then calls Run or a method of exec.Cmd.
func Command(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	Need(t, name)
	ctx, cancel := context.WithTimeout(t.Context(), commandTime)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, find(name), args...)
	cmd.Env = environment(t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	return cmd
}

// Run runs a prepared program and returns what it printed on both streams. An exit code other than 0 ends the test.
func Run(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, tail(string(out)))
	}
	return string(out)
}
