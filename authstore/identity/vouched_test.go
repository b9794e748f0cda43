package identity_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
)

const provider = "https://id.example.test"

// vouched is a place whose people sign in at a provider.
func vouched(t *testing.T, change func(*identity.Options)) *place {
	t.Helper()
	return newPlace(t, func(o *identity.Options) {
		o.Vouched = true
		if change != nil {
			change(o)
		}
	})
}

func claims(subject string, addresses ...string) identity.Claims {
	return identity.Claims{Issuer: provider, Subject: subject, SID: "s-" + subject, Addresses: addresses}
}

// with is claims of somebody who gave a second factor there.
func (p *place) with(c identity.Claims) identity.Claims {
	c.Factor, c.At = true, p.clock()
	return c
}

func (p *place) from(c identity.Claims) session {
	p.t.Helper()
	t, s, err := p.SignInFrom(ctx, visitor, c)
	if err != nil {
		p.t.Fatalf("SignInFrom(%+v): %v", c, err)
	}
	return session{Session: s, token: t}
}

// meddling is a store in which something happens between a question and the next.
type meddling struct {
	identity.Truth
	tied func() // before each question about a tie
}

func (m *meddling) PersonTied(ctx context.Context, issuer, subject string) (identity.Person, error) {
	if m.tied != nil {
		m.tied()
	}
	return m.Truth.PersonTied(ctx, issuer, subject)
}

// Of two newcomers who share an address, the one whose main one it is comes while it becomes the other's alias: he gets nothing that is the other's.
func TestAnAddressThatBecomesAnAliasMeanwhile(t *testing.T) {
	t.Parallel()
	m := new(meddling)
	p := vouched(t, func(o *identity.Options) {
		m.Truth, o.Truth, o.Provision.Domains = o.Truth, m, []string{"example.test"}
	})
	var bob authstore.Account
	asked := 0
	m.tied = func() {
		if asked++; asked == 2 { // he was not found by his address, and is about to be made
			bob = p.account("bob@example.test")
			if _, err := p.accounts.AddAlias(ctx, bob.ID, "choir@example.test"); err != nil {
				t.Error(err)
			}
		}
	}
	_, _, err := p.SignInFrom(ctx, visitor, p.with(claims("c", "choir@example.test")))
	want(t, "the other", err, identity.ErrTied)
	if asked != 2 {
		t.Fatalf("asked %d times", asked)
	}
	if of, err := p.store.Person(ctx, bob.ID); err != nil || len(of.Ties) != 0 {
		t.Errorf("bob's account is bound to %+v, %v", of.Ties, err)
	}
}

// A tag leads to somebody's mailbox, but who receives what is sent there need not be him.
func TestAVouchedAddressWithATag(t *testing.T) {
	t.Parallel()
	p := vouched(t, func(o *identity.Options) { o.Names.PlusAddresses, o.Provision.Domains = true, []string{"example.test"} })
	a := p.account(alice)
	for _, addresses := range [][]string{{"alice+choir@example.test"}, {"ALICE+choir@example.test"}, {"alice\uff0bchoir@example.test"}, {"@", "alice+x@example.test"}} {
		_, _, err := p.SignInFrom(ctx, visitor, p.with(claims("c", addresses...)))
		want(t, fmt.Sprintf("%q", addresses), err, identity.ErrNobody)
	}
	s := p.from(p.with(claims("d", "dave@example.test", "alice+y@example.test")))
	if d, err := p.accounts.Get(ctx, "dave@example.test"); err != nil || s.Account != d.ID || len(d.Names) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	if s := p.from(p.with(claims("a", alice))); s.Account != a.ID {
		t.Errorf("alice gets account %d", s.Account)
	}
}

func TestWhoIsVouchedFor(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		claims identity.Claims
		want   error
		names  string // of the account; empty: none is made
	}{
		"bound, with other addresses": {claims("a", "new@example.test"), nil, alice},
		"bound, without an address":   {claims("a"), nil, alice},
		"his address":                 {claims("b", "bob@example.test"), nil, "bob@example.test robert@example.test"},
		"one of his addresses":        {claims("b", "nobody@example.net", "robert@example.test"), nil, "bob@example.test robert@example.test"},
		"an address in capitals":      {claims("b", "BOB@Example.test"), nil, "bob@example.test robert@example.test"},
		"somebody else's address":     {claims("b", alice), identity.ErrTied, ""},
		"suspended":                   {claims("c", "carol@example.test"), identity.ErrSuspended, ""},
		"nobody":                      {claims("d", "dave@example.net"), identity.ErrNobody, ""},
		"nobody, without an address":  {claims("d"), identity.ErrNobody, ""},
		"what is no address":          {claims("d", "@", "a\x00b@example.test", ""), identity.ErrNobody, ""},
		"new, of a domain":            {claims("d", "dave@example.org", "david@example.org", alice), nil, "dave@example.org david@example.org"},
		"new, by an alias's domain":   {claims("d", "dave@example.net", "dave@example.org"), identity.ErrNobody, ""},
		"another issuer":              {identity.Claims{Issuer: "https://evil.example.test", Subject: "a"}, identity.ErrNobody, ""},
		"no subject":                  {claims("", alice), identity.ErrNobody, ""},
		"no issuer":                   {identity.Claims{Subject: "a", Addresses: []string{alice}}, identity.ErrNobody, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := vouched(t, func(o *identity.Options) { o.Provision.Domains = []string{"example.org"} })
			p.account(alice)
			p.from(claims("a", alice))
			bob := p.account("bob@example.test")
			if _, err := p.accounts.AddAlias(ctx, bob.ID, "robert@example.test"); err != nil {
				t.Fatal(err)
			}
			if _, err := p.accounts.Suspend(ctx, p.account("carol@example.test").ID); err != nil {
				t.Fatal(err)
			}
			before, _ := p.accounts.List(ctx)
			tok, s, err := p.SignInFrom(ctx, visitor, tt.claims)
			want(t, "SignInFrom", err, tt.want)
			if tt.want != nil {
				after, _ := p.accounts.List(ctx)
				if tok != "" || s.ID != 0 || fmt.Sprint(before) != fmt.Sprint(after) || p.count(bob.ID, "tie.made") != 0 {
					t.Errorf("it left %+v, was %+v", after, before)
				}
				return
			}
			a, err := p.accounts.Get(ctx, s.Address)
			if err != nil || strings.Join(a.Names, " ") != tt.names || s.Stage != identity.AwaitsSetUp || s.Method != "provider" ||
				s.Issuer != provider || s.Subject != tt.claims.Subject || s.SID != tt.claims.SID || p.count(a.ID, "tie.made") != 1 {
				t.Errorf("account %+v, %v; session %+v", a, err, s)
			}
		})
	}
}

// An address of somebody who is bound goes to nobody else, and who has an account gets no other.
func TestAddressOfSomebodyBound(t *testing.T) {
	t.Parallel()
	p := vouched(t, nil)
	a, bob := p.account(alice), p.account("bob@example.test")
	p.from(claims("a", alice))
	_, _, err := p.SignInFrom(ctx, visitor, claims("b", alice))
	want(t, "somebody new with the address", err, identity.ErrTied)
	if s := p.from(claims("a", "bob@example.test")); s.Account != a.ID {
		t.Errorf("whose address is another's now signs in to account %d", s.Account)
	}
	if got, _ := p.accounts.Get(ctx, alice); strings.Join(got.Names, " ") != alice || p.count(bob.ID, "tie.made") != 0 {
		t.Errorf("claims changed names: %v", got.Names)
	}
}

func TestSecondFactorThere(t *testing.T) {
	t.Parallel()
	p := vouched(t, nil)
	p.account(alice)
	in := p.from(p.with(claims("a", alice)))
	if in.Stage != identity.SignedIn || in.Method != "provider factor" || !p.Fresh(in.Session) {
		t.Errorf("with a factor there: %+v", in.Session)
	}
	early := p.with(claims("a"))
	early.At = p.clock().Add(-time.Hour)
	if s := p.from(early); s.Stage != identity.SignedIn || p.Fresh(s.Session) || !s.FactorAt.Equal(early.At.UTC()) {
		t.Errorf("with one from an hour ago: %+v", s.Session)
	}
	unknown := claims("a")
	unknown.Factor = true
	if s := p.from(unknown); s.Stage != identity.SignedIn || p.Fresh(s.Session) {
		t.Errorf("with one from nobody knows when: %+v", s.Session)
	}
	ahead := p.with(claims("a"))
	ahead.At = p.clock().Add(time.Hour)
	if s := p.from(ahead); s.FactorAt.After(p.clock()) {
		t.Errorf("with one from the future: %+v", s.Session)
	}
	// whoever has the password there alone can't set up another factor here
	_, _, err := p.SignInFrom(ctx, visitor, claims("a"))
	want(t, "without the factor there", err, identity.ErrFactorThere)
	s := p.enrol(in)
	if half := p.from(claims("a")); half.Stage != identity.AwaitsFactor {
		t.Errorf("without the factor there, with one here: %+v", half.Session)
	} else {
		p.pass(time.Minute)
		_, got, err := p.GiveCode(ctx, visitor, half.Session, p.code(s.seed))
		if err != nil || got.Stage != identity.SignedIn || got.Method != "provider totp" || got.Issuer != provider || got.SID != "s-a" {
			t.Errorf("with the code: %+v, %v", got, err)
		}
	}
}

func TestFreshFactorThere(t *testing.T) {
	t.Parallel()
	p := vouched(t, nil)
	p.account(alice)
	p.account("bob@example.test")
	p.from(p.with(claims("b", "bob@example.test")))
	in := p.from(p.with(claims("a", alice)))
	p.pass(time.Hour / 4)
	since := p.clock()
	p.pass(time.Minute)
	old := p.with(claims("a"))
	old.At = since.Add(-2 * time.Minute)
	ahead := old
	ahead.At = p.clock().Add(2 * time.Minute)
	elsewhere := p.with(claims("a"))
	elsewhere.Issuer = "https://other.example.test"
	unknown := claims("a")
	unknown.Factor = true
	without := claims("a")
	without.At = p.clock()
	for name, tt := range map[string]struct {
		claims identity.Claims
		want   error
	}{
		"somebody else": {p.with(claims("b")), identity.ErrTied}, "a stranger": {p.with(claims("c", alice)), identity.ErrTied},
		"another issuer": {elsewhere, identity.ErrTied}, "nobody": {p.with(claims("")), identity.ErrTied},
		"no factor": {without, identity.ErrNotAgain}, "an old one": {old, identity.ErrNotAgain},
		"one from the future": {ahead, identity.ErrNotAgain}, "nobody knows when": {unknown, identity.ErrNotAgain},
	} {
		_, _, err := p.GiveClaims(ctx, visitor, in.Session, tt.claims, since)
		want(t, name, err, tt.want)
		if s, err := p.Session(ctx, visitor, in.token); err != nil || p.Fresh(s) {
			t.Errorf("%s: the session is %+v, %v", name, s, err)
		}
	}
	again := p.with(claims("a"))
	again.SID = "another"
	tok, s, err := p.GiveClaims(ctx, visitor, in.Session, again, since)
	if err != nil || !p.Fresh(s) || tok == in.token || s.ID != in.ID || s.SID != "another" {
		t.Fatalf("GiveClaims = %+v, %v", s, err)
	}
	p.dead("the old token", in.token)
	if n, err := p.End(ctx, visitor, identity.Ending{Issuer: provider, SID: "another", ID: "1", Until: p.clock()}); n != 1 || err != nil {
		t.Errorf("by the new name of the session there: %d, %v", n, err)
	}
}

// Where another server vouches there is no other way in.
func TestNoOtherWayIn(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	in := p.signedUp(alice)
	link, _, err := p.Invite(ctx, tester, in.Account, identity.Begin)
	if err != nil {
		t.Fatal(err)
	}
	passkey, err := p.Ask(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	// from now on
	now, err := identity.New(identity.Options{Truth: p.store, Accounts: p.accounts, Keys: p.accounts.Keyring, Site: site, Now: p.clock, RefusalDelay: -1, Vouched: true})
	if err != nil {
		t.Fatal(err)
	}
	if now.KeepsPrimary() || !now.Vouched() || p.Vouched() {
		t.Error("primary passwords are kept here")
	}
	_, _, err = now.SignIn(ctx, visitor, alice, []byte(good))
	want(t, "the primary password", err, identity.ErrVouched)
	_, _, err = now.Invite(ctx, tester, in.Account, identity.NewFactor)
	want(t, "an invitation", err, identity.ErrVouched)
	_, err = now.Invitation(ctx, link)
	want(t, "an old invitation's page", err, identity.ErrNoInvitation)
	_, _, err = now.Accept(ctx, visitor, link, []byte(better))
	want(t, "an old invitation", err, identity.ErrNoInvitation)
	_, err = now.Ask(ctx, nil)
	want(t, "a passkey", err, identity.ErrVouched)
	_, _, err = now.GivePasskey(ctx, visitor, nil, passkey.State, []byte("{}"))
	want(t, "a passkey that was asked for before", err, identity.ErrVouched)
	_, _, _, err = now.ChangePrimary(ctx, visitor, in.Session, []byte(good), []byte(better))
	want(t, "another primary password", err, identity.ErrForeignPrimary)
	_, _, err = p.SignInFrom(ctx, visitor, claims("a", alice))
	want(t, "somebody vouched for, where nobody vouches", err, identity.ErrNobody)
	if s, err := now.Session(ctx, visitor, in.token); err != nil {
		t.Errorf("a session from before: %v", err)
	} else if _, _, err := now.GiveClaims(ctx, visitor, s, p.with(claims("a", alice)), p.clock()); !errors.Is(err, identity.ErrTied) {
		t.Errorf("a factor there for a session from here: %v", err)
	}
}

func TestDialogue(t *testing.T) {
	t.Parallel()
	p := vouched(t, nil)
	p.account(alice)
	in, other := p.from(p.with(claims("a", alice))), p.from(p.with(claims("a", alice)))
	words := 0
	seal := func(s *identity.Session) string {
		words++ // what is sealed is never the same twice
		sealed, err := p.SealDialogue(ctx, s, fmt.Sprint("word", words))
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	open := func(s *identity.Session, sealed string) error {
		data := ""
		err := p.OpenDialogue(ctx, visitor, s, sealed, &data)
		if err == nil && !strings.HasPrefix(data, "word") {
			t.Errorf("it holds %q", data)
		}
		return err
	}
	sealed := seal(nil)
	if strings.Contains(sealed, "word") {
		t.Error("it is open")
	}
	want(t, "for a session", open(&in.Session, sealed), identity.ErrWrongCode)
	want(t, "changed", open(nil, sealed[:len(sealed)-2]+"AA"), identity.ErrWrongCode)
	want(t, "the first time", open(nil, sealed), nil)
	want(t, "the second time", open(nil, sealed), identity.ErrWrongCode)
	sealed = seal(&in.Session)
	want(t, "for nobody", open(nil, sealed), identity.ErrWrongCode)
	want(t, "for another session", open(&other.Session, sealed), identity.ErrWrongCode)
	want(t, "for the session", open(&in.Session, sealed), nil)
	sealed = seal(nil)
	p.pass(10 * time.Minute)
	want(t, "too late", open(nil, sealed), identity.ErrWrongCode)
	n := 0
	for ; n < 100 && open(nil, seal(nil)) == nil; n++ {
	}
	if err := open(nil, seal(nil)); n < 10 || n > 40 || !isTooMany(err) {
		t.Errorf("after %d of them: %v", n, err)
	}
	if err := p.ExcuseDialogue(ctx, visitor); err != nil || open(nil, seal(nil)) != nil {
		t.Errorf("excused: %v", err)
	}
	for range 100 { // who gets in costs nothing
		p.ExcuseDialogue(ctx, visitor)
		want(t, "a dialogue", open(nil, seal(nil)), nil)
		p.from(p.with(claims("a")))
	}
}

func TestSessionsThatEndedThere(t *testing.T) {
	t.Parallel()
	p := vouched(t, nil)
	a, bob := p.account(alice), p.account("bob@example.test")
	in := func(subject, sid string) session {
		c := p.with(claims(subject, map[string]string{"a": alice, "b": "bob@example.test"}[subject]))
		c.SID = sid
		return p.from(c)
	}
	one, two, three := in("a", "1"), in("a", "2"), in("b", "1")
	p.password(a.ID)
	end := func(id, subject, sid string) int {
		n, err := p.End(ctx, visitor, identity.Ending{Issuer: provider, Subject: subject, SID: sid, ID: id, Until: p.clock().Add(time.Minute)})
		if err != nil {
			t.Errorf("End: %v", err)
		}
		return n
	}
	alive := func(s session) bool {
		_, err := p.Session(ctx, visitor, s.token)
		return err == nil
	}
	if n := end("x", "nobody", ""); n != 0 {
		t.Errorf("of nobody: %d", n)
	}
	if n := end("y", "b", "2"); n != 0 || !alive(two) || !alive(three) {
		t.Errorf("of one person and another's session: %d", n)
	}
	if n := end("z", "a", "1"); n != 1 || alive(one) || !alive(two) || !alive(three) {
		t.Errorf("of one session: %d", n)
	}
	_, err := p.End(ctx, visitor, identity.Ending{Issuer: provider, Subject: "a", ID: "z", Until: p.clock().Add(time.Minute)})
	want(t, "said again", err, identity.ErrWrongCode)
	if !alive(two) {
		t.Error("what was said before counted again")
	}
	if n := end("u", "", "1"); n != 1 || alive(three) {
		t.Errorf("by the session alone: %d", n)
	}
	if n := end("v", "a", ""); n != 1 || alive(two) {
		t.Errorf("of one person: %d", n)
	}
	if n, err := p.End(ctx, visitor, identity.Ending{Issuer: "https://other.example.test", Subject: "a", ID: "z"}); n != 0 || err != nil {
		t.Errorf("elsewhere: %d, %v", n, err)
	}
	if p.active(a.ID) != 1 || p.count(a.ID, "portal.ended_there") != 2 || p.count(bob.ID, "portal.ended_there") != 1 {
		t.Errorf("%d app passwords, history %v", p.active(a.ID), p.kinds(a.ID))
	}
	events, _ := p.accounts.Events(ctx, authstore.EventQuery{Account: a.ID, Limit: 1})
	if events[0].Actor.Name != "provider" {
		t.Errorf("done by %q", events[0].Actor.Name)
	}
	n := 0
	for ; n < 200 && p.MayEnd(ctx, visitor) == nil; n++ {
	}
	if n < 30 || n > 100 {
		t.Errorf("%d were looked at", n)
	}
	p.pass(time.Minute)
	for i := range 100 { // what ends something costs nothing
		want(t, "MayEnd", p.MayEnd(ctx, visitor), nil)
		end(fmt.Sprint("w", i), "a", "")
	}
}

func TestBindAndUnbind(t *testing.T) {
	t.Parallel()
	p := vouched(t, nil)
	a, bob := p.account(alice), p.account("bob@example.test")
	wrong := p.from(p.with(claims("b", alice))) // somebody who had Alice's address
	_, err := identity.Bind(ctx, p.store, tester, bob.ID, provider, "b")
	want(t, "bound to another", err, identity.ErrTied)
	_, err = identity.Bind(ctx, p.store, tester, a.ID, provider, "a")
	want(t, "while it is another's", err, identity.ErrTied)
	if ended, err := identity.Unbind(ctx, p.store, tester, a.ID, provider); ended != 1 || err != nil {
		t.Errorf("Unbind ended %d, %v", ended, err)
	}
	p.dead("the wrong person's session", wrong.token)
	if ended, err := identity.Bind(ctx, p.store, tester, a.ID, provider, "a"); ended != 0 || err != nil {
		t.Errorf("Bind ended %d, %v", ended, err)
	}
	if s := p.from(p.with(claims("a"))); s.Account != a.ID {
		t.Errorf("bound, signs in to account %d", s.Account)
	}
	o, err := p.Overview(ctx, a.ID)
	if err != nil || len(o.Ties) != 1 || o.Ties[0].Subject != "a" {
		t.Errorf("Overview = %+v, %v", o, err)
	}
	if ended, err := identity.Unbind(ctx, p.store, tester, a.ID, provider); ended != 1 || err != nil {
		t.Errorf("Unbind ended %d, %v", ended, err)
	}
	_, err = identity.Unbind(ctx, p.store, tester, a.ID, provider)
	want(t, "unbound again", err, authstore.ErrNotFound)
	_, _, err = p.SignInFrom(ctx, visitor, p.with(claims("a")))
	want(t, "unbound, without an address", err, identity.ErrNobody)
	_, err = identity.Bind(ctx, p.store, tester, 99, provider, "c")
	want(t, "an account that is none", err, authstore.ErrNotFound)
	if kinds := p.kinds(a.ID); !slices.Contains(kinds, "tie.removed") || p.count(a.ID, "tie.made") != 2 {
		t.Errorf("history %v", kinds)
	}
}
