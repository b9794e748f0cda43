package acceptance

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"postern/gateway/bench"
	"postern/internal/testlab"
)

// The load tool against the gateway as people run it: over TLS, in each of its ways, a few operations each.
func TestBench(t *testing.T) {
	t.Parallel()
	s, dovecot, _ := full(t)
	g := s.serve()
	dovecot.Deliver(alice, "INBOX", testlab.Mails()[0])
	s.cli(g.config, "account", "add", alice)
	p := s.password(g.config, alice, "--for", "everything")
	credentials := filepath.Join(s.dir, "credentials")
	if err := os.WriteFile(credentials, fmt.Appendf(nil, "%s %s %s\n", alice, p.Secret, s.publicID(g)), 0o600); err != nil {
		t.Fatal(err)
	}
	dav := strings.TrimPrefix(g.DAV, "https://")
	for name, tt := range map[string]struct {
		args []string
		want func(*bench.Result) bool
	}{
		"resumed":  {[]string{"login", g.IMAP, "--tls", "implicit", "--resume"}, func(r *bench.Result) bool { return *r.Resumed > 0.9 }},
		"starttls": {[]string{"login", g.STARTTLS, "--tls", "starttls", "--mechanism", "plain", "--post-quantum"}, nil},
		"noop":     {[]string{"noop", g.IMAP, "--tls", "implicit", "--quick-ack"}, nil},
		"fetch":    {[]string{"fetch", g.IMAP, "--tls", "implicit", "--message", "1"}, nil},
		"idle":     {[]string{"idle", g.IMAP, "--tls", "implicit", "--settle", "0s"}, func(r *bench.Result) bool { return r.Descriptors > 1.5 }},
		"h1":       {[]string{"dav", dav, "--tls", "implicit", "--path", "/dav/cal/{id}/"}, nil},
		"idle h1":  {[]string{"dav", dav, "--tls", "implicit", "--path", "/dav/cal/{id}/", "--idle", "--settle", "0s"}, func(r *bench.Result) bool { return r.Bench == "idle" && r.Descriptors > 0.9 }},
		"h2":       {[]string{"dav", dav, "--tls", "implicit", "--path", "/dav/cal/{id}/", "--http", "2"}, nil},
		"h2 new":   {[]string{"dav", dav, "--tls", "implicit", "--path", "/dav/cal/{id}/", "--http", "2", "--reconnect"}, nil},
	} {
		r := s.bench(g, credentials, append(tt.args, "--count", "20")...)
		if r.Operations != 20 || r.Failed > 0 || tt.want != nil && !tt.want(r) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	storm := s.bench(g, credentials, "storm", g.IMAP, "--tls", "implicit", "--attackers", "4", "--attack-sources", "2", "--count", "4", "--duration", "2s").Storm
	if storm == nil || storm.Attempts == 0 || storm.Same.Operations != 4 || storm.Another.Operations != 4 {
		t.Errorf("storm: %+v", storm)
	}
}

// Messages over TLS from the start and by STARTTLS, to a server that answers from memory.
func TestBenchSending(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	backend := fmt.Sprintf("127.0.0.1:%d", testlab.Ports(t, 1)[0])
	testlab.Exec(t, nil, s.program, "bench", "backend", "submission", backend)
	eventually(t, "the backend listens", func() bool {
		conn, err := net.Dial("tcp", backend)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	o := s.sends(submissionBackend("bench", backend, "", xclient))
	credentials := filepath.Join(s.dir, "credentials")
	if err := os.WriteFile(credentials, fmt.Appendf(nil, "%s %s\n", alice, o.secret), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"implicit": {"send", o.secure, "--tls", "implicit", "--messages", "5"},
		"starttls": {"send", o.startTLS, "--tls", "starttls", "--size", "1MiB"},
	} {
		if r := s.bench(o.gateway, credentials, append(args, "--count", "20")...); r.Operations != 20 || r.Failed > 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// bench measures a gateway, two operations at a time.
func (s *site) bench(g *gateway, credentials string, args ...string) *bench.Result {
	s.t.Helper()
	args = append([]string{"bench"}, args...)
	args = append(args, "--credentials", credentials, "--ca", s.ca.File, "--server-name", "localhost", "--pid", strconv.Itoa(g.PID()), "--concurrency", "2", "--json")
	out := testlab.Run(s.t, testlab.Command(s.t, s.program, args...))
	var r bench.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
	return &r
}
