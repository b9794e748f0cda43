package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

// check tells contradictions, unsafe pairs and words that mean nothing, and writes the routes out that may stay unwritten.
func (w *walker) check() {
	c := w.cfg
	if len(c.Listeners) == 0 {
		w.say("", `there is no [[listener]]; without one no app can connect. "postern config example" shows one`)
	}
	if len(c.Backends) == 0 {
		w.say("", `there is no [[backend]]; name the server that holds the mail or the calendars. "postern config example" shows some`)
	}
	for i := range c.Listeners {
		w.checkListener(&c.Listeners[i], fmt.Sprintf("listener[%d]", i), c.Listeners[:i])
	}
	for i := range c.Backends {
		w.checkBackend(&c.Backends[i], fmt.Sprintf("backend[%d]", i), c.Backends[:i])
	}
	for i := range c.OAuth {
		w.checkOAuth(&c.OAuth[i], fmt.Sprintf("oauth[%d]", i), c.OAuth[:i])
	}
	w.checkRoutes()
	for i, cert := range c.TLS.Certificates {
		if cert.Cert == "" || cert.Key == "" {
			w.say(fmt.Sprintf("tls.certificate[%d]", i), "a certificate needs both files: cert (the chain) and key")
		}
	}
	w.oneOf("tls.min_version", c.TLS.MinVersion, "1.2", "1.3")
	w.oneOf("log.format", c.Log.Format, "auto", "text", "json")
	w.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	w.oneOf("submission.sender", c.Submission.Sender, "any", "own")
	w.oneOf("submission.smuggling", c.Submission.Smuggling, "refuse", "pass")
	if c.Submission.Sender == "own" && c.Submission.Smuggling == "pass" {
		w.say("submission.sender", `sender = "own" holds for no message that is smuggled; use smuggling = "refuse"`)
	}
	w.checkPortal()
	w.checkProvisioning()
	w.checkNotices()
	w.checkPolicies()
	w.checkOperations()
	w.checkAPI()
	for path, n := range map[string]int{"limits.preauth": c.Limits.Preauth, "limits.preauth_per_network": c.Limits.PreauthPerNetwork,
		"limits.sessions": c.Limits.Sessions, "login_timeout": int(c.LoginTimeout), "imap.idle_timeout": int(c.IMAP.IdleTimeout),
		"dav.max_body": int(c.DAV.MaxBody), "portal.idle_timeout": int(c.Portal.IdleTimeout), "portal.session_time": int(c.Portal.SessionTime)} {
		if n == 0 {
			w.say(path, path+" must be above 0")
		}
	}
	for path, file := range map[string]string{"store.database": c.Store.Database, "store.key_file": c.Store.KeyFile} {
		if file == "" {
			w.say(path, path+" must name a file")
		}
	}
	if c.DefaultDomain != "" && (strings.ContainsAny(c.DefaultDomain, "@ /") || !strings.Contains(c.DefaultDomain, ".")) {
		w.say("default_domain", `default_domain must be a domain such as "example.org"`)
	}
}

// say notes a problem at a key, or at the closest table around it that stands in the file.
func (w *walker) say(path, text string) {
	if w.broken[path] {
		return
	}
	at, ok := w.where[path]
	for !ok && path != "" {
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
		at, ok = w.where[path]
	}
	w.problems.List = append(w.problems.List, Problem{at.line, at.column, text})
}

func (w *walker) oneOf(path, value string, known ...string) bool {
	if slices.Contains(known, value) {
		return true
	}
	if value == "" {
		w.say(path, fmt.Sprintf("%s is missing; it is one of %s", path, strings.Join(known, ", ")))
		return false
	}
	w.say(path, fmt.Sprintf("%s: unknown value %q%s", path, value, suggestion(value, known)))
	return false
}

func (w *walker) checkListener(l *Listener, path string, before []Listener) {
	w.oneOf(path+".protocol", l.Protocol, append(slices.Clone(Protocols), PortalProtocol)...)
	host, ok := w.hostPort(path+".address", l.Address)
	for _, o := range before {
		if ok && o.Address == l.Address {
			w.checkShared(l, &o, path)
		}
	}
	if _, said := w.where[path+".tls"]; !said && l.Protocol == "managesieve" {
		l.TLS = "starttls" // apps know no other way (RFC 5804 section 1.8)
	}
	if !w.oneOf(path+".tls", l.TLS, "implicit", "starttls", "none", "insecure") {
		return
	}
	switch {
	case l.TLS == "starttls" && (l.Protocol == "dav" || l.Protocol == PortalProtocol):
		w.say(path+".tls", `HTTP has no STARTTLS; use tls = "implicit"`)
	case l.TLS == "none" && ok && !isLoopback(host):
		w.say(path+".tls", fmt.Sprintf("%s is not loopback, and plain text shows passwords to the network; use tls = \"implicit\", or tls = \"insecure\" if something in front of it encrypts", l.Address))
	case (l.TLS == "implicit" || l.TLS == "starttls") && len(w.cfg.TLS.Certificates) == 0:
		w.say(path, fmt.Sprintf("the listener %s needs a certificate; add [[tls.certificate]] with cert and key", l.Address))
	}
}

func (w *walker) checkBackend(b *Backend, path string, before []Backend) {
	if b.Name == "" {
		w.say(path, "a backend needs a name, for routes, logs and metrics")
	}
	if slices.ContainsFunc(before, func(o Backend) bool { return o.Name == b.Name }) {
		w.say(path+".name", fmt.Sprintf("two backends are named %q", b.Name))
	}
	known := w.oneOf(path+".protocol", b.Protocol, Protocols...)
	w.checkReach(path, b.Address, b.TLS, b.CAFile, b.ServerName)
	if b.TLS == "starttls" && b.Protocol == "dav" {
		w.say(path+".tls", `HTTP has no STARTTLS; use tls = "implicit"`)
	}
	w.checkClientCert(b, path)
	if known {
		w.checkCredential(b, path)
	}
	w.checkTemplate(path+".login", b.Login, "{address}", "{local}", "{domain}")
	if b.Protocol == "dav" && b.SpareConnections > 0 {
		w.say(path+".spare_connections", "spare_connections means nothing with dav: connections are kept and used again in any case")
	}
	if b.Protocol == "dav" && !b.Pipelining {
		w.say(path+".pipelining", "pipelining means nothing with dav")
	}
	if b.Protocol == "dav" {
		w.checkTemplate(path+".principal", b.Principal, "{login}", "{address}", "{local}", "{domain}")
		if !strings.HasPrefix(b.Principal, "/") || !strings.HasSuffix(b.Principal, "/") {
			w.say(path+".principal", fmt.Sprintf("principal %q must begin and end with a slash", b.Principal))
		}
	}
}

// checkReach checks how a server of ours is reached: never in plain text over a network of others.
func (w *walker) checkReach(path, address, tls, caFile, serverName string) {
	host, ok := w.checkServer(path, address, tls, caFile, serverName)
	if ok && tls == "none" && !isPrivate(host) {
		w.say(path+".tls", fmt.Sprintf("the way to %s is not encrypted and leaves the machine; use tls = \"implicit\", or an address on loopback or in a private network", address))
	}
}

// checkServer checks how a server is named, and returns its host.
func (w *walker) checkServer(path, address, tls, caFile, serverName string) (host string, ok bool) {
	host, ok = w.hostPort(path+".address", address)
	if ok && host == "" {
		w.say(path+".address", fmt.Sprintf("%q names no host", address))
		ok = false
	}
	if w.oneOf(path+".tls", tls, "implicit", "starttls", "none") && tls == "none" && (caFile != "" || serverName != "") {
		w.say(path+".tls", `ca_file and server_name mean nothing with tls = "none"`)
	}
	return host, ok
}

func (w *walker) checkCredential(b *Backend, path string) {
	allowed := []string{"master", "stored", "oauth"}
	switch b.Protocol {
	case "submission":
		allowed = []string{"master", "xclient", "stored", "oauth"}
	case "dav":
		allowed = []string{"header", "bearer", "jwt", "basic", "stored", "oauth"}
	}
	if !w.oneOf(path+".credential", b.Credential, allowed...) {
		return
	}
	w.checkSecretFiles(b, path)
	w.checkBearer(b, path)
	if b.Credential == "master" && b.User == "" {
		w.say(path, `credential "master" needs user, the master user's name at the backend`)
	}
	if b.Credential != "master" && b.User != "" {
		w.say(path+".user", fmt.Sprintf("user means nothing with credential %q; the name comes from login", b.Credential))
	}
	if b.Credential == "xclient" && w.cfg.Submission.Smuggling == "pass" {
		w.say(path+".credential", `with smuggling = "pass" a client could smuggle an XCLIENT of its own to a backend that takes that for a login; use smuggling = "refuse", or another credential`)
	}
	switch trusts := b.Credential == "header" || b.Credential == "bearer"; {
	case trusts && slices.ContainsFunc(takenHeaders, func(h string) bool { return strings.EqualFold(h, b.Header) }):
		w.say(path+".header", fmt.Sprintf("%s has a meaning of its own; let the backend trust another header, such as \"X-Remote-User\"", b.Header))
	case trusts && !isHeaderName(b.Header):
		w.say(path+".header", fmt.Sprintf("header must name the header that the backend trusts, such as \"X-Remote-User\"; %q is no header's name", b.Header))
	}
}

// checkSecretFiles wants the file that a credential is in, and no other.
func (w *walker) checkSecretFiles(b *Backend, path string) {
	for _, file := range []struct {
		key, name string
		holds     map[string]string // by credential
	}{
		{"password_file", b.PasswordFile, map[string]string{"master": "the password", "basic": "the password", "bearer": "the token"}},
		{"key_file", b.KeyFile, map[string]string{"jwt": "the key that signs the tokens"}},
	} {
		what, needed := file.holds[b.Credential]
		if needed && file.name == "" {
			w.say(path, fmt.Sprintf("credential %q needs %s, a file that holds %s and only Postern can read", b.Credential, file.key, what))
		}
		if !needed && file.name != "" {
			w.say(path+"."+file.key, fmt.Sprintf("%s means nothing with credential %q", file.key, b.Credential))
		}
	}
}

// checkClientCert wants both halves of a certificate, and TLS to show it in.
func (w *walker) checkClientCert(b *Backend, path string) {
	switch {
	case b.ClientCert == "" && b.ClientKey == "":
	case b.TLS == "none":
		w.say(path+".tls", `client_cert and client_key mean nothing with tls = "none"`)
	case b.ClientCert == "":
		w.say(path, "client_key needs client_cert, the file with the certificate that belongs to it")
	case b.ClientKey == "":
		w.say(path, "client_cert needs client_key, the file with the key that belongs to it")
	}
}

// takenHeaders can't tell who it is: every request has them for something else.
var takenHeaders = []string{
	"Accept-Encoding", "Authorization", "Connection", "Content-Length", "Content-Type", "Depth", "Destination", "Expect", "Host", "If", "If-Match", "If-None-Match",
	"Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "User-Agent", "X-Forwarded-For",
}

// isHeaderName tells a field name (RFC 9110 section 5.1) of which no server makes another's: CGI and WSGI read _ as -.
func isHeaderName(name string) bool {
	return name != "" && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// checkTemplate wants one of the placeholders that tells accounts apart, and no others.
func (w *walker) checkTemplate(path, template string, known ...string) {
	rest, tells := template, false
	for _, k := range known {
		tells = tells || strings.Contains(template, k) && k != "{domain}"
		rest = strings.ReplaceAll(rest, k, "")
	}
	if strings.ContainsAny(rest, "{}") {
		w.say(path, fmt.Sprintf("%q has a placeholder that is unknown; known are %s", template, strings.Join(known, ", ")))
	} else if !tells {
		w.say(path, fmt.Sprintf("%q is the same for every account; put in {address} or {local}, or everybody would reach the same data", template))
	}
}

func (w *walker) checkRoutes() {
	c := w.cfg
	routed := []string{"imap", "submission", "pop3", "managesieve", "calendar", "contacts"}
	serves := func(protocol string) string {
		if protocol == "calendar" || protocol == "contacts" {
			return "dav"
		}
		return protocol
	}
	for i, r := range c.Routes {
		path := fmt.Sprintf("route[%d]", i)
		if !w.oneOf(path+".protocol", r.Protocol, routed...) {
			continue
		}
		if r.Domain != strings.ToLower(r.Domain) || strings.Contains(r.Domain, "@") || r.Domain == "" {
			w.say(path+".domain", fmt.Sprintf("domain %q must be a domain in lower case, or \"*\"", r.Domain))
		}
		if slices.ContainsFunc(c.Routes[:i], func(o Route) bool { return o.Domain == r.Domain && o.Protocol == r.Protocol }) {
			w.say(path, fmt.Sprintf("two routes lead %s of %s somewhere; leave one", r.Protocol, r.Domain))
		}
		b := slices.IndexFunc(c.Backends, func(b Backend) bool { return b.Name == r.Backend })
		switch {
		case b < 0:
			var names []string
			for _, b := range c.Backends {
				names = append(names, b.Name)
			}
			w.say(path+".backend", fmt.Sprintf("there is no backend %q%s", r.Backend, suggestion(r.Backend, names)))
		case c.Backends[b].Protocol != serves(r.Protocol):
			w.say(path+".backend", fmt.Sprintf("backend %q speaks %s and can't serve %s", r.Backend, c.Backends[b].Protocol, r.Protocol))
		}
	}
	for _, protocol := range routed {
		w.fillRoute(protocol, serves(protocol))
	}
}

// fillRoute leads everybody to the only backend of a kind, where no route of the protocol is written.
func (w *walker) fillRoute(protocol, speaks string) {
	c := w.cfg
	if slices.ContainsFunc(c.Routes, func(r Route) bool { return r.Protocol == protocol }) {
		return
	}
	var fit []string
	for _, b := range c.Backends {
		if b.Protocol == speaks {
			fit = append(fit, b.Name)
		}
	}
	switch len(fit) {
	case 0: // nothing of the kind is served
	case 1:
		c.Routes = append(c.Routes, Route{Domain: "*", Protocol: protocol, Backend: fit[0]})
	default:
		w.say("", fmt.Sprintf("several backends could serve %s (%s); write [[route]] with protocol = %q and backend = %q", protocol, strings.Join(fit, ", "), protocol, fit[0]))
	}
}

func (w *walker) checkOperations() {
	address := w.cfg.Operations.Address
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if !filepath.IsAbs(path) {
			w.say("operations.address", "a socket's path must begin with a slash: unix:/run/postern/ops.sock")
		}
		return
	}
	host, ok := w.hostPort("operations.address", address)
	switch {
	case !ok:
	case !isLoopback(host):
		w.say("operations.address", fmt.Sprintf("%s is not loopback, and whoever reaches it may read metrics and profiles; use 127.0.0.1 or unix:/run/postern/ops.sock", address))
	case slices.ContainsFunc(w.cfg.Listeners, func(l Listener) bool { return l.Address == address }):
		w.say("operations.address", fmt.Sprintf("a listener for apps has the address %s already; give it another", address))
	}
}

func (w *walker) checkAPI() {
	for i, l := range w.cfg.API.Listeners {
		switch {
		case !w.oneOf("api.listeners", l, "operations", "portal"):
		case slices.Contains(w.cfg.API.Listeners[:i], l):
			w.say("api.listeners", fmt.Sprintf("%q stands there twice", l))
		case l == "portal" && !w.cfg.HasPortal():
			w.say("api.listeners", `the API can't be on the portal's listener without a [[listener]] with protocol = "portal"`)
		}
	}
}

// hostPort checks host:port and returns the host.
func (w *walker) hostPort(path, address string) (host string, ok bool) {
	if address == "" {
		w.say(path, path+" is missing; it is host:port, such as \"127.0.0.1:143\"")
		return "", false
	}
	host, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil || port == "" {
		w.say(path, fmt.Sprintf("%q is not host:port, such as \"127.0.0.1:143\" or \":993\"", address))
		return "", false
	}
	return host, true
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// isPrivate tells addresses that stay in the house: loopback, private networks, and names without a dot as container networks use them.
func isPrivate(host string) bool {
	a, err := netip.ParseAddr(host)
	return isLoopback(host) || err == nil && a.IsPrivate() || err != nil && !strings.Contains(host, ".")
}
