package sieveproxy_test

import (
	"fmt"
	"strings"
	"testing"

	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/doortest"
	"postern/protocols/sieveproxy"
)

// A refused token is answered by a challenge here as well, which may be a quoted string or a literal.
func TestTokenDialogues(t *testing.T) {
	t.Parallel()
	hello := strings.Replace(greeting, "PLAIN", "PLAIN XOAUTH2 OAUTHBEARER", 1)
	older := strings.Replace(greeting, "PLAIN", "PLAIN XOAUTH2", 1)
	after := "C: CAPABILITY\n" + greeting + "C: NOOP"
	long := strings.Repeat("t", 6<<10)
	response := func(token string) string { return b64("user=alice@example.test\x01auth=Bearer " + token + "\x01\x01") }
	auth := func(token string) string {
		return fmt.Sprintf("C: AUTHENTICATE \"XOAUTH2\" {%d+}\nC: %s\n", len(response(token)), response(token))
	}
	fails := b64(`{"status":"invalid_token"}`)
	cantLook := b64(`{"status":"server_error"}`)
	doortest.TokenDialogues(t, sieveproxy.Door{Offers: doortest.Offers(t)}, map[string]doortest.TokenDialogue{
		"OAUTHBEARER":          {Script: hello + "C: AUTHENTICATE \"OAUTHBEARER\" <>\nC: <>\nOK\n" + after},
		"XOAUTH2":              {Script: older + auth("token") + "OK\n" + after},
		"6 KB":                 {Script: older + auth(long) + "OK\n" + after, Token: long},
		"refused":              {Script: older + auth("token") + "NO \"Authentication failed.\"", Refused: true, Err: "Authentication failed."},
		"refused by a string":  {Script: older + auth("token") + "\"" + fails + "\"\nC: {0+}\nC: \nNO \"no\"", Refused: true, Err: `the token's status is "invalid_token"`},
		"refused by a literal": {Script: hello + "C: AUTHENTICATE \"OAUTHBEARER\" <>\nC: <>\n" + fmt.Sprintf("{%d}\n%s\n", len(fails), fails) + "C: {4+}\nC: AQ==\nNO", Refused: true, Err: `the token's status is "invalid_token"`},
		"no challenge":         {Script: older + auth("token") + "what", Err: "it does not speak ManageSieve"},
		"it can't look":        {Script: older + auth("token") + "\"" + cantLook + "\"\nC: {0+}\nC: \nNO \"no\"", Err: `the token's status is "server_error"`},
		"in trouble":           {Script: older + auth("token") + "NO (TRYLATER) \"later\"", Err: "later"},
		"neither mechanism":    {Script: greeting, Err: protocols.ErrNoBearer.Error()},
	}, func(k *doortest.Client) string {
		answer(k)
		k.Send("AUTHENTICATE \"PLAIN\" \"%s\"\r\n", plain(testlab.Alice, doortest.AppPassword))
		return answer(k)
	}, `OK "Logged in."`, `NO (TRYLATER) "Account is temporarily unavailable."`)
}
