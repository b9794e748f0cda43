package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"postern/authstore"
	"postern/config"
	"postern/gateway/portal"
	"postern/gateway/route"
	"postern/protocols"
	"postern/protocols/davproxy"
)

// Finding is one thing that Check looked at.
type Finding struct {
	Subject string // "database", "backend dovecot"
	Detail  string // what is there
	Untried string // what could not be tried, and what is missing for it
	Err     error  // what is wrong, and what to do; nil: nothing
}

// checkTimeout bounds one look at something outside.
const checkTimeout = 15 * time.Second

// expirySoon is when a certificate's end is worth a word.
const expirySoon = 14 * 24 * time.Hour

// Check looks at all that a configuration names: files, stores, backends. It goes on after a fault, and reports each thing as it
// goes. It changes nothing, but for the database's tables, which it brings to this version as a start would.
func Check(ctx context.Context, cfg *config.Config, report func(Finding)) {
	checkCertificates(cfg, report)
	desk, err := openDesk(ctx, cfg, deskOptions{actor: authstore.Actor{Name: "check"}, log: slog.New(slog.DiscardHandler)})
	var accounts []authstore.Account
	if err == nil {
		defer desk.Close()
		if accounts, err = desk.List(ctx); err == nil {
			report(Finding{Subject: "store", Detail: fmt.Sprintf("%s, accounts: %d", cfg.Store.Database, len(accounts))})
		}
	}
	if err != nil {
		report(Finding{Subject: "store", Err: err})
	}
	if desk != nil && desk.cache != nil {
		ping, cancel := context.WithTimeout(ctx, checkTimeout)
		report(Finding{Subject: "redis", Detail: strings.Join(cfg.Redis.Addresses, " "), Err: desk.cache.Ping(ping)})
		cancel()
	}
	var vault route.Vault
	var tokens *checkedTokens
	if desk != nil {
		vault, tokens = desk, desk.checkOAuth(ctx, cfg, accounts, report)
	}
	checkPortal(ctx, desk, cfg, report)
	checkAPI(ctx, cfg, desk, report)
	checkRoutes(cfg, accounts, report)
	for i := range cfg.Backends {
		f := checkBackend(ctx, cfg, &cfg.Backends[i], accounts, vault, tokens)
		f.Subject = "backend " + cfg.Backends[i].Name
		report(f)
	}
}

func checkCertificates(cfg *config.Config, report func(Finding)) {
	var leaves []*x509.Certificate
	for _, c := range cfg.TLS.Certificates {
		f := Finding{Subject: "certificate " + c.Cert}
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		switch {
		case err != nil:
			f.Err = fmt.Errorf("%w%s", err, certificateRemedy(c, err))
		case time.Now().After(pair.Leaf.NotAfter):
			f.Err = fmt.Errorf("it ended on %s; renew it", pair.Leaf.NotAfter.Format(time.DateOnly))
		default:
			f.Detail = describe(pair.Leaf)
		}
		if err == nil {
			leaves = append(leaves, pair.Leaf)
		}
		report(f)
	}
	if len(leaves) > 0 && len(leaves) == len(cfg.TLS.Certificates) { // else the missing one may be for it
		checkHostname(cfg.Hostname, leaves, report)
		checkPortalName(cfg, leaves, report)
	}
}

// checkHostname looks whether a certificate is for the name that people are told to type.
func checkHostname(hostname string, leaves []*x509.Certificate, report func(Finding)) {
	if hostname == "" || covered(hostname, leaves) {
		return
	}
	report(Finding{Subject: "hostname", Err: fmt.Errorf("no certificate is for %s, and apps that are told that name will refuse to connect; "+
		"set hostname to a name that stands in one (%s), or add a certificate for it", hostname, allNames(leaves))})
}

func covered(host string, leaves []*x509.Certificate) bool {
	return slices.ContainsFunc(leaves, func(leaf *x509.Certificate) bool { return leaf.VerifyHostname(host) == nil })
}

func allNames(leaves []*x509.Certificate) string {
	var names []string
	for _, leaf := range leaves {
		names = append(names, namesIn(leaf)...)
	}
	return strings.Join(names, " ")
}

func certificateRemedy(c config.Certificate, err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "; put the certificate and its key there, or name the files that hold them (docs/quickstart.md)"
	case errors.Is(err, fs.ErrPermission):
		return "; the user that runs Postern must be able to read both files and their folders"
	}
	return fmt.Sprintf("; %s must hold the chain in PEM form, the server's own certificate first, and %s the key that belongs to it", c.Cert, c.Key)
}

func namesIn(leaf *x509.Certificate) []string {
	names := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

func describe(leaf *x509.Certificate) string {
	text := fmt.Sprintf("%s until %s", strings.Join(namesIn(leaf), " "), leaf.NotAfter.Format(time.DateOnly))
	if time.Until(leaf.NotAfter) < expirySoon {
		text += " (renew it soon)"
	}
	return text
}

// routeWords are what stands for a protocol in routes.
func routeWords(protocol string) []string {
	if protocol == davproxy.Protocol {
		return []string{"calendar", "contacts"}
	}
	return []string{protocol}
}

// checkRoutes looks whether each listener leads somewhere, and for whom it does not.
func checkRoutes(cfg *config.Config, accounts []authstore.Account, report func(Finding)) {
	seen := make(map[string]bool)
	for _, l := range cfg.Listeners {
		if l.Protocol == portal.Protocol {
			continue
		}
		routed := false
		for _, word := range routeWords(l.Protocol) {
			domains := make(map[string]bool)
			for _, r := range cfg.Routes {
				domains[r.Domain] = domains[r.Domain] || r.Protocol == word
			}
			if !slices.Contains(slices.Collect(maps.Values(domains)), true) {
				continue
			}
			routed = true
			if lost := unrouted(accounts, domains); len(lost) > 0 && !seen[word] {
				report(Finding{Subject: "routes of " + word, Err: fmt.Errorf("none leads %s anywhere; write [[route]] with protocol = %q and domain = %q, or \"*\"",
					strings.Join(lost[:min(len(lost), 3)], ", "), word, lost[0][strings.LastIndexByte(lost[0], '@')+1:])})
			}
			seen[word] = true
		}
		if !routed {
			report(Finding{Subject: "listener " + l.Address, Err: fmt.Errorf("no backend serves %s; write a [[backend]] with protocol = %q, or take the listener out", l.Protocol, l.Protocol)})
		}
	}
}

// unrouted lists the active accounts in none of some domains.
func unrouted(accounts []authstore.Account, domains map[string]bool) (lost []string) {
	for _, a := range accounts {
		name := a.Names[0]
		if a.Status == authstore.Active && !domains["*"] && !domains[name[strings.LastIndexByte(name, '@')+1:]] {
			lost = append(lost, name)
		}
	}
	return lost
}

// checkBackend connects, and logs in for an account that is routed there.
func checkBackend(ctx context.Context, cfg *config.Config, b *config.Backend, accounts []authstore.Account, vault route.Vault, tokens *checkedTokens) Finding {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	one := *cfg // only this backend, so that another one's fault is not told here
	one.Backends = []config.Backend{*b}
	one.Routes = slices.DeleteFunc(slices.Clone(cfg.Routes), func(r config.Route) bool { return r.Backend != b.Name })
	if tokens != nil && b.Credential == "oauth" {
		accounts = tokens.only(b, accounts)
	}
	table, err := buildRoutes(&one, vault, tokens, slog.New(slog.DiscardHandler))
	if err != nil {
		return Finding{Err: errors.New(strings.TrimPrefix(err.Error(), fmt.Sprintf("backend %q: ", b.Name)))}
	}
	shown, err := checkClientCert(b)
	if err != nil {
		return Finding{Err: err}
	}
	probe, words := lineProtocols[b.Protocol].probe, routeWords(b.Protocol)
	if b.Protocol == davproxy.Protocol {
		probe = davproxy.Probe
	}
	if len(one.Routes) == 0 {
		return Finding{Detail: b.Address + " answers" + shown, Err: reach(ctx, table.Reach(b.Name), b.Protocol),
			Untried: "no route leads here, so nobody uses it; write [[route]] with backend = \"" + b.Name + "\""}
	}
	if r, account := routeFor(ctx, table, words, b.Name, ledTo(cfg, b.Name, words, accounts)); r != nil {
		f := Finding{Detail: b.Address + ", logged in for " + account + shown}
		if err := probe(ctx, r); err != nil {
			f.Err = fmt.Errorf("login for %s: %w", account, err)
		}
		return f
	}
	if b.Credential == "oauth" {
		return Finding{Detail: b.Address + " answers" + shown, Err: reach(ctx, table.Reach(b.Name), b.Protocol), Untried: "the login was not tried, for no account that leads here is connected"}
	}
	return Finding{Detail: b.Address + " answers" + shown, Err: reach(ctx, table.Reach(b.Name), b.Protocol), Untried: "the login was not tried, for no active account leads here; add one with \"postern account add\""}
}

// checkClientCert tells until when the certificate is good that a backend is shown, and for what it is not. buildRoutes has read both files.
func checkClientCert(b *config.Backend) (string, error) {
	if b.ClientCert == "" {
		return "", nil
	}
	pair, err := tls.LoadX509KeyPair(b.ClientCert, b.ClientKey)
	if err != nil {
		return "", fmt.Errorf("client_cert: %w", err)
	}
	leaf := pair.Leaf
	switch {
	case time.Now().After(leaf.NotAfter):
		return "", fmt.Errorf("client_cert %s ended on %s; renew it", b.ClientCert, leaf.NotAfter.Format(time.DateOnly))
	case len(leaf.ExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		return "", fmt.Errorf("client_cert %s is for servers only; let its authority issue one for clients (extendedKeyUsage = clientAuth)", b.ClientCert)
	}
	text := fmt.Sprintf("; client_cert until %s", leaf.NotAfter.Format(time.DateOnly))
	if time.Until(leaf.NotAfter) < expirySoon {
		text += " (renew it soon)"
	}
	return text, nil
}

// ledTo are the accounts that one of some protocols leads to a backend: a route of their domain goes before that of all.
func ledTo(cfg *config.Config, backend string, words []string, accounts []authstore.Account) (led []authstore.Account) {
	leads := func(domain, word string) bool {
		for _, d := range []string{domain, "*"} {
			if i := slices.IndexFunc(cfg.Routes, func(r config.Route) bool { return r.Domain == d && r.Protocol == word }); i >= 0 {
				return cfg.Routes[i].Backend == backend
			}
		}
		return false
	}
	for _, a := range accounts {
		_, domain, _ := strings.Cut(a.Names[0], "@")
		if slices.ContainsFunc(words, func(word string) bool { return leads(domain, word) }) {
			led = append(led, a)
		}
	}
	return led
}

// routeFor finds an active account that one of some protocols leads to a backend; nil: there is none.
func routeFor(ctx context.Context, table *route.Table, words []string, backend string, accounts []authstore.Account) (*protocols.Route, string) {
	for _, a := range accounts {
		if a.Status != authstore.Active {
			continue
		}
		grant := authstore.Grant{Account: a.ID, PublicID: a.PublicID, Address: a.Names[0], BackendName: a.BackendName}
		for _, word := range words {
			if r, err := table.Route(ctx, word, grant); err == nil && r.Backend == backend {
				return r, a.Names[0]
			}
		}
	}
	return nil, ""
}

// reach tries a backend as far as one can without an account: up to the login, or to the connection of HTTP.
func reach(ctx context.Context, r *protocols.Route, protocol string) error {
	if protocol != davproxy.Protocol {
		return lineProtocols[protocol].probe(ctx, r)
	}
	err := protocols.Visit(ctx, r, func(_ context.Context, nc net.Conn) (*protocols.Backend, error) {
		return &protocols.Backend{Conn: nc}, nil
	})
	return davproxy.Explain(r, err)
}

// Text is the finding on one line.
func (f Finding) Text() string {
	if f.Err != nil {
		return fmt.Sprintf("FAIL  %s: %s", f.Subject, strings.ReplaceAll(f.Err.Error(), "\n", "\n      "))
	}
	if f.Untried != "" {
		return fmt.Sprintf("ok    %s: %s; %s", f.Subject, f.Detail, f.Untried)
	}
	return fmt.Sprintf("ok    %s: %s", f.Subject, cmp.Or(f.Detail, "fine"))
}
