package submission

import "postern/protocols"

// codes is the table of the design for SMTP: the replies of RFC 4954, section 6, and the codes of RFC 3463. What is our own fault is
// temporary: an app that is told otherwise asks its owner for another password.
var codes = map[protocols.Reason]string{
	protocols.Unavailable:    "454 4.3.0",
	protocols.Wrong:          "535 5.7.8",
	protocols.NotAppPassword: "535 5.7.8",
	protocols.Expired:        "535 5.7.8",
	protocols.OutOfScope:     "535 5.7.8",
	protocols.BadNetwork:     "535 5.7.8",
	protocols.Suspended:      "535 5.7.8",
	protocols.Throttled:      "454 4.7.0",
	protocols.NoRoute:        "454 4.3.5",
	protocols.TooMany:        "454 4.3.2",
	protocols.OtherName:      "535 5.7.8",
}

// endings are the enhanced codes of 421, which may answer any command (RFC 5321 section 3.8).
var endings = map[protocols.Ending]string{
	protocols.Ended:        "4.3.2",
	protocols.Draining:     "4.3.2",
	protocols.LoginTimeout: "4.4.2",
	protocols.Evicted:      "4.3.2",
	protocols.Revoked:      "4.7.0",
	protocols.Closed:       "4.7.0",
}

// goodbye is what a client is told whose connection ends, before or after its login.
func goodbye(reason error) []byte {
	e := protocols.EndingOf(reason)
	return []byte("421 " + endings[e] + " " + e.Text() + "\r\n")
}
