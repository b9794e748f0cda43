package authstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// tailEvery is how often a node looks at the change feed: a lease survives a slow look or two.
	tailEvery = 250 * time.Millisecond
	// tailTime bounds one look. The answer to a slower one would renew no lease.
	tailTime = leaseTime
	// tailGap is the least time between two looks, however often somebody says that there is news.
	tailGap = 5 * time.Millisecond
	// writeTime bounds a write of the node itself.
	writeTime = 10 * time.Second
	// heartbeat is how often a node that has nothing to acknowledge says that it is alive.
	heartbeat = 15 * time.Second
	// flushEvery is how often "last used" is written.
	flushEvery = 10 * time.Second
	// pruneEvery is how often the feed is pruned, of changes older than changesStored.
	pruneEvery    = time.Minute
	changesStored = time.Hour
)

// Run makes this store a node until ctx ends: it registers, reads the recent changes, follows the feed, ends the sessions of ended
// grants, acknowledges, and writes "last used". Its errors are those of a start: the key file is not the database's, or the
// database can't be reached. End ctx when the sessions have left: nobody waits for a node that has gone.
func (s *Store) Run(ctx context.Context) error {
	if err := checkKeys(ctx, s.o.Truth, s.keys.Load()); err != nil {
		return err
	}
	parts := []func(context.Context){s.follow, s.acknowledge, s.keepHouse}
	if s.o.Cache != nil {
		parts = append(parts, s.listen, s.fillCache)
	}
	var running sync.WaitGroup
	for _, part := range parts {
		running.Go(func() { part(ctx) })
	}
	running.Wait()
	s.rechecks.Wait()
	s.history.yield() // before the row goes: whoever changes something now does not wait for this node

	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTime)
	defer cancel()
	// first the row: what is left to be written may take all the time there is, and then who changes something would wait for a node that is gone
	return errors.Join(s.o.Truth.Unregister(last, s.node), s.usage.flush(last, s.o.Truth))
}

// Poke makes the node look at the feed now: somebody has just changed something.
func (s *Store) Poke() {
	select {
	case s.poked <- struct{}{}:
	default:
	}
}

// Ready says why the node takes no logins now; nil: it does.
func (s *Store) Ready() error {
	if s.history.isLive() {
		return nil
	}
	lag, ok := s.history.lag()
	if !ok {
		return errors.New("the change feed has not been read yet")
	}
	return fmt.Errorf("the change feed could not be read for %v; does the database answer?", lag.Round(time.Millisecond))
}

// Lag is the time since the feed was last read to its end; zero before the first time.
func (s *Store) Lag() time.Duration {
	lag, ok := s.history.lag()
	if !ok {
		return 0
	}
	return lag
}

// tailer is what follow knows from one look to the next.
type tailer struct {
	registered bool          // the node's row was written
	begun      bool          // the recent changes were read
	answered   time.Duration // on the clock, when the truth last answered
	silent     bool          // that it does not was said
}

// follow looks at the feed until ctx ends. It waits for no session, and for no write but its registration.
func (s *Store) follow(ctx context.Context) {
	tick := time.NewTicker(tailEvery)
	defer tick.Stop()
	t := &tailer{answered: s.o.Clock()}
	for ctx.Err() == nil {
		err := s.look(ctx, t)
		if ctx.Err() != nil {
			return
		}
		s.judge(t, err)
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-s.poked:
			pause(ctx, tailGap)
		}
	}
}

// judge draws the consequences of a look.
func (s *Store) judge(t *tailer, err error) {
	now := s.o.Clock()
	switch {
	case errors.Is(err, errReplaced):
		s.o.Log.Error("the database is not the one of a moment ago (a restored copy, or a failover that lost changes): all caches are dropped and all sessions checked")
		t.registered, t.begun = false, false
		s.l1.clear()
		s.Poke()
	case err != nil:
		s.history.fail()
		if !t.silent {
			s.o.Log.Warn("the change feed can't be read; logins are refused as temporarily unavailable", "err", err)
		}
		t.silent = true
		if now-t.answered > s.o.SessionGrace {
			s.o.Sessions.Review(0, func(Grant) error { return errStoreLost })
		}
	default:
		if t.silent {
			s.o.Log.Info("the change feed is read again", "dur", now-t.answered)
		}
		t.answered, t.silent = now, false
	}
}

// look reads the feed to its end and applies what is new.
func (s *Store) look(ctx context.Context, t *tailer) error {
	if err := s.enter(ctx, t); err != nil {
		return err
	}
	for {
		sent := s.o.Clock()
		tail, err := s.tail(ctx)
		if err != nil {
			return err
		}
		t.registered = tail.Node
		tail.Node = tail.Node && s.countsAsAlive()
		news, end, err := s.history.apply(tail, sent)
		if err != nil {
			return err
		}
		s.endSessions(ctx, news)
		if end && !t.registered { // the row has gone: somebody took this node for dead
			s.Poke()
		}
		if end {
			return nil
		}
	}
}

// enter makes the node known, then reads the recent changes: in this order no change falls between.
func (s *Store) enter(ctx context.Context, t *tailer) error {
	if !t.registered {
		write, cancel := context.WithTimeout(ctx, writeTime)
		defer cancel()
		sent := s.o.Clock()
		if err := s.o.Truth.Register(write, s.node, s.keys.Load().Numbers()); err != nil {
			return fmt.Errorf("register this node: %w", err)
		}
		s.heard.Store(int64(sent))
		s.settling.again()
		t.registered = true
	}
	if !t.begun {
		read, cancel := context.WithTimeout(ctx, writeTime) // may be many
		defer cancel()
		recent, err := s.o.Truth.Recent(read, s.o.Now().Add(-knownFor))
		if err != nil {
			return fmt.Errorf("read the recent changes: %w", err)
		}
		if err := s.history.begin(recent); err != nil {
			return err
		}
		s.settling.restart()
		s.settling.add(recent.Counter, s.recheck(ctx, 0)) // sessions from before the history was replaced
		t.begun = true
	}
	return nil
}

func (s *Store) tail(ctx context.Context) (Tail, error) {
	ctx, cancel := context.WithTimeout(ctx, tailTime)
	defer cancel()
	from := s.history.position().sequence
	t, err := s.o.Truth.Tail(ctx, s.node, from)
	if err != nil {
		return t, fmt.Errorf("tail from %d: %w", from, err)
	}
	return t, nil
}

// countsAsAlive reports whether no other node can have taken this one for dead and removed its row: then no writer would wait for
// it, though it can read.
func (s *Store) countsAsAlive() bool {
	return s.alone.Load() || s.o.Clock()-time.Duration(s.heard.Load()) < NodeTimeout/2
}

// listen looks at the feed when another process says that there is news. What it misses, the next look finds.
func (s *Store) listen(ctx context.Context) {
	for ctx.Err() == nil {
		if err := s.o.Cache.Watch(ctx, s.Poke); err != nil && ctx.Err() == nil {
			s.o.Log.Debug("watch the shared cache", "err", err)
		}
		pause(ctx, time.Second)
	}
}

// keepHouse writes "last used", learns of the other nodes, and prunes the feed.
func (s *Store) keepHouse(ctx context.Context) {
	prune := pruner{now: s.o.Now, clock: s.o.Clock}
	for failing := false; ctx.Err() == nil; pause(ctx, flushEvery) {
		err := s.house(ctx, &prune)
		if err != nil && !failing && ctx.Err() == nil {
			s.o.Log.Warn("what was used can't be written, or old changes not pruned", "err", err)
		}
		failing = err != nil
	}
}

func (s *Store) house(ctx context.Context, p *pruner) error {
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	nodes, err := s.o.Truth.Nodes(ctx)
	if err != nil {
		return fmt.Errorf("list the nodes: %w", err)
	}
	s.alone.Store(!slices.ContainsFunc(nodes, func(n Node) bool { return n.ID != s.node }))
	s.usable.Store(usableKey(s.keys.Load().Numbers(), nodes))
	if err := s.usage.flush(ctx, s.o.Truth); err != nil {
		return fmt.Errorf("write last used: %w", err)
	}
	if !p.due() {
		return nil
	}
	return s.o.Truth.Prune(ctx, s.o.Now().Add(-changesStored))
}

// pruner says when it is safe to remove what is old. A wall clock that has jumped makes living nodes look dead: then it waits
// until all must have been heard again.
type pruner struct {
	now    func() time.Time
	clock  func() time.Duration
	wall   time.Time
	at     time.Duration // when wall was read
	steady time.Duration // since when the two have run alike
	last   time.Duration
}

func (p *pruner) due() bool {
	wall, at := p.now().Round(0), p.clock()
	if drift := wall.Sub(p.wall) - (at - p.at); p.wall.IsZero() || drift.Abs() > pruneEvery {
		p.steady = at
	}
	p.wall, p.at = wall, at
	if at-p.steady < NodeTimeout || at-p.last < pruneEvery {
		return false
	}
	p.last = at
	return true
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
