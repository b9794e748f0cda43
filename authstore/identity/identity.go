// Package identity decides who signs in at the portal: primary passwords, second factors, recovery codes, invitations, sessions. It
// knows no page, no HTTP and no database: People works on a Truth, which authstore/sqlstore implements. Nothing here is asked by a
// protocol: what apps log in with is authstore's.
package identity

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"postern/authstore"
	"postern/authstore/secret"
)

// Errors that pages tell people about.
var (
	// ErrWrong: the name or the primary password is wrong, or the account may not sign in. Which, nobody is told.
	ErrWrong = errors.New("the address or the password is wrong")
	// ErrWrongCode: the second factor is wrong, was used before, or has run out.
	ErrWrongCode = errors.New("the code is wrong or was used before")
	// ErrNoSession: nobody is signed in with that token, or no longer.
	ErrNoSession = errors.New("not signed in")
	// ErrStepUp: it needs a second factor that was given within FreshFor.
	ErrStepUp = errors.New("a second factor is needed first")
	// ErrNoInvitation: the link was used, has run out, or never was one.
	ErrNoInvitation = errors.New("the link is not valid any more")
	// ErrLastFactor: the only second factor can't be removed.
	ErrLastFactor = errors.New("the only second factor can't be removed")
	// ErrUnavailable: what checks primary passwords does not answer.
	ErrUnavailable = errors.New("signing in is not possible at the moment")
	// ErrForeignPrimary: the primary password is another server's and can't be changed here.
	ErrForeignPrimary = errors.New("the primary password is not kept here")
	// ErrVouched: people sign in at another server, and here is no primary password, invitation or passkey that would do.
	ErrVouched = errors.New("people sign in at another server, which vouches for them")
	// ErrNeedsInvitation: the primary password is right, and the account has no second factor, which only an administrator's link sets up.
	ErrNeedsInvitation = errors.New("an administrator's link is needed for the set-up")
	// ErrManyFactors: the account has as many second factors as it may.
	ErrManyFactors = errors.New("there are 20 second factors already; remove one first")
	// ErrKnownFactor: that passkey or authenticator app was added before.
	ErrKnownFactor = errors.New("this second factor was added before")
	// ErrNoPasskeys: the portal's address is none that passkeys can be bound to.
	ErrNoPasskeys = errors.New("passkeys need a portal with a host name")
	// ErrPreference: that is no language, or no time zone.
	ErrPreference = errors.New("not a language or time zone that is known here")
)

// TooMany says that there were too many wrong attempts, and for how long nothing more is taken.
type TooMany struct{ Wait time.Duration }

func (e *TooMany) Error() string { return "too many attempts" }

// Weak says why a new primary password is refused.
type Weak struct{ Reason Weakness }

func (e *Weak) Error() string { return "the new password is too weak: " + string(e.Reason) }

// Weakness is a reason to refuse a primary password.
type Weakness string

// The weaknesses.
const (
	TooShort  Weakness = "short"
	TooLong   Weakness = "long"
	Guessable Weakness = "guessable" // zxcvbn
	Breached  Weakness = "breached"  // it stands in the list of breached passwords
	Unchanged Weakness = "unchanged"
)

// The bounds of sessions.
const (
	FreshFor      = 5 * time.Minute  // how long a second factor counts for what needs a fresh one
	SignInTime    = 10 * time.Minute // from the primary password to the second factor
	SetUpTime     = time.Hour
	InvitationFor = 72 * time.Hour
)

// Stage is how far a session has got.
type Stage int

// The stages.
const (
	AwaitsFactor Stage = iota + 1 // the primary password was right; the second factor is due. Ends SignInTime after it began.
	AwaitsSetUp                   // there is no second factor yet: nothing but the set-up is open. Ends SetUpTime after it began.
	SignedIn
)

// SessionID numbers a session.
type SessionID int64

// Session is one browser that is signed in, or about to.
type Session struct {
	ID       SessionID
	Account  authstore.AccountID
	Address  string // the account's first name
	Admin    bool   // an administrator's
	Stage    Stage
	Began    time.Time
	Seen     time.Time // coarse
	FactorAt time.Time // when the last second factor was given; zero: none was
	Method   string    // how it was signed in: "password totp", "password passkey", "password recovery", "passkey", "invitation totp", "provider factor", "provider totp"
	Client   netip.Addr
	Agent    string
	Language string // the account's, empty: not chosen yet
	Zone     string // an IANA name

	// Issuer, Subject and SID are those of the Claims that it began with; empty: it was proven here who sits there.
	Issuer, Subject, SID string
}

// Token is what the session's cookie holds. It changes whenever the session gets further; the old one is dead then.
type Token string

// Visitor is where a request comes from.
type Visitor struct {
	Client   netip.Addr
	Agent    string // the User-Agent
	Device   string // the cookie that a browser got when somebody signed in there before; empty: a stranger
	Language string // of the page
	Zone     string // as the browser says; may be empty
}

// FactorID numbers a second factor.
type FactorID int64

// Kind is a kind of second factor.
type Kind string

// The kinds.
const (
	TOTP    Kind = "totp"
	Passkey Kind = "passkey"
)

// Factor is one second factor, without its secret.
type Factor struct {
	ID       FactorID
	Kind     Kind
	Label    string
	Created  time.Time
	LastUsed time.Time // zero: never
}

// Factors is what an account has to prove itself with besides the primary password.
type Factors struct {
	List     []Factor
	Recovery int // recovery codes that are left
}

// Purpose says what an invitation is for.
type Purpose string

// The purposes.
const (
	// Begin sets a new primary password (of a local account) and new second factors; what there was is gone once it was used.
	Begin Purpose = "begin"
	// NewFactor asks for the primary password, and sets new second factors.
	NewFactor Purpose = "factor"
)

// Invitation is an administrator's link, as its page shows it.
type Invitation struct {
	Account authstore.AccountID
	Address string
	Purpose Purpose
	Expires time.Time
	// SetsPrimary says that the person chooses a primary password; otherwise the known one is asked for.
	SetsPrimary bool
	// Revokes counts the app passwords that end with it, for a primary password takes the place of another.
	Revokes int
}

// Ceremony is one WebAuthn dialogue: what the browser's script gets, and what has to come back beside its answer.
type Ceremony struct {
	Options []byte // JSON: PublicKeyCredentialCreationOptions or PublicKeyCredentialRequestOptions
	State   string // opaque and sealed; used once, within five minutes
}

// Enrolment is a TOTP that is about to be set up.
type Enrolment struct {
	Key   string // base32, for typing
	URL   string // otpauth:
	QR    []byte // PNG
	State string // opaque and sealed; comes back with the first code
}

// Checker checks a primary password against another server, once.
type Checker interface {
	// Check answers with what the server says of whose password it is, ErrWrong, or another error where it can't be known.
	Check(ctx context.Context, login string, password []byte) (Claims, error)
}

// Options are what People works with.
type Options struct {
	Truth    Truth
	Accounts *authstore.Accounts
	Names    authstore.Names
	Keys     func() *secret.Keyring
	Checker  Checker // nil: primary passwords are kept here, as Argon2id, unless
	// Vouched: another server vouches for people, who come with SignInFrom. No primary password is known here, there are no invitations, and a
	// passkey is a second factor only: alone, it would outlive its owner's account at that server.
	Vouched bool
	// InviteOnly: nobody sets up a second factor without an administrator's link. So it is with primary passwords that are kept here anyway:
	// whoever knows one alone must not make an account his own whose owner left the set-up half-way.
	InviteOnly bool
	// OnePrimary: another primary password than the last one that the Checker took means that it was changed, so that all app
	// passwords end. False for servers that accept several for an account.
	OnePrimary bool
	// Provision says for whom an account is made at the first sign-in; the zero value: nobody.
	Provision Provisioning
	// AdminGroups are the groups whose members are administrators, as the issuer Vouching tells of them: what another server told once, at which
	// nobody signs in any more, makes none.
	AdminGroups []string
	Vouching    string
	Breached    func(password []byte) (bool, error) // nil: there is no list
	Site        string                              // the portal's origin: https://passwords.example.org, with the port if it is not 443
	Issuer      string                              // what authenticator apps call the account's place; empty: the origin's host
	Idle        time.Duration                       // 0: 30 minutes
	Absolute    time.Duration                       // 0: 12 hours
	// RefusalDelay is how long after the attempt a wrong primary password is answered, so that it tells nothing of the name; 0: a second,
	// below 0: at once.
	RefusalDelay time.Duration
	Now          func() time.Time // nil: time.Now
	// Hashing is called before each Argon2id, which keeps a core busy for tens of milliseconds, and done after it; nil: nobody is told.
	Hashing func() (done func())
}
