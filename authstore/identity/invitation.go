package identity

import (
	"context"
	"crypto/rand"
	"errors"

	"postern/authstore"
)

// Invite makes a link's secret for an account: the last part of SITE/invitation/SECRET. It is of use once. One that was made before is not
// valid any more. authstore.ErrNotFound, ErrAdministrators, ErrVouched.
func (p *People) Invite(ctx context.Context, who authstore.Actor, id authstore.AccountID, purpose Purpose) (secret string, i Invitation, err error) {
	if p.o.Vouched {
		return "", i, ErrVouched
	}
	secret = rand.Text() // 130 bits
	now := p.now()
	_, err = p.o.Truth.Act(ctx, who, id, func(tx Tx) error {
		person, err := tx.Person(ctx)
		if err != nil {
			return err
		}
		if err := p.mayRenew(who, person); err != nil {
			return err
		}
		if p.KeepsPrimary() && person.Primary.Key == 0 { // there is none to ask for
			purpose = Begin
		}
		stored := StoredInvitation{Account: id, Purpose: purpose, Created: now, Expires: now.Add(InvitationFor)}
		if i, err = p.describe(ctx, person, stored); err != nil {
			return err
		}
		if err := tx.SetInvitation(ctx, stored, digestOf(secret)); err != nil {
			return err
		}
		return tx.Event(ctx, "invitation.made", string(purpose))
	})
	if err != nil {
		return "", Invitation{}, err
	}
	return secret, i, nil
}

// describe tells what an invitation will do.
func (p *People) describe(ctx context.Context, of Person, i StoredInvitation) (Invitation, error) {
	d := Invitation{Account: of.ID, Address: of.Names[0], Purpose: i.Purpose, Expires: i.Expires,
		SetsPrimary: p.KeepsPrimary() && i.Purpose == Begin}
	if d.SetsPrimary && of.Primary.Key != 0 {
		active, err := p.o.Accounts.Passwords(ctx, of.ID, false)
		if err != nil {
			return Invitation{}, err
		}
		d.Revokes = len(active)
	}
	return d, nil
}

// Invitation reads what a link is for, without using it up; ErrNoInvitation.
func (p *People) Invitation(ctx context.Context, secret string) (Invitation, error) {
	person, stored, err := p.invited(ctx, secret)
	if err != nil {
		return Invitation{}, err
	}
	return p.describe(ctx, person, stored)
}

// invited finds whom a link invites; ErrNoInvitation.
func (p *People) invited(ctx context.Context, secret string) (Person, StoredInvitation, error) {
	if p.o.Vouched { // one from before
		return Person{}, StoredInvitation{}, ErrNoInvitation
	}
	stored, err := p.o.Truth.InvitationWith(ctx, digestOf(secret))
	if errors.Is(err, authstore.ErrNotFound) || err == nil && !stored.Expires.After(p.now()) {
		return Person{}, stored, ErrNoInvitation
	}
	if err != nil {
		return Person{}, stored, err
	}
	person, err := p.o.Truth.Person(ctx, stored.Account)
	if errors.Is(err, authstore.ErrNotFound) || err == nil && person.Status != authstore.Active {
		return Person{}, stored, ErrNoInvitation
	}
	return person, stored, err
}

// Accept uses a link up: it sets the primary password, or checks the known one where the invitation does not set it, and begins a session
// that AwaitsSetUp. The link is used up by that, and what it takes the place of ends, in one transaction. ErrNoInvitation, ErrWrong, *Weak,
// *TooMany, ErrUnavailable.
func (p *People) Accept(ctx context.Context, v Visitor, secret string, password []byte) (Token, Session, error) {
	if !p.waiting.TryAcquire(1) {
		return "", Session{}, ErrUnavailable
	}
	defer p.waiting.Release(1)
	for range tries {
		person, stored, err := p.invited(ctx, secret)
		if err != nil {
			return "", Session{}, err
		}
		var charges []Charge
		var pr *proof
		if p.KeepsPrimary() && stored.Purpose == Begin {
			if err := p.check(person.Names[0], password); err != nil {
				return "", Session{}, err
			}
			pr = &proof{person: person, first: person.Primary.Key == 0, firstKind: "primary.set", changed: person.Primary.Key != 0}
			pr.hash, err = p.newPrimary(ctx, person.ID, password)
		} else {
			// the link is what a device's cookie is elsewhere: strangers who guess can't make it useless
			if person, charges, err = p.prover(ctx, v, person.ID, "link "+string(digestOf(secret))); err != nil {
				return "", Session{}, err
			}
			pr, err = p.prove(ctx, &person, password, p.hashing)
			if errors.Is(err, ErrWrong) {
				return "", Session{}, errors.Join(err, p.tellRefusal(ctx, v, person.ID))
			}
		}
		if err != nil {
			return "", Session{}, p.giveBack(ctx, charges, err)
		}
		t, s, err := p.accept(ctx, v, digestOf(secret), pr, charges)
		if err == nil {
			return t, s, nil
		}
		if err = p.giveBack(ctx, charges, err); !errors.Is(err, errRaced) {
			return "", Session{}, err
		}
	}
	return "", Session{}, ErrUnavailable
}

func (p *People) accept(ctx context.Context, v Visitor, digest []byte, pr *proof, charges []Charge) (t Token, s Session, err error) {
	c, err := p.o.Truth.Act(ctx, v.Actor(), pr.person.ID, func(tx Tx) error {
		stored, err := tx.InvitationWith(ctx, digest)
		if errors.Is(err, authstore.ErrNotFound) || err == nil && !stored.Expires.After(p.now()) { // used by somebody else meanwhile
			return ErrNoInvitation
		}
		if err != nil {
			return err
		}
		if err := tx.Event(ctx, "invitation.accepted", string(stored.Purpose)); err != nil {
			return err
		}
		if err := pr.settle(ctx, tx, p.now()); err != nil {
			return err
		}
		if _, err := tx.EndSessions(ctx, 0); err != nil {
			return err
		}
		if err := tx.RemoveFactors(ctx); err != nil {
			return err
		}
		if err := tx.RemoveInvitation(ctx); err != nil {
			return err
		}
		if err := tx.Refund(ctx, charges); err != nil {
			return err
		}
		now, err := tx.Person(ctx)
		if err != nil {
			return err
		}
		t, s, err = p.newSession(ctx, tx, v, now, AwaitsSetUp, "invitation", Claims{})
		return err
	})
	if err != nil {
		return "", Session{}, err
	}
	if c.Sequence != 0 {
		p.o.Accounts.Confirm(ctx, c)
	}
	return t, s, nil
}
