package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"postern/authstore/identity"
)

// errFull ends a charge that a bucket has no room for.
var errFull = errors.New("a bucket is full")

// Charge fills token buckets, all or none, and says how long to wait where one has no room. A full one costs no write.
func (s *Store) Charge(ctx context.Context, charges []identity.Charge) (time.Duration, error) {
	now := s.now()
	if wait, err := fullest(ctx, s.read, now, charges); wait > 0 || err != nil {
		return wait, err
	}
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return 0, plain(err)
	}
	defer tx.Rollback()
	for _, c := range charges {
		err := charge(ctx, tx, now, c)
		if errors.Is(err, errFull) {
			wait, err := fullest(ctx, tx, now, charges)
			return max(wait, time.Millisecond), err
		}
		if err != nil {
			return 0, plain(err)
		}
	}
	return 0, plain(tx.Commit())
}

// charge fills one bucket; errFull. See fullest for what a clock that was ahead has left.
func charge(ctx context.Context, tx *sql.Tx, now time.Time, c identity.Charge) error {
	var empty int64
	err := tx.QueryRowContext(ctx, `INSERT INTO budget (name, empty) VALUES ($1, $2 + $3)
ON CONFLICT (name) DO UPDATE SET empty = CASE WHEN budget.empty > $2 AND budget.empty <= $2 + 2 * $4 THEN budget.empty ELSE $2 END + $3
WHERE CASE WHEN budget.empty > $2 AND budget.empty <= $2 + 2 * $4 THEN budget.empty ELSE $2 END + $3 <= $2 + $4
RETURNING empty`, c.Bucket, now.UnixMilli(), c.Cost.Milliseconds(), c.Burst.Milliseconds()).Scan(&empty)
	if errors.Is(err, sql.ErrNoRows) {
		return errFull
	}
	return err
}

// fullest is how long the charges have to wait; zero: there is room for all.
func fullest(ctx context.Context, r reader, now time.Time, charges []identity.Charge) (time.Duration, error) {
	var wait time.Duration
	for _, c := range charges {
		var empty int64
		err := r.QueryRowContext(ctx, "SELECT empty FROM budget WHERE name = $1", c.Bucket).Scan(&empty)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return 0, err
		}
		debt := time.UnixMilli(empty).Sub(now)
		if debt > 2*c.Burst { // no charge fills a bucket so far: it was made while the clock was ahead, and is let go
			continue
		}
		wait = max(wait, debt+c.Cost-c.Burst)
	}
	return wait, nil
}

// Refund takes charges back.
func (s *Store) Refund(ctx context.Context, charges []identity.Charge) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return plain(err)
	}
	defer tx.Rollback()
	if err := refund(ctx, tx, charges); err != nil {
		return plain(err)
	}
	return plain(tx.Commit())
}

func refund(ctx context.Context, tx *sql.Tx, charges []identity.Charge) error {
	for _, c := range charges {
		if _, err := tx.ExecContext(ctx, "UPDATE budget SET empty = empty - $2 WHERE name = $1", c.Bucket, c.Cost.Milliseconds()); err != nil {
			return err
		}
	}
	return nil
}
