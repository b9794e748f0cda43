package gateway

import (
	"context"
	"fmt"
	"slices"

	"postern/authstore"
	"postern/config"
	"postern/gateway/route"
	"postern/gateway/upstreamtoken"
	"postern/protocols/davproxy"
)

// Collections asks the backend of an account which calendars or address books it has there; protocols.ErrNoRoute where none is configured
// for it.
func (d *Desk) Collections(ctx context.Context, address, kind string) ([]davproxy.Listed, error) {
	cfg := *d.cfg // without other backends, whose faults are not told here
	cfg.Backends = slices.DeleteFunc(slices.Clone(cfg.Backends), func(b config.Backend) bool { return b.Protocol != davproxy.Protocol })
	cfg.Routes = slices.DeleteFunc(slices.Clone(cfg.Routes), func(r config.Route) bool { return !slices.Contains(routeWords(davproxy.Protocol), r.Protocol) })
	tokens, err := d.keeper(&cfg, upstreamtoken.Options{Log: d.log})
	if err != nil {
		return nil, err
	}
	defer tokens.Close()
	table, err := buildRoutes(&cfg, d, backendTokens{tokens, &cfg}, d.log)
	if err != nil {
		return nil, err
	}
	defer table.Close()
	return d.collections(ctx, table, address, kind)
}

// collections is Collections by a table of routes that is there already.
func (d *Desk) collections(ctx context.Context, table *route.Table, address, kind string) ([]davproxy.Listed, error) {
	a, err := d.Get(ctx, address)
	if err != nil {
		return nil, err
	}
	r, err := table.Route(ctx, kind, authstore.Grant{Account: a.ID, PublicID: a.PublicID, Address: a.Names[0], BackendName: a.BackendName})
	if err != nil {
		return nil, err
	}
	list, err := davproxy.Collections(ctx, r, kind)
	if err != nil {
		return nil, fmt.Errorf("backend %s: %w", r.Backend, err)
	}
	return list, nil
}
