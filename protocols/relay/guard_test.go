package relay

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// lines is a guard of a toy protocol: a line of the client's that begins with "no" is refused, one with "wait" holds what follows until the
// backend has said "go", and words of ours come between lines of the backend's.
type lines struct {
	woken   chan struct{}
	waiting atomic.Bool
	busy    atomic.Bool
	orderly bool
	mute    bool
}

func newLines() *lines { return &lines{woken: make(chan struct{}, 1)} }

func (g *lines) Up(p []byte) (Step, error) {
	if g.waiting.Load() {
		return Step{}, nil
	}
	n := bytes.IndexByte(p, '\n') + 1
	switch line := string(p[:n]); {
	case strings.HasPrefix(line, "no"):
		return Step{Taken: n, Answer: []byte("refused\n")}, nil
	case strings.HasPrefix(line, "wait"):
		g.waiting.Store(true)
	case strings.HasPrefix(line, "bad"):
		return Step{}, errors.New("bad line")
	}
	return Step{Taken: n, Pass: p[:n]}, nil
}

func (g *lines) Woken() <-chan struct{} { return g.woken }

func (g *lines) Down(p []byte) ([]byte, int) {
	if bytes.Contains(p, []byte("go\n")) && g.waiting.CompareAndSwap(true, false) {
		g.woken <- struct{}{}
	}
	if bytes.Contains(p, []byte("done\n")) {
		g.busy.Store(false)
	}
	if n := bytes.LastIndexByte(p, '\n') + 1; n > 0 {
		return p, n
	}
	return p, -1
}

func (g *lines) Data(up bool) int64 { return 0 }

func (g *lines) Skip(up bool, n int64) {}

func (g *lines) Busy(orderly bool) bool { return orderly && g.busy.Load() }

func (g *lines) Goodbye(reason error) ([]byte, bool) {
	if g.mute {
		return nil, false
	}
	return []byte("bye: " + reason.Error() + "\n"), g.orderly
}

func TestGuardRefusesAndHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(&Relay{}, Pair{Guard: newLines()})
		go io.WriteString(e.client, "one\nno two\nwait\nfour\n")
		wantRead(t, "backend", e.backend, "one\n")
		wantRead(t, "client", e.client, "refused\n")
		wantRead(t, "backend", e.backend, "wait\n")
		synctest.Wait() // "four" is held
		go io.WriteString(e.backend, "go\n")
		wantRead(t, "client", e.client, "go\n")
		wantRead(t, "backend", e.backend, "four\n")
		go io.WriteString(e.client, "bad\n")
		if res := <-e.result; res.Reason.Error() != "bad line" {
			t.Errorf("reason %v", res.Reason)
		}
	})
}

func TestAnswersComeBetweenResponses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(&Relay{}, Pair{Guard: newLines()})
		go io.WriteString(e.backend, "half of ")
		wantRead(t, "client", e.client, "half of ")
		io.WriteString(e.client, "no\n")
		synctest.Wait()
		go io.WriteString(e.backend, "a line\nrest")
		wantRead(t, "client", e.client, "a line\nrefused\nrest")
		e.client.Close()
		<-e.result
	})
}

// slow is a guard that has taken the backend's words long before they are written.
type slow struct{ *lines }

func (g slow) Down(p []byte) ([]byte, int) {
	p, boundary := g.lines.Down(p)
	time.Sleep(time.Second)
	return p, boundary
}

// What was held for an answer comes behind it, and so does a goodbye that waited for it.
func TestNothingOvertakesAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := slow{newLines()}
		g.orderly = true
		e := start(&Relay{}, Pair{Guard: g})
		go io.WriteString(e.client, "wait\nno two\n")
		wantRead(t, "backend", e.backend, "wait\n")
		go io.WriteString(e.backend, "go\n")
		wantRead(t, "client", e.client, "go\nrefused\n")

		g.busy.Store(true)
		go io.WriteString(e.backend, "done\n")
		time.Sleep(time.Second / 2)
		e.End(errors.New("revoked"))
		wantRead(t, "client", e.client, "done\nbye: revoked\n")
		e.client.Close()
		<-e.result
	})
}

// Answers that can't be told do not pile up.
func TestAnswersThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(&Relay{}, Pair{Guard: newLines()})
		go io.WriteString(e.backend, "half of ")
		wantRead(t, "client", e.client, "half of ")
		said, err := io.WriteString(e.client, strings.Repeat("no!\n", maxWords))
		if res := <-e.result; res.Reason != errUnread || err == nil {
			t.Errorf("after %d bytes, %v: reason %v", said, err, res.Reason)
		}
	})
}

func TestGoodbye(t *testing.T) {
	revoked := errors.New("revoked")
	for name, tt := range map[string]struct {
		guard  func(*lines)
		before string // the backend has said
		then   string // and says afterwards
		want   string // the client gets
		after  time.Duration
	}{
		"at once":                   {func(*lines) {}, "a line\n", "", "a line\nbye: revoked\n", 0},
		"at the end of a response":  {func(*lines) {}, "half", " a line\nmore", "half a line\nbye: revoked\n", 0},
		"not in time":               {func(*lines) {}, "half", "", "half", goodbyeTime},
		"nothing can be told":       {func(g *lines) { g.mute = true }, "a line\n", "", "a line\n", 0},
		"in good order, and idle":   {func(g *lines) { g.orderly = true }, "a line\n", "", "a line\nbye: revoked\n", 0},
		"in good order, when done":  {func(g *lines) { g.orderly = true; g.busy.Store(true) }, "a line\n", "more\ndone\nnever", "a line\nmore\ndone\nbye: revoked\n", 0},
		"in good order, never done": {func(g *lines) { g.orderly = true; g.busy.Store(true) }, "a line\n", "more\n", "a line\nmore\n", time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newLines()
				tt.guard(g)
				r := &Relay{}
				time.AfterFunc(time.Minute, func() { r.Cut(errors.New("the grace is over")) })
				e := start(r, Pair{Guard: g})
				go io.WriteString(e.backend, tt.before)
				wantRead(t, "client", e.client, tt.before)
				synctest.Wait()
				began := time.Now()
				e.End(revoked)
				synctest.Wait()
				go io.WriteString(e.backend, tt.then)
				rest, _ := io.ReadAll(e.client)
				if got := tt.before + string(rest); got != tt.want {
					t.Errorf("the client got %q, want %q", got, tt.want)
				}
				if after := time.Since(began); after > tt.after+lastTime {
					t.Errorf("after %v, want %v", after, tt.after)
				}
				if res := <-e.result; res.Reason != revoked {
					t.Errorf("reason %v", res.Reason)
				}
				e.backend.Close()
			})
		})
	}
}

// What the client sends after the goodbye was decided does not pass.
func TestNothingPassesAfterTheGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(&Relay{}, Pair{Guard: newLines()})
		go io.WriteString(e.backend, "half")
		wantRead(t, "client", e.client, "half")
		e.End(errors.New("revoked"))
		synctest.Wait()
		go io.WriteString(e.client, "delete everything\n")
		got, _ := io.ReadAll(e.backend)
		if len(got) > 0 {
			t.Errorf("the backend got %q", got)
		}
		<-e.result
		e.client.Close()
	})
}

func wantRead(t *testing.T, who string, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("%s got %q, %v; want %q", who, got, err, want)
	}
}

// A session may be cut while its last response, behind which the goodbye was to come, is on its way to the client.
func TestCutBeforeTheGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := errors.New("the grace is over")
		r := &Relay{}
		g := newLines()
		g.orderly = true
		g.busy.Store(true)
		e := start(r, Pair{Guard: &cutting{g, func() { r.Cut(over) }}})
		go io.WriteString(e.client, "wait\nfor it\n")
		wantRead(t, "backend", e.backend, "wait\n")
		synctest.Wait() // "for it" is held, until the session ends
		e.End(errors.New("drained"))
		synctest.Wait()
		io.WriteString(e.backend, "done\n")
		if res := <-e.result; res.Reason.Error() != "drained" {
			t.Errorf("reason %v", res.Reason)
		}
		r.Cut(over) // hangs where a lock is left behind
	})
}

// cutting is a guard in whose session something happens while the last response passes.
type cutting struct {
	*lines
	cut func()
}

func (g *cutting) Down(p []byte) ([]byte, int) {
	if bytes.Contains(p, []byte("done\n")) {
		g.cut()
	}
	return g.lines.Down(p)
}

// A busy client that may stay while the gateway drains must go at once when it is revoked.
func TestRevokedWhileItMayStay(t *testing.T) {
	for name, tt := range map[string]struct {
		before, want string
		after        time.Duration
	}{
		"between responses": {"a line\n", "bye: revoked\n", 0},
		"within one":        {"half", "", goodbyeTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				revoked := errors.New("revoked")
				g := newLines()
				g.busy.Store(true)
				e := start(&Relay{}, Pair{Guard: patient{g}})
				go io.WriteString(e.backend, tt.before)
				wantRead(t, "client", e.client, tt.before)
				e.End(errDrained)
				synctest.Wait()
				began := time.Now()
				e.End(revoked)
				synctest.Wait()
				e.End(errDrained)
				got, _ := io.ReadAll(e.client)
				if after := time.Since(began); string(got) != tt.want || after > tt.after+lastTime {
					t.Errorf("the client got %q after %v", got, after)
				}
				if res := <-e.result; res.Reason != revoked {
					t.Errorf("reason %v", res.Reason)
				}
				e.backend.Close()
			})
		})
	}
}

var errDrained = errors.New("drained")

// patient is a guard that lets a client stay while its gateway drains, and for no other reason.
type patient struct{ *lines }

func (g patient) Goodbye(reason error) ([]byte, bool) {
	words, _ := g.lines.Goodbye(reason)
	return words, reason == errDrained
}

// Behind the goodbye nothing more is said, and not the goodbye again, whatever the backend sends.
func TestGoodbyeIsTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(&Relay{}, Pair{Guard: newLines()})
		e.End(errors.New("revoked"))
		wantRead(t, "client", e.client, "bye: revoked\n")
		go io.WriteString(e.backend, "a line\nanother\n")
		if rest, _ := io.ReadAll(e.client); len(rest) > 0 {
			t.Errorf("behind the goodbye came %q", rest)
		}
		<-e.result
		e.backend.Close()
	})
}

// Of commands that came together, those do not pass that have not passed when the goodbye is decided.
func TestNothingElsePassesAfterTheGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(&Relay{}, Pair{Guard: newLines()})
		go io.WriteString(e.backend, "half")
		wantRead(t, "client", e.client, "half")
		io.WriteString(e.client, "list\ndelete everything\n")
		synctest.Wait() // the backend takes its time
		e.End(errors.New("revoked"))
		synctest.Wait()
		if got, _ := io.ReadAll(e.backend); string(got) != "list\n" {
			t.Errorf("the backend got %q", got)
		}
		<-e.result
		e.client.Close()
	})
}

// thorough is a guard that takes its time to look at what the client sends.
type thorough struct{ *lines }

func (g thorough) Up(p []byte) (Step, error) {
	time.Sleep(time.Millisecond)
	return g.lines.Up(p)
}

// What a client sent before its goodbye, but the guard had not taken in, does not reach the backend behind it: the client will send it again.
func TestNothingPassesBehindGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(&Relay{}, Pair{Guard: thorough{newLines()}})
		go func() { e.client.Write([]byte("one\n")) }()
		synctest.Wait() // it is being looked at
		e.End(errors.New("enough"))
		wantRead(t, "client", e.client, "bye: enough\n")
		if got, _ := io.ReadAll(e.backend); len(got) > 0 {
			t.Errorf("the backend got %q", got)
		}
		<-e.result
	})
}
