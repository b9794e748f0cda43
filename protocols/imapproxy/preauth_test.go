package imapproxy_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/authstore"
	"postern/protocols"
	"postern/protocols/doortest"
	"postern/protocols/imapproxy"
)

const (
	greetPlain  = "* OK [CAPABILITY IMAP4rev1 SASL-IR LITERAL- ID ENABLE IDLE AUTH=PLAIN AUTH=LOGIN] Postern ready."
	greetBefore = "* OK [CAPABILITY IMAP4rev1 SASL-IR LITERAL- ID ENABLE IDLE STARTTLS LOGINDISABLED] Postern ready."
	wrong       = "NO [AUTHENTICATIONFAILED] Wrong address or app password."
	privacy     = "NO [PRIVACYREQUIRED] Start TLS first."
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// Each row is one connection: what the client sends at once, and every line that comes back. A row ends with "." if the connection is
// still open then, or else with the connection. No row here logs in.
func TestBeforeLogin(t *testing.T) {
	t.Parallel()
	plain, before := newDoor(t), newDoor(t, doortest.OverTLS(t, protocols.StartTLS))
	const open = "."
	bye := func(text string) string { return "* BYE " + text }
	for name, tt := range map[string]struct {
		door *door
		send string
		want []string // without the greeting
	}{
		"nothing":             {plain, "", []string{open}},
		"capability":          {plain, "a CAPABILITY\r\n", []string{"* CAPABILITY IMAP4rev1 SASL-IR LITERAL- ID ENABLE IDLE AUTH=PLAIN AUTH=LOGIN", "a OK Done.", open}},
		"capability before":   {before, "a capability\r\n", []string{"* CAPABILITY IMAP4rev1 SASL-IR LITERAL- ID ENABLE IDLE STARTTLS LOGINDISABLED", "a OK Done.", open}},
		"noop, bare LF":       {plain, "a NOOP\nb noop\n", []string{"a OK Done.", "b OK Done.", open}},
		"logout":              {plain, "a LOGOUT\r\nb NOOP\r\n", []string{bye("Logging out."), "a OK Done."}},
		"any valid tag":       {plain, "A]b.1-~}_ NOOP\r\n", []string{"A]b.1-~}_ OK Done.", open}},
		"ID":                  {plain, "a ID (\"name\" \"Thunder\\\"bird\" \"version\" NIL)\r\n", []string{`* ID ("name" "Postern")`, "a OK Done.", open}},
		"ID NIL":              {plain, "a ID nil\r\n", []string{`* ID ("name" "Postern")`, "a OK Done.", open}},
		"ID empty":            {plain, "a ID ()\r\n", []string{`* ID ("name" "Postern")`, "a OK Done.", open}},
		"ID before TLS":       {before, "a ID (\"name\" {3}\r\nfoo)\r\n", []string{"+ OK", `* ID ("name" "Postern")`, "a OK Done.", open}},
		"ID without a list":   {plain, "a ID\r\n", []string{"a BAD Bad list of fields.", open}},
		"ID odd":              {plain, "a ID (\"name\")\r\n", []string{"a BAD Bad list of fields.", open}},
		"ID atoms":            {plain, "a ID (name foo)\r\n", []string{"a BAD Bad list of fields.", open}},
		"ID open":             {plain, "a ID (\"name\" \"foo\"\r\n", []string{"a BAD Bad list of fields.", open}},
		"ID glued":            {plain, "a ID (\"name\" \"foo\"\"x\" \"y\")\r\n", []string{"a BAD Bad list of fields.", open}},
		"ID with more":        {plain, "a ID NIL x\r\n", []string{"a BAD Bad list of fields.", open}},
		"ID of 31 fields":     {plain, "a ID (" + strings.TrimSpace(strings.Repeat(`"a" "b" `, 31)) + ")\r\n", []string{"a BAD Bad list of fields.", open}},
		"ID of 30 fields":     {plain, "a ID (" + strings.TrimSpace(strings.Repeat(`"a" "b" `, 30)) + ")\r\n", []string{`* ID ("name" "Postern")`, "a OK Done.", open}},
		"ID with a long name": {plain, "a ID (\"" + strings.Repeat("n", 31) + "\" \"b\")\r\n", []string{"a BAD Bad list of fields.", open}},
		"ID, a long value":    {plain, "a ID (\"a\" \"" + strings.Repeat("v", 1025) + "\")\r\n", []string{"a BAD Bad list of fields.", open}},

		"wrong password":                   {plain, "a LOGIN alice wrong\r\n", []string{"a " + wrong, open}},
		"quoted":                           {plain, "a LOGIN \"alice\" \"wr\\\\ong \\\"x\\\"\"\r\n", []string{"a " + wrong, open}},
		"literals":                         {plain, "a LOGIN {5}\r\nalice {5}\r\nwrong\r\n", []string{"+ OK", "+ OK", "a " + wrong, open}},
		"literals at once":                 {plain, "a LOGIN {5+}\r\nalice {5+}\r\nwrong\r\n", []string{"a " + wrong, open}},
		"empty literal":                    {plain, "a LOGIN {0+}\r\n {0+}\r\n\r\n", []string{"a " + wrong, open}},
		"a literal of commands":            {plain, "a LOGIN {16+}\r\nINJ CAPABILITY\r\n x\r\n", []string{"a " + wrong, open}},
		"8-bit":                            {plain, "a LOGIN \"\xc3\xa4lice\" \"\xff\"\r\n", []string{"a " + wrong, open}},
		"LOGIN bare":                       {plain, "a LOGIN\r\n", []string{"a BAD Missing name.", open}},
		"LOGIN, one argument":              {plain, "a LOGIN alice\r\n", []string{"a BAD Missing password.", open}},
		"LOGIN, no password":               {plain, "a LOGIN alice \r\n", []string{"a BAD Bad arguments; quote what has spaces in it.", open}},
		"LOGIN, three":                     {plain, "a LOGIN alice wr ong\r\n", []string{"a BAD Bad arguments; quote what has spaces in it.", open}},
		"LOGIN, open quote":                {plain, "a LOGIN alice \"wrong\r\n", []string{"a BAD Bad arguments; quote what has spaces in it.", open}},
		"LOGIN, bad escape":                {plain, "a LOGIN alice \"wr\\ong\"\r\n", []string{"a BAD Bad arguments; quote what has spaces in it.", open}},
		"LOGIN, glued":                     {plain, "a LOGIN \"alice\"\"wrong\"\r\n", []string{"a BAD Missing password.", open}},
		"LOGIN, CR in quotes":              {plain, "a LOGIN alice \"wr\rong\"\r\n", []string{"a BAD Bad arguments; quote what has spaces in it.", open}},
		"LOGIN before TLS":                 {before, "a LOGIN alice wrong\r\n", []string{"a " + privacy, open}},
		"no password asked for before TLS": {before, "a LOGIN alice {5}\r\n", []string{"a " + privacy, open}},
		"a password sent before TLS":       {before, "a LOGIN alice {5+}\r\nwrong\r\nb NOOP\r\n", []string{"a " + privacy, "b OK Done.", open}},
		"AUTHENTICATE before TLS":          {before, "a AUTHENTICATE PLAIN " + b64("\x00alice\x00wrong") + "\r\n", []string{"a " + privacy, open}},

		"PLAIN":                   {plain, "a AUTHENTICATE PLAIN\r\n" + b64("\x00alice\x00wrong") + "\r\n", []string{"+ ", "a " + wrong, open}},
		"PLAIN at once":           {plain, "a authenticate plain " + b64("\x00alice\x00wrong") + "\r\n", []string{"a " + wrong, open}},
		"PLAIN, own authzid":      {plain, "a AUTHENTICATE PLAIN " + b64("Alice@Example.test\x00alice@example.test\x00wrong") + "\r\n", []string{"a " + wrong, open}},
		"PLAIN, another's name":   {plain, "a AUTHENTICATE PLAIN " + b64("bob@example.test\x00alice@example.test\x00"+doortest.AppPassword) + "\r\n", []string{"a NO [AUTHORIZATIONFAILED] An app password opens its own account only.", open}},
		"PLAIN, empty":            {plain, "a AUTHENTICATE PLAIN =\r\n", []string{"a BAD Invalid response.", open}},
		"PLAIN, three NULs":       {plain, "a AUTHENTICATE PLAIN " + b64("\x00alice\x00wr\x00ong") + "\r\n", []string{"a BAD Invalid response.", open}},
		"PLAIN, one NUL":          {plain, "a AUTHENTICATE PLAIN " + b64("alice\x00wrong") + "\r\n", []string{"a BAD Invalid response.", open}},
		"PLAIN, not base64":       {plain, "a AUTHENTICATE PLAIN !!!\r\n", []string{"a BAD Invalid response.", open}},
		"PLAIN, then not base64":  {plain, "a AUTHENTICATE PLAIN\r\n!!!\r\n", []string{"+ ", "a BAD Invalid response.", open}},
		"PLAIN cancelled":         {plain, "a AUTHENTICATE PLAIN\r\n*\r\nb NOOP\r\n", []string{"+ ", "a BAD Cancelled.", "b OK Done.", open}},
		"LOGIN mechanism":         {plain, "a AUTHENTICATE LOGIN\r\n" + b64("alice") + "\r\n" + b64("wrong") + "\r\n", []string{"+ " + b64("Username:"), "+ " + b64("Password:"), "a " + wrong, open}},
		"LOGIN mechanism at once": {plain, "a AUTHENTICATE LOGIN " + b64("alice") + "\r\n" + b64("wrong") + "\r\n", []string{"+ " + b64("Password:"), "a " + wrong, open}},
		"LOGIN cancelled":         {plain, "a AUTHENTICATE LOGIN " + b64("alice") + "\r\n*\r\n", []string{"+ " + b64("Password:"), "a BAD Cancelled.", open}},
		"unknown mechanism":       {plain, "a AUTHENTICATE XOAUTH2 dXNlcg==\r\n", []string{"a NO [CANNOT] Unknown mechanism.", open}},
		"three mechanisms":        {plain, strings.Repeat("a AUTHENTICATE X\r\n", 3), []string{"a NO [CANNOT] Unknown mechanism.", "a NO [CANNOT] Unknown mechanism.", bye("Too many bad commands.")}},
		"no mechanism":            {plain, "a AUTHENTICATE\r\n", []string{"a NO [CANNOT] Unknown mechanism.", open}},
		"a long SASL line":        {plain, "a AUTHENTICATE PLAIN\r\n" + strings.Repeat("A", 16<<10) + "\r\nb NOOP\r\n", []string{"+ ", bye("Line too long.")}},
		"NUL in a SASL line":      {plain, "a AUTHENTICATE PLAIN\r\n\x00\r\n", []string{"+ ", bye("NUL in a command.")}},

		"unknown command":           {plain, "a SELECT INBOX\r\n", []string{"a BAD Unknown command, or not before login.", open}},
		"no command":                {plain, "a\r\n", []string{"a BAD Missing command.", open}},
		"a name beyond ASCII":       {plain, "a \xc5\xbfTARTTLS\r\n", []string{"a BAD Unknown command, or not before login.", open}},
		"empty line":                {plain, "\r\n", []string{"* BAD Invalid tag.", open}},
		"bad tag is not sent back":  {plain, "<script>+ NOOP\r\n", []string{"* BAD Invalid tag.", open}},
		"8-bit in a tag":            {plain, "\xc3\xa4 NOOP\r\n", []string{"* BAD Invalid tag.", open}},
		"control in a tag":          {plain, "a\x07 NOOP\r\n", []string{"* BAD Invalid tag.", open}},
		"tag as long as allowed":    {plain, strings.Repeat("t", 64) + " NOOP\r\n", []string{strings.Repeat("t", 64) + " OK Done.", open}},
		"long tag":                  {plain, strings.Repeat("t", 65) + " NOOP\r\n", []string{"* BAD Invalid tag.", open}},
		"bare CR":                   {plain, "a\rNOOP\r\n", []string{"* BAD Invalid tag.", open}},
		"three bad commands":        {plain, "a X\r\nb X\r\nc X\r\nd NOOP\r\n", []string{"a BAD Unknown command, or not before login.", "b BAD Unknown command, or not before login.", "c BAD Unknown command, or not before login.", bye("Too many bad commands.")}},
		"three failures":            {plain, strings.Repeat("a LOGIN alice wrong\r\n", 4), []string{"a " + wrong, "a " + wrong, "a " + wrong, bye("Too many failed logins.")}},
		"twenty-one commands":       {plain, strings.Repeat("a NOOP\r\n", 21), append(slices.Repeat([]string{"a OK Done."}, 20), bye("Too many commands before login."))},
		"HTTP":                      {plain, "POST / HTTP/1.1\r\nHost: x\r\n\r\na LOGIN alice wrong\r\n", nil},
		"HTTP later":                {plain, "a NOOP\r\nGET / HTTP/1.1\r\n", []string{"a OK Done.", "GET BAD Unknown command, or not before login.", open}},
		"a long line":               {plain, "a LOGIN " + strings.Repeat("x", 8<<10) + "\r\nb NOOP\r\n", []string{bye("Line too long.")}},
		"a line of 60 kB":           {plain, strings.Repeat("x", 60_000) + "\r\nb NOOP\r\n", []string{bye("Line too long.")}},
		"long lines together":       {plain, "a ID (\"a\" {1+}\r\nb" + strings.Repeat(" ", 5000) + "{1+}\r\nc" + strings.Repeat(" ", 5000) + "\r\n", []string{bye("Line too long.")}},
		"NUL":                       {plain, "a NO\x00OP\r\n", []string{bye("NUL in a command.")}},
		"NUL in a literal":          {plain, "a LOGIN {3+}\r\na\x00b x\r\n", []string{bye("NUL in a command.")}},
		"TLS without STARTTLS":      {before, "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\n", []string{bye("NUL in a command.")}},
		"literal too long":          {plain, "a LOGIN {5000}\r\n", []string{bye("Literal too long.")}},
		"literal+ too long":         {plain, "a LOGIN {5000+}\r\nINJ CAPABILITY\r\n", []string{bye("Literal too long.")}},
		"literals too long":         {plain, "a LOGIN {4000+}\r\n" + strings.Repeat("x", 4000) + " {97+}\r\n" + strings.Repeat("x", 97) + "\r\n", []string{bye("Literal too long.")}},
		"literal minus":             {plain, "a LOGIN {5-}\r\nalice x\r\n", []string{bye("Literal too long.")}},
		"literal of nothing":        {plain, "a LOGIN {x}\r\n", []string{bye("Literal too long.")}},
		"literal for NOOP":          {plain, "a NOOP {5}\r\n", []string{"a BAD No arguments here.", open}},
		"literal+ for NOOP":         {plain, "a NOOP {14+}\r\nb CAPABILITY\r\n\r\nc NOOP\r\n", []string{"a BAD No arguments here.", "c OK Done.", open}},
		"literal+ behind a bad tag": {plain, "+a LOGIN {14+}\r\nb CAPABILITY\r\n\r\nc NOOP\r\n", []string{"* BAD Invalid tag.", "c OK Done.", open}},
		"literal behind a bad tag":  {plain, "+a LOGIN {14}\r\nc NOOP\r\n", []string{"* BAD Invalid tag.", "c OK Done.", open}},
		"STARTTLS where it is not":  {plain, "a STARTTLS\r\n", []string{"a BAD No STARTTLS here.", open}},
		"STARTTLS with arguments":   {before, "a STARTTLS now\r\n", []string{"a BAD No arguments here.", open}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := tt.door.Dial(t)
			greeting := greetPlain
			if tt.door == before {
				greeting = greetBefore
			}
			if got := k.Line(); got != greeting {
				t.Fatalf("greeting %q", got)
			}
			go io.WriteString(k.Conn, tt.send)
			for i, want := range tt.want {
				if want == open {
					k.Send("still NOOP\r\n")
					want = "still OK Done."
				}
				if got := k.Line(); got != want {
					t.Fatalf("line %d: got %q, want %q", i+1, got, want)
				}
			}
			if n := len(tt.want); n == 0 || tt.want[n-1] != open {
				if rest := k.Rest(); rest != "" {
					t.Errorf("then %q", rest)
				}
			}
		})
	}
}

// The design's table, and whether a refusal counts against the client.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err    error
		want   string
		counts bool
	}{
		"wrong":            {&authstore.Refusal{Code: authstore.Wrong}, "a " + wrong, true},
		"not app password": {&authstore.Refusal{Code: authstore.NotAppPassword}, "* NO [ALERT] That is not an app password, or it is mistyped; please use an app password for this app, not your own password.\na NO [AUTHENTICATIONFAILED] That is not an app password, or it is mistyped; please use an app password for this app, not your own password.", true},
		"expired":          {&authstore.Refusal{Code: authstore.Expired}, "a NO [EXPIRED] This app password has expired.", true},
		"scope":            {&authstore.Refusal{Code: authstore.OutOfScope}, "a NO [NOPERM] This app password does not open mail over IMAP.", true},
		"network":          {&authstore.Refusal{Code: authstore.BadNetwork}, "a NO [NOPERM] This app password may not be used from your network.", true},
		"suspended":        {&authstore.Refusal{Code: authstore.Suspended}, "a NO [CONTACTADMIN] This account is suspended.", true},
		"throttled":        {&authstore.Refusal{Code: authstore.Throttled}, "a NO [UNAVAILABLE] Too many attempts; please try again later.", false},
		"unavailable":      {&authstore.Refusal{Code: authstore.Unavailable, Cause: errors.New("SQL")}, "a NO [UNAVAILABLE] Account is temporarily unavailable.", false},
		"a code to come":   {&authstore.Refusal{Code: 99}, "a NO [UNAVAILABLE] Account is temporarily unavailable.", false},
		"unknown error":    {errors.New("connection refused"), "a NO [UNAVAILABLE] Account is temporarily unavailable.", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDoor(t, func(d *doortest.Door) {
				d.Verify = func(authstore.Attempt) (authstore.Grant, error) { return authstore.Grant{}, tt.err }
			})
			k := d.Dial(t)
			k.Line()
			for range 3 {
				k.Send("a LOGIN alice %s\r\n", doortest.AppPassword)
				if got := strings.TrimSpace(k.Until("a")); got != tt.want {
					t.Fatalf("got %q, want %q", got, tt.want)
				}
			}
			if tt.counts {
				if got := k.Rest(); got != "* BYE Too many failed logins.\r\n" {
					t.Errorf("then %q", got)
				}
				return
			}
			k.Send("b NOOP\r\n")
			k.Until("b")
		})
	}
	d := newDoor(t)
	k := d.Dial(t)
	k.Line()
	k.Send("a LOGIN alice %s\r\n", doortest.AppPassword)
	if got := k.Line(); got != "a NO [CONTACTADMIN] No server is configured for this account." {
		t.Errorf("without a route: %q", got)
	}
	d = newDoor(t, func(d *doortest.Door) {
		d.Limits.Sessions = -1
		d.Routes = func(authstore.Grant) (*protocols.Route, error) { return &protocols.Route{}, nil }
	})
	k = d.Dial(t)
	k.Line()
	k.Send("a LOGIN alice %s\r\n", doortest.AppPassword)
	if got := k.Line(); got != "a NO [LIMIT] Too many connections." {
		t.Errorf("with too many sessions: %q", got)
	}
}

// What is verified is what was typed, in whichever way it was sent.
func TestWhatIsVerified(t *testing.T) {
	t.Parallel()
	const name, secret = "al\"i\\ce@example.test", "abc \"de\" \\ {5} fgh"
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	for mechanism, words := range map[string][]string{
		"LOGIN": {
			fmt.Sprintf("a LOGIN \"%s\" \"%s\"\r\n", quoted.Replace(name), quoted.Replace(secret)),
			fmt.Sprintf("a login {%d}\r\n%s {%d}\r\n%s\r\n", len(name), name, len(secret), secret),
			fmt.Sprintf("a Login {%d+}\r\n%s \"%s\"\r\n", len(name), name, quoted.Replace(secret)),
			fmt.Sprintf("a LOGIN \"%s\" {%d+}\r\n%s\r\n", quoted.Replace(name), len(secret), secret),
			fmt.Sprintf("a AUTHENTICATE LOGIN\r\n%s\r\n%s\r\n", b64(name), b64(secret)),
		},
		"PLAIN": {
			fmt.Sprintf("a AUTHENTICATE PLAIN %s\r\n", b64("\x00"+name+"\x00"+secret)),
			fmt.Sprintf("a AUTHENTICATE PLAIN\r\n%s\r\n", b64(name+"\x00"+name+"\x00"+secret)),
		},
	} {
		for i, send := range words {
			t.Run(fmt.Sprint(mechanism, i), func(t *testing.T) {
				t.Parallel()
				got := make(chan authstore.Attempt, 1)
				d := newDoor(t, func(d *doortest.Door) {
					d.Verify = func(a authstore.Attempt) (authstore.Grant, error) {
						a.Secret = append([]byte(nil), a.Secret...)
						got <- a
						return authstore.Grant{}, &authstore.Refusal{Code: authstore.Wrong}
					}
				})
				k := d.Dial(t)
				k.Send("%s", send)
				k.Until("a")
				a := <-got
				if a.Login != name || string(a.Secret) != secret || a.Mechanism != mechanism || a.Protocol != "imap" || a.Need != imapproxy.Scopes || !a.Client.IsLoopback() {
					t.Errorf("attempt %+v with secret %q", a, a.Secret)
				}
			})
		}
	}
}

// Plain text behind STARTTLS ends the connection, however it is cut into packets.
func TestStartTLSInjection(t *testing.T) {
	t.Parallel()
	doortest.Injection(t, imapproxy.Door{}, "a STARTTLS\r\nb LOGIN mallory x\r\n",
		regexp.QuoteMeta(greetBefore)+`\r\n(\* BYE Commands behind STARTTLS\.|a OK Begin TLS negotiation now\.)\r\n[^A-Z]*`)
}

func TestStartTLS(t *testing.T) {
	t.Parallel()
	d := newDoor(t, doortest.OverTLS(t, protocols.StartTLS))
	k := d.Dial(t)
	k.Line()
	k.Send("a ID (\"name\" \"Mallory\")\r\nb STARTTLS\r\n")
	k.Until("b")
	k = k.OverTLS(d.Trust())
	k.Send("c CAPABILITY\r\n")
	if got := k.Until("c"); got != "* CAPABILITY IMAP4rev1 SASL-IR LITERAL- ID ENABLE IDLE AUTH=PLAIN AUTH=LOGIN\nc OK Done." {
		t.Errorf("got %q", got)
	}
	k.Send("d STARTTLS\r\n")
	if got := k.Line(); got != "d BAD No STARTTLS here." {
		t.Errorf("a second time: %q", got)
	}
	k.Send("e LOGIN alice@example.test wrong\r\n")
	k.Until("e")
	if e := <-d.Logins; e.App != "" || !e.TLS || e.Domain != "example.test" {
		t.Errorf("what was said before TLS counts: %+v", e)
	}
}

func TestGoodbye(t *testing.T) {
	t.Parallel()
	doortest.Goodbyes(t, imapproxy.Door{}, 1, "a LOGIN al", map[error]string{
		protocols.ErrLoginTimeout: "* BYE [UNAVAILABLE] No login in time.\r\n",
		protocols.ErrEvicted:      "* BYE [UNAVAILABLE] Too many connections.\r\n",
		protocols.ErrDraining:     "* BYE [UNAVAILABLE] Shutting down; please connect again.\r\n",
	})
}

func TestLoop(t *testing.T) { doortest.Loop(t, imapproxy.Door{}) }
