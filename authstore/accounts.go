package authstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"postern/authstore/secret"
)

// AccountsOptions are what Accounts needs.
type AccountsOptions struct {
	Truth      Truth
	Cache      Cache // nil: none
	Keys       *secret.Keyring
	Names      Names
	Enforced   Scopes        // the scopes that a front door of this program enforces; others can't be created
	Policies   Policies      // see SetPolicies
	StaleGrace time.Duration // the nodes' Options.StaleGrace
	Actor      Actor         // who changes things
	Changed    func()        // called after each change: the node of this process looks at the feed; nil: there is none
	Now        func() time.Time
	Clock      func() time.Duration
}

// Accounts is how administrators and the portal change things. It is no node: it writes, then waits until the nodes have
// confirmed. Goroutines may share it.
type Accounts struct {
	o        AccountsOptions
	keys     *atomic.Pointer[secret.Keyring]
	policies *atomic.Pointer[Policies]
}

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
	if err := checkKeys(ctx, o.Truth, o.Keys); err != nil {
		return nil, err
	}
	a := &Accounts{o: o, keys: new(atomic.Pointer[secret.Keyring]), policies: new(atomic.Pointer[Policies])}
	a.keys.Store(o.Keys)
	a.SetPolicies(o.Policies)
	return a, nil
}

// SetKeys takes a keyring that Store.SetKeys took.
func (a *Accounts) SetKeys(k *secret.Keyring) { a.keys.Store(k) }

// As gives the same accounts for somebody else to change.
func (a *Accounts) As(who Actor) *Accounts {
	b := *a
	b.o.Actor = who
	return &b
}

// Keyring holds the root keys in use.
func (a *Accounts) Keyring() *secret.Keyring { return a.keys.Load() }

// Add makes an account. Its name is refused if it looks like another.
func (a *Accounts) Add(ctx context.Context, address string) (Account, error) {
	name, err := a.o.Names.forCreation(address)
	if err != nil {
		return Account{}, unfit(err)
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

// Numbered finds an account by its number; ErrNotFound.
func (a *Accounts) Numbered(ctx context.Context, id AccountID) (Account, error) {
	return a.o.Truth.AccountNumbered(ctx, id)
}

// Find lists the accounts of a query.
func (a *Accounts) Find(ctx context.Context, q AccountQuery) ([]Account, error) {
	return a.o.Truth.FindAccounts(ctx, q)
}

// Count counts the accounts of a query, without regard to After and Limit, and their active app passwords.
func (a *Accounts) Count(ctx context.Context, q AccountQuery) (accounts, passwords int, err error) {
	return a.o.Truth.CountAccounts(ctx, q)
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

// SetGone suspends an account whose person the directory does not know any more, or has disabled, as Suspend does, or lets it log in again when
// he is back. It reports whether that changed anything: an administrator's suspension stays.
func (a *Accounts) SetGone(ctx context.Context, id AccountID, gone bool, why string) (changed bool, err error) {
	c, err := a.o.Truth.SetGone(ctx, a.o.Actor, id, gone, why)
	if err != nil || c.Sequence == 0 {
		return false, err
	}
	a.confirm(ctx, c, nil)
	return true, nil
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
		return Confirmation{}, unfit(err)
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
	if err := CheckBackendName(name); err != nil {
		return Confirmation{}, unfit(err)
	}
	c, err := a.o.Truth.SetBackendName(ctx, a.o.Actor, id, name)
	return a.confirm(ctx, c, err)
}

// SetAdmin makes an account an administrator's, or takes that back.
func (a *Accounts) SetAdmin(ctx context.Context, id AccountID, admin bool) (Confirmation, error) {
	c, err := a.o.Truth.SetAdmin(ctx, a.o.Actor, id, admin)
	return a.confirm(ctx, c, err)
}

// PasswordRequest says what app password is wanted.
type PasswordRequest struct {
	Account  AccountID
	Label    string
	Scopes   Scopes
	Expires  time.Time      // zero: never
	Networks []netip.Prefix // empty: any
	// Collections are the single calendars and address books that it opens, "*" for all of a kind; empty: all of all kinds. See Narrow.
	Collections []Collection
	Titles      Titles // of the collections, as CleanLabel has them
	MadeBy      string // the administrator who makes it, by his address; empty: its owner, or the command line
	// Request names the form that asks, by its own random name: sent twice it makes one app password, and the second time *ErrMade.
	// Empty: each call makes one.
	Request string
	// BeyondPolicy makes it though the account's policy does not allow its terms; no more may be active all the same.
	BeyondPolicy bool
}

// maxRequest bounds a request's id, in bytes.
const maxRequest = 100

// CreatePassword makes an app password and returns its secret, which nobody can read again. It is durable when it is returned.
func (a *Accounts) CreatePassword(ctx context.Context, r PasswordRequest) (AppPassword, secret.Password, error) {
	if err := a.check(&r); err != nil {
		return AppPassword{}, secret.Password{}, unfit(err)
	}
	policy, err := a.Policy(ctx, r.Account)
	if err == nil && !r.BeyondPolicy {
		err = a.keepTo(policy, &r)
	}
	if err != nil {
		return AppPassword{}, secret.Password{}, err
	}
	keys := a.keys.Load()
	key, err := a.usableKey(ctx, keys)
	if err != nil {
		return AppPassword{}, secret.Password{}, unchanged(err)
	}
	made := secret.Generate()
	p, c, err := a.o.Truth.CreatePassword(ctx, a.o.Actor, NewPassword{Account: r.Account, Label: r.Label, Key: key, Scopes: r.Scopes,
		Expires: r.Expires, Networks: r.Networks, Collections: r.Collections, Titles: r.Titles, MadeBy: r.MadeBy, Request: r.Request, Most: policy.Most(), Digest: func(id AccountID) Digest {
			d, err := keys.Digest(key, int64(id), &made)
			if err != nil {
				panic("authstore: " + err.Error()) // key is one of ours
			}
			return d
		}})
	if err != nil {
		made.Clear()
		if errors.Is(err, ErrTooMany) {
			err = tooMany(policy.Most())
		}
		return AppPassword{}, secret.Password{}, unchanged(err)
	}
	a.confirm(ctx, c, nil) // so that it works at once; if a node is silent, in a second
	return p, made, nil
}

// tooMany is ErrTooMany with the number.
type tooMany int

func (n tooMany) Error() string {
	return fmt.Sprintf("there are %d active app passwords already; revoke one first", int(n))
}

func (n tooMany) Is(target error) bool { return target == ErrTooMany }

// keepTo checks a request against the account's policy.
func (a *Accounts) keepTo(p Policy, r *PasswordRequest) (err error) {
	if err := p.checkScopes(r.Scopes); err != nil {
		return err
	}
	if err := p.checkEnd(a.o.Now(), r.Expires); err != nil {
		return err
	}
	r.Networks, err = p.checkFrom(r.Networks)
	return err
}

func (a *Accounts) check(r *PasswordRequest) error {
	var err error
	switch {
	case r.Scopes == 0:
		return errors.New("an app password must open something")
	case r.Scopes&^a.o.Enforced != 0:
		return fmt.Errorf("nothing here enforces %s yet, so no app password can be made for it", r.Scopes&^a.o.Enforced)
	case len(r.Request) > maxRequest:
		return fmt.Errorf("the request's name has more than %d bytes", maxRequest)
	}
	if r.Scopes, r.Collections, err = Narrow(r.Scopes, r.Collections); err != nil {
		return err
	}
	if r.Titles, err = r.Titles.clean(r.Collections); err != nil {
		return err
	}
	if err := a.checkExpiry(r.Expires); err != nil {
		return err
	}
	if r.Label, err = CleanLabel(r.Label); err != nil {
		return err
	}
	r.Networks, err = checkNetworks(r.Networks)
	return err
}

// LastYear is the last that an expiry may be in, in UTC: JSON has no years of five digits.
const LastYear = 9999

func (a *Accounts) checkExpiry(expires time.Time) error {
	switch {
	case expires.IsZero():
	case !expires.After(a.o.Now()):
		return errors.New("it would have expired already")
	case expires.UTC().Year() > LastYear:
		return fmt.Errorf("it would expire after the year %d; make one that never does", LastYear)
	}
	return nil
}

func checkNetworks(asked []netip.Prefix) ([]netip.Prefix, error) {
	if len(asked) > MaxNetworks {
		return nil, fmt.Errorf("at most %d networks", MaxNetworks)
	}
	networks := make([]netip.Prefix, len(asked))
	for i, n := range asked {
		if !n.IsValid() {
			return nil, fmt.Errorf("network %d is none", i+1)
		}
		networks[i] = PlainNetwork(n)
	}
	return networks, nil
}

// PlainNetwork is the one form of a network: clients are compared in their IPv4 form.
func PlainNetwork(n netip.Prefix) netip.Prefix {
	if n.Addr().Is4In6() && n.Bits() >= 96 {
		n = netip.PrefixFrom(n.Addr().Unmap(), n.Bits()-96)
	}
	return n.Masked()
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

// RevokeAllOf ends all app passwords of several accounts, one after the other, for at most a time, and says how many of them it got
// through. The confirmation is of all that it has ended.
func (a *Accounts) RevokeAllOf(ctx context.Context, ids []AccountID, why string, most time.Duration) (n int, done Confirmation, err error) {
	var last Change
	for began := a.o.Clock(); n < len(ids) && (n == 0 || a.o.Clock()-began < most); {
		c, err := a.o.Truth.RevokeAll(ctx, a.o.Actor, ids[n], why)
		if err != nil && !errors.Is(err, ErrNotFound) { // one that was removed meanwhile has none
			done, _ = a.confirm(ctx, last, nil)
			return n, done, unchanged(err)
		}
		if err == nil {
			last = c
		}
		n++
	}
	done, _ = a.confirm(ctx, last, nil)
	return n, done, nil
}

// ConfirmAll waits for the nodes to confirm all that was changed until now, by whomever.
func (a *Accounts) ConfirmAll(ctx context.Context) (Confirmation, error) {
	t, err := a.o.Truth.Tail(ctx, "", math.MaxInt64) // reads no row, but the counter
	if err != nil {
		return Confirmation{}, err
	}
	return a.confirm(ctx, Change{Sequence: t.Counter}, nil)
}

// Events lists what the history holds of a query, newest first.
func (a *Accounts) Events(ctx context.Context, q EventQuery) ([]Event, error) {
	return a.o.Truth.Events(ctx, q)
}

// Usage lists the clients of an app password, the latest first.
func (a *Accounts) Usage(ctx context.Context, id PasswordID) ([]Usage, error) {
	return a.o.Truth.Usage(ctx, id)
}

// UsageDays lists what the clients of an app password did each day since a time, the latest day first.
func (a *Accounts) UsageDays(ctx context.Context, id PasswordID, since time.Time) ([]UsageDay, error) {
	return a.o.Truth.UsageDays(ctx, id, since)
}

// StoreBackendPassword seals an account's own password at a backend.
func (a *Accounts) StoreBackendPassword(ctx context.Context, id AccountID, backend string, password []byte) error {
	keys := a.keys.Load()
	key, err := a.usableKey(ctx, keys)
	if err != nil {
		return unchanged(err)
	}
	sealed, err := keys.SealRow(key, password, sealedPlace(id, backend))
	if err != nil {
		return unchanged(err)
	}
	if err := a.o.Truth.SetSealed(ctx, a.o.Actor, id, backend, key, sealed); err != nil {
		return unchanged(err)
	}
	return nil
}

// BackendPassword opens what StoreBackendPassword sealed; ErrNotFound. The caller clears it.
func (a *Accounts) BackendPassword(ctx context.Context, id AccountID, backend string) ([]byte, error) {
	sealed, err := a.o.Truth.Sealed(ctx, id, backend)
	if err != nil {
		return nil, err
	}
	return a.keys.Load().OpenRow(sealed, sealedPlace(id, backend))
}

func sealedPlace(id AccountID, backend string) string {
	return fmt.Sprintf("sealed/%d/%s", id, backend)
}
