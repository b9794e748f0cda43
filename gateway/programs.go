package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"

	"postern/authstore"
	"postern/authstore/apitoken"
	"postern/authstore/identity"
	"postern/authstore/throttle"
	"postern/config"
	"postern/gateway/api"
	"postern/gateway/appsettings"
	"postern/gateway/version"
	"postern/gateway/view"
	"postern/protocols"
)

// buildAPI makes the API of a generation; nil: it is nowhere.
func (g *Gateway) buildAPI(n *generation) {
	cfg := n.cfg
	if len(cfg.API.Listeners) == 0 {
		return
	}
	trusted := protocols.TrustedProxies(cfg.TrustedProxies)
	n.api = api.New(api.Options{
		Tokens: g.tokens, Accounts: g.desk.Accounts, Truth: g.desk.truth, People: n.people, Sessions: &g.live,
		Upstream: n.upstream(), Directory: g.looker(n),
		Settings: func(address string, scopes authstore.Scopes) appsettings.Settings {
			return settings(cfg, address, scopes)
		},
		Link: func(secret string) string { return invitationLink(cfg, secret) },
		Collections: func(ctx context.Context, address, kind string) ([]view.Collection, error) {
			found, err := g.desk.collections(ctx, n.routes, address, kind)
			if errors.Is(err, protocols.ErrNoRoute) {
				return nil, api.ErrNotServed
			}
			var list []view.Collection
			for _, c := range found {
				list = append(list, view.Collection{Kind: c.Kind, Name: c.Name, Title: c.Title})
			}
			return list, err
		},
		StoreBackendPassword: func(ctx context.Context, who authstore.Actor, id authstore.AccountID, backend string, password []byte) error {
			if err := takesStored(cfg, backend); err != nil {
				return &authstore.Unfit{Err: err}
			}
			return g.desk.As(who).StoreBackendPassword(ctx, id, backend, password)
		},
		Import: func(ctx context.Context, who authstore.Actor, i api.Import) (view.Import, error) {
			return g.desk.importFor(ctx, who, n.people, i)
		},
		Ready: g.Ready, Version: version.Text(), Log: g.log, Observe: g.metrics.API, Panicked: g.metrics.Panic,
		Client: func(r *http.Request) netip.Addr { return trusted.Client(r).Addr().Unmap() },
	})
}

// upstream has the connections that backends of the configuration want; nil: none do.
func (n *generation) upstream() api.Upstream {
	if len(n.cfg.OAuth) == 0 {
		return nil
	}
	return n.tokens
}

// looker looks into the directory of a generation; nil: there is none.
func (g *Gateway) looker(n *generation) api.Directory {
	if n.directory == nil {
		return nil
	}
	k := g.desk.looker(n.directory, n.people)
	k.Observe = g.metrics.Look
	return k
}

// on gives the API to a kind of listener; nil: it is not there.
func (n *generation) on(listener string) http.Handler {
	if n.api == nil || !n.cfg.API.On(listener) {
		return nil
	}
	return n.api
}

// newTokens makes what checks the API's tokens, in all generations.
func newTokens(d *Desk) *apitoken.Tokens {
	return apitoken.New(d.truth, throttle.New(nil, nil), nil)
}

// importFor is an import that a program asks for.
func (d *Desk) importFor(ctx context.Context, who authstore.Actor, people *identity.People, i api.Import) (view.Import, error) {
	list := make([]Wanted, 0, len(i.List))
	for n, w := range i.List {
		list = append(list, Wanted{Where: fmt.Sprintf("accounts[%d]", n), Address: w.Address, Aliases: w.Aliases, BackendName: w.BackendName,
			Issuer: w.Issuer, Subject: w.Subject})
	}
	if i.CSV != nil {
		var err error
		if list, err = ReadAccountList(bytes.NewReader(i.CSV)); err != nil {
			return view.Import{}, &authstore.Unfit{Err: err}
		}
	}
	plan, err := d.PlanImport(ctx, list)
	if err != nil {
		return view.Import{}, err
	}
	if !i.Administrators {
		plan.SpareAdministrators(func(of identity.Person) bool {
			return of.Admin || people != nil && people.Administers(of)
		})
	}
	if !i.DryRun {
		if err := d.ApplyImport(ctx, who, plan, i.SkipWrong); err != nil && !errors.Is(err, ErrWrongLines) { // which the answer shows
			return view.Import{}, err
		}
	}
	return plan.View(), nil
}

// checkAPI tells where the API is, and how many tokens there are for it.
func checkAPI(ctx context.Context, cfg *config.Config, desk *Desk, report func(Finding)) {
	if len(cfg.API.Listeners) == 0 || desk == nil {
		return
	}
	f := Finding{Subject: "api"}
	list, err := desk.Tokens(ctx)
	if err != nil {
		f.Err = err
	}
	f.Detail = fmt.Sprintf("%s, tokens: %d", apiPlace(cfg), len(list))
	report(f)
}
