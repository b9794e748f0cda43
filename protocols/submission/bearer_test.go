package submission_test

import (
	"strings"
	"testing"

	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/doortest"
	"postern/protocols/submission"
)

// No command with a token is longer than 512 bytes: Dovecot takes 1024, Gmail some 1000, and the standard forbids more.
func TestTokenDialogues(t *testing.T) {
	t.Parallel()
	const (
		ehlo  = "220 hi\nC: EHLO mx.example.test\n250-backend\n250-PIPELINING\n250-CHUNKING\n250-SIZE 1000\n"
		hello = ehlo + "250 AUTH LOGIN XOAUTH2\n"
	)
	short := b64("user=alice@example.test\x01auth=Bearer token\x01\x01")
	long := strings.Repeat("t", 6<<10)
	limit := strings.Repeat("t", 334) // a command of 512 bytes
	longer := limit + "ttt"
	response := func(token string) string { return b64("user=alice@example.test\x01auth=Bearer " + token + "\x01\x01") }
	if n := len("AUTH XOAUTH2 \r\n") + len(response(limit)); n > 512 || n <= 508 {
		t.Fatalf("a command of %d bytes", n)
	}
	fails := b64(`{"status":"401","schemes":"bearer mac","scope":"https://mail.google.com/"}`)
	cantLook := b64(`{"status":500}`)
	doortest.TokenDialogues(t, &submission.Door{Name: "mx.example.test", Offers: doortest.Offers(t, some...)}, map[string]doortest.TokenDialogue{
		"XOAUTH2":             {Script: hello + "C: AUTH XOAUTH2 " + short + "\n235 2.7.0 in\nC: NOOP"},
		"OAUTHBEARER":         {Script: ehlo + "250 AUTH XOAUTH2 OAUTHBEARER\nC: AUTH OAUTHBEARER <>\n235 in\nC: NOOP"},
		"the longest":         {Script: hello + "C: AUTH XOAUTH2 " + response(limit) + "\n235 in\nC: NOOP", Token: limit},
		"longer":              {Script: hello + "C: AUTH XOAUTH2\n334\nC: " + response(longer) + "\n235 in\nC: NOOP", Token: longer},
		"6 KB":                {Script: hello + "C: AUTH XOAUTH2\n334\nC: " + response(long) + "\n235 in\nC: NOOP", Token: long},
		"asked once more":     {Script: hello + "C: AUTH XOAUTH2 " + short + "\n334\nC: " + short + "\n235 in\nC: NOOP"},
		"refused":             {Script: hello + "C: AUTH XOAUTH2 " + short + "\n535 5.7.3 Authentication unsuccessful [AM0PR02CA0134]", Refused: true, Err: "5.7.3"},
		"refused by JSON":     {Script: hello + "C: AUTH XOAUTH2 " + short + "\n334 " + fails + "\nC: \n535-5.7.8 Username and Password not accepted.\n535 5.7.8 more", Refused: true, Err: `the token's status is "401"`},
		"refused, OAUTHB.":    {Script: ehlo + "250 AUTH OAUTHBEARER\nC: AUTH OAUTHBEARER <>\n334 " + fails + "\nC: AQ==\n535 no", Refused: true, Err: `the token's status is "401"`},
		"refused, a long one": {Script: hello + "C: AUTH XOAUTH2\n334\nC: " + response(long) + "\n334 " + fails + "\nC: \n535 no", Token: long, Refused: true, Err: `the token's status is "401"`},
		"it can't look":       {Script: hello + "C: AUTH XOAUTH2 " + short + "\n334 " + cantLook + "\nC: \n535 5.7.8 Authentication failed.", Err: `the token's status is "500"`},
		"asks on and on":      {Script: hello + "C: AUTH XOAUTH2 " + short + "\n334 " + fails + "\nC: \n334 " + fails + "\n", Err: "it asks for more than the mechanism has"},
		"too long for it":     {Script: hello + "C: AUTH XOAUTH2\n500 5.5.2 Line too long", Token: long, Err: "Line too long"},
		"switched off":        {Script: hello + "C: AUTH XOAUTH2 " + short + "\n535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.", Err: "it lets this account not send"},
		"in trouble":          {Script: hello + "C: AUTH XOAUTH2 " + short + "\n454 4.7.0 Temporary authentication failure", Err: "4.7.0"},
		"neither mechanism":   {Script: ehlo + "250 AUTH LOGIN PLAIN\n", Err: protocols.ErrNoBearer.Error()},
	}, func(k *doortest.Client) string {
		k.Line()
		k.Send("EHLO client.example.test\r\n")
		for !strings.HasPrefix(k.Line(), "250 ") {
		}
		return k.Ask("AUTH PLAIN %s", b64("\x00"+testlab.Alice+"\x00"+doortest.AppPassword))
	}, "235 2.7.0 Logged in.", "454 4.3.0 Account is temporarily unavailable.")
}
