// Package throttle counts what failed logins cost, in token buckets per client network. It protects capacity and logs, not
// secrets (an app password has 87 random bits), so it locks no account: its caller lets a correct password that it knows pass
// before it asks here. Buckets are kept in this process; Shared, where there is one, joins those of all nodes.
package throttle

import (
	"context"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// Cost of a failure, in thousandths of a wrong password.
type Cost int64

// The costs.
const (
	Wrong Cost = 1000 // a wrong password
	Again Cost = 50   // the same wrong password again from the same place: a device with an old one
	Shape Cost = 250  // not an app password at all, judged without any look-up
)

// The budget of one source: about 20 wrong passwords at once, then one a minute.
const (
	Burst  = 20 * Wrong
	Refill = time.Minute // for one Wrong
)

// maxDebt is how far ahead of the present a bucket may be filled: the time in which it empties.
const maxDebt = time.Duration(Burst) * perCost

// perCost is how long one thousandth takes to come back.
const perCost = Refill / time.Duration(Wrong)

// Shared joins the buckets of all nodes; Redis does.
type Shared interface {
	// Charge adds a cost to a source's bucket and returns its debt: how long until it is empty. Bucket of burst size.
	Charge(ctx context.Context, source string, cost, burst time.Duration) (debt time.Duration, err error)
}

// maxSources bounds the buckets, and with them the memory: about 10 MB.
const maxSources = 65536

// remembered is how many wrong passwords a source's bucket remembers, to know them again.
const remembered = 4

// Limiter holds the buckets. Goroutines may share it.
type Limiter struct {
	shared Shared
	now    func() time.Time
	seed   maphash.Seed

	mu      sync.Mutex // guards sources
	sources map[netip.Prefix]*bucket
}

// bucket is a GCRA: the time at which it is empty again. Ahead of now by maxDebt it is full.
type bucket struct {
	empty time.Time
	wrong [remembered]uint64 // hashes of the last wrong attempts under the process's own seed
	next  int
}

// New makes a Limiter; shared may be nil, now nil means time.Now.
func New(shared Shared, now func() time.Time) *Limiter {
	if now == nil {
		now = time.Now
	}
	return &Limiter{shared: shared, now: now, seed: maphash.MakeSeed(), sources: make(map[netip.Prefix]*bucket)}
}

// Source is the network that a client's failures are counted under: IPv4 /32, IPv6 /64.
func Source(client netip.Addr) netip.Prefix {
	client = client.Unmap().WithZone("")
	bits := 32
	if client.Is6() {
		bits = 64
	}
	p, _ := client.Prefix(bits) // an invalid address gives the zero prefix, a source of its own
	return p
}

// Over reports whether a client's network has used up its budget.
func (l *Limiter) Over(client netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.sources[Source(client)]
	return b != nil && b.empty.Sub(l.now()) > maxDebt-time.Duration(Shape)*perCost
}

// Misshapen charges what was no app password at all.
func (l *Limiter) Misshapen(ctx context.Context, client netip.Addr) {
	l.charge(ctx, Source(client), Shape)
}

// Wrong charges a wrong password, or next to nothing where the same one came from the same place before.
func (l *Limiter) Wrong(ctx context.Context, client netip.Addr, login string, password []byte) {
	source, cost := Source(client), Wrong
	if l.again(source, l.hash(login, password)) {
		cost = Again
	}
	l.charge(ctx, source, cost)
}

func (l *Limiter) hash(login string, password []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(l.seed)
	h.WriteString(login)
	h.WriteByte(0) // no login name holds one
	h.Write(password)
	return h.Sum64()
}

// again reports whether the source failed with the same before, and remembers it.
func (l *Limiter) again(source netip.Prefix, hash uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(source)
	for _, known := range b.wrong {
		if known == hash {
			return true
		}
	}
	b.wrong[b.next] = hash
	b.next = (b.next + 1) % remembered
	return false
}

func (l *Limiter) charge(ctx context.Context, source netip.Prefix, cost Cost) {
	d := time.Duration(cost) * perCost
	l.add(source, d)
	if l.shared == nil {
		return
	}
	// What the other nodes counted makes this node's bucket fuller, never emptier, so that a lost or forged answer frees nobody.
	if debt, err := l.shared.Charge(ctx, source.String(), d, maxDebt); err == nil {
		l.raise(source, debt)
	}
}

func (l *Limiter) add(source netip.Prefix, cost time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, now := l.bucket(source), l.now()
	if b.empty.Before(now) {
		b.empty = now
	}
	b.empty = earlier(b.empty.Add(cost), now.Add(maxDebt))
}

func (l *Limiter) raise(source netip.Prefix, debt time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, now := l.bucket(source), l.now()
	if full := earlier(now.Add(debt), now.Add(maxDebt)); full.After(b.empty) {
		b.empty = full
	}
}

// bucket returns a source's bucket, made if need be. The caller holds mu.
func (l *Limiter) bucket(source netip.Prefix) *bucket {
	b := l.sources[source]
	if b == nil {
		if len(l.sources) >= maxSources {
			l.evict()
		}
		b = &bucket{}
		l.sources[source] = b
	}
	return b
}

// evict forgets the emptiest of a few buckets: a flood of sources can't use up the memory, and makes the limiter more lenient.
func (l *Limiter) evict() {
	const sample = 16
	var victim netip.Prefix
	var least *bucket
	n := 0
	for source, b := range l.sources { // in random order
		if least == nil || b.empty.Before(least.empty) {
			victim, least = source, b
		}
		if n++; n == sample {
			break
		}
	}
	delete(l.sources, victim)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
