package protocols

import (
	"net"
	"time"
)

// clientKeepAlive finds dead clients in some minutes without waking phones: Go's own looks every 15 seconds.
var clientKeepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Minute, Interval: 30 * time.Second, Count: 4}

// backendKeepAlive finds a dead backend soon; servers don't mind being woken.
var backendKeepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4}

// keepAlive has the kernel look whether a peer is there: with probes while nothing is said, and by its acknowledgements of what was. The
// same time is set for both, as Linux uses the second for the probes, too: a shorter one would end a connection at the first that is lost.
func keepAlive(nc net.Conn, k net.KeepAliveConfig) {
	if tcp, ok := nc.(*net.TCPConn); ok {
		tcp.SetKeepAliveConfig(k)
		setUserTimeout(tcp, k.Idle+time.Duration(k.Count)*k.Interval)
	}
}
