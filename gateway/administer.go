package gateway

import (
	"context"
	"strings"
	"time"

	"postern/authstore"
	"postern/authstore/apitoken"
	"postern/authstore/identity"
	"postern/authstore/secret"
	"postern/config"
	"postern/gateway/api"
)

// Person reads an account as identity sees it, with what binds it to other servers; authstore.ErrNotFound.
func (d *Desk) Person(ctx context.Context, id authstore.AccountID) (identity.Person, error) {
	return d.truth.Person(ctx, id)
}

// KeepsPrimary reports whether primary passwords are kept here.
func (d *Desk) KeepsPrimary() bool { return d.cfg.Portal.SignIn == "local" }

// Vouched reports whether people sign in at a provider, so that nobody has a primary password here.
func (d *Desk) Vouched() bool { return d.HasPortal() && d.cfg.Portal.SignIn == "oidc" }

// PrimaryChanged ends all that an account's primary password stood for, for it was changed elsewhere. It counts the app passwords.
func (d *Desk) PrimaryChanged(ctx context.Context, who authstore.Actor, id authstore.AccountID) (int, authstore.Confirmation, error) {
	return identity.PrimaryChanged(ctx, d.truth, d.Accounts, d.KeepsPrimary(), who, id)
}

// Tie binds an account to a person at another server; identity.ErrTied.
func (d *Desk) Tie(ctx context.Context, who authstore.Actor, id authstore.AccountID, issuer, subject string) (ended int, err error) {
	return identity.Bind(ctx, d.truth, who, id, issuer, subject)
}

// Untie takes back what binds an account to an issuer's person; authstore.ErrNotFound.
func (d *Desk) Untie(ctx context.Context, who authstore.Actor, id authstore.AccountID, issuer string) (ended int, err error) {
	return identity.Unbind(ctx, d.truth, who, id, issuer)
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
