package authstore

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// readTime bounds one read of the truth. It is shorter than the time that a writer waits for nodes, so that no read from
// before a change is still under way when the change is confirmed.
const readTime = leaseTime

// fromL1 returns a snapshot of the process that may be used now, or nil.
func (s *Store) fromL1(name string) *found {
	began := time.Now()
	f := s.l1.get(name, s.o.Clock())
	if f == nil || !s.history.vouches(f.Account, f.at) {
		return nil
	}
	s.o.Observe("l1", time.Since(began))
	return f
}

// Owner tells whose a login name is; zero: nobody's. It answers from the caches as Verify does.
func (s *Store) Owner(ctx context.Context, typed string) (AccountID, error) {
	name, err := s.o.Names.Canonical(typed)
	if err != nil {
		return 0, nil // nobody can have it
	}
	if f := s.fromL1(name); f != nil {
		return f.Account, nil
	}
	f, err := s.load(ctx, name)
	if err != nil {
		return 0, err
	}
	return f.Account, nil
}

// load reads a snapshot from beyond the process: from the shared cache, else from the truth.
func (s *Store) load(ctx context.Context, name string) (*found, error) {
	began := time.Now()
	if f := s.fromCache(ctx, name); f != nil {
		s.l1.put(name, f, s.o.Clock())
		s.o.Observe("redis", time.Since(began))
		return f, nil
	}
	const tries = 4
	for range tries {
		began = time.Now()
		f, err := s.readShared(ctx, name)
		if err != nil {
			return nil, err
		}
		if s.history.overtaken(f.Account, f.at) { // it was read before a change that is confirmed already
			continue
		}
		s.o.Observe("sql", time.Since(began))
		s.l1.put(name, f, s.o.Clock())
		s.share(name, f)
		return f, nil
	}
	return nil, errors.New("the account changes faster than it can be read")
}

// readShared reads the truth. Equal reads at one time share one.
func (s *Store) readShared(ctx context.Context, name string) (*found, error) {
	result := s.loads.DoChan(name, func() (any, error) {
		return s.readTruth(context.WithoutCancel(ctx), name) // it is not this caller's alone
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*found), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// readTruth reads the truth, when its turn comes.
func (s *Store) readTruth(ctx context.Context, name string) (*found, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	if err := s.reads.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("too many reads wait for the database: %w", err)
	}
	defer s.reads.Release(1)
	generation := s.history.position().generation // before reading: a history that is replaced meanwhile makes this stamp worthless
	snap, err := s.o.Truth.Load(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read a snapshot: %w", err)
	}
	return newFound(snap, stamp{generation, snap.Sequence}), nil
}
