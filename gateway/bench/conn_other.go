//go:build !linux

package bench

import (
	"errors"
	"net"
	"syscall"
)

func bindLate(_, _ string, _ syscall.RawConn) error { return nil }

func acknowledgeAtOnce(nc net.Conn) (net.Conn, error) {
	nc.Close()
	return nil, errors.New("acknowledging at once (TCP_QUICKACK) can be asked for on Linux only")
}
