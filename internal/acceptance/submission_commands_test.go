package acceptance

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"postern/internal/testlab"
)

// What SMTP has beyond a short message passes to each kind of backend that has it.
func TestSubmissionExtensions(t *testing.T) {
	t.Parallel()
	for name, l := range lanes(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Run("30 MiB", func(t *testing.T) {
				t.Parallel()
				big := testlab.Attachment(23 << 20)
				m := l.o.login(t)
				m.begin("big@example.org")
				m.Write(stuffed(big))
				wantContent(t, l.queue.Message(queueID(t, m.want("250 2.0.0 "))), big)
				m.ask("221 2.0.0 ", "QUIT")
			})
			t.Run("chunks", func(t *testing.T) {
				t.Parallel()
				const message = "Subject: chunks\r\n\r\n.\r\nMAIL FROM:<admin@example.test>\r\nRCPT TO:<x@example.org>\r\nDATA\r\n.\r\nNOOP\r\n"
				m := l.o.login(t)
				for name, chunks := range map[string][]string{
					"one":             {message},
					"several":         {message[:20], message[20:25], message[25:40], message[40:]},
					"an empty end":    {message[:30], message[30:], ""},
					"a byte for each": strings.Split(message, ""),
				} {
					words := fmt.Sprintf("MAIL FROM:<%s>\r\nRCPT TO:<x@example.org>\r\n", alice)
					for i, chunk := range chunks {
						words += fmt.Sprintf("BDAT %d", len(chunk))
						if i == len(chunks)-1 {
							words += " LAST"
						}
						words += "\r\n" + chunk
					}
					m.say("%s", words)
					last := ""
					for range len(chunks) + 2 {
						last = m.want("250 ")
					}
					if got := l.queue.Message(queueID(t, last)); !bytes.HasSuffix(got.Content, []byte("\r\n"+message)) {
						t.Errorf("%s: arrived %q", name, got.Content)
					}
				}
			})
			// Each group is one write with the message before it (RFC 2920 section 3.1). Dovecot 2.3.19 can't take that: of MAIL behind a final dot
			// it says that another was given, and at RCPT behind it submission dies of an assertion, after it has handed the message on.
			behindDot := name != "Dovecot"
			t.Run("200 messages over one connection", func(t *testing.T) {
				t.Parallel()
				const count = 200
				m := l.o.login(t)
				group := func(i int) string {
					return fmt.Sprintf("MAIL FROM:<%s>\r\nRCPT TO:<many%d@example.org>\r\nDATA\r\n", alice, i)
				}
				text := func(i int) []byte { return fmt.Appendf(nil, "Subject: %d\r\n\r\n.%d\r\n..\r\n", i, i) }
				m.say("%s", group(0))
				ids := make(map[string]int)
				for i := range count {
					m.want("250 ")
					m.want("250 ")
					m.want("354 ")
					next := group(i + 1)
					if i == count-1 {
						next = "QUIT\r\n"
					}
					if behindDot {
						m.say("%s%s", stuffed(text(i)), next)
						ids[queueID(t, m.want("250 2.0.0 "))] = i
					} else {
						m.Write(stuffed(text(i)))
						ids[queueID(t, m.want("250 2.0.0 "))] = i
						m.say("%s", next)
					}
				}
				m.want("221 2.0.0 ")
				queued := l.queue.Queued()
				for id, i := range ids {
					if !slices.Contains(queued, id) {
						t.Errorf("the client was told that message %d is queued as %s, and it is not", i, id)
					} else if i%50 == 0 {
						wantContent(t, l.queue.Message(id), text(i))
					}
				}
				if len(ids) != count {
					t.Errorf("%d queue ids for %d messages", len(ids), count)
				}
			})
			t.Run("SIZE", func(t *testing.T) {
				t.Parallel()
				l.o.login(t).ask("552 5.", "MAIL FROM:<%s> SIZE=%d", alice, 1<<30)
			})
			if name == "Dovecot" { // which offers no more before a login
				return
			}
			t.Run("DSN, SMTPUTF8 and 8BITMIME", func(t *testing.T) {
				t.Parallel()
				const message = "Subject: Grüße\r\n\r\nKöln\r\n"
				m := l.o.login(t)
				m.ask("250 ", "MAIL FROM:<älice@example.test> SMTPUTF8 BODY=8BITMIME SIZE=%d RET=HDRS ENVID=QQ+3D1", len(message))
				m.ask("250 ", "RCPT TO:<jürgen@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;j@example.org")
				m.ask("354 ", "DATA")
				m.Write(stuffed([]byte(message)))
				got := l.queue.Message(queueID(t, m.want("250 ")))
				wantContent(t, got, []byte(message))
				for name, want := range map[string]string{"envelope_id": "QQ=1", "ret_flags": "2", "notify_flags": "10", "dsn_orig_rcpt": "rfc822;j@example.org", "encoding": "8bit"} {
					if got.Attributes[name] != want {
						t.Errorf("%s is %q, want %q", name, got.Attributes[name], want)
					}
				}
				if got.Sender != "älice@example.test" || !slices.Equal(got.Recipients, []string{"jürgen@example.org"}) || !bytes.Contains(got.Content, []byte("with UTF8SMTPSA ")) {
					t.Errorf("from %q to %q: %q", got.Sender, got.Recipients, got.Content)
				}
			})
		})
	}
}

// Two backends of which each can do something that the other can't: a client is told what both can, before anybody knows where it belongs.
func TestEHLOTellsWhatAllBackendsHave(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	one := testlab.Postfix(t, testlab.MainCF("smtpd_discard_ehlo_keywords = dsn, etrn", "message_size_limit = 20000"))
	two := testlab.Postfix(t, testlab.MainCF("smtpd_discard_ehlo_keywords = smtputf8"))
	o := s.sends(submissionBackend("one", one.Submission, one.CAFile, xclient) + submissionBackend("two", two.Submission, two.CAFile, xclient) + `
[[route]]
domain = "*"
protocol = "submission"
backend = "one"
[[route]]
domain = "example.org"
protocol = "submission"
backend = "two"
`)
	ofOne, ofTwo := extensions(direct(t, lane{address: one.Submission, ca: one.CA}).ehlo), extensions(direct(t, lane{address: two.Submission, ca: two.CA}).ehlo)
	if slices.Contains(ofOne, "DSN") || !slices.Contains(ofTwo, "DSN") || !slices.Contains(ofOne, "SMTPUTF8") || slices.Contains(ofTwo, "SMTPUTF8") {
		t.Fatalf("the backends tell %q and %q", ofOne, ofTwo)
	}
	both := slices.DeleteFunc(ofOne, func(line string) bool { return !slices.Contains(ofTwo, line) && !strings.HasPrefix(line, "SIZE ") })
	m := o.connect(t, false)
	plain := m.ask("250 ", "EHLO phone.example")
	if got := extensions(plain); !slices.Equal(got, both) || !slices.Contains(both, "SIZE 20000") || strings.Contains(plain, "AUTH") || !strings.Contains(plain, "STARTTLS\n") {
		t.Errorf("EHLO tells %q, want %q", plain, both)
	}

	m = o.login(t)
	m.ask("552 ", "MAIL FROM:<%s> SIZE=20001", alice)
	m.ask("250 ", "RSET")
	m.begin("x@example.org") // and it grows
	m.Write(stuffed(testlab.Attachment(20000)))
	m.want("552 5.3.4 ")
	m.say("MAIL FROM:<%s>\r\nRCPT TO:<x@example.org>\r\nBDAT 20001 LAST\r\n%s", alice, bytes.Repeat([]byte("XCLIENT\r\n"), 20001/9))
	m.say("%s", strings.Repeat("x", 20001%9))
	m.want("250 ")
	m.want("250 ")
	m.want("552 5.3.4 ")
	m.ask("221 ", "QUIT")
	if got := len(one.Queued()); got != 0 {
		t.Errorf("%d messages are queued that were refused", got)
	}

	const erin = "erin@example.org"
	s.cli(o.config, "account", "add", erin)
	secret, _ := o.password(erin)
	m = o.connect(t, true)
	if secure := m.ask("250 ", "EHLO phone.example"); !slices.Equal(extensions(secure), both) || strings.Contains(secure, "STARTTLS") || !strings.Contains(secure, "AUTH PLAIN LOGIN\n") {
		t.Errorf("over TLS EHLO tells %q, want %q", secure, both)
	}
	m.ask("235 ", "AUTH PLAIN %s", plainResponse(erin, secret))
	m.begin("x@example.org")
	m.Write(stuffed(testlab.Attachment(20000)))
	if got := two.Message(queueID(t, m.want("250 "))); got.Attributes["sasl_username"] != erin {
		t.Errorf("sent as %q", got.Attributes["sasl_username"])
	}
}

// What does not let anybody in, what is said about it, and what a password for the sending of mail opens besides: nothing.
func TestSubmissionRefusals(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	postfix := testlab.Postfix(t)
	dovecot := testlab.Dovecot(t, testlab.Submission(postfix.Relay))
	radicale := testlab.Radicale(t)
	o := s.sends(dovecotBackend(t, dovecot, s.dir) + davBackend("radicale", radicale.URL) + submissionBackend("submission", dovecot.Submission, dovecot.CAFile, s.master(dovecot)))
	reading := s.password(o.config, alice, "--scopes", "mail")
	o.login(t)

	m := o.connect(t, false)
	m.ask("503 5.5.1 ", "AUTH PLAIN %s", plainResponse(alice, o.secret)) // before EHLO
	m.ask("250 ", "EHLO phone.example")
	m.ask("530 5.7.0 ", "MAIL FROM:<%s>", alice)
	m.ask("538 5.7.11 ", "AUTH PLAIN %s", plainResponse(alice, o.secret))
	m = o.connect(t, false)
	m.say("STARTTLS\r\nEHLO injected\r\n")
	if said := m.rest(); strings.HasPrefix(said, "220") || !strings.HasPrefix(said, "421 4.7.0 ") {
		t.Errorf("words behind STARTTLS: %q", said)
	}

	for name, tt := range map[string]struct{ secret, want string }{
		"wrong":            {"abcd-efgh-ijkl-mnop-qrst-uvwx-2345", "535 5.7.8 "},
		"primary password": {testlab.Primary(alice), "535 5.7.8 That is not an app password"},
		"master password":  {dovecot.MasterPassword, "535 5.7.8 "},
		"for reading only": {reading.Secret, "535 5.7.8 This app password does not open the sending of mail."},
	} {
		m := o.connect(t, true)
		m.ask("250 ", "EHLO phone.example")
		for _, verb := range []string{"MAIL FROM:<" + alice + ">", "RCPT TO:<x@example.org>", "DATA", "VRFY alice", "BURL imap://x LAST", "BDAT 0 LAST"} {
			m.ask("530 5.7.0 ", "%s", verb)
		}
		if got := m.ask("535 5.7.8 ", "AUTH PLAIN %s", plainResponse(alice, tt.secret)); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
		m.ask("530 5.7.0 ", "MAIL FROM:<%s>", alice)
	}

	wantIMAP(t, s.dial(o.gateway, nil).Login(alice, o.secret).Wait(), imap.ResponseCodeNoPerm)
	s.login(o.gateway, alice, reading.Secret)
	radicale.MakeCalendar(alice, "personal")
	radicale.Put(alice, "/"+alice+"/personal/s3cret.ics", testlab.Event("s3cret"))
	home := "/dav/cal/" + s.publicID(o.gateway) + "/"
	for path, method := range map[string]string{home: "PROPFIND", home + "personal/": "PROPFIND", home + "personal/s3cret.ics": "GET", home + "personal/new.ics": "PUT"} {
		code, text, _ := s.do(o.gateway, alice, o.secret, method, path, "", "Depth", "1")
		if (path == home) != (code == http.StatusMultiStatus) || path != home && code < 400 || strings.Contains(text, "personal") && path == home {
			t.Errorf("%s %s with a password for sending = %d %s", method, path, code, text) // it sees an empty home, as one for reading mail does
		}
	}
	dovecot.Deliver(alice, "INBOX", []byte("Subject: s3cret\r\n\r\ns3cret\r\n"))
	m = o.login(t)
	m.ask("250 ", "MAIL FROM:<%s>", alice)
	m.ask("250 ", "RCPT TO:<x@example.org>")
	m.ask("500 ", "BURL imap://alice%%40example.test@localhost/INBOX/;uid=1 LAST")
	m.ask("252 ", "VRFY alice") // it neither confirms nor denies
	for _, command := range []string{"AUTH PLAIN " + plainResponse(testlab.Bob, testlab.Primary(testlab.Bob)), "STARTTLS"} {
		m.ask("503 ", "%s", command)
	}
	for _, command := range []string{"XCLIENT LOGIN=" + testlab.Bob, " XCLIENT LOGIN=" + testlab.Bob, "xclient\tLOGIN=" + testlab.Bob, "EXPN alice", "FETCH 1 BODY[]"} {
		m.ask("500 ", "%s", command)
	}
	m.ask("221 ", "QUIT")
	if log := o.Output(); strings.Contains(log, o.secret) || strings.Contains(log, dovecot.MasterPassword) || strings.Contains(log, testlab.Primary(alice)) {
		t.Error("a secret stands in the log")
	}
	if got := len(postfix.Queued()); got != 0 {
		t.Errorf("%d messages are queued", got)
	}
}

// With sender = "own" an account sends from its own addresses.
func TestOwnSenders(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	postfix := testlab.Postfix(t)
	o := s.sends(submissionBackend("postfix", postfix.Submission, postfix.CAFile, xclient) + "[submission]\nsender = \"own\"\n")
	s.cli(o.config, "account", "add", testlab.Bob)
	s.cli(o.config, "account", "alias", "add", alice, "sales@example.test")
	s.cli(o.config, "account", "alias", "add", testlab.Bob, "bobby@example.test")
	m := o.login(t)
	for _, sender := range []string{testlab.Bob, "bobby@example.test", "nobody@example.test", "alice@example.org"} {
		m.ask("550 5.7.1 ", "MAIL FROM:<%s>", sender)
	}
	m.ask("501 5.5.4 ", "MAIL FROM:%s", alice)
	m.ask("501 5.5.4 ", "MAIL FROM:<alice>") // to which Postfix adds a domain of its own
	sent := map[string]string{alice: "", "Alice@Example.TEST": "", "sales@example.test": "", "": ""}
	for sender := range sent { // what was refused before is in nobody's way
		m.say("MAIL FROM:<%s> BODY=8BITMIME\r\nRCPT TO:<x@example.org>\r\nDATA\r\n", sender)
		m.want("250 ")
		m.want("250 ")
		m.want("354 ")
		m.say("Subject: from %s\r\n\r\nx\r\n.\r\n", sender)
		if got := postfix.Message(queueID(t, m.want("250 "))); got.Sender != sender || got.Attributes["sasl_username"] != alice {
			t.Errorf("MAIL FROM:<%s> arrived from %q of %q", sender, got.Sender, got.Attributes["sasl_username"])
		}
	}
	if log := o.Output(); !strings.Contains(log, `"msg":"sender refused"`) || strings.Contains(log, "bobby") {
		t.Errorf("a refused sender is not logged, or more than that:\n%s", log)
	}
	s.cli(o.config, "account", "alias", "remove", alice, "sales@example.test")
	eventually(t, "the alias is refused", func() bool {
		m.say("MAIL FROM:<sales@example.test>\r\nRSET\r\n")
		reply, _ := m.hear()
		m.want("250 ")
		return strings.HasPrefix(reply, "550 5.7.1 ")
	})
	if got := len(postfix.Queued()); got != len(sent) {
		t.Errorf("%d messages are queued, %d were sent", got, len(sent))
	}
}

// What "postern check" says about submission backends leads to what is wrong with them.
func TestCheckSubmission(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	trusting := testlab.Postfix(t)
	dovecot := testlab.Dovecot(t, testlab.Submission(trusting.Relay))
	lonely := testlab.Dovecot(t, testlab.Submission("127.0.0.1:1"))
	asking := testlab.Postfix(t, testlab.SASL(dovecot))
	foreign := testlab.Postfix(t, testlab.MainCF("smtpd_authorized_xclient_hosts ="))
	noSASL := testlab.Postfix(t, testlab.MainCF("smtpd_sasl_auth_enable = no"))
	master := s.master(dovecot)
	wrong := strings.Replace(master, filepath.Join(s.dir, "master"), writeFile(t, "wrong", []byte("wrong\n")), 1)
	ports := testlab.Ports(t, 4)
	s.backend = submissionBackend("x", trusting.Submission, trusting.CAFile, xclient)
	s.cli(s.writeConfig(ports), "init")
	s.cli(s.writeConfig(ports), "account", "add", alice)
	authorize := "it takes no login by XCLIENT from this host; Postfix: a service of its own for Postern (docs/sending.md, section 1) has Postern's address in smtpd_authorized_xclient_hosts, and smtpd_sasl_auth_enable = yes"
	for name, tt := range map[string]struct{ backend, want string }{
		"Postfix by XCLIENT":                 {submissionBackend("x", trusting.Submission, trusting.CAFile, xclient), ""},
		"Postfix by XCLIENT, plain":          {submissionBackend("x", trusting.Relay, "", xclient), ""},
		"Postfix by AUTH":                    {submissionBackend("x", asking.Submission, asking.CAFile, master), ""},
		"Dovecot":                            {submissionBackend("x", dovecot.Submission, dovecot.CAFile, master), ""},
		"Dovecot, TLS from the start":        {strings.Replace(submissionBackend("x", dovecot.Submissions, dovecot.CAFile, master), "starttls", "implicit", 1), ""},
		"wrong password, Postfix":            {submissionBackend("x", asking.Submission, asking.CAFile, wrong), "it refuses the login; a wrong password in password_file"},
		"wrong password, Dovecot":            {submissionBackend("x", dovecot.Submission, dovecot.CAFile, wrong), "it refuses the login; a wrong password in password_file"},
		"not authorized":                     {submissionBackend("x", foreign.Submission, foreign.CAFile, xclient), authorize},
		"no logins at all":                   {submissionBackend("x", noSASL.Submission, noSASL.CAFile, xclient), authorize},
		"logins over TLS only, by XCLIENT":   {submissionBackend("x", trusting.Submission, "", xclient), `set tls = "starttls" here`},
		"logins over TLS only, by AUTH":      {submissionBackend("x", asking.Submission, "", master), `if it hides it without TLS, set tls = "starttls"`},
		"Dovecot by XCLIENT":                 {submissionBackend("x", dovecot.Submission, dovecot.CAFile, xclient), "use another credential"},
		"TLS from the start on the port 587": {strings.Replace(submissionBackend("x", trusting.Submission, trusting.CAFile, xclient), "starttls", "implicit", 1), `set tls = "starttls"`},
		"a relay that is down":               {submissionBackend("x", lonely.Submission, lonely.CAFile, master), "look whether the server of submission_relay_host is up"},
		"another protocol":                   {submissionBackend("x", dovecot.IMAP, dovecot.CAFile, master), "look at its port; submission is on 587"},
		"another authority":                  {submissionBackend("x", trusting.Submission, s.ca.File, xclient), "signed by an authority that this machine does not know"},
	} {
		t.Run(name, func(t *testing.T) {
			s.backend = tt.backend
			cmd := testlab.Command(t, s.program, "check", "-c", whole(t, s.writeConfig(ports)))
			cmd.Env = append(cmd.Env, noSleep)
			out, err := cmd.CombinedOutput()
			said := string(out)
			if tt.want == "" {
				if err != nil || !strings.Contains(said, "logged in for "+alice) || strings.Contains(said, "FAIL") {
					t.Errorf("%v\n%s", err, said)
				}
				return
			}
			if err == nil || strings.Count(said, "FAIL  ") != 1 || !strings.Contains(said, tt.want) {
				t.Errorf("%v, want one FAIL with %q:\n%s", err, tt.want, said)
			}
			if strings.Contains(said, dovecot.MasterPassword) {
				t.Error("the master password is shown")
			}
		})
	}
}

// A client with an IPv6 address, told by a load balancer, to a Postfix that knows such addresses and to one that takes none.
func TestIPv6ClientsSend(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dovecot := testlab.Dovecot(t)
	both, old := testlab.Postfix(t, testlab.SASL(dovecot)), testlab.Postfix(t, testlab.SASL(dovecot), testlab.MainCF("inet_protocols = ipv4"))
	master := s.master(dovecot)
	for name, tt := range map[string]struct {
		postfix          *testlab.PostfixServer
		credential, want string
	}{
		"by XCLIENT":               {both, xclient, "2001:db8::7"},
		"by XCLIENT, without IPv6": {old, xclient, "127.0.0.1"},
		"by AUTH, without IPv6":    {old, master, "127.0.0.1"},
	} {
		o := s.sends(submissionBackend("postfix", tt.postfix.Submission, tt.postfix.CAFile, tt.credential))
		o.change(`tls = "starttls" },
]`, `tls = "starttls", proxy_protocol = ["127.0.0.0/8"] },
]`)
		o.reload(`"msg":"reloaded"`)
		conn, err := net.Dial("tcp", o.startTLS)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "PROXY TCP6 2001:db8::7 2001:db8::1 4711 587\r\n")
		m := newMailer(t, conn)
		m.ask("250 ", "EHLO phone.example")
		m.ask("220 ", "STARTTLS")
		m.secure(s.tls())
		m.ask("250 ", "EHLO phone.example")
		m.ask("235 ", "AUTH PLAIN %s", plainResponse(alice, o.secret))
		m.begin("x@example.org")
		m.say("Subject: x\r\n\r\nx\r\n.\r\n")
		got := tt.postfix.Message(queueID(t, m.want("250 "))).Attributes
		if got["client_address"] != tt.want || got["sasl_username"] != alice || got["helo_name"] != "phone.example" {
			t.Errorf("%s: %q, want the address %s", name, got, tt.want)
		}
	}
}
