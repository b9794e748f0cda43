package acceptance

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"postern/internal/testlab"
)

// A backend that takes tokens only: the command line connects an account by a device's code, apps log in with app passwords, and while the authorization
// server takes the connection no longer, apps are told to come back later.
func TestOAuthBackend(t *testing.T) {
	t.Parallel()
	tokens := testlab.NewTokenServer(t)
	tokens.Interval = 1
	dovecot := testlab.Dovecot(t, testlab.Tokens(tokens))
	dovecot.Deliver(alice, "INBOX", testlab.Mails()[0])
	s := newSite(t)
	secret := filepath.Join(s.dir, "oauth.secret")
	if err := os.WriteFile(secret, []byte(tokens.Secret+"\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	portalAt := func() {
		s.doors = fmt.Sprintf("  { protocol = \"portal\", address = \"127.0.0.1:%d\" },\n", testlab.Ports(t, 1)[0])
	}
	portalAt()
	s.backend = fmt.Sprintf("\n[[oauth]]\nname = \"lab\"\nissuer = %q\nclient_id = %q\nclient_secret_file = %q\nscopes = [\"openid\", \"email\", \"mail\", \"offline_access\"]\nca_file = %q\n",
		tokens.URL, tokens.ClientID, secret, tokens.CA.File) +
		fmt.Sprintf("\n[[backend]]\nname = \"dovecot\"\nprotocol = \"imap\"\naddress = %q\ntls = \"starttls\"\nca_file = %q\ncredential = \"oauth\"\noauth = \"lab\"\n", dovecot.IMAP, dovecot.CAFile) +
		"\n[portal]\nurl = \"https://passwords.localhost\"\n"
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	p := s.password(g.config, alice, "--for", "mail")
	refused := func(want string) {
		t.Helper()
		err := s.dial(g, nil).Login(alice, p.Secret).Wait()
		if e, ok := err.(*imap.Error); !ok || e.Code != imap.ResponseCodeUnavailable {
			t.Errorf("login = %v, want UNAVAILABLE", err)
		}
		eventually(t, "the log says "+want, func() bool { return strings.Contains(g.Output(), want) })
	}
	refused("the account is not connected to lab; its person connects it at https://passwords.localhost/connections")
	if out := s.cli(g.config, "account", "connections", alice); !strings.Contains(out, "lab") || !strings.Contains(out, "none") {
		t.Errorf("connections:\n%s", out)
	}

	cmd := testlab.Command(t, s.program, "account", "connect", alice, "--provider", "lab", "--json", "-c", g.config)
	cmd.Env = append(cmd.Env, noSleep)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := json.NewDecoder(out)
	var code struct {
		At   string `json:"verification_uri"`
		Code string `json:"user_code"`
	}
	var done struct {
		Done string `json:"done"`
	}
	if err := read.Decode(&code); err != nil || code.At == "" || !tokens.Approve(code.Code, alice) {
		t.Fatalf("it prints %+v, %v", code, err)
	}
	if err := read.Decode(&done); err != nil || done.Done != "connected "+alice+" to lab" {
		t.Errorf("it prints %+v, %v", done, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	looks := func() {
		t.Helper()
		c := s.login(g, alice, p.Secret)
		if m, err := c.Select("INBOX", nil).Wait(); err != nil || m.NumMessages != 1 {
			t.Errorf("INBOX: %+v, %v", m, err)
		}
	}
	looks()
	check := func(want ...string) {
		t.Helper()
		cmd := testlab.Command(t, s.program, "check", "-c", g.config)
		cmd.Env = append(cmd.Env, noSleep)
		text, _ := cmd.Output() // there is no backend for dav, which it finds as well
		for _, w := range want {
			if !strings.Contains(string(text), w) {
				t.Errorf("check lacks %q:\n%s", w, text)
			}
		}
	}
	check("ok    oauth lab: the server answers, accounts connected: 1\n", "logged in for "+alice)

	// The access token ends before its time: one login is refused, and the next has another.
	tokens.Expire("")
	refused("the backend refused the gateway's credential")
	eventually(t, "another token is fetched", func() bool { return tokens.Asked("refresh_token") == 1 })
	looks()

	// The person takes it back at the provider.
	portalAt()
	g = s.serve() // another node, which has asked for none within the minute
	looks()
	tokens.Revoke(alice)
	refused("the backend refused the gateway's credential")
	refused("a connection has failed")
	check("FAIL  oauth lab: 1 connections have failed: "+alice, "no account that leads here is connected")
	if out := s.cli(g.config, "account", "connections", alice, "--json"); !strings.Contains(out, `"failure": "invalid_grant"`) {
		t.Errorf("connections:\n%s", out)
	}
	if out := s.cli(g.config, "account", "show", alice, "--json"); !strings.Contains(out, `"status": "active"`) || !strings.Contains(out, `"active_app_passwords": 1`) {
		t.Errorf("the account is\n%s", out)
	}
	if out := s.cli(g.config, "account", "disconnect", alice, "--provider", "lab"); !strings.Contains(out, "disconnected "+alice+" from lab") {
		t.Errorf("disconnect:\n%s", out)
	}
	for _, secret := range []string{"at.", "rt.", "dev.", tokens.Secret} {
		if strings.Contains(g.Output(), secret) {
			t.Errorf("the log tells %q", secret)
		}
	}
}
