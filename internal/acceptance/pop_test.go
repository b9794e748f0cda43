package acceptance

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/testlab"
)

// popSite is a gateway with POP3 in front of a Dovecot.
type popSite struct {
	*site
	*gateway
	dovecot     *testlab.DovecotServer
	pop3, pop3s string // STLS, implicit TLS
	app         appPassword
	t           *testing.T
}

// pop starts one. Alice has an app password for it. address is where the gateway finds Dovecot, in plain text; empty: by itself, over STLS.
func pop(t *testing.T, dovecot *testlab.DovecotServer, address string) *popSite {
	t.Helper()
	s := newSite(t)
	s.backend = otherBackend(t, dovecot, s.dir, "pop3", dovecot.POP3, address)
	p := &popSite{site: s, gateway: s.serve(), dovecot: dovecot, t: t}
	ports := testlab.Ports(t, 2)
	p.pop3, p.pop3s = fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("127.0.0.1:%d", ports[1])
	p.change("listener = [\n", fmt.Sprintf("listener = [\n  { protocol = \"pop3\", address = %q, tls = \"starttls\" },\n  { protocol = \"pop3\", address = %q },\n", p.pop3, p.pop3s))
	p.reload(`"msg":"reloaded"`)
	s.cli(p.config, "account", "add", alice)
	p.app = s.password(p.config, alice, "--scopes", "pop")
	return p
}

// popper is a POP3 client that says what it is told.
type popper struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

// connect connects over TLS and takes the greeting.
func (p *popSite) connect() *popper {
	p.t.Helper()
	conn, err := dialAny(p.site, p.pop3s, true)
	if err != nil {
		p.t.Fatal(err)
	}
	k := newPopper(p.t, conn)
	k.wants("", "+OK Postern ready.")
	return k
}

func newPopper(t *testing.T, conn net.Conn) *popper {
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return &popper{conn, t, bufio.NewReader(conn)}
}

// wants sends a command, unless it is empty, and reads a line that must begin so.
func (k *popper) wants(command, begin string) string {
	k.t.Helper()
	if command != "" {
		fmt.Fprintf(k, "%s\r\n", command)
	}
	line, err := k.r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, begin) {
		k.t.Fatalf("%.4s: got %q, %v; want %s", command, line, err, begin)
	}
	return strings.TrimSuffix(line, "\r\n")
}

// text reads lines up to one of a dot.
func (k *popper) text() string {
	k.t.Helper()
	var b strings.Builder
	for {
		line, err := k.r.ReadString('\n')
		if err != nil {
			k.t.Fatalf("got %d bytes, %v; want a dot", b.Len(), err)
		}
		if line == ".\r\n" {
			return b.String()
		}
		b.WriteString(line)
	}
}

func (k *popper) logIn(user, secret string) *popper {
	k.t.Helper()
	k.wants("USER "+user, "+OK")
	k.wants("PASS "+secret, "+OK Logged in.")
	return k
}

// rest is what is still said until the connection ends, in whichever way.
func (k *popper) rest() string {
	text, _ := io.ReadAll(k.r)
	return string(text)
}

// Real clients read and delete mail, and what is read is what Dovecot has.
func TestPOP3AppsWork(t *testing.T) {
	t.Parallel()
	p := pop(t, testlab.Dovecot(t, testlab.POP3()), "")
	mails := append(testlab.Mails(), testlab.Attachment(8<<20), []byte("Subject: dots\r\n\r\n.\r\n..\r\n.hidden\r\n+OK\r\n-ERR\r\n"))
	for _, m := range mails {
		p.dovecot.Deliver(alice, "INBOX", m)
	}
	netrc, secret := filepath.Join(t.TempDir(), "netrc"), filepath.Join(t.TempDir(), "secret")
	os.WriteFile(netrc, []byte(fmt.Sprintf("machine localhost login %s password %s\n", alice, p.app.Secret)), 0o600)
	os.WriteFile(secret, []byte(p.app.Secret), 0o600)

	t.Run("what is told before and after", func(t *testing.T) {
		k := p.connect()
		k.wants("CAPA", "+OK")
		if got, want := k.text(), "TOP\r\nUIDL\r\nPIPELINING\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nUSER\r\nSASL PLAIN\r\n"; got != want {
			t.Errorf("before: %q, want %q", got, want)
		}
		k.logIn(alice, p.app.Secret).wants("CAPA", "+OK")
		if got := k.text(); !strings.Contains(got, "TOP\r\n") || strings.Contains(got, "SASL") {
			t.Errorf("after: %q", got)
		}
		k.wants("UTF8", "-ERR Unknown command, or not after login.")
		k.wants("XCLIENT ADDR=192.0.2.1", "-ERR Unknown command, or not after login.")
		k.wants("QUIT", "+OK")
	})
	t.Run("what is refused is so in its turn", func(t *testing.T) {
		k := p.connect().logIn(alice, p.app.Secret)
		const times = 300
		go io.WriteString(k, strings.Repeat("STAT\r\nXTND\r\nTOP 1 0\r\nPASS x\r\n", times))
		for range times {
			k.wants("", "+OK 7 ")
			k.wants("", "-ERR Unknown command")
			k.wants("", "+OK")
			k.text()
			k.wants("", "-ERR Unknown command")
		}
		k.wants("QUIT", "+OK")
	})
	t.Run("as without us", func(t *testing.T) {
		var commands strings.Builder
		commands.WriteString("STAT\r\nLIST\r\nUIDL\r\nLIST 2\r\nRETR 99\r\nNOOP\r\nLAST\r\n")
		for i := range mails {
			fmt.Fprintf(&commands, "RETR %d\r\nTOP %[1]d 3\r\nUIDL %[1]d\r\n", i+1)
		}
		commands.WriteString("DELE 1\r\nSTAT\r\nRSET\r\nSTAT\r\nQUIT\r\n")
		conn, err := tls.Dial("tcp", p.dovecot.POP3S, &tls.Config{RootCAs: p.dovecot.CA.Pool, ServerName: "localhost"})
		if err != nil {
			t.Fatal(err)
		}
		direct := newPopper(t, conn)
		direct.wants("", "+OK")
		direct.wants("USER "+alice, "+OK")
		direct.wants("PASS "+testlab.Primary(alice), "+OK")
		ours := p.connect().logIn(alice, p.app.Secret)
		words := make(map[*popper]string)
		for _, k := range []*popper{direct, ours} {
			go io.WriteString(k, commands.String())
			words[k] = k.rest()
		}
		if words[ours] != words[direct] || len(words[ours]) < 8<<20 {
			t.Errorf("%d bytes by us, %d without", len(words[ours]), len(words[direct]))
		}
	})
	t.Run("curl", func(t *testing.T) {
		for _, args := range [][]string{{"pop3s://localhost:" + port(p.pop3s)}, {"--ssl-reqd", "pop3://localhost:" + port(p.pop3)}} {
			list := testlab.Run(t, testlab.Command(t, "curl", append([]string{"-sS", "--cacert", p.ca.File, "--netrc-file", netrc}, args...)...))
			if strings.Count(list, "\n") != len(mails) {
				t.Errorf("curl %v lists %q", args, list)
			}
		}
		big := testlab.Run(t, testlab.Command(t, "curl", "-sS", "--cacert", p.ca.File, "--netrc-file", netrc, "pop3s://localhost:"+port(p.pop3s)+"/6"))
		if big != string(mails[5]) {
			t.Errorf("curl got %d bytes, want %d", len(big), len(mails[5]))
		}
	})
	t.Run("poplib", func(t *testing.T) {
		testlab.Need(t, "python3")
		out := testlab.Run(t, testlab.Command(t, "python3", "-c", `
import poplib, ssl, sys
port, ca, user, file = sys.argv[1:]
p = poplib.POP3("localhost", int(port))
print(sorted(p.capa()))
p.stls(ssl.create_default_context(cafile=ca))
print(p.user(user), p.pass_(open(file).read()), p.stat()[0], len(p.uidl()[1]), len(p.top(1, 0)[1]) > 3)
for n in range(1, p.stat()[0] + 1):
    print(n, len(b"\r\n".join(p.retr(n)[1])) + 2)
try:
    p.utf8()
except poplib.error_proto as e:
    print(e)
print(p.noop(), p.rset(), p.quit())
`, port(p.pop3), p.ca.File, alice, secret))
		for i, m := range mails {
			if want := fmt.Sprintf("\n%d %d\n", i+1, len(m)); !strings.Contains(out, want) {
				t.Errorf("%q is not in\n%s", want, out)
			}
		}
		if !strings.Contains(out, "['AUTH-RESP-CODE', 'PIPELINING', 'RESP-CODES', 'STLS', 'TOP', 'UIDL']") {
			t.Errorf("capabilities before TLS:\n%s", out)
		}
	})
	t.Run("getmail keeps, fetchmail deletes", func(t *testing.T) {
		home, as := testlab.Dir(t), ""
		for _, dir := range []string{"mail", "mail/cur", "mail/new", "mail/tmp"} {
			os.Mkdir(filepath.Join(home, dir), 0o755)
			if os.Getuid() == 0 { // as which getmail delivers nothing
				as = "user = nobody\n"
				os.Chmod(filepath.Join(home, dir), 0o777)
			}
		}
		rc := filepath.Join(home, "getmailrc")
		os.WriteFile(rc, []byte(fmt.Sprintf("[retriever]\ntype = SimplePOP3SSLRetriever\nserver = localhost\nport = %s\nusername = %s\npassword = %s\nca_certs = %s\n"+
			"[destination]\ntype = Maildir\npath = %s/mail/\n%s[options]\ndelete = false\nread_all = true\n", port(p.pop3s), alice, p.app.Secret, p.ca.File, home, as)), 0o600)
		testlab.Run(t, testlab.Command(t, "getmail", "--getmaildir", home, "--rcfile", rc))
		if got, _ := filepath.Glob(filepath.Join(home, "mail", "new", "*")); len(got) != len(mails) {
			t.Errorf("getmail got %d of %d", len(got), len(mails))
		}
		rc = filepath.Join(home, "fetchmailrc")
		os.WriteFile(rc, []byte(fmt.Sprintf("poll localhost protocol pop3 service %s user %q password %q ssl sslcertck sslcertfile %q nokeep mda \"cat >>%s/box\"\n",
			port(p.pop3s), alice, p.app.Secret, p.ca.File, home)), 0o600)
		testlab.Run(t, testlab.Command(t, "fetchmail", "-f", rc, "--nosyslog", "--fetchall"))
		box, _ := os.ReadFile(filepath.Join(home, "box"))
		if !bytes.Contains(box, bytes.TrimSuffix(bytes.ReplaceAll(mails[5], []byte("\r\n"), []byte("\n"))[1000:], []byte("\n"))) {
			t.Errorf("fetchmail's %d bytes lack the big message", len(box))
		}
		p.connect().logIn(alice, p.app.Secret).wants("STAT", "+OK 0 0")
	})
	t.Run("Dovecot is told of the client", func(t *testing.T) {
		eventually(t, "a session id of ours", func() bool { return strings.Contains(p.dovecot.Log(), "rip=127.0.0.1") })
		conn := testlab.Run(t, testlab.Command(t, "sh", "-c", "printf %s \"$1\" | grep -o '\"conn\":\"[a-z0-9]*\"' | head -n 1 | cut -d'\"' -f4", "-", p.Output()))
		if conn = strings.TrimSpace(conn); conn == "" || !strings.Contains(p.dovecot.Log(), "session=<"+conn+">") {
			t.Errorf("session %q is not in Dovecot's log", conn)
		}
	})
	t.Run("the command line", func(t *testing.T) {
		out := p.cli(p.config, "password", "create", alice, "--label", "old phone", "--scopes", "pop")
		if !strings.Contains(out, "POP3         localhost, port "+port(p.pop3s)+", TLS\n") || strings.Contains(out, "IMAP") {
			t.Errorf("settings:\n%s", out)
		}
		if out := p.cli(whole(t, p.config), "check"); !strings.Contains(out, "logged in for "+alice) {
			t.Errorf("check:\n%s", out)
		}
		wrong := filepath.Join(p.dir, "wrong")
		os.WriteFile(wrong, []byte("wrong\n"), 0o400)
		p.change(filepath.Join(p.dir, "dovecot.password"), wrong)
		if out, err := testlab.Command(t, p.program, "check", "-c", whole(t, p.config)).CombinedOutput(); err == nil || !strings.Contains(string(out), "it refuses the login; a wrong password in password_file") {
			t.Errorf("check with a wrong password: %v\n%s", err, out)
		}
	})
	if strings.Contains(p.Output(), p.app.Secret) {
		t.Error("the log shows the app password")
	}
}

func TestPOP3Refusals(t *testing.T) {
	t.Parallel()
	p := pop(t, testlab.Dovecot(t, testlab.POP3(), testlab.Lines("pop3_lock_session = yes")), "")
	plain := func(user, secret string) string {
		return "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+secret))
	}
	everything := p.password(p.config, alice, "--for", "everything")
	wrong := "-ERR [AUTH] Wrong address or app password."
	for name, tt := range map[string]struct{ user, secret, want string }{
		"for mail, not for POP3": {alice, everything.Secret, "-ERR [AUTH] This app password does not open POP3."},
		"the primary password":   {alice, testlab.Primary(alice), "-ERR [AUTH] That is not an app password"},
		"another's":              {testlab.Bob, p.app.Secret, wrong},
		"wrong":                  {alice, strings.Repeat("abcd-", 4) + "abcd", "-ERR [AUTH]"},
		"nobody":                 {"nobody@example.test", p.app.Secret, wrong},
	} {
		k := p.connect()
		k.wants("USER "+tt.user, "+OK")
		if got := k.wants("PASS "+tt.secret, tt.want); got != k.wants(plain(tt.user, tt.secret), tt.want) {
			t.Errorf("%s: %q, and something else to AUTH", name, got)
		}
		k.wants(plain(alice, p.app.Secret), "+OK Logged in.") // which the mailbox's lock lets one do at a time
		k.wants("QUIT", "+OK")
		k.rest()
	}
	imap := p.dial(p.gateway, nil)
	if err := imap.Login(alice, p.app.Secret).Wait(); err == nil || !strings.Contains(err.Error(), "does not open mail") {
		t.Errorf("an app password for POP3 at IMAP: %v", err)
	}

	first := p.connect().logIn(alice, p.app.Secret)
	second := p.connect()
	second.wants("USER "+alice, "+OK")
	second.wants("PASS "+p.app.Secret, "-ERR [IN-USE] Another POP3 session has the mailbox open; please try again later.")
	first.wants("QUIT", "+OK")
	first.rest()
	second.logIn(alice, p.app.Secret)

	p.dovecot.Kill()
	k := p.connect()
	k.wants(plain(alice, p.app.Secret), "-ERR [SYS/TEMP] Account is temporarily unavailable.")
	k.wants("CAPA", "+OK")
}

// Revoked between commands, a client is told; in the middle of a message, it is cut.
func TestPOP3Revoked(t *testing.T) {
	t.Parallel()
	p := pop(t, testlab.Dovecot(t, testlab.POP3()), "")
	p.dovecot.Deliver(alice, "INBOX", testlab.Attachment(20<<20))
	idle, reading, deleting := p.connect().logIn(alice, p.app.Secret), p.connect().logIn(alice, p.app.Secret), p.connect().logIn(alice, p.app.Secret)
	reading.wants("RETR 1", "+OK")
	deleting.wants("DELE 1", "+OK")
	p.cli(p.config, "password", "revoke", fmt.Sprint(p.app.ID))
	committed := time.Now()
	eventually(t, "the sessions have ended", func() bool { return strings.Count(p.Output(), "session ended") == 3 })
	if took := time.Since(committed); took > time.Second {
		t.Errorf("they ended %v after the revocation", took)
	}
	for name, k := range map[string]*popper{"idle": idle, "with a message to be deleted": deleting} {
		if got := k.rest(); got != "-ERR [SYS/TEMP] This app password was revoked.\r\n" {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := reading.rest(); strings.Contains(got, "-ERR") || len(got) > 20<<20 {
		t.Errorf("%d bytes of a message, with a goodbye in it", len(got))
	}
	k := p.connect()
	k.wants("USER "+alice, "+OK")
	k.wants("PASS "+p.app.Secret, "-ERR [AUTH]")
	p.app = p.password(p.config, alice, "--scopes", "pop")
	p.connect().logIn(alice, p.app.Secret).wants("STAT", "+OK 1 ") // nobody has said QUIT
}

// A gateway that is told to stop lets who reads a message read it to its end.
func TestPOP3Drain(t *testing.T) {
	t.Parallel()
	p := pop(t, testlab.Dovecot(t, testlab.POP3()), "")
	big := testlab.Attachment(5 << 20)
	p.dovecot.Deliver(alice, "INBOX", big)
	idle, reading, before := p.connect().logIn(alice, p.app.Secret), p.connect().logIn(alice, p.app.Secret), p.connect()
	before.wants("USER "+alice, "+OK")
	reading.wants("RETR 1", "+OK")
	p.Signal(syscall.SIGTERM)
	const goodbye = "-ERR [SYS/TEMP] Shutting down; please connect again.\r\n"
	for name, k := range map[string]*popper{"idle": idle, "before the login": before} {
		if got := k.rest(); got != goodbye {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := reading.rest(); got != string(big)+".\r\n"+goodbye {
		t.Errorf("in a message: %d bytes that end in %q", len(got), got[max(0, len(got)-80):])
	}
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A backend that dies at whichever byte of its answers is never taken for one that refuses a password.
func TestPOP3BackendDiesAtEachByte(t *testing.T) {
	t.Parallel()
	dovecot := testlab.Dovecot(t, testlab.POP3())
	dovecot.Deliver(alice, "INBOX", testlab.Attachment(1<<20))
	c := newCut(t, dovecot.POP3)
	p := pop(t, dovecot, c.address)
	const login = len("+OK [XCLIENT] Dovecot ready.\r\n+OK Updated\r\n+OK Logged in.\r\n") + 40 // and whatever Dovecot adds
	in := false
	for _, at := range append(upTo(login), 10_000, 500_000) {
		c.after <- at
		k := p.connect()
		k.wants("USER "+alice, "+OK")
		got := k.wants("PASS "+p.app.Secret, "")
		switch {
		case got == "+OK Logged in.":
			in = true
			fmt.Fprint(k, "RETR 1\r\n")
			if rest := k.rest(); strings.Contains(rest, "\r\n-ERR") || strings.HasSuffix(rest, "\r\n.\r\n") {
				t.Errorf("cut after %d bytes: a message that ends in %q", at, rest[max(0, len(rest)-80):])
			}
		case got != "-ERR [SYS/TEMP] Account is temporarily unavailable." || in:
			t.Errorf("cut after %d bytes: %q", at, got)
		}
	}
	if !in {
		t.Error("no login went well")
	}
}

func upTo(n int) (list []int) {
	for i := range n {
		list = append(list, i)
	}
	return list
}

// cut stands between a gateway and its backend, and hangs up on both after so many bytes of the backend's.
type cut struct {
	address string
	after   chan int // of the next connection that asks for a login; empty: never
}

func newCut(t *testing.T, backend string) *cut {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	c := &cut{address: ln.Addr().String(), after: make(chan int, 1)}
	go func() {
		for {
			gateway, err := ln.Accept()
			if err != nil {
				return
			}
			go c.carry(gateway, backend)
		}
	}()
	return c
}

func (c *cut) carry(gateway net.Conn, backend string) {
	defer gateway.Close()
	to, err := net.Dial("tcp", backend)
	if err != nil {
		return
	}
	defer to.Close()
	go io.Copy(to, gateway)
	select {
	case n := <-c.after:
		io.CopyN(gateway, to, int64(n))
	default:
		io.Copy(gateway, to)
	}
}
