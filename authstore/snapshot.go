package authstore

import (
	"net/netip"
	"time"
)

// Digest is the keyed hash of an app password: HMAC-SHA-256 under a pepper, over account id and secret.
type Digest [32]byte

// Status of an account. Its numbers stand in the database.
type Status int

// The statuses.
const (
	Active        Status = 1
	AccountPaused Status = 2 // suspended by an administrator
)

// Snapshot is all that Verify needs to know of one login name, read by one statement (or transaction) together with the
// feed's counter. With Account zero it says that nobody had that name then.
type Snapshot struct {
	Epoch       string // the store's epoch: another one after a restore
	Sequence    uint64 // the feed's counter when it was read
	Account     AccountID
	PublicID    string
	Status      Status
	Version     uint64
	BackendName string
	Active      []Verifiable // not revoked; at most MaxActive of them not expired
	Ended       []Verifiable // revoked or expired in the last 90 days, at most MaxEnded, newest first
}

// Verifiable is one app password inside a snapshot.
type Verifiable struct {
	ID       PasswordID
	Key      uint32 // number of the root key that the digest is made with
	Digest   Digest
	Scopes   Scopes
	Expires  time.Time // zero: never
	Revoked  bool
	Networks []netip.Prefix // empty: any
}

const (
	// MaxActive is how many app passwords of one account may be active.
	MaxActive = 25
	// MaxEnded bounds the ended app passwords that a snapshot remembers.
	MaxEnded = 100
)
