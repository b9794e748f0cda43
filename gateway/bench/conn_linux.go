package bench

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// bindLate leaves the choice of a port to connect, so that each source has all ports towards each target, not all targets together.
func bindLate(_, _ string, c syscall.RawConn) error {
	var err error
	controlErr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
	if controlErr != nil {
		return controlErr
	}
	return err
}

// quickConn sets TCP_QUICKACK again after each read and write: the kernel takes it back by itself.
type quickConn struct {
	net.Conn
	raw syscall.RawConn
}

func acknowledgeAtOnce(nc net.Conn) (net.Conn, error) {
	raw, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		nc.Close()
		return nil, err
	}
	c := &quickConn{nc, raw}
	c.quick()
	return c, nil
}

func (c *quickConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.quick()
	return n, err
}

func (c *quickConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.quick()
	return n, err
}

func (c *quickConn) quick() {
	c.raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) })
}
