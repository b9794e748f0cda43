package config

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
)

// OAuth is one authorization server that gives the tokens which backends want.
type OAuth struct {
	Name             string   `toml:"name"`
	Preset           string   `toml:"preset"` // "microsoft", "google"; empty: Issuer
	Issuer           string   `toml:"issuer"`
	Tenant           string   `toml:"tenant"` // microsoft
	ClientID         string   `toml:"client_id"`
	ClientSecretFile string   `toml:"client_secret_file"`
	Scopes           []string `toml:"scopes"`
	Flow             string   `toml:"flow"` // "person", "client"
	SamePerson       bool     `toml:"same_person"`
	CAFile           string   `toml:"ca_file"`
}

func defaultOAuth() OAuth { return OAuth{Flow: "person", SamePerson: true} }

var (
	oauthName   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)
	oauthTenant = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{0,99}$`)
	oauthScope  = regexp.MustCompile(`^[!#-[\]-~]+$`) // RFC 6749 section 3.3
)

// manyTenants are Microsoft's words for the people of several tenants.
var manyTenants = []string{"common", "organizations", "consumers"}

func (w *walker) checkOAuth(o *OAuth, path string, before []OAuth) {
	switch {
	case o.Name == "callback":
		w.say(path+".name", `the name "callback" is taken: people come back there from the authorization server`)
	case !oauthName.MatchString(o.Name):
		w.say(path+".name", fmt.Sprintf("name %q must have lower-case letters, digits and dashes only: it stands in addresses of the portal", o.Name))
	case slices.ContainsFunc(before, func(other OAuth) bool { return other.Name == o.Name }):
		w.say(path+".name", fmt.Sprintf("two of [[oauth]] are named %q", o.Name))
	}
	w.checkAuthorizationServer(o, path)
	if o.ClientID == "" {
		w.say(path, "client_id is missing; the authorization server gives one where Postern is registered there (docs/oauth.md)")
	}
	for _, s := range o.Scopes {
		if !oauthScope.MatchString(s) {
			w.say(path+".scopes", fmt.Sprintf("%q is no scope: write each as a text of its own, without blanks", s))
		}
	}
	if !w.oneOf(path+".flow", o.Flow, "person", "client") {
		return
	}
	secret := o.ClientSecretFile != ""
	switch {
	case o.Flow == "client" && o.Preset == "google":
		w.say(path+".flow", `Google opens mailboxes to no client; use flow = "person"`)
	case o.Flow == "client" && !secret:
		w.say(path, `flow = "client" needs client_secret_file, a file that holds the client's secret and only Postern can read`)
	case o.Flow == "client" && slices.Contains(manyTenants, o.Tenant):
		w.say(path+".tenant", fmt.Sprintf(`flow = "client" needs one tenant, by its id or domain; %q is of many`, o.Tenant))
	case o.Flow == "client":
		w.meansNothing(`with flow = "client", which no person consents to`, w.among(path+".same_person")...)
	case o.Preset == "google" && !secret:
		w.say(path, "Google gives every web client a secret, and wants it; name the file that holds it in client_secret_file")
	case !w.cfg.HasPortal():
		w.say(path, `people connect their mailboxes at the portal; add a [[listener]] with protocol = "portal", and url in [portal]`)
	}
}

// checkAuthorizationServer checks what says where the authorization server is.
func (w *walker) checkAuthorizationServer(o *OAuth, path string) {
	if o.Preset != "" && !w.oneOf(path+".preset", o.Preset, "microsoft", "google") {
		return
	}
	if o.Preset != "microsoft" {
		w.meansNothing(`without preset = "microsoft"`, w.among(path+".tenant")...)
	}
	switch {
	case o.Preset != "":
		w.meansNothing("with a preset, which says where the server is", w.among(path+".issuer", path+".ca_file")...)
		if o.Preset == "microsoft" && !oauthTenant.MatchString(o.Tenant) {
			w.say(path, `preset = "microsoft" needs tenant, the directory's id or domain such as "example.onmicrosoft.com"`)
		}
	case o.Issuer == "":
		w.say(path, `issuer is missing, the authorization server's address such as "https://id.example.org"; Microsoft and Google have a preset instead`)
	default:
		w.checkIssuer(path+".issuer", o.Issuer)
		if o.CAFile != "" && strings.HasPrefix(o.Issuer, "http://") {
			w.say(path+".ca_file", "ca_file means nothing without https://")
		}
		if len(o.Scopes) == 0 {
			w.say(path, `scopes are missing: what the tokens are to open, such as ["openid", "email", "mail", "offline_access"]`)
		}
	}
}

// checkBearer checks what a backend of the credential "oauth" needs besides.
func (w *walker) checkBearer(b *Backend, path string) {
	if b.Credential != "oauth" {
		w.meansNothing(fmt.Sprintf("with credential %q", b.Credential), w.among(path+".oauth")...)
		return
	}
	var names []string
	for _, o := range w.cfg.OAuth {
		names = append(names, o.Name)
	}
	switch {
	case b.OAuth == "":
		w.say(path, `credential "oauth" needs oauth, the name of the [[oauth]] that gives the tokens`)
	case len(names) == 0:
		w.say(path+".oauth", fmt.Sprintf("there is no [[oauth]] with name = %q", b.OAuth))
	case !slices.Contains(names, b.OAuth):
		w.say(path+".oauth", fmt.Sprintf("there is no [[oauth]] with name = %q%s", b.OAuth, suggestion(b.OAuth, names)))
	}
	if host, _, err := net.SplitHostPort(b.Address); err == nil && b.TLS == "none" && !isLoopback(host) {
		w.say(path+".tls", fmt.Sprintf(`a token opens the mailbox to whoever reads it on the way to %s; use tls = "implicit" or "starttls"`, b.Address))
	}
}
