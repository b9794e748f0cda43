package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"strconv"
	"time"

	"golang.org/x/text/language"

	"postern/authstore"
)

const (
	tokenSize = 32 // bytes of randomness
	// seenEvery is how often it is written that a session was seen.
	seenEvery = time.Minute
	// maxUnfinished and maxSignedIn bound an account's sessions. The oldest end.
	maxUnfinished = 40
	maxSignedIn   = 100
)

// newToken makes a session's token and what is stored of it.
func newToken() (Token, []byte) {
	var b [tokenSize]byte
	rand.Read(b[:])
	t := Token(base64.RawURLEncoding.EncodeToString(b[:]))
	return t, digestOf(string(t))
}

func digestOf(s string) []byte {
	sum := sha256.Sum256([]byte(s))
	return sum[:]
}

// alive reports whether a session has not run out, and its account not been suspended.
func (p *People) alive(s StoredSession) bool {
	now := p.now()
	if s.Status != authstore.Active {
		return false
	}
	switch s.Stage {
	case AwaitsFactor:
		return now.Before(s.Began.Add(SignInTime))
	case AwaitsSetUp:
		return now.Before(s.Began.Add(SetUpTime))
	case SignedIn:
		return now.Before(s.Seen.Add(p.o.Idle)) && now.Before(s.Began.Add(p.o.Absolute))
	}
	return false
}

// Session finds who is signed in with a token, and notes that it was seen; ErrNoSession.
func (p *People) Session(ctx context.Context, v Visitor, t Token) (Session, error) {
	if len(t) != base64.RawURLEncoding.EncodedLen(tokenSize) {
		return Session{}, ErrNoSession
	}
	s, err := p.o.Truth.SessionWith(ctx, digestOf(string(t)))
	if errors.Is(err, authstore.ErrNotFound) || err == nil && !p.alive(s) {
		return Session{}, ErrNoSession
	}
	if err != nil {
		return Session{}, err
	}
	s.Admin = p.mayAdminister(s)
	if now := p.now(); now.Sub(s.Seen) >= seenEvery {
		if err := p.o.Truth.Seen(ctx, s.ID, now); err == nil { // else it ends earlier; that is no reason to refuse it now
			s.Seen = now
		}
	}
	return s.Session, nil
}

// numbered is where a session is read from: the truth, or a transaction.
type numbered interface {
	SessionNumbered(ctx context.Context, id SessionID) (StoredSession, error)
}

// in reads a session again and checks that it has got to one of the stages; ErrNoSession, ErrStepUp. Every method does that itself,
// whatever the page believes.
func (p *People) in(ctx context.Context, from numbered, s Session, stages ...Stage) (Session, error) {
	now, err := from.SessionNumbered(ctx, s.ID)
	switch {
	case errors.Is(err, authstore.ErrNotFound):
		return Session{}, ErrNoSession
	case err != nil:
		return Session{}, err
	case now.Account != s.Account || !p.alive(now):
		return Session{}, ErrNoSession
	case !slices.Contains(stages, now.Stage):
		return Session{}, ErrStepUp
	}
	now.Admin = p.mayAdminister(now)
	return now.Session, nil
}

// inFresh is in for what needs a session that is signed in and fresh.
func (p *People) inFresh(ctx context.Context, from numbered, s Session) (Session, error) {
	s, err := p.in(ctx, from, s, SignedIn)
	if err == nil && !p.Fresh(s) {
		return Session{}, ErrStepUp
	}
	return s, err
}

// Fresh reports whether the session gave a second factor within FreshFor.
func (p *People) Fresh(s Session) bool {
	return s.Stage == SignedIn && !s.FactorAt.IsZero() && p.now().Before(s.FactorAt.Add(FreshFor))
}

// newSession begins a session, of the claims that led to it. What the visitor's browser says of language and zone is kept where the account
// has chosen none.
func (p *People) newSession(ctx context.Context, tx Tx, v Visitor, of Person, stage Stage, method string, c Claims) (Token, Session, error) {
	now := p.now()
	s := Session{Account: of.ID, Address: of.Names[0], Stage: stage, Began: now, Seen: now,
		Method: method, Client: v.Client, Agent: shortAgent(v.Agent), Language: of.Language, Zone: of.Zone,
		Issuer: c.Issuer, Subject: c.Subject, SID: c.SID}
	keep := maxUnfinished
	if stage == SignedIn {
		s.FactorAt, keep = now, maxSignedIn
	}
	if c.Factor && (c.At.IsZero() || c.At.Before(now)) { // it may have been given this morning; where nobody says when, it is not fresh
		s.FactorAt = c.At
	}
	t, digest := newToken()
	var err error
	if s.ID, err = tx.AddSession(ctx, s, digest, keep); err != nil {
		return "", Session{}, err
	}
	switch stage {
	case AwaitsFactor: // whoever knows the password alone chooses nothing
		return t, s, nil
	case SignedIn:
		err = tx.Event(ctx, "portal.signed_in", method)
	}
	return t, s, errors.Join(err, learn(ctx, tx, v, &s))
}

// learn keeps the visitor's language and zone where the account has chosen none.
func learn(ctx context.Context, tx Tx, v Visitor, s *Session) error {
	language, zone := s.Language, s.Zone
	if language == "" && isLanguage(v.Language) {
		language = v.Language
	}
	if zone == "" && isZone(v.Zone) {
		zone = v.Zone
	}
	if language == s.Language && zone == s.Zone {
		return nil
	}
	s.Language, s.Zone = language, zone
	return tx.SetPreferences(ctx, language, zone)
}

// renew gives a session another token; the old one is dead with the transaction.
func (p *People) renew(ctx context.Context, tx Tx, s *Session) (Token, error) {
	t, digest := newToken()
	s.Seen = p.now()
	return t, tx.ChangeSession(ctx, *s, digest)
}

// advance notes that a session gave a second factor. One that was not signed in is then.
func (p *People) advance(ctx context.Context, tx Tx, v Visitor, s *Session, factor string) (Token, error) {
	s.FactorAt = p.now()
	if s.Stage != SignedIn {
		if s.Stage == AwaitsFactor {
			if err := tx.Refund(ctx, p.factorCharges(perHalf, v, s.Account)); err != nil {
				return "", err
			}
		}
		s.Stage, s.Method = SignedIn, s.Method+" "+factor
		if err := tx.Event(ctx, "portal.signed_in", s.Method); err != nil {
			return "", err
		}
		if err := learn(ctx, tx, v, s); err != nil {
			return "", err
		}
	}
	return p.renew(ctx, tx, s)
}

// SignOut ends a session.
func (p *People) SignOut(ctx context.Context, v Visitor, s Session) error {
	_, err := p.o.Truth.Act(ctx, v.Actor(), s.Account, func(tx Tx) error {
		s, err := p.in(ctx, tx, s, AwaitsFactor, AwaitsSetUp, SignedIn)
		if errors.Is(err, ErrNoSession) { // it has ended already
			return nil
		}
		if err != nil {
			return err
		}
		if err := tx.EndSession(ctx, s.ID); err != nil || s.Stage != SignedIn {
			return err
		}
		return tx.Event(ctx, "portal.signed_out", "")
	})
	return err
}

// Sessions lists the account's sessions that are signed in, the latest first.
func (p *People) Sessions(ctx context.Context, s Session) ([]Session, error) {
	s, err := p.in(ctx, p.o.Truth, s, SignedIn)
	if err != nil {
		return nil, err
	}
	return p.signedIn(ctx, s.Account)
}

func (p *People) signedIn(ctx context.Context, id authstore.AccountID) ([]Session, error) {
	all, err := p.o.Truth.SessionsOf(ctx, id)
	var list []Session
	for _, s := range all {
		if s.Stage == SignedIn && p.alive(s) {
			list = append(list, s.Session)
		}
	}
	return list, err
}

// EndSession ends another session of the account; ErrStepUp, authstore.ErrNotFound.
func (p *People) EndSession(ctx context.Context, v Visitor, s Session, id SessionID) error {
	_, err := p.o.Truth.Act(ctx, v.Actor(), s.Account, func(tx Tx) error {
		if _, err := p.inFresh(ctx, tx, s); err != nil {
			return err
		}
		other, err := tx.SessionNumbered(ctx, id)
		if err != nil {
			return err
		}
		if err := tx.EndSession(ctx, id); err != nil {
			return err
		}
		return tx.Event(ctx, "portal.session_ended", other.Agent)
	})
	return err
}

// EndOthers ends all the account's sessions but this one; ErrStepUp.
func (p *People) EndOthers(ctx context.Context, v Visitor, s Session) error {
	_, err := p.o.Truth.Act(ctx, v.Actor(), s.Account, func(tx Tx) error {
		if _, err := p.inFresh(ctx, tx, s); err != nil {
			return err
		}
		n, err := tx.EndSessions(ctx, s.ID)
		if err != nil {
			return err
		}
		return tx.Event(ctx, "portal.sessions_ended", strconv.Itoa(n))
	})
	return err
}

// SetPreferences notes the language and the time zone in which the account's notices are written; empty: not chosen. ErrPreference.
func (p *People) SetPreferences(ctx context.Context, s Session, language, zone string) error {
	if language != "" && !isLanguage(language) || zone != "" && !isZone(zone) {
		return ErrPreference
	}
	_, err := p.o.Truth.Act(ctx, authstore.Actor{Name: "portal"}, s.Account, func(tx Tx) error {
		if _, err := p.in(ctx, tx, s, SignedIn); err != nil {
			return err
		}
		return tx.SetPreferences(ctx, language, zone)
	})
	return err
}

func isLanguage(tag string) bool {
	if tag == "" || len(tag) > 35 { // RFC 5646 section 4.4.1
		return false
	}
	_, err := language.Parse(tag)
	return err == nil
}

func isZone(name string) bool {
	if name == "" || name == "Local" || len(name) > 64 {
		return false
	}
	_, err := time.LoadLocation(name)
	return err == nil
}
