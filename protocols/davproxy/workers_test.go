package davproxy

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// More than are kept are answered at once, each by its own; some wait for the next, and none when it is over.
func TestWorkers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // which fails when a goroutine is left
		const many = 2 * maxWaiting
		var handled atomic.Int32
		open := make(chan struct{})
		ws := newWorkers(func(_ *conn, _ http.ResponseWriter, _ *http.Request) {
			handled.Add(1)
			<-open
		})
		ask := func() (all *sync.WaitGroup) {
			all = new(sync.WaitGroup)
			for range many {
				all.Go(func() { ws.answer(nil, nil, nil) })
			}
			synctest.Wait()
			return all
		}
		first := ask()
		if n := handled.Load(); n != many {
			t.Errorf("%d requests of %d are handled", n, many)
		}
		close(open)
		first.Wait()
		synctest.Wait()
		if n := ws.waiting.Load(); n != maxWaiting {
			t.Errorf("%d workers wait, want %d", n, maxWaiting)
		}
		open = make(chan struct{})
		second := ask()
		if n := ws.waiting.Load(); n != 0 {
			t.Errorf("%d workers wait while %d requests are handled", n, many)
		}
		close(open)
		second.Wait()
		if n := handled.Load(); n != 2*many {
			t.Errorf("%d requests of %d were handled", n, 2*many)
		}
		ws.end()
	})
}

// What a handler panics with is net/http's matter, and the worker goes on.
func TestWorkersPanic(t *testing.T) {
	t.Parallel()
	ws := newWorkers(func(_ *conn, w http.ResponseWriter, _ *http.Request) {
		if w == nil {
			panic(http.ErrAbortHandler)
		}
	})
	defer ws.end()
	ask := func(w http.ResponseWriter) (panicked any) {
		defer func() { panicked = recover() }()
		ws.answer(nil, w, nil)
		return nil
	}
	for range 3 {
		if v := ask(nil); v != http.ErrAbortHandler {
			t.Errorf("panicked with %v", v)
		}
		if v := ask(&sink{}); v != nil {
			t.Errorf("the next panicked with %v", v)
		}
	}
}
