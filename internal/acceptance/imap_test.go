package acceptance

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"

	"postern/internal/testlab"
)

func TestMailAppsWork(t *testing.T) {
	t.Parallel()
	s, dovecot, _ := full(t)
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	p := s.password(g.config, alice, "--for", "mail")

	t.Run("curl", func(t *testing.T) {
		netrc := filepath.Join(t.TempDir(), "netrc")
		os.WriteFile(netrc, []byte(fmt.Sprintf("machine localhost login %s password %s\n", alice, p.Secret)), 0o600)
		out := testlab.Run(t, testlab.Command(t, "curl", "-sS", "--cacert", s.ca.File, "--netrc-file", netrc, "imaps://localhost:"+port(g.IMAP)+"/"))
		if !strings.Contains(out, "INBOX") {
			t.Errorf("curl lists %q", out)
		}
		testlab.Run(t, testlab.Command(t, "curl", "-sS", "--cacert", s.ca.File, "--netrc-file", netrc, "--ssl-reqd", "imap://localhost:"+port(g.STARTTLS)+"/"))
	})
	t.Run("mechanisms", func(t *testing.T) {
		for name, client := range map[string]sasl.Client{
			"PLAIN":             sasl.NewPlainClient("", alice, p.Secret),
			"PLAIN, own name":   sasl.NewPlainClient(alice, alice, p.Secret),
			"LOGIN":             sasl.NewLoginClient(alice, strings.ReplaceAll(p.Secret, "-", "")),
			"PLAIN in capitals": sasl.NewPlainClient("", "Alice@Example.Test", strings.ToUpper(p.Secret)),
		} {
			if err := s.dial(g, nil).Authenticate(client); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("IDLE sees new mail", func(t *testing.T) {
		exists := make(chan uint32, 10)
		c := s.dial(g, &imapclient.Options{UnilateralDataHandler: &imapclient.UnilateralDataHandler{
			Mailbox: func(d *imapclient.UnilateralDataMailbox) {
				if d.NumMessages != nil {
					exists <- *d.NumMessages
				}
			}}})
		if err := c.Login(alice, p.Secret).Wait(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Select("INBOX", nil).Wait(); err != nil {
			t.Fatal(err)
		}
		idle, err := c.Idle()
		if err != nil {
			t.Fatal(err)
		}
		dovecot.Deliver(alice, "INBOX", testlab.Mails()[0])
		<-exists
		if err := errors.Join(idle.Close(), idle.Wait()); err != nil {
			t.Error(err)
		}
	})
	t.Run("mbsync both ways", func(t *testing.T) {
		for _, m := range testlab.Mails() {
			dovecot.Deliver(alice, "INBOX", m)
		}
		big := testlab.Attachment(3 << 20)
		dovecot.Deliver(alice, "Archive", big)
		home := t.TempDir()
		rc := filepath.Join(home, "mbsyncrc")
		os.WriteFile(filepath.Join(home, "secret"), []byte(p.Secret), 0o600)
		os.WriteFile(rc, []byte(fmt.Sprintf(`IMAPStore far
Host localhost
Port %s
User %s
PassCmd "cat %s/secret"
SSLType IMAPS
CertificateFile %s

MaildirStore near
Path %s/mail/
Inbox %[3]s/mail/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Expunge Both
SyncState *
`, port(g.IMAP), alice, home, s.ca.File, home)), 0o600)
		os.MkdirAll(filepath.Join(home, "mail"), 0o700)
		testlab.Run(t, testlab.Command(t, "mbsync", "-c", rc, "-a"))
		local := func(box string) []string {
			files, _ := filepath.Glob(filepath.Join(home, "mail", box, "*", "*"))
			return files
		}
		found := false
		for _, file := range local("Archive") {
			text, _ := os.ReadFile(file)
			crlf := []byte("\r\n")
			found = found || bytes.Contains(bytes.ReplaceAll(text, crlf, crlf[1:]), bytes.ReplaceAll(big[len(big)/2:], crlf, crlf[1:]))
		}
		if !found || len(local("INBOX")) < len(testlab.Mails()) {
			t.Errorf("synced: %d in INBOX, %v", len(local("INBOX")), local("Archive"))
		}
		if err := os.WriteFile(filepath.Join(home, "mail", "INBOX", "new", "1.1.test"), []byte("Subject: from the laptop\n\nHello\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		testlab.Run(t, testlab.Command(t, "mbsync", "-c", rc, "-a"))
		c := s.login(g, alice, p.Secret)
		if _, err := c.Select("INBOX", nil).Wait(); err != nil {
			t.Fatal(err)
		}
		hits, err := c.Search(&imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: "Subject", Value: "from the laptop"}}}, nil).Wait()
		if err != nil || len(hits.AllSeqNums()) != 1 {
			t.Errorf("found on the server: %v, %v", hits, err)
		}
	})
	t.Run("the backend's own extensions", func(t *testing.T) {
		c := s.login(g, alice, p.Secret)
		for _, want := range []imap.Cap{imap.CapIdle, imap.CapCondStore, imap.CapQResync, imap.CapMove, imap.CapMetadata, "NOTIFY", "COMPRESS=DEFLATE"} {
			if !c.Caps().Has(want) {
				t.Errorf("%s is missing from %v", want, c.Caps())
			}
		}
		for _, never := range []imap.Cap{imap.CapStartTLS, imap.CapLoginDisabled, "AUTH=PLAIN"} {
			if c.Caps().Has(never) {
				t.Errorf("%s after login", never)
			}
		}
	})
	t.Run("the primary password and the master's", func(t *testing.T) {
		for _, secret := range []string{testlab.Primary(alice), dovecot.MasterPassword} {
			wantIMAP(t, s.dial(g, nil).Login(alice, secret).Wait(), imap.ResponseCodeAuthenticationFailed)
		}
	})
	eventually(t, "the use is in the list", func() bool {
		return strings.Contains(s.cli(g.config, "password", "list", alice), "imap from 127.0.0.0/24")
	})
	if log := g.Output(); strings.Contains(log, p.Secret) || strings.Contains(log, strings.ReplaceAll(p.Secret, "-", "")) || strings.Contains(log, testlab.Primary(alice)) || strings.Contains(log, dovecot.MasterPassword) {
		t.Error("a secret stands in the log")
	}
}

func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// wantIMAP checks a refusal's response code.
func wantIMAP(t *testing.T, err error, want imap.ResponseCode) {
	t.Helper()
	e, ok := errors.AsType[*imap.Error](err)
	if !ok || e.Code != want {
		t.Errorf("answered %v, want NO [%s]", err, want)
	}
}

func TestIMAPRefusals(t *testing.T) {
	t.Parallel()
	s, dovecot, _ := full(t)
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	s.cli(g.config, "account", "add", "bob@example.test")
	calendar := s.password(g.config, alice, "--for", "calendar")
	elsewhere := s.password(g.config, alice, "--for", "mail", "--network", "192.0.2.0/24")
	good := s.password(g.config, alice, "--for", "mail")
	bobs := s.password(g.config, "bob@example.test", "--for", "mail")
	s.cli(g.config, "account", "suspend", "bob@example.test")
	for name, tt := range map[string]struct {
		login, secret string
		want          imap.ResponseCode
	}{
		"unknown name":       {"nobody@example.test", good.Secret, imap.ResponseCodeAuthenticationFailed},
		"wrong":              {alice, bobs.Secret, imap.ResponseCodeAuthenticationFailed},
		"no app password":    {alice, "letmein", imap.ResponseCodeAuthenticationFailed},
		"another scope":      {alice, calendar.Secret, imap.ResponseCodeNoPerm},
		"another network":    {alice, elsewhere.Secret, imap.ResponseCodeNoPerm},
		"suspended":          {"bob@example.test", bobs.Secret, imap.ResponseCodeContactAdmin},
		"suspended, guessed": {"bob@example.test", good.Secret, imap.ResponseCodeAuthenticationFailed},
	} {
		t.Run(name, func(t *testing.T) {
			wantIMAP(t, s.dial(g, nil).Login(tt.login, tt.secret).Wait(), tt.want)
		})
	}
	dovecot.Stop()
	wantIMAP(t, s.dial(g, nil).Login(alice, good.Secret).Wait(), imap.ResponseCodeUnavailable)
	dovecot.Start()
	s.login(g, alice, good.Secret)
}

func TestManyLoginsAtOnce(t *testing.T) {
	t.Parallel()
	s, _, _ := full(t)
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	p := s.password(g.config, alice, "--for", "mail")
	var all sync.WaitGroup
	for range 500 {
		all.Go(func() {
			c, err := imapclient.DialTLS(g.IMAP, &imapclient.Options{TLSConfig: s.tls()})
			if err != nil {
				t.Errorf("connect: %v", err)
				return
			}
			defer c.Close()
			if err := c.Login(alice, p.Secret).Wait(); err != nil {
				t.Errorf("login: %v", err)
				return
			}
			c.Logout().Wait()
		})
	}
	all.Wait()
}

func TestGarbageHarmsNobodyElse(t *testing.T) {
	t.Parallel()
	s, _, _ := full(t)
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	p := s.password(g.config, alice, "--for", "mail")
	c := s.login(g, alice, p.Secret)
	for _, address := range []string{g.IMAP, g.STARTTLS, strings.TrimPrefix(g.DAV, "https://")} {
		for _, garbage := range []string{
			"\x00\x00\x00\x00", strings.Repeat("A", 100_000), "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\r\n\r\n\r\n", "a LOGIN {99999999999}\r\n",
			"a AUTHENTICATE PLAIN " + strings.Repeat("A", 50_000) + "\r\n", "a STARTTLS\r\nb LOGIN x y\r\n", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
		} {
			for _, over := range []bool{false, true} {
				throw(s, address, garbage, over)
			}
		}
	}
	if err := c.Noop().Wait(); err != nil {
		t.Errorf("an open session: %v", err)
	}
	s.login(g, alice, p.Secret)
	if out := g.Output(); strings.Contains(out, "panic") {
		t.Errorf("a panic:\n%s", out)
	}
}

// throw sends bytes to a listener, over TLS or not, and reads until it has enough.
func throw(s *site, address, garbage string, overTLS bool) {
	conn, err := dialAny(s, address, overTLS)
	if err != nil {
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Second))
	conn.Write([]byte(garbage))
	buf := make([]byte, 4096)
	for {
		if _, err := conn.Read(buf); err != nil {
			return
		}
	}
}

// An alias is another name of the account, and opens the account's own mailbox.
func TestAnAliasOpensTheAccountsOwnMailbox(t *testing.T) {
	t.Parallel()
	s, dovecot, radicale := full(t)
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	s.cli(g.config, "account", "alias", "add", alice, testlab.Bob)
	p := s.password(g.config, alice, "--for", "everything")
	dovecot.Deliver(alice, "INBOX", []byte("Subject: for alice\r\n\r\nHello\r\n"))
	c := s.login(g, testlab.Bob, p.Secret)
	box, err := c.Select("INBOX", nil).Wait()
	if err != nil || box.NumMessages != 1 {
		t.Errorf("alice's INBOX by her alias: %+v, %v", box, err)
	}
	radicale.MakeCalendar(alice, "of-alice")
	if code, text, _ := s.do(g, testlab.Bob, p.Secret, "PROPFIND", "/dav/cal/"+s.publicID(g)+"/", "", "Depth", "1"); code != 207 || !strings.Contains(text, "of-alice") {
		t.Errorf("alice's calendars by her alias: %d %s", code, text)
	}
}

// A mailbox of which only the account's own password is known, kept sealed, also under a root key that was added while the gateway ran.
func TestStoredCredentials(t *testing.T) {
	t.Parallel()
	s, _, _ := full(t)
	s.backend = strings.Replace(s.backend, `credential = "master"`, `credential = "stored"`, 1)
	s.backend = regexp.MustCompile(`(?m)^(user|password_file) = .*\n`).ReplaceAllString(s.backend, "")
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	p := s.password(g.config, alice, "--for", "mail")
	wantIMAP(t, s.dial(g, nil).Login(alice, p.Secret).Wait(), imap.ResponseCodeUnavailable)
	file := filepath.Join(s.dir, "alice.password")
	if err := os.WriteFile(file, []byte(testlab.Primary(alice)+"\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	store := func() {
		s.cli(g.config, "account", "credential", alice, "--backend", "dovecot", "--password-file", file)
	}
	store()
	s.login(g, alice, p.Secret)
	s.cli(g.config, "key", "add")
	g.reload(`"msg":"reloaded"`)
	store()
	s.login(g, alice, p.Secret)
	if database, err := os.ReadFile(filepath.Join(s.dir, "postern.db-wal")); err != nil || bytes.Contains(database, []byte(testlab.Primary(alice))) {
		t.Errorf("the stored password stands in the database: %v", err)
	}
}

// A client in IDLE is told that its app password was revoked.
func TestRevokedInIdle(t *testing.T) {
	t.Parallel()
	s, _, _ := full(t)
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	p := s.password(g.config, alice, "--for", "mail")
	r := s.idle(g, alice, p.Secret)
	s.cli(g.config, "password", "revoke", fmt.Sprint(p.ID))
	if rest, err := io.ReadAll(r); err != nil || string(rest) != "* BYE [EXPIRED] This app password was revoked.\r\n" {
		t.Errorf("got %q, %v", rest, err)
	}
}

// One whose account is suspended is not told that its app password was revoked, for it is not; and one whose account got another name
// at the backend may come back.
func TestSuspendedInIdle(t *testing.T) {
	t.Parallel()
	s, _, _ := full(t)
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	p := s.password(g.config, alice, "--for", "mail")
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"backend-name", alice, alice}, "* BYE [UNAVAILABLE] The session was ended; please connect again.\r\n"},
		{[]string{"suspend", alice}, "* BYE [CONTACTADMIN] This account was suspended or removed.\r\n"},
	} {
		r := s.idle(g, alice, p.Secret)
		s.cli(g.config, append([]string{"account"}, tt.args...)...)
		if rest, err := io.ReadAll(r); err != nil || string(rest) != tt.want {
			t.Errorf("%q: got %q, %v", tt.args, rest, err)
		}
	}
}

// idle logs in and starts IDLE. What comes afterwards can be read.
func (s *site) idle(g *gateway, address, secret string) io.Reader {
	s.t.Helper()
	conn, err := dialAny(s, g.IMAP, true)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(conn, "a LOGIN %s %s\r\nb SELECT INBOX\r\nc IDLE\r\n", address, secret)
	r := bufio.NewReader(conn)
	for line := ""; line != "+ idling\r\n"; {
		if line, err = r.ReadString('\n'); err != nil {
			s.t.Fatal(err)
		}
	}
	return r
}
