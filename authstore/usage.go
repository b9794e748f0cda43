package authstore

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
)

const (
	// maxUsed bounds the uses that wait to be written; beyond it new ones are forgotten.
	maxUsed = 10_000
	// maxUsedEach bounds those of one app password, to as many as the history keeps: whoever holds it may give himself any name, and
	// each costs the time of the one writer.
	maxUsedEach = 100
	// usedAtOnce is how many are written in one transaction: a revocation waits for one at most.
	usedAtOnce = 50
	// maxApp bounds what a client may tell of itself, in bytes.
	maxApp = 64
)

// usage gathers how app passwords are used, until it is written.
type usage struct {
	now      func() time.Time
	operator func(netip.Addr) string // nil: nobody knows
	mu       sync.Mutex              // guards all below
	waiting  map[usageKey]Usage
	each     map[PasswordID]int // how many wait of each app password
}

type usageKey struct {
	password PasswordID
	protocol string
	app      string
	network  netip.Prefix
}

// Used notes an accepted login. It is written with the next batch; nothing on the login's path waits for a database.
func (s *Store) Used(g Grant, u Use) { s.usage.add(g, u) }

// Named says of which app an accepted login is that was noted without one. What has been written meanwhile stays.
func (s *Store) Named(g Grant, u Use) { s.usage.named(g, u) }

func (w *usage) named(g Grant, u Use) {
	unnamed := usageKey{g.Password, u.Protocol, "", usageNetwork(g.Client)}
	w.mu.Lock()
	if have := w.waiting[unnamed]; have.Count > 0 {
		have.Count--
		w.waiting[unnamed] = have
		if have.Count+have.Failures == 0 {
			w.each[g.Password]--
			delete(w.waiting, unnamed) // a digest that waits with it comes again with the grant
		}
	}
	w.mu.Unlock()
	w.add(g, u)
}

func (w *usage) add(g Grant, u Use) {
	key := usageKey{g.Password, u.Protocol, appName(u.App), usageNetwork(g.Client)}
	w.note(key, Usage{Account: g.Account, Count: 1, Rekey: g.rekey})
}

// refused notes a genuine secret that opened nothing. Of which app it is, is not known before the login.
func (w *usage) refused(account AccountID, id PasswordID, a *Attempt) {
	w.note(usageKey{id, a.Protocol, "", usageNetwork(a.Client)}, Usage{Account: account, Failures: 1})
}

func (w *usage) note(key usageKey, u Usage) {
	u.Password, u.Protocol, u.App, u.Network = key.password, key.protocol, key.app, key.network
	u.First = w.now()
	u.Last = u.First
	w.mu.Lock()
	defer w.mu.Unlock()
	w.merge(key, u)
}

// merge is called with mu held.
func (w *usage) merge(key usageKey, u Usage) {
	have, ok := w.waiting[key]
	if !ok {
		if len(w.waiting) < maxUsed && w.each[key.password] < maxUsedEach {
			w.waiting[key] = u
			w.each[key.password]++
		}
		return
	}
	have.add(u)
	w.waiting[key] = have
}

// flush writes what has gathered, the first use first. What could not be written is kept for the next time.
func (w *usage) flush(ctx context.Context, t Truth) error {
	w.mu.Lock()
	batch := slices.Collect(maps.Values(w.waiting))
	w.waiting, w.each = make(map[usageKey]Usage), make(map[PasswordID]int)
	w.mu.Unlock()
	for i := range batch {
		batch[i].Operator = w.operatorOf(batch[i].Network)
	}
	slices.SortFunc(batch, func(a, b Usage) int { return a.First.Compare(b.First) })
	for len(batch) > 0 {
		part := batch[:min(usedAtOnce, len(batch))]
		if err := t.Used(ctx, part); err != nil {
			w.keep(batch)
			return err
		}
		batch = batch[len(part):]
	}
	return nil
}

// keep puts back what could not be written.
func (w *usage) keep(batch []Usage) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, u := range batch {
		w.merge(usageKey{u.Password, u.Protocol, u.App, u.Network}, u)
	}
}

// operatorOf says who runs a network, or what stands for him. No smaller networks than these are announced by different operators.
func (w *usage) operatorOf(n netip.Prefix) string {
	if n.Bits() == 0 { // a local socket
		return ""
	}
	if w.operator != nil {
		if o := w.operator(n.Addr()); o != "" {
			return o
		}
	}
	return coarseNetwork(n.Addr())
}

// usageNetwork is how much of a client's address history keeps: an IPv4 /24, an IPv6 /48.
func usageNetwork(a netip.Addr) netip.Prefix {
	if !a.IsValid() { // a local socket
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return around(a, 24, 48)
}

// around is the network of an address with the length for its family.
func around(a netip.Addr, v4, v6 int) netip.Prefix {
	bits := v4
	if a.Is6() {
		bits = v6
	}
	return netip.PrefixFrom(a, bits).Masked()
}

// appName makes what a client says of itself short and printable.
func appName(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s[:min(len(s), 4*maxApp)], ""))
	return strings.TrimSpace(strings.ToValidUTF8(s[:min(len(s), maxApp)], ""))
}
