package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"postern/authstore"
)

const idleQuery = `
SELECT i.id, i.account, i.address, i.groups, i.since,
  (SELECT count(*) FROM event e WHERE e.app_password = i.id AND e.kind = $4 AND e.at > i.since),
  (SELECT max(e.at) FROM event e WHERE e.app_password = i.id AND e.kind = $4 AND e.at > i.since)
FROM (
  SELECT p.id, p.account, n.address,
    COALESCE((SELECT string_agg(t.groups, '
') FROM tie t WHERE t.account = p.account AND t.groups <> ''), '') AS groups,
    COALESCE((SELECT max(u.last) FROM usage u WHERE u.app_password = p.id AND u.count > 0), p.created) AS since
  FROM app_password p
  JOIN account a ON a.id = p.account AND a.status = $5
  JOIN login_name n ON n.account = p.account AND n.ordinal = 0
  WHERE p.id > $1 AND p.revoked IS NULL AND (p.expires IS NULL OR p.expires > $2)
) AS i
WHERE i.since <= $3 ORDER BY i.id LIMIT $6`

// Idle lists active app passwords of active accounts that were not used since a time, by number, those behind one.
func (s *Store) Idle(ctx context.Context, since time.Time, after authstore.PasswordID, limit int) ([]authstore.IdlePassword, error) {
	return collect(ctx, s.read, func(rows *sql.Rows, p *authstore.IdlePassword) error {
		var groups string
		var used, warned sql.NullInt64
		err := rows.Scan(&p.ID, &p.Account, &p.Address, &groups, &used, &p.Warnings, &warned)
		p.Groups, p.Since, p.Warned = splitLines(groups), fromSeconds(used), fromSeconds(warned)
		return err
	}, idleQuery, int64(after), s.now().Unix(), since.Unix(), authstore.KindIdle, int(authstore.Active), limit)
}

// RevokeIdle ends an app password that was used last, or made, at a time, and not since. On a full disk it ends none: whether it was used since
// could not be written either.
func (s *Store) RevokeIdle(ctx context.Context, actor authstore.Actor, id authstore.PasswordID, since time.Time, why string) (authstore.Change, error) {
	return s.inChange(ctx, false, actor, "password.revoked", func(c *change) error {
		err := c.QueryRowContext(ctx, `UPDATE app_password SET revoked = $2, why = $3 WHERE id = $1 AND revoked IS NULL
AND NOT EXISTS (SELECT 1 FROM usage u WHERE u.app_password = $1 AND u.count > 0 AND u.last > $4) RETURNING account`,
			int64(id), s.now().Unix(), why, since.Unix()).Scan(&c.Account)
		if errors.Is(err, sql.ErrNoRows) {
			return authstore.ErrNotActive
		}
		c.Ended, c.event.Password, c.event.Detail = []authstore.PasswordID{id}, id, why
		return err
	})
}

// Tell appends a line of history that changes nothing.
func (s *Store) Tell(ctx context.Context, e authstore.Event) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return plain(err)
	}
	defer tx.Rollback()
	if err := s.appendEvent(ctx, tx, e); err != nil {
		return plain(err)
	}
	return plain(commit(tx))
}

// Unreminded lists active accounts by number, those behind one, that have active app passwords, the oldest of which was made before a time, and
// were not told of them since.
func (s *Store) Unreminded(ctx context.Context, since time.Time, after authstore.AccountID, limit int) ([]authstore.Account, error) {
	return s.accounts(ctx, s.read, `a.id IN (
  SELECT b.id FROM account b WHERE b.id > $2 AND b.status = $3
  AND EXISTS (SELECT 1 FROM app_password p WHERE p.account = b.id AND p.created <= $4 AND p.revoked IS NULL AND (p.expires IS NULL OR p.expires > $1))
  AND NOT EXISTS (SELECT 1 FROM event e WHERE e.account = b.id AND e.kind = $5 AND e.at > $4)
  ORDER BY b.id LIMIT $6)`, int64(after), int(authstore.Active), since.Unix(), authstore.KindYearly, limit)
}
