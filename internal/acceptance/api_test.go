package acceptance

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/internal/testlab"
)

// token makes one of the API on the command line.
func (s *site) token(config, name string, scopes ...string) string {
	s.t.Helper()
	out := s.cli(config, "token", "create", name, "--scope", strings.Join(scopes, ","), "--json")
	return regexp.MustCompile(`postern_[a-z2-7]{38}`).FindString(out)
}

// call asks the API.
func call(t *testing.T, c *http.Client, token, method, url, body string) (*http.Response, string) {
	t.Helper()
	return visit(t, func() (*http.Response, error) {
		req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/json")
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		return c.Do(req)
	})
}

// The API on the portal's address, beside DAV: there where it was switched on, for tokens and not for browsers.
func TestAPIAtThePortal(t *testing.T) {
	t.Parallel()
	s := portalBesideDAV(t, "")
	g := s.serve()
	token := s.token(g.config, "test", "everything")
	c := s.browser("127.0.0.1" + strings.TrimPrefix(g.DAV, "https://localhost"))
	portal := "https://" + portalName + "/api/v1"
	if resp, text := call(t, c, token, "GET", portal+"/health", ""); resp.StatusCode != 404 || !strings.Contains(text, "<html") {
		t.Errorf("where it is not: %s", resp.Status)
	}
	if resp, _ := call(t, http.DefaultClient, token, "GET", g.ops+"/api/v1/health", ""); resp.StatusCode != 200 {
		t.Errorf("on the operations listener: %s", resp.Status)
	}
	g.change("limits.preauth_per_network = 1000\n", "limits.preauth_per_network = 1000\napi.listeners = [\"portal\"]\n")
	g.reload("reloaded")
	if resp, _ := call(t, http.DefaultClient, token, "GET", g.ops+"/api/v1/health", ""); resp.StatusCode != 404 {
		t.Errorf("no longer on the operations listener: %s", resp.Status)
	}
	c.CloseIdleConnections()
	resp, text := call(t, c, token, "POST", portal+"/accounts", `{"address": "alice@example.test"}`)
	if resp.StatusCode != 201 || resp.ProtoMajor != 2 || resp.Header.Get("Set-Cookie") != "" || resp.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("at the portal: %s %v %s", resp.Status, resp.Header, text)
	}
	if resp, text := call(t, c, "", "GET", portal+"/accounts", ""); resp.StatusCode != 401 || resp.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("without a token: %s %s", resp.Status, text)
	}
	if resp, _ := call(t, c, token, "GET", "https://"+appsName+"/api/v1/accounts", ""); resp.StatusCode != 401 || !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Basic") {
		t.Errorf("under the name of apps: %s", resp.Status)
	}
	if events := s.cli(g.config, "account", "show", alice, "--json"); !strings.Contains(events, `"actor": "api:test"`) || !strings.Contains(events, `"client": "127.0.0.1"`) {
		t.Errorf("the history: %s", events)
	}
	s.cli(g.config, "token", "revoke", "test")
	if resp, _ := call(t, c, token, "GET", portal+"/health", ""); resp.StatusCode != 401 {
		t.Errorf("revoked: %s", resp.Status)
	}
	g.Terminate()
}

// The API over a Unix socket, with real connections to list and end.
func TestAPIOnASocket(t *testing.T) {
	t.Parallel()
	s, _, _ := full(t)
	config := s.writeConfig(testlab.Ports(t, 4))
	s.cli(config, "init")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(s.dir, "ops.sock")
	g := &gateway{t: t, config: config, IMAP: regexp.MustCompile(`protocol = "imap", address = "([^"]+)"`).FindStringSubmatch(string(text))[1]}
	g.change(regexp.MustCompile(`operations.address = .*`).FindString(string(text)), fmt.Sprintf("operations.address = %q", "unix:"+socket))
	g.Process = testlab.Exec(t, nil, s.program, "serve", "-c", config)
	g.WaitLine(`"msg":"serving"`)
	token := s.token(config, "test", "everything")
	c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer c.CloseIdleConnections()
	ask := func(want int, method, path, body string) string {
		t.Helper()
		resp, text := call(t, c, token, method, "http://localhost/api/v1"+path, body)
		if resp.StatusCode != want {
			t.Fatalf("%s %s: %s %s", method, path, resp.Status, text)
		}
		return text
	}
	ask(201, "POST", "/accounts", `{"address": "`+alice+`"}`)
	made := ask(201, "POST", "/accounts/"+alice+"/passwords", `{"label": "Phone", "for": "mail"}`)
	secret := regexp.MustCompile(`"secret":"([a-z-]{23})"`).FindStringSubmatch(made)[1]
	session := s.login(g, alice, secret)
	listed := ask(200, "GET", "/sessions?account="+alice, "")
	id := regexp.MustCompile(`"id":"([^"]+)"`).FindStringSubmatch(listed)
	if id == nil || !strings.Contains(listed, `"protocol":"imap"`) {
		t.Fatalf("sessions: %s", listed)
	}
	if ended := ask(200, "POST", "/sessions/end", `{"id": "`+id[1]+`"}`); !strings.Contains(ended, `"ended":1,"gone":true`) {
		t.Errorf("ended: %s", ended)
	}
	if err := session.Noop().Wait(); err == nil {
		t.Error("the session goes on")
	}
	again := s.login(g, alice, secret)
	if done := ask(200, "POST", "/primary-changed", `{"address": "`+alice+`"}`); !strings.Contains(done, `"unconfirmed_nodes":[]`) || !strings.Contains(done, `"revoked_app_passwords":1`) {
		t.Errorf("the primary password: %s", done)
	}
	if err := again.Noop().Wait(); err == nil {
		t.Error("the session goes on after the primary password was changed")
	}
	g.Terminate()
}

// What the page on the API has people type works, in its order.
func TestAPIPage(t *testing.T) {
	t.Parallel()
	testlab.Need(t, "curl")
	s := portalBesideDAV(t, "")
	g := s.serve()
	page, err := os.ReadFile(filepath.Join(root, "docs/api.md"))
	if err != nil {
		t.Fatal(err)
	}
	script := "set -euo pipefail\npostern() { " + strconv.Quote(s.program) + " \"$@\" -c " + strconv.Quote(g.config) + "; }\n"
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	for _, block := range blocks {
		script += block[1]
	}
	script = strings.ReplaceAll(script, "http://127.0.0.1:9180", g.ops)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Env = append(os.Environ(), "CURL_HOME="+t.TempDir()) // no .curlrc of the developer's
	out, err := cmd.CombinedOutput()
	if err != nil || len(blocks) < 3 {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{`"name":"example"`, `"done":"added alias al@example.org"`, `"secret":"`, `"done":"revoked app password 1"`, `"added":1`,
		`"address":"alice@example.org","revoked_app_passwords":0`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the page's examples do not give %s:\n%s", want, out)
		}
	}
	if list := s.cli(g.config, "password", "list", "alice@example.org", "--all"); !strings.Contains(list, "Scanner, second floor") || !strings.Contains(list, "revoked") {
		t.Errorf("what the page made:\n%s", list)
	}
	g.Terminate()
}
