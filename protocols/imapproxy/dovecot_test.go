package imapproxy_test

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"

	"postern/authstore"
	"postern/gateway/live"
	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/doortest"
	"postern/protocols/imapproxy"
)

// message is a mail with a subject.
func message(subject string) string {
	return "From: bob@example.test\r\nTo: alice@example.test\r\nSubject: " + subject + "\r\nDate: Tue, 24 Nov 2026 12:00:00 +0000\r\n\r\nHello.\r\n"
}

func TestDovecot(t *testing.T) {
	t.Parallel()
	dovecot := testlab.Dovecot(t)
	t.Run("ways to log in", func(t *testing.T) { t.Parallel(); testWaysIn(t, dovecot) })
	t.Run("protection", func(t *testing.T) { t.Parallel(); testProtection(t, dovecot) })
	t.Run("client address", func(t *testing.T) { t.Parallel(); testClientAddress(t, dovecot) })
	t.Run("stored password", func(t *testing.T) { t.Parallel(); testStoredPassword(t, dovecot) })
	t.Run("wrong master password", func(t *testing.T) { t.Parallel(); testWrongMaster(t, dovecot) })
	t.Run("extensions", func(t *testing.T) { t.Parallel(); testExtensions(t, dovecot) })
	t.Run("compress", func(t *testing.T) { t.Parallel(); testCompress(t, dovecot) })
	t.Run("compress refused", func(t *testing.T) { t.Parallel(); testNoCompress(t, dovecot) })
	t.Run("named after the login", func(t *testing.T) { t.Parallel(); testNamedAfterTheLogin(t, dovecot) })
	t.Run("imapclient", func(t *testing.T) { t.Parallel(); testClient(t, dovecot) })
	t.Run("curl", func(t *testing.T) { t.Parallel(); testCurl(t, dovecot) })
	t.Run("second login", func(t *testing.T) { t.Parallel(); testSecondLogin(t, dovecot) })
	t.Run("read only", func(t *testing.T) { t.Parallel(); testReadOnly(t, dovecot) })
	t.Run("revoked in FETCH", func(t *testing.T) { t.Parallel(); testRevokedInFetch(t, dovecot) })
	t.Run("revoked in IDLE", func(t *testing.T) { t.Parallel(); testRevokedInIdle(t, dovecot) })
}

// Whichever way a client logs in, its own words behind the login reach the backend.
func testWaysIn(t *testing.T, dovecot *testlab.DovecotServer) {
	const name, secret = testlab.Alice, doortest.AppPassword
	ways := map[string]string{
		"LOGIN":              fmt.Sprintf("a LOGIN %s %s\r\n", name, secret),
		"LOGIN, quoted":      fmt.Sprintf("a LOGIN \"%s\" \"%s\"\r\n", name, secret),
		"LOGIN, literals":    fmt.Sprintf("a LOGIN {%d}\r\n%s {%d}\r\n%s\r\n", len(name), name, len(secret), secret),
		"LOGIN, literals+":   fmt.Sprintf("a LOGIN {%d+}\r\n%s {%d+}\r\n%s\r\n", len(name), name, len(secret), secret),
		"PLAIN":              fmt.Sprintf("a AUTHENTICATE PLAIN\r\n%s\r\n", b64("\x00"+name+"\x00"+secret)),
		"PLAIN with IR":      fmt.Sprintf("a AUTHENTICATE PLAIN %s\r\n", b64("\x00"+name+"\x00"+secret)),
		"LOGIN mech.":        fmt.Sprintf("a AUTHENTICATE LOGIN\r\n%s\r\n%s\r\n", b64(name), b64(secret)),
		"LOGIN mech. and IR": fmt.Sprintf("a AUTHENTICATE LOGIN %s\r\n%s\r\n", b64(name), b64(secret)),
		"after a failure":    fmt.Sprintf("x LOGIN %s wrong\r\na LOGIN %s %s\r\n", name, name, secret),
	}
	for _, security := range []protocols.Security{protocols.PlainText, protocols.StartTLS, protocols.ImplicitTLS} {
		for _, quirks := range []protocols.Quirks{{}, {NoPipelining: true}, {NoClientID: true}} {
			d := newDoor(t, toDovecot(dovecot, security, func(r *protocols.Route) { r.Quirks = quirks }))
			for way, words := range ways {
				t.Run(fmt.Sprint(way, security, quirks), func(t *testing.T) {
					k := d.Dial(t)
					k.Send("0 ID (\"name\" \"Thunderbird\" \"version\" \"140\")\r\n%sb NOOP\r\nc CAPABILITY\r\nd LOGOUT\r\n", words)
					before := k.Until("a")
					_, list, _ := strings.Cut(before, "a OK [CAPABILITY ")
					list, _, ok := strings.Cut(list, "] Logged in.")
					if !ok {
						t.Fatalf("got %q", before)
					}
					if got := k.Until("b"); !strings.HasPrefix(got, "b OK NOOP") {
						t.Errorf("got %q", got)
					}
					if got := k.Until("c"); !strings.HasPrefix(got, "* CAPABILITY "+list+"\n") {
						t.Errorf("told %q, Dovecot says %q", list, got)
					}
					if got := k.Until("d"); !strings.Contains(got, "* BYE Logging out") {
						t.Errorf("got %q", got)
					}
					if got := k.Rest(); got != "" {
						t.Errorf("then %q", got)
					}
					k.Close()
				})
			}
		}
	}
}

func testProtection(t *testing.T, dovecot *testlab.DovecotServer) {
	for name, security := range map[string]protocols.Security{"implicit": protocols.ImplicitTLS, "starttls": protocols.StartTLS} {
		d := newDoor(t, toDovecot(dovecot, protocols.ImplicitTLS), doortest.OverTLS(t, security))
		k := d.Dial(t)
		if name == "starttls" {
			k.Line()
			k.Send("s STARTTLS\r\n")
			k.Until("s")
		}
		k = k.OverTLS(d.Trust())
		k.Send("a LOGIN %s %s\r\nb SELECT INBOX\r\n", testlab.Bob, doortest.AppPassword)
		if got := k.Until("b"); !strings.Contains(got, "\nb OK [READ-WRITE]") {
			t.Errorf("%s: got %q", name, got)
		}
		k.Send("c LOGOUT\r\n")
		k.Rest() // ends with TLS's own end
		k.Close()
		if e := <-d.Endings; !e.TLS || e.Reason != "backend closed" || e.Up == 0 || e.Down == 0 {
			t.Errorf("%s: ended %+v", name, e)
		}
	}
	d := newDoor(t, toDovecot(dovecot, protocols.ImplicitTLS, func(r *protocols.Route) {
		r.TLS = &tls.Config{RootCAs: testlab.NewCA(t).Pool} // which did not sign Dovecot's certificate
	}))
	k := d.Dial(t)
	k.Line()
	k.Send("a LOGIN %s %s\r\n", testlab.Alice, doortest.AppPassword)
	if got := k.Line(); got != "a NO [UNAVAILABLE] Account is temporarily unavailable." {
		t.Errorf("with a backend of unknown authority: %q", got)
	}
}

func testClientAddress(t *testing.T, dovecot *testlab.DovecotServer) {
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS))
	nc, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 5)}}).Dial("tcp", d.Addr)
	if err != nil {
		t.Fatal(err)
	}
	k := doortest.Talk(t, nc)
	k.Send("a LOGIN %s %s\r\n", testlab.Carol, doortest.AppPassword)
	k.Until("a")
	e := <-d.Logins
	if !strings.Contains(dovecot.Log(), "rip=127.0.0.5") || e.Client.Addr().String() != "127.0.0.5" {
		t.Errorf("Dovecot was not told the address of %v", e.Client)
	}
	k.Send("b LOGOUT\r\n")
	k.Rest()
}

func testStoredPassword(t *testing.T, dovecot *testlab.DovecotServer) {
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS, func(r *protocols.Route) {
		r.Open = func(context.Context) (protocols.Credential, error) {
			return protocols.Credential{Authcid: r.Login, Password: []byte(testlab.Primary(r.Login))}, nil
		}
	}))
	k := d.Dial(t)
	k.Send("a LOGIN %s %s\r\nb SELECT INBOX\r\n", testlab.Alice, doortest.AppPassword)
	if got := k.Until("b"); !strings.Contains(got, "\nb OK") {
		t.Errorf("got %q", got)
	}
}

type syncBuffer struct {
	mu sync.Mutex // guards b
	b  strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// A backend that refuses the gateway is the operator's trouble: the app is told to come again, as often as it likes.
func testWrongMaster(t *testing.T, dovecot *testlab.DovecotServer) {
	for name, password := range map[string]string{"wrong": "wrong", "empty": ""} {
		var log syncBuffer
		d := newDoor(t, toDovecot(dovecot, protocols.StartTLS, func(r *protocols.Route) {
			r.Open = func(context.Context) (protocols.Credential, error) {
				return protocols.Credential{Authzid: r.Login, Authcid: dovecot.MasterUser, Password: []byte(password)}, nil
			}
		}), func(d *doortest.Door) { d.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		k := d.Dial(t)
		k.Line()
		for range 4 {
			k.Send("a LOGIN %s %s\r\n", testlab.Alice, doortest.AppPassword)
			if got := k.Line(); got != "a NO [UNAVAILABLE] Account is temporarily unavailable." {
				t.Errorf("%s: got %q", name, got)
			}
		}
		if name == "wrong" && !strings.Contains(log.String(), "level=ERROR msg=\"the backend refused the gateway's login\"") {
			t.Errorf("not logged loudly: %s", &log)
		}
		if strings.Contains(log.String(), "wrong\"") || strings.Contains(log.String(), b64("\x00")) {
			t.Errorf("the log holds the credential: %s", &log)
		}
		if n := d.sessions.Count(); n != 0 {
			t.Errorf("%d sessions entered", n)
		}
	}
}

// Every extension that the backend has works, for its words are the client's.
func testExtensions(t *testing.T, dovecot *testlab.DovecotServer) {
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS))
	k := d.Dial(t)
	k.Send("a LOGIN %s %s\r\n", testlab.Bob, doortest.AppPassword)
	k.Until("a")
	mail := message("append")
	for _, command := range []string{
		"ENABLE QRESYNC",
		"CREATE Lists",
		fmt.Sprintf("APPEND Lists (\\Seen) {%d+}\r\n%s", len(mail), mail),
		"SELECT Lists (CONDSTORE)",
		"UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1)",
		"SEARCH RETURN (MIN MAX COUNT) ALL",
		"UID SORT (DATE) UTF-8 ALL",
		"THREAD REFERENCES UTF-8 ALL",
		"GETQUOTAROOT Lists",
		"MYRIGHTS Lists",
		"GETMETADATA \"\" /shared/comment",
		"LIST (SPECIAL-USE) \"\" \"*\" RETURN (SPECIAL-USE STATUS (MESSAGES HIGHESTMODSEQ))",
		"NOTIFY SET (SELECTED (MESSAGENEW MESSAGEEXPUNGE))",
		"UID MOVE 1 Trash",
	} {
		k.Send("x %s\r\n", command)
		if got := k.Until("x"); !strings.Contains("\n"+got, "\nx OK") {
			t.Errorf("%s: got %q", command, got)
		}
	}
	k.Send("y SELECT INBOX\r\n")
	k.Until("y")
	k.Send("z IDLE\r\n")
	if got := k.Line(); got != "+ idling" {
		t.Fatalf("IDLE: %q", got)
	}
	dovecot.Deliver(testlab.Bob, "INBOX", []byte(message("idle")))
	for !strings.HasSuffix(k.Line(), " EXISTS") {
	}
	k.Send("DONE\r\n")
	k.Until("z")
}

func testCompress(t *testing.T, dovecot *testlab.DovecotServer) {
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS), doortest.OverTLS(t, protocols.ImplicitTLS))
	k := d.Dial(t).OverTLS(d.Trust())
	k.Send("a LOGIN %s %s\r\nb COMPRESS DEFLATE\r\n", testlab.Alice, doortest.AppPassword)
	if got := k.Until("b"); !strings.Contains(got, "\nb OK") {
		t.Fatalf("got %q", got)
	}
	deflate, _ := flate.NewWriter(k.Conn, flate.DefaultCompression)
	io.WriteString(deflate, "c NOOP\r\n")
	deflate.Flush()
	line, err := bufio.NewReader(flate.NewReader(k.R)).ReadString('\n')
	if !strings.HasPrefix(line, "c OK") {
		t.Errorf("got %q, %v", line, err)
	}
	began := time.Now()
	d.sessions.Review(1, func(authstore.Grant) error { return errors.New("revoked") })
	rest, _ := io.ReadAll(k.R)
	if len(rest) > 0 || time.Since(began) > 500*time.Millisecond {
		t.Errorf("revoked, a session that compresses is told %q, and ends after %v", rest, time.Since(began))
	}
	if e := <-d.Endings; e.Reason != "revoked" {
		t.Errorf("ended %+v", e)
	}
}

// Where goodbyes matter more than bytes.
func testNoCompress(t *testing.T, dovecot *testlab.DovecotServer) {
	d := newDoor(t, toDovecot(dovecot, protocols.PlainText), func(d *doortest.Door) { d.Server.Door = imapproxy.Door{NoCompress: true} })
	k := d.Dial(t)
	k.Line()
	k.Send("a LOGIN %s %s\r\nb COMPRESS DEFLATE\r\nc NOOP\r\n", testlab.Alice, doortest.AppPassword)
	if got := k.Until("a"); strings.Contains(got, "COMPRESS") || !strings.Contains(got, "CONDSTORE") {
		t.Errorf("offered %q", got)
	}
	if got := k.Until("c"); !strings.Contains(got, "b NO [CANNOT] No compression here.") {
		t.Errorf("got %q", got)
	}
}

// Most apps say who they are when they are in.
func testNamedAfterTheLogin(t *testing.T, dovecot *testlab.DovecotServer) {
	d := newDoor(t, toDovecot(dovecot, protocols.PlainText))
	k := d.Dial(t)
	k.Line()
	k.Send("a LOGIN %s %s\r\nb ID (\"name\" \"Apple Mail\" \"version\" \"16.0\")\r\nc ID (\"name\" \"Apple Mail\" \"version\" \"16.0\")\r\n", testlab.Alice, doortest.AppPassword)
	if got := k.Until("c"); !strings.Contains(got, "b OK") {
		t.Errorf("got %q", got)
	}
	if list := d.sessions.List(live.Selection{}); len(list) != 1 || list[0].App != "Apple Mail 16.0" || list[0].Backend != doortest.Backend {
		t.Errorf("sessions: %+v", list)
	}
	k.Close()
	if e := <-d.Endings; e.App != "Apple Mail 16.0" {
		t.Errorf("ended: %+v", e)
	}
	if named := <-d.Named; named.App != "Apple Mail 16.0" || len(d.Named) != 0 || len(d.Uses) != 1 {
		t.Errorf("named %+v and %d times more, used %d times", named, len(d.Named), len(d.Uses))
	}
}

// go-imap's client is the conformance client: it parses all that it gets and stops at what it does not know.
func testClient(t *testing.T, dovecot *testlab.DovecotServer) {
	d := newDoor(t, toDovecot(dovecot, protocols.ImplicitTLS), doortest.OverTLS(t, protocols.ImplicitTLS))
	arrived := make(chan uint32, 10)
	c, err := imapclient.DialTLS(d.Addr, &imapclient.Options{TLSConfig: d.Trust(), UnilateralDataHandler: &imapclient.UnilateralDataHandler{
		Mailbox: func(data *imapclient.UnilateralDataMailbox) {
			if data.NumMessages != nil {
				arrived <- *data.NumMessages
			}
		}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.ID(&imap.IDData{Name: "go-imap", Version: "2"}).Wait(); err != nil {
		t.Errorf("ID: %v", err)
	}
	err = c.Login(testlab.Carol, "wrong").Wait()
	if refused, ok := errors.AsType[*imap.Error](err); !ok || refused.Code != imap.ResponseCodeAuthenticationFailed {
		t.Errorf("wrong password: %v", err)
	}
	if err := c.Authenticate(sasl.NewPlainClient("", testlab.Carol, doortest.AppPassword)); err != nil {
		t.Fatalf("AUTHENTICATE: %v", err)
	}
	if !c.Caps().Has(imap.CapCondStore) || c.Caps().Has(imap.CapStartTLS) {
		t.Errorf("capabilities %v", c.Caps())
	}
	mail := message("imapclient")
	w := c.Append("INBOX", int64(len(mail)), nil)
	io.WriteString(w, mail)
	w.Close()
	if _, err := w.Wait(); err != nil {
		t.Fatalf("APPEND: %v", err)
	}
	box, err := c.Select("INBOX", nil).Wait()
	if err != nil || box.NumMessages == 0 {
		t.Fatalf("SELECT: %+v, %v", box, err)
	}
	section := &imap.FetchItemBodySection{}
	fetched, err := c.Fetch(imap.SeqSetNum(box.NumMessages), &imap.FetchOptions{Envelope: true, BodySection: []*imap.FetchItemBodySection{section}}).Collect()
	if err != nil || len(fetched) != 1 || string(fetched[0].FindBodySection(section)) != mail || fetched[0].Envelope.Subject != "imapclient" {
		t.Fatalf("FETCH: %+v, %v", fetched, err)
	}
	idle, err := c.Idle()
	if err != nil {
		t.Fatal(err)
	}
	dovecot.Deliver(testlab.Carol, "INBOX", []byte(message("while idle")))
	for n := range arrived {
		if n > box.NumMessages {
			break
		}
	}
	if err := errors.Join(idle.Close(), idle.Wait(), c.Logout().Wait()); err != nil {
		t.Errorf("end: %v", err)
	}
	if use := <-d.Uses; use.App != "go-imap 2" || use.Protocol != "imap" || len(d.Uses) != 0 {
		t.Errorf("used %+v, and %d times more", use, len(d.Uses))
	}
	if n := len(d.Named); n != 0 {
		t.Errorf("a login whose app was known was named %d times", n)
	}
}

func testCurl(t *testing.T, dovecot *testlab.DovecotServer) {
	testlab.Need(t, "curl")
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS), doortest.OverTLS(t, protocols.ImplicitTLS))
	cmd := testlab.Command(t, "curl", "--silent", "--show-error", "--cacert", d.CA.File, "--user", testlab.Alice+":"+doortest.AppPassword,
		"imaps://"+d.Addr+"/", "--request", "LIST \"\" *")
	if got := testlab.Run(t, cmd); !strings.Contains(got, "INBOX") {
		t.Errorf("got %q", got)
	}
}

func testRevokedInIdle(t *testing.T, dovecot *testlab.DovecotServer) {
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS), doortest.OverTLS(t, protocols.ImplicitTLS))
	k := d.Dial(t).OverTLS(d.Trust())
	k.Send("a LOGIN %s %s\r\nb SELECT INBOX\r\nc IDLE\r\n", testlab.Alice, doortest.AppPassword)
	for k.Line() != "+ idling" {
	}
	revoked := errors.New("revoked")
	gone := d.sessions.Review(1, func(authstore.Grant) error { return revoked })
	if rest, err := io.ReadAll(k.R); err != nil || string(rest) != "* BYE [UNAVAILABLE] The session was ended; please connect again.\r\n" {
		t.Errorf("got %q, %v", rest, err)
	}
	<-gone
	if e := <-d.Endings; e.Reason != "revoked" {
		t.Errorf("ended %+v", e)
	}
}

// A client in the middle of a long answer is told goodbye at the end of a response, or cut, but never in the middle of a message.
func testRevokedInFetch(t *testing.T, dovecot *testlab.DovecotServer) {
	for range 20 {
		dovecot.Deliver(testlab.Bob, "Long", testlab.Attachment(1<<20))
	}
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS))
	k := d.Dial(t)
	k.Send("a LOGIN %s %s\r\nb SELECT Long\r\nc FETCH 1:* BODY.PEEK[]\r\n", testlab.Bob, doortest.AppPassword)
	for !strings.Contains(k.Line(), "FETCH (BODY[] {") {
	}
	d.sessions.Review(1, func(authstore.Grant) error { return errors.New("revoked") })
	rest, _ := io.ReadAll(k.R)
	if i := bytes.Index(rest, []byte("* BYE [UNAVAILABLE]")); i >= 0 && !bytes.HasSuffix(rest[:i], []byte(")\r\n")) {
		t.Errorf("a goodbye inside a response, behind %q", rest[max(0, i-50):i])
	}
	if e := <-d.Endings; e.Reason != "revoked" {
		t.Errorf("ended %+v", e)
	}
}

func testSecondLogin(t *testing.T, dovecot *testlab.DovecotServer) {
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS))
	k := d.Dial(t)
	k.Send("a LOGIN %s %s\r\nb UNAUTHENTICATE\r\nc LOGIN {%d+}\r\n%s %s\r\nd AUTHENTICATE PLAIN\r\ne NOOP\r\n", testlab.Alice, doortest.AppPassword,
		len(testlab.Bob), testlab.Bob, testlab.Primary(testlab.Bob))
	k.Until("a")
	for _, want := range []string{"b NO [CANNOT] Close the connection instead.", "c BAD You are logged in already.", "d BAD You are logged in already."} {
		if got := k.Until(want[:1]); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := k.Until("e"); !strings.Contains(got, "e OK") {
		t.Errorf("got %q", got)
	}
}

// With an app password that may only read, everything can be read and nothing changes: the mailbox is byte for byte the same afterwards.
func testReadOnly(t *testing.T, dovecot *testlab.DovecotServer) {
	dovecot.Deliver(testlab.Carol, "ReadOnly", []byte(message("first")))
	dovecot.Deliver(testlab.Carol, "ReadOnly", []byte(message("second")))
	full := newDoor(t, toDovecot(dovecot, protocols.StartTLS))
	look := func() string {
		k := full.Dial(t)
		k.Send("a LOGIN %s %s\r\nb EXAMINE ReadOnly\r\nc FETCH 1:* (FLAGS BODY.PEEK[])\r\nd STATUS ReadOnly (MESSAGES UIDNEXT UNSEEN HIGHESTMODSEQ)\r\n"+
			"e LIST \"\" *\r\nf LSUB \"\" *\r\ng GETACL ReadOnly\r\nh LOGOUT\r\n", testlab.Carol, doortest.AppPassword)
		lines := strings.Split(regexp.MustCompile(` \([\d.+ ]+secs\)`).ReplaceAllString(k.Rest(), ""), "\n")
		slices.Sort(lines) // Dovecot may answer some of these at once
		return strings.Join(lines, "\n")
	}
	look() // which takes "recent" away
	before := look()
	if !strings.Contains(before, "Subject: second") || !strings.Contains(before, "* STATUS ReadOnly (") {
		t.Fatalf("looked at %q", before)
	}
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS))
	d.Verify = func(a authstore.Attempt) (authstore.Grant, error) {
		return authstore.Grant{Account: 1, Password: 12, Address: a.Login, Scopes: authstore.ScopeMailRead}, nil
	}
	k := d.Dial(t)
	k.Send("a LOGIN %s %s\r\n", testlab.Carol, doortest.AppPassword)
	if got := k.Until("a"); strings.Contains(got, "COMPRESS") || !strings.Contains(got, "IDLE") {
		t.Errorf("offered: %q", got)
	}
	k.Send("b SELECT ReadOnly (CONDSTORE)\r\n")
	if got := k.Until("b"); !strings.Contains(got, "b OK [READ-ONLY]") {
		t.Errorf("SELECT: %q", got)
	}
	for i, command := range []string{
		"STORE 1 +FLAGS (\\Deleted)", "UID STORE 1:* +FLAGS.SILENT (\\Seen)", "EXPUNGE", "UID EXPUNGE 1:*", "COPY 1 INBOX", "UID COPY 1 INBOX", "MOVE 1 INBOX",
		"UID MOVE 1 INBOX", "CREATE new", "DELETE Drafts", "RENAME Drafts x", "SUBSCRIBE ReadOnly", "UNSUBSCRIBE Drafts", "SETACL ReadOnly anyone lr", "DELETEACL ReadOnly anyone",
		"SETMETADATA ReadOnly (/private/comment \"x\")", "SETQUOTA \"\" (STORAGE 1)", "APPEND ReadOnly {5+}\r\nhello", "APPEND ReadOnly (\\Seen) {5}", "COMPRESS DEFLATE",
		"GENURLAUTH x INTERNAL", "RESETKEY", "REPLACE 1 ReadOnly {5+}\r\nhello", "XUNKNOWN",
	} {
		tag := fmt.Sprint("w", i)
		k.Send("%s %s\r\n", tag, command)
		if got := k.Until(tag); !strings.HasPrefix(got, tag+" NO [") {
			t.Errorf("%s: %q", command, got)
		}
	}
	for i, command := range []string{"FETCH 1:* (FLAGS BODY[])", "UID FETCH 1:* BODY[TEXT]", "SEARCH ALL", "SORT (DATE) UTF-8 ALL", "THREAD REFERENCES UTF-8 ALL",
		"STATUS INBOX (UNSEEN)", "LIST \"\" *", "NOOP", "CHECK", "CLOSE", "EXAMINE INBOX", "UNSELECT"} {
		tag := fmt.Sprint("r", i)
		k.Send("%s %s\r\n", tag, command)
		if got := k.Until(tag); !strings.Contains(got, tag+" OK") {
			t.Errorf("%s: %q", command, got)
		}
	}
	k.Send("s EXAMINE ReadOnly\r\nt UID SEARCH SUBJECT {5}\r\n")
	k.Until("+")
	k.Send("first\r\n")
	if got := k.Until("t"); !strings.Contains(got, "* SEARCH 1\n") {
		t.Errorf("a search with a literal: %q", got)
	}
	k.Send("z LOGOUT\r\n")
	k.Rest()
	if after := look(); after != before {
		t.Errorf("the mailbox has changed:\n%s\nbefore:\n%s", after, before)
	}
}

func TestDovecotStopsAndHangs(t *testing.T) {
	t.Parallel()
	dovecot := testlab.Dovecot(t)
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS))
	k := d.Dial(t)
	k.Line()
	login := fmt.Sprintf("a LOGIN %s %s\r\n", testlab.Alice, doortest.AppPassword)

	dovecot.Stop()
	for range 4 { // which costs the client nothing
		k.Send("%s", login)
		if got := k.Line(); got != "a NO [UNAVAILABLE] Account is temporarily unavailable." {
			t.Fatalf("stopped: %q", got)
		}
	}
	dovecot.Start()

	dovecot.Pause()
	impatient := d.Dial(t)
	impatient.Line()
	impatient.Send("%s", login)
	for d.Steps.Load() < 5 { // it is connected: the kernel accepts for a process that stands still
		runtime.Gosched()
	}
	impatient.Close()
	for {
		if e := <-d.Logins; errors.Is(e.Err, protocols.ErrClientGone) {
			break
		}
	}
	dovecot.Resume()

	k.Send("%sb SELECT INBOX\r\n", login)
	if got := k.Until("b"); !strings.Contains(got, "\nb OK") {
		t.Fatalf("back again: %q", got)
	}
	dovecot.Kill()
	if _, err := io.ReadAll(k.R); err != nil {
		t.Errorf("killed under a session: %v", err)
	}
	k.Close()
	if e := <-d.Endings; e.Reason != "backend closed" {
		t.Errorf("ended %+v", e)
	}
}

func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc")
	}
	return len(entries)
}

// Many log in at once, and nothing of them stays. It does not run beside others: it counts what the process has.
func TestManyLoginsLeaveNothing(t *testing.T) {
	dovecot := testlab.Dovecot(t)
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS), doortest.OverTLS(t, protocols.ImplicitTLS))
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	const many = 500
	var wg sync.WaitGroup
	for i := range many {
		wg.Go(func() {
			nc, err := tls.Dial("tcp", d.Addr, d.Trust())
			if err != nil {
				t.Error(err)
				return
			}
			defer nc.Close()
			user := []string{testlab.Alice, testlab.Bob, testlab.Carol}[i%3]
			fmt.Fprintf(nc, "a LOGIN %s %s\r\nb NOOP\r\nc LOGOUT\r\n", user, doortest.AppPassword)
			got, err := io.ReadAll(nc)
			if !strings.Contains(string(got), "\r\na OK [CAPABILITY ") || !strings.Contains(string(got), "\r\nc OK ") || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	wg.Wait()
	for range many {
		if e := <-d.Logins; e.Err != nil {
			t.Errorf("login: %v", e.Err)
		}
		<-d.Endings
	}
	if n := d.sessions.Count(); n != 0 {
		t.Errorf("%d sessions left", n)
	}
	d.Drain(nil)
	if err := <-d.Served; err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(30 * time.Second); runtime.NumGoroutine() >= goroutines || openFiles(t) >= files; {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("%d goroutines and %d files, before %d and %d\n%s", runtime.NumGoroutine(), openFiles(t), goroutines, files, stacks[:runtime.Stack(stacks, true)])
		}
		time.Sleep(time.Millisecond)
	}
}
