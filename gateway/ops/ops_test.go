package ops

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"postern/authstore"
	"postern/protocols"
)

func TestOutcome(t *testing.T) {
	for want, err := range map[string]error{
		"ok":       nil,
		"wrong":    &authstore.Refusal{Code: authstore.Wrong, Cause: errors.New("x")},
		"backend":  errors.New("connection refused"),
		"authzid":  protocols.ErrAuthzid,
		"too_many": protocols.ErrTooMany,
		"gone":     fmt.Errorf("log in to backend dovecot: %w", protocols.ErrClientGone),
	} {
		if got := Outcome(err); got != want {
			t.Errorf("Outcome(%v) = %q, want %q", err, got, want)
		}
	}
}

func TestPages(t *testing.T) {
	m := NewMetrics(Gauges{Sessions: func() int { return 3 }, FeedLag: func() time.Duration { return 250 * time.Millisecond }})
	m.Login(protocols.LoginEvent{Facts: protocols.Facts{Protocol: "imap"}})
	m.Login(protocols.LoginEvent{Facts: protocols.Facts{Protocol: "imap"}, Err: &authstore.Refusal{Code: authstore.Wrong}})
	m.Ended(protocols.EndEvent{Facts: protocols.Facts{Protocol: "imap"}, Up: 10, Down: 20})
	m.Backend("dovecot", "login", time.Millisecond, nil)
	m.Verify("l1", time.Microsecond)
	m.Panic("imap")
	var notReady error
	h := (&Server{Metrics: m, Ready: func() error { return notReady }}).Handler()

	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Code, w.Body.String()
	}
	if code, body := get("/readyz"); code != 200 {
		t.Errorf("/readyz = %d %q", code, body)
	}
	notReady = errors.New("the database does not answer")
	if code, body := get("/readyz"); code != 503 || !strings.Contains(body, "the database does not answer") {
		t.Errorf("/readyz while not ready = %d %q", code, body)
	}
	if code, _ := get("/healthz"); code != 200 {
		t.Errorf("/healthz = %d while not ready; want 200", code)
	}
	_, metrics := get("/metrics")
	for _, want := range []string{
		`postern_logins_total{outcome="ok",protocol="imap"} 1`,
		`postern_logins_total{outcome="wrong",protocol="imap"} 1`,
		`postern_relayed_bytes_total{direction="down",protocol="imap"} 20`,
		`postern_sessions 3`,
		`postern_feed_lag_seconds 0.25`,
		`postern_backend_seconds_count{backend="dovecot",outcome="ok",step="login"} 1`,
		`postern_verify_seconds_count{layer="l1"} 1`,
		`postern_panics_total{protocol="imap"} 1`,
	} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	if code, _ := get("/debug/pprof/goroutine?debug=1"); code != 200 {
		t.Errorf("a profile = %d", code)
	}
	if code, _ := get("/debug/pprof/cmdline"); code != 404 {
		t.Errorf("/debug/pprof/cmdline = %d, want 404", code)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	s := &Server{Metrics: NewMetrics(Gauges{Sessions: func() int { return 0 }, FeedLag: func() time.Duration { return 0 }}), Ready: func() error { return nil }}
	go func() { done <- s.Serve(ctx, ln) }()
	r, err := http.Get("http://" + ln.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, r.Body)
	r.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve = %v", err)
	}
}
