package davproxy

import (
	"context"
	"sync"
	"time"
)

// ending is the context of a request that was admitted: it ends when the grant does, or the client leaves. It has a type of its own because
// context.WithCancelCause with the context.AfterFunc of the way to the backend takes eight allocations, and nearly all requests are over
// before anything ends them.
type ending struct {
	mu    sync.Mutex // guards the fields below
	cause error
	done  chan struct{} // nil: nobody has asked for it
	after []func()      // what is to be done at the end; nil: it was called off
	one   [1]func()     // room for after
}

var _ context.Context = (*ending)(nil)

// end ends the context; the first cause stays.
func (e *ending) end(cause error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cause != nil {
		return
	}
	e.cause = cause
	if e.done != nil {
		close(e.done)
	}
	for _, f := range e.after {
		if f != nil {
			go f()
		}
	}
}

// AfterFunc is what context.AfterFunc and contexts that are made of this one call, if a context has it.
func (e *ending) AfterFunc(f func()) (stop func() bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cause != nil {
		go f()
		return func() bool { return false }
	}
	if e.after == nil {
		e.after = e.one[:0]
	}
	i := len(e.after)
	e.after = append(e.after, f)
	return func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		stopped := e.cause == nil && e.after[i] != nil
		e.after[i] = nil
		return stopped
	}
}

// Done returns a channel that is closed at the end.
func (e *ending) Done() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done == nil {
		e.done = make(chan struct{})
		if e.cause != nil {
			close(e.done)
		}
	}
	return e.done
}

// Err returns the cause itself, for context.Cause can't find it elsewhere; nil: it has not ended.
func (e *ending) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cause
}

// Deadline says that there is none.
func (*ending) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value returns nil: nothing travels with it.
func (*ending) Value(any) any { return nil }
