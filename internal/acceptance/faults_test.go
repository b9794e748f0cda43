package acceptance

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

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

// The database's file is removed, or another one moved to its place, as people restore a backup: who revokes writes to the new file, so
// the gateway that has the old one open must not accept anybody any more.
func TestTheDatabasesFileIsAnother(t *testing.T) {
	t.Parallel()
	s, _, _ := full(t)
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	p := s.password(g.config, alice, "--for", "mail")
	copied := filepath.Join(s.dir, "copy.db")
	s.cli(g.config, "backup", copied)
	s.login(g, alice, p.Secret)
	database := filepath.Join(s.dir, "postern.db")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(database + suffix); err != nil {
			t.Error(err)
		}
	}
	g.WaitLine("file is gone")
	out, err := testlab.Command(t, s.program, "account", "list", "-c", g.config).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "there is no database") {
		t.Errorf("a command without a database: %v %s", err, out)
	}
	eventually(t, "unavailable", func() bool {
		err := s.dial(g, nil).Login(alice, p.Secret).Wait()
		e, ok := errors.AsType[*imap.Error](err)
		return ok && e.Code == imap.ResponseCodeUnavailable
	})
	if err := os.Rename(copied, database); err != nil {
		t.Fatal(err)
	}
	s.cli(g.config, "password", "revoke", fmt.Sprint(p.ID))
	wantIMAP(t, s.dial(g, nil).Login(alice, p.Secret).Wait(), imap.ResponseCodeUnavailable)
	g.Terminate()
	next := s.serve()
	wantIMAP(t, s.dial(next, nil).Login(alice, p.Secret).Wait(), imap.ResponseCodeAuthenticationFailed)
	s.login(next, alice, s.password(next.config, alice, "--for", "mail").Secret)
}

// What was shown was written: kill -9 at any step loses nothing that was acknowledged, and leaves a database that goes on.
func TestKilledWhileCreatingAndRevoking(t *testing.T) {
	t.Parallel()
	testlab.Need(t, "strace")
	s, _, _ := full(t)
	config := s.writeConfig(testlab.Ports(t, 4))
	s.cli(config, "init")
	s.cli(config, "account", "add", alice)
	revoked := regexp.MustCompile(`"state": "revoked"`)
	state := func(id int64) string {
		list := s.cli(config, "password", "list", alice, "--all", "--json")
		m := regexp.MustCompile(fmt.Sprintf(`(?s)"id": %d,.*?"state": "(\w+)"`, id)).FindStringSubmatch(list)
		if m == nil {
			return "lost"
		}
		return m[1]
	}
	acknowledged := map[string]int{}
	for _, call := range []string{"pwrite64", "fsync", "write"} {
		for n := 1; n <= 3; n++ {
			kill := func(args ...string) string {
				p := testlab.Exec(t, nil, append([]string{"strace", "-f", "-o", "/dev/null", "-e", "trace=" + call, "-e",
					fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call, n), s.program}, append(args, "-c", config)...)...)
				p.Wait()
				return p.Output()
			}
			out := kill("password", "create", alice, "--label", "x", "--for", "mail", "--json")
			if m := regexp.MustCompile(`"id": (\d+),`).FindStringSubmatch(out); m != nil {
				acknowledged["created"]++
				if id, _ := strconv.ParseInt(m[1], 10, 64); state(id) != "active" {
					t.Errorf("killed at %s %d: app password %d was shown and is %s", call, n, id, state(id))
				}
			}
			p := s.password(config, alice, "--for", "mail")
			if strings.Contains(kill("password", "revoke", fmt.Sprint(p.ID)), "revoked") {
				acknowledged["revoked"]++
				if got := state(p.ID); got != "revoked" {
					t.Errorf("killed at %s %d: the revocation of %d was acknowledged and it is %s", call, n, p.ID, got)
				}
			}
			s.cli(config, "password", "revoke", fmt.Sprint(p.ID))
			s.cli(config, "password", "revoke-all", alice)
		}
	}
	list := s.cli(config, "password", "list", alice, "--all", "--json")
	if all, dead := strings.Count(list, `"state"`), len(revoked.FindAllString(list, -1)); all != dead || all < 9 {
		t.Errorf("%d of %d are revoked", dead, all)
	}
	if acknowledged["created"] == 0 || acknowledged["created"] == 9 || acknowledged["revoked"] == 0 || acknowledged["revoked"] == 9 {
		t.Errorf("kills came too early or too late to tell anything: acknowledged %v of 9", acknowledged)
	}
}

// A process that is stopped while it holds the database's write lock keeps everybody from writing: a revocation then says that it did not
// happen, and it did not.
func TestARevocationThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	testlab.Need(t, "strace")
	s, _, _ := full(t)
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	p := s.password(g.config, alice, "--for", "mail")
	trace := filepath.Join(t.TempDir(), "trace")
	holder := testlab.Exec(t, nil, "strace", "-f", "-o", trace, "-e", "trace=fsync", "-e", "inject=fsync:signal=SIGSTOP:when=1",
		s.program, "password", "create", alice, "--label", "x", "--for", "mail", "-c", g.config)
	eventually(t, "stopped in a commit", func() bool {
		text, _ := os.ReadFile(trace)
		return strings.Contains(string(text), "stopped by SIGSTOP")
	})
	out, err := testlab.Command(t, s.program, "password", "revoke", fmt.Sprint(p.ID), "-c", g.config).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "nothing was changed") {
		t.Errorf("revoke beside a stopped writer: %v %q", err, out)
	}
	s.login(g, alice, p.Secret)
	for range 100 { // strace counts for each thread: the one that syncs next is stopped, too
		holder.Resume()
		time.Sleep(20 * time.Millisecond)
	}
	holder.Wait()
	s.cli(g.config, "password", "revoke", fmt.Sprint(p.ID))
	wantIMAP(t, s.dial(g, nil).Login(alice, p.Secret).Wait(), imap.ResponseCodeAuthenticationFailed)
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
