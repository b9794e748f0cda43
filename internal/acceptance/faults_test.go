package acceptance

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-imap/v2"

	"postern/internal/testlab"
)

func TestRedisComesAndGoes(t *testing.T) {
	t.Parallel()
	s, _, _ := full(t)
	redis := testlab.Redis(t)
	s.backend += fmt.Sprintf("\n[redis]\naddresses = [%q]\n", redis.Addr)
	one, two := s.serve(), s.serve()
	s.cli(one.config, "account", "add", alice)
	p := s.password(one.config, alice, "--for", "mail")
	for _, step := range []func(){func() {}, redis.Stop, redis.Start, redis.Pause, redis.Resume} {
		step()
		q := s.password(one.config, alice, "--for", "mail")
		for _, g := range []*gateway{one, two} {
			s.login(g, alice, p.Secret)
			s.login(g, alice, q.Secret)
		}
		s.cli(two.config, "password", "revoke", fmt.Sprint(q.ID))
		for _, g := range []*gateway{one, two} {
			wantIMAP(t, s.dial(g, nil).Login(alice, q.Secret).Wait(), imap.ResponseCodeAuthenticationFailed)
		}
	}
}

// A backend that hangs costs its own users a temporary refusal, never a wrong password, and nobody else anything.
func TestABackendThatHangs(t *testing.T) {
	t.Parallel()
	s, dovecot, radicale := full(t)
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	p := s.password(g.config, alice, "--for", "everything")
	s.login(g, alice, p.Secret)
	if code := s.propfindAt(g, "/dav/cal/"+s.publicID(g)+"/", alice, p.Secret); code != http.StatusMultiStatus {
		t.Fatalf("PROPFIND = %d", code)
	}
	dovecot.Pause()
	radicale.Stop()
	var both sync.WaitGroup
	both.Go(func() { wantIMAP(t, s.dial(g, nil).Login(alice, p.Secret).Wait(), imap.ResponseCodeUnavailable) })
	both.Go(func() {
		if code := s.propfindAt(g, "/dav/cal/"+s.publicID(g)+"/", alice, p.Secret); code != http.StatusServiceUnavailable {
			t.Errorf("PROPFIND with the backend down = %d, want 503", code)
		}
	})
	both.Wait()
	dovecot.Resume()
	radicale.Start()
	s.login(g, alice, p.Secret)
	if code := s.propfindAt(g, "/dav/cal/"+s.publicID(g)+"/", alice, p.Secret); code != http.StatusMultiStatus {
		t.Errorf("PROPFIND afterwards = %d", code)
	}
}

func (s *site) publicID(g *gateway) string {
	s.t.Helper()
	m := regexp.MustCompile(`"public_id": "([a-z0-9]+)"`).FindStringSubmatch(s.cli(g.config, "account", "show", alice, "--json"))
	if m == nil {
		s.t.Fatal("account show tells no public id")
	}
	return m[1]
}

func (s *site) propfindAt(g *gateway, path, login, secret string) int {
	s.t.Helper()
	req, _ := http.NewRequest("PROPFIND", g.DAV+path, nil)
	req.Header.Set("Depth", "1")
	req.SetBasicAuth(login, secret)
	resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: s.tls(), DisableKeepAlives: true}}).Do(req)
	if err != nil {
		s.t.Error(err)
		return 0
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// Yesterday's copy of the database is put in place of today's under a running gateway: it notices, drops what it has cached and ends
// the sessions of app passwords that the copy does not know.
func TestTheDatabaseIsReplacedByACopy(t *testing.T) {
	t.Parallel()
	testlab.Need(t, "sqlite3")
	s, _, _ := full(t)
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	old := s.password(g.config, alice, "--for", "mail")
	yesterday := filepath.Join(s.dir, "yesterday.db")
	s.cli(g.config, "backup", yesterday)
	fresh := s.password(g.config, alice, "--for", "mail")
	kept, ends := s.login(g, alice, old.Secret), s.login(g, alice, fresh.Secret)
	testlab.Run(t, testlab.Command(t, "sqlite3", filepath.Join(s.dir, "postern.db"), ".restore "+yesterday))
	<-ends.Closed()
	wantIMAP(t, s.dial(g, nil).Login(alice, fresh.Secret).Wait(), imap.ResponseCodeAuthenticationFailed)
	if err := kept.Noop().Wait(); err != nil {
		t.Errorf("a session whose app password is still good: %v", err)
	}
	s.login(g, alice, old.Secret)
	g.WaitLine("the database is not the one of a moment ago")
}

// What was shown was written: kill -9 at any moment loses nothing that was acknowledged.
func TestKilledWhileCreatingAndRevoking(t *testing.T) {
	t.Parallel()
	s, _, _ := full(t)
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	var mu sync.Mutex
	shown, revoked := map[int64]bool{}, map[int64]bool{}
	var writers sync.WaitGroup
	for range 2 {
		writers.Go(func() {
			for range 8 {
				p := s.password(g.config, alice, "--for", "mail")
				mu.Lock()
				shown[p.ID] = true
				mu.Unlock()
				s.cli(g.config, "password", "revoke", fmt.Sprint(p.ID))
				mu.Lock()
				revoked[p.ID] = true
				mu.Unlock()
			}
		})
	}
	g.Kill()
	next := s.serve()
	next.Kill()
	writers.Wait()
	last := s.serve()
	list := s.cli(last.config, "password", "list", alice, "--all", "--json")
	for id := range shown {
		if !strings.Contains(list, fmt.Sprintf(`"id": %d,`, id)) {
			t.Errorf("app password %d was shown and is lost", id)
		}
	}
	if got := strings.Count(list, `"state": "revoked"`); got < len(revoked) {
		t.Errorf("%d are revoked, %d were acknowledged", got, len(revoked))
	}
}

// A trace of system calls shows a sync of the write-ahead log between the last write to it and each acknowledgement: kill -9 proves
// nothing about power.
func TestSyncedBeforeAcknowledged(t *testing.T) {
	t.Parallel()
	testlab.Need(t, "strace")
	s, _, _ := full(t)
	config := s.writeConfig(testlab.Ports(t, 4))
	s.cli(config, "init")
	s.cli(config, "account", "add", alice)
	for _, args := range [][]string{
		{"password", "create", alice, "--label", "x", "--for", "mail"},
		{"password", "revoke", "1"},
		{"account", "suspend", alice},
	} {
		trace := filepath.Join(t.TempDir(), "trace")
		testlab.Run(t, testlab.Command(t, "strace", append([]string{"-f", "-y", "-o", trace, "-e", "trace=pwrite64,write,fdatasync,fsync", s.program},
			append(args, "-c", config)...)...))
		text, err := os.ReadFile(trace)
		if err != nil {
			t.Fatal(err)
		}
		written, synced, said := -1, -1, -1
		for i, line := range strings.Split(string(text), "\n") {
			switch {
			case strings.Contains(line, "pwrite64(") && strings.Contains(line, "postern.db-wal>") && said < 0:
				written = i
			case strings.Contains(line, "sync(") && strings.Contains(line, "postern.db-wal>") && said < 0:
				synced = i
			case strings.Contains(line, "write(1<"):
				said = i
			}
		}
		if written < 0 || said < 0 || synced < written || said < synced {
			t.Errorf("postern %s: last write to the log at line %d of the trace, sync at %d, acknowledged at %d", strings.Join(args, " "), written, synced, said)
		}
	}
}
