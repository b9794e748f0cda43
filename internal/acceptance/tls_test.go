package acceptance

import (
	"bufio"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	"postern/internal/testlab"
)

const noBackend = "\n[[backend]]\nname = \"none\"\nprotocol = \"imap\"\naddress = \"127.0.0.1:1\"\ntls = \"none\"\ncredential = \"stored\"\n"

// greeting connects with TLS and reads IMAP's greeting.
func greeting(t *testing.T, address string, c *tls.Config) tls.ConnectionState {
	t.Helper()
	conn, err := tls.Dial("tcp", address, c)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return conn.ConnectionState()
}

// startTLS does the same on a listener with STARTTLS, up to the first answer.
func startTLS(t *testing.T, address string, c *tls.Config) tls.ConnectionState {
	t.Helper()
	conn, err := dialAny(nil, address, false)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	r.ReadString('\n')
	io.WriteString(conn, "a STARTTLS\r\n")
	r.ReadString('\n')
	secure := tls.Client(conn, c)
	io.WriteString(secure, "b NOOP\r\n")
	if _, err := bufio.NewReader(secure).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return secure.ConnectionState()
}

// request makes an HTTPS request over a new connection.
func request(t *testing.T, url string, c *tls.Config) tls.ConnectionState {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: c.Clone(), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get(url + "/dav/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized || resp.ProtoMajor != 2 {
		t.Errorf("%s over %s", resp.Status, resp.Proto)
	}
	io.Copy(io.Discard, resp.Body)
	return *resp.TLS
}

// An app resumes its TLS session on whichever gateway it meets, at each door, after a restart, and while root keys come and go.
func TestTLSSessionsResumeEverywhere(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.backend = noBackend
	one, two := s.serve(), s.serve()
	remembers := func() *tls.Config {
		c := s.tls()
		c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		return c
	}
	app, other := remembers(), remembers()
	for _, c := range []*tls.Config{app, other} {
		if greeting(t, one.IMAP, c).DidResume {
			t.Fatal("the first session was resumed")
		}
	}
	resumes := func(when string) {
		t.Helper()
		for range 5 {
			for _, g := range []*gateway{one, two} {
				for door, state := range map[string]tls.ConnectionState{
					"IMAP": greeting(t, g.IMAP, app), "STARTTLS": startTLS(t, g.STARTTLS, app), "DAV": request(t, g.DAV, app)} {
					if !state.DidResume {
						t.Errorf("%s: not resumed at %s of %s", when, door, g.config)
					}
				}
			}
		}
	}
	resumes("first")
	one.Terminate()
	one.Wait()
	one = s.serve()
	resumes("after a restart")
	s.cli(one.config, "key", "add")
	one.reload(`"msg":"reloaded"`)
	two.reload(`"msg":"reloaded"`)
	resumes("after a key was added")
	s.cli(one.config, "key", "retire", "1")
	one.reload(`"msg":"reloaded"`)
	two.reload(`"msg":"reloaded"`)
	resumes("after the old key was retired")
	if greeting(t, two.IMAP, other).DidResume {
		t.Error("a ticket of a retired key resumes")
	}
	if !greeting(t, one.IMAP, other).DidResume {
		t.Error("not resumed after that")
	}

	old := remembers()
	old.MaxVersion = tls.VersionTLS12
	for range 2 {
		if greeting(t, one.IMAP, old).DidResume {
			t.Error("a session of TLS 1.2 was resumed")
		}
	}
	for version, wants := range map[string]bool{"-tls1_2": false, "-tls1_3": true} {
		client := testlab.Command(t, "openssl", "s_client", version, "-connect", one.IMAP, "-CAfile", s.ca.File, "-ign_eof")
		client.Stdin = strings.NewReader("a LOGOUT\r\n")
		out, err := client.CombinedOutput()
		got := strings.Contains(string(out), "TLS session ticket:")
		if err != nil || got != wants || !strings.Contains(string(out), "a OK") {
			t.Errorf("openssl s_client %s: ticket: %v, want %v; %v\n%s", version, got, wants, err, out)
		}
	}
}

// Apps that can get a hybrid key exchange, unless the administrator would rather save its cost.
func TestPostQuantum(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.backend = noBackend
	g := s.serve()
	for _, tt := range []struct {
		from, to string
		want     tls.CurveID
	}{
		{"", "", tls.X25519MLKEM768},
		{"shutdown_grace", "tls.post_quantum = false\nshutdown_grace", tls.X25519},
		{"tls.post_quantum = false", "tls.post_quantum = true", tls.X25519MLKEM768},
	} {
		if tt.from != "" {
			g.change(tt.from, tt.to)
			g.reload(`"msg":"reloaded"`)
		}
		for door, state := range map[string]tls.ConnectionState{"IMAP": greeting(t, g.IMAP, s.tls()), "DAV": request(t, g.DAV, s.tls())} {
			if state.CurveID != tt.want {
				t.Errorf("%q: %s agrees on a key by %v, want %v", tt.to, door, state.CurveID, tt.want)
			}
		}
	}
}
