//go:build !linux

package protocols

import (
	"net"
	"time"
)

// setUserTimeout is Linux's.
func setUserTimeout(*net.TCPConn, time.Duration) {}
