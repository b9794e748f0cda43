package bench

import (
	"sync"
	"sync/atomic"
)

// budget is a number of operations that workers share.
type budget struct{ left atomic.Int64 }

func newBudget(n int) *budget {
	b := new(budget)
	b.left.Store(int64(n))
	return b
}

func (b *budget) take() bool { return b.left.Add(-1) >= 0 }

// each calls do for 0 to n-1, by at most so many goroutines at a time, and waits.
func each(atOnce, n int, do func(n int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(atOnce, n) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	all.Wait()
}
