package acceptance

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"postern/internal/testlab"
)

// indented returns the block of a page that is indented by four spaces and begins with a line that begins so.
func indented(t *testing.T, page, begin string) string {
	t.Helper()
	_, text, found := strings.Cut(readFile(t, page), "\n    "+begin)
	if !found {
		t.Fatalf("%s shows no %q", page, begin)
	}
	block, _, _ := strings.Cut("    "+begin+text, "\n\n")
	return regexp.MustCompile("(?m)^    ").ReplaceAllString(block, "") + "\n"
}

// fenced returns the [[backend]] of a page that has a line.
func fenced(t *testing.T, page, line string) string {
	t.Helper()
	for _, block := range regexp.MustCompile("(?ms)^```toml\n(.*?)^```").FindAllStringSubmatch(readFile(t, page), -1) {
		if strings.Contains("\n"+block[1], "\n"+line+"\n") {
			return "\n" + block[1]
		}
	}
	t.Fatalf("%s shows no [[backend]] with %s", page, line)
	return ""
}

func shell(t *testing.T, dir, script string) {
	t.Helper()
	cmd := testlab.Command(t, "sh", "-euc", script)
	cmd.Dir = dir
	testlab.Run(t, cmd)
}

func hostOf(t *testing.T, of string) string {
	t.Helper()
	u, err := url.Parse(of)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// The credentials of DAV backends, as the pages have people set them up: the backend takes the right one and refuses a wrong one, which "postern
// check" explains; the app hears of neither, and the log tells no secret.
func TestDAVCredentials(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, dir string) (right, wrong, advice string){
		"Cyrus by HMAC": func(t *testing.T, dir string) (string, string, string) {
			right := behindCyrus(t, dir, indented(t, "docs/cyrus.md", "install -d -m 0700"))
			shell(t, dir, `printf -- '-----BEGIN HMAC KEY-----\n%s\n-----END HMAC KEY-----\n' "$(openssl rand -base64 32)" > wrong.key; chmod 400 wrong.key`)
			return right, strings.Replace(right, "cyrus.key", "wrong.key", 1), "it refused the token that key_file signed"
		},
		"Cyrus by RSA": func(t *testing.T, dir string) (string, string, string) {
			right := behindCyrus(t, dir, indented(t, "docs/cyrus.md", "(umask 077; openssl genpkey"))
			shell(t, dir, "umask 077; openssl genpkey -algorithm ed25519 -out wrong.key")
			return right, strings.Replace(right, "cyrus.key", "wrong.key", 1), "it takes HMAC and RSA, not Ed25519"
		},
		"Radicale by a certificate": func(t *testing.T, dir string) (string, string, string) {
			certificates(t, dir)
			address := behindTLS(t, dir)
			right := adapted(dir, fenced(t, "docs/radicale.md", `address = "dav.example.org:5232"`), "dav.example.org:5232", address)
			return right, strings.ReplaceAll(right, "dav-client", "other/dav-client"), "it wants a certificate of ours that it trusts"
		},
		"nginx by a certificate": func(t *testing.T, dir string) (string, string, string) {
			certificates(t, dir)
			server := regexp.MustCompile(`(?s) *if .*?\}\n`).ReplaceAllString(behindNginx(t), "")
			address := startNginx(t, dir, strings.Replace(server, "    location", indented(t, "docs/radicale.md", "ssl_client_certificate")+"    location", 1))
			right := adapted(dir, fenced(t, "docs/radicale.md", `address = "dav.example.org:5232"`), "dav.example.org:5232", address)
			return right, regexp.MustCompile(`client_.*\n`).ReplaceAllString(right, ""), "it took the connection, but no request"
		},
		"nginx by a token": func(t *testing.T, dir string) (string, string, string) {
			certificates(t, dir)
			shell(t, dir, adapted(dir, indented(t, "docs/radicale.md", "(umask 077; openssl rand")))
			token, err := os.ReadFile(filepath.Join(dir, "dav.token"))
			if err != nil {
				t.Fatal(err)
			}
			address := startNginx(t, dir, strings.Replace(behindNginx(t), "TOKEN", strings.TrimSpace(string(token)), 1))
			shell(t, dir, "umask 077; openssl rand -hex 32 > wrong.token")
			right := adapted(dir, fenced(t, "docs/radicale.md", `credential = "bearer"`), "dav.example.org:443", address)
			return right, strings.Replace(right, "dav.token", "wrong.token", 1), "it refused the token in password_file"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testlab.Need(t, "openssl")
			s := newSite(t)
			right, wrong, advice := prepare(t, s.dir)
			s.backend = right
			g := s.serve()
			s.cli(g.config, "account", "add", alice)
			if out := s.cli(whole(t, g.config), "check"); !strings.Contains(out, "logged in for "+alice) {
				t.Errorf("postern check says\n%s", out)
			}
			secret := s.password(g.config, alice, "--for", "dav").Secret
			calendar := "/dav/cal/" + s.publicID(g) + "/work/"
			for _, r := range []struct {
				method, path, body string
				want               int
			}{
				{"MKCALENDAR", calendar, "", http.StatusCreated},
				{"PUT", calendar + "one.ics", testlab.Event("one"), http.StatusCreated},
				{"GET", calendar + "one.ics", "", http.StatusOK},
			} {
				if code, text, _ := s.do(g, alice, secret, r.method, r.path, r.body, "Content-Type", map[bool]string{true: "text/calendar"}[r.body != ""]); code != r.want {
					t.Errorf("%s %s = %d, want %d\n%s", r.method, r.path, code, r.want, text)
				}
			}
			s.backend = wrong
			if wrong == right {
				t.Fatalf("nothing is wrong in\n%s", wrong)
			}
			h := s.serve()
			out, err := testlab.Command(t, s.program, "check", "-c", whole(t, h.config)).CombinedOutput()
			if err == nil || !strings.Contains(string(out), advice) {
				t.Errorf("postern check says %v, want %q\n%s", err, advice, out)
			}
			if code, text, _ := s.do(h, alice, secret, "GET", calendar+"one.ics", ""); code != http.StatusServiceUnavailable {
				t.Errorf("with the wrong credential GET = %d %s", code, text)
			}
			for _, said := range []string{g.Output(), h.Output(), string(out)} {
				if strings.Contains(said, "eyJ") || regexp.MustCompile(`[0-9a-f]{64}`).MatchString(said) || strings.Contains(said, "Bearer ") {
					t.Errorf("a token is told:\n%s", said)
				}
			}
		})
	}
}

// The account's own password at a DAV server, kept sealed, and one password for all.
func TestDAVPasswords(t *testing.T) {
	for name, tt := range map[string]struct {
		start     func(testing.TB) *testlab.DAVServer
		principal string
	}{
		"Radicale": {testlab.RadicaleBasic, "/{login}/"},
		"DAViCal":  {testlab.DAViCalBasic, "/caldav.php/{login}/"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, server := newSite(t), tt.start(t)
			calendar := server.MakeCalendar(alice, "work")
			server.Put(alice, calendar+"one.ics", testlab.Event("one"))
			file := filepath.Join(s.dir, "alice.password")
			if err := os.WriteFile(file, []byte(testlab.Primary(alice)+"\n"), 0o400); err != nil {
				t.Fatal(err)
			}
			backend := fmt.Sprintf("\n[[backend]]\nname = \"dav\"\nprotocol = \"dav\"\naddress = %q\ntls = \"none\"\nprincipal = %q\n", hostOf(t, server.URL), tt.principal)
			s.backend = backend + "credential = \"stored\"\n"
			g := s.serve()
			s.cli(g.config, "account", "add", alice)
			secret := s.password(g.config, alice, "--for", "dav").Secret
			event := "/dav/cal/" + s.publicID(g) + "/work/one.ics"
			check := func(config, want string) {
				t.Helper()
				if out, _ := testlab.Command(t, s.program, "check", "-c", whole(t, config)).CombinedOutput(); !strings.Contains(string(out), want) || strings.Contains(string(out), testlab.Primary(alice)) {
					t.Errorf("postern check does not say %q:\n%s", want, out)
				}
			}
			get := func(g *gateway, want int) {
				t.Helper()
				if code, text, _ := s.do(g, alice, secret, "GET", event, ""); code != want {
					t.Errorf("GET = %d, want %d\n%s", code, want, text)
				}
			}
			check(g.config, `no password is stored for account 1 at backend "dav"; store one with "postern account credential ADDRESS --backend dav --password-file FILE"`)
			get(g, http.StatusServiceUnavailable)
			s.cli(g.config, "account", "credential", alice, "--backend", "dav", "--password-file", file)
			check(g.config, "logged in for "+alice)
			get(g, http.StatusOK)
			other := filepath.Join(s.dir, "other.password")
			if err := os.WriteFile(other, []byte("no password of hers\n"), 0o400); err != nil {
				t.Fatal(err)
			}
			s.cli(g.config, "account", "credential", alice, "--backend", "dav", "--password-file", other)
			check(g.config, "it refused the gateway's user name or password")
			get(g, http.StatusServiceUnavailable)

			s.backend = backend + fmt.Sprintf("credential = \"basic\"\npassword_file = %q\n", file)
			h := s.serve()
			get(h, http.StatusOK)
		})
	}
}

// adapted leads the paths and addresses of a page to the lab.
func adapted(dir, text string, others ...string) string {
	return strings.NewReplacer(append([]string{"/etc/postern/", dir + "/", "/etc/nginx/", dir + "/", "/etc/radicale/", dir + "/", "IP:10.0.0.2", "IP:127.0.0.1"}, others...)...).Replace(text)
}

// behindCyrus makes keys as a page says, starts a Cyrus that has them, and returns the page's [[backend]].
func behindCyrus(t *testing.T, dir, script string) string {
	t.Helper()
	cyrus := testlab.Cyrus(t)
	own := strings.NewReplacer(" -g mail", "", "install -d -m 0700 /etc/postern\n", "", "install -d -m 0750 -g mail /etc/cyrus-jwt\n", "", "-m 0640", "-m 0644",
		"/etc/cyrus-jwt", filepath.Join(cyrus.Dir, "keys")).Replace(script)
	shell(t, dir, adapted(dir, own))
	cyrus.Stop()
	cyrus.Start()
	return adapted(dir, fenced(t, "docs/cyrus.md", `name = "cyrus"`), "127.0.0.1:8008", hostOf(t, cyrus.URL))
}

// certificates makes what the page has one make, and the same once more in the folder other.
func certificates(t *testing.T, dir string) {
	t.Helper()
	script := adapted(dir, indented(t, "docs/radicale.md", "new() {"))
	shell(t, dir, script)
	if err := os.Mkdir(filepath.Join(dir, "other"), 0o700); err != nil {
		t.Fatal(err)
	}
	shell(t, filepath.Join(dir, "other"), script)
}

// behindTLS starts a Radicale that takes only those with a certificate, and returns its address.
func behindTLS(t *testing.T, dir string) string {
	t.Helper()
	testlab.Need(t, "radicale")
	address := fmt.Sprintf("127.0.0.1:%d", testlab.Ports(t, 1)[0])
	config := strings.Replace(readFile(t, "docs/radicale.md"), "    hosts = 127.0.0.1:5232\n", indented(t, "docs/radicale.md", "hosts = 10.0.0.2"), 1)
	_, config, _ = strings.Cut(config, "`/etc/radicale/config`:\n\n")
	config, _, _ = strings.Cut(config, "\n\nDebian's package")
	file := filepath.Join(dir, "radicale.conf")
	text := adapted(dir, regexp.MustCompile("(?m)^    ").ReplaceAllString(config, ""), "10.0.0.2:5232", address, "/var/lib/radicale", dir)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	testlab.Exec(t, nil, "/usr/bin/python3", "-W", "ignore", "-m", "radicale", "--config", file)
	eventually(t, "Radicale listens", func() bool {
		nc, err := net.Dial("tcp", address)
		if err == nil {
			nc.Close()
		}
		return err == nil
	})
	return address
}

// behindNginx is the page's nginx in front of a Radicale, without the braces around it.
func behindNginx(t *testing.T) string {
	t.Helper()
	server := indented(t, "docs/radicale.md", "server {")
	server = strings.TrimSuffix(strings.TrimPrefix(server, "server {\n"), "}\n")
	return strings.Replace(server, "127.0.0.1:5232", hostOf(t, testlab.Radicale(t).URL), 1)
}

func startNginx(t *testing.T, dir, server string) string {
	t.Helper()
	port := testlab.Ports(t, 1)[0]
	address := fmt.Sprintf("127.0.0.1:%d", port)
	testlab.Nginx(t, port, adapted(dir, server, "10.0.0.2:443", address))
	return address
}

// A certificate goes with any credential and protocol: here Dovecot wants one besides the master user's password.
func TestIMAPClientCertificate(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	cert, key, _ := s.ca.Issue()
	dovecot := testlab.Dovecot(t, testlab.Lines(map[bool]string{
		true:  "ssl_server_ca_file = " + s.ca.File + "\nssl_server_request_client_cert = yes\nssl_server_require_crl = no\nauth_ssl_require_client_cert = yes",
		false: "ssl_ca = <" + s.ca.File + "\nssl_verify_client_cert = yes\nssl_require_crl = no\nauth_ssl_require_client_cert = yes",
	}[strings.HasPrefix(testlab.Run(t, testlab.Command(t, "dovecot", "--version")), "2.4")]))
	plain := dovecotBackend(t, dovecot, s.dir)
	shown := plain + fmt.Sprintf("client_cert = %q\nclient_key = %q\n", cert, key)
	s.backend = shown
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	s.login(g, alice, s.password(g.config, alice, "--for", "mail").Secret)
	for backend, want := range map[string]string{shown: "logged in for " + alice + "; client_cert until ", plain: "certificate"} {
		s.backend = backend
		out, err := testlab.Command(t, s.program, "check", "-c", whole(t, s.writeConfig(testlab.Ports(t, 4)))).CombinedOutput()
		if (err == nil) != (backend == shown) || !strings.Contains(string(out), want) {
			t.Errorf("postern check: %v, want %q\n%s", err, want, out)
		}
	}
}
