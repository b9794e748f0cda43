package command

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/gateway/bench"
)

// benchBackendAt starts a backend and returns its address.
func benchBackendAt(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	ended := make(chan int, 1)
	var stderr bytes.Buffer
	go func() {
		ended <- Run(ctx, append([]string{"bench", "backend"}, args...), strings.NewReader(""), w, &stderr)
		w.Close()
	}()
	t.Cleanup(func() {
		cancel()
		if code := <-ended; code != 0 {
			t.Errorf("bench backend %s: %d %s", args, code, &stderr)
		}
	})
	var address string
	if _, err := fmt.Fscanf(r, "ready on %s\n", &address); err != nil {
		t.Fatalf("bench backend %s: %v", args, err)
	}
	return address
}

func benchCredentials(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte("alice@example.test secret-a ida\nbob@example.test secret-b idb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Every run, for a few operations, straight against the backends.
func TestBench(t *testing.T) {
	t.Parallel()
	mail, dav := benchBackendAt(t, "imap", "127.0.0.1:0"), benchBackendAt(t, "dav", "127.0.0.1:0")
	submission := benchBackendAt(t, "submission", "127.0.0.1:0", "--quick-ack")
	file := benchCredentials(t)
	for name, tt := range map[string]struct {
		args []string
		want func(*bench.Result) bool
	}{
		"login":       {[]string{"login", mail}, nil},
		"login plain": {[]string{"login", mail, "--mechanism", "plain", "--quick-ack", "--sources", "3"}, nil},
		"noop":        {[]string{"noop", mail}, nil},
		"fetch": {[]string{"fetch", mail, "--message", "1"}, func(r *bench.Result) bool {
			return r.Received > 20*64<<10 && r.Received < 20*(64<<10+200) && r.MBPerSecond > 0
		}},
		"idle": {[]string{"idle", mail, "--settle", "0s"}, func(r *bench.Result) bool {
			return r.Descriptors > 1.5 // both ends are this process's; other tests have some too
		}},
		"send":               {[]string{"send", submission}, func(r *bench.Result) bool { return r.Sent >= 20*16<<10 && r.Sent < 20*(16<<10+100) }},
		"send several":       {[]string{"send", submission, "--messages", "5", "--quick-ack", "--sources", "2"}, nil},
		"send photos":        {[]string{"send", submission, "--messages", "10", "--size", "6MiB"}, func(r *bench.Result) bool { return r.Sent >= 120<<20 && r.MBPerSecond > 0 }},
		"PROPFIND":           {[]string{"dav", dav, "--path", "/{address}/work/", "--depth", "1"}, func(r *bench.Result) bool { return r.Received > 20*1000 }},
		"PROPFIND reconnect": {[]string{"dav", dav, "--path", "/{id}/work/", "--reconnect"}, nil},
		"GET":                {[]string{"dav", dav, "--path", "/{id}/work/4096.ics", "--method", "GET"}, func(r *bench.Result) bool { return r.Received == 20*4096 }},
		"PUT":                {[]string{"dav", dav, "--path", "/{id}/work/1.ics", "--method", "PUT"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"bench"}, tt.args...)
			args = append(args, "--credentials", file, "--count", "20", "--concurrency", "2", "--pid", strconv.Itoa(os.Getpid()), "--json")
			code, stdout, stderr := run(t, "", args...)
			if code != 0 || strings.Count(stdout, "\n") != 1 {
				t.Fatalf("%d %q %q", code, stdout, stderr)
			}
			var r bench.Result
			if err := json.Unmarshal([]byte(stdout), &r); err != nil {
				t.Fatal(err)
			}
			if r.Operations != 20 || r.Failed != 0 || tt.want != nil && !tt.want(&r) {
				t.Errorf("got %s", stdout)
			}
		})
	}
}

// A server that takes wrong passwords is nothing to measure a storm at.
func TestBenchStorm(t *testing.T) {
	t.Parallel()
	mail := benchBackendAt(t, "imap", "127.0.0.1:0")
	code, stdout, stderr := run(t, "", "bench", "storm", mail, "--credentials", benchCredentials(t), "--attackers", "2", "--count", "4", "--duration", "1s")
	if code != 1 || !strings.Contains(stderr, "the target takes a wrong password") {
		t.Errorf("%d %q %q", code, stdout, stderr)
	}
}

func TestBenchAuthBackend(t *testing.T) {
	t.Parallel()
	auth := benchBackendAt(t, "auth", "127.0.0.1:0", "--credentials", benchCredentials(t))
	for name, tt := range map[string]struct {
		line string
		code int
	}{
		"right": {"alice@example.test secret-a", 0},
		"wrong": {"alice@example.test secret-b", 1},
		"other": {"eve@example.test secret-a", 1},
	} {
		file := filepath.Join(t.TempDir(), "credentials")
		os.WriteFile(file, []byte(tt.line+"\n"), 0o600)
		code, stdout, stderr := run(t, "", "bench", "dav", auth, "--path", "/http", "--method", "GET", "--credentials", file, "--count", "2", "--concurrency", "1")
		if code != tt.code || code == 1 && !strings.Contains(stderr, "401 Unauthorized") {
			t.Errorf("%s: %d %q %q, want %d", name, code, stdout, stderr, tt.code)
		}
	}
}

func TestBenchRefuses(t *testing.T) {
	t.Parallel()
	file := benchCredentials(t)
	for name, tt := range map[string]struct {
		args []string
		code int
		want string
	}{
		"a target elsewhere":     {[]string{"login", "192.0.2.1:993", "--credentials", file}, 2, "--any-target, if its owner agrees"},
		"a name elsewhere":       {[]string{"dav", "mail.example.test:443", "--path", "/", "--credentials", file}, 2, "is not on loopback"},
		"no credentials":         {[]string{"login", "127.0.0.1:1"}, 2, `required flag(s) "credentials"`},
		"no port":                {[]string{"login", "127.0.0.1", "--credentials", file}, 2, "write host:port"},
		"nobody there":           {[]string{"login", "127.0.0.1:1", "--credentials", file}, 1, "connection refused"},
		"no bound":               {[]string{"login", "127.0.0.1:1", "--credentials", file, "--count", "0"}, 2, "0 operations"},
		"an hour and more":       {[]string{"login", "127.0.0.1:1", "--credentials", file, "--duration", "2h"}, 2, "at most 1h"},
		"a strange TLS":          {[]string{"login", "127.0.0.1:1", "--credentials", file, "--tls", "yes"}, 2, `"implicit" or "starttls"`},
		"a strange mechanism":    {[]string{"login", "127.0.0.1:1", "--credentials", file, "--mechanism", "cram"}, 2, `"login" or "plain"`},
		"h2 without TLS":         {[]string{"dav", "127.0.0.1:1", "--path", "/", "--http", "2", "--credentials", file}, 1, "over TLS only"},
		"no such process":        {[]string{"noop", benchBackendAt(t, "imap", "127.0.0.1:0"), "--credentials", file, "--pid", "999999999"}, 1, "there is no process 999999999"},
		"a strange size":         {[]string{"send", "127.0.0.1:1", "--credentials", file, "--size", "4MB"}, 2, `"4MB" is not a size`},
		"a giant":                {[]string{"send", "127.0.0.1:1", "--credentials", file, "--size", "1GiB"}, 1, "messages of 1073741824 bytes"},
		"too few messages":       {[]string{"send", "127.0.0.1:1", "--credentials", file, "--count", "20", "--messages", "20"}, 1, "fewer connections than are wanted at a time (16)"},
		"no submission server":   {[]string{"send", benchBackendAt(t, "imap", "127.0.0.1:0"), "--credentials", file}, 1, `greeting: the server answered "* OK`},
		"a storm elsewhere":      {[]string{"storm", "192.0.2.1:143", "--any-target", "--credentials", file}, 2, "their target must be there too"},
		"a backend for everyone": {[]string{"backend", "imap", "0.0.0.0:0"}, 2, "take every login"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := run(t, "", append([]string{"bench"}, tt.args...)...)
			if code != tt.code || !strings.Contains(stderr, tt.want) || stdout != "" {
				t.Errorf("exit code %d, %q, %q; want %d with %q", code, stdout, stderr, tt.code, tt.want)
			}
		})
	}
}

// A run that is interrupted ends at once.
func TestBenchInterrupted(t *testing.T) {
	t.Parallel()
	mail := benchBackendAt(t, "imap", "127.0.0.1:0")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var out, errs bytes.Buffer
	code := Run(ctx, []string{"bench", "noop", mail, "--credentials", benchCredentials(t), "--count", "10000000", "--duration", "1h"}, strings.NewReader(""), &out, &errs)
	if code != 1 || out.Len() > 0 {
		t.Errorf("%d %q %q", code, &out, &errs)
	}
}
