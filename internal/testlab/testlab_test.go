package testlab

import (
	"crypto/tls"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestCA(t *testing.T) {
	t.Parallel()
	ca := NewCA(t)
	_, _, cert := ca.Issue("dav.example.test", "192.0.2.1")
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "dav.example.test", "192.0.2.1"} {
		client, server := net.Pipe()
		go tls.Server(server, &tls.Config{Certificates: []tls.Certificate{cert}}).Handshake()
		if err := tls.Client(client, &tls.Config{RootCAs: ca.Pool, ServerName: name}).Handshake(); err != nil {
			t.Errorf("handshake with %s: %v", name, err)
		}
		client.Close()
	}
}

func TestRedis(t *testing.T) {
	t.Parallel()
	r := Redis(t)
	must(t, dialogue(r.Addr, "SET key value\r\n", "+OK"))
	c, err := net.Dial("tcp", r.Addr)
	must(t, err)
	defer c.Close()
	r.Pause()
	c.Write([]byte("GET key\r\n"))
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	answer := make([]byte, len("$5"))
	if _, err := io.ReadFull(c, answer); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a paused Redis: got %q, %v, want %v", answer, err, os.ErrDeadlineExceeded)
	}
	r.Resume()
	c.SetReadDeadline(time.Time{})
	if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "$5" {
		t.Errorf("after the pause: got %q, %v", answer, err)
	}
	for name, end := range map[string]func(){"stop": r.Stop, "kill": r.Kill} {
		end()
		if err := dialogue(r.Addr, "PING\r\n", "+PONG"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("after %s: got %v, want %v", name, err, syscall.ECONNREFUSED)
		}
		r.Start()
		must(t, dialogue(r.Addr, "GET key\r\n", "$-1"))
	}
}

func TestRedisAuth(t *testing.T) {
	t.Parallel()
	r := RedisAuth(t)
	auth := fmt.Sprintf("AUTH %s %s\r\n", r.User, r.Password)
	must(t, dialogue(r.Addr, "GET postern:key\r\n", "-NOAUTH"))
	must(t, dialogue(r.Addr, auth, "+OK"))
	must(t, dialogue(r.Addr, "AUTH "+r.User+" wrong\r\n", "-WRONGPASS"))
}

func TestDAV(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB) *DAVServer{
		"Radicale": Radicale, "RadicaleBasic": RadicaleBasic, "Xandikos": Xandikos, "Sabre": Sabre, "DAViCal": DAViCal, "DAViCalBasic": DAViCalBasic,
		"Cyrus": func(t testing.TB) *DAVServer { return Cyrus(t).DAVServer },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t)
			calendar, book := d.MakeCalendar(Alice, "work"), d.MakeAddressBook(Alice, "friends")
			items := map[string]string{calendar + "event.ics": Event("event-1"), calendar + "todo.ics": Todo("todo-1"), book + "card.vcf": Card("card-1")}
			for path, item := range items {
				d.Put(Alice, path, item)
			}
			d.Stop()
			d.Start()
			for path, item := range items {
				status, got := d.Do(Alice, "GET", path, "")
				if summary := strings.Split(item, "\r\n")[6]; status != http.StatusOK || !strings.Contains(got, summary) {
					t.Errorf("GET %s after a restart: status %d, got %q, want the line %q in it", path, status, got, summary)
				}
			}
		})
	}
}

func TestKeepUsersApart(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB) *DAVServer{
		"Radicale": Radicale, "Sabre": Sabre, "DAViCal": DAViCal, "Cyrus": func(t testing.TB) *DAVServer { return Cyrus(t).DAVServer },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t)
			event := d.MakeCalendar(Alice, "work") + "1.ics"
			d.Put(Alice, event, Event("1"))
			if status, answer := d.Do(Alice, "GET", event, ""); status != http.StatusOK {
				t.Errorf("Alice at her event: status %d, want 200: %s", status, answer)
			}
			if status, answer := d.Do(Bob, "GET", event, ""); status < 300 {
				t.Errorf("Bob at Alice's event: status %d: %s", status, answer)
			}
		})
	}
}

func TestCyrusTakesOnlyItsOwnTokens(t *testing.T) {
	t.Parallel()
	c := Cyrus(t)
	const ask = `<propfind xmlns="DAV:"><prop><resourcetype/></prop></propfind>`
	if status, answer := c.Do(Alice, "PROPFIND", c.Principal(Alice), ask, "Depth", "0"); status != http.StatusMultiStatus {
		t.Errorf("Alice at her principal: status %d: %s", status, answer)
	}
	c.Key = []byte("another")
	if status, _ := c.Do(Alice, "PROPFIND", c.Principal(Alice), ask, "Depth", "0"); status != http.StatusUnauthorized {
		t.Errorf("with a token by another key: status %d, want 401", status)
	}
}

func TestProcess(t *testing.T) {
	t.Parallel()
	p := Exec(t, []string{"GREETING=hello"}, "/bin/sh", "-c", `trap 'echo bye; exit 3' TERM; echo $GREETING $HTTP_PROXY $HOME; while :; do sleep 0.01; done`)
	if got := p.WaitLine("hello"); !strings.HasPrefix(got, "hello /tmp/postern-") {
		t.Errorf("got %q", got)
	}
	p.Pause()
	if states := string(groupStates(p.PID())); strings.Trim(states, "TDZ") != "" {
		t.Errorf("states after Pause: got %q, want only T and D", states)
	}
	p.Terminate()
	if got := p.Wait(); got != 3 {
		t.Errorf("exit code: got %d, want 3", got)
	}
	if got := p.Output(); !strings.HasSuffix(got, "bye\n") {
		t.Errorf("output: got %q, want bye at its end", got)
	}
}

func TestWaitURL(t *testing.T) {
	t.Parallel()
	Need(t, "radicale") // for its Python
	port := Ports(t, 1)[0]
	p := Exec(t, nil, python, "-m", "http.server", "--bind", "127.0.0.1", strconv.Itoa(port))
	p.WaitURL("http://" + local(port) + "/")
	if p.ended() {
		t.Error("the server has ended")
	}
}

// verdict is a test that only notes how it ends.
type verdict struct {
	testing.TB
	got      string
	cleanups []func()
}

func (*verdict) Helper()                          {}
func (*verdict) Logf(string, ...any)              {}
func (v *verdict) Failed() bool                   { return v.got != "pass" }
func (v *verdict) Cleanup(f func())               { v.cleanups = append(v.cleanups, f) }
func (v *verdict) Errorf(format string, a ...any) { v.got = "fail: " + fmt.Sprintf(format, a...) }
func (v *verdict) Fatalf(format string, a ...any) { v.Errorf(format, a...); runtime.Goexit() }
func (v *verdict) Skipf(format string, a ...any) {
	v.got = "skip: " + fmt.Sprintf(format, a...)
	runtime.Goexit()
}

// judge tells how a test body ends.
func judge(body func(testing.TB)) string {
	v := &verdict{got: "pass"}
	var wg sync.WaitGroup
	wg.Go(func() { body(v) })
	wg.Wait()
	for _, f := range slices.Backward(v.cleanups) {
		f()
	}
	return v.got
}

func TestExecTellsDataRaces(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"WARNING: DATA RACE": "fail: data race in sh", "nothing": "pass"} {
		if got := judge(func(t testing.TB) { Exec(t, nil, "/bin/sh", "-c", "echo "+text).Wait() }); got != want {
			t.Errorf("a program that prints %q: got %q, want %q", text, got, want)
		}
	}
}

func TestWaitLineEndsTheTest(t *testing.T) {
	t.Parallel()
	got := judge(func(t testing.TB) { Exec(t, nil, "/bin/sh", "-c", "echo other; exit 3").WaitLine("ready") })
	if want := `fail: sh ended (exit status 3) before it printed "ready"`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNeed(t *testing.T) {
	const remedy = "no-such-program is missing; ./test.sh installs it, or: apt-get install no-such-program"
	for _, tt := range []struct{ ci, suite, program, want string }{
		{"", "", "no-such-program", "skip: " + remedy},
		{"true", "", "no-such-program", "fail: " + remedy},
		{"", "full", "no-such-program", "fail: " + remedy},
		{"true", "full", "sh", "pass"},
	} {
		t.Setenv("CI", tt.ci)
		t.Setenv("POSTERN_TEST", tt.suite)
		if got := judge(func(t testing.TB) { Need(t, tt.program) }); got != tt.want {
			t.Errorf("CI=%s POSTERN_TEST=%s, Need(%s): got %q, want %q", tt.ci, tt.suite, tt.program, got, tt.want)
		}
	}
}

func TestPackagesAreInstalled(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("../../test.sh")
	must(t, err)
	for program, pkg := range packages {
		if !strings.Contains(string(script), "\n  "+program+"="+pkg+"\n") {
			t.Errorf("test.sh does not install %s, which brings %s", pkg, program)
		}
	}
}

func TestPostern(t *testing.T) {
	t.Parallel()
	program := Postern(t)
	if got := Run(t, Command(t, program, "version")); !strings.Contains(got, "postern") {
		t.Errorf("postern version: got %q", got)
	}
	info, err := buildinfo.ReadFile(program)
	must(t, err)
	if got, want := hasRace(info), raceEnabled(); got != want {
		t.Errorf("race detector in the program: %v, in the test: %v", got, want)
	}
}

func TestCommand(t *testing.T) {
	t.Parallel()
	cmd := Command(t, "sh", "-c", "cat; echo $HOME")
	cmd.Stdin = strings.NewReader("in ")
	if got := Run(t, cmd); !strings.HasPrefix(got, "in "+os.TempDir()) {
		t.Errorf("got %q", got)
	}
}

// TestNothingIsLeft runs this test program once more, lets it die with servers running and one paused, and waits until all is gone.
func TestNothingIsLeft(t *testing.T) {
	if os.Getenv("TESTLAB_CRASH") != "" {
		running, paused := Dovecot(t), Redis(t)
		paused.Pause()
		groups := []any{running.process().PID(), paused.process().PID()}
		if os.Getuid() == 0 && find("postfix") != "" {
			groups = append(groups, Postfix(t).process().PID())
		}
		fmt.Println(append([]any{"crash", running.Dir}, groups...)...)
		if os.Getenv("TESTLAB_CRASH") == "panic" {
			panic("on purpose")
		}
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	t.Parallel()
	Need(t, "dovecot", "redis-server")
	for _, how := range []string{"panic", "kill"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			p := Exec(t, []string{"TESTLAB_CRASH=" + how}, os.Args[0], "-test.run=^TestNothingIsLeft$")
			fields := strings.Fields(p.WaitLine("crash "))
			p.Wait()
			for _, field := range fields[2:] {
				group, err := strconv.Atoi(field)
				must(t, err)
				eventually(t, "group "+field+" is gone", func() bool { return strings.Trim(string(groupStates(group)), "Z") == "" })
			}
			root := filepath.Dir(fields[1])
			eventually(t, root+" is removed", func() bool { _, err := os.Stat(root); return errors.Is(err, os.ErrNotExist) })
		})
	}
}

func TestPorts(t *testing.T) {
	t.Parallel()
	port := Ports(t, 1)[0]
	if release, err := reserve(port); err == nil {
		release()
		t.Errorf("port %d is reserved a second time", port)
	}
	for range 2 { // a server comes, serves, and comes back
		ln, err := net.Listen("tcp", local(port))
		must(t, err)
		if release, err := reserve(port); err == nil {
			release()
			t.Errorf("port %d is reserved while a server listens on it", port)
		}
		c, err := net.Dial("tcp", local(port))
		must(t, err)
		c.Close()
		ln.Close()
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %v it is not so that %s", patience, what)
		}
	}
}
