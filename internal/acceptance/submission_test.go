package acceptance

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"postern/internal/testlab"
)

// outbox is a gateway that apps send mail through.
type outbox struct {
	*gateway
	s        *site
	secure   string // host:port, TLS from the start
	startTLS string
	secret   string // of alice's app password, which opens nothing but the sending of mail
	id       int64
}

// sends starts a gateway in front of a submission backend. config is that, and what else the configuration says.
func (s *site) sends(config string) *outbox {
	s.t.Helper()
	ports := testlab.Ports(s.t, 2)
	s.backend = config
	s.doors = fmt.Sprintf("  { protocol = \"submission\", address = \"127.0.0.1:%d\" },\n  { protocol = \"submission\", address = \"127.0.0.1:%d\", tls = \"starttls\" },\n", ports[0], ports[1])
	o := &outbox{gateway: s.serve(), s: s, secure: fmt.Sprintf("127.0.0.1:%d", ports[0]), startTLS: fmt.Sprintf("127.0.0.1:%d", ports[1])}
	if !strings.Contains(s.cli(o.config, "account", "list"), alice) {
		s.cli(o.config, "account", "add", alice)
	}
	o.secret, o.id = o.password(alice)
	return o
}

func (o *outbox) password(address string) (secret string, id int64) {
	o.t.Helper()
	p := o.s.password(o.config, address, "--scopes", "submit")
	return p.Secret, p.ID
}

// Credentials of submission backends, as the configuration names them.
const xclient = "credential = \"xclient\"\n"

func (s *site) master(d *testlab.DovecotServer) string {
	s.t.Helper()
	file := filepath.Join(s.dir, "master")
	if err := os.WriteFile(file, []byte(d.MasterPassword+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return fmt.Sprintf("credential = \"master\"\nuser = %q\npassword_file = %q\n", d.MasterUser, file)
}

// submissionBackend is reached by STARTTLS, or in plain text where no authority is named.
func submissionBackend(name, address, caFile, credential string) string {
	security := "tls = \"none\"\n"
	if caFile != "" {
		security = fmt.Sprintf("tls = \"starttls\"\nca_file = %q\n", caFile)
	}
	return fmt.Sprintf("\n[[backend]]\nname = %q\nprotocol = \"submission\"\naddress = %q\n%s%s", name, address, security, credential)
}

// phone is where clients come from that can choose it. Gateway and backends call each other from 127.0.0.1.
const phone = "127.0.0.7"

// mailer is a client that says what it is told, and knows where a reply ends.
type mailer struct {
	*speaker
	ehlo string // the answer to it
}

func newMailer(t *testing.T, conn net.Conn) *mailer {
	t.Helper()
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	m := &mailer{speaker: &speaker{conn, t, bufio.NewReader(conn)}}
	m.want("220 ")
	return m
}

// connect is greeted. secure: over TLS from the start.
func (o *outbox) connect(t *testing.T, secure bool) *mailer {
	t.Helper()
	address := o.secure
	if !secure {
		address = o.startTLS
	}
	conn, err := dialFrom(phone, address)
	if err != nil {
		t.Fatal(err)
	}
	if secure {
		conn = tls.Client(conn, o.s.tls())
	}
	return newMailer(t, conn)
}

func dialFrom(from, address string) (net.Conn, error) {
	return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 30 * time.Second}).Dial("tcp", address)
}

// login is connected over TLS, and logged in.
func (o *outbox) login(t *testing.T) *mailer {
	t.Helper()
	m := o.connect(t, true)
	m.ask("250 ", "EHLO phone.example")
	m.ask("235 2.7.0 ", "AUTH PLAIN %s", plainResponse(alice, o.secret))
	return m
}

// hear reads a reply, of which each line ends in "\n".
func (m *mailer) hear() (string, error) {
	var reply strings.Builder
	for {
		line, err := m.r.ReadString('\n')
		reply.WriteString(strings.TrimSuffix(line, "\r\n"))
		if err != nil {
			return reply.String(), err
		}
		reply.WriteByte('\n')
		if len(line) < 4 || line[3] != '-' {
			return reply.String(), nil
		}
	}
}

// want reads a reply whose last line begins so.
func (m *mailer) want(begin string) string {
	m.t.Helper()
	reply, err := m.hear()
	last := reply[strings.LastIndexByte(strings.TrimSuffix(reply, "\n"), '\n')+1:]
	if err != nil || !strings.HasPrefix(last, begin) {
		m.t.Fatalf("got %q, %v; want %s", reply, err, begin)
	}
	return reply
}

func (m *mailer) ask(begin, format string, args ...any) string {
	m.t.Helper()
	m.say(format+"\r\n", args...)
	return m.want(begin)
}

// begin is a transaction up to where the message comes.
func (m *mailer) begin(to string) {
	m.t.Helper()
	m.say("MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\nDATA\r\n", alice, to)
	for _, want := range []string{"250 ", "250 ", "354 "} {
		m.want(want)
	}
}

// stuffed is a message as it stands behind DATA, with its end.
func stuffed(message []byte) []byte {
	text := bytes.ReplaceAll(append([]byte("\r\n"), message...), []byte("\r\n."), []byte("\r\n.."))
	return append(text[2:], ".\r\n"...)
}

// queueID is in the reply to a message that was taken.
func queueID(t *testing.T, reply string) string {
	t.Helper()
	_, id, ok := strings.Cut(reply, "queued as ")
	if !ok {
		t.Fatalf("the client was not told the backend's queue id: %q", reply)
	}
	id, _, _ = strings.Cut(strings.TrimSpace(id), "\n")
	return strings.TrimRight(id, ". \n")
}

// secure starts TLS.
func (m *mailer) secure(c *tls.Config) {
	m.Conn = tls.Client(m.Conn, c)
	m.r = bufio.NewReader(m.Conn)
}

// extensions are what a server's EHLO tells, in alphabetical order, without what only it and Postern may speak about.
func extensions(reply string) []string {
	var list []string
	for line := range strings.Lines(reply) {
		list = append(list, strings.TrimSpace(line[min(4, len(line)):]))
	}
	list = slices.DeleteFunc(list[1:], func(line string) bool {
		word, _, _ := strings.Cut(line, " ")
		return slices.Contains([]string{"AUTH", "STARTTLS", "XCLIENT", "BURL"}, word)
	})
	slices.Sort(list)
	return list
}

// direct speaks to a lane's backend, over TLS and greeted by EHLO, as Postern does.
func direct(t *testing.T, l lane) *mailer {
	t.Helper()
	conn, err := net.Dial("tcp", l.address)
	if err != nil {
		t.Fatal(err)
	}
	m := newMailer(t, conn)
	m.ask("250 ", "EHLO postern")
	m.ask("220 ", "STARTTLS")
	m.secure(&tls.Config{RootCAs: l.ca.Pool, ServerName: "localhost"})
	m.ehlo = m.ask("250 ", "EHLO postern")
	return m
}

// app is a program that sends a message, and returns what it said about it.
type app struct {
	send func(t *testing.T, o *outbox, to string, message []byte) string
	from string // its address
	own  bool   // the message is the program's own but for its text
}

var apps = map[string]app{
	"swaks, TLS, PLAIN":      {swaks("--tls-on-connect", "PLAIN", (*outbox).securePort), phone, false},
	"swaks, STARTTLS, LOGIN": {swaks("--tls", "LOGIN", (*outbox).startTLSPort), phone, false},
	"msmtp, TLS, LOGIN":      {msmtp("--tls-starttls=off", "login", (*outbox).securePort), phone, false},
	"msmtp, STARTTLS, PLAIN": {msmtp("--tls-starttls=on", "plain", (*outbox).startTLSPort), phone, false},
	// It gives no initial response unless told to.
	"curl, TLS, PLAIN in two steps": {curl("smtps", (*outbox).securePort, "--login-options", "AUTH=PLAIN"), phone, false},
	"curl, STARTTLS, PLAIN":         {curl("smtp", (*outbox).startTLSPort, "--ssl-reqd", "--sasl-ir", "--login-options", "AUTH=PLAIN"), phone, false},
	"curl, STARTTLS, LOGIN":         {curl("smtp", (*outbox).startTLSPort, "--ssl-reqd", "--login-options", "AUTH=LOGIN"), phone, false},
	"neomutt, TLS":                  {neomutt("smtps", (*outbox).securePort), "127.0.0.1", true},
	"neomutt, STARTTLS":             {neomutt("smtp", (*outbox).startTLSPort), "127.0.0.1", true},
	"Python, TLS":                   {smtplib("tls", (*outbox).securePort), phone, false},
	"Python, STARTTLS":              {smtplib("starttls", (*outbox).startTLSPort), phone, false},
	"Go, TLS":                       {goSMTP, phone, false},
}

func (o *outbox) securePort() string   { return port(o.secure) }
func (o *outbox) startTLSPort() string { return port(o.startTLS) }

func writeFile(t *testing.T, name string, text []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func swaks(security, mechanism string, port func(*outbox) string) func(*testing.T, *outbox, string, []byte) string {
	return func(t *testing.T, o *outbox, to string, message []byte) string {
		cmd := testlab.Command(t, "swaks", security, "--tls-verify", "--tls-ca-path", o.s.ca.File, "--server", "localhost", "--port", port(o), "--local-interface", phone,
			"--auth", mechanism, "--auth-user", alice, "--auth-password", o.secret, "--from", alice, "--to", to, "--data", "-")
		text := bytes.TrimSuffix(bytes.ReplaceAll(message, []byte("\r\n"), []byte("\n")), []byte("\n")) // it ends the last line itself
		cmd.Stdin = bytes.NewReader(text)
		return testlab.Run(t, cmd)
	}
}

func msmtp(security, mechanism string, port func(*outbox) string) func(*testing.T, *outbox, string, []byte) string {
	return func(t *testing.T, o *outbox, to string, message []byte) string {
		cmd := testlab.Command(t, "msmtp", "--debug", "--host=localhost", "--port="+port(o), "--tls=on", security, "--tls-trust-file="+o.s.ca.File, "--source-ip="+phone,
			"--auth="+mechanism, "--user="+alice, "--passwordeval=cat "+writeFile(t, "secret", []byte(o.secret)), "--from="+alice, to)
		cmd.Stdin = bytes.NewReader(bytes.ReplaceAll(message, []byte("\r\n"), []byte("\n")))
		return testlab.Run(t, cmd)
	}
}

func curl(scheme string, port func(*outbox) string, args ...string) func(*testing.T, *outbox, string, []byte) string {
	return func(t *testing.T, o *outbox, to string, message []byte) string {
		netrc := writeFile(t, "netrc", fmt.Appendf(nil, "machine localhost login %s password %s\n", alice, o.secret))
		return testlab.Run(t, testlab.Command(t, "curl", append([]string{"-sSv", "--cacert", o.s.ca.File, "--netrc-file", netrc, "--interface", phone, "--mail-from", alice, "--mail-rcpt", to,
			"--upload-file", writeFile(t, "message", message), scheme + "://localhost:" + port(o)}, args...)...))
	}
}

func neomutt(scheme string, port func(*outbox) string) func(*testing.T, *outbox, string, []byte) string {
	return func(t *testing.T, o *outbox, to string, message []byte) string {
		rc := writeFile(t, "rc", fmt.Appendf(nil, "set smtp_url=\"%s://%s@localhost:%s/\"\nset smtp_pass=%q\nset ssl_force_tls\nset certificate_file=%q\nset ssl_verify_host\nset from=%q\nunset use_from_hostname\nset hostname=phone.example\nunset copy\nset record=\"\"\nset send_charset=\"utf-8\"\nset allow_8bit\n",
			scheme, strings.ReplaceAll(alice, "@", "%40"), port(o), o.secret, o.s.ca.File, alice))
		cmd := testlab.Command(t, "neomutt", "-n", "-F", rc, "-s", "sent by neomutt", "--", to)
		_, text, _ := bytes.Cut(message, []byte("\r\n\r\n"))
		cmd.Stdin = bytes.NewReader(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")))
		return testlab.Run(t, cmd)
	}
}

// sendScript logs in without an initial response, sends, and prints the last reply.
const sendScript = `import smtplib, ssl, sys
security, port, ca, user, to, message, secret = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
source = ("` + phone + `", 0)
if security == "tls":
    s = smtplib.SMTP_SSL("localhost", int(port), context=context, source_address=source)
else:
    s = smtplib.SMTP("localhost", int(port), source_address=source)
    s.starttls(context=context)
s.ehlo()
s.user, s.password = user, open(secret).read()
s.auth("PLAIN", s.auth_plain, initial_response_ok=False)
s.mail(user, ["BODY=8BITMIME"])
s.rcpt(to)
print(s.data(open(message, "rb").read()))
s.quit()
`

func smtplib(security string, port func(*outbox) string) func(*testing.T, *outbox, string, []byte) string {
	return func(t *testing.T, o *outbox, to string, message []byte) string {
		return testlab.Run(t, testlab.Command(t, "/usr/bin/python3", "-c", sendScript, security, port(o), o.s.ca.File, alice, to, writeFile(t, "message", message), writeFile(t, "secret", []byte(o.secret))))
	}
}

func goSMTP(t *testing.T, o *outbox, to string, message []byte) string {
	conn, err := dialFrom(phone, o.secure)
	if err != nil {
		t.Fatal(err)
	}
	c := smtp.NewClient(tls.Client(conn, o.s.tls()))
	defer c.Close()
	if err := c.Auth(sasl.NewPlainClient("", alice, o.secret)); err != nil {
		t.Fatal(err)
	}
	if err := c.Mail(alice, &smtp.MailOptions{Body: smtp.Body8BitMIME, Size: int64(len(message))}); err != nil {
		t.Fatal(err)
	}
	if err := c.Rcpt(to, nil); err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(message); err != nil {
		t.Fatal(err)
	}
	response, err := w.CloseWithResponse()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	return response.StatusText
}

// lane is a gateway in front of one kind of backend, and where what it takes is kept.
type lane struct {
	o       *outbox
	address string // of the backend
	ca      *testlab.CA
	queue   *testlab.PostfixServer
}

// lanes are all kinds of backends. Postfix gets what stands in mainCF.
func lanes(t *testing.T, mainCF ...string) map[string]lane {
	t.Helper()
	s := newSite(t)
	trusting := testlab.Postfix(t, testlab.MainCF(mainCF...))
	dovecot := testlab.Dovecot(t, testlab.Submission(trusting.Relay))
	asking := testlab.Postfix(t, testlab.SASL(dovecot), testlab.MainCF(mainCF...))
	master := s.master(dovecot)
	return map[string]lane{
		"Postfix by XCLIENT": {s.sends(submissionBackend("postfix", trusting.Submission, trusting.CAFile, xclient)), trusting.Submission, trusting.CA, trusting},
		"Postfix by AUTH":    {s.sends(submissionBackend("postfix", asking.Submission, asking.CAFile, master)), asking.Submission, asking.CA, asking},
		"Dovecot":            {s.sends(submissionBackend("dovecot", dovecot.Submission, dovecot.CAFile, master)), dovecot.Submission, dovecot.CA, trusting},
	}
}

// Programs that people send mail with, through the gateway to each kind of backend: what they sent lies in the queue as it was, in the name of
// the account and with the app's address, and they were told the queue id.
func TestMailAppsSend(t *testing.T) {
	t.Parallel()
	for name, l := range lanes(t, "smtpd_data_restrictions = reject_unauth_pipelining") { // nobody speaks out of turn
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := l.o.connect(t, true)
			if got, want := extensions(m.ask("250 ", "EHLO phone.example")), extensions(direct(t, l).ehlo); !slices.Equal(got, want) {
				t.Errorf("EHLO tells %q, the backend %q", got, want)
			}
			n := 0
			for name, a := range apps {
				message := testlab.Mails()[n%len(testlab.Mails())]
				n++
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					to := regexp.MustCompile(`\W+`).ReplaceAllString(t.Name(), "-") + "@example.org"
					said := a.send(t, l.o, to, message)
					arrived := arrivedFor(t, l.queue, to)
					if a.own {
						_, text, _ := bytes.Cut(message, []byte("\r\n\r\n"))
						wantContent(t, arrived, append([]byte("\r\n"), text...))
					} else {
						wantContent(t, arrived, message)
						if !strings.Contains(said, arrived.QueueID) {
							t.Errorf("the queue id %s is not in what it said:\n%.3000s", arrived.QueueID, said)
						}
					}
					for name, want := range map[string]string{"sasl_username": alice, "client_address": a.from} {
						if got := arrived.Attributes[name]; got != want {
							t.Errorf("%s is %q, want %q", name, got, want)
						}
					}
					if arrived.Sender != alice {
						t.Errorf("sender %q", arrived.Sender)
					}
				})
			}
		})
	}
}

// arrivedFor finds the only message to a recipient.
func arrivedFor(t *testing.T, p *testlab.PostfixServer, to string) testlab.Message {
	t.Helper()
	var found []testlab.Message
	for _, m := range p.Messages() {
		if slices.Contains(m.Recipients, to) {
			found = append(found, m)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d messages to %s are queued", len(found), to)
	}
	return found[0]
}

// wantContent checks that a message is what was sent, behind what servers put before it.
func wantContent(t *testing.T, m testlab.Message, sent []byte) {
	t.Helper()
	if !bytes.HasSuffix(m.Content, append([]byte("\r\n"), sent...)) {
		most := min(len(sent), 1000)
		t.Errorf("sent %d bytes that end in %q\narrived %d bytes that end in %q", len(sent), sent[len(sent)-most:], len(m.Content), m.Content[max(0, len(m.Content)-most-50):])
	}
}
