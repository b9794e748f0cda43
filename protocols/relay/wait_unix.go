//go:build unix

package relay

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// waiting parks directions where there is no epoll: each keeps a goroutine that waits for its socket, and nothing else.
type waiting struct{ waiters sync.WaitGroup }

func (w *waiting) park(d *direction) error {
	socket, err := lowest(d.from()).(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	w.waiters.Go(func() {
		// It ends with an error when the socket is closed: then nobody is parked any more.
		socket.Read(func(fd uintptr) bool {
			var b [1]byte
			_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK)
			return err != unix.EAGAIN && err != unix.EINTR
		})
		d.unpark()
	})
	return nil
}

func (w *waiting) leave(int32) {}

func (w *waiting) close() { w.waiters.Wait() }
