package sieveproxy_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"postern/authstore"
	"postern/protocols"
	"postern/protocols/doortest"
	"postern/protocols/sieveproxy"
)

const (
	listPlain  = "\"IMPLEMENTATION\" \"Postern\"\n\"SIEVE\" \"\"\n\"SASL\" \"PLAIN\"\n\"VERSION\" \"1.0\"\n"
	listBefore = "\"IMPLEMENTATION\" \"Postern\"\n\"SIEVE\" \"\"\n\"SASL\" \"\"\n\"STARTTLS\"\n\"VERSION\" \"1.0\"\n"
	wrong      = `NO "Wrong address or app password."`
	encrypt    = `NO (ENCRYPT-NEEDED) "Start TLS first."`
	unknown    = `NO "Unknown command, or not before login."`
	done       = `OK "Done."`
)

// Each row is one connection: what the client sends at once, and every answer that comes back. A row ends with "." if the connection is
// still open then, or else with the connection. No row here logs in.
func TestBeforeLogin(t *testing.T) {
	t.Parallel()
	open, before := serve(t), serve(t, doortest.OverTLS(t, protocols.StartTLS))
	const still = "."
	bye := func(text string) string { return `BYE "` + text + `"` }
	auth := func(response string) string { return "AUTHENTICATE \"PLAIN\" " + response + "\r\n" }
	ir := `"` + plain("alice", "wrong") + `"`
	for name, tt := range map[string]struct {
		door *doortest.Door
		send string
		want []string // without the greeting
	}{
		"nothing":              {open, "", []string{still}},
		"capability":           {open, "CAPABILITY\r\n", []string{listPlain + done, still}},
		"capability before":    {before, "capability\r\n", []string{listBefore + done, still}},
		"noop":                 {open, "NOOP\r\nnoop \"a tag\"\r\nNOOP {3+}\r\na\"b\r\n", []string{done, `OK (TAG "a tag") "Done."`, `OK (TAG "a\"b") "Done."`, still}},
		"noop, a tag of lines": {open, "NOOP {4+}\r\n\r\n\r\n\r\n", []string{"OK (TAG {4}", "\n\n) \"Done.\"", still}},
		"noop, odd":            {open, "NOOP a\r\nNOOP \"a\" \"b\"\r\n", []string{`NO "Bad arguments."`, `NO "Bad arguments."`, still}},
		"logout":               {open, "LOGOUT\r\nNOOP\r\n", []string{`OK "Logging out."`}},
		"logout with more":     {open, "LOGOUT now\r\n", []string{`NO "No arguments here."`, still}},

		"wrong password":            {open, auth(ir), []string{wrong, still}},
		"in a literal":              {open, auth("{16+}\r\n" + plain("alice", "wrong")), []string{wrong, still}},
		"the mechanism too":         {open, "authenticate {5+}\r\nplain " + ir + "\r\n", []string{wrong, still}},
		"asked for":                 {open, "AUTHENTICATE \"PLAIN\"\r\n" + ir + "\r\n", []string{"\"\"\n" + wrong, still}},
		"asked for, in a literal":   {open, "AUTHENTICATE \"PLAIN\"\r\n{16+}\r\n" + plain("alice", "wrong") + "\r\n", []string{"\"\"\n" + wrong, still}},
		"cancelled":                 {open, "AUTHENTICATE \"PLAIN\"\r\n\"*\"\r\nNOOP\r\n", []string{"\"\"\nNO \"Cancelled.\"", done, still}},
		"cancelled, in a literal":   {open, "AUTHENTICATE \"PLAIN\"\r\n{1+}\r\n*\r\n", []string{"\"\"\nNO \"Cancelled.\"", still}},
		"an answer that is none":    {open, "AUTHENTICATE \"PLAIN\"\r\nNOOP\r\n", []string{"\"\"\nNO \"Invalid response.\"", still}},
		"not base64":                {open, auth(`"!!!"`), []string{`NO "Invalid response."`, still}},
		"empty":                     {open, auth(`""`), []string{`NO "Invalid response."`, still}},
		"another's name":            {open, auth(`"` + b64("bob@example.test\x00alice@example.test\x00"+doortest.AppPassword) + `"`), []string{`NO "An app password opens its own account only."`, still}},
		"three arguments":           {open, auth(ir + ` "x"`), []string{`NO "Bad arguments."`, still}},
		"an atom":                   {open, "AUTHENTICATE PLAIN " + ir + "\r\n", []string{`NO "Missing mechanism."`, still}},
		"no mechanism":              {open, "AUTHENTICATE\r\n", []string{`NO "Missing mechanism."`, still}},
		"mechanisms not offered":    {open, "AUTHENTICATE \"LOGIN\"\r\nAUTHENTICATE \"SCRAM-SHA-1\" \"x\"\r\nAUTHENTICATE \"\"\r\n", []string{`NO "Unknown mechanism."`, `NO "Unknown mechanism."`, `NO "Unknown mechanism."`, bye("Too many bad commands.")}},
		"before TLS":                {before, auth(ir) + auth("{16+}\r\n"+plain("alice", "wrong")), []string{encrypt, encrypt, still}},
		"three failures":            {open, strings.Repeat(auth(ir), 4), []string{wrong, wrong, wrong, bye("Too many failed logins.")}},
		"a long response":           {open, "AUTHENTICATE \"PLAIN\"\r\n\"" + strings.Repeat("A", 16<<10) + "\"\r\n", []string{"\"\"\n" + bye("Line too long.")}},
		"a long literal":            {open, "AUTHENTICATE \"PLAIN\"\r\n{4097+}\r\n", []string{"\"\"\n" + bye("Literal too long, or not as {5+}.")}},
		"{n} for a response":        {open, auth("{16}\r\n" + plain("alice", "wrong")), []string{bye("Literal too long, or not as {5+}.")}},
		"a script before the login": {open, "PUTSCRIPT \"a\" {17+}\r\nCAPABILITY\r\nxxx\r\n\r\nNOOP\r\n", []string{unknown, done, still}},

		"not before login":    {open, "LISTSCRIPTS\r\n\r\nUNAUTHENTICATE\r\nNOOP\r\n", []string{unknown, unknown, unknown, bye("Too many bad commands.")}},
		"XCLIENT":             {open, "XCLIENT ADDR=192.0.2.7\r\n", []string{unknown, still}},
		"beyond ASCII":        {open, "\xc5\xbfTARTTLS\r\n", []string{unknown, still}},
		"twenty-one commands": {open, strings.Repeat("NOOP\r\n", 21), append(strings.Split(strings.Repeat(done+"|", 20), "|")[:20], bye("Too many commands before login."))},
		"HTTP":                {open, "POST / HTTP/1.1\r\nHost: x\r\n\r\nCAPABILITY\r\n", nil},
		"HTTP later":          {open, "NOOP\r\nGET / HTTP/1.1\r\n", []string{done, unknown, still}},
		"a long line":         {open, "NOOP \"" + strings.Repeat("x", 8<<10) + "\"\r\nNOOP\r\n", []string{bye("Line too long.")}},
		"long literals":       {open, "NOOP {4000+}\r\n" + strings.Repeat("x", 4000) + " {97+}\r\n", []string{bye("Literal too long, or not as {5+}.")}},
		"long lines together": {open, strings.Repeat("NOOP {0+}\r\n"+strings.Repeat(" ", 5000)+"{0+}\r\n", 2), []string{bye("Line too long.")}},
		"NUL":                 {open, "NO\x00OP\r\n", []string{bye("NUL in a command.")}},
		"NUL in a literal":    {open, "NOOP {3+}\r\na\x00b\r\n", []string{bye("NUL in a command.")}},
		"TLS at once":         {before, "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\n", []string{bye("NUL in a command.")}},
		"a literal too long":  {open, "NOOP {5000+}\r\n", []string{bye("Literal too long, or not as {5+}.")}},
		"no STARTTLS here":    {open, "STARTTLS\r\n", []string{`NO "No STARTTLS here."`, still}},
		"STARTTLS with more":  {before, "STARTTLS \"now\"\r\n", []string{`NO "No arguments here."`, still}},
		"words behind it":     {before, "STARTTLS\r\n" + auth(ir), []string{bye("Commands behind STARTTLS.")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := tt.door.Dial(t)
			greeting := listPlain
			if tt.door == before {
				greeting = listBefore
			}
			if got := answer(k); got != greeting+`OK "Postern ready."` {
				t.Fatalf("greeting %q", got)
			}
			go io.WriteString(k, tt.send)
			for i, want := range tt.want {
				if want == still {
					want = `OK (TAG "still") "Done."`
					k.Send("NOOP \"still\"\r\n")
				}
				if got := answerLike(k, want); got != want {
					t.Fatalf("answer %d: got %q, want %q", i+1, got, want)
				}
			}
			if n := len(tt.want); n == 0 || tt.want[n-1] != still {
				if rest := k.Rest(); rest != "" {
					t.Errorf("then %q", rest)
				}
			}
		})
	}
}

// answerLike is answer, but for one that goes on behind a literal.
func answerLike(k *doortest.Client, want string) string {
	if !strings.HasSuffix(want, "Done.\"") || !strings.HasPrefix(want, "\n") {
		return answer(k)
	}
	lines := make([]string, strings.Count(want, "\n")+1)
	for i := range lines {
		lines[i] = k.Line()
	}
	return strings.Join(lines, "\n")
}

// The design's table, and whether a refusal counts against the client.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err    error
		want   string
		counts bool
	}{
		"wrong":            {&authstore.Refusal{Code: authstore.Wrong}, wrong, true},
		"not app password": {&authstore.Refusal{Code: authstore.NotAppPassword}, `NO "That is not an app password, or it is mistyped; please use an app password for this app, not your own password."`, true},
		"expired":          {&authstore.Refusal{Code: authstore.Expired}, `NO "This app password has expired."`, true},
		"scope":            {&authstore.Refusal{Code: authstore.OutOfScope}, `NO "This app password does not open mail filters."`, true},
		"network":          {&authstore.Refusal{Code: authstore.BadNetwork}, `NO "This app password may not be used from your network."`, true},
		"suspended":        {&authstore.Refusal{Code: authstore.Suspended}, `NO "This account is suspended."`, true},
		"throttled":        {&authstore.Refusal{Code: authstore.Throttled}, `NO (TRYLATER) "Too many attempts; please try again later."`, false},
		"unavailable":      {&authstore.Refusal{Code: authstore.Unavailable}, `NO (TRYLATER) "Account is temporarily unavailable."`, false},
		"an unknown error": {errors.New("SQL"), `NO (TRYLATER) "Account is temporarily unavailable."`, false},
		"too many":         {protocols.ErrTooMany, `NO (TRYLATER) "Too many connections."`, false},
		"no route":         {nil, `NO (TRYLATER) "No server is configured for this account."`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := serve(t, func(d *doortest.Door) {
				d.Verify = func(authstore.Attempt) (authstore.Grant, error) { return authstore.Grant{}, tt.err }
			}).Dial(t)
			answer(k)
			for range 3 {
				k.Send("AUTHENTICATE \"PLAIN\" \"%s\"\r\n", plain("alice", "x"))
				if got := answer(k); got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			}
			k.Send("NOOP\r\n")
			want := done
			if tt.counts {
				want = `BYE "Too many failed logins."`
			}
			if got := answer(k); got != want {
				t.Errorf("then %q, want %q", got, want)
			}
		})
	}
}

// The list is told again in TLS, unasked, and what was said before counts for nothing.
func TestStartTLS(t *testing.T) {
	t.Parallel()
	offers := doortest.Offers(t, protocols.Capabilities{{Name: "SIEVE", Value: "fileinto vacation"}, {Name: "NOTIFY", Value: "mailto"}, {Name: "MAXREDIRECTS", Value: "4"}}...)
	d := doortest.Serve(t, sieveproxy.Door{Offers: offers}, doortest.OverTLS(t, protocols.StartTLS))
	k := d.Dial(t)
	answer(k)
	k.Send("STARTTLS\r\n")
	if got := answer(k); got != `OK "Begin TLS negotiation now."` {
		t.Fatalf("STARTTLS: %q", got)
	}
	k = k.OverTLS(d.Trust())
	want := "\"IMPLEMENTATION\" \"Postern\"\n\"SIEVE\" \"fileinto vacation\"\n\"NOTIFY\" \"mailto\"\n\"MAXREDIRECTS\" \"4\"\n\"SASL\" \"PLAIN\"\n\"VERSION\" \"1.0\"\n"
	if got := answer(k); got != want+`OK "TLS negotiation successful."` {
		t.Errorf("in TLS: %q", got)
	}
	k.Send("STARTTLS\r\nAUTHENTICATE \"PLAIN\" \"%s\"\r\n", plain("alice@example.test", "wrong"))
	if got := answer(k); got != `NO "No STARTTLS here."` {
		t.Errorf("a second time: %q", got)
	}
	if got := answer(k); got != wrong {
		t.Errorf("the login: %q", got)
	}
	if e := <-d.Logins; !e.TLS || e.Domain != "example.test" || e.Mechanism != "PLAIN" {
		t.Errorf("the login: %+v", e)
	}
}

// Plain text behind STARTTLS ends the connection, however it is cut into packets.
func TestStartTLSInjection(t *testing.T) {
	t.Parallel()
	doortest.Injection(t, sieveproxy.Door{Offers: doortest.Offers(t)}, "STARTTLS\r\nAUTHENTICATE \"PLAIN\" \""+plain("mallory", "x")+"\"\r\n",
		`("[^\r]*\r\n)*OK "Postern ready\."\r\n(BYE "Commands behind STARTTLS\."|OK "Begin TLS negotiation now\.")\r\n[^A-Z]*`)
}

func TestGoodbye(t *testing.T) {
	t.Parallel()
	doortest.Goodbyes(t, sieveproxy.Door{Offers: doortest.Offers(t)}, 5, "AUTHENTICATE \"PL", map[error]string{
		protocols.ErrLoginTimeout: "BYE (TRYLATER) \"No login in time.\"\r\n",
		protocols.ErrEvicted:      "BYE (TRYLATER) \"Too many connections.\"\r\n",
		protocols.ErrDraining:     "BYE (TRYLATER) \"Shutting down; please connect again.\"\r\n",
	})
}

func TestLoop(t *testing.T) { doortest.Loop(t, sieveproxy.Door{}) }
