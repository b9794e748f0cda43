package config

import (
	"fmt"
	"slices"
	"strings"
)

// checkProvisioning checks for whom accounts are made, and who administers.
func (w *walker) checkProvisioning() {
	if !w.cfg.HasPortal() {
		w.meansNothing(withoutPortal, append(w.written("provisioning."), w.written("administration.")...)...)
		return
	}
	if w.cfg.Portal.SignIn == "local" {
		w.meansNothing(`with sign_in = "local", where everybody begins with an invitation`, w.among("provisioning.domains")...)
	}
	for _, d := range w.cfg.Provisioning.Domains {
		if d != strings.ToLower(d) || strings.ContainsAny(d, "@ */") || !strings.Contains(d, ".") {
			w.say("provisioning.domains", fmt.Sprintf("provisioning.domains: %q is no domain such as \"example.org\", in lower case", d))
		}
	}
	w.checkGroups("provisioning.groups", w.cfg.Provisioning.Groups)
	w.checkGroups("administration.groups", w.cfg.Administration.Groups)
	if p := &w.cfg.Portal; len(w.cfg.Administration.Groups) > 0 && p.SignIn == "ldap" && p.LDAP.LookEvery == 0 { // a passkey opens the portal without asking the directory
		w.say("administration.groups", `administration.groups needs portal.ldap.look_every, such as "5m": whoever left the group, and signs in with a passkey, would be an administrator still`)
	}
}

// checkGroups checks groups that another server tells of: where none does, nobody would ever be in one.
func (w *walker) checkGroups(path string, groups []string) {
	portal := &w.cfg.Portal
	switch {
	case !w.cfg.HasPortal():
		w.meansNothing(withoutPortal, w.among(path)...)
		return
	case portal.SignIn != "ldap" && portal.SignIn != "oidc":
		w.meansNothing(fmt.Sprintf("with sign_in = %q, which tells of no groups", portal.SignIn), w.among(path)...)
		return
	case len(groups) == 0:
		return
	}
	if slices.ContainsFunc(groups, func(g string) bool { return g == "" || strings.ContainsAny(g, "\r\n") }) {
		w.say(path, path+": a group's name is one line that is not empty")
	}
	switch {
	case portal.SignIn == "oidc" && portal.OIDC.GroupsClaim == "":
		w.say(path, path+" needs portal.oidc.groups_claim, the claim that holds the groups")
	case portal.SignIn == "ldap" && portal.LDAP.GroupsAttribute == "" && portal.LDAP.GroupBase == "":
		w.say(path, path+" needs groups_attribute or group_base in [portal.ldap], for else nobody's groups are known")
	}
	w.checkGroupNames(path, groups)
}

// checkGroupNames refuses short names of groups where the directory has whole ones only, so that they would fit nobody.
func (w *walker) checkGroupNames(path string, groups []string) {
	l := &w.cfg.Portal.LDAP
	if w.cfg.Portal.SignIn != "ldap" || !strings.EqualFold(l.GroupsAttribute, "memberOf") {
		return
	}
	for _, g := range groups {
		if g != "" && !strings.Contains(g, "=") {
			w.say(path, fmt.Sprintf("%q is no whole name of a group, as the directory has them: \"cn=staff,ou=groups,dc=example,dc=org\"", g))
		}
	}
}
