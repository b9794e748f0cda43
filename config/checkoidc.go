package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// checkOIDC checks what an OpenID Connect provider needs.
func (w *walker) checkOIDC(p *Portal) {
	o := &p.OIDC
	w.meansNothing(`with sign_in = "oidc", where nobody's primary password is known`,
		w.among("portal.enrolment", "portal.one_primary", "portal.breached_passwords")...)
	if o.Issuer == "" {
		w.say("portal.sign_in", `sign_in = "oidc" needs the provider that people sign in at: [portal.oidc] with issuer and client_id`)
		return
	}
	w.checkIssuer("portal.oidc.issuer", o.Issuer)
	if o.ClientID == "" {
		w.say("portal.oidc", "portal.oidc needs client_id, the name under which the portal is registered at the provider")
	}
	if !slices.Contains(o.Scopes, "openid") {
		w.say("portal.oidc.scopes", `portal.oidc.scopes needs "openid"; without it the provider does not tell who signs in`)
	}
	for _, list := range []struct {
		key    string
		values []string
	}{{"scopes", o.Scopes}, {"factor_acr", o.FactorACR}} {
		if slices.ContainsFunc(list.values, func(v string) bool { return v == "" || strings.ContainsAny(v, " \t\r\n") }) {
			w.say("portal.oidc."+list.key, fmt.Sprintf("portal.oidc.%s holds one word in each pair of quotes, without blanks", list.key))
		}
	}
	if slices.Contains(o.FactorAMR, "pwd") || slices.Contains(o.FactorAMR, "") {
		w.say("portal.oidc.factor_amr", `portal.oidc.factor_amr names second factors, such as "mfa", "otp" or "hwk"; "pwd" is a password`)
	}
	switch {
	case o.AddressClaim == "":
		w.say("portal.oidc.address_claim", `portal.oidc.address_claim must name the claim that holds the address, such as "email"`)
	case o.AddressClaim != "email" && !o.TrustAddresses:
		w.say("portal.oidc.address_claim", fmt.Sprintf("a provider says of \"email\" alone whether it was verified; if nobody can choose what stands in %q, set trust_addresses = true", o.AddressClaim))
	}
	if strings.ContainsFunc(o.Name, func(r rune) bool { return r < ' ' || r == 0x7f }) || o.Name != strings.TrimSpace(o.Name) {
		w.say("portal.oidc.name", "portal.oidc.name must be one line without blanks around it: it stands on the button")
	}
	if o.CAFile != "" && strings.HasPrefix(o.Issuer, "http://") {
		w.say("portal.oidc.ca_file", "portal.oidc.ca_file means nothing for an issuer without https://")
	}
}

// checkIssuer wants an issuer as providers write theirs: it is compared letter by letter.
func (w *walker) checkIssuer(path, text string) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#") {
		w.say(path, fmt.Sprintf("%s %q must be https://, a host and perhaps a path, as the provider's own discovery document has it", path, text))
		return
	}
	switch {
	case u.Scheme == "http" && isLoopback(u.Hostname()):
	case u.Scheme != "https":
		w.say(path, fmt.Sprintf("%s %q must begin with https://; only this machine may do without", path, text))
	case strings.HasSuffix(text, "/.well-known/openid-configuration"):
		w.say(path, fmt.Sprintf("%s is what stands before /.well-known/openid-configuration", path))
	}
}
