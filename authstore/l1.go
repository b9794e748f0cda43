package authstore

import (
	"container/list"
	"sync"
	"time"
	"unsafe"
)

const (
	// l1Life is how long a snapshot stays in the process.
	l1Life = time.Minute
	// unknownBytes bounds what is remembered of names that nobody has.
	unknownBytes = 2 << 20
)

// found is a snapshot with the stamp under which it was read, as verification uses it. It is never changed.
type found struct {
	*Snapshot
	at   stamp
	keys []uint32 // numbers of the root keys that its digests are made with
}

func newFound(snap *Snapshot, at stamp) *found {
	f := &found{Snapshot: snap, at: at}
	seen := make(map[uint32]bool)
	for v := range snap.all() {
		if !seen[v.Key] {
			seen[v.Key] = true
			f.keys = append(f.keys, v.Key)
		}
	}
	return f
}

// l1 keeps snapshots in the process, by login name, and the names that nobody has. It knows nothing of changes: whoever takes
// a snapshot out asks the history whether it still stands. So a change drops what it touches, by name and by account, wherever
// it stands and whoever was just about to store it.
type l1 struct {
	life time.Duration

	mu      sync.Mutex // guards both
	known   lru
	unknown lru // apart, so that a flood of invented names pushes out nobody's snapshot
}

func newL1(maxBytes int, life time.Duration) *l1 {
	c := &l1{life: life, known: lru{max: maxBytes}, unknown: lru{max: unknownBytes}}
	c.clear()
	return c
}

// get returns what is kept of a name and not older than its life; nil: nothing.
func (c *l1) get(name string, now time.Duration) *found {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.known.get(name)
	if e == nil {
		e = c.unknown.get(name)
	}
	if e == nil || now-e.stored > c.life {
		return nil
	}
	return e.found
}

func (c *l1) put(name string, f *found, now time.Duration) {
	e := &entry{name: name, found: f, stored: now, size: sizeOf(name, f)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known.drop(name)
	c.unknown.drop(name)
	if f.Account == nobody {
		c.unknown.put(e)
		return
	}
	c.known.put(e)
}

func (c *l1) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known.clear()
	c.unknown.clear()
}

// lru is bounded in bytes and forgets what was not used for longest.
type lru struct {
	max, size int
	order     *list.List // of *entry, the last used first
	entries   map[string]*list.Element
}

type entry struct {
	name   string
	found  *found
	stored time.Duration
	size   int
}

func (l *lru) clear() { l.size, l.order, l.entries = 0, list.New(), make(map[string]*list.Element) }

func (l *lru) get(name string) *entry {
	e := l.entries[name]
	if e == nil {
		return nil
	}
	l.order.MoveToFront(e)
	return e.Value.(*entry)
}

func (l *lru) put(e *entry) {
	l.entries[e.name] = l.order.PushFront(e)
	for l.size += e.size; l.size > l.max; {
		l.drop(l.order.Back().Value.(*entry).name)
	}
}

func (l *lru) drop(name string) {
	e := l.entries[name]
	if e == nil {
		return
	}
	delete(l.entries, name)
	l.size -= l.order.Remove(e).(*entry).size
}

// sizeOf estimates what an entry takes with its places in list and map, in bytes.
func sizeOf(name string, f *found) int {
	size := 320 + 2*len(name) + int(unsafe.Sizeof(*f)+unsafe.Sizeof(*f.Snapshot)) + len(f.PublicID) + len(f.Address) + len(f.BackendName) + len(f.Epoch) + 4*len(f.keys)
	for v := range f.all() {
		size += int(unsafe.Sizeof(*v)) + len(v.Networks)*int(unsafe.Sizeof(v.Networks[0])) + len(v.Collections)*int(unsafe.Sizeof(v.Collections[0]))
		for _, c := range v.Collections {
			size += len(c.Name)
		}
	}
	return size
}
