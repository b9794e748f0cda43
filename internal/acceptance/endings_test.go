package acceptance

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/testlab"
)

// speaker is a mail client that says what it is told.
type speaker struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func (s *site) speak(g *gateway, address, secret string) *speaker {
	s.t.Helper()
	conn, err := dialAny(s, g.IMAP, true)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	k := &speaker{conn, s.t, bufio.NewReader(conn)}
	k.say("0 LOGIN %s %s\r\n", address, secret)
	k.until("0 OK")
	return k
}

func (k *speaker) say(format string, args ...any) {
	k.t.Helper()
	if _, err := fmt.Fprintf(k, format, args...); err != nil {
		k.t.Fatal(err)
	}
}

// until reads up to a line that begins so, and returns it.
func (k *speaker) until(begin string) string {
	k.t.Helper()
	for {
		line, err := k.r.ReadString('\n')
		if err != nil {
			k.t.Fatalf("got %q, %v; want %s", line, err, begin)
		}
		if strings.HasPrefix(line, begin) {
			return line
		}
	}
}

// rest is what is still said until the connection ends, in whichever way.
func (k *speaker) rest() string {
	text, _ := io.ReadAll(k.r)
	return string(text)
}

// append begins to store a message and stops before its last bytes, which it returns.
func (k *speaker) append(message []byte) (last []byte) {
	k.say("ap APPEND INBOX {%d+}\r\n%s", len(message), message[:len(message)-10])
	return append(message[len(message)-10:], "\r\n"...)
}

const shuttingDown = "* BYE [UNAVAILABLE] Shutting down; please connect again.\r\n"

// A gateway that is told to stop says at once that it is not ready, sends away who waits, lets who is in the middle of a command finish
// it, cuts who can't be told anything, and does not wait for ever.
func TestDrainInEveryState(t *testing.T) {
	t.Parallel()
	s, _, g := mail(t)
	p := s.password(g.config, alice, "--for", "mail")
	idling := s.idle(g, alice, p.Secret)
	still := s.speak(g, alice, p.Secret)
	compressed := s.speak(g, alice, p.Secret)
	compressed.say("a COMPRESS DEFLATE\r\n")
	compressed.until("a OK")
	stuck, busy := s.speak(g, alice, p.Secret), s.speak(g, alice, p.Secret)
	stuck.append(testlab.Attachment(100 << 10))
	last := busy.append(testlab.Attachment(1 << 20))
	still.say("a NOOP\r\n") // when it is answered, what the others said is at the gateway
	still.until("a OK")

	began := time.Now()
	g.Signal(syscall.SIGTERM)
	if words, err := io.ReadAll(idling); string(words) != shuttingDown {
		t.Errorf("in IDLE: %q, %v", words, err)
	}
	if words := still.rest(); words != shuttingDown {
		t.Errorf("between commands: %q", words)
	}
	if words := compressed.rest(); words != "" {
		t.Errorf("compressed: %q", words)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("those that were idle left after %v", took)
	}
	resp, err := http.Get(g.ops + "/readyz")
	if err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("ready while draining: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	busy.Write(last)
	if words := busy.rest(); !strings.HasPrefix(words, "ap OK [APPENDUID ") || !strings.HasSuffix(words, shuttingDown) {
		t.Errorf("in the middle of APPEND: %q", words)
	}
	if took := time.Since(began); took > 1900*time.Millisecond {
		t.Errorf("who finished its command was held for %v", took)
	}
	if words := stuck.rest(); words != "" {
		t.Errorf("with a command that never ends: %q", words)
	}
	if code := g.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took < 1900*time.Millisecond || took > 5*time.Second {
		t.Errorf("with a grace of 2s, it was over after %v", took)
	}
	g.WaitLine("the grace is over; what is left is cut")
}

// A new configuration leaves sessions alone, also in the middle of a FETCH, an APPEND or IDLE.
func TestReloadInEveryState(t *testing.T) {
	t.Parallel()
	s, dovecot, g := mail(t)
	p := s.password(g.config, alice, "--for", "mail")
	big := testlab.Attachment(20 << 20) // more than sockets and buffers hold
	dovecot.Deliver(alice, "INBOX", big)
	fetching, appending, idling := s.speak(g, alice, p.Secret), s.speak(g, alice, p.Secret), s.speak(g, alice, p.Secret)
	fetching.say("a SELECT INBOX\r\nb FETCH 1 BODY.PEEK[]\r\n")
	fetching.until("* 1 FETCH (BODY[] {")
	last := appending.append(testlab.Attachment(1 << 20))
	idling.say("a IDLE\r\n")
	idling.until("+ idling")

	g.change(`shutdown_grace = "2s"`, `shutdown_grace = "3s"`)
	g.reload(`"msg":"reloaded"`)

	body := make([]byte, len(big))
	if _, err := io.ReadFull(fetching.r, body); err != nil || !bytes.Equal(body, big) {
		t.Errorf("what was fetched differs: %v", err)
	}
	fetching.until("b OK")
	appending.Write(last)
	appending.until("ap OK")
	idling.say("DONE\r\nb NOOP\r\n")
	idling.until("b OK")
}

// A client that is in the middle of a message, and reads no further, is cut within the second: a goodbye would be read as the message's.
func TestRevokedInTheMiddleOfAMessage(t *testing.T) {
	t.Parallel()
	s, dovecot, g := mail(t)
	p := s.password(g.config, alice, "--for", "mail")
	dovecot.Deliver(alice, "INBOX", testlab.Attachment(20<<20))
	k := s.speak(g, alice, p.Secret)
	k.say("a SELECT INBOX\r\nb FETCH 1 BODY.PEEK[]\r\n")
	k.until("* 1 FETCH (BODY[] {")
	s.cli(g.config, "password", "revoke", fmt.Sprint(p.ID))
	committed := time.Now()
	eventually(t, "the session has ended", func() bool { return strings.Contains(g.Output(), "session ended") })
	if took := time.Since(committed); took > time.Second {
		t.Errorf("it ended %v after the revocation", took)
	}
	if words := k.rest(); strings.Contains(words, "* BYE") {
		t.Error("a goodbye stands in the message")
	}
}
