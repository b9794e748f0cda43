// Package oidcsignin lets people sign in at an OpenID Connect provider: the dialogue by authorization code with PKCE, what the provider says
// of who signed in, and of sessions that have ended there. It knows no page and no account; the portal leads browsers, authstore/identity
// decides who gets in. Tokens are read and dropped.
package oidcsignin

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"

	"postern/authstore/identity"
)

const (
	// discoveryFor is how long a discovery document is believed before it is read again.
	discoveryFor = time.Hour
	// clocksDiffer is how far the provider's clock may be off.
	clocksDiffer = time.Minute
)

// Options are what a Provider is.
type Options struct {
	Issuer       string // letter by letter as in its discovery document
	ClientID     string
	ClientSecret string // empty: a public client
	Redirect     string // where the provider sends browsers back to, exactly as it is registered there
	Scopes       []string

	// AddressClaim names the claim that holds somebody's address, or the list of them; GroupsClaim likewise, empty: there is none.
	AddressClaim, GroupsClaim string
	// TrustAddresses: they are his, whether the provider says that they were verified or not.
	TrustAddresses bool
	// FactorACR and FactorAMR are what says that a second factor was given at the provider that counts here.
	FactorACR, FactorAMR []string

	TLS     *tls.Config   // towards the provider; nil: the system's authorities
	Timeout time.Duration // of one question to the provider; 0: ten seconds
	Log     *slog.Logger
	Now     func() time.Time // nil: time.Now
}

// Provider is an OpenID Connect provider. It is asked when it is first needed, not before. Goroutines may share it.
type Provider struct {
	o       Options
	client  *http.Client
	asking  singleflight.Group
	endings chan struct{} // places for logout tokens that are looked at

	mu     sync.Mutex // guards the fields below
	found  *found     // nil: not yet
	failed error      // why the last try to find it led to nothing; nil: it did not
	tried  time.Time  // when that was

	complained atomic.Int64 // when the log was last told of trouble, in Unix seconds
}

// New makes a provider. Nothing is asked of it.
func New(o Options) *Provider {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Timeout == 0 {
		o.Timeout = answerTime
	}
	return &Provider{o: o, client: newClient(o.TLS, o.Timeout), endings: make(chan struct{}, maxEndings)}
}

// Issuer is who the provider is.
func (p *Provider) Issuer() string { return p.o.Issuer }

// found is what a provider's discovery document says, and its keys.
type found struct {
	metadata
	provider *oidc.Provider
	verifier *oidc.IDTokenVerifier
	at       time.Time
}

// metadata are the parts of a discovery document that go-oidc does not tell (OpenID Connect Discovery 1.0 section 3, RFC 9207, Back-Channel
// Logout 1.0 section 2.1, RP-Initiated Logout 1.0 section 2.1).
type metadata struct {
	Authorize   string   `json:"authorization_endpoint"`
	Token       string   `json:"token_endpoint"`
	Keys        string   `json:"jwks_uri"`
	UserInfo    string   `json:"userinfo_endpoint"`
	EndSession  string   `json:"end_session_endpoint"`
	Algorithms  []string `json:"id_token_signing_alg_values_supported"`
	ClientAuth  []string `json:"token_endpoint_auth_methods_supported"`
	Challenges  []string `json:"code_challenge_methods_supported"`
	TellsIssuer bool     `json:"authorization_response_iss_parameter_supported"`
	BackChannel bool     `json:"backchannel_logout_supported"`
}

// find gives what the provider is, from memory or by asking it; identity.ErrUnavailable.
func (p *Provider) find(ctx context.Context) (*found, error) {
	now, downFor := time.Now(), p.o.Timeout/2 // how long one that did not answer is not asked again
	p.mu.Lock()
	f, failed, tried := p.found, p.failed, p.tried
	p.mu.Unlock()
	switch {
	case f != nil && (now.Sub(f.at) < discoveryFor || now.Sub(tried) < downFor): // an old one is better than none
		return f, nil
	case failed != nil && now.Sub(tried) < downFor:
		return nil, failed
	}
	done := p.asking.DoChan("discovery", func() (any, error) { return p.discover(), nil })
	select {
	case <-done:
	case <-ctx.Done():
		return nil, unavailable(context.Cause(ctx))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found == nil {
		return nil, p.failed
	}
	return p.found, nil
}

// discover asks the provider what it is. It goes on when who asked first has gone: others may wait.
func (p *Provider) discover() error {
	ctx, cancel := context.WithTimeout(context.Background(), p.o.Timeout)
	defer cancel()
	f, err := p.read(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tried, p.failed = time.Now(), nil
	if err != nil {
		p.failed = p.down("read what it is", err)
		return p.failed
	}
	p.found = f
	return nil
}

// read reads the discovery document.
func (p *Provider) read(ctx context.Context) (*found, error) {
	ctx = oidc.ClientContext(ctx, p.client)
	provider, err := oidc.NewProvider(ctx, p.o.Issuer)
	if err != nil {
		return nil, err
	}
	f := &found{provider: provider, at: time.Now()}
	if err := provider.Claims(&f.metadata); err != nil {
		return nil, err
	}
	for _, at := range []struct {
		name, address string
		needed        bool
	}{{"authorization_endpoint", f.Authorize, true}, {"token_endpoint", f.Token, true}, {"jwks_uri", f.Keys, true},
		{"userinfo_endpoint", f.UserInfo, false}, {"end_session_endpoint", f.EndSession, false}} {
		if (at.needed || at.address != "") && !p.proper(at.address) {
			return nil, fmt.Errorf("its discovery document names no proper %s", at.name)
		}
	}
	keys := &keySet{oidc.NewRemoteKeySet(oidc.ClientContext(context.Background(), p.client), f.Keys)}
	f.verifier = oidc.NewVerifier(p.o.Issuer, keys, &oidc.Config{ClientID: p.o.ClientID, SupportedSigningAlgs: signedWith(f.Algorithms), Now: p.o.Now})
	return f, nil
}

// proper reports whether an address of the provider's may be gone to: encrypted, but for a provider on this machine.
func (p *Provider) proper(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && strings.HasPrefix(p.o.Issuer, "http://")
}

// asymmetric are the algorithms whose keys a provider can show: never "none", and never an HMAC, for which its public key could be taken as
// the secret (RFC 8725 section 2.1).
var asymmetric = []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA}

// signedWith are the algorithms that a provider's tokens may be signed with.
func signedWith(announced []string) []string {
	if list := slices.DeleteFunc(slices.Clone(announced), func(a string) bool { return !slices.Contains(asymmetric, a) }); len(list) > 0 {
		return list
	}
	return []string{oidc.RS256} // which all must know (OpenID Connect Core 1.0 section 15.1)
}

// keySet tells keys that can't be had from signatures that are wrong.
type keySet struct{ oidc.KeySet }

// noKeys is the context's key of the place where a keySet notes that there are no keys.
type noKeys struct{}

func (k *keySet) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	payload, err := k.KeySet.VerifySignature(ctx, jwt)
	if err != nil && strings.HasPrefix(err.Error(), "fetching keys") {
		if at, ok := ctx.Value(noKeys{}).(*error); ok {
			*at = err
		}
	}
	return payload, err
}

// errRubbish is an answer that is not what was asked for.
var errRubbish = errors.New("its answer makes no sense")

func unavailable(cause error) error { return fmt.Errorf("%w: %v", identity.ErrUnavailable, cause) }

// down tells the log, at most once a minute, that the provider does not do what it must, and gives the error for the page.
func (p *Provider) down(what string, err error) error {
	now, last := time.Now().Unix(), p.complained.Load()
	if !errors.Is(err, context.Canceled) && now-last >= 60 && p.complained.CompareAndSwap(last, now) {
		p.o.Log.Error("people can't sign in", "issuer", p.o.Issuer, "at", what, "err", brief(err))
	}
	return unavailable(fmt.Errorf("%s: %s", what, brief(err)))
}

// failed is an error in few words.
type failed struct {
	text  string
	cause error
}

func (f *failed) Error() string { return f.text }
func (f *failed) Unwrap() error { return f.cause }

// brief is an error without what a provider may have put into it at length.
func brief(err error) string {
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(err.Error(), "?"))
	if len(text) > 200 {
		text = strings.ToValidUTF8(text[:200], "") + " ..."
	}
	return text
}

// config is the provider as the OAuth library knows it.
func (p *Provider) config(f *found) *oauth2.Config {
	style := oauth2.AuthStyleInParams
	if p.o.ClientSecret != "" && (len(f.ClientAuth) == 0 || slices.Contains(f.ClientAuth, "client_secret_basic") || !slices.Contains(f.ClientAuth, "client_secret_post")) {
		style = oauth2.AuthStyleInHeader
	}
	return &oauth2.Config{ClientID: p.o.ClientID, ClientSecret: p.o.ClientSecret, RedirectURL: p.o.Redirect, Scopes: p.o.Scopes,
		Endpoint: oauth2.Endpoint{AuthURL: f.Authorize, TokenURL: f.Token, AuthStyle: style}}
}

// SignOutURL is where somebody may sign out at the provider too; empty: nobody knows, or it has no such page.
func (p *Provider) SignOutURL(ctx context.Context) string {
	f, err := p.find(ctx)
	if err != nil || f.EndSession == "" {
		return ""
	}
	u, err := url.Parse(f.EndSession)
	if err != nil {
		return ""
	}
	q := u.Query()
	q.Set("client_id", p.o.ClientID) // the token that could be a hint is not kept
	u.RawQuery = q.Encode()
	return u.String()
}

// Probe asks the provider what it is and for its keys, and says in plain words what is wrong and what to do; nil: all is well. backChannel:
// sessions that end there can end here.
func (p *Provider) Probe(ctx context.Context) (backChannel bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.o.Timeout)
	defer cancel()
	f, err := p.read(ctx)
	if err != nil {
		remedy := ""
		if _, other := errors.AsType[*oidc.IssuerMismatchError](err); other {
			remedy = "; write issuer as it stands there"
		}
		if strings.HasPrefix(err.Error(), "404 ") {
			remedy = "; there is no " + p.o.Issuer + "/.well-known/openid-configuration; look at issuer"
		}
		return false, &failed{brief(err) + remedy, err}
	}
	if len(f.Challenges) > 0 && !slices.Contains(f.Challenges, "S256") && p.o.ClientSecret == "" {
		return f.BackChannel, errors.New("it does not know PKCE with S256, which alone protects a public client; register a confidential one and set client_secret_file")
	}
	return f.BackChannel, p.probeKeys(ctx, f.Keys)
}

func (p *Provider) probeKeys(ctx context.Context, address string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	resp, err := p.client.Do(r)
	if err != nil {
		return fmt.Errorf("its keys: %s", brief(err))
	}
	defer resp.Body.Close()
	var keys struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&keys); err != nil || resp.StatusCode != http.StatusOK || len(keys.Keys) == 0 {
		return fmt.Errorf("its keys at %s: status %d, %d keys", address, resp.StatusCode, len(keys.Keys))
	}
	return nil
}
