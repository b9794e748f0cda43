package gateway

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestCrew(t *testing.T) {
	type tick struct {
		busy float64
		late time.Duration
		want int // cores after it
	}
	const late = 20 * time.Millisecond
	times := func(n int, busy float64, want int) []tick { return slices.Repeat([]tick{{busy, 0, want}}, n) }
	toOne := append(times(7, 0, 6), tick{0, 0, 1})
	for name, ticks := range map[string][]tick{
		"idle":                      slices.Concat(toOne, times(16, 0, 1)),
		"as many as were busy":      slices.Concat(times(3, 2.8, 6), times(4, 1, 6), times(1, 1, 3)),
		"rather one more":           slices.Concat(times(7, 2.1, 6), times(1, 2.1, 3)),
		"two share one's work":      slices.Concat(times(7, 0.94, 6), times(1, 0.94, 1)),
		"two share more":            slices.Concat(times(7, 0.96, 6), times(1, 0.96, 2)),
		"full":                      slices.Concat(toOne, []tick{{0.95, 0, 1}, {0.95, 0, 2}, {1.9, 0, 2}, {1.9, 0, 4}, {4, 0, 4}, {4, 0, 6}, {6, 0, 6}, {6, 0, 6}}),
		"nearly full":               slices.Concat(toOne, times(16, 0.94, 1)),
		"full once":                 slices.Concat(toOne, []tick{{1, 0, 1}, {0.5, 0, 1}, {1, 0, 1}, {0.5, 0, 1}}),
		"others take their time":    slices.Concat(toOne, []tick{{0.2, late, 1}, {0.2, late, 2}, {0.2, 0, 2}}),
		"they take a little":        slices.Concat(toOne, []tick{{0.2, late - 1, 1}, {0.2, late - 1, 1}, {0.2, late - 1, 1}}),
		"a full one begins it anew": slices.Concat(times(7, 0, 6), times(1, 6, 6), toOne),
	} {
		c := crew{all: 6}
		cores := c.all
		for i, tk := range ticks {
			if cores = c.want(cores, tk.busy, tk.late, false); cores != tk.want {
				t.Errorf("%s: tick %d: %d cores, want %d", name, i, cores, tk.want)
				break
			}
		}
	}
	c := crew{all: 2}
	for range 7 {
		c.want(2, 0.2, 0, false)
	}
	if n := c.want(2, 0.2, 0, true); n != 2 {
		t.Errorf("%d cores while a hash keeps one busy, want 2", n)
	}
	c = crew{all: 2} // Go has found more
	c.want(8, 7.9, 0, false)
	if n := c.want(8, 7.9, 0, false); n != 8 {
		t.Errorf("%d of 8 cores are left, and all of them full", n)
	}
}

// It can't run beside others: cores are the process's.
func TestCoresFollowTheWork(t *testing.T) {
	if allCores == 1 {
		t.Skip("on a machine with one core there is nothing to follow")
	}
	t.Setenv("GOMAXPROCS", "")
	ctx, cancel := context.WithCancel(t.Context())
	var keeper sync.WaitGroup
	keeper.Go(func() { keepCores(ctx) })
	reach := func(want int) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); runtime.GOMAXPROCS(0) != want; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d cores, want %d", runtime.GOMAXPROCS(0), want)
			}
		}
	}
	reach(1)
	working, rest := context.WithCancel(t.Context())
	for range 4 * allCores {
		go func() {
			for working.Err() == nil {
			}
		}()
	}
	reach(allCores)
	rest()
	reach(1)
	done := spareCore()
	if n := runtime.GOMAXPROCS(0); n != 2 {
		t.Errorf("%d cores while a password is hashed, want 2", n)
	}
	done()
	reach(1)
	cancel()
	keeper.Wait()
	spareCore()()
	if n := runtime.GOMAXPROCS(0); n != allCores || hashes.Load() != 0 {
		t.Errorf("%d cores were left behind, want %d; %d hashes", n, allCores, hashes.Load())
	}
}

func TestCoresAreTheEnvironments(t *testing.T) {
	t.Setenv("GOMAXPROCS", "2")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if keepCores(ctx); ctx.Err() != nil {
		t.Error("it went to work on them")
	}
}

// A tick is as late as the first one that was missed, and the next one is not.
func TestTickerTellsHowLate(t *testing.T) {
	t.Parallel()
	const every = 50 * time.Millisecond
	began := time.Now()
	tick, err := newTicker(every)
	if err != nil {
		t.Fatal(err)
	}
	defer tick.Close()
	time.Sleep(3 * every)
	late, err := tick.next()
	if took := time.Since(began); err != nil || late < 2*every || late > took-every {
		t.Errorf("after %v a tick that was due after %v came %v late: %v", took, every, late, err)
	}
	if due := tick.due.Sub(began); due < 4*every {
		t.Errorf("the next one is due after %v", due)
	}
	tick.Close()
	if _, err := tick.next(); err == nil {
		t.Error("a closed ticker ticks")
	}
}
