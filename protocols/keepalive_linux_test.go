package protocols

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// Phones are not woken every few seconds, and a peer that has vanished is noticed all the same.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	lc := ListenConfig()
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	backend, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	raw, err := backend.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := keepAlive(raw, backendKeepAlive); err != nil { // a backend on loopback needs none
		t.Fatal(err)
	}
	client, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for name, tt := range map[string]struct {
		nc                     net.Conn
		idle, interval, count  int // seconds
		unacknowledgedInMillis int
	}{
		"client":  {client, 300, 30, 4, 420_000},
		"backend": {backend, 60, 15, 4, 120_000},
	} {
		raw, err := tt.nc.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			for option, want := range map[int]int{unix.TCP_KEEPIDLE: tt.idle, unix.TCP_KEEPINTVL: tt.interval, unix.TCP_KEEPCNT: tt.count,
				unix.TCP_USER_TIMEOUT: tt.unacknowledgedInMillis} {
				if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option); err != nil || got != want {
					t.Errorf("%s: option %d is %d, %v; want %d", name, option, got, err, want)
				}
			}
		})
	}
}
