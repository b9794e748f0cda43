package testlab

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"
)

func dial(t *testing.T, d *DovecotServer, handler *imapclient.UnilateralDataHandler) *imapclient.Client {
	t.Helper()
	c, err := imapclient.DialTLS(d.IMAPS, &imapclient.Options{TLSConfig: &tls.Config{RootCAs: d.CA.Pool}, UnilateralDataHandler: handler})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestDovecotLogins(t *testing.T) {
	t.Parallel()
	d := Dovecot(t)
	for name, tt := range map[string]struct {
		authzid, authcid, password string
		ok                         bool
	}{
		"master for a user":         {Alice, d.MasterUser, d.MasterPassword, true},
		"master for nobody":         {"", d.MasterUser, d.MasterPassword, false},
		"master for an unknown":     {"dave@example.test", d.MasterUser, d.MasterPassword, false},
		"master, wrong password":    {Alice, d.MasterUser, "wrong", false},
		"primary password":          {"", Bob, Primary(Bob), true},
		"another's primary":         {"", Bob, Primary(Alice), false},
		"a user for another's name": {Alice, Bob, Primary(Bob), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := dial(t, d, nil).Authenticate(sasl.NewPlainClient(tt.authzid, tt.authcid, tt.password))
			if (err == nil) != tt.ok {
				t.Errorf("got %v, want success: %v", err, tt.ok)
			}
		})
	}
}

func TestDovecotOptions(t *testing.T) {
	t.Parallel()
	d := Dovecot(t, NoMaster(), Lines("login_greeting = hello from the lab"))
	if err := dial(t, d, nil).Authenticate(sasl.NewPlainClient(Alice, d.MasterUser, d.MasterPassword)); err == nil {
		t.Error("the master user logs in")
	}
	must(t, dial(t, d, nil).Login(Alice, Primary(Alice)).Wait())
	raw, err := net.Dial("tcp", d.IMAP)
	must(t, err)
	defer raw.Close()
	greeting, err := bufio.NewReader(raw).ReadString('\n')
	must(t, err)
	if !strings.HasSuffix(greeting, "] hello from the lab\r\n") {
		t.Errorf("greeting: got %q", greeting)
	}
}

func TestDovecotServes(t *testing.T) {
	t.Parallel()
	d := Dovecot(t)
	for _, mailbox := range []string{"INBOX", "Projekte/Größe"} {
		for _, mail := range Mails() {
			d.Deliver(Alice, mailbox, mail)
		}
	}
	arrived := make(chan uint32, 10)
	c := dial(t, d, &imapclient.UnilateralDataHandler{Mailbox: func(m *imapclient.UnilateralDataMailbox) {
		if m.NumMessages != nil {
			arrived <- *m.NumMessages
		}
	}})
	must(t, c.Authenticate(sasl.NewPlainClient(Alice, d.MasterUser, d.MasterPassword)))
	for _, want := range []imap.Cap{"COMPRESS=DEFLATE", imap.CapMetadata, "NOTIFY", imap.CapQuota, imap.CapACL, imap.CapSpecialUse, imap.CapQResync, imap.CapID} {
		if !c.Caps().Has(want) {
			t.Errorf("capabilities: got %v, want %s among them", c.Caps(), want)
		}
	}
	for _, mailbox := range []string{"Archive", "Projekte/Größe", "INBOX"} {
		want := uint32(len(Mails()))
		if mailbox == "Archive" {
			want = 0 // nothing delivered: it is there by itself
		}
		selected, err := c.Select(mailbox, nil).Wait()
		must(t, err)
		if selected.NumMessages != want {
			t.Errorf("%s has %d messages, want %d", mailbox, selected.NumMessages, want)
		}
	}
	body := &imap.FetchItemBodySection{Peek: true}
	messages, err := c.Fetch(imap.SeqSet{imap.SeqRange{Start: 1, Stop: 0}}, &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{body}}).Collect()
	must(t, err)
	for i, mail := range Mails() {
		if got := messages[i].FindBodySection(body); !bytes.Equal(got, mail) {
			t.Errorf("message %d: got %d bytes, want the %d delivered", i+1, len(got), len(mail))
		}
	}
	idle, err := c.Idle()
	must(t, err)
	d.Deliver(Alice, "INBOX", Mails()[0])
	if got, want := <-arrived, uint32(len(Mails())+1); got != want {
		t.Errorf("in IDLE: told of %d messages, want %d", got, want)
	}
	must(t, idle.Close())
}

func TestDovecotSTARTTLS(t *testing.T) {
	t.Parallel()
	d := Dovecot(t)
	d.Stop()
	d.Start()
	c, err := imapclient.DialStartTLS(d.IMAP, &imapclient.Options{TLSConfig: &tls.Config{RootCAs: d.CA.Pool}})
	must(t, err)
	defer c.Close()
	must(t, c.Login(Alice, Primary(Alice)).Wait())
}

// asMaster is the response of SASL PLAIN by which the master user logs in as Alice.
func asMaster(d *DovecotServer) string {
	return base64.StdEncoding.EncodeToString([]byte(Alice + "\x00" + d.MasterUser + "\x00" + d.MasterPassword))
}

// session speaks a protocol of lines.
type session struct {
	*textproto.Conn
	t    *testing.T
	conn net.Conn
	ca   *CA
}

func newSession(t *testing.T, d *DovecotServer, addr string) *session {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &session{textproto.NewConn(c), t, c, d.CA}
}

func (s *session) startTLS() {
	c := tls.Client(s.conn, &tls.Config{RootCAs: s.ca.Pool, ServerName: "localhost"})
	s.Conn = textproto.NewConn(c)
}

// expect sends a line, unless it is empty, and reads to a line with the wanted beginning. It returns all it read.
func (s *session) expect(line, want string) string {
	s.t.Helper()
	if line != "" {
		must(s.t, s.PrintfLine("%s", line))
	}
	var got strings.Builder
	for {
		text, err := s.ReadLine()
		if err != nil {
			s.t.Fatalf("after %q: got %q, %v, want a line that begins with %q", line, got.String(), err, want)
		}
		got.WriteString(text + "\n")
		if strings.HasPrefix(text, want) {
			return got.String()
		}
	}
}

func TestDovecotPOP3(t *testing.T) {
	t.Parallel()
	d := Dovecot(t, POP3())
	d.Deliver(Alice, "INBOX", Mails()[0])
	for name, implicit := range map[string]bool{"POP3": false, "POP3S": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s *session
			if implicit {
				s = newSession(t, d, d.POP3S)
				s.startTLS()
				s.expect("", "+OK [XCLIENT]")
			} else {
				s = newSession(t, d, d.POP3)
				s.expect("", "+OK [XCLIENT]")
				s.expect("STLS", "+OK")
				s.startTLS()
			}
			s.expect("XCLIENT ADDR=192.0.2.7 PORT=4711", "+OK")
			s.expect("AUTH PLAIN "+asMaster(d), "+OK")
			s.expect("STAT", "+OK 1 ")
			s.expect("RETR 1", "+OK")
			if got, err := s.ReadDotBytes(); err != nil || !bytes.Equal(got, bytes.ReplaceAll(Mails()[0], []byte("\r\n"), []byte("\n"))) {
				t.Errorf("RETR: got %q, %v, want what was delivered", got, err)
			}
		})
	}
}

func TestDovecotSieve(t *testing.T) {
	t.Parallel()
	d := Dovecot(t, Sieve())
	s := newSession(t, d, d.Sieve)
	if got := s.expect("", "OK "); !strings.Contains(got, "\"STARTTLS\"\n") || !strings.Contains(got, "\"XCLIENT\"\n") || !strings.Contains(got, "fileinto") {
		t.Errorf("greeting: got %q", got)
	}
	s.expect("STARTTLS", "OK ")
	s.startTLS()
	s.expect("", "OK ") // the capabilities once more
	s.expect("XCLIENT ADDR=192.0.2.7 PORT=4711", "OK ")
	s.expect(`AUTHENTICATE "PLAIN" "`+asMaster(d)+`"`, "OK ")
	s.expect("PUTSCRIPT \"lab\" {7+}\r\nkeep;\r\n", "OK ")
	s.expect(`SETACTIVE "lab"`, "OK ")
	script, err := os.ReadFile(filepath.Join(d.Dir, "mail", Alice, "sieve", "lab.sieve"))
	if err != nil || string(script) != "keep;\r\n" {
		t.Errorf("the script is %q, %v", script, err)
	}
}

func TestDovecotSubmission(t *testing.T) {
	t.Parallel()
	p := Postfix(t)
	d := Dovecot(t, Submission(p.Relay))
	for i, addr := range []string{d.Submission, d.Submissions} {
		s := newSession(t, d, addr)
		if addr == d.Submissions {
			s.startTLS()
			s.expect("", "220 ")
		} else {
			s.expect("", "220 ")
			s.expect("STARTTLS", "220 ")
			s.startTLS()
		}
		if got := s.expect("EHLO phone", "250 "); !strings.Contains(got, "XCLIENT ADDR ") || !strings.Contains(got, "AUTH PLAIN ") {
			t.Errorf("EHLO: got %q", got)
		}
		s.expect("XCLIENT ADDR=192.0.2.7 PORT=4711", "220 ")
		s.expect("AUTH PLAIN "+asMaster(d), "235 ")
		s.expect("EHLO phone", "250 ")
		s.expect("MAIL FROM:<"+Alice+">", "250 ")
		s.expect("RCPT TO:<x@example.org>", "250 ")
		s.expect("DATA", "354 ")
		s.expect("Subject: lab\r\n\r\nhello\r\n.", "250 ")
		m := p.WaitMessages(i + 1)[i]
		if user, client := m.Attributes["sasl_username"], m.Attributes["client_address"]; user != Alice || client != "192.0.2.7" || !bytes.HasSuffix(m.Content, []byte("\r\nSubject: lab\r\n\r\nhello\r\n")) {
			t.Errorf("the relay got from %s, %s: %q", user, client, m.Content)
		}
	}
}

func TestDovecotSubmissionWithoutItsRelay(t *testing.T) {
	t.Parallel()
	d := Dovecot(t, Submission(local(Ports(t, 1)[0])))
	s := newSession(t, d, d.Submission)
	s.expect("", "220 ")
	s.expect("AUTH PLAIN "+asMaster(d), "235 ")
	s.expect("", "421 ")
}

func TestDovecotTakesManyAtOnce(t *testing.T) {
	t.Parallel()
	d := Dovecot(t)
	const sessions = 500
	clients := make([]*imapclient.Client, sessions)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			c, err := imapclient.DialTLS(d.IMAPS, &imapclient.Options{TLSConfig: &tls.Config{RootCAs: d.CA.Pool}})
			if err != nil {
				t.Error(err)
				return
			}
			clients[i] = c
			if err := c.Authenticate(sasl.NewPlainClient(Alice, d.MasterUser, d.MasterPassword)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, c := range clients {
		if c != nil {
			c.Close()
		}
	}
}

func TestDovecotTokens(t *testing.T) {
	t.Parallel()
	s := NewTokenServer(t)
	d := Dovecot(t, Tokens(s))
	d.Deliver(Alice, "INBOX", Mails()[0])
	token, expired, revoked := s.Issue(Alice), s.Issue(Bob), s.Issue(Carol)
	s.Expire(Bob)
	s.Revoke(Carol)
	for name, tt := range map[string]struct {
		user, token string
		ok          bool
	}{
		"a token":           {Alice, token, true},
		"another's token":   {Bob, token, false},
		"an expired token":  {Bob, expired, false},
		"a revoked token":   {Carol, revoked, false},
		"nobody's token":    {Alice, "x", false},
		"a primary as such": {Alice, Primary(Alice), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, d, nil)
			err := c.Authenticate(sasl.NewOAuthBearerClient(&sasl.OAuthBearerOptions{Username: tt.user, Token: tt.token}))
			if (err == nil) != tt.ok {
				t.Fatalf("got %v, want success: %v", err, tt.ok)
			}
			if err == nil {
				if m, err := c.Select("INBOX", nil).Wait(); err != nil || m.NumMessages != 1 {
					t.Errorf("INBOX: %+v, %v", m, err)
				}
			}
		})
	}
	t.Run("passwords", func(t *testing.T) {
		t.Parallel()
		must(t, dial(t, d, nil).Login(Alice, Primary(Alice)).Wait())
	})
}
