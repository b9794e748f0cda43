package identity_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/internal/testlab"
)

// key is a software authenticator with one passkey, in a browser that is at an origin.
type key struct {
	rp   virtualwebauthn.RelyingParty
	auth virtualwebauthn.Authenticator
	cred virtualwebauthn.Credential
}

func newKey() *key {
	return &key{
		rp:   virtualwebauthn.RelyingParty{ID: "passwords.example.test", Name: "Postern", Origin: site},
		auth: virtualwebauthn.NewAuthenticator(),
		cred: testlab.NewPasskey(),
	}
}

func (k *key) create(t *testing.T, c identity.Ceremony) []byte {
	t.Helper()
	o, err := virtualwebauthn.ParseAttestationOptions(string(c.Options))
	if err != nil {
		t.Fatal(err)
	}
	k.auth.Options.UserHandle = []byte(o.UserID)
	return []byte(virtualwebauthn.CreateAttestationResponse(k.rp, k.auth, k.cred, *o))
}

func (k *key) answer(t *testing.T, c identity.Ceremony) []byte {
	t.Helper()
	o, err := virtualwebauthn.ParseAssertionOptions(string(c.Options))
	if err != nil {
		t.Fatal(err)
	}
	k.cred.Counter++
	return []byte(virtualwebauthn.CreateAssertionResponse(k.rp, k.auth, k.cred, *o))
}

// addKey adds a passkey to a session that may.
func (p *place) addKey(s session, k *key) session {
	p.t.Helper()
	c, err := p.AskNew(ctx, s.Session)
	if err != nil {
		p.t.Fatal(err)
	}
	t, next, err := p.AddPasskey(ctx, visitor, s.Session, c.State, k.create(p.t, c), "Security key")
	if err != nil {
		p.t.Fatalf("AddPasskey: %v", err)
	}
	return session{next, t, s.seed}
}

func (p *place) ask(s *identity.Session) identity.Ceremony {
	p.t.Helper()
	c, err := p.Ask(ctx, s)
	if err != nil {
		p.t.Fatalf("Ask: %v", err)
	}
	return c
}

func TestPasskeys(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	k := newKey()
	first := p.invited(p.account(alice).ID, identity.Begin, good)
	in := p.addKey(first, k)
	if in.Stage != identity.SignedIn || in.Method != "invitation passkey" {
		t.Errorf("set up with a passkey: %+v", in.Session)
	}
	p.dead("the set-up's token", first.token)

	half := p.signIn(alice, good)
	c := p.ask(&half.Session)
	answer := k.answer(t, c)
	token, full, err := p.GivePasskey(ctx, visitor, &half.Session, c.State, answer)
	if err != nil || full.Stage != identity.SignedIn || full.Method != "password passkey" {
		t.Fatalf("GivePasskey = %+v, %v", full, err)
	}
	p.dead("the first step's token", half.token)
	_, _, err = p.GivePasskey(ctx, visitor, &full, c.State, answer)
	want(t, "the answer again", err, identity.ErrWrongCode)

	p.pass(10 * time.Minute)
	if p.Fresh(full) {
		t.Error("fresh after ten minutes")
	}
	c = p.ask(&full)
	t2, full, err := p.GivePasskey(ctx, visitor, &full, c.State, k.answer(t, c))
	if err != nil || !p.Fresh(full) || full.Method != "password passkey" {
		t.Errorf("step-up: %+v, %v", full, err)
	}
	p.dead("the token before the step-up", token)
	if _, err := p.Session(ctx, visitor, t2); err != nil {
		t.Error(err)
	}

	c = p.ask(nil)
	answer = k.answer(t, c)
	_, alone, err := p.GivePasskey(ctx, visitor, nil, c.State, answer)
	if err != nil || alone.Stage != identity.SignedIn || alone.Method != "passkey" || alone.Address != alice || !p.Fresh(alone) {
		t.Fatalf("with the passkey alone: %+v, %v", alone, err)
	}
	_, _, err = p.GivePasskey(ctx, visitor, nil, c.State, answer)
	want(t, "the answer again", err, identity.ErrWrongCode)

	c, err = p.AskNew(ctx, alone)
	want(t, "AskNew", err, nil)
	_, _, err = p.AddPasskey(ctx, visitor, alone, c.State, k.create(t, c), "Again")
	want(t, "the same passkey again", err, identity.ErrKnownFactor)
	if f, err := p.Factors(ctx, alone); err != nil || len(f.List) != 1 || f.List[0].Kind != identity.Passkey || f.List[0].LastUsed.IsZero() {
		t.Errorf("Factors = %+v, %v", f, err)
	}
}

func TestPasskeysThatAreRefused(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	k, foreign := newKey(), newKey()
	in := p.addKey(p.signedUp(alice), k)
	bob := p.addKey(p.signedUp("bob@example.test"), foreign)
	bobs, err := p.accounts.Get(ctx, "bob@example.test")
	if err != nil {
		t.Fatal(err)
	}
	half := p.signIn(alice, good)
	for what, try := range map[string]struct {
		asked  *identity.Session // whose dialogue
		given  *identity.Session // who answers
		change func(k *key)
		late   time.Duration
	}{
		"wrong origin":                          {&half.Session, &half.Session, func(k *key) { k.rp.Origin = "https://evil.example.test" }, 0},
		"plain http":                            {&half.Session, &half.Session, func(k *key) { k.rp.Origin = "http://passwords.example.test" }, 0},
		"wrong relying party":                   {&half.Session, &half.Session, func(k *key) { k.rp.ID = "example.test" }, 0},
		"nobody touched it":                     {&half.Session, &half.Session, func(k *key) { k.auth.Options.UserNotPresent = true }, 0},
		"another key":                           {&half.Session, &half.Session, func(k *key) { k.cred.Key = foreign.cred.Key }, 0},
		"another account's":                     {&half.Session, &half.Session, func(k *key) { k.cred, k.auth = foreign.cred, foreign.auth }, 0},
		"another session of the account":        {&in.Session, &half.Session, nil, 0},
		"another account's session":             {&bob.Session, &half.Session, nil, 0},
		"nobody's dialogue":                     {nil, &half.Session, nil, 0},
		"a session's dialogue":                  {&half.Session, nil, nil, 0},
		"alone, without verification of a user": {nil, nil, func(k *key) { k.auth.Options.UserNotVerified = true }, 0},
		"alone, as somebody else":               {nil, nil, func(k *key) { k.auth.Options.UserHandle = []byte(bobs.PublicID) }, 0},
		"alone, as nobody":                      {nil, nil, func(k *key) { k.auth.Options.UserHandle = []byte("nobody") }, 0},
		"too late":                              {&half.Session, &half.Session, nil, 5 * time.Minute},
	} {
		t.Run(what, func(t *testing.T) {
			c := p.ask(try.asked)
			changed := *k
			changed.cred.Counter += 100
			if try.change != nil {
				try.change(&changed)
			}
			answer := changed.answer(t, c)
			p.pass(try.late)
			defer p.pass(-try.late)
			_, s, err := p.GivePasskey(ctx, visitor, try.given, c.State, answer)
			if !errors.Is(err, identity.ErrWrongCode) {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
	for what, answer := range map[string]string{"nothing": "", "no JSON": "x", "an empty one": "{}", "a huge one": string(make([]byte, 1<<20))} {
		c := p.ask(nil)
		_, _, err := p.GivePasskey(ctx, visitor, nil, c.State, []byte(answer))
		want(t, what, err, identity.ErrWrongCode)
	}
	if _, err := p.Session(ctx, visitor, half.token); err != nil {
		t.Errorf("the session is gone: %v", err)
	}
	// without a PIN it is good as a second factor, for the password was the first
	k.auth.Options.UserNotVerified = true
	c := p.ask(&half.Session)
	_, _, err = p.GivePasskey(ctx, visitor, &half.Session, c.State, k.answer(t, c))
	want(t, "as a second factor without verification of a user", err, nil)
}

// An authenticator whose counter goes back may have been copied.
func TestAPasskeysCounter(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	k := newKey()
	in := p.addKey(p.signedUp(alice), k)
	use := func() error {
		c := p.ask(nil)
		_, _, err := p.GivePasskey(ctx, visitor, nil, c.State, k.answer(t, c))
		return err
	}
	want(t, "the first time", use(), nil)
	k.cred.Counter -= 1
	want(t, "with the counter of before", use(), identity.ErrWrongCode)
	if events, _ := p.accounts.Events(ctx, authstore.EventQuery{Account: in.Account, Limit: 1}); events[0].Kind != "portal.sign_in_refused" || events[0].Detail != "passkey counter" {
		t.Errorf("history: %+v", events[0])
	}
	want(t, "with the next", use(), nil)
}

// One answer sent by many at once signs one in.
func TestOneAnswerManyTimes(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	k := newKey()
	p.addKey(p.signedUp(alice), k)
	k.cred.Counter = ^uint32(0) // no help from the counter: it stays zero, as with passkeys that are synchronised
	c := p.ask(nil)
	answer := k.answer(t, c)
	var in atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, _, err := p.GivePasskey(ctx, visitor, nil, c.State, answer); err == nil {
				in.Add(1)
			} else if !errors.Is(err, identity.ErrWrongCode) && !isTooMany(err) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if in.Load() != 1 {
		t.Errorf("%d were signed in", in.Load())
	}
}

func TestPasskeysAreCounted(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	judged := 0
	for range 40 {
		c := p.ask(nil)
		if _, _, err := p.GivePasskey(ctx, visitor, nil, c.State, []byte("{}")); !isTooMany(err) {
			judged++
		}
	}
	if judged != 30 {
		t.Errorf("%d of 40 answers from one network were judged, want 30", judged)
	}
}

// To a portal at an address nothing can be bound; all else works.
func TestNoPasskeysAtAnAddress(t *testing.T) {
	t.Parallel()
	p := newPlace(t, func(o *identity.Options) { o.Site = "https://192.0.2.1:8443" })
	in := p.signedUp(alice)
	_, err := p.Ask(ctx, nil)
	want(t, "Ask", err, identity.ErrNoPasskeys)
	_, err = p.AskNew(ctx, in.Session)
	want(t, "AskNew", err, identity.ErrNoPasskeys)
	if p.TakesPasskeys() {
		t.Error("passkeys are offered")
	}
	q := newPlace(t, nil)
	in = q.signedUp(alice)
	_, err = q.Ask(ctx, &in.Session)
	want(t, "Ask without a passkey", err, authstore.ErrNotFound)
}
