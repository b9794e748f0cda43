package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"postern/authstore"
)

// remembered is how long an app password that ended is told from one that never was.
const remembered = 90 * 24 * time.Hour

// loadQuery reads a whole snapshot in one statement, so that the counter belongs to what stands beside it. Active app
// passwords come first, then those that ended last.
const loadQuery = `
SELECT f.counter, m.value, a.id, a.public_id, own.address, a.status, a.version, a.backend_name,
       p.id, p.key, p.digest, p.scopes, p.narrowed, p.collections, p.networks, p.expires, p.revoked
FROM feed f
JOIN meta m ON m.name = 'epoch'
LEFT JOIN login_name n ON n.address = $1
LEFT JOIN account a ON a.id = n.account
LEFT JOIN login_name own ON own.account = a.id AND own.ordinal = 0
LEFT JOIN app_password p ON p.account = a.id
     AND (p.revoked IS NULL OR p.revoked > $2) AND (p.expires IS NULL OR p.expires > $2)
ORDER BY CASE WHEN p.revoked IS NULL AND (p.expires IS NULL OR p.expires > $3) THEN 0 ELSE 1 END,
         COALESCE(p.revoked, p.expires) DESC
LIMIT $4`

// Load reads the snapshot of a login name.
func (s *Store) Load(ctx context.Context, address string) (*authstore.Snapshot, error) {
	now := s.now()
	rows, err := s.load.QueryContext(ctx, address, now.Add(-remembered).Unix(), now.Unix(), authstore.MaxActive+authstore.MaxEnded)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	snap := &authstore.Snapshot{}
	for rows.Next() {
		v, err := scanVerifiable(rows, snap)
		switch {
		case err != nil:
			return nil, err
		case v == nil: // no account, or no app password
		case v.Revoked || !v.Expires.IsZero() && !v.Expires.After(now):
			snap.Ended = append(snap.Ended, *v)
		default:
			snap.Active = append(snap.Active, *v)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if snap.Epoch == "" {
		return nil, fmt.Errorf("the database has no epoch or no feed counter: it is not whole")
	}
	if len(snap.Ended) > authstore.MaxEnded {
		snap.Ended = snap.Ended[:authstore.MaxEnded]
	}
	return snap, nil
}

func scanVerifiable(rows *sql.Rows, snap *authstore.Snapshot) (*authstore.Verifiable, error) {
	var (
		epoch                                                 []byte
		account, status, version, id, key, scopes, expires    sql.NullInt64
		narrowed, revoked                                     sql.NullInt64
		publicID, address, backendName, networks, collections sql.NullString
		digest                                                []byte
	)
	if err := rows.Scan(&snap.Sequence, &epoch, &account, &publicID, &address, &status, &version, &backendName,
		&id, &key, &digest, &scopes, &narrowed, &collections, &networks, &expires, &revoked); err != nil {
		return nil, err
	}
	snap.Epoch = string(epoch)
	snap.Account, snap.PublicID, snap.Address, snap.BackendName = authstore.AccountID(account.Int64), publicID.String, address.String, backendName.String
	snap.Status, snap.Version = authstore.Status(status.Int64), uint64(version.Int64)
	if !id.Valid {
		return nil, nil
	}
	v := &authstore.Verifiable{ID: authstore.PasswordID(id.Int64), Key: uint32(key.Int64), Scopes: authstore.Scopes(scopes.Int64 | narrowed.Int64),
		Expires: fromSeconds(expires), Revoked: revoked.Valid}
	if copy(v.Digest[:], digest) != len(v.Digest) {
		return nil, fmt.Errorf("the digest of app password %d has %d bytes", v.ID, len(digest))
	}
	var err error
	if v.Collections, err = splitCollections(v.ID, narrowed.Int64, collections.String); err != nil {
		return nil, err
	}
	v.Networks, err = splitNetworks(networks.String)
	return v, err
}

func joinNetworks(networks []netip.Prefix) string {
	texts := make([]string, len(networks))
	for i, n := range networks {
		texts[i] = n.String()
	}
	return strings.Join(texts, " ")
}

func splitNetworks(text string) ([]netip.Prefix, error) {
	var networks []netip.Prefix
	for _, field := range strings.Fields(text) {
		n, err := netip.ParsePrefix(field)
		if err != nil {
			return nil, err
		}
		networks = append(networks, n)
	}
	return networks, nil
}

// An app password's scopes stand in two columns: those that its collections narrow in one that older versions, which know no
// collections, do not read. A gateway that was started before the upgrade opens nothing of these, instead of all.

func splitScopes(p *authstore.NewPassword) (open, narrowed authstore.Scopes) {
	if len(p.Collections) == 0 {
		return p.Scopes, 0
	}
	return p.Scopes &^ authstore.NarrowedScopes, p.Scopes & authstore.NarrowedScopes
}

// joinCollections writes a line each: no name holds a line break.
func joinCollections(list []authstore.Collection) string {
	return strings.Join(authstore.CollectionTexts(list), "\n")
}

// splitCollections refuses scopes that are narrowed to nothing: no collections would mean all.
func splitCollections(id authstore.PasswordID, narrowed int64, text string) ([]authstore.Collection, error) {
	if (narrowed == 0) != (text == "") {
		return nil, fmt.Errorf("app password %d has narrowed scopes without collections, or the other way round", id)
	}
	if text == "" {
		return nil, nil
	}
	var list []authstore.Collection
	for line := range strings.SplitSeq(text, "\n") {
		c, err := authstore.ParseCollection(line)
		if err != nil {
			return nil, fmt.Errorf("app password %d: %w", id, err)
		}
		list = append(list, c)
	}
	return list, nil
}

// joinTitles writes a line each, with the title behind a tab: neither names nor titles hold one.
func joinTitles(list []authstore.Collection, titles authstore.Titles) string {
	var lines []string
	for _, c := range list {
		if title := titles[c]; title != "" {
			lines = append(lines, c.String()+"\t"+title)
		}
	}
	return strings.Join(lines, "\n")
}

// splitTitles leaves out what it can't read: the name stands in for it, and nothing depends on a title.
func splitTitles(text string) authstore.Titles {
	if text == "" {
		return nil
	}
	titles := make(authstore.Titles)
	for line := range strings.SplitSeq(text, "\n") {
		name, title, _ := strings.Cut(line, "\t")
		if c, err := authstore.ParseCollection(name); err == nil && title != "" {
			titles[c] = title
		}
	}
	return titles
}

const accountQuery = `
SELECT a.id, a.public_id, a.status, a.version, a.backend_name, a.admin, a.created, n.address,
       COALESCE((SELECT string_agg(t.groups, '
') FROM tie t WHERE t.account = a.id AND t.groups <> ''), ''),
       (SELECT count(*) FROM app_password p WHERE p.account = a.id AND p.revoked IS NULL AND (p.expires IS NULL OR p.expires > $1))
FROM account a JOIN login_name n ON n.account = a.id
WHERE %s
ORDER BY a.id, n.ordinal`

// Accounts lists all accounts in the order they were made.
func (s *Store) Accounts(ctx context.Context) ([]authstore.Account, error) {
	return s.accounts(ctx, s.read, "1 = 1")
}

// Account finds an account by one of its names.
func (s *Store) Account(ctx context.Context, address string) (authstore.Account, error) {
	return one(s.accounts(ctx, s.read, "a.id = (SELECT account FROM login_name WHERE address = $2)", address))
}

// AccountNumbered finds an account by its number.
func (s *Store) AccountNumbered(ctx context.Context, id authstore.AccountID) (authstore.Account, error) {
	return one(s.accounts(ctx, s.read, "a.id = $2", int64(id)))
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func (s *Store) accounts(ctx context.Context, q querier, where string, args ...any) ([]authstore.Account, error) {
	rows, err := q.QueryContext(ctx, fmt.Sprintf(accountQuery, where), append([]any{s.now().Unix()}, args...)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []authstore.Account
	for rows.Next() {
		var a authstore.Account
		var name, groups string
		var created sql.NullInt64
		if err := rows.Scan(&a.ID, &a.PublicID, &a.Status, &a.Version, &a.BackendName, &a.Admin, &created, &name, &groups, &a.Passwords); err != nil {
			return nil, err
		}
		if n := len(list); n > 0 && list[n-1].ID == a.ID {
			list[n-1].Names = append(list[n-1].Names, name)
			continue
		}
		a.Created, a.Names, a.Groups = fromSeconds(created), []string{name}, splitLines(groups)
		list = append(list, a)
	}
	return list, rows.Err()
}

func one[T any](list []T, err error) (T, error) {
	var zero T
	if err != nil {
		return zero, err
	}
	if len(list) == 0 {
		return zero, authstore.ErrNotFound
	}
	return list[0], nil
}

const passwordQuery = `
SELECT p.id, p.account, p.label, p.scopes, p.narrowed, p.collections, p.titles, p.networks, p.created, p.expires, p.revoked, p.why, p.made_by,
       u.last, u.protocol, u.app, u.network, u.operator, (SELECT sum(count) FROM usage WHERE app_password = p.id),
       (SELECT sum(failures) FROM usage WHERE app_password = p.id)
FROM app_password p
LEFT JOIN usage u ON u.app_password = p.id AND u.count > 0 AND NOT EXISTS (
     SELECT 1 FROM usage o WHERE o.app_password = p.id AND o.count > 0
     AND (o.last > u.last OR o.last = u.last AND (o.protocol, o.app, o.network) > (u.protocol, u.app, u.network)))
WHERE %s
ORDER BY p.id`

// Passwords lists an account's app passwords, with those that ended if asked for.
func (s *Store) Passwords(ctx context.Context, id authstore.AccountID, ended bool) ([]authstore.AppPassword, error) {
	if ended {
		return s.passwords(ctx, "p.account = $1", int64(id))
	}
	return s.passwords(ctx, "p.account = $1 AND p.revoked IS NULL AND (p.expires IS NULL OR p.expires > $2)", int64(id), s.now().Unix())
}

// Password reads one app password.
func (s *Store) Password(ctx context.Context, id authstore.PasswordID) (authstore.AppPassword, error) {
	return one(s.passwords(ctx, "p.id = $1", int64(id)))
}

func (s *Store) passwords(ctx context.Context, where string, args ...any) ([]authstore.AppPassword, error) {
	rows, err := s.read.QueryContext(ctx, fmt.Sprintf(passwordQuery, where), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []authstore.AppPassword
	for rows.Next() {
		p, err := scanPassword(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, rows.Err()
}

func scanPassword(rows *sql.Rows) (authstore.AppPassword, error) {
	var (
		p                                       authstore.AppPassword
		networks, collections, titles           string
		narrowed                                int64
		created, expires, revoked, last, number sql.NullInt64
		failures                                sql.NullInt64
		protocol, app, network, operator        sql.NullString
	)
	if err := rows.Scan(&p.ID, &p.Account, &p.Label, &p.Scopes, &narrowed, &collections, &titles, &networks, &created, &expires, &revoked, &p.Why, &p.MadeBy,
		&last, &protocol, &app, &network, &operator, &number, &failures); err != nil {
		return p, err
	}
	p.Failures, p.Scopes = failures.Int64, p.Scopes|authstore.Scopes(narrowed)
	p.Created, p.Expires, p.Revoked = fromSeconds(created), fromSeconds(expires), fromSeconds(revoked)
	var err error
	if p.Collections, err = splitCollections(p.ID, narrowed, collections); err != nil {
		return p, err
	}
	p.Titles = splitTitles(titles)
	if p.Networks, err = splitNetworks(networks); err != nil {
		return p, err
	}
	if last.Valid {
		p.Last = &authstore.LastUse{At: fromSeconds(last), Protocol: protocol.String, App: app.String, Operator: operator.String, Count: number.Int64}
		p.Last.Network, err = netip.ParsePrefix(network.String)
	}
	return p, err
}

// Sealed reads an account's sealed password at a backend.
func (s *Store) Sealed(ctx context.Context, id authstore.AccountID, backend string) ([]byte, error) {
	var value []byte
	err := s.read.QueryRowContext(ctx, "SELECT value FROM sealed WHERE account = $1 AND backend = $2", int64(id), backend).Scan(&value)
	return value, notFound(err)
}

// KeyUse counts the rows that need each root key: digests that are still remembered, and all that is sealed.
func (s *Store) KeyUse(ctx context.Context) (map[uint32]int, error) {
	rows, err := s.read.QueryContext(ctx, `
SELECT key, count(*) FROM (
  SELECT key FROM app_password WHERE (revoked IS NULL OR revoked > $1) AND (expires IS NULL OR expires > $1)
  UNION ALL SELECT key FROM sealed
  UNION ALL SELECT key FROM primary_password
  UNION ALL SELECT key FROM factor
  UNION ALL SELECT key FROM recovery_code
  UNION ALL SELECT key FROM upstream_token) AS needed
GROUP BY key`, s.now().Add(-remembered).Unix())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	use := make(map[uint32]int)
	for rows.Next() {
		var key uint32
		var n int
		if err := rows.Scan(&key, &n); err != nil {
			return nil, err
		}
		use[key] = n
	}
	return use, rows.Err()
}
