package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
)

// sealedTables are the tables whose rows are sealed, each with its column of the row's number within the account and that of the value.
var sealedTables = []struct{ table, row, value string }{
	{"sealed", "backend", "value"},
	{"primary_password", "account", "sealed"},
	{"factor", "id", "sealed"},
	{"recovery_code", "number", "sealed"},
	{"upstream_token", "provider", "sealed"},
}

// Reseal has every sealed row under one root key sealed again under another.
func (s *Store) Reseal(ctx context.Context, from, to uint32, seal func(place string, sealed []byte) ([]byte, error)) (int, error) {
	n := 0
	for _, t := range sealedTables {
		type row struct {
			account int64
			row     string
			value   []byte
		}
		list, err := collect(ctx, s.read, func(rows *sql.Rows, r *row) error { return rows.Scan(&r.account, &r.row, &r.value) },
			fmt.Sprintf("SELECT account, CAST(%s AS TEXT), %s FROM %s WHERE key = $1", t.row, t.value, t.table), from)
		if err != nil {
			return n, err
		}
		for _, r := range list {
			value, err := seal(fmt.Sprintf("%s/%d/%s", t.table, r.account, r.row), r.value)
			if err != nil {
				return n, err
			}
			done, err := s.write.ExecContext(ctx, fmt.Sprintf("UPDATE %s SET key = $1, %[2]s = $2 WHERE account = $3 AND CAST(%[3]s AS TEXT) = $4 AND %[2]s = $5",
				t.table, t.value, t.row), to, value, r.account, r.row, r.value)
			if err != nil {
				return n, plain(err)
			}
			hit, err := done.RowsAffected()
			if err != nil {
				return n, err
			}
			n += int(hit)
		}
	}
	return n, nil
}
