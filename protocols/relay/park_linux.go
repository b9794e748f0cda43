package relay

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lot is where directions are parked: an epoll set of its own, whose members report once and are then quiet until they park again. One
// goroutine watches it for all.
type lot struct {
	epoll *os.File // so that Go's own poller waits for it, and no thread
	ended chan struct{}

	mu    sync.Mutex // guards the fields below
	spots []spot
	free  []int32
}

// spot is a place in the lot. Its turn tells a direction's events from those of the one before it.
type spot struct {
	d    *direction
	turn int32
}

func newParking() (parking, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	unix.SetNonblock(fd, true) // tells os.NewFile that it can be waited for
	l := &lot{epoll: os.NewFile(uintptr(fd), "epoll"), ended: make(chan struct{})}
	if l.epoll.SetReadDeadline(time.Time{}) != nil { // a kernel, or what plays one, that does not watch a set in a set
		l.epoll.Close()
		return &waiting{}, nil
	}
	go l.watch()
	return l, nil
}

func (l *lot) close() {
	l.epoll.Close()
	<-l.ended
}

// park takes a direction in. Where its peer has said something meanwhile, it is unparked at once: nothing is missed.
func (l *lot) park(d *direction) error {
	socket, err := lowest(d.from()).(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	op := unix.EPOLL_CTL_MOD
	if d.spot == noSpot {
		op, d.spot = unix.EPOLL_CTL_ADD, l.take(d)
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: d.spot, Pad: l.turn(d.spot)}
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

func (l *lot) take(d *direction) int32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.free); n > 0 {
		at := l.free[n-1]
		l.free = l.free[:n-1]
		l.spots[at].d = d
		return at
	}
	l.spots = append(l.spots, spot{d: d})
	return int32(len(l.spots) - 1)
}

func (l *lot) turn(at int32) int32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.spots[at].turn
}

// leave gives a spot back. The socket leaves the epoll set when it is closed.
func (l *lot) leave(at int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spots[at] = spot{turn: l.spots[at].turn + 1}
	l.free = append(l.free, at)
}

func (l *lot) at(e unix.EpollEvent) *direction {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.spots[e.Fd]; s.turn == e.Pad {
		return s.d
	}
	return nil
}

// watch unparks who has something to read, until the lot is closed.
func (l *lot) watch() {
	defer close(l.ended)
	raw, err := l.epoll.SyscallConn()
	if err != nil {
		return
	}
	var events [64]unix.EpollEvent
	for {
		n := 0
		ready := func(fd uintptr) bool {
			n, err = unix.EpollWait(int(fd), events[:], 0)
			return n > 0 || err != nil && err != unix.EINTR
		}
		if raw.Read(ready) != nil || err != nil {
			return
		}
		for _, e := range events[:n] {
			if d := l.at(e); d != nil {
				d.unpark()
			}
		}
	}
}
