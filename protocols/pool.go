package protocols

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"
)

// pooledTime is how long a connection is kept for a login to come. Servers give theirs one to three minutes.
const pooledTime = 20 * time.Second

// Pool keeps connections to one backend ready for logins to come: connected, over TLS where it is implicit, their greetings unread. It
// saves the round trips before the login, and no CPU. A login that follows another has one dialled in the background: so there are soon
// as many as come at once, and what no login takes is closed. Goroutines may share it. A nil Pool keeps nothing.
type Pool struct {
	size   int
	keep   time.Duration
	ctx    context.Context // of dialling
	stop   context.CancelFunc
	dials  sync.WaitGroup
	mu     sync.Mutex // guards the fields below
	idle   []*pooledConn
	coming int       // being dialled
	last   time.Time // when the last login came
}

type pooledConn struct {
	net.Conn
	expiry *time.Timer
}

// NewPool makes a pool of at most size connections; nil where size is 0.
func NewPool(size int) *Pool {
	if size == 0 {
		return nil
	}
	p := &Pool{size: size, keep: pooledTime}
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p
}

// Close closes what is kept, and returns when nothing is dialled any more. Nothing is kept afterwards.
func (p *Pool) Close() {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.stop() // under mu, so that take starts no more
	p.mu.Unlock()
	p.dials.Wait()
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, c := range idle {
		c.expiry.Stop()
		c.Close()
	}
}

// take returns the newest connection, or nil, and sees to the next login's. Whether the backend still holds it is not known.
func (p *Pool) take(r *Route) net.Conn {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var taken net.Conn
	if n := len(p.idle); n > 0 {
		p.idle[n-1].expiry.Stop()
		taken, p.idle = p.idle[n-1].Conn, p.idle[:n-1]
	}
	now := time.Now()
	if now.Sub(p.last) < p.keep && len(p.idle)+p.coming < p.size && p.ctx.Err() == nil {
		p.coming++
		p.dials.Go(func() { p.dial(r) })
	}
	p.last = now
	return taken
}

func (p *Pool) dial(r *Route) {
	nc, err := Dial(p.ctx, r) // the next login will tell of an error
	p.mu.Lock()
	defer p.mu.Unlock()
	p.coming--
	if err != nil {
		return
	}
	c := &pooledConn{Conn: nc}
	c.expiry = time.AfterFunc(p.keep, func() { p.expire(c) })
	p.idle = append(p.idle, c)
}

// expire closes a connection, if it has not been taken.
func (p *Pool) expire(c *pooledConn) {
	p.mu.Lock()
	i := slices.Index(p.idle, c)
	if i >= 0 {
		p.idle = slices.Delete(p.idle, i, i+1)
	}
	p.mu.Unlock()
	if i >= 0 {
		c.Close()
	}
}
