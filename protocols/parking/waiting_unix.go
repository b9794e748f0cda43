//go:build unix

package parking

import (
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// Waiting is the lot where there is no epoll: each parked connection keeps a goroutine that waits for its socket, and nothing else. The zero
// value is ready.
type Waiting struct{ waiters sync.WaitGroup }

// Park implements Lot.
func (l *Waiting) Park(nc net.Conn, w Waiter, _ *Spot) error {
	socket, err := socketOf(nc)
	if err != nil {
		return err
	}
	l.waiters.Go(func() {
		// It ends with an error when the socket is closed: then nobody is parked any more.
		socket.Read(func(fd uintptr) bool {
			var b [1]byte
			_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK)
			return err != unix.EAGAIN && err != unix.EINTR
		})
		w.Unpark()
	})
	return nil
}

// Leave implements Lot.
func (*Waiting) Leave(*Spot) {}

// Close implements Lot.
func (l *Waiting) Close() { l.waiters.Wait() }
