package imapproxy_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/authstore"
	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/doortest"
)

// What a client sees through the gateway is what it sees without it: the same random script, in random pieces, once at Dovecot itself
// and once through the relay.
func TestThroughTheRelayAsWithoutIt(t *testing.T) {
	t.Parallel()
	dovecot := testlab.Dovecot(t)
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS))
	for n := range 6 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint("script ", n), func(t *testing.T) {
			t.Parallel()
			box := fmt.Sprint("model", n)
			without := script(doortest.Dial(t, dovecot.IMAP), "a AUTHENTICATE PLAIN "+b64(testlab.Alice+"\x00"+dovecot.MasterUser+"\x00"+dovecot.MasterPassword), box, seed)
			through := script(d.Dial(t), fmt.Sprintf("a LOGIN %s %s", testlab.Bob, doortest.AppPassword), box, seed)
			for i := range min(len(without), len(through)) {
				if without[i] != through[i] {
					t.Fatalf("seed %d: %s\ngives %q\nwithout the gateway %q", seed, without[i][:min(40, len(without[i]))], through[i], without[i])
				}
			}
			if len(without) != len(through) {
				t.Errorf("seed %d: %d answers, without the gateway %d", seed, len(through), len(without))
			}
		})
	}
}

// script logs in and says random commands; it returns each with its answer, without what time and place put in.
func script(k *doortest.Client, login, box string, seed uint64) []string {
	k.Send("%s\r\n", login)
	for !strings.HasPrefix(k.Line(), "a OK") {
	}
	r := rand.New(rand.NewPCG(seed, 1))
	varies := regexp.MustCompile(` \([\d.+ ]+secs\)|UIDVALIDITY \d+|(APPEND|COPY)UID \d+|INTERNALDATE "[^"]*"`)
	var told []string
	say := func(words string) {
		for len(words) > 0 {
			n := min(len(words), 1+r.IntN(12))
			k.Send("%s", words[:n])
			words = words[n:]
		}
	}
	do := func(tag, command string) {
		lines := strings.SplitAfter(command, "{}")
		for i, part := range lines {
			literal := ""
			if i+1 < len(lines) {
				literal = strings.Repeat("Subject: a literal\r\nb STORE 1 +FLAGS x\r\n\r\n", 1+r.IntN(5))
			}
			switch {
			case literal == "":
				say(part)
			case r.IntN(2) == 0:
				say(strings.Replace(part, "{}", fmt.Sprintf("{%d+}\r\n%s", len(literal), literal), 1))
			default:
				say(strings.Replace(part, "{}", fmt.Sprintf("{%d}\r\n", len(literal)), 1))
				if line := k.Line(); !strings.HasPrefix(line, "+") {
					told = append(told, command+": "+varies.ReplaceAllString(line, ""))
					return
				}
				say(literal)
			}
		}
		answer := k.Until(tag)
		if strings.Contains(command, "IDLE") {
			answer = answer[strings.LastIndex(answer, tag+" "):] // what else is told in IDLE comes when it comes
		}
		told = append(told, command+": "+varies.ReplaceAllString(answer, ""))
	}
	commands := []string{
		"NOOP", "CAPABILITY", "FETCH 1:* (UID FLAGS RFC822.SIZE)", "UID FETCH 1:* BODY.PEEK[]", "FETCH 1 BODY[]", "SEARCH ALL", "UID SEARCH TEXT {}", "SEARCH SUBJECT literal",
		"APPEND BOX (\\Seen) {}", "APPEND BOX {}", "APPEND nowhere {}", "STORE 1 +FLAGS (\\Flagged)", "UID STORE 1:* FLAGS.SILENT (\\Deleted)", "COPY 1 BOX", "EXPUNGE",
		"STATUS BOX (MESSAGES UIDNEXT UNSEEN)", "LIST \"\" BOX", "CREATE BOX", "SELECT BOX", "EXAMINE BOX (CONDSTORE)", "CLOSE", "IDLE\r\nDONE", "ENABLE CONDSTORE", "MYRIGHTS BOX",
	}
	do("b", "b CREATE "+box+"\r\n")
	do("c", "c SELECT "+box+"\r\n")
	for i := range 40 {
		tag := fmt.Sprint("t", i)
		do(tag, tag+" "+strings.ReplaceAll(commands[r.IntN(len(commands))], "BOX", box)+"\r\n")
	}
	do("z", "z LOGOUT\r\n")
	return told
}

// Many sessions at work while some are revoked, and at last all are drained: each is ended once, in order or cut, and nothing is left behind.
func TestSessionsComeAndGo(t *testing.T) {
	dovecot := testlab.Dovecot(t)
	d := newDoor(t, toDovecot(dovecot, protocols.StartTLS), doortest.OverTLS(t, protocols.ImplicitTLS))
	var made atomic.Int64
	d.Verify = func(a authstore.Attempt) (authstore.Grant, error) {
		n := made.Add(1)
		scopes := authstore.ScopeMail
		if n%3 == 0 {
			scopes = authstore.ScopeMailRead
		}
		return authstore.Grant{Account: 1, Password: authstore.PasswordID(n), Address: a.Login, Scopes: scopes}, nil
	}
	before := runtime.NumGoroutine()
	const clients = 40
	rounds := 5
	if os.Getenv("POSTERN_TEST") == "full" { // as test.sh sets
		rounds = 50
	}
	var working sync.WaitGroup
	stop := make(chan struct{})
	for i := range clients {
		working.Go(func() {
			for range rounds {
				churn(t, d.Addr, d.Trust(), i)
			}
		})
	}
	var revoking sync.WaitGroup
	revoking.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			unlucky := authstore.PasswordID(1 + rand.Int64N(made.Load()+1))
			<-d.sessions.Review(1, func(g authstore.Grant) error {
				if g.Password == unlucky {
					return errors.New("revoked")
				}
				return nil
			})
		}
	})
	working.Wait()
	close(stop)
	revoking.Wait()
	last, err := tls.Dial("tcp", d.Addr, d.Trust())
	if err != nil {
		t.Fatal(err)
	}
	k := doortest.Talk(t, last)
	k.Send("a LOGIN %s %s\r\nb IDLE\r\n", testlab.Carol, doortest.AppPassword)
	for k.Line() != "+ idling" {
	}
	d.sessions.Drain(func(string) bool { return true }, time.Second)
	if rest, err := io.ReadAll(k.R); err != nil || !strings.HasPrefix(string(rest), "* BYE [UNAVAILABLE] Shutting down") {
		t.Errorf("drained in IDLE: %q, %v", rest, err)
	}
	for range made.Load() {
		if e := <-d.Logins; e.Err == nil { // not revoked before it was in
			<-d.Endings
		}
	}
	if n := d.sessions.Count(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
	d.Drain(nil)
	if err := <-d.Served; err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(30 * time.Second); runtime.NumGoroutine() >= before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, before %d\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// churn is one session's work. It may end at any time; what was sent until then must be whole lines, but for a cut.
func churn(t *testing.T, addr string, trust *tls.Config, i int) {
	nc, err := tls.Dial("tcp", addr, trust)
	if err != nil {
		t.Errorf("connect: %v", err)
		return
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(time.Minute))
	users := []string{testlab.Alice, testlab.Bob, testlab.Carol}
	answers := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(nc)
		answers <- string(text)
	}()
	fmt.Fprintf(nc, "a LOGIN %s %s\r\nb SELECT INBOX\r\n", users[i%3], doortest.AppPassword)
	for range 5 {
		switch rand.IntN(4) {
		case 0:
			io.WriteString(nc, "c NOOP\r\nd FETCH 1:* FLAGS\r\n")
		case 1:
			io.WriteString(nc, "e STORE 1 +FLAGS (x)\r\nf LOGIN x y\r\n")
		case 2:
			io.WriteString(nc, "g IDLE\r\n")
			time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
			io.WriteString(nc, "DONE\r\n")
		case 3:
			io.WriteString(nc, "h SEARCH TEXT {5+}\r\nhello\r\n")
		}
		time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
	}
	io.WriteString(nc, "z LOGOUT\r\n")
	text := <-answers
	if !strings.Contains(text, "\na OK ") && !strings.Contains(text, "\n* BYE [UNAVAILABLE] ") { // revoked before it was in
		t.Errorf("no login: %q", text)
	}
	if at := strings.Index(text, "* BYE"); at > 0 && text[at-1] != '\n' {
		t.Errorf("a goodbye in the middle of a line: %q", text[max(0, at-60):])
	}
}
