package authstore

import (
	"net/netip"
	"time"
)

// AccountID numbers an account; it is never used again. Zero is no account.
type AccountID int64

// PasswordID numbers an app password; it is never used again. Zero is none.
type PasswordID int64

// Attempt is one try to log in, as a front door read it.
type Attempt struct {
	Protocol  string     // "imap", "dav": for usage, logs and metrics
	Mechanism string     // the SASL mechanism, "LOGIN" for the IMAP command, "Basic" for HTTP
	Login     string     // the authcid as typed
	Secret    []byte     // as typed; the caller owns it and clears it
	Client    netip.Addr // the client's own address, behind PROXY protocol and trusted proxies too
	Need      Scopes     // the app password must hold one of these; zero: the front door applies the scopes itself
}

// Grant is what a verified attempt got. It says who, never with which secret.
type Grant struct {
	Account     AccountID
	PublicID    string // the account's ten random letters, for URLs
	Address     string // the name that the account was made with, also where it logged in by an alias
	Password    PasswordID
	Scopes      Scopes
	Collections []Collection // single calendars and address books that the scopes are narrowed to; none: all. Not to be changed
	Version     uint64       // the account's version when the grant was given
	BackendName string       // the account's name towards backends; empty: the backend's template decides
	Expires     time.Time    // when the app password ends; zero: never
	Client      netip.Addr   // the address it was given to

	login string // the canonical name that was used
	at    stamp  // when the snapshot was read that the grant rests on
	rekey *Rekey // the digest under the newest key, to be written with "last used"; nil: nothing to do
}

// knows reports whether the grant was given by what was read at a stamp, or later.
func (g *Grant) knows(at stamp) bool {
	return g.at.generation == at.generation && g.at.sequence >= at.sequence
}

// Use says how an accepted grant was used; see Store.Used.
type Use struct {
	Protocol string
	App      string // the client's name from IMAP ID or User-Agent; may be empty
}
