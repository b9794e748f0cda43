package sqlstore

import (
	"context"
	"strings"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
)

// act is an identity.Tx. Like other changes, those that take something away must get through on a full disk.
type act struct {
	change
	store  *Store
	feed   bool // it ends with a row of the feed
	urgent urgent
}

// Act changes what belongs to one account in one transaction.
func (s *Store) Act(ctx context.Context, who authstore.Actor, id authstore.AccountID, do func(identity.Tx) error) (authstore.Change, error) {
	a, err := s.tryAct(ctx, who, id, do)
	if s.madeRoom(err, a.urgent) {
		a, err = s.tryAct(ctx, who, id, do)
	}
	if err != nil {
		return authstore.Change{}, plain(err)
	}
	return a.Change, nil
}

func (s *Store) tryAct(ctx context.Context, who authstore.Actor, id authstore.AccountID, do func(identity.Tx) error) (*act, error) {
	a := &act{store: s}
	a.event.Actor = who
	a.Account = id
	var err error
	if a.Tx, err = s.write.BeginTx(ctx, nil); err != nil {
		return a, err
	}
	defer a.Rollback()
	if err := a.stillSignedIn(ctx); err != nil {
		return a, err
	}
	if err := do(a); err != nil {
		return a, err
	}
	if a.feed {
		if err := s.record(ctx, &a.change); err != nil {
			return a, err
		}
	}
	return a, commit(a.Tx)
}

func (a *act) id() int64 { return int64(a.Account) }

// run executes what need not hit a row.
func (a *act) run(ctx context.Context, query string, args ...any) error {
	_, err := a.ExecContext(ctx, query, args...)
	return err
}

// once reports whether a statement hit a row.
func (a *act) once(ctx context.Context, query string, args ...any) (bool, error) {
	r, err := a.ExecContext(ctx, query, args...)
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n > 0, err
}

func (a *act) Person(ctx context.Context) (identity.Person, error) {
	return readPerson(ctx, a.Tx, "a.id = $1", a.id())
}

func (a *act) SessionNumbered(ctx context.Context, id identity.SessionID) (identity.StoredSession, error) {
	return one(readSessions(ctx, a.Tx, "s.id = $1 AND s.account = $2", int64(id), a.id()))
}

func (a *act) InvitationWith(ctx context.Context, digest []byte) (identity.StoredInvitation, error) {
	return readInvitation(ctx, a.Tx, "digest = $1 AND account = $2", digest, a.id())
}

func (a *act) Event(ctx context.Context, kind, detail string) error {
	return a.store.appendEvent(ctx, a.Tx, authstore.Event{Account: a.Account, Kind: kind, Actor: a.event.Actor, Detail: detail})
}

func (a *act) Refund(ctx context.Context, charges []identity.Charge) error {
	return refund(ctx, a.Tx, charges)
}

func (a *act) Spend(ctx context.Context, digest []byte, until time.Time) (bool, error) {
	return a.once(ctx, "INSERT INTO spent (digest, until) VALUES ($1, $2) ON CONFLICT DO NOTHING", digest, until.Unix())
}

func (a *act) AddSession(ctx context.Context, s identity.Session, digest []byte, keep int) (identity.SessionID, error) {
	var id identity.SessionID
	if err := a.QueryRowContext(ctx, `INSERT INTO portal_session (digest, account, stage, began, seen, factor_at, method, client, agent, issuer, subject, sid)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING id`, digest, a.id(), int(s.Stage), s.Began.Unix(), s.Seen.Unix(), seconds(s.FactorAt),
		s.Method, addressText(s.Client), s.Agent, s.Issuer, s.Subject, s.SID).Scan(&id); err != nil {
		return 0, err
	}
	return id, a.run(ctx, `DELETE FROM portal_session WHERE account = $1 AND stage = $2
AND id < (SELECT min(id) FROM (SELECT id FROM portal_session WHERE account = $1 AND stage = $2 ORDER BY id DESC LIMIT $3) AS kept)`,
		a.id(), int(s.Stage), keep)
}

func (a *act) ChangeSession(ctx context.Context, s identity.Session, digest []byte) error {
	return affected(a.ExecContext(ctx, `UPDATE portal_session SET digest = $3, stage = $4, seen = $5, factor_at = $6, method = $7, sid = $8
WHERE id = $1 AND account = $2`, int64(s.ID), a.id(), digest, int(s.Stage), s.Seen.Unix(), seconds(s.FactorAt), s.Method, s.SID))
}

func (a *act) EndSession(ctx context.Context, id identity.SessionID) error {
	a.urgent = true
	return affected(a.ExecContext(ctx, "DELETE FROM portal_session WHERE id = $1 AND account = $2", int64(id), a.id()))
}

func (a *act) EndSessions(ctx context.Context, but identity.SessionID) (int, error) {
	a.urgent = true
	var n int
	if err := a.QueryRowContext(ctx, "SELECT count(*) FROM portal_session WHERE account = $1 AND id <> $2 AND stage = $3",
		a.id(), int64(but), int(identity.SignedIn)).Scan(&n); err != nil {
		return 0, err
	}
	return n, a.run(ctx, "DELETE FROM portal_session WHERE account = $1 AND id <> $2", a.id(), int64(but))
}

func (a *act) SetPrimary(ctx context.Context, sealed identity.Sealed, changed time.Time) error {
	return a.run(ctx, `INSERT INTO primary_password (account, key, sealed, changed) VALUES ($1, $2, $3, $4)
ON CONFLICT (account) DO UPDATE SET key = excluded.key, sealed = excluded.sealed, changed = excluded.changed`,
		a.id(), sealed.Key, sealed.Value, changed.Unix())
}

func (a *act) ForgetPrimary(ctx context.Context) error {
	a.urgent = true
	return a.run(ctx, "DELETE FROM primary_password WHERE account = $1", a.id())
}

func (a *act) RevokeAll(ctx context.Context, why string) (int, error) {
	a.feed, a.urgent = true, true
	before := len(a.Ended)
	err := a.store.revokeAll(ctx, &a.change, why)
	return len(a.Ended) - before, err
}

func (a *act) SetPreferences(ctx context.Context, language, zone string) error {
	return affected(a.ExecContext(ctx, "UPDATE account SET language = $2, zone = $3 WHERE id = $1", a.id(), language, zone))
}

func (a *act) SetTie(ctx context.Context, t identity.Tie) error {
	var groups []string // a group's name with a line break in it would be two
	for _, g := range t.Groups {
		if g != "" && !strings.ContainsRune(g, '\n') {
			groups = append(groups, g)
		}
	}
	err := a.run(ctx, `INSERT INTO tie (issuer, subject, account, groups, primary_changed, factor, created, seen) VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
ON CONFLICT (account, issuer) DO UPDATE SET subject = excluded.subject, groups = excluded.groups,
  primary_changed = excluded.primary_changed, factor = excluded.factor, seen = excluded.seen`,
		t.Issuer, t.Subject, a.id(), strings.Join(groups, "\n"), seconds(t.PrimaryChanged), t.Factor, t.Seen.Unix())
	if isUnique(err) {
		return identity.ErrTied
	}
	return err
}

func (a *act) RemoveTie(ctx context.Context, issuer string) error {
	a.urgent = true
	return affected(a.ExecContext(ctx, "DELETE FROM tie WHERE account = $1 AND issuer = $2", a.id(), issuer))
}

func (a *act) AddFactor(ctx context.Context, f identity.StoredFactor, seal func(identity.FactorID) (identity.Sealed, error)) (identity.FactorID, error) {
	var credential any // NULL where there is none
	if f.Credential != nil {
		credential = f.Credential
	}
	var id identity.FactorID
	if err := a.QueryRowContext(ctx, `INSERT INTO factor (account, kind, label, created, last_used, credential, key, sealed, step)
VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8) RETURNING id`, a.id(), string(f.Kind), f.Label, f.Created.Unix(), seconds(f.LastUsed),
		credential, []byte{0}, f.Step).Scan(&id); err != nil {
		if isUnique(err) {
			return 0, identity.ErrKnownFactor
		}
		return 0, err
	}
	sealed, err := seal(id)
	if err != nil {
		return 0, err
	}
	return id, a.run(ctx, "UPDATE factor SET key = $2, sealed = $3 WHERE id = $1", int64(id), sealed.Key, sealed.Value)
}

func (a *act) TakeStep(ctx context.Context, id identity.FactorID, step int64) (bool, error) {
	return a.once(ctx, "UPDATE factor SET step = $3 WHERE id = $1 AND account = $2 AND step < $3", int64(id), a.id(), step)
}

func (a *act) UseFactor(ctx context.Context, id identity.FactorID, sealed identity.Sealed, at time.Time) error {
	if err := affected(a.ExecContext(ctx, "UPDATE factor SET last_used = $3 WHERE id = $1 AND account = $2", int64(id), a.id(), at.Unix())); err != nil {
		return err
	}
	if sealed.Key == 0 {
		return nil
	}
	return a.run(ctx, "UPDATE factor SET key = $2, sealed = $3 WHERE id = $1", int64(id), sealed.Key, sealed.Value)
}

func (a *act) RenameFactor(ctx context.Context, id identity.FactorID, label string) error {
	return affected(a.ExecContext(ctx, "UPDATE factor SET label = $3 WHERE id = $1 AND account = $2", int64(id), a.id(), label))
}

func (a *act) RemoveFactor(ctx context.Context, id identity.FactorID) error {
	a.urgent = true
	return affected(a.ExecContext(ctx, "DELETE FROM factor WHERE id = $1 AND account = $2", int64(id), a.id()))
}

func (a *act) RemoveFactors(ctx context.Context) error {
	a.urgent = true
	if err := a.run(ctx, "DELETE FROM factor WHERE account = $1", a.id()); err != nil {
		return err
	}
	return a.run(ctx, "DELETE FROM recovery_code WHERE account = $1", a.id())
}

func (a *act) UseRecovery(ctx context.Context, number int, at time.Time) (bool, error) {
	return a.once(ctx, "UPDATE recovery_code SET used = $3 WHERE account = $1 AND number = $2 AND used IS NULL", a.id(), number, at.Unix())
}

func (a *act) SetRecovery(ctx context.Context, codes []identity.Sealed) error {
	if err := a.run(ctx, "DELETE FROM recovery_code WHERE account = $1", a.id()); err != nil {
		return err
	}
	for i, c := range codes {
		if err := a.run(ctx, "INSERT INTO recovery_code (account, number, key, sealed) VALUES ($1, $2, $3, $4)", a.id(), i+1, c.Key, c.Value); err != nil {
			return err
		}
	}
	return nil
}

func (a *act) SetInvitation(ctx context.Context, i identity.StoredInvitation, digest []byte) error {
	return a.run(ctx, `INSERT INTO invitation (account, digest, purpose, created, expires) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (account) DO UPDATE SET digest = excluded.digest, purpose = excluded.purpose, created = excluded.created, expires = excluded.expires`,
		a.id(), digest, string(i.Purpose), i.Created.Unix(), i.Expires.Unix())
}

func (a *act) RemoveInvitation(ctx context.Context) error {
	return a.run(ctx, "DELETE FROM invitation WHERE account = $1", a.id())
}
