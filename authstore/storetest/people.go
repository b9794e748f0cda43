package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
)

// PeopleTruth is a store that keeps accounts and who signs in with them.
type PeopleTruth interface {
	authstore.Truth
	identity.Truth
	authstore.UpstreamStore
}

// RunPeople runs the suite that every identity.Truth passes. open gives an empty store; now tells and moves its clock.
func RunPeople(t *testing.T, open func(t *testing.T, now func() time.Time) PeopleTruth) {
	for name, test := range map[string]func(*testing.T, *people){
		"Person":      testPerson,
		"Sessions":    testSessions,
		"Factors":     testFactors,
		"Recovery":    testRecovery,
		"Invitation":  testInvitation,
		"Budget":      testBudget,
		"Act":         testAct,
		"SignedOut":   testSignedOut,
		"Administers": testAdministers,
		"Ties":        testTies,
		"From":        testFrom,
		"Lease":       testLease,
		"Tied":        testTied,
		"Gone":        testGone,
		"Suspended":   testSuspended,
		"Reseal":      testReseal,
		"Upstream":    testUpstream,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &people{fixture: fixture{now: time.Now().UTC().Truncate(time.Second)}, t: t}
			f.truth = open(t, f.Now)
			f.Truth = f.truth
			t.Cleanup(func() { f.Close() })
			f.alice = f.account(t, "alice@example.test").ID
			f.bob = f.account(t, "bob@example.test").ID
			test(t, f)
		})
	}
}

type people struct {
	fixture
	t          *testing.T
	truth      PeopleTruth
	alice, bob authstore.AccountID
}

func (f *people) act(id authstore.AccountID, do func(context.Context, identity.Tx) error) authstore.Change {
	f.t.Helper()
	ctx := context.Background()
	c, err := f.truth.Act(ctx, eve, id, func(tx identity.Tx) error { return do(ctx, tx) })
	if err != nil {
		f.t.Fatalf("Act: %v", err)
	}
	return c
}

func (f *people) person(id authstore.AccountID) identity.Person {
	f.t.Helper()
	p, err := f.truth.Person(context.Background(), id)
	if err != nil {
		f.t.Fatalf("Person(%d): %v", id, err)
	}
	return p
}

func testPerson(t *testing.T, f *people) {
	ctx := t.Context()
	if _, err := f.AddName(ctx, tester, f.alice, "al@example.test"); err != nil {
		t.Fatal(err)
	}
	p := f.person(f.alice)
	if p.ID != f.alice || p.PublicID != "idalice@example.test" || p.Status != authstore.Active || p.Primary.Key != 0 ||
		fmt.Sprint(p.Names) != "[alice@example.test al@example.test]" || len(p.Factors)+len(p.Recovery) != 0 {
		t.Errorf("Person = %+v", p)
	}
	f.act(f.alice, func(ctx context.Context, tx identity.Tx) error {
		return errors.Join(tx.SetPrimary(ctx, identity.Sealed{Key: 3, Value: []byte("one")}, f.Now()),
			tx.SetPrimary(ctx, identity.Sealed{Key: 4, Value: []byte("two")}, f.Now()), tx.SetPreferences(ctx, "de", "Europe/Berlin"))
	})
	for how, find := range map[string]func() (identity.Person, error){
		"alias":  func() (identity.Person, error) { return f.truth.PersonNamed(ctx, "al@example.test") },
		"handle": func() (identity.Person, error) { return f.truth.PersonWithHandle(ctx, "idalice@example.test") },
	} {
		if p, err := find(); err != nil || p.ID != f.alice || p.Primary.Key != 4 || string(p.Primary.Value) != "two" || p.Language != "de" || p.Zone != "Europe/Berlin" {
			t.Errorf("by %s: %+v, %v", how, p, err)
		}
	}
	f.act(f.alice, func(ctx context.Context, tx identity.Tx) error {
		return errors.Join(tx.ForgetPrimary(ctx), tx.ForgetPrimary(ctx)) // also what is not there
	})
	if p := f.person(f.alice); p.Primary.Key != 0 || len(p.Primary.Value) != 0 || len(p.Names) != 2 {
		t.Errorf("without its primary password: %+v", p)
	}
	for how, find := range map[string]func() (identity.Person, error){
		"number": func() (identity.Person, error) { return f.truth.Person(ctx, 99) },
		"name":   func() (identity.Person, error) { return f.truth.PersonNamed(ctx, "nobody@example.test") },
		"handle": func() (identity.Person, error) { return f.truth.PersonWithHandle(ctx, "") },
	} {
		if _, err := find(); !errors.Is(err, authstore.ErrNotFound) {
			t.Errorf("nobody, by %s: %v", how, err)
		}
	}
}

func (f *people) session(id authstore.AccountID, stage identity.Stage, digest string) identity.SessionID {
	f.t.Helper()
	var made identity.SessionID
	f.act(id, func(ctx context.Context, tx identity.Tx) (err error) {
		s := identity.Session{Stage: stage, Began: f.Now(), Seen: f.Now(), Method: "password", Client: netip.MustParseAddr("2001:db8::7"), Agent: "Browser/1"}
		made, err = tx.AddSession(ctx, s, []byte(digest), 3)
		return err
	})
	return made
}

func testSessions(t *testing.T, f *people) {
	ctx := t.Context()
	one := f.session(f.alice, identity.AwaitsFactor, "one")
	s, err := f.truth.SessionWith(ctx, []byte("one"))
	if err != nil || s.ID != one || s.Account != f.alice || s.Address != "alice@example.test" ||
		s.Stage != identity.AwaitsFactor || !s.Began.Equal(f.Now()) || !s.FactorAt.IsZero() || s.Client.String() != "2001:db8::7" || s.Agent != "Browser/1" || s.Status != authstore.Active {
		t.Fatalf("SessionWith = %+v, %v", s, err)
	}
	began := f.Now()
	f.pass(time.Minute)
	s.Stage, s.FactorAt, s.Seen, s.Method = identity.SignedIn, f.Now(), f.Now(), "password totp"
	f.act(f.alice, func(ctx context.Context, tx identity.Tx) error {
		return tx.ChangeSession(ctx, s.Session, []byte("new"))
	})
	if _, err := f.truth.SessionWith(ctx, []byte("one")); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("the old token: %v", err)
	}
	if got, err := f.truth.SessionWith(ctx, []byte("new")); err != nil || got.Stage != identity.SignedIn || !got.FactorAt.Equal(f.Now()) ||
		!got.Seen.Equal(f.Now()) || !got.Began.Equal(began) || got.Method != "password totp" {
		t.Errorf("changed: %+v, %v", got, err)
	}
	f.truth.Seen(ctx, one, f.Now().Add(time.Minute))
	f.truth.Seen(ctx, one, f.Now())
	if got, _ := f.truth.SessionNumbered(ctx, one); !got.Seen.Equal(f.Now().Add(time.Minute)) {
		t.Errorf("seen %v", got.Seen)
	}
	two := f.session(f.bob, identity.SignedIn, "two")
	f.truth.Act(ctx, eve, f.alice, func(tx identity.Tx) error {
		if _, err := tx.SessionNumbered(ctx, two); !errors.Is(err, authstore.ErrNotFound) {
			t.Errorf("another account's: %v", err)
		}
		if err := tx.EndSession(ctx, two); !errors.Is(err, authstore.ErrNotFound) {
			t.Errorf("ending another account's: %v", err)
		}
		return nil
	})
	for i := range 5 {
		f.session(f.alice, identity.AwaitsFactor, fmt.Sprint("half", i))
	}
	if list, err := f.truth.SessionsOf(ctx, f.alice); err != nil || len(list) != 4 || list[3].ID != one || list[0].ID < list[1].ID {
		t.Errorf("SessionsOf = %+v, %v; want three that are half way, and the one that is signed in", list, err)
	}
	f.session(f.alice, identity.SignedIn, "three")
	f.act(f.alice, func(ctx context.Context, tx identity.Tx) error {
		n, err := tx.EndSessions(ctx, one)
		if n != 1 {
			t.Errorf("EndSessions = %d", n)
		}
		return err
	})
	if list, _ := f.truth.SessionsOf(ctx, f.alice); len(list) != 1 || list[0].ID != one {
		t.Errorf("left: %+v", list)
	}
	if err := f.truth.PrunePeople(ctx, identity.Bounds{Seen: f.Now().Add(time.Second), Began: began}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.truth.SessionNumbered(ctx, two); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("one not seen: %v", err)
	}
	if _, err := f.truth.SessionNumbered(ctx, one); err != nil {
		t.Errorf("one seen: %v", err)
	}
	if _, err := f.RemoveAccount(ctx, tester, f.alice); err != nil {
		t.Fatal(err)
	}
	if _, err := f.truth.SessionNumbered(ctx, one); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("of an account that is gone: %v", err)
	}
}

func (f *people) factor(id authstore.AccountID, kind identity.Kind, credential []byte) identity.FactorID {
	f.t.Helper()
	var made identity.FactorID
	f.act(id, func(ctx context.Context, tx identity.Tx) (err error) {
		made, err = tx.AddFactor(ctx, identity.StoredFactor{Factor: identity.Factor{Kind: kind, Label: "Phone", Created: f.Now()}, Credential: credential, Step: 7},
			func(n identity.FactorID) (identity.Sealed, error) {
				return identity.Sealed{Key: 1, Value: fmt.Append(nil, n)}, nil
			})
		return err
	})
	return made
}

func testFactors(t *testing.T, f *people) {
	ctx := t.Context()
	one, two := f.factor(f.alice, identity.TOTP, nil), f.factor(f.alice, identity.TOTP, nil)
	key := f.factor(f.bob, identity.Passkey, []byte("credential"))
	list := f.person(f.alice).Factors
	if len(list) != 2 || list[0].ID != one || list[0].Kind != identity.TOTP || string(list[0].Sealed.Value) != fmt.Sprint(one) || list[0].Step != 7 ||
		list[0].Credential != nil || !list[0].Created.Equal(f.Now()) || !list[0].LastUsed.IsZero() {
		t.Errorf("Factors = %+v", list)
	}
	if _, err := f.truth.Act(ctx, eve, f.alice, func(tx identity.Tx) error {
		_, err := tx.AddFactor(ctx, identity.StoredFactor{Factor: identity.Factor{Kind: identity.Passkey}, Credential: []byte("credential")}, nil)
		return err
	}); !errors.Is(err, identity.ErrKnownFactor) {
		t.Errorf("a known passkey: %v", err)
	}
	taken := f.race(50, func(tx identity.Tx) (bool, error) { return tx.TakeStep(ctx, one, 8) })
	if taken != 1 {
		t.Errorf("a step was taken %d times", taken)
	}
	f.act(f.alice, func(ctx context.Context, tx identity.Tx) error {
		if ok, err := tx.TakeStep(ctx, one, 7); ok || err != nil {
			t.Errorf("an older step: %v, %v", ok, err)
		}
		if ok, err := tx.TakeStep(ctx, key, 9); ok || err != nil {
			t.Errorf("another account's: %v, %v", ok, err)
		}
		for what, err := range map[string]error{
			"use": tx.UseFactor(ctx, key, identity.Sealed{}, f.Now()), "rename": tx.RenameFactor(ctx, key, "x"), "remove": tx.RemoveFactor(ctx, key),
		} {
			if !errors.Is(err, authstore.ErrNotFound) {
				t.Errorf("%s another account's: %v", what, err)
			}
		}
		return errors.Join(tx.UseFactor(ctx, one, identity.Sealed{Key: 2, Value: []byte("newer")}, f.Now()),
			tx.UseFactor(ctx, two, identity.Sealed{}, f.Now()), tx.RenameFactor(ctx, two, "Tablet"))
	})
	list = f.person(f.alice).Factors
	if list[0].Step != 8 || list[0].Sealed.Key != 2 || string(list[0].Sealed.Value) != "newer" || list[1].Sealed.Key != 1 || list[1].Label != "Tablet" || !list[1].LastUsed.Equal(f.Now()) {
		t.Errorf("used: %+v", list)
	}
	f.act(f.alice, func(ctx context.Context, tx identity.Tx) error { return tx.RemoveFactor(ctx, one) })
	if list = f.person(f.alice).Factors; len(list) != 1 || list[0].ID != two {
		t.Errorf("removed: %+v", list)
	}
	f.act(f.alice, func(ctx context.Context, tx identity.Tx) error { return tx.RemoveFactors(ctx) })
	if len(f.person(f.alice).Factors) != 0 || len(f.person(f.bob).Factors) != 1 {
		t.Error("RemoveFactors removed too little, or another account's")
	}
}

// race does the same in many acts at once, and counts those that got it.
func (f *people) race(n int, do func(identity.Tx) (bool, error)) int32 {
	var taken atomic.Int32
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			ok := false
			if _, err := f.truth.Act(context.Background(), eve, f.alice, func(tx identity.Tx) (err error) { ok, err = do(tx); return err }); err != nil {
				f.t.Error(err)
			}
			if ok {
				taken.Add(1)
			}
		})
	}
	wg.Wait()
	return taken.Load()
}

func testRecovery(t *testing.T, f *people) {
	ctx := t.Context()
	codes := []identity.Sealed{{Key: 1, Value: []byte("a")}, {Key: 1, Value: []byte("b")}, {Key: 1, Value: []byte("c")}}
	f.act(f.alice, func(ctx context.Context, tx identity.Tx) error { return tx.SetRecovery(ctx, codes) })
	if taken := f.race(100, func(tx identity.Tx) (bool, error) { return tx.UseRecovery(ctx, 2, f.Now()) }); taken != 1 {
		t.Errorf("a code was used %d times", taken)
	}
	if left := f.person(f.alice).Recovery; len(left) != 2 || left[1].Number != 3 || string(left[1].Sealed.Value) != "c" {
		t.Errorf("left: %+v", left)
	}
	f.act(f.alice, func(ctx context.Context, tx identity.Tx) error {
		if ok, err := tx.UseRecovery(ctx, 9, f.Now()); ok || err != nil {
			t.Errorf("a code that is not there: %v, %v", ok, err)
		}
		return tx.SetRecovery(ctx, codes[:1])
	})
	if left := f.person(f.alice).Recovery; len(left) != 1 || left[0].Number != 1 {
		t.Errorf("renewed: %+v", left)
	}
	if taken := f.race(50, func(tx identity.Tx) (bool, error) { return tx.Spend(ctx, []byte("challenge"), f.Now()) }); taken != 1 {
		t.Errorf("a challenge was spent %d times", taken)
	}
	f.pass(time.Second)
	if err := f.truth.PrunePeople(ctx, identity.Bounds{}); err != nil {
		t.Fatal(err)
	}
	f.act(f.alice, func(ctx context.Context, tx identity.Tx) error {
		first, err := tx.Spend(ctx, []byte("challenge"), f.Now())
		if !first {
			t.Error("what nobody would take any more is remembered")
		}
		return err
	})
}

func testInvitation(t *testing.T, f *people) {
	ctx := t.Context()
	set := func(digest string, purpose identity.Purpose) {
		f.act(f.alice, func(ctx context.Context, tx identity.Tx) error {
			return tx.SetInvitation(ctx, identity.StoredInvitation{Purpose: purpose, Created: f.Now(), Expires: f.Now().Add(time.Hour)}, []byte(digest))
		})
	}
	set("one", identity.Begin)
	set("two", identity.NewFactor)
	if _, err := f.truth.InvitationWith(ctx, []byte("one")); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("the one before: %v", err)
	}
	if i, err := f.truth.InvitationWith(ctx, []byte("two")); err != nil || i.Account != f.alice || i.Purpose != identity.NewFactor || !i.Expires.Equal(f.Now().Add(time.Hour)) {
		t.Errorf("InvitationWith = %+v, %v", i, err)
	}
	f.act(f.bob, func(ctx context.Context, tx identity.Tx) error {
		if _, err := tx.InvitationWith(ctx, []byte("two")); !errors.Is(err, authstore.ErrNotFound) {
			t.Errorf("another account's: %v", err)
		}
		return nil
	})
	f.act(f.alice, func(ctx context.Context, tx identity.Tx) error { return tx.RemoveInvitation(ctx) })
	if _, err := f.truth.InvitationWith(ctx, []byte("two")); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("removed: %v", err)
	}
	set("three", identity.Begin)
	f.pass(2 * time.Hour)
	f.truth.PrunePeople(ctx, identity.Bounds{})
	if _, err := f.truth.InvitationWith(ctx, []byte("three")); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("expired and pruned: %v", err)
	}
}

func testBudget(t *testing.T, f *people) {
	ctx := t.Context()
	one := []identity.Charge{{Bucket: []byte("one"), Cost: time.Minute, Burst: 10 * time.Minute}}
	var taken atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			wait, err := f.truth.Charge(ctx, one)
			if err != nil {
				t.Error(err)
			}
			if wait == 0 {
				taken.Add(1)
			}
		})
	}
	wg.Wait()
	if taken.Load() != 10 {
		t.Errorf("%d of 50 were charged, want 10", taken.Load())
	}
	charge := func(what string, want time.Duration, c ...identity.Charge) {
		t.Helper()
		if wait, err := f.truth.Charge(ctx, c); err != nil || wait != want {
			t.Errorf("%s: wait %v, %v; want %v", what, wait, err, want)
		}
	}
	two := identity.Charge{Bucket: []byte("two"), Cost: time.Minute, Burst: time.Minute}
	charge("full", time.Minute, one...)
	charge("one of two is full", time.Minute, two, one[0])
	charge("the other was not charged", 0, two)
	f.pass(30 * time.Second)
	charge("half a minute later", 30*time.Second, one...)
	f.pass(30 * time.Second)
	charge("a minute later", 0, one...)
	charge("full again", time.Minute, one...)
	if err := f.truth.Refund(ctx, one); err != nil {
		t.Fatal(err)
	}
	charge("after a refund", 0, one...)
	f.act(f.alice, func(ctx context.Context, tx identity.Tx) error { return tx.Refund(ctx, one) })
	charge("after one in an act", 0, one...)
	f.pass(-time.Minute)
	charge("after a step back of the clock", 2*time.Minute, one...)
	f.pass(-24 * time.Hour)
	for range 10 { // for a day it would have been full
		charge("after a jump back", 0, one...)
	}
	charge("full after the jump", time.Minute, one...)
	if err := f.truth.PrunePeople(ctx, identity.Bounds{}); err != nil {
		t.Fatal(err)
	}
	charge("a full one outlives Prune", time.Minute, one...)
}

func testAct(t *testing.T, f *people) {
	ctx := t.Context()
	p := f.password(t, f.alice, "Phone", time.Time{})
	f.password(t, f.bob, "Phone", time.Time{})
	before, _ := f.Tail(ctx, "", 0)
	refused := errors.New("no")
	_, err := f.truth.Act(ctx, eve, f.alice, func(tx identity.Tx) error {
		if _, err := tx.RevokeAll(ctx, "x"); err != nil {
			return err
		}
		return errors.Join(tx.Event(ctx, "x", ""), tx.SetPrimary(ctx, identity.Sealed{Key: 1, Value: []byte("x")}, f.Now()), refused)
	})
	if !errors.Is(err, refused) {
		t.Errorf("a refusal: %v", err)
	}
	if list, _ := f.Passwords(ctx, f.alice, false); len(list) != 1 || f.person(f.alice).Primary.Key != 0 {
		t.Error("what was refused left something behind")
	}
	if c := f.act(f.alice, func(ctx context.Context, tx identity.Tx) error { return tx.Event(ctx, "portal.signed_in", "passkey") }); c.Sequence != 0 {
		t.Errorf("a line of history alone is a change of the feed: %+v", c)
	}
	c := f.act(f.alice, func(ctx context.Context, tx identity.Tx) error {
		n, err := tx.RevokeAll(ctx, "because")
		if n != 1 {
			t.Errorf("RevokeAll = %d", n)
		}
		return errors.Join(err, tx.Event(ctx, "primary.changed", "1"))
	})
	if c.Sequence != before.Counter+1 || c.Account != f.alice || len(c.Ended) != 1 || c.Ended[0] != p.ID {
		t.Errorf("the change = %+v", c)
	}
	if tail, _ := f.Tail(ctx, "", c.Sequence); len(tail.Changes) != 1 || fmt.Sprint(tail.Changes[0]) != fmt.Sprint(c) {
		t.Errorf("the feed tells %+v, want %+v", tail.Changes, c)
	}
	if got, _ := f.Password(ctx, p.ID); got.Why != "because" || got.Revoked.IsZero() {
		t.Errorf("the app password: %+v", got)
	}
	events, _ := f.Events(ctx, authstore.EventQuery{Account: f.alice, Limit: 2})
	if len(events) != 2 || events[0].Kind != "primary.changed" || events[0].Detail != "1" || events[0].Actor != eve || events[1].Kind != "portal.signed_in" {
		t.Errorf("history: %+v", events)
	}
	if list, _ := f.Passwords(ctx, f.bob, false); len(list) != 1 {
		t.Error("another account's app password ended")
	}
}

// Suspending ends what is open; resuming lets people in again, and not whoever was in.
func testSuspended(t *testing.T, f *people) {
	ctx := t.Context()
	f.session(f.alice, identity.SignedIn, "one")
	f.session(f.bob, identity.SignedIn, "bob")
	for _, status := range []authstore.Status{authstore.AccountPaused, authstore.Active} {
		if _, err := f.SetStatus(ctx, eve, f.alice, status); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := f.truth.SessionWith(ctx, []byte("one")); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("the session after suspending and resuming: %+v, %v", s, err)
	}
	if _, err := f.truth.SessionWith(ctx, []byte("bob")); err != nil {
		t.Errorf("another's: %v", err)
	}
}

// What was begun in a session that has ended meanwhile is not done: an app password that is made after all were revoked would outlive that.
func testSignedOut(t *testing.T, f *people) {
	ctx := t.Context()
	who := eve
	who.Session = int64(f.session(f.alice, identity.SignedIn, "one"))
	p, _, err := f.CreatePassword(ctx, who, newPassword(f.alice, "phone", time.Time{}))
	if err != nil {
		t.Fatal(err)
	}
	bob := f.password(t, f.bob, "phone", time.Time{})
	if _, err := f.Revoke(ctx, who, bob.ID, ""); !errors.Is(err, authstore.ErrSignedOut) {
		t.Errorf("a session revokes what is another account's: %v", err)
	}
	halfway := eve
	halfway.Session = int64(f.session(f.alice, identity.AwaitsFactor, "two"))
	f.act(f.alice, func(ctx context.Context, tx identity.Tx) error {
		return tx.EndSession(ctx, identity.SessionID(who.Session))
	})
	for name, actor := range map[string]authstore.Actor{"ended": who, "awaits its factor": halfway} {
		for what, do := range map[string]func() error{
			"create": func() error {
				_, _, err := f.CreatePassword(ctx, actor, newPassword(f.alice, "evil", time.Time{}))
				return err
			},
			"edit": func() error {
				_, err := f.EditPassword(ctx, actor, p.ID, authstore.PasswordEdit{Label: "evil"})
				return err
			},
			"revoke":     func() error { _, err := f.Revoke(ctx, actor, p.ID, ""); return err },
			"revoke all": func() error { _, err := f.RevokeAll(ctx, actor, f.alice, ""); return err },
		} {
			if err := do(); !errors.Is(err, authstore.ErrSignedOut) {
				t.Errorf("%s in a session that %s: %v, want %v", what, name, err, authstore.ErrSignedOut)
			}
		}
	}
	list, err := f.Passwords(ctx, f.alice, true)
	if err != nil || len(list) != 1 || list[0].Label != "phone" || !list[0].Revoked.IsZero() {
		t.Errorf("the app passwords are %+v, %v", list, err)
	}
}

func testReseal(t *testing.T, f *people) {
	ctx := t.Context()
	one := identity.Sealed{Key: 1, Value: []byte("old")}
	f.act(f.alice, func(ctx context.Context, tx identity.Tx) error {
		return errors.Join(tx.SetPrimary(ctx, one, f.Now()), tx.SetRecovery(ctx, []identity.Sealed{one, {Key: 2, Value: []byte("new")}}))
	})
	id := f.factor(f.alice, identity.TOTP, nil)
	if err := f.SetSealed(ctx, tester, f.alice, "mail", 1, []byte("old")); err != nil {
		t.Fatal(err)
	}
	token := authstore.UpstreamToken{Account: f.alice, Provider: "hosted", Key: 1, Sealed: []byte("old"), Expires: f.Now(), Refreshed: f.Now()}
	if _, err := f.truth.Connect(ctx, tester, token); err != nil {
		t.Fatal(err)
	}
	if use, err := f.KeyUse(ctx); err != nil || use[1] != 5 || use[2] != 1 {
		t.Errorf("KeyUse = %v, %v", use, err)
	}
	places := make(map[string]string)
	n, err := f.Reseal(ctx, 1, 2, func(place string, sealed []byte) ([]byte, error) {
		places[place] = string(sealed)
		return bytes.ToUpper(sealed), nil
	})
	want := map[string]string{
		fmt.Sprintf("primary_password/%d/%d", f.alice, f.alice): "old", fmt.Sprintf("recovery_code/%d/1", f.alice): "old",
		fmt.Sprintf("factor/%d/%d", f.alice, id): fmt.Sprint(id), fmt.Sprintf("sealed/%d/mail", f.alice): "old",
		authstore.UpstreamPlace(f.alice, "hosted"): "old",
	}
	if err != nil || n != 5 || fmt.Sprint(places) != fmt.Sprint(want) {
		t.Errorf("Reseal = %d, %v, of %v; want %v", n, err, places, want)
	}
	p := f.person(f.alice)
	if use, _ := f.KeyUse(ctx); use[1] != 0 || use[2] != 6 || string(p.Primary.Value) != "OLD" || string(p.Recovery[1].Sealed.Value) != "new" {
		t.Errorf("then KeyUse = %v, %+v", use, p)
	}
	if v, err := f.Sealed(ctx, f.alice, "mail"); string(v) != "OLD" || err != nil {
		t.Errorf("Sealed = %q, %v", v, err)
	}
	if n, err := f.Reseal(ctx, 2, 3, func(place string, sealed []byte) ([]byte, error) {
		if strings.HasSuffix(place, "/mail") { // somebody stores another meanwhile
			f.SetSealed(ctx, tester, f.alice, "mail", 2, []byte("newer"))
		}
		return sealed, nil
	}); n != 5 || err != nil {
		t.Errorf("Reseal of what changes meanwhile = %d, %v; want the 5 others", n, err)
	}
	if v, err := f.Sealed(ctx, f.alice, "mail"); string(v) != "newer" || err != nil {
		t.Errorf("what was stored meanwhile is %q, %v", v, err)
	}
	broken := errors.New("no")
	if _, err := f.Reseal(ctx, 2, 3, func(string, []byte) ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("what can't be sealed: %v", err)
	}
}

func testTies(t *testing.T, f *people) {
	ctx := t.Context()
	tie := func(id authstore.AccountID, tie identity.Tie) error {
		_, err := f.truth.Act(ctx, eve, id, func(tx identity.Tx) error { return tx.SetTie(ctx, tie) })
		return err
	}
	first := f.Now()
	if err := tie(f.alice, identity.Tie{Issuer: "ldap", Subject: "a", Groups: []string{"staff", "two\nlines", "cn=admins,dc=example"}, PrimaryChanged: first, Seen: first}); err != nil {
		t.Fatal(err)
	}
	if p := f.person(f.alice); p.Ties[0].Factor {
		t.Error("a second factor has counted that nobody told of")
	}
	if p, err := f.truth.PersonTied(ctx, "ldap", "a"); err != nil || p.ID != f.alice || len(p.Ties) != 1 || fmt.Sprint(p.Ties[0].Groups) != "[staff cn=admins,dc=example]" ||
		!p.Ties[0].PrimaryChanged.Equal(first) || !p.Ties[0].Created.Equal(first) {
		t.Errorf("PersonTied = %+v, %v", p, err)
	}
	if err := tie(f.bob, identity.Tie{Issuer: "ldap", Subject: "a", Seen: first}); !errors.Is(err, identity.ErrTied) {
		t.Errorf("somebody else's: %v", err)
	}
	f.pass(time.Hour)
	if err := tie(f.alice, identity.Tie{Issuer: "ldap", Subject: "b", Seen: f.Now()}); err != nil {
		t.Errorf("another of the same issuer: %v", err)
	}
	if p := f.person(f.alice); len(p.Ties) != 1 || p.Ties[0].Subject != "b" || p.Ties[0].Groups != nil || !p.Ties[0].PrimaryChanged.IsZero() ||
		!p.Ties[0].Created.Equal(first) || !p.Ties[0].Seen.Equal(f.Now()) {
		t.Errorf("it is now %+v", p.Ties)
	}
	if err := tie(f.alice, identity.Tie{Issuer: "https://id.example.test", Subject: "a", Groups: []string{"all"}, Factor: true, Seen: f.Now()}); err != nil {
		t.Error(err)
	}
	if p, err := f.truth.PersonTied(ctx, "https://id.example.test", "a"); err != nil || len(p.Ties) != 2 || !p.Ties[0].Factor || p.Ties[1].Factor {
		t.Errorf("with a second factor there: %+v, %v", p.Ties, err)
	}
	s := f.session(f.alice, identity.SignedIn, "digest")
	if got, err := f.truth.SessionNumbered(ctx, s); err != nil || fmt.Sprint(got.Groups) != "[{https://id.example.test [all]}]" || got.Admin {
		t.Errorf("the session: %+v, %v", got, err)
	}
	if _, err := f.SetAdmin(ctx, tester, f.alice, true); err != nil {
		t.Fatal(err)
	}
	if got, err := f.truth.SessionNumbered(ctx, s); err != nil || !got.Admin || !f.person(f.alice).Admin {
		t.Errorf("the session of an administrator: %+v, %v", got, err)
	}
	f.act(f.alice, func(ctx context.Context, tx identity.Tx) error { return tx.RemoveTie(ctx, "ldap") })
	if _, err := f.truth.PersonTied(ctx, "ldap", "b"); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("after it was removed: %v", err)
	}
	if _, err := f.RemoveAccount(ctx, tester, f.alice); err != nil {
		t.Fatal(err)
	}
	if err := tie(f.bob, identity.Tie{Issuer: "https://id.example.test", Subject: "a", Seen: f.Now()}); err != nil {
		t.Errorf("after its account was removed: %v", err)
	}
}

// Sessions are found by where they came from, never those that came from nowhere.
func testFrom(t *testing.T, f *people) {
	ctx := t.Context()
	begin := func(id authstore.AccountID, issuer, subject, sid, digest string) (made identity.SessionID) {
		f.act(id, func(ctx context.Context, tx identity.Tx) (err error) {
			made, err = tx.AddSession(ctx, identity.Session{Stage: identity.SignedIn, Began: f.Now(), Seen: f.Now(), Issuer: issuer, Subject: subject, SID: sid}, []byte(digest), 9)
			return err
		})
		return made
	}
	one, two := begin(f.alice, "https://id.example.test", "a", "1", "one"), begin(f.alice, "https://id.example.test", "a", "2", "two")
	bob := begin(f.bob, "https://id.example.test", "b", "1", "three")
	begin(f.alice, "https://other.example.test", "a", "1", "four")
	begin(f.alice, "", "", "", "five")
	for _, tt := range []struct {
		issuer, subject, sid string
		want                 []identity.SessionID
	}{
		{"https://id.example.test", "a", "", []identity.SessionID{two, one}},
		{"https://id.example.test", "", "1", []identity.SessionID{bob, one}},
		{"https://id.example.test", "a", "1", []identity.SessionID{one}},
		{"https://id.example.test", "c", "1", nil},
		{"https://id.example.test", "", "", nil},
		{"", "", "", nil},
		{"", "a", "", nil},
	} {
		var got []identity.SessionID
		list, err := f.truth.SessionsFrom(ctx, tt.issuer, tt.subject, tt.sid)
		for _, s := range list {
			got = append(got, s.ID)
		}
		if err != nil || fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("SessionsFrom(%q, %q, %q) = %v, %v, want %v", tt.issuer, tt.subject, tt.sid, got, err, tt.want)
		}
	}
	s, err := f.truth.SessionNumbered(ctx, one)
	s.SID = "3"
	f.act(f.alice, func(ctx context.Context, tx identity.Tx) error {
		return tx.ChangeSession(ctx, s.Session, []byte("six"))
	})
	if now, _ := f.truth.SessionNumbered(ctx, one); err != nil || now.SID != "3" || now.Subject != "a" || now.Issuer != "https://id.example.test" {
		t.Errorf("changed: %+v, %v", now, err)
	}
}

func testTied(t *testing.T, f *people) {
	ctx := t.Context()
	for id, subject := range map[authstore.AccountID]string{f.alice: "a", f.bob: "b"} {
		f.act(id, func(ctx context.Context, tx identity.Tx) error {
			return errors.Join(tx.SetTie(ctx, identity.Tie{Issuer: "ldap", Subject: subject, Groups: []string{"staff"}, PrimaryChanged: f.Now(), Seen: f.Now()}),
				tx.SetTie(ctx, identity.Tie{Issuer: "https://id.example.test", Subject: subject, Seen: f.Now()}))
		})
	}
	if _, err := f.SetStatus(ctx, tester, f.bob, authstore.AccountPaused); err != nil {
		t.Fatal(err)
	}
	all, err := f.truth.Tied(ctx, "ldap", 0, 10)
	if err != nil || len(all) != 2 || all[0].Account != f.alice || all[0].Address != "alice@example.test" || all[0].Status != authstore.Active || all[0].Subject != "a" ||
		fmt.Sprint(all[0].Groups) != "[staff]" || !all[0].PrimaryChanged.Equal(f.Now()) || all[1].Account != f.bob || all[1].Status != authstore.AccountPaused {
		t.Errorf("Tied = %+v, %v", all, err)
	}
	if some, err := f.truth.Tied(ctx, "ldap", 0, 1); err != nil || len(some) != 1 || some[0].Account != f.alice {
		t.Errorf("the first: %+v, %v", some, err)
	}
	if some, err := f.truth.Tied(ctx, "ldap", f.alice, 1); err != nil || len(some) != 1 || some[0].Account != f.bob {
		t.Errorf("the next: %+v, %v", some, err)
	}
	if none, err := f.truth.Tied(ctx, "elsewhere", 0, 10); err != nil || len(none) != 0 {
		t.Errorf("of nobody: %+v, %v", none, err)
	}
}

// Whoever is gone is suspended, and comes back; what an administrator has suspended stays so.
func testGone(t *testing.T, f *people) {
	ctx := t.Context()
	f.session(f.alice, identity.SignedIn, "one")
	if _, _, err := f.CreatePassword(ctx, eve, newPassword(f.alice, "phone", time.Time{})); err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		do      func() (authstore.Change, error)
		want    authstore.Status
		changes bool
	}{
		{func() (authstore.Change, error) { return f.SetGone(ctx, eve, f.alice, false, "") }, authstore.Active, false},
		{func() (authstore.Change, error) { return f.SetGone(ctx, eve, f.alice, true, "disabled") }, authstore.AccountGone, true},
		{func() (authstore.Change, error) { return f.SetGone(ctx, eve, f.alice, true, "gone") }, authstore.AccountGone, false},
		{func() (authstore.Change, error) { return f.SetGone(ctx, eve, f.alice, false, "") }, authstore.Active, true},
		{func() (authstore.Change, error) { return f.SetStatus(ctx, tester, f.alice, authstore.AccountPaused) }, authstore.AccountPaused, true},
		{func() (authstore.Change, error) { return f.SetGone(ctx, eve, f.alice, true, "gone") }, authstore.AccountPaused, false},
		{func() (authstore.Change, error) { return f.SetGone(ctx, eve, f.alice, false, "") }, authstore.AccountPaused, false},
		{func() (authstore.Change, error) { return f.SetGone(ctx, eve, 99, true, "gone") }, authstore.AccountPaused, false},
	} {
		c, err := step.do()
		s, _ := f.Load(ctx, "alice@example.test")
		if err != nil || (c.Sequence != 0) != step.changes || c.Sequence != 0 && c.AllEnded != (step.want != authstore.Active) || s.Status != step.want || len(s.Active) != 1 {
			t.Errorf("step %d: %+v, %v; %v with %d app passwords", i, c, err, s.Status, len(s.Active))
		}
	}
	if s, err := f.truth.SessionWith(ctx, []byte("one")); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("the session: %+v, %v", s, err)
	}
	events, err := f.Events(ctx, authstore.EventQuery{Account: f.alice, Kinds: []string{"account.gone", "account.returned"}})
	if err != nil || len(events) != 2 || events[0].Kind != "account.returned" || events[1].Kind != "account.gone" || events[1].Detail != "disabled" || events[1].Actor != eve {
		t.Errorf("events %+v, %v", events, err)
	}
}

func testLease(t *testing.T, f *people) {
	for i, step := range []struct {
		owner string
		until time.Duration
		after time.Duration
		want  bool
	}{
		{"one", time.Minute, 0, true},
		{"two", time.Minute, 0, false},
		{"one", 2 * time.Minute, 0, true},
		{"two", time.Minute, 119 * time.Second, false},
		{"two", time.Minute, time.Second, true},
		{"one", time.Minute, 0, false},
		{"two", 0, 0, true},
		{"one", time.Minute, 0, true},
	} {
		f.pass(step.after)
		if got, err := f.Lease(t.Context(), "thing", step.owner, f.Now().Add(step.until)); err != nil || got != step.want {
			t.Errorf("step %d: Lease of %s = %v, %v", i, step.owner, got, err)
		}
	}
	if got, err := f.Lease(t.Context(), "another", "two", f.Now().Add(time.Minute)); err != nil || !got {
		t.Errorf("another thing: %v, %v", got, err)
	}
}
