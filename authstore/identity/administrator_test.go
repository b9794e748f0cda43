package identity_test

import (
	"strings"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
)

// administrator is somebody who is signed in and may administer.
func (p *place) administrator(address string) session {
	p.t.Helper()
	in := p.signedUp(address)
	if _, err := p.accounts.SetAdmin(ctx, in.Account, true); err != nil {
		p.t.Fatal(err)
	}
	s, err := p.Session(ctx, visitor, in.token)
	if err != nil || !s.Admin {
		p.t.Fatalf("%+v, %v", s, err)
	}
	in.Session = s
	return in
}

// Second factors that are reset are gone with the recovery codes, the sessions and the link; what was set up before lets nobody in.
func TestResetFactors(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	root, in, bob := p.administrator("root@example.test"), p.signedUp(alice), p.signedUp("bob@example.test")
	p.password(in.Account)
	if _, err := p.RenewRecoveryCodes(ctx, visitor, in.Session); err != nil {
		t.Fatal(err)
	}
	link, _, err := p.Invite(ctx, tester, in.Account, identity.NewFactor)
	if err != nil {
		t.Fatal(err)
	}
	who := p.Administrator(visitor, root.Session)
	if err := p.ResetFactors(ctx, who, in.Account); err != nil {
		t.Fatal(err)
	}
	p.dead("the session", in.token)
	if _, err := p.Invitation(ctx, link); err == nil {
		t.Error("the link is good still")
	}
	o, err := p.Overview(ctx, in.Account)
	if err != nil || len(o.Factors.List)+o.Factors.Recovery+len(o.Sessions) > 0 || !o.Primary || p.active(in.Account) != 1 {
		t.Errorf("left: %+v, %v; %d app passwords", o, err, p.active(in.Account))
	}
	_, _, err = p.SignIn(ctx, visitor, alice, []byte(good))
	want(t, "the primary password alone", err, identity.ErrNeedsInvitation)
	events, _ := p.accounts.Events(ctx, authstore.EventQuery{Account: in.Account, Kinds: []string{"factors.reset"}})
	if len(events) != 1 || events[0].Actor.Name != "admin:root@example.test" || events[0].Actor.Client != visitor.Client || events[0].Actor.Agent != aBrowser {
		t.Errorf("the history: %+v", events)
	}
	if _, err := p.Session(ctx, visitor, bob.token); err != nil {
		t.Errorf("another's session: %v", err)
	}
	want(t, "nobody's", p.ResetFactors(ctx, who, 99), authstore.ErrNotFound)
}

// Where the first who knows the primary password sets up, the next sign-in does.
func TestResetFactorsWithoutInvitations(t *testing.T) {
	t.Parallel()
	p := newPlace(t, func(o *identity.Options) { o.Checker = &mailServer{password: good} })
	a := p.account(alice)
	p.enrol(p.signIn(alice, good))
	if err := p.ResetFactors(ctx, tester, a.ID); err != nil || p.ByInvitation() {
		t.Fatalf("%v, by invitation: %v", err, p.ByInvitation())
	}
	if s := p.signIn(alice, good); s.Stage != identity.AwaitsSetUp {
		t.Errorf("the stage is %d", s.Stage)
	}
}

// What was begun in an administrator's session is refused with the write lock held, once that or the role is gone.
func TestAdministratorsLateActs(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		end  func(*place, session)
		want error
	}{
		"signed out":     {func(p *place, s session) { p.SignOut(ctx, visitor, s.Session) }, authstore.ErrSignedOut},
		"suspended":      {func(p *place, s session) { p.accounts.Suspend(ctx, s.Account) }, authstore.ErrSignedOut},
		"no more a role": {func(p *place, s session) { p.accounts.SetAdmin(ctx, s.Account, false) }, authstore.ErrNotAdministrator},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, nil)
			root, in := p.administrator("root@example.test"), p.signedUp(alice)
			app := p.password(in.Account)
			who := p.Administrator(visitor, root.Session)
			tt.end(p, root)
			before := strings.Join(p.kinds(in.Account), " ")
			accounts := p.accounts.As(who)
			want(t, "reset", p.ResetFactors(ctx, who, in.Account), tt.want)
			_, err := p.SignOutAll(ctx, who, in.Account)
			want(t, "sign out", err, tt.want)
			_, _, err = p.Invite(ctx, who, in.Account, identity.Begin)
			want(t, "invite", err, tt.want)
			_, err = accounts.Suspend(ctx, in.Account)
			want(t, "suspend", err, tt.want)
			_, err = accounts.Revoke(ctx, app.ID, "")
			want(t, "revoke", err, tt.want)
			_, _, err = accounts.RevokeAllOf(ctx, []authstore.AccountID{in.Account}, "", time.Second)
			want(t, "revoke all of several", err, tt.want)
			if after := strings.Join(p.kinds(in.Account), " "); after != before {
				t.Errorf("the history is %s and was %s", after, before)
			}
			if _, err := p.Session(ctx, visitor, in.token); err != nil {
				t.Errorf("the person's session: %v", err)
			}
		})
	}
}

// A link that was made at the portal for somebody who is made an administrator afterwards is as good as one that was made for an administrator.
func TestLinksToNewAdministrators(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	root, in := p.administrator("root@example.test"), p.signedUp(alice)
	link := func(who authstore.Actor) string {
		t.Helper()
		secret, _, err := p.Invite(ctx, who, in.Account, identity.Begin)
		if err != nil {
			t.Fatal(err)
		}
		p.pass(time.Minute)
		return secret
	}
	hers := link(p.Administrator(visitor, root.Session))
	p.accounts.SetAdmin(ctx, in.Account, false)
	if _, err := p.Invitation(ctx, hers); err != nil {
		t.Errorf("of somebody who is none: %v", err)
	}
	p.accounts.SetAdmin(ctx, in.Account, true)
	_, err := p.Invitation(ctx, hers)
	want(t, "made at the portal", err, identity.ErrNoInvitation)
	p.accounts.SetAdmin(ctx, in.Account, false)
	mine := link(tester)
	p.accounts.SetAdmin(ctx, in.Account, true)
	if _, err := p.Invitation(ctx, mine); err != nil {
		t.Errorf("made on the command line: %v", err)
	}
}

// Administrators by account or group, and oneself: how these sign in is not made anew at the portal, but on the command line.
func TestAdministratorsAreNotRenewed(t *testing.T) {
	t.Parallel()
	p := newPlace(t, func(o *identity.Options) { o.AdminGroups = []string{"postmasters"} })
	root, other, member := p.administrator("root@example.test"), p.administrator("other@example.test"), p.signedUp(alice)
	p.bound(member.Account, "ldap", "a", "postmasters")
	who := p.Administrator(visitor, root.Session)
	for _, id := range []authstore.AccountID{root.Account, other.Account, member.Account} {
		want(t, "reset", p.ResetFactors(ctx, who, id), identity.ErrAdministrators)
		_, _, err := p.Invite(ctx, who, id, identity.NewFactor)
		want(t, "invite", err, identity.ErrAdministrators)
		if _, _, err := p.Invite(ctx, tester, id, identity.NewFactor); err != nil {
			t.Errorf("on the command line: %v", err)
		}
	}
}
