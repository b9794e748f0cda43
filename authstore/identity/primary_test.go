package identity_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alexedwards/argon2id"

	"postern/authstore"
	"postern/authstore/identity"
)

func TestChangePrimary(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	one := p.signedUp(alice)
	two := p.again(one)
	p.password(one.Account)
	p.password(one.Account)
	for what, try := range map[string]struct{ old, new, want string }{
		"wrong":     {better, better, "the address or the password is wrong"},
		"unchanged": {good, good, "unchanged"},
		"short":     {good, "Xk7$qTz9w", "short"},
		"long":      {good, strings.Repeat("Xk7$qTz9w!", 26), "long"},
		"guessable": {good, "password1234", "guessable"},
		"the name":  {good, "alice@example.test", "guessable"},
	} {
		if _, _, _, err := p.ChangePrimary(ctx, visitor, two.Session, []byte(try.old), []byte(try.new)); err == nil || !strings.Contains(err.Error(), try.want) {
			t.Errorf("%s: %v, want %q", what, err, try.want)
		}
	}
	if n := p.active(one.Account); n != 2 {
		t.Fatalf("%d app passwords are left of 2", n)
	}
	token, s, done, err := p.ChangePrimary(ctx, visitor, two.Session, []byte(good), []byte(better))
	if err != nil || done.Sequence == 0 || s.ID != two.ID {
		t.Fatalf("ChangePrimary = %+v, %+v, %v", s, done, err)
	}
	if n := p.active(one.Account); n != 0 {
		t.Errorf("%d app passwords are left", n)
	}
	p.dead("the other session", one.token)
	p.dead("the token before", two.token)
	if _, err := p.Session(ctx, visitor, token); err != nil {
		t.Errorf("the new token: %v", err)
	}
	events, _ := p.accounts.Events(ctx, authstore.EventQuery{Account: one.Account, Limit: 1})
	if events[0].Kind != "primary.changed" || events[0].Detail != "2" {
		t.Errorf("history: %+v", events[0])
	}
	if tail, _ := p.store.Tail(ctx, "", done.Sequence); len(tail.Changes) != 1 || len(tail.Changes[0].Ended) != 2 {
		t.Errorf("the feed: %+v", tail)
	}
	_, _, err = p.SignIn(ctx, visitor, alice, []byte(good))
	want(t, "the old one", err, identity.ErrWrong)
	p.signIn(alice, better)
}

// A password typed with combining accents is the one typed with letters that have them.
func TestOneFormOfAPassword(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	p.enrol(p.invited(p.account(alice).ID, identity.Begin, "gru\u0308n wie drei Papageien"))
	p.signIn(alice, "gr\u00fcn wie drei Papageien")
}

func TestBreached(t *testing.T) {
	t.Parallel()
	broken := errors.New("the list can't be read")
	p := newPlace(t, func(o *identity.Options) {
		o.Breached = func(b []byte) (bool, error) {
			if bytes.Equal(b, []byte(better)) {
				return false, broken
			}
			return bytes.Equal(b, []byte(good)), nil
		}
	})
	link, _, _ := p.Invite(ctx, tester, p.account(alice).ID, identity.Begin)
	var weak *identity.Weak
	if _, _, err := p.Accept(ctx, visitor, link, []byte(good)); !errors.As(err, &weak) || weak.Reason != identity.Breached {
		t.Errorf("one that stands in the list: %v", err)
	}
	_, _, err := p.Accept(ctx, visitor, link, []byte(better))
	want(t, "a list that can't be read", err, broken)
	if _, w := p.Strength(alice, []byte(good)); w != identity.Breached {
		t.Errorf("Strength says %q", w)
	}
}

// A long password costs no more to judge than one of 72 letters.
func TestStrengthIsBounded(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	began := time.Now()
	p.Strength(alice, bytes.Repeat([]byte("aA1"), 85))
	p.Strength(alice, bytes.Repeat([]byte("password"), 32))
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestInvitations(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	in := p.signedUp(alice)
	p.RenewRecoveryCodes(ctx, visitor, in.Session)
	p.password(in.Account)

	old, _, _ := p.Invite(ctx, tester, in.Account, identity.NewFactor)
	link, i, err := p.Invite(ctx, tester, in.Account, identity.NewFactor)
	if err != nil || i.SetsPrimary || i.Revokes != 0 {
		t.Fatalf("Invite = %+v, %v", i, err)
	}
	_, err = p.Invitation(ctx, old)
	want(t, "the link before", err, identity.ErrNoInvitation)
	for i := range 12 { // strangers who guess make no link useless
		p.SignIn(ctx, identity.Visitor{Client: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}, alice, []byte("a guess"))
	}
	_, _, err = p.Accept(ctx, visitor, link, []byte(better))
	want(t, "a wrong primary password", err, identity.ErrWrong)
	_, s, err := p.Accept(ctx, visitor, link, []byte(good))
	if err != nil || s.Stage != identity.AwaitsSetUp {
		t.Fatalf("Accept = %+v, %v", s, err)
	}
	p.dead("the session before", in.token)
	if f, _ := p.Factors(ctx, s); len(f.List) != 0 || f.Recovery != 0 {
		t.Errorf("what is left: %+v", f)
	}
	if n := p.active(in.Account); n != 1 {
		t.Errorf("%d app passwords; a new factor ends none", n)
	}

	link, i, _ = p.Invite(ctx, tester, in.Account, identity.Begin)
	if !i.SetsPrimary || i.Revokes != 1 {
		t.Errorf("Invite = %+v", i)
	}
	if _, err := p.accounts.Suspend(ctx, in.Account); err != nil {
		t.Fatal(err)
	}
	_, _, err = p.Accept(ctx, visitor, link, []byte(better))
	want(t, "of a suspended account", err, identity.ErrNoInvitation)
	p.accounts.Resume(ctx, in.Account)

	var taken atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if _, _, err := p.Accept(ctx, visitor, link, fmt.Appendf(nil, "%s %d", better, i)); err == nil {
				taken.Add(1)
			} else if !errors.Is(err, identity.ErrNoInvitation) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if taken.Load() != 1 || p.active(in.Account) != 0 {
		t.Errorf("accepted %d times, %d app passwords are left", taken.Load(), p.active(in.Account))
	}
	link, _, _ = p.Invite(ctx, tester, in.Account, identity.Begin)
	p.pass(72 * time.Hour)
	_, err = p.Invitation(ctx, link)
	want(t, "after 72 hours", err, identity.ErrNoInvitation)
	_, _, err = p.Accept(ctx, visitor, link, []byte(better))
	want(t, "after 72 hours", err, identity.ErrNoInvitation)
	_, _, err = p.Invite(ctx, tester, 99, identity.Begin)
	want(t, "nobody", err, authstore.ErrNotFound)
}

// mailServer is a server that checks primary passwords.
type mailServer struct {
	mu       sync.Mutex // guards all below
	password string
	claims   identity.Claims
	login    string // whom it knows; empty: alice
	broken   error
	asked    int
	delay    time.Duration // before it refuses
}

func (m *mailServer) Check(_ context.Context, login string, password []byte) (identity.Claims, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	switch {
	case m.broken != nil:
		time.Sleep(m.delay)
		return identity.Claims{}, m.broken
	case login != cmp.Or(m.login, alice) || string(password) != m.password:
		time.Sleep(m.delay)
		return identity.Claims{}, identity.ErrWrong
	}
	return m.claims, nil
}

func (m *mailServer) set(password string, broken error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.password, m.broken = password, broken
}

func TestAnotherServersPrimary(t *testing.T) {
	t.Parallel()
	m := &mailServer{password: "weak"}
	p := newPlace(t, func(o *identity.Options) { o.Checker, o.OnePrimary = m, true })
	a := p.account(alice)
	first := p.signIn(alice, "weak")
	if first.Stage != identity.AwaitsSetUp {
		t.Fatalf("the first sign-in: %+v", first.Session)
	}
	in := p.enrol(first)
	p.password(a.ID)
	_, _, _, err := p.ChangePrimary(ctx, visitor, in.Session, []byte("weak"), []byte(good))
	want(t, "ChangePrimary", err, identity.ErrForeignPrimary)

	// no failure of any kind ends anything
	for i, broken := range []error{nil, errors.New("connection refused"), context.DeadlineExceeded, fmt.Errorf("NO [UNAVAILABLE]")} {
		m.set("weak", broken)
		wanted := identity.ErrUnavailable
		if broken == nil {
			wanted = identity.ErrWrong
		}
		_, _, err := p.SignIn(ctx, visitor, alice, []byte("another"))
		want(t, fmt.Sprint("failure ", i), err, wanted)
		_, _, err = p.SignIn(ctx, visitor, "nobody@example.test", []byte("another"))
		want(t, fmt.Sprint("nobody at failure ", i), err, wanted)
	}
	m.set("weak", nil)
	if half := p.signIn(alice, "weak"); half.Stage != identity.AwaitsFactor {
		t.Errorf("%+v", half.Session)
	}
	if p.active(a.ID) != 1 {
		t.Fatal("a failure or the same password ended an app password")
	}
	if _, err := p.Session(ctx, visitor, in.token); err != nil {
		t.Errorf("or a session: %v", err)
	}

	m.set("changed", nil)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			_, s, err := p.SignIn(ctx, visitor, alice, []byte("changed"))
			if err != nil || s.Stage != identity.AwaitsFactor {
				t.Errorf("with the changed one: %+v, %v", s, err)
			}
		})
	}
	wg.Wait()
	if n := p.active(a.ID); n != 0 {
		t.Errorf("%d app passwords are left", n)
	}
	p.dead("a session from before", in.token)
	if n := p.count(a.ID, "primary.changed"); n != 1 {
		t.Errorf("it was changed %d times", n)
	}
	asked := m.asked
	p.SignIn(ctx, visitor, "nobody@example.test", []byte("changed"))
	p.accounts.Suspend(ctx, a.ID)
	_, _, err = p.SignIn(ctx, visitor, alice, []byte("changed"))
	want(t, "suspended", err, identity.ErrWrong)
	if m.asked != asked {
		t.Error("the server was asked about a name that has no account, or a suspended one")
	}
}

func TestSeveralPrimaries(t *testing.T) {
	t.Parallel()
	m := &mailServer{password: "one"}
	p := newPlace(t, func(o *identity.Options) { o.Checker = m })
	in := p.enrol(p.signInAs(m, "one"))
	p.password(in.Account)
	p.signInAs(m, "two")
	p.signInAs(m, "one")
	if p.active(in.Account) != 1 || p.count(in.Account, "primary.changed") != 0 {
		t.Error("one of several passwords ended something")
	}
}

func (p *place) signInAs(m *mailServer, password string) session {
	p.t.Helper()
	if _, err := p.accounts.Get(ctx, alice); err != nil {
		p.account(alice)
	}
	m.set(password, nil)
	return p.signIn(alice, password)
}

func TestInviteOnly(t *testing.T) {
	t.Parallel()
	m := &mailServer{password: "weak"}
	p := newPlace(t, func(o *identity.Options) { o.Checker, o.InviteOnly = m, true })
	a := p.account(alice)
	_, s, err := p.SignIn(ctx, visitor, alice, []byte("weak"))
	if !errors.Is(err, identity.ErrNeedsInvitation) || s.ID != 0 {
		t.Errorf("without a factor: %+v, %v", s, err)
	}
	_, _, err = p.SignIn(ctx, visitor, alice, []byte("wrong"))
	want(t, "wrong", err, identity.ErrWrong)
	link, i, err := p.Invite(ctx, tester, a.ID, identity.Begin)
	if err != nil || i.SetsPrimary {
		t.Fatalf("Invite = %+v, %v", i, err)
	}
	_, _, err = p.Accept(ctx, visitor, link, []byte("wrong"))
	want(t, "the link with a wrong password", err, identity.ErrWrong)
	_, s, err = p.Accept(ctx, visitor, link, []byte("weak"))
	if err != nil {
		t.Fatal(err)
	}
	p.enrol(session{Session: s})
	if half := p.signIn(alice, "weak"); half.Stage != identity.AwaitsFactor {
		t.Errorf("%+v", half.Session)
	}
}

// Where primary passwords are kept here, whoever knows one alone has no way into an account whose owner left the set-up half-way.
func TestASetUpThatWasLeftNeedsAnotherLink(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	a := p.account(alice)
	p.invited(a.ID, identity.Begin, good)
	_, s, err := p.SignIn(ctx, visitor, alice, []byte(good))
	if !errors.Is(err, identity.ErrNeedsInvitation) || s.ID != 0 {
		t.Errorf("without a factor: %+v, %v", s, err)
	}
	p.enrol(p.invited(a.ID, identity.NewFactor, good))
	p.signIn(alice, good)
}

// A root key can be retired once all is sealed again, and all of it opens then. Sign-ins move what they use.
func TestRootKeysCanBeRetired(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	k := newKey()
	in := p.addKey(p.signedUp(alice), k)
	codes, _ := p.RenewRecoveryCodes(ctx, visitor, in.Session)
	want(t, "a backend's password", p.accounts.StoreBackendPassword(ctx, in.Account, "mail", []byte("secret")), nil)
	device := p.Device(in.Session)
	rows := func() int { use, _ := p.store.KeyUse(ctx); return use[1] }
	if n := rows(); n != 1+2+10+1 {
		t.Errorf("%d rows need the key, want 14", n)
	}
	if n, err := p.accounts.Reseal(ctx, 1); n != 0 || err != nil {
		t.Errorf("with one key: %d, %v", n, err)
	}
	both, err := p.keys.Add()
	if err != nil {
		t.Fatal(err)
	}
	p.accounts.SetKeys(both)
	p.again(in)
	if n := rows(); n != 12 {
		t.Errorf("%d rows need the key after a sign-in, want 12", n)
	}
	if n, err := p.accounts.Reseal(ctx, 1); n != 12 || err != nil {
		t.Errorf("Reseal = %d, %v", n, err)
	}
	want(t, "CanRetire", p.accounts.CanRetire(ctx, 1), nil)
	newest, err := both.Without(1)
	if err != nil {
		t.Fatal(err)
	}
	p.accounts.SetKeys(newest)
	p.again(in)
	_, _, err = p.GiveCode(ctx, visitor, p.signIn(alice, good).Session, codes[0])
	want(t, "a recovery code", err, nil)
	c := p.ask(nil)
	_, _, err = p.GivePasskey(ctx, visitor, nil, c.State, k.answer(t, c))
	want(t, "a passkey", err, nil)
	if b, err := p.accounts.BackendPassword(ctx, in.Account, "mail"); string(b) != "secret" || err != nil {
		t.Errorf("a backend's password: %q, %v", b, err)
	}
	v := visitor
	v.Device = device
	_, _, err = p.SignIn(ctx, v, alice, []byte(good))
	want(t, "a device's cookie of the key that is gone", err, nil)
}

// What is sealed opens in its own row alone.
func TestRowsCantBeExchanged(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	in, eve := p.signedUp(alice), p.signedUp("eve@example.test")
	hers, err := p.store.Person(ctx, eve.Account)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.store.Act(ctx, tester, in.Account, func(tx identity.Tx) error { return tx.SetPrimary(ctx, hers.Primary, p.clock()) }); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.SignIn(ctx, visitor, alice, []byte(good)); err == nil || errors.Is(err, identity.ErrWrong) {
		t.Errorf("with another account's row: %v", err)
	}
}

// A hash that was made at another price is made anew with the next sign-in.
func TestAnOlderHashIsMadeAnew(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	id := p.signedUp(alice).Account
	older, err := argon2id.CreateHash(good, &argon2id.Params{Memory: 32, Iterations: 1, Parallelism: 1, SaltLength: 16, KeyLength: 32})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := p.keys.SealRow(1, []byte(older), fmt.Sprintf("primary_password/%d/%d", id, id))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.store.Act(ctx, tester, id, func(tx identity.Tx) error {
		return tx.SetPrimary(ctx, identity.Sealed{Key: 1, Value: sealed}, p.clock())
	}); err != nil {
		t.Fatal(err)
	}
	kept := func() []byte {
		of, err := p.store.Person(ctx, id)
		want(t, "Person", err, nil)
		return of.Primary.Value
	}
	p.signIn(alice, good)
	anew := kept()
	if bytes.Equal(anew, sealed) {
		t.Error("the older hash is kept")
	}
	p.signIn(alice, good)
	if !bytes.Equal(anew, kept()) {
		t.Error("the new hash is not")
	}
}
