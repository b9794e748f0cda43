package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"postern/authstore"
	"postern/config"
	"postern/gateway/route"
	"postern/gateway/upstreamtoken"
)

// keeper gives the tokens that the backends of a configuration want; without [[oauth]] it has none. The options may say who is told of refreshes, and who
// waits for them.
func (d *Desk) keeper(cfg *config.Config, o upstreamtoken.Options) (*upstreamtoken.Keeper, error) {
	o = upstreamtoken.Options{
		Store: d.truth, Keys: d.Keyring, UsableKey: d.UsableKey, Log: o.Log, Count: o.Count, Go: o.Go,
		Needs:  func(address string) []string { return neededProviders(cfg, address) },
		Logins: func(a authstore.Account, provider string) []string { return backendNames(cfg, a, provider) },
	}
	if cfg.HasPortal() {
		o.Site = cfg.Portal.URL
	}
	for i := range cfg.OAuth {
		p, err := newOAuth(cfg, &cfg.OAuth[i])
		if err != nil {
			return nil, fmt.Errorf("[[oauth]] %q: %w", cfg.OAuth[i].Name, err)
		}
		o.Providers = append(o.Providers, p)
	}
	return upstreamtoken.New(o), nil
}

func newOAuth(cfg *config.Config, c *config.OAuth) (p upstreamtoken.Provider, err error) {
	p = upstreamtoken.Provider{Name: c.Name, Issuer: c.Issuer, ClientID: c.ClientID, Scopes: c.Scopes, Client: c.Flow == "client", SamePerson: c.SamePerson}
	if c.ClientSecretFile != "" {
		secret, err := readSecretFile("client_secret_file", c.ClientSecretFile)
		if err != nil {
			return p, err
		}
		p.Secret = string(secret)
		clear(secret)
	}
	if c.CAFile != "" {
		if p.TLS, err = clientTLS(c.CAFile, "", ""); err != nil {
			return p, err
		}
	}
	var protocols []string
	for _, b := range cfg.Backends {
		if b.OAuth == c.Name {
			protocols = append(protocols, b.Protocol)
		}
	}
	switch c.Preset {
	case "microsoft":
		p = upstreamtoken.Microsoft(p, c.Tenant, protocols)
	case "google":
		p = upstreamtoken.Google(p, protocols)
	}
	return p, nil
}

// oauthBackends are those of a configuration that routes lead an address to and that want tokens.
func oauthBackends(cfg *config.Config, address string) (list []*config.Backend) {
	domain := address[strings.LastIndexByte(address, '@')+1:]
	for _, own := range []string{domain, "*"} {
		for _, r := range cfg.Routes {
			if r.Domain != own || own == "*" && slices.ContainsFunc(cfg.Routes, func(o config.Route) bool { return o.Domain == domain && o.Protocol == r.Protocol }) {
				continue // a route of the domain goes before that of all
			}
			i := slices.IndexFunc(cfg.Backends, func(b config.Backend) bool { return b.Name == r.Backend })
			if i >= 0 && cfg.Backends[i].Credential == "oauth" && !slices.Contains(list, &cfg.Backends[i]) {
				list = append(list, &cfg.Backends[i])
			}
		}
	}
	return list
}

// neededProviders names the authorization servers whose tokens an account's backends want.
func neededProviders(cfg *config.Config, address string) (names []string) {
	for _, b := range oauthBackends(cfg, address) {
		if !slices.Contains(names, b.OAuth) {
			names = append(names, b.OAuth)
		}
	}
	return names
}

// backendNames are an account's names at the backends that want a provider's tokens.
func backendNames(cfg *config.Config, a authstore.Account, provider string) (names []string) {
	if a.BackendName != "" {
		return []string{a.BackendName}
	}
	for _, b := range oauthBackends(cfg, a.Names[0]) {
		if b.OAuth == provider {
			names = append(names, route.Login(b.Login, a.Names[0]))
		}
	}
	return names
}

// backendTokens gives tokens by the backend that wants them.
type backendTokens struct {
	keeper *upstreamtoken.Keeper
	cfg    *config.Config
}

var _ route.Tokens = backendTokens{}

// AccessToken gives an access token of an account for a backend.
func (b backendTokens) AccessToken(ctx context.Context, id authstore.AccountID, backend string) (route.Token, error) {
	i := slices.IndexFunc(b.cfg.Backends, func(c config.Backend) bool { return c.Name == backend })
	if i < 0 {
		return route.Token{}, upstreamtoken.ErrUnknown
	}
	t, err := b.keeper.Token(ctx, id, b.cfg.Backends[i].OAuth)
	return route.Token{Value: t.Value, Refused: t.Refused}, err
}

// checkOAuth looks at the authorization servers, and at what people have connected. It gives the tokens for the backends' own check, and who has any.
func (d *Desk) checkOAuth(ctx context.Context, cfg *config.Config, accounts []authstore.Account, report func(Finding)) *checkedTokens {
	keeper, err := d.keeper(cfg, upstreamtoken.Options{})
	if err != nil {
		report(Finding{Subject: "oauth", Err: err})
		return &checkedTokens{backendTokens: backendTokens{upstreamtoken.New(upstreamtoken.Options{}), cfg}} // which knows no provider
	}
	checked := &checkedTokens{backendTokens: backendTokens{keeper, cfg}, connected: make(map[string]map[authstore.AccountID]bool)}
	for _, c := range cfg.OAuth {
		probe, cancel := context.WithTimeout(ctx, checkTimeout)
		f := Finding{Subject: "oauth " + c.Name, Detail: "the server answers", Err: keeper.Probe(probe, c.Name)}
		if f.Err != nil {
			f.Err = fmt.Errorf("%s%w", webRemedy(f.Err), f.Err)
		}
		cancel()
		if c.Flow == "person" {
			f = d.checkConnections(ctx, cfg, keeper, c.Name, accounts, checked, f)
		} else if f.Err == nil {
			f.Detail = "the server gives a token"
		}
		if f.Err == nil && !slices.ContainsFunc(cfg.Backends, func(b config.Backend) bool { return b.OAuth == c.Name }) {
			f.Untried = "no backend uses it; write credential = \"oauth\" and oauth = \"" + c.Name + "\" at one"
		}
		report(f)
	}
	return checked
}

// checkedTokens are tokens of which is known who has any.
type checkedTokens struct {
	backendTokens
	connected map[string]map[authstore.AccountID]bool // by provider
}

// only leaves the accounts for which a backend can be logged in to.
func (c *checkedTokens) only(b *config.Backend, accounts []authstore.Account) []authstore.Account {
	of := c.connected[b.OAuth]
	if of == nil {
		return accounts
	}
	return slices.DeleteFunc(slices.Clone(accounts), func(a authstore.Account) bool { return !of[a.ID] })
}

// checkConnections counts the connections of the active accounts to one provider, and names those that have failed.
func (d *Desk) checkConnections(ctx context.Context, cfg *config.Config, keeper *upstreamtoken.Keeper, provider string, accounts []authstore.Account,
	checked *checkedTokens, f Finding) Finding {
	of := make(map[authstore.AccountID]bool)
	checked.connected[provider] = of
	var failed, missing []string
	for _, a := range accounts {
		if a.Status != authstore.Active {
			continue
		}
		list, err := keeper.Connections(ctx, a)
		if err != nil {
			f.Err = errors.Join(f.Err, err)
			return f
		}
		for _, c := range list {
			switch {
			case c.Provider != provider:
			case c.State == upstreamtoken.Connected:
				of[a.ID] = true
			case c.State == upstreamtoken.Broken:
				failed = append(failed, a.Names[0])
			default:
				missing = append(missing, a.Names[0])
			}
		}
	}
	f.Detail += fmt.Sprintf(", accounts connected: %d", len(of))
	if len(missing) > 0 {
		f.Detail += fmt.Sprintf(", not yet: %d (%s)", len(missing), some(missing))
	}
	if len(failed) > 0 {
		f.Err = errors.Join(f.Err, fmt.Errorf("%d connections have failed: %s; these people connect again at %s/connections, or \"postern account connect\" does it with them",
			len(failed), some(failed), cfg.Portal.URL))
	}
	return f
}

// some are the first of many.
func some(names []string) string {
	text := strings.Join(names[:min(len(names), 5)], ", ")
	if len(names) > 5 {
		text += ", ..."
	}
	return text
}

// Connections gives the connections of accounts to authorization servers, for the command line.
func (d *Desk) Connections() (*upstreamtoken.Keeper, error) {
	return d.keeper(d.cfg, upstreamtoken.Options{Log: d.log})
}

// keepTokens refreshes what nobody uses until the generation accepts no more.
func (g *Gateway) keepTokens(n *generation) {
	if len(n.cfg.OAuth) > 0 {
		g.servers.Go(func() { n.keeper.Run(n.accepting) })
	}
}
