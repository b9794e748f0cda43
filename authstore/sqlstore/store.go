// Package sqlstore is the truth: accounts, app passwords and the change feed in a SQL database. It is SQLite today; the queries
// keep to what PostgreSQL takes as well, and what does not stands in sqlite.go and migrations/.
package sqlstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/pressly/goose/v3"

	"postern/authstore"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Options of a store.
type Options struct {
	Path      string           // the SQLite file
	MustExist bool             // a file that is not there is an error, not made: it may have been lost
	Ballast   int64            // bytes kept beside it, freed for a revocation on a full disk; 0: leave that to the gateway
	Notices   bool             // somebody sends notices: events that people are told of go into the outbox too
	Now       func() time.Time // nil: time.Now
	Log       *slog.Logger     // nil: discarded
}

// Store implements authstore.Truth.
type Store struct {
	write, read, tail *sql.DB
	load              *sql.Stmt
	ballast           *ballast
	path              string
	file              fs.FileInfo // what stood there when it was opened
	notices           bool
	now               func() time.Time
	log               *slog.Logger
}

var _ authstore.Truth = (*Store)(nil)

// Open opens the database, makes it if it is not there and may be made, and brings it to this version's tables.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{path: o.Path, notices: o.Notices, now: o.Now, log: o.Log}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if err = prepareFile(o.Path, o.MustExist); err != nil {
		return nil, err
	}
	if s.file, err = os.Stat(o.Path); err != nil {
		return nil, err
	}
	s.write, s.read, s.tail = openSQLite(o.Path)
	if err := s.prepare(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("database %s: %w", o.Path, err)
	}
	s.ballast = &ballast{path: o.Path + ".ballast"}
	if err := s.ballast.fill(o.Ballast); err != nil {
		s.log.Warn("no ballast: a revocation may fail on a full disk", "err", err)
	}
	return s, nil
}

func (s *Store) prepare(ctx context.Context) error {
	if err := migrate(ctx, s.write); err != nil {
		return err
	}
	if err := inForce(ctx, s.write); err != nil {
		return err
	}
	if _, err := s.SetMeta(ctx, "epoch", []byte(rand.Text())); err != nil {
		return err
	}
	var err error
	s.load, err = s.read.PrepareContext(ctx, loadQuery)
	return err
}

// migrate brings the tables to this version. A database that is ahead of us is left alone.
func migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	have, want, err := provider.GetVersions(ctx)
	if err != nil {
		return err
	}
	if have > want {
		return fmt.Errorf("it was written by a newer Postern (tables of version %d, this one knows %d); run that version, or restore a backup", have, want)
	}
	for range 3 { // another process may be bringing them there at this moment: what it has done is not done twice
		if _, err = provider.Up(ctx); err == nil {
			return nil
		}
	}
	return err
}

// inPlace fails where the path no longer names the file that is open. Who changes something writes to what stands there now, and
// nobody here would hear of it.
func (s *Store) inPlace() error {
	now, err := os.Stat(s.path)
	if err != nil {
		return fmt.Errorf("the database's file is gone: %w", err)
	}
	if !os.SameFile(now, s.file) {
		return fmt.Errorf("another file was put in the place of the database %s; restart the gateway", s.path)
	}
	return nil
}

// Close closes all connections.
func (s *Store) Close() error {
	return errors.Join(s.read.Close(), s.tail.Close(), s.write.Close())
}

// Backup writes a consistent copy to a file that must not be there yet. A node that meets a restored copy notices it by the feed:
// a lower counter, or another mark at the same sequence.
func (s *Store) Backup(ctx context.Context, path string) error {
	_, err := s.write.ExecContext(ctx, "VACUUM INTO $1", path)
	return err
}

// Meta reads a value of the table meta.
func (s *Store) Meta(ctx context.Context, name string) ([]byte, error) {
	var value []byte
	err := s.read.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = $1", name).Scan(&value)
	return value, notFound(err)
}

// SetMeta writes a value if none is there, and returns what stands there then.
func (s *Store) SetMeta(ctx context.Context, name string, value []byte) ([]byte, error) {
	if have, err := s.Meta(ctx, name); err == nil {
		return have, nil
	}
	if _, err := s.write.ExecContext(ctx, "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING", name, value); err != nil {
		return nil, plain(err)
	}
	return s.Meta(ctx, name)
}

func notFound(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return authstore.ErrNotFound
	}
	return err
}

// plain puts what administrators can act on into words.
func plain(err error) error {
	if isBusy(err) {
		return fmt.Errorf("nothing was changed: another process has held the database's write lock for %v: %w", busyTimeout, err)
	}
	if isFull(err) {
		return fmt.Errorf("nothing was changed: the database's disk is full: %w", err)
	}
	return err
}

// Times stand in the database as seconds since 1970; none as NULL.

func seconds(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.Unix()
}

func fromSeconds(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.Unix(n.Int64, 0).UTC()
}

// joinIDs and splitIDs write lists of numbers as text, which every database can hold.

func joinIDs[T ~int64 | ~uint32](ids []T) string {
	var b []byte
	for i, id := range ids {
		if i > 0 {
			b = append(b, ' ')
		}
		b = strconv.AppendInt(b, int64(id), 10)
	}
	return string(b)
}

func splitIDs[T ~int64 | ~uint32](text string) ([]T, error) {
	var ids []T
	for _, field := range strings.Fields(text) {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return nil, err
		}
		ids = append(ids, T(n))
	}
	return ids, nil
}
