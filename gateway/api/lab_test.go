package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"postern/authstore"
	"postern/authstore/apitoken"
	"postern/config"
	"postern/gateway"
	"postern/gateway/api"
)

// lab is a gateway that serves the API on a Unix socket, and the store behind it.
type lab struct {
	t      *testing.T
	desk   *gateway.Desk
	client *http.Client
	log    *bytesBuffer
	socket string
	router routers.Router // of the document that it serves
	spec   *openapi3.T
}

// bytesBuffer is a log that a test may read while it is written.
type bytesBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *bytesBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *bytesBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// newLab starts a gateway. dav is the address of a CalDAV server that trusts us; empty: one where nobody answers. changes are pairs of old
// and new text of the configuration.
func newLab(t *testing.T, dav string, changes ...string) *lab {
	t.Helper()
	dir, err := os.MkdirTemp("", "api") // a socket's path has little room
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if dav == "" {
		dav = "127.0.0.1:1"
	}
	l := &lab{t: t, log: &bytesBuffer{}, socket: filepath.Join(dir, "ops.sock")}
	text := fmt.Sprintf(`hostname = "mail.example.test"
listener = [
  { protocol = "imap", address = "127.0.0.1:0", tls = "none" },
  { protocol = "portal", address = "[::1]:0", tls = "none" },
]
store = { database = %q, key_file = %q, ballast = "0" }
operations = { address = "unix:%s" }
portal = { url = "https://passwords.example.test" }
[[backend]]
name = "dovecot"
protocol = "imap"
address = "127.0.0.1:1"
tls = "none"
credential = "stored"
[[backend]]
name = "radicale"
protocol = "dav"
address = %q
tls = "none"
credential = "header"
[[policy]]
domains = ["strict.example.test"]
must_expire = true
`, filepath.Join(dir, "postern.db"), filepath.Join(dir, "root.key"), l.socket, dav)
	cfg, err := config.Parse("postern.toml", []byte(strings.NewReplacer(changes...).Replace(text)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gateway.Init(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(l.log, nil))
	g, err := gateway.New(t.Context(), cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	if l.desk, err = gateway.OpenDesk(t.Context(), cfg, authstore.Actor{Name: "test"}, log); err != nil {
		t.Fatal(err)
	}
	l.client = &http.Client{Timeout: 5 * time.Minute, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.socket)
	}}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(func() {
		l.client.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the gateway ended: %v", err)
		}
		l.desk.Close()
	})
	return l
}

// token makes one with some scopes.
func (l *lab) token(scopes ...apitoken.Scope) string {
	l.t.Helper()
	list, err := l.desk.Tokens(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	_, made, err := l.desk.CreateToken(l.t.Context(), authstore.Actor{Name: "test"}, fmt.Sprintf("token%d", len(list)), scopes, time.Time{})
	if err != nil {
		l.t.Fatal(err)
	}
	return made.Reveal()
}

// request is what is asked for.
type request struct {
	method, path string
	body         any // string: as it is; else as JSON; nil: none
	token        string
	header       []string // pairs
}

// reply is an answer that was held against the document.
type reply struct {
	status int
	header http.Header
	text   string
}

// Get reads a field of the answer, by its path such as "accounts.0.names.1".
func (r reply) get(path string) string {
	var v any
	if json.Unmarshal([]byte(r.text), &v) != nil {
		return ""
	}
	for part := range strings.SplitSeq(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[part]
		case []any:
			var n int
			if _, err := fmt.Sscan(part, &n); err != nil || n >= len(at) {
				return ""
			}
			v = at[n]
		default:
			return ""
		}
	}
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// document reads the served document with a validator that is not what made it.
func (l *lab) document() {
	l.t.Helper()
	if l.router != nil {
		return
	}
	r := l.send(request{method: "GET", path: "/openapi.json"})
	loader := openapi3.NewLoader()
	var err error
	if l.spec, err = loader.LoadFromData([]byte(r.text)); err != nil {
		l.t.Fatal(err)
	}
	if err := l.spec.Validate(loader.Context); err != nil {
		l.t.Fatalf("the document is not one: %v", err)
	}
	l.spec.Servers = openapi3.Servers{{URL: "http://api" + api.Prefix}}
	if l.router, err = gorillamux.NewRouter(l.spec); err != nil {
		l.t.Fatal(err)
	}
}

// send asks, and holds nothing against anything.
func (l *lab) send(q request) reply {
	l.t.Helper()
	r, _ := l.sent(q)
	return r
}

func (l *lab) sent(q request) (reply, *http.Request) {
	l.t.Helper()
	var body io.Reader
	kind := ""
	switch b := q.body.(type) {
	case nil:
	case string:
		body, kind = strings.NewReader(b), "application/json"
	default:
		text, err := json.Marshal(b)
		if err != nil {
			l.t.Fatal(err)
		}
		body, kind = bytes.NewReader(text), "application/json"
	}
	r, err := http.NewRequestWithContext(l.t.Context(), q.method, "http://api"+api.Prefix+q.path, body)
	if err != nil {
		l.t.Fatalf("%s %s: %v", q.method, q.path, err)
	}
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	if q.token != "" {
		r.Header.Set("Authorization", "Bearer "+q.token)
	}
	for pair := range slices.Chunk(q.header, 2) {
		r.Header.Set(pair[0], pair[1])
	}
	resp, err := l.client.Do(r)
	if err != nil {
		l.t.Fatalf("%s %s: %v", q.method, q.path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatalf("%s %s: %v", q.method, q.path, err)
	}
	return reply{resp.StatusCode, resp.Header, string(text)}, r
}

// ask sends a request and holds the answer against the document, in which its path has to be.
func (l *lab) ask(q request) reply {
	l.t.Helper()
	l.document()
	r, sent := l.sent(q)
	if err := l.fits(sent, r); err != nil {
		l.t.Errorf("%s %s: the answer %d does not fit the document: %v\n%.2000s", q.method, q.path, r.status, err, r.text)
	}
	return r
}

// fits holds an answer against the document.
func (l *lab) fits(sent *http.Request, r reply) error {
	route, params, err := l.router.FindRoute(sent)
	if err != nil {
		return err
	}
	return openapi3filter.ValidateResponse(sent.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: sent, PathParams: params, Route: route},
		Status:                 r.status, Header: r.header, Body: io.NopCloser(strings.NewReader(r.text)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	})
}

// must asks and wants a status.
func (l *lab) must(status int, q request) reply {
	l.t.Helper()
	r := l.ask(q)
	if r.status != status {
		l.t.Fatalf("%s %s: %d, want %d\n%.2000s", q.method, q.path, r.status, status, r.text)
	}
	return r
}
