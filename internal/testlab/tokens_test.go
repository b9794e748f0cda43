package testlab

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
)

// asker is a client of a token server.
type asker struct {
	t *testing.T
	*TokenServer
	http *http.Client
}

func newAsker(t *testing.T) *asker {
	a := &asker{t: t, TokenServer: NewTokenServer(t)}
	a.http = a.Client()
	a.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return a
}

// post sends a form with the client's own credential, and wants a status.
func (a *asker) post(path string, want int, form ...string) map[string]any {
	a.t.Helper()
	values := url.Values{"client_id": {a.ClientID}, "client_secret": {a.Secret}}
	for i := 0; i < len(form); i += 2 {
		values.Set(form[i], form[i+1])
	}
	resp, err := a.http.PostForm(a.URL+path, values)
	must(a.t, err)
	defer resp.Body.Close()
	told := map[string]any{}
	body, err := io.ReadAll(resp.Body)
	must(a.t, err)
	if len(body) > 0 {
		must(a.t, json.Unmarshal(body, &told))
	}
	if resp.StatusCode != want {
		a.t.Errorf("POST %s %v: %d %v, want %d", path, form, resp.StatusCode, told, want)
	}
	return told
}

// word is a string of an answer.
func word(m map[string]any, name string) string {
	s, _ := m[name].(string)
	return s
}

func TestTokenServerCodeFlow(t *testing.T) {
	t.Parallel()
	a := newAsker(t)
	verifier := "a-verifier-of-at-least-forty-three-characters-1"
	sum := sha256.Sum256([]byte(verifier))
	consent := func() string {
		resp, err := a.http.Get(a.URL + "/authorize?" + url.Values{"client_id": {a.ClientID}, "response_type": {"code"}, "redirect_uri": {"https://postern/back"},
			"state": {"s"}, "scope": {"openid mail"}, "login_hint": {Bob}, "code_challenge_method": {"S256"},
			"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}}.Encode())
		must(t, err)
		resp.Body.Close()
		back, err := resp.Location()
		must(t, err)
		if back.Query().Get("state") != "s" || back.Query().Get("iss") != a.URL {
			t.Errorf("led back to %s", back)
		}
		return back.Query().Get("code")
	}
	code := consent()
	redeem := func(want int, code, verifier string) map[string]any {
		return a.post("/token", want, "grant_type", "authorization_code", "code", code, "redirect_uri", "https://postern/back", "code_verifier", verifier)
	}
	first := redeem(200, code, verifier)
	redeem(400, code, verifier)
	redeem(400, consent(), "another")
	if word(first, "id_token") == "" || a.Valid(word(first, "access_token")) != Bob {
		t.Errorf("got %v", first)
	}
	second := a.post("/token", 200, "grant_type", "refresh_token", "refresh_token", word(first, "refresh_token"))
	if word(second, "refresh_token") == word(first, "refresh_token") {
		t.Error("the refresh token was not rotated")
	}
	a.post("/token", 400, "grant_type", "refresh_token", "refresh_token", word(first, "refresh_token")) // used twice
	a.post("/token", 400, "grant_type", "refresh_token", "refresh_token", word(second, "refresh_token"))
	if a.Valid(word(second, "access_token")) != "" {
		t.Error("an access token outlived the theft of its refresh token")
	}
	a.post("/token", 401, "grant_type", "refresh_token", "refresh_token", a.Refreshable(Bob), "client_secret", "wrong")
	a.Answer(func(string) (string, string) { return "", "access_denied" })
	if code := consent(); code != "" {
		t.Errorf("denied, and code %q", code)
	}
	if n := a.Asked("refresh_token"); n != 4 {
		t.Errorf("%d refreshes counted, want 4", n)
	}
}

func TestTokenServerOtherGrants(t *testing.T) {
	t.Parallel()
	a := newAsker(t)
	own := a.post("/token", 200, "grant_type", "client_credentials", "scope", "mail")
	if a.Valid(word(own, "access_token")) != Alice || word(own, "refresh_token") != "" {
		t.Errorf("client credentials: %v", own)
	}
	d := a.post("/device", 200, "scope", "mail")
	poll := func(want int) map[string]any {
		return a.post("/token", want, "grant_type", grantOfDev, "device_code", word(d, "device_code"))
	}
	if got := poll(400); word(got, "error") != "authorization_pending" {
		t.Errorf("before consent: %v", got)
	}
	if a.Approve("nothing", Bob) || !a.Approve(word(d, "user_code"), Bob) {
		t.Error("Approve knows other codes")
	}
	if token := word(poll(200), "access_token"); a.Valid(token) != Bob {
		t.Errorf("token %q", token)
	}
	token := a.Issue(Carol)
	if got := a.post("/introspect", 200, "token", token); got["active"] != true || word(got, "username") != Carol {
		t.Errorf("introspection: %v", got)
	}
	a.post("/revoke", 200, "token", token)
	if got := a.post("/introspect", 200, "token", token); got["active"] != false {
		t.Errorf("introspection after revocation: %v", got)
	}
	expired := a.Issue(Carol)
	a.Expire(Carol)
	if a.Valid(expired) != "" {
		t.Error("an expired token is valid")
	}
	refresh := a.Refreshable(Carol)
	a.Revoke(Carol)
	a.post("/token", 400, "grant_type", "refresh_token", "refresh_token", refresh)
}

func TestTokenServerFails(t *testing.T) {
	t.Parallel()
	a := newAsker(t)
	for fault, status := range map[Fault]int{ServerFails: 500, InvalidGrant: 400, TooManyAtOnce: 429, Unavailable: 503, RedirectsAway: 307, InvalidClient: 401, Rubbish: 200} {
		a.Fail("/token", fault)
		resp, err := a.http.PostForm(a.URL+"/token", url.Values{})
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != status {
			t.Errorf("fault %d: status %d, want %d", fault, resp.StatusCode, status)
		}
	}
	a.Fail("/token", HangsUp)
	if _, err := a.http.PostForm(a.URL+"/token", url.Values{}); !errors.Is(err, io.EOF) {
		t.Errorf("it hangs up: %v", err)
	}
	a.Fail("/token", Hangs)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.Plain+"/token", nil)
	must(t, err)
	if _, err := a.http.Do(req); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it hangs: %v", err)
	}
	a.Fail("/token", Works)
	a.post("/token", 200, "grant_type", "client_credentials")
}

// What docs/oauth.md has people write into a Dovecot takes tokens, and no others.
func TestDocumentedTokens(t *testing.T) {
	t.Parallel()
	Need(t, "dovecot")
	if version, err := dovecotVersion(); err != nil || version != "2.3" {
		t.Skipf("the page is about Dovecot 2.3, not %q, %v", version, err)
	}
	page, err := os.ReadFile("../../docs/oauth.md")
	must(t, err)
	block := func(begin string) string {
		_, text, found := strings.Cut(string(page), "\n    "+begin)
		if !found {
			t.Fatalf("docs/oauth.md shows no %q", begin)
		}
		text, _, _ = strings.Cut("    "+begin+text, "\n\n")
		return strings.ReplaceAll("\n"+text, "\n    ", "\n") + "\n"
	}
	s := NewTokenServer(t)
	settings := strings.Replace(block("introspection_mode"), "https://CLIENT:SECRET@provider.example.org", s.Plain, 1)
	file := write(t, settings, Dir(t), "dovecot-oauth2.conf.ext")
	d := Dovecot(t, Lines(strings.Replace(block("auth_mechanisms"), "/etc/dovecot/dovecot-oauth2.conf.ext", file, 1)))
	ended := s.Issue(Alice)
	s.Expire(Alice)
	for token, ok := range map[string]bool{s.Issue(Alice): true, ended: false} {
		err := dial(t, d, nil).Authenticate(sasl.NewOAuthBearerClient(&sasl.OAuthBearerOptions{Username: Alice, Token: token}))
		if (err == nil) != ok {
			t.Errorf("got %v, want success: %v", err, ok)
		}
	}
}
