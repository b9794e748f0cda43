package api_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"runtime"
	"strings"
	"testing"

	"postern/authstore/apitoken"
)

// An import by the API is what it is on the command line.
func TestImports(t *testing.T) {
	t.Parallel()
	l := newLab(t, "")
	l.document()
	token := l.token(apitoken.AccountsWrite, apitoken.AccountsRead)
	list := m{"accounts": []m{{"address": "alice@example.test", "aliases": []string{"al@example.test"}, "issuer": "ldap", "subject": "1"}, {"address": "bob@example.test"}}, "dry_run": true}
	if r := l.must(200, request{method: "POST", path: "/import", body: list, token: token}); r.get("added") != "2" || r.get("done") != "false" || r.get("lines.0.where") != "accounts[0]" ||
		r.get("lines.0.changes.1") != "tie to ldap" {
		t.Errorf("a dry run: %s", r.text)
	}
	l.must(404, request{method: "GET", path: "/accounts/alice@example.test", token: token})
	list["dry_run"] = false
	for _, want := range []string{"added", "unchanged"} {
		if r := l.must(200, request{method: "POST", path: "/import", body: list, token: token}); r.get(want) != "2" || r.get("done") != "true" {
			t.Errorf("want %s: %s", want, r.text)
		}
	}
	csv := request{method: "POST", path: "/import/csv", body: "\ufeffaddress;aliases\r\nbob@example.test;rob@example.test\r\nnonsense;\r\n", token: token, header: []string{"Content-Type", "text/csv"}}
	if r := l.must(200, csv); r.get("done") != "false" || r.get("wrong") != "1" || r.get("lines.0.where") != "line 3" {
		t.Errorf("with a wrong line: %s", r.text)
	}
	csv.path += "?skip_wrong=true"
	if r := l.must(200, csv); r.get("done") != "true" || r.get("changed") != "1" || r.get("wrong") != "1" {
		t.Errorf("without it: %s", r.text)
	}
	// larger than other requests may be
	var b strings.Builder
	b.WriteString("address\n")
	for i := range 700 {
		fmt.Fprintf(&b, "%s-%d@example.test\n", strings.Repeat("long", 20), i)
	}
	if b.Len() <= 64<<10 {
		t.Fatal("it is no larger than others")
	}
	if r := l.must(200, request{method: "POST", path: "/import/csv", body: b.String(), token: token, header: []string{"Content-Type", "text/csv"}}); r.get("added") != "700" || r.get("done") != "true" {
		t.Errorf("700: %.300s", r.text)
	}
	next, n := "", 0
	for more := true; more; more = next != "" {
		r := l.must(200, request{method: "GET", path: "/accounts?limit=1000&after=" + next, token: token})
		n += strings.Count(r.text, `"public_id"`)
		next = r.get("next")
	}
	if n != 702 {
		t.Errorf("%d accounts in all pages, want 702", n)
	}
}

// A body of nothing but wrong things takes no more memory than a good one, and no second one is read beside it.
func TestLargeBodies(t *testing.T) {
	l := newLab(t, "") // alone, for it looks at what is allocated
	l.document()
	token := l.token(apitoken.AccountsWrite)
	const n = 300_000
	for name, tt := range map[string]struct{ body, fault string }{
		"empty accounts": {`{"accounts":[` + strings.Repeat("{},", n) + `{}]}`, "more than 200000"},
		"numbers":        {`{"accounts":[` + strings.Repeat("1,", n) + `1]}`, "no list"},
		"fields":         {`{"accounts":[{"a":"",` + strings.Repeat(`"b":1,`, n) + `"c":1}]}`, "accounts[0] has a field"},
		"a field":        {`{"accounts":[{"address":"",` + strings.Repeat(`"address":"",`, n) + `"address":""}]}`, "accounts[0] has a field"},
		"aliases":        {`{"accounts":[{"aliases":[` + strings.Repeat(`"a",`, n) + `"a"]}]}`, "accounts[0] has more than 100 aliases"},
		"null aliases":   {`{"accounts":[{"aliases":[` + strings.Repeat(`null,`, n) + `null]}]}`, "no list"},
		"lists":          {`{"accounts":[],"accounts":[` + strings.Repeat("{},", n) + `{}]}`, "no list"},
		"other fields":   {`{` + strings.Repeat(`"x":1,`, n) + `"x":1}`, "no list"},
		"a list":         {`[` + strings.Repeat(`1,`, n) + `1]`, "no list"},
		"deep":           {`{"accounts":[{"aliases":[[` + strings.Repeat(`1,`, n), "no list"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := l.must(422, request{method: "POST", path: "/import", body: tt.body, token: token})
		runtime.ReadMemStats(&after)
		if !strings.Contains(r.get("detail"), tt.fault) {
			t.Errorf("%s: %s, want %q", name, r.text, tt.fault)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 24<<20+10*uint64(len(tt.body)) {
			t.Errorf("%s: %d MiB were allocated for a body of %d KiB", name, took>>20, len(tt.body)>>10)
		}
	}
	held, sender := io.Pipe()
	slow, underWay := make(chan int), make(chan struct{})
	go func() {
		trace := &httptrace.ClientTrace{Got100Continue: func() { close(underWay) }} // the gateway has begun to read
		r, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "POST", "http://api/api/v1/import/csv", held)
		r.Header.Set("Expect", "100-continue")
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "text/csv")
		resp, err := l.client.Do(r)
		if err != nil {
			slow <- 0
			return
		}
		resp.Body.Close()
		slow <- resp.StatusCode
	}()
	sender.Write([]byte("address\n"))
	select {
	case <-underWay:
	case status := <-slow:
		t.Fatalf("the slow one ended: %d", status)
	}
	list := request{method: "POST", path: "/import", body: m{"accounts": []m{{"address": "alice@example.test"}}}, token: token}
	if r := l.must(503, list); r.header.Get("Retry-After") == "" {
		t.Errorf("beside another import: %v", r.header)
	}
	sender.Write([]byte("bob@example.test\n"))
	sender.Close()
	if status := <-slow; status != 200 {
		t.Errorf("the slow one: %d", status)
	}
	l.must(200, list)
}
