// Package upstreamtoken keeps the tokens that open accounts at backends which want OAuth: people consent once at an authorization server, and what came
// of that is sealed in the store, refreshed ahead of its end by one node at a time, and given to the logins that need it. It knows no page and no
// protocol of mail; the gateway, the portal and the command line call it.
package upstreamtoken

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Provider is one authorization server, with what Postern is there.
type Provider struct {
	Name       string    // the configuration's
	Title      string    // what people call it
	Issuer     string    // whose document says where the endpoints are; not read where Endpoints are set
	Endpoints  Endpoints // of a preset; the zero value: they are asked for
	ClientID   string
	Secret     string // empty: the client has none
	Scopes     []string
	Client     bool        // one token of the client's own serves all accounts (client credentials)
	SamePerson bool        // refuse what another person than the account's has consented to
	TLS        *tls.Config // nil: the system's authorities

	extra url.Values // what a preset says besides where a person is asked
}

// server is a provider that is asked.
type server struct {
	Provider
	http   *http.Client
	asking chan struct{} // has room for the one who asks for the document
	told   atomic.Int64  // when a fault of the server was last logged, in Unix seconds

	mu    sync.Mutex // guards the fields below
	found Endpoints
	asked time.Time // when the document was last asked for
	fault error     // what came of that
}

// Endpoints are an authorization server's addresses.
type Endpoints struct {
	Issuer    string
	Authorize string
	Token     string
	Device    string // empty: it has no device flow
	Revoke    string // empty: tokens can't be revoked by clients
	Basic     bool   // the client's secret goes into the header
	NamesSelf bool   // it says who it is when it leads a browser back (RFC 9207)
}

const microsoft = "https://login.microsoftonline.com/"

// Microsoft is Microsoft's identity platform for a tenant. Protocols are those of the backends that get its tokens.
func Microsoft(p Provider, tenant string, protocols []string) Provider {
	at := microsoft + url.PathEscape(tenant)
	p.Title = "Microsoft"
	p.Endpoints = Endpoints{Issuer: at + "/v2.0", Authorize: at + "/oauth2/v2.0/authorize", Token: at + "/oauth2/v2.0/token", Device: at + "/oauth2/v2.0/devicecode"}
	if p.Client {
		p.Scopes = orElse(p.Scopes, []string{"https://outlook.office365.com/.default"})
		return p
	}
	p.Scopes = orElse(p.Scopes, scopes(protocols, map[string][]string{
		"imap":       {"https://outlook.office.com/IMAP.AccessAsUser.All"},
		"pop3":       {"https://outlook.office.com/POP.AccessAsUser.All"},
		"submission": {"https://outlook.office.com/SMTP.Send"},
	}, "openid", "email", "profile", "offline_access"))
	return p
}

// Google is Google's, for Gmail and its calendars and contacts.
func Google(p Provider, protocols []string) Provider {
	p.Title = "Google"
	p.Endpoints = Endpoints{Issuer: "https://accounts.google.com", Authorize: "https://accounts.google.com/o/oauth2/v2/auth", Token: "https://oauth2.googleapis.com/token",
		Device: "https://oauth2.googleapis.com/device/code", Revoke: "https://oauth2.googleapis.com/revoke"}
	mail := []string{"https://mail.google.com/"}
	p.Scopes = orElse(p.Scopes, scopes(protocols, map[string][]string{
		"imap": mail, "pop3": mail, "submission": mail,
		"dav": {"https://www.googleapis.com/auth/calendar", "https://www.googleapis.com/auth/carddav"},
	}, "openid", "email"))
	p.extra = url.Values{"access_type": {"offline"}, "prompt": {"consent"}} // else a second consent gives no refresh token
	return p
}

func orElse(written, standard []string) []string {
	if len(written) > 0 {
		return written
	}
	return standard
}

// scopes are what the protocols need, each once, and no more.
func scopes(protocols []string, of map[string][]string, more ...string) []string {
	var list []string
	for _, protocol := range slices.Sorted(slices.Values(protocols)) {
		for _, s := range of[protocol] {
			if !slices.Contains(list, s) {
				list = append(list, s)
			}
		}
	}
	return append(list, more...)
}

func newServer(p Provider) *server {
	if p.Title == "" {
		p.Title = p.Name
		if u, err := url.Parse(p.Issuer); err == nil && u.Hostname() != "" {
			p.Title = u.Hostname()
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() // with the environment's proxy
	transport.TLSClientConfig = p.TLS
	transport.MaxResponseHeaderBytes = 64 << 10
	return &server{Provider: p, asking: make(chan struct{}, 1), http: &http.Client{Transport: transport, Timeout: askTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}} // a secret follows nobody elsewhere
}

const (
	documentFor   = 24 * time.Hour   // how long a document is believed
	documentPause = 10 * time.Second // between two questions for one that does not come
)

// endpoints are the provider's, asked for where need be. One asks; the others wait for the answer.
func (p *server) endpoints(ctx context.Context) (Endpoints, error) {
	if p.Endpoints.Token != "" {
		return p.Endpoints, nil
	}
	if found, known, err := p.known(); known {
		return found, err
	}
	select {
	case p.asking <- struct{}{}:
		defer func() { <-p.asking }()
	case <-ctx.Done():
		return Endpoints{}, context.Cause(ctx)
	}
	if found, known, err := p.known(); known {
		return found, err
	}
	found, err := p.discover(context.WithoutCancel(ctx))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked, p.fault = time.Now(), err
	switch {
	case err == nil:
		p.found = found
	case p.found.Token != "": // what was so yesterday is likely so today
		p.fault = nil
		return p.found, nil
	}
	return found, err
}

// known is what the last question gave, while that is to be believed.
func (p *server) known() (Endpoints, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch age := time.Since(p.asked); {
	case p.found.Token != "" && age < documentFor:
		return p.found, true, nil
	case p.fault != nil && age < documentPause:
		return Endpoints{}, true, p.fault
	}
	return Endpoints{}, false, nil
}

// discover reads the document of OpenID Connect Discovery, or else that of RFC 8414.
func (p *server) discover(ctx context.Context) (Endpoints, error) {
	u, err := url.Parse(p.Issuer)
	if err != nil {
		return Endpoints{}, err
	}
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	origin := u.Scheme + "://" + u.Host
	var last error
	for _, at := range []string{origin + path + "/.well-known/openid-configuration", origin + "/.well-known/oauth-authorization-server" + path} {
		found, err := p.readDocument(ctx, at)
		if err == nil {
			return found, nil
		}
		last = err
		if a, ok := errors.AsType[*Answer](err); !ok || a.Status != http.StatusNotFound {
			break
		}
	}
	return Endpoints{}, fmt.Errorf("the document of %s: %w", p.Issuer, last)
}

func (p *server) readDocument(ctx context.Context, at string) (Endpoints, error) {
	body, err := p.send(ctx, http.MethodGet, at, nil)
	if err != nil {
		return Endpoints{}, err
	}
	var d struct {
		Issuer    string   `json:"issuer"`
		Authorize string   `json:"authorization_endpoint"`
		Token     string   `json:"token_endpoint"`
		Device    string   `json:"device_authorization_endpoint"`
		Revoke    string   `json:"revocation_endpoint"`
		Methods   []string `json:"token_endpoint_auth_methods_supported"`
		NamesSelf bool     `json:"authorization_response_iss_parameter_supported"`
	}
	if json.Unmarshal(body, &d) != nil {
		return Endpoints{}, errRubbish
	}
	if d.Issuer != p.Issuer { // RFC 8414 section 3.3
		return Endpoints{}, fmt.Errorf("it is that of %.200q; write issuer as it stands there", d.Issuer)
	}
	if d.Token == "" || d.Authorize == "" && !p.Client {
		return Endpoints{}, errors.New("it names no token_endpoint, or no authorization_endpoint")
	}
	for _, endpoint := range []string{d.Authorize, d.Token, d.Device, d.Revoke} {
		if endpoint != "" && !secure(endpoint, p.Issuer) {
			return Endpoints{}, fmt.Errorf("%.200q in it is no https address", endpoint)
		}
	}
	// The header is what servers must take where they say nothing (RFC 6749 section 2.3.1).
	return Endpoints{Issuer: d.Issuer, Authorize: d.Authorize, Token: d.Token, Device: d.Device, Revoke: d.Revoke, NamesSelf: d.NamesSelf,
		Basic: len(d.Methods) == 0 || slices.Contains(d.Methods, "client_secret_basic")}, nil
}

// secure takes https, and where the issuer itself is on loopback in plain text, that too.
func secure(endpoint, issuer string) bool {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && strings.HasPrefix(issuer, "http://") && isLoopback(u.Hostname())
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// tenantIssuer is how Microsoft's tenants name themselves, whatever name one was asked by.
var tenantIssuer = regexp.MustCompile(`^https://login\.microsoftonline\.com/[0-9A-Za-z.-]+/v2\.0$`)

// isIssuer reports whether a name is the server's own.
func (e Endpoints) isIssuer(name string) bool {
	switch {
	case strings.HasPrefix(e.Issuer, microsoft):
		return tenantIssuer.MatchString(name)
	case e.Issuer == "https://accounts.google.com" && name == "accounts.google.com": // Google's older ID tokens
		return true
	}
	return name == e.Issuer
}

// probe tries the server as far as one can without a person: the document, and an answer of the token endpoint, which for a client is a token.
func (p *server) probe(ctx context.Context) error {
	e, err := p.endpoints(ctx)
	if err != nil {
		return err
	}
	if p.Client {
		_, err = p.ask(ctx, url.Values{"grant_type": {"client_credentials"}, "scope": {strings.Join(p.Scopes, " ")}})
		return err
	}
	_, err = p.send(ctx, http.MethodGet, e.Token, nil) // it answers that this is not how one asks
	if a, ok := errors.AsType[*Answer](err); ok && a.Status < 500 {
		return nil
	}
	return err
}
