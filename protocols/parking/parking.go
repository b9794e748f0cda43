// Package parking has quiet connections wait for their peers without a goroutine and its stack each. The relay parks the sides of a session
// here, and the DAV front door clients between two requests. It reads nothing: who is woken does.
package parking

import (
	"errors"
	"net"
	"syscall"
)

// Lot is where connections are parked. Goroutines may share it.
type Lot interface {
	// Park has w told, once, when the peer has said something or has closed: nothing is missed that came before. The connection's first
	// call takes the spot.
	Park(nc net.Conn, w Waiter, s *Spot) error
	// Leave gives a connection's spot back, if it has one. The connection is closed.
	Leave(s *Spot)
	// Close ends what waits. No connection is parked any more.
	Close()
}

// Waiter waits for a parked connection's peer. Unpark is called from a goroutine that others need.
type Waiter interface{ Unpark() }

// Spot is a connection's place in a lot, from when it is first parked until it is closed. The zero value: it has none.
type Spot int32

// Can tells whether a connection can be parked: there must be a socket, below TLS and other layers, to wait for.
func Can(nc net.Conn) bool {
	_, ok := Lowest(nc).(syscall.Conn)
	return ok
}

// Lowest is the socket below TLS and other layers.
func Lowest(nc net.Conn) net.Conn {
	for {
		over, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			return nc
		}
		nc = over.NetConn()
	}
}

var errNoSocket = errors.New("a connection without a socket can't be parked")

func socketOf(nc net.Conn) (syscall.RawConn, error) {
	socket, ok := Lowest(nc).(syscall.Conn)
	if !ok {
		return nil, errNoSocket
	}
	return socket.SyscallConn()
}
