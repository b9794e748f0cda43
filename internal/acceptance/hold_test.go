package acceptance

import (
	"io"
	"net"
	"sync"
	"testing"
)

// hold stands between a gateway and its backend, and can keep back what the backend says from a certain byte on.
type hold struct {
	address string
	sent    chan int // for each connection: how many bytes were let through, when it is over or kept back

	mu   sync.Mutex // guards at and open
	at   int        // of the next connection; negative: keep nothing back
	open chan struct{}
}

func newHold(t *testing.T, backend string) *hold {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	h := &hold{address: ln.Addr().String(), sent: make(chan int, 1000), at: -1}
	go func() {
		for {
			gateway, err := ln.Accept()
			if err != nil {
				return
			}
			h.mu.Lock()
			at, open := h.at, h.open
			h.at = -1
			h.mu.Unlock()
			go h.carry(gateway, backend, at, open)
		}
	}()
	return h
}

// next keeps back what the backend says on the next connection after a number of bytes, until release is called.
func (h *hold) next(at int) (release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	open := make(chan struct{})
	h.at, h.open = at, open
	return func() { close(open) }
}

func (h *hold) carry(gateway net.Conn, backend string, at int, open chan struct{}) {
	defer gateway.Close()
	to, err := net.Dial("tcp", backend)
	if err != nil {
		return
	}
	defer to.Close()
	go func() {
		io.Copy(to, gateway)
		to.(*net.TCPConn).CloseWrite()
	}()
	if at >= 0 {
		n, _ := io.CopyN(gateway, to, int64(at))
		h.sent <- int(n)
		<-open
		io.Copy(gateway, to)
		return
	}
	n, _ := io.Copy(gateway, to)
	h.sent <- int(n)
}
