package davproxy_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testlab"
	"postern/protocols/davproxy"
)

// cadaverSession is what is typed and what comes of it, in this order. Cadaver is no calendar program, and does what any WebDAV client may try.
var cadaverSession = []struct{ command, want string }{
	{"ls", "Coll:   work"},
	{"cd work", ""},
	{"ls", "1.ics"},
	{"get 1.ics got.ics", "succeeded"},
	{"put 2.ics", "succeeded"},
	{"put 2.vcf", "403 Forbidden"}, // no contacts among events
	{"mkcol sub", "404 Not Found"}, // nor anything else
	{"move 2.ics 3.ics", "succeeded"},
	{"lock 1.ics", "405 Method Not Allowed"},
	{"delete 1.ics", "succeeded"},
	{"ls", "3.ics"},
	{"cd ..", ""},
	{"rmcol work", "succeeded"},
	{"ls", "collection is empty"},
	{"cd /dav/cal/bobspublic", "404 Not Found"},
}

func TestCadaver(t *testing.T) {
	t.Parallel()
	b := testlab.Radicale(t)
	d := open(t, routes{"calendar": to(b), "contacts": to(b)}, func(o *davproxy.Options) { o.TLS = nil }) // it would ask about the certificate
	b.Put(testlab.Alice, b.MakeCalendar(testlab.Alice, "work")+"1.ics", testlab.Event("1"))
	dir := t.TempDir()
	for name, text := range map[string]string{
		"2.ics": testlab.Event("2"), "2.vcf": testlab.Card("2"), ".netrc": "machine 127.0.0.1\nlogin " + testlab.Alice + "\npassword both\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := testlab.Command(t, "cadaver", d.url+cal)
	cmd.Env, cmd.Dir = append(cmd.Env, "HOME="+dir), dir
	var typed strings.Builder
	for _, line := range cadaverSession {
		typed.WriteString(line.command + "\n")
	}
	cmd.Stdin = strings.NewReader(typed.String())
	shown := testlab.Run(t, cmd)
	rest := shown
	for _, line := range cadaverSession {
		_, after, ok := strings.Cut(rest, "> "+line.command+"\n")
		answer, _, _ := strings.Cut(after, "\ndav:")
		if !ok || !strings.Contains(answer, line.want) {
			t.Errorf("%s: %q, want %q", line.command, answer, line.want)
		}
		rest = after
	}
	if got, err := os.ReadFile(filepath.Join(dir, "got.ics")); err != nil || !strings.Contains(string(got), "UID:1") {
		t.Errorf("downloaded: %q, %v", got, err)
	}
	if t.Failed() {
		t.Log(shown)
	}
}
