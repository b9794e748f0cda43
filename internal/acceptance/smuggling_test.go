package acceptance

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"postern/internal/testlab"
)

// odd are ends of a message that some servers take for one, Postfix 3.7 and Dovecot 2.3 many of them.
var odd = []string{
	"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r.\n", "\n.\r", "\r\n\x00.\r\n", "\r\n.\x00\r\n", "\r\n.\r\r\n", "\r\n.\r\r\r\n",
	"\r\x00\n.\r\n", "\r\n.\r\x00\n", "\n\x00.\r\n", "\x00\n.\n",
}

const attack = "MAIL FROM:<admin@example.test>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\nSubject: I am not alice\r\n\r\nsmuggled\r\n.\r\n"

// settled returns when a Postfix has finished with all its clients: what is not in the queue then will not get there.
func settled(t *testing.T, p *testlab.PostfixServer) {
	t.Helper()
	eventually(t, "all clients have left Postfix", func() bool {
		log := p.Log()
		return strings.Count(log, "]: connect from ") == strings.Count(log, "]: disconnect from ")
	})
}

// A message with an end in it that only some servers see is not taken, and nothing that stands behind that end is one.
func TestSMTPSmuggling(t *testing.T) {
	t.Parallel()
	for name, l := range lanes(t, "smtpd_forbid_bare_newline = no") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := strings.ReplaceAll(name, " ", "-") + "@example.org"
			taken := 0
			for _, end := range odd {
				for _, inPieces := range []bool{false, true} {
					m := l.o.login(t)
					m.begin(to)
					text := []byte("Subject: hello\r\n\r\nhello" + end + attack)
					if inPieces {
						for i := range text {
							m.Write(text[i : i+1])
						}
					} else {
						m.Write(text)
					}
					said := m.rest()
					if !strings.HasPrefix(said, "550 5.6.11 ") || strings.Count(said, "\n") != 2 || !strings.Contains(said, "\n421 4.3.2 ") {
						t.Fatalf("%q, in pieces: %v: the client was told %q", end, inPieces, said)
					}
					taken += strings.Count(said, "250 ")
				}
			}
			m := l.o.login(t)
			for text, want := range map[string]string{ // what is no end to anybody, and what is one to everybody
				"from\na scanner\r\n..\r\n.. \n\n..x\n.\t\n\r\n.\r\n": "from\r\na scanner\r\n.\r\n. \r\n\r\n.x\r\n\t\r\n\r\n",
				"hello\r\r\n.\r\n":       "",
				"hello\r\n\x00\r\n.\r\n": "",
			} {
				m.begin(to)
				m.say("Subject: hello\r\n\r\n%sNOOP\r\n", text)
				arrived := l.queue.Message(queueID(t, m.want("250 2.0.0 ")))
				m.want("250 ")
				if taken++; want != "" {
					wantContent(t, arrived, []byte("Subject: hello\r\n\r\n"+want))
				}
			}
			m.ask("221 ", "QUIT")
			itself := 0                    // smuggled without Postern
			if name == "Postfix by AUTH" { // without Postern it falls for it: else all this would prove nothing
				m := direct(t, l)
				m.ask("235 ", "AUTH PLAIN %s", plainResponse(alice, testlab.Primary(alice)))
				m.begin(to)
				m.say("hello\n.\n%sQUIT\r\n", attack)
				if said := m.rest(); strings.Count(said, "250 2.0.0 Ok: queued as ") != 2 {
					t.Errorf("Postfix itself says %q", said)
				}
				taken++
				itself++
			}
			settled(t, l.queue)
			queued, smuggled := 0, 0
			for _, m := range l.queue.Messages() {
				if slices.Contains(m.Recipients, to) {
					queued++
				}
				if m.Sender == "admin@example.test" {
					smuggled++
				}
			}
			if queued != taken || smuggled != itself {
				t.Errorf("%d messages are queued, %d were taken; %d are smuggled, %d of them without Postern", queued, taken, smuggled, itself)
			}
		})
	}
}

// With smuggling = "pass" all that reaches a backend that knows better.
func TestSmugglingIsPassed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dovecot := testlab.Dovecot(t)
	strict := testlab.Postfix(t, testlab.SASL(dovecot), testlab.MainCF("smtpd_forbid_bare_newline = yes", "smtpd_forbid_bare_newline_exclusions ="))
	w := newWiretap(t, strict.Relay)
	o := s.sends(submissionBackend("strict", w.address, "", s.master(dovecot)) + "[submission]\nsmuggling = \"pass\"\n")
	for i, end := range odd {
		m := o.login(t)
		m.begin("x@example.org")
		text := fmt.Sprintf("Subject: %d\r\n\r\nhello%s%s", i, end, attack)
		m.say("%sQUIT\r\n", text)
		if said := m.rest(); strings.Count(said, "\n") != 2 || !strings.HasPrefix(said, "250 2.0.0 Ok") || !strings.Contains(said, "\n221 ") {
			t.Fatalf("%q: the client was told %q", end, said)
		}
		if heard := w.heard(); !strings.HasSuffix(heard, "DATA\r\n"+text+"QUIT\r\n") {
			t.Errorf("%q: the backend got %q", end, heard)
		}
	}
	if got := len(strict.Queued()); got != len(odd) {
		t.Errorf("%d messages are queued, %d were sent", got, len(odd))
	}
}
