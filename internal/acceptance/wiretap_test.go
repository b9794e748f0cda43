package acceptance

import (
	"bufio"
	"bytes"
	"net"
	"strings"
	"sync"
	"testing"
)

// wiretap stands between a gateway and an SMTP backend that it speaks to in plain text. It notes what the gateway says, counts what the
// backend replies, and cuts or keeps back where it is told to.
type wiretap struct {
	address string

	mu   sync.Mutex // guards the fields below
	plan plan
	said *bytes.Buffer // by the gateway, over the newest connection
	held int           // so many replies are or were kept back
}

// plan is what happens on each connection that begins while it holds. Nothing happens but what is set.
type plan struct {
	from    string        // replies are counted from when the gateway says this
	before  int           // this reply, counted from 1, is not passed on: when it has come, both sides are cut
	after   int           // both are cut when this one has been passed on, and nothing behind it gets through
	words   string        // both are cut when the gateway has said this, and nothing behind it was passed on
	hold    int           // this reply is kept back
	release chan struct{} // until this is closed
}

func newWiretap(t *testing.T, backend string) *wiretap {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	w := &wiretap{address: ln.Addr().String(), said: new(bytes.Buffer)}
	go func() {
		for {
			gateway, err := ln.Accept()
			if err != nil {
				return
			}
			go w.carry(gateway, backend)
		}
	}()
	return w
}

// do sets what happens from now on.
func (w *wiretap) do(p plan) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.plan = p
}

// holds tells how many replies are or were kept back.
func (w *wiretap) holds() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.held
}

// heard is what the gateway has said over the newest connection.
func (w *wiretap) heard() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said.String()
}

func (w *wiretap) carry(gateway net.Conn, address string) {
	defer gateway.Close()
	backend, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer backend.Close()
	w.mu.Lock()
	plan, said := w.plan, new(bytes.Buffer)
	w.said = said
	w.mu.Unlock()
	counts := plan.from == "" // guarded by w.mu
	go func() {
		defer backend.(*net.TCPConn).CloseWrite()
		for buf := make([]byte, 32<<10); ; {
			n, err := gateway.Read(buf)
			if err != nil {
				return
			}
			w.mu.Lock()
			said.Write(buf[:n])
			_, behind, cut := bytes.Cut(said.Bytes(), []byte(plan.words))
			counts = counts || bytes.Contains(said.Bytes(), []byte(plan.from))
			w.mu.Unlock()
			if cut = cut && plan.words != ""; cut {
				n -= len(behind)
			}
			if backend.Write(buf[:n]); cut {
				gateway.Close()
				return
			}
		}
	}()
	replies := bufio.NewReader(backend)
	for n := 0; ; {
		reply, err := readReply(replies)
		w.mu.Lock()
		if counts {
			n++
		}
		if n == plan.hold && n > 0 {
			w.held++
		}
		w.mu.Unlock()
		if err != nil || n == plan.before && n > 0 {
			return
		}
		if n == plan.hold && n > 0 {
			<-plan.release
		}
		last := n == plan.after && n > 0
		if last {
			backend.Close() // first: the gateway's next words may come before we have cut it off
		}
		if _, err := gateway.Write([]byte(reply)); err != nil || last {
			return
		}
	}
}

func readReply(r *bufio.Reader) (string, error) {
	var reply strings.Builder
	for {
		line, err := r.ReadString('\n')
		reply.WriteString(line)
		if err != nil || len(line) < 4 || line[3] != '-' {
			return reply.String(), err
		}
	}
}
