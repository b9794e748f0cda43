package authstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"postern/authstore/secret"
)

// AccountsOptions are what Accounts needs.
type AccountsOptions struct {
	Truth      Truth
	Cache      Cache // nil: none
	Keys       *secret.Keyring
	Names      Names
	Enforced   Scopes        // the scopes that a front door of this program enforces; others can't be created
	StaleGrace time.Duration // the nodes' Options.StaleGrace
	Actor      string        // who changes things, for the history
	Changed    func()        // called after each change: the node of this process looks at the feed; nil: there is none
	Now        func() time.Time
	Clock      func() time.Duration
}

// Accounts is how administrators and the portal change things. It is no node: it writes, then waits until the nodes have
// confirmed. Goroutines may share it.
type Accounts struct{ o AccountsOptions }

// NewAccounts checks that the keyring is the database's: with another one no app password would work, and new ones would be lost
// with it.
func NewAccounts(ctx context.Context, o AccountsOptions) (*Accounts, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Clock == nil {
		o.Clock = bootTime
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	return &Accounts{o}, checkKeys(ctx, o.Truth, o.Keys)
}

// ErrWrongKeys says that a key file does not belong to the database.
var ErrWrongKeys = errors.New("the key file does not belong to this database; restore the one that was used with it. Nothing was changed")

func checkKeys(ctx context.Context, t Truth, keys *secret.Keyring) error {
	for _, n := range keys.Numbers() {
		value, err := keys.Check(n)
		if err != nil {
			return err
		}
		stored, err := t.SetMeta(ctx, fmt.Sprintf("key %d", n), value)
		if err != nil {
			return fmt.Errorf("check the keys: %w", err)
		}
		if !secret.Equal(stored, value) {
			return ErrWrongKeys
		}
	}
	use, err := t.KeyUse(ctx)
	if err != nil {
		return fmt.Errorf("check the keys: %w", err)
	}
	for n, rows := range use {
		if !slices.Contains(keys.Numbers(), n) {
			return fmt.Errorf("%d app passwords or stored credentials need key %d, which the key file lacks: %w", rows, n, ErrWrongKeys)
		}
	}
	return nil
}

// Confirmation tells how far a change has got when its method returns. The change itself is durable by then.
type Confirmation struct {
	Sequence    uint64
	Unconfirmed []string      // nodes that have not confirmed that their caches are clean and the connections closed
	Waited      bool          // the nodes' leases have run out: none of them accepts anything that ended
	Stale       time.Duration // how much longer a node that has lost the database may accept it (stale_grace)
}

func (c Confirmation) String() string {
	n := len(c.Unconfirmed)
	nodes := "1 node has"
	if n != 1 {
		nodes = fmt.Sprintf("%d nodes have", n)
	}
	switch {
	case n == 0:
		return "confirmed everywhere"
	case !c.Waited:
		return "written; " + nodes + " not confirmed yet"
	case c.Stale > 0:
		return fmt.Sprintf("written; %s not confirmed, and may go on for up to %v if the database is out of reach (stale_grace)", nodes, c.Stale)
	}
	return "in force everywhere; " + nodes + " not confirmed that open connections are closed"
}

// leaseMargin is added to the lease before a node that is silent counts as one that accepts nothing: clocks drift, and
// a reply under way takes its time.
const leaseMargin = 250 * time.Millisecond

// publish tells the nodes to look at the feed now. It only makes them quicker.
func (a *Accounts) publish(ctx context.Context) {
	if a.o.Cache == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, cacheTime)
	defer cancel()
	a.o.Cache.Publish(ctx)
}

// unchanged says of a failed change that it did not happen, where that is known and the error does not say so or better.
func unchanged(err error) error {
	for _, told := range []error{ErrUncertain, ErrNotFound, ErrNameTaken, ErrTooMany} {
		if errors.Is(err, told) {
			return err
		}
	}
	const words = "nothing was changed"
	if strings.HasPrefix(err.Error(), words) {
		return err
	}
	return fmt.Errorf(words+": %w", err)
}

// confirm waits until every node has acknowledged a change, or no node can be answering from before it.
func (a *Accounts) confirm(ctx context.Context, c Change, err error) (Confirmation, error) {
	if err != nil {
		return Confirmation{}, unchanged(err)
	}
	committed := a.o.Clock()
	a.o.Changed()
	a.publish(ctx)
	done := Confirmation{Sequence: c.Sequence, Stale: a.o.StaleGrace}
	for {
		done.Waited = a.o.Clock()-committed >= leaseTime+leaseMargin
		if nodes, err := a.o.Truth.Nodes(ctx); err == nil {
			done.Unconfirmed = nil
			for _, n := range nodes {
				if n.Acknowledged < c.Sequence {
					done.Unconfirmed = append(done.Unconfirmed, n.ID)
				}
			}
			if len(done.Unconfirmed) == 0 {
				return done, nil
			}
		} else if done.Unconfirmed == nil {
			done.Unconfirmed = []string{"unknown: " + err.Error()}
		}
		if done.Waited || ctx.Err() != nil {
			return done, nil
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// Add makes an account. Its name is refused if it looks like another.
func (a *Accounts) Add(ctx context.Context, address string) (Account, error) {
	name, err := a.o.Names.forCreation(address)
	if err != nil {
		return Account{}, err
	}
	account, c, err := a.o.Truth.AddAccount(ctx, a.o.Actor, name, publicID())
	if err != nil {
		return Account{}, unchanged(err)
	}
	a.confirm(ctx, c, nil) // so that the name is known at once; if a node is silent, in a second
	return account, nil
}

// publicID makes the ten random letters that stand for an account in URLs.
func publicID() string {
	var id [10]byte
	for i := range id {
		id[i] = byte('a' + rand.N('z'-'a'+1))
	}
	return string(id[:])
}

// List lists all accounts.
func (a *Accounts) List(ctx context.Context) ([]Account, error) { return a.o.Truth.Accounts(ctx) }

// Get finds an account by one of its names, as typed; ErrNotFound.
func (a *Accounts) Get(ctx context.Context, address string) (Account, error) {
	name, err := a.o.Names.Canonical(address)
	if err != nil {
		return Account{}, ErrNotFound
	}
	return a.o.Truth.Account(ctx, name)
}

// Suspend refuses all logins of an account and ends its sessions. Its app passwords stay.
func (a *Accounts) Suspend(ctx context.Context, id AccountID) (Confirmation, error) {
	c, err := a.o.Truth.SetStatus(ctx, a.o.Actor, id, AccountPaused)
	return a.confirm(ctx, c, err)
}

// Resume takes a suspension back.
func (a *Accounts) Resume(ctx context.Context, id AccountID) (Confirmation, error) {
	c, err := a.o.Truth.SetStatus(ctx, a.o.Actor, id, Active)
	return a.confirm(ctx, c, err)
}

// Remove removes an account, its app passwords and stored credentials.
func (a *Accounts) Remove(ctx context.Context, id AccountID) (Confirmation, error) {
	c, err := a.o.Truth.RemoveAccount(ctx, a.o.Actor, id)
	return a.confirm(ctx, c, err)
}

// AddAlias gives an account one more login name.
func (a *Accounts) AddAlias(ctx context.Context, id AccountID, alias string) (Confirmation, error) {
	name, err := a.o.Names.forCreation(alias)
	if err != nil {
		return Confirmation{}, err
	}
	c, err := a.o.Truth.AddName(ctx, a.o.Actor, id, name)
	return a.confirm(ctx, c, err)
}

// RemoveAlias takes a login name away; sessions that used it end. The name that the account was made with stays: ErrNotFound.
func (a *Accounts) RemoveAlias(ctx context.Context, id AccountID, alias string) (Confirmation, error) {
	name, err := a.o.Names.Canonical(alias)
	if err != nil {
		return Confirmation{}, ErrNotFound
	}
	c, err := a.o.Truth.RemoveName(ctx, a.o.Actor, id, name)
	return a.confirm(ctx, c, err)
}

// SetBackendName sets an account's name towards backends; empty: the backend's template decides.
func (a *Accounts) SetBackendName(ctx context.Context, id AccountID, name string) (Confirmation, error) {
	if len(name) > maxName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return Confirmation{}, errors.New("the name is too long, or holds a control character")
	}
	c, err := a.o.Truth.SetBackendName(ctx, a.o.Actor, id, name)
	return a.confirm(ctx, c, err)
}

// PasswordRequest says what app password is wanted.
type PasswordRequest struct {
	Account  AccountID
	Label    string
	Scopes   Scopes
	Expires  time.Time      // zero: never
	Networks []netip.Prefix // empty: any
}

// maxLabel bounds a label, in runes.
const maxLabel = 100

// CreatePassword makes an app password and returns its secret, which nobody can read again. It is durable when it is returned.
func (a *Accounts) CreatePassword(ctx context.Context, r PasswordRequest) (AppPassword, secret.Password, error) {
	if err := a.check(&r); err != nil {
		return AppPassword{}, secret.Password{}, err
	}
	key, err := a.usableKey(ctx)
	if err != nil {
		return AppPassword{}, secret.Password{}, unchanged(err)
	}
	made := secret.Generate()
	p, c, err := a.o.Truth.CreatePassword(ctx, a.o.Actor, NewPassword{Account: r.Account, Label: r.Label, Key: key, Scopes: r.Scopes,
		Expires: r.Expires, Networks: r.Networks, Digest: func(id AccountID) Digest {
			d, err := a.o.Keys.Digest(key, int64(id), &made)
			if err != nil {
				panic("authstore: " + err.Error()) // key is one of ours
			}
			return d
		}})
	if err != nil {
		made.Clear()
		return AppPassword{}, secret.Password{}, unchanged(err)
	}
	a.confirm(ctx, c, nil) // so that it works at once; if a node is silent, in a second
	return p, made, nil
}

func (a *Accounts) check(r *PasswordRequest) error {
	r.Label = strings.TrimSpace(r.Label)
	switch {
	case r.Label == "" || utf8.RuneCountInString(r.Label) > maxLabel || !utf8.ValidString(r.Label) || strings.ContainsFunc(r.Label, unicode.IsControl):
		return fmt.Errorf("the label must have 1 to %d printable characters", maxLabel)
	case r.Scopes == 0:
		return errors.New("an app password must open something")
	case r.Scopes&^a.o.Enforced != 0:
		return fmt.Errorf("nothing here enforces %s yet, so no app password can be made for it", r.Scopes&^a.o.Enforced)
	case !r.Expires.IsZero() && !r.Expires.After(a.o.Now()):
		return errors.New("it would have expired already")
	case len(r.Networks) > maxNetworks:
		return fmt.Errorf("at most %d networks", maxNetworks)
	}
	return nil
}

// Passwords lists an account's app passwords, with those that have ended if asked for.
func (a *Accounts) Passwords(ctx context.Context, id AccountID, ended bool) ([]AppPassword, error) {
	return a.o.Truth.Passwords(ctx, id, ended)
}

// Password reads one app password; ErrNotFound.
func (a *Accounts) Password(ctx context.Context, id PasswordID) (AppPassword, error) {
	return a.o.Truth.Password(ctx, id)
}

// Revoke ends an app password for good. Once it says so without an error, no node accepts it.
func (a *Accounts) Revoke(ctx context.Context, id PasswordID, why string) (Confirmation, error) {
	c, err := a.o.Truth.Revoke(ctx, a.o.Actor, id, why)
	return a.confirm(ctx, c, err)
}

// RevokeAll ends all app passwords of an account.
func (a *Accounts) RevokeAll(ctx context.Context, id AccountID, why string) (Confirmation, error) {
	c, err := a.o.Truth.RevokeAll(ctx, a.o.Actor, id, why)
	return a.confirm(ctx, c, err)
}

// Events lists an account's history, newest first.
func (a *Accounts) Events(ctx context.Context, id AccountID, limit int) ([]Event, error) {
	return a.o.Truth.Events(ctx, id, limit)
}

// StoreBackendPassword seals an account's own password at a backend.
func (a *Accounts) StoreBackendPassword(ctx context.Context, id AccountID, backend string, password []byte) error {
	key, err := a.usableKey(ctx)
	if err != nil {
		return unchanged(err)
	}
	sealed, err := a.o.Keys.SealRow(key, password, sealedPlace(id, backend))
	if err != nil {
		return unchanged(err)
	}
	if err := a.o.Truth.SetSealed(ctx, a.o.Actor, id, backend, key, sealed); err != nil {
		return unchanged(err)
	}
	return nil
}

// usableKey is the newest root key that every node has.
func (a *Accounts) usableKey(ctx context.Context) (uint32, error) {
	nodes, err := a.o.Truth.Nodes(ctx)
	if err != nil {
		return 0, fmt.Errorf("list the nodes: %w", err)
	}
	return usableKey(a.o.Keys.Numbers(), nodes), nil
}

// BackendPassword opens what StoreBackendPassword sealed; ErrNotFound. The caller clears it.
func (a *Accounts) BackendPassword(ctx context.Context, id AccountID, backend string) ([]byte, error) {
	sealed, err := a.o.Truth.Sealed(ctx, id, backend)
	if err != nil {
		return nil, err
	}
	return a.o.Keys.OpenRow(sealed, sealedPlace(id, backend))
}

func sealedPlace(id AccountID, backend string) string {
	return fmt.Sprintf("sealed/%d/%s", id, backend)
}

// KeyStatus tells of one root key.
type KeyStatus struct {
	Number uint32 `json:"number"`
	Rows   int    `json:"rows"`  // app passwords and stored credentials that need it
	Nodes  int    `json:"nodes"` // running nodes that have it
	New    bool   `json:"new"`   // new app passwords are made with it
}

// Keys lists the root keys.
func (a *Accounts) Keys(ctx context.Context) ([]KeyStatus, error) {
	use, err := a.o.Truth.KeyUse(ctx)
	if err != nil {
		return nil, err
	}
	nodes, err := a.o.Truth.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	var list []KeyStatus
	usable := usableKey(a.o.Keys.Numbers(), nodes)
	for _, n := range a.o.Keys.Numbers() {
		k := KeyStatus{Number: n, Rows: use[n], New: n == usable}
		for _, node := range nodes {
			if slices.Contains(node.Keys, n) {
				k.Nodes++
			}
		}
		list = append(list, k)
	}
	return list, nil
}

// CanRetire says why a root key is still needed; nil: it can go. Cached snapshots that hold a digest under it are gone by then,
// for moving a row to a newer key is a change.
func (a *Accounts) CanRetire(ctx context.Context, n uint32) error {
	list, err := a.Keys(ctx)
	if err != nil {
		return err
	}
	for _, k := range list {
		switch {
		case k.Number != n:
		case k.New:
			return fmt.Errorf("key %d makes new app passwords; add a newer one first and reload every gateway", n)
		case k.Rows > 0:
			return fmt.Errorf("%d app passwords or stored credentials still need key %d; they move to the newest key when they are used next, and are forgotten 90 days after they end", k.Rows, n)
		default:
			return nil
		}
	}
	return fmt.Errorf("there is no key %d", n)
}
