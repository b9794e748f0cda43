package parking

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// lot is an epoll set of its own, whose members report once and are then quiet until they park again. One goroutine watches it for all.
type lot struct {
	epoll *os.File // so that Go's own poller waits for it, and no thread
	ended chan struct{}

	mu    sync.Mutex // guards the fields below
	spots []spot     // the first is no Spot
	free  []Spot
}

// spot is a place in the lot. Its turn tells a connection's events from those of the one before it.
type spot struct {
	w    Waiter
	turn int32
}

// New makes a lot.
func New() (Lot, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	unix.SetNonblock(fd, true) // tells os.NewFile that it can be waited for
	l := &lot{epoll: os.NewFile(uintptr(fd), "epoll"), ended: make(chan struct{}), spots: make([]spot, 1)}
	if l.epoll.SetReadDeadline(time.Time{}) != nil { // a kernel, or what plays one, that does not watch a set in a set
		l.epoll.Close()
		return &Waiting{}, nil
	}
	go l.watch()
	return l, nil
}

func (l *lot) Close() {
	l.epoll.Close()
	<-l.ended
}

// Park takes a connection in. Where its peer has said something meanwhile, w is told at once.
func (l *lot) Park(nc net.Conn, w Waiter, s *Spot) error {
	socket, err := socketOf(nc)
	if err != nil {
		return err
	}
	op := unix.EPOLL_CTL_MOD
	if *s == 0 {
		op, *s = unix.EPOLL_CTL_ADD, l.take(w)
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(*s), Pad: l.turn(*s)}
	if ctlErr := l.control(func(epoll int) error {
		var ctlErr error
		err = socket.Control(func(fd uintptr) { ctlErr = unix.EpollCtl(epoll, op, int(fd), &event) })
		return ctlErr
	}); ctlErr != nil {
		return ctlErr
	}
	return err
}

func (l *lot) control(do func(epoll int) error) error {
	raw, err := l.epoll.SyscallConn()
	if err != nil {
		return err
	}
	var did error
	if err := raw.Control(func(fd uintptr) { did = do(int(fd)) }); err != nil {
		return err
	}
	return did
}

func (l *lot) take(w Waiter) Spot {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.free); n > 0 {
		at := l.free[n-1]
		l.free = l.free[:n-1]
		l.spots[at].w = w
		return at
	}
	l.spots = append(l.spots, spot{w: w})
	return Spot(len(l.spots) - 1)
}

func (l *lot) turn(at Spot) int32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.spots[at].turn
}

// Leave gives a spot back. The socket leaves the epoll set when it is closed.
func (l *lot) Leave(s *Spot) {
	if *s == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spots[*s] = spot{turn: l.spots[*s].turn + 1}
	l.free = append(l.free, *s)
	*s = 0
}

func (l *lot) at(e unix.EpollEvent) Waiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.spots[e.Fd]; s.turn == e.Pad {
		return s.w
	}
	return nil
}

// batch is how many are woken at a time. Thousands at once would each take a new goroutine, and Go never frees what describes one; of fewer
// the last would wait long where others compute, for each batch waits for its turn.
const batch = 512

// watch wakes who has something to read, until the lot is closed.
func (l *lot) watch() {
	defer close(l.ended)
	raw, err := l.epoll.SyscallConn()
	if err != nil {
		return
	}
	events := make([]unix.EpollEvent, batch)
	for {
		n := 0
		ready := func(fd uintptr) bool {
			n, err = unix.EpollWait(int(fd), events, 0)
			return n > 0 || err != nil && err != unix.EINTR
		}
		if raw.Read(ready) != nil || err != nil {
			return
		}
		for _, e := range events[:n] {
			if w := l.at(e); w != nil {
				w.Unpark()
			}
		}
		if n == len(events) {
			runtime.Gosched() // who was woken may end before others are
		}
	}
}
