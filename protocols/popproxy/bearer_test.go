package popproxy_test

import (
	"strings"
	"testing"

	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/doortest"
	"postern/protocols/popproxy"
)

// Exchange Online hangs up on a token in the same line as AUTH: tokens are longer than the 255 bytes of a command.
func TestTokenDialogues(t *testing.T) {
	t.Parallel()
	const hello = "+OK The Microsoft Exchange POP3 service is ready. [UwBD]\nC: CAPA\n+OK\nTOP\nUIDL\nSASL PLAIN XOAUTH2\nUSER\n.\n"
	response := func(token string) string { return b64("user=alice@example.test\x01auth=Bearer " + token + "\x01\x01") }
	long := strings.Repeat("t", 6<<10)
	limit, longer := strings.Repeat("t", 142), strings.Repeat("t", 145)
	if n := len("AUTH XOAUTH2 \r\n") + len(response(limit)); n > 255 || n <= 251 {
		t.Fatalf("a command of %d bytes", n)
	}
	fails := b64(`{"status":"invalid_token"}`)
	cantLook := b64(`{"status":"temporarily_unavailable"}`)
	doortest.TokenDialogues(t, popproxy.Door{Offers: doortest.Offers(t)}, map[string]doortest.TokenDialogue{
		"XOAUTH2":           {Script: hello + "C: AUTH XOAUTH2 " + response("token") + "\n+OK User successfully logged on.\nC: NOOP"},
		"OAUTHBEARER":       {Script: strings.Replace(hello, "XOAUTH2", "XOAUTH2 OAUTHBEARER", 1) + "C: AUTH OAUTHBEARER <>\n+OK\nC: NOOP"},
		"no CAPA":           {Script: "+OK\nC: CAPA\n-ERR what?\nC: AUTH XOAUTH2 " + response("token") + "\n+OK\nC: NOOP"},
		"the longest":       {Script: hello + "C: AUTH XOAUTH2 " + response(limit) + "\n+OK\nC: NOOP", Token: limit},
		"longer":            {Script: hello + "C: AUTH XOAUTH2\n+ .\nC: " + response(longer) + "\n+OK\nC: NOOP", Token: longer},
		"6 KB":              {Script: hello + "C: AUTH XOAUTH2\n+\nC: " + response(long) + "\n+OK\nC: NOOP", Token: long},
		"with the address":  {Script: "+OK [XCLIENT] hi\nC: CAPA\n+OK\nSASL XOAUTH2\n.\nC: XCLIENT ADDR=127.0.0.1 PORT=<> SESSION=<> TTL=4\nC: AUTH XOAUTH2\n+OK Updated\n+ .\nC: " + response(long) + "\n+OK\nC: NOOP", Token: long},
		"refused":           {Script: hello + "C: AUTH XOAUTH2\n+ .\nC: " + response(long) + "\n-ERR Authentication failure: unknown user name or bad password.", Token: long, Refused: true, Err: "bad password"},
		"refused by JSON":   {Script: hello + "C: AUTH XOAUTH2\n+ .\nC: " + response(long) + "\n+ " + fails + "\nC: \n-ERR [AUTH] no", Token: long, Refused: true, Err: `the token's status is "invalid_token"`},
		"refused, a short":  {Script: hello + "C: AUTH XOAUTH2 " + response("token") + "\n+ " + fails + "\nC: \n-ERR [AUTH] no", Refused: true, Err: `the token's status is "invalid_token"`},
		"it can't look":     {Script: hello + "C: AUTH XOAUTH2 " + response("token") + "\n+ " + cantLook + "\nC: \n-ERR [AUTH] no", Err: `the token's status is "temporarily_unavailable"`},
		"in trouble":        {Script: hello + "C: AUTH XOAUTH2 " + response("token") + "\n-ERR [SYS/TEMP] later", Err: "later"},
		"neither mechanism": {Script: "+OK\nC: CAPA\n+OK\nSASL PLAIN LOGIN\n.\n", Err: protocols.ErrNoBearer.Error()},
	}, func(k *doortest.Client) string {
		k.Line()
		k.Ask("USER %s", testlab.Alice)
		return k.Ask("PASS %s", doortest.AppPassword)
	}, "+OK Logged in.", tempFail)
}
