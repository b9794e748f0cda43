package sqlstore

import (
	"context"
	"time"
)

// Lease lets one of several processes do a thing until a time.
func (s *Store) Lease(ctx context.Context, name, owner string, until time.Time) (bool, error) {
	r, err := s.write.ExecContext(ctx, `INSERT INTO lease (name, owner, until) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until WHERE lease.owner = excluded.owner OR lease.until <= $4`,
		name, owner, until.UnixMilli(), s.now().UnixMilli())
	if err != nil {
		return false, plain(err)
	}
	n, err := r.RowsAffected()
	return n > 0, err
}
