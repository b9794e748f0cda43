package acceptance

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/internal/testlab"
)

// Administrators see who is connected, and end what they choose; nobody else on the machine does.
func TestSessionsAreListedAndEnded(t *testing.T) {
	t.Parallel()
	s, _, g := mail(t)
	one, two := s.password(g.config, alice, "--for", "mail"), s.password(g.config, alice, "--for", "mail")
	s.cli(g.config, "account", "add", testlab.Carol)
	carol := s.password(g.config, testlab.Carol, "--for", "mail")
	s.login(g, alice, one.Secret)
	s.login(g, alice, two.Secret)
	idling := s.idle(g, testlab.Carol, carol.Secret)

	type session struct {
		ID, Address, Protocol, Client, Backend, App string
		Password                                    int64 `json:"app_password"`
		Since                                       time.Time
	}
	list := func(args ...string) (list []session) {
		t.Helper()
		out := s.cli(g.config, append([]string{"session", "list", "--json"}, args...)...)
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			t.Fatalf("session list: %v\n%s", err, out)
		}
		return list
	}
	if got := list(); len(got) != 3 || got[0].Address != alice || got[0].Protocol != "imap" || got[0].Client != "127.0.0.1" || got[0].Backend != "dovecot" {
		t.Errorf("session list: %+v", got)
	}
	if got := list("--password", strconv.FormatInt(two.ID, 10)); len(got) != 1 || got[0].Password != two.ID {
		t.Errorf("session list --password: %+v", got)
	}
	if out := s.cli(g.config, "session", "list", "--account", testlab.Carol); !strings.Contains(out, testlab.Carol) || strings.Contains(out, alice) {
		t.Errorf("session list --account:\n%s", out)
	}

	req, _ := http.NewRequest(http.MethodDelete, g.ops+"/sessions?account=1", nil)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("somebody without the key file ended sessions: %s %s", resp.Status, text)
	}

	if out := s.cli(g.config, "session", "end", "--account", testlab.Carol); out != "ended 1 session\n" {
		t.Errorf("session end --account: %q", out)
	}
	if words, err := io.ReadAll(idling); string(words) != "* BYE [UNAVAILABLE] The session was ended; please connect again.\r\n" {
		t.Errorf("a client in IDLE was told %q, %v", words, err)
	}
	if out := s.cli(g.config, "session", "end", list("--password", strconv.FormatInt(one.ID, 10))[0].ID); out != "ended 1 session\n" {
		t.Errorf("session end ID: %q", out)
	}
	if got := list(); len(got) != 1 || got[0].Password != two.ID {
		t.Errorf("left: %+v", got)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"end", "nosuch"}, "there is no session nosuch on this gateway"},
		{[]string{"end"}, "name the sessions by their ids, or by --account or --password"},
		{[]string{"end", "x", "--password", "1"}, "name the sessions by their ids, or by --account or --password"},
		{[]string{"list", "--account", "nobody@example.org"}, "there is no account"},
		{[]string{"end", "--password", "99"}, "there is no app password 99"},
		{[]string{"list", "--password", "x"}, "is not the number of an app password"},
	} {
		out, err := testlab.Command(t, s.program, append([]string{"session", "-c", g.config}, tt.args...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), tt.want) {
			t.Errorf("session %q: %v\n%s", tt.args, err, out)
		}
	}
	g.Terminate()
	g.Wait()
	if out, err := testlab.Command(t, s.program, "session", "list", "-c", g.config).CombinedOutput(); err == nil || !strings.Contains(string(out), "no gateway answers") {
		t.Errorf("without a gateway: %v\n%s", err, out)
	}
}
