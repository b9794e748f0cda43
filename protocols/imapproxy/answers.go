package imapproxy

import (
	"github.com/emersion/go-imap/v2"

	"postern/protocols"
)

// codes is the table of the design for IMAP: NO with a code of RFC 5530, section 3.
var codes = map[protocols.Reason]imap.ResponseCode{
	protocols.Unavailable:    imap.ResponseCodeUnavailable,
	protocols.Wrong:          imap.ResponseCodeAuthenticationFailed,
	protocols.NotAppPassword: imap.ResponseCodeAuthenticationFailed,
	protocols.Expired:        imap.ResponseCodeExpired,
	protocols.OutOfScope:     imap.ResponseCodeNoPerm,
	protocols.BadNetwork:     imap.ResponseCodeNoPerm,
	protocols.Suspended:      imap.ResponseCodeContactAdmin,
	protocols.Throttled:      imap.ResponseCodeUnavailable,
	protocols.NoRoute:        imap.ResponseCodeContactAdmin,
	protocols.TooMany:        imap.ResponseCodeLimit,
	protocols.OtherName:      imap.ResponseCodeAuthorizationFailed,
}

// refusedLogin is the answer to a login as it is sent. People are shown what their app has to be told, by an alert (RFC 9051 section 7.1): a
// status has one code, so that is a line of its own.
func refusedLogin(tag string, a protocols.Answer) string {
	s := no(tag, codes[a.Reason], a.Text)
	if a.Reason == protocols.NotAppPassword {
		s = no("*", imap.ResponseCodeAlert, a.Text) + s
	}
	return s
}

func no(tag string, code imap.ResponseCode, text string) string {
	return tag + " NO [" + string(code) + "] " + text + "\r\n"
}

// endings are the codes of BYE.
var endings = map[protocols.Ending]imap.ResponseCode{
	protocols.Revoked: imap.ResponseCodeExpired,
	protocols.Closed:  imap.ResponseCodeContactAdmin,
}

// goodbye is what a client is told whose connection ends, before or after its login.
func goodbye(reason error) []byte {
	e := protocols.EndingOf(reason)
	code := endings[e]
	if code == "" {
		code = imap.ResponseCodeUnavailable
	}
	return []byte("* BYE [" + string(code) + "] " + e.Text() + "\r\n")
}
