package sqlstore

import (
	"context"
	"database/sql"
	"time"

	"postern/authstore"
)

// post puts the notice of an event into the outbox, if people are told of its kind and this event is one to tell of.
func (s *Store) post(ctx context.Context, tx *sql.Tx, id int64, e authstore.Event) error {
	if !s.notices || !authstore.Noticed(e.Kind) {
		return nil
	}
	if told, err := s.isTold(ctx, tx, e); err != nil || !told {
		return err
	}
	due := s.now().Add(authstore.NoticeDelay(e.Kind))
	_, err := tx.ExecContext(ctx, "INSERT INTO outbox (event, due) VALUES ($1, $2)", id, due.Unix())
	return err
}

// The bounds of a day's notices: of one kind for an account; of new uses of one app password; of wrong second factors of an account. Kinds are
// counted apart, so that nobody hides what he does behind a crowd of something else.
const (
	maxNotices        = 20
	maxNewUseNotices  = 5
	maxRefusalNotices = 1
)

// isTold reports whether an event of a noticed kind gets a notice of its own. What comes in crowds is told of once: the page that the mail
// leads to tells of all.
func (s *Store) isTold(ctx context.Context, tx *sql.Tx, e authstore.Event) (bool, error) {
	sent, waiting, err := s.posted(ctx, tx, "account", int64(e.Account), e.Kind)
	most := maxNotices
	if e.Kind == authstore.KindFactorRefused {
		most = maxRefusalNotices
	}
	if err != nil || sent+waiting >= most || e.Kind != authstore.KindNewUse {
		return err == nil && sent+waiting < most, err
	}
	sent, waiting, err = s.posted(ctx, tx, "app_password", int64(e.Password), e.Kind)
	return err == nil && waiting == 0 && sent < maxNewUseNotices, err
}

// posted counts the notices of one kind of an account or an app password: those that were sent in the last day, and those that wait. Events
// before the oldest notice are not looked at: there may be many.
func (s *Store) posted(ctx context.Context, tx *sql.Tx, column string, of int64, kind string) (sent, waiting int, err error) {
	err = tx.QueryRowContext(ctx, "SELECT count(o.done), count(*) - count(o.done) FROM event e JOIN outbox o ON o.event = e.id WHERE e."+column+` = $1
AND e.kind = $2 AND e.id >= (SELECT min(event) FROM outbox) AND (o.done IS NULL OR o.done > $3)`, of, kind, s.now().Add(-outboxKept).Unix()).Scan(&sent, &waiting)
	return sent, waiting, err
}

// outboxKept is how long what was sent is remembered, so that it can be counted.
const outboxKept = day

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
	return collect(ctx, tx, func(rows *sql.Rows, n *authstore.Notice) error {
		var narrowed int64
		var collections, titles string
		err := scanEvent(rows, &n.Event, &n.PublicID, &n.Address, &n.Language, &n.Zone, &n.Label, &n.Scopes, &narrowed, &collections, &titles, &n.Refusals)
		if err != nil {
			return err
		}
		n.Scopes |= authstore.Scopes(narrowed)
		n.Titles = splitTitles(titles)
		n.Collections, err = splitCollections(n.Password, narrowed, collections)
		return err
	}, "SELECT "+eventColumns+`,
  COALESCE(a.public_id, ''), COALESCE(n.address, ''), COALESCE(a.language, ''), COALESCE(a.zone, ''),
  COALESCE(p.label, ''), COALESCE(p.scopes, 0), COALESCE(p.narrowed, 0), COALESCE(p.collections, ''), COALESCE(p.titles, ''), o.refusals
FROM outbox o JOIN event e ON e.id = o.event
LEFT JOIN account a ON a.id = e.account
LEFT JOIN login_name n ON n.account = a.id AND n.ordinal = 0
LEFT JOIN app_password p ON p.id = e.app_password
WHERE o.done IS NULL AND o.due <= $1 ORDER BY o.due, o.event LIMIT $2`, now, n)
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
