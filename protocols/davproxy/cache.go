package davproxy

import (
	"sync"
	"time"
)

// cache is a bounded map whose entries die. Where it is full, what comes first goes: any entry can be learned again.
type cache[K comparable, V any] struct {
	mu      sync.Mutex // guards entries
	entries map[K]entry[V]
}

type entry[V any] struct {
	value V
	until time.Time
}

const maxCache = 20_000

func (c *cache[K, V]) get(key K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok || time.Now().After(e.until) {
		return *new(V), false
	}
	return e.value, true
}

func (c *cache[K, V]) put(key K, value V, life time.Duration) {
	c.putUnless(key, value, life, func() bool { return false })
}

// putUnless asks with the map locked whether the value is out of date already.
func (c *cache[K, V]) putUnless(key K, value V, life time.Duration, stale func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if stale() {
		return
	}
	if c.entries == nil {
		c.entries = make(map[K]entry[V])
	}
	for other := range c.entries {
		if len(c.entries) < maxCache {
			break
		}
		delete(c.entries, other)
	}
	c.entries[key] = entry[V]{value, time.Now().Add(life)}
}

func (c *cache[K, V]) drop(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, key)
}
