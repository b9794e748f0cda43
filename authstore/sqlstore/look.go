package sqlstore

import (
	"context"
	"database/sql"
	"errors"
)

// Look reads what the last look into an issuer's directory found; nil: there was none.
func (s *Store) Look(ctx context.Context, issuer string) ([]byte, error) {
	var result []byte
	err := s.read.QueryRowContext(ctx, "SELECT result FROM look WHERE issuer = $1", issuer).Scan(&result)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return result, err
}

// SetLook keeps what a look found, over what an earlier one did.
func (s *Store) SetLook(ctx context.Context, issuer string, result []byte) error {
	_, err := s.write.ExecContext(ctx, "INSERT INTO look (issuer, result) VALUES ($1, $2) ON CONFLICT (issuer) DO UPDATE SET result = excluded.result",
		issuer, string(result))
	return plain(err)
}
