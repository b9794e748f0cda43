package authstore

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"
)

// Errors of Truth and Accounts that callers branch on.
var (
	ErrNotFound  = errors.New("not found")
	ErrNameTaken = errors.New("the name belongs to an account already")
	ErrTooMany   = errors.New("there are as many active app passwords already as there may be; revoke one first")
)

// Truth is the durable store: a SQL database. All its methods may be called from several goroutines. A method that
// changes something does so in one transaction that also takes the next sequence and appends the Change, and returns
// after the commit is durable; on an error nothing was changed, save ErrUncertain which says that it can't be known.
type Truth interface {
	Reader
	Feed
	Writer
	Close() error
}

// Reader is what verification reads. Addresses are canonical.
type Reader interface {
	// Load reads the snapshot of a login name. A name that nobody has is no error.
	Load(ctx context.Context, address string) (*Snapshot, error)
}

// Change is one row of the change feed.
type Change struct {
	Sequence uint64
	Mark     string // random; tells this row from another that history put in its place
	Account  AccountID
	Version  uint64       // of the account after the change
	Ended    []PasswordID // app passwords that this change ended
	AllEnded bool         // the account is suspended or gone: every grant of it has ended
	Names    bool         // login names came or went: forget unknown names
}

// Tail is what one look at the feed found, all read in one transaction.
type Tail struct {
	Epoch   string
	Counter uint64   // the last sequence given
	Node    bool     // the node's own row is there
	Changes []Change // from the asked sequence inclusive, in order, at most TailBatch
}

// TailBatch bounds the changes of one Tail; a tail that got as many has not reached the end.
const TailBatch = 1000

// Node is a serving process as it registered.
type Node struct {
	ID           string
	Acknowledged uint64    // caches clean and connections closed up to here
	Keys         []uint32  // root keys that it has
	LastSeen     time.Time // by the node's clock; coarse
}

// NodeTimeout is how long after its last sign of life a node's row is kept before another node removes it.
const NodeTimeout = 10 * time.Minute

// Feed is the change feed and the nodes that follow it.
type Feed interface {
	// Recent returns the changes since a time, oldest first, for a node that starts, with counter and epoch.
	Recent(ctx context.Context, since time.Time) (Tail, error)
	// Tail reads the changes from a sequence on, inclusive. It takes no write lock.
	Tail(ctx context.Context, node string, from uint64) (Tail, error)
	Register(ctx context.Context, node string, keys []uint32) error
	// Acknowledge notes that the node is clean up to a sequence, and that it is alive; ErrNotFound: its row is gone.
	Acknowledge(ctx context.Context, node string, sequence uint64, keys []uint32) error
	Unregister(ctx context.Context, node string) error
	Nodes(ctx context.Context) ([]Node, error)
	// Prune forgets changes and nodes that nobody needs any more.
	Prune(ctx context.Context, before time.Time) error
}

// Account is one person's identity as the store keeps it.
type Account struct {
	ID          AccountID
	PublicID    string
	Status      Status
	Version     uint64
	BackendName string
	Admin       bool     // may administer at the portal; others may by a group
	Names       []string // canonical addresses; the first is the one the account was made with
	Groups      []string // those of its ties
	Created     time.Time
	Passwords   int // active app passwords
}

// AppPassword is what people and administrators see of an app password; never its secret, nor its digest.
type AppPassword struct {
	ID          PasswordID
	Account     AccountID
	Label       string
	Scopes      Scopes
	Created     time.Time
	Expires     time.Time // zero: never
	Networks    []netip.Prefix
	Collections []Collection // single calendars and address books that it opens; empty: not narrowed
	Titles      Titles       // of the collections, when it was made
	MadeBy      string       // the administrator who made it for a device or a shared mailbox, by his address; empty: its owner, or the command line
	Revoked     time.Time    // zero: not revoked
	Why         string       // why it was revoked
	Last        *LastUse     // nil: never used
	Failures    int64        // logins that were refused though the secret was genuine: ended, or not for that protocol or network
}

// LastUse tells when and how an app password was last used.
type LastUse struct {
	At       time.Time
	Protocol string
	App      string
	Network  netip.Prefix // the client's /24 or /48
	Operator string       // of the network, as in Usage
	Count    int64
}

// NewPassword is an app password to be written.
type NewPassword struct {
	Account     AccountID
	Label       string
	Key         uint32
	Digest      func(AccountID) Digest // called inside the transaction, so that the digest binds the account
	Scopes      Scopes
	Expires     time.Time
	Networks    []netip.Prefix
	Collections []Collection // as Narrow gives them
	Titles      Titles       // as CleanLabel has them
	MadeBy      string       // as in AppPassword
	Request     string       // names the form that asks for it, so that it is made once; empty: none
	Most        int          // how many may be active with it; zero: MaxActive
}

// Usage is one batch row of "last used", and what has gathered of one client.
type Usage struct {
	Password PasswordID
	Account  AccountID
	Protocol string
	App      string
	Network  netip.Prefix
	// Operator is who runs the network, with its number first: "AS64496 Example Net". Where that is not known, a wider prefix stands for
	// him: an IPv4 /16, an IPv6 /32. Empty: an older version wrote it.
	Operator string
	First    time.Time // of what was accepted, or, where nothing was, of what was refused
	Last     time.Time // likewise
	Count    int64     // accepted
	Failures int64     // refused, though the secret was genuine
	Rekey    *Rekey    // nil: the digest stays
}

// UsageDay is what one client of an app password did on one day.
type UsageDay struct {
	Day      time.Time // its beginning, in UTC
	Protocol string
	App      string
	Network  netip.Prefix // 0.0.0.0/0: all those that were too many to tell apart
	Count    int64        // accepted
	Failures int64        // refused, though the secret was genuine
}

// add takes in what happened besides with the same app, from the same place.
func (u *Usage) add(more Usage) {
	switch {
	case u.Count == 0 && more.Count > 0:
		u.First, u.Last = more.First, more.Last
	case u.Count > 0 && more.Count == 0: // its times are not those of a use
	default:
		if more.First.Before(u.First) {
			u.First = more.First
		}
		if more.Last.After(u.Last) {
			u.Last = more.Last
		}
	}
	if more.Rekey != nil {
		u.Rekey = more.Rekey
	}
	u.Count += more.Count
	u.Failures += more.Failures
}

// Rekey moves an app password's digest to a newer root key, if it is still as it was and not revoked.
type Rekey struct {
	From, To uint32
	Digest   Digest
}

// Event is one line of history for people and auditors.
type Event struct {
	ID       int64
	At       time.Time
	Account  AccountID
	Password PasswordID
	Kind     string // "password.created", "account.suspended", ...
	Actor    Actor
	Detail   string // never a secret
}

// Actor is who changes something, for the history.
type Actor struct {
	Name   string     // "cli:root", "admin:ADDRESS", "api:TOKEN"; "portal" for the person himself; "gateway"
	Client netip.Addr // where the person sits; the zero value where that is this machine
	Agent  string     // the person's browser, as it calls itself
	// Session is the number of the portal's session in which it is done: once that has ended, the change is refused with ErrSignedOut. It
	// stands in no history; zero: there is none.
	Session int64
	// Administrator is whose session that is; nil: the account's own that is changed.
	Administrator *Administrator
}

// Administrator is somebody who changes others' accounts at the portal. Once he is none any more, his changes are refused with
// ErrNotAdministrator.
type Administrator struct {
	Account AccountID
	Groups  []string // whose members are administrators too
	Issuer  string   // who tells of these groups
}

// Administers reports whether somebody does it who is not the account's own person: at the command line, at the portal's pages for
// administrators, by the API.
func (a Actor) Administers() bool {
	who, _, named := strings.Cut(a.Name, ":")
	return named && (who == "cli" || who == "admin" || who == "api")
}

// EventQuery chooses from the history, newest first. A zero field chooses nothing away.
type EventQuery struct {
	Account  AccountID // zero: all, those that are gone too
	Actor    string    // by name, as Actor has it
	Kinds    []string  // any of these, or what begins with one that ends in a dot: "password."
	Password PasswordID
	Since    time.Time // those that happened then or later
	Until    time.Time // and before
	Before   int64     // an event's number: those before it
	Limit    int       // 0: 100
}

// AccountQuery chooses from the accounts, by their first addresses in order. A zero field chooses nothing away.
type AccountQuery struct {
	Text   string // a part of one of the addresses
	Domain string // of the first address
	Status Status
	Open   bool   // only those with an app password that is not revoked
	After  string // a first address: those behind it
	Limit  int    // 0: 100
}

// Writer is what administrators, the portal and the batches change. Each change appends an Event in its transaction.
type Writer interface {
	AddAccount(ctx context.Context, actor Actor, address, publicID string) (Account, Change, error)
	Accounts(ctx context.Context) ([]Account, error)
	Account(ctx context.Context, address string) (Account, error)
	AccountNumbered(ctx context.Context, id AccountID) (Account, error)
	// FindAccounts lists the accounts of a query; CountAccounts counts them, without regard to After and Limit, and their active app passwords.
	FindAccounts(ctx context.Context, q AccountQuery) ([]Account, error)
	CountAccounts(ctx context.Context, q AccountQuery) (accounts, passwords int, err error)
	SetStatus(ctx context.Context, actor Actor, id AccountID, s Status) (Change, error)
	// SetGone moves an account from Active to AccountGone, or back; from another status it changes nothing, and the Change has no sequence.
	SetGone(ctx context.Context, actor Actor, id AccountID, gone bool, why string) (Change, error)
	RemoveAccount(ctx context.Context, actor Actor, id AccountID) (Change, error)
	AddName(ctx context.Context, actor Actor, id AccountID, address string) (Change, error)
	RemoveName(ctx context.Context, actor Actor, id AccountID, address string) (Change, error)
	SetBackendName(ctx context.Context, actor Actor, id AccountID, name string) (Change, error)
	SetAdmin(ctx context.Context, actor Actor, id AccountID, admin bool) (Change, error)
	// Import adds accounts, and names, a backend name or a tie to those that are there: all in one transaction. Each is a change of the feed,
	// of which the last is returned. An *ImportError says which of them could not be written, and that none was.
	Import(ctx context.Context, actor Actor, list []AccountImport) (Change, error)

	// CreatePassword writes an app password; ErrTooMany, and *ErrMade where its request has made one.
	CreatePassword(ctx context.Context, actor Actor, p NewPassword) (AppPassword, Change, error)
	// EditPassword changes an active app password; ErrNotActive.
	EditPassword(ctx context.Context, actor Actor, id PasswordID, e PasswordEdit) (Change, error)
	Passwords(ctx context.Context, id AccountID, ended bool) ([]AppPassword, error)
	Password(ctx context.Context, id PasswordID) (AppPassword, error)
	// Revoke ends one app password; revoking one that is revoked already is no error and tells its change again.
	Revoke(ctx context.Context, actor Actor, id PasswordID, why string) (Change, error)
	RevokeAll(ctx context.Context, actor Actor, id AccountID, why string) (Change, error)

	// Idle lists active app passwords of active accounts that were not used since a time, by number, those behind one.
	Idle(ctx context.Context, since time.Time, after PasswordID, limit int) ([]IdlePassword, error)
	// RevokeIdle ends an app password that was used last, or made, at a time; ErrNotActive where it was used since, or has ended.
	RevokeIdle(ctx context.Context, actor Actor, id PasswordID, since time.Time, why string) (Change, error)
	// Unreminded lists active accounts by number, those behind one, that have active app passwords, the oldest of which was made before a time,
	// and no event KindYearly since.
	Unreminded(ctx context.Context, since time.Time, after AccountID, limit int) ([]Account, error)
	// Tell appends a line of history that changes nothing.
	Tell(ctx context.Context, e Event) error

	// Used writes a batch of usage, and the rekeys in it, which are changes like any other. Of each app password the clients that were
	// seen last are kept, at least 100. An accepted use that JudgeUse takes for news is an event.
	Used(ctx context.Context, batch []Usage) error
	// Usage lists the clients of an app password, the latest first.
	Usage(ctx context.Context, id PasswordID) ([]Usage, error)
	// UsageDays lists what the clients of an app password did each day since a time, the latest day first; at most 90 days are kept.
	UsageDays(ctx context.Context, id PasswordID, since time.Time) ([]UsageDay, error)
	Events(ctx context.Context, q EventQuery) ([]Event, error)

	// Sealed holds secrets that the caller sealed, bound to table, row and account; ErrNotFound.
	SetSealed(ctx context.Context, actor Actor, id AccountID, backend string, key uint32, sealed []byte) error
	Sealed(ctx context.Context, id AccountID, backend string) ([]byte, error)

	// Lease lets one of several processes do a thing until a time: true for the owner who has it, or takes it because nobody does, or not
	// any more. A time that is over gives it up.
	Lease(ctx context.Context, name, owner string, until time.Time) (bool, error)

	// Meta reads a value of the table meta; SetMeta writes it if it is not there, and returns what stands there then.
	Meta(ctx context.Context, name string) ([]byte, error)
	SetMeta(ctx context.Context, name string, value []byte) ([]byte, error)
	// KeyUse counts the rows that need each root key.
	KeyUse(ctx context.Context) (map[uint32]int, error)
	// Reseal has every sealed row under one root key sealed again under another, and counts them. A row's place is its table, account and
	// number, joined by slashes. Rows that somebody changes meanwhile are left to him.
	Reseal(ctx context.Context, from, to uint32, seal func(place string, sealed []byte) ([]byte, error)) (int, error)
}

// ErrSignedOut says that the session in whose name something was to be changed has ended.
var ErrSignedOut = errors.New("the session has ended")

// ErrNotAdministrator says that whoever changes somebody's account in an administrator's name is none any more.
var ErrNotAdministrator = errors.New("not an administrator any more")

// ErrUncertain says that a commit was asked for and its answer never came: the change may have happened.
var ErrUncertain = errors.New("it is not known whether the change was written")

// Cache is the shared layer between nodes: Redis. Nothing in it is trusted; all of it may be lost. Keys and values are opaque.
type Cache interface {
	// Get returns nil without an error where there is nothing.
	Get(ctx context.Context, key string) ([]byte, error)
	// Put stores a value only over a lower sequence.
	Put(ctx context.Context, key string, sequence uint64, value []byte, life time.Duration) error
	// Charge adds a cost to a bucket of burst size that all nodes share, and returns its debt: how long until it is empty.
	Charge(ctx context.Context, key string, cost, burst time.Duration) (debt time.Duration, err error)
	// Publish tells other nodes to tail now; Watch calls told for each such message until ctx ends.
	Publish(ctx context.Context) error
	Watch(ctx context.Context, told func()) error
	Ping(ctx context.Context) error
	Close() error
}

// Sessions are this node's open connections; gateway/live implements it. The feed ends those whose grant has ended.
type Sessions interface {
	// Review ends every session of the account (zero: of all accounts) whose grant the function gives a cause for, and
	// returns a channel that is closed when all of these have left. It does not wait itself, and asks without holding a lock.
	Review(id AccountID, ended func(Grant) error) <-chan struct{}
	// Expire moves the time at which sessions of the account end by themselves, for those of which at says true; zero: never.
	Expire(id AccountID, at func(Grant) (time.Time, bool))
}
