package testlab

import (
	"fmt"
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

// launch is how to start a daemon, and how to see that it answers.
type launch struct {
	argv  []string
	ready func() error
}

// serve starts a daemon and ends it with the test.
func serve(t testing.TB, name, dir string, l launch) *Server {
	t.Helper()
	s := &Server{Dir: dir, t: t, name: name, launch: l}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.end)
	return s
}

func (s *Server) start() error {
	p, err := start(s.t, nil, s.launch.argv)
	if err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	deadline := time.Now().Add(patience)
	for {
		err := s.launch.ready()
		switch {
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
