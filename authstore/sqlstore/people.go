package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"net/netip"
	"strings"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
)

var _ identity.Truth = (*Store)(nil)

// reader is a database or a transaction.
type reader interface {
	querier
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Person reads an account with what it signs in with.
func (s *Store) Person(ctx context.Context, id authstore.AccountID) (identity.Person, error) {
	return s.person(ctx, "a.id = $1", int64(id))
}

// PersonNamed finds an account by one of its names.
func (s *Store) PersonNamed(ctx context.Context, address string) (identity.Person, error) {
	return s.person(ctx, "a.id = (SELECT account FROM login_name WHERE address = $1)", address)
}

// PersonWithHandle finds an account by its public id.
func (s *Store) PersonWithHandle(ctx context.Context, publicID string) (identity.Person, error) {
	return s.person(ctx, "a.public_id = $1", publicID)
}

func (s *Store) person(ctx context.Context, where string, arg any) (identity.Person, error) {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}) // its rows belong together
	if err != nil {
		return identity.Person{}, err
	}
	defer tx.Rollback()
	return readPerson(ctx, tx, where, arg)
}

func readPerson(ctx context.Context, r reader, where string, arg any) (identity.Person, error) {
	var p identity.Person
	var key sql.NullInt64
	err := r.QueryRowContext(ctx, `SELECT a.id, a.public_id, a.status, a.language, a.zone, a.admin, p.key, p.sealed
FROM account a LEFT JOIN primary_password p ON p.account = a.id WHERE `+where, arg).
		Scan(&p.ID, &p.PublicID, &p.Status, &p.Language, &p.Zone, &p.Admin, &key, &p.Primary.Value)
	if err != nil {
		return p, notFound(err)
	}
	p.Primary.Key = uint32(key.Int64)
	if p.Names, err = readNames(ctx, r, p.ID); err != nil {
		return p, err
	}
	if p.Ties, err = readTies(ctx, r, p.ID); err != nil {
		return p, err
	}
	if p.Factors, err = readFactors(ctx, r, p.ID); err != nil {
		return p, err
	}
	p.Recovery, err = collect(ctx, r, func(rows *sql.Rows, c *identity.StoredCode) error {
		return rows.Scan(&c.Number, &c.Sealed.Key, &c.Sealed.Value)
	}, "SELECT number, key, sealed FROM recovery_code WHERE account = $1 AND used IS NULL ORDER BY number", int64(p.ID))
	return p, err
}

// PersonTied finds the account that is bound to a person at another server.
func (s *Store) PersonTied(ctx context.Context, issuer, subject string) (identity.Person, error) {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return identity.Person{}, err
	}
	defer tx.Rollback()
	var id int64
	if err := tx.QueryRowContext(ctx, "SELECT account FROM tie WHERE issuer = $1 AND subject = $2", issuer, subject).Scan(&id); err != nil {
		return identity.Person{}, notFound(err)
	}
	return readPerson(ctx, tx, "a.id = $1", id)
}

func readTies(ctx context.Context, q querier, id authstore.AccountID) ([]identity.Tie, error) {
	return collect(ctx, q, func(rows *sql.Rows, t *identity.Tie) error {
		var changed, created, seen sql.NullInt64
		var groups string
		err := rows.Scan(&t.Issuer, &t.Subject, &groups, &changed, &t.Factor, &created, &seen)
		t.Groups, t.PrimaryChanged, t.Created, t.Seen = splitLines(groups), fromSeconds(changed), fromSeconds(created), fromSeconds(seen)
		return err
	}, "SELECT issuer, subject, groups, primary_changed, factor, created, seen FROM tie WHERE account = $1 ORDER BY issuer", int64(id))
}

// Tied lists the accounts that are bound to an issuer's people, by number from one on, exclusive.
func (s *Store) Tied(ctx context.Context, issuer string, after authstore.AccountID, limit int) ([]identity.Tied, error) {
	return collect(ctx, s.read, func(rows *sql.Rows, t *identity.Tied) error {
		var changed, created, seen sql.NullInt64
		var groups string
		err := rows.Scan(&t.Account, &t.Address, &t.Status, &t.Issuer, &t.Subject, &groups, &changed, &created, &seen)
		t.Groups, t.PrimaryChanged, t.Created, t.Seen = splitLines(groups), fromSeconds(changed), fromSeconds(created), fromSeconds(seen)
		return err
	}, `SELECT a.id, n.address, a.status, t.issuer, t.subject, t.groups, t.primary_changed, t.created, t.seen
FROM tie t JOIN account a ON a.id = t.account JOIN login_name n ON n.account = a.id AND n.ordinal = 0
WHERE t.issuer = $1 AND a.id > $2 ORDER BY a.id LIMIT $3`, issuer, int64(after), limit)
}

func splitLines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// collect reads the rows of a query.
func collect[T any](ctx context.Context, q querier, scan func(*sql.Rows, *T) error, query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []T
	for rows.Next() {
		var v T
		if err := scan(rows, &v); err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}

func readNames(ctx context.Context, q querier, id authstore.AccountID) ([]string, error) {
	return collect(ctx, q, func(rows *sql.Rows, name *string) error { return rows.Scan(name) },
		"SELECT address FROM login_name WHERE account = $1 ORDER BY ordinal", int64(id))
}

func readFactors(ctx context.Context, q querier, id authstore.AccountID) ([]identity.StoredFactor, error) {
	return collect(ctx, q, func(rows *sql.Rows, f *identity.StoredFactor) error {
		var created, used sql.NullInt64
		err := rows.Scan(&f.ID, &f.Kind, &f.Label, &created, &used, &f.Credential, &f.Sealed.Key, &f.Sealed.Value, &f.Step)
		f.Created, f.LastUsed = fromSeconds(created), fromSeconds(used)
		return err
	}, "SELECT id, kind, label, created, last_used, credential, key, sealed, step FROM factor WHERE account = $1 ORDER BY id", int64(id))
}

const sessionQuery = `
SELECT s.id, s.account, n.address, a.status, a.language, a.zone, a.admin, s.stage, s.began, s.seen, s.factor_at, s.method, s.client, s.agent,
  s.issuer, s.subject, s.sid, COALESCE((SELECT json_group_array(json_array(t.issuer, t.groups)) FROM tie t WHERE t.account = a.id AND t.groups <> ''), '[]')
FROM portal_session s JOIN account a ON a.id = s.account JOIN login_name n ON n.account = a.id AND n.ordinal = 0
WHERE `

func readSessions(ctx context.Context, q querier, where string, args ...any) ([]identity.StoredSession, error) {
	return collect(ctx, q, func(rows *sql.Rows, s *identity.StoredSession) error {
		var began, seen, factorAt sql.NullInt64
		var client, groups string
		err := rows.Scan(&s.ID, &s.Account, &s.Address, &s.Status, &s.Language, &s.Zone, &s.Admin, &s.Stage, &began, &seen, &factorAt, &s.Method,
			&client, &s.Agent, &s.Issuer, &s.Subject, &s.SID, &groups)
		if err == nil {
			s.Groups, err = readTold(groups)
		}
		s.Began, s.Seen, s.FactorAt = fromSeconds(began), fromSeconds(seen), fromSeconds(factorAt)
		s.Client, _ = netip.ParseAddr(client) // empty: none
		return err
	}, sessionQuery+where+" ORDER BY s.id DESC", args...)
}

// readTold reads what issuers told of groups, from pairs in JSON.
func readTold(text string) (list []identity.Told, err error) {
	var pairs [][2]string
	err = json.Unmarshal([]byte(text), &pairs)
	for _, p := range pairs {
		list = append(list, identity.Told{Issuer: p[0], Groups: splitLines(p[1])})
	}
	return list, err
}

// SessionWith finds a session by its token's digest.
func (s *Store) SessionWith(ctx context.Context, digest []byte) (identity.StoredSession, error) {
	return one(readSessions(ctx, s.read, "s.digest = $1", digest))
}

// SessionNumbered finds a session by its number.
func (s *Store) SessionNumbered(ctx context.Context, id identity.SessionID) (identity.StoredSession, error) {
	return one(readSessions(ctx, s.read, "s.id = $1", int64(id)))
}

// SessionsOf lists an account's sessions, the latest first.
func (s *Store) SessionsOf(ctx context.Context, id authstore.AccountID) ([]identity.StoredSession, error) {
	return readSessions(ctx, s.read, "s.account = $1", int64(id))
}

// SessionsFrom lists the sessions that began with an issuer's claims.
func (s *Store) SessionsFrom(ctx context.Context, issuer, subject, sid string) ([]identity.StoredSession, error) {
	if issuer == "" || subject == "" && sid == "" {
		return nil, nil
	}
	return readSessions(ctx, s.read, "s.issuer = $1 AND s.issuer <> '' AND ($2 = '' OR s.subject = $2) AND ($3 = '' OR s.sid = $3)", issuer, subject, sid)
}

// Seen notes when a session was last seen.
func (s *Store) Seen(ctx context.Context, id identity.SessionID, at time.Time) error {
	_, err := s.write.ExecContext(ctx, "UPDATE portal_session SET seen = $2 WHERE id = $1 AND seen < $2", int64(id), at.Unix())
	return plain(err)
}

// InvitationWith finds an invitation by its secret's digest.
func (s *Store) InvitationWith(ctx context.Context, digest []byte) (identity.StoredInvitation, error) {
	return readInvitation(ctx, s.read, "digest = $1", digest)
}

func readInvitation(ctx context.Context, r reader, where string, args ...any) (identity.StoredInvitation, error) {
	var i identity.StoredInvitation
	var created, expires sql.NullInt64
	err := r.QueryRowContext(ctx, "SELECT account, purpose, created, expires FROM invitation WHERE "+where, args...).
		Scan(&i.Account, &i.Purpose, &created, &expires)
	i.Created, i.Expires = fromSeconds(created), fromSeconds(expires)
	return i, notFound(err)
}

// PrunePeople forgets sessions that have run out, invitations, spent things and buckets that are over.
func (s *Store) PrunePeople(ctx context.Context, gone identity.Bounds) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return plain(err)
	}
	defer tx.Rollback()
	now := s.now()
	for _, old := range []struct {
		query string
		args  []any
	}{
		{"DELETE FROM portal_session WHERE stage = $1 AND (seen < $2 OR began < $3)", []any{int(identity.SignedIn), gone.Seen.Unix(), gone.Began.Unix()}},
		{"DELETE FROM portal_session WHERE stage = $1 AND began < $2", []any{int(identity.AwaitsFactor), gone.SignIn.Unix()}},
		{"DELETE FROM portal_session WHERE stage = $1 AND began < $2", []any{int(identity.AwaitsSetUp), gone.SetUp.Unix()}},
		{"DELETE FROM invitation WHERE expires < $1", []any{now.Unix()}},
		{"DELETE FROM spent WHERE until < $1", []any{now.Unix()}},
		{"DELETE FROM budget WHERE empty < $1", []any{now.UnixMilli()}},
	} {
		if _, err := tx.ExecContext(ctx, old.query, old.args...); err != nil {
			return plain(err)
		}
	}
	return plain(tx.Commit())
}
