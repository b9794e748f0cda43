package testlab

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// TokenServer is an authorization server: it issues opaque tokens and answers for them. It speaks the code flow with PKCE (RFC 6749, RFC 7636), refresh
// with rotation (one that was used before ends all that came of the same consent, RFC 9700 section 4.14), client credentials, the device flow
// (RFC 8628), introspection (RFC 7662), revocation (RFC 7009), discovery (RFC 8414, and OpenID's), userinfo and signed ID tokens. Nobody is asked:
// the user of login_hint consents at once, or else Alice; Answer changes that.
//
// It counts what it is asked (Asked), fails as a test says (Fail), and does by hand what is done by others: Issue and Refreshable give tokens, Expire
// and Revoke end them, Approve is what a person does with a device's code. Set the exported fields below before it is asked. Goroutines may share it.
type TokenServer struct {
	URL      string // the issuer: https, of a certificate of CA; below it /authorize, /token, /device, /introspect, /revoke, /userinfo, /keys
	Plain    string // the same over HTTP, and an issuer of its own: for who shall know no CA, as Dovecot that introspects
	CA       *CA
	ClientID string
	Secret   string // of the client, by basic authentication or in the form; empty: it has none

	Life     time.Duration // of access tokens; default: an hour
	Fixed    bool          // refresh tokens are not rotated, as Google's
	Padding  int           // bytes put behind each access token, for long ones
	AppUser  string        // whom the tokens of client credentials open; default: Alice
	Interval int           // of the device flow, in seconds; default: 0, as fast as asked

	mu       sync.Mutex // guards what follows
	faults   map[string]Fault
	awake    chan struct{} // closed when the faults change
	asked    map[string]int
	answer   func(hint string) (user, failure string)
	codes    map[string]*codeGrant
	devices  map[string]*deviceGrant // by device code
	access   map[string]*accessToken
	refresh  map[string]*refreshToken
	consents int
	key      *rsa.PrivateKey
}

// Fault is how an endpoint fails.
type Fault int

// The faults.
const (
	Works          Fault = iota
	Hangs                // it says nothing until the fault is another or the client has gone
	ServerFails          // 500, in HTML
	Rubbish              // 200, and no JSON
	InvalidGrant         // 400 invalid_grant, at /token; elsewhere 401
	TooManyAtOnce        // 429 with Retry-After: 1
	Unavailable          // 503 temporarily_unavailable
	HangsUp              // it closes the connection
	EndlessAnswer        // 200, and more than anybody should read
	RedirectsAway        // 307 to a place where nobody is
	InvalidClient        // 401 invalid_client: the client's secret has ended
	ConsentMissing       // 400 interaction_required, as Microsoft where an administrator changed the rules
)

type accessToken struct {
	user, scope, client string
	consent             int
	ends                time.Time
}

type refreshToken struct {
	user, scope string
	consent     int
	used        bool
}

type codeGrant struct {
	user, scope, redirect, challenge, nonce string
	ends                                    time.Time
}

type deviceGrant struct {
	userCode, scope, user string
	denied                bool
	ends                  time.Time
}

const (
	codeLife   = 5 * time.Minute
	grantOfDev = "urn:ietf:params:oauth:grant-type:device_code"
	maxForm    = 64 << 10
)

// NewTokenServer starts one. It ends with the test.
func NewTokenServer(t testing.TB) *TokenServer {
	t.Helper()
	s := &TokenServer{CA: NewCA(t), ClientID: "postern", Secret: "secret-of-the-client", Life: time.Hour, AppUser: Alice,
		faults: make(map[string]Fault), awake: make(chan struct{}), asked: make(map[string]int), codes: make(map[string]*codeGrant),
		devices: make(map[string]*deviceGrant), access: make(map[string]*accessToken), refresh: make(map[string]*refreshToken)}
	s.answer = func(hint string) (string, string) { return hint, "" }
	handler := s.handler()
	plain := httptest.NewServer(handler)
	_, _, cert := s.CA.Issue()
	secure := httptest.NewUnstartedServer(handler)
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	secure.StartTLS()
	t.Cleanup(func() {
		s.Fail("", Works) // wakes who hangs
		secure.CloseClientConnections()
		plain.CloseClientConnections()
		secure.Close()
		plain.Close()
	})
	s.Plain = strings.Replace(plain.URL, "127.0.0.1", "localhost", 1)
	s.URL = strings.Replace(secure.URL, "127.0.0.1", "localhost", 1)
	return s
}

// Client trusts the server's certificate.
func (s *TokenServer) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.CA.Pool}}}
}

// Fail has an endpoint ("/token") fail from now on; "" means all.
func (s *TokenServer) Fail(endpoint string, f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if endpoint == "" {
		clear(s.faults)
	}
	s.faults[endpoint] = f
	close(s.awake)
	s.awake = make(chan struct{})
}

// Asked is how often an endpoint ("/token") or a grant type ("refresh_token") was asked for, faults included.
func (s *TokenServer) Asked(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[what]
}

// Answer says who consents at /authorize: it is given login_hint, and returns the user, empty for Alice, or the failure that the redirect tells
// instead, such as "access_denied".
func (s *TokenServer) Answer(f func(hint string) (user, failure string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

// Issue gives an access token for a user.
func (s *TokenServer) Issue(user string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.consents++
	return s.issue(user, "mail", s.consents)
}

// Refreshable gives a refresh token for a user, as a consent does.
func (s *TokenServer) Refreshable(user string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.consents++
	return s.refreshable(user, "mail offline_access", s.consents)
}

// Expire ends all access tokens of a user, as time does; "" means all users.
func (s *TokenServer) Expire(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.access {
		if user == "" || a.user == user {
			a.ends = time.Now().Add(-time.Second)
		}
	}
}

// Revoke ends all tokens of a user, as its owner or an administrator does at the provider; "" means all users.
func (s *TokenServer) Revoke(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.access, func(_ string, a *accessToken) bool { return user == "" || a.user == user })
	maps.DeleteFunc(s.refresh, func(_ string, r *refreshToken) bool { return user == "" || r.user == user })
}

// Approve is a person who types a device's code in and consents, or with user "" denies. False: no device has that code.
func (s *TokenServer) Approve(userCode, user string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.devices {
		if d.userCode == userCode {
			d.user, d.denied = user, user == ""
			return true
		}
	}
	return false
}

// Valid tells whose an access token is; empty: nobody's, or no longer.
func (s *TokenServer) Valid(token string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.access[token]; a != nil && time.Now().Before(a.ends) {
		return a.user
	}
	return ""
}

func (s *TokenServer) issue(user, scope string, consent int) string {
	token := "at." + rand.Text() + strings.Repeat("x", s.Padding)
	s.access[token] = &accessToken{user, scope, s.ClientID, consent, time.Now().Add(s.Life)}
	return token
}

func (s *TokenServer) refreshable(user, scope string, consent int) string {
	token := "rt." + rand.Text()
	s.refresh[token] = &refreshToken{user: user, scope: scope, consent: consent}
	return token
}

func (s *TokenServer) handler() http.Handler {
	mux := http.NewServeMux()
	for path, serve := range map[string]http.HandlerFunc{
		"GET /authorize": s.authorize, "POST /token": s.token, "POST /device": s.device, "POST /introspect": s.introspect, "POST /revoke": s.revoke,
		"GET /userinfo": s.userinfo, "GET /keys": s.keys, "GET /.well-known/openid-configuration": s.discover,
		"GET /.well-known/oauth-authorization-server": s.discover,
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxForm)
			if err := r.ParseForm(); err != nil {
				refuse(w, http.StatusBadRequest, "invalid_request")
				return
			}
			if !s.fails(w, r) {
				serve(w, r)
			}
		})
	}
	return mux
}

// fails counts a request, and answers it where its endpoint is to fail.
func (s *TokenServer) fails(w http.ResponseWriter, r *http.Request) bool {
	s.mu.Lock()
	s.asked[r.URL.Path]++
	if grant := r.PostForm.Get("grant_type"); grant != "" {
		s.asked[grant]++
	}
	fault := s.faultAt(r.URL.Path)
	for fault == Hangs {
		awake := s.awake
		s.mu.Unlock()
		select {
		case <-awake:
		case <-r.Context().Done():
			return true
		}
		s.mu.Lock()
		fault = s.faultAt(r.URL.Path)
	}
	s.mu.Unlock()
	return failed(w, r, fault)
}

func (s *TokenServer) faultAt(path string) Fault {
	if f, ok := s.faults[path]; ok {
		return f
	}
	return s.faults[""]
}

func failed(w http.ResponseWriter, r *http.Request, fault Fault) bool {
	switch fault {
	case Works:
		return false
	case ServerFails:
		http.Error(w, "<html>an error has occurred</html>", http.StatusInternalServerError)
	case Rubbish:
		w.Write([]byte("\x00\xff{\"access_token\": "))
	case InvalidGrant:
		if r.URL.Path != "/token" {
			refuse(w, http.StatusUnauthorized, "invalid_token")
			return true
		}
		refuse(w, http.StatusBadRequest, "invalid_grant")
	case TooManyAtOnce:
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusTooManyRequests, "slow_down")
	case Unavailable:
		refuse(w, http.StatusServiceUnavailable, "temporarily_unavailable")
	case HangsUp:
		panic(http.ErrAbortHandler)
	case EndlessAnswer:
		endless := []byte(strings.Repeat(`{"access_token":`, 4<<10))
		for range 1 << 10 {
			if _, err := w.Write(endless); err != nil {
				break
			}
		}
	case RedirectsAway:
		http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
	case InvalidClient:
		refuse(w, http.StatusUnauthorized, "invalid_client")
	case ConsentMissing:
		refuse(w, http.StatusBadRequest, "interaction_required")
	}
	return true
}

func refuse(w http.ResponseWriter, status int, code string) {
	tell(w, status, map[string]any{"error": code, "error_description": "the lab says " + code})
}

func tell(w http.ResponseWriter, status int, what map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(what) // who does not take it has gone
}

// issuer is the address that was asked.
func issuer(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

func (s *TokenServer) discover(w http.ResponseWriter, r *http.Request) {
	at := issuer(r)
	tell(w, http.StatusOK, map[string]any{
		"issuer": at, "authorization_endpoint": at + "/authorize", "token_endpoint": at + "/token", "device_authorization_endpoint": at + "/device",
		"introspection_endpoint": at + "/introspect", "revocation_endpoint": at + "/revoke", "userinfo_endpoint": at + "/userinfo", "jwks_uri": at + "/keys",
		"response_types_supported": []string{"code"}, "code_challenge_methods_supported": []string{"S256"}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported":          []string{"RS256"},
		"scopes_supported":                               []string{"openid", "email", "mail", "offline_access"},
		"grant_types_supported":                          []string{"authorization_code", "refresh_token", "client_credentials", grantOfDev},
		"token_endpoint_auth_methods_supported":          []string{"client_secret_basic", "client_secret_post", "none"},
		"authorization_response_iss_parameter_supported": true,
	})
}

// authorize has the user consent and leads the browser back (RFC 6749 section 4.1), with iss (RFC 9207).
func (s *TokenServer) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.Form
	back, err := url.Parse(q.Get("redirect_uri"))
	switch {
	case err != nil || back.Host == "" || q.Get("client_id") != s.ClientID:
		http.Error(w, "unknown client or redirect_uri", http.StatusBadRequest)
		return
	case q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") == "" || q.Get("state") == "":
		http.Error(w, "the lab wants response_type=code, PKCE with S256, and a state", http.StatusBadRequest)
		return
	}
	told := back.Query()
	told.Set("state", q.Get("state"))
	told.Set("iss", issuer(r))
	s.mu.Lock()
	user, failure := s.answer(q.Get("login_hint"))
	if user == "" {
		user = Alice
	}
	if failure != "" {
		told.Set("error", failure)
	} else {
		code := "code." + rand.Text()
		s.codes[code] = &codeGrant{user: user, scope: q.Get("scope"), redirect: q.Get("redirect_uri"), challenge: q.Get("code_challenge"),
			nonce: q.Get("nonce"), ends: time.Now().Add(codeLife)}
		told.Set("code", code)
	}
	s.mu.Unlock()
	back.RawQuery = told.Encode()
	http.Redirect(w, r, back.String(), http.StatusSeeOther)
}

// knows tells whether a request is the client's own.
func (s *TokenServer) knows(r *http.Request) bool {
	id, secret, ok := r.BasicAuth()
	if ok { // RFC 6749 section 2.3.1
		id, _ = url.QueryUnescape(id)
		secret, _ = url.QueryUnescape(secret)
	} else {
		id, secret = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	}
	return id == s.ClientID && secret == s.Secret
}

func (s *TokenServer) token(w http.ResponseWriter, r *http.Request) {
	if !s.knows(r) {
		refuse(w, http.StatusUnauthorized, "invalid_client")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := r.PostForm
	switch f.Get("grant_type") {
	case "authorization_code":
		s.redeem(w, r)
	case "refresh_token":
		s.renew(w, f.Get("refresh_token"))
	case "client_credentials":
		s.consents++
		tell(w, http.StatusOK, s.tokenAnswer(s.AppUser, f.Get("scope"), s.consents))
	case grantOfDev:
		s.poll(w, f.Get("device_code"))
	default:
		refuse(w, http.StatusBadRequest, "unsupported_grant_type")
	}
}

func (s *TokenServer) tokenAnswer(user, scope string, consent int) map[string]any {
	return map[string]any{"access_token": s.issue(user, scope, consent), "token_type": "Bearer", "expires_in": int(s.Life.Seconds()), "scope": scope}
}

// consented is the answer to a new consent.
func (s *TokenServer) consented(user, scope string) map[string]any {
	s.consents++
	a := s.tokenAnswer(user, scope, s.consents)
	a["refresh_token"] = s.refreshable(user, scope, s.consents)
	return a
}

func (s *TokenServer) redeem(w http.ResponseWriter, r *http.Request) {
	f := r.PostForm
	code := s.codes[f.Get("code")]
	delete(s.codes, f.Get("code"))
	verifier := sha256.Sum256([]byte(f.Get("code_verifier")))
	if code == nil || time.Now().After(code.ends) || code.redirect != f.Get("redirect_uri") || base64.RawURLEncoding.EncodeToString(verifier[:]) != code.challenge {
		refuse(w, http.StatusBadRequest, "invalid_grant")
		return
	}
	a := s.consented(code.user, code.scope)
	if slices.Contains(strings.Fields(code.scope), "openid") {
		a["id_token"] = s.idToken(issuer(r), code)
	}
	tell(w, http.StatusOK, a)
}

func (s *TokenServer) renew(w http.ResponseWriter, token string) {
	old := s.refresh[token]
	switch {
	case old == nil:
		refuse(w, http.StatusBadRequest, "invalid_grant")
		return
	case old.used: // somebody has stolen it, here or there
		maps.DeleteFunc(s.access, func(_ string, a *accessToken) bool { return a.consent == old.consent })
		maps.DeleteFunc(s.refresh, func(_ string, r *refreshToken) bool { return r.consent == old.consent })
		refuse(w, http.StatusBadRequest, "invalid_grant")
		return
	}
	a := s.tokenAnswer(old.user, old.scope, old.consent)
	if !s.Fixed {
		old.used = true
		a["refresh_token"] = s.refreshable(old.user, old.scope, old.consent)
	}
	tell(w, http.StatusOK, a)
}

func (s *TokenServer) device(w http.ResponseWriter, r *http.Request) {
	if r.PostForm.Get("client_id") != s.ClientID && !s.knows(r) {
		refuse(w, http.StatusUnauthorized, "invalid_client")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	device, userCode := "dev."+rand.Text(), rand.Text()[:8]
	s.devices[device] = &deviceGrant{userCode: userCode, scope: r.PostForm.Get("scope"), ends: time.Now().Add(codeLife)}
	tell(w, http.StatusOK, map[string]any{"device_code": device, "user_code": userCode, "verification_uri": issuer(r) + "/device-page",
		"expires_in": int(codeLife.Seconds()), "interval": s.Interval})
}

func (s *TokenServer) poll(w http.ResponseWriter, device string) {
	d := s.devices[device]
	switch {
	case d == nil:
		refuse(w, http.StatusBadRequest, "invalid_grant")
	case time.Now().After(d.ends):
		refuse(w, http.StatusBadRequest, "expired_token")
	case d.denied:
		refuse(w, http.StatusBadRequest, "access_denied")
	case d.user == "":
		refuse(w, http.StatusBadRequest, "authorization_pending")
	default:
		delete(s.devices, device)
		tell(w, http.StatusOK, s.consented(d.user, d.scope))
	}
}

// introspect takes any asker: in the lab that is Dovecot, which knows no secret.
func (s *TokenServer) introspect(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.access[r.PostForm.Get("token")]
	if a == nil || time.Now().After(a.ends) {
		tell(w, http.StatusOK, map[string]any{"active": false})
		return
	}
	tell(w, http.StatusOK, map[string]any{"active": true, "username": a.user, "sub": "sub-of-" + a.user, "scope": a.scope, "client_id": a.client,
		"exp": a.ends.Unix(), "token_type": "Bearer"})
}

func (s *TokenServer) revoke(w http.ResponseWriter, r *http.Request) {
	if !s.knows(r) {
		refuse(w, http.StatusUnauthorized, "invalid_client")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	token := r.PostForm.Get("token")
	if old := s.refresh[token]; old != nil { // RFC 7009 section 2.1
		maps.DeleteFunc(s.access, func(_ string, a *accessToken) bool { return a.consent == old.consent })
		maps.DeleteFunc(s.refresh, func(_ string, r *refreshToken) bool { return r.consent == old.consent })
	}
	delete(s.access, token)
	w.WriteHeader(http.StatusOK)
}

func (s *TokenServer) userinfo(w http.ResponseWriter, r *http.Request) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	user := s.Valid(token)
	if user == "" {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		refuse(w, http.StatusUnauthorized, "invalid_token")
		return
	}
	tell(w, http.StatusOK, map[string]any{"sub": "sub-of-" + user, "email": user, "email_verified": true})
}

// signingKey is made when it is first needed, with mu held.
func (s *TokenServer) signingKey() *rsa.PrivateKey {
	if s.key == nil {
		s.key, _ = rsa.GenerateKey(rand.Reader, 2048) // never an error, crypto/rand says
	}
	return s.key
}

func (s *TokenServer) idToken(issuer string, c *codeGrant) string {
	claims := jwt.MapClaims{"iss": issuer, "aud": s.ClientID, "sub": "sub-of-" + c.user, "email": c.user, "email_verified": true,
		"iat": time.Now().Unix(), "exp": time.Now().Add(codeLife).Unix()}
	if c.nonce != "" {
		claims["nonce"] = c.nonce
	}
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	token.Header["kid"] = "lab"
	text, _ := token.SignedString(s.signingKey()) // a key of its kind
	return text
}

func (s *TokenServer) keys(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	public := s.signingKey().PublicKey
	enc := base64.RawURLEncoding
	tell(w, http.StatusOK, map[string]any{"keys": []map[string]string{{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "lab",
		"n": enc.EncodeToString(public.N.Bytes()), "e": enc.EncodeToString(big.NewInt(int64(public.E)).Bytes())}}})
}
