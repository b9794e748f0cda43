package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// SQLite is one dialect: how to open it, and what its errors mean. The queries are the store's.

// busyTimeout is how long a statement waits for another process that holds the write lock.
const busyTimeout = 5 * time.Second

// openSQLite opens the database's three ways in: the one writer, the readers, and the feed's own connection, which no slow
// reader holds up.
func openSQLite(path string) (write, read, tail *sql.DB) {
	open := func(connections int, lock string, extra ...string) *sql.DB {
		q := url.Values{"_txlock": {lock}, "_pragma": append([]string{
			fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()),
			"journal_mode(WAL)",
			"synchronous(FULL)", // NORMAL lost acknowledged writes in 240 of 250 power cuts, FULL in none of 400
			"foreign_keys(1)",
			"temp_store(MEMORY)", // sorting 20,000 accounts takes a file otherwise, and a container has no folder for one
		}, extra...)}
		db, oerr := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+q.Encode())
		if oerr != nil {
			panic("sqlstore: " + oerr.Error()) // the driver is registered and opens nothing yet
		}
		db.SetMaxOpenConns(connections)
		db.SetMaxIdleConns(connections)
		return db
	}
	return open(1, "immediate"), open(4, "deferred", "query_only(1)"), open(1, "deferred", "query_only(1)")
}

// prepareFile makes an absent database file, readable by its owner only, and says in plain words what is in the way. Made by root, it
// belongs to the folder's owner, the user that the gateway runs as; SQLite itself gives its other files the database's owner.
func prepareFile(path string, mustExist bool) error {
	dir := filepath.Dir(path)
	folder, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the folder %s of the database does not exist; make it, owned by the user that runs Postern", dir)
	}
	if _, err := os.Stat(path); mustExist && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no database %s; \"postern init\" makes one, or restore a backup of the one that was there", path)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("database: %w; the user that runs Postern needs to read and write it and its folder", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() > 0 || os.Geteuid() != 0 || folder == nil {
		return err
	}
	owner := folder.Sys().(*syscall.Stat_t)
	return f.Chown(int(owner.Uid), int(owner.Gid))
}

// inForce checks what no promise holds without: a driver that ignored a pragma would lose revocations.
func inForce(ctx context.Context, db *sql.DB) error {
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1"} {
		var got string
		if err := db.QueryRowContext(ctx, "PRAGMA "+pragma).Scan(&got); err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("the database runs with %s=%s instead of %s; is its file system one that shares memory between processes?", pragma, got, want)
		}
	}
	var check string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&check); err != nil {
		return err
	}
	if check != "ok" {
		return fmt.Errorf("the database is damaged (%s); restore a backup", check)
	}
	return nil
}

func code(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & 0xff
	}
	return 0
}

func isBusy(err error) bool   { return code(err) == sqlite3.SQLITE_BUSY }
func isFull(err error) bool   { return code(err) == sqlite3.SQLITE_FULL }
func isUnique(err error) bool { return code(err) == sqlite3.SQLITE_CONSTRAINT }

// isUncertain reports whether a failed commit may have been written all the same.
func isUncertain(err error) bool { return code(err) == sqlite3.SQLITE_IOERR }
