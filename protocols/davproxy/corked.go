package davproxy

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// corked is a client's socket beneath TLS. On HTTP/2 net/http sends an answer's header and its body one behind the other, each with a
// write and in a packet of its own. Here the first waits for the second, which saves a PROPFIND some 4 us, and the client a packet.
type corked struct {
	net.Conn
	length atomic.Int64 // of a body that nothing was written of yet; zero: none is known to come

	mu   sync.Mutex  // guards the fields below, and is held while something is written
	held *[]byte     // what waits; nil: nothing does
	late *time.Timer // sends it when nothing has followed; nil: nothing ever waited
	err  error       // why what waited could not be sent; whatever came after it would follow a gap
}

const (
	// lateTime is how long the header waits. Nothing follows where the client has no window open for the body, or takes its request back
	// in this very moment.
	lateTime = 5 * time.Millisecond
	// maxJoined bounds what is copied to be sent with one write, in bytes.
	maxJoined = 4 << 10
)

var joined = sync.Pool{New: func() any {
	b := make([]byte, 0, maxJoined)
	return &b
}}

// NetConn is for parking.Lowest.
func (c *corked) NetConn() net.Conn { return c.Conn }

// bodyFollows says that a body of so many bytes will be written at once.
func (c *corked) bodyFollows(length int) { c.length.Store(int64(length)) }

// Write keeps bytes back, if a body follows that can't be among them all.
func (c *corked) Write(p []byte) (int, error) {
	follows := c.length.Load() > 0 && c.length.Swap(0) >= int64(len(p))
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return 0, c.err
	case c.held != nil:
		return c.join(p)
	case follows && len(p) <= maxJoined:
		c.hold(p)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *corked) hold(p []byte) {
	c.held = joined.Get().(*[]byte)
	*c.held = append((*c.held)[:0], p...)
	if c.late == nil {
		c.late = time.AfterFunc(lateTime, c.flush)
	} else {
		c.late.Reset(lateTime)
	}
}

// join sends what waits together with p.
func (c *corked) join(p []byte) (int, error) {
	c.late.Stop()
	waited := len(*c.held)
	if waited+len(p) > maxJoined {
		if c.send(); c.err != nil {
			return 0, c.err
		}
		return c.Conn.Write(p)
	}
	*c.held = append(*c.held, p...)
	n := c.send()
	return max(0, n-waited), c.err
}

// send writes what waits.
func (c *corked) send() (n int) {
	n, c.err = c.Conn.Write(*c.held)
	joined.Put(c.held)
	c.held = nil
	return n
}

// flush sends what nothing has followed.
func (c *corked) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held != nil {
		c.send()
	}
}
