package relay

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"postern/internal/testlab"
	"postern/protocols/parking"
)

// parkings are the system's own and the one of systems without epoll.
func parkings() map[string]parking.Lot {
	return map[string]parking.Lot{"own": nil, "waiting": &parking.Waiting{}}
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
	for name, startOver := range map[string]func(testing.TB, *Relay, Pair) *ends{"plain": startTCP, "TLS": startTLS} {
		for kind, lot := range parkings() {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				testParkedSessionsGoOn(t, startOver(t, &Relay{Park: parkSoon, Linger: 10 * time.Millisecond, lot: lot}, Pair{Guard: newLines()}))
			})
		}
	}
}

func testParkedSessionsGoOn(t *testing.T, e *ends) {
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
}

func TestParkedSessionsEnd(t *testing.T) {
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
		for kind, lot := range parkings() {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				r := &Relay{Park: parkSoon, Linger: 10 * time.Millisecond, lot: lot}
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
				if n := len(r.all()); n != 0 {
					t.Errorf("%d sessions are left", n)
				}
				r.Close()
			})
		}
	}
}

// A parked session has no goroutine.
func TestParkedSessionsCostNoGoroutine(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere it has one")
	}
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
