package portal

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/gateway/oidcsignin"
)

func TestSignInAtTheProvider(t *testing.T) {
	t.Parallel()
	p := newIDP(t, nil)
	a := p.account(alice)
	b := p.browser().get("/history").at("/sign-in?to=%2Fhistory").says("Sign in")
	if strings.Contains(b.source, "<input") && strings.Contains(b.source, `name="password"`) || strings.Contains(b.source, "data-passkey") {
		t.Errorf("the page asks for what is no way in:\n%s", b.text())
	}
	if b.with("href", "/sign-in/oidc?to=%2fhistory") != "Sign in with Example ID" {
		t.Errorf("the page has no button:\n%s", b.source)
	}
	b.get("/sign-in/oidc?to=/history&zone=Europe/Berlin").at("/history")
	if b.cookie(sessionCookie) == "" || b.cookie(dialogueCookie) != "" {
		t.Error("the cookies are not those of somebody who is signed in")
	}
	person, err := p.store.Person(t.Context(), a.ID)
	if err != nil || len(person.Ties) != 1 || person.Ties[0].Issuer != p.issuer || person.Ties[0].Subject != "a" || !person.Ties[0].Factor || !slices.Equal(person.Ties[0].Groups, []string{"staff"}) ||
		person.Zone != "Europe/Berlin" || person.Language != "en" {
		t.Errorf("the person is %+v, %v", person, err)
	}
	if p.asked.Get("acr_values") != "phr" || p.asked.Has("max_age") || p.asked.Get("scope") != "openid email" {
		t.Errorf("asked with %v", p.asked)
	}
	b.get("/security").says("Your second factor is the one that you give at Example ID").says("You sign in with Example ID")
	if strings.Contains(b.text(), "Recovery codes") {
		t.Error("recovery codes are offered to somebody for whom they are of no use")
	}
	b.get("/passwords/new").at("/passwords/new").says("New app password").submit("/passwords/new", map[string]string{"label": "Phone", "preset": "mail"}).says("It is shown only now")
	b.get("/sign-in/oidc").at("/passwords")
	b.get("/sign-in/oidc/callback").at("/passwords")
	b.post("/sign-out", nil).at("/sign-in?out").says("You are signed out")
	if got := b.with("href", p.issuer+"/end?client_id=postern"); got != "Sign out of Example ID too" {
		t.Errorf("the way out there is %q", got)
	}
	if kinds := p.events(a); !slices.Contains(kinds, "tie.made") || !slices.Contains(kinds, "portal.first_vouched") || !slices.Contains(kinds, "portal.signed_out") {
		t.Errorf("history %v", kinds)
	}
	(&victim{idp: p}).secretive()
}

// Where no second factor of the provider's counts, it is set up and given here.
func TestSecondFactorHere(t *testing.T) {
	t.Parallel()
	p := newIDP(t, func(_ *identity.Options, o *oidcsignin.Options) { o.FactorAMR, o.FactorACR = nil, nil })
	p.account(alice)
	b := p.browser().get("/sign-in/oidc")
	if strings.Contains(b.text(), "without your password") { // a passkey alone does not sign in here
		t.Errorf("the page promises too much: %s", b.text())
	}
	b.setUp()
	if len(b.codes()) != 10 {
		t.Fatalf("no recovery codes: %s", b.text())
	}
	b.get("/security").says("One of these is needed here after you have signed in with Example ID").says("Recovery codes")
	b.post("/sign-out", nil)
	b.get("/sign-in/oidc?to=/history").at("/sign-in/factor?to=%2Fhistory").submit("/sign-in/factor", map[string]string{"code": b.code()}).at("/history")
	p.pass(6 * time.Minute)
	b.get("/passwords/new").says("New app password").says("Code from your authenticator app")
	if p.asked.Has("acr_values") {
		t.Errorf("asked with %v", p.asked)
	}
}

// Who gives his second factor at the provider gives it there again, and comes back to the page he was on.
func TestFreshFactorAtTheProvider(t *testing.T) {
	t.Parallel()
	p := newIDP(t, nil)
	v := p.victim()
	b := v.browser
	p.pass(6 * time.Minute)
	b.get("/passwords/new").at("/passwords/new").says("You give it at Example ID and come back here")
	if strings.Contains(b.source, `name="label"`) {
		t.Error("the form is shown, and would be lost")
	}
	before := b.cookie(sessionCookie)
	b.get("/sign-in/oidc/again?to=/passwords/new").at("/passwords/new").submit("/passwords/new", map[string]string{"label": "Tablet", "preset": "mail"}).says("It is shown only now")
	if p.asked.Get("max_age") != "0" || p.asked.Get("prompt") != "login" || p.asked.Get("acr_values") != "phr" {
		t.Errorf("asked with %v", p.asked)
	}
	if b.cookie(sessionCookie) == before {
		t.Error("the session's token is the old one")
	}
	n := p.tokens
	b.get("/sign-in/oidc/again?to=/history").at("/history") // fresh still: there is no need
	if p.tokens != n {
		t.Error("the provider was asked for nothing")
	}
	p.pass(6 * time.Minute)
	for path, title := range map[string]string{"/passwords/revoke-all": "Revoke all app passwords", "/security/app": "authenticator", "/security/recovery": "recovery codes",
		"/passwords/1/revoke": "Revoke app password", "/passwords/1/edit": "Change app password"} {
		b.get(path).at(path).says("You give it at Example ID")
		if !strings.Contains(strings.ToLower(b.title()), strings.ToLower(title)) || b.with("href", "/sign-in/oidc/again?to="+url.QueryEscape(path)) != "Confirm with Example ID" {
			t.Errorf("%s: %q\n%s", path, b.title(), b.source)
		}
	}
	b.post("/passwords/1/revoke", nil).says("Confirm with Example ID") // the form had stood open
	b.post("/security/sessions/7/end", nil).says("Confirm with Example ID")
	if list, _ := p.accounts.Passwords(t.Context(), v.account.ID, false); len(list) != 2 {
		t.Errorf("%d app passwords", len(list))
	}
	for _, to := range []string{"https://evil.example", "//evil.example", "/\\evil.example", "/sign-in/oidc/again", "/sign-out", "/passwords/../x", "", "/a?b"} {
		p.pass(6 * time.Minute)
		b.get("/sign-in/oidc/again?to=" + url.QueryEscape(to)).at("/passwords")
	}
	// somebody with a factor of his own gives that, as ever
	b.get("/security/app").at("/security/app")
	b.seed = strings.ReplaceAll(b.with("id", "key"), " ", "")
	b.submit("/security/app", map[string]string{"app_code": b.code()}).at("/security?done=app")
	p.pass(6 * time.Minute)
	b.get("/passwords/new").says("Code from your authenticator app")
	b.get("/sign-in/oidc/again?to=/history").at("/history")
	if p.people.Fresh(identity.Session{}) {
		t.Error("nobody is fresh")
	}
}

func TestFreshFactorRefused(t *testing.T) {
	t.Parallel()
	set := func(name string, value any) wrongs { return wrongs{claims: func(c map[string]any) { c[name] = value }} }
	long := 5 * time.Minute
	for name, tt := range map[string]struct {
		is   func(p *idp) wrongs
		want string
	}{
		"somebody else":            {func(*idp) wrongs { return set("sub", "b") }, "That is not your account"},
		"an old factor":            {func(p *idp) wrongs { return set("auth_time", p.clock().Add(-long).Unix()) }, "just now"},
		"a factor from tomorrow":   {func(p *idp) wrongs { return set("auth_time", p.clock().Add(24*time.Hour).Unix()) }, "just now"},
		"a factor nobody knows of": {func(*idp) wrongs { return set("auth_time", nil) }, "does not belong to this sign-in"},
		"a factor in words":        {func(*idp) wrongs { return set("auth_time", "now") }, "does not belong to this sign-in"},
		"a password only":          {func(*idp) wrongs { return set("amr", []string{"pwd"}) }, "just now"},
		"an acr that is none":      {func(*idp) wrongs { return wrongs{claims: func(c map[string]any) { c["amr"], c["acr"] = nil, "0" }} }, "just now"},
		"nothing": {func(*idp) wrongs {
			return wrongs{answer: func(q url.Values) {
				q.Del("code")
				q.Set("error", "login_required")
				q.Set("error_description", "<script>")
			}}
		}, "did not let you sign in"},
		"an answer without a state": {func(*idp) wrongs { return wrongs{answer: func(q url.Values) { q.Del("state") }} }, "took too long"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newIDP(t, nil)
			v := p.victim()
			p.pass(10 * time.Minute)
			p.is(tt.is(p))
			v.browser.get("/sign-in/oidc/again?to=/passwords/new")
			if v.browser.status != http.StatusUnprocessableEntity || !strings.Contains(v.browser.alert(), tt.want) || strings.Contains(v.browser.source, "<script>") {
				t.Errorf("%d %q, want %q\n%s", v.browser.status, v.browser.alert(), tt.want, v.browser.text())
			}
			v.browser.get("/passwords/new").says("You give it at Example ID")
			p.is(wrongs{})
			v.unharmed()
			v.browser.get("/sign-in/oidc/again?to=/passwords/new").at("/passwords/new").says("New app password")
		})
	}
}

// setCookie gives a browser another one's cookie.
func (b *browser) setCookie(name, value string) {
	site, _ := url.Parse(b.site)
	b.client.Jar.SetCookies(site, []*http.Cookie{{Name: name, Value: value, Path: "/", Secure: true}})
}

// The state of a step-up is of its session, and that of a sign-in of no session.
func TestDialoguesAreNotExchanged(t *testing.T) {
	t.Parallel()
	p := newIDP(t, nil)
	v := p.victim()
	p.pass(10 * time.Minute)
	p.is(wrongs{hold: true})
	back := v.browser.get("/sign-in/oidc/again?to=/passwords/new").source
	sealed := v.browser.cookie(dialogueCookie)
	stranger := p.browser()
	stranger.setCookie(dialogueCookie, sealed)
	if stranger.get(back); stranger.status != http.StatusUnprocessableEntity || stranger.cookie(sessionCookie) != "" {
		t.Errorf("a stranger with the state of Alice's step-up comes to %s: %s", stranger.path, stranger.text())
	}
	back = p.browser().get("/sign-in/oidc").source // whose state is another browser's
	if stranger.get(back); !strings.Contains(stranger.alert(), "took too long, or was begun in another window") || stranger.cookie(sessionCookie) != "" {
		t.Errorf("with an answer for another browser: %s", stranger.text())
	}
	p.is(wrongs{})
	v.unharmed()
}

func TestAnswersCountOnce(t *testing.T) {
	t.Parallel()
	p := newIDP(t, nil)
	v := p.victim()
	p.is(wrongs{hold: true})
	b, copied := p.browser(), p.browser()
	back := b.get("/sign-in/oidc").source
	sealed := b.cookie(dialogueCookie)
	copied.setCookie(dialogueCookie, sealed)
	n := p.tokens
	if b.get(back).at("/passwords"); p.tokens != n+1 {
		t.Error("no token was asked for")
	}
	b.post("/sign-out", nil)
	for name, again := range map[string]*browser{"the same browser": b, "a browser with a copy of the cookie": copied} {
		if again.get(back); again.status != http.StatusUnprocessableEntity || again.cookie(sessionCookie) != "" || p.tokens != n+1 {
			t.Errorf("%s: %d %s", name, again.status, again.text())
		}
	}
	back = b.get("/sign-in/oidc").source
	p.pass(10 * time.Minute)
	if b.get(back); !strings.Contains(b.alert(), "took too long") {
		t.Errorf("after ten minutes: %s", b.text())
	}
	back = b.get("/sign-in/oidc").source
	b.get("/sign-in/oidc") // in another window
	if b.get(back); !strings.Contains(b.alert(), "took too long") {
		t.Errorf("of a window that another one came after: %s", b.text())
	}
	if got := b.with("href", "/sign-in/oidc"); got != "Try again with Example ID" {
		t.Errorf("the way on is %q", got)
	}
	v.unharmed()
}

// Nobody is led elsewhere than to pages of the portal.
func TestNoOpenRedirectByTheProvider(t *testing.T) {
	t.Parallel()
	p := newIDP(t, nil)
	p.account(alice)
	for _, to := range []string{"https://evil.example/passwords", "//evil.example/passwords", "/\\evil.example", "/passwords/../../x", "/passwords\r\nX: y", "javascript:alert(1)", "/sign-out"} {
		p.browser().get("/sign-in/oidc?to=" + url.QueryEscape(to)).at("/passwords")
	}
	p.browser().get("/sign-in/oidc?to=/security").at("/security")
}

func TestProviderInTrouble(t *testing.T) {
	t.Parallel()
	say := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status); w.Write([]byte(text)) }
	}
	huge := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(`{"access_token":"` + strings.Repeat("x", 2<<20) + `"}`))
	}
	slow := func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(10 * time.Second):
		}
	}
	away := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://evil.example.test/", http.StatusTemporaryRedirect)
	}
	troubles := map[string]http.HandlerFunc{"broken": say(500, "<script>alert(1)</script>"), "rubbish": say(200, "<html>rubbish"), "empty": say(200, ""), "a list": say(200, "[]"),
		"huge": huge, "slow": slow, "redirect": away}
	for name, trouble := range troubles {
		for at, is := range map[string]wrongs{"token": {token: trouble}, "keys": {keys: trouble}, "userinfo": {userinfo: trouble, claims: func(c map[string]any) { delete(c, "email") }}} {
			t.Run(at+" "+name, func(t *testing.T) {
				t.Parallel()
				p := newIDP(t, func(_ *identity.Options, o *oidcsignin.Options) { o.Timeout = time.Second })
				v := &victim{idp: p, account: p.account(alice), bob: p.account(bob)}
				p.is(is)
				b := p.browser().get("/sign-in/oidc")
				if b.status == http.StatusOK || strings.Contains(b.source, "<script>alert") || b.alert() == "" || b.cookie(sessionCookie) != "" || b.with("href", "/sign-in/oidc") == "" {
					t.Errorf("%d %q", b.status, b.text())
				}
				if at != "keys" && b.status != http.StatusServiceUnavailable && !(at == "userinfo" && name == "a list") {
					t.Errorf("%d %q, want that it does not answer", b.status, b.text())
				}
				v.secretive()
				p.is(wrongs{})
				b.get("/sign-in/oidc").at("/passwords") // as soon as it is well again
			})
		}
	}
}

// The provider may be down when Postern starts; pages say so, and once it is there people sign in.
func TestProviderDown(t *testing.T) {
	t.Parallel()
	p := newIDP(t, func(_ *identity.Options, o *oidcsignin.Options) { o.Timeout = 200 * time.Millisecond })
	p.account(alice)
	for _, evil := range []string{"https://other.example.test", p.issuer + "/", ""} {
		p.is(wrongs{discovery: func(m map[string]any) { m["issuer"] = evil }})
		b := p.browser().get("/sign-in/oidc?to=/history")
		if b.status != http.StatusServiceUnavailable || !strings.Contains(b.alert(), "Example ID does not answer as it should") || b.with("href", "/sign-in/oidc?to=%2fhistory") == "" {
			t.Errorf("as %q: %d %q", evil, b.status, b.text())
		}
		if p.ends(p.logout(nil, wrongs{})) != http.StatusServiceUnavailable {
			t.Error("a logout token was judged without the provider's keys")
		}
	}
	for name, change := range map[string]func(map[string]any){
		"authorization_endpoint": func(m map[string]any) { m["authorization_endpoint"] = "javascript:alert(1)" },
		"token_endpoint": func(m map[string]any) {
			m["token_endpoint"] = strings.Replace(p.issuer, "https:", "http:", 1) + "/token"
		},
		"jwks_uri":             func(m map[string]any) { delete(m, "jwks_uri") },
		"end_session_endpoint": func(m map[string]any) { m["end_session_endpoint"] = "http://evil.example.test" },
	} {
		p.is(wrongs{discovery: change})
		time.Sleep(100 * time.Millisecond) // for which it is not asked again
		if b := p.browser().get("/sign-in/oidc"); b.status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d %q", name, b.status, b.text())
		}
	}
	p.is(wrongs{})
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if b := p.browser().get("/sign-in/oidc"); b.path == "/passwords" {
			break
		} else if time.Since(began) > 10*time.Second {
			t.Fatalf("well again: %d %q", b.status, b.text())
		}
	}
	p.server.Close() // what was read of it is known still, and its keys
	b := p.browser().get("/sign-in")
	if b.status != http.StatusOK {
		t.Errorf("the sign-in page: %d", b.status)
	}
	b.post("/sign-out", nil).at("/sign-in?out").says("You are signed out")
}

func TestClaims(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		claims   map[string]any
		userinfo map[string]any
		trust    bool
		claim    string
		provides bool // accounts are made
		names    string
		want     string // what the page says where nobody gets in
	}{
		"verified":                     {claims: map[string]any{"sub": "b", "email": bob}, names: bob},
		"verified, in a word":          {claims: map[string]any{"sub": "b", "email": bob, "email_verified": "true"}, names: bob},
		"in userinfo":                  {claims: map[string]any{"sub": "b", "email": nil}, userinfo: map[string]any{"sub": "b", "email": bob, "email_verified": true}, names: bob},
		"in userinfo, not verified":    {claims: map[string]any{"sub": "b", "email": nil}, userinfo: map[string]any{"sub": "b", "email": bob}, want: "has not verified your email address"},
		"verified is another":          {claims: map[string]any{"sub": "b", "email": bob, "email_verified": nil}, userinfo: map[string]any{"sub": "b", "email": "x@example.test", "email_verified": true}, want: "you have no account here"},
		"userinfo of somebody else":    {claims: map[string]any{"sub": "b", "email": nil}, userinfo: map[string]any{"sub": "a", "email": bob, "email_verified": true}, want: "does not belong to this sign-in"},
		"not verified":                 {claims: map[string]any{"sub": "b", "email": bob, "email_verified": false}, want: "has not verified your email address"},
		"verified as a number":         {claims: map[string]any{"sub": "b", "email": bob, "email_verified": 1}, want: "has not verified your email address"},
		"not verified, trusted":        {claims: map[string]any{"sub": "b", "email": bob, "email_verified": false}, trust: true, names: bob},
		"a list":                       {claims: map[string]any{"sub": "b", "addresses": []string{"x@example.test", bob}}, trust: true, claim: "addresses", names: bob},
		"a new person":                 {claims: map[string]any{"sub": "n", "email": "new@example.test"}, provides: true, names: "new@example.test"},
		"a new person's list":          {claims: map[string]any{"sub": "n", "addresses": []string{"new@example.test", "newer@example.test", alice}}, provides: true, trust: true, claim: "addresses", names: "new@example.test newer@example.test"},
		"a new person of no domain":    {claims: map[string]any{"sub": "n", "email": "new@example.org"}, provides: true, want: "you have no account here"},
		"a new person, not verified":   {claims: map[string]any{"sub": "n", "email": "new@example.test", "email_verified": false}, provides: true, want: "has not verified"},
		"no address":                   {claims: map[string]any{"sub": "b", "email": nil}, userinfo: map[string]any{"sub": "b"}, want: "you have no account here"},
		"somebody else's address":      {claims: map[string]any{"sub": "b", "email": alice}, want: "it belongs to somebody else"},
		"a suspended account":          {claims: map[string]any{"sub": "c", "email": "carol@example.test"}, want: "Your account is suspended"},
		"without the factor":           {claims: map[string]any{"amr": []string{"pwd"}}, want: "does not say that you gave your second factor"},
		"without the factor, in words": {claims: map[string]any{"amr": "pwd"}, want: "does not say that you gave your second factor"},
		"by acr":                       {claims: map[string]any{"amr": nil, "acr": "phr"}, names: alice},
		"an acr not asked for":         {claims: map[string]any{"amr": nil, "acr": "phr2"}, want: "does not say that you gave your second factor"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newIDP(t, func(who *identity.Options, o *oidcsignin.Options) {
				o.TrustAddresses = tt.trust
				if tt.claim != "" {
					o.AddressClaim = tt.claim
				}
				if tt.provides {
					who.Provision.Domains = []string{"example.test"}
				}
			})
			a := p.account(alice)
			p.account(bob)
			if _, err := p.accounts.Suspend(t.Context(), p.account("carol@example.test").ID); err != nil {
				t.Fatal(err)
			}
			tie := identity.Tie{Issuer: p.issuer, Subject: "a", Factor: true, Seen: p.clock()}
			if _, err := p.store.Act(t.Context(), authstore.Actor{Name: "test"}, a.ID, func(tx identity.Tx) error { return tx.SetTie(context.Background(), tie) }); err != nil {
				t.Fatal(err)
			}
			w := wrongs{claims: func(c map[string]any) {
				for name, value := range tt.claims {
					if c[name] = value; value == nil {
						delete(c, name)
					}
				}
			}}
			if tt.userinfo != nil {
				w.userinfo = func(w http.ResponseWriter, r *http.Request) { writeJSON(w, tt.userinfo) }
			}
			p.is(w)
			b := p.browser().get("/sign-in/oidc")
			if tt.want != "" {
				if b.status != http.StatusUnprocessableEntity || !strings.Contains(b.alert(), tt.want) || b.cookie(sessionCookie) != "" {
					t.Errorf("%d %q, want %q", b.status, b.alert(), tt.want)
				}
				return
			}
			b.at("/passwords")
			first, _, _ := strings.Cut(tt.names, " ")
			if got, err := p.accounts.Get(t.Context(), first); err != nil || strings.Join(got.Names, " ") != tt.names || !strings.Contains(b.source, first) {
				t.Errorf("signed in to %+v, %v", got, err)
			}
		})
	}
}
