package gateway

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	memoryEvery = 5 * time.Second
	// quietBytes is what a gateway allocates in that time when few log in.
	quietBytes = 4 << 20
	// releaseEvery bounds what giving memory back costs: some ten milliseconds of one core for each 100 MiB.
	releaseEvery = time.Minute
	// headroom is how much may be allocated, at least, between two runs of the garbage collector, in bytes. A run costs the same however
	// little there is to be freed, and with little in use Go would make one for every thousand requests. With half of it a PROPFIND over
	// HTTP/2 took 53 us instead of 51; what a burst took beyond it is given back below.
	headroom = 32 << 20
)

// keepMemory lets the garbage collector come less often than Go would, and gives what a burst of logins took, or a quiet hour gathered,
// back to the system. Go would keep twice what is in use: thousands of open sessions that say nothing need no garbage collector, so it
// does not come to see that the logins' garbage is gone.
func keepMemory(ctx context.Context) {
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	var watch releaser
	var pace pacer
	defer pace.end()
	runtime.GC() // tells what is in use, without what starting took
	for {
		pace.set(read("/gc/heap/live:bytes"))
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if watch.due(now, read("/gc/heap/allocs:bytes")) {
				runtime.GC() // pools lose what they hold with the second one
				debug.FreeOSMemory()
			}
		}
	}
}

// releaser tells when a burst is over, or when as much has come together in small pieces.
type releaser struct {
	allocated uint64 // in all, when it was last asked
	kept      uint64 // in all, at the last release
	released  time.Time
}

// due is asked now and then, with what the process has allocated in its life, in bytes.
func (r *releaser) due(now time.Time, allocated uint64) bool {
	grown := allocated - r.allocated
	r.allocated = allocated
	if grown > quietBytes || allocated-r.kept <= quietBytes || now.Sub(r.released) < releaseEvery {
		return false
	}
	r.kept, r.released = allocated, now
	return true
}

// pacer sets how often the garbage collector comes. GOGC in the environment has the last word.
type pacer struct{ usual, now int }

// set is told what was in use when the garbage collector came last, in bytes.
func (p *pacer) set(live uint64) {
	switch percent := percentFor(live); {
	case os.Getenv("GOGC") != "":
	case p.now == 0:
		p.usual, p.now = debug.SetGCPercent(percent), percent
	case percent < p.now || percent > p.now+p.now/4: // each change stops everything for a moment
		debug.SetGCPercent(percent)
		p.now = percent
	}
}

// end takes it back.
func (p *pacer) end() {
	if p.now != 0 {
		debug.SetGCPercent(p.usual)
		p.now = 0
	}
}

// leastLive is for how much in use at least the headroom is reckoned, in bytes: for less, Go reckons so itself (4 MiB at GOGC=100).
const leastLive = 4 << 20

// percentFor is how much may be allocated before the garbage collector comes, in per cent of what is in use.
func percentFor(live uint64) int {
	return int(max(100, 100*headroom/max(live, leastLive)))
}

func read(metric string) uint64 {
	sample := []metrics.Sample{{Name: metric}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
