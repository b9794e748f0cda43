package testlab_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testlab"
)

// documented is what docs/testing.md shows, so that it stays true: it is compiled here, and compared below.
func documented(t *testing.T, write func(*testing.T, int, *testlab.CA) string) {
	// A Dovecot, with IMAP, IMAPS, CAFile, MasterUser, MasterPassword. What is delivered is seen at once by sessions in IDLE.
	d := testlab.Dovecot(t, testlab.Lines("login_greeting = hello"))
	d.Deliver(testlab.Alice, "INBOX", testlab.Mails()[0])

	// A Postfix (root only) with a Submission that takes and keeps all mail of those who are logged in: by AUTH, or named by XCLIENT LOGIN= in TLS.
	p := testlab.Postfix(t, testlab.SASL(d), testlab.MainCF("smtpd_banner = hello"))
	t.Logf("%s", p.WaitMessages(1)[0].Content)

	// A Dovecot with POP3, POP3S, Sieve (ManageSieve), and Submission and Submissions, which hand mail on to that Postfix.
	testlab.Dovecot(t, testlab.POP3(), testlab.Sieve(), testlab.Submission(p.Relay))

	// A CalDAV and CardDAV server with a URL. There are RadicaleBasic(t), Xandikos(t), Sabre(t), DAViCal(t), DAViCalBasic(t) and Cyrus(t) too, whose Token(user) acts for a user.
	r := testlab.Radicale(t)
	path := r.MakeCalendar(testlab.Alice, "work")
	r.Put(testlab.Alice, path+"1.ics", testlab.Event("1"))

	// A Redis with an Addr; RedisAuth(t) has User and Password besides. Stop, Start (same port, same data), Pause, Resume, Kill and Log are every server's.
	c := testlab.Redis(t)
	c.Pause()

	// The real program, built once per run, on a port that nobody else gets, with a certificate of the test's own.
	port, ca := testlab.Ports(t, 1)[0], testlab.NewCA(t)
	config := write(t, port, ca)
	g := testlab.Exec(t, nil, testlab.Postern(t), "serve", "-c", config)
	g.WaitLine("ready")
	g.Signal(syscall.SIGHUP)

	// An nginx with lines of its own in the block "server", and the address of a DNS server that knows the names in .test that it is told.
	testlab.Nginx(t, port, fmt.Sprintf("listen 127.0.0.1:%d; location / { proxy_pass http://127.0.0.1:8080; }", port))
	testlab.DNS(t, "host-record=mail.example.test,192.0.2.1")

	// A Chromium that takes the test's certificates, and persons before it: what they see and do. What a page should never do fails the test.
	b := testlab.Browser(t, ca)
	me := b.Page(t).Zone("Europe/Berlin").Languages("de,en").Open(fmt.Sprintf("https://localhost:%d", port))
	me.Fill("Email address", testlab.Alice).Click("Sign in").HasText("wrong").Phone().Axe().FitsWidth().Screenshot("sign-in")
	key := me.Authenticator(testlab.DeviceKey)
	b.Page(t).WithoutScript().Expect("net::ERR_").Open("https://elsewhere.test").Authenticator(testlab.PlainKey).Add(key.Credentials()...)

	// A client that ends by itself, in an empty home. Where it is missing, the test says which package brings it.
	testlab.Run(t, testlab.Command(t, "mbsync", "-a"))
}

var _ = documented

func TestDocumented(t *testing.T) {
	t.Parallel()
	page := read(t, "../../docs/testing.md")
	_, code, _ := strings.Cut(read(t, "documented_test.go"), "*testlab.CA) string) {\n")
	code, _, found := strings.Cut(code, "\n}\n")
	if !found {
		t.Fatal("the function documented is not found in documented_test.go")
	}
	for line := range strings.Lines(code + "\n") {
		if line = strings.TrimPrefix(line, "\t"); !strings.Contains(page, line) {
			t.Errorf("docs/testing.md lacks the line %q", line)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
