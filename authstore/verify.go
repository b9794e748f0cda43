package authstore

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"postern/authstore/secret"
)

// Verify decides one login; this is the only place that does. It answers with a grant or a *Refusal, and has no effect on "last
// used". A grant is no acceptance yet: Confirm is.
//
// What says nothing but no (Wrong, NotAppPassword, Throttled) is answered a fixed time after the attempt began, which hides what
// was cached and which name exists.
func (s *Store) Verify(ctx context.Context, a Attempt) (Grant, error) {
	began := time.Now()
	g, refused := s.decide(ctx, &a)
	if refused == nil {
		return g, nil
	}
	switch refused.Code {
	case Wrong, NotAppPassword, Throttled:
		return Grant{}, s.answerLater(ctx, began, refused)
	}
	return Grant{}, refused
}

// decide is the rule.
func (s *Store) decide(ctx context.Context, a *Attempt) (Grant, *Refusal) {
	a.Client = a.Client.Unmap().WithZone("")
	typed, err := secret.Parse(a.Secret)
	if err != nil { // told from what was typed alone, before any look-up
		return Grant{}, s.misshapen(ctx, a, err)
	}
	defer typed.Clear()
	name, err := s.o.Names.Canonical(a.Login)
	if err != nil {
		return Grant{}, s.wrong(ctx, a, &typed, &Refusal{Code: Wrong, Cause: err})
	}

	// A correct password in L1 passes, whatever its network did. Only then come the budgets.
	f := s.fromL1(name)
	genuine, err := s.match(f, &typed)
	if genuine == nil && s.limits.Over(a.Client) {
		return Grant{}, &Refusal{Code: Throttled}
	}
	if f == nil {
		if f, err = s.load(ctx, name); err != nil {
			return Grant{}, &Refusal{Code: Unavailable, Cause: err}
		}
		genuine, err = s.match(f, &typed)
	}
	switch {
	case genuine != nil:
		return s.open(f, genuine, name, a, &typed)
	case err != nil: // an app password that can't be compared here may be the right one
		return Grant{}, &Refusal{Code: Unavailable, Cause: err, Account: f.Account}
	}
	return Grant{}, s.wrong(ctx, a, &typed, &Refusal{Code: Wrong, Account: f.Account})
}

// open decides what a genuine secret opens. All these refusals cost nothing: only its holder sees them.
func (s *Store) open(f *found, v *Verifiable, name string, a *Attempt, typed *secret.Password) (Grant, *Refusal) {
	refused := func(code Code, cause error) (Grant, *Refusal) {
		s.usage.refused(f.Account, v.ID, a)
		return Grant{}, &Refusal{Code: code, Cause: cause, Account: f.Account, Password: v.ID}
	}
	switch {
	case v.Revoked: // a forgotten phone: no longer told from a wrong password, but not charged like one
		return refused(Wrong, errRevoked)
	case f.Status != Active:
		return refused(Suspended, nil)
	case v.expired(s.o.Now()):
		return refused(Expired, nil)
	case !v.allows(a.Client):
		return refused(BadNetwork, nil)
	case a.Need != 0 && !v.Scopes.Any(a.Need):
		return refused(OutOfScope, nil)
	}
	return Grant{
		Account: f.Account, PublicID: f.PublicID, Address: f.Address, Password: v.ID, Scopes: v.Scopes, Collections: v.Collections, Version: f.Version,
		BackendName: f.BackendName, Expires: v.Expires, Client: a.Client, login: name, at: f.at, rekey: s.rekey(f, v, typed),
	}, nil
}

// match finds the app password that a secret is, with one HMAC for each root key in use and in constant time over all. If none is,
// but one could not be compared because its root key is not here, it says so.
func (s *Store) match(f *found, typed *secret.Password) (genuine *Verifiable, err error) {
	if f == nil {
		return nil, nil
	}
	keys := s.keys.Load()
	for _, number := range f.keys {
		digest, unknown := keys.Digest(number, int64(f.Account), typed)
		if unknown != nil {
			err = fmt.Errorf("app passwords of account %d need key %d: %w", f.Account, number, unknown)
			continue
		}
		for v := range f.all() {
			if v.Key == number && subtle.ConstantTimeCompare(digest[:], v.Digest[:]) == 1 {
				genuine = v
			}
		}
	}
	return genuine, err
}

// rekey moves a digest to the newest root key that all nodes have, with the batch that writes "last used".
func (s *Store) rekey(f *found, v *Verifiable, typed *secret.Password) *Rekey {
	newest := s.usable.Load()
	if v.Key >= newest {
		return nil
	}
	digest, err := s.keys.Load().Digest(newest, int64(f.Account), typed)
	if err != nil {
		return nil // the keyring was exchanged just now
	}
	return &Rekey{From: v.Key, To: newest, Digest: digest}
}

func (s *Store) misshapen(ctx context.Context, a *Attempt, cause error) *Refusal {
	if s.limits.Over(a.Client) {
		return &Refusal{Code: Throttled}
	}
	s.limits.Misshapen(ctx, a.Client)
	return &Refusal{Code: NotAppPassword, Cause: cause}
}

func (s *Store) wrong(ctx context.Context, a *Attempt, typed *secret.Password, r *Refusal) *Refusal {
	if s.limits.Over(a.Client) {
		return &Refusal{Code: Throttled, Account: r.Account}
	}
	s.limits.Wrong(ctx, a.Client, a.Login, typed[:])
	return r
}

var errManyWaiting = errors.New("too many refusals wait to be told")

// answerLater holds a refusal back until its time: the delay after the attempt began, or the next multiple of it where deciding
// took longer. Beyond the bound, and when the client has gone, the answer is another, never the same one early.
func (s *Store) answerLater(ctx context.Context, began time.Time, r *Refusal) error {
	if s.o.RefusalDelay < 0 {
		return r
	}
	unavailable := &Refusal{Code: Unavailable, Cause: errManyWaiting, Account: r.Account, Password: r.Password}
	if !s.waiting.TryAcquire(1) {
		return unavailable
	}
	defer s.waiting.Release(1)
	late := time.Since(began).Truncate(s.o.RefusalDelay)
	timer := time.NewTimer(time.Until(began.Add(late + s.o.RefusalDelay + rand.N(s.o.RefusalDelay/10+1))))
	defer timer.Stop()
	select {
	case <-timer.C:
		return r
	case <-ctx.Done():
		unavailable.Cause = context.Cause(ctx)
		return unavailable
	}
}

// confirmTime bounds Confirm: by then a mail app has not given up yet.
const confirmTime = 5 * time.Second

// Confirm is the last act before success is told, after the session was entered: it is what accepts. It holds that this node has
// a live lease and knows of no change of the account since what the grant rests on was read; so a writer who ends the
// grant either comes first, or waits for this node, whose next tail ends the session. Where the account has changed, the truth is
// read once more. An error is a *Refusal.
func (s *Store) Confirm(ctx context.Context, g Grant) error {
	if !g.Expires.IsZero() && !g.Expires.After(s.o.Now()) {
		return &Refusal{Code: Expired, Account: g.Account, Password: g.Password}
	}
	if s.history.vouches(g.Account, g.at) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, confirmTime)
	defer cancel()
	code, err := s.confirmByTruth(ctx, g)
	if code == 0 {
		return nil
	}
	return &Refusal{Code: code, Cause: err, Account: g.Account, Password: g.Password}
}

// confirmByTruth looks again until it knows. To have read that a grant is good is not enough: the process may have been stopped since.
func (s *Store) confirmByTruth(ctx context.Context, g Grant) (Code, error) {
	for at := g.at; !s.history.vouches(g.Account, at); {
		if !s.history.isLive() { // it asks the feed first
			s.Poke()
			if err := s.history.await(ctx); err != nil {
				return Unavailable, err
			}
			continue
		}
		f, err := s.readTruth(ctx, g.login)
		if err != nil {
			return Unavailable, err
		}
		if code := f.refuses(g, s.o.Now()); code != 0 {
			return code, ending(code)
		}
		s.expire(login{g.Account, g.login}, f)
		at = f.at
	}
	return 0, nil
}
