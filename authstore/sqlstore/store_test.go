package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pressly/goose/v3"

	"postern/authstore"
	"postern/authstore/sqlstore"
	"postern/authstore/storetest"
)

var tester = authstore.Actor{Name: "test"}

func open(t testing.TB, o sqlstore.Options) *sqlstore.Store {
	t.Helper()
	if o.Path == "" {
		o.Path = filepath.Join(t.TempDir(), "postern.db")
	}
	s, err := sqlstore.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T, now func() time.Time) authstore.Truth {
		return open(t, sqlstore.Options{Now: now, Notices: true})
	})
}

func TestSQLitePeople(t *testing.T) {
	storetest.RunPeople(t, func(t *testing.T, now func() time.Time) storetest.PeopleTruth {
		return open(t, sqlstore.Options{Now: now})
	})
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "p.db")
	s := open(t, sqlstore.Options{Path: path})
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v, %v", info.Mode(), err)
	}
	again := open(t, sqlstore.Options{Path: path})
	a, _ := s.Meta(t.Context(), "epoch")
	b, _ := again.Meta(t.Context(), "epoch")
	if len(a) == 0 || string(a) != string(b) {
		t.Errorf("epochs %q and %q of one database", a, b)
	}

	db, _ := sql.Open("sqlite", path)
	if _, err := db.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	for name, tt := range map[string]struct{ path, want string }{
		"a newer version's": {path, "written by a newer Postern"},
		"no folder":         {filepath.Join(dir, "no", "p.db"), "does not exist; make it"},
		"not a database":    {garbage(t), "not a database"},
	} {
		if _, err := sqlstore.Open(t.Context(), sqlstore.Options{Path: tt.path}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// A database that an older version made gets what it lacks, and keeps what it has.
func TestAnOlderVersionsTables(t *testing.T) {
	for version := int64(1); version <= 3; version++ {
		path := filepath.Join(t.TempDir(), "p.db")
		db, _ := sql.Open("sqlite", path)
		older, err := goose.NewProvider(goose.DialectSQLite3, db, os.DirFS("migrations"), goose.WithDisableGlobalRegistry(true))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := older.UpTo(t.Context(), version); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(`INSERT INTO account (public_id, status, version, backend_name, created) VALUES ('a', 0, 1, '', 1);
INSERT INTO login_name VALUES ('alice@example.test', 1, 0);
INSERT INTO app_password (account, label, key, digest, scopes, networks, created) VALUES (1, 'Phone', 1, zeroblob(32), 1, '', 1);
INSERT INTO event (at, account, app_password, kind, actor, detail) VALUES (1, 1, 1, 'password.created', 'cli:root', 'Phone')`); err != nil {
			t.Fatal(err)
		}
		db.Close()
		s := open(t, sqlstore.Options{Path: path})
		if a, err := s.Account(t.Context(), "alice@example.test"); err != nil || a.PublicID != "a" {
			t.Errorf("version %d: the account is %+v, %v", version, a, err)
		}
		if list, err := s.Passwords(t.Context(), 1, true); err != nil || len(list) != 1 || list[0].Label != "Phone" {
			t.Errorf("version %d: the app passwords are %+v, %v", version, list, err)
		}
		if list, err := s.Events(t.Context(), authstore.EventQuery{Account: 1, Limit: 10}); err != nil || len(list) != 1 || list[0].Actor != (authstore.Actor{Name: "cli:root"}) {
			t.Errorf("version %d: the history is %+v, %v", version, list, err)
		}
	}
}

// A gateway that was started before the upgrade runs on, and reads the columns that it knows: of a narrowed app password it sees no scope
// that would open all of what is narrowed. So it refuses what it can't enforce.
func TestAnOlderGatewayOpensNothingThatIsNarrowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.db")
	s := open(t, sqlstore.Options{Path: path})
	a, _, err := s.AddAccount(t.Context(), tester, "alice@example.test", "a")
	if err != nil {
		t.Fatal(err)
	}
	p := authstore.NewPassword{Account: a.ID, Label: "x", Key: 1, Digest: func(authstore.AccountID) authstore.Digest { return authstore.Digest{} },
		Scopes:      authstore.ScopeMail | authstore.NarrowedScopes,
		Collections: []authstore.Collection{{Kind: authstore.CalendarCollection, Name: "work"}, {Kind: authstore.ContactsCollection, Name: "team"}}}
	if _, _, err := s.CreatePassword(t.Context(), tester, p); err != nil {
		t.Fatal(err)
	}
	db, _ := sql.Open("sqlite", path)
	defer db.Close()
	var older authstore.Scopes
	if err := db.QueryRow("SELECT scopes FROM app_password").Scan(&older); err != nil || older != authstore.ScopeMail {
		t.Errorf("an older gateway reads %v, %v; want mail alone", older, err)
	}
	for damage, what := range map[string]string{
		"UPDATE app_password SET collections = ''":                            "without collections",
		"UPDATE app_password SET collections = 'calendar/work\n'":             "names no collection",
		"UPDATE app_password SET collections = 'calendar/work', narrowed = 0": "the other way round",
	} {
		if _, err := db.Exec(damage); err != nil {
			t.Fatal(err)
		}
		if snapshot, err := s.Load(t.Context(), "alice@example.test"); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %+v, %v; want an error about %q", damage, snapshot, err, what)
		}
		if _, err := db.Exec("UPDATE app_password SET narrowed = $1", int(authstore.NarrowedScopes)); err != nil {
			t.Fatal(err)
		}
	}
}

func garbage(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "g.db")
	os.WriteFile(path, []byte(strings.Repeat("garbage ", 1000)), 0o600)
	return path
}

func TestYesterdaysCopyIsToldByItsFeed(t *testing.T) {
	s := open(t, sqlstore.Options{})
	s.AddAccount(t.Context(), tester, "alice@example.test", "a")
	path := filepath.Join(t.TempDir(), "copy.db")
	if err := s.Backup(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	copied := open(t, sqlstore.Options{Path: path})
	s.AddAccount(t.Context(), tester, "bob@example.test", "b")
	copied.AddAccount(t.Context(), tester, "carol@example.test", "c")
	ours, _ := s.Tail(t.Context(), "", 2)
	theirs, _ := copied.Tail(t.Context(), "", 2)
	if ours.Changes[0].Mark == theirs.Changes[0].Mark {
		t.Error("two histories have the same mark")
	}
}

// A process that holds the write lock (stopped there, say) makes a revocation fail in plain words, and nothing is changed.
func TestAHeldWriteLockIsTold(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "p.db")
	s := open(t, sqlstore.Options{Path: path})
	a, _, err := s.AddAccount(t.Context(), tester, "alice@example.test", "a")
	if err != nil {
		t.Fatal(err)
	}
	db, _ := sql.Open("sqlite", "file:"+path+"?_txlock=immediate")
	defer db.Close()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := s.RevokeAll(t.Context(), tester, a.ID, ""); err == nil || !strings.Contains(err.Error(), "nothing was changed: another process has held") {
		t.Errorf("RevokeAll = %v", err)
	}
	if tail, err := s.Tail(t.Context(), "", 0); err != nil || tail.Counter != 1 {
		t.Errorf("the tail waits for the write lock or sees a change: %+v, %v", tail, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.RevokeAll(ctx, tester, a.ID, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("with a cancelled context: %v", err)
	}
}

func benchmarkStore(b *testing.B, passwords int) (*sqlstore.Store, authstore.Account) {
	s := open(b, sqlstore.Options{})
	a, _, err := s.AddAccount(b.Context(), tester, "alice@example.test", "a")
	if err != nil {
		b.Fatal(err)
	}
	for range passwords {
		if _, _, err := s.CreatePassword(b.Context(), tester, authstore.NewPassword{Account: a.ID, Label: "x", Key: 1,
			Digest: func(authstore.AccountID) authstore.Digest { return authstore.Digest{} }, Scopes: authstore.ScopeMail}); err != nil {
			b.Fatal(err)
		}
	}
	return s, a
}

func BenchmarkLoad5(b *testing.B)  { benchmarkLoad(b, 5) }
func BenchmarkLoad25(b *testing.B) { benchmarkLoad(b, 25) }

func benchmarkLoad(b *testing.B, passwords int) {
	s, _ := benchmarkStore(b, passwords)
	for b.Loop() {
		if snap, err := s.Load(b.Context(), "alice@example.test"); err != nil || len(snap.Active) != passwords {
			b.Fatal(snap, err)
		}
	}
}

func BenchmarkCreateAndRevoke(b *testing.B) {
	s, a := benchmarkStore(b, 0)
	for b.Loop() {
		p, _, err := s.CreatePassword(b.Context(), tester, authstore.NewPassword{Account: a.ID, Label: "x",
			Digest: func(authstore.AccountID) authstore.Digest { return authstore.Digest{} }})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Revoke(b.Context(), tester, p.ID, ""); err != nil {
			b.Fatal(err)
		}
	}
}

func TestLook(t *testing.T) {
	t.Parallel()
	s := open(t, sqlstore.Options{Path: filepath.Join(t.TempDir(), "p.db")})
	if got, err := s.Look(t.Context(), "ldap"); got != nil || err != nil {
		t.Errorf("before any: %q, %v", got, err)
	}
	for _, result := range []string{`{"a":1}`, `{"a":2}`} {
		if err := s.SetLook(t.Context(), "ldap", []byte(result)); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Look(t.Context(), "ldap"); string(got) != result || err != nil {
			t.Errorf("Look = %q, %v", got, err)
		}
	}
	if got, err := s.Look(t.Context(), "another"); got != nil || err != nil {
		t.Errorf("of another: %q, %v", got, err)
	}
}
