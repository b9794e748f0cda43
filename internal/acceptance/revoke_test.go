package acceptance

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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

// The same with the gateway stopped by a signal at its n-th system call of a kind, wherever in a login that is: the backend's
// answer under way, the database read, the answer to the client about to be written.
func TestStoppedAtEachStep(t *testing.T) {
	t.Parallel()
	testlab.Need(t, "strace")
	s, dovecot, _ := full(t)
	_ = dovecot
	other := s.serve()
	s.cli(other.config, "account", "add", alice)
	for _, n := range []int{1, 2, 3, 4, 5, 6} {
		t.Run(fmt.Sprint("write ", n), func(t *testing.T) {
			p := s.password(other.config, alice, "--for", "mail")
			g := s.serve()
			marker := filepath.Join(t.TempDir(), "attached")
			// -e inject stops the whole gateway at its n-th write to a socket after strace has attached
			tracer := testlab.Exec(t, nil, "strace", "-f", "-p", fmt.Sprint(g.PID()), "-e", "trace=write,sendto", "-e",
				fmt.Sprintf("inject=write:signal=SIGSTOP:when=%d", n), "-o", marker)
			tracer.WaitLine("attached")
			conn, err := dialAny(s, g.IMAP, true)
			if err == nil {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(60 * time.Second))
				go io.WriteString(conn, "a LOGIN "+alice+" "+p.Secret+"\r\n")
			}
			eventually(t, "stopped or logged in", func() bool {
				text, _ := os.ReadFile(marker)
				return strings.Contains(string(text), "SIGSTOP") || strings.Contains(g.Output(), `"msg":"login"`)
			})
			g.Signal(syscall.SIGSTOP) // a traced process shows another state than a stopped one, so nobody waits for it
			s.cli(other.config, "password", "revoke", fmt.Sprint(p.ID))
			before := strings.Count(g.Output(), `"code":"ok"`)
			tracer.Terminate()
			g.Signal(syscall.SIGCONT)
			wantIMAP(t, s.dial(g, nil).Login(alice, p.Secret).Wait(), imap.ResponseCodeAuthenticationFailed)
			if after := strings.Count(g.Output(), `"code":"ok"`); after > before {
				t.Errorf("%d logins were accepted after the revocation was confirmed:\n%s", after-before, g.Output())
			}
			g.Terminate()
		})
	}
}
