package gateway

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestMemoryIsReleasedWhenABurstIsOver(t *testing.T) {
	const burst = quietBytes + 1
	var r releaser
	now, total := time.Unix(0, 0), uint64(0)
	for i, tt := range []struct {
		grown uint64
		want  bool
	}{
		{1000, false},                // nothing happened
		{burst, false}, {1000, true}, // over
		{1000, false},                 // nothing since
		{burst, false}, {1000, false}, // too soon after the last one
		{1000, false}, {1000, false}, {1000, true}, // a minute after it
		{burst, false}, {burst, false}, {burst, false}, {burst, false}, {burst, false}, {burst, false}, {quietBytes, true},
		{quietBytes / 8, false}, {quietBytes / 8, false}, {quietBytes / 8, false}, {quietBytes / 8, false}, {quietBytes / 8, false},
		{quietBytes / 8, false}, {quietBytes / 8, false}, {quietBytes / 8, false}, {quietBytes / 8, true}, // little by little
	} {
		now, total = now.Add(10*time.Second), total+tt.grown
		if got := r.due(now, total); got != tt.want {
			t.Errorf("step %d: due = %v, want %v", i, got, tt.want)
		}
	}
	for _, metric := range []string{"/gc/heap/allocs:bytes", "/gc/heap/live:bytes"} {
		runtime.GC()
		if read(metric) == 0 {
			t.Errorf("%s can't be told", metric)
		}
	}
}

func TestPace(t *testing.T) {
	for live, want := range map[uint64]int{0: 800, 1 << 20: 800, leastLive: 800, headroom / 4: 400, headroom / 2: 200, headroom: 100, 2 * headroom: 100, 1 << 40: 100} {
		if got := percentFor(live); got != want {
			t.Errorf("with %d bytes in use: %d %%, want %d %%", live, got, want)
		}
	}
}

// What was set is taken back. It can't run beside others: the garbage collector is the process's.
func TestPaceEnds(t *testing.T) {
	t.Setenv("GOGC", "")
	set := func() int {
		percent := debug.SetGCPercent(100)
		debug.SetGCPercent(percent)
		return percent
	}
	usual := set()
	var p pacer
	for _, step := range []struct {
		live uint64
		want int
	}{{headroom / 2, 200}, {headroom * 7 / 16, 200}, {headroom / 4, 400}, {headroom, 100}} { // a small gain is not worth a change
		p.set(step.live)
		if got := set(); got != step.want {
			t.Errorf("with %d bytes in use: %d %%, want %d %%", step.live, got, step.want)
		}
	}
	p.end()
	p.end()
	if got := set(); got != usual {
		t.Errorf("afterwards: %d %%, want %d %%", got, usual)
	}
	t.Setenv("GOGC", "70")
	if p.set(1 << 20); set() != usual {
		t.Error("GOGC has not the last word")
	}
}
