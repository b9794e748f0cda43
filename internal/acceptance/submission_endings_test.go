package acceptance

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/testlab"
)

// revoke ends the app password, and returns when that is said to be in force everywhere.
func (o *outbox) revoke() (committed time.Time) {
	o.t.Helper()
	o.s.cli(o.config, "password", "revoke", fmt.Sprint(o.id))
	return time.Now()
}

// queuedFor tells how many messages to a recipient were taken.
func queuedFor(p *testlab.PostfixServer, to string) (n int) {
	for _, m := range p.Messages() {
		if slices.Contains(m.Recipients, to) {
			n++
		}
	}
	return n
}

const (
	revoked  = "421 4.7.0 This app password was revoked.\r\n"
	draining = "421 4.3.2 Shutting down; please connect again.\r\n"
)

// final is the reply to a message, from MAIL on: to that, RCPT, DATA, and the message.
const final = 4

// A revocation ends sessions within a second: with a goodbye where one can be told, and without a message that has not come whole. The answer
// to one that has is told before, if it comes in time, for without it the app would send it again.
func TestRevokedWhileSending(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	postfix := testlab.Postfix(t)
	w := newWiretap(t, postfix.Relay)
	o := s.sends(submissionBackend("postfix", w.address, "", xclient))
	idle, begun, slow, chunk, half := o.login(t), o.login(t), o.login(t), o.login(t), o.login(t)
	begun.ask("250 ", "MAIL FROM:<%s>", alice)
	slow.begin("slow@example.org")
	slow.say("Subject: never whole\r\n\r\n")
	chunk.say("MAIL FROM:<%s>\r\nRCPT TO:<chunk@example.org>\r\nBDAT 1000 LAST\r\nSubject: never whole\r\n\r\n", alice)
	chunk.want("250 ")
	chunk.want("250 ")
	half.say("NOOP\r\nMAIL FROM:<%s", alice)
	half.want("250 ")
	soon, late := make(chan struct{}), make(chan struct{})
	answering := func(release chan struct{}, to string) *mailer {
		before := w.holds()
		w.do(plan{from: "MAIL FROM", hold: final, release: release})
		m := o.login(t)
		m.begin(to)
		m.say("Subject: whole\r\n\r\nwhole\r\n.\r\n")
		eventually(t, "the backend has answered", func() bool { return w.holds() > before })
		return m
	}
	inTime, tooLate := answering(soon, "soon@example.org"), answering(late, "late@example.org")
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond): // a client on a slow line
				slow.Write([]byte("a line of a message that takes its time\r\n"))
			}
		}
	}()
	defer close(stop)

	told := make(chan string, 1)
	go func() {
		words := idle.rest()
		close(soon) // as soon as anybody has been told goodbye
		told <- words
	}()
	committed := o.revoke()
	if words := <-told; words != revoked {
		t.Errorf("idle: %q", words)
	}
	for what, tt := range map[string]struct {
		*mailer
		want string
	}{
		"in a transaction": {begun, revoked}, "in half a command": {half, revoked}, "in DATA, still sending": {slow, revoked}, "in a chunk": {chunk, revoked},
		"a message whose answer comes in time": {inTime, "250 2.0.0 Ok: queued as"}, "a message whose answer comes too late": {tooLate, ""},
	} {
		words := tt.rest()
		if !strings.HasPrefix(words, tt.want) || tt.want == "" && words != "" || strings.HasPrefix(words, "250 ") && !strings.HasSuffix(words, "\r\n"+revoked) {
			t.Errorf("%s: got %q, want %q", what, words, tt.want)
		}
	}
	if took := time.Since(committed); took > time.Second {
		t.Errorf("the last ended %v after the revocation", took)
	}
	close(late)
	m := o.connect(t, true)
	m.ask("250 ", "EHLO phone.example")
	m.ask("535 5.7.8 ", "AUTH PLAIN %s", plainResponse(alice, o.secret))
	settled(t, postfix)
	for to, want := range map[string]int{"soon": 1, "late": 1, "slow": 0, "chunk": 0} {
		if got := queuedFor(postfix, to+"@example.org"); got != want {
			t.Errorf("%s: %d messages are queued, want %d", to, got, want)
		}
	}
}

// A gateway that is told to stop sends away who does nothing, and lets who sends a message end that.
func TestDrainWhileSending(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	postfix := testlab.Postfix(t)
	o := s.sends(submissionBackend("postfix", postfix.Submission, postfix.CAFile, xclient))
	before := o.connect(t, true)
	before.ask("250 ", "EHLO phone.example")
	idle, begun, sending, chunk, stuck := o.login(t), o.login(t), o.login(t), o.login(t), o.login(t)
	begun.ask("250 ", "MAIL FROM:<%s>", alice)
	sending.begin("sending@example.org")
	sending.say("Subject: under way\r\n\r\n")
	chunk.say("MAIL FROM:<%s>\r\nRCPT TO:<chunk@example.org>\r\nBDAT 22\r\nSubject: under way\r\n\r\n", alice)
	chunk.want("250 ")
	chunk.want("250 ")
	stuck.begin("stuck@example.org")
	idle.ask("250 ", "NOOP")

	o.Signal(syscall.SIGTERM)
	if words := idle.rest(); words != draining {
		t.Errorf("idle: %q", words)
	}
	if words := before.rest(); words != draining {
		t.Errorf("before the login: %q", words)
	}
	sending.say("x\r\n.\r\n")
	chunk.want("250 ")
	chunk.say("BDAT 3 LAST\r\nx\r\n")
	begun.say("RCPT TO:<begun@example.org>\r\nDATA\r\n")
	begun.want("250 ")
	begun.want("354 ")
	begun.say("Subject: under way\r\n\r\nx\r\n.\r\n")
	for what, m := range map[string]*mailer{"in a transaction": begun, "in DATA": sending, "between chunks": chunk} {
		if words := m.rest(); !strings.HasPrefix(words, "250 2.0.0 Ok") || !strings.HasSuffix(words, "\r\n"+draining) {
			t.Errorf("%s: %q", what, words)
		}
	}
	if words := stuck.rest(); words != "" {
		t.Errorf("in a message that never ends: %q", words)
	}
	if code := o.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	settled(t, postfix)
	if got := len(postfix.Queued()); got != 3 {
		t.Errorf("%d messages are queued, 3 were taken", got)
	}
}

// attempt sends a message, and goes as far as it is let.
type attempt struct {
	replies []string // to AUTH, MAIL, RCPT, DATA, the message and QUIT
	closed  bool     // by the gateway, before it was done
}

const marked = "Subject: whole\r\n\r\nhalf of it CUT HERE the other half\r\n"

func (o *outbox) attempt(t *testing.T, to string) (a attempt) {
	t.Helper()
	m := o.connect(t, true)
	defer m.Close()
	m.ask("250 ", "EHLO phone.example")
	for _, words := range []string{"AUTH PLAIN " + plainResponse(alice, o.secret), "MAIL FROM:<" + alice + ">", "RCPT TO:<" + to + ">", "DATA", marked + ".", "QUIT"} {
		fmt.Fprintf(m, "%s\r\n", words)
		reply, err := m.hear()
		if reply != "" {
			a.replies = append(a.replies, reply)
		}
		if err != nil {
			a.closed = words != "QUIT"
			return a
		}
		if reply[0] > '3' {
			return a
		}
	}
	return a
}

// taken tells whether the app was told that its message was.
func (a attempt) taken() bool { return len(a.replies) > 4 && strings.HasPrefix(a.replies[4], "250 ") }

// A backend goes away at each point of a dialogue: the app is told to come again, or its connection ends. It is never told that a message was
// taken which was not, and never to ask for another password. A message is there without its app knowing only where the backend's answer to
// it got lost (RFC 1047).
func TestABackendGoesAwayWhileSending(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	postfix := testlab.Postfix(t)
	dovecot := testlab.Dovecot(t, testlab.Submission(postfix.Relay))
	for name, b := range map[string]struct {
		address, credential string
		logins              int // replies of the backend's up to the end of a login, when it has not come to that before
	}{
		"Postfix": {postfix.Relay, xclient, 4},                // greeting, EHLO, XCLIENT, EHLO
		"Dovecot": {dovecot.Submission, s.master(dovecot), 5}, // and AUTH
	} {
		w := newWiretap(t, b.address)
		o := s.sends(submissionBackend("backend", w.address, "", b.credential+"pipelining = false\n")) // so that each login asks for all
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			try := func(what string, p plan, wantTaken bool, wantQueued int) {
				t.Helper()
				to := strings.ReplaceAll(name+"."+what, " ", "-") + "@example.org"
				w.do(p)
				a := o.attempt(t, to)
				w.do(plan{})
				settled(t, postfix)
				queued := queuedFor(postfix, to)
				if a.taken() != wantTaken || queued != wantQueued {
					t.Errorf("%s: the app was told %q, and %d messages are queued; want taken: %v, queued: %d", what, a.replies, queued, wantTaken, wantQueued)
				}
				if last := a.replies[max(0, len(a.replies)-1):]; !wantTaken && !a.closed && (len(last) == 0 || last[0][0] != '4') {
					t.Errorf("%s: the app was told %q last", what, last)
				}
				for _, reply := range a.replies {
					if reply[0] == '5' {
						t.Errorf("%s: the app was told %q", what, reply)
					}
				}
			}
			try("nobody goes", plan{}, true, 1)
			for n := 1; n <= b.logins; n++ { // a login that fails has the next one ask all
				try(fmt.Sprintf("before reply %d of the login", n), plan{before: n}, false, 0)
				try(fmt.Sprintf("after reply %d of the login", n), plan{after: n}, false, 0)
			}
			for n := 1; n < b.logins; n++ { // and one that follows another need not ask first what the backend can do
				try(fmt.Sprintf("nobody goes %d", n), plan{}, true, 1)
				try(fmt.Sprintf("before reply %d of a short login", n), plan{before: n}, false, 0)
			}
			for n := 1; n <= final; n++ {
				try(fmt.Sprintf("before reply %d", n), plan{from: "MAIL FROM", before: n}, false, n/final)
				try(fmt.Sprintf("after reply %d", n), plan{from: "MAIL FROM", after: n}, n == final, n/final)
			}
			for what, words := range map[string]string{"at DATA": "DATA\r\n", "in the message": "CUT HERE", "at MAIL": "MAIL FROM", "at RCPT": "RCPT TO"} {
				try(what, plan{words: words}, false, 0)
			}
		})
	}
}

// The same with the real thing: the backend is killed, and comes back.
func TestABackendIsKilledWhileSending(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	postfix := testlab.Postfix(t)
	dovecot := testlab.Dovecot(t, testlab.Submission(postfix.Relay))
	o := s.sends(submissionBackend("backend", postfix.Submission, postfix.CAFile, xclient))
	idle, sending := o.login(t), o.login(t)
	sending.begin("sending@example.org")
	sending.say("Subject: half\r\n\r\n")
	postfix.Kill()
	for what, m := range map[string]*mailer{"idle": idle, "in a message": sending} {
		fmt.Fprint(m, "x\r\n.\r\n")
		if words := m.rest(); words != "" && words[0] != '4' && words[0] != '5' {
			t.Errorf("%s: %q", what, words)
		}
	}
	if got := o.attempt(t, "down@example.org"); len(got.replies) != 1 || !strings.HasPrefix(got.replies[0], "454 4.3.0 ") {
		t.Errorf("with the backend down: %q", got.replies)
	}
	// Dovecot takes the login, and finds only then that there is nobody to hand mail on to.
	d := s.sends(submissionBackend("dovecot", dovecot.Submission, dovecot.CAFile, s.master(dovecot)))
	if got := d.attempt(t, "down@example.org"); got.taken() || got.replies[len(got.replies)-1][0] != '4' {
		t.Errorf("with Dovecot's relay down: %q", got.replies)
	}
	postfix.Start()
	for _, o := range []*outbox{o, d} {
		if got := o.attempt(t, "again@example.org"); !got.taken() {
			t.Errorf("with the backend up again: %q", got.replies)
		}
	}
	if got := postfix.Queued(); len(got) != 2 {
		t.Errorf("%d messages are queued, 2 were taken", len(got))
	}
}
