package testlab

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// Server is a daemon that can be stopped and started again on the same ports and data.
type Server struct {
	Dir string // its configuration and data

	t      testing.TB
	name   string
	launch launch

	mu   sync.Mutex // guards what follows
	proc *Process
	past string // what earlier processes printed
}

// launch is how to start a daemon on given ports, and how to see that it answers.
type launch struct {
	env   []string
	argv  []string
	ready func() error
}

var errPortTaken = errors.New("port taken by another process")

// serve starts a daemon on n free ports. Between finding a port and listening on it another process may take it: then it tries others.
func serve(t testing.TB, name, dir string, n int, configure func(ports []int) launch) *Server {
	t.Helper()
	s := &Server{Dir: dir, t: t, name: name}
	for range 5 {
		ports, err := freePorts(n)
		if err != nil {
			t.Fatal(err)
		}
		s.launch = configure(ports)
		err = s.start()
		if errors.Is(err, errPortTaken) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.end)
		return s
	}
	t.Fatalf("start %s: %v, five times", name, errPortTaken)
	return nil
}

func (s *Server) start() error {
	p, err := start(s.t, s.launch.env, s.launch.argv)
	if err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	deadline := time.Now().Add(patience)
	for {
		err := s.launch.ready()
		switch {
		case p.ended() && strings.Contains(p.Output(), "in use"):
			return fmt.Errorf("start %s: %w", s.name, errPortTaken)
		case p.ended():
			return fmt.Errorf("start %s: %v:\n%s", s.name, p.state, tail(p.Output()))
		case err == nil:
			s.use(p)
			return nil
		case time.Now().After(deadline):
			p.Kill()
			return fmt.Errorf("start %s: no answer after %v: %w; it said:\n%s", s.name, patience, err, tail(p.Output()))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (s *Server) use(p *Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil {
		s.past += s.proc.Output()
	}
	s.proc = p
}

func (s *Server) end() {
	s.process().Kill()
	if s.t.Failed() {
		s.t.Logf("log of %s:\n%s", s.name, tail(s.Log()))
	}
}

func (s *Server) process() *Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// Start starts a stopped server and returns when it answers.
func (s *Server) Start() {
	s.t.Helper()
	if err := s.start(); err != nil {
		s.t.Fatal(err)
	}
}

// Stop ends the server as an administrator does, and returns when it has ended.
func (s *Server) Stop() { s.process().Terminate() }

// Kill ends it with SIGKILL.
func (s *Server) Kill() { s.process().Kill() }

// Pause stops it in its tracks: connections stay open and are even accepted by the kernel, but nothing is answered.
func (s *Server) Pause() { s.process().Pause() }

// Resume ends a pause.
func (s *Server) Resume() { s.process().Resume() }

// Log returns what the server has logged so far, on both streams.
func (s *Server) Log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.past + s.proc.Output()
}
