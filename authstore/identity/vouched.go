package identity

import (
	"context"
	"errors"
	"strconv"
	"time"

	"postern/authstore"
)

// Errors of people whom another server vouches for, besides ErrTied and ErrNobody.
var (
	// ErrSuspended: the account is there, and suspended.
	ErrSuspended = errors.New("the account is suspended")
	// ErrFactorThere: the account's second factor is the one at the server that vouches, which does not say that it was given.
	ErrFactorThere = errors.New("no second factor was given there")
	// ErrNotAgain: the server that vouches does not say that the second factor was given again just now.
	ErrNotAgain = errors.New("the second factor was not given again there")
)

const (
	dialogueFor = 10 * time.Minute
	// clocksDiffer is how far the clock of the server that vouches may be off.
	clocksDiffer = time.Minute
)

// The kinds of states of a dialogue with the server that vouches.
const (
	stateVouched = "vouched" // somebody signs in
	stateAgain   = "again"   // a session's person gives a fresh second factor
)

// SealDialogue seals what a dialogue with the server that vouches for people knows of its first step, for a cookie; s is the session for
// which a fresh second factor is given there, nil where somebody signs in.
func (p *People) SealDialogue(ctx context.Context, s *Session, data any) (string, error) {
	kind := stateVouched
	if s != nil {
		kind = stateAgain
	}
	return p.sealState(ctx, kind, s, data, dialogueFor)
}

// OpenDialogue opens what SealDialogue sealed for the same session, and uses it up. Each costs the visitor's network, until SignInFrom or
// GiveClaims take it back. ErrWrongCode, *TooMany.
func (p *People) OpenDialogue(ctx context.Context, v Visitor, s *Session, sealed string, data any) error {
	kind := stateVouched
	if s != nil {
		kind = stateAgain
	}
	once, err := p.openState(kind, s, sealed, data)
	if err != nil {
		return err
	}
	if err := p.take(ctx, p.dialogueCharges(v)...); err != nil {
		return err
	}
	_, err = p.o.Truth.Act(ctx, v.Actor(), 0, func(tx Tx) error { return once.spend(ctx, tx) }) // whose it is, nobody knows yet
	return err
}

// ExcuseDialogue takes back what OpenDialogue charged, where it is not the visitor's fault that it led to nothing.
func (p *People) ExcuseDialogue(ctx context.Context, v Visitor) error {
	return p.o.Truth.Refund(ctx, p.dialogueCharges(v))
}

func (p *People) dialogueCharges(v Visitor) []Charge {
	return []Charge{p.charge(perDialogue, network(v))}
}

// SignInFrom begins a session for somebody whom the server that vouches has named: SignedIn where his second factor there counts, otherwise
// as with a primary password. The account is the one that is bound to him; else one that has an address of his and is bound to nobody
// there, which is bound by that; else it is made, where Options.Provision says so. ErrNobody, ErrTied, ErrSuspended, ErrFactorThere, *TooMany.
func (p *People) SignInFrom(ctx context.Context, v Visitor, c Claims) (Token, Session, error) {
	if !p.o.Vouched || c.Issuer == "" || c.Subject == "" {
		return "", Session{}, ErrNobody
	}
	person, err := p.whom(ctx, v, c)
	if err != nil {
		return "", Session{}, err
	}
	if len(person.Factors) > 0 && !c.Factor {
		if err := p.take(ctx, p.factorCharges(perHalf, v, person.ID)...); err != nil {
			return "", Session{}, err
		}
	}
	var t Token
	var s Session
	change, err := p.o.Truth.Act(ctx, v.Actor(), person.ID, func(tx Tx) error {
		of, err := tx.Person(ctx)
		if errors.Is(err, authstore.ErrNotFound) { // removed a moment ago
			return ErrNobody
		}
		if err != nil {
			return err
		}
		stage, method, err := vouchedStage(of, c)
		if err != nil {
			return err
		}
		changedThere, err := heed(ctx, tx, of, c, p.now())
		if _, bound := of.tied(c.Issuer); err == nil && !bound {
			err = tx.Event(ctx, "portal.first_vouched", "")
		}
		if err == nil && changedThere {
			_, err = changed(ctx, tx, 0)
		}
		if err != nil {
			return err
		}
		if err := tx.Refund(ctx, p.dialogueCharges(v)); err != nil {
			return err
		}
		t, s, err = p.newSession(ctx, tx, v, of, stage, method, c)
		return err
	})
	if err != nil {
		return "", Session{}, err
	}
	if change.Sequence != 0 {
		p.o.Accounts.Confirm(ctx, change)
	}
	return t, s, nil
}

// vouchedStage is how far claims bring a person; ErrSuspended, ErrFactorThere.
func vouchedStage(of Person, c Claims) (stage Stage, method string, err error) {
	tie, _ := of.tied(c.Issuer)
	switch {
	case of.Status != authstore.Active:
		return 0, "", ErrSuspended
	case c.Factor:
		return SignedIn, "provider factor", nil
	case len(of.Factors) > 0:
		return AwaitsFactor, "provider", nil
	case tie.Factor: // or whoever got hold of the password there would set up a second factor of his own here
		return 0, "", ErrFactorThere
	}
	return AwaitsSetUp, "provider", nil
}

// whom finds the account of somebody whom the server that vouches has named, or makes it; ErrNobody.
func (p *People) whom(ctx context.Context, v Visitor, c Claims) (Person, error) {
	of, err := p.o.Truth.PersonTied(ctx, c.Issuer, c.Subject)
	if !errors.Is(err, authstore.ErrNotFound) {
		return of, err
	}
	first := ""
	for i, address := range c.Addresses {
		name, err := p.told(address)
		if err != nil {
			continue
		}
		if i == 0 {
			first = name
		}
		of, err := p.o.Truth.PersonNamed(ctx, name)
		_, bound := of.tied(c.Issuer)
		if err == nil && bound && i > 0 { // an address that he shares with somebody who came before
			continue
		}
		if !errors.Is(err, authstore.ErrNotFound) {
			return of, err
		}
	}
	if first == "" {
		return Person{}, ErrNobody
	}
	return p.provision(ctx, v.Actor(), first, c)
}

// GiveClaims takes for a session a second factor that its person gave again at the server that vouches, since a dialogue began. The token
// takes the place of the old one. ErrTied where it was somebody else, ErrNotAgain.
func (p *People) GiveClaims(ctx context.Context, v Visitor, s Session, c Claims, since time.Time) (t Token, next Session, err error) {
	now := p.now()
	_, err = p.o.Truth.Act(ctx, v.Actor(), s.Account, func(tx Tx) error {
		if next, err = p.in(ctx, tx, s, SignedIn); err != nil {
			return err
		}
		of, err := tx.Person(ctx)
		if err != nil {
			return err
		}
		tie, bound := of.tied(c.Issuer)
		switch {
		case !p.o.Vouched || !bound || c.Subject == "" || tie.Subject != c.Subject || next.Issuer != c.Issuer || next.Subject != c.Subject:
			return ErrTied
		case !c.Factor || c.At.Before(since.Add(-clocksDiffer)) || c.At.After(now.Add(clocksDiffer)):
			return ErrNotAgain
		}
		if _, err := heed(ctx, tx, of, c, now); err != nil {
			return err
		}
		if err := tx.Refund(ctx, p.dialogueCharges(v)); err != nil {
			return err
		}
		next.SID = c.SID
		t, err = p.advance(ctx, tx, v, &next, "")
		return err
	})
	return t, next, err
}

// Ending is what the server that vouches says of sessions that have ended there (OpenID Connect Back-Channel Logout 1.0).
type Ending struct {
	Issuer, Subject, SID string    // of these, Subject or SID may be empty
	ID                   string    // of what says it, which counts once
	Until                time.Time // when it would be refused anyway
}

// MayEnd charges a visitor for what may be an Ending, before it is looked at; *TooMany.
func (p *People) MayEnd(ctx context.Context, v Visitor) error {
	return p.take(ctx, p.endingCharges(v)...)
}

func (p *People) endingCharges(v Visitor) []Charge {
	return []Charge{p.charge(perEnding, network(v))}
}

// End ends the sessions here that began with sessions which have ended there, and counts those that were signed in. ErrWrongCode: that was said before.
func (p *People) End(ctx context.Context, v Visitor, e Ending) (n int, err error) {
	list, err := p.o.Truth.SessionsFrom(ctx, e.Issuer, e.Subject, e.SID)
	if err != nil {
		return 0, err
	}
	of := make(map[authstore.AccountID][]SessionID)
	for _, s := range list {
		of[s.Account] = append(of[s.Account], s.ID)
	}
	if len(of) == 0 {
		of[0] = nil // nobody's: it counts as said nevertheless
	}
	once := spent{digestOf("logout\x00" + e.Issuer + "\x00" + e.ID), e.Until.Add(clocksDiffer)}
	who := v.Actor()
	who.Name = "provider"
	said := false
	for id, sessions := range of {
		ended := 0
		_, err := p.o.Truth.Act(ctx, who, id, func(tx Tx) error {
			ended = 0
			if !said {
				if err := once.spend(ctx, tx); err != nil {
					return err
				}
				if err := tx.Refund(ctx, p.endingCharges(v)); err != nil {
					return err
				}
			}
			if ended, err = p.endEach(ctx, tx, sessions); err != nil || ended == 0 {
				return err
			}
			return tx.Event(ctx, "portal.ended_there", strconv.Itoa(ended))
		})
		if err != nil {
			return n, err
		}
		said = true
		n += ended
	}
	return n, nil
}

// endEach ends sessions of an account and counts those that were signed in.
func (p *People) endEach(ctx context.Context, tx Tx, list []SessionID) (n int, err error) {
	for _, id := range list {
		s, err := tx.SessionNumbered(ctx, id)
		if errors.Is(err, authstore.ErrNotFound) {
			continue
		}
		if err == nil {
			err = tx.EndSession(ctx, id)
		}
		if err != nil {
			return n, err
		}
		if s.Stage == SignedIn && p.alive(s) {
			n++
		}
	}
	return n, nil
}
