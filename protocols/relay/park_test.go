package relay

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/testlab"
)

func skipWhereNothingParks(t testing.TB) {
	if runtime.GOOS != "linux" {
		t.Skip("directions are parked on Linux only")
	}
}

// bothParked waits until both directions of a session are parked.
func bothParked(t *testing.T, s *Session) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		s.mu.Lock()
		parked := s.up.parked && s.down.parked
		s.mu.Unlock()
		if parked {
			return
		}
	}
	t.Fatal("a quiet session is not parked")
}

const parkSoon = 5 * time.Millisecond

func TestParkedSessionsGoOn(t *testing.T) {
	skipWhereNothingParks(t)
	for name, startOver := range map[string]func(testing.TB, *Relay, Pair) *ends{"plain": startTCP, "TLS": startTLS} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := startOver(t, &Relay{Park: parkSoon, Linger: 10 * time.Millisecond}, Pair{Guard: newLines()})
			for range 5 {
				bothParked(t, e.Session)
				e.client.Write([]byte("command\n"))
				wantRead(t, "backend", e.backend, "command\n")
				bothParked(t, e.Session)
				e.backend.Write([]byte("answer\n"))
				wantRead(t, "client", e.client, "answer\n")
			}
			e.client.Close()
			if res := <-e.result; res.Reason != ErrClientClosed || res.Up != 40 || res.Down != 35 {
				t.Errorf("result = %+v", res)
			}
		})
	}
}

func TestParkedSessionsEnd(t *testing.T) {
	skipWhereNothingParks(t)
	revoked := errors.New("revoked")
	for name, tt := range map[string]struct {
		end  func(*Relay, *ends)
		want error
		told string
	}{
		"by the client":   {func(_ *Relay, e *ends) { e.client.Close() }, ErrClientClosed, ""},
		"by the backend":  {func(_ *Relay, e *ends) { e.backend.Close() }, ErrBackendClosed, ""},
		"with a goodbye":  {func(_ *Relay, e *ends) { e.End(revoked) }, revoked, "bye: revoked\n"},
		"all at once":     {func(r *Relay, e *ends) { r.Cut(revoked) }, revoked, ""},
		"because of idle": {func(*Relay, *ends) {}, ErrIdle, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &Relay{Park: parkSoon, Linger: 10 * time.Millisecond}
			if tt.want == ErrIdle {
				r.Idle = 500 * time.Millisecond
			}
			e := startTCP(t, r, Pair{Guard: newLines()})
			bothParked(t, e.Session)
			tt.end(r, e)
			if tt.want != ErrClientClosed {
				if got, _ := io.ReadAll(e.client); string(got) != tt.told {
					t.Errorf("the client was told %q, want %q", got, tt.told)
				}
				e.client.Close()
			}
			if res := <-e.result; res.Reason != tt.want {
				t.Errorf("reason = %v, want %v", res.Reason, tt.want)
			}
			if len(r.all()) != 0 || len(r.lot.free) != len(r.lot.spots) {
				t.Errorf("left: %d sessions, %d of %d spots", len(r.all()), len(r.lot.spots)-len(r.lot.free), len(r.lot.spots))
			}
		})
	}
}

// A parked session has no goroutine.
func TestParkedSessionsCostNoGoroutine(t *testing.T) {
	skipWhereNothingParks(t) // not parallel: it counts
	r := &Relay{Park: parkSoon, Linger: 10 * time.Millisecond}
	before := runtime.NumGoroutine()
	var all []*ends
	for range 100 {
		all = append(all, startTCP(t, r, Pair{Guard: newLines()}))
	}
	for _, e := range all {
		bothParked(t, e.Session)
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before+20 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if more := runtime.NumGoroutine() - before; more > 20 {
		t.Errorf("100 parked sessions have %d goroutines", more)
	}
	r.Cut(errors.New("over"))
	for _, e := range all {
		<-e.result
	}
}

// Bytes that come just when a direction is being parked are not missed, whoever ends the session meanwhile.
func TestParkingRaces(t *testing.T) {
	t.Parallel()
	r := &Relay{Park: time.Millisecond, Linger: 10 * time.Millisecond}
	var all sync.WaitGroup
	for i := range 20 {
		e := startTCP(t, r, Pair{Guard: newLines()})
		go io.Copy(e.backend, e.backend)
		all.Go(func() {
			buf := make([]byte, 64)
			for range 100 {
				line := append(bytes.Repeat([]byte("x"), mathrand.IntN(60)), '\n')
				e.client.Write(line)
				e.client.SetReadDeadline(time.Now().Add(20 * time.Second))
				if _, err := io.ReadFull(e.client, buf[:len(line)]); err != nil || !bytes.Equal(buf[:len(line)], line) {
					t.Errorf("got %q, %v; want %q", buf[:len(line)], err, line)
					break
				}
				time.Sleep(mathrand.N(2 * time.Millisecond))
			}
			switch i % 4 {
			case 0:
				e.client.Close()
			case 1:
				e.backend.Close()
			case 2:
				e.End(errors.New("revoked"))
			case 3:
				go e.client.Close()
				e.End(errors.New("revoked"))
			}
			if i%4 != 0 {
				io.Copy(io.Discard, e.client)
				e.client.Close()
			}
			<-e.result
		})
	}
	all.Wait()
	r.Close()
}

// startTLS relays between a client over TLS and a plain backend.
func startTLS(t testing.TB, r *Relay, p Pair) *ends {
	t.Helper()
	ca := testlab.NewCA(t)
	_, _, cert := ca.Issue("localhost")
	return startTCPOver(t, r, p, func(client, served net.Conn) (net.Conn, net.Conn) {
		c, s := tls.Client(client, &tls.Config{RootCAs: ca.Pool, ServerName: "localhost"}), tls.Server(served, &tls.Config{Certificates: []tls.Certificate{cert}})
		go c.Handshake()
		if err := s.Handshake(); err != nil {
			t.Fatal(err)
		}
		return c, s
	})
}

// data is a guard that lets everything pass, and knows that n bytes of it are data.
type data struct {
	lines
	left, skipped atomic.Int64
}

func (g *data) Up(p []byte) (Step, error) { return Step{Taken: len(p), Pass: p}, nil }

func (g *data) Down(p []byte) ([]byte, int) {
	g.left.Add(-int64(len(p)))
	return p, -1
}

func (g *data) Data(up bool) int64 {
	if up {
		return 0
	}
	return max(g.left.Load(), 0)
}

func (g *data) Skip(up bool, n int64) {
	g.left.Add(-n)
	g.skipped.Add(n)
}

// A great deal of data passes inside the kernel, to the byte, and no more of what comes than is data.
func TestSplice(t *testing.T) {
	skipWhereNothingParks(t)
	t.Parallel()
	g := &data{}
	const size = 20 << 20
	g.left.Store(size)
	e := startTCP(t, &Relay{Park: parkSoon, Linger: 10 * time.Millisecond}, Pair{Guard: g})
	sent := make([]byte, size+5000)
	rand.Read(sent)
	go func() {
		for rest := sent; len(rest) > 0; {
			n := min(len(rest), mathrand.IntN(1<<20)+1)
			e.backend.Write(rest[:n])
			rest = rest[n:]
			if mathrand.IntN(10) == 0 {
				time.Sleep(gapTime + 10*time.Millisecond) // the pipe goes back meanwhile
			}
		}
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(e.client, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("other bytes came, %v", err)
	}
	if n := g.skipped.Load(); n < size/2 || n > size {
		t.Errorf("%d bytes of %d were spliced", n, size)
	}
	if left := g.left.Load(); left != -5000 {
		t.Errorf("%d bytes were not looked at as they should", left+5000)
	}
	e.client.Close()
	if res := <-e.result; res.Down != int64(len(sent)) {
		t.Errorf("result = %+v", res)
	}
}

// When all pipes are taken, and while a client takes nothing, nothing is lost.
func TestSpliceWithoutPipes(t *testing.T) {
	skipWhereNothingParks(t)
	var taken []*pipe
	for p := pipes.get(); p != nil; p = pipes.get() {
		taken = append(taken, p)
	}
	defer func() {
		for _, p := range taken {
			pipes.put(p)
		}
		if pipes.given != 0 || len(pipes.idle) > maxIdle {
			t.Errorf("%d pipes are taken, %d idle", pipes.given, len(pipes.idle))
		}
	}()
	if len(taken) > maxPipes {
		t.Errorf("%d pipes", len(taken))
	}
	e := startTCP(t, &Relay{Linger: 10 * time.Millisecond}, Pair{})
	sent := strings.Repeat("a line\n", 1<<20)
	go func() { io.WriteString(e.backend, sent); e.backend.Close() }()
	time.Sleep(10 * time.Millisecond)
	if got, err := io.ReadAll(e.client); string(got) != sent || err != nil {
		t.Errorf("%d bytes came, %v", len(got), err)
	}
	e.client.Close()
	<-e.result
}

// A session that is ended in the middle of data is cut.
func TestSpliceIsCut(t *testing.T) {
	skipWhereNothingParks(t)
	t.Parallel()
	revoked := errors.New("revoked")
	g := &data{}
	g.left.Store(1 << 40)
	e := startTCP(t, &Relay{}, Pair{Guard: g})
	go func() {
		chunk := make([]byte, 1<<20)
		for {
			if _, err := e.backend.Write(chunk); err != nil {
				return
			}
		}
	}()
	io.CopyN(io.Discard, e.client, 10<<20) // then the client takes nothing more
	e.End(revoked)
	if res := <-e.result; res.Reason != revoked || g.skipped.Load() == 0 {
		t.Errorf("result = %+v, %d bytes were spliced", res, g.skipped.Load())
	}
}
