package imapproxy_test

import (
	"strings"
	"testing"

	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/doortest"
	"postern/protocols/imapproxy"
)

// What Exchange Online says, by its clients' logs, and others' dialogues. OK to the login is not yet a mailbox: only who may open one is told that it
// is in.
func TestTokenDialogues(t *testing.T) {
	t.Parallel()
	const (
		before = "* CAPABILITY IMAP4 IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS ID UNSELECT CHILDREN IDLE NAMESPACE LITERAL+\nC OK CAPABILITY completed.\n"
		hello  = "* OK The Microsoft Exchange IMAP4 service is ready. [RgBSADAA]\nC: C CAPABILITY\n" + before
		after  = "C: C CAPABILITY\nC: M LIST \"\" INBOX\n* CAPABILITY IMAP4 IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS MOVE ID UNSELECT CHILDREN IDLE NAMESPACE LITERAL+\nC OK CAPABILITY completed.\n"
		listed = "* LIST (\\Marked \\HasNoChildren) \"/\" INBOX\nM OK LIST completed.\nC: NOOP"
		gmail  = "* OK Gimap ready\nC: C CAPABILITY\n* CAPABILITY IMAP4rev1 UNSELECT IDLE SASL-IR AUTH=XOAUTH2 AUTH=PLAIN AUTH=PLAIN-CLIENTTOKEN AUTH=OAUTHBEARER\nC OK Thats all she wrote!\n"
	)
	x := "L AUTHENTICATE XOAUTH2 " + b64("user=alice@example.test\x01auth=Bearer token\x01\x01")
	fails := b64(`{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}`)
	quiet, waits := protocols.Quirks{NoClientID: true}, protocols.Quirks{NoClientID: true, NoPipelining: true}
	long := strings.Repeat("t", 6<<10)
	longX := "C: L AUTHENTICATE XOAUTH2\n+ .\nC: " + b64("user=alice@example.test\x01auth=Bearer "+long+"\x01\x01") + "\n"
	const out = "it knows the account and opens no mailbox for it"
	cantLook := b64(`{"status":"internal_failure"}`)
	doortest.TokenDialogues(t, imapproxy.Door{}, map[string]doortest.TokenDialogue{
		"Exchange": {Script: hello + "C: " + x + "\nL OK AUTHENTICATE completed.\n" + after + listed, Quirks: quiet},
		"with the address": {Script: hello + "C: I ID (\"x-originating-ip\" \"127.0.0.1\" \"x-originating-port\" <> \"x-session-id\" <> \"x-proxy-ttl\" \"4\")\nC: " + x +
			"\n* ID NIL\nI OK\nL OK AUTHENTICATE completed.\n" + after + listed},
		"a long token":     {Script: hello + longX + "L OK AUTHENTICATE completed.\n" + after + listed, Quirks: quiet, Token: long},
		"not pipelined":    {Script: hello + "C: L AUTHENTICATE XOAUTH2\n+ .\nC: " + strings.Fields(x)[3] + "\nL OK\n" + after + listed, Quirks: waits},
		"a plus alone":     {Script: hello + "C: L AUTHENTICATE XOAUTH2\n+\nC: " + strings.Fields(x)[3] + "\nL OK\n" + after + listed, Quirks: waits},
		"no SASL-IR":       {Script: strings.Replace(hello, " SASL-IR", "", 1) + "C: L AUTHENTICATE XOAUTH2\n+ .\nC: " + strings.Fields(x)[3] + "\nL OK\n" + after + listed, Quirks: quiet},
		"asked once more":  {Script: hello + "C: " + x + "\n+ .\nC: " + strings.Fields(x)[3] + "\nL OK\n" + after + listed, Quirks: quiet},
		"told with the OK": {Script: hello + "C: " + x + "\nL OK [CAPABILITY IMAP4rev1 MOVE] in\nC: M LIST \"\" INBOX\n" + listed, Quirks: quiet},

		"not connected":               {Script: hello + "C: " + x + "\nL OK AUTHENTICATE completed.\n" + after + "M BAD User is authenticated but not connected.\n* BYE Connection closed. 14", Quirks: quiet, Err: out},
		"not connected, told with OK": {Script: hello + "C: " + x + "\nL OK [CAPABILITY IMAP4rev1] in\nC: M LIST \"\" INBOX\nM BAD User is authenticated but not connected.", Quirks: quiet, Err: out},
		"not connected, at once BAD":  {Script: hello + "C: " + x + "\nL BAD User is authenticated but not connected.", Quirks: quiet, Err: out},
		"not connected, at once NO":   {Script: hello + "C: " + x + "\nL NO User is authenticated but not connected.", Quirks: quiet, Err: out},
		"no capabilities":             {Script: hello + "C: " + x + "\nL OK in\nC: C CAPABILITY\nC: M LIST \"\" INBOX\nC BAD User is authenticated but not connected.", Quirks: quiet, Err: "authenticated but not connected"},
		"goodbye behind OK":           {Script: hello + "C: " + x + "\nL OK AUTHENTICATE completed.\n* BYE Connection closed. 14", Quirks: quiet, Err: "Connection closed. 14"},
		"hangs up behind OK":          {Script: hello + "C: " + x + "\nL OK AUTHENTICATE completed.", Quirks: quiet, Err: "log in to backend"},
		"hangs up at the list":        {Script: hello + "C: " + x + "\nL OK AUTHENTICATE completed.\n" + after, Quirks: quiet, Err: out},
		"no list":                     {Script: hello + "C: " + x + "\nL OK\n" + after + "M NO [SERVERBUG] Internal error", Quirks: quiet, Err: out},

		"refused":               {Script: hello + "C: " + x + "\nL NO AUTHENTICATE failed.", Quirks: quiet, Refused: true, Err: "AUTHENTICATE failed."},
		"refused by challenge":  {Script: gmail + "C: L AUTHENTICATE OAUTHBEARER <>\n+ " + fails + "\nC: AQ==\nL NO [AUTHENTICATIONFAILED] Invalid credentials (Failure)", Refused: true, Err: `the token's status is "400"`},
		"refused by XOAUTH2's":  {Script: hello + "C: " + x + "\n+ " + fails + "\nC: \nL NO no", Quirks: quiet, Refused: true, Err: `the token's status is "400"`},
		"it can't look":         {Script: hello + "C: " + x + "\n+ " + cantLook + "\nC: \nL NO [AUTHENTICATIONFAILED] Authentication failed.", Quirks: quiet, Err: `the token's status is "internal_failure"`},
		"refused and refused":   {Script: hello + "C: " + x + "\n+ " + fails + "\nC: \n+ " + fails, Quirks: quiet, Err: "it asks for more than the mechanism has"},
		"refused after waiting": {Script: hello + "C: L AUTHENTICATE XOAUTH2\n+ .\nC: " + strings.Fields(x)[3] + "\n+ " + fails + "\nC: \nL NO no", Quirks: waits, Refused: true, Err: `the token's status is "400"`},
		"in trouble":            {Script: hello + "C: " + x + "\nL NO [UNAVAILABLE] later", Quirks: quiet, Err: "later"},
		"neither mechanism":     {Script: "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi", Err: "it offers neither OAUTHBEARER nor XOAUTH2"},
		"a token of no kind":    {Script: hello, Token: "to ken", Quirks: quiet, Err: "can't be sent by XOAUTH2"},
	}, func(k *doortest.Client) string {
		k.Line()
		return k.Ask("a LOGIN %s %s", testlab.Alice, doortest.AppPassword)
	}, "a OK [CAPABILITY ", "a NO [UNAVAILABLE] Account is temporarily unavailable.")
}
