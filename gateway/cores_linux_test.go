package gateway

import (
	"context"
	"runtime"
	"slices"
	"testing"
	"time"
)

func TestCrew(t *testing.T) {
	t.Cleanup(func(all int) func() { return func() { allCores = all } }(allCores))
	allCores = 6
	type tick struct {
		busy float64
		late time.Duration
		want int // cores after it
	}
	times := func(n int, tk tick) []tick { return slices.Repeat([]tick{tk}, n) }
	one := append(times(calmTicks-1, tick{0, 0, 6}), tick{0, 0, 1}) // from all cores to one
	for name, ticks := range map[string][]tick{
		"idle":                      slices.Concat(one, times(2*calmTicks, tick{0, 0, 1})),
		"as many as were busy":      slices.Concat(times(3, tick{2.8, 0, 6}), times(calmTicks-4, tick{1, 0, 6}), times(1, tick{1, 0, 3})),
		"two share one's work":      slices.Concat(times(calmTicks-1, tick{0.94, 0, 6}), times(1, tick{0.94, 0, 1})),
		"full":                      append(one[:calmTicks:calmTicks], tick{0.95, 0, 1}, tick{0.95, 0, 2}, tick{1.9, 0, 2}, tick{1.9, 0, 4}, tick{4, 0, 4}, tick{4, 0, 6}, tick{6, 0, 6}, tick{6, 0, 6}),
		"full once":                 append(one[:calmTicks:calmTicks], tick{0.95, 0, 1}, tick{0.5, 0, 1}, tick{0.95, 0, 1}, tick{0.5, 0, 1}),
		"others take their time":    append(one[:calmTicks:calmTicks], tick{0.2, longWait, 1}, tick{0.2, longWait, 2}, tick{0.2, 0, 2}),
		"a full one begins it anew": slices.Concat(times(calmTicks-1, tick{0, 0, 6}), times(1, tick{6, 0, 6}), one),
	} {
		var c crew
		cores := allCores
		for i, tk := range ticks {
			if cores = c.want(cores, tk.busy, tk.late); cores != tk.want {
				t.Errorf("%s: tick %d: %d cores, want %d", name, i, cores, tk.want)
				break
			}
		}
	}
}

// It can't run beside others: cores are the process's.
func TestCoresFollowTheWork(t *testing.T) {
	if allCores == 1 {
		t.Skip("there is only one core")
	}
	t.Setenv("GOMAXPROCS", "")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		keepCores(ctx)
	}()
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
	cancel()
	<-ended
	if runtime.GOMAXPROCS(0) != allCores {
		t.Errorf("%d cores were left behind, want %d", runtime.GOMAXPROCS(0), allCores)
	}
}

func TestCoresAreTheEnvironments(t *testing.T) {
	t.Setenv("GOMAXPROCS", "2")
	keepCores(context.Background()) // returns at once
}
