package acceptance

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"postern/internal/testlab"
)

// change rewrites a gateway's configuration.
func (g *gateway) change(old, new string) {
	g.t.Helper()
	text, err := os.ReadFile(g.config)
	if err != nil {
		g.t.Fatal(err)
	}
	changed := strings.Replace(string(text), old, new, 1)
	if changed == string(text) {
		g.t.Fatalf("%q does not stand in\n%s", old, text)
	}
	if err := os.WriteFile(g.config, []byte(changed), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

// reload sends SIGHUP and waits for what the gateway says to it.
func (g *gateway) reload(want string) {
	g.t.Helper()
	before := strings.Count(g.Output(), want)
	g.Signal(syscall.SIGHUP)
	eventually(g.t, want, func() bool { return strings.Count(g.Output(), want) > before })
}

func TestReload(t *testing.T) {
	t.Parallel()
	s, _, _ := full(t)
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	p := s.password(g.config, alice, "--for", "mail")
	c := s.login(g, alice, p.Secret)

	g.change("[[backend]]", "no_such_key = 1\n[[backend]]")
	g.reload(`unknown key \"no_such_key\"`)
	s.login(g, alice, p.Secret)
	g.change("no_such_key = 1\n", "")

	g.change(`ballast = "64KiB"`, `ballast = "32KiB"`)
	g.reload("can't change while the gateway runs; restart it")
	g.change(`ballast = "32KiB"`, `ballast = "64KiB"`)

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	moved := fmt.Sprintf("127.0.0.1:%d", testlab.Ports(t, 1)[0])
	g.change(g.STARTTLS, taken.Addr().String())
	g.reload("address already in use")
	if _, err := dialAny(s, g.STARTTLS, false); err != nil {
		t.Errorf("the old listener after a refused reload: %v", err)
	}
	g.change(taken.Addr().String(), moved)
	g.reload(`"msg":"reloaded"`)
	if _, err := dialAny(s, g.STARTTLS, false); err == nil {
		t.Error("a listener that is configured no more still accepts")
	}
	if conn, err := dialAny(s, moved, false); err != nil {
		t.Errorf("the new listener: %v", err)
	} else {
		conn.Close()
	}
	s.login(g, alice, p.Secret)
	if err := c.Noop().Wait(); err != nil {
		t.Errorf("a session of before: %v", err)
	}
	s.cli(g.config, "password", "revoke", fmt.Sprint(p.ID))
	<-c.Closed()
}

// Certificates are picked by name, and taken anew when their files change.
func TestCertificates(t *testing.T) {
	t.Parallel()
	s, _, _ := full(t)
	g := s.serve()
	other := testlab.NewCA(t)
	cert, key, _ := other.Issue("mail.example.test")
	g.change(" }]\n", fmt.Sprintf(" }, { cert = %q, key = %q }]\n", cert, key))
	g.reload(`"msg":"reloaded"`)
	shows := func(ca *testlab.CA, name string) error {
		conn, err := tls.Dial("tcp", g.IMAP, &tls.Config{RootCAs: ca.Pool, ServerName: name})
		if err == nil {
			conn.Close()
		}
		return err
	}
	for name, ca := range map[string]*testlab.CA{"localhost": s.ca, "mail.example.test": other} {
		if err := shows(ca, name); err != nil {
			t.Errorf("for %s: %v", name, err)
		}
	}
	third := testlab.NewCA(t)
	newCert, newKey, _ := third.Issue("mail.example.test")
	for from, to := range map[string]string{newCert: cert, newKey: key} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the new certificate, without a signal", func() bool { return shows(third, "mail.example.test") == nil })
}

// A gateway that is told to stop takes nobody any more, ends mail sessions, and lets a request finish.
func TestDrain(t *testing.T) {
	t.Parallel()
	s, _, radicale := full(t)
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	p := s.password(g.config, alice, "--for", "everything")
	mail := s.login(g, alice, p.Secret)
	id := s.publicID(g)
	if code, text, _ := s.do(g, alice, p.Secret, "PROPFIND", "/dav/cal/"+id+"/", "", "Depth", "1"); code != http.StatusMultiStatus {
		t.Fatalf("PROPFIND = %d %s", code, text)
	}
	radicale.MakeCalendar(alice, "personal")
	radicale.Pause()
	answered := make(chan int, 1)
	go func() {
		req, _ := http.NewRequest("PUT", g.DAV+"/dav/cal/"+id+"/personal/x.ics", strings.NewReader(testlab.Event("x")))
		req.Header.Set("Content-Type", "text/calendar")
		resp, err := s.httpClient(alice, p.Secret).Do(req)
		if err != nil {
			t.Error(err)
			answered <- 0
			return
		}
		resp.Body.Close()
		answered <- resp.StatusCode
	}()
	eventually(t, "the request is at the backend", func() bool { return strings.Contains(g.metrics(), `postern_sessions 2`) })
	g.Signal(syscall.SIGTERM)
	<-mail.Closed()
	eventually(t, "not ready", func() bool {
		resp, err := http.Get(g.ops + "/readyz")
		if err != nil {
			return true
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusServiceUnavailable
	})
	for _, address := range []string{g.IMAP, g.STARTTLS, strings.TrimPrefix(g.DAV, "https://")} {
		eventually(t, "refused", func() bool {
			conn, err := dialAny(s, address, false)
			if err == nil {
				conn.Close()
			}
			return errors.Is(err, syscall.ECONNREFUSED)
		})
	}
	radicale.Resume()
	if code := <-answered; code != http.StatusCreated {
		t.Errorf("the request under way = %d", code)
	}
	if code := g.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	g.WaitLine(`"msg":"stopped"`)
}

// What is left after the grace is cut, and the exit is still an orderly one.
func TestTheGraceEnds(t *testing.T) {
	t.Parallel()
	s, _, radicale := full(t)
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	p := s.password(g.config, alice, "--for", "dav")
	home := "/dav/cal/" + s.publicID(g) + "/"
	radicale.Pause()
	answered := make(chan error, 1)
	go func() {
		req, _ := http.NewRequest("PROPFIND", g.DAV+home, nil)
		resp, err := s.httpClient(alice, p.Secret).Do(req)
		if err == nil {
			err = fmt.Errorf("status %d", resp.StatusCode)
			resp.Body.Close()
		}
		answered <- err
	}()
	eventually(t, "the request is at the backend", func() bool { return strings.Contains(g.metrics(), `postern_sessions 1`) })
	g.Signal(syscall.SIGTERM)
	g.WaitLine("the grace is over")
	if err := <-answered; err == nil || strings.Contains(err.Error(), "status 2") {
		t.Errorf("a request that the backend never answered: %v", err)
	}
	if code := g.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func (g *gateway) metrics() string {
	resp, err := http.Get(g.ops + "/metrics")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return string(text)
}

func TestMetricsAndHealth(t *testing.T) {
	t.Parallel()
	s, _, _ := full(t)
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	p := s.password(g.config, alice, "--for", "mail")
	if err := s.login(g, alice, p.Secret).Logout().Wait(); err != nil {
		t.Fatal(err)
	}
	wantIMAP(t, s.dial(g, nil).Login(alice, "letmein").Wait(), imap.ResponseCodeAuthenticationFailed)
	eventually(t, "the session is counted", func() bool {
		return strings.Contains(g.metrics(), `postern_sessions_ended_total{protocol="imap"} 1`)
	})
	text := g.metrics()
	for _, want := range []string{
		`postern_logins_total{outcome="ok",protocol="imap"} 1`, `postern_logins_total{outcome="not_app_password",protocol="imap"} 1`,
		`postern_verify_seconds_count{layer="sql"}`, `postern_backend_seconds_count{backend="dovecot",outcome="ok",step="login"} 1`,
		"postern_feed_lag_seconds", `postern_relayed_bytes_total{direction="up",protocol="imap"}`, "postern_sessions 0",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if strings.Contains(text, "alice") || strings.Contains(text, p.Secret) {
		t.Error("metrics tell of people")
	}
	s.cli(g.config, "healthcheck")
	for _, path := range []string{"/healthz", "/readyz", "/debug/pprof/goroutine?debug=1"} {
		resp, err := http.Get(g.ops + path)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %v %v", path, resp, err)
			continue
		}
		resp.Body.Close()
	}
	g.Terminate()
	if out, err := testlab.Command(t, s.program, "healthcheck", "-c", g.config).CombinedOutput(); err == nil {
		t.Errorf("healthcheck of a gateway that has stopped: %s", out)
	}
}

// A root key is added and the old one retired without anybody's app password breaking.
func TestKeysAreChanged(t *testing.T) {
	t.Parallel()
	s, _, _ := full(t)
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	p := s.password(g.config, alice, "--for", "mail")
	retire := func() (string, error) {
		out, err := testlab.Command(t, s.program, "key", "retire", "1", "-c", g.config).CombinedOutput()
		return string(out), err
	}
	s.cli(g.config, "key", "add")
	g.reload(`"msg":"reloaded"`)
	if out, err := retire(); err == nil {
		t.Errorf("the old key was retired while an app password needs it: %s", out)
	}
	eventually(t, "the old key can go", func() bool {
		s.login(g, alice, p.Secret).Close() // which moves it to the new key, once every gateway is known to have that
		_, err := retire()
		return err == nil
	})
	g.reload(`"msg":"reloaded"`)
	s.login(g, alice, p.Secret)
	g.Terminate()
	s.login(s.serve(), alice, p.Secret)
}

// Slow bytes: clients that say nothing, or a byte now and then, keep nobody else out, and are sent away.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	s, _, _ := full(t)
	g := s.serve()
	g.change("[[backend]]", "login_timeout = \"2s\"\n[[backend]]")
	g.reload(`"msg":"reloaded"`)
	s.cli(g.config, "account", "add", alice)
	p := s.password(g.config, alice, "--for", "everything")
	var slow []net.Conn
	for range 100 {
		for _, address := range []string{g.IMAP, g.STARTTLS, strings.TrimPrefix(g.DAV, "https://")} {
			conn, err := dialAny(s, address, false)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			slow = append(slow, conn)
		}
	}
	talker, err := imapclient.DialStartTLS(g.STARTTLS, &imapclient.Options{TLSConfig: s.tls()})
	if err != nil {
		t.Fatal(err)
	}
	defer talker.Close()
	s.login(g, alice, p.Secret)
	if code := s.propfind(g, alice, p.Secret); code != http.StatusMultiStatus {
		t.Errorf("PROPFIND = %d", code)
	}
	for _, conn := range slow {
		conn.SetDeadline(time.Now().Add(time.Minute))
		go func() { // one byte at a time, for as long as it is taken
			for {
				if _, err := conn.Write([]byte("a")); err != nil {
					return
				}
				time.Sleep(300 * time.Millisecond)
			}
		}()
	}
	for i, conn := range slow {
		if _, err := io.Copy(io.Discard, conn); os.IsTimeout(err) {
			t.Fatalf("slow client %d is still there", i)
		}
	}
	s.login(g, alice, p.Secret)
}

// The operations listener on a socket file.
func TestOperationsOnASocket(t *testing.T) {
	t.Parallel()
	s, _, _ := full(t)
	config := s.writeConfig(testlab.Ports(t, 4))
	s.cli(config, "init")
	g := &gateway{t: t, config: config}
	socket := filepath.Join(s.dir, "ops.sock")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	line := text[strings.Index(string(text), "operations.address"):]
	g.change(string(line[:strings.IndexByte(string(line), '\n')]), fmt.Sprintf("operations.address = %q", "unix:"+socket))
	g.Process = testlab.Exec(t, nil, s.program, "serve", "-c", config)
	g.WaitLine(`"msg":"serving"`)
	s.cli(config, "healthcheck")
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("the socket: %v %v", info, err)
	}
	g.Terminate()
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
}
