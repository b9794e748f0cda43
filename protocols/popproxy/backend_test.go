package popproxy_test

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"testing"

	"postern/authstore"
	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/doortest"
	"postern/protocols/popproxy"
)

// Each row is a backend's side of one login, and what the client is told.
func TestBackends(t *testing.T) {
	t.Parallel()
	ca := testlab.NewCA(t)
	_, _, cert := ca.Issue()
	const in = "+OK Logged in."
	ir := b64("alice@example.test\x00gateway\x00secret")
	auth := "C: AUTH PLAIN " + ir + "\n"
	for name, tt := range map[string]struct {
		script string
		change func(*protocols.Route, *protocols.Credential)
		want   string
		err    error
	}{
		"as any":             {"+OK\n" + auth + "+OK\nC: NOOP", nil, in, nil},
		"Dovecot":            {"+OK [XCLIENT] Dovecot ready.\nC: XCLIENT ADDR=127.0.0.1 PORT=<> SESSION=<> TTL=4\n" + auth + "+OK Updated\n+OK Logged in.\nC: NOOP", nil, in, nil},
		"XCLIENT refused":    {"+OK [XCLIENT] Dovecot ready.\nC: XCLIENT ADDR=127.0.0.1 PORT=<> SESSION=<> TTL=4\n" + auth + "-ERR no\n+OK Logged in.\nC: NOOP", nil, in, nil},
		"no address":         {"+OK [XCLIENT] Dovecot ready.\n" + auth + "+OK\nC: NOOP", func(r *protocols.Route, _ *protocols.Credential) { r.Quirks.NoClientID = true }, in, nil},
		"a word of text":     {"+OK ready [XCLIENT]\n" + auth + "+OK\nC: NOOP", nil, in, nil},
		"no response wanted": {"+OK\n" + auth + "+ .\nC: " + ir + "\n+OK\nC: NOOP", nil, in, nil},
		"a long response": {"+OK\nC: AUTH PLAIN\n+\nC: " + b64("\x00alice\x00"+strings.Repeat("x", 300)) + "\n+OK\nC: NOOP", func(_ *protocols.Route, c *protocols.Credential) {
			*c = protocols.Credential{Authcid: "alice", Password: []byte(strings.Repeat("x", 300))}
		}, in, nil},
		"STLS":               {"+OK\nC: STLS\n+OK\nTLS\n" + auth + "+OK\nC: NOOP", startTLS, in, nil},
		"no STLS":            {"+OK\nC: STLS\n-ERR what?", startTLS, tempFail, protocols.ErrNoStartTLS},
		"words behind STLS":  {"+OK\nC: STLS\n+OK\n+OK Logged in.", startTLS, tempFail, protocols.ErrBackendInjected},
		"refused":            {"+OK\n" + auth + "-ERR [AUTH] Authentication failed.", nil, tempFail, protocols.ErrCredential},
		"refused, no codes":  {"+OK\n" + auth + "-ERR bad login", nil, tempFail, protocols.ErrCredential},
		"refused later":      {"+OK\n" + auth + "+ .\nC: " + ir + "\n-ERR [auth] no", nil, tempFail, protocols.ErrCredential},
		"in trouble":         {"+OK\n" + auth + "-ERR [SYS/TEMP] Try [AUTH] later", nil, tempFail, nil},
		"in lasting trouble": {"+OK\n" + auth + "-ERR [SYS/PERM] broken", nil, tempFail, nil},
		"in use":             {"+OK\n" + auth + "-ERR [IN-USE] Locked by pid 1 of host x.", nil, "-ERR [IN-USE] Another POP3 session has the mailbox open; please try again later.", nil},
		"in use at once":     {"-ERR [in-use] too many", nil, "-ERR [IN-USE] Another POP3 session has the mailbox open; please try again later.", nil},
		"too soon":           {"+OK\n" + auth + "-ERR [LOGIN-DELAY] minimum time between mail checks violation", nil, "-ERR [LOGIN-DELAY] It is too early after the last login; please try again later.", nil},
		"overloaded":         {"-ERR [SYS/TEMP] overloaded", nil, tempFail, nil},
		"hangs up at once":   {"", nil, tempFail, nil},
		"hangs up, greeting": {"+OK hi", nil, tempFail, nil},
		"hangs up, AUTH":     {"+OK\n" + auth, nil, tempFail, nil},
		"not POP3":           {"* OK [CAPABILITY IMAP4rev1] ready", nil, tempFail, nil},
		"+OKAY":              {"+OKAY", nil, tempFail, nil},
		"never enough":       {"+OK\n" + auth + "+ .\nC: " + ir + "\n+ .\n", nil, tempFail, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, strange := doortest.Scripted(t, cert, tt.script)
			d := serve(t, func(d *doortest.Door) {
				d.Routes = func(authstore.Grant) (*protocols.Route, error) {
					c := protocols.Credential{Authzid: "alice@example.test", Authcid: "gateway", Password: []byte("secret")}
					r := &protocols.Route{Backend: doortest.Backend, Network: "tcp", Address: address, TLS: &tls.Config{RootCAs: ca.Pool}}
					if tt.change != nil {
						tt.change(r, &c)
					}
					r.Open = func(context.Context) (protocols.Credential, error) { return c, nil }
					return r, nil
				}
			})
			k := dial(t, d)
			k.Ask("USER alice@example.test")
			got := k.Ask("PASS %s", doortest.AppPassword)
			select {
			case line := <-strange:
				t.Errorf("the backend heard %q", line)
			default:
			}
			e := <-d.Logins
			if got != tt.want || tt.err != nil && !errors.Is(e.Err, tt.err) || errors.Is(e.Err, protocols.ErrCredential) != (tt.err == protocols.ErrCredential) {
				t.Errorf("got %q, %v; want %q, %v", got, e.Err, tt.want, tt.err)
			}
			if e.Err != nil && strings.Contains(e.Err.Error(), ir) {
				t.Errorf("the error shows the credential: %v", e.Err)
			}
			if tt.want == in {
				k.Send("NOOP\r\n")
				k.Rest()
			}
		})
	}
}

func startTLS(r *protocols.Route, _ *protocols.Credential) { r.Security = protocols.StartTLS }

// What administrators are told, and what clients may be told.
func TestProbeAndAsk(t *testing.T) {
	t.Parallel()
	_, _, cert := testlab.NewCA(t).Issue()
	auth := "C: AUTH PLAIN " + b64("\x00alice\x00secret") + "\n"
	capa := "+OK [XCLIENT]\nC: CAPA\n+OK\nTOP\nuidl\nPIPELINING\nEXPIRE 30\nLOGIN-DELAY 60\nUTF8\nLANG\nSTLS\nUSER\nX-ODD\nIMPLEMENTATION foo\nSASL LOGIN plain\n.\n"
	for name, tt := range map[string]struct {
		script string
		visits bool // there is no account to log in as
		want   string
	}{
		"all is well":       {capa + auth + "+OK\nC: STAT\n+OK 0 0\nC: QUIT", false, ""},
		"without CAPA":      {"+OK\nC: CAPA\n-ERR what?\n" + auth + "+OK\nC: STAT\n+OK 0 0\nC: QUIT", false, ""},
		"no account":        {capa + "C: QUIT", true, ""},
		"no PLAIN":          {"+OK\nC: CAPA\n+OK\nSASL CRAM-MD5\n.\n", true, "it does not offer SASL PLAIN; allow that mechanism there"},
		"refused":           {capa + auth + "-ERR [AUTH] no", false, "it refuses the login; a wrong password in password_file"},
		"in trouble":        {capa + auth + "-ERR [SYS/TEMP] no", false, "it has troubles of its own"},
		"in use":            {capa + auth + "-ERR [IN-USE] no", false, "another POP3 session has the mailbox of alice open"},
		"too soon":          {capa + auth + "-ERR [LOGIN-DELAY] no", false, "it wants a pause between two logins of alice"},
		"no mailbox":        {capa + auth + "+OK\nC: STAT\n-ERR no", false, "the login as alice works, but the mailbox does not open"},
		"not POP3":          {"220 smtp", false, "it does not speak POP3"},
		"an endless answer": {"+OK\nC: CAPA\n+OK\n" + strings.Repeat("X\n", 300), true, "it says too much before the login is over"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, strange := doortest.Scripted(t, cert, tt.script)
			r := &protocols.Route{Backend: "b", Network: "tcp", Address: address, Login: "alice"}
			if !tt.visits {
				r.Open = func(context.Context) (protocols.Credential, error) {
					return protocols.Credential{Authcid: "alice", Password: []byte("secret")}, nil
				}
			}
			err := popproxy.Probe(t.Context(), r)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Probe: %v, want %q", err, tt.want)
			}
			select {
			case line := <-strange:
				t.Errorf("the backend heard %q", line)
			default:
			}
		})
	}
	address, _ := doortest.Scripted(t, cert, capa+"C: QUIT")
	list, err := popproxy.Ask(t.Context(), &protocols.Route{Network: "tcp", Address: address})
	if err != nil || len(list) != 3 || !list.Has("TOP") || !list.Has("UIDL") || !list.Has("PIPELINING") {
		t.Errorf("Ask: %v, %v", list, err)
	}
	address, _ = doortest.Scripted(t, cert, "+OK\nC: CAPA\n-ERR what?\nC: QUIT")
	if list, err := popproxy.Ask(t.Context(), &protocols.Route{Network: "tcp", Address: address}); err != nil || list == nil || len(list) > 0 {
		t.Errorf("Ask one without CAPA: %v, %v", list, err)
	}
}
