package sqlstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"

	"postern/authstore"
	"postern/authstore/identity"
)

// change is one transaction that changes an account: what is done fills it in, and it ends with a row of the feed and one of the history.
type change struct {
	*sql.Tx
	authstore.Change
	event authstore.Event
}

// urgent says that a change takes something away, so that a full disk must not stop it.
type urgent bool

// inChange runs do in a transaction with the write lock held from its start. Commit order is sequence order, for the counter
// is taken inside.
func (s *Store) inChange(ctx context.Context, u urgent, actor authstore.Actor, kind string, do func(*change) error) (authstore.Change, error) {
	c, err := s.tryChange(ctx, actor, kind, do)
	if s.madeRoom(err, u) {
		c, err = s.tryChange(ctx, actor, kind, do)
	}
	return c, plain(err)
}

// madeRoom reports whether what failed on a full disk is worth another try, for the ballast was given up for it.
func (s *Store) madeRoom(err error, u urgent) bool {
	if !isFull(err) || !bool(u) || !s.ballast.free() {
		return false
	}
	s.log.Error("the database's disk is full; the ballast was given up for a revocation. Make room.")
	return true
}

func (s *Store) tryChange(ctx context.Context, actor authstore.Actor, kind string, do func(*change) error) (authstore.Change, error) {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return authstore.Change{}, err
	}
	defer tx.Rollback()
	c := &change{Tx: tx, event: authstore.Event{Kind: kind, Actor: actor}}
	if err := do(c); err != nil {
		if errors.Is(err, errNothingToDo) {
			return c.Change, nil
		}
		return authstore.Change{}, err
	}
	if err := c.stillSignedIn(ctx); err != nil {
		return authstore.Change{}, err
	}
	if err := s.record(ctx, c); err != nil {
		return authstore.Change{}, err
	}
	c.event.Account = c.Account
	if err := s.appendEvent(ctx, c.Tx, c.event); err != nil {
		return authstore.Change{}, err
	}
	if err := commit(tx); err != nil {
		return authstore.Change{}, err
	}
	return c.Change, nil
}

// stillSignedIn checks, with the write lock held, that the session in whose name the change is made goes on: what ended it, such as another
// primary password, must not be followed by what it had only begun. authstore.ErrSignedOut.
func (c *change) stillSignedIn(ctx context.Context) error {
	if c.event.Actor.Session == 0 {
		return nil
	}
	whose, by := c.Account, c.event.Actor.Administrator
	if by != nil {
		whose = by.Account
	}
	s, err := one(readSessions(ctx, c.Tx, "s.id = $1 AND s.account = $2", c.event.Actor.Session, int64(whose)))
	switch {
	case errors.Is(err, authstore.ErrNotFound), err == nil && s.Stage != identity.SignedIn: // suspending an account ends its sessions
		return authstore.ErrSignedOut
	case err != nil || by == nil:
		return err
	}
	if !s.Admin && !identity.InGroup(s.Groups, by.Issuer, by.Groups) {
		return authstore.ErrNotAdministrator
	}
	return nil
}

func commit(tx *sql.Tx) error {
	err := tx.Commit()
	if isUncertain(err) {
		return fmt.Errorf("%w; look again with \"postern password list\": %v", authstore.ErrUncertain, err)
	}
	return err
}

// errNothingToDo ends a change that is there already; the change then tells the sequence that made it so.
var errNothingToDo = errors.New("nothing to do")

// record appends the change to the feed.
func (s *Store) record(ctx context.Context, c *change) error {
	now := s.now().Unix()
	err := c.QueryRowContext(ctx, "UPDATE account SET version = version + 1 WHERE id = $1 RETURNING version", int64(c.Account)).Scan(&c.Version)
	if err != nil && !errors.Is(err, sql.ErrNoRows) { // no row: the account was removed
		return err
	}
	if err := c.QueryRowContext(ctx, "UPDATE feed SET counter = counter + 1 RETURNING counter").Scan(&c.Sequence); err != nil {
		return err
	}
	c.Mark = rand.Text()
	if _, err := c.ExecContext(ctx, "INSERT INTO change ("+changeColumns+", at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
		c.Sequence, c.Mark, int64(c.Account), c.Version, joinIDs(c.Ended), c.AllEnded, c.Names, now); err != nil {
		return err
	}
	if len(c.Ended) > 0 {
		if _, err := c.ExecContext(ctx, "UPDATE app_password SET ended_by = $1 WHERE account = $2 AND revoked IS NOT NULL AND ended_by IS NULL",
			c.Sequence, int64(c.Account)); err != nil {
			return err
		}
	}
	return nil
}

// affected turns "no row was hit" into ErrNotFound.
func affected(r sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return authstore.ErrNotFound
	}
	return nil
}

// AddAccount adds an account with its first login name.
func (s *Store) AddAccount(ctx context.Context, actor authstore.Actor, address, publicID string) (authstore.Account, authstore.Change, error) {
	c, err := s.inChange(ctx, false, actor, "account.added", func(c *change) error {
		c.Names = true
		if err := c.QueryRowContext(ctx, "INSERT INTO account (public_id, status, version, backend_name, created) VALUES ($1, $2, 0, '', $3) RETURNING id",
			publicID, int(authstore.Active), s.now().Unix()).Scan(&c.Account); err != nil {
			return err
		}
		c.event.Detail = address
		return addName(ctx, c, address)
	})
	if err != nil {
		return authstore.Account{}, c, err
	}
	a, err := s.Account(context.WithoutCancel(ctx), address) // it is done, whatever becomes of the caller
	return a, c, err
}

func addName(ctx context.Context, c *change, address string) error {
	_, err := c.ExecContext(ctx, `INSERT INTO login_name (address, account, ordinal)
SELECT $1, $2, COALESCE(max(ordinal) + 1, 0) FROM login_name WHERE account = $2`, address, int64(c.Account))
	if isUnique(err) {
		return authstore.ErrNameTaken
	}
	return err
}

// SetStatus suspends or resumes an account.
func (s *Store) SetStatus(ctx context.Context, actor authstore.Actor, id authstore.AccountID, status authstore.Status) (authstore.Change, error) {
	kind := "account.resumed"
	if status != authstore.Active {
		kind = "account.suspended"
	}
	return s.inChange(ctx, urgent(status != authstore.Active), actor, kind, func(c *change) error {
		c.Account, c.AllEnded = id, status != authstore.Active
		if c.AllEnded { // what is open ends at the portal too, and is not there again when the account is resumed
			if _, err := c.ExecContext(ctx, "DELETE FROM portal_session WHERE account = $1", int64(id)); err != nil {
				return err
			}
		}
		return affected(c.ExecContext(ctx, "UPDATE account SET status = $2 WHERE id = $1", int64(id), int(status)))
	})
}

// SetGone suspends an active account because its person is not in the directory any more, or takes that back. What an administrator has
// suspended stays so, and what is so already makes no change.
func (s *Store) SetGone(ctx context.Context, actor authstore.Actor, id authstore.AccountID, gone bool, why string) (authstore.Change, error) {
	kind, from, to := "account.returned", authstore.AccountGone, authstore.Active
	if gone {
		kind, from, to = "account.gone", authstore.Active, authstore.AccountGone
	}
	return s.inChange(ctx, urgent(gone), actor, kind, func(c *change) error {
		c.Account, c.AllEnded, c.event.Detail = id, gone, why
		switch err := affected(c.ExecContext(ctx, "UPDATE account SET status = $3 WHERE id = $1 AND status = $2", int64(id), int(from), int(to))); {
		case errors.Is(err, authstore.ErrNotFound):
			return errNothingToDo
		case err != nil || !gone:
			return err
		}
		_, err := c.ExecContext(ctx, "DELETE FROM portal_session WHERE account = $1", int64(id))
		return err
	})
}

// RemoveAccount removes an account with all that belongs to it.
func (s *Store) RemoveAccount(ctx context.Context, actor authstore.Actor, id authstore.AccountID) (authstore.Change, error) {
	return s.inChange(ctx, true, actor, "account.removed", func(c *change) error {
		c.Account, c.AllEnded, c.Names = id, true, true
		if _, err := c.ExecContext(ctx, "DELETE FROM upstream_token WHERE account = $1", int64(id)); err != nil { // it refers to none: one serves all accounts
			return err
		}
		return affected(c.ExecContext(ctx, "DELETE FROM account WHERE id = $1", int64(id)))
	})
}

// AddName adds a login name to an account.
func (s *Store) AddName(ctx context.Context, actor authstore.Actor, id authstore.AccountID, address string) (authstore.Change, error) {
	return s.inChange(ctx, false, actor, "alias.added", func(c *change) error {
		c.Account, c.Names, c.event.Detail = id, true, address
		return addName(ctx, c, address)
	})
}

// RemoveName removes an alias. The name that the account was made with stays.
func (s *Store) RemoveName(ctx context.Context, actor authstore.Actor, id authstore.AccountID, address string) (authstore.Change, error) {
	return s.inChange(ctx, true, actor, "alias.removed", func(c *change) error {
		c.Account, c.Names, c.event.Detail = id, true, address
		return affected(c.ExecContext(ctx, "DELETE FROM login_name WHERE account = $1 AND address = $2 AND ordinal > 0", int64(id), address))
	})
}

// SetBackendName sets an account's name towards backends; empty: the backend's template decides.
func (s *Store) SetBackendName(ctx context.Context, actor authstore.Actor, id authstore.AccountID, name string) (authstore.Change, error) {
	return s.inChange(ctx, false, actor, "account.backend_name", func(c *change) error {
		c.Account, c.event.Detail = id, name
		return affected(c.ExecContext(ctx, "UPDATE account SET backend_name = $2 WHERE id = $1", int64(id), name))
	})
}

// SetAdmin makes an account an administrator's, or takes that back. A link to it that an administrator made at the portal ends when it becomes
// one: for an administrator's account he could make none.
func (s *Store) SetAdmin(ctx context.Context, actor authstore.Actor, id authstore.AccountID, admin bool) (authstore.Change, error) {
	kind := "account.admin_made"
	if !admin {
		kind = "account.admin_ended"
	}
	return s.inChange(ctx, urgent(!admin), actor, kind, func(c *change) error {
		c.Account = id
		if admin { // a link that an administrator of the portal has made, and who has it now nobody knows, would make an administrator of whoever that is
			if _, err := c.ExecContext(ctx, `DELETE FROM invitation WHERE account = $1 AND EXISTS (SELECT 1 FROM event e
WHERE e.account = $1 AND e.kind = 'invitation.made' AND e.actor LIKE 'admin:%' AND e.at >= invitation.created)`, int64(id)); err != nil {
				return err
			}
		}
		return affected(c.ExecContext(ctx, "UPDATE account SET admin = $2 WHERE id = $1", int64(id), admin))
	})
}

// CreatePassword writes an app password, if fewer than 25 are active.
func (s *Store) CreatePassword(ctx context.Context, actor authstore.Actor, p authstore.NewPassword) (authstore.AppPassword, authstore.Change, error) {
	var id authstore.PasswordID
	c, err := s.inChange(ctx, false, actor, "password.created", func(c *change) error {
		c.Account = p.Account
		made, err := madeBy(ctx, c.Tx, p.Account, p.Request)
		if err != nil {
			return err
		}
		if made != 0 {
			return &authstore.ErrMade{Password: made}
		}
		var active int
		if err := c.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM app_password WHERE account = a.id AND revoked IS NULL AND (expires IS NULL OR expires > $2))
FROM account a WHERE a.id = $1`, int64(p.Account), s.now().Unix()).Scan(&active); err != nil {
			return notFound(err)
		}
		if active >= cmp.Or(p.Most, authstore.MaxActive) {
			return authstore.ErrTooMany
		}
		digest := p.Digest(p.Account)
		scopes, narrowed := splitScopes(&p)
		if err := c.QueryRowContext(ctx, `INSERT INTO app_password (account, label, key, digest, scopes, narrowed, collections, titles, networks, created, expires, request, made_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) RETURNING id`, int64(p.Account), p.Label, p.Key, digest[:], int(scopes), int(narrowed),
			joinCollections(p.Collections), joinTitles(p.Collections, p.Titles), joinNetworks(p.Networks), s.now().Unix(), seconds(p.Expires), sql.NullString{String: p.Request, Valid: p.Request != ""}, p.MadeBy).Scan(&id); err != nil {
			return err
		}
		c.event.Password, c.event.Detail = id, p.Label
		if len(p.Collections) > 0 {
			c.event.Detail += " (only " + authstore.JoinCollections(p.Collections) + ")"
		}
		return nil
	})
	if err != nil {
		return authstore.AppPassword{}, c, err
	}
	made, err := s.Password(context.WithoutCancel(ctx), id) // it is done, whatever becomes of the caller
	return made, c, err
}

// madeBy is the app password that a request has made; zero: none. The write lock is held, so that of two at once one finds the other's.
func madeBy(ctx context.Context, tx *sql.Tx, account authstore.AccountID, request string) (id authstore.PasswordID, err error) {
	if request == "" {
		return 0, nil
	}
	err = tx.QueryRowContext(ctx, "SELECT id FROM app_password WHERE account = $1 AND request = $2", int64(account), request).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return id, err
}

// EditPassword changes the label, the expiry and the networks of an active app password.
func (s *Store) EditPassword(ctx context.Context, actor authstore.Actor, id authstore.PasswordID, e authstore.PasswordEdit) (authstore.Change, error) {
	return s.inChange(ctx, true, actor, "password.edited", func(c *change) error { // urgent: it may take networks away
		var was authstore.PasswordEdit
		var networks string
		var expires sql.NullInt64
		err := c.QueryRowContext(ctx, `SELECT account, label, networks, expires FROM app_password
WHERE id = $1 AND revoked IS NULL AND (expires IS NULL OR expires > $2)`, int64(id), s.now().Unix()).Scan(&c.Account, &was.Label, &networks, &expires)
		if errors.Is(err, sql.ErrNoRows) {
			return authstore.ErrNotActive
		}
		if err != nil {
			return err
		}
		if was.Networks, err = splitNetworks(networks); err != nil {
			return err
		}
		was.Expires = fromSeconds(expires)
		if was.Label == e.Label && networks == joinNetworks(e.Networks) && was.Expires.Equal(e.Expires) {
			return errNothingToDo
		}
		c.event.Password, c.event.Detail = id, authstore.Edited{From: was, To: e}.String()
		_, err = c.ExecContext(ctx, "UPDATE app_password SET label = $2, networks = $3, expires = $4 WHERE id = $1",
			int64(id), e.Label, joinNetworks(e.Networks), seconds(e.Expires))
		return err
	})
}

// Revoke ends one app password. One that has ended already tells the change that ended it.
func (s *Store) Revoke(ctx context.Context, actor authstore.Actor, id authstore.PasswordID, why string) (authstore.Change, error) {
	return s.inChange(ctx, true, actor, "password.revoked", func(c *change) error {
		var endedBy sql.NullInt64
		if err := c.QueryRowContext(ctx, "SELECT account, ended_by FROM app_password WHERE id = $1", int64(id)).Scan(&c.Account, &endedBy); err != nil {
			return notFound(err)
		}
		if endedBy.Valid {
			c.Sequence = uint64(endedBy.Int64)
			return errNothingToDo
		}
		c.Ended, c.event.Password, c.event.Detail = []authstore.PasswordID{id}, id, why
		_, err := c.ExecContext(ctx, "UPDATE app_password SET revoked = $2, why = $3 WHERE id = $1", int64(id), s.now().Unix(), why)
		return err
	})
}

// RevokeAll ends all app passwords of an account, expired ones too.
func (s *Store) RevokeAll(ctx context.Context, actor authstore.Actor, id authstore.AccountID, why string) (authstore.Change, error) {
	return s.inChange(ctx, true, actor, "password.revoked_all", func(c *change) error {
		c.Account, c.event.Detail = id, why
		return s.revokeAll(ctx, c, why)
	})
}

// revokeAll ends all app passwords of the change's account.
func (s *Store) revokeAll(ctx context.Context, c *change, why string) error {
	rows, err := c.QueryContext(ctx, "UPDATE app_password SET revoked = $2, why = $3 WHERE account = $1 AND revoked IS NULL RETURNING id",
		int64(c.Account), s.now().Unix(), why)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var ended authstore.PasswordID
		if err := rows.Scan(&ended); err != nil {
			return err
		}
		c.Ended = append(c.Ended, ended)
	}
	return rows.Err()
}

// SetSealed stores an account's sealed password at a backend, over one that is there.
func (s *Store) SetSealed(ctx context.Context, actor authstore.Actor, id authstore.AccountID, backend string, key uint32, sealed []byte) error {
	_, err := s.inChange(ctx, false, actor, "credential.stored", func(c *change) error {
		c.Account, c.event.Detail = id, backend
		_, err := c.ExecContext(ctx, `INSERT INTO sealed (account, backend, key, value) VALUES ($1, $2, $3, $4)
ON CONFLICT (account, backend) DO UPDATE SET key = excluded.key, value = excluded.value`, int64(id), backend, key, sealed)
		return err
	})
	return err
}
