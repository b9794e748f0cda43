package identity

import (
	"context"
	"time"

	"postern/authstore"
)

// Truth is what the store keeps of people. Its reads judge nothing: a session that has run out is found like another, and who may do
// what is decided by People, inside Act where it counts. Addresses are canonical; what is not there is authstore.ErrNotFound.
type Truth interface {
	Person(ctx context.Context, id authstore.AccountID) (Person, error)
	PersonNamed(ctx context.Context, address string) (Person, error)
	PersonWithHandle(ctx context.Context, publicID string) (Person, error)
	// PersonTied finds the account that is bound to a person at another server.
	PersonTied(ctx context.Context, issuer, subject string) (Person, error)

	// Tied lists the accounts that are bound to an issuer's people, in the order of their numbers, those after one.
	Tied(ctx context.Context, issuer string, after authstore.AccountID, limit int) ([]Tied, error)

	// SessionWith finds a session by its token's digest.
	SessionWith(ctx context.Context, digest []byte) (StoredSession, error)
	SessionNumbered(ctx context.Context, id SessionID) (StoredSession, error)
	// SessionsOf lists an account's sessions, the latest first.
	SessionsOf(ctx context.Context, id authstore.AccountID) ([]StoredSession, error)
	// SessionsFrom lists the sessions that began with an issuer's claims: of a subject, of a SID, or, where both are given, of both.
	SessionsFrom(ctx context.Context, issuer, subject, sid string) ([]StoredSession, error)
	// Seen notes when a session was last seen; a time before the one noted changes nothing.
	Seen(ctx context.Context, id SessionID, at time.Time) error

	// InvitationWith finds an invitation by its secret's digest.
	InvitationWith(ctx context.Context, digest []byte) (StoredInvitation, error)

	// Charge fills token buckets, all or none: wait says how long the fullest one has no room yet, and zero that all were charged. Two
	// that charge at once never get more than there is.
	Charge(ctx context.Context, charges []Charge) (wait time.Duration, err error)
	// Refund takes charges back.
	Refund(ctx context.Context, charges []Charge) error

	// Act changes what belongs to one account, in one transaction that holds the write lock from its start: all that do did, or on its
	// error nothing. Do must be quick, and may be called again. A Change with a sequence is one of the feed, which has to be confirmed.
	Act(ctx context.Context, who authstore.Actor, id authstore.AccountID, do func(Tx) error) (authstore.Change, error)

	// PrunePeople forgets what nobody needs any more: sessions that have run out, buckets that are empty, what was spent and is over.
	PrunePeople(ctx context.Context, gone Bounds) error
}

// Tx is an Act under way. What it reads is so until it ends.
type Tx interface {
	Person(ctx context.Context) (Person, error)
	SessionNumbered(ctx context.Context, id SessionID) (StoredSession, error) // of this account
	// InvitationWith finds an invitation of this account.
	InvitationWith(ctx context.Context, digest []byte) (StoredInvitation, error)

	// Event appends a line of history.
	Event(ctx context.Context, kind, detail string) error
	Refund(ctx context.Context, charges []Charge) error
	// Spend notes what may be used once, until it would be refused anyway; false: it was used before.
	Spend(ctx context.Context, digest []byte, until time.Time) (bool, error)

	// AddSession begins a session. The oldest of an account end where there are more than keep at its stage.
	AddSession(ctx context.Context, s Session, digest []byte, keep int) (SessionID, error)
	// ChangeSession writes a session's token, stage, method, times and SID.
	ChangeSession(ctx context.Context, s Session, digest []byte) error
	EndSession(ctx context.Context, id SessionID) error
	// EndSessions ends all sessions but one (zero: all), and counts those that were signed in.
	EndSessions(ctx context.Context, but SessionID) (int, error)

	SetPrimary(ctx context.Context, sealed Sealed, changed time.Time) error
	// ForgetPrimary drops what is kept of the primary password, if anything is.
	ForgetPrimary(ctx context.Context) error
	// RevokeAll ends all app passwords and counts them. It makes the act a change of the feed.
	RevokeAll(ctx context.Context, why string) (int, error)
	SetPreferences(ctx context.Context, language, zone string) error

	// SetTie binds the account to a person at another server, in place of what bound it to the same server, of which only the time of its making
	// stays. ErrTied: that person has another account.
	SetTie(ctx context.Context, t Tie) error
	// RemoveTie takes back what binds the account to an issuer's person.
	RemoveTie(ctx context.Context, issuer string) error

	// AddFactor adds a factor. Seal is called with its number, to which the sealed value is bound.
	AddFactor(ctx context.Context, f StoredFactor, seal func(FactorID) (Sealed, error)) (FactorID, error)
	// TakeStep notes the step of a TOTP that was given; false: it, or a later one, was given before.
	TakeStep(ctx context.Context, id FactorID, step int64) (bool, error)
	// UseFactor notes that a factor was given, and with a key above zero what it is now.
	UseFactor(ctx context.Context, id FactorID, sealed Sealed, at time.Time) error
	RenameFactor(ctx context.Context, id FactorID, label string) error
	RemoveFactor(ctx context.Context, id FactorID) error
	RemoveFactors(ctx context.Context) error // and the recovery codes

	// UseRecovery uses a recovery code up; false: it was used before, or is gone.
	UseRecovery(ctx context.Context, number int, at time.Time) (bool, error)
	// SetRecovery puts recovery codes, numbered from 1, in the place of those there were.
	SetRecovery(ctx context.Context, codes []Sealed) error

	SetInvitation(ctx context.Context, i StoredInvitation, digest []byte) error
	RemoveInvitation(ctx context.Context) error
}

// Sealed is a secret at rest and the number of the root key that it needs; zero: there is none.
type Sealed struct {
	Key   uint32
	Value []byte
}

// Person is an account as identity sees it.
type Person struct {
	ID       authstore.AccountID
	PublicID string
	Status   authstore.Status
	Names    []string
	Language string
	Zone     string
	Admin    bool
	Ties     []Tie
	Primary  Sealed // Argon2id of the primary password
	Factors  []StoredFactor
	Recovery []StoredCode // those that are left
}

// Tied is an account that is bound to somebody elsewhere, for whoever looks whether he is there still.
type Tied struct {
	Tie
	Account authstore.AccountID
	Address string // its first
	Status  authstore.Status
}

// StoredFactor is a factor with its secret.
type StoredFactor struct {
	Factor
	Credential []byte // a passkey's id; nil: none
	Sealed     Sealed
	Step       int64 // of a TOTP: the last that was taken
}

// StoredCode is a recovery code.
type StoredCode struct {
	Number int
	Sealed Sealed
}

// StoredSession is a session, whether it has run out or not.
type StoredSession struct {
	Session                  // Admin says what stands at the account, without its groups
	Status  authstore.Status // the account's
	Groups  []Told           // of the account's ties
}

// Told are the groups that an issuer told of somebody last.
type Told struct {
	Issuer string
	Groups []string
}

// StoredInvitation is an invitation, whether it has run out or not.
type StoredInvitation struct {
	Account authstore.AccountID
	Purpose Purpose
	Created time.Time
	Expires time.Time
}

// Charge is a cost to a token bucket (GCRA): how long it takes to come back, and how far ahead of now the bucket may be filled.
type Charge struct {
	Bucket []byte // an opaque name
	Cost   time.Duration
	Burst  time.Duration
}

// Bounds are the times from before which sessions have ended.
type Bounds struct {
	Seen   time.Time // those that are signed in
	Began  time.Time // likewise
	SignIn time.Time // those that await a factor began
	SetUp  time.Time // those that await the set-up began
}
