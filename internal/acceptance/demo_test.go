package acceptance

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"postern/internal/testlab"
)

// Every command that the demo prints runs, verbatim, and does what is said of it.
func TestDemo(t *testing.T) {
	t.Parallel()
	testlab.Need(t, "curl", "openssl")
	dir := filepath.Join(testlab.Dir(t), "demo")
	p := testlab.Exec(t, nil, testlab.Postern(t), "demo", "--dir", dir)
	p.WaitLine("Password")
	shown := p.Output()
	commands := 0
	lines := strings.Split(shown, "\n")
	for i, line := range lines {
		if i == 0 || !strings.HasPrefix(lines[i-1], "# ") || line == "" {
			continue
		}
		commands++
		out, err := testlab.Command(t, "sh", "-c", line).CombinedOutput()
		if err != nil {
			t.Errorf("%s\n%s: %v\n%s", lines[i-1], line, err, out)
		}
		want := map[string]string{
			"the mail folders": "INBOX", "a message": "Subject:", "does not open mail": "refused", "the calendars": "<", "an event": "BEGIN:VCALENDAR",
			"403": "403", "a contact": "BEGIN:VCARD", "IMAP by hand": "AUTH=PLAIN", "with STARTTLS": "AUTH=PLAIN", "shown here": "",
		}
		for what, text := range want {
			if strings.Contains(lines[i-1], what) && !strings.Contains(string(out), text) {
				t.Errorf("%s\n%s printed %q, want %q in it", lines[i-1], line, out, text)
			}
		}
	}
	if commands < 9 {
		t.Errorf("%d commands found in\n%s", commands, shown)
	}
	if shown := p.Output(); !strings.Contains(shown, "A message arrived") || !strings.Contains(shown, "subject  ") {
		t.Errorf("the message that was sent is not shown:\n%s", shown)
	}
	signInAtDemo(t, dir, shown)
	p.Terminate()
	if code := p.Wait(); code != 0 {
		t.Errorf("the demo ended with %d", code)
	}
	again := testlab.Exec(t, nil, testlab.Postern(t), "demo", "--dir", dir)
	again.WaitLine("Password")
	signInAtDemo(t, dir, again.Output())
	again.Terminate()
	if _, err := os.Stat(filepath.Join(dir, "postern.db")); err != nil {
		t.Error(err)
	}
}

// signInAtDemo signs in at the portal as the demo says.
func signInAtDemo(t *testing.T, dir, shown string) {
	t.Helper()
	told := func(pattern string) string {
		m := regexp.MustCompile(pattern).FindStringSubmatch(shown)
		if m == nil {
			t.Fatalf("nothing like %s in\n%s", pattern, shown)
		}
		return m[1]
	}
	site := told(`(?m)^Portal   (https://localhost:\d+)$`)
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	jar, _ := cookiejar.New(nil)
	browser := &http.Client{Jar: jar, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer browser.CloseIdleConnections()
	send := func(path string, form url.Values) string {
		t.Helper()
		resp, err := browser.PostForm(site+path, form)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.Request.URL.Path
	}
	if at := send("/sign-in", url.Values{"address": {told(`(?m)^  address +(\S+)$`)}, "password": {told(`(?m)^  password +(\S+)$`)}}); at != "/sign-in/factor" {
		t.Fatalf("the primary password leads to %s", at)
	}
	if at := send("/sign-in/factor", url.Values{"code": {told(`(?m)^  second factor +(\S+) `)}}); at != "/passwords" {
		t.Errorf("the second factor leads to %s", at)
	}
	if _, page := visit(t, func() (*http.Response, error) { return browser.Get(site + "/passwords/new") }); !strings.Contains(page, "<bdi>Personal</bdi>") || !strings.Contains(page, "<bdi>Tasks</bdi>") {
		t.Errorf("single calendars can't be chosen:\n%s", page)
	}
}
