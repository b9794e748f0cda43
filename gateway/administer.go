package gateway

import (
	"context"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/gateway/directory"
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

// Tie binds an account to a person at another server; identity.ErrTied. Whom the directory does not know is not bound: the next look would suspend
// the account.
func (d *Desk) Tie(ctx context.Context, who authstore.Actor, id authstore.AccountID, issuer, subject string) (ended int, err error) {
	var dir *directory.Directory
	if issuer == directory.Issuer {
		if dir, err = d.OwnDirectory(); err != nil {
			return 0, err
		}
		defer dir.Close()
	}
	return d.tie(ctx, who, id, issuer, subject, dir)
}

// tie is Tie with a directory that is open; nil: there is none, and nobody looks.
func (d *Desk) tie(ctx context.Context, who authstore.Actor, id authstore.AccountID, issuer, subject string, dir *directory.Directory) (ended int, err error) {
	if issuer == directory.Issuer && dir != nil {
		if err := dir.Knows(ctx, subject); err != nil {
			return 0, err
		}
	}
	return identity.Bind(ctx, d.truth, who, id, issuer, subject)
}

// Untie takes back what binds an account to an issuer's person; authstore.ErrNotFound.
func (d *Desk) Untie(ctx context.Context, who authstore.Actor, id authstore.AccountID, issuer string) (ended int, err error) {
	return identity.Unbind(ctx, d.truth, who, id, issuer)
}
