package authstore

import (
	"context"
	"slices"
	"sync"
	"time"
)

// endSessions ends the sessions whose grant the changes have ended, and queues the changes' acknowledgement for when these have
// left. It waits for nothing.
func (s *Store) endSessions(ctx context.Context, news []Change) {
	if len(news) == 0 {
		return
	}
	generation := s.history.position().generation
	var left []<-chan struct{}
	var touched []AccountID
	for _, c := range news {
		if !c.AllEnded && len(c.Ended) == 0 {
			touched = append(touched, c.Account)
			continue
		}
		left = append(left, s.o.Sessions.Review(c.Account, func(g Grant) error {
			if g.knows(stamp{generation, c.Sequence}) { // resumed in between, and logged in again
				return nil
			}
			switch {
			case c.AllEnded:
				return errClosed
			case slices.Contains(c.Ended, g.Password):
				return errRevoked
			}
			return nil
		}))
	}
	slices.Sort(touched)
	for _, id := range slices.Compact(touched) {
		left = append(left, s.recheck(ctx, id))
	}
	s.settling.add(news[len(news)-1].Sequence, left...)
}

// recheck looks at the live grants of an account again (zero: of all), and ends those that the truth no longer allows. The channel
// is closed when that is done and they have left.
func (s *Store) recheck(ctx context.Context, id AccountID) <-chan struct{} {
	var grants []Grant
	s.o.Sessions.Review(id, func(g Grant) error { grants = append(grants, g); return nil })
	done := make(chan struct{})
	s.rechecks.Go(func() {
		defer close(done)
		looked := make(map[login]bool)
		for _, g := range grants {
			l := login{g.Account, g.login}
			if !looked[l] {
				looked[l] = true
				s.recheckLogin(ctx, l)
			}
		}
	})
	return done
}

// login is what live grants that one snapshot judges have in common.
type login struct {
	account AccountID
	address string
}

// recheckLogin asks the truth until it answers, and until nothing is known that came later.
func (s *Store) recheckLogin(ctx context.Context, l login) {
	for ctx.Err() == nil {
		f, err := s.readTruth(ctx, l.address)
		if err != nil {
			pause(ctx, tailEvery)
			continue
		}
		left := s.endByTruth(l, f)
		s.expire(l, f)
		if s.history.overtaken(l.account, f.at) {
			continue
		}
		select {
		case <-left:
		case <-ctx.Done():
		}
		return
	}
}

// endByTruth ends the sessions of a login that what was read does not allow.
func (s *Store) endByTruth(l login, f *found) <-chan struct{} {
	return s.o.Sessions.Review(l.account, func(g Grant) error {
		if g.login != l.address || g.knows(f.at) {
			return nil
		}
		if code := f.refuses(g, s.o.Now()); code != 0 {
			return ending(code)
		}
		return nil
	})
}

// expire has the sessions of a login end when their app passwords expire as they were read, for that may have moved. Who calls it then
// looks whether what was read is overtaken: of two that run at once, the one who has read the older must not have the last word.
func (s *Store) expire(l login, f *found) {
	s.o.Sessions.Expire(l.account, func(g Grant) (time.Time, bool) {
		if g.login != l.address || g.knows(f.at) {
			return time.Time{}, false
		}
		i := slices.IndexFunc(f.Active, func(v Verifiable) bool { return v.ID == g.Password })
		if i < 0 {
			return time.Time{}, false
		}
		return f.Active[i].Expires, true
	})
}

// settling holds back the acknowledgement of each sequence until the sessions that it ended have left, in order.
type settling struct {
	wake chan struct{} // something was added

	mu      sync.Mutex // guards all below
	queue   []settlement
	settled uint64
	untold  bool // the truth must be told settled, again perhaps
}

type settlement struct {
	sequence uint64
	left     []<-chan struct{}
}

// add queues a sequence.
func (q *settling) add(sequence uint64, left ...<-chan struct{}) {
	q.change(func() { q.queue = append(q.queue, settlement{sequence, left}) })
}

// again has the truth told once more, for it has a new row for this node, or this node has new keys.
func (q *settling) again() { q.change(func() { q.untold = true }) }

// restart forgets all: another history begins, whose sequences mean something else.
func (q *settling) restart() {
	q.change(func() { q.queue, q.settled, q.untold = nil, 0, true })
}

func (q *settling) change(do func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	do()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// advance takes out what has settled. It returns the last such sequence, whether the truth has to be told, and what must be waited
// for next; nil: nothing.
func (q *settling) advance() (settled uint64, untold bool, next <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.queue) > 0 && next == nil {
		head := &q.queue[0]
		for len(head.left) > 0 && next == nil {
			select {
			case <-head.left[0]:
				head.left = head.left[1:]
			default:
				next = head.left[0]
			}
		}
		if next == nil {
			q.settled, q.untold = head.sequence, true
			q.queue = q.queue[1:]
		}
	}
	untold, q.untold = q.untold, false
	return q.settled, untold, next
}

// acknowledge tells the truth how far this node is clean, in order, and that it is alive.
func (s *Store) acknowledge(ctx context.Context) {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for failing := false; ctx.Err() == nil; {
		settled, untold, next := s.settling.advance()
		if untold {
			if err := s.acknowledgeOnce(ctx, settled); err != nil {
				if !failing {
					s.o.Log.Warn("a change could not be acknowledged; whoever made it is told that connections may still be open", "err", err)
				}
				failing = true
				pause(ctx, tailEvery)
				s.settling.again()
				continue
			}
			failing = false
		}
		select {
		case <-ctx.Done():
		case <-next:
		case <-s.settling.wake:
		case <-beat.C:
			s.settling.again()
		}
	}
}

func (s *Store) acknowledgeOnce(ctx context.Context, sequence uint64) error {
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	sent := s.o.Clock()
	if err := s.o.Truth.Acknowledge(ctx, s.node, sequence, s.keys.Load().Numbers()); err != nil {
		return err
	}
	s.heard.Store(int64(sent))
	return nil
}
