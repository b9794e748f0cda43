package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// Security says how a connection is encrypted.
type Security string

// The securities.
const (
	Plain       Security = "none"
	ImplicitTLS Security = "implicit"
	StartTLS    Security = "starttls"
)

// Target is the server under load, and how it is reached. Goroutines may share it.
type Target struct {
	Address  string // host:port
	Security Security
	TLS      *tls.Config // unless Plain
	Resume   bool        // each connection but the first of a worker offers the last one's TLS ticket

	// QuickAck acknowledges each segment at once. An ordinary client waits up to 40 ms for words to send along, and a server that
	// leaves Nagle's algorithm on waits for it meanwhile: that is no work of either.
	QuickAck bool
	// Sources is the number of loopback addresses that connections come from in turn, from 127.0.1.1 on; 0: as the system decides.
	Sources   int
	Processes Processes

	first int // of Sources
	next  atomic.Uint32
}

// from is the same target, reached from other addresses.
func (t *Target) from(first, sources int) *Target {
	return &Target{Address: t.Address, Security: t.Security, TLS: t.TLS, Resume: t.Resume, QuickAck: t.QuickAck,
		Processes: t.Processes, first: first, Sources: sources}
}

const dialTimeout = 10 * time.Second

// connect opens a connection, up to TLS where it comes first. Its operations have a deadline; it is closed when ctx ends.
func (t *Target) connect(ctx context.Context, cfg *tls.Config) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout, Control: bindLate}
	if t.Sources > 0 {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source(t.first+int(t.next.Add(1))%t.Sources), 0))
	}
	nc, err := d.DialContext(ctx, "tcp", t.Address)
	if err != nil {
		return nil, err
	}
	if t.QuickAck {
		if nc, err = acknowledgeAtOnce(nc); err != nil {
			return nil, err
		}
	}
	nc.SetDeadline(time.Now().Add(opTimeout))
	if t.Security != ImplicitTLS {
		return nc, nil
	}
	return secure(ctx, nc, cfg)
}

// quickListener has connections acknowledge each segment at once, as Target.QuickAck does on the other side of a gateway.
type quickListener struct{ net.Listener }

// AcknowledgeAtOnce is for backends of gateways that leave Nagle's algorithm on.
func AcknowledgeAtOnce(ln net.Listener) net.Listener { return quickListener{ln} }

func (l quickListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return acknowledgeAtOnce(nc)
}

func secure(ctx context.Context, nc net.Conn, cfg *tls.Config) (net.Conn, error) {
	tc := tls.Client(nc, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		nc.Close()
		if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
			return nil, fmt.Errorf("TLS: %w; name it by --ca", err)
		}
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return tc, nil
}

// clientTLS is the configuration of one worker; with Resume it has a place for its own ticket.
func (t *Target) clientTLS() *tls.Config {
	if t.TLS == nil {
		return nil
	}
	cfg := t.TLS.Clone()
	if t.Resume {
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	return cfg
}

// resumptions counts the connections that resumed TLS, of all but each worker's first, which has no ticket yet.
type resumptions struct{ resumed, all atomic.Int64 }

func (r *resumptions) note(nc net.Conn) {
	r.all.Add(1)
	if tc, ok := nc.(*tls.Conn); ok && tc.ConnectionState().DidResume {
		r.resumed.Add(1)
	}
}

// share is for Result.Resumed.
func (r *resumptions) share() *float64 {
	share := float64(r.resumed.Load()) / float64(max(1, r.all.Load()))
	return &share
}

// MaxSources bounds Target.Sources.
const MaxSources = 50_000

// source is the n-th loopback address that connections come from.
func source(n int) netip.Addr {
	const perNet = 250
	return netip.AddrFrom4([4]byte{127, 0, byte(1 + n/perNet), byte(1 + n%perNet)})
}
