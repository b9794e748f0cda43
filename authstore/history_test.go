package authstore

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// clock is moved by hand.
type clock struct{ now time.Duration }

func (c *clock) read() time.Duration { return c.now }

// row is a change whose mark tells its history.
func row(sequence uint64, history string, id AccountID) Change {
	return Change{Sequence: sequence, Mark: fmt.Sprint(history, sequence), Account: id}
}

func rows(from, to uint64) []Change {
	var list []Change
	for n := from; n <= to; n++ {
		list = append(list, row(n, "a", AccountID(n)))
	}
	return list
}

// startedHistory knows changes 5 to 10, each of the account of its number, and holds a lease.
func startedHistory(t *testing.T, c *clock) *history {
	t.Helper()
	h := newHistory(c.read, 0)
	if err := h.begin(Tail{Epoch: "e", Counter: 10, Changes: rows(5, 10)}); err != nil {
		t.Fatal(err)
	}
	if _, end, err := h.apply(Tail{Epoch: "e", Counter: 10, Node: true, Changes: rows(10, 10)}, c.now); err != nil || !end {
		t.Fatalf("the first tail: end %v, %v", end, err)
	}
	return h
}

func TestWhatAHistoryVouchesFor(t *testing.T) {
	c := &clock{now: time.Hour}
	h := startedHistory(t, c)
	for name, tt := range map[string]struct {
		id   AccountID
		at   stamp
		want bool
	}{
		"untouched account":              {99, stamp{1, 10}, true},
		"read at its last change":        {7, stamp{1, 7}, true},
		"read before its last change":    {7, stamp{1, 6}, false},
		"read ahead of the tail":         {7, stamp{1, 11}, true},
		"read just before what is known": {99, stamp{1, 4}, true},
		"read before that":               {99, stamp{1, 3}, false},
		"another history":                {99, stamp{2, 10}, false},
		"before any history":             {99, stamp{0, 10}, false},
	} {
		if got := h.vouches(tt.id, tt.at); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	c.now += leaseTime - 1
	if !h.vouches(99, stamp{1, 10}) {
		t.Error("the lease ends early")
	}
	c.now++
	if h.vouches(99, stamp{1, 10}) {
		t.Error("the lease outlives its second")
	}
	if h.overtaken(99, stamp{1, 10}) {
		t.Error("without a lease a change is made up")
	}
}

func TestNamesThatNobodyHasChangeWithNames(t *testing.T) {
	c := &clock{now: time.Hour}
	h := startedHistory(t, c)
	if !h.vouches(nobody, stamp{1, 10}) {
		t.Error("unknown names are forgotten without a change of names")
	}
	named := row(11, "a", 1)
	named.Names = true
	if _, _, err := h.apply(Tail{Epoch: "e", Counter: 11, Node: true, Changes: []Change{row(10, "a", 10), named}}, c.now); err != nil {
		t.Fatal(err)
	}
	if h.vouches(nobody, stamp{1, 10}) || !h.vouches(nobody, stamp{1, 11}) {
		t.Error("a change of names is not one of the names that nobody has")
	}
}

func TestOnlyATailThatReachesTheEndGivesALease(t *testing.T) {
	full := rows(10, 10+TailBatch-1)
	for name, tt := range map[string]struct {
		tail Tail
		news int
		held bool
		err  bool
	}{
		"nothing new":           {Tail{Epoch: "e", Counter: 10, Node: true, Changes: rows(10, 10)}, 0, true, false},
		"some":                  {Tail{Epoch: "e", Counter: 13, Node: true, Changes: rows(10, 13)}, 3, true, false},
		"more to come":          {Tail{Epoch: "e", Counter: 5000, Node: true, Changes: full}, TailBatch - 1, false, false},
		"no row of the node":    {Tail{Epoch: "e", Counter: 11, Changes: rows(10, 11)}, 1, false, false},
		"another epoch":         {Tail{Epoch: "f", Counter: 10, Node: true, Changes: rows(10, 10)}, 0, false, true},
		"a lower counter":       {Tail{Epoch: "e", Counter: 9, Node: true}, 0, false, true},
		"another mark":          {Tail{Epoch: "e", Counter: 10, Node: true, Changes: []Change{row(10, "b", 10)}}, 0, false, true},
		"the known row pruned":  {Tail{Epoch: "e", Counter: 12, Node: true, Changes: rows(11, 12)}, 0, false, true},
		"a gap":                 {Tail{Epoch: "e", Counter: 12, Node: true, Changes: []Change{row(10, "a", 10), row(12, "a", 12)}}, 0, false, true},
		"an end that is none":   {Tail{Epoch: "e", Counter: 12, Node: true, Changes: rows(10, 11)}, 0, false, true},
		"rows over the counter": {Tail{Epoch: "e", Counter: 10, Node: true, Changes: rows(10, 11)}, 0, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			c := &clock{now: time.Hour}
			h := startedHistory(t, c)
			c.now += leaseTime // the old lease is over
			news, _, err := h.apply(tt.tail, c.now)
			if len(news) != tt.news || h.isLive() != tt.held || errors.Is(err, errReplaced) != tt.err {
				t.Errorf("%d changes, live %v, %v; want %d, %v, replaced %v", len(news), h.isLive(), err, tt.news, tt.held, tt.err)
			}
		})
	}
}

func TestAReplacedHistoryEndsTheLeaseAtOnce(t *testing.T) {
	c := &clock{now: time.Hour}
	h := startedHistory(t, c)
	h.apply(Tail{Epoch: "e", Counter: 3, Node: true, Changes: rows(3, 3)}, c.now)
	if h.isLive() {
		t.Error("the lease goes on")
	}
	if err := h.begin(Tail{Epoch: "e", Counter: 3, Changes: rows(2, 3)}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.apply(Tail{Epoch: "e", Counter: 3, Node: true, Changes: rows(3, 3)}, c.now); err != nil {
		t.Fatal(err)
	}
	if h.vouches(99, stamp{1, 10}) || h.vouches(99, stamp{1, 3}) || !h.vouches(99, stamp{2, 3}) {
		t.Error("what was read in the old history stands in the new one")
	}
}

func TestBegin(t *testing.T) {
	gap := append(rows(5, 6), rows(8, 10)...)
	for name, tt := range map[string]struct {
		recent Tail
		low    uint64 // the earliest sequence that a snapshot may have
		err    bool
	}{
		"empty":           {Tail{Epoch: "e"}, 0, false},
		"quiet":           {Tail{Epoch: "e", Counter: 10, Changes: rows(10, 10)}, 9, false},
		"some":            {Tail{Epoch: "e", Counter: 10, Changes: rows(5, 10)}, 4, false},
		"with a gap":      {Tail{Epoch: "e", Counter: 10, Changes: gap}, 7, false},
		"newest row gone": {Tail{Epoch: "e", Counter: 11, Changes: rows(5, 10)}, 0, true},
		"all rows gone":   {Tail{Epoch: "e", Counter: 11}, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHistory((&clock{}).read, 0)
			if err := h.begin(tt.recent); (err != nil) != tt.err {
				t.Fatalf("begin = %v", err)
			}
			if tt.err {
				if h.position() != (stamp{}) {
					t.Error("it began all the same")
				}
				return
			}
			if h.overtaken(99, stamp{1, tt.low}) || tt.low > 0 && !h.overtaken(99, stamp{1, tt.low - 1}) {
				t.Errorf("the earliest usable sequence is not %d", tt.low)
			}
			if h.isLive() {
				t.Error("a lease without a tail")
			}
		})
	}
}

func TestAHistoryIsBoundedInTime(t *testing.T) {
	c := &clock{now: time.Hour}
	h := startedHistory(t, c)
	c.now += knownFor + 1
	if _, _, err := h.apply(Tail{Epoch: "e", Counter: 12, Node: true, Changes: rows(10, 12)}, c.now); err != nil {
		t.Fatal(err)
	}
	if len(h.changes) != 2 || len(h.last) != 2 {
		t.Errorf("%d changes, %d accounts known; want the 2 new ones", len(h.changes), len(h.last))
	}
	c.now += knownFor + 1
	h.apply(Tail{Epoch: "e", Counter: 12, Node: true, Changes: rows(12, 12)}, c.now)
	if !h.vouches(99, stamp{1, 12}) || h.vouches(99, stamp{1, 10}) {
		t.Error("a quiet feed: the newest change must stay known, the others not")
	}
}

func TestWhatAHistoryRecognises(t *testing.T) {
	h := startedHistory(t, &clock{now: time.Hour})
	for name, tt := range map[string]struct {
		sequence uint64
		mark     string
		want     bool
	}{
		"known":              {7, "a7", true},
		"newest":             {10, "a10", true},
		"another history's":  {7, "b7", false},
		"not known yet":      {11, "a11", false},
		"not known any more": {4, "a4", false},
		"no mark":            {7, "", false},
	} {
		if at, ok := h.recognises(tt.sequence, tt.mark); ok != tt.want || ok && at != (stamp{1, tt.sequence}) {
			t.Errorf("%s: %v, %v; want %v", name, at, ok, tt.want)
		}
	}
}

// stale_grace counts from a question that got no answer, so that a process that was stopped asks first.
func TestStaleGrace(t *testing.T) {
	c := &clock{now: time.Hour}
	h := startedHistory(t, c)
	h.staleGrace = time.Minute
	c.now += 10 * time.Second // stopped, and going on
	if h.isLive() {
		t.Error("caches are used before the database was asked")
	}
	h.fail()
	if !h.isLive() {
		t.Error("the grace has no effect")
	}
	c.now += 2 * leaseTime // stopped once more
	if h.isLive() {
		t.Error("an old failure counts")
	}
	c.now = time.Hour + leaseTime + time.Minute
	h.fail()
	if h.isLive() {
		t.Error("the grace outlives its minute")
	}
	h.staleGrace = 0
	c.now = time.Hour + leaseTime
	h.fail()
	if h.isLive() {
		t.Error("caches are used without a grace")
	}
}

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		h := newHistory(func() time.Duration { return time.Since(began) }, 0)
		h.begin(Tail{Epoch: "e"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := h.await(ctx); err == nil {
			t.Error("a lease came from nowhere")
		}
		go func() {
			time.Sleep(time.Second)
			h.apply(Tail{Epoch: "e", Node: true}, time.Since(began))
		}()
		if err := h.await(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestPruneWaitsForASteadyClock(t *testing.T) {
	wall, c := time.Now(), &clock{now: time.Hour}
	p := pruner{now: func() time.Time { return wall }, clock: c.read}
	pass := func(d time.Duration) { wall = wall.Add(d); c.now += d }
	due := func(d time.Duration) (n int) {
		for end := c.now + d; c.now < end; pass(flushEvery) {
			if p.due() {
				n++
			}
		}
		return n
	}
	if got := due(NodeTimeout); got != 0 {
		t.Errorf("pruned %d times before others could be heard", got)
	}
	if got := due(5 * pruneEvery); got != 5 {
		t.Errorf("pruned %d times in 5 minutes", got)
	}
	wall = wall.Add(time.Hour) // the clock is set
	if got := due(NodeTimeout); got != 0 {
		t.Errorf("pruned %d times after the clock jumped", got)
	}
	if got := due(pruneEvery); got != 1 {
		t.Errorf("pruned %d times when it had settled", got)
	}
}

func TestUsableKey(t *testing.T) {
	for name, tt := range map[string]struct {
		ours  []uint32
		nodes []Node
		want  uint32
	}{
		"no nodes":          {[]uint32{1, 2}, nil, 2},
		"all have it":       {[]uint32{1, 2}, []Node{{Keys: []uint32{1, 2}}, {Keys: []uint32{1, 2, 3}}}, 2},
		"one lacks it":      {[]uint32{1, 2}, []Node{{Keys: []uint32{1, 2}}, {Keys: []uint32{1}}}, 1},
		"nothing in common": {[]uint32{2, 3}, []Node{{Keys: []uint32{1}}}, 2},
	} {
		if got := usableKey(tt.ours, tt.nodes); got != tt.want {
			t.Errorf("%s: key %d, want %d", name, got, tt.want)
		}
	}
}

func TestSettlingIsInOrder(t *testing.T) {
	q := settling{wake: make(chan struct{}, 1)}
	first, second := make(chan struct{}), make(chan struct{})
	q.add(1, first)
	q.add(2, second)
	q.add(3)
	close(second)
	if settled, untold, next := q.advance(); settled != 0 || untold || next != first {
		t.Errorf("settled %d, untold %v, before the first has left", settled, untold)
	}
	close(first)
	if settled, untold, next := q.advance(); settled != 3 || !untold || next != nil {
		t.Errorf("settled %d, untold %v, waiting %v; want all 3", settled, untold, next != nil)
	}
	if _, untold, _ := q.advance(); untold {
		t.Error("it is told twice")
	}
	q.add(4, make(chan struct{}))
	q.restart()
	q.add(2)
	if settled, untold, _ := q.advance(); settled != 2 || !untold {
		t.Errorf("after a restart: settled %d, untold %v; want 2", settled, untold)
	}
}
