package protocols

import (
	"errors"

	"postern/authstore"
)

// Reason is why a login was refused, as far as a client may learn. Each front door has a table of its codes for them.
type Reason int

// The reasons. Only who holds the genuine secret ever sees Expired, OutOfScope, BadNetwork and Suspended.
const (
	Unavailable Reason = iota // and whatever is not known
	Wrong
	NotAppPassword
	Expired
	OutOfScope
	BadNetwork
	Suspended
	Throttled
	NoRoute
	TooMany
	OtherName
)

// Answer is what a client is told of a refused login. Its front door puts its protocol's code before the text.
type Answer struct {
	Reason Reason
	Text   string // ASCII, on one line
}

// Ours tells whether there is nothing that the client could have done better: then it is not counted against it.
func (a Answer) Ours() bool {
	switch a.Reason {
	case Unavailable, Throttled, NoRoute, TooMany:
		return true
	}
	return false
}

var reasons = map[authstore.Code]Reason{
	authstore.Wrong: Wrong, authstore.NotAppPassword: NotAppPassword, authstore.Expired: Expired, authstore.OutOfScope: OutOfScope,
	authstore.BadNetwork: BadNetwork, authstore.Suspended: Suspended, authstore.Throttled: Throttled, authstore.Unavailable: Unavailable,
}

var texts = map[Reason]string{
	Unavailable:    "Account is temporarily unavailable.",
	Wrong:          "Wrong address or app password.",
	NotAppPassword: "That is not an app password, or it is mistyped; please use an app password for this app, not your own password.",
	Expired:        "This app password has expired.",
	OutOfScope:     "This app password does not open ",
	BadNetwork:     "This app password may not be used from your network.",
	Suspended:      "This account is suspended.",
	Throttled:      "Too many attempts; please try again later.",
	NoRoute:        "No server is configured for this account.",
	TooMany:        "Too many connections.",
	OtherName:      "An app password opens its own account only.",
}

// AnswerTo finds the answer to a login that failed with err; what is what the front door opens: "mail". No unknown error becomes "wrong
// password": an app would ask its owner for a new one. What a backend said never reaches a client: it could tell which names exist.
func AnswerTo(err error, what string) Answer {
	reason := reasonOf(err)
	text := texts[reason]
	if reason == OutOfScope {
		text += what + "."
	}
	return Answer{reason, text}
}

func reasonOf(err error) Reason {
	if r, ok := errors.AsType[*authstore.Refusal](err); ok {
		return reasons[r.Code]
	}
	switch {
	case errors.Is(err, ErrNoRoute):
		return NoRoute
	case errors.Is(err, ErrTooMany):
		return TooMany
	case errors.Is(err, ErrAuthzid):
		return OtherName
	}
	return Unavailable
}

// Ending is why the gateway ends a connection, as far as its client may learn.
type Ending int

// The endings, before and after the login.
const (
	Ended Ending = iota
	Draining
	LoginTimeout
	Evicted
	Revoked
	Closed
)

// EndingOf finds the ending that a reason stands for. It is Revoked only where the app password was, lest its owner asks for a new one in
// vain.
func EndingOf(reason error) Ending {
	switch {
	case authstore.ErrClosed(reason):
		return Closed
	case authstore.ErrMoved(reason):
		return Ended
	case authstore.ErrRevoked(reason):
		return Revoked
	case errors.Is(reason, ErrDraining):
		return Draining
	case errors.Is(reason, ErrLoginTimeout):
		return LoginTimeout
	case errors.Is(reason, ErrEvicted):
		return Evicted
	}
	return Ended
}

// Text is the ending in plain words.
func (e Ending) Text() string {
	switch e {
	case Draining:
		return "Shutting down; please connect again."
	case LoginTimeout:
		return "No login in time."
	case Evicted:
		return "Too many connections."
	case Revoked:
		return "This app password was revoked."
	case Closed:
		return "This account was suspended or removed."
	}
	return "The session was ended; please connect again."
}
