package upstreamtoken

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"postern/authstore"
)

// The errors of consents.
var (
	// ErrMixedUp: the answer is another server's, or one to another question.
	ErrMixedUp = errors.New("the answer does not belong to what was asked")
	// ErrNoRefresh: the server gave a token that can't be refreshed, so that the connection would end within the hour.
	ErrNoRefresh = errors.New("the server gives no refresh token; look whether its scopes, and what the client may do there, have offline access")
	// ErrNoDevice: the server has no device flow.
	ErrNoDevice = errors.New("the server has no device flow")
)

// OtherPerson says that who consented is somebody else than the account's person.
type OtherPerson struct{ Address string } // as the server says

func (o *OtherPerson) Error() string { return "somebody else is signed in at the server" }

// Consent is what must be remembered while a person is asked at the server: the caller keeps it where nobody else can read it, bound to the person.
type Consent struct {
	Provider string
	Verifier string // RFC 7636
	Nonce    string // of OpenID Connect
}

// NewConsent begins a consent.
func (k *Keeper) NewConsent(provider string) (Consent, error) {
	if p := k.servers[provider]; p == nil || p.Client {
		return Consent{}, ErrUnknown
	}
	return Consent{provider, rand.Text() + rand.Text(), rand.Text()}, nil // 52 letters of the 43 at least that RFC 7636 section 4.1 wants
}

// AskPerson is the address at the server where a person is asked, from which the browser comes back to redirect with the state.
func (k *Keeper) AskPerson(ctx context.Context, c Consent, redirect, state, hint string) (string, error) {
	p := k.servers[c.Provider]
	if p == nil {
		return "", ErrUnknown
	}
	e, err := p.endpoints(ctx)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(e.Authorize)
	if err != nil {
		return "", err
	}
	challenge := sha256.Sum256([]byte(c.Verifier))
	q := u.Query()
	for name, value := range map[string]string{
		"response_type": "code", "client_id": p.ClientID, "redirect_uri": redirect, "scope": strings.Join(p.Scopes, " "), "state": state, "nonce": c.Nonce,
		"code_challenge": base64.RawURLEncoding.EncodeToString(challenge[:]), "code_challenge_method": "S256", "login_hint": hint,
	} {
		q.Set(name, value)
	}
	if slices.Contains(p.Scopes, "offline_access") && !strings.HasPrefix(e.Issuer, microsoft) {
		q.Set("prompt", "consent") // OpenID Connect Core section 11
	}
	for name, values := range p.extra {
		q[name] = values
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// Return is what a browser brought back from the server.
type Return struct {
	Code   string
	Issuer string // the parameter iss; empty: there was none
	Error  string // the parameter error
}

// Denied says that the server, or the person there, refused.
type Denied struct{ Code string } // of RFC 6749 section 4.1.2.1; empty: it is none that may be repeated

func (d *Denied) Error() string { return "the server says " + d.Code }

// Finish takes what came back, and connects the account: what the server gives is stored before it returns. Nothing is on any error: *Denied, *OtherPerson,
// ErrMixedUp, ErrNoRefresh, and others.
func (k *Keeper) Finish(ctx context.Context, actor authstore.Actor, a authstore.Account, c Consent, redirect string, back Return) error {
	p := k.servers[c.Provider]
	if p == nil {
		return ErrUnknown
	}
	e, err := p.endpoints(ctx)
	switch {
	case err != nil:
		return err
	case back.Issuer != "" && !e.isIssuer(back.Issuer), back.Issuer == "" && e.NamesSelf: // RFC 9207 section 2.4
		return ErrMixedUp
	case back.Error != "":
		return &Denied{code.FindString(back.Error)}
	case back.Code == "":
		return ErrMixedUp
	}
	got, err := p.ask(ctx, url.Values{"grant_type": {"authorization_code"}, "code": {back.Code}, "redirect_uri": {redirect}, "code_verifier": {c.Verifier}})
	if err != nil {
		return fmt.Errorf("redeem a code at %s: %w", p.Name, err)
	}
	return k.connect(ctx, actor, p, e, a, c.Nonce, got)
}

// connect stores what a person consented to, if it is his own.
func (k *Keeper) connect(ctx context.Context, actor authstore.Actor, p *server, e Endpoints, a authstore.Account, nonce string, got token) error {
	if got.refresh == "" {
		return ErrNoRefresh
	}
	if got.id != "" {
		who, err := p.readID(e, got.id, nonce)
		if err != nil {
			return err
		}
		if other := who.stranger(append(slices.Clone(a.Names), k.o.Logins(a, p.Name)...)); p.SamePerson && other != "" {
			return &OtherPerson{other}
		}
	}
	at := place{a.ID, p.Name}
	row, err := k.seal(ctx, at, got)
	if err != nil {
		return err
	}
	if row.Version, err = k.o.Store.Connect(ctx, actor, row); err != nil {
		return err
	}
	k.forget(at)
	k.o.Log.Info("connected", "account", int64(a.ID), "provider", p.Name)
	return nil
}

// person is what an ID token says of who consented.
type person struct {
	Email     string `json:"email"`
	Verified  *bool  `json:"email_verified"`
	Preferred string `json:"preferred_username"`
	UPN       string `json:"upn"`
}

// readID reads an ID token. It came from the token endpoint itself, by TLS, which stands for its signature (OpenID Connect Core section 3.1.3.7 number 6).
func (p *server) readID(e Endpoints, text, nonce string) (who person, err error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return who, ErrMixedUp
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return who, ErrMixedUp
	}
	var c struct {
		Issuer   string   `json:"iss"`
		Audience audience `json:"aud"`
		Party    string   `json:"azp"`
		Expires  float64  `json:"exp"`
		Nonce    string   `json:"nonce"`
	}
	if json.Unmarshal(body, &c) != nil || json.Unmarshal(body, &who) != nil {
		return person{}, ErrMixedUp
	}
	const slack = 5 * time.Minute // of clocks
	switch {
	case !e.isIssuer(c.Issuer), !slices.Contains(c.Audience, p.ClientID), c.Party != "" && c.Party != p.ClientID,
		time.Unix(int64(c.Expires), 0).Add(slack).Before(time.Now()), subtle.ConstantTimeCompare([]byte(c.Nonce), []byte(nonce)) != 1:
		return person{}, ErrMixedUp
	}
	return who, nil
}

// audience is a text, or a list of them.
type audience []string

func (a *audience) UnmarshalJSON(b []byte) error {
	if bytes.HasPrefix(b, []byte(`"`)) {
		*a = make(audience, 1)
		return json.Unmarshal(b, &(*a)[0])
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// stranger gives the address of who consented if none that the server tells is one of some names; empty: one is, or it tells none.
func (w person) stranger(names []string) string {
	told := []string{w.Preferred, w.UPN}
	if w.Verified == nil || *w.Verified {
		told = append([]string{w.Email}, told...)
	}
	told = slices.DeleteFunc(told, func(t string) bool { return t == "" })
	if len(told) == 0 {
		return ""
	}
	for _, t := range told {
		if slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, t) }) {
			return ""
		}
	}
	return told[0]
}

// Device is what a person needs who consents at another screen (RFC 8628).
type Device struct {
	Provider string
	Code     string    // to type in
	At       string    // where
	Complete string    // the address with the code in it; empty: there is none
	Until    time.Time // when it ends

	device   string
	interval time.Duration
}

const (
	usualInterval = 5 * time.Second // RFC 8628 section 3.2
	deviceLife    = 30 * time.Minute
)

// StartDevice begins a consent at another screen; ErrNoDevice.
func (k *Keeper) StartDevice(ctx context.Context, provider string) (Device, error) {
	p := k.servers[provider]
	if p == nil || p.Client {
		return Device{}, ErrUnknown
	}
	e, err := p.endpoints(ctx)
	if err != nil {
		return Device{}, err
	}
	if e.Device == "" {
		return Device{}, ErrNoDevice
	}
	body, err := p.post(ctx, e, e.Device, url.Values{"client_id": {p.ClientID}, "scope": {strings.Join(p.Scopes, " ")}})
	if err != nil {
		return Device{}, fmt.Errorf("ask %s for a code: %w", p.Name, err)
	}
	var d struct {
		Device   string `json:"device_code"`
		User     string `json:"user_code"`
		At       string `json:"verification_uri"`
		AtToo    string `json:"verification_url"` // Google's
		Complete string `json:"verification_uri_complete"`
		Expires  int64  `json:"expires_in"`
		Interval int64  `json:"interval"`
	}
	if json.Unmarshal(body, &d) != nil || d.Device == "" || d.User == "" || d.At+d.AtToo == "" {
		return Device{}, errRubbish
	}
	if d.At == "" {
		d.At = d.AtToo
	}
	life, interval := deviceLife, usualInterval
	if d.Expires > 0 && d.Expires < int64(life/time.Second) {
		life = time.Duration(d.Expires) * time.Second
	}
	if d.Interval > 0 && d.Interval <= 60 {
		interval = time.Duration(d.Interval) * time.Second
	}
	return Device{Provider: provider, Code: d.User, At: d.At, Complete: d.Complete, Until: time.Now().Add(life), device: d.Device, interval: interval}, nil
}

// WaitDevice waits until the person has consented, and connects the account; *Denied, context.DeadlineExceeded where the time is over, *OtherPerson,
// ErrNoRefresh, and others.
func (k *Keeper) WaitDevice(ctx context.Context, actor authstore.Actor, a authstore.Account, d Device) error {
	p := k.servers[d.Provider]
	e, err := p.endpoints(ctx)
	if err != nil {
		return err
	}
	waiting, cancel := context.WithDeadline(ctx, d.Until)
	defer cancel()
	for interval := d.interval; ; {
		select {
		case <-time.After(interval):
		case <-waiting.Done():
			return waiting.Err()
		}
		got, err := p.ask(waiting, url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {d.device}})
		if err == nil {
			return k.connect(ctx, actor, p, e, a, "", got)
		}
		said, ok := errors.AsType[*Answer](err)
		switch {
		case ok && said.Code == "authorization_pending":
		case ok && said.Code == "slow_down":
			interval += usualInterval // RFC 8628 section 3.5
		case ok && said.Code == "expired_token":
			return context.DeadlineExceeded
		case ok && said.Status < 500 && said.Status != 429:
			return &Denied{said.Code}
		default: // the server or the way to it has a fault that may pass
			interval = min(2*interval, time.Minute)
		}
	}
}

// Disconnect removes a connection, and has the server take its tokens back where it can: revoked says whether it has. authstore.ErrNotFound.
func (k *Keeper) Disconnect(ctx context.Context, actor authstore.Actor, id authstore.AccountID, provider string) (revoked bool, err error) {
	p := k.servers[provider]
	if p == nil {
		return false, authstore.ErrNotFound
	}
	at := place{id, provider}
	row, err := k.o.Store.UpstreamToken(ctx, id, provider)
	if err != nil {
		return false, err
	}
	had, openErr := k.open(row) // with a key that is gone it can be removed nevertheless
	if err := k.o.Store.Disconnect(ctx, actor, id, provider); err != nil {
		return false, err
	}
	k.forget(at)
	k.o.Log.Info("disconnected", "account", int64(id), "provider", provider)
	if openErr != nil || had.Refresh == "" {
		return false, nil
	}
	e, err := p.endpoints(ctx)
	if err == nil && e.Revoke != "" {
		_, err = p.post(ctx, e, e.Revoke, url.Values{"token": {had.Refresh}, "token_type_hint": {"refresh_token"}}) // RFC 7009
		if err == nil {
			return true, nil
		}
	}
	if err != nil {
		k.o.Log.Warn("a token was removed here, and not taken back at the server", "account", int64(id), "provider", provider, "err", err)
	}
	return false, nil
}

// State is how a connection is.
type State string

// The states.
const (
	None      State = "none"
	Connected State = "connected"
	Broken    State = "failed"
)

// Connection is an account's at one provider.
type Connection struct {
	Provider string
	Title    string // what people call the provider
	State    State
	Needed   bool      // the account's backends want it
	Since    time.Time // when it was last refreshed, or when it failed; zero: there is none
	Code     string    // why it failed
}

// Needed reports whether an account's backends want tokens.
func (k *Keeper) Needed(address string) bool {
	return slices.ContainsFunc(k.o.Needs(address), func(name string) bool { return k.servers[name] != nil && !k.servers[name].Client })
}

// Title is what people call a provider.
func (k *Keeper) Title(provider string) string {
	if p := k.servers[provider]; p != nil {
		return p.Title
	}
	return provider
}

// Hint is the address that an account's person signs in with at a provider, as far as one knows.
func (k *Keeper) Hint(a authstore.Account, provider string) string {
	for _, name := range k.o.Logins(a, provider) {
		if name != "" {
			return name
		}
	}
	return a.Names[0]
}

// Connections are those that an account has or needs, in the order of the configuration.
func (k *Keeper) Connections(ctx context.Context, a authstore.Account) ([]Connection, error) {
	needed := k.o.Needs(a.Names[0])
	var list []Connection
	for _, o := range k.o.Providers {
		p := k.servers[o.Name]
		if p.Client {
			continue
		}
		c := Connection{Provider: p.Name, Title: p.Title, State: None, Needed: slices.Contains(needed, p.Name)}
		row, err := k.o.Store.UpstreamToken(ctx, a.ID, p.Name)
		switch {
		case errors.Is(err, authstore.ErrNotFound):
			if !c.Needed {
				continue
			}
		case err != nil:
			return nil, err
		default:
			c.State, c.Since = Connected, row.Refreshed
			if row.Failure != "" {
				c.State, c.Since, c.Code = Broken, row.Failed, row.Failure
			}
		}
		list = append(list, c)
	}
	return list, nil
}
