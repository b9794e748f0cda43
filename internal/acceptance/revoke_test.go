package acceptance

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"postern/internal/testlab"
)

func dialAny(s *site, address string, overTLS bool) (net.Conn, error) {
	address = strings.Replace(address, "localhost", "127.0.0.1", 1)
	d := &net.Dialer{Timeout: 5 * time.Second}
	if overTLS {
		return tls.DialWithDialer(d, "tcp", address, s.tls())
	}
	return d.Dial("tcp", address)
}

// Two gateways on one database: what one has cached, and whom both have let in, ends with a revocation that a third process writes.
func TestARevocationEndsEverything(t *testing.T) {
	t.Parallel()
	s, _, _ := full(t)
	one := s.serve()
	two := s.serve()
	s.cli(one.config, "account", "add", alice)
	p := s.password(one.config, alice, "--for", "everything")
	var idle []*imapclient.Client
	for _, g := range []*gateway{one, two} {
		c := s.login(g, alice, p.Secret)
		if _, err := c.Select("INBOX", nil).Wait(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Idle(); err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
		if code := s.propfind(g, alice, p.Secret); code != http.StatusMultiStatus {
			t.Fatalf("PROPFIND before = %d", code)
		}
	}
	out := s.cli(one.config, "password", "revoke", fmt.Sprint(p.ID), "--why", "phone lost")
	if !strings.Contains(out, "confirmed everywhere") {
		t.Errorf("revoke says %q", out)
	}
	for i, g := range []*gateway{one, two} {
		wantIMAP(t, s.dial(g, nil).Login(alice, p.Secret).Wait(), imap.ResponseCodeAuthenticationFailed)
		if code := s.propfind(g, alice, p.Secret); code != http.StatusUnauthorized {
			t.Errorf("PROPFIND after = %d", code)
		}
		<-idle[i].Closed() // it was closed before the command answered; the client may still be reading that
	}
}

func (s *site) propfind(g *gateway, login, secret string) int {
	s.t.Helper()
	req, _ := http.NewRequest("PROPFIND", g.DAV+"/", nil)
	req.Header.Set("Depth", "0")
	req.SetBasicAuth(login, secret)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: s.tls(), DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// A gateway that is stopped, at any step of a login, has accepted nothing after the revocation was confirmed, also when it goes on.
func TestAStoppedGatewayAcceptsNothingRevoked(t *testing.T) {
	t.Parallel()
	s, _, _ := full(t)
	stopped := s.serve()
	other := s.serve()
	s.cli(other.config, "account", "add", alice)
	for name, half := range map[string]string{
		"before the login":       "",
		"in the command":         "a LOGIN " + alice + " ",
		"with the whole login":   "whole",
		"after an earlier login": "cached",
	} {
		t.Run(name, func(t *testing.T) {
			p := s.password(other.config, alice, "--for", "mail")
			conn, err := dialAny(s, stopped.IMAP, true)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(30 * time.Second))
			buf := make([]byte, 8192)
			conn.Read(buf) // the greeting
			login := "a LOGIN " + alice + " " + p.Secret + "\r\n"
			rest := login
			switch half {
			case "cached":
				s.login(stopped, alice, p.Secret)
			case "whole":
				stopped.Pause()
				io.WriteString(conn, login)
				rest = ""
			default:
				io.WriteString(conn, half)
				rest = strings.TrimPrefix(login, half)
			}
			stopped.Pause()
			out := s.cli(other.config, "password", "revoke", fmt.Sprint(p.ID))
			if !strings.Contains(out, "in force everywhere; 1 node has not confirmed") {
				t.Errorf("revoke beside a stopped gateway says %q", out)
			}
			io.WriteString(conn, rest)
			stopped.Resume()
			n, _ := io.ReadAtLeast(conn, buf, 2)
			if answer := string(buf[:n]); strings.Contains(answer, "a OK") {
				t.Errorf("accepted after the revocation was confirmed: %q", answer)
			}
			wantIMAP(t, s.dial(stopped, nil).Login(alice, p.Secret).Wait(), imap.ResponseCodeAuthenticationFailed)
		})
	}
}

// transcript is what a client has been sent so far.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *transcript) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func (r *transcript) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func (r *transcript) accepted() bool { return strings.Contains(r.String(), "\na OK") }

// tryLogin connects, sends a login and keeps what comes back, whenever that is; ended is closed with the connection.
func (s *site) tryLogin(address, login, secret string) (got *transcript, ended <-chan struct{}) {
	got, done := new(transcript), make(chan struct{})
	go func() {
		defer close(done)
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Minute}, "tcp", address, s.tls())
		if err != nil {
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Minute))
		io.WriteString(conn, "a LOGIN "+login+" "+secret+"\r\n")
		io.Copy(got, conn)
	}()
	return got, done
}

// stopAndRevoke stops a gateway where it is, revokes through another, and lets it go on after between. What the client had been sent by the
// time of the revocation may be; from then on nobody gets in.
func (s *site) stopAndRevoke(stopped, other *gateway, p appPassword, got *transcript, ended <-chan struct{}, between func()) {
	s.t.Helper()
	stopped.Signal(syscall.SIGSTOP) // under a tracer it shows another state than a stopped one, so nobody waits for that
	out := s.revokeBeside(stopped, other, p)
	if !strings.Contains(out, "in force everywhere") {
		s.t.Errorf("revoke beside a stopped gateway says %q", out)
	}
	before := got.accepted()
	between()
	stopped.Signal(syscall.SIGCONT)
	wantIMAP(s.t, s.dial(stopped, nil).Login(alice, p.Secret).Wait(), imap.ResponseCodeAuthenticationFailed)
	if before {
		<-ended // what was let in before is cut
	} else {
		eventually(s.t, "an answer or the end", func() bool {
			select {
			case <-ended:
				return true
			default:
				return strings.Contains(got.String(), "\na ")
			}
		})
		if got.accepted() {
			s.t.Errorf("accepted after the revocation was confirmed: %q", got.String())
		}
	}
}

// revokeBeside revokes while another gateway is stopped. One that was stopped while it held the database's write lock lets nobody write: then the
// revocation says that nothing was changed, and that gateway goes on for a moment.
func (s *site) revokeBeside(stopped, other *gateway, p appPassword) string {
	s.t.Helper()
	for range 5 {
		cmd := testlab.Command(s.t, s.program, "password", "revoke", fmt.Sprint(p.ID), "-c", other.config)
		cmd.Env = append(cmd.Env, noSleep)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "nothing was changed: another process has held the database's write lock") {
			return string(out)
		}
		stopped.Signal(syscall.SIGCONT)
		time.Sleep(50 * time.Millisecond)
		stopped.Signal(syscall.SIGSTOP)
	}
	return "the database's write lock was never free"
}

// A gateway is stopped by a signal from its own n-th system call of a kind, wherever in a login that is: the database read, the
// backend asked, the answer to the client just written.
func TestStoppedAtEachStep(t *testing.T) {
	t.Parallel()
	testlab.Need(t, "strace")
	s, _, _ := full(t)
	other := s.serve()
	s.cli(other.config, "account", "add", alice)
	for n := 1; n <= 6; n++ {
		t.Run(fmt.Sprint("write ", n), func(t *testing.T) {
			p := s.password(other.config, alice, "--for", "mail")
			g := s.serve()
			defer g.Terminate()
			trace := filepath.Join(t.TempDir(), "trace")
			tracer := testlab.Exec(t, nil, "strace", "-f", "-p", fmt.Sprint(g.PID()), "-e", "trace=write", "-e",
				fmt.Sprintf("inject=write:signal=SIGSTOP:when=%d", n), "-o", trace)
			tracer.WaitLine("attached")
			got, ended := s.tryLogin(g.IMAP, alice, p.Secret)
			eventually(t, "stopped or answered", func() bool {
				text, _ := os.ReadFile(trace)
				return strings.Contains(string(text), "SIGSTOP") || got.accepted()
			})
			s.stopAndRevoke(g, other, p, got, ended, tracer.Terminate)
		})
	}
}

// A gateway is stopped in the middle of its backend's answers, which go on while it stands still.
func TestStoppedInTheBackendsAnswer(t *testing.T) {
	t.Parallel()
	s, dovecot, _ := full(t)
	other := s.serve()
	s.cli(other.config, "account", "add", alice)
	hold := newHold(t, dovecot.IMAP)
	s.backend = fmt.Sprintf("[[backend]]\nname = \"dovecot\"\nprotocol = \"imap\"\naddress = %q\ntls = \"none\"\ncredential = \"master\"\nuser = %q\npassword_file = %q\n",
		hold.address, dovecot.MasterUser, filepath.Join(s.dir, "dovecot.password"))
	g := s.serve()
	s.login(g, alice, s.password(other.config, alice, "--for", "mail").Secret).Close()
	whole := <-hold.sent // in a login that nobody disturbed
	for _, at := range []int{0, 1, whole / 4, whole / 2, whole * 3 / 4, whole - 1} {
		t.Run(fmt.Sprintf("after %d of %d bytes", at, whole), func(t *testing.T) {
			p := s.password(other.config, alice, "--for", "mail")
			release := hold.next(at)
			got, ended := s.tryLogin(g.IMAP, alice, p.Secret)
			<-hold.sent
			s.stopAndRevoke(g, other, p, got, ended, release)
		})
	}
}
