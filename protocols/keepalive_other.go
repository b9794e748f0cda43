//go:build !linux

package protocols

import "net"

// ListenConfig is for sockets that clients connect to.
func ListenConfig() net.ListenConfig { return net.ListenConfig{KeepAliveConfig: clientKeepAlive} }

func keepBackend(nc net.Conn) {
	if tcp, ok := nc.(*net.TCPConn); ok {
		tcp.SetKeepAliveConfig(backendKeepAlive)
	}
}
