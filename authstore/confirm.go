package authstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Confirmation tells how far a change has got when its method returns. The change itself is durable by then.
type Confirmation struct {
	Sequence    uint64
	Unconfirmed []string      // nodes that have not confirmed that their caches are clean and the connections closed
	Waited      bool          // the nodes' leases have run out: none of them accepts anything that ended
	Stale       time.Duration // how much longer a node that has lost the database may accept it (stale_grace)
}

func (c Confirmation) String() string {
	n := len(c.Unconfirmed)
	nodes := "1 node has"
	if n != 1 {
		nodes = fmt.Sprintf("%d nodes have", n)
	}
	switch {
	case n == 0:
		return "confirmed everywhere"
	case !c.Waited:
		return "written; " + nodes + " not confirmed yet"
	case c.Stale > 0:
		return fmt.Sprintf("written; %s not confirmed, and may go on for up to %v if the database is out of reach (stale_grace)", nodes, c.Stale)
	}
	return "in force everywhere; " + nodes + " not confirmed that open connections are closed"
}

// leaseMargin is added to the lease before a node that is silent counts as one that accepts nothing: clocks drift, and
// a reply under way takes its time.
const leaseMargin = 250 * time.Millisecond

// publish tells the nodes to look at the feed now. It only makes them quicker.
func (a *Accounts) publish(ctx context.Context) {
	if a.o.Cache == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, cacheTime)
	defer cancel()
	a.o.Cache.Publish(ctx)
}

// Unfit says why what was asked for can't be, in words for whoever asked: a name that is none, a label that is too long. Nothing else that
// Accounts fails with may be told to everybody.
type Unfit struct{ Err error }

func (e *Unfit) Error() string { return e.Err.Error() }
func (e *Unfit) Unwrap() error { return e.Err }

func unfit(err error) error { return &Unfit{err} }

// unchanged says of a failed change that it did not happen, where that is known and the error does not say so or better.
func unchanged(err error) error {
	if _, ok := errors.AsType[*ErrMade](err); ok {
		return err
	}
	for _, told := range []error{ErrUncertain, ErrNotFound, ErrNameTaken, ErrTooMany, ErrNotActive, ErrSignedOut, ErrNotAdministrator} {
		if errors.Is(err, told) {
			return err
		}
	}
	const words = "nothing was changed"
	if strings.HasPrefix(err.Error(), words) {
		return err
	}
	return fmt.Errorf(words+": %w", err)
}

// Confirm waits for the nodes after a change of the feed that was written past these methods, in a transaction of authstore/identity's.
func (a *Accounts) Confirm(ctx context.Context, c Change) Confirmation {
	done, _ := a.confirm(ctx, c, nil)
	return done
}

// confirm waits until every node has acknowledged a change, or no node can be answering from before it.
func (a *Accounts) confirm(ctx context.Context, c Change, err error) (Confirmation, error) {
	if err != nil {
		return Confirmation{}, unchanged(err)
	}
	committed := a.o.Clock()
	a.o.Changed()
	a.publish(ctx)
	done := Confirmation{Sequence: c.Sequence, Stale: a.o.StaleGrace}
	for {
		done.Waited = a.o.Clock()-committed >= leaseTime+leaseMargin
		if nodes, err := a.o.Truth.Nodes(ctx); err == nil {
			done.Unconfirmed = nil
			for _, n := range nodes {
				if n.Acknowledged < c.Sequence {
					done.Unconfirmed = append(done.Unconfirmed, n.ID)
				}
			}
			if len(done.Unconfirmed) == 0 {
				return done, nil
			}
		} else if done.Unconfirmed == nil {
			done.Unconfirmed = []string{"unknown: " + err.Error()}
		}
		if done.Waited || ctx.Err() != nil {
			return done, nil
		}
		pause(ctx, 20*time.Millisecond)
	}
}
