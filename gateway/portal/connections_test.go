package portal

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/authstore/sqlstore"
	"postern/gateway/upstreamtoken"
	"postern/internal/testlab"
)

// consents is a lab whose accounts have their mail at a server that wants OAuth.
type consents struct {
	*lab
	server *testlab.TokenServer
	keeper *upstreamtoken.Keeper
	log    *lines
}

// newConsents has two authorization servers by name, "lab" and "other", of which the first is needed; change may set what else there is to say of it.
func newConsents(t *testing.T, change func(*testlab.TokenServer, *upstreamtoken.Provider)) *consents {
	t.Helper()
	c := &consents{server: testlab.NewTokenServer(t), log: new(lines)}
	first := upstreamtoken.Provider{Name: "lab", Title: "Example Mail Host", Issuer: c.server.URL, ClientID: c.server.ClientID, Secret: c.server.Secret,
		Scopes: []string{"openid", "email", "mail", "offline_access"}, SamePerson: true, TLS: &tls.Config{RootCAs: c.server.CA.Pool}}
	if change != nil {
		change(c.server, &first)
	}
	second := first
	second.Name, second.Title, second.Issuer = "other", "Other Host", c.server.Plain
	c.lab = newLabWith(t, func(who *identity.Options, o *Options) {
		o.Log = slog.New(slog.NewTextHandler(c.log, nil))
		c.keeper = upstreamtoken.New(upstreamtoken.Options{Store: who.Truth.(*sqlstore.Store), Keys: o.Accounts.Keyring, UsableKey: o.Accounts.UsableKey,
			Providers: []upstreamtoken.Provider{first, second}, Log: o.Log,
			Needs: func(address string) []string {
				if strings.HasPrefix(address, "bob") {
					return nil
				}
				return []string{"lab", "other"}
			},
			Logins: func(a authstore.Account, _ string) []string { return []string{a.BackendName} },
		})
		o.Connections = c.keeper
	})
	t.Cleanup(func() {
		c.keeper.Close()
		for _, secret := range []string{"at.", "rt.", "code.", c.server.Secret} {
			if strings.Contains(c.log.String(), secret) {
				t.Errorf("the log tells secrets (%q):\n%s", secret, c.log.String())
			}
		}
	})
	return c
}

// begin has the person go to a server, and gives the address there.
func (c *consents) begin(p *person, provider string) *url.URL {
	c.t.Helper()
	r := p.get("/connections/" + provider + "/connect").says(http.StatusSeeOther)
	u, err := url.Parse(r.Header.Get("Location"))
	if err != nil || u.Path != "/authorize" {
		c.t.Fatalf("it leads to %s, %v", u, err)
	}
	return u
}

// consent goes to the server and gives the path by which the browser comes back.
func (c *consents) consent(at *url.URL) *url.URL {
	c.t.Helper()
	client := c.server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Get(at.String())
	if err != nil {
		c.t.Fatal(err)
	}
	resp.Body.Close()
	back, err := resp.Location()
	if err != nil {
		c.t.Fatalf("%s: %v", resp.Status, err)
	}
	if got := back.Scheme + "://" + back.Host + back.Path; got != c.site+"/connections/callback" {
		c.t.Fatalf("it leads back to %s", got)
	}
	return back
}

func (c *consents) state(id authstore.AccountID, provider string) upstreamtoken.State {
	c.t.Helper()
	row, err := c.store.UpstreamToken(context.Background(), id, provider)
	switch {
	case errors.Is(err, authstore.ErrNotFound):
		return upstreamtoken.None
	case err != nil:
		c.t.Fatal(err)
	case row.Failure != "":
		return upstreamtoken.Broken
	}
	return upstreamtoken.Connected
}

func TestAPersonConnectsHisMailbox(t *testing.T) {
	t.Parallel()
	c := newConsents(t, nil)
	p, bob := c.person(alice), c.person("bob@example.test")
	app := p.made("Phone", authstore.ScopeMail)

	p.get("/passwords").says(200, "Your mailbox at Example Mail Host is not connected yet", "Connect Example Mail Host", "Connections")
	p.get("/security").says(200).silent("not connected yet")
	p.get("/connections").says(200, "Not connected yet", "Connect Example Mail Host", "Connect Other Host")
	bob.get("/passwords").says(200).silent("Connections", "Example Mail Host")
	bob.get("/connections").says(404)
	bob.get("/connections/lab").says(404)
	bob.get("/connections/lab/connect").says(404)
	p.get("/connections/nobody").says(404)
	p.get("/connections/nobody/connect").says(404)

	c.pass(6 * time.Minute) // the second factor is not fresh any more
	p.get("/connections/lab/connect").leads("/connections/lab")
	page := p.get("/connections/lab").says(200, "At Example Mail Host you sign in as "+alice, "Confirm that it is you").silent("/connections/lab/connect")
	form := page.form()
	form.Set("code", "000000")
	p.post("/connections/lab", form).says(422, "The code is wrong")
	form.Set("code", p.code())
	p.post("/connections/lab", form).leads("/connections/lab")
	if link := p.get("/connections/lab").says(200, "Go on to Example Mail Host").element("href", "/connections/lab/connect"); link == nil {
		t.Fatal("there is no way on")
	}

	at := c.begin(p, "lab")
	q := at.Query()
	if q.Get("redirect_uri") != c.site+"/connections/callback" || q.Get("code_challenge_method") != "S256" || q.Get("login_hint") != alice || q.Get("nonce") == "" ||
		!strings.Contains(q.Get("scope"), "offline_access") {
		t.Errorf("it asks %v", q)
	}
	back := c.consent(at)
	p.get(back.RequestURI()).leads("/connections?done=connected")
	p.get("/connections?done=connected").says(200, "Your apps can use it at once", "Connected · last renewed")
	p.get("/passwords").says(200).silent("Example Mail Host")
	p.get("/history?show=connections").says(200, "Your mailbox was connected: lab.")
	got, err := c.keeper.Token(t.Context(), p.account, "lab")
	if err != nil || c.server.Valid(string(got.Value)) != alice {
		t.Errorf("Token = %v", err)
	}
	if c.state(p.account, "other") != upstreamtoken.None {
		t.Error("the other one is connected too")
	}

	// It fails, and every page says so.
	c.server.Revoke(alice)
	row, err := c.store.UpstreamToken(t.Context(), p.account, "lab")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.store.FailConnection(t.Context(), authstore.Actor{Name: "gateway"}, row, "invalid_grant"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/passwords", "/security", "/history"} {
		p.get(path).says(200, "The connection to Example Mail Host has ended", "Connect Example Mail Host again")
	}
	p.get("/connections").says(200, "The connection has ended", "Connect Example Mail Host again")
	p.get(c.consent(c.begin(p, "lab")).RequestURI()).leads("/connections?done=connected")
	p.get("/passwords").says(200).silent("has ended")

	// And it is taken back, here and there.
	had := c.server.Asked("/revoke")
	p.get("/connections/lab/disconnect").says(200, "Disconnect Example Mail Host?", "Your app passwords stay")
	p.post("/connections/lab/disconnect", url.Values{}).leads("/connections?done=removed")
	p.get("/connections?done=removed").says(200, "Disconnected.", "Not connected yet")
	if c.state(p.account, "lab") != upstreamtoken.None || c.server.Asked("/revoke") != had+1 || c.server.Valid(string(got.Value)) != "" {
		t.Error("there is a token yet")
	}
	if _, err := c.keeper.Token(t.Context(), p.account, "lab"); !errors.Is(err, upstreamtoken.ErrNotConnected) {
		t.Errorf("Token = %v", err)
	}
	p.get("/connections/lab/disconnect").leads("/connections")
	if list := p.active(); len(list) != 1 || list[0].ID != app.ID {
		t.Errorf("the app passwords are %+v", list)
	}

	// The provider is down when it is taken back.
	p.get(c.consent(c.begin(p, "lab")).RequestURI()).leads("/connections?done=connected")
	c.server.Fail("/revoke", testlab.ServerFails)
	c.pass(6 * time.Minute)
	page = p.post("/connections/lab/disconnect", url.Values{}).says(422, "Confirm that it is you")
	form = page.form()
	form.Set("code", p.code())
	p.post("/connections/lab/disconnect", form).leads("/connections?done=left")
	p.get("/connections?done=left").says(200, "you can take it off there")
	if c.state(p.account, "lab") != upstreamtoken.None {
		t.Error("there is a token yet")
	}
}

// None of these connects anybody, and each says why.
func TestConsentsThatComeToNothing(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		server func(*testlab.TokenServer, *upstreamtoken.Provider)
		before func(*consents)
		back   func(c *consents, p *person, back url.Values) // what the browser brings is changed
		status int
		want   string
	}{
		"another mailbox": {before: as("mallory@example.test"), want: "signed in as mallory@example.test, which is another mailbox"},
		"denied":          {before: fails("access_denied"), want: "You did not allow it at Example Mail Host"},
		"server's error":  {before: fails("server_error"), want: "did not allow the connection"},
		"a script":        {before: fails("<script>alert(1)</script>"), want: "did not allow the connection"},
		"no state":        {back: set("state", ""), want: "belongs to another window"},
		"state of nobody": {back: set("state", "AAAA"), want: "belongs to another window"},
		"endless state":   {back: set("state", strings.Repeat("A", 20000)), want: "belongs to another window"},
		"no code":         {back: set("code", ""), want: "belongs to another window"},
		"another code":    {back: set("code", "code.ofnobody"), want: "can't be reached"},
		"two codes":       {back: func(_ *consents, _ *person, q url.Values) { q.Add("code", "code.second") }, want: "belongs to another window"},
		"two states":      {back: func(_ *consents, _ *person, q url.Values) { q.Add("state", q.Get("state")) }, want: "belongs to another window"},
		"another issuer":  {back: set("iss", "https://evil.example.test"), want: "belongs to another window"},
		"issuer in front": {back: func(_ *consents, _ *person, q url.Values) { q.Set("iss", q.Get("iss")+".evil.example.test") }, want: "belongs to another window"},
		"no issuer":       {back: func(_ *consents, _ *person, q url.Values) { q.Del("iss") }, want: "belongs to another window"},
		"error of another": {back: func(_ *consents, _ *person, q url.Values) {
			q.Set("iss", "https://evil.example.test")
			q.Set("error", "access_denied")
		}, want: "belongs to another window"},
		"too late": {back: func(c *consents, p *person, _ url.Values) { c.pass(16 * time.Minute) }, want: "took too long"},
		"mixed up": {back: func(c *consents, p *person, q url.Values) { // the code of one server with the state of the other
			q.Set("code", c.consent(c.begin(p, "other")).Query().Get("code"))
		}, want: "belongs to another window, or", status: -1},
		"injected code": {back: func(c *consents, p *person, q url.Values) { // another person's code, in a window of one's own
			eve := c.person("eve@example.test")
			q.Set("code", c.consent(c.begin(eve, "lab")).Query().Get("code"))
		}, want: "can't be reached"},
		"state of another": {back: func(c *consents, p *person, q url.Values) {
			eve := c.person("eve@example.test")
			q.Set("state", c.consent(c.begin(eve, "lab")).Query().Get("state"))
		}, want: "belongs to another window"},
		"token endpoint fails":   {before: endpoint(testlab.ServerFails), want: "can't be reached"},
		"token endpoint rubbish": {before: endpoint(testlab.Rubbish), want: "can't be reached"},
		"token endpoint endless": {before: endpoint(testlab.EndlessAnswer), want: "can't be reached"},
		"token endpoint away":    {before: endpoint(testlab.RedirectsAway), want: "can't be reached"},
		"token endpoint refuses": {before: endpoint(testlab.InvalidGrant), want: "can't be reached"},
		"client refused":         {before: endpoint(testlab.InvalidClient), want: "can't be reached"},
		"token endpoint cut":     {before: endpoint(testlab.HangsUp), want: "can't be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newConsents(t, tt.server)
			p := c.person(alice)
			p.made("Phone", authstore.ScopeMail)
			if tt.before != nil {
				tt.before(c)
			}
			back := c.consent(c.begin(p, "lab"))
			q := back.Query()
			if tt.back != nil {
				tt.back(c, p, q)
			}
			back.RawQuery = q.Encode()
			if tt.status == -1 { // either is right: the code is redeemed where it is unknown, or by a wrong verifier
				tt.want = "Nothing was"
			}
			r := p.get(back.RequestURI()).says(422, tt.want, "Not connected yet")
			for _, secret := range []string{"at.", "rt.", c.server.Secret, "<script>"} {
				if strings.Contains(strings.ReplaceAll(r.body, `<script src=`, ""), secret) {
					t.Errorf("the page tells %q", secret)
				}
			}
			if s := c.state(p.account, "lab"); s != upstreamtoken.None {
				t.Errorf("the connection is %s", s)
			}
			if a, err := c.accounts.Get(t.Context(), alice); err != nil || a.Status != authstore.Active || a.Passwords != 1 {
				t.Errorf("the account is %v and has %d app passwords, %v", a.Status, a.Passwords, err)
			}
		})
	}
}

func as(user string) func(*consents) {
	return func(c *consents) {
		c.server.Answer(func(string) (string, string) { return user, "" })
	}
}

func fails(code string) func(*consents) {
	return func(c *consents) {
		c.server.Answer(func(string) (string, string) { return "", code })
	}
}

func endpoint(f testlab.Fault) func(*consents) {
	return func(c *consents) { c.server.Fail("/token", f) }
}

func set(name, value string) func(*consents, *person, url.Values) {
	return func(_ *consents, _ *person, q url.Values) { q.Set(name, value) }
}

// What came back works once, and in the session that asked.
func TestAConsentIsTakenOnce(t *testing.T) {
	t.Parallel()
	c := newConsents(t, nil)
	p := c.person(alice)
	back := c.consent(c.begin(p, "lab"))
	p.get(back.RequestURI()).leads("/connections?done=connected")
	p.post("/connections/lab/disconnect", url.Values{}).leads("/connections?done=removed")
	p.get(back.RequestURI()).says(422, "was done already")

	back = c.consent(c.begin(p, "lab"))
	q := back.Query()
	q.Set("code", c.consent(c.begin(p, "lab")).Query().Get("code")) // of the same person's other window: the verifier is another
	back.RawQuery = q.Encode()
	p.get(back.RequestURI()).says(422)

	back = c.consent(c.begin(p, "lab"))
	p.post("/sign-out", url.Values{})
	if r := p.get(back.RequestURI()); r.StatusCode != http.StatusSeeOther || !strings.HasPrefix(r.Header.Get("Location"), "/sign-in") {
		t.Errorf("signed out, one is led to %s %q", r.Status, r.Header.Get("Location"))
	}
	if c.state(p.account, "lab") != upstreamtoken.None {
		t.Error("it is connected")
	}
}

// Another site's link sends nobody to the authorization server, and no parameter leads anywhere else.
func TestNobodyIsSentAway(t *testing.T) {
	t.Parallel()
	c := newConsents(t, nil)
	p := c.person(alice)
	for _, site := range []string{"cross-site", "same-site", "same-origin", "none", ""} {
		r, err := http.NewRequest(http.MethodGet, c.site+"/connections/lab/connect", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Sec-Fetch-Site", site)
		resp, err := p.browser.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		to := resp.Header.Get("Location")
		if away, foreign := strings.HasPrefix(to, "https://"), strings.HasSuffix(site, "-site"); away == foreign {
			t.Errorf("from %q it leads to %s", site, to)
		}
	}
	at := c.begin(p, "lab")
	for _, query := range []string{"?redirect_uri=https://evil.example.test", "?next=//evil.example.test", "?login_hint=eve@example.test", "?state=x"} {
		r := p.get("/connections/lab/connect" + query).says(http.StatusSeeOther)
		u, _ := url.Parse(r.Header.Get("Location"))
		if u.Host != at.Host || u.Query().Get("redirect_uri") != c.site+"/connections/callback" || u.Query().Get("login_hint") != alice {
			t.Errorf("%s leads to %s", query, u)
		}
	}
	for _, path := range []string{"/connections/%2F%2Fevil.example.test/connect", "/connections/..%2fpasswords/connect", "/connections/callback/connect"} {
		p.get(path).says(404)
	}
	p.post("/connections/callback", url.Values{}).says(404)
}

// An authorization server that is down is told, before anybody is sent there.
func TestAnAuthorizationServerThatIsDown(t *testing.T) {
	t.Parallel()
	c := newConsents(t, nil)
	p := c.person(alice)
	for _, path := range []string{"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"} {
		c.server.Fail(path, testlab.ServerFails)
	}
	p.get("/connections/lab/connect").says(422, "Example Mail Host can't be reached at the moment")
	p.get("/passwords").says(200, "not connected yet")
}

// forged is an authorization server that changes what the lab's says.
func forged(t *testing.T, path string, change func(c *testlab.TokenServer, body []byte) []byte) func(*testlab.TokenServer, *upstreamtoken.Provider) {
	return func(s *testlab.TokenServer, p *upstreamtoken.Provider) {
		target, err := url.Parse(s.Plain)
		if err != nil {
			t.Fatal(err)
		}
		proxy := &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(target)
				r.Out.Host = r.In.Host // so that the lab takes itself for it
			},
			ModifyResponse: func(r *http.Response) error {
				if r.Request.URL.Path != path {
					return nil
				}
				body, err := io.ReadAll(r.Body)
				if err != nil {
					return err
				}
				body = change(s, body)
				r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
				r.Header.Set("Content-Length", strconv.Itoa(len(body)))
				return nil
			},
		}
		front := httptest.NewServer(proxy)
		t.Cleanup(front.Close)
		self := strings.Replace(front.URL, "127.0.0.1", "localhost", 1)
		p.Issuer, p.TLS = self, nil
	}
}

// idClaims replaces the claims of the ID token in an answer.
func idClaims(change func(claims map[string]any)) func(*testlab.TokenServer, []byte) []byte {
	return func(_ *testlab.TokenServer, body []byte) []byte { return rewriteID(body, change) }
}

func TestServersThatLie(t *testing.T) {
	t.Parallel()
	claim := func(name string, value any) func(*testlab.TokenServer, []byte) []byte {
		return idClaims(func(c map[string]any) { c[name] = value })
	}
	for name, tt := range map[string]struct {
		path   string
		change func(*testlab.TokenServer, []byte) []byte
		want   string // empty: it is connected
	}{
		"as it is":            {"/token", claim("email", alice), ""},
		"two in the aud":      {"/token", claim("aud", []string{"postern", "another"}), ""},
		"of another client":   {"/token", claim("aud", "another"), "belongs to another window"},
		"azp of another":      {"/token", claim("azp", "another"), "belongs to another window"},
		"another issuer":      {"/token", claim("iss", "https://evil.example.test"), "belongs to another window"},
		"wrong nonce":         {"/token", claim("nonce", "another"), "belongs to another window"},
		"no nonce":            {"/token", idClaims(func(c map[string]any) { delete(c, "nonce") }), "belongs to another window"},
		"ended":               {"/token", claim("exp", time.Now().Add(-time.Hour).Unix()), "belongs to another window"},
		"no ID":               {"/token", field("id_token", "x"), "belongs to another window"},
		"no refresh token":    {"/token", field("refresh_token", ""), "did not allow the connection"},
		"no access token":     {"/token", field("access_token", ""), "can't be reached"},
		"another type":        {"/token", field("token_type", "mac"), "can't be reached"},
		"address unproven":    {"/token", idClaims(func(c map[string]any) { c["email_verified"] = false; c["preferred_username"] = "eve@example.test" }), "signed in as eve@example.test"},
		"tells no address":    {"/token", idClaims(func(c map[string]any) { delete(c, "email") }), ""},
		"capital letters":     {"/token", claim("email", strings.ToUpper(alice)), ""},
		"document of another": {"/.well-known/openid-configuration", field("issuer", "https://evil.example.test"), "can't be reached"},
		"endpoint elsewhere":  {"/.well-known/openid-configuration", field("token_endpoint", "http://evil.example.test/token"), "can't be reached"},
		"endpoint by script":  {"/.well-known/openid-configuration", field("authorization_endpoint", "javascript:alert(1)"), "can't be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newConsents(t, forged(t, tt.path, tt.change))
			p := c.person(alice)
			r := p.get("/connections/lab/connect")
			if at, err := r.Location(); err == nil && r.StatusCode == http.StatusSeeOther {
				r = p.get(c.consent(at).RequestURI())
			}
			if tt.want == "" {
				r.leads("/connections?done=connected")
			} else {
				r.says(422, tt.want)
			}
			if got := c.state(p.account, "lab"); (got == upstreamtoken.Connected) != (tt.want == "") {
				t.Errorf("the connection is %s", got)
			}
		})
	}
}

// A person, in a real browser: the hint, the second factor, the way there and back, on a phone, and with no script.
func TestConnectInChromium(t *testing.T) {
	t.Parallel()
	c := newConsents(t, func(s *testlab.TokenServer, p *upstreamtoken.Provider) { p.Issuer, p.TLS = s.Plain, nil }) // another site than the portal's
	p := c.person(alice)
	b := testlab.Browser(t, c.ca)
	page := p.page(b)
	page.Open(c.site + "/passwords").HasText("is not connected yet")
	c.pass(6 * time.Minute)
	page.Open(c.site + "/connections").HasText("Not connected yet")
	page.Click("Connect Example Mail Host").At("/connections/lab").HasText("Confirm that it is you")
	fitInBoth(page, "connect-confirm")
	page.Fill("Code from your authenticator app, or a recovery code", p.code()).Click("Go on").At("/connections/lab").HasText("Go on to Example Mail Host")
	fitInBoth(page, "connect")
	c.server.Answer(func(string) (string, string) { return "Mallory.With.A.Rather.Long.Name@subsidiary.example.test", "" })
	page.Click("Go on to Example Mail Host").HasText("is another mailbox", "sign in as "+alice)
	fit(page, "connect-other")
	c.server.Answer(func(hint string) (string, string) { return hint, "" })
	page.Open(c.site + "/connections/lab").Click("Go on to Example Mail Host").At("/connections?done=connected").HasText("Your apps can use it at once")
	if c.state(p.account, "lab") != upstreamtoken.Connected {
		t.Error("it is not connected")
	}
	row, err := c.store.UpstreamToken(t.Context(), p.account, "lab")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.store.FailConnection(t.Context(), authstore.Actor{Name: "gateway"}, row, "invalid_grant"); err != nil {
		t.Fatal(err)
	}
	page.Open(c.site + "/passwords").HasText("The connection to Example Mail Host has ended")
	fitInBoth(page, "connections-failed-note")
	page.Open(c.site + "/connections")
	fitInBoth(page, "connections-failed")

	for _, cookie := range page.Cookies() { // the second factor has brought another
		if cookie.Name == sessionCookie {
			p.token = identity.Token(cookie.Value)
		}
	}
	plain := p.page(b).WithoutScript().Phone()
	plain.Open(c.site + "/security").Click("Connect Example Mail Host again").Click("Go on to Example Mail Host").At("/connections?done=connected")
	plain.Click("Disconnect Example Mail Host").HasText("Disconnect Example Mail Host?")
	plain.Click("Disconnect").HasText("Disconnected.")
	if c.state(p.account, "lab") != upstreamtoken.None {
		t.Error("it is connected yet")
	}

	keys := p.page(b)
	keys.Open(c.site + "/connections/lab")
	for range 40 { // by the keyboard alone
		if keys.Focused() == "Go on to Example Mail Host" {
			break
		}
		keys.Press("Tab")
	}
	keys.Press("Enter")
	keys.At("/connections?done=connected")
}
