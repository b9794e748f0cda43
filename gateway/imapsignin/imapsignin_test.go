package imapsignin

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"crypto/tls"
	"crypto/x509"

	"postern/authstore/identity"
	"postern/internal/testlab"
	"postern/protocols"
)

func checker(r *protocols.Route) *Checker {
	return New(r, func(_ context.Context, address string) (string, error) { return address, nil }, slog.New(slog.DiscardHandler))
}

func routes(d *testlab.DovecotServer) (implicit, startTLS *protocols.Route) {
	c := &tls.Config{RootCAs: d.CA.Pool, ServerName: "imap.example.test"}
	return &protocols.Route{Backend: "portal.imap", Network: "tcp", Address: d.IMAPS, Security: protocols.ImplicitTLS, TLS: c},
		&protocols.Route{Backend: "portal.imap", Network: "tcp", Address: d.IMAP, Security: protocols.StartTLS, TLS: c}
}

// A real server, from the first sign-in over a changed password to its end. What it refuses takes it half a second, so that is asked at once.
func TestDovecot(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"implicit", "starttls"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := testlab.Dovecot(t)
			r, startTLS := routes(d)
			if name == "starttls" {
				r = startTLS
			}
			c := checker(r)
			var asked sync.WaitGroup
			check := func(what, login, password string, want error) {
				asked.Go(func() {
					if _, err := c.Check(t.Context(), login, []byte(password)); !errors.Is(err, want) || want == nil && err != nil {
						t.Errorf("%s: Check = %v, want %v", what, err, want)
					}
				})
			}
			alice := testlab.Alice
			check("right", alice, testlab.Primary(alice), nil)
			check("wrong", alice, "wrong", identity.ErrWrong)
			check("empty", alice, "", identity.ErrWrong)
			check("nobody", "nobody@example.test", testlab.Primary(alice), identity.ErrWrong)
			check("another's", alice, testlab.Primary(testlab.Bob), identity.ErrWrong)
			check("NUL", alice, testlab.Primary(alice)+"\x00", identity.ErrWrong)
			check("another name before NUL", alice+"\x00"+testlab.Bob, testlab.Primary(testlab.Bob), identity.ErrWrong)
			check("line ends", alice, "x\r\nT9 LOGOUT\r\n", identity.ErrWrong)
			check("long", alice, strings.Repeat("x", 1000), identity.ErrWrong)
			asked.Wait()
			for _, changed := range []string{"grüße", `quo"te\`, " blanks ", "latin-1 \xe9"} {
				d.SetPrimary(alice, changed)
				check("the old one", alice, testlab.Primary(alice), identity.ErrWrong)
				check("changed to "+changed, alice, changed, nil)
				asked.Wait()
			}
			if err := Probe(t.Context(), r); err != nil {
				t.Errorf("Probe = %v", err)
			}
			if strings.Contains(d.Log(), "Inactivity") {
				t.Error("a check stayed connected")
			}
		})
	}
}

// What is wrong on the way to a server is told, with what mends it.
func TestProbe(t *testing.T) {
	t.Parallel()
	d := testlab.Dovecot(t)
	implicit, startTLS := routes(d)
	wrongName := *implicit
	wrongName.TLS = implicit.TLS.Clone()
	wrongName.TLS.ServerName = "other.example.test"
	wrongName2 := *startTLS
	wrongName2.TLS = wrongName.TLS
	stranger := *implicit
	stranger.TLS = &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "imap.example.test"}
	stranger2 := *startTLS
	stranger2.TLS = stranger.TLS
	noTLS := *implicit
	noTLS.Address = d.IMAP
	disabled := scripted(t, "* OK hello\r\n", func(line string) string {
		tag, _, _ := strings.Cut(line, " ")
		return "* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\n" + tag + " OK\r\n"
	})
	full := scripted(t, "* BYE full\r\n", func(string) string { return "" })
	fullTLS := *full
	fullTLS.Security, fullTLS.TLS = protocols.StartTLS, startTLS.TLS
	notIMAP := *startTLS
	notIMAP.Address = d.IMAPS
	for name, tt := range map[string]struct {
		route *protocols.Route
		want  string
	}{
		"certificate for another name":        {&wrongName, "its certificate is for another name; set server_name"},
		"the same with STARTTLS":              {&wrongName2, "its certificate is for another name; set server_name"},
		"certificate of an unknown authority": {&stranger, "name the authority's certificate as ca_file"},
		"the same with STARTTLS ":             {&stranger2, "name the authority's certificate as ca_file"},
		"no TLS where it is expected":         {&noTLS, `set tls = "starttls"`},
		"no login without TLS":                {disabled, `set tls = "starttls" or "implicit"`},
		"sent away":                           {full, `look at its log: it may be full or shutting down (Dovecot: client_limit, process_limit), or not want this machine: it sends us away: "full"`},
		"sent away before STARTTLS":           {&fullTLS, `look at its log: it may be full or shutting down (Dovecot: client_limit, process_limit), or not want this machine: it sends us away: "full"`},
		"TLS where a greeting is expected":    {&notIMAP, `set tls = "implicit"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if err := Probe(ctx, tt.route); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Probe = %v, want %q", err, tt.want)
			}
			if _, err := checker(tt.route).Check(ctx, testlab.Alice, []byte(testlab.Primary(testlab.Alice))); err == nil || errors.Is(err, identity.ErrWrong) {
				t.Errorf("Check = %v, want that it can't be known", err)
			}
		})
	}
}

// What hangs or has stopped is no wrong password.
func TestServerInTrouble(t *testing.T) {
	t.Parallel()
	d := testlab.Dovecot(t)
	implicit, _ := routes(d)
	c := checker(implicit)
	d.Pause()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := c.Check(ctx, testlab.Alice, []byte(testlab.Primary(testlab.Alice))); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 4*time.Second {
		t.Errorf("hanging: Check = %v after %v", err, time.Since(began))
	}
	d.Resume()
	if _, err := c.Check(t.Context(), testlab.Alice, []byte(testlab.Primary(testlab.Alice))); err != nil {
		t.Errorf("resumed: Check = %v", err)
	}
	d.Stop()
	if _, err := c.Check(t.Context(), testlab.Alice, []byte(testlab.Primary(testlab.Alice))); err == nil || errors.Is(err, identity.ErrWrong) {
		t.Errorf("stopped: Check = %v", err)
	}
	d.Start()
	if _, err := c.Check(t.Context(), testlab.Alice, []byte(testlab.Primary(testlab.Alice))); err != nil {
		t.Errorf("started again: Check = %v", err)
	}
}

// scripted serves one connection at a time on loopback with answers to each line; "%s" is the tag.
func scripted(t *testing.T, greeting string, answer func(line string) string) *protocols.Route {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				io.WriteString(nc, greeting)
				for r := bufio.NewReader(nc); ; {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					if _, err := io.WriteString(nc, answer(strings.TrimRight(line, "\r\n"))); err != nil {
						return
					}
				}
			}()
		}
	}()
	return &protocols.Route{Backend: "portal.imap", Network: "tcp", Address: ln.Addr().String(), Security: protocols.PlainText}
}

const sesame = "open-sesame"

// What servers answer, and what is made of it. No error tells the password.
func TestAnswers(t *testing.T) {
	t.Parallel()
	const greeting = "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n"
	encoded := base64.StdEncoding.EncodeToString([]byte("\x00" + testlab.Alice + "\x00" + sesame))
	for name, tt := range map[string]struct {
		greeting string // empty: the usual
		answer   string // to the login; %[1]s is the tag, %[2]s the whole line
		wrong    bool
		want     string // of other errors; empty: taken
	}{
		"taken":                {answer: "%[1]s OK in\r\n"},
		"taken in small words": {answer: "%[1]s ok\r\n"},
		"no code":              {answer: "%[1]s NO wrong\r\n", wrong: true},
		"failed":               {answer: "%[1]s NO [AUTHENTICATIONFAILED] wrong\r\n", wrong: true},
		"small letters":        {answer: "%[1]s NO [authenticationfailed] wrong\r\n", wrong: true},
		"expired":              {answer: "%[1]s NO [EXPIRED] choose another\r\n", wrong: true},
		"contact":              {answer: "%[1]s NO [CONTACTADMIN] locked\r\n", wrong: true},
		"unavailable":          {answer: "%[1]s NO [UNAVAILABLE] database is down\r\n", want: "NO [UNAVAILABLE]"},
		"limit":                {answer: "%[1]s NO [LIMIT] too many\r\n", want: "NO [LIMIT]"},
		"bad":                  {answer: "%[1]s BAD what\r\n", want: "BAD"},
		"goodbye":              {answer: "* BYE shutting down\r\n", want: "does not answer in time|context deadline"},
		"echo":                 {answer: "%[2]s\r\n", want: "speak IMAP"},
		"echo in a refusal":    {answer: "%[1]s NO [UNAVAILABLE] %[2]s\r\n", want: "NO [UNAVAILABLE]"},
		"echo as a tag":        {answer: "%[3]s OK\r\n", want: "speak IMAP"},
		"rubbish":              {answer: "\x00\xff\r\n", want: "speak IMAP"},
		"much":                 {answer: "* OK " + strings.Repeat("x", 1000) + "\r\n%[4]s", want: "sends too much"},
		"another's answer":     {answer: "T99 OK in\r\n", want: "speak IMAP"},
		"known already":        {greeting: "* PREAUTH hello\r\n", answer: "%[1]s OK in\r\n", want: "speak IMAP"},
		"sent away":            {greeting: "* BYE full\r\n", answer: "%[1]s OK in\r\n", want: "full"},
		"sent away unsaid":     {greeting: "* BYE\r\n", answer: "%[1]s OK in\r\n", want: "sends us away"},
		"a long greeting":      {greeting: "* OK " + strings.Repeat("x", 5000) + "\r\n", answer: "%[1]s OK in\r\n"},
		"a web server":         {greeting: "HTTP/1.1 400 Bad Request\r\n\r\n", answer: "", want: "speak IMAP"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.greeting == "" {
				tt.greeting = greeting
			}
			r := scripted(t, tt.greeting, func(line string) string {
				tag, command, _ := strings.Cut(line, " ")
				switch {
				case command == "CAPABILITY":
					return "* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN\r\n" + tag + " OK\r\n"
				case strings.HasPrefix(command, "LOGOUT"):
					return "* BYE\r\n" + tag + " OK\r\n"
				}
				much := ""
				if strings.Contains(tt.answer, "%[4]s") {
					much = strings.Repeat("* OK "+strings.Repeat("x", 1000)+"\r\n", 200)
				}
				return fmt.Sprintf(tt.answer+"%.0[1]s%.0[2]s%.0[3]s%.0[4]s", tag, line, encoded, much)
			})
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			_, err := checker(r).Check(ctx, testlab.Alice, []byte(sesame))
			switch {
			case tt.wrong:
				if err != identity.ErrWrong {
					t.Errorf("Check = %v, want ErrWrong", err)
				}
			case tt.want == "":
				if err != nil {
					t.Errorf("Check = %v", err)
				}
			case err == nil || errors.Is(err, identity.ErrWrong):
				t.Errorf("Check = %v, want %q", err, tt.want)
			default:
				if !containsOne(err.Error(), tt.want) {
					t.Errorf("Check = %v, want %q", err, tt.want)
				}
				for _, secret := range []string{sesame, encoded, encoded[:12]} {
					if strings.Contains(fmt.Sprintf("%+v", err), secret) {
						t.Errorf("the error tells the password: %v", err)
					}
				}
			}
		})
	}
}

func containsOne(text, choices string) bool {
	for choice := range strings.SplitSeq(choices, "|") {
		if strings.Contains(text, choice) {
			return true
		}
	}
	return false
}

// A server without PLAIN gets LOGIN, with every byte of the password.
func TestLogin(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got string
	r := scripted(t, "* OK [CAPABILITY IMAP4rev1] ready\r\n", func(line string) string {
		tag, command, _ := strings.Cut(line, " ")
		if command == "CAPABILITY" {
			return "* CAPABILITY IMAP4rev1\r\n" + tag + " OK\r\n"
		}
		mu.Lock()
		defer mu.Unlock()
		if command != "LOGOUT" {
			got = command
		}
		return tag + " OK\r\n"
	})
	if _, err := checker(r).Check(t.Context(), testlab.Alice, []byte(`se"sa\me`)); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := `LOGIN "alice@example.test" "se\"sa\\me"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// No more than so many sign-ins are at the server at once; the others wait their time, and are not told that they are wrong.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	c := checker(scripted(t, "", func(string) string { return "" }))
	held, release := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer release()
	for range maxAtOnce {
		all.Go(func() {
			if _, err := c.Check(held, testlab.Alice, []byte(sesame)); !errors.Is(err, context.Canceled) {
				t.Errorf("who had a place: Check = %v", err)
			}
		})
	}
	for len(c.places) < maxAtOnce {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := c.Check(ctx, testlab.Alice, []byte(sesame)); !errors.Is(err, errBusy) {
		t.Errorf("who had none: Check = %v, want %v", err, errBusy)
	}
}

// The log hears of a server in trouble once, not with each sign-in, and not of a visitor who gave up.
func TestTroubleIsToldOnce(t *testing.T) {
	t.Parallel()
	r := scripted(t, "* BYE not now\r\n", func(string) string { return "" })
	var log strings.Builder
	c := New(r, func(_ context.Context, address string) (string, error) { return address, nil }, slog.New(slog.NewTextHandler(&log, nil)))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 10 {
		if _, err := c.Check(gone, testlab.Alice, []byte(sesame)); err == nil || log.Len() > 0 {
			t.Fatalf("of a visitor who gave up (%v) the log has\n%s", err, log.String())
		}
	}
	for range 3 {
		if _, err := c.Check(t.Context(), testlab.Alice, []byte(sesame)); err == nil || errors.Is(err, identity.ErrWrong) {
			t.Errorf("Check = %v", err)
		}
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 || strings.Contains(log.String(), sesame) {
		t.Errorf("%d errors in\n%s", n, log.String())
	}
}
