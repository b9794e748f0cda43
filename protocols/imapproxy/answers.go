package imapproxy

import (
	"errors"

	"github.com/emersion/go-imap/v2"

	"postern/authstore"
	"postern/protocols"
)

// answer is how a client is told that a login was refused: NO with a code of RFC 5530, section 3.
type answer struct {
	alert string // shown to people by their app (RFC 9051 section 7.1); empty: nothing
	code  imap.ResponseCode
	text  string
	ours  bool // nothing the client could have done better: it is not counted against it
}

// line is the answer as it is sent. A status has one code, so the alert is a line of its own.
func (a answer) line(tag string) string {
	s := tag + " NO [" + string(a.code) + "] " + a.text + "\r\n"
	if a.alert != "" {
		s = "* NO [" + string(imap.ResponseCodeAlert) + "] " + a.alert + "\r\n" + s
	}
	return s
}

// refusals is the table of the design for IMAP. Only who holds the genuine secret ever sees the plain words of the middle four.
var refusals = map[authstore.Code]answer{
	authstore.Wrong: {code: imap.ResponseCodeAuthenticationFailed, text: "Wrong address or app password."},
	authstore.NotAppPassword: {code: imap.ResponseCodeAuthenticationFailed, text: "That is not an app password.",
		alert: "Please use an app password for this app, not your own password."},
	authstore.Expired:     {code: imap.ResponseCodeExpired, text: "This app password has expired."},
	authstore.OutOfScope:  {code: imap.ResponseCodeNoPerm, text: "This app password does not open mail."},
	authstore.BadNetwork:  {code: imap.ResponseCodeNoPerm, text: "This app password may not be used from your network."},
	authstore.Suspended:   {code: imap.ResponseCodeContactAdmin, text: "This account is suspended."},
	authstore.Throttled:   {code: imap.ResponseCodeUnavailable, text: "Too many attempts; please try again later.", ours: true},
	authstore.Unavailable: tryLater,
}

var (
	tryLater         = answer{code: imap.ResponseCodeUnavailable, text: "Account is temporarily unavailable.", ours: true}
	noRoute          = answer{code: imap.ResponseCodeContactAdmin, text: "No mail server is configured for this account.", ours: true}
	tooMany          = answer{code: imap.ResponseCodeLimit, text: "Too many connections.", ours: true}
	otherName        = answer{code: imap.ResponseCodeAuthorizationFailed, text: "An app password opens its own account only."}
	privacyRequired  = answer{code: imap.ResponseCodePrivacyRequired, text: "Start TLS first."}
	unknownMechanism = answer{code: imap.ResponseCodeCannot, text: "Unknown mechanism."}
)

// answerTo finds the answer. No unknown error becomes "wrong password": an app would ask its owner for a new one. What a
// backend said never reaches a client: it could tell which names exist.
func answerTo(err error) answer {
	if r, ok := errors.AsType[*authstore.Refusal](err); ok {
		if a, ok := refusals[r.Code]; ok {
			return a
		}
	}
	switch {
	case errors.Is(err, protocols.ErrNoRoute):
		return noRoute
	case errors.Is(err, protocols.ErrTooMany):
		return tooMany
	case errors.Is(err, protocols.ErrAuthzid):
		return otherName
	}
	return tryLater
}
