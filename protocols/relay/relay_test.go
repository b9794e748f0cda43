package relay

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// ends are a session's two peers as a test holds them.
type ends struct {
	*Session
	client, backend net.Conn
	result          chan Result
}

// start relays between two pipes.
func start(r *Relay, p Pair) *ends {
	e := &ends{result: make(chan Result, 1)}
	e.client, p.Client = net.Pipe()
	e.backend, p.Backend = net.Pipe()
	e.Session = r.Start(p, func(res Result) { e.result <- res })
	return e
}

// startTCP relays between two TCP connections.
func startTCP(t testing.TB, r *Relay, p Pair) *ends {
	t.Helper()
	return startTCPOver(t, r, p, func(client, served net.Conn) (net.Conn, net.Conn) { return client, served })
}

// startTCPOver does it with something over both ends of the client's.
func startTCPOver(t testing.TB, r *Relay, p Pair, over func(client, served net.Conn) (net.Conn, net.Conn)) *ends {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	pair := func() (net.Conn, net.Conn) {
		a, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.Close() })
		return a, b
	}
	e := &ends{result: make(chan Result, 1)}
	e.client, p.Client = over(pair())
	e.backend, p.Backend = pair()
	e.Session = r.Start(p, func(res Result) { e.result <- res })
	return e
}

func TestEverythingArrivesInOrder(t *testing.T) {
	t.Parallel()
	e := startTCP(t, &Relay{}, Pair{ToBackend: []byte("first "), ToClient: []byte("hello ")})
	up, down := make([]byte, 3<<20), make([]byte, 5<<20)
	rand.Read(up)
	rand.Read(down)
	go func() {
		e.client.Write(up)
		e.client.(*net.TCPConn).CloseWrite()
	}()
	go func() { e.backend.Write(down) }()
	gotDown := make(chan []byte)
	go func() {
		b := make([]byte, 6+len(down))
		io.ReadFull(e.client, b)
		gotDown <- b
	}()
	gotUp, err := io.ReadAll(e.backend) // up to the half-close
	if err != nil || !bytes.Equal(gotUp, append([]byte("first "), up...)) {
		t.Errorf("backend got %d bytes, %v", len(gotUp), err)
	}
	if !bytes.Equal(<-gotDown, append([]byte("hello "), down...)) {
		t.Error("client got other bytes")
	}
	e.backend.Write([]byte("after the half-close"))
	e.backend.Close()
	if rest, err := io.ReadAll(e.client); string(rest) != "after the half-close" || err != nil {
		t.Errorf("client got %q, %v after its half-close", rest, err)
	}
	res := <-e.result
	if res.Reason != ErrClientClosed || res.Up != int64(6+len(up)) || res.Down != int64(6+len(down)+20) {
		t.Errorf("result = %+v", res)
	}
}

func TestBackendClosesFirst(t *testing.T) {
	t.Parallel()
	e := startTCP(t, &Relay{}, Pair{})
	e.backend.Write([]byte("* BYE\r\na OK\r\n"))
	e.backend.Close()
	if got, err := io.ReadAll(e.client); string(got) != "* BYE\r\na OK\r\n" || err != nil {
		t.Errorf("client got %q, %v", got, err)
	}
	e.client.Close()
	if res := <-e.result; res.Reason != ErrBackendClosed {
		t.Errorf("reason = %v", res.Reason)
	}
}

func TestLingerEnds(t *testing.T) {
	t.Parallel()
	e := startTCP(t, &Relay{Linger: time.Millisecond}, Pair{})
	e.backend.(*net.TCPConn).CloseWrite()
	if res := <-e.result; res.Reason != ErrBackendClosed { // though the client never closes
		t.Errorf("reason = %v", res.Reason)
	}
}

func TestEndCutsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		revoked := errors.New("revoked")
		e := start(&Relay{}, Pair{})
		go e.client.Write(make([]byte, 1<<20)) // which the backend does not read
		synctest.Wait()
		began := time.Now()
		e.End(revoked)
		if res := <-e.result; res.Reason != revoked || time.Since(began) != 0 {
			t.Errorf("reason = %v after %v", res.Reason, time.Since(began))
		}
		if _, err := e.backend.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("backend's read: %v", err)
		}
	})
}

func TestCutEndsAllAndThoseThatCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := errors.New("the grace is over")
		r := &Relay{}
		open := start(r, Pair{})
		r.Cut(over)
		for _, e := range []*ends{open, start(r, Pair{})} {
			if res := <-e.result; res.Reason != over {
				t.Errorf("reason = %v", res.Reason)
			}
		}
	})
}

func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(&Relay{}, Pair{})
		began := time.Now()
		go io.Copy(io.Discard, e.client)
		time.Sleep(30 * time.Minute)
		e.backend.Write([]byte("* OK Still here\r\n")) // one direction's bytes keep both
		synctest.Wait()
		if res := <-e.result; res.Reason != ErrIdle || time.Since(began) != 65*time.Minute || res.Down != 17 {
			t.Errorf("result = %+v after %v, want idle after 65 minutes", res, time.Since(began))
		}
	})
}

func TestStalledPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(&Relay{}, Pair{})
		began := time.Now()
		go e.backend.Write([]byte("* OK\r\n")) // which the client does not read
		res := <-e.result
		if after := time.Since(began); res.Reason != ErrStalled || after < 3*time.Minute || after > 5*time.Minute {
			t.Errorf("reason = %v after %v", res.Reason, after)
		}
	})
}

type panics struct{ net.Conn }

func (panics) Read([]byte) (int, error) { panic("a defect") }

func TestPanicEndsOneSession(t *testing.T) {
	a, b := net.Pipe()
	_, d := net.Pipe()
	result := make(chan Result, 1)
	(&Relay{}).Start(Pair{Client: panics{b}, Backend: d}, func(r Result) { result <- r })
	defer a.Close()
	p, ok := (<-result).Reason.(*PanicError)
	if !ok || p.Value != "a defect" || p.Error() != "panic: a defect" || len(p.Stack) == 0 {
		t.Errorf("reason = %v", p)
	}
}

func BenchmarkLine(b *testing.B) {
	e := startTCP(b, &Relay{}, Pair{})
	go io.Copy(e.backend, e.backend)
	line, buf := []byte("a NOOP\r\n"), make([]byte, 8)
	b.ReportAllocs()
	for b.Loop() {
		e.client.Write(line)
		if _, err := io.ReadFull(e.client, buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBulk(b *testing.B) {
	e := startTCP(b, &Relay{}, Pair{})
	go io.Copy(io.Discard, e.client)
	chunk := make([]byte, 64<<10)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.backend.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
}
