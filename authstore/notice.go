package authstore

import (
	"maps"
	"slices"
	"time"
)

// noticed are the kinds of events that the person is told of by mail: what lets somebody in, or takes something away.
var noticed = map[string]bool{
	"password.created":     true,
	"password.edited":      true,
	"password.revoked":     true,
	"password.revoked_all": true,
	KindNewUse:             true,
	KindIdle:               true,
	KindYearly:             true,
	"factor.added":         true,
	KindFactorRefused:      true,
	"factor.removed":       true,
	"factors.reset":        true,
	"recovery.renewed":     true,
	"recovery.used":        true,
	"primary.set":          true,
	"primary.changed":      true,
	"invitation.made":      true,
	"invitation.accepted":  true,
	"portal.first_sign_in": true,
	KindConnectionMade:     true,
	KindConnectionFailed:   true,
	KindConnectionRemoved:  true,
	"portal.first_vouched": true,
}

// KindFactorRefused is the event of a wrong second factor behind the right primary password, in a browser that is not known: somebody else may
// know the primary password.
const KindFactorRefused = "factor.refused"

// Noticed reports whether people are told of events of a kind by mail.
func Noticed(kind string) bool { return noticed[kind] }

// Notice is an event that somebody is to be told of, with what the mail needs to know.
type Notice struct {
	Event
	PublicID    string
	Address     string       // the account's first; empty: the account is gone
	Language    string       // a BCP 47 tag; empty: never chosen
	Zone        string       // an IANA time zone; empty: UTC
	Label       string       // of the event's app password, where there is one
	Scopes      Scopes       // likewise
	Collections []Collection // likewise: what it is narrowed to
	Titles      Titles       // likewise: of these
	Refusals    int          // how often the mail server has refused it
}

// newUseDelay gathers: a phone that was just set up speaks several protocols within a minute, and one mail says so.
const newUseDelay = 2 * time.Minute

// NoticeDelay is how long after an event its notice is sent.
func NoticeDelay(kind string) time.Duration {
	if kind == KindNewUse {
		return newUseDelay
	}
	return 0
}

// NoticedKinds lists the kinds of events that people are told of.
func NoticedKinds() []string { return slices.Sorted(maps.Keys(noticed)) }
