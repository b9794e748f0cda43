package notice

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"postern/authstore"
	"postern/authstore/sqlstore"
	"postern/internal/testlab"
)

// outbox is a database with an account, whose clock can be moved.
type outbox struct {
	*sqlstore.Store
	t     *testing.T
	path  string
	alice authstore.Account
	ahead atomic.Int64 // of the machine's clock
}

func newOutbox(t *testing.T) *outbox {
	t.Helper()
	b := &outbox{t: t, path: filepath.Join(t.TempDir(), "postern.db")}
	b.open()
	var err error
	if b.alice, _, err = b.AddAccount(t.Context(), authstore.Actor{Name: "cli:root"}, "alice@example.test", "alice"); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *outbox) open() {
	b.t.Helper()
	s, err := sqlstore.Open(b.t.Context(), sqlstore.Options{Path: b.path, Notices: true, Now: func() time.Time { return time.Now().Add(time.Duration(b.ahead.Load())) }})
	if err != nil {
		b.t.Fatal(err)
	}
	b.Store = s
	b.t.Cleanup(func() { s.Close() })
}

// event makes an event that people are told of.
func (b *outbox) event(label string) {
	b.t.Helper()
	if err := makePassword(b.t.Context(), b.Store, b.alice.ID, label); err != nil {
		b.t.Fatal(err)
	}
}

func makePassword(ctx context.Context, s *sqlstore.Store, id authstore.AccountID, label string) error {
	_, _, err := s.CreatePassword(ctx, authstore.Actor{Name: "portal"}, authstore.NewPassword{Account: id, Label: label, Key: 1, Scopes: authstore.ScopeMail,
		Digest: func(authstore.AccountID) authstore.Digest { return authstore.Digest{1} }})
	return err
}

// waits counts the notices that are not sent, due or not.
func (b *outbox) waits() (n int) {
	b.t.Helper()
	db, err := sql.Open("sqlite", b.path) // sqlstore brings the driver
	if err != nil {
		b.t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow("SELECT count(*) FROM outbox WHERE done IS NULL").Scan(&n); err != nil {
		b.t.Fatal(err)
	}
	return n
}

// logged is a log that tests read.
type logged struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// run runs a sender, quicker than in life, until the test ends or it is stopped.
func run(t *testing.T, o Options) (log *logged, stop func()) {
	t.Helper()
	log = &logged{}
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	o.Epoch = "EPOCH"
	s := sender(t, o)
	s.poll, s.retry, s.longest, s.down, s.attemptTime = 10*time.Millisecond, 20*time.Millisecond, 100*time.Millisecond, 50*time.Millisecond, time.Second
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { s.Run(ctx) })
	stop = sync.OnceFunc(func() { cancel(); done.Wait() })
	t.Cleanup(stop)
	return log, stop
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 20 seconds not: %s", what)
		}
	}
}

// postfix is a real mail server, with the login of a real account.
func postfix(t *testing.T) (*testlab.PostfixServer, Options) {
	t.Helper()
	p := testlab.Postfix(t, testlab.SASL(testlab.Dovecot(t)))
	return p, Options{Address: p.Submission, TLS: StartTLS, TLSConfig: &tls.Config{ServerName: "smtp.example.test", RootCAs: p.CA.Pool},
		User: testlab.Alice, Password: func() ([]byte, error) { return []byte(testlab.Primary(testlab.Alice)), nil }}
}

func content(t *testing.T, m testlab.Message) parsed {
	t.Helper()
	_, text, _ := bytes.Cut(m.Content, []byte("\r\nAuto-Submitted:")) // what stands before is Postfix's
	return parseText(t, append([]byte("Auto-Submitted:"), text...))
}

func TestPostfixTakesNotices(t *testing.T) {
	p, o := postfix(t)
	b := newOutbox(t)
	b.event("Telefon für Ümläute")
	b.event("Laptop")
	var mu sync.Mutex
	outcomes := make(map[string]int)
	o.Outbox, o.Observe = b, func(outcome string) { mu.Lock(); outcomes[outcome]++; mu.Unlock() }
	log, _ := run(t, o)
	got := p.WaitMessages(2)
	eventually(t, "the outbox is empty", func() bool { return b.waits() == 0 })
	for i, label := range []string{"Telefon für Ümläute", "Laptop"} {
		m := content(t, got[i])
		if fmt.Sprint(got[i].Recipients) != "[alice@example.test]" || got[i].Sender != "postern@example.test" || got[i].Attributes["sasl_username"] == "" {
			t.Errorf("from %s to %v as %q", got[i].Sender, got[i].Recipients, got[i].Attributes["sasl_username"])
		}
		if m.subject != "New app password: "+label || !strings.Contains(m.body, "App password: "+label+"\n") || m.Get("Message-Id") == "" {
			t.Errorf("the mail is %v: %q\n%s", m.Header, m.subject, m.body)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if outcomes["sent"] != 2 || len(outcomes) != 1 || !strings.Contains(log.String(), "notice sent") {
		t.Errorf("outcomes %v, log:\n%s", outcomes, log)
	}
}

// A process that is killed between the server's 250 and the note that it was sent, with more notices waiting that were never tried: the next
// process sends all of them, the first once more with the same Message-ID.
func TestKilledSenderLosesNone(t *testing.T) {
	p, o := postfix(t)
	b := newOutbox(t)
	b.Close()
	child := exec.Command(os.Args[0], "-test.run=^TestKilledSenderLosesNone_child$", "-test.v")
	child.Env = append(os.Environ(), "NOTICE_TEST="+strings.Join([]string{b.path, p.Submission, p.CAFile}, "\n"))
	out := &logged{}
	child.Stdout, child.Stderr = out, out
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the child has committed all, and sent one", func() bool {
		return strings.Contains(out.String(), "committed all") && strings.Contains(out.String(), "sent one")
	})
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Wait()
	if n := len(p.Queued()); n != 1 {
		t.Fatalf("the child sent %d, want 1:\n%s", n, out)
	}

	b.open()
	o.Outbox = b
	_, stop := run(t, o)
	p.WaitMessages(children)
	b.ahead.Store(int64(takenFor + time.Minute))
	ids := make(map[string]int)
	for _, m := range p.WaitMessages(children + 1) {
		ids[content(t, m).Get("Message-Id")]++
	}
	eventually(t, "the outbox is empty", func() bool { return b.waits() == 0 })
	stop()
	twice := 0
	for _, n := range ids {
		if n == 2 {
			twice++
		}
	}
	if len(ids) != children || twice != 1 || len(p.Queued()) != children+1 {
		t.Errorf("the Message-IDs are %v; want %d, one of them twice", ids, children)
	}
}

const children = 6 // notices that the child makes

// notNoted never writes down that something was sent.
type notNoted struct{ *sqlstore.Store }

func (notNoted) NoticeDone(context.Context, int64) error {
	fmt.Println("sent one")
	select {}
}

// TestKilledSenderLosesNone_child is the process that is killed.
func TestKilledSenderLosesNone_child(t *testing.T) {
	args := strings.Split(os.Getenv("NOTICE_TEST"), "\n")
	if len(args) != 3 {
		t.Skip("only a process of TestKilledSenderLosesNone does this")
	}
	ctx := context.Background()
	s, err := sqlstore.Open(ctx, sqlstore.Options{Path: args[0], Notices: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range children {
		if err := makePassword(ctx, s, 1, fmt.Sprint("Phone ", i)); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Println("committed all")
	pem, err := os.ReadFile(args[2])
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	sender(t, Options{Outbox: notNoted{s}, Epoch: "EPOCH", Address: args[1], TLS: StartTLS, TLSConfig: &tls.Config{ServerName: "smtp.example.test", RootCAs: pool}, User: testlab.Alice,
		Password: func() ([]byte, error) { return []byte(testlab.Primary(testlab.Alice)), nil }}).Run(ctx)
}

// relay is a mail server that answers as a test wants.
type relay struct {
	answer func(command string) error // asked at "MAIL", "RCPT", "DATA"; nil: all is well
	auth   []string

	mu     sync.Mutex // guards below
	mails  []string
	logins []string
	utf8   int // mails for which SMTPUTF8 was asked
}

func (r *relay) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.mails)
}

func (r *relay) NewSession(*smtp.Conn) (smtp.Session, error) { return &relaySession{r: r}, nil }

type relaySession struct{ r *relay }

func (s *relaySession) ask(command string) error {
	if s.r.answer == nil {
		return nil
	}
	return s.r.answer(command)
}

func (s *relaySession) Mail(_ string, o *smtp.MailOptions) error {
	if o.UTF8 {
		s.r.mu.Lock()
		s.r.utf8++
		s.r.mu.Unlock()
	}
	return s.ask("MAIL")
}

func (s *relaySession) Rcpt(string, *smtp.RcptOptions) error { return s.ask("RCPT") }
func (s *relaySession) Reset()                               {}
func (s *relaySession) Logout() error                        { return nil }
func (s *relaySession) AuthMechanisms() []string             { return s.r.auth }

func (s *relaySession) Auth(mechanism string) (sasl.Server, error) {
	check := func(user, password string) error {
		s.r.mu.Lock()
		defer s.r.mu.Unlock()
		s.r.logins = append(s.r.logins, mechanism+" "+user+" "+password)
		return nil
	}
	if mechanism == "LOGIN" {
		return &loginServer{check: check}, nil
	}
	return sasl.NewPlainServer(func(_, user, password string) error { return check(user, password) }), nil
}

// loginServer is the server's side of LOGIN, which go-sasl has only the client of.
type loginServer struct {
	check func(user, password string) error
	got   []string
}

func (l *loginServer) Next(response []byte) ([]byte, bool, error) {
	if response != nil {
		l.got = append(l.got, string(response))
	}
	switch len(l.got) {
	case 0:
		return []byte("Username:"), false, nil
	case 1:
		return []byte("Password:"), false, nil
	}
	return nil, true, l.check(l.got[0], l.got[1])
}

func (s *relaySession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := s.ask("DATA"); err != nil {
		return err
	}
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.r.mails = append(s.r.mails, string(text))
	return nil
}

// serve opens the relay; with a certificate in TLS from the first byte.
func (r *relay) serve(t *testing.T, cert *tls.Certificate) (address string, stop func()) {
	t.Helper()
	s := smtp.NewServer(r)
	s.Domain, s.AllowInsecureAuth, s.EnableSMTPUTF8 = "relay.example.test", true, true
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = ln.Addr().String()
	if cert != nil {
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{*cert}})
	}
	go s.Serve(ln)
	t.Cleanup(func() { s.Close() })
	return address, func() { s.Close() }
}

func TestAnswers(t *testing.T) {
	refuse := func(code int) error {
		return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 1, 1}, Message: "no\x1b[31m"}
	}
	for name, tt := range map[string]struct {
		at     string
		errs   []error // in turn; then all is well
		sent   int
		tries  int
		wanted string // in the log
	}{
		"accepted":                         {"", nil, 1, 1, "notice sent"},
		"recipient later":                  {"RCPT", []error{refuse(450), refuse(451)}, 1, 3, "450"},
		"sender refused, then mended":      {"MAIL", []error{refuse(550), refuse(550), refuse(550), refuse(550), refuse(550), refuse(550)}, 1, 7, "550"},
		"recipient refused, then not":      {"RCPT", []error{refuse(550), refuse(550)}, 1, 3, "550"},
		"recipient refused for good":       {"RCPT", []error{refuse(550), refuse(550), refuse(550), refuse(550), refuse(550), refuse(550)}, 0, maxRefused, "given up"},
		"content refused for good":         {"DATA", []error{refuse(554), refuse(554), refuse(554), refuse(554), refuse(554), refuse(554)}, 0, maxRefused, "given up"},
		"content later, after it was read": {"DATA", []error{refuse(451)}, 1, 2, "451"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			tries := 0
			r := &relay{}
			r.answer = func(command string) error {
				mu.Lock()
				defer mu.Unlock()
				if command == "MAIL" && tt.at == "" {
					tries++
				}
				if command != tt.at {
					return nil
				}
				tries++
				if tries <= len(tt.errs) {
					return tt.errs[tries-1]
				}
				return nil
			}
			b := newOutbox(t)
			b.event("Phone")
			address, _ := r.serve(t, nil)
			log, _ := run(t, Options{Outbox: b, Address: address, TLS: Plain})
			eventuallyAhead(t, b, "the outbox is empty", func() bool {
				return strings.Contains(log.String(), "notice sent") || strings.Contains(log.String(), "given up")
			})
			time.Sleep(50 * time.Millisecond) // it is not sent again
			mu.Lock()
			defer mu.Unlock()
			if r.count() != tt.sent || tries != tt.tries || !strings.Contains(log.String(), tt.wanted) || strings.Contains(log.String(), "\x1b") {
				t.Errorf("%d sent in %d tries, want %d in %d; the log is\n%s", r.count(), tries, tt.sent, tt.tries, log)
			}
		})
	}
}

// What was sent is written down though the gateway stops at that moment. A server further on may not have SMTPUTF8, so it is not asked for in vain.
func TestStoppedAfterAMailWasTaken(t *testing.T) {
	t.Parallel()
	r := &relay{}
	address, _ := r.serve(t, nil)
	b := newOutbox(t)
	b.event("Telefon für Ümläute")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	sender(t, Options{Outbox: b, Address: address, TLS: Plain, Observe: func(string) { stop() }}).Run(ctx)
	if r.count() != 1 || b.waits() != 0 || r.utf8 != 0 {
		t.Errorf("%d sent, %d with SMTPUTF8; %d wait", r.count(), r.utf8, b.waits())
	}
}

// putOff notes until when a notice that failed is put off.
type putOff struct {
	*outbox
	until time.Time
}

func (p *putOff) NoticeFailed(ctx context.Context, event int64, next time.Time, refused bool) error {
	p.until = next
	return p.outbox.NoticeFailed(ctx, event, next, refused)
}

// A server that refuses the same mail again and again is asked ever more seldom.
func TestRefusalsPutOff(t *testing.T) {
	t.Parallel()
	r := &relay{answer: func(string) error { return &smtp.SMTPError{Code: 450, Message: "later"} }}
	address, _ := r.serve(t, nil)
	b := &putOff{outbox: newOutbox(t)}
	b.event("Phone")
	list, err := b.TakeNotices(t.Context(), 1, time.Now())
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	s := sender(t, Options{Outbox: b, Address: address, TLS: Plain})
	for refusals, want := range map[int]time.Duration{0: time.Minute, 3: 8 * time.Minute, 30: time.Hour} {
		list[0].Refusals = refusals
		answered := s.handle(t.Context(), &list[0], time.Second)
		if got := time.Until(b.until); !answered || got < want*7/10 || got > want*13/10 {
			t.Errorf("after %d refusals it is put off by %v (answered: %v), want about %v", refusals, got, answered, want)
		}
	}
}

// eventuallyAhead moves the outbox' clock on, whose times are whole seconds, so that what is put off by less is due.
func eventuallyAhead(t *testing.T, b *outbox, what string, is func() bool) {
	t.Helper()
	eventually(t, what, func() bool { b.ahead.Add(int64(time.Second)); time.Sleep(10 * time.Millisecond); return is() })
}

// Servers that are not there, say nothing, or stop in the middle: the notices stay, the outbox is written to all the while, and as soon as
// there is a server they are sent.
func TestNoAnswer(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"down":                 nil,
		"no greeting":          func(net.Conn) { select {} },
		"closes at once":       func(c net.Conn) { c.Close() },
		"not there yet":        func(c net.Conn) { io.WriteString(c, "421 4.3.2 later\r\n"); c.Close() },
		"garbage":              func(c net.Conn) { io.WriteString(c, strings.Repeat("\x00\r", 10000)); c.Close() },
		"silent after MAIL":    func(c net.Conn) { talk(c, "MAIL") },
		"silent after the dot": func(c net.Conn) { talk(c, ".") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			address := ln.Addr().String()
			if serve == nil {
				ln.Close()
			} else {
				go func() {
					for {
						c, err := ln.Accept()
						if err != nil {
							return
						}
						go serve(c)
					}
				}()
			}
			b := newOutbox(t)
			b.event("Phone")
			log, stop := run(t, Options{Outbox: b, Address: address, TLS: Plain})
			eventuallyAhead(t, b, "it was tried twice", func() bool { return strings.Count(log.String(), "it is tried again") >= 2 })
			b.event("Laptop") // nobody waits for the mail server
			stop()
			ln.Close()

			r := &relay{}
			address, _ = r.serve(t, nil)
			run(t, Options{Outbox: b, Address: address, TLS: Plain})
			eventuallyAhead(t, b, "both are sent", func() bool { return r.count() == 2 })
		})
	}
}

// talk is a server that says no more once a line begins with a word.
func talk(c net.Conn, last string) {
	io.WriteString(c, "220 relay.example.test\r\n")
	for data := false; ; {
		var line []byte
		for b := make([]byte, 1); !bytes.HasSuffix(line, []byte("\n")); line = append(line, b...) {
			if _, err := c.Read(b); err != nil {
				return
			}
		}
		switch {
		case bytes.HasPrefix(line, []byte(last)):
			select {}
		case data:
		case bytes.HasPrefix(line, []byte("DATA")):
			data = true
			io.WriteString(c, "354 go on\r\n")
		default:
			io.WriteString(c, "250 relay.example.test\r\n")
		}
	}
}

// What is not sent within a week is news no more.
func TestGivenUpAfterAWeek(t *testing.T) {
	b := newOutbox(t)
	b.ahead.Store(-int64(givenUpAfter + time.Hour))
	b.event("Phone")
	b.ahead.Store(0)
	b.event("Laptop")
	log, _ := run(t, Options{Outbox: b, Address: closedPort(t), TLS: Plain})
	eventuallyAhead(t, b, "the old one is given up", func() bool {
		return strings.Contains(log.String(), "notice given up") && strings.Contains(log.String(), "tried again")
	})
	if n := b.waits(); n != 1 {
		t.Errorf("%d wait, want the new one", n)
	}
}

func closedPort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// Two processes with one database send each notice once.
func TestTwoSenders(t *testing.T) {
	b := newOutbox(t)
	for i := range 20 {
		b.event(fmt.Sprint("Phone ", i))
	}
	r := &relay{}
	address, _ := r.serve(t, nil)
	other := &outbox{t: t, path: b.path}
	other.open()
	for _, box := range []*outbox{b, other} {
		run(t, Options{Outbox: box, Address: address, TLS: Plain})
	}
	eventually(t, "all are sent", func() bool { return r.count() >= 20 })
	eventually(t, "the outbox is empty", func() bool { return b.waits() == 0 })
	if r.count() != 20 {
		t.Errorf("%d mails of 20 notices", r.count())
	}
}

func TestLoginsAndTLS(t *testing.T) {
	ca := testlab.NewCA(t)
	_, _, cert := ca.Issue()
	good := &tls.Config{ServerName: "localhost", RootCAs: ca.Pool}
	secret := func() ([]byte, error) { return []byte("geheim"), nil }
	for name, tt := range map[string]struct {
		auth  []string
		tls   bool
		o     Options
		login string
		fails string // in the log
	}{
		"TLS, no login":          {nil, true, Options{TLSConfig: good}, "", ""},
		"PLAIN":                  {[]string{"LOGIN", "PLAIN"}, true, Options{TLSConfig: good, User: "postern", Password: secret}, "PLAIN postern geheim", ""},
		"LOGIN only":             {[]string{"LOGIN"}, true, Options{TLSConfig: good, User: "postern", Password: secret}, "LOGIN postern geheim", ""},
		"PLAIN without TLS":      {[]string{"PLAIN"}, false, Options{TLS: Plain, User: "postern", Password: secret}, "PLAIN postern geheim", ""},
		"another's certificate":  {nil, true, Options{TLSConfig: &tls.Config{ServerName: "localhost"}}, "", "certificate"},
		"no STARTTLS is offered": {nil, false, Options{TLS: StartTLS, TLSConfig: good, User: "postern", Password: secret}, "", "STARTTLS"},
		"no password":            {nil, true, Options{TLSConfig: good, User: "postern", Password: func() ([]byte, error) { return nil, errors.New("no such file") }}, "", "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &relay{auth: tt.auth}
			var c *tls.Certificate
			if tt.tls {
				c = &cert
			}
			address, _ := r.serve(t, c)
			b := newOutbox(t)
			b.event("Phone")
			tt.o.Outbox, tt.o.Address = b, address
			log, _ := run(t, tt.o)
			if tt.fails != "" {
				eventually(t, "it fails", func() bool { return strings.Contains(log.String(), tt.fails) })
			} else {
				eventually(t, "it is sent", func() bool { return r.count() == 1 })
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if got := strings.Join(r.logins, ", "); got != tt.login {
				t.Errorf("logins %q, want %q", got, tt.login)
			}
			if strings.Contains(log.String(), "geheim") {
				t.Errorf("the password is in the log:\n%s", log)
			}
		})
	}
}

func TestBackOff(t *testing.T) {
	for failures, want := range map[int]time.Duration{0: time.Minute, 1: 2 * time.Minute, 5: 32 * time.Minute, 6: time.Hour, 100: time.Hour} {
		for range 100 {
			if got := backOff(time.Minute, time.Hour, failures); got < want*4/5 || got > want*6/5+1 {
				t.Errorf("after %d failures %v, want about %v", failures, got, want)
			}
		}
	}
}
