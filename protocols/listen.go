package protocols

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
)

// Listener is a listener's connections as a front door wants them: with the client's own address where a load balancer tells it.
// net/http can serve it as it is. See ListenConfig, too.
type Listener struct {
	net.Listener
	// Proxies are the networks of load balancers. Where there are some, every connection must come from one of them and begin with a
	// PROXY header, version 1 or 2; any other is cut. Where there are none, nobody's header is believed.
	Proxies []netip.Prefix
	Refused func(from net.Addr, err error) // told of what is cut; nil: nobody
	// Limits count each connection, until it is closed, as one that has not logged in; nil: nobody counts, or the front door itself does.
	Limits *Limits
	// TrustedProxies are HTTP proxies, whose connections count for no network: they are many clients'.
	TrustedProxies TrustedProxies
}

// headerTime is how long a load balancer may take to send its header.
const headerTime = 5 * time.Second

var errNoProxy = errors.New("not a load balancer of proxy_protocol")

// Accept returns the next connection. It waits for no header: that comes with the first Read or RemoteAddr, in the connection's
// own goroutine.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		switch {
		case len(l.Proxies) == 0:
		case l.trusts(nc.RemoteAddr()):
			nc = &proxied{Conn: nc, refused: l.refused}
		default:
			l.refused(nc.RemoteAddr(), errNoProxy)
			nc.Close()
			continue
		}
		if l.Limits == nil {
			return nc, nil
		}
		return l.count(nc), nil
	}
}

// count gives a connection its place. Its client's network is known, and counted, when it is first read from.
func (l *Listener) count(nc net.Conn) net.Conn {
	c := &counted{Conn: nc}
	c.slot = l.Limits.Enter(func() { nc.Close() })
	c.locate = sync.OnceValue(func() error {
		client := addrPort(nc.RemoteAddr()).Addr()
		if l.TrustedProxies.Trusts(client) {
			return nil
		}
		err := c.slot.Locate(client)
		if err != nil {
			l.refused(nc.RemoteAddr(), err)
			nc.Close()
		}
		return err
	})
	return c
}

// counted is a connection that leaves its place when it is closed.
type counted struct {
	net.Conn
	slot   *Slot
	locate func() error
}

func (c *counted) Read(b []byte) (int, error) {
	if err := c.locate(); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c *counted) Close() error {
	c.slot.Leave()
	return c.Conn.Close()
}

func (l *Listener) trusts(a net.Addr) bool {
	from := addrPort(a).Addr()
	return slices.ContainsFunc(l.Proxies, func(p netip.Prefix) bool { return p.Contains(from) })
}

func (l *Listener) refused(from net.Addr, err error) {
	if l.Refused != nil {
		l.Refused(from, err)
	}
}

// addrPort returns a TCP address in its plain form; zero for others.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := tcp.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}

// Refusals logs connections that are cut unheard, at most one line in a minute: there may be thousands. Goroutines may share it.
type Refusals struct {
	Protocol string
	Log      *slog.Logger

	count  atomic.Int64 // not logged yet
	logged atomic.Int64 // when some were, in Unix seconds
}

// Add takes note of one.
func (r *Refusals) Add(from net.Addr, err error) {
	n, now, last := r.count.Add(1), time.Now().Unix(), r.logged.Load()
	if now-last >= 60 && r.logged.CompareAndSwap(last, now) {
		r.count.Add(-n)
		r.Log.Warn("connections refused", "proto", r.Protocol, "count", n, "client", from.String(), "err", err)
	}
}

// proxied is a connection behind a load balancer. The library's own connection would hide the socket from the relay.
type proxied struct {
	net.Conn
	refused func(net.Addr, error)

	once   sync.Once
	rest   []byte // what was read with the header and belongs to the client
	client net.Addr
	err    error
}

// RemoteAddr is the client's address, or the load balancer's if it speaks for itself (LOCAL, UNKNOWN) or its header is bad, which
// the next Read tells.
func (p *proxied) RemoteAddr() net.Addr {
	p.once.Do(p.header)
	return p.client
}

func (p *proxied) Read(b []byte) (int, error) {
	p.once.Do(p.header)
	if p.err != nil {
		return 0, p.err
	}
	if len(p.rest) > 0 {
		n := copy(b, p.rest)
		p.rest = p.rest[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// NetConn is the socket itself. Only its reader may ask, when bytes that came with the header are taken.
func (p *proxied) NetConn() net.Conn { return p.Conn }

// header reads the header, under a deadline of its own that is gone afterwards: nobody sets one before.
func (p *proxied) header() {
	p.client = p.Conn.RemoteAddr()
	p.Conn.SetReadDeadline(time.Now().Add(headerTime))
	defer p.Conn.SetReadDeadline(time.Time{})
	r := bufio.NewReaderSize(p.Conn, 512)
	h, err := proxyproto.Read(r)
	if err != nil {
		p.err = fmt.Errorf("PROXY header from %s: %w", p.client, err)
		p.refused(p.client, p.err)
		return
	}
	p.rest, _ = r.Peek(r.Buffered())
	if client, ok := h.SourceAddr.(*net.TCPAddr); ok && h.Command.IsProxy() {
		p.client = client
	}
}
