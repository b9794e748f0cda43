package authstore

import (
	"iter"
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
	AccountGone   Status = 3 // suspended because the directory does not know the person any more, or has disabled him
)

func (s Status) String() string {
	switch s {
	case Active:
		return "active"
	case AccountGone:
		return "gone"
	}
	return "suspended"
}

// Snapshot is all that Verify needs to know of one login name, read by one statement (or transaction) together with the
// feed's counter. With Account zero it says that nobody had that name then.
type Snapshot struct {
	Epoch       string // the store's epoch: another one after a restore
	Sequence    uint64 // the feed's counter when it was read
	Account     AccountID
	PublicID    string
	Address     string // the name that the account was made with
	Status      Status
	Version     uint64
	BackendName string
	Active      []Verifiable // not revoked; at most MaxActive of them not expired
	Ended       []Verifiable // revoked or expired in the last 90 days, at most MaxEnded, newest first
}

// Verifiable is one app password inside a snapshot.
type Verifiable struct {
	ID          PasswordID
	Key         uint32 // number of the root key that the digest is made with
	Digest      Digest
	Scopes      Scopes
	Expires     time.Time // zero: never
	Revoked     bool
	Networks    []netip.Prefix // empty: any
	Collections []Collection   // what the scopes are narrowed to; empty: not narrowed
}

// all goes through the app passwords, active and ended.
func (s *Snapshot) all() iter.Seq[*Verifiable] {
	return func(yield func(*Verifiable) bool) {
		for _, list := range [2][]Verifiable{s.Active, s.Ended} {
			for i := range list {
				if !yield(&list[i]) {
					return
				}
			}
		}
	}
}

// refuses says why a snapshot does not let a grant go on; zero: it does. A grant is checked so again when its account has
// changed: the app password may have ended, or its networks may have changed.
func (s *Snapshot) refuses(g Grant, now time.Time) Code {
	switch {
	case s.Account != g.Account || s.Status != Active:
		return Suspended
	case s.BackendName != g.BackendName || s.Address != g.Address: // it was led to another mailbox
		return Unavailable
	}
	for i := range s.Active {
		v := &s.Active[i]
		if v.ID != g.Password {
			continue
		}
		switch {
		case v.expired(now):
			return Expired
		case !v.allows(g.Client):
			return BadNetwork
		case g.Scopes&^v.Scopes != 0, !covers(v.Collections, g.Collections):
			return OutOfScope
		}
		return 0
	}
	return Wrong
}

func (v *Verifiable) expired(now time.Time) bool { return !v.Expires.IsZero() && !v.Expires.After(now) }

// allows reports whether an app password may be used from an address.
func (v *Verifiable) allows(a netip.Addr) bool {
	if len(v.Networks) == 0 {
		return true
	}
	for _, n := range v.Networks {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

const (
	// MaxActive is how many app passwords of one account may be active.
	MaxActive = 25
	// MaxEnded bounds the ended app passwords that a snapshot remembers.
	MaxEnded = 100
)
