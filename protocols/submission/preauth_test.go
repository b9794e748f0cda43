package submission_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/authstore"
	"postern/protocols"
	"postern/protocols/doortest"
	"postern/protocols/submission"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

var some = []protocols.Capability{{Name: "PIPELINING"}, {Name: "SIZE", Value: "1000"}, {Name: "CHUNKING"}}

// Each row is one connection: what the client sends at once, and every line that comes back. A row ends with "." if the connection is
// still open then. No row here logs in.
func TestBeforeLogin(t *testing.T) {
	t.Parallel()
	newDoor := func() *submission.Door {
		return &submission.Door{Name: "mx.example.test", Offers: doortest.Offers(t, some...)}
	}
	plain := doortest.Serve(t, newDoor())
	before := doortest.Serve(t, newDoor(), doortest.OverTLS(t, protocols.StartTLS))
	const open = "."
	ehlo := []string{"250-mx.example.test", "250-PIPELINING", "250-SIZE 1000", "250-CHUNKING"}
	inPlain, inBefore := append(slices.Clone(ehlo), "250 AUTH PLAIN LOGIN"), append(slices.Clone(ehlo), "250 STARTTLS")
	const (
		hi      = "EHLO [192.0.2.1]\r\n"
		wrong   = "535 5.7.8 Wrong address or app password."
		needed  = "530 5.7.0 Authentication required."
		unknown = "500 5.5.2 Unknown command."
		invalid = "501 5.5.2 Invalid response."
		strict  = "500 5.5.2 A line must end in CRLF."
		badEnd  = "421 4.7.0 Too many bad commands."
	)
	attempt := b64("\x00alice@example.test\x00wrong")
	for name, tt := range map[string]struct {
		door *doortest.Door
		send string
		want []string // without the greeting
	}{
		"nothing":               {plain, "", []string{open}},
		"EHLO":                  {plain, hi, append(slices.Clone(inPlain), open)},
		"EHLO before TLS":       {before, "ehlo x_y\r\n", append(slices.Clone(inBefore), open)},
		"HELO":                  {plain, "HELO x\r\n", []string{"250 mx.example.test", open}},
		"EHLO of nobody":        {plain, "EHLO\r\nEHLO \r\nEHLO a b\r\n", []string{"501 5.5.4 Give the name of your host.", "501 5.5.4 Give the name of your host.", "501 5.5.4 Give the name of your host.", badEnd}},
		"EHLO of a long name":   {plain, "EHLO " + strings.Repeat("x", 256) + "\r\nEHLO " + strings.Repeat("x", 255) + "\r\n", slices.Concat([]string{"501 5.5.4 Give the name of your host."}, inPlain, []string{open})},
		"QUIT":                  {plain, "QUIT\r\nNOOP\r\n", []string{"221 2.0.0 Bye."}},
		"NOOP and such":         {plain, "noop\r\nRSET\r\nHELP\r\n", []string{"250 2.0.0 OK", "250 2.0.0 OK", "214 2.0.0 Log in with your mail address and an app password.", open}},
		"mail":                  {plain, "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nVRFY x\r\n", []string{needed, needed, needed, needed, open}},
		"mail before TLS":       {before, "MAIL FROM:<a@b>\r\n", []string{"530 5.7.0 Start TLS first.", open}},
		"AUTH before EHLO":      {plain, "AUTH PLAIN " + attempt + "\r\n", []string{"503 5.5.1 Say EHLO first.", open}},
		"AUTH before TLS":       {before, hi + "AUTH PLAIN " + attempt + "\r\n", append(slices.Clone(inBefore), "538 5.7.11 Start TLS first.", open)},
		"PLAIN":                 {plain, hi + "auth plain " + attempt + "\r\n", append(slices.Clone(inPlain), wrong, open)},
		"PLAIN, later":          {plain, hi + "AUTH PLAIN\r\n" + attempt + "\r\n", append(slices.Clone(inPlain), "334 ", wrong, open)},
		"LOGIN":                 {plain, hi + "AUTH LOGIN\r\n" + b64("alice@example.test") + "\r\n" + b64("wrong") + "\r\n", append(slices.Clone(inPlain), "334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", wrong, open)},
		"LOGIN with a name":     {plain, hi + "AUTH LOGIN " + b64("alice@example.test") + "\r\n" + b64("wrong") + "\r\n", append(slices.Clone(inPlain), "334 UGFzc3dvcmQ6", wrong, open)},
		"cancelled":             {plain, hi + "AUTH PLAIN\r\n*\r\n", append(slices.Clone(inPlain), "334 ", "501 5.7.0 Cancelled.", open)},
		"not base64":            {plain, hi + "AUTH PLAIN !\r\nAUTH PLAIN =\r\nAUTH LOGIN\r\n!\r\n", append(slices.Clone(inPlain), invalid, invalid, "334 VXNlcm5hbWU6", invalid, badEnd)},
		"unknown mechanism":     {plain, hi + "AUTH XOAUTH2 x\r\nAUTH\r\n", append(slices.Clone(inPlain), "504 5.5.4 Unknown mechanism.", "504 5.5.4 Unknown mechanism.", open)},
		"as another":            {plain, hi + "AUTH PLAIN " + b64("bob@example.test\x00alice@example.test\x00"+doortest.AppPassword) + "\r\n", append(slices.Clone(inPlain), "535 5.7.8 An app password opens its own account only.", open)},
		"nowhere":               {plain, hi + "AUTH PLAIN " + b64("\x00alice@example.test\x00"+doortest.AppPassword) + "\r\n", append(slices.Clone(inPlain), "454 4.3.5 No server is configured for this account.", open)},
		"too many failures":     {plain, hi + strings.Repeat("AUTH PLAIN "+attempt+"\r\n", 4), append(slices.Clone(inPlain), wrong, wrong, wrong, "421 4.7.0 Too many failed logins.")},
		"too many bad ones":     {plain, "XCLIENT LOGIN=alice\r\n NOOP\r\n\r\nNOOP\r\n", []string{unknown, unknown, unknown, badEnd}},
		"too many commands":     {plain, strings.Repeat("NOOP\r\n", 22), append(slices.Repeat([]string{"250 2.0.0 OK"}, 20), "421 4.7.0 Too many commands before login.")},
		"bare LF":               {plain, "NOOP\nNOOP\r\n", []string{strict, "250 2.0.0 OK", open}},
		"bare CR":               {plain, "NOOP\rQUIT\r\nNOOP\r\r\n", []string{strict, strict, open}},
		"NUL":                   {plain, "NOOP\x00\r\n", []string{"421 4.5.2 NUL in a command."}},
		"a long line":           {plain, "NOOP " + strings.Repeat("x", 20000) + "\r\n", []string{"421 4.5.2 Line too long."}},
		"a browser":             {plain, "POST / HTTP/1.1\r\nHost: x\r\n", nil},
		"STARTTLS where not":    {plain, "STARTTLS\r\n", []string{"502 5.5.1 No STARTTLS here.", open}},
		"STARTTLS with words":   {before, "STARTTLS now\r\n", []string{"501 5.5.4 No arguments here.", open}},
		"words behind STARTTLS": {before, "STARTTLS\r\nEHLO x\r\n", []string{"421 4.7.0 Commands behind STARTTLS."}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := tt.door.Dial(t)
			if got := c.Line(); got != "220 mx.example.test ESMTP Postern ready" {
				t.Fatalf("greeting %q", got)
			}
			go io.WriteString(c, tt.send)
			isOpen := slices.Contains(tt.want, open)
			for i, want := range slices.DeleteFunc(slices.Clone(tt.want), func(s string) bool { return s == open }) {
				if got := c.Line(); got != want {
					t.Fatalf("line %d: got %q, want %q", i+1, got, want)
				}
			}
			if !isOpen {
				if rest := c.Rest(); rest != "" {
					t.Errorf("then %q", rest)
				}
				return
			}
			c.Send("QUIT\r\n")
			if got := c.Line(); got != "221 2.0.0 Bye." {
				t.Errorf("then %q", got)
			}
		})
	}
}

// The design's table, and whether a refusal counts against the client.
func TestAnswers(t *testing.T) {
	t.Parallel()
	const later = "454 4.3.0 Account is temporarily unavailable."
	for err, want := range map[error]string{
		&authstore.Refusal{Code: authstore.Wrong}:          "535 5.7.8 Wrong address or app password.",
		&authstore.Refusal{Code: authstore.NotAppPassword}: "535 5.7.8 That is not an app password, or it is mistyped; please use an app password for this app, not your own password.",
		&authstore.Refusal{Code: authstore.Expired}:        "535 5.7.8 This app password has expired.",
		&authstore.Refusal{Code: authstore.OutOfScope}:     "535 5.7.8 This app password does not open the sending of mail.",
		&authstore.Refusal{Code: authstore.BadNetwork}:     "535 5.7.8 This app password may not be used from your network.",
		&authstore.Refusal{Code: authstore.Suspended}:      "535 5.7.8 This account is suspended.",
		&authstore.Refusal{Code: authstore.Throttled}:      "454 4.7.0 Too many attempts; please try again later.",
		&authstore.Refusal{Code: authstore.Unavailable}:    later,
		&authstore.Refusal{Code: 99}:                       later,
		errors.New("connection refused"):                   later,
		protocols.ErrTooMany:                               "454 4.3.2 Too many connections.",
	} {
		c := doortest.Serve(t, &submission.Door{Name: "x", Offers: doortest.Offers(t)}, func(d *doortest.Door) {
			d.Verify = func(authstore.Attempt) (authstore.Grant, error) { return authstore.Grant{}, err }
		}).Dial(t)
		c.Line()
		c.Send("EHLO x\r\n")
		c.Until("250")
		for range 3 {
			if got := c.Ask("AUTH PLAIN %s", b64("\x00alice@example.test\x00x")); got != want {
				t.Fatalf("%v: got %q, want %q", err, got, want)
			}
		}
		next := "421 4.7.0 Too many failed logins."
		if want[0] == '4' {
			next = "250 2.0.0 OK"
		}
		if got := c.Ask("NOOP"); got != next {
			t.Errorf("%v: then %q, want %q", err, got, next)
		}
	}
}

// scripted is a backend that says its lines, one for each line that it reads; the first is its greeting. "" says nothing and hangs up. As Postfix
// does, it hangs up on who says something behind XCLIENT before that is answered.
func scripted(t *testing.T, replies ...string) (address string, heard func() []string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	lines := make(chan []string, 1)
	go func() {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		var got []string
		defer func() { lines <- got }()
		r := bufio.NewReader(nc)
		for _, reply := range replies {
			if reply == "" {
				return
			}
			io.WriteString(nc, reply+"\r\n")
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			got = append(got, strings.TrimSpace(line))
			if strings.HasPrefix(line, "XCLIENT ") && r.Buffered() > 0 {
				return
			}
		}
		io.Copy(io.Discard, r)
	}()
	return ln.Addr().String(), func() []string { return <-lines }
}

var session = regexp.MustCompile("SESSION=[a-z0-9]{13}")

// What backends answer, what the gateway says to them, and what the client is told. A backend's refusal is never a wrong password.
func TestBackends(t *testing.T) {
	t.Parallel()
	const (
		later   = "454 4.3.0 Account is temporarily unavailable."
		hello   = "250-backend\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-CHUNKING\r\n250-AUTH LOGIN PLAIN\r\n250 XCLIENT NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN"
		without = "250-backend\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-SIZE 1000\r\n250 AUTH PLAIN"
		me      = "XCLIENT NAME=[UNAVAILABLE] REVERSE_NAME=[UNAVAILABLE] ADDR=127.0.0.1 PORT=* PROTO=ESMTP HELO=client.example.test"
		dovecot = "250-backend\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-SIZE 1000\r\n250-XCLIENT ADDR PORT PROTO HELO LOGIN SESSION TTL\r\n250 AUTH PLAIN"
	)
	plain := "AUTH PLAIN " + b64("alice@example.test\x00gateway\x00secret")
	for name, tt := range map[string]struct {
		xclient bool
		quirks  protocols.Quirks
		replies []string
		heard   []string
		want    string
		err     error
	}{
		"PLAIN":                 {false, protocols.Quirks{}, []string{"220 hi", without, "235 in"}, []string{"EHLO mx.example.test", plain}, "235 2.7.0 Logged in.", nil},
		"with the address":      {false, protocols.Quirks{}, []string{"220 hi", hello, "220 hi", hello, "235 in"}, []string{"EHLO mx.example.test", me, "EHLO client.example.test", plain}, "235 2.7.0 Logged in.", nil},
		"without the address":   {false, protocols.Quirks{NoClientID: true}, []string{"220 hi", hello, "235 in"}, []string{"EHLO mx.example.test", plain}, "235 2.7.0 Logged in.", nil},
		"XCLIENT":               {true, protocols.Quirks{}, []string{"220 hi", hello, "220 hi", hello}, []string{"EHLO mx.example.test", me + " LOGIN=alice@example.test", "EHLO client.example.test"}, "235 2.7.0 Logged in.", nil},
		"XCLIENT without IPv6":  {true, protocols.Quirks{}, []string{"220 hi", hello, "501 5.5.4 Bad ADDR", hello, "220 hi", hello}, []string{"EHLO mx.example.test", me + " LOGIN=alice@example.test", "EHLO client.example.test", "XCLIENT NAME=[UNAVAILABLE] REVERSE_NAME=[UNAVAILABLE] PROTO=ESMTP HELO=client.example.test LOGIN=alice@example.test", "EHLO client.example.test"}, "235 2.7.0 Logged in.", nil},
		"XCLIENT not for us":    {true, protocols.Quirks{}, []string{"220 hi", hello, "550 5.7.0 no", hello}, nil, later, protocols.ErrCredential},
		"XCLIENT of too many":   {true, protocols.Quirks{}, []string{"220 hi", hello, "421 4.7.0 no"}, []string{"EHLO mx.example.test", me + " LOGIN=alice@example.test"}, later, nil},
		"Dovecot":               {false, protocols.Quirks{}, []string{"220 hi", dovecot, "220 hi", dovecot, "235 in"}, []string{"EHLO mx.example.test", "XCLIENT ADDR=127.0.0.1 PORT=* PROTO=ESMTP HELO=client.example.test SESSION=* TTL=4", "EHLO client.example.test", plain}, "235 2.7.0 Logged in.", nil},
		"XCLIENT without AUTH":  {true, protocols.Quirks{}, []string{"220 hi", hello, "220 hi", "250-backend\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250 CHUNKING"}, nil, later, nil},
		"XCLIENT not there":     {true, protocols.Quirks{}, []string{"220 hi", without}, nil, later, nil},
		"no longer valid":       {false, protocols.Quirks{}, []string{"220 hi", without, "534 5.7.9 no"}, nil, later, protocols.ErrCredential},
		"wrong credential":      {false, protocols.Quirks{}, []string{"220 hi", without, "535 5.7.8 no"}, nil, later, protocols.ErrCredential},
		"troubles":              {false, protocols.Quirks{}, []string{"220 hi", without, "454 4.7.0 later"}, nil, later, nil},
		"no PLAIN":              {false, protocols.Quirks{}, []string{"220 hi", "250 backend"}, nil, later, nil},
		"closed":                {false, protocols.Quirks{}, []string{"421 4.3.2 closed"}, nil, later, nil},
		"hangs up at once":      {false, protocols.Quirks{}, []string{""}, nil, later, nil},
		"hangs up after EHLO":   {false, protocols.Quirks{}, []string{"220 hi", ""}, nil, later, nil},
		"hangs up after AUTH":   {false, protocols.Quirks{}, []string{"220 hi", without, ""}, nil, later, nil},
		"another protocol":      {false, protocols.Quirks{}, []string{"* OK IMAP4rev1"}, nil, later, nil},
		"no end of lines":       {false, protocols.Quirks{}, []string{"220 hi", strings.Repeat("250-x\r\n", 300) + "250 x"}, nil, later, nil},
		"a line without end":    {false, protocols.Quirks{}, []string{"220 " + strings.Repeat("x", 10000)}, nil, later, nil},
		"less than was offered": {false, protocols.Quirks{}, []string{"220 hi", "250-backend\r\n250-SIZE 5\r\n250 AUTH PLAIN", "235 in"}, nil, later, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, heard := scripted(t, tt.replies...)
			d := doortest.Serve(t, &submission.Door{Name: "mx.example.test", Offers: doortest.Offers(t, some...)}, func(d *doortest.Door) {
				d.Routes = func(g authstore.Grant) (*protocols.Route, error) {
					r := &protocols.Route{Backend: doortest.Backend, Network: "tcp", Address: address, Login: g.Address, XClient: tt.xclient, Quirks: tt.quirks}
					if !tt.xclient {
						r.Open = func(context.Context) (protocols.Credential, error) {
							return protocols.Credential{Authzid: g.Address, Authcid: "gateway", Password: []byte("secret")}, nil
						}
					}
					return r, nil
				}
			})
			c := d.Dial(t)
			c.Line()
			c.Send("EHLO client.example.test\r\n")
			for !strings.HasPrefix(c.Line(), "250 ") {
			}
			c.Send("AUTH PLAIN %s\r\n", b64("\x00alice@example.test\x00"+doortest.AppPassword))
			if got := c.Line(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if e := <-d.Logins; tt.err != nil && !errors.Is(e.Err, tt.err) {
				t.Errorf("the log is told %v, want %v", e.Err, tt.err)
			}
			c.Close()
			if tt.heard == nil {
				return
			}
			got := heard()
			port := fmt.Sprint("PORT=", c.LocalAddr().(*net.TCPAddr).Port)
			for i := range got {
				got[i] = session.ReplaceAllString(strings.Replace(got[i], port, "PORT=*", 1), "SESSION=*")
			}
			if !slices.Equal(got, tt.heard) {
				t.Errorf("the backend heard %q, want %q", got, tt.heard)
			}
		})
	}
}

// What a backend with XCLIENT has said once is not asked again, unless it changes its mind.
func TestKnownBackend(t *testing.T) {
	t.Parallel()
	const (
		hello   = "250-backend\r\n250-AUTH PLAIN\r\n250 XCLIENT ADDR"
		without = "250-backend\r\n250 AUTH PLAIN"
		first   = "EHLO mx.example.test"
		me      = "XCLIENT ADDR=127.0.0.1"
		again   = "EHLO client.example.test"
	)
	plain := "AUTH PLAIN " + b64("\x00gateway\x00secret")
	door := &submission.Door{Name: "mx.example.test", Offers: doortest.Offers(t)}
	for i, tt := range []struct {
		quirks         protocols.Quirks
		replies, heard []string
	}{
		{protocols.Quirks{}, []string{"220 hi", hello, "220 hi", hello, "235 in"}, []string{first, me, again, plain}},
		{protocols.Quirks{}, []string{"220 hi", "220 hi", hello, "235 in"}, []string{me, again, plain}},
		{protocols.Quirks{NoPipelining: true}, []string{"220 hi", hello, "220 hi", hello, "235 in"}, []string{first, me, again, plain}},
		{protocols.Quirks{NoClientID: true}, []string{"220 hi", hello, "235 in"}, []string{first, plain}}, // EHLO goes before AUTH (RFC 4954 section 4)
		{protocols.Quirks{}, []string{"220 hi", "550 no", without, "235 in"}, []string{me, again, plain}},
	} {
		address, heard := scripted(t, tt.replies...)
		c := doortest.Serve(t, door, func(d *doortest.Door) {
			d.Routes = func(authstore.Grant) (*protocols.Route, error) {
				return &protocols.Route{Backend: doortest.Backend, Network: "tcp", Address: address, Quirks: tt.quirks, Open: func(context.Context) (protocols.Credential, error) {
					return protocols.Credential{Authcid: "gateway", Password: []byte("secret")}, nil
				}}, nil
			}
		}).Dial(t)
		c.Line()
		c.Send("EHLO client.example.test\r\n")
		c.Until("250")
		if got := c.Ask("AUTH PLAIN %s", b64("\x00alice@example.test\x00"+doortest.AppPassword)); got != "235 2.7.0 Logged in." {
			t.Errorf("%d: got %q", i, got)
		}
		c.Close()
		if got := heard(); !slices.Equal(got, tt.heard) {
			t.Errorf("%d: the backend heard %q, want %q", i, got, tt.heard)
		}
	}
}

// What is pipelined behind an exchange is not lost: it reaches the backend as it was said.
func TestPipelined(t *testing.T) {
	t.Parallel()
	address, heard := scripted(t, "220 hi", "250-backend\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-CHUNKING\r\n250 AUTH PLAIN", "235 in", "250 one", "250 two", "221 bye")
	d := doortest.Serve(t, &submission.Door{Name: "mx.example.test", Offers: doortest.Offers(t, some...)}, func(d *doortest.Door) {
		d.Routes = func(g authstore.Grant) (*protocols.Route, error) {
			return &protocols.Route{Backend: doortest.Backend, Network: "tcp", Address: address, Open: func(context.Context) (protocols.Credential, error) {
				return protocols.Credential{Authcid: "gateway", Password: []byte("secret")}, nil
			}}, nil
		}
	})
	c := d.Dial(t)
	c.Send("EHLO client.example.test\r\nAUTH LOGIN\r\n%s\r\n%s\r\nMAIL FROM:<alice@example.test>\r\nRCPT TO:<bob@example.test>\r\nQUIT\r\n", b64("alice@example.test"), b64(doortest.AppPassword))
	for c.Line() != "235 2.7.0 Logged in." {
	}
	for _, want := range []string{"250 one", "250 two", "221 bye"} {
		if got := c.Line(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	c.Close()
	if got := heard()[2:]; !slices.Equal(got, []string{"MAIL FROM:<alice@example.test>", "RCPT TO:<bob@example.test>", "QUIT"}) {
		t.Errorf("the backend heard %q", got)
	}
}

// Plain text behind STARTTLS ends the connection, however it is cut into packets.
func TestSTARTTLSInjection(t *testing.T) {
	t.Parallel()
	doortest.Injection(t, &submission.Door{Name: "x", Offers: doortest.Offers(t)}, "STARTTLS\r\nEHLO x\r\nAUTH PLAIN "+b64("\x00mallory\x00x")+"\r\n",
		`220 x ESMTP Postern ready\r\n(421 4\.7\.0 Commands behind STARTTLS\.|220 2\.0\.0 Begin TLS negotiation now\.)\r\n[^0-9]*`)
}

// What was said before TLS counts for nothing, and what is offered changes.
func TestSTARTTLS(t *testing.T) {
	t.Parallel()
	d := doortest.Serve(t, &submission.Door{Name: "x", Offers: doortest.Offers(t)}, doortest.OverTLS(t, protocols.StartTLS))
	c := d.Dial(t)
	c.Line()
	c.Send("EHLO x\r\nSTARTTLS\r\n")
	for c.Line() != "220 2.0.0 Begin TLS negotiation now." {
	}
	c = c.OverTLS(d.Trust())
	attempt := "AUTH PLAIN " + b64("\x00alice@example.test\x00wrong")
	if got := c.Ask("%s", attempt); got != "503 5.5.1 Say EHLO first." {
		t.Errorf("greeted before: %q", got)
	}
	c.Send("EHLO x\r\n")
	if got := c.Until("250"); got != "250-x\n250 AUTH PLAIN LOGIN" {
		t.Errorf("offered %q", got)
	}
	if got := c.Ask("STARTTLS"); got != "502 5.5.1 No STARTTLS here." {
		t.Errorf("a second time: %q", got)
	}
	c.Ask("%s", attempt)
	if e := <-d.Logins; !e.TLS || e.Domain != "example.test" || e.Mechanism != "PLAIN" {
		t.Errorf("login %+v", e)
	}
}

func TestGoodbye(t *testing.T) {
	t.Parallel()
	doortest.Goodbyes(t, &submission.Door{Name: "x"}, 1, "EHL", map[error]string{
		protocols.ErrLoginTimeout: "421 4.4.2 No login in time.\r\n",
		protocols.ErrEvicted:      "421 4.3.2 Too many connections.\r\n",
		protocols.ErrDraining:     "421 4.3.2 Shutting down; please connect again.\r\n",
		errors.New("whatever"):    "421 4.3.2 The session was ended; please connect again.\r\n",
	})
}

// What administrators are told, and what clients may be told.
func TestProbeAndAsk(t *testing.T) {
	t.Parallel()
	const (
		hello   = "250-backend\r\n250-SIZE 1000\r\n250-AUTH PLAIN\r\n250-XODD\r\n250-BURL imap\r\n250 XCLIENT NAME ADDR LOGIN"
		without = "250-backend\r\n250 SIZE 1000"
	)
	for name, tt := range map[string]struct {
		login   string // empty: there is no account to log in as
		xclient bool
		replies []string
		want    string
	}{
		"all is well":          {"alice", false, []string{"220 hi", hello, "235 in", "250 ok", "221 bye"}, ""},
		"in, and of no use":    {"alice", false, []string{"220 hi", hello, "235 in", "421 4.4.0 no relay"}, "it can't send"},
		"no account":           {"", false, []string{"220 hi", hello, "221 bye"}, ""},
		"XCLIENT":              {"alice", true, []string{"220 hi", hello, "220 hi", hello, "250 ok", "221 bye"}, ""},
		"XCLIENT, no account":  {"", true, []string{"220 hi", hello, "221 bye"}, ""},
		"XCLIENT is not there": {"", true, []string{"220 hi", without}, "it takes no login by XCLIENT from this host; Postfix"},
		"XCLIENT is refused":   {"alice", true, []string{"220 hi", hello, "550 no", hello}, "it takes no login by XCLIENT from this host; Postfix"},
		"XCLIENT is no login":  {"alice", true, []string{"220 hi", hello, "220 hi", hello, "530 no"}, "it takes no login by XCLIENT from this host; Postfix"},
		"no PLAIN":             {"", false, []string{"220 hi", without}, "it does not offer AUTH PLAIN; allow that mechanism there"},
		"refused":              {"alice", false, []string{"220 hi", hello, "535 no"}, "it refuses the login; a wrong password in password_file"},
		"in trouble":           {"alice", false, []string{"220 hi", hello, "454 later"}, `it answered "454 later"`},
		"not SMTP":             {"", false, []string{"+OK ready"}, "look at its port"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, _ := scripted(t, tt.replies...)
			r := &protocols.Route{Backend: doortest.Backend, Network: "tcp", Address: address, Login: tt.login, XClient: tt.xclient}
			if tt.login != "" && !tt.xclient {
				r.Open = func(context.Context) (protocols.Credential, error) {
					return protocols.Credential{Authcid: tt.login, Password: []byte("secret")}, nil
				}
			}
			err := submission.Probe(t.Context(), r)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Probe: %v, want %q", err, tt.want)
			}
		})
	}
	address, _ := scripted(t, "220 hi", hello, "221 bye")
	list, err := submission.Ask(t.Context(), &protocols.Route{Network: "tcp", Address: address})
	if want := (protocols.Capabilities{{Name: "SIZE", Value: "1000"}}); err != nil || !slices.Equal(list, want) {
		t.Errorf("Ask: %v, %v; want %v", list, err, want)
	}
}

func TestLoop(t *testing.T) { doortest.Loop(t, &submission.Door{Name: "x"}) }
