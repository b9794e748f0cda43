package davproxy_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"postern/authstore"
	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/davproxy"
)

// tokenDAV is a Radicale behind a server that takes tokens of a token server and nothing else, and a giver of such tokens that has a new one when the
// last one was refused.
type tokenDAV struct {
	*testlab.TokenServer
	address string
	behind  *testlab.DAVServer

	mu      sync.Mutex // guards what follows
	kept    string
	refused int
	down    error
}

func newTokenDAV(t *testing.T) *tokenDAV {
	b := &tokenDAV{TokenServer: testlab.NewTokenServer(t), behind: testlab.Radicale(t)}
	to, err := url.Parse(b.behind.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		user := b.Valid(token)
		if user == "" {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.Header.Set("X-Remote-User", user)
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	b.address = strings.TrimPrefix(front.URL, "http://")
	return b
}

func (b *tokenDAV) route(g authstore.Grant) *protocols.Route {
	return &protocols.Route{Backend: "lab", Network: "tcp", Address: b.address, Path: b.behind.Principal(g.Address), Login: g.Address, Bearer: true,
		Open: func(context.Context) (protocols.Credential, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.down != nil {
				return protocols.Credential{}, b.down
			}
			if b.kept == "" {
				b.kept = b.Issue(g.Address)
			}
			given := b.kept
			return protocols.Credential{Authcid: g.Address, Password: []byte(given), Refused: func() {
				b.mu.Lock()
				defer b.mu.Unlock()
				if b.refused++; b.kept == given {
					b.kept = ""
				}
			}}, nil
		}}
}

func (b *tokenDAV) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = err
}

func (b *tokenDAV) told() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refused
}

// An app reaches its calendars by a token, also a long one. A refused token, and one that is not to be had, are "later" to the app.
func TestTokens(t *testing.T) {
	t.Parallel()
	b := newTokenDAV(t)
	b.Padding = 6 << 10
	d := open(t, routes{"calendar": b.route, "contacts": b.route})
	event := "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//lab//EN\r\nBEGIN:VEVENT\r\nUID:token\r\nDTSTAMP:20261126T080000Z\r\nDTSTART:20261126T080000Z\r\nSUMMARY:x\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
	d.want(http.StatusCreated, "both", "MKCALENDAR", cal+"tokens/", makeCal)
	d.want(http.StatusCreated, "both", "PUT", cal+"tokens/token.ics", event)
	if got := d.want(http.StatusOK, "both", "GET", cal+"tokens/token.ics", ""); !strings.Contains(got.text, "SUMMARY:x") {
		t.Errorf("GET: %q", got.text)
	}
	if n := b.told(); n != 0 {
		t.Fatalf("%d good tokens were refused", n)
	}
	b.Expire("")
	a := d.want(http.StatusServiceUnavailable, "both", "GET", cal+"tokens/token.ics", "")
	if a.Header.Get("Retry-After") == "" || a.Header.Get("WWW-Authenticate") != "" {
		t.Errorf("a refused token: %v", a.Header)
	}
	if n := b.told(); n != 1 {
		t.Errorf("told of %d refusals, want 1", n)
	}
	d.want(http.StatusOK, "both", "GET", cal+"tokens/token.ics", "") // by another token
	b.Expire("")
	if err := davproxy.Probe(t.Context(), b.route(authstore.Grant{Address: testlab.Alice})); err == nil || !strings.Contains(err.Error(), "connect the account again") {
		t.Errorf("Probe: %v", err)
	}
	if n := b.told(); n != 2 {
		t.Errorf("told of %d refusals, want 2: Probe's as well", n)
	}
	if err := davproxy.Probe(t.Context(), b.route(authstore.Grant{Address: testlab.Alice})); err != nil {
		t.Errorf("Probe by another token: %v", err)
	}
	b.fail(errors.New("the provider is down"))
	a = d.want(http.StatusServiceUnavailable, "both", "GET", cal+"tokens/token.ics", "")
	if a.Header.Get("Retry-After") == "" {
		t.Errorf("the provider is down: %v", a.Header)
	}
	if n := b.told(); n != 2 {
		t.Errorf("told of %d refusals, want 2", n)
	}
}
