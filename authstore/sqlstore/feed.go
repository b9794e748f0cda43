package sqlstore

import (
	"context"
	"database/sql"
	"time"

	"postern/authstore"
)

const changeColumns = "sequence, mark, account, version, ended, all_ended, names"

// Recent returns the changes since a time, oldest first, with counter and epoch.
func (s *Store) Recent(ctx context.Context, since time.Time) (authstore.Tail, error) {
	return s.changes(ctx, "", "SELECT "+changeColumns+" FROM change WHERE sequence >= COALESCE((SELECT min(sequence) FROM change WHERE at >= $1), "+
		"(SELECT counter FROM feed)) ORDER BY sequence", since.Unix())
}

// Tail reads the changes from a sequence on, inclusive, on a connection of its own.
func (s *Store) Tail(ctx context.Context, node string, from uint64) (authstore.Tail, error) {
	return s.changes(ctx, node, "SELECT "+changeColumns+" FROM change WHERE sequence >= $1 ORDER BY sequence LIMIT $2", from, authstore.TailBatch)
}

func (s *Store) changes(ctx context.Context, node, query string, args ...any) (authstore.Tail, error) {
	var t authstore.Tail
	if err := s.inPlace(); err != nil {
		return t, err
	}
	tx, err := s.tail.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return t, err
	}
	defer tx.Rollback()
	if err := tx.QueryRowContext(ctx, `SELECT f.counter, m.value, EXISTS (SELECT 1 FROM node WHERE id = $1)
FROM feed f JOIN meta m ON m.name = 'epoch'`, node).Scan(&t.Counter, &t.Epoch, &t.Node); err != nil {
		return t, err
	}
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return t, err
	}
	defer rows.Close()
	for rows.Next() {
		var c authstore.Change
		var ended string
		if err := rows.Scan(&c.Sequence, &c.Mark, &c.Account, &c.Version, &ended, &c.AllEnded, &c.Names); err != nil {
			return t, err
		}
		if c.Ended, err = splitIDs[authstore.PasswordID](ended); err != nil {
			return t, err
		}
		t.Changes = append(t.Changes, c)
	}
	return t, rows.Err()
}

// Register notes a serving process, or notes it again.
func (s *Store) Register(ctx context.Context, node string, keys []uint32) error {
	register := func() error {
		_, err := s.write.ExecContext(ctx, `INSERT INTO node (id, acknowledged, keys, last_seen) VALUES ($1, 0, $2, $3)
ON CONFLICT (id) DO UPDATE SET acknowledged = 0, keys = excluded.keys, last_seen = excluded.last_seen`, node, joinIDs(keys), s.now().Unix())
		return err
	}
	err := register()
	if isFull(err) && s.ballast.free() {
		s.log.Error("the database's disk is full; the ballast was given up to serve logins at all. Make room.")
		err = register()
	}
	return plain(err)
}

// Acknowledge notes how far a node is clean, and that it is alive.
func (s *Store) Acknowledge(ctx context.Context, node string, sequence uint64, keys []uint32) error {
	r, err := s.write.ExecContext(ctx, "UPDATE node SET acknowledged = $2, keys = $3, last_seen = $4 WHERE id = $1",
		node, sequence, joinIDs(keys), s.now().Unix())
	if err != nil {
		return plain(err)
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return authstore.ErrNotFound
	}
	return nil
}

// Unregister removes a node that stops.
func (s *Store) Unregister(ctx context.Context, node string) error {
	_, err := s.write.ExecContext(ctx, "DELETE FROM node WHERE id = $1", node)
	return plain(err)
}

// Nodes lists the registered nodes.
func (s *Store) Nodes(ctx context.Context) ([]authstore.Node, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT id, acknowledged, keys, last_seen FROM node ORDER BY id")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var nodes []authstore.Node
	for rows.Next() {
		var n authstore.Node
		var keys string
		var seen sql.NullInt64
		if err := rows.Scan(&n.ID, &n.Acknowledged, &keys, &seen); err != nil {
			return nil, err
		}
		if n.Keys, err = splitIDs[uint32](keys); err != nil {
			return nil, err
		}
		n.LastSeen = fromSeconds(seen)
		nodes = append(nodes, n)
	}
	return nodes, rows.Err()
}

// Prune forgets changes from before a time (the newest change always stays, for its mark), nodes that have been silent for
// authstore.NodeTimeout, and what else is kept for a time.
func (s *Store) Prune(ctx context.Context, before time.Time) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return plain(err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, "DELETE FROM change WHERE at < $1 AND sequence < (SELECT counter FROM feed)", before.Unix()); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM node WHERE last_seen < $1", s.now().Add(-authstore.NodeTimeout).Unix()); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM usage_day WHERE day < $1", dayOf(s.now())-usageDays); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM outbox WHERE done < $1", s.now().Add(-outboxKept).Unix()); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM lease WHERE until < $1", s.now().Add(-day).UnixMilli()); err != nil {
		return err
	}
	return tx.Commit()
}
