package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"net/netip"
	"strings"

	"postern/authstore"
)

// appendEvent writes a line of history in the transaction that does what it tells of. Where people are told of
// its kind, the notice is put into the outbox with it: so a change and its notice are written both or not at all. The time is the
// store's, unless the event has one.
func (s *Store) appendEvent(ctx context.Context, tx *sql.Tx, e authstore.Event) error {
	if e.At.IsZero() {
		e.At = s.now()
	}
	var id int64
	if err := tx.QueryRowContext(ctx, `INSERT INTO event (at, account, app_password, kind, actor, client, agent, detail)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id`, e.At.Unix(), int64(e.Account), int64(e.Password), e.Kind,
		e.Actor.Name, addressText(e.Actor.Client), e.Actor.Agent, e.Detail).Scan(&id); err != nil {
		return err
	}
	return s.post(ctx, tx, id, e)
}

// addressText is empty for no address.
func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

const eventColumns = "e.id, e.at, e.account, e.app_password, e.kind, e.actor, e.client, e.agent, e.detail"

// scanEvent reads eventColumns, and what stands behind them in the row.
func scanEvent(rows *sql.Rows, e *authstore.Event, more ...any) error {
	var at sql.NullInt64
	var client string
	err := rows.Scan(append([]any{&e.ID, &at, &e.Account, &e.Password, &e.Kind, &e.Actor.Name, &client, &e.Actor.Agent, &e.Detail}, more...)...)
	e.At = fromSeconds(at)
	e.Actor.Client, _ = netip.ParseAddr(client) // empty: none
	return err
}

// Events lists what the history holds of a query, newest first.
func (s *Store) Events(ctx context.Context, q authstore.EventQuery) ([]authstore.Event, error) {
	var args []any
	where := "1 = 1"
	and := func(condition string, arg any) {
		args = append(args, arg)
		where += fmt.Sprintf(" AND "+condition, len(args))
	}
	if q.Account != 0 {
		and("e.account = $%d", int64(q.Account))
	}
	if q.Actor != "" {
		and("e.actor = $%d", q.Actor)
	}
	if !q.Since.IsZero() {
		and("e.at >= $%d", q.Since.Unix())
	}
	if !q.Until.IsZero() {
		and("e.at < $%d", q.Until.Unix())
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
	return collect(ctx, s.read, func(rows *sql.Rows, e *authstore.Event) error {
		return scanEvent(rows, e)
	}, fmt.Sprintf("SELECT %s FROM event e WHERE %s ORDER BY e.id DESC LIMIT $%d", eventColumns, where, len(args)), args...)
}

const defaultEvents = 100
