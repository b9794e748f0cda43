package gateway

import (
	"context"

	"postern/authstore"
	"postern/gateway/route"
	"postern/protocols/davproxy"
)

// collections asks the backend of an account which calendars or address books it has there; protocols.ErrNoRoute where none is configured
// for it.
func (d *Desk) collections(ctx context.Context, table *route.Table, address, kind string) ([]davproxy.Listed, error) {
	a, err := d.Get(ctx, address)
	if err != nil {
		return nil, err
	}
	r, err := table.Route(ctx, kind, authstore.Grant{Account: a.ID, PublicID: a.PublicID, Address: a.Names[0], BackendName: a.BackendName})
	if err != nil {
		return nil, err
	}
	return davproxy.Collections(ctx, r, kind)
}
