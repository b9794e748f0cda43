package identity_test

import (
	"context"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
)

// hooked is a truth in which something happens right before the next act: after all was checked, and before it is written.
type hooked struct {
	identity.Truth
	before func()
}

func (h *hooked) Act(ctx context.Context, who authstore.Actor, id authstore.AccountID, do func(identity.Tx) error) (authstore.Change, error) {
	if before := h.before; before != nil {
		h.before = nil
		before()
	}
	return h.Truth.Act(ctx, who, id, do)
}

// What was true when a password, code or answer was checked is looked at again where it counts.
func TestWhatHappensMeanwhile(t *testing.T) {
	t.Parallel()
	h := &hooked{}
	p := newPlace(t, func(o *identity.Options) { h.Truth, o.Truth = o.Truth, h })
	k, bob := newKey(), "bob@example.test"
	in, suspended := p.signedUp(alice), p.addKey(p.signedUp(bob), k)
	codes, err := p.RenewRecoveryCodes(ctx, visitor, in.Session)
	if err != nil {
		t.Fatal(err)
	}
	suspend := func() { p.accounts.Suspend(ctx, suspended.Account) }
	p.pass(time.Minute)
	half, other := p.signIn(alice, good), p.signIn(alice, good)
	var bobs session
	c := p.ask(nil)
	answer := k.answer(t, c)
	for what, tt := range map[string]struct {
		before func()
		do     func() error
		want   error
	}{
		"password, and the account is suspended": {suspend, func() error { _, _, err := p.SignIn(ctx, visitor, bob, []byte(good)); return err }, identity.ErrWrong},
		"code, and the account is suspended":     {suspend, func() error { _, _, err := p.GiveCode(ctx, visitor, bobs.Session, p.code(suspended.seed)); return err }, identity.ErrNoSession},
		"passkey, and the account is suspended":  {suspend, func() error { _, _, err := p.GivePasskey(ctx, visitor, nil, c.State, answer); return err }, identity.ErrWrongCode},
		"code, and the session ends": {func() { p.SignOut(ctx, visitor, half.Session) },
			func() error { _, _, err := p.GiveCode(ctx, visitor, half.Session, p.code(in.seed)); return err }, identity.ErrNoSession},
		"recovery code, and they are renewed": {func() { codes, err = p.RenewRecoveryCodes(ctx, visitor, p.fresh(in)) },
			func() error { _, _, err := p.GiveCode(ctx, visitor, other.Session, codes[0]); return err }, identity.ErrWrongCode},
	} {
		bobs = p.signIn(bob, good)
		h.before = tt.before
		want(t, what, tt.do(), tt.want)
		h.before = nil
		if _, err := p.accounts.Resume(ctx, suspended.Account); err != nil {
			t.Fatal(err)
		}
	}
	if f, err := p.Factors(ctx, in.Session); err != nil || f.Recovery != 10 {
		t.Errorf("recovery codes that are left: %d, %v", f.Recovery, err)
	}
}

// fresh is the session as it is after a step-up.
func (p *place) fresh(s session) identity.Session { return p.stepUp(s.Session, s.seed) }

// An account that has a factor is set up, whatever session still awaits it.
func TestASetUpThatIsDone(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	s := p.invited(p.account(alice).ID, identity.Begin, good)
	e, err := p.EnrolTOTP(ctx, s.Session)
	if err != nil {
		t.Fatal(err)
	}
	p.fill(s.Account, 1)
	_, _, err = p.AddTOTP(ctx, visitor, s.Session, e.State, p.code(e.Key), "Mine")
	want(t, "AddTOTP", err, identity.ErrStepUp)
}

// A link that somebody else uses meanwhile, or that runs out, opens nothing, and the right primary password counts as no guess.
func TestALinkThatIsGoneMeanwhile(t *testing.T) {
	t.Parallel()
	h := &hooked{}
	p := newPlace(t, func(o *identity.Options) { h.Truth, o.Truth = o.Truth, h })
	id := p.signedUp(alice).Account
	for range 12 { // ten wrong ones would be the most
		link, _, err := p.Invite(ctx, tester, id, identity.NewFactor)
		if err != nil {
			t.Fatal(err)
		}
		h.before = func() {
			h.Truth.Act(ctx, tester, id, func(tx identity.Tx) error { return tx.RemoveInvitation(ctx) })
		}
		_, _, err = p.Accept(ctx, visitor, link, []byte(good))
		want(t, "used meanwhile", err, identity.ErrNoInvitation)
	}
	link, _, _ := p.Invite(ctx, tester, id, identity.NewFactor)
	h.before = func() { p.pass(identity.InvitationFor) }
	_, _, err := p.Accept(ctx, visitor, link, []byte(good))
	want(t, "run out meanwhile", err, identity.ErrNoInvitation)
}

// A primary password that was right when it was checked opens nothing once another has taken its place.
func TestAPrimaryThatIsChangedMeanwhile(t *testing.T) {
	t.Parallel()
	h := &hooked{}
	p := newPlace(t, func(o *identity.Options) { h.Truth, o.Truth = o.Truth, h })
	in := p.signedUp(alice)
	h.before = func() {
		if _, _, _, err := p.ChangePrimary(ctx, visitor, in.Session, []byte(good), []byte(better)); err != nil {
			t.Error(err)
		}
	}
	_, _, err := p.SignIn(ctx, visitor, alice, []byte(good))
	want(t, "SignIn", err, identity.ErrWrong)
}
