package gateway

import (
	"context"
	"encoding/binary"
	"math"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	coresEvery = 250 * time.Millisecond
	calmTicks  = 8 // without need of more in a row, before there are fewer cores
	// fullShare is how much of their time cores may be busy. The same work costs less on fewer of them: who gives one up for being below it
	// does not come to be above it.
	fullShare = 0.95
	// longWait is how long a client may wait for its bytes to be read before there are more cores.
	longWait = 20 * time.Millisecond
)

// allCores is what Go uses by itself: what the machine has, or its container may use. It is read before anybody changes it.
var allCores = runtime.GOMAXPROCS(0)

// keepCores has Go use as few cores as the work needs, until ctx ends. A request is answered by several goroutines, in pieces of a few
// microseconds. Spread over cores that wait for work, these cost up to a quarter more CPU: each core has to fetch what another has just written.
// GOMAXPROCS in the environment has the last word.
func keepCores(ctx context.Context) {
	if os.Getenv("GOMAXPROCS") != "" || allCores == 1 {
		return
	}
	t, err := newTicker(coresEvery)
	if err != nil {
		return // all cores it is
	}
	defer t.Close()
	defer context.AfterFunc(ctx, func() { t.Close() })()
	coresKept.Store(true)
	defer runtime.SetDefaultGOMAXPROCS()
	defer coresKept.Store(false)
	runtime.GOMAXPROCS(1)
	c := crew{all: allCores}
	for asked, busy := time.Now(), cpuTime(); ; {
		late, err := t.next()
		if err != nil {
			return
		}
		now, busyNow, cores := time.Now(), cpuTime(), runtime.GOMAXPROCS(0)
		// Each change waits for the garbage collector, and stops everything for a moment.
		switch want := c.want(cores, float64(busyNow-busy)/float64(now.Sub(asked)), late, hashes.Load() > 0); {
		case want == cores:
		case want < c.all:
			runtime.GOMAXPROCS(want)
		default:
			runtime.SetDefaultGOMAXPROCS() // a container's bound may have been moved meanwhile
			c.all = runtime.GOMAXPROCS(0)
		}
		asked, busy = now, busyNow
	}
}

var (
	coresKept atomic.Bool  // keepCores is at work
	hashes    atomic.Int32 // under way
)

// spareCore is called when a password is hashed: that keeps a core busy for tens of milliseconds, and everybody else gets another one.
func spareCore() (done func()) {
	if hashes.Add(1) == 1 && coresKept.Load() && runtime.GOMAXPROCS(0) == 1 {
		runtime.GOMAXPROCS(2)
	}
	return func() { hashes.Add(-1) }
}

// crew tells how many cores the work needs.
type crew struct {
	all  int     // cores there may be
	full int     // ticks in a row that needed more
	calm int     // ticks in a row that did not
	most float64 // cores that were busy in one of the calm ones
}

// want is asked at each tick, with how many cores there are, how many of them were busy since the last tick, how late this one is, and
// whether one is kept busy by a hash. It is late with cores that are not busy as well, where other programs take their time.
func (c *crew) want(cores int, busy float64, late time.Duration, hash bool) int {
	c.all = max(c.all, cores)
	if busy >= fullShare*float64(cores) || late >= longWait {
		c.calm, c.most = 0, 0
		if c.full++; c.full == 1 { // once is no sign
			return cores
		}
		c.full = 0
		return min(2*cores, c.all)
	}
	c.full, c.calm, c.most = 0, c.calm+1, max(c.most, busy)
	if c.calm < calmTicks {
		return cores
	}
	need := int(math.Ceil(c.most / fullShare))
	c.calm, c.most = 0, 0
	if hash {
		need = max(2, need)
	}
	return max(1, min(need, cores))
}

// ticker is a timer whose ticks come as clients' bytes do, through the network poller, and wait where these wait. time.Ticker's don't.
type ticker struct {
	*os.File
	every time.Duration
	due   time.Time // the next one
}

func newTicker(every time.Duration) (*ticker, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	t := &ticker{os.NewFile(uintptr(fd), "timer"), every, time.Now().Add(every)}
	span := unix.NsecToTimespec(int64(every))
	if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: span, Value: span}, nil); err != nil {
		t.Close()
		return nil, os.NewSyscallError("timerfd_settime", err)
	}
	return t, nil
}

// next waits for a tick and tells how late it is noticed: of several, the first.
func (t *ticker) next() (late time.Duration, err error) {
	var ticks [8]byte // since the last time
	if _, err := t.Read(ticks[:]); err != nil {
		return 0, err
	}
	late = time.Since(t.due)
	t.due = t.due.Add(t.every * time.Duration(binary.NativeEndian.Uint64(ticks[:])))
	return late, nil
}

// cpuTime is how long the process has kept cores busy in its life.
func cpuTime() time.Duration {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u) // can't fail with these
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
