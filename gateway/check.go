package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"postern/authstore"
	"postern/config"
	"postern/gateway/route"
	"postern/protocols"
	"postern/protocols/davproxy"
	"postern/protocols/imapproxy"
)

// Finding is one thing that Check looked at.
type Finding struct {
	Subject string // "database", "backend dovecot"
	Detail  string // what is there
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
	desk, err := openDesk(ctx, cfg, deskOptions{actor: "check", log: slog.New(slog.DiscardHandler)})
	var accounts []authstore.Account
	if err == nil {
		defer desk.Close()
		if accounts, err = desk.List(ctx); err == nil {
			report(Finding{Subject: "store", Detail: fmt.Sprintf("%s, %d accounts", cfg.Store.Database, len(accounts))})
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
	if desk != nil {
		vault = desk
	}
	for i := range cfg.Backends {
		detail, err := checkBackend(ctx, cfg, &cfg.Backends[i], accounts, vault)
		report(Finding{Subject: "backend " + cfg.Backends[i].Name, Detail: detail, Err: err})
	}
}

func checkCertificates(cfg *config.Config, report func(Finding)) {
	for _, c := range cfg.TLS.Certificates {
		f := Finding{Subject: "certificate " + c.Cert}
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		switch {
		case err != nil:
			f.Err = err
		case time.Now().After(pair.Leaf.NotAfter):
			f.Err = fmt.Errorf("it ended on %s; renew it", pair.Leaf.NotAfter.Format(time.DateOnly))
		default:
			f.Detail = describe(pair.Leaf)
		}
		report(f)
	}
}

func describe(leaf *x509.Certificate) string {
	names := append([]string(nil), leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	text := fmt.Sprintf("%s until %s", strings.Join(names, " "), leaf.NotAfter.Format(time.DateOnly))
	if time.Until(leaf.NotAfter) < expirySoon {
		text += " (renew it soon)"
	}
	return text
}

// checkBackend resolves, connects, and logs in for an account that is routed there.
func checkBackend(ctx context.Context, cfg *config.Config, b *config.Backend, accounts []authstore.Account, vault route.Vault) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	host, _, _ := net.SplitHostPort(b.Address)
	if _, err := net.DefaultResolver.LookupHost(ctx, host); err != nil {
		return "", fmt.Errorf("%w; correct the address, or the name service", err)
	}
	one := *cfg // only this backend, so that another one's fault is not told here
	one.Backends = []config.Backend{*b}
	one.Routes = nil
	for _, r := range cfg.Routes {
		if r.Backend == b.Name {
			one.Routes = append(one.Routes, r)
		}
	}
	table, err := buildRoutes(&one, vault)
	if err != nil {
		return "", errors.New(strings.TrimPrefix(err.Error(), fmt.Sprintf("backend %q: ", b.Name)))
	}
	protocol, probe := "imap", imapproxy.Probe
	if b.Protocol == "dav" {
		protocol, probe = "calendar", davproxy.Probe
	}
	for _, a := range accounts {
		grant := authstore.Grant{Account: a.ID, PublicID: a.PublicID, Address: a.Names[0], BackendName: a.BackendName}
		r, err := table.Route(ctx, protocol, grant)
		if protocol == "calendar" && errors.Is(err, protocols.ErrNoRoute) {
			r, err = table.Route(ctx, "contacts", grant)
		}
		if err == nil && a.Status == authstore.Active {
			return fmt.Sprintf("%s, logged in for %s", b.Address, a.Names[0]), probe(ctx, r)
		}
	}
	return b.Address + " not tried", errNoAccount
}

var errNoAccount = errors.New("no account leads here, so logging in could not be tried; add one with \"postern account add\"")

// Text is the finding on one line.
func (f Finding) Text() string {
	if f.Err != nil {
		return fmt.Sprintf("FAIL  %s: %s", f.Subject, strings.ReplaceAll(f.Err.Error(), "\n", "\n      "))
	}
	return fmt.Sprintf("ok    %s: %s", f.Subject, cmp.Or(f.Detail, "fine"))
}
