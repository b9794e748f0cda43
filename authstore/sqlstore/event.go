package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"net/netip"
	"strings"
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
	due := s.now().Add(authstore.NoticeDelay(e.Kind))
	if e.Kind == authstore.KindNewUse {
		wanted, err := s.newUseIsTold(ctx, tx, e.Password)
		if err != nil || !wanted {
			return id, err
		}
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO outbox (event, due) VALUES ($1, $2)", id, due.Unix())
	return id, err
}

// maxNewUseNotices bounds the notices of new uses of one app password in a day.
const maxNewUseNotices = 5

// newUseIsTold reports whether a new use of an app password gets a notice of its own: not while one waits, for that leads to the page which
// tells of all, and not after the fifth of a day.
func (s *Store) newUseIsTold(ctx context.Context, tx *sql.Tx, id authstore.PasswordID) (told bool, err error) {
	err = tx.QueryRowContext(ctx, `SELECT count(*) < $1 AND count(*) = count(o.done) FROM event e JOIN outbox o ON o.event = e.id
WHERE e.app_password = $2 AND e.kind = $3 AND (o.done IS NULL OR o.done > $4)`,
		maxNewUseNotices, int64(id), authstore.KindNewUse, s.now().Add(-outboxKept).Unix()).Scan(&told)
	return told, err
}

// outboxKept is how long what was sent is remembered, so that it can be counted.
const outboxKept = day

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

// Events lists what the history holds of a query, newest first.
func (s *Store) Events(ctx context.Context, q authstore.EventQuery) ([]authstore.Event, error) {
	where, args := "e.account = $1", []any{int64(q.Account)}
	and := func(condition string, arg any) {
		args = append(args, arg)
		where += fmt.Sprintf(" AND "+condition, len(args))
	}
	if q.Password != 0 {
		and("e.app_password = $%d", int64(q.Password))
	}
	if q.Before != 0 {
		and("e.id < $%d", q.Before)
	}
	var kinds []string
	for _, kind := range q.Kinds {
		args = append(args, kind)
		if strings.HasSuffix(kind, ".") {
			kinds = append(kinds, fmt.Sprintf("substr(e.kind, 1, length($%d)) = $%d", len(args), len(args)))
		} else {
			kinds = append(kinds, fmt.Sprintf("e.kind = $%d", len(args)))
		}
	}
	if len(kinds) > 0 {
		where += " AND (" + strings.Join(kinds, " OR ") + ")"
	}
	args = append(args, cmp.Or(q.Limit, defaultEvents))
	rows, err := s.read.QueryContext(ctx, fmt.Sprintf("SELECT %s FROM event e WHERE %s ORDER BY e.id DESC LIMIT $%d", eventColumns, where, len(args)), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []authstore.Event
	for rows.Next() {
		var e authstore.Event
		fields, finish := eventFields(&e)
		if err := rows.Scan(fields...); err != nil {
			return nil, err
		}
		finish()
		list = append(list, e)
	}
	return list, rows.Err()
}

const defaultEvents = 100

// TakeNotices takes at most n notices that are due, the oldest first, and puts them off until a time, so that no other process sends
// them meanwhile. Whoever takes one says how it went: NoticeDone, NoticeFailed. If he dies before, it is due again by then.
func (s *Store) TakeNotices(ctx context.Context, n int, until time.Time) ([]authstore.Notice, error) {
	now := s.now().Unix()
	var due bool // asked first, and of a reader: mostly there is nothing, and that takes no write lock
	if err := s.read.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM outbox WHERE done IS NULL AND due <= $1)", now).Scan(&due); err != nil || !due {
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
  COALESCE(p.label, ''), COALESCE(p.scopes, 0), o.refusals
FROM outbox o JOIN event e ON e.id = o.event
LEFT JOIN account a ON a.id = e.account
LEFT JOIN login_name n ON n.account = a.id AND n.ordinal = 0
LEFT JOIN app_password p ON p.id = e.app_password
WHERE o.done IS NULL AND o.due <= $1 ORDER BY o.due, o.event LIMIT $2`, now, n)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []authstore.Notice
	for rows.Next() {
		var n authstore.Notice
		fields, finish := eventFields(&n.Event)
		if err := rows.Scan(append(fields, &n.PublicID, &n.Address, &n.Language, &n.Zone, &n.Label, &n.Scopes, &n.Refusals)...); err != nil {
			return nil, err
		}
		finish()
		list = append(list, n)
	}
	return list, rows.Err()
}

// NoticeDone notes that a notice was sent, or given up.
func (s *Store) NoticeDone(ctx context.Context, event int64) error {
	_, err := s.write.ExecContext(ctx, "UPDATE outbox SET done = $2 WHERE event = $1", event, s.now().Unix())
	return plain(err)
}

// NoticeFailed notes that a notice could not be sent, when to try again, and whether the mail server has refused it: that is counted.
func (s *Store) NoticeFailed(ctx context.Context, event int64, next time.Time, refused bool) error {
	query := "UPDATE outbox SET due = $2 WHERE event = $1"
	if refused {
		query = "UPDATE outbox SET due = $2, refusals = refusals + 1 WHERE event = $1"
	}
	_, err := s.write.ExecContext(ctx, query, event, next.Unix())
	return plain(err)
}
