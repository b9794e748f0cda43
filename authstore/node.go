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
	// tailEvery is how often a node looks at the change feed; well below the lease, so that one slow look costs nothing.
	tailEvery = 250 * time.Millisecond
	// tailTimeout bounds one look. It is above the lease: a slow one is useless, but it need not be repeated at once.
	tailTimeout = 2 * time.Second
	// heartbeat is how often a node that has nothing to acknowledge says that it is alive.
	heartbeat = 15 * time.Second
	// flushEvery is how often "last used" is written.
	flushEvery = 10 * time.Second
	// changesStored is how long the feed's rows are kept in the database.
	changesStored = time.Hour
)

// errReplaced says that the feed does not go on where this node stood.
var errReplaced = errors.New("the change feed's history was replaced")

// Run makes this store a node: it registers, reads the recent changes, follows the feed, ends the sessions of ended grants,
// acknowledges, and writes "last used". It returns when ctx has ended and all is written.
func (s *Store) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	settle := make(chan settlement, 1024)
	parts.Go(func() { s.follow(ctx, settle); close(settle) })
	parts.Go(func() { s.settle(ctx, settle) })
	parts.Go(func() { s.keepHouse(ctx) })
	if s.Cache != nil {
		parts.Go(func() { s.listen(ctx) })
	}
	parts.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
	defer cancel()
	return errors.Join(s.flush(last), s.Truth.Unregister(last, s.node))
}

// Poke makes the node look at the feed now: somebody has just changed something.
func (s *Store) Poke() {
	select {
	case s.poked <- struct{}{}:
	default:
	}
}

// Ready says why the node can't decide logins from what it knows; nil: it can.
func (s *Store) Ready() error {
	if !s.ready.Load() {
		return errors.New("the change feed has not been read yet")
	}
	if !s.view.leased() {
		return fmt.Errorf("the database has not answered for %v", s.view.lag().Round(time.Millisecond))
	}
	return nil
}

// Lag is the time since the feed was last read to its end.
func (s *Store) Lag() time.Duration { return s.view.lag() }

// settlement is one sequence to be acknowledged, once the sessions that it ended have left.
type settlement struct {
	sequence uint64
	left     []<-chan struct{}
	recheck  []AccountID // accounts whose live grants must be looked at again; zero: all
}

// follow tails the feed until ctx ends. It never waits for sessions, nor for a write.
func (s *Store) follow(ctx context.Context, out chan<- settlement) {
	tick := time.NewTicker(tailEvery)
	defer tick.Stop()
	registered, lost := false, s.Clock()
	for ctx.Err() == nil {
		var err error
		if !registered {
			err = s.register(ctx)
		}
		if err == nil {
			registered, err = true, s.look(ctx, out)
		}
		switch {
		case err == nil:
			lost = s.Clock()
		case errors.Is(err, errReplaced) || errors.Is(err, ErrNotFound):
			s.Log.Warn("caches dropped and live sessions checked", "err", err)
			registered = false
			s.view.forget()
			s.Poke()
		case ctx.Err() == nil:
			s.Log.Warn("change feed", "err", err)
			if s.Clock()-lost > s.SessionGrace {
				s.Sessions.Review(0, func(Grant) error { return errStoreLost })
			}
		}
		select {
		case <-ctx.Done():
		case <-s.poked:
		case <-tick.C:
		}
	}
}

// register makes the node known, then reads the recent changes: in this order no change can fall between.
func (s *Store) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	if err := s.Truth.Register(ctx, s.node, s.keys.Load().Numbers()); err != nil {
		return fmt.Errorf("register this node: %w", err)
	}
	t, err := s.Truth.Recent(ctx, s.Now().Add(-changesKept))
	if err != nil {
		return fmt.Errorf("read the recent changes: %w", err)
	}
	s.view.begin(t)
	s.ready.Store(false)
	return nil
}

// look reads the feed once and applies what is new.
func (s *Store) look(ctx context.Context, out chan<- settlement) error {
	_, from := s.view.position()
	sent := s.Clock()
	look, cancel := context.WithTimeout(ctx, tailTimeout)
	t, err := s.Truth.Tail(look, s.node, from)
	cancel()
	switch {
	case err != nil:
		return fmt.Errorf("tail from %d: %w", from, err)
	case !s.view.continues(t):
		return errReplaced
	case !t.Node:
		return fmt.Errorf("this node's row is gone: %w", ErrNotFound)
	}
	news := s.view.follow(t, sent)
	if len(t.Changes) == TailBatch {
		s.Poke() // there is more
	}
	if !s.ready.Load() { // the first look: whatever was open before is looked at again
		out <- settlement{sequence: t.Counter, recheck: []AccountID{0}}
		s.ready.Store(true)
	}
	if len(news) > 0 {
		out <- s.end(news)
	}
	return nil
}

// end ends the sessions of grants that changes have ended by name; the rest must be looked at again.
func (s *Store) end(news []Change) settlement {
	done := settlement{sequence: news[len(news)-1].Sequence}
	for _, c := range news {
		if len(c.Ended) > 0 || c.AllEnded {
			done.left = append(done.left, s.Sessions.Review(c.Account, func(g Grant) error {
				if c.AllEnded || slices.Contains(c.Ended, g.Password) {
					return errRevoked
				}
				return nil
			}))
			continue
		}
		done.recheck = append(done.recheck, c.Account)
	}
	return done
}

// settle acknowledges sequences in order: when the sessions have left and the others' grants are known to be good.
func (s *Store) settle(ctx context.Context, in <-chan settlement) {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	var acknowledged uint64
	for {
		select {
		case done, more := <-in:
			if !more {
				return
			}
			for _, id := range done.recheck {
				done.left = append(done.left, s.reviewed(ctx, id)...)
			}
			for _, left := range done.left {
				select {
				case <-left:
				case <-ctx.Done():
				}
			}
			acknowledged = max(acknowledged, done.sequence)
		case <-beat.C:
		}
		if ctx.Err() == nil && acknowledged > 0 {
			s.acknowledge(ctx, acknowledged)
		}
	}
}

func (s *Store) acknowledge(ctx context.Context, sequence uint64) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	if err := s.Truth.Acknowledge(ctx, s.node, sequence, s.keys.Load().Numbers()); err != nil && ctx.Err() == nil {
		s.Log.Warn("acknowledge a change", "sequence", sequence, "err", err) // the next one or the heartbeat says it again
	}
}

// reviewed looks at each live grant of an account again (zero: of all), and ends those that the truth no longer allows. It goes on
// until the truth has answered for each.
func (s *Store) reviewed(ctx context.Context, id AccountID) []<-chan struct{} {
	var grants []Grant
	s.Sessions.Review(id, func(g Grant) error { grants = append(grants, g); return nil })
	bad := make(map[grantKey]bool)
	for _, g := range grants {
		key := keyOf(g)
		if _, looked := bad[key]; looked {
			continue
		}
		code, err := s.recheck(ctx, g)
		for err != nil && ctx.Err() == nil {
			pause(ctx, tailEvery)
			code, err = s.recheck(ctx, g)
		}
		bad[key] = err == nil && code != 0
	}
	return []<-chan struct{}{s.Sessions.Review(id, func(g Grant) error {
		if bad[keyOf(g)] {
			return errEnded
		}
		return nil
	})}
}

// grantKey is what decides whether grants are good: they share an answer.
type grantKey struct {
	account  AccountID
	password PasswordID
	address  string
	client   string
}

func keyOf(g Grant) grantKey { return grantKey{g.Account, g.Password, g.Address, g.Client.String()} }

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// listen looks at the feed whenever another node says that there is news. It only makes the node quicker: what it misses, the
// next look finds.
func (s *Store) listen(ctx context.Context) {
	for ctx.Err() == nil {
		if err := s.Cache.Watch(ctx, s.Poke); err != nil && ctx.Err() == nil {
			s.Log.Debug("watch the shared cache", "err", err)
		}
		pause(ctx, time.Second)
	}
}

// keepHouse writes "last used", learns which keys all nodes have, and prunes the feed.
func (s *Store) keepHouse(ctx context.Context) {
	for ctx.Err() == nil {
		if err := s.house(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("housekeeping", "err", err)
		}
		pause(ctx, flushEvery)
	}
}

func (s *Store) house(ctx context.Context) error {
	if err := s.flush(ctx); err != nil {
		return fmt.Errorf("write last used: %w", err)
	}
	nodes, err := s.Truth.Nodes(ctx)
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	s.usable.Store(usableKey(s.keys.Load().Numbers(), nodes))
	return s.Truth.Prune(ctx, s.Now().Add(-changesStored))
}

// usableKey is the newest of our keys that every node has, so that whatever is digested with it can be checked everywhere.
func usableKey(ours []uint32, nodes []Node) uint32 {
	for _, n := range slices.Backward(ours) {
		if !slices.ContainsFunc(nodes, func(node Node) bool { return !slices.Contains(node.Keys, n) }) {
			return n
		}
	}
	return ours[0]
}
