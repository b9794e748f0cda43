// Package apitoken decides which bearer tokens the API takes, and what each may do. It knows no HTTP and no database: Tokens works on a
// Truth, which authstore/sqlstore implements. People never have tokens; administrators make them on the command line for programs.
package apitoken

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postern/authstore"
	"postern/authstore/secret"
	"postern/authstore/throttle"
)

// Scope is one thing that a token may do.
type Scope string

// The scopes.
const (
	AccountsRead     Scope = "accounts:read"
	AccountsWrite    Scope = "accounts:write"
	AdminsWrite      Scope = "admins:write"
	CredentialsWrite Scope = "credentials:write"
	EventsRead       Scope = "events:read"
	InvitationsWrite Scope = "invitations:write"
	KeysRead         Scope = "keys:read"
	PasswordsRead    Scope = "passwords:read"
	PasswordsWrite   Scope = "passwords:write"
	PrimaryChanged   Scope = "primary:changed"
	SessionsRead     Scope = "sessions:read"
	SessionsWrite    Scope = "sessions:write"
	// Everything holds all the others, and those of later versions.
	Everything Scope = "everything"
)

// Described is a scope and what it is for.
type Described struct {
	Scope Scope
	For   string
}

// Scopes are all there are.
var Scopes = []Described{
	{AccountsRead, "list accounts, and see one with its names, ties, connections and ways to sign in; what the last look into the directory found"},
	{AccountsWrite, "add, import, suspend, resume and remove accounts; their names and ties; look into the directory now; sign people out of the portal"},
	{AdminsWrite, "make accounts administrators', or take that back"},
	{CredentialsWrite, "store accounts' own passwords at backends, and remove their connections to authorization servers"},
	{EventsRead, "read the history"},
	{InvitationsWrite, "make links with which people set up signing in at the portal, and take their second factors away; whoever has a link becomes that person"},
	{KeysRead, "list the root keys and what needs them"},
	{PasswordsRead, "list app passwords; never their secrets"},
	{PasswordsWrite, "make, edit and revoke app passwords"},
	{PrimaryChanged, "say that a primary password was changed elsewhere, which revokes all that person's app passwords"},
	{SessionsRead, "list open connections of apps"},
	{SessionsWrite, "end open connections of apps"},
	{Everything, "all of these, and what later versions add"},
}

// Holds reports whether a scope is among some.
func Holds(list []Scope, s Scope) bool {
	return slices.Contains(list, Everything) || slices.Contains(list, s)
}

// ParseScopes reads names of scopes, and puts them in order.
func ParseScopes(names ...string) ([]Scope, error) {
	var list []Scope
	for _, name := range names {
		name = strings.TrimSpace(name)
		if !slices.ContainsFunc(Scopes, func(s Described) bool { return string(s.Scope) == name }) {
			return nil, fmt.Errorf("unknown scope %q; the scopes are %s", name, strings.Join(Names(), ", "))
		}
		list = append(list, Scope(name))
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("say what the token may do; the scopes are %s", strings.Join(Names(), ", "))
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// Names lists the names of all scopes.
func Names() []string {
	var names []string
	for _, s := range Scopes {
		names = append(names, string(s.Scope))
	}
	return names
}

// Token is what administrators see of a token; never its secret.
type Token struct {
	ID       int64
	Name     string
	Scopes   []Scope
	Created  time.Time
	Expires  time.Time // zero: never
	LastUsed time.Time // coarse; zero: never
}

// Digest is what is kept of a token's secret.
type Digest = [sha256.Size]byte

// Truth is what the store keeps of tokens.
type Truth interface {
	// AddToken writes a token; authstore.ErrNameTaken.
	AddToken(ctx context.Context, who authstore.Actor, t Token, d Digest) (Token, error)
	// Tokens lists all tokens by name, those that have expired too.
	Tokens(ctx context.Context) ([]Token, error)
	// TokenWith finds a token by its secret's digest; authstore.ErrNotFound.
	TokenWith(ctx context.Context, d Digest) (Token, error)
	// RemoveToken forgets a token by its name; authstore.ErrNotFound.
	RemoveToken(ctx context.Context, who authstore.Actor, name string) error
	// TokenUsed notes when a token was last used; a time before the one noted changes nothing.
	TokenUsed(ctx context.Context, id int64, at time.Time) error
}

// Errors of Check.
var (
	// ErrWrong: there is no such token, or no longer.
	ErrWrong = errors.New("the token is wrong, was revoked, or has expired")
	// ErrThrottled: too many wrong ones came from the client's network.
	ErrThrottled = errors.New("too many wrong tokens from this network")
)

// maxTokenName bounds a token's name, in bytes.
const maxTokenName = 64

// Create makes a token and returns its secret, which nobody can read again.
func Create(ctx context.Context, truth Truth, who authstore.Actor, name string, scopes []Scope, expires time.Time) (Token, secret.Token, error) {
	if name == "" || len(name) > maxTokenName || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		return Token{}, secret.Token{}, fmt.Errorf("a token's name has 1 to %d small letters, digits, and - _ . such as \"keycloak\"", maxTokenName)
	}
	made := secret.NewToken()
	t, err := truth.AddToken(ctx, who, Token{Name: name, Scopes: scopes, Expires: expires}, made.Digest())
	if errors.Is(err, authstore.ErrNameTaken) {
		err = fmt.Errorf("there is a token %q already; revoke it first, or choose another name", name)
	}
	if err != nil {
		return Token{}, secret.Token{}, err
	}
	return t, made, nil
}

const usedEvery = time.Minute // how often is written that a token is in use

// Tokens checks tokens. Each is read from the truth each time, so that one that is revoked is dead at once on every node. Goroutines may
// share it.
type Tokens struct {
	truth   Truth
	limiter *throttle.Limiter
	now     func() time.Time
}

// New makes a Tokens; now nil means time.Now.
func New(truth Truth, limiter *throttle.Limiter, now func() time.Time) *Tokens {
	if now == nil {
		now = time.Now
	}
	return &Tokens{truth: truth, limiter: limiter, now: now}
}

// Check finds the token that a client shows. ErrWrong, ErrThrottled, or another error where it can't be known. The database looks its
// digest up, which tells nothing of how much of a guess was right.
func (s *Tokens) Check(ctx context.Context, client netip.Addr, text string) (Token, error) {
	shown, err := secret.ParseToken(text)
	if err != nil {
		if s.limiter.Over(client) {
			return Token{}, ErrThrottled
		}
		s.limiter.Misshapen(ctx, client)
		return Token{}, ErrWrong
	}
	digest := shown.Digest()
	t, err := s.truth.TokenWith(ctx, digest) // before the limit: who has a good one is not shut out by his neighbours, and nobody guesses one
	now := s.now()
	if errors.Is(err, authstore.ErrNotFound) || err == nil && !t.Expires.IsZero() && !t.Expires.After(now) {
		if s.limiter.Over(client) {
			return Token{}, ErrThrottled
		}
		s.limiter.Wrong(ctx, client, "", digest[:])
		return Token{}, ErrWrong
	}
	if err != nil {
		return Token{}, fmt.Errorf("look a token up: %w", err)
	}
	if now.Sub(t.LastUsed) >= usedEvery {
		_ = s.truth.TokenUsed(ctx, t.ID, now) // that it can't be noted, on a full disk say, must not keep a revocation out
	}
	return t, nil
}
