package identity_test

import (
	"bytes"
	"errors"
	"fmt"
	"image/png"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
)

func TestTOTP(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	in := p.signedUp(alice)
	p.pass(time.Minute)
	give := func(at time.Duration) error {
		half := p.signIn(alice, good)
		p.pass(at)
		code := p.code(in.seed)
		p.pass(-at)
		_, _, err := p.GiveCode(ctx, visitor, half.Session, code[:3]+" "+code[3:])
		return err
	}
	want(t, "a minute ahead", give(time.Minute), identity.ErrWrongCode)
	want(t, "the step before", give(-30*time.Second), nil)
	want(t, "the step before again", give(-30*time.Second), identity.ErrWrongCode)
	want(t, "this step", give(0), nil)
	p.pass(5 * time.Minute)
	want(t, "the step after", give(30*time.Second), nil)
	want(t, "this step, which is older", give(0), identity.ErrWrongCode)
	if n := p.count(in.Account, "factor.refused"); n != 3 {
		t.Errorf("%d lines of history of wrong codes, want 3", n)
	}
}

// A wrong second factor is an alarm where the browser is not known: whoever sits there knows the primary password.
func TestWrongFactorsAreTold(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	in := p.signedUp(alice)
	p.pass(time.Minute)
	wrong := wrongCode(p.code(in.seed))
	for _, tt := range []struct {
		device string
		kind   string
	}{{"", authstore.KindFactorRefused}, {p.Device(in.Session), "portal.sign_in_refused"}} {
		v := visitor
		v.Device = tt.device
		_, half, err := p.SignIn(ctx, v, alice, []byte(good))
		want(t, "SignIn", err, nil)
		_, _, err = p.GiveCode(ctx, v, half, wrong)
		want(t, "GiveCode", err, identity.ErrWrongCode)
		if events, _ := p.accounts.Events(ctx, authstore.EventQuery{Account: in.Account, Limit: 1}); events[0].Kind != tt.kind || events[0].Detail != "code" {
			t.Errorf("device %q: %+v, want %s", tt.device, events[0], tt.kind)
		}
	}
	_, _, err := p.GiveCode(ctx, visitor, in.Session, wrong) // a step-up of somebody who is signed in
	want(t, "GiveCode", err, identity.ErrWrongCode)
	if n := p.count(in.Account, authstore.KindFactorRefused); n != 1 {
		t.Errorf("%d alarms, want 1", n)
	}
}

func TestCodesAreCounted(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	in := p.signedUp(alice)
	p.pass(time.Minute)
	half := p.signIn(alice, good)
	wrong := wrongCode(p.code(in.seed))
	var judged atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, _, err := p.GiveCode(ctx, visitor, half.Session, wrong); errors.Is(err, identity.ErrWrongCode) {
				judged.Add(1)
			} else if !isTooMany(err) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if judged.Load() != 5 {
		t.Errorf("%d of 20 codes were judged, want 5", judged.Load())
	}
	if _, _, err := p.GiveCode(ctx, visitor, half.Session, p.code(in.seed)); !isTooMany(err) {
		t.Errorf("the right one then: %v", err)
	}
	p.pass(12 * time.Minute)
	half = p.signIn(alice, good)
	_, _, err := p.GiveCode(ctx, visitor, half.Session, p.code(in.seed))
	want(t, "twelve minutes later", err, nil)
}

func TestOneCodeManyTimes(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	in := p.signedUp(alice)
	codes, err := p.RenewRecoveryCodes(ctx, visitor, in.Session)
	if err != nil {
		t.Fatal(err)
	}
	p.pass(time.Minute)
	for what, tt := range map[string]struct {
		code string
		n    int
	}{"TOTP": {p.code(in.seed), 50}, "recovery": {codes[3], 100}} {
		var taken atomic.Int32
		var wg sync.WaitGroup
		halves := []session{p.signIn(alice, good), p.signIn(alice, good), p.signIn(alice, good)}
		for i := range tt.n {
			wg.Go(func() {
				_, _, err := p.GiveCode(ctx, visitor, halves[i%3].Session, tt.code)
				if err == nil {
					taken.Add(1)
				} else if !errors.Is(err, identity.ErrWrongCode) && !isTooMany(err) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if taken.Load() != 1 {
			t.Errorf("%s: taken %d times", what, taken.Load())
		}
	}
}

func TestRecoveryCodes(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	in := p.signedUp(alice)
	codes, err := p.RenewRecoveryCodes(ctx, visitor, in.Session)
	if err != nil || len(codes) != 10 {
		t.Fatal(codes, err)
	}
	for _, c := range codes {
		if !regexp.MustCompile(`^[0-9a-hjkmnp-tv-z]{5}-[0-9a-hjkmnp-tv-z]{5}$`).MatchString(c) {
			t.Errorf("code %q", c)
		}
	}
	typed := strings.NewReplacer("-", " ", "0", "O", "1", "l").Replace(strings.ToUpper(codes[0]))
	_, s, err := p.GiveCode(ctx, visitor, p.signIn(alice, good).Session, typed+" ")
	if err != nil || s.Method != "password recovery" || !p.Fresh(s) {
		t.Errorf("GiveCode(%q) = %+v, %v", typed, s, err)
	}
	if f, _ := p.Factors(ctx, s); f.Recovery != 9 {
		t.Errorf("%d are left", f.Recovery)
	}
	if events, _ := p.accounts.Events(ctx, authstore.EventQuery{Account: in.Account, Limit: 2}); events[1].Kind != "recovery.used" || events[1].Detail != "9" {
		t.Errorf("history: %+v", events)
	}
	renewed, err := p.RenewRecoveryCodes(ctx, visitor, s)
	want(t, "renew", err, nil)
	half := p.signIn(alice, good)
	for what, code := range map[string]string{"used": codes[0], "replaced": codes[1], "another": "00000-00000"} {
		_, _, err := p.GiveCode(ctx, visitor, half.Session, code)
		want(t, what, err, identity.ErrWrongCode)
	}
	_, _, err = p.GiveCode(ctx, visitor, half.Session, renewed[9])
	want(t, "a new one", err, nil)
	for range 2 {
		p.GiveCode(ctx, visitor, p.signIn(alice, good).Session, "00000-00000")
	}
	if _, _, err := p.GiveCode(ctx, visitor, p.signIn(alice, good).Session, renewed[0]); !isTooMany(err) {
		t.Errorf("after five wrong ones: %v", err)
	}
}

func TestEnrolment(t *testing.T) {
	t.Parallel()
	p := newPlace(t, func(o *identity.Options) { o.Issuer = "Example" })
	in, bob := p.signedUp(alice), p.signedUp("bob@example.test")
	e, err := p.EnrolTOTP(ctx, in.Session)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(e.URL, "otpauth://totp/Example:alice@example.test?") || len(e.Key) != 32 || !strings.Contains(e.URL, e.Key) {
		t.Errorf("enrolment %q, %q", e.URL, e.Key)
	}
	if m, err := png.Decode(bytes.NewReader(e.QR)); err != nil || m.Bounds().Dx() != 240 {
		t.Errorf("QR: %v", err)
	}
	again, err := p.ReopenTOTP(ctx, in.Session, e.State)
	if err != nil || again.Key != e.Key || !bytes.Equal(again.QR, e.QR) {
		t.Errorf("ReopenTOTP: %v", err)
	}
	_, _, err = p.AddTOTP(ctx, visitor, in.Session, e.State, wrongCode(p.code(e.Key)), "Tablet")
	want(t, "a wrong code", err, identity.ErrWrongCode)
	_, _, err = p.AddTOTP(ctx, visitor, in.Session, e.State, p.code(e.Key), "\x00")
	want(t, "a label with a control character", err, authstore.ErrLabel)
	_, _, err = p.AddTOTP(ctx, visitor, bob.Session, e.State, p.code(e.Key), "Tablet")
	want(t, "another account", err, identity.ErrWrongCode)
	_, _, err = p.AddTOTP(ctx, visitor, in.Session, p.ask(nil).State, p.code(e.Key), "Tablet")
	want(t, "another kind of state", err, identity.ErrWrongCode)
	_, s, err := p.AddTOTP(ctx, visitor, in.Session, e.State, p.code(e.Key), "Tablet")
	want(t, "AddTOTP", err, nil)
	p.dead("the token before", in.token)
	_, _, err = p.AddTOTP(ctx, visitor, s, e.State, p.code(e.Key), "Tablet")
	want(t, "the same enrolment again", err, identity.ErrWrongCode)
	half := p.signIn(alice, good)
	_, _, err = p.GiveCode(ctx, visitor, half.Session, p.code(e.Key))
	want(t, "the enrolment's own code", err, identity.ErrWrongCode)

	e, _ = p.EnrolTOTP(ctx, s)
	p.pass(4 * time.Minute)
	for range 3 {
		p.pass(4 * time.Minute)
		s = p.stepUp(s, in.seed)
	}
	_, err = p.ReopenTOTP(ctx, s, e.State)
	want(t, "after 16 minutes", err, identity.ErrWrongCode)
}

// stepUp makes a session fresh.
func (p *place) stepUp(s identity.Session, seed string) identity.Session {
	p.t.Helper()
	_, s, err := p.GiveCode(ctx, visitor, s, p.code(seed))
	if err != nil {
		p.t.Fatalf("step-up: %v", err)
	}
	return s
}

func TestFactorsComeAndGo(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	in := p.signedUp(alice)
	list := func() []identity.Factor {
		f, err := p.Factors(ctx, in.Session)
		if err != nil {
			t.Fatal(err)
		}
		return f.List
	}
	p.RenewRecoveryCodes(ctx, visitor, in.Session)
	want(t, "the last one", p.RemoveFactor(ctx, visitor, in.Session, list()[0].ID), identity.ErrLastFactor)
	in = p.enrol(in)
	first := list()[0].ID
	want(t, "rename", p.RenameFactor(ctx, visitor, in.Session, first, " Old phone "), nil)
	want(t, "rename one that is not there", p.RenameFactor(ctx, visitor, in.Session, 99, "x"), authstore.ErrNotFound)
	if got := list()[0].Label; got != "Old phone" {
		t.Errorf("label %q", got)
	}
	want(t, "one that is not there", p.RemoveFactor(ctx, visitor, in.Session, 99), authstore.ErrNotFound)
	bob := p.signedUp("bob@example.test")
	want(t, "somebody else's", p.RemoveFactor(ctx, visitor, bob.Session, first), authstore.ErrNotFound)
	want(t, "remove", p.RemoveFactor(ctx, visitor, in.Session, first), nil)
	want(t, "the last one", p.RemoveFactor(ctx, visitor, in.Session, list()[0].ID), identity.ErrLastFactor)
	if kinds := p.kinds(in.Account); fmt.Sprint(kinds[len(kinds)-3:]) != "[factor.added factor.renamed factor.removed]" {
		t.Errorf("history %v", kinds)
	}
	p.fill(in.Account, 19)
	in = p.enrol(in)
	e, err := p.EnrolTOTP(ctx, in.Session)
	want(t, "EnrolTOTP", err, nil)
	_, _, err = p.AddTOTP(ctx, visitor, in.Session, e.State, p.code(e.Key), "one too many")
	want(t, "the 21st", err, identity.ErrManyFactors)
	if slices.ContainsFunc(list(), func(f identity.Factor) bool { return f.Label == "one too many" }) {
		t.Error("it is there")
	}
}

// fill gives an account more factors, past the rules, until it has so many.
func (p *place) fill(id authstore.AccountID, most int) {
	p.t.Helper()
	if _, err := p.store.Act(ctx, tester, id, func(tx identity.Tx) error {
		person, err := tx.Person(ctx)
		for n := len(person.Factors); n < most && err == nil; n++ {
			_, err = tx.AddFactor(ctx, identity.StoredFactor{Factor: identity.Factor{Kind: identity.TOTP, Label: "Phone"}},
				func(identity.FactorID) (identity.Sealed, error) {
					return identity.Sealed{Key: 1, Value: []byte("x")}, nil
				})
		}
		return err
	}); err != nil {
		p.t.Fatal(err)
	}
}

// Whoever knows the primary password alone can't keep a set-up open beside its owner's.
func TestOneSetUpEndsTheOthers(t *testing.T) {
	t.Parallel()
	m := &mailServer{password: good}
	p := newPlace(t, func(o *identity.Options) { o.Checker = m })
	first := p.signInAs(m, good)
	thief := p.signIn(alice, good)
	e, err := p.EnrolTOTP(ctx, thief.Session)
	if err != nil || thief.Stage != identity.AwaitsSetUp {
		t.Fatal(thief.Stage, err)
	}
	p.enrol(first)
	_, _, err = p.AddTOTP(ctx, visitor, thief.Session, e.State, p.code(e.Key), "Mine")
	want(t, "a second set-up", err, identity.ErrNoSession)
}

// A dialogue's second step is taken once, for as long as it would be taken at all.
func TestAnEnrolmentIsUsedOnce(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	in := p.signedUp(alice)
	e, err := p.EnrolTOTP(ctx, in.Session)
	if err != nil {
		t.Fatal(err)
	}
	_, s, err := p.AddTOTP(ctx, visitor, in.Session, e.State, p.code(e.Key), "Tablet")
	want(t, "the first time", err, nil)
	p.pass(time.Minute)
	want(t, "Prune", p.Prune(ctx), nil)
	_, _, err = p.AddTOTP(ctx, visitor, s, e.State, p.code(e.Key), "Once more")
	want(t, "a minute later", err, identity.ErrWrongCode)
}

// Who knows the primary password alone does not choose the language in which the account's notices are written.
func TestHalfASignInChoosesNothing(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	in := p.signedUp(alice)
	want(t, "SetPreferences", p.SetPreferences(ctx, in.Session, "", ""), nil)
	p.pass(time.Minute)
	half := p.signIn(alice, good)
	chosen := func(want string) {
		t.Helper()
		if of, err := p.store.Person(ctx, in.Account); err != nil || of.Language != want {
			t.Errorf("language %q, %v; want %q", of.Language, err, want)
		}
	}
	chosen("")
	_, _, err := p.GiveCode(ctx, visitor, half.Session, p.code(in.seed))
	want(t, "GiveCode", err, nil)
	chosen("de")
}

func TestALongCodeIsNone(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	in := p.signedUp(alice)
	p.pass(time.Minute)
	_, _, err := p.GiveCode(ctx, visitor, in.Session, p.code(in.seed)+strings.Repeat(" ", 60))
	want(t, "GiveCode", err, identity.ErrWrongCode)
}
