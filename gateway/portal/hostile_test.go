package portal

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// with changes a claim; nil takes it out.
func with(name string, value any) func(*idp) wrongs {
	return func(*idp) wrongs {
		return wrongs{claims: func(c map[string]any) {
			if c[name] = value; value == nil {
				delete(c, name)
			}
		}}
	}
}

// at changes a time.
func at(name string, d time.Duration) func(*idp) wrongs {
	return func(p *idp) wrongs { return with(name, p.clock().Add(d).Unix())(p) }
}

func answers(change func(url.Values)) func(*idp) wrongs {
	return func(*idp) wrongs { return wrongs{answer: change} }
}

func signs(alg string, sign func(string) []byte) func(*idp) wrongs {
	return func(*idp) wrongs { return wrongs{head: func(h map[string]any) { h["alg"] = alg }, sign: sign} }
}

// hmacWith signs with a secret that everybody knows, or the provider.
func hmacWith(secret []byte) func(string) []byte {
	return func(input string) []byte {
		h := hmac.New(sha256.New, secret)
		h.Write([]byte(input))
		return h.Sum(nil)
	}
}

func publicPEM() []byte {
	der, err := x509.MarshalPKIXPublicKey(&idpKey().PublicKey)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func unsigned(string) []byte { return nil }

// What a hostile or broken provider, or somebody between, can answer. Each is refused, and Alice is as she was.
func TestHostileProvider(t *testing.T) {
	t.Parallel()
	const no, stale = "does not belong to this sign-in", "took too long"
	cases := map[string]struct {
		is   func(*idp) wrongs
		want string
	}{
		"mix-up: the answer is of another issuer": {answers(func(q url.Values) { q.Set("iss", "https://honest.example.test") }), no},
		"mix-up: the answer is of nobody":         {answers(func(q url.Values) { q.Del("iss") }), no},
		"mix-up: the answer's issuer is empty":    {answers(func(q url.Values) { q.Set("iss", "") }), no},
		"mix-up: the answer has two issuers":      {answers(func(q url.Values) { q.Add("iss", "https://evil.example.test") }), no},
		"mix-up: the token is of another issuer":  {with("iss", "https://honest.example.test"), no},
		"mix-up: the token is of nobody":          {with("iss", nil), no},
		"the issuer with a slash":                 {func(p *idp) wrongs { return with("iss", p.issuer+"/")(p) }, no},
		"another nonce":                           {with("nonce", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"), no},
		"no nonce":                                {with("nonce", nil), no},
		"an empty nonce":                          {with("nonce", ""), no},
		"alg none":                                {signs("none", unsigned), no},
		"alg None":                                {signs("None", unsigned), no},
		"no alg":                                  {func(*idp) wrongs { return wrongs{head: func(h map[string]any) { delete(h, "alg") }} }, no},
		"no signature":                            {func(*idp) wrongs { return wrongs{sign: unsigned} }, no},
		"HS256 with the public key":               {signs("HS256", hmacWith(publicPEM())), no},
		"HS256 with the client's secret":          {signs("HS256", hmacWith([]byte(clientSecret))), no},
		"RS256 said, ES256 meant":                 {signs("ES256", signedBy(idpKey())), no},
		"another key under the same kid":          {func(*idp) wrongs { return wrongs{sign: signedBy(otherKey())} }, no},
		"a kid that nobody has":                   {func(*idp) wrongs { return wrongs{head: func(h map[string]any) { h["kid"] = "../../etc/passwd" }} }, no},
		"another key without a kid": {func(*idp) wrongs {
			return wrongs{head: func(h map[string]any) { delete(h, "kid") }, sign: signedBy(otherKey())}
		}, no},
		"another key that the token brings along": {func(*idp) wrongs { return wrongs{head: bringAlong, sign: signedBy(otherKey())} }, no},
		"another key at an address of the token's": {func(p *idp) wrongs {
			return wrongs{head: func(h map[string]any) { h["jku"] = p.issuer + "/evil"; h["kid"] = "x" }, sign: signedBy(otherKey())}
		}, no},
		"a header that must be understood": {func(*idp) wrongs {
			return wrongs{head: func(h map[string]any) { h["crit"] = []string{"evil"}; h["evil"] = 1 }}
		}, no},
		"a signature of something else": {func(*idp) wrongs {
			return wrongs{sign: func(input string) []byte { return signedBy(idpKey())(input + "x") }}
		}, no},
		"two parts":                      {func(*idp) wrongs { return wrongs{raw: func(t string) string { return t[:strings.LastIndex(t, ".")] }} }, no},
		"five parts":                     {func(*idp) wrongs { return wrongs{raw: func(t string) string { return t + ".x.y" }} }, no},
		"rubbish":                        {func(*idp) wrongs { return wrongs{raw: func(string) string { return "<script>alert(1)</script>" }} }, no},
		"expired":                        {at("exp", -time.Second), no},
		"never expiring":                 {with("exp", nil), no},
		"not valid yet":                  {at("nbf", time.Hour), no},
		"issued in the future":           {at("iat", time.Hour), no},
		"issued before it was asked for": {at("iat", -time.Hour), no},
		"issued never":                   {with("iat", nil), no},
		"for another client":             {with("aud", "another"), no},
		"for nobody":                     {with("aud", nil), no},
		"for several, issued to nobody":  {with("aud", []string{clientID, "another"}), no},
		"for several, issued to another": {func(*idp) wrongs {
			return wrongs{claims: func(c map[string]any) { c["aud"], c["azp"] = []string{clientID, "another"}, "another" }}
		}, no},
		"issued to another":                  {with("azp", "another"), no},
		"issued to a list":                   {with("azp", []string{clientID}), no},
		"of nobody":                          {with("sub", nil), no},
		"of an empty subject":                {with("sub", ""), no},
		"of a long subject":                  {with("sub", strings.Repeat("a", 256)), no},
		"of a subject with a line break":     {with("sub", "a\nb"), no},
		"with another access token":          {with("at_hash", base64.RawURLEncoding.EncodeToString(make([]byte, 16))), no},
		"somebody else with Alice's address": {with("sub", "mallory"), "it belongs to somebody else"},
		"somebody else with Bob's, not verified": {func(*idp) wrongs {
			return wrongs{claims: func(c map[string]any) { c["sub"], c["email"], c["email_verified"] = "mallory", bob, false }}
		}, "has not verified"},
		"somebody whom nobody knows": {func(*idp) wrongs {
			return wrongs{claims: func(c map[string]any) { c["sub"], c["email"] = "mallory", "mallory@example.test" }}
		}, "no account here"},
		"the password alone":                  {with("amr", []string{"pwd"}), "does not say that you gave your second factor"},
		"the answer has no state":             {answers(func(q url.Values) { q.Del("state") }), stale},
		"the answer has another state":        {answers(func(q url.Values) { q.Set("state", "ABCDEFGHIJKLMNOPQRSTUVWXYZ") }), stale},
		"the answer has two states":           {answers(func(q url.Values) { q.Add("state", "x") }), no},
		"the answer has no code":              {answers(func(q url.Values) { q.Del("code") }), no},
		"the answer has two codes":            {answers(func(q url.Values) { q.Add("code", "x") }), no},
		"the answer has a code nobody issued": {answers(func(q url.Values) { q.Set("code", "x") }), no},
		"the answer has a huge code":          {answers(func(q url.Values) { q.Set("code", strings.Repeat("x", 5000)) }), no},
		"the code of another dialogue":        {injected, no},
		"an error with a script in its words": {answers(func(q url.Values) {
			q.Set("error", "access_denied")
			q.Set("error_description", "<script>alert(1)</script>")
		}), "did not sign in at Example ID"},
		"an error that is a script":  {answers(func(q url.Values) { q.Set("error", "<script>alert(1)</script>") }), "did not let you sign in"},
		"an empty error":             {answers(func(q url.Values) { q.Set("error", "") }), "did not let you sign in"},
		"an error of another issuer": {answers(func(q url.Values) { q.Set("error", "access_denied"); q.Set("iss", "https://evil.example.test") }), no},
		"an error of the server":     {answers(func(q url.Values) { q.Set("error", "server_error") }), "does not answer as it should"},
		"no token":                   {func(*idp) wrongs { return wrongs{reply: func(m map[string]any) { delete(m, "id_token") }} }, "does not answer as it should"},
		"a token that is a number":   {func(*idp) wrongs { return wrongs{reply: func(m map[string]any) { m["id_token"] = 1 }} }, "does not answer as it should"},
		"an error with a token":      {func(*idp) wrongs { return wrongs{reply: func(m map[string]any) { m["error"] = "<script>" }} }, "does not answer as it should"},
		"userinfo of somebody else": {func(*idp) wrongs {
			return wrongs{claims: func(c map[string]any) { c["sub"] = "mallory"; delete(c, "email") }}
		}, no},
		"all keys are of the attacker's token's kind": {func(*idp) wrongs {
			return wrongs{keys: func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, map[string]any{"keys": []any{symmetric()}}) }, head: func(h map[string]any) { h["alg"], h["kid"] = "HS256", "s" }, sign: hmacWith([]byte("secret"))}
		}, no},
	}
	if len(cases) < 60 {
		t.Errorf("only %d cases", len(cases))
	}
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newIDP(t, nil)
			v := p.victim()
			p.is(tt.is(p))
			b := p.browser().get("/sign-in/oidc?to=/history")
			if b.status != http.StatusUnprocessableEntity && b.status != http.StatusServiceUnavailable || !strings.Contains(b.alert(), tt.want) {
				t.Errorf("%d %q, want %q\n%s", b.status, b.alert(), tt.want, p.log)
			}
			if b.cookie(sessionCookie) != "" || b.cookie(dialogueCookie) != "" || strings.Contains(b.source, "alert(1)") || strings.Contains(b.source, "<script>") {
				t.Errorf("the browser has a session, or shows\n%s", b.source)
			}
			b.get("/passwords").at("/sign-in?to=%2Fpasswords")
			p.is(wrongs{})
			v.unharmed()
		})
	}
}

func bringAlong(h map[string]any) {
	h["jwk"] = keysOf(&otherKey().PublicKey, "one")["keys"].([]any)[0]
}

func symmetric() map[string]any {
	return map[string]any{"kty": "oct", "kid": "s", "alg": "HS256", "k": base64.RawURLEncoding.EncodeToString([]byte("secret"))}
}

// injected puts the code of another dialogue, an attacker's own, into the answer: PKCE has the provider refuse it.
func injected(p *idp) wrongs {
	return wrongs{answer: func(q url.Values) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.codes["stolen"] = url.Values{"code_challenge": {"of-another-verifier"}, "redirect_uri": {p.site + "/sign-in/oidc/callback"}, "nonce": p.asked["nonce"]}
		q.Set("code", "stolen")
	}}
}

// What can be said of sessions that ended at the provider. Each is refused, or ends nothing, and Alice stays signed in.
func TestHostileLogout(t *testing.T) {
	t.Parallel()
	set := func(name string, value any) func(*idp) string {
		return func(p *idp) string { return p.logout(map[string]any{name: value}, wrongs{}) }
	}
	as := func(w wrongs) func(*idp) string { return func(p *idp) string { return p.logout(nil, w) } }
	when := func(name string, d time.Duration) func(*idp) string {
		return func(p *idp) string { return p.logout(map[string]any{name: p.clock().Add(d).Unix()}, wrongs{}) }
	}
	kind := func(typ any) func(*idp) string { return as(wrongs{head: func(h map[string]any) { h["typ"] = typ }}) }
	event := "http://schemas.openid.net/event/backchannel-logout"
	cases := map[string]struct {
		token func(*idp) string
		want  int
	}{
		"for another client":            {set("aud", "another"), 400},
		"for nobody":                    {set("aud", nil), 400},
		"of another issuer":             {set("iss", "https://evil.example.test"), 400},
		"with a nonce":                  {set("nonce", "x"), 400},
		"with an empty nonce":           {set("nonce", ""), 400},
		"without events":                {set("events", nil), 400},
		"of another event":              {set("events", map[string]any{"http://schemas.openid.net/event/other": map[string]any{}}), 400},
		"of an event that is a word":    {set("events", map[string]any{event: "yes"}), 400},
		"of an event that is null":      {set("events", map[string]any{event: json.RawMessage("null")}), 400},
		"without a number":              {set("jti", nil), 400},
		"with a long number":            {set("jti", strings.Repeat("x", 300)), 400},
		"of nobody":                     {func(p *idp) string { return p.logout(map[string]any{"sub": nil, "sid": nil}, wrongs{}) }, 400},
		"expired":                       {when("exp", -time.Second), 400},
		"never expiring":                {set("exp", nil), 400},
		"valid for three days":          {when("exp", 72*time.Hour), 400},
		"issued in the future":          {when("iat", time.Hour), 400},
		"issued never":                  {set("iat", nil), 400},
		"alg none":                      {as(wrongs{head: func(h map[string]any) { h["alg"] = "none" }, sign: unsigned}), 400},
		"HS256 with the public key":     {as(wrongs{head: func(h map[string]any) { h["alg"] = "HS256" }, sign: hmacWith(publicPEM())}), 400},
		"HS256 with the client's":       {as(wrongs{head: func(h map[string]any) { h["alg"] = "HS256" }, sign: hmacWith([]byte(clientSecret))}), 400},
		"another key":                   {as(wrongs{sign: signedBy(otherKey())}), 400},
		"a key that it brings along":    {as(wrongs{sign: signedBy(otherKey()), head: bringAlong}), 400},
		"a kid nobody has":              {as(wrongs{head: func(h map[string]any) { h["kid"] = "x" }}), 400},
		"an access token":               {kind("at+jwt"), 400},
		"a type that is a number":       {kind(1), 400},
		"an ID token":                   {func(p *idp) string { return p.idToken("x", wrongs{}) }, 400},
		"nothing":                       {func(*idp) string { return "" }, 400},
		"rubbish":                       {func(*idp) string { return "<script>.a.b" }, 400},
		"a huge one":                    {func(p *idp) string { return p.logout(map[string]any{"x": strings.Repeat("x", 20000)}, wrongs{}) }, 400},
		"of somebody nobody knows":      {func(p *idp) string { return p.logout(map[string]any{"sub": "mallory", "sid": nil}, wrongs{}) }, 200},
		"of a session nobody knows":     {func(p *idp) string { return p.logout(map[string]any{"sub": nil, "sid": "x"}, wrongs{}) }, 200},
		"of another person's session":   {func(p *idp) string { return p.logout(map[string]any{"sub": "b"}, wrongs{}) }, 200},
		"of another session of Alice's": {func(p *idp) string { return p.logout(map[string]any{"sid": "s2"}, wrongs{}) }, 200},
	}
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newIDP(t, nil)
			v := p.victim()
			if got := p.ends(tt.token(p)); got != tt.want {
				t.Errorf("%d, want %d\n%s", got, tt.want, p.log)
			}
			v.unharmed()
		})
	}
}

func TestLogoutAtTheProvider(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]map[string]any{"both": nil, "the person": {"sid": nil}, "the session": {"sub": nil}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newIDP(t, nil)
			v := p.victim()
			token := p.logout(tt, wrongs{})
			if p.ends() != 400 || p.ends(token, token) != 400 {
				t.Error("none or two tokens are one")
			}
			v.unharmed()
			resp, err := p.plain().Post(p.site+"/sign-in/oidc/logout?logout_token="+token, "application/x-www-form-urlencoded", nil)
			if err != nil || resp.StatusCode != 400 {
				t.Errorf("a token in the address: %v, %v", resp, err)
			}
			if got := p.ends(token); got != 200 {
				t.Fatalf("%d\n%s", got, p.log)
			}
			v.browser.get("/security").at("/sign-in?to=%2Fsecurity&ended")
			if got, _ := p.accounts.Get(t.Context(), alice); got.Passwords != 1 {
				t.Errorf("%d app passwords", got.Passwords)
			}
			if kinds := p.events(v.account); kinds[0] != "portal.ended_there" {
				t.Errorf("history %v", kinds)
			}
			v.browser.get("/sign-in/oidc").at("/passwords")
			if got := p.ends(token); got != 400 {
				t.Errorf("said again: %d", got)
			}
			v.browser.get("/history").at("/history").says("You were signed out here because you signed out").says("by your sign-in provider")
			v.secretive()
		})
	}
}

// The refusal of what other sites send lets the provider's word through, and nothing else.
func TestProviderIsNoOtherSite(t *testing.T) {
	t.Parallel()
	p := newIDP(t, nil)
	v := p.victim()
	for path, want := range map[string]int{"/sign-in/oidc/logout": 400, "/sign-in/oidc/logout/": 403, "/sign-in/oidc/callback": 403, "/sign-out": 403, "/sign-in": 403, "/SIGN-IN/oidc/logout": 403, "/sign-in/oidc/logout/../../../sign-out": 403} {
		r, _ := http.NewRequest(http.MethodPost, p.site+path, strings.NewReader("logout_token=x"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", p.issuer)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		if v.browser.do(r); v.browser.status != want {
			t.Errorf("POST %s: %d, want %d", path, v.browser.status, want)
		}
	}
	if b := p.browser().get("/sign-in/oidc/logout"); b.status != http.StatusMethodNotAllowed && b.status != http.StatusNotFound {
		t.Errorf("GET: %d", b.status)
	}
	for i := range 200 {
		if got := p.ends("x"); got == http.StatusTooManyRequests {
			if i < 30 {
				t.Errorf("after %d", i)
			}
			v.unharmed()
			return
		}
	}
	t.Error("nobody was slowed down")
}

// A portal whose people sign in here knows nothing of a provider.
func TestNoProvider(t *testing.T) {
	t.Parallel()
	p := newScene(t, nil)
	for _, path := range []string{"/sign-in/oidc", "/sign-in/oidc/callback?code=x&state=y", "/sign-in/oidc/again"} {
		if b := p.browser().get(path); b.status != http.StatusNotFound {
			t.Errorf("%s: %d", path, b.status)
		}
	}
	if b := p.browser().post("/sign-in/oidc/logout", url.Values{"logout_token": {"x"}}); b.status != http.StatusNotFound {
		t.Errorf("logout: %d", b.status)
	}
	q := newIDP(t, nil)
	q.victim()
	b := q.browser()
	b.post("/sign-in", url.Values{"address": {alice}, "password": {goodPrimary}}).refused("Here you sign in with Example ID")
	b.post("/sign-in/passkey", url.Values{"state": {"x"}, "answer": {"{}"}}).refused("Here you sign in with Example ID")
	if status, c := b.get("/sign-in").ask("sign-in"); status == http.StatusOK || len(c.Options) > 0 {
		t.Errorf("a passkey alone is asked for: %d %s", status, fmt.Sprint(c))
	}
}
