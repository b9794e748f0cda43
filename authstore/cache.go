package authstore

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"postern/authstore/throttle"
)

const (
	// cacheTime bounds one exchange with the shared cache: beyond it the truth is quicker.
	cacheTime = 100 * time.Millisecond
	// maxFills bounds the snapshots that wait to be written to the shared cache; beyond it they are not.
	maxFills = 256
)

// cachePlace is where a name's snapshot stands in the shared cache, and what its seal is bound to. The key tells nobody the name.
func (s *Store) cachePlace(name, epoch string) (key, place string, err error) {
	key, err = s.keys.Load().Name(s.usable.Load(), "snapshot", name)
	return key, key + " " + epoch, err
}

// fromCache returns a snapshot of the shared cache that may be used now, or nil: whatever is wrong there is a miss. Nothing it says
// is believed but what was sealed for this very place, was read at a change that this node knows, and stands since.
func (s *Store) fromCache(ctx context.Context, name string) *found {
	if s.o.Cache == nil || !s.history.isLive() {
		return nil
	}
	epoch := s.history.followed()
	key, place, err := s.cachePlace(name, epoch)
	if err != nil || !s.breaker.closed(s.o.Clock()) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, cacheTime)
	defer cancel()
	value, err := s.o.Cache.Get(ctx, key)
	if s.breaker.note(ctx, err, s.o.Clock()); err != nil || value == nil {
		return nil
	}
	plain, err := s.keys.Load().OpenCache(value, place)
	if err != nil {
		s.o.Log.Debug("a value of the shared cache was not used", "err", err)
		return nil
	}
	c, err := decodeCached(plain)
	if err != nil || s.o.Now().After(c.notAfter) {
		return nil
	}
	at, ok := s.history.recognises(c.snapshot.Sequence, c.mark)
	if !ok || !s.history.vouches(c.snapshot.Account, at) {
		return nil
	}
	c.snapshot.Epoch = epoch
	return newFound(c.snapshot, at)
}

// fill is a snapshot on its way to the shared cache.
type fill struct {
	name  string
	found *found
}

// share hands a snapshot to the shared cache's writer, off the login's path. Names that nobody has are never shared.
func (s *Store) share(name string, f *found) {
	if s.o.Cache == nil || f.Account == nobody {
		return
	}
	select {
	case s.fills <- fill{name, f}:
	default: // it is slow or gone
	}
}

// fillCache writes snapshots to the shared cache until ctx ends.
func (s *Store) fillCache(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-s.fills:
			mark, known := s.history.markOf(f.found.at)
			if !known { // it was read at a change that this node's next tail brings
				pause(ctx, tailEvery)
				mark, known = s.history.markOf(f.found.at)
			}
			if known {
				s.put(ctx, f, mark)
			}
		}
	}
}

func (s *Store) put(ctx context.Context, f fill, mark string) {
	key, place, err := s.cachePlace(f.name, f.found.Epoch)
	if err != nil || !s.breaker.closed(s.o.Clock()) {
		return
	}
	c := cached{s.o.Now().Add(l2Life), mark, f.found.Snapshot}
	sealed, err := s.keys.Load().SealCache(s.usable.Load(), c.encode(), place)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, cacheTime)
	defer cancel()
	err = s.o.Cache.Put(ctx, key, f.found.Sequence, sealed, l2Life)
	s.breaker.note(ctx, err, s.o.Clock())
}

// sharedLimits is the shared cache as the budgets of all nodes; nil without a cache.
func (s *Store) sharedLimits() throttle.Shared {
	if s.o.Cache == nil {
		return nil
	}
	return sharedLimits{s}
}

type sharedLimits struct{ s *Store }

var errBroken = errors.New("the shared cache does not answer")

// Charge charges a budget in the shared cache, behind the breaker and a time limit.
func (l sharedLimits) Charge(ctx context.Context, source string, cost, burst time.Duration) (time.Duration, error) {
	s := l.s
	key, err := s.keys.Load().Name(s.usable.Load(), "source", source)
	if err != nil {
		return 0, err
	}
	if !s.breaker.closed(s.o.Clock()) {
		return 0, errBroken
	}
	ctx, cancel := context.WithTimeout(ctx, cacheTime)
	defer cancel()
	debt, err := s.o.Cache.Charge(ctx, key, cost, burst)
	s.breaker.note(ctx, err, s.o.Clock())
	return debt, err
}

// breaker keeps a dead cache off the login's path: after a few failures in a row it is asked once a second only. The zero value
// is closed.
type breaker struct {
	failures atomic.Int32
	retry    atomic.Int64 // on the clock
}

const (
	breakAfter = 3
	breakFor   = time.Second
)

// closed reports whether the cache may be asked now. While it is open, one caller a second may.
func (b *breaker) closed(now time.Duration) bool {
	if b.failures.Load() < breakAfter {
		return true
	}
	retry := b.retry.Load()
	return int64(now) >= retry && b.retry.CompareAndSwap(retry, int64(now+breakFor))
}

// note counts an answer. That the asking client has gone says nothing of the cache.
func (b *breaker) note(ctx context.Context, err error, now time.Duration) {
	switch {
	case err == nil:
		b.failures.Store(0)
	case !errors.Is(ctx.Err(), context.Canceled):
		b.retry.Store(int64(now + breakFor))
		b.failures.Add(1)
	}
}
