package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/config"
	"postern/gateway/appsettings"
	"postern/gateway/directory"
	"postern/gateway/imapsignin"
	"postern/gateway/place"
	"postern/gateway/portal"
	"postern/gateway/route"
	"postern/protocols"
	"postern/protocols/davproxy"
	"postern/protocols/imapproxy"
	"postern/protocols/popproxy"
	"postern/protocols/sieveproxy"
	"postern/protocols/submission"
)

// ErrNoPortal says what to write for one.
var ErrNoPortal = errors.New(`there is no portal; write a [[listener]] with protocol = "portal", and url in [portal] (docs/portal.md)`)

// HasPortal reports whether people have pages of their own.
func (d *Desk) HasPortal() bool { return d.cfg.HasPortal() }

// OpenSite is the portal's address where people may sign in without an invitation, and with what: "the primary password", or the provider's
// name. Empty: nobody may.
func (d *Desk) OpenSite() (site, with string) {
	p := &d.cfg.Portal
	switch {
	case !d.HasPortal():
	case p.SignIn == "oidc":
		return p.URL, providerName(&p.OIDC)
	case (p.SignIn == "imap" || p.SignIn == "ldap") && p.Enrolment == "first":
		return p.URL, "the primary password"
	}
	return "", ""
}

// Issuer names the other server where people sign in, as ties do; empty: there is none that says who they are.
func (d *Desk) Issuer() string {
	switch {
	case !d.HasPortal():
	case d.cfg.Portal.SignIn == "oidc":
		return d.cfg.Portal.OIDC.Issuer
	case d.cfg.Portal.SignIn == "ldap":
		return directory.Issuer
	}
	return ""
}

// People is who may sign in at the portal of the configuration; ErrNoPortal.
func (d *Desk) People() (*identity.People, error) {
	if !d.cfg.HasPortal() {
		return nil, ErrNoPortal
	}
	return d.people(d.cfg)
}

func (d *Desk) people(cfg *config.Config) (*identity.People, error) {
	if cfg.Portal.SignIn != "ldap" {
		return d.peopleOf(cfg, nil)
	}
	dir, err := d.directory(cfg)
	if err != nil {
		return nil, err
	}
	return d.peopleOf(cfg, dir)
}

// peopleOf is people with the directory that checks their passwords; nil: none does.
func (d *Desk) peopleOf(cfg *config.Config, dir *directory.Directory) (*identity.People, error) {
	p := &cfg.Portal
	o := identity.Options{
		Truth: d.truth, Accounts: d.Accounts, Names: namesOf(cfg), Keys: d.Keyring, Site: p.URL, Issuer: p.Name,
		InviteOnly: p.Enrolment == "invite", OnePrimary: p.OnePrimary, Idle: p.IdleTimeout.Duration(), Absolute: p.SessionTime.Duration(),
		Vouched:     p.SignIn == "oidc",
		Provision:   identity.Provisioning{Domains: cfg.Provisioning.Domains, Groups: cfg.Provisioning.Groups},
		AdminGroups: cfg.Administration.Groups,
		Hashing:     spareCore,
	}
	switch p.SignIn {
	case "ldap":
		o.Vouching = directory.Issuer
	case "oidc":
		o.Vouching = p.OIDC.Issuer
	}
	if p.SignIn == "imap" {
		r, err := signInRoute(&p.IMAP)
		if err != nil {
			return nil, err
		}
		o.Checker = imapsignin.New(r, d.signInName(p.IMAP.Login), d.log)
	}
	if dir != nil {
		o.Checker = dir
	}
	if p.BreachedPasswords != "" {
		o.Breached = breachedList(p.BreachedPasswords).has
	}
	return identity.New(o)
}

// signInRoute is the way to the server that checks primary passwords.
func signInRoute(c *config.SignIn) (*protocols.Route, error) {
	return routeTo("portal.imap", c.Address, c.TLS, c.CAFile, c.ServerName)
}

// signInName gives the name of an account at the server that checks primary passwords: as towards backends, the account's own one goes
// before the template.
func (d *Desk) signInName(template string) func(context.Context, string) (string, error) {
	return func(ctx context.Context, address string) (string, error) {
		a, err := d.Get(ctx, address)
		if err != nil && !errors.Is(err, authstore.ErrNotFound) {
			return "", err
		}
		if err == nil && a.BackendName != "" {
			return a.BackendName, nil
		}
		return route.Login(template, address), nil
	}
}

// buildPortal makes the pages of a generation; nil: there are none.
func (g *Gateway) buildPortal(n *generation) error {
	if !n.cfg.HasPortal() {
		return nil
	}
	var err error
	if n.atlas, err = place.Open(n.cfg.Portal.CountryDatabase, n.cfg.Portal.OperatorDatabase, g.log); err != nil {
		return err
	}
	if n.cfg.Portal.SignIn == "oidc" {
		if n.provider, err = newOIDC(n.cfg, g.log); err != nil {
			return err
		}
	}
	if n.cfg.Portal.SignIn == "ldap" {
		if n.directory, err = g.desk.directory(n.cfg); err != nil {
			return err
		}
	}
	n.people, err = g.desk.peopleOf(n.cfg, n.directory)
	return err
}

// pruneEvery is how often is forgotten what nobody needs of sign-ins.
const pruneEvery = 5 * time.Minute

// watchPeople prunes until the generation accepts no more.
func (g *Gateway) watchPeople(n *generation) {
	if n.people == nil {
		return
	}
	g.servers.Go(func() {
		tick := time.NewTicker(pruneEvery)
		defer tick.Stop()
		for {
			select {
			case <-n.accepting.Done():
				return
			case <-tick.C:
				if err := n.people.Prune(n.accepting); err != nil && n.accepting.Err() == nil {
					g.log.Warn("sessions that have ended are not forgotten", "err", err)
				}
			}
		}
	})
}

// pages makes a portal for one listener.
func (g *Gateway) pages(n *generation, l *config.Listener, serverTLS *tls.Config) (*portal.Server, error) {
	cfg := n.cfg
	trusted := protocols.TrustedProxies(cfg.TrustedProxies)
	o := portal.Options{
		People: n.people, Provider: n.provider, ProviderName: providerName(&cfg.Portal.OIDC), Accounts: g.desk.Accounts, Sessions: &g.live, Places: n.atlas, Served: served(cfg),
		Settings: func(address string, scopes authstore.Scopes) appsettings.Settings {
			return settings(cfg, address, scopes)
		},
		Site: cfg.Portal.URL, Name: cfg.Portal.Name, Longest: time.Duration(cfg.Portal.LongestDays) * 24 * time.Hour,
		Client: func(r *http.Request) netip.Addr { return trusted.Client(r).Addr() },
		TLS:    withTLS(l.TLS, serverTLS), Proxies: l.ProxyProtocol, Limits: g.limits, TrustedProxies: trusted,
		API: n.on("portal"), Log: g.log, Panicked: g.metrics.Panic,
	}
	if len(cfg.OAuth) > 0 {
		o.Connections = n.keeper
	}
	if o.Served.Any(davproxy.Scopes) {
		o.Collections = func(ctx context.Context, address, kind string) ([]portal.Collection, error) {
			return g.collections(ctx, n.routes, address, kind)
		}
	}
	return portal.New(o)
}

// collections are those of an account that its person may choose from.
func (g *Gateway) collections(ctx context.Context, table *route.Table, address, kind string) ([]portal.Collection, error) {
	found, err := g.desk.collections(ctx, table, address, kind)
	if errors.Is(err, protocols.ErrNoRoute) {
		return nil, portal.ErrNotServed
	}
	var list []portal.Collection
	for _, c := range found {
		list = append(list, portal.Collection{Name: c.Name, Title: c.Title})
	}
	return list, err
}

// doorScopes are what each protocol's front door enforces.
var doorScopes = map[string]authstore.Scopes{
	imapproxy.Protocol: imapproxy.Scopes, submission.Protocol: submission.Scopes, popproxy.Protocol: popproxy.Scopes,
	sieveproxy.Protocol: sieveproxy.Scopes, davproxy.Protocol: davproxy.Scopes,
}

// served are the scopes that a listener opens.
func served(cfg *config.Config) (s authstore.Scopes) {
	for _, l := range cfg.Listeners {
		s |= doorScopes[l.Protocol]
	}
	return s
}

// shared finds the listener of a protocol that has the address of another one; nil: there is none.
func shared(cfg *config.Config, protocol, address string) *config.Listener {
	for i := range cfg.Listeners {
		if l := &cfg.Listeners[i]; l.Protocol == protocol && l.Address == address {
			return l
		}
	}
	return nil
}

// hosts are the other names that a dav listener serves: the portal's, where it shares the address.
func (g *Gateway) hosts(n *generation, l *config.Listener) (map[string]http.Handler, error) {
	p := shared(n.cfg, portal.Protocol, l.Address)
	if p == nil {
		return nil, nil
	}
	u, err := url.Parse(n.cfg.Portal.URL)
	if err != nil {
		return nil, err // it was checked
	}
	pages, err := g.pages(n, p, nil)
	return map[string]http.Handler{u.Hostname(): pages}, err
}

// Invite makes a link to the portal for an account; ErrNoPortal.
func (d *Desk) Invite(ctx context.Context, who authstore.Actor, id authstore.AccountID, purpose identity.Purpose) (link string, i identity.Invitation, err error) {
	people, err := d.People()
	if err != nil {
		return "", i, err
	}
	secret, i, err := people.Invite(ctx, who, id, purpose)
	if errors.Is(err, identity.ErrVouched) {
		site, with := d.OpenSite()
		return "", i, fmt.Errorf("nobody needs a link: people sign in at %s with %s, and set up what is missing there", site, with)
	}
	if err != nil {
		return "", i, err
	}
	return invitationLink(d.cfg, secret), i, nil
}

func invitationLink(cfg *config.Config, secret string) string {
	return cfg.Portal.URL + "/invitation/" + secret
}
