package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what the tests found beside the examples and into docs/")

// Each broken example stands beside the message that it must give.
func TestBad(t *testing.T) {
	files, _ := filepath.Glob("testdata/bad/*.toml")
	if len(files) < 10 {
		t.Fatalf("only %d examples", len(files))
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(filepath.Base(file), text)
			if _, ok := errors.AsType[*Problems](err); !ok {
				t.Fatalf("Parse = %v, want problems", err)
			}
			golden(t, strings.TrimSuffix(file, ".toml")+".txt", err.Error()+"\n")
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || got != string(want) {
		t.Errorf("%s (-update writes it):\ngot  %swant %s", file, got, want)
	}
}

func TestExample(t *testing.T) {
	c, err := Parse("example", []byte(Example()))
	if err != nil {
		t.Fatal(err)
	}
	want := []Route{{"*", "imap", "dovecot"}, {"*", "submission", "postfix"}, {"*", "calendar", "radicale"}, {"*", "contacts", "radicale"}}
	if !reflect.DeepEqual(c.Routes, want) {
		t.Errorf("routes = %v, want %v", c.Routes, want)
	}
	if len(c.Listeners) != 3 || c.Listeners[0].TLS != "implicit" || c.Backends[2].Header != "X-Remote-User" || c.Store != defaults().Store {
		t.Errorf("the example gives %+v", c)
	}
}

var commented = regexp.MustCompile(`(?m)^# (\[\[|[a-z_]+ = )`)

// Uncommented, the annotated file gives the defaults, and every field stands in it.
func TestDefaults(t *testing.T) {
	w := &walker{problems: &Problems{File: "defaults"}, where: make(map[string]position), broken: make(map[string]bool), cfg: &Config{}}
	// Tables that lists make would swallow the keys behind them, so the lists' blocks are read apart.
	w.parser.Reset([]byte(commented.ReplaceAllString(Defaults(), "$1")))
	w.walk()
	if err := w.problems.sorted(); err != nil {
		t.Fatal(err)
	}
	got, want := w.cfg, defaults()
	if len(got.Listeners) != 1 || !reflect.DeepEqual(got.Listeners[0].TLS, defaultListener().TLS) {
		t.Errorf("listener = %+v", got.Listeners)
	}
	if len(got.Backends) != 1 || got.Backends[0] != defaultBackend() {
		t.Errorf("backend = %+v, want %+v", got.Backends, defaultBackend())
	}
	if len(got.Routes) != 1 || got.Routes[0] != defaultRoute() {
		t.Errorf("route = %+v", got.Routes)
	}
	if len(got.Policies) != 1 || got.Policies[0].MostActive != defaultPolicy().MostActive || len(got.Policies[0].Presets) != 0 || got.Policies[0].LongestDays != 0 {
		t.Errorf("policy = %+v", got.Policies)
	}
	if len(got.OAuth) == 1 && len(got.OAuth[0].Scopes) == 0 {
		got.OAuth[0].Scopes = nil
	}
	if len(got.OAuth) != 1 || !reflect.DeepEqual(got.OAuth[0], defaultOAuth()) {
		t.Errorf("oauth = %+v", got.OAuth)
	}
	got.Listeners, got.Backends, got.Routes, got.OAuth, got.TLS.Certificates, got.Policies = nil, nil, nil, nil, nil, nil
	if got.Redis.Addresses == nil || got.TrustedProxies == nil {
		got.Redis.Addresses, got.TrustedProxies = nil, nil
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("uncommented, the file gives\n%+v\nwant\n%+v", got, want)
	}
	for _, path := range fields(reflect.TypeFor[Config](), "") {
		if _, ok := w.where[path]; !ok {
			t.Errorf("%s does not stand in the annotated file", path)
		}
	}
}

func fields(t reflect.Type, path string) []string {
	var list []string
	for i := range t.NumField() {
		f := t.Field(i)
		at := join(path, f.Tag.Get("toml"))
		switch {
		case f.Type.Kind() == reflect.Struct:
			list = append(list, fields(f.Type, at)...)
		case f.Type.Kind() == reflect.Slice && strings.HasPrefix(f.Type.Elem().PkgPath(), "postern"):
			list = append(list, fields(f.Type.Elem(), at+"[0]")...)
		default:
			list = append(list, at)
		}
	}
	return list
}

func TestValues(t *testing.T) {
	c, err := Parse("x", []byte("login_timeout = \"5s\"\n"+Example()+`
[[route]]
domain = "example.test"
protocol = "imap"
backend = "dovecot"
[limits]
sessions = 1_000
[dav]
max_body = "1GiB"
[redis]
addresses = ["127.0.0.1:6379"]
[store]
ballast = "512"
`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Limits.Sessions != 1000 || c.LoginTimeout.Duration().Seconds() != 5 || c.DAV.MaxBody != 1<<30 || c.Redis.Addresses[0] != "127.0.0.1:6379" || c.Store.Ballast != 512 {
		t.Errorf("read %+v", c)
	}
	if len(c.Routes) != 4 || c.Routes[0].Domain != "example.test" {
		t.Errorf("a written route of a protocol takes the place of the default: %+v", c.Routes)
	}
}

// ManageSieve is spoken with STARTTLS unless the file says otherwise.
func TestManageSieveListens(t *testing.T) {
	for said, want := range map[string]string{"": "starttls", `, tls = "implicit"`: "implicit"} {
		c, err := Parse("x", []byte(strings.Replace(Example(), "listener = [\n", "listener = [\n  { protocol = \"managesieve\", address = \":4190\""+said+" },\n", 1)))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Listeners[0]; got.Protocol != "managesieve" || got.TLS != want {
			t.Errorf("with %q: %+v, want %s", said, got, want)
		}
	}
}

// What a site writes for the portal: on an address of its own, beside calendars under another name, and behind a proxy.
func TestPortal(t *testing.T) {
	for name, tt := range map[string]struct{ listeners, rest string }{
		"own address":  {`{ protocol = "portal", address = ":8443" }`, `url = "https://passwords.example.org:8443"`},
		"shared":       {`{ protocol = "portal", address = ":443" }`, `url = "https://passwords.example.org"`},
		"behind nginx": {`{ protocol = "portal", address = "127.0.0.1:8081", tls = "none" }`, `url = "https://passwords.example.org"`},
		"localhost":    {`{ protocol = "portal", address = "127.0.0.1:8081", tls = "none" }`, `url = "http://localhost:8081"`},
		"imap": {`{ protocol = "portal", address = ":8443" }`, `url = "https://passwords.example.org:8443"
sign_in = "imap"
enrolment = "invite"
one_primary = false
[portal.imap]
address = "imap.example.org:993"
[notices]
address = "relay.example.org:25"
tls = "none"
from = "Example Mail <postmaster@example.org>"`},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(Example(), "listener = [\n", "hostname = \"mail.example.org\"\nlistener = [\n  "+tt.listeners+",\n", 1)
			c, err := Parse("x", []byte(text+"\n[portal]\n"+tt.rest+"\n"))
			if err != nil {
				t.Fatal(err)
			}
			if !c.HasPortal() || c.Portal.SessionTime.Duration().Hours() != 12 || c.Portal.IdleTimeout.Duration().Minutes() != 30 {
				t.Errorf("read %+v", c.Portal)
			}
		})
	}
}

func TestKeyFile(t *testing.T) {
	c := defaults()
	if got := c.KeyFile(); got != "/var/lib/postern/root.key" {
		t.Errorf("KeyFile = %s", got)
	}
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if got := c.KeyFile(); got != "/var/lib/postern/root.key" {
		t.Errorf("without the credential: %s", got)
	}
	os.WriteFile(filepath.Join(dir, "root.key"), nil, 0o400)
	if got := c.KeyFile(); got != filepath.Join(dir, "root.key") {
		t.Errorf("with the credential: %s", got)
	}
}

// docs/configuration.md is the annotated file with a heading.
func TestReference(t *testing.T) {
	golden(t, "../docs/configuration.md", "# Configuration\n\nOne TOML file, by default `/etc/postern/postern.toml`. `postern config defaults` prints this page's text, "+
		"`postern config example` the lines that a site with Dovecot, Postfix and Radicale needs:\n\n```toml\n"+Example()+
		"```\n\n`postern check` reads the file, opens what it names, logs in to each backend, and says what is wrong and what to do.\n\n## All keys\n\n```toml\n"+Defaults()+"```\n")
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(Example()))
	f.Add([]byte(Defaults()))
	files, _ := filepath.Glob("testdata/bad/*.toml")
	for _, file := range files {
		text, _ := os.ReadFile(file)
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("fuzz", text)
		if _, ok := errors.AsType[*Problems](err); (c == nil) != (err != nil) || err != nil && !ok {
			t.Errorf("Parse = %v, %v", c, err)
		}
	})
}

// What docs/portal.md, docs/oidc.md and docs/ldap.md have people write is taken: lines of listeners go into the list, top keys above it, tables behind all.
func TestPortalPages(t *testing.T) {
	for name, least := range map[string]int{"portal.md": 5, "oidc.md": 5, "ldap.md": 2} {
		t.Run(name, func(t *testing.T) { testPortalPage(t, name, least) })
	}
}

func testPortalPage(t *testing.T, name string, least int) {
	page, err := os.ReadFile("../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllSubmatch(page, -1)
	if len(blocks) < least {
		t.Fatalf("%d examples", len(blocks))
	}
	for _, block := range blocks {
		before, tables, found := strings.Cut(string(block[1]), "\n[")
		if !found {
			t.Fatalf("no table in %s", block[1])
		}
		var top, listeners string
		for line := range strings.Lines(before) {
			if strings.HasPrefix(line, "{") {
				listeners += line
			} else {
				top += line
			}
		}
		text := top + "\n" + strings.Replace(Example(), "listener = [\n", "listener = [\n"+listeners, 1) + "\n[" + tables
		c, err := Parse(name, []byte(text))
		if err != nil {
			t.Errorf("%v\n%s", err, text)
		} else if !c.HasPortal() {
			t.Errorf("no portal in\n%s", text)
		}
	}
}

// So is what docs/policies.md says.
func TestPoliciesPage(t *testing.T) {
	page, err := os.ReadFile("../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllSubmatch(page, -1)
	if len(blocks) != 1 {
		t.Fatalf("%d examples", len(blocks))
	}
	text := strings.Replace(Example(), "listener = [\n", "listener = [\n  { protocol = \"portal\", address = \":8443\" },\n", 1) +
		"\n[portal]\nurl = \"https://passwords.example.org:8443\"\nsign_in = \"oidc\"\n[portal.oidc]\nissuer = \"https://id.example.org\"\nclient_id = \"postern\"\n[notices]\naddress = \"127.0.0.1:25\"\ntls = \"none\"\nfrom = \"postmaster@example.org\"\n" + string(blocks[0][1])
	c, err := Parse("policies.md", []byte(text))
	if err != nil || len(c.Policies) != 3 || c.Policies[1].IdleDays != 90 || c.Policies[2].MostActive != 25 {
		t.Errorf("%+v, %v", c, err)
	}
}

// So is what docs/oauth.md says: each way by itself.
func TestOAuthPage(t *testing.T) {
	page, err := os.ReadFile("../docs/oauth.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllSubmatch(page, -1)
	if len(blocks) != 3 {
		t.Fatalf("%d examples", len(blocks))
	}
	top, _, _ := strings.Cut(Example(), "\n[[backend]]")
	top = strings.Replace(top, "listener = [\n", "listener = [\n  { protocol = \"portal\", address = \":8443\" },\n", 1)
	for _, block := range blocks {
		c, err := Parse("oauth.md", []byte(top+"\n[portal]\nurl = \"https://passwords.example.org:8443\"\n"+string(block[1])))
		if err != nil || len(c.OAuth) != 1 || len(c.Routes) < 2 {
			t.Errorf("%v\n%s", err, block[1])
		}
	}
}

// And what docs/api.md says.
func TestAPIPage(t *testing.T) {
	page, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllSubmatch(page, -1)
	if len(blocks) != 1 {
		t.Fatalf("%d examples", len(blocks))
	}
	text := strings.Replace(Example(), "listener = [\n", "listener = [\n  { protocol = \"portal\", address = \":8443\" },\n", 1) +
		"\n[portal]\nurl = \"https://passwords.example.org:8443\"\n" + string(blocks[0][1])
	c, err := Parse("api.md", []byte(text))
	if err != nil || !c.API.On("operations") || !c.API.On("portal") {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := Parse("api.md", []byte(Example())); err != nil || !c.API.On("operations") || c.API.On("portal") {
		t.Errorf("by default: %+v, %v", c, err)
	}
	if c, err := Parse("api.md", []byte(Example()+"[api]\nlisteners = []\n")); err != nil || c.API.On("operations") {
		t.Errorf("nowhere: %+v, %v", c, err)
	}
}
