package authstore

import (
	"sync"
	"time"
	"unsafe"
)

// leaseTime is how long a node may answer from caches after it sent the last look at the change feed that reached the end.
const leaseTime = time.Second

const (
	// changesKept is how long a node remembers the feed's changes, so that it can use snapshots that were read before them.
	changesKept = 10 * time.Minute
	// l1Life is how long a snapshot stays in the process.
	l1Life = time.Minute
	// maxUnknown bounds the unknown names that are remembered.
	maxUnknown = 10_000
)

// view is what this node knows: the recent changes of the feed, and the snapshots that they leave valid (L1). A snapshot is used
// only if the node knows every change since the snapshot was read and none touched its account; so neither a stale write to a
// cache nor a race between reading and storing can bring an ended app password back.
type view struct {
	clock    func() time.Duration // of leases
	maxBytes int
	grace    time.Duration // by which the lease outlives its second

	mu      sync.RWMutex // guards all below
	epoch   string
	floor   uint64        // every change after this sequence, up to applied, is known
	applied uint64        // the last change
	mark    string        // its mark
	lease   time.Duration // on the clock, when the lease ends
	synced  time.Duration // on the clock, when the feed was last read to its end
	changed map[AccountID]uint64
	names   uint64      // the last change of names
	kept    []appliedAt // oldest first
	byName  map[string]*held
	byAcct  map[AccountID]map[string]struct{}
	bytes   int
	unknown int
}

type appliedAt struct {
	at       time.Duration
	sequence uint64
	account  AccountID
}

// held is one snapshot in L1.
type held struct {
	*Snapshot
	until time.Duration
	size  int
}

func newView(maxBytes int, grace time.Duration, clock func() time.Duration) *view {
	v := &view{clock: clock, maxBytes: maxBytes, grace: grace}
	v.forget()
	return v
}

// forget drops all that is known. The lease ends.
func (v *view) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.epoch, v.mark, v.floor, v.applied, v.names, v.lease = "", "", 0, 0, 0, 0
	v.changed, v.kept = make(map[AccountID]uint64), nil
	v.byName, v.byAcct, v.bytes, v.unknown = make(map[string]*held), make(map[AccountID]map[string]struct{}), 0, 0
}

// begin sets what a node knows when it starts: the recent changes.
func (v *view) begin(t Tail) {
	v.forget()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.epoch, v.floor = t.Epoch, t.Counter
	if len(t.Changes) > 0 {
		v.floor = t.Changes[0].Sequence - 1
	}
	v.applied = v.floor
	v.apply(t.Changes)
}

// continues reports whether a tail goes on where this node stands. If not, history was replaced: a restored copy, a failover
// that lost commits, a pruned gap.
func (v *view) continues(t Tail) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if t.Epoch != v.epoch || t.Counter < v.applied {
		return false
	}
	next := v.applied
	if next == 0 {
		next = 1 // the first change is still to come
	}
	for _, c := range t.Changes {
		if c.Sequence != next || c.Sequence == v.applied && c.Mark != v.mark {
			return false
		}
		next++
	}
	return len(t.Changes) == TailBatch || next == t.Counter+1 || t.Counter == 0 && next == 1
}

// news returns the changes that a tail brings, and applies them. The lease is renewed if the tail reached the end.
func (v *view) follow(t Tail, sent time.Duration) []Change {
	v.mu.Lock()
	defer v.mu.Unlock()
	news := t.Changes
	if len(news) > 0 && news[0].Sequence == v.applied {
		news = news[1:]
	}
	v.apply(news)
	if len(t.Changes) < TailBatch {
		v.synced, v.lease = sent, sent+leaseTime+v.grace
	}
	return news
}

// apply is called with mu held.
func (v *view) apply(changes []Change) {
	now := v.clock()
	for _, c := range changes {
		v.applied, v.mark = c.Sequence, c.Mark
		v.changed[c.Account] = c.Sequence
		v.kept = append(v.kept, appliedAt{now, c.Sequence, c.Account})
		for name := range v.byAcct[c.Account] {
			if v.byName[name].Sequence < c.Sequence {
				v.drop(name)
			}
		}
		if c.Names {
			v.names = c.Sequence
			v.dropUnknown()
		}
	}
	for len(v.kept) > 0 && now-v.kept[0].at > changesKept {
		old := v.kept[0]
		v.kept = v.kept[1:]
		v.floor = old.sequence
		if v.changed[old.account] == old.sequence {
			delete(v.changed, old.account)
		}
	}
}

// leased reports whether the node may answer from caches.
func (v *view) leased() bool {
	now := v.clock()
	v.mu.RLock()
	defer v.mu.RUnlock()
	return now < v.lease
}

// lag is how long ago the feed was last read to its end.
func (v *view) lag() time.Duration {
	now := v.clock()
	v.mu.RLock()
	defer v.mu.RUnlock()
	return now - v.synced
}

// position is from where to tail.
func (v *view) position() (epoch string, applied uint64) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.epoch, v.applied
}

// get returns a usable snapshot of a name, or nil.
func (v *view) get(name string) *Snapshot {
	now := v.clock()
	v.mu.RLock()
	defer v.mu.RUnlock()
	h := v.byName[name]
	if h == nil || now >= v.lease || now >= h.until || !v.isCurrent(h.Snapshot) {
		return nil
	}
	return h.Snapshot
}

// current reports whether a snapshot, wherever it comes from, may be used now.
func (v *view) current(s *Snapshot) bool {
	now := v.clock()
	v.mu.RLock()
	defer v.mu.RUnlock()
	return now < v.lease && v.isCurrent(s)
}

func (v *view) isCurrent(s *Snapshot) bool {
	if s.Epoch != v.epoch || s.Sequence < v.floor {
		return false
	}
	if s.Account == 0 {
		return s.Sequence >= v.names
	}
	return s.Sequence >= v.changed[s.Account]
}

// stillGood reports whether no change is known that could end a grant, under a live lease.
func (v *view) stillGood(g Grant) bool {
	now := v.clock()
	v.mu.RLock()
	defer v.mu.RUnlock()
	return now < v.lease && g.epoch == v.epoch && g.sequence >= v.floor && g.sequence >= v.changed[g.Account]
}

// keep stores a snapshot under its name, if it may be used.
func (v *view) keep(name string, s *Snapshot) {
	h := &held{Snapshot: s, size: sizeOf(name, s)}
	now := v.clock()
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.isCurrent(s) {
		return
	}
	h.until = now + l1Life
	v.drop(name)
	for other := range v.byName { // in random order, which is nearly as good as the oldest and needs no list
		if v.bytes+h.size <= v.maxBytes && (s.Account != 0 || v.unknown < maxUnknown) {
			break
		}
		v.drop(other)
	}
	v.byName[name] = h
	v.bytes += h.size
	if s.Account == 0 {
		v.unknown++
		return
	}
	if v.byAcct[s.Account] == nil {
		v.byAcct[s.Account] = make(map[string]struct{})
	}
	v.byAcct[s.Account][name] = struct{}{}
}

func (v *view) drop(name string) {
	h := v.byName[name]
	if h == nil {
		return
	}
	delete(v.byName, name)
	v.bytes -= h.size
	if h.Account == 0 {
		v.unknown--
		return
	}
	delete(v.byAcct[h.Account], name)
	if len(v.byAcct[h.Account]) == 0 {
		delete(v.byAcct, h.Account)
	}
}

func (v *view) dropUnknown() {
	if v.unknown == 0 {
		return
	}
	for name, h := range v.byName {
		if h.Account == 0 {
			v.drop(name)
		}
	}
}

// sizeOf estimates what a snapshot takes, in bytes, maps included.
func sizeOf(name string, s *Snapshot) int {
	size := 256 + 2*len(name) + int(unsafe.Sizeof(*s)) + len(s.BackendName)
	for _, list := range [][]Verifiable{s.Active, s.Ended} {
		for _, v := range list {
			size += int(unsafe.Sizeof(v)) + 24*len(v.Networks)
		}
	}
	return size
}
