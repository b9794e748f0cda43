package identity_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
)

// From the link to the second sign-in; no token outlives the step that it was for.
func TestInvitationToSecondSignIn(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	a := p.account(alice)
	link, made, err := p.Invite(ctx, tester, a.ID, identity.NewFactor)
	if err != nil || made.Purpose != identity.Begin || !made.SetsPrimary || made.Address != alice || !made.Expires.Equal(p.clock().Add(72*time.Hour)) {
		t.Fatalf("Invite = %+v, %v; there is no primary password yet, so it has to set one", made, err)
	}
	if read, err := p.Invitation(ctx, link); err != nil || read != made {
		t.Errorf("Invitation = %+v, %v; want %+v", read, err, made)
	}
	var weak *identity.Weak
	if _, _, err := p.Accept(ctx, visitor, link, []byte("alice12345")); !errors.As(err, &weak) || weak.Reason != identity.Guessable {
		t.Errorf("a guessable password: %v", err)
	}
	t0, s, err := p.Accept(ctx, visitor, link, []byte(good))
	if err != nil || s.Stage != identity.AwaitsSetUp || s.Method != "invitation" || s.Language != "de" || s.Zone != "Europe/Berlin" {
		t.Fatalf("Accept = %+v, %v", s, err)
	}
	_, _, err = p.Accept(ctx, visitor, link, []byte(better))
	want(t, "the link again", err, identity.ErrNoInvitation)

	in := p.enrol(session{Session: s, token: t0})
	if in.Stage != identity.SignedIn || in.Method != "invitation totp" || !p.Fresh(in.Session) {
		t.Errorf("set up: %+v", in.Session)
	}
	p.dead("the set-up's token", t0)
	if again, err := p.Session(ctx, visitor, in.token); err != nil || again.ID != s.ID || again.Address != alice {
		t.Errorf("Session = %+v, %v", again, err)
	}
	want(t, "SignOut", p.SignOut(ctx, visitor, in.Session), nil)
	p.dead("signed out", in.token)

	p.pass(time.Minute)
	half := p.signIn("Alice", good)
	if half.Stage != identity.AwaitsFactor {
		t.Fatalf("signed in: %+v", half.Session)
	}
	t2, full, err := p.GiveCode(ctx, visitor, half.Session, p.code(in.seed))
	if err != nil || full.Stage != identity.SignedIn || full.Method != "password totp" {
		t.Fatalf("GiveCode = %+v, %v", full, err)
	}
	p.dead("the first step's token", half.token)
	if _, err := p.Session(ctx, visitor, t2); err != nil {
		t.Errorf("the new token: %v", err)
	}
	if got, want := fmt.Sprint(p.kinds(a.ID)), "[account.added invitation.made invitation.accepted primary.set factor.added portal.signed_in portal.signed_out portal.signed_in]"; got != want {
		t.Errorf("history\n%s, want\n%s", got, want)
	}
	events, _ := p.accounts.Events(ctx, authstore.EventQuery{Account: a.ID, Limit: 1})
	if want := (authstore.Actor{Name: "portal", Client: visitor.Client, Agent: aBrowser}); events[0].Actor != want {
		t.Errorf("who = %+v, want %+v", events[0].Actor, want)
	}
}

func TestNobodyLearnsWhy(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	p.signedUp(alice)
	bob := p.signedUp("bob@example.test")
	p.account("carol@example.test")
	if _, err := p.accounts.Suspend(ctx, bob.Account); err != nil {
		t.Fatal(err)
	}
	p.dead("a suspended account's session", bob.token)
	for what, try := range map[string]struct{ name, password string }{
		"a wrong password":            {alice, better},
		"no password":                 {alice, ""},
		"a long one":                  {alice, string(make([]byte, 5000))},
		"a suspended account":         {"bob@example.test", good},
		"one without a primary":       {"carol@example.test", good},
		"nobody":                      {"nobody@example.test", good},
		"what can't be a name at all": {"\x00@@", good},
	} {
		_, s, err := p.SignIn(ctx, visitor, try.name, []byte(try.password))
		if !errors.Is(err, identity.ErrWrong) || s.ID != 0 {
			t.Errorf("%s: %+v, %v", what, s, err)
		}
	}
}

// A refusal comes no sooner than its time, whatever was looked up for it.
func TestRefusalsTakeTheirTime(t *testing.T) {
	t.Parallel()
	p := newPlace(t, func(o *identity.Options) { o.RefusalDelay = 300 * time.Millisecond })
	p.signedUp(alice)
	for _, name := range []string{alice, "nobody@example.test"} {
		began := time.Now()
		p.SignIn(ctx, visitor, name, []byte(better))
		if took := time.Since(began); took < 300*time.Millisecond {
			t.Errorf("%s: refused after %v", name, took)
		}
	}
}

// Mail servers let who is wrong wait, and may be down for long: neither tells which names have an account.
func TestNamesThatNobodyHasHearTheCheckersEcho(t *testing.T) {
	t.Parallel()
	m := &mailServer{password: "right", delay: 500 * time.Millisecond}
	p := newPlace(t, func(o *identity.Options) { o.Checker, o.RefusalDelay = m, 100*time.Millisecond })
	p.account(alice)
	suspended := p.account("carol@example.test")
	p.accounts.Suspend(ctx, suspended.ID)
	for _, broken := range []error{nil, errors.New("connection refused")} {
		m.set("right", broken)
		wanted := identity.ErrWrong
		if broken != nil {
			wanted = identity.ErrUnavailable
		}
		for _, name := range []string{alice, "nobody@example.test", "carol@example.test"} {
			began := time.Now()
			_, _, err := p.SignIn(ctx, visitor, name, []byte("guess"))
			want(t, name, err, wanted)
			if took := time.Since(began); took < 600*time.Millisecond {
				t.Errorf("%s: refused after %v, the others after 600ms", name, took)
			}
		}
	}
	m.set("right", nil)
	p.signIn(alice, "right")
	_, _, err := p.SignIn(ctx, visitor, "nobody@example.test", []byte("guess"))
	want(t, "nobody, after the outage", err, identity.ErrWrong)
}

func TestParallelGuessesStayInBudget(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	id := p.signedUp(alice).Account
	for _, name := range []string{alice, "nobody@example.test"} {
		var wrong, many atomic.Int32
		var wg sync.WaitGroup
		for i := range 40 {
			v := identity.Visitor{Client: netip.AddrFrom4([4]byte{10, 0, byte(len(name)), byte(i)})}
			wg.Go(func() {
				_, _, err := p.SignIn(ctx, v, name, []byte("a guess"))
				switch {
				case isTooMany(err):
					many.Add(1)
				case errors.Is(err, identity.ErrWrong):
					wrong.Add(1)
				default:
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		wg.Wait()
		if wrong.Load() != 10 || many.Load() != 30 {
			t.Errorf("%s: %d of 40 guesses were judged, want 10", name, wrong.Load())
		}
	}
	if n := p.count(id, "portal.sign_in_refused"); n != 5 {
		t.Errorf("%d lines of history of them, want 5", n)
	}
	_, _, err := p.SignIn(ctx, visitor, alice, []byte(good))
	var tooMany *identity.TooMany
	if !errors.As(err, &tooMany) || tooMany.Wait != 6*time.Minute {
		t.Errorf("a stranger with the right one: %v", err)
	}
	p.pass(tooMany.Wait)
	p.signIn(alice, good)
}

// Strangers who guess don't shut out a browser that is known.
func TestAKnownBrowserHasItsOwnBudget(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	in, bob := p.signedUp(alice), p.signedUp("bob@example.test")
	for i := range 12 {
		p.SignIn(ctx, identity.Visitor{Client: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}, alice, []byte("a guess"))
	}
	at := func(device string) error {
		v := visitor
		v.Device = device
		_, _, err := p.SignIn(ctx, v, alice, []byte(good))
		return err
	}
	known := p.Device(in.Session)
	want(t, "the known browser", at(known), nil)
	for what, device := range map[string]string{"a stranger": "", "nonsense": "nonsense", "another account's": p.Device(bob.Session), "an altered one": known[:len(known)-2] + "AA"} {
		if err := at(device); !isTooMany(err) {
			t.Errorf("%s: %v, want too many attempts", what, err)
		}
	}
	half := in.Session
	half.Stage = identity.AwaitsFactor
	if d := p.Device(half); d != "" {
		t.Error("a session that is not signed in got a device's cookie")
	}
	p.pass(365 * 24 * time.Hour)
	for i := range 12 {
		p.SignIn(ctx, identity.Visitor{Client: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}, alice, []byte("a guess"))
	}
	if err := at(known); !isTooMany(err) {
		t.Errorf("the known browser a year later: %v, want too many attempts", err)
	}
}

// Who knows the primary password, and no more, is kept out by the second factor, and must not keep the owner out with it.
func TestWhoKnowsThePasswordAloneShutsNobodyOut(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	in := p.signedUp(alice)
	codes, err := p.RenewRecoveryCodes(ctx, visitor, in.Session)
	want(t, "RenewRecoveryCodes", err, nil)
	owner := visitor
	owner.Device = p.Device(in.Session)
	begin := func() identity.Session {
		t.Helper()
		_, s, err := p.SignIn(ctx, owner, alice, []byte(good))
		want(t, "the owner's password", err, nil)
		return s
	}
	half := begin()
	begun, thief := 0, identity.Session{}
	for i := range 100 {
		v := identity.Visitor{Client: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}
		if _, s, err := p.SignIn(ctx, v, alice, []byte(good)); err == nil {
			begun, thief = begun+1, s
		} else if !isTooMany(err) {
			t.Fatal(err)
		}
	}
	if begun != 10 {
		t.Errorf("a stranger began %d sessions at once, want 10", begun)
	}
	for _, code := range []string{"000000", "00000-00000"} {
		for range 8 {
			p.GiveCode(ctx, visitor, thief, code)
		}
		if _, _, err := p.GiveCode(ctx, visitor, thief, code); !isTooMany(err) {
			t.Fatalf("the stranger's codes like %s: %v", code, err)
		}
	}
	p.pass(time.Minute)
	_, _, err = p.GiveCode(ctx, owner, half, p.code(in.seed))
	want(t, "the owner's code", err, nil)
	_, _, err = p.GiveCode(ctx, owner, begin(), codes[0])
	want(t, "the owner's recovery code", err, nil)
}

// Argon2id is the dearest thing that a stranger can ask for. Who guesses from everywhere must not make those wait who are known.
func TestStrangersWhoGuessHoldUpNobodyElse(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	k := newKey()
	in := p.addKey(p.signedUp(alice), k)
	owner := visitor
	owner.Device = p.Device(in.Session)
	defer p.HoldStrangers()()
	soon, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, _, err := p.SignIn(soon, visitor, alice, []byte(good))
	want(t, "the password in another browser", err, identity.ErrUnavailable)
	_, _, err = p.SignIn(soon, owner, alice, []byte(good))
	want(t, "the password in a known browser", err, nil)
	c := p.ask(nil)
	_, _, err = p.GivePasskey(soon, visitor, nil, c.State, k.answer(t, c))
	want(t, "a passkey", err, nil)
}

func TestEachHashIsTold(t *testing.T) {
	t.Parallel()
	var begun, done atomic.Int32
	p := newPlace(t, func(o *identity.Options) {
		o.Hashing = func() func() {
			begun.Add(1)
			return func() { done.Add(1) }
		}
	})
	p.signedUp(alice)
	last := begun.Load()
	if last == 0 {
		t.Error("the first primary password was hashed unseen")
	}
	for _, password := range []string{good, better} { // right and wrong
		p.SignIn(ctx, visitor, alice, []byte(password))
		if n := begun.Load(); n == last {
			t.Errorf("%q was hashed unseen", password)
		} else {
			last = n
		}
	}
	if begun.Load() != done.Load() {
		t.Errorf("%d hashes have begun and %d ended", begun.Load(), done.Load())
	}
}

func TestOneNetworksBudget(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	judged := 0
	for i := range 40 {
		v := identity.Visitor{Client: netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: byte(i)})}
		if _, _, err := p.SignIn(ctx, v, fmt.Sprintf("u%d@example.test", i), []byte("a guess")); !isTooMany(err) {
			judged++
		}
	}
	if judged != 30 {
		t.Errorf("%d of 40 guesses from one /64 were judged, want 30", judged)
	}
	p.pass(24 * time.Hour)
	want(t, "Prune", p.Prune(ctx), nil)
}
