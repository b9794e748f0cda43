package relay

import (
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"postern/protocols/parking"
)

// parkable is one end of a pipe that a relay takes for a socket.
type parkable struct{ net.Conn }

func (parkable) SyscallConn() (syscall.RawConn, error) { return nil, nil }

// nobodyWakes takes directions in and wakes none.
type nobodyWakes struct{}

func (nobodyWakes) Park(net.Conn, parking.Waiter, *parking.Spot) error { return nil }
func (nobodyWakes) Leave(*parking.Spot)                                {}
func (nobodyWakes) Close()                                             {}

// A client that takes none of our words stalls, though the direction towards it is parked meanwhile.
func TestStalledWhileParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, clientSide := net.Pipe()
		backend, backendSide := net.Pipe()
		result := make(chan Result, 1)
		began := time.Now()
		s := (&Relay{lot: nobodyWakes{}}).Start(Pair{Client: parkable{clientSide}, Backend: parkable{backendSide}, Guard: newLines()},
			func(r Result) { result <- r })
		time.Sleep(time.Millisecond)
		io.WriteString(client, "no\n") // is refused, which it does not read
		time.Sleep(time.Second)
		s.mu.Lock()
		if !s.down.parked {
			t.Error("the quiet direction is not parked")
		}
		s.mu.Unlock()
		<-result
		if after := time.Since(began); after > 6*time.Minute {
			t.Errorf("it ended after %v", after)
		}
		backend.Close()
	})
}
