package testlab

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/smtp"
	"slices"
	"strings"
	"testing"
)

// dialSMTP connects, switches to TLS and says EHLO.
func dialSMTP(t *testing.T, p *PostfixServer) *smtp.Client {
	t.Helper()
	c, err := smtp.Dial(p.Submission)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	must(t, c.StartTLS(&tls.Config{RootCAs: p.CA.Pool, ServerName: "smtp.example.test"}))
	return c
}

// command sends a line and returns the answer to it.
func command(c *smtp.Client, line string) (code int, text string, err error) {
	if err := c.Text.PrintfLine("%s", line); err != nil {
		return 0, "", err
	}
	return c.Text.ReadResponse(0)
}

func submit(c *smtp.Client, from string, to []string, mail []byte) error {
	if err := c.Mail(from); err != nil {
		return err
	}
	for _, rcpt := range to {
		if err := c.Rcpt(rcpt); err != nil {
			return err
		}
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(mail); err != nil {
		return err
	}
	return w.Close()
}

func TestPostfixKeepsWhatItAccepts(t *testing.T) {
	t.Parallel()
	p := Postfix(t)
	c := dialSMTP(t, p)
	for _, want := range []string{"CHUNKING", "SMTPUTF8", "DSN", "8BITMIME", "SIZE", "PIPELINING", "ENHANCEDSTATUSCODES", "AUTH", "XCLIENT"} {
		if ok, _ := c.Extension(want); !ok {
			t.Errorf("EHLO does not tell %s", want)
		}
	}
	if code, text, err := command(c, "XCLIENT ADDR=IPV6:2001:db8::7 PORT=4711 HELO=phone LOGIN="+Alice); code != 220 {
		t.Fatalf("XCLIENT: got %d %s, %v", code, text, err)
	}
	if code, text, _ := command(c, "MAIL FROM:<> SIZE=67108864"); code != 250 { // 64 MiB
		t.Errorf("MAIL with a large SIZE: got %d %s", code, text)
	}
	must(t, c.Reset())
	mails := append(Mails(), []byte("Subject: a bare CR\r\nBcc: b@example.org\r\n\r\na\rb\r\n"))
	to := []string{"x@example.org", "Y.z@example.net"}
	for _, mail := range mails {
		must(t, submit(c, Alice, to, mail))
	}
	for i, m := range p.WaitMessages(len(mails)) {
		if !bytes.HasSuffix(m.Content, append([]byte("\r\n"), mails[i]...)) || !bytes.HasPrefix(m.Content, []byte("Received: ")) {
			t.Errorf("message %d: got %d bytes, want a Received line and the %d sent:\n%.2000s", i, len(m.Content), len(mails[i]), m.Content)
		}
		if m.Sender != Alice || !slices.Equal(m.Recipients, to) {
			t.Errorf("message %d: got %q to %q, want %q to %q", i, m.Sender, m.Recipients, Alice, to)
		}
		for name, want := range map[string]string{"sasl_username": Alice, "client_address": "2001:db8::7", "client_port": "4711"} {
			if got := m.Attributes[name]; got != want {
				t.Errorf("message %d: %s: got %q, want %q", i, name, got, want)
			}
		}
	}
}

func TestPostfixAsksForALogin(t *testing.T) {
	t.Parallel()
	p := Postfix(t)
	for name, login := range map[string]func(*smtp.Client) error{
		"none":       func(*smtp.Client) error { return nil },
		"no LOGIN":   func(c *smtp.Client) error { _, _, err := command(c, "XCLIENT ADDR=192.0.2.7"); return err },
		"wrong AUTH": func(c *smtp.Client) error { command(c, "AUTH PLAIN AGEAYg=="); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dialSMTP(t, p)
			must(t, login(c))
			must(t, c.Mail(Alice))
			if code, text, _ := command(c, "RCPT TO:<x@example.org>"); code != 554 || !strings.HasPrefix(text, "5.7.1 ") {
				t.Errorf("RCPT: got %d %s, want 554 5.7.1", code, text)
			}
		})
	}
}

func TestPostfixSASL(t *testing.T) {
	t.Parallel()
	d := Dovecot(t)
	p := Postfix(t, SASL(d))
	host, _, err := net.SplitHostPort(p.Submission)
	must(t, err)
	for name, tt := range map[string]struct {
		auth smtp.Auth
		ok   bool
	}{
		"master for a user":      {smtp.PlainAuth(Alice, d.MasterUser, d.MasterPassword, host), true},
		"master for an unknown":  {smtp.PlainAuth("dave@example.test", d.MasterUser, d.MasterPassword, host), false},
		"master, wrong password": {smtp.PlainAuth(Alice, d.MasterUser, "wrong", host), false},
		"primary password":       {smtp.PlainAuth("", Bob, Primary(Bob), host), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := dialSMTP(t, p).Auth(tt.auth); (err == nil) != tt.ok {
				t.Errorf("got %v, want success: %v", err, tt.ok)
			}
		})
	}
}

func TestPostfixStopsAndStarts(t *testing.T) {
	t.Parallel()
	p := Postfix(t, MainCF("smtpd_banner = hello from the lab"))
	for i, end := range []func(){p.Stop, p.Kill} {
		c := dialSMTP(t, p)
		command(c, "XCLIENT LOGIN="+Alice)
		must(t, submit(c, Alice, []string{"x@example.org"}, Mails()[0]))
		end()
		if got := p.Messages(); len(got) != i+1 {
			t.Errorf("while the server is down: got %d messages, want %d", len(got), i+1)
		}
		p.Start()
		must(t, dialogue(p.Submission, "", "220 hello from the lab\r\n"))
	}
}
