package testlab

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything in the lab may take to answer or to end. It is no measure of anything: a machine under load gets there too.
const patience = 30 * time.Second

// Process is a running program in a process group of its own, with everything it printed. Its methods may be called by several goroutines.
type Process struct {
	t     testing.TB
	name  string
	group int
	done  chan struct{} // closed when the leader has ended and the rest of its group is killed
	state *os.ProcessState

	mu     sync.Mutex // guards output and grown
	output []byte
	grown  chan struct{} // closed and replaced at each new output
}

// Exec starts a program with the variables env ("NAME=value") besides PATH, HOME and LANG. It is killed with the test at the latest. Its output is
// printed when the test has failed, and fails the test if the race detector speaks in it.
func Exec(t testing.TB, env []string, argv ...string) *Process {
	t.Helper()
	return run(t, env, argv)
}

func run(t testing.TB, env, argv []string, files ...*os.File) *Process {
	t.Helper()
	p, err := start(t, env, argv, files...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if strings.Contains(p.Output(), "WARNING: DATA RACE") {
			t.Errorf("data race in %s", p.name)
		}
		if t.Failed() {
			t.Logf("output of %s:\n%s", p.name, tail(p.Output()))
		}
	})
	return p
}

// start leaves ending the process to its caller. The process gets files from descriptor 3 on; they stay the caller's too.
func start(t testing.TB, env, argv []string, files ...*os.File) (*Process, error) {
	k, err := lab()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(environment(k.root), env...)
	cmd.Dir = k.root
	cmd.Stdout, cmd.Stderr = w, w
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		r.Close()
		return nil, err
	}
	p := &Process{t: t, name: filepath.Base(argv[0]), group: cmd.Process.Pid, done: make(chan struct{}), grown: make(chan struct{})}
	k.say("started", p.group)
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.readAll(r)
	}()
	go func() {
		defer close(p.done)
		cmd.Wait()
		p.state = cmd.ProcessState
		syscall.Kill(-p.group, syscall.SIGKILL)
		k.say("ended", p.group)
		r.SetReadDeadline(time.Now().Add(time.Second)) // a grandchild in a session of its own may still hold the pipe
		<-read
		r.Close()
	}()
	return p, nil
}

// environment keeps proxies and settings of the machine out of the lab.
func environment(home string) []string {
	return []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "HOME=" + home, "LANG=C.UTF-8"}
}

func (p *Process) readAll(r *os.File) {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		p.mu.Lock()
		p.output = append(p.output, buf[:n]...)
		close(p.grown)
		p.grown = make(chan struct{})
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Output returns what the process printed so far, on both streams.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.output)
}

// tail cuts long output to what stands at its end.
func tail(out string) string {
	const most = 16 << 10
	if len(out) > most {
		out = "[...]" + out[len(out)-most:]
	}
	return out
}

// WaitLine returns the first line that contains text, also one printed long ago. The test ends if the process does so before.
func (p *Process) WaitLine(text string) string {
	p.t.Helper()
	timeout := time.After(patience)
	for {
		line, grown := p.line(text)
		if line != "" {
			return line
		}
		select {
		case <-grown:
		case <-p.done:
			if line, _ := p.line(text); line != "" {
				return line
			}
			p.t.Fatalf("%s ended (%v) before it printed %q", p.name, p.state, text)
		case <-timeout:
			p.t.Fatalf("%s did not print %q in %v", p.name, text, patience)
		}
	}
}

func (p *Process) line(text string) (string, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for line := range bytes.Lines(p.output) {
		if bytes.HasSuffix(line, []byte("\n")) && bytes.Contains(line, []byte(text)) {
			return strings.TrimRight(string(line), "\r\n"), p.grown
		}
	}
	return "", p.grown
}

// WaitURL returns when a GET of url is answered with status 200. The test ends if the process does so before.
func (p *Process) WaitURL(url string) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for !isOK(url) {
		if p.ended() {
			p.t.Fatalf("%s ended (%v) before %s was answered", p.name, p.state, url)
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s does not answer %s with 200 after %v", p.name, url, patience)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func isOK(url string) bool {
	resp, err := httpClient.Get(url)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// PID is the process's id, and that of its group.
func (p *Process) PID() int { return p.group }

// Signal sends to the process itself, not to its children. A process that has ended gets nothing.
func (p *Process) Signal(sig syscall.Signal) {
	if !p.ended() {
		syscall.Kill(p.group, sig)
	}
}

// Pause stops the whole group in its tracks, as a machine does that hangs: connections stay open, nothing is answered. It returns when all stand still:
// stopped, ended, or in the kernel on the way to stopping (state D, which a parent waiting in vfork never leaves while its child is stopped).
func (p *Process) Pause() {
	p.t.Helper()
	p.toGroup(syscall.SIGSTOP)
	deadline := time.Now().Add(patience)
	for !p.ended() && slices.ContainsFunc(groupStates(p.group), func(state byte) bool { return !strings.ContainsRune("TDZX", rune(state)) }) {
		if time.Now().After(deadline) {
			p.t.Fatalf("%s does not stand still %v after SIGSTOP", p.name, patience)
		}
		time.Sleep(time.Millisecond)
	}
}

// Resume lets a paused group go on.
func (p *Process) Resume() { p.toGroup(syscall.SIGCONT) }

// Kill ends the whole group with SIGKILL, paused or not, and returns when it has ended.
func (p *Process) Kill() {
	p.toGroup(syscall.SIGKILL)
	<-p.done
}

// Terminate asks the process to end and returns when it has; what does not end in good time is killed, and fails the test.
func (p *Process) Terminate() {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	p.Resume()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Errorf("%s goes on %v after SIGTERM", p.name, patience)
		p.Kill()
	}
}

// Wait returns the exit code, or -1 if a signal ended the process.
func (p *Process) Wait() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("%s goes on after %v", p.name, patience)
	}
	return p.state.ExitCode()
}

func (p *Process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *Process) toGroup(sig syscall.Signal) {
	if !p.ended() {
		syscall.Kill(-p.group, sig)
	}
}

// groupStates lists the state letters (proc(5)) of the processes of a group.
func groupStates(group int) []byte {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var states []byte
	for _, file := range stats {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // ended meanwhile
		}
		_, rest, _ := strings.Cut(string(stat), ") ") // the name in parentheses may hold anything
		var state byte
		var parent, pgrp int
		if _, err := fmt.Sscanf(rest, "%c %d %d", &state, &parent, &pgrp); err == nil && pgrp == group {
			states = append(states, state)
		}
	}
	return states
}
