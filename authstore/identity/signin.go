package identity

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"

	"postern/authstore"
)

// tries bounds how often an attempt is made again because the account's primary password was changed meanwhile.
const tries = 3

// SignIn checks a primary password and begins a session: AwaitsFactor, or AwaitsSetUp where there is no second factor yet. ErrWrong,
// *TooMany, ErrUnavailable, ErrNeedsInvitation, ErrVouched. Names that nobody has cost the same time.
func (p *People) SignIn(ctx context.Context, v Visitor, address string, password []byte) (Token, Session, error) {
	if p.o.Vouched {
		return "", Session{}, ErrVouched
	}
	began := time.Now()
	person, name, err := p.find(ctx, address)
	if err != nil {
		return "", Session{}, err
	}
	device := ""
	if person != nil {
		device = p.knownDevice(v.Device, person.ID)
	}
	if device == "" {
		if !p.waiting.TryAcquire(1) {
			return "", Session{}, ErrUnavailable
		}
		defer p.waiting.Release(1)
	}
	t, s, err := p.signIn(ctx, v, person, name, device, password)
	if errors.Is(err, ErrWrong) || errors.Is(err, ErrUnavailable) {
		return "", Session{}, p.answerLater(ctx, began, err)
	}
	return t, s, err
}

// answerLater holds a refusal back until its time: the delay after the attempt began, or the next multiple of it where deciding took
// longer.
func (p *People) answerLater(ctx context.Context, began time.Time, err error) error {
	if p.o.RefusalDelay < 0 {
		return err
	}
	late := time.Since(began).Truncate(p.o.RefusalDelay)
	timer := time.NewTimer(time.Until(began.Add(late + p.o.RefusalDelay + rand.N(p.o.RefusalDelay/10+1))))
	defer timer.Stop()
	select {
	case <-timer.C:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *People) signIn(ctx context.Context, v Visitor, person *Person, name, device string, password []byte) (Token, Session, error) {
	charges := p.signInCharges(v, name, device)
	if err := p.take(ctx, charges...); err != nil {
		return "", Session{}, err
	}
	queue := p.hashing
	if device == "" {
		queue = p.strangers
	}
	t, s, err := p.begin(ctx, v, person, name, password, queue, charges)
	if errors.Is(err, ErrWrong) && person != nil {
		err = errors.Join(err, p.tellRefusal(ctx, v, person.ID))
	}
	if err != nil && !errors.Is(err, ErrNeedsInvitation) { // which took them back itself
		err = p.giveBack(ctx, charges, err)
	}
	return t, s, err
}

// find finds who an address as typed belongs to; nil: nobody. The name is what attempts are counted under.
func (p *People) find(ctx context.Context, address string) (*Person, string, error) {
	name, err := p.o.Names.Canonical(address)
	if err != nil {
		return nil, strings.ToLower(address[:min(len(address), maxPrimary)]), nil
	}
	person, err := p.o.Truth.PersonNamed(ctx, name)
	if errors.Is(err, authstore.ErrNotFound) {
		return nil, name, nil
	}
	return &person, name, err
}

// begin proves a primary password and begins a session with it. A newcomer has no person yet, but a name.
func (p *People) begin(ctx context.Context, v Visitor, person *Person, name string, password []byte, queue *semaphore.Weighted, charges []Charge) (t Token, s Session, err error) {
	for range tries {
		var pr *proof
		if person == nil && !p.KeepsPrimary() && p.mayProvision(name) {
			pr, err = p.proveNewcomer(ctx, v, name, password, queue)
		} else {
			pr, err = p.prove(ctx, person, password, queue)
		}
		if err != nil {
			return "", Session{}, err
		}
		person = &pr.person
		if len(pr.person.Factors) > 0 {
			if err := p.take(ctx, p.factorCharges(perHalf, v, person.ID)...); err != nil {
				return "", Session{}, err
			}
		}
		var c authstore.Change
		needsInvitation := false
		c, err = p.o.Truth.Act(ctx, v.Actor(), person.ID, func(tx Tx) error {
			if err := pr.settle(ctx, tx, p.now()); err != nil {
				return err
			}
			now, err := tx.Person(ctx)
			if err != nil {
				return err
			}
			if err := tx.Refund(ctx, charges); err != nil {
				return err
			}
			if needsInvitation = (p.o.InviteOnly || p.KeepsPrimary()) && len(now.Factors) == 0; needsInvitation {
				return nil
			}
			stage := AwaitsFactor
			if len(now.Factors) == 0 {
				stage = AwaitsSetUp
			}
			t, s, err = p.newSession(ctx, tx, v, now, stage, "password", pr.claims)
			return err
		})
		if errors.Is(err, errRaced) {
			again, err := p.o.Truth.Person(ctx, person.ID)
			if err != nil {
				return "", Session{}, err
			}
			person = &again
			continue
		}
		if err != nil {
			return "", Session{}, err
		}
		if c.Sequence != 0 {
			p.o.Accounts.Confirm(ctx, c)
		}
		if needsInvitation {
			return "", Session{}, ErrNeedsInvitation
		}
		return t, s, nil
	}
	return "", Session{}, ErrUnavailable
}

// tellRefusal writes into the account's history that somebody tried a wrong primary password, as long as that does not flood it.
func (p *People) tellRefusal(ctx context.Context, v Visitor, id authstore.AccountID) error {
	var many *TooMany
	if err := p.take(ctx, p.charge(perRefusal, number(id))); errors.As(err, &many) {
		return nil
	} else if err != nil {
		return err
	}
	return p.tell(ctx, v, id, "portal.sign_in_refused", "password")
}

// tell appends a line of history.
func (p *People) tell(ctx context.Context, v Visitor, id authstore.AccountID, kind, detail string) error {
	_, err := p.o.Truth.Act(ctx, v.Actor(), id, func(tx Tx) error { return tx.Event(ctx, kind, detail) })
	return err
}
