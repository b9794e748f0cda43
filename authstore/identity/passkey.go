package identity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"net/url"
	"slices"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"postern/authstore"
)

// maxAnswer bounds a browser's answer, in bytes.
const maxAnswer = 64 << 10

// relyingParty is the portal as WebAuthn knows it; nil where its host is an address, to which nothing can be bound.
func relyingParty(o Options, site *url.URL) (*webauthn.WebAuthn, error) {
	if _, err := netip.ParseAddr(site.Hostname()); err == nil {
		return nil, nil
	}
	limit := webauthn.TimeoutConfig{Timeout: ceremonyFor, TimeoutUVD: ceremonyFor} // for the browser; here the state runs out
	return webauthn.New(&webauthn.Config{
		RPID:                  site.Hostname(),
		RPDisplayName:         o.Issuer,
		RPOrigins:             []string{o.Site},
		AttestationPreference: protocol.PreferNoAttestation,
		Timeouts:              webauthn.TimeoutsConfig{Login: limit, Registration: limit},
	})
}

// TakesPasskeys reports whether passkeys can be bound to the portal's address.
func (p *People) TakesPasskeys() bool { return p.rp != nil }

// takesPasskeys says why no passkey can be given, for a session or with nil alone.
func (p *People) takesPasskeys(s *Session) error {
	switch {
	case p.rp == nil:
		return ErrNoPasskeys
	case s == nil && p.o.Vouched:
		return ErrVouched
	}
	return nil
}

// holder is a person as the library wants to see him.
type holder struct {
	Person
	credentials []webauthn.Credential
}

func (h *holder) WebAuthnID() []byte                         { return []byte(h.PublicID) }
func (h *holder) WebAuthnName() string                       { return h.Names[0] }
func (h *holder) WebAuthnDisplayName() string                { return h.Names[0] }
func (h *holder) WebAuthnCredentials() []webauthn.Credential { return h.credentials }

// holder opens an account's passkeys.
func (p *People) holder(of Person) (*holder, error) {
	h := &holder{Person: of}
	for _, f := range of.Factors {
		if f.Kind != Passkey {
			continue
		}
		c, err := p.openCredential(of.ID, f)
		if err != nil {
			return nil, err
		}
		h.credentials = append(h.credentials, c)
	}
	return h, nil
}

func (p *People) openCredential(id authstore.AccountID, f StoredFactor) (c webauthn.Credential, err error) {
	plain, err := p.openRow(f.Sealed, factorPlace(id, f.ID))
	if err != nil {
		return c, err
	}
	defer clear(plain)
	return c, json.Unmarshal(plain, &c)
}

func (p *People) ceremony(ctx context.Context, kind string, s *Session, options any, session *webauthn.SessionData) (Ceremony, error) {
	text, err := json.Marshal(options)
	if err != nil {
		return Ceremony{}, err
	}
	state, err := p.sealState(ctx, kind, s, session, ceremonyFor)
	return Ceremony{Options: text, State: state}, err
}

// Ask begins a WebAuthn dialogue that proves a factor: of a session's account, or with nil of whoever has a passkey for this site.
// ErrNoPasskeys; authstore.ErrNotFound where the account has no passkey; with nil ErrVouched.
func (p *People) Ask(ctx context.Context, s *Session) (Ceremony, error) {
	if err := p.takesPasskeys(s); err != nil {
		return Ceremony{}, err
	}
	if s == nil {
		options, session, err := p.rp.BeginDiscoverableLogin(webauthn.WithUserVerification(protocol.VerificationRequired))
		if err != nil {
			return Ceremony{}, err
		}
		return p.ceremony(ctx, stateSignIn, nil, options, session)
	}
	now, err := p.in(ctx, p.o.Truth, *s, AwaitsFactor, SignedIn)
	if err != nil {
		return Ceremony{}, err
	}
	h, err := p.sessionHolder(ctx, now)
	if err != nil {
		return Ceremony{}, err
	}
	if len(h.credentials) == 0 {
		return Ceremony{}, authstore.ErrNotFound
	}
	options, session, err := p.rp.BeginLogin(h, webauthn.WithUserVerification(protocol.VerificationPreferred))
	if err != nil {
		return Ceremony{}, err
	}
	return p.ceremony(ctx, stateProve, &now, options, session)
}

// GivePasskey takes the browser's answer (JSON) to what Ask asked, for the same session, or nil. The token takes the place of the old one.
// ErrWrongCode, *TooMany.
func (p *People) GivePasskey(ctx context.Context, v Visitor, s *Session, state string, answer []byte) (Token, Session, error) {
	if err := p.takesPasskeys(s); err != nil {
		return "", Session{}, err
	}
	kind, charges := stateSignIn, []Charge{p.charge(perPasskey, network(v))}
	if s != nil {
		now, err := p.in(ctx, p.o.Truth, *s, AwaitsFactor, SignedIn)
		if err != nil {
			return "", Session{}, err
		}
		s, kind, charges = &now, stateProve, p.factorCharges(perPasskey, v, now.Account)
	}
	var asked webauthn.SessionData
	once, err := p.openState(kind, s, state, &asked)
	if err != nil {
		return "", Session{}, err
	}
	if err := p.take(ctx, charges...); err != nil {
		return "", Session{}, err
	}
	given, err := p.verify(ctx, s, asked, answer)
	if err != nil {
		if errors.Is(err, ErrWrongCode) && s != nil {
			err = errors.Join(err, p.tellFactor(ctx, v, *s, perPasskey.name))
		}
		return "", Session{}, p.giveBack(ctx, charges, err)
	}
	t, next, err := p.proven(ctx, v, s, once, given, charges)
	if errors.Is(err, errCounter) {
		err = errors.Join(ErrWrongCode, p.tell(ctx, v, given.of.ID, "portal.sign_in_refused", "passkey counter"))
	}
	if err != nil {
		return "", Session{}, p.giveBack(ctx, charges, err)
	}
	return t, next, nil
}

// given is an assertion whose signature is right.
type given struct {
	of         Person
	factor     FactorID
	credential webauthn.Credential // flags and counter as the authenticator tells them
}

// verify checks an answer; ErrWrongCode.
func (p *People) verify(ctx context.Context, s *Session, asked webauthn.SessionData, answer []byte) (*given, error) {
	if len(answer) > maxAnswer {
		return nil, ErrWrongCode
	}
	if err := p.hashing.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer p.hashing.Release(1)
	parsed, err := protocol.ParseCredentialRequestResponseBytes(answer)
	if err != nil {
		return nil, ErrWrongCode
	}
	var h *holder
	var broken error // of ours: not the answer's fault
	open := func(read func() (Person, error)) (webauthn.User, error) {
		person, err := read()
		if err == nil {
			h, err = p.holder(person)
		}
		if err != nil && !errors.Is(err, authstore.ErrNotFound) {
			broken = err
		}
		return h, err
	}
	var c *webauthn.Credential
	if s != nil {
		if _, err = open(func() (Person, error) { return p.o.Truth.Person(ctx, s.Account) }); err == nil {
			c, err = p.rp.ValidateLogin(h, asked, parsed)
		}
	} else {
		_, c, err = p.rp.ValidatePasskeyLogin(func(_, handle []byte) (webauthn.User, error) {
			return open(func() (Person, error) { return p.o.Truth.PersonWithHandle(ctx, string(handle)) })
		}, asked, parsed)
	}
	switch {
	case broken != nil:
		return nil, broken
	case err != nil || h.Status != authstore.Active:
		return nil, ErrWrongCode
	}
	i := slices.IndexFunc(h.Factors, func(f StoredFactor) bool { return bytes.Equal(f.Credential, c.ID) })
	if i < 0 {
		return nil, ErrWrongCode
	}
	c.Authenticator.SignCount = parsed.Response.AuthenticatorData.Counter
	return &given{h.Person, h.Factors[i].ID, *c}, nil
}

// errCounter says that an authenticator's counter has not gone forward: there may be two of it.
var errCounter = errors.New("the passkey's counter has not gone forward")

// proven does in one transaction what follows from a right answer: it is used up, and the session gets further or begins.
func (p *People) proven(ctx context.Context, v Visitor, s *Session, once spent, g *given, charges []Charge) (t Token, next Session, err error) {
	key, err := p.o.Accounts.UsableKey(ctx)
	if err != nil {
		return "", Session{}, err
	}
	_, err = p.o.Truth.Act(ctx, v.Actor(), g.of.ID, func(tx Tx) error {
		if s != nil {
			if next, err = p.in(ctx, tx, *s, AwaitsFactor, SignedIn); err != nil {
				return err
			}
		}
		person, err := tx.Person(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(person.Factors, func(f StoredFactor) bool { return f.ID == g.factor })
		if i < 0 || person.Status != authstore.Active {
			return ErrWrongCode
		}
		if err := once.spend(ctx, tx); err != nil {
			return err
		}
		sealed, err := p.advanceCounter(person, person.Factors[i], g.credential, key)
		if err != nil {
			return err
		}
		if err := tx.UseFactor(ctx, g.factor, sealed, p.now()); err != nil {
			return err
		}
		if err := tx.Refund(ctx, charges); err != nil {
			return err
		}
		if s == nil {
			t, next, err = p.newSession(ctx, tx, v, person, SignedIn, "passkey", Claims{})
		} else {
			t, err = p.advance(ctx, tx, v, &next, "passkey")
		}
		return err
	})
	return t, next, err
}

// advanceCounter seals a passkey with what its authenticator told; errCounter.
func (p *People) advanceCounter(of Person, f StoredFactor, told webauthn.Credential, key uint32) (Sealed, error) {
	kept, err := p.openCredential(of.ID, f)
	if err != nil {
		return Sealed{}, err
	}
	kept.Authenticator.CloneWarning = false
	if kept.Authenticator.UpdateCounter(told.Authenticator.SignCount); kept.Authenticator.CloneWarning {
		return Sealed{}, errCounter
	}
	kept.Flags = told.Flags
	plain, err := json.Marshal(kept)
	if err != nil {
		return Sealed{}, err
	}
	defer clear(plain)
	return p.sealWith(key, plain, factorPlace(of.ID, f.ID))
}

// AskNew begins the WebAuthn dialogue that makes a passkey; ErrStepUp, ErrNoPasskeys.
func (p *People) AskNew(ctx context.Context, s Session) (Ceremony, error) {
	if p.rp == nil {
		return Ceremony{}, ErrNoPasskeys
	}
	s, err := p.mayAdd(ctx, p.o.Truth, s)
	if err != nil {
		return Ceremony{}, err
	}
	h, err := p.sessionHolder(ctx, s)
	if err != nil {
		return Ceremony{}, err
	}
	var have []protocol.CredentialDescriptor
	for _, c := range h.credentials {
		have = append(have, c.Descriptor())
	}
	options, session, err := p.rp.BeginRegistration(h, webauthn.WithExclusions(have), webauthn.WithAuthenticatorSelection(
		protocol.AuthenticatorSelection{ResidentKey: protocol.ResidentKeyRequirementPreferred, UserVerification: protocol.VerificationPreferred}))
	if err != nil {
		return Ceremony{}, err
	}
	return p.ceremony(ctx, stateAdd, &s, options, session)
}

func (p *People) sessionHolder(ctx context.Context, s Session) (*holder, error) {
	person, err := p.o.Truth.Person(ctx, s.Account)
	if err != nil {
		return nil, err
	}
	return p.holder(person)
}

// AddPasskey adds the passkey that the browser made; see AddTOTP. ErrKnownFactor besides.
func (p *People) AddPasskey(ctx context.Context, v Visitor, s Session, state string, answer []byte, label string) (Token, Session, error) {
	if p.rp == nil {
		return "", Session{}, ErrNoPasskeys
	}
	s, err := p.mayAdd(ctx, p.o.Truth, s)
	if err != nil {
		return "", Session{}, err
	}
	var asked webauthn.SessionData
	once, err := p.openState(stateAdd, &s, state, &asked)
	if err != nil {
		return "", Session{}, err
	}
	charges := []Charge{p.charge(perPasskey, stateAdd, number(s.Account))}
	if err := p.take(ctx, charges...); err != nil {
		return "", Session{}, err
	}
	made, err := p.register(ctx, s, asked, answer)
	if err != nil {
		return "", Session{}, p.giveBack(ctx, charges, err)
	}
	plain, err := json.Marshal(made)
	if err != nil {
		return "", Session{}, err
	}
	defer clear(plain)
	now := p.now()
	f := StoredFactor{Factor: Factor{Kind: Passkey, Label: label, Created: now, LastUsed: now}, Credential: made.ID}
	t, next, err := p.add(ctx, v, s, once, f, plain)
	if err = p.giveBack(ctx, charges, err); err != nil {
		return "", Session{}, err
	}
	return t, next, nil
}

// register checks the answer to AskNew; ErrWrongCode.
func (p *People) register(ctx context.Context, s Session, asked webauthn.SessionData, answer []byte) (*webauthn.Credential, error) {
	if len(answer) > maxAnswer {
		return nil, ErrWrongCode
	}
	h, err := p.sessionHolder(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := p.hashing.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer p.hashing.Release(1)
	parsed, err := protocol.ParseCredentialCreationResponseBytes(answer)
	if err != nil {
		return nil, ErrWrongCode
	}
	made, err := p.rp.CreateCredential(h, asked, parsed)
	if err != nil {
		return nil, ErrWrongCode
	}
	return made, nil
}
