package popproxy

import (
	"errors"

	"postern/protocols"
)

// The codes of RFC 3206, section 4. Only what is wrong with the app password is codeAuth: apps ask their owners for another one then.
const (
	codeAuth      = "AUTH"
	codeTemporary = "SYS/TEMP"
	codePermanent = "SYS/PERM"
)

// codes is the table of the design for POP3.
var codes = map[protocols.Reason]string{
	protocols.Unavailable:    codeTemporary,
	protocols.Wrong:          codeAuth,
	protocols.NotAppPassword: codeAuth,
	protocols.Expired:        codeAuth,
	protocols.OutOfScope:     codeAuth,
	protocols.BadNetwork:     codePermanent,
	protocols.Suspended:      codePermanent,
	protocols.Throttled:      codeTemporary,
	protocols.NoRoute:        codePermanent,
	protocols.TooMany:        codeTemporary,
	protocols.OtherName:      codeAuth,
}

// passedOn are the backends' codes that their clients are told, for apps know what to do about them (RFC 2449 section 8.1.1). The texts
// are ours.
var passedOn = map[string]string{
	codeInUse:      "Another POP3 session has the mailbox open; please try again later.",
	codeLoginDelay: "It is too early after the last login; please try again later.",
}

// The codes of RFC 2449.
const (
	codeInUse      = "IN-USE"
	codeLoginDelay = "LOGIN-DELAY"
)

// refusedLogin is the answer to a login that failed with err.
func refusedLogin(a protocols.Answer, err error) string {
	if said, ok := errors.AsType[status](err); ok && passedOn[said.code] != "" {
		return refusal(said.code, passedOn[said.code])
	}
	return refusal(codes[a.Reason], a.Text)
}

func refusal(code, text string) string { return "-ERR [" + code + "] " + text + "\r\n" }

// goodbye is what a client is told whose connection ends, before or after its login. It never says codeAuth: that belongs to a login, which
// the app will try next.
func goodbye(reason error) []byte {
	return []byte(refusal(codeTemporary, protocols.EndingOf(reason).Text()))
}
