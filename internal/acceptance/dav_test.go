package acceptance

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-webdav"
	"github.com/emersion/go-webdav/caldav"
	"github.com/emersion/go-webdav/carddav"

	"postern/internal/testlab"
)

// httpClient logs in with Basic on every request.
func (s *site) httpClient(login, secret string) webdav.HTTPClient {
	return webdav.HTTPClientWithBasicAuth(&http.Client{Transport: &http.Transport{TLSClientConfig: s.tls()}}, login, secret)
}

func (s *site) do(g *gateway, login, secret, method, path, body string, header ...string) (int, string, http.Header) {
	s.t.Helper()
	req, err := http.NewRequest(method, g.DAV+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.httpClient(login, secret).Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), resp.Header
}

func TestCalendarAndContactsAppsWork(t *testing.T) {
	for name, layout := range map[string]func(*testing.T) (calendars, contacts *testlab.DAVServer){
		"Radicale for both": func(t *testing.T) (*testlab.DAVServer, *testlab.DAVServer) {
			r := testlab.Radicale(t)
			return r, r
		},
		"Radicale and Xandikos": func(t *testing.T) (*testlab.DAVServer, *testlab.DAVServer) {
			return testlab.Radicale(t), testlab.Xandikos(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			calendars, contacts := layout(t)
			s.backend = davBackend("calendars", calendars.URL)
			if contacts != calendars {
				s.backend += davBackend("contacts", contacts.URL) +
					"\n[[route]]\nprotocol = \"calendar\"\nbackend = \"calendars\"\n[[route]]\nprotocol = \"contacts\"\nbackend = \"contacts\"\n"
			}
			calendars.MakeCalendar(alice, "personal")
			contacts.MakeAddressBook(alice, "friends")
			g := s.serve()
			s.cli(g.config, "account", "add", alice)
			p := s.password(g.config, alice, "--for", "dav")
			testLibraryClients(t, s, g, p)
			testVdirsyncer(t, s, g, p)
		})
	}
}

func testLibraryClients(t *testing.T, s *site, g *gateway, p appPassword) {
	ctx := t.Context()
	cal, err := caldav.NewClient(s.httpClient(alice, p.Secret), g.DAV+"/dav/")
	if err != nil {
		t.Fatal(err)
	}
	principal, err := cal.FindCurrentUserPrincipal(ctx)
	if err != nil {
		t.Fatal(err)
	}
	home, err := cal.FindCalendarHomeSet(ctx, principal)
	if err != nil {
		t.Fatal(err)
	}
	list, err := cal.FindCalendars(ctx, home)
	if err != nil || len(list) != 1 {
		t.Fatalf("calendars in %s: %+v, %v", home, list, err)
	}
	card, err := carddav.NewClient(s.httpClient(alice, p.Secret), g.DAV+"/dav/")
	if err != nil {
		t.Fatal(err)
	}
	bookHome, err := card.FindAddressBookHomeSet(ctx, principal)
	if err != nil {
		t.Fatal(err)
	}
	books, err := card.FindAddressBooks(ctx, bookHome)
	books = slices.DeleteFunc(books, func(b carddav.AddressBook) bool { return !strings.HasSuffix(b.Path, "/friends/") }) // Xandikos makes another one
	if err != nil || len(books) != 1 {
		t.Fatalf("address books in %s: %+v, %v", bookHome, books, err)
	}
	for _, item := range []struct{ path, kind, body string }{
		{list[0].Path + "one.ics", "text/calendar; charset=utf-8", testlab.Event("one")},
		{books[0].Path + "one.vcf", "text/vcard; charset=utf-8", testlab.Card("one")},
	} {
		code, text, header := s.do(g, alice, p.Secret, "PUT", item.path, item.body, "Content-Type", item.kind, "If-None-Match", "*")
		if code != http.StatusCreated {
			t.Fatalf("PUT %s = %d %s", item.path, code, text)
		}
		code, text, got := s.do(g, alice, p.Secret, "GET", item.path, "")
		if code != http.StatusOK || !strings.Contains(text, "UID:one") || header.Get("ETag") != "" && got.Get("ETag") != header.Get("ETag") {
			t.Errorf("GET %s = %d, ETag %s after %s, %s", item.path, code, got.Get("ETag"), header.Get("ETag"), text)
		}
		if code, _, _ := s.do(g, alice, p.Secret, "PUT", item.path, item.body, "Content-Type", item.kind, "If-Match", `"another"`); code != http.StatusPreconditionFailed {
			t.Errorf("PUT with another ETag = %d", code)
		}
		if code, text, _ := s.do(g, alice, p.Secret, "DELETE", item.path, "", "If-Match", got.Get("ETag")); code/100 != 2 {
			t.Errorf("DELETE = %d %s", code, text)
		}
	}
}

func testVdirsyncer(t *testing.T, s *site, g *gateway, p appPassword) {
	home := testlab.Dir(t)
	file := func(name, text string) string {
		path := filepath.Join(home, name)
		os.MkdirAll(filepath.Dir(path), 0o700)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file("secret", p.Secret)
	pair := func(name, kind, ext string) string {
		return fmt.Sprintf(`
[pair %[1]s]
a = "%[1]s_near"
b = "%[1]s_far"
collections = ["from a", "from b"]
conflict_resolution = "b wins"
[storage %[1]s_near]
type = "filesystem"
path = "%[2]s/%[1]s/"
fileext = "%[3]s"
[storage %[1]s_far]
type = "%[4]s"
url = "%[5]s/dav/"
username = "%[6]s"
password.fetch = ["command", "cat", "%[2]s/secret"]
verify = "%[7]s"
`, name, home, ext, kind, g.DAV, alice, s.ca.File)
	}
	config := file("config", fmt.Sprintf("[general]\nstatus_path = \"%s/status/\"\n", home)+pair("cal", "caldav", ".ics")+pair("card", "carddav", ".vcf"))
	run := func(args ...string) {
		t.Helper()
		c := testlab.Command(t, "vdirsyncer", append([]string{"-c", config}, args...)...)
		c.Stdin = strings.NewReader(strings.Repeat("y\n", 20))
		testlab.Run(t, c)
	}
	run("discover")
	list := func(kind, ext string) []string {
		found, _ := filepath.Glob(filepath.Join(home, kind, "*", "*"+ext))
		return found
	}
	mine := file("cal/personal/mine.ics", testlab.Event("mine"))
	file("cal/personal/kept.ics", testlab.Event("kept")) // vdirsyncer asks before it empties a collection
	file("card/friends/mine.vcf", testlab.Card("mine"))
	run("sync")
	id := s.publicID(g)
	events := func() int {
		t.Helper()
		code, listing, _ := s.do(g, alice, p.Secret, "PROPFIND", "/dav/cal/"+id+"/personal/", "", "Depth", "1")
		if code != http.StatusMultiStatus {
			t.Errorf("PROPFIND = %d %s", code, listing)
		}
		return strings.Count(listing, ".ics</")
	}
	if n := events(); n != 2 {
		t.Errorf("%d events on the server after two were made here", n)
	}
	changed := strings.Replace(testlab.Event("mine"), "SUMMARY:", "SUMMARY:Changed ", 1)
	os.WriteFile(mine, []byte(changed), 0o600)
	run("sync")
	s.do(g, alice, p.Secret, "PUT", "/dav/card/"+id+"/friends/theirs.vcf", testlab.Card("theirs"), "Content-Type", "text/vcard")
	run("sync")
	if n := len(list("card", ".vcf")); n != 2 {
		t.Errorf("%d cards after one was made on the server, want 2", n)
	}
	os.Remove(mine)
	run("sync")
	if n := events(); n != 1 {
		t.Errorf("%d events on the server after one of two was deleted here", n)
	}
}

// The refusals of the table in docs/security.md, over DAV.
func TestDAVRefusals(t *testing.T) {
	t.Parallel()
	s, _, radicale := full(t)
	radicale.MakeCalendar(alice, "personal")
	radicale.MakeAddressBook(alice, "friends")
	radicale.Put(alice, "/"+alice+"/friends/enzo.vcf", testlab.Card("enzo"))
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	s.cli(g.config, "account", "add", "bob@example.test")
	secret := func(args ...string) string { return s.password(g.config, alice, args...).Secret }
	mail, calendar, readOnly := secret("--for", "mail"), secret("--for", "calendar"), secret("--for", "calendar-read")
	elsewhere := secret("--for", "dav", "--network", "192.0.2.0/24")
	bobs := s.password(g.config, "bob@example.test", "--for", "dav").Secret
	s.cli(g.config, "account", "suspend", "bob@example.test")
	home, cards := "/dav/cal/"+s.publicID(g)+"/", "/dav/card/"+s.publicID(g)+"/"
	for name, tt := range map[string]struct {
		login, secret, method, path string
		want                        int
	}{
		"wrong":                       {alice, bobs, "PROPFIND", "/dav/", 401},
		"no app password":             {alice, testlab.Primary(alice), "PROPFIND", "/dav/", 401},
		"unknown name":                {"nobody@example.test", mail, "PROPFIND", "/dav/", 401},
		"another network":             {alice, elsewhere, "PROPFIND", "/dav/", 503},
		"suspended":                   {"bob@example.test", bobs, "PROPFIND", "/dav/", 403},
		"mail's sees an empty home":   {alice, mail, "PROPFIND", home, 207},
		"mail's reads no calendar":    {alice, mail, "GET", home + "personal/x.ics", 404},
		"calendar's reads":            {alice, calendar, "PROPFIND", home + "personal/", 207},
		"calendar's reads no card":    {alice, calendar, "GET", cards + "friends/enzo.vcf", 404},
		"nor through its own mount":   {alice, calendar, "GET", home + "friends/enzo.vcf", 404},
		"nor by a detour":             {alice, calendar, "GET", home + "personal/%2e%2e/friends/enzo.vcf", 400},
		"somebody else's home":        {alice, calendar, "PROPFIND", "/dav/cal/aaaaaaaaaa/", 404},
		"read-only reads":             {alice, readOnly, "PROPFIND", home + "personal/", 207},
		"read-only writes nothing":    {alice, readOnly, "PUT", home + "personal/x.ics", 403},
		"nobody deletes a home":       {alice, calendar, "DELETE", home, 405},
		"nor speaks of access rights": {alice, calendar, "ACL", home + "personal/", 405},
		"well-known before login":     {"", "", "PROPFIND", "/.well-known/caldav", 301},
		"without a login":             {"", "", "PROPFIND", "/dav/", 401},
	} {
		t.Run(name, func(t *testing.T) {
			req, _ := http.NewRequest(tt.method, g.DAV+tt.path, strings.NewReader(map[string]string{"PUT": testlab.Event("x")}[tt.method]))
			req.Header.Set("Depth", "1")
			if tt.method == "PUT" {
				req.Header.Set("Content-Type", "text/calendar")
			}
			if tt.login != "" {
				req.SetBasicAuth(tt.login, tt.secret)
			}
			resp, err := (&http.Transport{TLSClientConfig: s.tls(), DisableKeepAlives: true}).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			text, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != tt.want {
				t.Errorf("%s %s = %d, want %d\n%s", tt.method, tt.path, resp.StatusCode, tt.want, text)
			}
			if strings.Contains(string(text), "enzo") || strings.Contains(string(text), "friends") {
				t.Errorf("%s %s tells of contacts: %s", tt.method, tt.path, text)
			}
			if resp.StatusCode == 401 && resp.Header.Get("WWW-Authenticate") != `Basic realm="Postern", charset="UTF-8"` {
				t.Errorf("challenge %q", resp.Header.Get("WWW-Authenticate"))
			}
		})
	}
}
