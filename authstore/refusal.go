package authstore

import "fmt"

// Code is what a client may learn of a refusal. Each front door has one table from codes to its protocol's answers.
type Code int

// The refusals, in the order of the table in docs/security.md.
const (
	Wrong          Code = iota + 1 // wrong secret, unknown name, or revoked: never told apart
	NotAppPassword                 // not the shape of an app password, judged from what was typed alone
	Expired                        // genuine secret, but its time is over
	OutOfScope                     // genuine secret that does not open this protocol
	BadNetwork                     // genuine secret from a network that it is not allowed from
	Suspended                      // genuine secret of a suspended account
	Throttled                      // too many attempts; try later
	Unavailable                    // the store can't decide now; try later
)

func (c Code) String() string {
	switch c {
	case Wrong:
		return "wrong"
	case NotAppPassword:
		return "not_app_password"
	case Expired:
		return "expired"
	case OutOfScope:
		return "out_of_scope"
	case BadNetwork:
		return "bad_network"
	case Suspended:
		return "suspended"
	case Throttled:
		return "throttled"
	case Unavailable:
		return "unavailable"
	}
	return fmt.Sprintf("code(%d)", int(c))
}

// Refusal says why an attempt opened nothing.
type Refusal struct {
	Code     Code       // what the client may learn
	Cause    error      // what only the log may learn; may be nil
	Account  AccountID  // for the log, where the name belongs to an account
	Password PasswordID // for the log, where the secret was genuine
}

func (r *Refusal) Error() string {
	if r.Cause == nil {
		return "refused: " + r.Code.String()
	}
	return "refused: " + r.Code.String() + ": " + r.Cause.Error()
}

func (r *Refusal) Unwrap() error { return r.Cause }
