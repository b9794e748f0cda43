package davproxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"postern/authstore"
	"postern/gateway/live"
	"postern/protocols"
)

// willing lets everybody in as alice.
type willing struct{}

func (willing) Verify(_ context.Context, a authstore.Attempt) (authstore.Grant, error) {
	return authstore.Grant{Account: 1, PublicID: "alicepubid", Address: a.Login, Password: 1, Scopes: authstore.ScopeCalendar, Client: a.Client}, nil
}
func (willing) Confirm(context.Context, authstore.Grant) error { return nil }
func (willing) Named(authstore.Grant, authstore.Use)           {}
func (willing) Used(authstore.Grant, authstore.Use)            {}

// fixed leads everybody to one backend.
type fixed struct{ to protocols.Route }

func (f *fixed) Route(_ context.Context, _ string, g authstore.Grant) (*protocols.Route, error) {
	r := f.to
	r.Login, r.Path = g.Address, "/"+g.Address+"/"
	return &r, nil
}

// BenchmarkRequest is all that a PROPFIND costs from net/http's server to a backend and back, with what the system takes to carry it there.
// The backend answers at once, and allocates nothing.
func BenchmarkRequest(b *testing.B) {
	const question = `<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop><resourcetype/><displayname/><sync-token/></prop></propfind>`
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	body := strings.ReplaceAll(depth0, "\n", "")
	answer := fmt.Sprintf("HTTP/1.1 207 Multi-Status\r\nContent-Type: application/xml; charset=utf-8\r\nDate: Thu, 26 Nov 2026 11:00:00 GMT\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	go func() {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		for r := bufio.NewReader(nc); ; {
			part, err := r.ReadSlice('>')
			if err != nil {
				return
			}
			if bytes.HasSuffix(part, []byte("</propfind>")) {
				io.WriteString(nc, answer)
			}
		}
	}()
	s := New(Options{Verifier: willing{}, Sessions: &live.Registry{}, Observer: silent{}, Router: &fixed{protocols.Route{Backend: "bench", Network: "tcp", Address: ln.Addr().String(), Header: "X-Remote-User"}}})
	c := &conn{id: "bench", server: s, slot: s.o.Limits.Enter(func() {}), logins: make(map[loginKey]*loginState)}
	ctx := context.WithValue(context.Background(), http.ServerContextKey, &http.Server{WriteTimeout: stallTime})
	r, err := http.NewRequest("PROPFIND", "https://dav.example.test/dav/cal/alicepubid/work/", nil)
	if err != nil {
		b.Fatal(err)
	}
	r.RequestURI, r.RemoteAddr = r.URL.Path, "192.0.2.1:1234"
	r.SetBasicAuth("alice@example.test", "abcd-efgh-ijkl-mnop")
	for name, value := range map[string]string{"Content-Type": xmlType, "Depth": "0", "User-Agent": "bench", "Accept": "*/*"} {
		r.Header.Set(name, value)
	}
	r.ContentLength = int64(len(question))
	s.kinds.put(kindKey{"bench", "alice@example.test", "/alice@x/work/"}, calendar, time.Hour)
	home := []string{"alice@x"}
	s.homes.put(homeKey{calendar, "bench", ln.Addr().String(), "alice@example.test", "/alice@example.test/"}, homePaths{principal: home, home: home}, time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		ctx, cancel := context.WithCancel(ctx)
		r := r.WithContext(ctx)
		r.Body = io.NopCloser(strings.NewReader(question))
		w := &sink{h: make(http.Header)}
		s.handle(c, w, r)
		cancel()
		if w.status != http.StatusMultiStatus {
			b.Fatalf("status %d", w.status)
		}
	}
}

// sink is a client that takes everything.
type sink struct {
	h      http.Header
	status int
}

func (s *sink) Header() http.Header              { return s.h }
func (s *sink) WriteHeader(status int)           { s.status = status }
func (s *sink) Write(b []byte) (int, error)      { return len(b), nil }
func (s *sink) SetReadDeadline(time.Time) error  { return nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }
