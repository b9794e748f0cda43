package config

import (
	"fmt"
	"strings"
	"time"
)

// minLook is the least time between two looks into a directory.
const minLook = 10 * time.Second

// checkLDAP checks what a directory needs.
func (w *walker) checkLDAP(p *Portal) {
	l := &p.LDAP
	w.meansNothing(`with sign_in = "ldap", whose server decides what passwords are good`, w.among("portal.breached_passwords")...)
	if l.Address == "" || l.Base == "" {
		w.say("portal.sign_in", `sign_in = "ldap" needs the directory that checks the passwords: [portal.ldap] with address and base`)
		return
	}
	w.checkReach("portal.ldap", l.Address, l.TLS, l.CAFile, l.ServerName)
	switch {
	case l.BindDN != "" && l.PasswordFile == "":
		w.say("portal.ldap.bind_dn", "bind_dn needs password_file, a file that holds its password and only Postern can read")
	case l.BindDN == "" && l.PasswordFile != "":
		w.say("portal.ldap.password_file", "password_file means nothing without bind_dn")
	}
	w.checkTemplate("portal.ldap.filter", l.Filter, "{address}", "{local}", "{domain}")
	for key, filter := range map[string]string{"filter": l.Filter, "disabled_filter": l.DisabledFilter, "group_filter": l.GroupFilter} {
		if filter != "" && (!strings.HasPrefix(filter, "(") || !strings.HasSuffix(filter, ")") || strings.Count(filter, "(") != strings.Count(filter, ")")) {
			w.say("portal.ldap."+key, fmt.Sprintf("portal.ldap.%s %q is no LDAP filter such as \"(mail={address})\": each opened parenthesis is closed, also the outer ones", key, filter))
		}
	}
	if strings.ContainsAny(l.DisabledFilter, "{}") {
		w.say("portal.ldap.disabled_filter", "portal.ldap.disabled_filter has no placeholders: it is the same for everybody")
	}
	if l.GroupBase != "" {
		w.checkGroupFilter(l)
	} else {
		w.meansNothing("without group_base, where groups are searched", w.among("portal.ldap.group_filter")...)
	}
	for key, name := range map[string]string{"address_attribute": l.AddressAttribute, "subject_attribute": l.SubjectAttribute} {
		if name == "" {
			w.say("portal.ldap."+key, fmt.Sprintf("portal.ldap.%s must name an attribute", key))
		}
	}
	for key, name := range map[string]string{"address_attribute": l.AddressAttribute, "subject_attribute": l.SubjectAttribute, "groups_attribute": l.GroupsAttribute, "changed_attribute": l.ChangedAttribute} {
		if strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
			w.say("portal.ldap."+key, fmt.Sprintf("portal.ldap.%s %q is no attribute's name", key, name))
		}
	}
	if l.LookEvery != 0 && l.LookEvery.Duration() < minLook {
		w.say("portal.ldap.look_every", `portal.ldap.look_every must be at least "10s", or "0s" for never: the directory has other work too`)
	}
}

func (w *walker) checkGroupFilter(l *LDAP) {
	if !strings.Contains(l.GroupFilter, "{dn}") || strings.ContainsAny(strings.ReplaceAll(l.GroupFilter, "{dn}", ""), "{}") {
		w.say("portal.ldap.group_filter", fmt.Sprintf("portal.ldap.group_filter %q must say {dn}, the entry's name, and has no other placeholder", l.GroupFilter))
	}
}
