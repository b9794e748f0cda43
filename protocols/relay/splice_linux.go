package relay

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// minSplice is how much data must be to come, in bytes, to take the trouble of a pipe.
const minSplice = 64 << 10

// gapTime is how long a pipe is kept for data that does not come. Without it each short gap would cost a pipe.
const gapTime = 200 * time.Millisecond

// canSplice reports whether a great deal of data comes that nobody looks at, and both sides are plain.
func (d *copier) canSplice() bool {
	return d.data() >= minSplice && isPlain(d.from) && isPlain(d.to)
}

// splice passes data inside the kernel until there is no more, or none for a moment.
func (d *copier) splice() error {
	p := pipes.get()
	if p == nil {
		return nil // it is copied instead
	}
	defer func() { pipes.put(p) }()
	from, err := d.from.(syscall.Conn).SyscallConn()
	if err != nil {
		return d.fromClosed()
	}
	to, err := d.to.(syscall.Conn).SyscallConn()
	if err != nil {
		return d.toClosed()
	}
	for left := d.data(); left > 0; left = d.data() {
		if !d.awaitUntil(clock() + gapTime) {
			return errLeaving
		}
		n, err := p.fill(from, left)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil || n == 0:
			return d.fromClosed()
		}
		d.read = d.touch()
		if d.isUp() && d.isStopped() { // see copy
			return errLeaving
		}
		if d.pair.Guard != nil { // it knows before the peer does, who may answer
			d.pair.Guard.Skip(d.isUp(), int64(n))
		}
		if d.isUp() && d.hasTold() {
			return errLeaving
		}
		if err := d.drain(p, to); err != nil {
			return err
		}
	}
	return nil
}

func (d *copier) drain(p *pipe, to syscall.RawConn) error {
	for p.holds > 0 {
		d.mayStall(clock())
		n, err := p.empty(to)
		d.copied += int64(n)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return ErrStalled
		case err != nil:
			return d.toClosed()
		}
	}
	return nil
}

// pipe is one of the kernel's.
type pipe struct {
	r, w  int
	size  int
	holds int // bytes
}

// fill takes at most n bytes from a socket, as soon as there are some.
func (p *pipe) fill(from syscall.RawConn, n int64) (got int, err error) {
	most := int(min(n, int64(p.size)))
	waited := from.Read(func(fd uintptr) bool {
		got, err = spliced(int(fd), p.w, most)
		return err != unix.EAGAIN
	})
	if err == nil && waited == nil {
		p.holds += got
	}
	return got, errors.Join(err, waited)
}

// empty gives a socket as much as it takes.
func (p *pipe) empty(to syscall.RawConn) (put int, err error) {
	waited := to.Write(func(fd uintptr) bool {
		put, err = spliced(p.r, int(fd), p.holds)
		return err != unix.EAGAIN
	})
	if err == nil && waited == nil {
		p.holds -= put
	}
	return put, errors.Join(err, waited)
}

func spliced(from, to, n int) (int, error) {
	for {
		m, err := unix.Splice(from, nil, to, nil, n, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err != unix.EINTR {
			return int(max(m, 0)), err
		}
	}
}

// pipePool bounds what pipes take: two descriptors each, and the kernel's memory, of which an ordinary user has 64 MiB.
type pipePool struct {
	mu    sync.Mutex // guards the fields below
	idle  []*pipe
	given int
}

const (
	maxPipes  = 64
	maxIdle   = 4
	pipeBytes = 1 << 20
)

var pipes pipePool

// get gives a pipe; nil: none is left.
func (pp *pipePool) get() *pipe {
	pp.mu.Lock()
	defer pp.mu.Unlock()
	if n := len(pp.idle); n > 0 {
		p := pp.idle[n-1]
		pp.idle = pp.idle[:n-1]
		pp.given++
		return p
	}
	if pp.given >= maxPipes {
		return nil
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return nil
	}
	p := &pipe{r: fds[0], w: fds[1], size: 64 << 10}
	if size, err := unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, pipeBytes); err == nil {
		p.size = size
	}
	pp.given++
	return p
}

// put takes a pipe back. One that is not empty is of no use to anybody.
func (pp *pipePool) put(p *pipe) {
	pp.mu.Lock()
	defer pp.mu.Unlock()
	pp.given--
	if p.holds == 0 && len(pp.idle) < maxIdle {
		pp.idle = append(pp.idle, p)
		return
	}
	unix.Close(p.r)
	unix.Close(p.w)
}
