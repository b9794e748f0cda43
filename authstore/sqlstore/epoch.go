package sqlstore

import "context"

// Epoch is the store's random name, which a database keeps for its life.
func (s *Store) Epoch(ctx context.Context) (epoch string, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT value FROM meta WHERE name = 'epoch'`).Scan(&epoch)
	return epoch, err
}
