package route_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"postern/authstore"
	"postern/gateway/route"
	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/doortest"
	"postern/protocols/imapproxy"
	"postern/protocols/popproxy"
	"postern/protocols/saslauth"
	"postern/protocols/sieveproxy"
	"postern/protocols/submission"
)

// vault gets tokens at a token server, and keeps the last one for as long as no backend refuses it.
type vault struct {
	server  *testlab.TokenServer
	client  *http.Client
	refresh string

	mu      sync.Mutex // guards what follows
	kept    string
	refused int
}

func newVault(s *testlab.TokenServer, user string) *vault {
	return &vault{server: s, client: s.Client(), refresh: s.Refreshable(user)}
}

func (v *vault) AccessToken(ctx context.Context, _ authstore.AccountID, _ string) (route.Token, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.kept == "" {
		if err := v.fetch(ctx); err != nil {
			return route.Token{}, err
		}
	}
	given := v.kept
	return route.Token{Value: []byte(given), Refused: func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.refused++
		if v.kept == given {
			v.kept = ""
		}
	}}, nil
}

// fetch is called with mu held.
func (v *vault) fetch(ctx context.Context) error {
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {v.refresh}, "client_id": {v.server.ClientID}, "client_secret": {v.server.Secret}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, v.server.URL+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := v.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the token endpoint says %d", resp.StatusCode)
	}
	var told struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	if err := json.Unmarshal(body, &told); err != nil {
		return err
	}
	v.kept, v.refresh = told.Access, told.Refresh
	return nil
}

// told is how often a backend refused a token.
func (v *vault) told() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.refused
}

func plain(login string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + login + "\x00" + doortest.AppPassword))
}

// front is a front door and how a client logs in there and reaches what is behind.
type front struct {
	door     protocols.FrontDoor
	address  func(d *testlab.DovecotServer) string
	security protocols.Security
	probe    func(context.Context, *protocols.Route) error
	logIn    func(k *doortest.Client) string // returns the answer to the login
	in       string                          // that it has
	later    string                          // what it is where the backend can't be logged in to now
	use      func(t *testing.T, k *doortest.Client)
}

func fronts(t *testing.T) map[string]front {
	some := []protocols.Capability{{Name: "SIZE", Value: "1000"}}
	return map[string]front{
		imapproxy.Protocol: {imapproxy.Door{}, func(d *testlab.DovecotServer) string { return d.IMAPS }, protocols.ImplicitTLS, imapproxy.Probe,
			func(k *doortest.Client) string {
				k.Line()
				return k.Ask("a LOGIN %s %s", testlab.Alice, doortest.AppPassword)
			}, "a OK [CAPABILITY ", "a NO [UNAVAILABLE] Account is temporarily unavailable.",
			func(t *testing.T, k *doortest.Client) {
				k.Send("b SELECT INBOX\r\n")
				if got := k.Until("b"); !strings.Contains(got, "* 1 EXISTS") {
					t.Errorf("SELECT: %q", got)
				}
			}},
		popproxy.Protocol: {popproxy.Door{Offers: doortest.Offers(t)}, func(d *testlab.DovecotServer) string { return d.POP3 }, protocols.StartTLS, popproxy.Probe,
			func(k *doortest.Client) string {
				k.Line()
				k.Ask("USER %s", testlab.Alice)
				return k.Ask("PASS %s", doortest.AppPassword)
			}, "+OK Logged in.", "-ERR [SYS/TEMP] Account is temporarily unavailable.",
			func(t *testing.T, k *doortest.Client) {
				if got := k.Ask("STAT"); !strings.HasPrefix(got, "+OK 1 ") {
					t.Errorf("STAT: %q", got)
				}
			}},
		sieveproxy.Protocol: {sieveproxy.Door{Offers: doortest.Offers(t)}, func(d *testlab.DovecotServer) string { return d.Sieve }, protocols.StartTLS, sieveproxy.Probe,
			func(k *doortest.Client) string {
				k.Until("OK")
				k.Send("AUTHENTICATE \"PLAIN\" \"%s\"\r\n", plain(testlab.Alice))
				return k.Line()
			}, `OK "Logged in."`, `NO (TRYLATER) "Account is temporarily unavailable."`,
			func(t *testing.T, k *doortest.Client) {
				k.Send("PUTSCRIPT \"lab\" {7+}\r\nkeep;\r\n\r\n")
				if got := k.Line(); !strings.HasPrefix(got, "OK ") {
					t.Errorf("PUTSCRIPT: %q", got)
				}
			}},
		submission.Protocol: {&submission.Door{Name: "mx.example.test", Offers: doortest.Offers(t, some...)}, func(d *testlab.DovecotServer) string { return d.Submissions },
			protocols.ImplicitTLS, submission.Probe,
			func(k *doortest.Client) string {
				k.Line()
				k.Send("EHLO phone\r\n")
				for !strings.HasPrefix(k.Line(), "250 ") {
				}
				return k.Ask("AUTH PLAIN %s", plain(testlab.Alice))
			}, "235 2.7.0 Logged in.", "454 4.3.0 Account is temporarily unavailable.",
			func(t *testing.T, k *doortest.Client) {
				for _, step := range [][2]string{{"MAIL FROM:<" + testlab.Alice + ">", "250"}, {"RCPT TO:<x@example.org>", "250"}, {"DATA", "354"}, {"Subject: lab\r\n\r\nhello\r\n.", "250"}} {
					if got := k.Ask("%s", step[0]); !strings.HasPrefix(got, step[1]) {
						t.Errorf("%s: %q", step[0], got)
					}
				}
			}},
	}
}

// lab is a Dovecot that takes tokens, and all front doors' way to it.
type lab struct {
	tokens  *testlab.TokenServer
	dovecot *testlab.DovecotServer
}

func newLab(t *testing.T, mechanisms ...string) lab {
	s := testlab.NewTokenServer(t)
	d := testlab.Dovecot(t, testlab.POP3(), testlab.Sieve(), testlab.Submission(testlab.Postfix(t).Relay), testlab.Tokens(s, mechanisms...))
	d.Deliver(testlab.Alice, "INBOX", testlab.Mails()[0])
	return lab{s, d}
}

// table leads all to the lab by tokens of v.
func (l lab) table(t *testing.T, protocol string, f front, v route.Tokens, spare int) *route.Table {
	t.Helper()
	table, err := route.New([]route.Backend{{Name: doortest.Backend, Network: "tcp", Address: f.address(l.dovecot), Security: f.security,
		TLS: &tls.Config{RootCAs: l.dovecot.CA.Pool, ServerName: "localhost"}, Login: "{address}", Kind: route.OAuth, Spare: spare}},
		[]route.Rule{{Domain: "*", Protocol: protocol, Backend: doortest.Backend}}, nil, v)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(table.Close)
	return table
}

func serve(t *testing.T, f front, table *route.Table) *doortest.Door {
	return doortest.Serve(t, f.door, func(d *doortest.Door) {
		d.Routes = func(g authstore.Grant) (*protocols.Route, error) {
			return table.Route(context.Background(), f.door.Protocol(), g)
		}
	})
}

// Apps with an app password reach a Dovecot that takes tokens, by each mechanism, however long the token is, over new connections and kept ones. Dovecot
// takes responses of 8192 bytes.
func TestTokensReachDovecot(t *testing.T) {
	t.Parallel()
	for _, mechanism := range []string{saslauth.OAuthBearer, saslauth.XOAuth2} {
		t.Run(mechanism, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, mechanism)
			for _, padding := range []int{0, 500, 2500, 5950} {
				l.tokens.Padding = padding
				for protocol, f := range fronts(t) {
					t.Run(fmt.Sprint(protocol, " ", padding), func(t *testing.T) {
						v := newVault(l.tokens, testlab.Alice)
						table := l.table(t, protocol, f, v, 2)
						d := serve(t, f, table)
						for range 3 {
							k := d.Dial(t)
							if got := f.logIn(k); !strings.HasPrefix(got, f.in) {
								t.Fatalf("the login: %q, %v", got, (<-d.Logins).Err)
							}
							f.use(t, k)
							k.Close()
						}
						r, err := table.Route(t.Context(), protocol, authstore.Grant{Account: 1, Address: testlab.Alice})
						if err != nil {
							t.Fatal(err)
						}
						if err := f.probe(t.Context(), r); err != nil {
							t.Errorf("Probe: %v", err)
						}
						if v.told() != 0 {
							t.Error("a good token was refused")
						}
					})
				}
			}
		})
	}
}

// What goes wrong with tokens is never told an app as a wrong password, and whoever gives tokens is told when a backend refused one, only then.
func TestTokensThatDoNotServe(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for protocol, f := range fronts(t) {
		t.Run(protocol, func(t *testing.T) {
			v := newVault(l.tokens, testlab.Alice)
			table := l.table(t, protocol, f, v, 0)
			d := serve(t, f, table)
			try := func(t *testing.T, want string) error {
				t.Helper()
				k := d.Dial(t)
				defer k.Close()
				if got := f.logIn(k); !strings.HasPrefix(got, want) {
					t.Errorf("the login: %q, want %q", got, want)
				}
				e := <-d.Logins
				if e.Err != nil && (v.kept != "" && strings.Contains(e.Err.Error(), v.kept) || strings.Contains(e.Err.Error(), "Bearer")) {
					t.Errorf("the error shows the token: %v", e.Err)
				}
				return e.Err
			}
			probe := func(t *testing.T, want string) {
				t.Helper()
				r, err := table.Route(t.Context(), protocol, authstore.Grant{Account: 1, Address: testlab.Alice})
				if err != nil {
					t.Fatal(err)
				}
				if err := f.probe(t.Context(), r); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("Probe: %v, want %q", err, want)
				}
			}
			try(t, f.in)
			l.tokens.Expire(testlab.Alice)
			if err := try(t, f.later); !errors.Is(err, protocols.ErrCredential) || !strings.Contains(err.Error(), `status is "`) {
				t.Errorf("expired: %v", err)
			}
			if v.told() != 1 {
				t.Errorf("the refusal was told %d times, want once", v.told())
			}
			try(t, f.in) // another token
			l.tokens.Fail("/introspect", testlab.ServerFails)
			if err := try(t, f.later); err == nil || errors.Is(err, protocols.ErrCredential) {
				t.Errorf("Dovecot can't ask: %v", err)
			}
			l.tokens.Fail("/introspect", testlab.Works)
			if v.told() != 1 {
				t.Error("a backend in trouble counts as a refusal")
			}
			l.tokens.Expire(testlab.Alice)
			probe(t, "it refuses the token for "+testlab.Alice)
			l.tokens.Fail("/token", testlab.Unavailable)
			if err := try(t, f.later); err == nil || errors.Is(err, protocols.ErrCredential) || !strings.Contains(err.Error(), "no access token for account 1 at backend") {
				t.Errorf("the provider is down: %v", err)
			}
			l.tokens.Fail("/token", testlab.Works)
			try(t, f.in)
			l.tokens.Revoke(testlab.Alice)
			try(t, f.later)
			if err := try(t, f.later); err == nil || !strings.Contains(err.Error(), "the token endpoint says 400") {
				t.Errorf("revoked: %v", err)
			}
			if v.told() != 3 {
				t.Errorf("the refusals were told %d times, want 3", v.told())
			}
		})
	}
}

// A backend that takes no tokens is said to be none for them.
func TestNoMechanismForTokens(t *testing.T) {
	t.Parallel()
	d := testlab.Dovecot(t, testlab.POP3(), testlab.Sieve(), testlab.Submission("127.0.0.1:1"))
	l := lab{dovecot: d}
	for protocol, f := range fronts(t) {
		t.Run(protocol, func(t *testing.T) {
			v := newVault(testlab.NewTokenServer(t), testlab.Alice)
			table := l.table(t, protocol, f, v, 0)
			r, err := table.Route(t.Context(), protocol, authstore.Grant{Account: 1, Address: testlab.Alice})
			if err != nil {
				t.Fatal(err)
			}
			for name, r := range map[string]*protocols.Route{"with an account": r, "without": table.Reach(doortest.Backend)} {
				if err := f.probe(t.Context(), r); !errors.Is(err, protocols.ErrNoBearer) || !strings.Contains(err.Error(), "Dovecot: auth_mechanisms") {
					t.Errorf("%s: %v", name, err)
				}
			}
			k := serve(t, f, table).Dial(t)
			if got := f.logIn(k); got != f.later {
				t.Errorf("the login: %q", got)
			}
			if v.server.Asked("/token") != 0 {
				t.Error("a token was fetched for a backend that takes none")
			}
		})
	}
}

// odd gives what no token may be.
type odd string

func (o odd) AccessToken(context.Context, authstore.AccountID, string) (route.Token, error) {
	return route.Token{Value: []byte(o)}, nil
}

func TestOddTokens(t *testing.T) {
	for _, token := range []odd{"", "a b", "a\x01auth=Bearer b", "a\r\nX-Remote-User: bob", "ä", "a\x00", "a\x7f"} {
		table, err := route.New([]route.Backend{{Name: "b", Login: "{address}", Kind: route.OAuth}}, []route.Rule{{Domain: "*", Protocol: "imap", Backend: "b"}}, nil, token)
		if err != nil {
			t.Fatal(err)
		}
		r, err := table.Route(t.Context(), "imap", authstore.Grant{Account: 1, Address: testlab.Alice})
		if err != nil {
			t.Fatal(err)
		}
		if c, err := r.Open(t.Context()); err == nil || len(c.Password) > 0 || strings.Contains(err.Error(), string(token)) && token != "" {
			t.Errorf("token %q: %q, %v", token, c.Password, err)
		}
	}
}
