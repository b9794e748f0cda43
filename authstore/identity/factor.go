package identity

import (
	"context"
	"errors"
	"slices"
	"strings"
	"unicode"

	"postern/authstore"
)

// maxFactors bounds an account's second factors, and with them what a wrong code costs.
const maxFactors = 20

// Factors lists the account's second factors.
func (p *People) Factors(ctx context.Context, s Session) (Factors, error) {
	s, err := p.in(ctx, p.o.Truth, s, AwaitsFactor, AwaitsSetUp, SignedIn)
	if err != nil {
		return Factors{}, err
	}
	person, err := p.o.Truth.Person(ctx, s.Account)
	return factorsOf(person), err
}

func factorsOf(of Person) Factors {
	f := Factors{Recovery: len(of.Recovery)}
	for _, stored := range of.Factors {
		f.List = append(f.List, stored.Factor)
	}
	return f
}

// mayAdd reads a session that may add a factor: a fresh one, or one that awaits the set-up, as long as nobody else has done that.
func (p *People) mayAdd(ctx context.Context, from numbered, s Session) (Session, error) {
	s, err := p.in(ctx, from, s, AwaitsSetUp, SignedIn)
	if err == nil && s.Stage == SignedIn && !p.Fresh(s) {
		return Session{}, ErrStepUp
	}
	return s, err
}

// add adds a factor for a session that may. An awaited set-up is then done, and others that awaited it end: whoever knows the primary
// password alone must not add a factor beside it.
func (p *People) add(ctx context.Context, v Visitor, s Session, once spent, f StoredFactor, secret []byte) (Token, Session, error) {
	var err error
	if f.Label, err = authstore.CleanLabel(f.Label); err != nil {
		return "", Session{}, err
	}
	key, err := p.o.Accounts.UsableKey(ctx)
	if err != nil {
		return "", Session{}, err
	}
	var t Token
	_, err = p.o.Truth.Act(ctx, v.Actor(), s.Account, func(tx Tx) error {
		if s, err = p.mayAdd(ctx, tx, s); err != nil {
			return err
		}
		person, err := tx.Person(ctx)
		switch {
		case err != nil:
			return err
		case s.Stage == AwaitsSetUp && len(person.Factors) > 0:
			return ErrStepUp
		case len(person.Factors) >= maxFactors:
			return ErrManyFactors
		}
		if err := once.spend(ctx, tx); err != nil {
			return err
		}
		if _, err := tx.AddFactor(ctx, f, func(id FactorID) (Sealed, error) {
			return p.sealWith(key, secret, factorPlace(s.Account, id))
		}); err != nil {
			return err
		}
		if err := tx.Event(ctx, "factor.added", f.Label); err != nil {
			return err
		}
		if s.Stage == AwaitsSetUp {
			if _, err := tx.EndSessions(ctx, s.ID); err != nil {
				return err
			}
			t, err = p.advance(ctx, tx, v, &s, string(f.Kind))
			return err
		}
		t, err = p.renew(ctx, tx, &s)
		return err
	})
	if err != nil {
		return "", Session{}, err
	}
	return t, s, nil
}

// RenameFactor gives a factor another label; authstore.ErrLabel, authstore.ErrNotFound.
func (p *People) RenameFactor(ctx context.Context, v Visitor, s Session, id FactorID, label string) error {
	label, err := authstore.CleanLabel(label)
	if err != nil {
		return err
	}
	_, err = p.o.Truth.Act(ctx, v.Actor(), s.Account, func(tx Tx) error {
		if _, err := p.in(ctx, tx, s, SignedIn); err != nil {
			return err
		}
		if err := tx.RenameFactor(ctx, id, label); err != nil {
			return err
		}
		return tx.Event(ctx, "factor.renamed", label)
	})
	return err
}

// RemoveFactor removes a second factor; ErrStepUp, ErrLastFactor, authstore.ErrNotFound.
func (p *People) RemoveFactor(ctx context.Context, v Visitor, s Session, id FactorID) error {
	_, err := p.o.Truth.Act(ctx, v.Actor(), s.Account, func(tx Tx) error {
		if _, err := p.inFresh(ctx, tx, s); err != nil {
			return err
		}
		person, err := tx.Person(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(person.Factors, func(f StoredFactor) bool { return f.ID == id })
		switch {
		case i < 0:
			return authstore.ErrNotFound
		case len(person.Factors) == 1: // recovery codes are no factor to live on
			return ErrLastFactor
		}
		if err := tx.RemoveFactor(ctx, id); err != nil {
			return err
		}
		return tx.Event(ctx, "factor.removed", person.Factors[i].Label)
	})
	return err
}

// GiveCode takes a TOTP or a recovery code, told apart by their shapes, for a session that awaits its factor or needs a fresh one. The
// token that it returns takes the place of the old one. ErrWrongCode, *TooMany.
func (p *People) GiveCode(ctx context.Context, v Visitor, s Session, code string) (Token, Session, error) {
	s, err := p.in(ctx, p.o.Truth, s, AwaitsFactor, SignedIn)
	if err != nil {
		return "", Session{}, err
	}
	give, limit, code := p.shape(code)
	if give == nil {
		return "", Session{}, ErrWrongCode
	}
	charges := p.factorCharges(limit, v, s.Account)
	if err := p.take(ctx, charges...); err != nil {
		return "", Session{}, err
	}
	person, err := p.o.Truth.Person(ctx, s.Account)
	if err != nil {
		return "", Session{}, p.giveBack(ctx, charges, err)
	}
	t, next, err := give(ctx, v, s, person, code, charges)
	if errors.Is(err, ErrWrongCode) {
		err = errors.Join(err, p.tellFactor(ctx, v, s, limit.name))
	}
	if err != nil {
		return "", Session{}, p.giveBack(ctx, charges, err)
	}
	return t, next, nil
}

// tellFactor writes into the account's history that a second factor was refused.
func (p *People) tellFactor(ctx context.Context, v Visitor, s Session, which string) error {
	kind := "portal.sign_in_refused"
	if s.Stage == AwaitsFactor && p.knownDevice(v.Device, s.Account) == "" {
		kind = authstore.KindFactorRefused
	}
	return p.tell(ctx, v, s.Account, kind, which)
}

// giver judges one kind of code. It takes the charges back where the code is right; otherwise that is the caller's affair.
type giver func(ctx context.Context, v Visitor, s Session, of Person, code string, charges []Charge) (Token, Session, error)

// shape tells by its shape what a code is, and gives it as it is compared. Blanks, dashes and capitals are forgiven.
func (p *People) shape(typed string) (giver, limit, string) {
	if len(typed) > 64 {
		return nil, limit{}, ""
	}
	code := strings.Map(func(r rune) rune {
		if r == '-' || unicode.IsSpace(r) {
			return -1
		}
		return r
	}, typed)
	if len(code) == totpDigits && strings.Trim(code, "0123456789") == "" {
		return p.giveTOTP, perCode, code
	}
	if code := canonicalRecovery(code); code != "" {
		return p.giveRecovery, perRecovery, code
	}
	return nil, limit{}, ""
}
