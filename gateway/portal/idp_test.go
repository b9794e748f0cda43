package portal

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/gateway/oidcsignin"
)

const (
	bob          = "bob@example.test"
	clientID     = "postern"
	clientSecret = "the-own-secret-of-the-client"
	accessToken  = "the-access-token-of-alice"
)

// The keys of all providers: making them takes long.
var idpKey, otherKey = sync.OnceValue(newRSA), sync.OnceValue(newRSA)

func newRSA() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
}

// idp is an identity provider that does whatever it is told to, and nothing wrong unless it is.
type idp struct {
	*scene
	issuer string
	server *httptest.Server

	mu     sync.Mutex            // guards what follows
	codes  map[string]url.Values // what a code was asked for with; none any more: it was redeemed
	asked  url.Values            // with what the last browser came
	tokens int                   // how many were issued
	wrongs
}

// wrongs are what the provider does wrong, or otherwise than by default.
type wrongs struct {
	discovery func(map[string]any)
	hold      bool // browsers stay there
	answer    func(url.Values)
	head      func(map[string]any)
	claims    func(map[string]any)
	sign      func(input string) (signature []byte)
	raw       func(token string) string
	reply     func(map[string]any)
	token     http.HandlerFunc // instead of the endpoint; so below
	keys      http.HandlerFunc
	userinfo  http.HandlerFunc
}

// newIDP serves a portal whose people sign in at a provider.
func newIDP(t *testing.T, change func(*identity.Options, *oidcsignin.Options)) *idp {
	t.Helper()
	p := &idp{codes: make(map[string]url.Values)}
	p.server = httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	p.issuer = "https://" + p.server.Listener.Addr().String() + "/id"
	client := &tls.Config{}
	p.scene = newScene(t, func(who *identity.Options, o *Options) {
		who.Vouched, who.Vouching = true, p.issuer
		own := oidcsignin.Options{Issuer: p.issuer, ClientID: clientID, ClientSecret: clientSecret, Redirect: who.Site + "/sign-in/oidc/callback",
			Scopes: []string{"openid", "email"}, AddressClaim: "email", GroupsClaim: "groups", FactorACR: []string{"phr"}, FactorAMR: []string{"mfa"},
			TLS: client, Now: who.Now, Log: o.Log}
		if change != nil {
			change(who, &own)
		}
		o.Provider, o.ProviderName = oidcsignin.New(own), "Example ID"
	})
	client.RootCAs = p.ca.Pool
	_, _, cert := p.ca.Issue()
	p.server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	p.server.Config.ErrorLog = nil
	p.server.StartTLS()
	t.Cleanup(p.server.Close)
	return p
}

// is makes the provider do other things from now on.
func (p *idp) is(w wrongs) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wrongs = w
}

func (p *idp) now() wrongs {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wrongs
}

func (p *idp) serve(w http.ResponseWriter, r *http.Request) {
	now := p.now()
	other := map[string]http.HandlerFunc{"/id/token": now.token, "/id/keys": now.keys, "/id/userinfo": now.userinfo}[r.URL.Path]
	if other != nil {
		other(w, r)
		return
	}
	switch r.URL.Path {
	case "/id/.well-known/openid-configuration":
		doc := map[string]any{"issuer": p.issuer, "authorization_endpoint": p.issuer + "/authorize", "token_endpoint": p.issuer + "/token", "jwks_uri": p.issuer + "/keys",
			"userinfo_endpoint": p.issuer + "/userinfo", "end_session_endpoint": p.issuer + "/end", "id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"},
			"authorization_response_iss_parameter_supported": true, "backchannel_logout_supported": true}
		changeWith(now.discovery, doc)
		writeJSON(w, doc)
	case "/id/keys":
		writeJSON(w, keysOf(&idpKey().PublicKey, "one"))
	case "/id/authorize":
		p.authorize(w, r, now)
	case "/id/token":
		p.redeem(w, r, now)
	case "/id/userinfo":
		if r.Header.Get("Authorization") != "Bearer "+accessToken {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		writeJSON(w, map[string]any{"sub": "a"})
	default:
		http.NotFound(w, r)
	}
}

func changeWith(change func(map[string]any), m map[string]any) {
	if change != nil {
		change(m)
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func keysOf(key *rsa.PublicKey, kid string) map[string]any {
	return map[string]any{"keys": []any{map[string]any{"kty": "RSA", "use": "sig", "kid": kid, "n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes())}}}
}

// authorize has everybody signed in already.
func (p *idp) authorize(w http.ResponseWriter, r *http.Request, now wrongs) {
	q := r.URL.Query()
	code := rand.Text()
	p.mu.Lock()
	p.codes[code], p.asked = q, q
	p.mu.Unlock()
	if q.Get("client_id") != clientID || q.Get("redirect_uri") != p.site+"/sign-in/oidc/callback" || q.Get("response_type") != "code" ||
		q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || len(q.Get("nonce")) < 20 || len(q.Get("state")) < 20 {
		p.t.Errorf("a browser came with %v", q)
	}
	answer := url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {p.issuer}}
	if now.answer != nil {
		now.answer(answer)
	}
	if to := q.Get("redirect_uri") + "?" + answer.Encode(); now.hold {
		fmt.Fprint(w, strings.TrimPrefix(to, p.site))
	} else {
		http.Redirect(w, r, to, http.StatusFound)
	}
}

// redeem holds a code against what it was asked for with, and against its client.
func (p *idp) redeem(w http.ResponseWriter, r *http.Request, now wrongs) {
	id, secret, _ := r.BasicAuth()
	challenge := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	p.mu.Lock()
	asked, good := p.codes[r.PostFormValue("code")]
	delete(p.codes, r.PostFormValue("code"))
	p.mu.Unlock()
	if !good || asked.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(challenge[:]) || r.PostFormValue("redirect_uri") != asked.Get("redirect_uri") {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"invalid_grant","error_description":"<script>alert(1)</script>"}`)
		return
	}
	if id != clientID || secret != clientSecret {
		p.t.Errorf("the client came as %q", id)
	}
	reply := map[string]any{"access_token": accessToken, "token_type": "Bearer", "expires_in": 300, "id_token": p.idToken(asked.Get("nonce"), now)}
	changeWith(now.reply, reply)
	p.mu.Lock()
	p.tokens++
	p.mu.Unlock()
	writeJSON(w, reply)
}

func (p *idp) idToken(nonce string, now wrongs) string {
	t := p.clock()
	sum := sha256.Sum256([]byte(accessToken))
	claims := map[string]any{"iss": p.issuer, "sub": "a", "aud": clientID, "iat": t.Unix(), "exp": t.Add(5 * time.Minute).Unix(), "auth_time": t.Unix(), "nonce": nonce,
		"email": alice, "email_verified": true, "groups": []string{"staff"}, "amr": []string{"pwd", "mfa"}, "sid": "s1", "at_hash": base64.RawURLEncoding.EncodeToString(sum[:16])}
	changeWith(now.claims, claims)
	return p.jwt(map[string]any{"alg": "RS256", "kid": "one", "typ": "JWT"}, claims, now)
}

func (p *idp) jwt(head, claims map[string]any, now wrongs) string {
	changeWith(now.head, head)
	part := func(m map[string]any) string {
		text, err := json.Marshal(m)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	input := part(head) + "." + part(claims)
	sign := now.sign
	if sign == nil {
		sign = signedBy(idpKey())
	}
	token := input + "." + base64.RawURLEncoding.EncodeToString(sign(input))
	if now.raw != nil {
		token = now.raw(token)
	}
	return token
}

func signedBy(key *rsa.PrivateKey) func(string) []byte {
	return func(input string) []byte {
		sum := sha256.Sum256([]byte(input))
		signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			panic(err)
		}
		return signature
	}
}

// logout is a logout token, with what is said otherwise in it; nil takes a claim out.
func (p *idp) logout(with map[string]any, now wrongs) string {
	t := p.clock()
	claims := map[string]any{"iss": p.issuer, "sub": "a", "aud": clientID, "iat": t.Unix(), "exp": t.Add(2 * time.Minute).Unix(), "jti": rand.Text(), "sid": "s1",
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}}
	maps.Copy(claims, with)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return p.jwt(map[string]any{"alg": "RS256", "kid": "one", "typ": "logout+jwt"}, claims, now)
}

// ends sends a logout token as a provider does, and gives the status.
func (p *idp) ends(tokens ...string) int {
	p.t.Helper()
	resp, err := p.plain().PostForm(p.site+"/sign-in/oidc/logout", url.Values{"logout_token": tokens})
	if err != nil {
		p.t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("Cache-Control"); got != "no-store" {
		p.t.Errorf("Cache-Control is %q", got)
	}
	if c := resp.Cookies(); len(c) > 0 {
		p.t.Errorf("it sets %v", c)
	}
	return resp.StatusCode
}

// plain is a client without cookies.
func (p *idp) plain() *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.ca.Pool}}}
}

// victim is Alice: her account is bound, she has a session with a second factor that was given at the provider, and an app password.
type victim struct {
	*idp
	account authstore.Account
	browser *browser
	bob     authstore.Account
	made    authstore.AppPassword
}

func (p *idp) victim() *victim {
	p.t.Helper()
	v := &victim{idp: p, account: p.account(alice), bob: p.account(bob)}
	now := p.now()
	p.is(wrongs{})
	v.browser = p.browser().get("/sign-in/oidc").at("/passwords")
	p.is(now)
	var err error
	if v.made, _, err = p.accounts.CreatePassword(context.Background(), authstore.PasswordRequest{Account: v.account.ID, Label: "Phone", Scopes: authstore.ScopeMail}); err != nil {
		p.t.Fatal(err)
	}
	return v
}

// unharmed fails unless Alice is as she was, Bob's account is nobody's, and nothing secret stands in the log.
func (v *victim) unharmed() {
	v.t.Helper()
	ctx := context.Background()
	for _, a := range []authstore.Account{v.account, v.bob} {
		now, err := v.accounts.Get(ctx, a.Names[0])
		o, err2 := v.people.Overview(ctx, a.ID)
		if err != nil || err2 != nil || now.Status != authstore.Active || fmt.Sprint(now.Names) != fmt.Sprint(a.Names) {
			v.t.Errorf("the account is %+v, %v, %v", now, err, err2)
		}
		if alices := a.ID == v.account.ID; alices && (now.Passwords != 1 || len(o.Sessions) != 1 || len(o.Ties) != 1 || o.Ties[0].Subject != "a") ||
			!alices && (len(o.Sessions) != 0 || len(o.Ties) != 0) {
			v.t.Errorf("%s: %d app passwords, sessions %+v, bound to %+v", a.Names[0], now.Passwords, o.Sessions, o.Ties)
		}
	}
	if list, _ := v.accounts.List(ctx); len(list) != 2 {
		v.t.Errorf("there are %d accounts", len(list))
	}
	v.browser.get("/security").at("/security")
	v.secretive()
}

// secretive fails where the log holds what it must not.
func (v *victim) secretive() {
	v.t.Helper()
	v.mu.Lock()
	code := v.asked.Get("state")
	v.mu.Unlock()
	for _, secret := range []string{clientSecret, accessToken, "eyJ", "<script>", code} {
		if secret != "" && strings.Contains(v.log.String(), secret) {
			v.t.Errorf("the log holds %q:\n%s", secret, v.log)
		}
	}
}
