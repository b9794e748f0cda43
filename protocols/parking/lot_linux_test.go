package parking

import (
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// waker has a goroutine for each that is woken, as the relay does.
type waker struct {
	woken sync.WaitGroup

	mu   sync.Mutex
	most int // goroutines at once
}

func (w *waker) Unpark() {
	go func() {
		defer w.woken.Done()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.most = max(w.most, runtime.NumGoroutine())
	}()
}

// Many that are woken at once take turns, so that their goroutines do. Go would keep what describes each for ever.
func TestWokenTakeTurns(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // else some end while others begin
	lot, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer lot.Close()
	const parked = 4 * batch
	var w waker
	w.woken.Add(parked)
	var peers []*os.File
	for range parked {
		ours, theirs := pair(t)
		peers = append(peers, theirs)
		if err := lot.Park(ours, &w, new(Spot)); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range peers {
		f.Close()
	}
	over := make(chan struct{})
	go func() { w.woken.Wait(); close(over) }()
	select {
	case <-over:
	case <-time.After(time.Minute):
		t.Fatal("not all are woken")
	}
	if w.most > 3*batch {
		t.Errorf("%d goroutines at once for %d that were woken", w.most, parked)
	}
}

// pair is both ends of a connection.
func pair(t *testing.T) (ours net.Conn, theirs *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "ours")
	defer f.Close()
	theirs = os.NewFile(uintptr(fds[1]), "theirs")
	t.Cleanup(func() { theirs.Close() })
	if ours, err = net.FileConn(f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	return ours, theirs
}
