package relay

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

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

// late is a guard that takes its time to note what passes.
type late struct{ *data }

func (g late) Skip(up bool, n int64) {
	time.Sleep(20 * time.Millisecond)
	g.data.Skip(up, n)
}

// The guard knows of data before the peer that may answer it.
func TestSkipComesFirst(t *testing.T) {
	t.Parallel()
	g := late{&data{}}
	const size = 1 << 20
	g.left.Store(size)
	e := startTCP(t, &Relay{}, Pair{Guard: g})
	go e.backend.Write(make([]byte, size))
	if _, err := io.ReadFull(e.client, make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if left := g.left.Load(); left != 0 || g.skipped.Load() == 0 {
		t.Errorf("%d bytes are said to come, %d were skipped", left, g.skipped.Load())
	}
}
