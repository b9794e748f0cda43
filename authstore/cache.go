package authstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"postern/authstore/secret"
	"postern/authstore/throttle"
)

const (
	// l2Life is how long a snapshot may be used after it was read; it stands inside the seal, so that nobody can prolong it.
	l2Life = 5 * time.Minute
	// cacheTimeout bounds one exchange with the shared cache: beyond it the truth is quicker.
	cacheTimeout = 100 * time.Millisecond
	// maxCached bounds a cached value, in bytes: 125 app passwords with their networks are far below.
	maxCached = 256 << 10
	// maxNetworks bounds the allowed networks of one app password.
	maxNetworks = 32
)

// sealedSnapshot is what a cached value holds under its seal.
type sealedSnapshot struct {
	Version  int       `json:"v"`
	NotAfter int64     `json:"t"` // Unix seconds
	Name     string    `json:"n"`
	Snapshot *Snapshot `json:"s"`
}

// cacheVersion tells the layout of a cached snapshot; another one is a miss.
const cacheVersion = 1

// sealSnapshot gives the cache's key and value for a name. The seal binds the value to its key, and so to the store's epoch.
func sealSnapshot(keys *secret.Keyring, name string, snap *Snapshot, now time.Time) (key string, value []byte, err error) {
	if key, err = cacheKey(keys, snap.Epoch, name); err != nil {
		return "", nil, err
	}
	plain, err := json.Marshal(sealedSnapshot{cacheVersion, now.Add(l2Life).Unix(), name, snap})
	if err != nil {
		return "", nil, err
	}
	value, err = keys.SealCache(keys.Newest(), plain, key)
	return key, value, err
}

func cacheKey(keys *secret.Keyring, epoch, name string) (string, error) {
	return keys.Name(keys.Newest(), epoch, name)
}

// openSnapshot reads what sealSnapshot made. Every fault is an error, and a miss to its caller.
func openSnapshot(keys *secret.Keyring, key, name string, value []byte, now time.Time) (*Snapshot, error) {
	if len(value) > maxCached {
		return nil, errors.New("too large")
	}
	plain, err := keys.OpenCache(value, key)
	if err != nil {
		return nil, err
	}
	var sealed sealedSnapshot
	if err := json.Unmarshal(plain, &sealed); err != nil {
		return nil, err
	}
	switch {
	case sealed.Version != cacheVersion || sealed.Snapshot == nil || sealed.Name != name || sealed.Snapshot.Account == 0:
		return nil, fmt.Errorf("layout %d of another version or name", sealed.Version)
	case now.Unix() > sealed.NotAfter:
		return nil, errors.New("too old")
	}
	return sealed.Snapshot, nil
}

// fromCache returns a snapshot of the shared cache that may be used, or nil. Whatever is wrong there is a miss.
func (s *Store) fromCache(ctx context.Context, name string) *Snapshot {
	epoch, _ := s.view.position()
	if s.Cache == nil || !s.view.leased() || !s.breaker.closed(s.Clock()) {
		return nil
	}
	keys := s.keys.Load()
	key, err := cacheKey(keys, epoch, name)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, cacheTimeout)
	defer cancel()
	value, err := s.Cache.Get(ctx, key)
	s.breaker.note(err, s.Clock())
	if err != nil || value == nil {
		return nil
	}
	snap, err := openSnapshot(keys, key, name, value, s.Now())
	if err != nil {
		s.Log.Debug("cached snapshot not used", "err", err)
		return nil
	}
	if !s.view.current(snap) {
		return nil
	}
	return snap
}

// toCache shares a snapshot that was read from the truth. Unknown names are never shared.
func (s *Store) toCache(ctx context.Context, name string, snap *Snapshot) {
	if s.Cache == nil || snap.Account == 0 || !s.breaker.closed(s.Clock()) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, cacheTimeout)
	defer cancel()
	s.breaker.note(putSnapshot(ctx, s.Cache, s.keys.Load(), name, snap, s.Now()), s.Clock())
}

func putSnapshot(ctx context.Context, c Cache, keys *secret.Keyring, name string, snap *Snapshot, now time.Time) error {
	key, value, err := sealSnapshot(keys, name, snap, now)
	if err != nil {
		return err
	}
	return c.Put(ctx, key, snap.Sequence, value, l2Life)
}

// sharedLimits is the shared cache as the budgets of all nodes; nil without a cache.
func (s *Store) sharedLimits() throttle.Shared {
	if s.Cache == nil {
		return nil
	}
	return guarded{s}
}

// guarded charges budgets in the shared cache, behind the breaker and a time limit.
type guarded struct{ s *Store }

var errBroken = errors.New("the shared cache is not answering")

func (g guarded) Charge(ctx context.Context, source string, cost, burst time.Duration) (time.Duration, error) {
	if !g.s.breaker.closed(g.s.Clock()) {
		return 0, errBroken
	}
	keys := g.s.keys.Load()
	key, err := keys.Name(keys.Newest(), "network", source)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cacheTimeout)
	defer cancel()
	debt, err := g.s.Cache.Charge(ctx, key, cost, burst)
	g.s.breaker.note(err, g.s.Clock())
	return debt, err
}

// breaker keeps a dead cache off the login path: after a few failures in a row it is asked once a second only.
type breaker struct {
	failures atomic.Int32
	retry    atomic.Int64 // on the clock
}

const breakAfter = 3

func (b *breaker) closed(now time.Duration) bool {
	if b.failures.Load() < breakAfter {
		return true
	}
	retry := b.retry.Load()
	return int64(now) >= retry && b.retry.CompareAndSwap(retry, int64(now+time.Second))
}

func (b *breaker) note(err error, now time.Duration) {
	if err == nil {
		b.failures.Store(0)
		return
	}
	b.retry.Store(int64(now + time.Second))
	b.failures.Add(1)
}

// jitter is a random part of a duration.
func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}
