package acceptance

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testlab"
)

const (
	portalName = "passwords.example.test"
	appsName   = "mail.example.test"
)

// portalBesideDAV is a site whose portal shares the address of dav, until its configuration is changed.
func portalBesideDAV(t *testing.T, more string) *site {
	s := newSite(t)
	s.names = []string{portalName, appsName}
	s.top = fmt.Sprintf("hostname = %q\n", appsName)
	s.doors = "  { protocol = \"portal\", address = \"127.0.0.1:{dav}\" },\n"
	s.backend = noBackend + "\n[portal]\nurl = \"https://" + portalName + "\"\n" + more
	return s
}

// browser asks whatever name it is given at one address.
func (s *site) browser(address string) *http.Client {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	c := s.tls()
	c.ServerName = ""
	transport := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Jar: jar, Transport: transport}
}

// visit returns an answer with what it says.
func visit(t *testing.T, do func() (*http.Response, error)) (*http.Response, string) {
	t.Helper()
	resp, err := do()
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

// The portal and DAV on one address are told apart by name; a reload gives the portal an address of its own, and back.
func TestPortalBesideDAV(t *testing.T) {
	t.Parallel()
	s := portalBesideDAV(t, "")
	g := s.serve()
	shared := strings.TrimPrefix(g.DAV, "https://localhost")
	get := func(address, url string) (*http.Response, string) {
		t.Helper()
		return visit(t, func() (*http.Response, error) { return s.browser("127.0.0.1" + address).Get(url) })
	}
	isPortal := func(address string) {
		t.Helper()
		resp, text := get(address, "https://"+portalName+"/")
		if resp.StatusCode != 200 || resp.ProtoMajor != 2 || resp.Request.URL.Path != "/sign-in" || !strings.Contains(text, "<form") {
			t.Errorf("the portal at %s: %s %s %s", address, resp.Proto, resp.Status, resp.Request.URL)
		}
	}
	isDAV := func() {
		t.Helper()
		for _, path := range []string{"/dav/", "/sign-in"} {
			resp, text := get(shared, "https://"+appsName+path)
			if resp.StatusCode != 401 || !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Basic ") || strings.Contains(text, "<form") {
				t.Errorf("DAV at %s: %s", path, resp.Status)
			}
		}
	}
	isPortal(shared)
	isDAV()
	if resp, _ := get(shared, "https://"+portalName+"/dav/"); resp.StatusCode != 404 || resp.Header.Get("WWW-Authenticate") != "" {
		t.Errorf("DAV under the portal's name: %s", resp.Status)
	}

	own := fmt.Sprintf(":%d", testlab.Ports(t, 1)[0])
	portalAt := func(at string) string { return `{ protocol = "portal", address = "127.0.0.1` + at }
	g.change(portalAt(shared), portalAt(own))
	g.reload("reloaded")
	isPortal(own)
	isDAV()
	if resp, _ := get(shared, "https://"+portalName+"/sign-in"); resp.StatusCode != 401 {
		t.Errorf("the portal where it was: %s", resp.Status)
	}
	g.change(portalAt(own), portalAt(shared))
	g.reload("reloaded")
	isPortal(shared)
	g.Terminate()
}

// Primary passwords are checked at Dovecot: right, wrong, and after it was changed there, which revokes app passwords.
func TestPortalSignInByIMAP(t *testing.T) {
	t.Parallel()
	d := testlab.Dovecot(t)
	s := portalBesideDAV(t, fmt.Sprintf("sign_in = \"imap\"\n[portal.imap]\naddress = %q\nca_file = %q\nserver_name = \"imap.example.test\"\n", d.IMAPS, d.CAFile))
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	signIn := func(address, password string) (*http.Response, string) {
		t.Helper()
		return visit(t, func() (*http.Response, error) {
			return s.browser(strings.TrimPrefix(strings.Replace(g.DAV, "localhost", "127.0.0.1", 1), "https://")).
				PostForm("https://"+portalName+"/sign-in", url.Values{"address": {address}, "password": {password}})
		})
	}
	wants := func(what, address, password, path, words string) {
		t.Helper()
		if resp, text := signIn(address, password); resp.Request.URL.Path != path || !strings.Contains(text, words) {
			t.Errorf("%s leads to %s, %s, without %q:\n%s", what, resp.Status, resp.Request.URL.Path, words, text)
		}
	}
	wants("the primary password", alice, testlab.Primary(alice), "/set-up", "")
	_, refusal := signIn(alice, "wrong")
	_, stranger := signIn("nobody@example.test", "wrong")
	if strings.ReplaceAll(refusal, alice, "X") != strings.ReplaceAll(stranger, "nobody@example.test", "X") {
		t.Errorf("the answers differ:\n%s\n%s", refusal, stranger)
	}

	p := s.password(g.config, alice, "--for", "mail")
	d.SetPrimary(alice, "another one")
	wants("the old primary password", alice, testlab.Primary(alice), "/sign-in", "problem")
	if out := s.cli(g.config, "password", "list", alice); !strings.Contains(out, "active") {
		t.Errorf("a wrong password revoked:\n%s", out)
	}
	wants("the changed primary password", alice, "another one", "/set-up", "")
	if out := s.cli(g.config, "password", "show", fmt.Sprint(p.ID)); !strings.Contains(out, "revoked") {
		t.Errorf("a changed primary password revokes nothing:\n%s", out)
	}
	for _, secret := range []string{testlab.Primary(alice), "another one"} {
		if strings.Contains(g.Output(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
	g.Terminate()
}

// A notice is mailed of what the command line does too, by a server that wants a login, also after a reload.
func TestNoticesAreMailed(t *testing.T) {
	t.Parallel()
	d := testlab.Dovecot(t)
	p := testlab.Postfix(t, testlab.SASL(d))
	password := filepath.Join(testlab.Dir(t), "relay.password")
	if err := os.WriteFile(password, []byte(testlab.Primary(testlab.Bob)+"\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	s := portalBesideDAV(t, fmt.Sprintf("[notices]\naddress = %q\ntls = \"starttls\"\nca_file = %q\nuser = %q\npassword_file = %q\nfrom = \"Example Mail <postmaster@example.test>\"\n",
		p.Submission, p.CAFile, testlab.Bob, password))
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	s.password(g.config, alice, "--for", "mail")
	m := p.WaitMessages(1)[0]
	if m.Sender != "postmaster@example.test" || len(m.Recipients) != 1 || m.Recipients[0] != alice {
		t.Errorf("from %s to %v", m.Sender, m.Recipients)
	}
	for _, want := range []string{"Subject: New app password", "https://" + portalName, "Message-ID: <"} {
		if !strings.Contains(string(m.Content), want) {
			t.Errorf("the mail lacks %q:\n%s", want, m.Content)
		}
	}
	g.WaitLine("notice sent")
	g.reload("reloaded")
	s.cli(g.config, "password", "revoke", "1")
	p.WaitMessages(2)
	eventually(t, "the second notice is done", func() bool { return strings.Count(g.Output(), "notice sent") == 2 })
	if n := len(p.Messages()); n != 2 {
		t.Errorf("%d mails", n)
	}
	g.Terminate()
}
