package config

import (
	"fmt"
	"maps"
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"unicode"
)

// checkShared lets a listener have the address of another one before it only where the two can be told apart: browsers and calendar
// apps by the name that they ask for.
func (w *walker) checkShared(l, other *Listener, path string) {
	portal, dav := l, other
	if other.Protocol == PortalProtocol {
		portal, dav = other, l
	}
	at := path + ".address"
	switch {
	case portal.Protocol != PortalProtocol || dav.Protocol != "dav":
		w.say(at, fmt.Sprintf("two listeners have the address %s; give each its own", l.Address))
	case portal.TLS != dav.TLS || !slices.Equal(portal.ProxyProtocol, dav.ProxyProtocol):
		w.say(at, fmt.Sprintf("portal and dav share the address %s and must have the same tls and proxy_protocol", l.Address))
	case w.cfg.Hostname == "":
		w.say(at, fmt.Sprintf("portal and dav share the address %s and are told apart by name; set hostname, the name that apps use, beside portal.url", l.Address))
	default:
		if u, err := url.Parse(w.cfg.Portal.URL); err == nil && strings.EqualFold(u.Hostname(), w.cfg.Hostname) {
			w.say(at, fmt.Sprintf("portal and dav share the address %s and are told apart by name, but hostname and portal.url name the same host; give the portal a name or an address of its own", l.Address))
		}
	}
}

const withoutPortal = `without a [[listener]] with protocol = "portal"`

func (w *walker) checkPortal() {
	p := &w.cfg.Portal
	if !w.cfg.HasPortal() {
		w.meansNothing(withoutPortal, w.written("portal.")...)
		return
	}
	w.checkURL()
	if p.Name != strings.TrimSpace(p.Name) || strings.ContainsFunc(p.Name, func(r rune) bool { return r < ' ' || r == 0x7f }) || strings.Contains(p.Name, ":") {
		w.say("portal.name", "portal.name must be one line without a colon and without blanks around it: authenticator apps show it")
	}
	w.oneOf("portal.enrolment", p.Enrolment, "first", "invite")
	if w.oneOf("portal.sign_in", p.SignIn, slices.Sorted(maps.Keys(signIns))...) {
		w.checkSignIn(p)
	}
	if p.SessionTime < p.IdleTimeout {
		w.say("portal.idle_timeout", "portal.idle_timeout is longer than portal.session_time, after which everybody signs in again")
	}
}

// signIns are the ways to sign in, each with the check of what only it has. The table of its settings is [portal.NAME].
var signIns = map[string]func(*walker, *Portal){
	"local": (*walker).checkLocal,
	"imap":  (*walker).checkIMAP,
	"ldap":  (*walker).checkLDAP,
	"oidc":  (*walker).checkOIDC,
}

// checkSignIn checks what only some ways to sign in have.
func (w *walker) checkSignIn(p *Portal) {
	signIns[p.SignIn](w, p)
	for name := range signIns {
		if name != p.SignIn {
			w.meansNothing(fmt.Sprintf("with sign_in = %q", p.SignIn), w.written("portal."+name+".")...)
		}
	}
}

func (w *walker) checkLocal(*Portal) {
	w.meansNothing(`with sign_in = "local", where everybody begins with an invitation`, w.among("portal.enrolment")...)
	w.meansNothing(`with sign_in = "local"`, w.among("portal.one_primary")...)
}

func (w *walker) checkIMAP(p *Portal) {
	if p.IMAP.Address == "" {
		w.say("portal.sign_in", `sign_in = "imap" needs the server that checks the passwords: [portal.imap] with address`)
		return
	}
	w.checkReach("portal.imap", p.IMAP.Address, p.IMAP.TLS, p.IMAP.CAFile, p.IMAP.ServerName)
	w.checkTemplate("portal.imap.login", p.IMAP.Login, "{address}", "{local}", "{domain}")
	w.meansNothing(`with sign_in = "imap", whose server decides what passwords are good`, w.among("portal.breached_passwords")...)
}

// checkURL wants the origin that browsers name, letter by letter: cookies, passkeys and the check of requests from elsewhere hang on it.
func (w *walker) checkURL() {
	text := w.cfg.Portal.URL
	example := `, such as "https://passwords.example.org"`
	if text == "" {
		w.say("portal.url", "the portal needs url in [portal], the address that people type"+example)
		return
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" ||
		strings.HasSuffix(text, "#") {
		w.say("portal.url", fmt.Sprintf("portal.url %q must be https://, a name, and a port if it is not 443, with nothing behind it%s", text, example))
		return
	}
	host, port := u.Hostname(), u.Port()
	_, notAName := netip.ParseAddr(host)
	switch {
	case u.Scheme == "http" && host == "localhost":
		if !w.plainPortal() {
			w.say("portal.url", `portal.url begins with http://, but a portal listener speaks TLS; write https://, or tls = "none" at the listener`)
		}
	case u.Scheme != "https":
		w.say("portal.url", fmt.Sprintf("portal.url %q must begin with https://; only localhost may do without", text))
	}
	switch {
	case notAName == nil:
		w.say("portal.url", fmt.Sprintf("portal.url names the address %s; passkeys need a name", host))
	case text != u.Scheme+"://"+strings.ToLower(u.Host) || strings.HasSuffix(host, ".") || strings.HasSuffix(u.Host, ":"):
		w.say("portal.url", fmt.Sprintf("portal.url %q must be in lower case, as browsers write it%s", text, example))
	case strings.ContainsFunc(host, func(r rune) bool { return r > unicode.MaxASCII }):
		w.say("portal.url", fmt.Sprintf("portal.url %q must have its letters that are not ASCII in the form that begins with xn--, as browsers send it", text))
	case port == "443" && u.Scheme == "https" || port == "80" && u.Scheme == "http":
		w.say("portal.url", fmt.Sprintf("portal.url %q must leave the port out where it is the usual one, as browsers do", text))
	}
}

// plainPortal reports whether all portal listeners speak plain text.
func (w *walker) plainPortal() bool {
	return !slices.ContainsFunc(w.cfg.Listeners, func(l Listener) bool {
		return l.Protocol == PortalProtocol && l.TLS != "none" && l.TLS != "insecure"
	})
}

func (w *walker) checkNotices() {
	n := &w.cfg.Notices
	if n.Address == "" {
		w.meansNothing("without address, the server that takes the mail", w.written("notices.")...)
		return
	}
	if !w.cfg.HasPortal() {
		w.say("notices.address", `notices link to the portal; add a [[listener]] with protocol = "portal", or take [notices] out`)
	}
	host, ok := w.checkServer("notices", n.Address, n.TLS, n.CAFile, n.ServerName)
	switch a, err := mail.ParseAddress(n.From); {
	case n.From == "":
		w.say("notices.address", `notices need from, the sender's address, such as "Example Mail <postmaster@example.org>"`)
	case err != nil || !strings.Contains(a.Address, "@"):
		w.say("notices.from", fmt.Sprintf("from %q is no address such as \"postmaster@example.org\" or \"Example Mail <postmaster@example.org>\"", n.From))
	}
	switch {
	case n.User != "" && n.PasswordFile == "":
		w.say("notices.user", "user needs password_file, a file that holds the password and only Postern can read")
	case n.User == "" && n.PasswordFile != "":
		w.say("notices.password_file", "password_file means nothing without user")
	case n.User != "" && n.TLS == "none" && ok && !isPrivate(host):
		w.say("notices.tls", fmt.Sprintf("plain text shows the password to the network on the way to %s; use tls = \"implicit\" or \"starttls\"", n.Address))
	}
}

// written lists the keys that stand in the file under a prefix, without those of tables inside.
func (w *walker) written(prefix string) (paths []string) {
	for _, path := range slices.Sorted(maps.Keys(w.where)) {
		if rest, ok := strings.CutPrefix(path, prefix); ok && signIns[strings.TrimPrefix(path, "portal.")] == nil && (rest == "" || !strings.ContainsAny(rest, "[")) {
			paths = append(paths, path)
		}
	}
	return paths
}

// among returns those of some keys that stand in the file.
func (w *walker) among(paths ...string) []string {
	return slices.DeleteFunc(paths, func(path string) bool {
		_, ok := w.where[path]
		return !ok
	})
}

func (w *walker) meansNothing(where string, paths ...string) {
	for _, path := range paths {
		w.say(path, fmt.Sprintf("%s means nothing %s", path, where))
	}
}
