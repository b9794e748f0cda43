package protocols

import (
	"net"
	"time"
)

// clientKeepAlive finds dead clients in some minutes without waking phones: Go's own looks every 15 seconds.
var clientKeepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Minute, Interval: 30 * time.Second, Count: 4}

// backendKeepAlive finds a dead backend soon; servers don't mind being woken.
var backendKeepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4}
