package authstore

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// leaseTime is how long a node may answer from caches, and tell success at all, after it sent the last tail query that
	// reached the feed's end. Writers wait for it to run out, so it is the same on every node.
	leaseTime = time.Second
	// knownFor is how long a node remembers changes. What was read before is not used any more.
	knownFor = 10 * time.Minute
	// maxKnown bounds the remembered changes: about 20 MB.
	maxKnown = 100_000
)

// errReplaced says that the feed is not the one that was read before: a restored backup, or a failover that lost commits.
var errReplaced = errors.New("the change feed's history was replaced")

// nobody is the account of the names that nobody has. It changes when names come or go.
const nobody AccountID = 0

// stamp says when something was read from the truth, in terms that no clock takes part in.
type stamp struct {
	generation uint64 // which history this node followed; another one after the history was replaced
	sequence   uint64 // the feed's counter, read in the same statement
}

// history is what this node knows of the change feed: each change of the last ten minutes without a gap, and until when it may
// rely on knowing the newest. Whatever was read from the truth or from a cache is judged against it.
type history struct {
	clock      func() time.Duration // goes on while the machine or the process sleeps
	staleGrace time.Duration

	mu         sync.RWMutex // guards all below
	generation uint64       // zero: nothing was read yet
	epoch      string
	low        uint64               // sequence of changes[0]
	changes    []known              // never empty once something was read
	last       map[AccountID]uint64 // sequence of the last known change of each account
	held       bool                 // there is a lease, if it has not run out
	sent       time.Duration        // when the query was sent that gave the lease
	failing    bool                 // the last tail got no answer
	failed     time.Duration        // when that was seen
	renewed    chan struct{}        // closed when the next lease comes
}

type known struct {
	mark    string
	account AccountID
	learned time.Duration
}

func newHistory(clock func() time.Duration, staleGrace time.Duration) *history {
	return &history{clock: clock, staleGrace: staleGrace, renewed: make(chan struct{})}
}

// begin starts from what Recent found, and forgets all that was known before.
func (h *history) begin(t Tail) error {
	recent := t.Changes
	for i := len(recent) - 1; i > 0; i-- {
		if recent[i-1].Sequence+1 != recent[i].Sequence { // rows pruned under a clock that jumped: what follows them is known
			recent = recent[i:]
			break
		}
	}
	if n := len(recent); t.Counter > 0 && (n == 0 || recent[n-1].Sequence != t.Counter) {
		return errors.New("the change feed lacks its newest row; is the database whole?")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.generation++
	h.epoch, h.held, h.failing = t.Epoch, false, false
	h.changes, h.last = nil, make(map[AccountID]uint64)
	if t.Counter == 0 { // nothing was ever changed: row zero stands for that
		h.low, h.changes = 0, []known{{}}
		return nil
	}
	h.low = recent[0].Sequence
	h.learn(recent)
	return nil
}

// apply takes in what a tail found that was sent at a time of the clock. It returns the changes that are new, and whether the
// feed's end was reached, which renews the lease.
func (h *history) apply(t Tail, sent time.Duration) (news []Change, end bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failing = false
	if news, err = h.continued(t); err != nil {
		h.held = false
		return nil, false, err
	}
	h.learn(news)
	h.forget()
	end = h.high() == t.Counter
	if end && t.Node { // for a node without a row no writer waits, so it may rely on nothing
		h.held, h.sent = true, sent
		close(h.renewed)
		h.renewed = make(chan struct{})
	}
	return news, end, nil
}

// continued returns what a tail adds to the known history. The caller holds mu.
func (h *history) continued(t Tail) ([]Change, error) {
	news := t.Changes
	if h.high() > 0 {
		if len(news) == 0 || news[0].Sequence != h.high() || news[0].Mark != h.changes[len(h.changes)-1].mark {
			return nil, errReplaced
		}
		news = news[1:]
	}
	for i, c := range news {
		if c.Sequence != h.high()+1+uint64(i) {
			return nil, errReplaced // rows were pruned that this node has not seen
		}
	}
	reached := h.high() + uint64(len(news))
	if t.Epoch != h.epoch || t.Counter < reached || t.Counter > reached && len(t.Changes) < TailBatch {
		return nil, errReplaced
	}
	return news, nil
}

// learn appends changes. The caller holds mu.
func (h *history) learn(changes []Change) {
	now := h.clock()
	for _, c := range changes {
		h.changes = append(h.changes, known{c.Mark, c.Account, now})
		h.last[c.Account] = c.Sequence
		if c.Names {
			h.last[nobody] = c.Sequence
		}
	}
}

// forget drops what is known for long, but never the newest change. The caller holds mu.
func (h *history) forget() {
	now := h.clock()
	for len(h.changes) > 1 && (len(h.changes) > maxKnown || now-h.changes[0].learned > knownFor) {
		for _, id := range [...]AccountID{h.changes[0].account, nobody} {
			if h.last[id] == h.low {
				delete(h.last, id)
			}
		}
		h.changes = h.changes[1:]
		h.low++
	}
}

// high is the newest known sequence. The caller holds mu.
func (h *history) high() uint64 { return h.low + uint64(len(h.changes)) - 1 }

// position is the newest change that this node knows; zero before the feed was read.
func (h *history) position() stamp {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.generation == 0 {
		return stamp{}
	}
	return stamp{h.generation, h.high()}
}

// fail notes that a tail got no answer.
func (h *history) fail() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failing, h.failed = true, h.clock()
}

// yield gives the lease up: the node stops.
func (h *history) yield() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held, h.failing = false, false
}

// lag is the time since the tail was sent that gave the last lease; ok is false where there was none yet.
func (h *history) lag() (lag time.Duration, ok bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.clock() - h.sent, h.sent != 0
}

// live reports whether the node may rely on what it knows. The caller holds mu.
func (h *history) live() bool {
	if !h.held {
		return false
	}
	now := h.clock()
	if now-h.sent < leaseTime {
		return true
	}
	// An administrator traded the promise for availability. Only a database that was asked and did not answer counts as lost: a
	// process that was stopped and goes on has to ask first.
	return h.failing && now-h.failed < 2*leaseTime && now-h.sent < leaseTime+h.staleGrace
}

// await waits for a live lease.
func (h *history) await(ctx context.Context) error {
	for {
		h.mu.RLock()
		live, renewed := h.live(), h.renewed
		h.mu.RUnlock()
		if live {
			return nil
		}
		select {
		case <-renewed:
		case <-ctx.Done():
			return errNoLease
		}
	}
}

var errNoLease = errors.New("the change feed could not be read in time, so that a revocation may be unknown")

// isLive reports whether the node holds a live lease.
func (h *history) isLive() bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.live()
}

// stands reports whether what was read of an account at a stamp is still so, as far as this node knows. The caller holds mu.
func (h *history) stands(id AccountID, at stamp) bool {
	return h.generation != 0 && at.generation == h.generation && at.sequence+1 >= h.low && h.last[id] <= at.sequence
}

// overtaken reports whether this node knows of a change of the account since a stamp.
func (h *history) overtaken(id AccountID, at stamp) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.generation != 0 && !h.stands(id, at)
}

// vouches reports whether the node holds a live lease and knows every change since a stamp, and none of the account: a writer
// who changed it now would wait for this node, or for the lease to run out.
func (h *history) vouches(id AccountID, at stamp) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.live() && h.stands(id, at)
}

// recognises returns the stamp of what came from outside with the mark of the change at which it was read, if this node knows that
// very change.
func (h *history) recognises(sequence uint64, mark string) (stamp, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	at := stamp{h.generation, sequence}
	known, ok := h.mark(at)
	return at, ok && known == mark
}

// markOf returns the mark of the change at a stamp, if this node knows it.
func (h *history) markOf(at stamp) (mark string, ok bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.mark(at)
}

// mark is called with mu held.
func (h *history) mark(at stamp) (mark string, ok bool) {
	if h.generation == 0 || at.generation != h.generation || at.sequence < h.low || at.sequence > h.high() {
		return "", false
	}
	return h.changes[at.sequence-h.low].mark, true
}

// followed is the epoch of the history that this node follows.
func (h *history) followed() string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.epoch
}
