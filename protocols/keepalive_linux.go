package protocols

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ListenConfig is for sockets that clients connect to. Linux has the accepted ones inherit what is set here: six calls less for each.
func ListenConfig() net.ListenConfig {
	return net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, raw syscall.RawConn) error { return keepAlive(raw, clientKeepAlive) }}
}

// keepAlive has the kernel look whether a peer is there: with probes while nothing is said, and by its acknowledgements of what was.
func keepAlive(raw syscall.RawConn, k net.KeepAliveConfig) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		for _, o := range []struct{ level, option, value int }{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(k.Idle.Seconds())},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(k.Interval.Seconds())},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, k.Count},
			{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacknowledged(k).Milliseconds())},
		} {
			if err := unix.SetsockoptInt(int(fd), o.level, o.option, o.value); err != nil && failed == nil {
				failed = err
			}
		}
	})
	if err != nil {
		return err
	}
	return failed
}

// unacknowledged bounds how long what was sent may stay unacknowledged. It is as long as keep-alive takes, for Linux uses it for both: a
// shorter one would end a connection at the first probe that is lost.
func unacknowledged(k net.KeepAliveConfig) time.Duration {
	return k.Idle + time.Duration(k.Count)*k.Interval
}

// keepBackend does it for a connection to a backend. On loopback the kernel itself knows when a peer has gone.
func keepBackend(nc net.Conn) {
	tcp, ok := nc.(*net.TCPConn)
	if !ok || addrPort(tcp.RemoteAddr()).Addr().IsLoopback() {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		keepAlive(raw, backendKeepAlive)
	}
}
