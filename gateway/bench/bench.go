// Package bench is the load tool: bounded load against a mail, calendar or contacts server, and what it costs that server's
// processes. Beside it stand backends that answer from memory, so that a gateway between the two is all that is measured. It knows
// nothing of how Postern works inside: nginx, Dovecot and HAProxy are measured by the same code. "postern bench" calls it.
//
// CPU per operation, read from /proc for the target's whole process tree, is the figure to trust: load generator and target share
// the machine's cores, so rates say as much about the one as about the other.
package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Load bounds a run: it ends at Count operations or after Duration, whatever comes first.
type Load struct {
	Workers  int           // operations at a time
	Count    int           // operations in all
	Duration time.Duration // an operation that has begun is finished
	Pace     time.Duration // from the beginning of a worker's operation to that of its next; 0: at once

	stubborn bool // goes on where even the first operations fail
}

// Check says what is wrong with it.
func (l Load) Check() error {
	switch {
	case l.Workers < 1 || l.Workers > maxWorkers:
		return fmt.Errorf("%d at a time: must be 1 to %d", l.Workers, maxWorkers)
	case l.Count < l.Workers || l.Count > maxCount:
		return fmt.Errorf("%d operations: must be at least as many as run at a time (%d), at most %d", l.Count, l.Workers, maxCount)
	case l.Pace < 0 || l.Pace > maxDuration:
		return fmt.Errorf("%v is no pace", l.Pace)
	case l.Duration <= 0 || l.Duration > maxDuration:
		return fmt.Errorf("%v is no duration for a run: at most %v", l.Duration, maxDuration)
	}
	return nil
}

// What no run goes beyond, whatever is asked for.
const (
	maxWorkers  = 20_000
	maxCount    = 10_000_000
	maxDuration = time.Hour
	opTimeout   = 30 * time.Second // of one operation
)

// worker does one operation after the other.
type worker interface {
	once() (received int64, err error)
	close()
}

// maker makes the n-th worker. It is called by several goroutines.
type maker func(ctx context.Context, n int) (worker, error)

// run makes the workers, has each do one operation that does not count (caches, pools, TLS tickets), then measures.
func (l Load) run(ctx context.Context, target Processes, start maker) (*Measured, error) {
	workers, err := l.prepare(ctx, start)
	defer func() {
		for _, w := range workers {
			w.close()
		}
	}()
	if err != nil {
		return nil, err
	}
	before, mine, err := target.withMine()
	if err != nil {
		return nil, err
	}
	tallies, took := l.measure(ctx, workers)
	after, mineAfter, err := target.withMine()
	if err := errors.Join(err, ctx.Err()); err != nil {
		return nil, err
	}
	return summarize(tallies, took, after.CPU-before.CPU, mineAfter.CPU-mine.CPU), nil
}

// prepare makes the workers, some at a time: a gateway bounds how many of one network may be on their way to a login.
func (l Load) prepare(ctx context.Context, start maker) ([]worker, error) {
	const atOnce = 16
	workers := make([]worker, l.Workers)
	errs := make([]error, l.Workers)
	each(atOnce, l.Workers, func(n int) {
		if ctx.Err() != nil {
			errs[n] = ctx.Err()
			return
		}
		w, err := start(ctx, n)
		if err == nil {
			workers[n] = w
			if _, err = w.once(); l.stubborn {
				err = nil
			}
		}
		errs[n] = err
	})
	workers = slices.DeleteFunc(workers, func(w worker) bool { return w == nil })
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return workers, fmt.Errorf("before the run: %w", errs[i])
	}
	return workers, nil
}

// tally is what one worker saw.
type tally struct {
	took     []time.Duration // of operations that succeeded
	received int64
	failed   int
	first    error // of those that failed
}

// measure lets all workers go until the bounds are reached.
func (l Load) measure(ctx context.Context, workers []worker) ([]tally, time.Duration) {
	tallies := make([]tally, len(workers))
	left := newBudget(l.Count)
	began := time.Now()
	var all sync.WaitGroup
	for n, w := range workers {
		all.Go(func() {
			mine := &tallies[n]
			next := began
			for ctx.Err() == nil && time.Since(began) < l.Duration && left.take() {
				mine.note(w.once)
				next = next.Add(l.Pace)
				pause(ctx, time.Until(next))
			}
		})
	}
	all.Wait()
	return tallies, time.Since(began)
}

func (t *tally) note(once func() (int64, error)) {
	began := time.Now()
	received, err := once()
	if err != nil {
		if t.failed++; t.first == nil {
			t.first = err
		}
		time.Sleep(failurePause)
		return
	}
	t.received += received
	t.took = append(t.took, time.Since(began))
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// failurePause keeps a target that refuses at once from being asked as fast as the machine can.
const failurePause = 10 * time.Millisecond
