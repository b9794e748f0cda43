package saslauth

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// The mechanisms of tokens that backends want. Clients are offered neither.
const (
	OAuthBearer = "OAUTHBEARER" // RFC 7628
	XOAuth2     = "XOAUTH2"     // Google's and Microsoft's before it
)

// maxMessage bounds a message with a token, in bytes: encoded it has the 12288 that each server of SMTP takes (RFC 4954 section 4).
const maxMessage = 12288 / 4 * 3

// AppendOAuthBearer appends OAUTHBEARER's message, encoded, as a client sends it. host and port are where it connects to; both may be empty. The
// caller clears it. ErrMalformed: an empty or endless part, or a character that would end a part before its end.
func AppendOAuthBearer(dst []byte, authcid, host, port string, token []byte) ([]byte, error) {
	if !isText(host) || !isText(port) {
		return dst, ErrMalformed
	}
	words := "n,a=" + gs2Escaper.Replace(authcid) + ",\x01"
	if host != "" {
		words += "host=" + host + "\x01"
	}
	if port != "" {
		words += "port=" + port + "\x01"
	}
	return appendBearer(dst, words, authcid, token)
}

// gs2Escaper makes a saslname of a name (RFC 5801 section 4).
var gs2Escaper = strings.NewReplacer("=", "=3D", ",", "=2C")

// AppendXOAuth2 appends XOAUTH2's message, encoded, as a client sends it. The caller clears it. ErrMalformed is as of AppendOAuthBearer.
func AppendXOAuth2(dst []byte, authcid string, token []byte) ([]byte, error) {
	return appendBearer(dst, "user="+authcid+"\x01", authcid, token)
}

// appendBearer appends words and behind them the token, as both mechanisms have it.
func appendBearer(dst []byte, words, authcid string, token []byte) ([]byte, error) {
	const before, end = "auth=Bearer ", "\x01\x01"
	if authcid == "" || !isText(authcid) || !isToken(token) {
		return dst, ErrMalformed
	}
	message := make([]byte, 0, len(words)+len(before)+len(token)+len(end))
	defer func() { clear(message[:cap(message)]) }()
	message = append(append(message, words...), before...)
	message = append(append(message, token...), end...)
	if len(message) > maxMessage {
		return dst, ErrMalformed
	}
	return base64.StdEncoding.AppendEncode(dst, message), nil
}

// isText tells whether words have no control characters, one of which divides a message.
func isText(words string) bool {
	return utf8.ValidString(words) && !strings.ContainsFunc(words, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// isToken takes visible characters, which are some more than a bearer token has (RFC 6750 section 2.1).
func isToken(token []byte) bool {
	for _, c := range token {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return len(token) > 0
}

// RefusalEnd is what a client answers, encoded, to the challenge by which a server refuses a token, so as to be told the outcome of its login. Of
// XOAUTH2 that is an empty line.
func RefusalEnd(mechanism string) string {
	if mechanism == OAuthBearer {
		return "AQ==" // RFC 7628 section 3.2.3
	}
	return ""
}

// maxStatus bounds what is believed to be a status, in bytes.
const maxStatus = 40

// RefusalStatus is the status in the challenge by which a server refuses a token (RFC 7628 section 3.2.2), such as "invalid_token"; Google says "400".
// It is for the log, and has letters, digits and "-._" only. Empty: there is none. The challenge is as it stands on the wire.
func RefusalStatus(challenge []byte) string {
	text := make([]byte, base64.StdEncoding.DecodedLen(len(challenge)))
	n, err := base64.StdEncoding.Decode(text, challenge)
	if err != nil {
		return ""
	}
	var said struct {
		Status any `json:"status"` // a server in the field may say a number
	}
	if json.Unmarshal(text[:n], &said) != nil {
		return ""
	}
	var status string
	switch s := said.Status.(type) {
	case string:
		status = s
	case float64:
		number, _ := json.Marshal(s) // of JSON's own
		status = string(number)
	}
	if len(status) > maxStatus || strings.ContainsFunc(status, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._", r))
	}) {
		return ""
	}
	return status
}
