package popproxy_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"postern/authstore"
	"postern/protocols"
	"postern/protocols/doortest"
	"postern/protocols/popproxy"
)

const (
	wrong    = "-ERR [AUTH] Wrong address or app password."
	privacy  = "-ERR [SYS/PERM] Start TLS first."
	unknown  = "-ERR Unknown command, or not before login."
	goOn     = "+OK Go on with PASS."
	tooMany  = "-ERR Too many bad commands."
	tempFail = "-ERR [SYS/TEMP] Account is temporarily unavailable."
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func serve(t testing.TB, change ...func(*doortest.Door)) *doortest.Door {
	return doortest.Serve(t, popproxy.Door{Offers: doortest.Offers(t)}, change...)
}

// dial connects and takes the greeting.
func dial(t testing.TB, d *doortest.Door) *doortest.Client {
	t.Helper()
	k := d.Dial(t)
	if got := k.Line(); got != "+OK Postern ready." {
		t.Fatalf("greeting %q", got)
	}
	return k
}

// Each row is one connection: what the client sends at once, and every line that comes back. A row ends with "." if the connection is
// still open then, or else with the connection. No row here logs in.
func TestBeforeLogin(t *testing.T) {
	t.Parallel()
	plain, before := serve(t), serve(t, doortest.OverTLS(t, protocols.StartTLS))
	const open = "open"
	offered := []string{"+OK Capabilities follow.", "RESP-CODES", "AUTH-RESP-CODE", "USER", "SASL PLAIN", "."}
	for name, tt := range map[string]struct {
		door *doortest.Door
		send string
		want []string // without the greeting
	}{
		"nothing":               {plain, "", []string{open}},
		"CAPA":                  {plain, "CAPA\r\n", append(offered[:6:6], open)},
		"capa before TLS":       {before, "capa\r\n", []string{"+OK Capabilities follow.", "RESP-CODES", "AUTH-RESP-CODE", "STLS", ".", open}},
		"bare LF":               {plain, "CAPA\nQUIT\n", append(offered[:6:6], "+OK Logging out.")},
		"QUIT":                  {plain, "QUIT\r\nCAPA\r\n", []string{"+OK Logging out."}},
		"QUIT now":              {plain, "QUIT now\r\n", []string{"-ERR No arguments here.", open}},
		"after login only":      {plain, "NOOP\r\nSTAT\r\n", []string{unknown, unknown, open}},
		"no APOP":               {plain, "APOP alice c4c9334bac560ecc979e58001b3e22fb\r\n", []string{unknown, open}},
		"no UTF8, no LANG":      {plain, "UTF8\r\nLANG de\r\n", []string{unknown, unknown, open}},
		"no XCLIENT":            {plain, "XCLIENT ADDR=192.0.2.7 TTL=1\r\n", []string{unknown, open}},
		"a blank first":         {plain, " CAPA\r\n", []string{unknown, open}},
		"an empty line":         {plain, "\r\n", []string{unknown, open}},
		"three bad":             {plain, "A\r\nB\r\nC\r\nCAPA\r\n", []string{unknown, unknown, tooMany}},
		"USER and PASS":         {plain, "USER alice\r\nPASS wrong\r\n", []string{goOn, wrong, open}},
		"whoever":               {plain, "user \xff\x01 nobody\r\n", []string{goOn, open}},
		"USER twice":            {plain, "USER alice\r\nUSER bob\r\nPASS wrong\r\n", []string{goOn, goOn, wrong, open}},
		"PASS twice":            {plain, "USER alice\r\nPASS wrong\r\nPASS wrong\r\n", []string{goOn, wrong, "-ERR Begin with USER.", open}},
		"PASS first":            {plain, "PASS wrong\r\n", []string{"-ERR Begin with USER.", open}},
		"no name":               {plain, "USER\r\nUSER \r\n", []string{"-ERR Missing name.", "-ERR Missing name.", open}},
		"no password":           {plain, "USER alice\r\nPASS\r\n", []string{goOn, "-ERR Missing password.", open}},
		"three failures":        {plain, strings.Repeat("USER alice\r\nPASS wrong\r\n", 4), []string{goOn, wrong, goOn, wrong, goOn, wrong}},
		"USER before TLS":       {before, "USER alice\r\nPASS wrong\r\n", []string{privacy, privacy, open}},
		"AUTH before TLS":       {before, "AUTH\r\nAUTH PLAIN " + b64("\x00alice\x00wrong") + "\r\n", []string{privacy, privacy, open}},
		"AUTH":                  {plain, "AUTH\r\nauth \r\n", []string{"+OK Mechanisms follow.", "PLAIN", ".", "+OK Mechanisms follow.", "PLAIN", ".", open}},
		"PLAIN":                 {plain, "AUTH PLAIN\r\n" + b64("\x00alice\x00wrong") + "\r\n", []string{"+ ", wrong, open}},
		"PLAIN at once":         {plain, "auth plain " + b64("\x00alice\x00wrong") + "\r\n", []string{wrong, open}},
		"PLAIN, another's name": {plain, "AUTH PLAIN " + b64("bob@example.test\x00alice@example.test\x00"+doortest.AppPassword) + "\r\n", []string{"-ERR [AUTH] An app password opens its own account only.", open}},
		"PLAIN, empty":          {plain, "AUTH PLAIN =\r\n", []string{"-ERR Invalid response.", open}},
		"PLAIN, not base64":     {plain, "AUTH PLAIN\r\n!!!\r\n", []string{"+ ", "-ERR Invalid response.", open}},
		"PLAIN cancelled":       {plain, "AUTH PLAIN\r\n*\r\n", []string{"+ ", "-ERR Cancelled.", open}},
		"two blanks":            {plain, "AUTH  PLAIN\r\n", []string{"+OK Mechanisms follow.", "PLAIN", ".", open}},
		"unknown mechanism":     {plain, "AUTH LOGIN\r\n", []string{"-ERR Unknown mechanism.", open}},
		"a long SASL line":      {plain, "AUTH PLAIN\r\n" + strings.Repeat("A", 16<<10) + "\r\nCAPA\r\n", []string{"+ ", "-ERR Line too long."}},
		"twenty-one commands":   {plain, strings.Repeat("USER x\r\n", 21), append(slices.Repeat([]string{goOn}, 20), "-ERR Too many commands before login.")},
		"HTTP":                  {plain, "POST / HTTP/1.1\r\nHost: x\r\n\r\nUSER alice\r\n", nil},
		"a long line":           {plain, "USER " + strings.Repeat("x", 8<<10) + "\r\nCAPA\r\n", []string{"-ERR Line too long."}},
		"NUL":                   {plain, "USER a\x00b\r\n", []string{"-ERR NUL in a command."}},
		"TLS without STLS":      {before, "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\n", []string{"-ERR NUL in a command."}},
		"STLS where it is not":  {plain, "STLS\r\n", []string{"-ERR No STLS here.", open}},
		"STLS with arguments":   {before, "STLS now\r\n", []string{"-ERR No arguments here.", open}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := dial(t, tt.door)
			go io.WriteString(k, tt.send)
			for i, want := range tt.want {
				if want == open {
					k.Send("QUIT\r\n")
					want = "+OK Logging out."
				}
				if got := k.Line(); got != want {
					t.Fatalf("line %d: got %q, want %q", i+1, got, want)
				}
			}
			if rest := k.Rest(); rest != "" {
				t.Errorf("then %q", rest)
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
		"wrong":            {&authstore.Refusal{Code: authstore.Wrong}, wrong, true},
		"not app password": {&authstore.Refusal{Code: authstore.NotAppPassword}, "-ERR [AUTH] That is not an app password, or it is mistyped; please use an app password for this app, not your own password.", true},
		"expired":          {&authstore.Refusal{Code: authstore.Expired}, "-ERR [AUTH] This app password has expired.", true},
		"scope":            {&authstore.Refusal{Code: authstore.OutOfScope}, "-ERR [AUTH] This app password does not open POP3.", true},
		"network":          {&authstore.Refusal{Code: authstore.BadNetwork}, "-ERR [SYS/PERM] This app password may not be used from your network.", true},
		"suspended":        {&authstore.Refusal{Code: authstore.Suspended}, "-ERR [SYS/PERM] This account is suspended.", true},
		"throttled":        {&authstore.Refusal{Code: authstore.Throttled}, "-ERR [SYS/TEMP] Too many attempts; please try again later.", false},
		"unavailable":      {&authstore.Refusal{Code: authstore.Unavailable, Cause: errors.New("SQL")}, tempFail, false},
		"a code to come":   {&authstore.Refusal{Code: 99}, tempFail, false},
		"unknown error":    {errors.New("connection refused"), tempFail, false},
		"too many":         {protocols.ErrTooMany, "-ERR [SYS/TEMP] Too many connections.", false},
		"no route":         {nil, "-ERR [SYS/PERM] No server is configured for this account.", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := dial(t, serve(t, func(d *doortest.Door) {
				d.Verify = func(authstore.Attempt) (authstore.Grant, error) { return authstore.Grant{}, tt.err }
			}))
			for range 3 {
				k.Ask("USER alice")
				if got := k.Ask("PASS %s", doortest.AppPassword); got != tt.want {
					t.Fatalf("got %q, want %q", got, tt.want)
				}
			}
			if tt.counts {
				if got := k.Rest(); got != "" {
					t.Errorf("then %q", got)
				}
				return
			}
			k.Ask("USER alice")
		})
	}
}

// What is verified is what was typed, blanks in it and behind it as well.
func TestWhatIsVerified(t *testing.T) {
	t.Parallel()
	const name, secret = "al ice@example.test", " abc  de \\ fgh\t "
	for want, words := range map[string][]string{
		"PASS":  {"USER " + name + "\r\nPASS " + secret + "\r\n", "user " + name + "\npass " + secret + "\n"},
		"PLAIN": {"AUTH PLAIN " + b64("\x00"+name+"\x00"+secret) + "\r\n", "AUTH plain\r\n" + b64(name+"\x00"+name+"\x00"+secret) + "\r\n"},
	} {
		for _, send := range words {
			var a authstore.Attempt
			k := dial(t, serve(t, func(d *doortest.Door) {
				d.Verify = func(tried authstore.Attempt) (authstore.Grant, error) {
					a = tried
					a.Secret = bytes.Clone(a.Secret)
					return authstore.Grant{}, &authstore.Refusal{Code: authstore.Wrong}
				}
			}))
			k.Send("%s", send)
			for k.Line() != wrong {
			}
			if a.Login != name || string(a.Secret) != secret || a.Mechanism != want || a.Protocol != "pop3" || a.Need != authstore.ScopePOP || !a.Client.IsLoopback() {
				t.Errorf("%q: attempt %+v with secret %q", send, a, a.Secret)
			}
		}
	}
}

// Plain text behind STLS ends the connection, however it is cut into packets.
func TestSTLSInjection(t *testing.T) {
	t.Parallel()
	doortest.Injection(t, popproxy.Door{}, "STLS\r\nUSER mallory\r\nPASS x\r\n",
		`\+OK Postern ready\.\r\n(-ERR Commands behind STLS\.|\+OK Begin TLS negotiation now\.)\r\n[^-+]*`)
}

// Nothing is taken before TLS, and what is offered changes.
func TestSTLS(t *testing.T) {
	t.Parallel()
	d := serve(t, doortest.OverTLS(t, protocols.StartTLS))
	k := dial(t, d)
	k.Ask("USER alice")
	if got := k.Ask("STLS"); got != "+OK Begin TLS negotiation now." {
		t.Fatalf("STLS: %q", got)
	}
	k = k.OverTLS(d.Trust())
	if got := k.Ask("PASS wrong"); got != "-ERR Begin with USER." {
		t.Errorf("the name of before: %q", got)
	}
	k.Send("CAPA\r\n")
	if got := k.Until("."); got != "+OK Capabilities follow.\nRESP-CODES\nAUTH-RESP-CODE\nUSER\nSASL PLAIN\n." {
		t.Errorf("capabilities %q", got)
	}
	if got := k.Ask("STLS"); got != "-ERR No STLS here." {
		t.Errorf("a second time: %q", got)
	}
	k.Ask("USER alice@example.test")
	k.Ask("PASS wrong")
	if e := <-d.Logins; !e.TLS || e.Domain != "example.test" || e.Mechanism != "PASS" {
		t.Errorf("login %+v", e)
	}
}

// Clients are told what all backends can do.
func TestOffered(t *testing.T) {
	t.Parallel()
	door := popproxy.Door{Offers: doortest.Offers(t, protocols.Capability{Name: "TOP"}, protocols.Capability{Name: "PIPELINING"})}
	k := dial(t, doortest.Serve(t, door))
	k.Send("CAPA\r\nQUIT\r\n")
	if got := k.Rest(); !strings.HasPrefix(got, "+OK Capabilities follow.\r\nTOP\r\nPIPELINING\r\nRESP-CODES\r\n") {
		t.Errorf("got %q", got)
	}
}

func TestGoodbye(t *testing.T) {
	t.Parallel()
	doortest.Goodbyes(t, popproxy.Door{}, 1, "USER al", map[error]string{
		protocols.ErrLoginTimeout: "-ERR [SYS/TEMP] No login in time.\r\n",
		protocols.ErrEvicted:      "-ERR [SYS/TEMP] Too many connections.\r\n",
		errors.New("whatever"):    "-ERR [SYS/TEMP] The session was ended; please connect again.\r\n",
		protocols.ErrDraining:     "-ERR [SYS/TEMP] Shutting down; please connect again.\r\n",
	})
}

func TestLoop(t *testing.T) { doortest.Loop(t, popproxy.Door{}) }
