package gateway

import (
	"context"
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
)

// releaseMemory gives what a burst of logins took back to the system when it is over. Go would keep twice what is in use: thousands of
// open sessions that say nothing need no garbage collector, so it does not come to see that the logins' garbage is gone.
func releaseMemory(ctx context.Context) {
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	var watch releaser
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if watch.due(now, allocated()) {
				runtime.GC() // pools lose what they hold with the second one
				debug.FreeOSMemory()
			}
		}
	}
}

// releaser tells when a burst is over.
type releaser struct {
	allocated uint64 // in all, when it was last asked
	busy      bool   // much was allocated since the last release
	released  time.Time
}

// due is asked now and then, with what the process has allocated in its life, in bytes.
func (r *releaser) due(now time.Time, allocated uint64) bool {
	grown := allocated - r.allocated
	r.allocated = allocated
	switch {
	case grown > quietBytes:
		r.busy = true
		return false
	case !r.busy || now.Sub(r.released) < releaseEvery:
		return false
	}
	r.busy, r.released = false, now
	return true
}

func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
