package davproxy_test

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"postern/internal/testlab"
	"postern/protocols/davproxy"
)

// calendarShim stands between litmus, which knows files and folders, and a home: it makes each folder a calendar and each file an event that holds it.
func calendarShim(t *testing.T, to, header, value string) string {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	held := regexp.MustCompile(`X-LITMUS:([A-Za-z0-9+/=]*)`)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(target)
			pr.Out.Header.Set(header, value)
			if d := pr.Out.Header.Get("Destination"); d != "" {
				if u, err := url.Parse(d); err == nil {
					pr.Out.Header.Set("Destination", to+u.EscapedPath())
				}
			}
			body, _ := io.ReadAll(pr.In.Body) // what is cut short fails behind us
			switch {
			case pr.Out.Method == "MKCOL" && len(body) == 0:
				pr.Out.Method = "MKCALENDAR"
			case pr.Out.Method == "PUT":
				text := strings.Replace(testlab.Event(base64.RawURLEncoding.EncodeToString([]byte(pr.In.URL.Path))), "END:VEVENT", "X-LITMUS:"+base64.StdEncoding.EncodeToString(body)+"\r\nEND:VEVENT", 1)
				body = []byte(text)
				pr.Out.Header.Set("Content-Type", "text/calendar; charset=utf-8")
			}
			pr.Out.Body, pr.Out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			pr.Out.Header.Set("Content-Length", strconv.Itoa(len(body)))
		},
		ModifyResponse: func(resp *http.Response) error {
			if resp.Request.Method != "GET" || resp.StatusCode != 200 {
				return nil
			}
			text, err := io.ReadAll(resp.Body)
			if err != nil {
				return err
			}
			unfolded := strings.NewReplacer("\r\n ", "", "\n ", "").Replace(string(text))
			if m := held.FindStringSubmatch(unfolded); m != nil {
				if text, err = base64.StdEncoding.DecodeString(m[1]); err != nil {
					return err
				}
			}
			resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
			resp.Header.Set("Content-Length", strconv.Itoa(len(text)))
			return nil
		},
	}
	s := httptest.NewServer(proxy)
	t.Cleanup(s.Close)
	return s.URL
}

// litmusLines are a test with its result, the beginning of one that goes on behind a warning, and its end.
var (
	litmusLine = regexp.MustCompile(`^ *(\d+)\. (\w+)\.* +(pass|FAIL|SKIPPED|WARNING)`)
	litmusEnd  = regexp.MustCompile(`^ *\.+ +(pass|FAIL|SKIPPED)`)
)

// litmus runs all suites and returns the result of each test.
func litmus(t *testing.T, args ...string) map[string]string {
	t.Helper()
	cmd := testlab.Command(t, "litmus", append([]string{"--keep-going"}, args...)...)
	cmd.Dir = t.TempDir() // it writes a log
	out := testlab.Run(t, cmd)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("litmus %s:\n%s", args, out)
		}
	})
	got := make(map[string]string)
	suite, test := "", ""
	for line := range strings.Lines(out) {
		line = line[strings.LastIndex(line, "\r")+1:]
		if _, rest, ok := strings.Cut(line, "-> running `"); ok {
			suite, _, _ = strings.Cut(rest, "'")
		} else if m := litmusLine.FindStringSubmatch(line); m != nil {
			test = suite + " " + m[2]
			if test += " " + m[1]; m[3] != "WARNING" {
				got[test] = m[3]
			}
		} else if m := litmusEnd.FindStringSubmatch(line); m != nil && got[test] == "" {
			got[test] = m[1]
		}
	}
	return got
}

// litmusRefused are litmus's tests that a backend may pass and the front door does not, and why.
var litmusRefused = map[string]string{
	"basic mkcol_with_body 14": "it wants 415 for a folder in a calendar, where nothing is: 404",

	"locks": "the header DAV tells of no locks, and LOCK is refused: no calendar program uses it",
}

// TestLitmus: what a generic WebDAV client can do with events without the front door, it can do through it.
func TestLitmus(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB) *testlab.DAVServer{"radicale": testlab.Radicale, "sabre": testlab.Sabre} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t)
			d := open(t, routes{"calendar": to(b)}, func(o *davproxy.Options) { o.TLS = nil }) // it knows no certificates but the machine's
			direct := litmus(t, calendarShim(t, b.URL, "X-Remote-User", testlab.Bob)+b.Calendars(testlab.Bob))
			through := litmus(t, calendarShim(t, d.url, "User-Agent", "litmus")+cal, testlab.Alice, "cal")
			passed := 0
			for test, result := range direct {
				suite, _, _ := strings.Cut(test, " ")
				switch {
				case result != "pass":
				case through[test] == "pass":
					passed++
				case litmusRefused[suite] == "" && litmusRefused[test] == "":
					t.Errorf("%s passes without the front door, and through it: %q", test, through[test])
				}
			}
			if passed < 25 {
				t.Errorf("only %d tests pass both ways", passed)
			}
		})
	}
}
