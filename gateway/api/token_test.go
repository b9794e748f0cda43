package api_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/apitoken"
	"postern/authstore/secret"
)

// samples fill the paths of the document.
var samples = strings.NewReplacer("{account}", "alice@example.test", "{alias}", "al@example.test", "{backend}", "dovecot", "{domain}", "example.test", "{id}", "1", "{provider}", "idp")

// fingerprint is all that a request could have changed.
func (l *lab) fingerprint() string {
	l.t.Helper()
	accounts, err := l.desk.List(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	events, err := l.desk.Events(l.t.Context(), authstore.EventQuery{Limit: 5})
	if err != nil {
		l.t.Fatal(err)
	}
	return fmt.Sprint(accounts, events)
}

// Without a token, and with one that lacks the scope, no operation answers anything or does anything.
func TestNobodyPassesWithoutTheScope(t *testing.T) {
	t.Parallel()
	l := newLab(t, "")
	l.document()
	all := l.token(apitoken.Everything)
	l.must(201, request{method: "POST", path: "/accounts", body: m{"address": "alice@example.test"}, token: all})
	l.must(201, request{method: "POST", path: "/accounts/alice@example.test/passwords", body: m{"label": "x", "for": "mail"}, token: all})
	for path, item := range l.spec.Paths.Map() {
		for method, op := range item.Operations() {
			needed := (*op.Security)[0]["token"]
			var others []apitoken.Scope
			for _, s := range apitoken.Scopes {
				if s.Scope != apitoken.Everything && (len(needed) == 0 || string(s.Scope) != needed[0]) {
					others = append(others, s.Scope)
				}
			}
			path := samples.Replace(path)
			r := l.must(401, request{method: method, path: path, body: m{}})
			if !strings.HasPrefix(r.header.Get("WWW-Authenticate"), "Bearer ") {
				t.Errorf("%s %s: WWW-Authenticate %q", method, path, r.header.Get("WWW-Authenticate"))
			}
			if len(needed) == 0 {
				continue
			}
			lacks := l.token(others...)
			before := l.fingerprint() // the token's making is history
			r = l.must(403, request{method: method, path: path, body: m{}, token: lacks})
			if !strings.Contains(r.get("detail"), needed[0]) || !strings.Contains(r.header.Get("WWW-Authenticate"), `scope="`+needed[0]+`"`) {
				t.Errorf("%s %s: %s, %q", method, path, r.text, r.header.Get("WWW-Authenticate"))
			}
			if l.fingerprint() != before {
				t.Errorf("%s %s changed something", method, path)
			}
		}
	}
	if r := l.send(request{method: "GET", path: "/nowhere", token: all}); r.status != 404 || r.get("title") != "Not Found" {
		t.Errorf("nowhere: %d %s", r.status, r.text)
	}
	if r := l.send(request{method: "PUT", path: "/accounts", token: all}); r.status != 405 || r.header.Get("Allow") != "GET, HEAD, POST" {
		t.Errorf("another method: %d %v", r.status, r.header)
	}
	for _, path := range []string{"/nowhere", "", "/accounts/../keys", "//accounts"} {
		if r := l.send(request{method: "GET", path: path}); r.status != 401 {
			t.Errorf("%q without a token: %d", path, r.status)
		}
		if r := l.send(request{method: "GET", path: path, token: all}); r.status != 404 {
			t.Errorf("%q: %d", path, r.status)
		}
	}
}

// A token that is revoked is dead with the next request, and so is one whose time is over.
func TestTokensEnd(t *testing.T) {
	t.Parallel()
	l := newLab(t, "")
	l.document()
	health := request{method: "GET", path: "/health"}
	health.token = l.token(apitoken.EventsRead)
	l.must(200, health)
	list, err := l.desk.Tokens(t.Context())
	if err != nil || len(list) != 1 || list[0].LastUsed.IsZero() || time.Since(list[0].LastUsed) > time.Minute {
		t.Errorf("used: %+v, %v", list, err)
	}
	if err := l.desk.RevokeToken(t.Context(), authstore.Actor{Name: "test"}, list[0].Name); err != nil {
		t.Fatal(err)
	}
	if r := l.must(401, health); r.header.Get("WWW-Authenticate") != `Bearer realm="postern", error="invalid_token"` {
		t.Errorf("revoked: %v", r.header)
	}
	_, made, err := l.desk.CreateToken(t.Context(), authstore.Actor{Name: "test"}, "short", []apitoken.Scope{apitoken.Everything}, time.Now().Add(-time.Second))
	if err != nil {
		t.Fatal(err)
	}
	health.token = made.Reveal()
	l.must(401, health)
	l.log.mu.Lock()
	defer l.log.mu.Unlock()
	if text := l.log.b.String(); strings.Contains(text, made.Reveal()) || !strings.Contains(text, "msg=api") {
		t.Errorf("the log:\n%s", text)
	}
}

// Who guesses is slowed down, and his neighbour with a good token is not.
func TestGuessing(t *testing.T) {
	t.Parallel()
	l := newLab(t, "")
	l.document()
	good := request{method: "GET", path: "/health", token: l.token(apitoken.KeysRead)}
	l.must(200, good)
	fresh := request{method: "GET", path: "/health", token: l.token(apitoken.KeysRead)} // as each is after a start
	slowed := 0
	for i := range 200 {
		wrong := secret.NewToken()
		text := wrong.Reveal()
		if i%2 == 0 {
			text = "hunter2"
		}
		switch r := l.ask(request{method: "GET", path: "/health", token: text}); r.status {
		case 401:
		case 429:
			slowed++
			if r.header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
		default:
			t.Fatalf("a wrong token: %d %s", r.status, r.text)
		}
	}
	if slowed < 100 {
		t.Errorf("%d of 200 guesses were slowed down", slowed)
	}
	l.must(200, good)
	l.must(200, fresh)
	if strings.Contains(l.log.String(), "hunter2") {
		t.Error("a wrong token stands in the log")
	}
}

// What is no bearer token is refused, a cookie is nobody, and nothing is said to other sites.
func TestAuthorizationHeader(t *testing.T) {
	t.Parallel()
	l := newLab(t, "")
	token := l.token(apitoken.Everything)
	for name, header := range map[string][]string{
		"basic": {"Authorization", "Basic " + token}, "bare": {"Authorization", token}, "a cookie": {"Cookie", "__Host-session=" + token, "Authorization", ""},
		"in another place": {"X-Token", token}, "preflight": {"Origin", "https://evil.example", "Access-Control-Request-Method", "POST"},
	} {
		r := l.send(request{method: "GET", path: "/accounts", header: header})
		if r.status != 401 || r.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %d %v", name, r.status, r.header)
		}
	}
	if r := l.send(request{method: "GET", path: "/accounts?access_token=" + token}); r.status != 401 {
		t.Errorf("in the URL: %d", r.status)
	}
	if r := l.send(request{method: "GET", path: "/accounts", header: []string{"Authorization", "bEARER  " + token}}); r.status != 200 || r.header.Get("Cache-Control") != "no-store" {
		t.Errorf("in other letters: %d %s", r.status, r.text)
	}
	if r := l.send(request{method: "OPTIONS", path: "/accounts", header: []string{"Origin", "https://evil.example"}}); r.status != 401 {
		t.Errorf("OPTIONS: %d", r.status)
	}
}

// Somebody who may write accounts can't become an administrator by it.
func TestAdministratorsAreSpared(t *testing.T) {
	t.Parallel()
	l := newLab(t, "")
	l.document()
	all, plain := l.token(apitoken.Everything), l.token(apitoken.AccountsWrite, apitoken.InvitationsWrite)
	const alice = "/accounts/alice@example.test"
	l.must(201, request{method: "POST", path: "/accounts", body: m{"address": "alice@example.test"}, token: all})
	try := func(status int, token string) {
		t.Helper()
		l.must(status, request{method: "POST", path: alice + "/invitation", token: token})
		if status == 403 {
			l.must(403, request{method: "POST", path: alice + "/factors/reset", token: token})
		}
		l.must(status, request{method: "POST", path: alice + "/aliases", body: m{"alias": fmt.Sprintf("a%d@example.test", status)}, token: token})
		l.must(status, request{method: "PUT", path: alice + "/backend-name", body: m{"backend_name": "eve"}, token: token})
		l.must(status, request{method: "POST", path: alice + "/ties", body: m{"issuer": fmt.Sprint("i", status), "subject": "eve"}, token: token})
	}
	l.must(200, request{method: "PUT", path: alice + "/administrator", body: m{"administrator": true}, token: all})
	try(403, plain)
	list := m{"accounts": []m{{"address": "alice@example.test", "issuer": "x", "subject": "eve"}}}
	if r := l.must(200, request{method: "POST", path: "/import", body: list, token: plain}); r.get("wrong") != "1" || r.get("done") != "false" || !strings.Contains(r.get("lines.0.error"), "admins:write") {
		t.Errorf("an import: %s", r.text)
	}
	if r := l.must(200, request{method: "POST", path: "/import", body: list, token: all}); r.get("changed") != "1" || r.get("done") != "true" {
		t.Errorf("an import by who may: %s", r.text)
	}
	l.must(200, request{method: "PUT", path: alice + "/administrator", body: m{"administrator": false}, token: all})
	r := l.must(201, request{method: "POST", path: alice + "/invitation", token: plain})
	if !strings.HasPrefix(r.get("link"), "https://") {
		t.Errorf("invited: %s", r.text)
	}
}

// A request that is sent many times at once makes one app password.
func TestIdempotency(t *testing.T) {
	t.Parallel()
	l := newLab(t, "")
	l.document()
	all, other := l.token(apitoken.Everything), l.token(apitoken.PasswordsWrite)
	l.must(201, request{method: "POST", path: "/accounts", body: m{"address": "alice@example.test"}, token: all})
	create := request{method: "POST", path: "/accounts/alice@example.test/passwords", body: m{"label": "x", "for": "mail"}, token: all, header: []string{"Idempotency-Key", "k"}}
	made := make(chan int, 8)
	var senders sync.WaitGroup
	for range cap(made) {
		senders.Go(func() { made <- l.send(create).status })
	}
	senders.Wait()
	close(made)
	counts := make(map[int]int)
	for status := range made {
		counts[status]++
	}
	if counts[201] != 1 || counts[409] != 7 {
		t.Errorf("answers %v, want one 201 and seven 409", counts)
	}
	create.token = other // whose keys are his own
	l.must(201, create)
	create.header = nil
	for range 23 {
		l.must(201, create)
	}
	if r := l.must(409, create); !strings.Contains(r.get("detail"), "25 active app passwords") {
		t.Errorf("the 26th: %s", r.text)
	}
}

// The document is read by everybody, all else by nobody.
func TestBounds(t *testing.T) {
	t.Parallel()
	l := newLab(t, "")
	l.document()
	all := l.token(apitoken.Everything)
	long := strings.Repeat("x", 70<<10)
	for name, tt := range map[string]struct {
		status int
		q      request
	}{
		"a large body":        {413, request{method: "POST", path: "/accounts", body: m{"address": long}}},
		"no JSON":             {400, request{method: "POST", path: "/accounts", body: `{"address": `}},
		"no body":             {400, request{method: "POST", path: "/accounts"}},
		"another type":        {415, request{method: "POST", path: "/accounts", body: "address=x", header: []string{"Content-Type", "application/x-www-form-urlencoded"}}},
		"other letters":       {422, request{method: "POST", path: "/accounts", body: m{"Address": "alice@example.test"}}},
		"an unknown field":    {422, request{method: "POST", path: "/accounts", body: m{"address": "alice@example.test", "admin": true}}},
		"an unknown query":    {422, request{method: "GET", path: "/accounts?page=2"}},
		"too large a page":    {422, request{method: "GET", path: "/accounts?limit=1001"}},
		"a list":              {422, request{method: "POST", path: "/accounts", body: `[]`}},
		"deep nesting":        {400, request{method: "POST", path: "/accounts", body: strings.Repeat("[", 20000)}},
		"a number for a word": {422, request{method: "POST", path: "/accounts", body: `{"address": 1e400}`}},
	} {
		tt.q.token = all
		r := l.ask(tt.q)
		if r.status != tt.status && !(name == "a number for a word" && r.status == 400) {
			t.Errorf("%s: %d, want %d: %.300s", name, r.status, tt.status, r.text)
		}
		if strings.Contains(r.text, "xxxx") || len(r.text) > 8<<10 {
			t.Errorf("%s: the answer says what was sent: %.300s", name, r.text)
		}
	}
}
