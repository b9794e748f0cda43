package acceptance

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/internal/testlab"
)

// Mail programs with an app password that may only read find a read-only mailbox: they read all of it, what they try to change is
// refused in a way that they understand, and Dovecot's files are byte for byte the same afterwards.
func TestReadOnlyMail(t *testing.T) {
	t.Parallel()
	s, dovecot, g := mail(t)
	r := &reader{site: s, gateway: g, dovecot: dovecot, secret: s.password(g.config, alice, "--for", "mail-read").Secret}
	for _, m := range testlab.Mails() {
		dovecot.Deliver(alice, "INBOX", m)
	}
	dovecot.Deliver(alice, "Archive", testlab.Mails()[0])
	asOwner(t, dovecot, "SELECT Archive", "SELECT INBOX", "STORE 1 +FLAGS (\\Flagged)", "STORE 2 +FLAGS (\\Answered \\Seen)", "SUBSCRIBE INBOX", "SETMETADATA INBOX (/private/comment \"mine\")")
	r.mailbox(t) // makes Dovecot's own files
	before := r.mailbox(t)
	for _, want := range []string{":2,F\n", ":2,RS\n", "/subscriptions\n", "/dovecot-uidlist\n", "UIDVALIDITY", "HIGHESTMODSEQ", "mine)"} {
		if !strings.Contains(before, want) {
			t.Fatalf("%q is not among what is compared:\n%s", want, before)
		}
	}
	for name, use := range map[string]func(*testing.T, *reader){
		"imapclient": useImapclient, "mbsync": useMbsync, "neomutt": useNeomutt, "curl": useCurl, "imaplib": useImaplib,
	} {
		t.Run(name, func(t *testing.T) {
			use(t, r)
			if after := r.mailbox(t); after != before {
				t.Errorf("the mailbox has changed; now there is\n%s\nand before there was\n%s", lacks(before, after), lacks(after, before))
			}
		})
	}
}

// reader is who may only read.
type reader struct {
	*site
	gateway *gateway
	dovecot *testlab.DovecotServer
	secret  string
}

// asOwner says commands to Dovecot itself and returns the answers.
func asOwner(t *testing.T, d *testlab.DovecotServer, commands ...string) string {
	t.Helper()
	conn, err := net.Dial("tcp", d.IMAP)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	commands = append([]string{"AUTHENTICATE PLAIN " + base64.StdEncoding.EncodeToString([]byte(alice+"\x00"+d.MasterUser+"\x00"+d.MasterPassword))}, commands...)
	in := bufio.NewReader(conn)
	var told strings.Builder
	for i, command := range append(commands, "LOGOUT") {
		fmt.Fprintf(conn, "x%d %s\r\n", i, command)
		for tag := fmt.Sprintf("x%d ", i); ; {
			line, err := in.ReadString('\n')
			if err != nil {
				t.Fatalf("%s: %v", command, err)
			}
			if status, ok := strings.CutPrefix(line, tag); ok {
				if !strings.HasPrefix(status, "OK") {
					t.Fatalf("%s: %s", command, line)
				}
				break
			}
			if i > 0 {
				told.WriteString(line)
			}
		}
	}
	return told.String()
}

// measured is what Dovecot adds to its list of UIDs when somebody asks for sizes, and the next UID, which it brings up to date now and then.
var measured = regexp.MustCompile(` [WSN]\d+`)

// mailbox is all there is of alice's mail: each file with its name, which holds the flags, and what Dovecot tells of it.
func (r *reader) mailbox(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	home := filepath.Join(r.dovecot.Dir, "mail", alice)
	err := filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(d.Name(), "dovecot.") || strings.HasPrefix(d.Name(), "maildirsize"): // what it remembers of what was read
			return nil
		case d.IsDir():
			fmt.Fprintf(&all, "%s\n", path[len(home):])
			return nil
		}
		text, err := os.ReadFile(path)
		if d.Name() == "dovecot-uidlist" {
			text = measured.ReplaceAll(text, nil)
		}
		fmt.Fprintf(&all, "%s\n%x\n", path[len(home):], text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	commands := []string{`LIST "" *`, `LSUB "" *`, "GETMETADATA INBOX /private/comment", "GETQUOTAROOT INBOX", "GETACL INBOX"}
	for _, box := range []string{"INBOX", "Archive", "Drafts", "Junk", "Sent", "Trash"} {
		commands = append(commands, "STATUS "+box+" (MESSAGES UIDNEXT UIDVALIDITY UNSEEN HIGHESTMODSEQ)", "EXAMINE "+box, "UID FETCH 1:* (FLAGS MODSEQ INTERNALDATE)")
	}
	told := asOwner(t, r.dovecot, commands...)
	return all.String() + strings.ReplaceAll(told, " \\UnMarked", "") // which is so if it has been looked at
}

// lacks returns the lines that only the other has.
func lacks(one, other string) (lines string) {
	for line := range strings.Lines(other) {
		if !strings.Contains(one, line) {
			lines += line[:min(len(line), 200)]
		}
	}
	return lines
}

func useImapclient(t *testing.T, r *reader) {
	c := r.login(r.gateway, alice, r.secret)
	box, err := c.Select("INBOX", nil).Wait()
	if err != nil || int(box.NumMessages) != len(testlab.Mails()) || len(box.PermanentFlags) != 0 {
		t.Fatalf("SELECT: %+v, %v", box, err)
	}
	one := imap.SeqSetNum(1)
	wantIMAP(t, c.Store(one, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(), imap.ResponseCodeNoPerm)
	wantIMAP(t, c.Expunge().Close(), imap.ResponseCodeNoPerm)
	_, err = c.Copy(one, "Archive").Wait()
	wantIMAP(t, err, imap.ResponseCodeNoPerm)
	_, err = c.Move(one, "Archive").Wait()
	wantIMAP(t, err, imap.ResponseCodeNoPerm)
	wantIMAP(t, c.Create("new", nil).Wait(), imap.ResponseCodeNoPerm)
	wantIMAP(t, c.Delete("Archive").Wait(), imap.ResponseCodeNoPerm)
	wantIMAP(t, c.Subscribe("new").Wait(), imap.ResponseCodeNoPerm)
	found, err := c.Fetch(imap.SeqSetNum(3), &imap.FetchOptions{Flags: true, Envelope: true, BodySection: []*imap.FetchItemBodySection{{}}}).Collect()
	if err != nil || len(found) != 1 || slices.Contains(found[0].Flags, imap.FlagSeen) || len(found[0].BodySection[0].Bytes) < 100 {
		t.Errorf("what was read: %+v, %v", found, err)
	}
	// The client sends these as literals, without waiting.
	for _, text := range []string{"Grüße", "\"\r\nx DELETE Archive\r\n"} {
		if _, err := c.Search(&imap.SearchCriteria{Body: []string{text}}, nil).Wait(); err != nil {
			t.Errorf("search for %q: %v", text, err)
		}
	}
	idle, err := c.Idle()
	if err != nil {
		t.Fatal(err)
	}
	if err := idle.Close(); err != nil {
		t.Error(err)
	}
	if err := idle.Wait(); err != nil {
		t.Errorf("IDLE: %v", err)
	}
	w := c.Append("INBOX", 5, nil)
	io.WriteString(w, "hello")
	w.Close()
	_, err = w.Wait()
	wantIMAP(t, err, imap.ResponseCodeNoPerm)
	if err := c.UnselectAndExpunge().Wait(); err != nil { // CLOSE, which removes nothing after EXAMINE
		t.Errorf("CLOSE: %v", err)
	}
	if err := c.Logout().Wait(); err != nil {
		t.Errorf("LOGOUT: %v", err)
	}
}

// mbsync pulls; what it is told to push is refused, and it says so.
func useMbsync(t *testing.T, r *reader) {
	home := t.TempDir()
	rc := filepath.Join(home, "mbsyncrc")
	write := func(file, text string) {
		if err := os.WriteFile(filepath.Join(home, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("secret", r.secret)
	configure := func(sync string) {
		write("mbsyncrc", fmt.Sprintf("IMAPStore far\nHost localhost\nPort %s\nUser %s\nPassCmd \"cat %s/secret\"\nSSLType IMAPS\nCertificateFile %s\n\n"+
			"MaildirStore near\nPath %[3]s/mail/\nInbox %[3]s/mail/INBOX\n\nChannel all\nFar :far:\nNear :near:\nPatterns INBOX Archive\nCreate Near\nSync %[5]s\nExpunge Both\nSyncState *\n",
			port(r.gateway.IMAP), alice, home, r.ca.File, sync))
	}
	if err := os.MkdirAll(filepath.Join(home, "mail"), 0o700); err != nil {
		t.Fatal(err)
	}
	configure("Pull")
	for range 2 {
		testlab.Run(t, testlab.Command(t, "mbsync", "-c", rc, "-a"))
	}
	files, err := filepath.Glob(filepath.Join(home, "mail", "INBOX", "*", "*"))
	if err != nil || len(files) != len(testlab.Mails()) {
		t.Errorf("pulled %d of %d, %v", len(files), len(testlab.Mails()), err)
	}
	configure("All")
	if err := os.Rename(files[0], files[0]+"T"); err != nil { // deleted here
		t.Fatal(err)
	}
	write("mail/INBOX/new/1.1.test", "Subject: from the laptop\n\nHello\n")
	out, err := testlab.Command(t, "mbsync", "-c", rc, "-a").CombinedOutput()
	if n := strings.Count(string(out), "NO [NOPERM] This app password may only read."); n != 2 { // the exit code is up to its version
		t.Errorf("pushing: %v\n%s", err, out)
	}
}

// neomutt, by keys as its user presses them, each when it has shown what the one before does.
func useNeomutt(t *testing.T, r *reader) {
	testlab.Need(t, "script", "neomutt")
	rc := filepath.Join(t.TempDir(), "rc")
	text := fmt.Sprintf(`set folder = "imaps://localhost:%s/" spoolfile = "+INBOX" imap_user = "%s" imap_pass = "%s" ssl_ca_certificates_file = "%s"
set quit = yes delete = yes move = no confirm_append = no wait_key = no record = "" header_cache = "" mark_old = yes sleep_time = 0
bind index k first-entry
bind index Z sync-mailbox
bind pager q exit
`, port(r.gateway.IMAP), alice, r.secret, r.ca.File)
	if err := os.WriteFile(rc, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := testlab.Command(t, "script", "-qec", "neomutt -n -F "+rc, "/dev/null")
	cmd.Env = append(cmd.Env, "TERM=xterm", "LINES=40", "COLUMNS=120")
	keys, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	screen, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// When neomutt has shown an error it throws away what was pressed meanwhile, so this is pressed until it is heard. Besides, the same error is
	// not shown twice in a row.
	const hears = ":set ?from\r"
	shown := make([]byte, 0, 1<<20)
	for _, step := range []struct{ press, shows string }{
		{"", "-%-NeoMutt: +INBOX [Msgs:5"},
		{"kd", "Mailbox is read-only"},
		{hears, "from="},
		{"F", "Mailbox is read-only"},
		{hears, "from="},
		{"\r", "Minutes of Monday"},
		{"q", "NeoMutt: +INBOX [Msgs:5"},
		{"C\x15=Archive\r", "This app password may only read"},
		{hears, "from="},
		{"c\x15=Archive\r", "Archive [Msgs:1"},
	} {
		io.WriteString(keys, step.press)
		again := time.NewTicker(time.Second)
		heard := make(chan struct{})
		go func() {
			for step.press == hears {
				select {
				case <-again.C:
					io.WriteString(keys, step.press)
				case <-heard:
					return
				}
			}
		}()
		for from := len(shown); !strings.Contains(string(shown[from:]), step.shows); {
			n, err := screen.Read(shown[len(shown):cap(shown)])
			if shown = shown[:len(shown)+n]; err != nil {
				t.Fatalf("after %q, neomutt does not show %q: %v\n%s", step.press, step.shows, err, shown[from:])
			}
		}
		close(heard)
		again.Stop()
	}
	io.WriteString(keys, "q")
	io.Copy(io.Discard, screen)
	if err := cmd.Wait(); err != nil {
		t.Errorf("neomutt: %v", err)
	}
}

func useCurl(t *testing.T, r *reader) {
	netrc := filepath.Join(t.TempDir(), "netrc")
	if err := os.WriteFile(netrc, []byte(fmt.Sprintf("machine localhost login %s password %s\n", alice, r.secret)), 0o600); err != nil {
		t.Fatal(err)
	}
	curl := func(args ...string) (string, error) {
		out, err := testlab.Command(t, "curl", append([]string{"-sSv", "--cacert", r.ca.File, "--netrc-file", netrc}, args...)...).CombinedOutput()
		return string(out), err
	}
	url := "imaps://localhost:" + port(r.gateway.IMAP) + "/INBOX"
	if out, err := curl(url + ";MAILINDEX=3"); err != nil || !strings.Contains(out, "Subject:") {
		t.Errorf("reading: %v\n%s", err, out)
	}
	for what, args := range map[string][]string{
		"a flag":    {url, "-X", "STORE 1 +FLAGS \\Deleted"},
		"a message": {"-T", r.ca.File, url},
		"a mailbox": {url, "-X", "CREATE new"},
	} {
		if out, err := curl(args...); err == nil || !strings.Contains(out, "NO [NOPERM]") {
			t.Errorf("writing %s: %v\n%s", what, err, out)
		}
	}
}

// Python's imaplib has no idea of response codes, but of read-only mailboxes.
func useImaplib(t *testing.T, r *reader) {
	testlab.Need(t, "python3")
	out := testlab.Run(t, testlab.Command(t, "python3", "-c", `
import imaplib, ssl, sys
port, ca, user, secret = sys.argv[1:]
m = imaplib.IMAP4_SSL("localhost", int(port), ssl_context=ssl.create_default_context(cafile=ca))
m.login(user, secret)
try:
    m.select("INBOX")
    print("select: not told that it is read-only")
except m.readonly as e:
    print("select:", e)
print(m.select("INBOX", readonly=True))
print(m.fetch("3", "(FLAGS BODY[])")[0], m.search(None, "ALL"))
for what in (lambda: m.store("1", "+FLAGS", "\\Deleted"), lambda: m.append("INBOX", None, None, b"hello\r\n"), lambda: m.copy("1", "Archive"), lambda: m.expunge(), lambda: m.create("new")):
    try:
        print(what())
    except m.error as e:
        print("refused:", e)
print(m.close(), m.logout())
`, port(r.gateway.IMAP), r.ca.File, alice, r.secret))
	for _, want := range []string{"select: INBOX is not writable", "('OK', [b'5'])", "OK ('OK', [b'1 2 3 4 5'])"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if n := strings.Count(out, "('NO', [b'[NOPERM] This app password may only read.'])"); n != 5 {
		t.Errorf("%d of 5 writes were refused:\n%s", n, out)
	}
}
