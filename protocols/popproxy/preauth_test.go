package popproxy_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/authstore"
	"postern/internal/testlab"
	"postern/protocols"
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

// Each row is one connection: what the client sends at once, and every line that comes back. A row ends with "." if the connection is
// still open then, or else with the connection. No row here logs in.
func TestBeforeLogin(t *testing.T) {
	t.Parallel()
	_, _, cert := testlab.NewCA(t).Issue()
	plain, before := newDoor(t, nowhere), newDoor(t, nowhere, withSTLS(cert))
	const open = "open"
	offered := []string{"+OK Capabilities follow.", "RESP-CODES", "AUTH-RESP-CODE", "USER", "SASL PLAIN", "."}
	for name, tt := range map[string]struct {
		door *door
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
		"PLAIN, another's name": {plain, "AUTH PLAIN " + b64("bob@example.test\x00alice@example.test\x00"+appPassword) + "\r\n", []string{"-ERR [AUTH] An app password opens its own account only.", open}},
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
			k := dialDoor(t, tt.door)
			go io.WriteString(k.Conn, tt.send)
			for i, want := range tt.want {
				if want == open {
					k.send("QUIT\r\n")
					want = "+OK Logging out."
				}
				if got := k.line(); got != want {
					t.Fatalf("line %d: got %q, want %q", i+1, got, want)
				}
			}
			if rest := k.rest(); rest != "" {
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
		"not app password": {&authstore.Refusal{Code: authstore.NotAppPassword}, "-ERR [AUTH] That is not an app password; please use an app password for this app, not your own password.", true},
		"expired":          {&authstore.Refusal{Code: authstore.Expired}, "-ERR [AUTH] This app password has expired.", true},
		"scope":            {&authstore.Refusal{Code: authstore.OutOfScope}, "-ERR [AUTH] This app password does not open POP3.", true},
		"network":          {&authstore.Refusal{Code: authstore.BadNetwork}, "-ERR [SYS/PERM] This app password may not be used from your network.", true},
		"suspended":        {&authstore.Refusal{Code: authstore.Suspended}, "-ERR [SYS/PERM] This account is suspended.", true},
		"throttled":        {&authstore.Refusal{Code: authstore.Throttled}, "-ERR [SYS/TEMP] Too many attempts; please try again later.", false},
		"unavailable":      {&authstore.Refusal{Code: authstore.Unavailable, Cause: errors.New("SQL")}, tempFail, false},
		"a code to come":   {&authstore.Refusal{Code: 99}, tempFail, false},
		"unknown error":    {errors.New("connection refused"), tempFail, false},
		"no route":         {nil, "-ERR [SYS/PERM] No server is configured for this account.", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := dialDoor(t, newDoor(t, nowhere, func(d *door) { d.verifier.err = tt.err }))
			for range 3 {
				k.asks("USER alice")
				if got := k.asks("PASS " + appPassword); got != tt.want {
					t.Fatalf("got %q, want %q", got, tt.want)
				}
			}
			if tt.counts {
				if got := k.rest(); got != "" {
					t.Errorf("then %q", got)
				}
				return
			}
			k.asks("USER alice")
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
			d := newDoor(t, nowhere)
			k := dialDoor(t, d)
			k.send("%s", send)
			for k.line() != wrong {
			}
			a := d.verifier.attempts()[0]
			if a.Login != name || string(a.Secret) != secret || a.Mechanism != want || a.Protocol != "pop3" || a.Need != authstore.ScopePOP || !a.Client.IsLoopback() {
				t.Errorf("%q: attempt %+v with secret %q", send, a, a.Secret)
			}
		}
	}
}

// Plain text behind STLS ends the connection, however it is cut into packets; what comes as TLS is TLS.
func TestSTLSInjection(t *testing.T) {
	t.Parallel()
	_, _, cert := testlab.NewCA(t).Issue()
	d := newDoor(t, nowhere, withSTLS(cert))
	const words = "STLS\r\nUSER mallory\r\nPASS x\r\n"
	told := regexp.MustCompile(`^(-ERR Commands behind STLS\.\r\n|\+OK Begin TLS negotiation now\.\r\n[^-+]*)$`)
	for cut := 0; cut <= len(words); cut++ {
		k := dialDoor(t, d)
		k.Conn.(*net.TCPConn).SetNoDelay(true)
		k.send("%s", words[:cut])
		k.send("%s", words[cut:])
		k.Conn.(*net.TCPConn).CloseWrite()
		if got, _ := io.ReadAll(k.r); !told.Match(got) {
			t.Fatalf("cut at %d: got %q", cut, got)
		}
	}
	if n := len(d.verifier.attempts()); n != 0 {
		t.Errorf("%d attempts were verified", n)
	}
}

// What was said before TLS counts for nothing, and what is offered changes.
func TestSTLS(t *testing.T) {
	t.Parallel()
	ca := testlab.NewCA(t)
	_, _, cert := ca.Issue()
	d := newDoor(t, nowhere, withSTLS(cert))
	k := dialDoor(t, d)
	k.asks("USER alice")
	if got := k.asks("STLS"); got != "+OK Begin TLS negotiation now." {
		t.Fatalf("STLS: %q", got)
	}
	k = talk(t, tls.Client(k.Conn, &tls.Config{RootCAs: ca.Pool, ServerName: "localhost", NextProtos: []string{"pop3"}}))
	if got := k.asks("PASS wrong"); got != "-ERR Begin with USER." {
		t.Errorf("the name of before: %q", got)
	}
	var list []string
	for line := k.asks("CAPA"); line != "."; line = k.line() {
		list = append(list, line)
	}
	if want := []string{"+OK Capabilities follow.", "RESP-CODES", "AUTH-RESP-CODE", "USER", "SASL PLAIN"}; !slices.Equal(list, want) {
		t.Errorf("capabilities %q, want %q", list, want)
	}
	if got := k.asks("STLS"); got != "-ERR No STLS here." {
		t.Errorf("a second time: %q", got)
	}
	k.asks("USER alice@example.test")
	k.asks("PASS wrong")
	if e := <-d.observer.logins; !e.TLS || e.Domain != "example.test" || e.Mechanism != "PASS" {
		t.Errorf("login %+v", e)
	}
}

// Clients are told what all backends can do.
func TestOffered(t *testing.T) {
	t.Parallel()
	offers := protocols.NewOffers(slog.New(slog.DiscardHandler), "a")
	go offers.Watch(t.Context(), func(context.Context, string) (protocols.Capabilities, error) {
		return protocols.Capabilities{{Name: "TOP"}, {Name: "PIPELINING"}}, nil
	})
	k := dialDoor(t, newDoor(t, nowhere, func(d *door) { d.Door = popproxy.Door{Offers: offers} }))
	k.send("CAPA\r\nQUIT\r\n")
	if got := k.rest(); !strings.HasPrefix(got, "+OK Capabilities follow.\r\nTOP\r\nPIPELINING\r\nRESP-CODES\r\n") {
		t.Errorf("got %q", got)
	}
}

func TestGoodbye(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"-ERR [SYS/TEMP] No login in time.\r\n":                    protocols.ErrLoginTimeout,
		"-ERR [SYS/TEMP] Too many connections.\r\n":                protocols.ErrEvicted,
		"-ERR [SYS/TEMP] Shutting down; please connect again.\r\n": protocols.ErrDraining,
	} {
		if got := string(popproxy.Door{}.Goodbye(err)); got != want {
			t.Errorf("Goodbye(%v) = %q, want %q", err, got, want)
		}
	}
	d := newDoor(t, nowhere)
	k := dialDoor(t, d)
	k.send("USER al")
	d.drain(protocols.ErrDraining)
	if got := k.rest(); got != "-ERR [SYS/TEMP] Shutting down; please connect again.\r\n" {
		t.Errorf("while draining: %q", got)
	}
}
