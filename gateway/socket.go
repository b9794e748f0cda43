package gateway

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"postern/protocols"
)

// socket is a listening socket that outlives the server that accepts from it: after a reload the next server goes on where the
// last one stopped, and no connection waiting in the kernel's queue is refused.
type socket struct {
	ln deadliner
}

type deadliner interface {
	net.Listener
	SetDeadline(time.Time) error
}

// listen opens host:port, or "unix:PATH" with mode 0660. A socket file that nobody listens on any more is replaced.
func listen(ctx context.Context, address string) (*socket, error) {
	path, isUnix := strings.CutPrefix(address, "unix:")
	if !isUnix {
		lc := protocols.ListenConfig()
		ln, err := lc.Listen(ctx, "tcp", address)
		if err != nil {
			return nil, fmt.Errorf("%w%s", err, listenRemedy(err))
		}
		return &socket{ln.(deadliner)}, nil
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		ln.Close()
		return nil, err
	}
	return &socket{ln.(deadliner)}, nil
}

func listenRemedy(err error) string {
	if errors.Is(err, fs.ErrPermission) {
		return "; ports below 1024 need root or CAP_NET_BIND_SERVICE (the systemd unit in deploy/ grants it)"
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return "; another program listens there (\"ss -ltnp\" shows which)"
	}
	return ""
}

// removeStale removes a socket file that its owner left behind.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("listen on %s: a file that is no socket is there; remove it or choose another path", path)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return fmt.Errorf("listen on %s: another process listens there", path)
	}
	return os.Remove(path)
}

// Close closes the socket itself.
func (s *socket) Close() error { return s.ln.Close() }

// lease gives a listener whose Close only ends its own Accept.
func (s *socket) lease() (net.Listener, error) {
	if err := s.ln.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	return &leased{socket: s, closed: make(chan struct{})}, nil
}

type leased struct {
	*socket
	once      sync.Once
	closed    chan struct{}
	accepting sync.Mutex // held by the one Accept under way, so that Close can wait for it
}

func (l *leased) Addr() net.Addr { return l.ln.Addr() }

// Accept is called by one goroutine. It returns net.ErrClosed after Close; a connection that came in at that very moment is
// still handed out.
func (l *leased) Accept() (net.Conn, error) {
	l.accepting.Lock()
	defer l.accepting.Unlock()
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	c, err := l.ln.Accept()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, net.ErrClosed
	}
	return c, err
}

// Close returns when Accept has left: the next lease takes the deadline back, and a runtime timer that is taken back before
// the woken goroutine ran never happened for it.
func (l *leased) Close() error {
	var err error
	l.once.Do(func() {
		close(l.closed)
		err = l.ln.SetDeadline(time.Now().Add(-time.Hour))
		l.accepting.Lock()
		defer l.accepting.Unlock()
	})
	return err
}
