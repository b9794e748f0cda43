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
	"postern/protocols/imapproxy"
)

// message is a mail with a subject.
func message(subject string) string {
	return "From: bob@example.test\r\nTo: alice@example.test\r\nSubject: " + subject + "\r\nDate: Tue, 24 Nov 2026 12:00:00 +0000\r\n\r\nHello.\r\n"
}

// overTLS makes a door one for implicit TLS with a certificate of a new authority, and returns what trusts it.
func overTLS(t testing.TB) (func(*door), *tls.Config, *testlab.CA) {
	ca := testlab.NewCA(t)
	_, _, cert := ca.Issue()
	return func(d *door) {
			d.Security, d.TLS = protocols.ImplicitTLS, &tls.Config{Certificates: []tls.Certificate{cert}}
		},
		&tls.Config{RootCAs: ca.Pool, ServerName: "localhost"}, ca
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
	const name, secret = testlab.Alice, appPassword
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
			route := toDovecot(dovecot, security)
			d := newDoor(t, routerFunc(func(g authstore.Grant) (*protocols.Route, error) {
				r, err := route(g)
				r.Quirks = quirks
				return r, err
			}))
			for way, words := range ways {
				t.Run(fmt.Sprint(way, security, quirks), func(t *testing.T) {
					k := dialDoor(t, d)
					k.send("0 ID (\"name\" \"Thunderbird\" \"version\" \"140\")\r\n%sb NOOP\r\nc CAPABILITY\r\nd LOGOUT\r\n", words)
					before := k.until("a")
					_, list, _ := strings.Cut(before, "a OK [CAPABILITY ")
					list, _, ok := strings.Cut(list, "] Logged in.\n")
					if !ok {
						t.Fatalf("got %q", before)
					}
					if got := k.until("b"); got != "b OK NOOP completed (0.001 + 0.000 secs).\n" && !strings.HasPrefix(got, "b OK NOOP") {
						t.Errorf("got %q", got)
					}
					if got := k.until("c"); !strings.HasPrefix(got, "* CAPABILITY "+list+"\n") {
						t.Errorf("told %q, Dovecot says %q", list, got)
					}
					if got := k.until("d"); !strings.Contains(got, "* BYE Logging out") {
						t.Errorf("got %q", got)
					}
					if got := k.rest(); got != "" {
						t.Errorf("then %q", got)
					}
					k.Close()
				})
			}
		}
	}
}

func testProtection(t *testing.T, dovecot *testlab.DovecotServer) {
	implicit, trust, ca := overTLS(t)
	_, _, cert := ca.Issue()
	start := func(d *door) {
		d.Security, d.TLS = protocols.StartTLS, &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	for name, front := range map[string]func(*door){"implicit": implicit, "starttls": start} {
		d := newDoor(t, toDovecot(dovecot, protocols.ImplicitTLS), front)
		k := dialDoor(t, d)
		if name == "starttls" {
			k.line()
			k.send("s STARTTLS\r\n")
			k.until("s")
		}
		k = talk(t, tls.Client(k.Conn, trust))
		k.send("a LOGIN %s %s\r\nb SELECT INBOX\r\n", testlab.Bob, appPassword)
		if got := k.until("b"); !strings.Contains(got, "\nb OK [READ-WRITE]") {
			t.Errorf("%s: got %q", name, got)
		}
		k.send("c LOGOUT\r\n")
		k.rest() // ends with TLS's own end
		k.Close()
		if e := <-d.observer.ended; !e.TLS || e.Reason != "backend closed" || e.Up == 0 || e.Down == 0 {
			t.Errorf("%s: ended %+v", name, e)
		}
	}
	d := newDoor(t, routerFunc(func(g authstore.Grant) (*protocols.Route, error) {
		r, err := toDovecot(dovecot, protocols.ImplicitTLS)(g)
		r.TLS = &tls.Config{RootCAs: ca.Pool} // which did not sign Dovecot's certificate
		return r, err
	}))
	k := dialDoor(t, d)
	k.line()
	k.send("a LOGIN %s %s\r\n", testlab.Alice, appPassword)
	if got := k.line(); got != "a NO [UNAVAILABLE] Account is temporarily unavailable." {
		t.Errorf("with a backend of unknown authority: %q", got)
	}
}

func testClientAddress(t *testing.T, dovecot *testlab.DovecotServer) {
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS))
	nc, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 5)}}).Dial("tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	k := talk(t, nc)
	k.send("a LOGIN %s %s\r\n", testlab.Carol, appPassword)
	k.until("a")
	e := <-d.observer.logins
	if !strings.Contains(dovecot.Log(), "rip=127.0.0.5") || e.Client.Addr().String() != "127.0.0.5" {
		t.Errorf("Dovecot was not told the address of %v", e.Client)
	}
	k.send("b LOGOUT\r\n")
	k.rest()
}

func testStoredPassword(t *testing.T, dovecot *testlab.DovecotServer) {
	d := newDoor(t, routerFunc(func(g authstore.Grant) (*protocols.Route, error) {
		r, err := toDovecot(dovecot, protocols.StartTLS)(g)
		r.Open = func(context.Context) (protocols.Credential, error) {
			return protocols.Credential{Authcid: g.Address, Password: []byte(testlab.Primary(g.Address))}, nil
		}
		return r, err
	}))
	k := dialDoor(t, d)
	k.send("a LOGIN %s %s\r\nb SELECT INBOX\r\n", testlab.Alice, appPassword)
	if got := k.until("b"); !strings.Contains(got, "\nb OK") {
		t.Errorf("got %q", got)
	}
}

// A backend that refuses the gateway is the operator's trouble: the app is told to come again, as often as it likes.
func testWrongMaster(t *testing.T, dovecot *testlab.DovecotServer) {
	for name, password := range map[string]string{"wrong": "wrong", "empty": ""} {
		d := newDoor(t, routerFunc(func(g authstore.Grant) (*protocols.Route, error) {
			r, err := toDovecot(dovecot, protocols.StartTLS)(g)
			r.Open = func(context.Context) (protocols.Credential, error) {
				return protocols.Credential{Authzid: g.Address, Authcid: dovecot.MasterUser, Password: []byte(password)}, nil
			}
			return r, err
		}))
		k := dialDoor(t, d)
		k.line()
		for range 4 {
			k.send("a LOGIN %s %s\r\n", testlab.Alice, appPassword)
			if got := k.line(); got != "a NO [UNAVAILABLE] Account is temporarily unavailable." {
				t.Errorf("%s: got %q", name, got)
			}
		}
		if name == "wrong" && !strings.Contains(d.log.String(), "level=ERROR msg=\"the backend refused the gateway's login\"") {
			t.Errorf("not logged loudly: %s", d.log)
		}
		if strings.Contains(d.log.String(), "wrong\"") || strings.Contains(d.log.String(), b64("\x00")) {
			t.Errorf("the log holds the credential: %s", d.log)
		}
		if n := d.sessions.Count(); n != 0 {
			t.Errorf("%d sessions entered", n)
		}
	}
}

// Every extension that the backend has works, for its words are the client's.
func testExtensions(t *testing.T, dovecot *testlab.DovecotServer) {
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS))
	k := dialDoor(t, d)
	k.send("a LOGIN %s %s\r\n", testlab.Bob, appPassword)
	k.until("a")
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
		k.send("x %s\r\n", command)
		if got := k.until("x"); !strings.Contains("\n"+got, "\nx OK") {
			t.Errorf("%s: got %q", command, got)
		}
	}
	k.send("y SELECT INBOX\r\n")
	k.until("y")
	k.send("z IDLE\r\n")
	if got := k.line(); got != "+ idling" {
		t.Fatalf("IDLE: %q", got)
	}
	dovecot.Deliver(testlab.Bob, "INBOX", []byte(message("idle")))
	for !strings.HasSuffix(k.line(), " EXISTS") {
	}
	k.send("DONE\r\n")
	k.until("z")
}

func testCompress(t *testing.T, dovecot *testlab.DovecotServer) {
	implicit, trust, _ := overTLS(t)
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS), implicit)
	k := talk(t, tls.Client(dialDoor(t, d).Conn, trust))
	k.send("a LOGIN %s %s\r\nb COMPRESS DEFLATE\r\n", testlab.Alice, appPassword)
	if got := k.until("b"); !strings.Contains(got, "\nb OK") {
		t.Fatalf("got %q", got)
	}
	deflate, _ := flate.NewWriter(k.Conn, flate.DefaultCompression)
	io.WriteString(deflate, "c NOOP\r\n")
	deflate.Flush()
	line, err := bufio.NewReader(flate.NewReader(k.r)).ReadString('\n')
	if !strings.HasPrefix(line, "c OK") {
		t.Errorf("got %q, %v", line, err)
	}
	began := time.Now()
	d.sessions.Review(1, func(authstore.Grant) error { return errors.New("revoked") })
	rest, _ := io.ReadAll(k.r)
	if len(rest) > 0 || time.Since(began) > 500*time.Millisecond {
		t.Errorf("revoked, a session that compresses is told %q, and ends after %v", rest, time.Since(began))
	}
	if e := <-d.observer.ended; e.Reason != "revoked" {
		t.Errorf("ended %+v", e)
	}
}

// Where goodbyes matter more than bytes.
func testNoCompress(t *testing.T, dovecot *testlab.DovecotServer) {
	d := newDoor(t, toDovecot(dovecot, protocols.PlainText), func(d *door) { d.Door = imapproxy.Door{NoCompress: true} })
	k := dialDoor(t, d)
	k.line()
	k.send("a LOGIN %s %s\r\nb COMPRESS DEFLATE\r\nc NOOP\r\n", testlab.Alice, appPassword)
	if got := k.until("a"); strings.Contains(got, "COMPRESS") || !strings.Contains(got, "CONDSTORE") {
		t.Errorf("offered %q", got)
	}
	if got := k.until("c"); !strings.Contains(got, "b NO [CANNOT] No compression here.") {
		t.Errorf("got %q", got)
	}
}

// Most apps say who they are when they are in.
func testNamedAfterTheLogin(t *testing.T, dovecot *testlab.DovecotServer) {
	d := newDoor(t, toDovecot(dovecot, protocols.PlainText))
	k := dialDoor(t, d)
	k.line()
	k.send("a LOGIN %s %s\r\nb ID (\"name\" \"Apple Mail\" \"version\" \"16.0\")\r\nc ID (\"name\" \"Apple Mail\" \"version\" \"16.0\")\r\n", testlab.Alice, appPassword)
	if got := k.until("c"); !strings.Contains(got, "b OK") {
		t.Errorf("got %q", got)
	}
	if list := d.sessions.List(live.Selection{}); len(list) != 1 || list[0].App != "Apple Mail 16.0" || list[0].Backend != "dovecot" {
		t.Errorf("sessions: %+v", list)
	}
	k.Close()
	if e := <-d.observer.ended; e.App != "Apple Mail 16.0" {
		t.Errorf("ended: %+v", e)
	}
	d.verifier.mu.Lock()
	defer d.verifier.mu.Unlock()
	if named := d.verifier.named; len(named) != 1 || named[0].App != "Apple Mail 16.0" || len(d.verifier.uses) != 1 {
		t.Errorf("named %+v, used %+v", named, d.verifier.uses)
	}
}

// go-imap's client is the conformance client: it parses all that it gets and stops at what it does not know.
func testClient(t *testing.T, dovecot *testlab.DovecotServer) {
	implicit, trust, _ := overTLS(t)
	d := newDoor(t, toDovecot(dovecot, protocols.ImplicitTLS), implicit)
	arrived := make(chan uint32, 10)
	c, err := imapclient.DialTLS(d.addr, &imapclient.Options{TLSConfig: trust, UnilateralDataHandler: &imapclient.UnilateralDataHandler{
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
	if err := c.Authenticate(sasl.NewPlainClient("", testlab.Carol, appPassword)); err != nil {
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
	d.verifier.mu.Lock()
	defer d.verifier.mu.Unlock()
	if uses := d.verifier.uses; len(uses) != 1 || uses[0].App != "go-imap 2" || uses[0].Protocol != "imap" {
		t.Errorf("used %+v", uses)
	}
	if named := d.verifier.named; len(named) != 0 {
		t.Errorf("a login whose app was known was named again: %+v", named)
	}
}

func testCurl(t *testing.T, dovecot *testlab.DovecotServer) {
	testlab.Need(t, "curl")
	implicit, _, ca := overTLS(t)
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS), implicit)
	cmd := testlab.Command(t, "curl", "--silent", "--show-error", "--cacert", ca.File, "--user", testlab.Alice+":"+appPassword,
		"imaps://"+d.addr+"/", "--request", "LIST \"\" *")
	if got := testlab.Run(t, cmd); !strings.Contains(got, "INBOX") {
		t.Errorf("got %q", got)
	}
}

func testRevokedInIdle(t *testing.T, dovecot *testlab.DovecotServer) {
	implicit, trust, _ := overTLS(t)
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS), implicit)
	k := talk(t, tls.Client(dialDoor(t, d).Conn, trust))
	k.send("a LOGIN %s %s\r\nb SELECT INBOX\r\nc IDLE\r\n", testlab.Alice, appPassword)
	for k.line() != "+ idling" {
	}
	revoked := errors.New("revoked")
	gone := d.sessions.Review(1, func(authstore.Grant) error { return revoked })
	if rest, err := io.ReadAll(k.r); err != nil || string(rest) != "* BYE [UNAVAILABLE] The session was ended; please connect again.\r\n" {
		t.Errorf("got %q, %v", rest, err)
	}
	<-gone
	if e := <-d.observer.ended; e.Reason != "revoked" {
		t.Errorf("ended %+v", e)
	}
}

// A client in the middle of a long answer is told goodbye at the end of a response, or cut, but never in the middle of a message.
func testRevokedInFetch(t *testing.T, dovecot *testlab.DovecotServer) {
	for range 20 {
		dovecot.Deliver(testlab.Bob, "Long", testlab.Attachment(1<<20))
	}
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS))
	k := dialDoor(t, d)
	k.send("a LOGIN %s %s\r\nb SELECT Long\r\nc FETCH 1:* BODY.PEEK[]\r\n", testlab.Bob, appPassword)
	for !strings.Contains(k.line(), "FETCH (BODY[] {") {
	}
	d.sessions.Review(1, func(authstore.Grant) error { return errors.New("revoked") })
	rest, _ := io.ReadAll(k.r)
	if i := bytes.Index(rest, []byte("* BYE [UNAVAILABLE]")); i >= 0 && !bytes.HasSuffix(rest[:i], []byte(")\r\n")) {
		t.Errorf("a goodbye inside a response, behind %q", rest[max(0, i-50):i])
	}
	if e := <-d.observer.ended; e.Reason != "revoked" {
		t.Errorf("ended %+v", e)
	}
}

func testSecondLogin(t *testing.T, dovecot *testlab.DovecotServer) {
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS))
	k := dialDoor(t, d)
	k.send("a LOGIN %s %s\r\nb UNAUTHENTICATE\r\nc LOGIN {%d+}\r\n%s %s\r\nd AUTHENTICATE PLAIN\r\ne NOOP\r\n", testlab.Alice, appPassword,
		len(testlab.Bob), testlab.Bob, testlab.Primary(testlab.Bob))
	k.until("a")
	for _, want := range []string{"b NO [CANNOT] Close the connection instead.", "c BAD You are logged in already.", "d BAD You are logged in already."} {
		if got := k.until(want[:1]); got != want+"\n" {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := k.until("e"); !strings.Contains(got, "e OK") {
		t.Errorf("got %q", got)
	}
}

// With an app password that may only read, everything can be read and nothing changes: the mailbox is byte for byte the same afterwards.
func testReadOnly(t *testing.T, dovecot *testlab.DovecotServer) {
	dovecot.Deliver(testlab.Carol, "ReadOnly", []byte(message("first")))
	dovecot.Deliver(testlab.Carol, "ReadOnly", []byte(message("second")))
	full := newDoor(t, toDovecot(dovecot, protocols.StartTLS))
	look := func() string {
		k := dialDoor(t, full)
		k.send("a LOGIN %s %s\r\nb EXAMINE ReadOnly\r\nc FETCH 1:* (FLAGS BODY.PEEK[])\r\nd STATUS ReadOnly (MESSAGES UIDNEXT UNSEEN HIGHESTMODSEQ)\r\n"+
			"e LIST \"\" *\r\nf LSUB \"\" *\r\ng GETACL ReadOnly\r\nh LOGOUT\r\n", testlab.Carol, appPassword)
		lines := strings.Split(regexp.MustCompile(` \([\d.+ ]+secs\)`).ReplaceAllString(k.rest(), ""), "\n")
		slices.Sort(lines) // Dovecot may answer some of these at once
		return strings.Join(lines, "\n")
	}
	look() // which takes "recent" away
	before := look()
	if !strings.Contains(before, "Subject: second") || !strings.Contains(before, "* STATUS ReadOnly (") {
		t.Fatalf("looked at %q", before)
	}
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS))
	d.verifier.verify = func(_ context.Context, a authstore.Attempt) (authstore.Grant, error) {
		return authstore.Grant{Account: 1, Password: 12, Address: a.Login, Scopes: authstore.ScopeMailRead}, nil
	}
	k := dialDoor(t, d)
	k.send("a LOGIN %s %s\r\n", testlab.Carol, appPassword)
	if got := k.until("a"); strings.Contains(got, "COMPRESS") || !strings.Contains(got, "IDLE") {
		t.Errorf("offered: %q", got)
	}
	k.send("b SELECT ReadOnly (CONDSTORE)\r\n")
	if got := k.until("b"); !strings.Contains(got, "b OK [READ-ONLY]") {
		t.Errorf("SELECT: %q", got)
	}
	for i, command := range []string{
		"STORE 1 +FLAGS (\\Deleted)", "UID STORE 1:* +FLAGS.SILENT (\\Seen)", "EXPUNGE", "UID EXPUNGE 1:*", "COPY 1 INBOX", "UID COPY 1 INBOX", "MOVE 1 INBOX",
		"UID MOVE 1 INBOX", "CREATE new", "DELETE Drafts", "RENAME Drafts x", "SUBSCRIBE ReadOnly", "UNSUBSCRIBE Drafts", "SETACL ReadOnly anyone lr", "DELETEACL ReadOnly anyone",
		"SETMETADATA ReadOnly (/private/comment \"x\")", "SETQUOTA \"\" (STORAGE 1)", "APPEND ReadOnly {5+}\r\nhello", "APPEND ReadOnly (\\Seen) {5}", "COMPRESS DEFLATE",
		"GENURLAUTH x INTERNAL", "RESETKEY", "REPLACE 1 ReadOnly {5+}\r\nhello", "XUNKNOWN",
	} {
		tag := fmt.Sprint("w", i)
		k.send("%s %s\r\n", tag, command)
		if got := k.until(tag); !strings.HasPrefix(got, tag+" NO [") {
			t.Errorf("%s: %q", command, got)
		}
	}
	for i, command := range []string{"FETCH 1:* (FLAGS BODY[])", "UID FETCH 1:* BODY[TEXT]", "SEARCH ALL", "SORT (DATE) UTF-8 ALL", "THREAD REFERENCES UTF-8 ALL",
		"STATUS INBOX (UNSEEN)", "LIST \"\" *", "NOOP", "CHECK", "CLOSE", "EXAMINE INBOX", "UNSELECT"} {
		tag := fmt.Sprint("r", i)
		k.send("%s %s\r\n", tag, command)
		if got := k.until(tag); !strings.Contains(got, tag+" OK") {
			t.Errorf("%s: %q", command, got)
		}
	}
	k.send("s EXAMINE ReadOnly\r\nt UID SEARCH SUBJECT {5}\r\n")
	k.until("+")
	k.send("first\r\n")
	if got := k.until("t"); !strings.Contains(got, "* SEARCH 1\n") {
		t.Errorf("a search with a literal: %q", got)
	}
	k.send("z LOGOUT\r\n")
	k.rest()
	if after := look(); after != before {
		t.Errorf("the mailbox has changed:\n%s\nbefore:\n%s", after, before)
	}
}

func TestDovecotStopsAndHangs(t *testing.T) {
	t.Parallel()
	dovecot := testlab.Dovecot(t)
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS))
	k := dialDoor(t, d)
	k.line()
	login := fmt.Sprintf("a LOGIN %s %s\r\n", testlab.Alice, appPassword)

	dovecot.Stop()
	for range 4 { // which costs the client nothing
		k.send("%s", login)
		if got := k.line(); got != "a NO [UNAVAILABLE] Account is temporarily unavailable." {
			t.Fatalf("stopped: %q", got)
		}
	}
	dovecot.Start()

	dovecot.Pause()
	impatient := dialDoor(t, d)
	impatient.line()
	impatient.send("%s", login)
	for d.observer.steps.Load() < 5 { // it is connected: the kernel accepts for a process that stands still
		runtime.Gosched()
	}
	impatient.Close()
	for {
		if e := <-d.observer.logins; errors.Is(e.Err, protocols.ErrClientGone) {
			break
		}
	}
	dovecot.Resume()

	k.send("%sb SELECT INBOX\r\n", login)
	if got := k.until("b"); !strings.Contains(got, "\nb OK") {
		t.Fatalf("back again: %q", got)
	}
	dovecot.Kill()
	if _, err := io.ReadAll(k.r); err != nil {
		t.Errorf("killed under a session: %v", err)
	}
	k.Close()
	if e := <-d.observer.ended; e.Reason != "backend closed" {
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
	implicit, trust, _ := overTLS(t)
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS), implicit)
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	const many = 500
	var wg sync.WaitGroup
	for i := range many {
		wg.Go(func() {
			nc, err := tls.Dial("tcp", d.addr, trust)
			if err != nil {
				t.Error(err)
				return
			}
			defer nc.Close()
			user := []string{testlab.Alice, testlab.Bob, testlab.Carol}[i%3]
			fmt.Fprintf(nc, "a LOGIN %s %s\r\nb NOOP\r\nc LOGOUT\r\n", user, appPassword)
			got, err := io.ReadAll(nc)
			if !strings.Contains(string(got), "\r\na OK [CAPABILITY ") || !strings.Contains(string(got), "\r\nc OK ") || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	wg.Wait()
	for range many {
		if e := <-d.observer.logins; e.Err != nil {
			t.Errorf("login: %v", e.Err)
		}
		<-d.observer.ended
	}
	if n := d.sessions.Count(); n != 0 {
		t.Errorf("%d sessions left", n)
	}
	d.drain(nil)
	if err := <-d.served; err != nil {
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
