package oidcsignin

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"postern/authstore/identity"
)

// Errors of dialogues, besides identity.ErrUnavailable.
var (
	// ErrStale: the answer belongs to another dialogue, of another browser or of before.
	ErrStale = errors.New("the answer belongs to another dialogue")
	// ErrUntrusted: the answer is not what was asked for, and may be an attacker's.
	ErrUntrusted = errors.New("the provider's answer can't be trusted")
)

// Refused says that the provider let nobody sign in.
type Refused struct {
	Code string // of RFC 6749 section 4.1.2.1 or OpenID Connect Core 1.0 section 3.1.2.6; "other" for what stands in neither
}

func (e *Refused) Error() string { return "the provider answers " + e.Code }

// refusals are the codes of Refused. What else a provider writes, and its descriptions, come from the address of a page that anybody can make.
var refusals = []string{"invalid_request", "unauthorized_client", "access_denied", "unsupported_response_type", "invalid_scope", "server_error",
	"temporarily_unavailable", "interaction_required", "login_required", "account_selection_required", "consent_required",
	"unmet_authentication_requirements"}

// Dialogue is what one dialogue knows of its first step, to be sealed into the browser's cookie.
type Dialogue struct {
	State, Nonce, Verifier string
	Began                  time.Time
	Again                  bool // a second factor has to be given anew
}

// Begin gives the address to which a browser is led. again asks for a second factor to be given anew, whoever is signed in there.
// identity.ErrUnavailable.
func (p *Provider) Begin(ctx context.Context, again bool) (to string, d Dialogue, err error) {
	f, err := p.find(ctx)
	if err != nil {
		return "", Dialogue{}, err
	}
	d = Dialogue{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Began: p.o.Now(), Again: again}
	more := []oauth2.AuthCodeOption{oidc.Nonce(d.Nonce), oauth2.S256ChallengeOption(d.Verifier)}
	if len(p.o.FactorACR) > 0 {
		more = append(more, oauth2.SetAuthURLParam("acr_values", strings.Join(p.o.FactorACR, " ")))
	}
	if again {
		more = append(more, oauth2.SetAuthURLParam("prompt", "login"), oauth2.SetAuthURLParam("max_age", "0"))
	}
	return p.config(f).AuthCodeURL(d.State, more...), d, nil
}

// Proof is what the provider says of who signed in.
type Proof struct {
	identity.Claims
	Unverified bool // it names an address and does not say that it was verified
}

// Finish reads the answer with which the provider sent the browser back. ErrStale, ErrUntrusted, *Refused, identity.ErrUnavailable.
func (p *Provider) Finish(ctx context.Context, d Dialogue, answer url.Values) (Proof, error) {
	for _, name := range []string{"state", "iss", "code", "error"} {
		if len(answer[name]) > 1 { // RFC 6749 section 3.1
			return Proof{}, untrusted("it has two of " + name)
		}
	}
	if d.State == "" || subtle.ConstantTimeCompare([]byte(answer.Get("state")), []byte(d.State)) != 1 {
		return Proof{}, ErrStale
	}
	f, err := p.find(ctx)
	if err != nil {
		return Proof{}, err
	}
	if iss := answer.Get("iss"); iss != p.o.Issuer && (iss != "" || answer.Has("iss") || f.TellsIssuer) { // RFC 9207 section 2.4
		return Proof{}, untrusted("it is not from the issuer")
	}
	if code := answer.Get("error"); code != "" || answer.Has("error") {
		if !slices.Contains(refusals, code) {
			code = "other"
		}
		return Proof{}, &Refused{code}
	}
	code := answer.Get("code")
	if code == "" || len(code) > 4096 {
		return Proof{}, untrusted("it has no code")
	}
	return p.redeem(ctx, f, d, code)
}

func untrusted(why string) error { return fmt.Errorf("%w: %s", ErrUntrusted, why) }

// redeem gets the tokens for a code and reads them.
func (p *Provider) redeem(ctx context.Context, f *found, d Dialogue, code string) (Proof, error) {
	ctx = oidc.ClientContext(ctx, p.client)
	tokens, err := p.config(f).Exchange(ctx, code, oauth2.VerifierOption(d.Verifier))
	if err != nil {
		return Proof{}, p.noToken(err)
	}
	raw, _ := tokens.Extra("id_token").(string)
	if raw == "" {
		return Proof{}, p.down("redeem a code", errors.New("there is no id_token; scopes needs openid"))
	}
	var keys error
	id, err := f.verifier.Verify(context.WithValue(ctx, noKeys{}, &keys), raw)
	switch {
	case keys != nil:
		return Proof{}, p.down("fetch its keys", keys)
	case err != nil:
		return Proof{}, untrusted(brief(err))
	}
	said, err := p.checkID(d, id)
	if err != nil {
		return Proof{}, err
	}
	if id.AccessTokenHash != "" && id.VerifyAccessToken(tokens.AccessToken) != nil {
		return Proof{}, untrusted("at_hash is of another access token")
	}
	if p.needsMore(said) && f.UserInfo != "" {
		if err := p.askMore(ctx, f, tokens, said); err != nil {
			return Proof{}, err
		}
	}
	return p.proof(said), nil
}

// noToken tells why a code could not be redeemed. The library's own words hold the whole answer.
func (p *Provider) noToken(err error) error {
	r, refused := errors.AsType[*oauth2.RetrieveError](err)
	switch {
	case !refused:
		return p.down("redeem a code", err)
	case r.ErrorCode == "invalid_grant": // used before, of another dialogue, or too old
		return untrusted("the code is not valid")
	case r.ErrorCode == "invalid_client" || r.ErrorCode == "unauthorized_client":
		return p.down("redeem a code", errors.New("it does not take the client; look at client_id and client_secret_file"))
	}
	return p.down("redeem a code", fmt.Errorf("status %d", r.Response.StatusCode))
}

// said are the claims of somebody who signed in.
type said struct {
	subject string
	claims  claims
}

// checkID checks what go-oidc does not: it has looked at signature, issuer, audience and time (OpenID Connect Core 1.0 section 3.1.3.7).
func (p *Provider) checkID(d Dialogue, id *oidc.IDToken) (*said, error) {
	s := &said{subject: id.Subject}
	if err := id.Claims(&s.claims); err != nil {
		return nil, untrusted("its claims can't be read")
	}
	now := p.o.Now()
	azp, named := s.claims["azp"]
	switch {
	case d.Nonce == "" || subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(d.Nonce)) != 1:
		return nil, untrusted("the nonce is another dialogue's")
	case len(id.Audience) > 1 && !named, named && s.claims.text("azp") != p.o.ClientID:
		return nil, untrusted(fmt.Sprintf("it was issued to %.100q", azp))
	case id.IssuedAt.IsZero() || id.IssuedAt.After(now.Add(clocksDiffer)) || id.IssuedAt.Before(d.Began.Add(-clocksDiffer)):
		return nil, untrusted("it was not issued now; look at the clocks")
	case id.Subject == "" || len(id.Subject) > 255 || strings.ContainsFunc(id.Subject, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return nil, untrusted("the subject is none")
	case d.Again && s.claims.time("auth_time").IsZero(): // section 3.1.2.1, of max_age
		return nil, untrusted("it does not say when the second factor was given")
	}
	return s, nil
}
