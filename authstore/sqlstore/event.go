package sqlstore

import (
	"context"
	"database/sql"
	"net/netip"
	"time"

	"postern/authstore"
)

// appendEvent writes a line of history in the transaction that does what it tells of, and returns its number. Where people are told of
// its kind, the notice is put into the outbox with it: so a change and its notice are written both or not at all. The time is the
// store's, unless the event has one.
func (s *Store) appendEvent(ctx context.Context, tx *sql.Tx, e authstore.Event) (int64, error) {
	if e.At.IsZero() {
		e.At = s.now()
	}
	var id int64
	if err := tx.QueryRowContext(ctx, `INSERT INTO event (at, account, app_password, kind, actor, client, agent, detail)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id`, e.At.Unix(), int64(e.Account), int64(e.Password), e.Kind,
		e.Actor.Name, addressText(e.Actor.Client), e.Actor.Agent, e.Detail).Scan(&id); err != nil {
		return 0, err
	}
	if !s.notices || !authstore.Noticed(e.Kind) {
		return id, nil
	}
	// of new uses of one app password, one notice waits at a time: it leads to the page that tells them all
	_, err := tx.ExecContext(ctx, `INSERT INTO outbox (event, due)
SELECT $1, $2 WHERE $3 <> $4 OR NOT EXISTS (
  SELECT 1 FROM outbox o JOIN event e ON e.id = o.event WHERE e.account = $5 AND e.app_password = $6 AND e.kind = $3)`,
		id, s.now().Add(authstore.NoticeDelay(e.Kind)).Unix(), e.Kind, authstore.KindNewUse, int64(e.Account), int64(e.Password))
	return id, err
}

// addressText is empty for no address.
func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

const eventColumns = "e.id, e.at, e.account, e.app_password, e.kind, e.actor, e.client, e.agent, e.detail"

// eventFields are where eventColumns go; finish is called after the scan.
func eventFields(e *authstore.Event) (fields []any, finish func()) {
	var at sql.NullInt64
	var client string
	return []any{&e.ID, &at, &e.Account, &e.Password, &e.Kind, &e.Actor.Name, &client, &e.Actor.Agent, &e.Detail}, func() {
		e.At = fromSeconds(at)
		e.Actor.Client, _ = netip.ParseAddr(client) // empty: none
	}
}

// TakeNotices takes at most n notices that are due, the oldest first, and puts them off until a time, so that no other process sends
// them meanwhile. Whoever takes one says how it went: NoticeDone, NoticeFailed. If he dies before, it is due again by then.
func (s *Store) TakeNotices(ctx context.Context, n int, until time.Time) ([]authstore.Notice, error) {
	now := s.now().Unix()
	var due bool // asked first, and of a reader: mostly there is nothing, and that takes no write lock
	if err := s.read.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM outbox WHERE due <= $1)", now).Scan(&due); err != nil || !due {
		return nil, err
	}
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return nil, plain(err)
	}
	defer tx.Rollback()
	list, err := dueNotices(ctx, tx, now, n)
	if err != nil {
		return nil, err
	}
	for _, notice := range list {
		if _, err := tx.ExecContext(ctx, "UPDATE outbox SET due = $2 WHERE event = $1", notice.ID, until.Unix()); err != nil {
			return nil, plain(err)
		}
	}
	return list, plain(tx.Commit())
}

func dueNotices(ctx context.Context, tx *sql.Tx, now int64, n int) ([]authstore.Notice, error) {
	rows, err := tx.QueryContext(ctx, "SELECT "+eventColumns+`,
  COALESCE(a.public_id, ''), COALESCE(n.address, ''), COALESCE(a.language, ''), COALESCE(a.zone, ''),
  COALESCE(p.label, ''), COALESCE(p.scopes, 0), o.attempts
FROM outbox o JOIN event e ON e.id = o.event
LEFT JOIN account a ON a.id = e.account
LEFT JOIN login_name n ON n.account = a.id AND n.ordinal = 0
LEFT JOIN app_password p ON p.id = e.app_password
WHERE o.due <= $1 ORDER BY o.due, o.event LIMIT $2`, now, n)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []authstore.Notice
	for rows.Next() {
		var n authstore.Notice
		fields, finish := eventFields(&n.Event)
		if err := rows.Scan(append(fields, &n.PublicID, &n.Address, &n.Language, &n.Zone, &n.Label, &n.Scopes, &n.Attempts)...); err != nil {
			return nil, err
		}
		finish()
		list = append(list, n)
	}
	return list, rows.Err()
}

// NoticeDone takes a notice out of the outbox: it was sent, or given up.
func (s *Store) NoticeDone(ctx context.Context, event int64) error {
	_, err := s.write.ExecContext(ctx, "DELETE FROM outbox WHERE event = $1", event)
	return plain(err)
}

// NoticeFailed notes that a notice could not be sent, and when to try again.
func (s *Store) NoticeFailed(ctx context.Context, event int64, next time.Time) error {
	_, err := s.write.ExecContext(ctx, "UPDATE outbox SET due = $2, attempts = attempts + 1 WHERE event = $1", event, next.Unix())
	return plain(err)
}
