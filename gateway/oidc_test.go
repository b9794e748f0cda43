package gateway

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/config"
)

// What `postern check` says of the provider that people sign in at.
func TestCheckProvider(t *testing.T) {
	t.Parallel()
	more := ""
	keys := `{"keys":[{"kty":"RSA"}]}`
	var srv *httptest.Server
	srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			fmt.Fprintf(w, `{"issuer":%q,"authorization_endpoint":"%[1]s/a","token_endpoint":"%[1]s/t","jwks_uri":"%[1]s/k"%s}`, srv.URL, more)
		case "/k":
			fmt.Fprint(w, keys)
		}
	}))
	t.Cleanup(srv.Close)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ issuer, secret, more, keys, want string }{
		{srv.URL, "", "", keys, "ok    portal sign-in: " + srv.URL + " answers; it tells of no back-channel logout"},
		{srv.URL, secret, `,"backchannel_logout_supported":true`, keys, "back-channel logout can be registered: https://pw.example.test/sign-in/oidc/logout; a sign-in was not tried; redirect URI https://pw.example.test/sign-in/oidc/callback"},
		{srv.URL + "/", "", "", keys, "write issuer as it stands there"},
		{srv.URL, "", `,"code_challenge_methods_supported":["plain"]`, keys, "set client_secret_file"},
		{srv.URL, secret, `,"code_challenge_methods_supported":["plain"]`, keys, "ok    portal sign-in"},
		{srv.URL, "", `,"userinfo_endpoint":"ftp://x"`, keys, "no proper userinfo_endpoint"},
		{srv.URL, "", "", "<html>", "its keys at " + srv.URL + "/k: status 200, 0 keys"},
		{srv.URL, "/nowhere", "", keys, "client_secret_file"},
		{srv.URL + "/other", "", "", keys, srv.URL + "/other: "},
	} {
		more, keys = tt.more, tt.keys
		c := &config.Config{Portal: config.Portal{URL: "https://pw.example.test", SignIn: "oidc", OIDC: config.OIDC{Issuer: tt.issuer, ClientID: "postern", ClientSecretFile: tt.secret}}}
		if got := checkOIDC(t.Context(), c).Text(); !strings.Contains(got, tt.want) {
			t.Errorf("%+v: %q", tt, got)
		}
	}
	if _, err := newOIDC(&config.Config{Portal: config.Portal{OIDC: config.OIDC{CAFile: "/nowhere"}}}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "[portal.oidc]: ca_file") {
		t.Errorf("without its authority: %v", err)
	}
	for want, o := range map[string]config.OIDC{"Example ID": {Name: "Example ID", Issuer: srv.URL}, "id.example.org": {Issuer: "https://id.example.org:8443/x"}} {
		if got := providerName(&o); got != want {
			t.Errorf("it is called %q, want %q", got, want)
		}
	}
}
