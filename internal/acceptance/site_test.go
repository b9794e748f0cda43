// Package acceptance proves the main job with the real program: its command line, real Dovecot, Radicale, Xandikos and Redis
// behind it, real clients in front. It holds tests only.
package acceptance

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapclient"

	"postern/internal/testlab"
)

// site is a Postern installation: a configuration, its stores, one or more gateways on them.
type site struct {
	t       *testing.T
	dir     string
	program string
	ca      *testlab.CA
	data    string   // the database's folder
	backend string   // the [[backend]] and [redis] parts of the configuration
	doors   string   // more listeners; {dav} is the port of dav's
	top     string   // more keys above all tables
	names   []string // in the certificate, besides localhost
	mu      sync.Mutex
	next    int
}

// gateway is one running process of a site.
type gateway struct {
	*testlab.Process
	t        *testing.T
	config   string
	IMAP     string // implicit TLS
	STARTTLS string
	DAV      string // https://localhost:port
	ops      string
}

func dovecotBackend(t *testing.T, d *testlab.DovecotServer, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "dovecot.password")
	if err := os.WriteFile(file, []byte(d.MasterPassword+"\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("\n[[backend]]\nname = \"dovecot\"\nprotocol = \"imap\"\naddress = %q\ntls = \"starttls\"\nca_file = %q\ncredential = \"master\"\nuser = %q\npassword_file = %q\n",
		d.IMAP, d.CAFile, d.MasterUser, file)
}

// otherBackend is a Dovecot for another protocol, which it speaks at an address; the gateway finds it through another one, in plain text, if
// that is not empty.
func otherBackend(t *testing.T, d *testlab.DovecotServer, dir, protocol, address, through string) string {
	t.Helper()
	imap := dovecotBackend(t, d, dir)
	if through != "" {
		address = through
		imap = strings.NewReplacer(`tls = "starttls"`, `tls = "none"`, "ca_file", "# ca_file").Replace(imap)
	}
	return strings.NewReplacer(`"imap"`, strconv.Quote(protocol), d.IMAP, address).Replace(imap)
}

func davBackend(name, backendURL string) string {
	u, _ := url.Parse(backendURL)
	return fmt.Sprintf("\n[[backend]]\nname = %q\nprotocol = \"dav\"\naddress = %q\ntls = \"none\"\ncredential = \"header\"\n", name, u.Host)
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := testlab.Dir(t)
	return &site{t: t, dir: dir, data: dir, program: testlab.Postern(t), ca: testlab.NewCA(t)}
}

// writeConfig writes the configuration of one more gateway on the site's stores and returns its file.
func (s *site) writeConfig(ports []int) string {
	s.t.Helper()
	cert, key, _ := s.ca.Issue(s.names...)
	s.mu.Lock()
	s.next++
	path := filepath.Join(s.dir, fmt.Sprintf("postern%d.toml", s.next))
	s.mu.Unlock()
	text := fmt.Sprintf(`tls.certificate = [{ cert = %q, key = %q }]
store = { database = %q, key_file = %q, ballast = "64KiB" }
operations.address = "127.0.0.1:%d"
shutdown_grace = "2s"
limits.preauth_per_network = 1000
%slistener = [
  { protocol = "imap", address = "127.0.0.1:%d" },
  { protocol = "imap", address = "127.0.0.1:%d", tls = "starttls" },
  { protocol = "dav", address = "127.0.0.1:%d" },
%s]
`, cert, key, filepath.Join(s.data, "postern.db"), filepath.Join(s.dir, "root.key"), ports[3], s.top, ports[0], ports[1], ports[2], strings.ReplaceAll(s.doors, "{dav}", strconv.Itoa(ports[2])))
	if err := os.WriteFile(path, []byte(text+s.backend), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// whole takes the listeners out of a configuration that no backend stands behind, of which "postern check" would complain. There is one for
// each backend.
func whole(t *testing.T, config string) string {
	t.Helper()
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	listeners, backends, _ := strings.Cut(string(text), "\n[[backend]]")
	var kept []string
	for line := range strings.Lines(listeners) {
		if m := regexp.MustCompile(`^  \{ protocol = "([a-z0-9]+)"`).FindStringSubmatch(line); m != nil && !strings.Contains(backends, fmt.Sprintf("\nprotocol = %q\n", m[1])) {
			line = ""
			if !strings.Contains(strings.Join(kept, ""), `protocol = "submission"`) && strings.Contains(backends, "\nprotocol = \"submission\"\n") {
				line = fmt.Sprintf("  { protocol = \"submission\", address = \"127.0.0.1:%d\" },\n", testlab.Ports(t, 1)[0])
			}
		}
		kept = append(kept, line)
	}
	file := config + ".whole"
	if err := os.WriteFile(file, []byte(strings.Join(kept, "")+"\n[[backend]]"+backends), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// serve starts a gateway and waits until it takes logins. under is put before the command line, such as strace.
func (s *site) serve(under ...string) *gateway {
	s.t.Helper()
	ports := testlab.Ports(s.t, 4)
	local := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	g := &gateway{t: s.t, config: s.writeConfig(ports), IMAP: local(0), STARTTLS: local(1),
		DAV: fmt.Sprintf("https://localhost:%d", ports[2]), ops: "http://" + local(3)}
	if _, err := os.Stat(filepath.Join(s.dir, "root.key")); err != nil {
		s.cli(g.config, "init")
	}
	g.Process = testlab.Exec(s.t, []string{shortSleep}, append(under, s.program, "serve", "-c", g.config)...)
	g.WaitURL(g.ops + "/readyz")
	return g
}

// noSleep has a program of the race build end when it is done, not a second later: that would hide as much of what is measured from there.
const noSleep = "GORACE=atexit_sleep_ms=0"

// shortSleep has a gateway of the race build wait for races of its last moments, but not for a whole second.
const shortSleep = "GORACE=atexit_sleep_ms=200"

// cli runs the command line and returns what it printed.
func (s *site) cli(config string, args ...string) string {
	s.t.Helper()
	cmd := testlab.Command(s.t, s.program, append(args, "-c", config)...)
	cmd.Env = append(cmd.Env, noSleep)
	return testlab.Run(s.t, cmd)
}

type appPassword struct {
	ID     int64  `json:"id"`
	Secret string `json:"secret"`
}

// password makes an app password through the command line.
func (s *site) password(config, address string, args ...string) appPassword {
	s.t.Helper()
	var p appPassword
	out := s.cli(config, append([]string{"password", "create", address, "--label", "test", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &p); err != nil || p.Secret == "" {
		s.t.Fatalf("password create: %v\n%s", err, out)
	}
	return p
}

func (s *site) tls() *tls.Config { return &tls.Config{RootCAs: s.ca.Pool, ServerName: "localhost"} }

// dial connects an IMAP client; the caller logs in.
func (s *site) dial(g *gateway, o *imapclient.Options) *imapclient.Client {
	s.t.Helper()
	if o == nil {
		o = &imapclient.Options{}
	}
	o.TLSConfig = s.tls()
	c, err := imapclient.DialTLS(g.IMAP, o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// login connects and logs in.
func (s *site) login(g *gateway, address, secret string) *imapclient.Client {
	s.t.Helper()
	c := s.dial(g, nil)
	if err := c.Login(address, secret).Wait(); err != nil {
		s.t.Fatalf("login of %s: %v", address, err)
	}
	return c
}

// mail is a gateway in front of a Dovecot, and alice has an account.
func mail(t *testing.T) (*site, *testlab.DovecotServer, *gateway) {
	t.Helper()
	s, dovecot := newSite(t), testlab.Dovecot(t)
	s.backend = dovecotBackend(t, dovecot, s.dir)
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	return s, dovecot, g
}

// full is a site with mail on Dovecot, calendars and contacts on Radicale.
func full(t *testing.T) (*site, *testlab.DovecotServer, *testlab.DAVServer) {
	t.Helper()
	s := newSite(t)
	dovecot, radicale := testlab.Dovecot(t), testlab.Radicale(t)
	s.backend = dovecotBackend(t, dovecot, s.dir) + davBackend("radicale", radicale.URL)
	return s, dovecot, radicale
}

const alice = "alice@example.test"

// eventually waits for what must come about. It fails only when a test would hang otherwise.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}
