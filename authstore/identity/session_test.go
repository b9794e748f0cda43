package identity_test

import (
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
)

// A session may do what its stage allows, and nothing else, whatever the page believes of it.
func TestStages(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	in := p.signedUp(alice)
	setUp := p.invited(p.account("bob@example.test").ID, identity.Begin, good)
	p.pass(6 * time.Minute)
	half := p.signIn(alice, good)
	gone := p.signIn(alice, good)
	want(t, "SignOut", p.SignOut(ctx, visitor, gone.Session), nil)
	forged := half.Session
	forged.Stage, forged.FactorAt = identity.SignedIn, p.clock()
	stolen := half.Session
	stolen.Account = setUp.Account

	type does = func(s identity.Session) error
	fresh := map[string]does{
		"EndSession": func(s identity.Session) error { return p.EndSession(ctx, visitor, s, in.ID) },
		"EndOthers":  func(s identity.Session) error { return p.EndOthers(ctx, visitor, s) },
		"RemoveFactor": func(s identity.Session) error {
			return p.RemoveFactor(ctx, visitor, s, 1)
		},
		"RenewRecoveryCodes": func(s identity.Session) error { _, err := p.RenewRecoveryCodes(ctx, visitor, s); return err },
		"ChangePrimary": func(s identity.Session) error {
			_, _, _, err := p.ChangePrimary(ctx, visitor, s, []byte(good), []byte(better))
			return err
		},
	}
	adds := map[string]does{
		"EnrolTOTP":  func(s identity.Session) error { _, err := p.EnrolTOTP(ctx, s); return err },
		"AskNew":     func(s identity.Session) error { _, err := p.AskNew(ctx, s); return err },
		"AddTOTP":    func(s identity.Session) error { _, _, err := p.AddTOTP(ctx, visitor, s, "", "", "x"); return err },
		"AddPasskey": func(s identity.Session) error { _, _, err := p.AddPasskey(ctx, visitor, s, "", nil, "x"); return err },
	}
	signedIn := map[string]does{
		"Sessions":       func(s identity.Session) error { _, err := p.Sessions(ctx, s); return err },
		"RenameFactor":   func(s identity.Session) error { return p.RenameFactor(ctx, visitor, s, 1, "x") },
		"SetPreferences": func(s identity.Session) error { return p.SetPreferences(ctx, s, "en", "") },
	}
	proves := map[string]does{
		"GiveCode":    func(s identity.Session) error { _, _, err := p.GiveCode(ctx, visitor, s, "123456"); return err },
		"Ask":         func(s identity.Session) error { _, err := p.Ask(ctx, &s); return err },
		"GivePasskey": func(s identity.Session) error { _, _, err := p.GivePasskey(ctx, visitor, &s, "", nil); return err },
	}
	check := func(who string, s identity.Session, err error, sets ...map[string]does) {
		t.Helper()
		for _, set := range sets {
			for name, do := range set {
				want(t, name+" by "+who, do(s), err)
			}
		}
	}
	check("one that awaits its factor", half.Session, identity.ErrStepUp, fresh, adds, signedIn)
	check("one that says it is signed in", forged, identity.ErrStepUp, fresh, adds, signedIn)
	check("one that awaits the set-up", setUp.Session, identity.ErrStepUp, fresh, signedIn, proves)
	check("one that is not fresh", in.Session, identity.ErrStepUp, fresh, adds)
	check("one that has ended", gone.Session, identity.ErrNoSession, fresh, adds, signedIn, proves)
	check("one with another account's number", stolen, identity.ErrNoSession, fresh, adds, signedIn, proves)
	check("none", identity.Session{}, identity.ErrNoSession, fresh, adds, signedIn, proves)
	if list, err := p.Sessions(ctx, in.Session); err != nil || len(list) != 1 || list[0].ID != in.ID {
		t.Errorf("Sessions = %+v, %v", list, err)
	}
}

func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	p := newPlace(t, func(o *identity.Options) { o.Idle, o.Absolute = 20*time.Minute, time.Hour })
	in := p.signedUp(alice)
	half := p.signIn(alice, good)
	setUp := p.invited(p.account("bob@example.test").ID, identity.Begin, good)
	at := func(after time.Duration, t identity.Token) error {
		p.pass(after)
		defer p.pass(-after)
		_, err := p.Session(ctx, visitor, t)
		return err
	}
	want(t, "the factor, in time", at(10*time.Minute-time.Second, half.token), nil)
	want(t, "the factor, too late", at(10*time.Minute, half.token), identity.ErrNoSession)
	want(t, "the set-up, in time", at(time.Hour-time.Second, setUp.token), nil)
	want(t, "the set-up, too late", at(time.Hour, setUp.token), identity.ErrNoSession)
	want(t, "idle", at(20*time.Minute, in.token), identity.ErrNoSession)
	for range 3 {
		p.pass(19 * time.Minute)
		if s, err := p.Session(ctx, visitor, in.token); err != nil || !s.Seen.Equal(p.clock()) {
			t.Fatalf("seen: %+v, %v", s, err)
		}
	}
	want(t, "in use, in time", at(3*time.Minute-time.Second, in.token), nil)
	want(t, "in use, too late", at(3*time.Minute, in.token), identity.ErrNoSession)

	other := p.signIn(alice, good)
	p.pass(30 * time.Second)
	_, other.Session, _ = p.GiveCode(ctx, visitor, other.Session, p.code(in.seed))
	p.pass(3 * time.Minute)
	want(t, "Prune", p.Prune(ctx), nil)
	for what, tt := range map[string]struct {
		id   identity.SessionID
		want error
	}{"the one that was too old": {in.ID, authstore.ErrNotFound}, "the one before the factor": {half.ID, authstore.ErrNotFound}, "the live one": {other.ID, nil}} {
		_, err := p.store.SessionNumbered(ctx, tt.id)
		want(t, what+" after Prune", err, tt.want)
	}
}

func TestEndingSessions(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	one := p.signedUp(alice)
	two, three := p.again(one), p.again(one)
	bob := p.signedUp("bob@example.test")
	want(t, "another account's", p.EndSession(ctx, visitor, one.Session, bob.ID), authstore.ErrNotFound)
	want(t, "EndSession", p.EndSession(ctx, visitor, two.Session, three.ID), nil)
	p.dead("ended", three.token)
	if list, err := p.Sessions(ctx, two.Session); err != nil || len(list) != 2 || list[0].ID != two.ID {
		t.Errorf("Sessions = %+v, %v", list, err)
	}
	want(t, "EndOthers", p.EndOthers(ctx, visitor, two.Session), nil)
	p.dead("ended with the others", one.token)
	if _, err := p.Session(ctx, visitor, two.token); err != nil {
		t.Errorf("the one that stays: %v", err)
	}
	want(t, "removing the account", func() error { _, err := p.accounts.Remove(ctx, one.Account); return err }(), nil)
	p.dead("of an account that is gone", two.token)
}

// again signs in once more.
func (p *place) again(as session) session {
	p.t.Helper()
	p.pass(30 * time.Second)
	half := p.signIn(as.Address, good)
	t, s, err := p.GiveCode(ctx, visitor, half.Session, p.code(as.seed))
	if err != nil {
		p.t.Fatalf("GiveCode: %v", err)
	}
	return session{s, t, as.seed}
}

func TestPreferences(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	in := p.signedUp(alice)
	for _, wrong := range [][2]string{{"xx-", ""}, {"", "Local"}, {"", "../etc/passwd"}, {"", "Mars/Base"}, {"", "Europe/Berlin\x00"}} {
		want(t, wrong[0]+" "+wrong[1], p.SetPreferences(ctx, in.Session, wrong[0], wrong[1]), identity.ErrPreference)
	}
	want(t, "SetPreferences", p.SetPreferences(ctx, in.Session, "en", "America/New_York"), nil)
	if s := p.again(in); s.Language != "en" || s.Zone != "America/New_York" {
		t.Errorf("after another sign-in: %q, %q; what was chosen stays", s.Language, s.Zone)
	}
}
