package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"postern/authstore"
	"postern/authstore/apitoken"
	"postern/authstore/identity"
	"postern/authstore/secret"
	"postern/authstore/throttle"
	"postern/config"
	"postern/gateway/api"
	"postern/gateway/appsettings"
	"postern/gateway/directory"
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
		Tokens: g.apiTokens, Accounts: g.desk.Accounts, Truth: g.desk.truth, People: n.people, Sessions: &g.live,
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
			return g.desk.importFor(ctx, who, n, i)
		},
		Tie: func(ctx context.Context, who authstore.Actor, id authstore.AccountID, issuer, subject string) error {
			_, err := g.desk.tie(ctx, who, id, issuer, subject, n.directory)
			if errors.Is(err, directory.ErrNotThere) {
				return &authstore.Unfit{Err: err}
			}
			return err
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
	return n.keeper
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

// newAPITokens makes what checks the API's tokens, in all generations.
func newAPITokens(d *Desk) *apitoken.Tokens {
	return apitoken.New(d.truth, throttle.New(nil, nil), nil)
}

// importFor is an import that a program asks for.
func (d *Desk) importFor(ctx context.Context, who authstore.Actor, n *generation, i api.Import) (view.Import, error) {
	list := make([]Wanted, 0, len(i.List))
	for at, w := range i.List {
		list = append(list, Wanted{Where: fmt.Sprintf("accounts[%d]", at), Address: w.Address, Aliases: w.Aliases, BackendName: w.BackendName,
			Issuer: w.Issuer, Subject: w.Subject})
	}
	if i.CSV != nil {
		var err error
		if list, err = ReadAccountList(bytes.NewReader(i.CSV)); err != nil {
			return view.Import{}, &authstore.Unfit{Err: err}
		}
	}
	plan, err := d.PlanImport(ctx, list, n.directory)
	if err != nil {
		return view.Import{}, err
	}
	if !i.Administrators {
		plan.SpareAdministrators(func(of identity.Person) bool {
			return of.Admin || n.people != nil && n.people.Administers(of)
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

// CreateToken makes a bearer token of the API.
func (d *Desk) CreateToken(ctx context.Context, who authstore.Actor, name string, scopes []apitoken.Scope, expires time.Time) (apitoken.Token, secret.Token, error) {
	return apitoken.Create(ctx, d.truth, who, name, scopes, expires)
}

// Tokens lists the bearer tokens of the API.
func (d *Desk) Tokens(ctx context.Context) ([]apitoken.Token, error) { return d.truth.Tokens(ctx) }

// RevokeToken ends a bearer token of the API, on every node at once; authstore.ErrNotFound.
func (d *Desk) RevokeToken(ctx context.Context, who authstore.Actor, name string) error {
	return d.truth.RemoveToken(ctx, who, name)
}

// APIPlace is where programs reach the API, in words; empty: nowhere.
func (d *Desk) APIPlace() string { return apiPlace(d.cfg) }

func apiPlace(cfg *config.Config) string {
	var places []string
	if cfg.API.On("operations") {
		at := "http://" + cfg.Operations.Address + api.Prefix
		if path, ok := strings.CutPrefix(cfg.Operations.Address, "unix:"); ok {
			at = "http://localhost" + api.Prefix + " on the socket " + path
		}
		places = append(places, at)
	}
	if cfg.API.On("portal") {
		places = append(places, cfg.Portal.URL+api.Prefix)
	}
	return strings.Join(places, " and ")
}
