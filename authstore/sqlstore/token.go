package sqlstore

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"postern/authstore"
	"postern/authstore/apitoken"
)

var _ apitoken.Truth = (*Store)(nil)

// AddToken writes a token of the API. Its line of history belongs to no account.
func (s *Store) AddToken(ctx context.Context, who authstore.Actor, t apitoken.Token, d apitoken.Digest) (apitoken.Token, error) {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return t, plain(err)
	}
	defer tx.Rollback()
	t.Created = s.now().UTC().Truncate(time.Second)
	t.Expires = t.Expires.UTC().Truncate(time.Second)
	if err := tx.QueryRowContext(ctx, "INSERT INTO api_token (name, digest, scopes, created, expires) VALUES ($1, $2, $3, $4, $5) RETURNING id",
		t.Name, d[:], joinScopes(t.Scopes), t.Created.Unix(), seconds(t.Expires)).Scan(&t.ID); err != nil {
		if isUnique(err) {
			return t, authstore.ErrNameTaken
		}
		return t, plain(err)
	}
	if err := s.appendEvent(ctx, tx, authstore.Event{Kind: "token.created", Actor: who, Detail: t.Name + ": " + joinScopes(t.Scopes)}); err != nil {
		return t, plain(err)
	}
	return t, plain(commit(tx))
}

func joinScopes(list []apitoken.Scope) string {
	texts := make([]string, len(list))
	for i, s := range list {
		texts[i] = string(s)
	}
	return strings.Join(texts, " ")
}

// Tokens lists the tokens of the API.
func (s *Store) Tokens(ctx context.Context) ([]apitoken.Token, error) {
	return s.tokens(ctx, "1 = 1")
}

// TokenWith finds a token by its digest.
func (s *Store) TokenWith(ctx context.Context, d apitoken.Digest) (apitoken.Token, error) {
	return one(s.tokens(ctx, "digest = $1", d[:]))
}

func (s *Store) tokens(ctx context.Context, where string, args ...any) ([]apitoken.Token, error) {
	return collect(ctx, s.read, func(rows *sql.Rows, t *apitoken.Token) error {
		var scopes string
		var created, expires, used sql.NullInt64
		err := rows.Scan(&t.ID, &t.Name, &scopes, &created, &expires, &used)
		for _, scope := range strings.Fields(scopes) { // one that this version does not know opens nothing
			t.Scopes = append(t.Scopes, apitoken.Scope(scope))
		}
		t.Created, t.Expires, t.LastUsed = fromSeconds(created), fromSeconds(expires), fromSeconds(used)
		return err
	}, "SELECT id, name, scopes, created, expires, last_used FROM api_token WHERE "+where+" ORDER BY name", args...)
}

// RemoveToken forgets a token, even on a full disk.
func (s *Store) RemoveToken(ctx context.Context, who authstore.Actor, name string) error {
	err := s.tryRemoveToken(ctx, who, name)
	if s.madeRoom(err, true) {
		err = s.tryRemoveToken(ctx, who, name)
	}
	return plain(err)
}

func (s *Store) tryRemoveToken(ctx context.Context, who authstore.Actor, name string) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := affected(tx.ExecContext(ctx, "DELETE FROM api_token WHERE name = $1", name)); err != nil {
		return err
	}
	if err := s.appendEvent(ctx, tx, authstore.Event{Kind: "token.revoked", Actor: who, Detail: name}); err != nil {
		return err
	}
	return commit(tx)
}

// TokenUsed notes when a token was last used.
func (s *Store) TokenUsed(ctx context.Context, id int64, at time.Time) error {
	_, err := s.write.ExecContext(ctx, "UPDATE api_token SET last_used = $2 WHERE id = $1 AND (last_used IS NULL OR last_used < $2)", id, at.Unix())
	return plain(err)
}
