package gateway

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"slices"

	"postern/config"
	"postern/gateway/imapsignin"
	"postern/gateway/place"
	"postern/gateway/portal"
)

// checkPortalName looks whether a certificate is for the name that browsers ask for, where no proxy in front has it.
func checkPortalName(cfg *config.Config, leaves []*x509.Certificate, report func(Finding)) {
	u, err := url.Parse(cfg.Portal.URL)
	tls := slices.ContainsFunc(cfg.Listeners, func(l config.Listener) bool { return l.Protocol == portal.Protocol && l.TLS == "implicit" })
	if err != nil || !tls || covered(u.Hostname(), leaves) {
		return
	}
	report(Finding{Subject: "portal", Err: fmt.Errorf("no certificate is for %s, and browsers will warn of the portal; "+
		"add a certificate for it, or set url in [portal] to a name that stands in one (%s)", u.Hostname(), allNames(leaves))})
}

// checkPortal looks at what [portal] and [notices] name. Nobody is signed in and nothing is sent.
func checkPortal(ctx context.Context, desk *Desk, cfg *config.Config, report func(Finding)) {
	if !cfg.HasPortal() {
		return
	}
	p := &cfg.Portal
	f := Finding{Subject: "portal", Detail: p.URL}
	if len(cfg.TrustedProxies) == 0 && slices.ContainsFunc(cfg.Listeners, func(l config.Listener) bool { return l.Protocol == portal.Protocol && l.TLS == "none" }) {
		f.Untried = "where a proxy is in front, everybody seems to come from it; name it in trusted_proxies"
	}
	report(f)
	if p.SignIn == "imap" {
		r, err := signInRoute(&p.IMAP)
		if err == nil {
			err = imapsignin.Probe(ctx, r)
		}
		report(Finding{Subject: "portal sign-in", Detail: p.IMAP.Address + " answers", Untried: "a sign-in was not tried", Err: err})
	}
	if p.SignIn == "oidc" {
		report(checkOIDC(ctx, cfg))
	}
	if p.SignIn == "ldap" && desk != nil {
		checkDirectory(ctx, desk, cfg, report)
	}
	for _, db := range []struct{ subject, country, operator string }{
		{"country database", p.CountryDatabase, ""}, {"operator database", "", p.OperatorDatabase},
	} {
		if path := db.country + db.operator; path != "" {
			_, err := place.Open(db.country, db.operator, slog.New(slog.DiscardHandler))
			if errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("%w; put the file there, or take it out of [portal]", err)
			}
			report(Finding{Subject: db.subject, Detail: path, Err: err})
		}
	}
	if p.BreachedPasswords != "" {
		report(Finding{Subject: "breached passwords", Detail: p.BreachedPasswords, Err: breachedList(p.BreachedPasswords).check()})
	}
	if n := &cfg.Notices; n.Address != "" {
		report(Finding{Subject: "notices", Detail: n.Address + " answers", Untried: "no mail was sent", Err: probeRelay(ctx, n)})
	}
}
