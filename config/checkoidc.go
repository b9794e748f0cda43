package config

import (
	"fmt"
	"net/netip"
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
	loopback := u.Hostname() == "localhost"
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		loopback = a.IsLoopback()
	}
	switch {
	case u.Scheme == "http" && loopback:
	case u.Scheme != "https":
		w.say(path, fmt.Sprintf("%s %q must begin with https://; only this machine may do without", path, text))
	case strings.HasSuffix(text, "/.well-known/openid-configuration"):
		w.say(path, fmt.Sprintf("%s is what stands before /.well-known/openid-configuration", path))
	}
}

// vouching are the ways to sign in where another server tells of people's groups.
var vouching = []string{"ldap", "oidc"}

func (w *walker) checkProvisioning() {
	p, a := &w.cfg.Provisioning, &w.cfg.Administration
	if !w.cfg.HasPortal() {
		w.meansNothing(`without a [[listener]] with protocol = "portal"`, append(w.written("provisioning."), w.written("administration.")...)...)
		return
	}
	signIn := w.cfg.Portal.SignIn
	with := fmt.Sprintf("with sign_in = %q", signIn)
	if !slices.Contains(vouching, signIn) {
		w.meansNothing(with+", which tells of no groups", w.among("provisioning.groups", "administration.groups")...)
	}
	if signIn == "local" {
		w.meansNothing(with+", where everybody begins with an invitation", w.among("provisioning.domains")...)
	}
	for _, d := range p.Domains {
		if d != strings.ToLower(d) || strings.ContainsAny(d, "@ */") || !strings.Contains(d, ".") {
			w.say("provisioning.domains", fmt.Sprintf("provisioning.domains: %q is no domain such as \"example.org\", in lower case", d))
		}
	}
	for path, groups := range map[string][]string{"provisioning.groups": p.Groups, "administration.groups": a.Groups} {
		if slices.ContainsFunc(groups, func(g string) bool { return g == "" || strings.ContainsAny(g, "\r\n") }) {
			w.say(path, path+": a group's name is one line that is not empty")
		}
		if len(groups) > 0 && signIn == "oidc" && w.cfg.Portal.OIDC.GroupsClaim == "" {
			w.say(path, path+" needs portal.oidc.groups_claim, the claim that holds the groups")
		}
		if l := &w.cfg.Portal.LDAP; len(groups) > 0 && signIn == "ldap" && l.GroupsAttribute == "" && l.GroupBase == "" {
			w.say(path, path+" needs groups_attribute or group_base in [portal.ldap], for else nobody's groups are known")
		}
	}
	if l := &w.cfg.Portal.LDAP; len(a.Groups) > 0 && signIn == "ldap" && l.LookEvery == 0 { // a passkey opens the portal without asking the directory
		w.say("administration.groups", `administration.groups needs portal.ldap.look_every, such as "5m": whoever left the group, and signs in with a passkey, would be an administrator still`)
	}
}
