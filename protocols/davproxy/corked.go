package davproxy

import (
	"net"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"postern/protocols/parking"
)

// corked is a client's socket beneath TLS. On HTTP/2 net/http sends an answer's header and its body one behind the other, each with a
// write and in a packet of its own. Here the first waits for the second, which saves 3 of a PROPFIND's 64 us, and the client a packet.
type corked struct {
	net.Conn
	raw    syscall.RawConn // nil: it is no socket
	length atomic.Int64    // of a body that nothing was written of yet; zero: none is known to come
}

func newCorked(nc net.Conn) *corked {
	c := &corked{Conn: nc}
	if socket, ok := parking.Lowest(nc).(syscall.Conn); ok {
		c.raw, _ = socket.SyscallConn()
	}
	return c
}

// NetConn is for parking.Lowest.
func (c *corked) NetConn() net.Conn { return c.Conn }

// bodyFollows says that a body of so many bytes will be written at once.
func (c *corked) bodyFollows(length int) { c.length.Store(int64(length)) }

// Write keeps bytes back, if a body follows that can't be among them all. Should it not follow at once, for the client has no window open for
// it or takes back its request in this very moment, the system waits for 200 ms at most and sends what it has.
func (c *corked) Write(p []byte) (int, error) {
	if c.length.Load() == 0 || c.length.Swap(0) < int64(len(p)) || c.raw == nil {
		return c.Conn.Write(p)
	}
	n, err := 0, error(nil)
	if waited := c.raw.Write(func(fd uintptr) bool {
		n, err = unix.SendmsgN(int(fd), p, nil, nil, msgMore|unix.MSG_NOSIGNAL)
		return err != unix.EAGAIN
	}); waited != nil {
		return 0, waited
	}
	switch {
	case err == unix.EINTR:
		n = 0
	case err != nil:
		return 0, os.NewSyscallError("sendmsg", err)
	}
	if n == len(p) {
		return n, nil
	}
	rest, err := c.Conn.Write(p[n:])
	return n + rest, err
}
