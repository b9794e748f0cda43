package imapproxy_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/authstore"
	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/doortest"
)

// A client that may only read tries to make a mailbox at a real Dovecot by each ambiguity there is: what the gateway takes for a
// literal, or for a part of another command, Dovecot might take for a command.
func TestNoWayRoundReadOnly(t *testing.T) {
	t.Parallel()
	dovecot := testlab.Dovecot(t)
	d := newDoor(t, toDovecot(dovecot, protocols.PlainText))
	d.Verify = func(a authstore.Attempt) (authstore.Grant, error) {
		return authstore.Grant{Account: 1, Password: 12, Address: a.Login, Scopes: authstore.ScopeMailRead}, nil
	}
	var boxes atomic.Int64
	const create = "x CREATE BOX\r\n"
	hidden := func(before string) string { return fmt.Sprintf(before, len(create)) + "\r\n" + create + "\r\n" }
	for name, words := range map[string]string{ // "|" waits a little
		"plain":                        create,
		"lower case":                   "x create BOX\r\n",
		"two blanks":                   "x  CREATE BOX\r\n",
		"three blanks":                 "x   CREATE BOX\r\n",
		"a blank before the tag":       " x CREATE BOX\r\n",
		"a tab":                        "x\tCREATE BOX\r\n",
		"a tab behind the command":     "x CREATE\tBOX\r\n",
		"LF":                           "a NOOP\nx CREATE BOX\n",
		"an empty line":                "\r\n\r\n" + create,
		"a tag of one word":            "a\r\n" + create,
		"APPEND makes none":            "a APPEND BOX {3+}\r\nabc\r\n",
		"COPY":                         "a SELECT INBOX\r\nb COPY 1 BOX\r\n",
		"a command that takes nothing": hidden("a NOOP {%d+}"),
		"CAPABILITY":                   hidden("a CAPABILITY {%d+}"),
		"CHECK":                        hidden("a SELECT INBOX\r\na CHECK {%d+}"),
		"NAMESPACE":                    hidden("a NAMESPACE {%d+}"),
		"CLOSE":                        hidden("a CLOSE {%d+}"),
		"UNSELECT":                     hidden("a UNSELECT {%d+}"),
		"FETCH without a mailbox":      hidden("a FETCH 1 {%d+}"),
		"SEARCH without a mailbox":     hidden("a SEARCH TEXT {%d+}"),
		"ID":                           hidden("a ID {%d+}"),
		"IDLE":                         hidden("a IDLE {%d+}"),
		"LIST":                         hidden("a LIST ( {%d+}"),
		"STATUS":                       hidden("a STATUS {%d+}"),
		"NOTIFY":                       hidden("a NOTIFY {%d+}"),
		"ENABLE":                       hidden("a ENABLE {%d+}"),
		"SELECT":                       hidden("a SELECT INBOX ( {%d+}"),
		"a quoted string without end":  hidden(`a LIST "" "x {%d+}`),
		"a quoted string without end, {n+} glued": hidden(`a LIST "" "{%d+}`),
		"an unknown escape":                       hidden(`a LIST "" "\x" {%d+}`),
		"too many brackets":                       hidden(`a LIST "" )) {%d+}`),
		"an atom":                                 hidden(`a LIST "" x{%d+}`),
		"{n-}":                                    hidden(`a LIST "" {%d-}`),
		"~{n+}":                                   hidden(`a LIST "" ~{%d+}`),
		"~{n-}":                                   hidden(`a LIST "" ~{%d-}`),
		"{n+} and blank":                          hidden(`a LIST "" {%d+} `),
		"{0n+}":                                   hidden(`a LIST "" {000%d+}`),
		"{n++}":                                   hidden(`a LIST "" {%d++}`),
		"LOGOUT":                                  hidden("a LOGOUT {%d+}"),
		"behind a literal":                        hidden("a STATUS {5+}\r\nINBOX ({%d+}"),
		"behind an empty literal":                 hidden("a NOOP {0+}\r\n{%d+}"),
		"a command that takes nothing, {n}":       hidden("a NOOP {%d}"),
		"a search that is refused, {n}":           hidden("a SEARCH TEXT {%d}"),
		"in pieces, {n}":                          fmt.Sprintf("a NOOP |{%d|}\r\n|%s\r\n", len(create), create),
		"in pieces":                               fmt.Sprintf("a NOOP |{%d|+|}\r|\n|%s\r\n", len(create), create),
		"a tag twice, {n}":                        "a NOOP\r\na SELECT INBOX\r\na LIST \"\" {30}\r\n|c LIST \"\" {22}\r\n1234567890\r\n" + create + "\r\n",
		"a tag twice, the first is slow":          "a LIST \"\" {1}\r\n|*\r\na LIST \"\" {15}\r\nc NOOP {20+}\r\n\r\n" + create + "\r\n",
		"a tag that is no command, and twice":     "a\r\na LIST \"\" {25}\r\n|c LIST \"\" {17}\r\n123456\r\n" + create + "\r\n",
		"IDLE, then another command":              "a IDLE\r\n|" + create + "|" + create,
		"IDLE, then a literal":                    "a IDLE\r\n|" + hidden("b LIST \"\" {%d+}"),
		"IDLE, then a literal, the same tag":      "a IDLE\r\n|" + hidden("a LIST \"\" {%d+}"),
		"IDLE, then DONE and more":                "a IDLE\r\n|DONE " + create + create,
		"IDLE, then DONE with a literal":          "a IDLE\r\n|" + hidden("DONE {%d+}"),
		"DONE without IDLE, with a literal":       hidden("DONE {%d+}"),
		"one word with a literal":                 hidden("{%d+}"),
		"a tag with a literal":                    hidden("a{%d+}"),
		"a tag and a literal":                     hidden("a {%d+}"),
		"UID and a literal":                       hidden("a UID {%d+}"),
		"UID FETCH":                               hidden("a SELECT INBOX\r\na UID FETCH 1 ( {%d+}"),
		"a long literal":                          fmt.Sprintf("a LIST \"\" {%d+}\r\n%s%s\r\n", 2_000_000, strings.Repeat(create, 2_000_000/len(create)), strings.Repeat("\r\n", 2_000_000%len(create)/2)),
		"a long line":                             "a LIST \"\" " + strings.Repeat("x", 100_000) + hidden(" {%d+}"),
		"compressed":                              "a COMPRESS DEFLATE\r\n" + create,
		"Dovecot's own":                           "a X-CREATE BOX\r\nb XCREATE BOX\r\nc X BOX\r\n",
		"RENAME":                                  "a RENAME Junk BOX\r\n",
		"metadata":                                "a SETMETADATA INBOX (/private/comment \"BOX\")\r\n",
		"subscriptions":                           "a SUBSCRIBE BOX\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			box := fmt.Sprintf("Q%02d", boxes.Add(1)) // as long as BOX, for lengths are counted
			got := attack(t, d, strings.ReplaceAll(words, "BOX", box))
			k := doortest.Dial(t, dovecot.IMAP)
			k.Send("a AUTHENTICATE PLAIN %s\r\nb LIST \"\" *\r\nc LSUB \"\" *\r\nd GETMETADATA INBOX /private/comment\r\n", b64(testlab.Alice+"\x00"+dovecot.MasterUser+"\x00"+dovecot.MasterPassword))
			if list := k.Until("d"); strings.Contains(list, box) {
				t.Errorf("%.100q has written; it got %q", words, got)
			}
		})
	}
}

func attack(t *testing.T, d *door, words string) string {
	t.Helper()
	k := d.Dial(t)
	k.Send("0 LOGIN %s %s\r\n", testlab.Alice, doortest.AppPassword)
	k.Until("0")
	answers := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(k.R)
		answers <- string(text)
	}()
	for i, part := range strings.Split(words, "|") {
		if i > 0 {
			time.Sleep(30 * time.Millisecond)
		}
		io.WriteString(k.Conn, part)
	}
	time.Sleep(150 * time.Millisecond)
	k.Conn.(*net.TCPConn).CloseWrite()
	select {
	case got := <-answers:
		return got
	case <-time.After(300 * time.Millisecond):
		k.Conn.Close()
		return <-answers
	}
}

// Dovecot answers each tag that passes, and once: what may pass is counted by that.
func TestEachTagIsAnswered(t *testing.T) {
	t.Parallel()
	dovecot := testlab.Dovecot(t)
	d := newDoor(t, toDovecot(dovecot, protocols.PlainText))
	k := d.Dial(t)
	k.Send("0 LOGIN %s %s\r\n", testlab.Alice, doortest.AppPassword)
	k.Until("0")
	for c := range 256 {
		tag := "t" + string([]byte{byte(c)}) + "x"
		if strings.ContainsAny(tag, "\x00\r\n ") {
			continue
		}
		k.Send("%s NOOP\r\n", tag)
		if got := k.Line(); !strings.HasPrefix(got, tag+" OK ") && got != "* BAD Invalid tag." {
			t.Errorf("%q: %q", tag, got)
		}
	}
}
