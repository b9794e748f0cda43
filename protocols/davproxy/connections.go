package davproxy

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"postern/protocols"
	"postern/protocols/parking"
)

// connections are those of one listener.
type connections struct {
	sync.WaitGroup          // of them and their requests
	open           sync.Map // of net.Conn, as net/http has it, to *line
	newcomers      protocols.Newcomers
	back           *comeback
	early          time.Duration   // how long before its time for the next request is over a client is parked
	ctx            context.Context // the listener's
	draining       atomic.Bool     // nobody is parked any more

	mu  sync.Mutex // guards lot
	lot parking.Lot
}

// parkingLot is made with the first line that parks.
func (cs *connections) parkingLot() (parking.Lot, error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.lot == nil {
		lot, err := parking.New()
		if err != nil {
			return nil, err
		}
		cs.lot = lot
	}
	return cs.lot, nil
}

// state is told by net/http what it does with a connection.
func (cs *connections) state(nc net.Conn, state http.ConnState) {
	cs.newcomers.State(nc, state)
	switch state {
	case http.StateIdle:
		if l, ok := nc.(interface{ rest() }); ok {
			l.rest()
		}
	case http.StateClosed:
		v, ok := cs.open.Load(nc)
		if !ok { // it goes on as HTTP/2
			return
		}
		if l := v.(*line); l.kept.Load() && nc == l.forHTTP() {
			l.park()
		} else {
			l.closed(nc, cs.reason())
		}
	}
}

// reason is why a connection closes of which nothing else is known.
func (cs *connections) reason() string {
	if cs.ctx.Err() != nil {
		return "drained"
	}
	return "client closed"
}

// drain ends those that are parked. Nobody is parked any more.
func (cs *connections) drain() {
	cs.draining.Store(true)
	cs.all((*line).drain)
}

// hangUp cuts all of them.
func (cs *connections) hangUp() { cs.all((*line).hangUp) }

func (cs *connections) all(do func(*line)) {
	cs.open.Range(func(_, l any) bool {
		do(l.(*line))
		return true
	})
}

// close is called when they all have ended.
func (cs *connections) close() {
	if cs.lot != nil {
		cs.lot.Close()
	}
}

// lines is a listener that gives lines to net/http.
type lines struct {
	net.Listener
	server *Server
	tls    *tls.Config // nil: plain text
	conns  *connections
}

func (ls *lines) Accept() (net.Conn, error) {
	nc, err := ls.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l := &line{Conn: nc, conns: ls.conns, parks: parking.Can(nc)}
	if ls.tls != nil {
		l.corked = &corked{Conn: nc}
		l.Conn = tls.Server(l.corked, ls.tls)
	}
	ls.conns.Add(1)
	l.conn = ls.server.newConn(l, ls.conns.Done)
	served := l.forHTTP()
	ls.conns.open.Store(served, l)
	return served, nil
}

// comeback is the listener through which net/http gets what it had before.
type comeback struct {
	connections chan net.Conn
	once        sync.Once
	closed      chan struct{}
}

func newComeback() *comeback {
	return &comeback{connections: make(chan net.Conn), closed: make(chan struct{})}
}

// give returns false where net/http takes no more.
func (b *comeback) give(nc net.Conn) bool {
	select {
	case b.connections <- nc:
		return true
	case <-b.closed:
		return false
	}
}

func (b *comeback) Accept() (net.Conn, error) {
	select {
	case nc := <-b.connections:
		return nc, nil
	case <-b.closed:
		return nil, net.ErrClosed
	}
}

func (b *comeback) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

// Addr is asked by nobody.
func (b *comeback) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }
