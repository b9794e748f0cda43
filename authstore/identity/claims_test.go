package identity_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
)

// directory is a server that tells whom a password belongs to.
func directory(subject string, groups ...string) *mailServer {
	return &mailServer{password: good, claims: identity.Claims{Issuer: "ldap", Subject: subject, Groups: groups}}
}

func TestAnAddressThatWasGivenToSomebodyNew(t *testing.T) {
	t.Parallel()
	m := directory("a")
	p := newPlace(t, func(o *identity.Options) { o.Checker = m })
	a := p.account(alice)
	in := p.enrol(p.signIn(alice, good))
	p.password(a.ID)
	if n := p.count(a.ID, "tie.made"); n != 1 {
		t.Errorf("told %d times", n)
	}
	m.claims.Subject = "b"
	_, _, err := p.SignIn(ctx, visitor, alice, []byte(good))
	want(t, "another person with the address", err, identity.ErrTied)
	m.claims.Subject = "a"
	bob := p.account("bob@example.test")
	m.login = "bob@example.test"
	_, _, err = p.SignIn(ctx, visitor, "bob@example.test", []byte(good))
	want(t, "a person who has another account", err, identity.ErrTied)
	if p.active(a.ID) != 1 || p.count(bob.ID, "tie.made") != 0 {
		t.Error("something was changed")
	}
	if _, err := p.Session(ctx, visitor, in.token); err != nil {
		t.Errorf("the session: %v", err)
	}
}

func TestPrimaryThatTheDirectorySaysWasChanged(t *testing.T) {
	t.Parallel()
	m := directory("a")
	p := newPlace(t, func(o *identity.Options) { o.Checker = m })
	a := p.account(alice)
	in := p.enrol(p.signIn(alice, good))
	at := p.clock()
	for i, step := range []struct {
		changed time.Time
		ends    bool
	}{{at, false}, {at, false}, {at.Add(-time.Hour), false}, {time.Time{}, false}, {at.Add(time.Minute), true}, {at.Add(time.Minute), false}} {
		p.password(a.ID)
		ended, err := p.Heed(ctx, tester, a.ID, identity.Claims{Issuer: "ldap", Subject: "a", PrimaryChanged: step.changed})
		if err != nil || ended != step.ends || (p.active(a.ID) == 0) != step.ends {
			t.Errorf("step %d: ended %v, %v; %d are active", i, ended, err, p.active(a.ID))
		}
	}
	p.dead("the session", in.token)
	p.password(a.ID)
	m.claims.PrimaryChanged = at.Add(time.Hour)
	p.signIn(alice, good) // which tells it too
	if p.active(a.ID) != 0 || p.count(a.ID, "primary.changed") != 2 {
		t.Error("a sign-in told that it was changed, and nothing ended")
	}
	if _, err := p.Heed(ctx, tester, a.ID, identity.Claims{Issuer: "ldap", Subject: "b"}); !errors.Is(err, identity.ErrTied) {
		t.Errorf("of somebody else: %v", err)
	}
	if _, err := p.Heed(ctx, tester, 99, identity.Claims{Issuer: "ldap", Subject: "b"}); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
}

// bound binds an account to somebody elsewhere, who is in some groups.
func (p *place) bound(id authstore.AccountID, issuer, subject string, groups ...string) {
	p.t.Helper()
	_, err := identity.Bind(ctx, p.store, tester, id, issuer, subject)
	if err == nil {
		_, err = p.Heed(ctx, tester, id, identity.Claims{Issuer: issuer, Subject: subject, Groups: groups})
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// However it was heard of that the primary password was changed elsewhere: what was made since stays when its person comes with the new one.
func TestTheFirstSignInAfterAChangeElsewhere(t *testing.T) {
	t.Parallel()
	for name, hear := range map[string]func(*place, authstore.AccountID){
		"the directory looked into": func(p *place, id authstore.AccountID) {
			if ended, err := p.Heed(ctx, tester, id, identity.Claims{Issuer: "ldap", Subject: "a", PrimaryChanged: p.clock().Add(time.Minute)}); err != nil || !ended {
				t.Errorf("ended %v, %v", ended, err)
			}
		},
		"a program's word": func(p *place, id authstore.AccountID) {
			if _, _, err := identity.PrimaryChanged(ctx, p.store, p.accounts, p.KeepsPrimary(), tester, id); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := directory("a")
			p := newPlace(t, func(o *identity.Options) { o.Checker, o.OnePrimary = m, true })
			m.claims.PrimaryChanged = p.clock()
			a := p.account(alice)
			p.enrol(p.signIn(alice, good))
			p.password(a.ID)
			hear(p, a.ID)
			if p.active(a.ID) != 0 {
				t.Error("nothing was revoked")
			}
			made := p.password(a.ID) // an administrator's, say
			m.set(better, nil)
			m.claims.PrimaryChanged = p.clock().Add(time.Minute)
			if name == "a program's word" {
				m.claims.PrimaryChanged = p.clock()
			}
			p.signIn(alice, better)
			p.signIn(alice, better)
			if p.active(a.ID) != 1 || p.count(a.ID, "primary.changed") != 1 {
				t.Errorf("app password %d: %d are active; told %d times", made.ID, p.active(a.ID), p.count(a.ID, "primary.changed"))
			}
			m.set(good, nil) // and what follows counts as ever
			p.signIn(alice, good)
			if p.active(a.ID) != 0 || p.count(a.ID, "primary.changed") != 2 {
				t.Error("a further change ended nothing")
			}
		})
	}
}

// A primary password that is kept here is not forgotten by somebody's word that it was changed: its person must get in to change it.
func TestPrimaryThatIsKeptHereStays(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	in := p.signedUp(alice)
	if _, _, err := identity.PrimaryChanged(ctx, p.store, p.accounts, p.KeepsPrimary(), tester, in.Account); err != nil {
		t.Fatal(err)
	}
	if s := p.signIn(alice, good); s.Stage != identity.AwaitsFactor {
		t.Errorf("stage %d", s.Stage)
	}
}

// What a look has read is old when it is written down: who was unbound or signed in meanwhile is as he was.
func TestHeedingLate(t *testing.T) {
	t.Parallel()
	m := directory("a", "staff")
	p := newPlace(t, func(o *identity.Options) { o.Checker, o.Vouching, o.AdminGroups = m, "ldap", []string{"admins"} })
	a := p.account(alice)
	before := p.clock()
	p.pass(time.Minute)
	in := p.enrol(p.signIn(alice, good))
	late := identity.Claims{Issuer: "ldap", Subject: "a", Groups: []string{"staff", "admins"}, At: before}
	if _, err := p.Heed(ctx, tester, a.ID, late); err != nil {
		t.Fatal(err)
	}
	if s, err := p.Session(ctx, visitor, in.token); err != nil || s.Admin {
		t.Errorf("an administrator by what was read before the sign-in: %v, %v", s.Admin, err)
	}
	late.At = p.clock()
	if _, err := p.Heed(ctx, tester, a.ID, late); err != nil {
		t.Fatal(err)
	}
	if s, err := p.Session(ctx, visitor, in.token); err != nil || !s.Admin {
		t.Errorf("no administrator by what was read since: %v", err)
	}
	if _, err := identity.Unbind(ctx, p.store, tester, a.ID, "ldap"); err != nil {
		t.Fatal(err)
	}
	_, err := p.Heed(ctx, tester, a.ID, late)
	want(t, "of somebody who was unbound", err, identity.ErrTied)
	if of, err := p.store.Person(ctx, a.ID); err != nil || len(of.Ties) != 0 {
		t.Errorf("bound to %+v, %v", of.Ties, err)
	}
}

func TestPrimaryChangedElsewhere(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	in := p.signedUp(alice)
	p.password(in.Account)
	n, done, err := identity.PrimaryChanged(ctx, p.store, p.accounts, true, tester, in.Account)
	if n != 1 || done.Sequence == 0 || err != nil || p.active(in.Account) != 0 {
		t.Errorf("PrimaryChanged = %d, %+v, %v", n, done, err)
	}
	p.dead("the session", in.token)
	if _, _, err := identity.PrimaryChanged(ctx, p.store, p.accounts, true, tester, 99); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
}

func TestProvisioning(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		of     identity.Provisioning
		groups []string
		asked  bool
		want   error
	}{
		"nobody":                {identity.Provisioning{}, []string{"staff"}, false, identity.ErrWrong},
		"another domain":        {identity.Provisioning{Domains: []string{"example.org"}}, []string{"staff"}, false, identity.ErrWrong},
		"the domain":            {identity.Provisioning{Domains: []string{"Example.test"}}, nil, true, nil},
		"the group":             {identity.Provisioning{Groups: []string{"staff"}}, []string{"all", "staff"}, true, nil},
		"another group":         {identity.Provisioning{Groups: []string{"staff"}}, []string{"all"}, true, identity.ErrNobody},
		"domain, not group":     {identity.Provisioning{Domains: []string{"example.test"}, Groups: []string{"staff"}}, nil, true, nil},
		"neither domain nor ..": {identity.Provisioning{Domains: []string{"example.org"}, Groups: []string{"staff"}}, nil, true, identity.ErrNobody},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := directory("a", tt.groups...)
			p := newPlace(t, func(o *identity.Options) { o.Checker, o.Provision = m, tt.of })
			_, _, err := p.SignIn(ctx, visitor, alice, []byte("wrong"))
			want(t, "with a wrong password", err, identity.ErrWrong)
			if _, err := p.accounts.Get(ctx, alice); !errors.Is(err, authstore.ErrNotFound) {
				t.Fatalf("a wrong password made an account: %v", err)
			}
			if (m.asked == 1) != tt.asked {
				t.Errorf("asked %d times", m.asked)
			}
			_, s, err := p.SignIn(ctx, visitor, alice, []byte(good))
			want(t, "SignIn", err, tt.want)
			a, found := p.accounts.Get(ctx, alice)
			if (found == nil) != (tt.want == nil) || tt.want == nil && (s.Account != a.ID || s.Stage != identity.AwaitsSetUp || p.count(a.ID, "tie.made") != 1) {
				t.Errorf("account %+v, %v; session %+v", a, found, s)
			}
		})
	}
}

func TestAliasesOfWhoIsProvisioned(t *testing.T) {
	t.Parallel()
	m := directory("a")
	m.claims.Addresses = []string{"Al@example.test", "bob@example.test", alice, "al@example.org", "not an address"}
	p := newPlace(t, func(o *identity.Options) { o.Checker, o.Provision.Domains = m, []string{"example.test"} })
	p.account("bob@example.test")
	p.signIn(alice, good)
	a, err := p.accounts.Get(ctx, alice)
	if err != nil || !slices.Equal(a.Names, []string{alice, "al@example.test"}) {
		t.Errorf("names %q, %v", a.Names, err)
	}
	// a name that the other server takes for his, and that is none of his addresses
	m.claims.Subject, m.login = "c", "carol@example.test"
	m.claims.Addresses = []string{"someone@example.test"}
	_, _, err = p.SignIn(ctx, visitor, "carol@example.test", []byte(good))
	want(t, "a name that is none of the addresses", err, identity.ErrNobody)
}

func TestOneAccountForTwoFirstSignIns(t *testing.T) {
	t.Parallel()
	m := directory("a")
	p := newPlace(t, func(o *identity.Options) { o.Checker, o.Provision.Domains = m, []string{"example.test"} })
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, _, err := p.SignIn(ctx, visitor, alice, []byte(good)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	a, err := p.accounts.Get(ctx, alice)
	if err != nil || p.count(a.ID, "tie.made") != 1 {
		t.Errorf("%v, bound %d times", err, p.count(a.ID, "tie.made"))
	}
	// the same person under another name gets no second account
	m.login = "al@example.test"
	_, _, err = p.SignIn(ctx, visitor, "al@example.test", []byte(good))
	want(t, "under another name", err, identity.ErrTied)
	if _, err := p.accounts.Get(ctx, "al@example.test"); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("which made an account: %v", err)
	}
}

func TestAdministrators(t *testing.T) {
	t.Parallel()
	m := directory("a", "staff")
	p := newPlace(t, func(o *identity.Options) { o.Checker, o.Vouching, o.AdminGroups = m, "ldap", []string{"admins"} })
	a := p.account(alice)
	in := p.enrol(p.signIn(alice, good))
	is := func() bool {
		s, err := p.Session(ctx, visitor, in.token)
		if err != nil {
			t.Fatal(err)
		}
		return s.Admin
	}
	heed := func(groups ...string) {
		if _, err := p.Heed(ctx, tester, a.ID, identity.Claims{Issuer: "ldap", Subject: "a", Groups: groups}); err != nil {
			t.Fatal(err)
		}
	}
	for i, step := range []struct {
		do   func()
		want bool
	}{
		{func() {}, false},
		{func() { heed("staff", "admins") }, true},
		{func() { heed("staff") }, false},
		{func() { // who signs in at the directory is told of by that alone, whatever a provider once said
			if _, err := p.store.Act(ctx, tester, a.ID, func(tx identity.Tx) error {
				return tx.SetTie(ctx, identity.Tie{Issuer: provider, Subject: "a", Groups: []string{"admins"}, Seen: p.clock()})
			}); err != nil {
				t.Fatal(err)
			}
		}, false},
		{func() { p.accounts.SetAdmin(ctx, a.ID, true) }, true},
		{func() { p.accounts.SetAdmin(ctx, a.ID, false) }, false},
	} {
		if step.do(); is() != step.want {
			t.Errorf("step %d: %v", i, is())
		}
	}
}
