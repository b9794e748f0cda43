package sqlstore

import (
	"context"

	"postern/authstore"
	"postern/authstore/identity"
)

// Import adds accounts, and what is new to those that are there.
func (s *Store) Import(ctx context.Context, actor authstore.Actor, list []authstore.AccountImport) (authstore.Change, error) {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return authstore.Change{}, plain(err)
	}
	defer tx.Rollback()
	var last authstore.Change
	for i := range list {
		a := &act{store: s}
		a.Tx, a.event.Actor, a.Account = tx, actor, list[i].Account
		err := a.imported(ctx, &list[i])
		if err == nil {
			err = s.record(ctx, &a.change)
		}
		if err != nil {
			return authstore.Change{}, &authstore.ImportError{Index: i, Err: plain(err)}
		}
		last = a.Change
	}
	return last, plain(commit(tx))
}

// imported does all to one account.
func (a *act) imported(ctx context.Context, i *authstore.AccountImport) error {
	now := a.store.now()
	names := i.Aliases
	if a.Account == 0 {
		if err := a.QueryRowContext(ctx, "INSERT INTO account (public_id, status, version, backend_name, created) VALUES ($1, $2, 0, '', $3) RETURNING id",
			i.PublicID, int(authstore.Active), now.Unix()).Scan(&a.Account); err != nil {
			return err
		}
		names = append([]string{i.Address}, names...)
	}
	kind := "alias.added"
	if i.Account == 0 {
		kind = "account.added"
	}
	for _, name := range names {
		if err := addName(ctx, &a.change, name); err != nil {
			return err
		}
		if err := a.Event(ctx, kind, name); err != nil {
			return err
		}
		a.Names, kind = true, "alias.added"
	}
	if i.BackendName != "" {
		if err := affected(a.ExecContext(ctx, "UPDATE account SET backend_name = $2 WHERE id = $1", a.id(), i.BackendName)); err != nil {
			return err
		}
		if err := a.Event(ctx, "account.backend_name", i.BackendName); err != nil {
			return err
		}
	}
	if i.Issuer == "" {
		return nil
	}
	ties, err := readTies(ctx, a.Tx, a.Account)
	if err != nil {
		return err
	}
	for _, t := range ties {
		if t.Issuer == i.Issuer && t.Subject != i.Subject {
			return identity.ErrTied
		}
		if t.Issuer == i.Issuer { // it was made meanwhile, and knows more than we do
			return nil
		}
	}
	if err := a.SetTie(ctx, identity.Tie{Issuer: i.Issuer, Subject: i.Subject, Seen: now}); err != nil {
		return err
	}
	return a.Event(ctx, "tie.made", i.Issuer)
}
