package sqlstore

import (
	"context"
	"database/sql"

	"postern/authstore"
)

var _ authstore.UpstreamStore = (*Store)(nil)

const upstreamColumns = "account, provider, key, sealed, expires, refreshed, version, failure, failed"

func (s *Store) upstreamTokens(ctx context.Context, where string, args ...any) ([]authstore.UpstreamToken, error) {
	return collect(ctx, s.read, func(rows *sql.Rows, t *authstore.UpstreamToken) error {
		var expires, refreshed, failed sql.NullInt64
		err := rows.Scan(&t.Account, &t.Provider, &t.Key, &t.Sealed, &expires, &refreshed, &t.Version, &t.Failure, &failed)
		t.Expires, t.Refreshed, t.Failed = fromSeconds(expires), fromSeconds(refreshed), fromSeconds(failed)
		return err
	}, "SELECT "+upstreamColumns+" FROM upstream_token WHERE "+where+" ORDER BY account, provider", args...)
}

// UpstreamToken reads one; authstore.ErrNotFound.
func (s *Store) UpstreamToken(ctx context.Context, id authstore.AccountID, provider string) (authstore.UpstreamToken, error) {
	return one(s.upstreamTokens(ctx, "account = $1 AND provider = $2", int64(id), provider))
}

// UpstreamTokens reads those of all accounts.
func (s *Store) UpstreamTokens(ctx context.Context) ([]authstore.UpstreamToken, error) {
	return s.upstreamTokens(ctx, "1 = 1")
}

// Connect writes a token that somebody consented to, over one that is there. It gives the version.
func (s *Store) Connect(ctx context.Context, actor authstore.Actor, t authstore.UpstreamToken) (version int64, err error) {
	err = s.inConnection(ctx, actor, authstore.KindConnectionMade, t.Account, t.Provider, func(c *change) error {
		var known bool
		if err := c.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM account WHERE id = $1)", int64(t.Account)).Scan(&known); err != nil {
			return err
		}
		if !known { // it was removed meanwhile
			return authstore.ErrNotFound
		}
		return c.QueryRowContext(ctx, `INSERT INTO upstream_token (account, provider, key, sealed, expires, refreshed, version) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (account, provider) DO UPDATE SET key = excluded.key, sealed = excluded.sealed, expires = excluded.expires, refreshed = excluded.refreshed,
  version = CASE WHEN upstream_token.version < excluded.version THEN excluded.version ELSE upstream_token.version + 1 END, failure = '', failed = NULL
RETURNING version`, int64(t.Account), t.Provider, t.Key, t.Sealed, t.Expires.Unix(), t.Refreshed.Unix(), s.now().UnixMilli()).Scan(&version)
	})
	return version, err
}

// Refresh writes a token in place of the one of t.Version, which is 0 for the first of all accounts, and takes back that it failed. It gives the new
// version; 0: there is another one now, or none, and nothing was written.
func (s *Store) Refresh(ctx context.Context, t authstore.UpstreamToken) (version int64, err error) {
	if t.Version == 0 {
		err = s.write.QueryRowContext(ctx, `INSERT INTO upstream_token (account, provider, key, sealed, expires, refreshed, version) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING RETURNING version`, int64(t.Account), t.Provider, t.Key, t.Sealed, t.Expires.Unix(), t.Refreshed.Unix(), s.now().UnixMilli()).Scan(&version)
	} else {
		err = s.write.QueryRowContext(ctx, `UPDATE upstream_token SET key = $3, sealed = $4, expires = $5, refreshed = $6, version = version + 1, failure = '', failed = NULL
WHERE account = $1 AND provider = $2 AND version = $7 RETURNING version`,
			int64(t.Account), t.Provider, t.Key, t.Sealed, t.Expires.Unix(), t.Refreshed.Unix(), t.Version).Scan(&version)
	}
	if notFound(err) == authstore.ErrNotFound {
		return 0, nil
	}
	return version, plain(err)
}

// FailConnection notes why the token of a version can't be refreshed any more; false: that was known, or there is another one now.
func (s *Store) FailConnection(ctx context.Context, actor authstore.Actor, t authstore.UpstreamToken, failure string) (bool, error) {
	failed := false
	err := s.inConnection(ctx, actor, authstore.KindConnectionFailed, t.Account, t.Provider, func(c *change) error {
		err := affected(c.ExecContext(ctx, "UPDATE upstream_token SET failure = $4, failed = $5 WHERE account = $1 AND provider = $2 AND version = $3 AND failure = ''",
			int64(t.Account), t.Provider, t.Version, failure, s.now().Unix()))
		if err == authstore.ErrNotFound {
			return errNothingToDo
		}
		failed = err == nil
		return err
	})
	return failed && err == nil, err
}

// Disconnect removes a token; authstore.ErrNotFound.
func (s *Store) Disconnect(ctx context.Context, actor authstore.Actor, id authstore.AccountID, provider string) error {
	return s.inConnection(ctx, actor, authstore.KindConnectionRemoved, id, provider, func(c *change) error {
		return affected(c.ExecContext(ctx, "DELETE FROM upstream_token WHERE account = $1 AND provider = $2", int64(id), provider))
	})
}

// inConnection is inChange for what no snapshot holds: the feed has no row of it. What is taken away gets through on a full disk.
func (s *Store) inConnection(ctx context.Context, actor authstore.Actor, kind string, id authstore.AccountID, provider string, do func(*change) error) error {
	try := func() error {
		tx, err := s.write.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		c := &change{Tx: tx, event: authstore.Event{Kind: kind, Actor: actor, Account: id, Detail: provider}}
		c.Account = id
		if err := do(c); err != nil {
			if err == errNothingToDo {
				return nil
			}
			return err
		}
		if err := c.stillSignedIn(ctx); err != nil {
			return err
		}
		if err := s.appendEvent(ctx, tx, c.event); err != nil {
			return err
		}
		return commit(tx)
	}
	err := try()
	if s.madeRoom(err, kind == authstore.KindConnectionRemoved) {
		err = try()
	}
	return plain(err)
}
