package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	t.Parallel()
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for name, tt := range map[string]struct {
		sorted []time.Duration
		p      int
		want   time.Duration
	}{
		"none":         {nil, 50, 0},
		"one":          {[]time.Duration{7}, 99, 7},
		"half of two":  {[]time.Duration{1, 2}, 50, 1},
		"most of two":  {[]time.Duration{1, 2}, 99, 2},
		"half of 100":  {hundred, 50, 50},
		"most of 100":  {hundred, 99, 99},
		"most of 101":  {append(hundred[:100:100], 1000), 99, 100},
		"all of 100":   {hundred, 100, 100},
		"half of five": {[]time.Duration{1, 2, 3, 4, 5}, 50, 3},
	} {
		if got := percentile(tt.sorted, tt.p); got != tt.want {
			t.Errorf("%s: percentile %d = %d, want %d", name, tt.p, got, tt.want)
		}
	}
}

func TestSummarize(t *testing.T) {
	t.Parallel()
	m := summarize([]tally{
		{took: []time.Duration{3 * time.Millisecond, time.Millisecond}, received: 10},
		{took: []time.Duration{2 * time.Millisecond}, received: 5, failed: 2, first: errors.New("cut")},
	}, 2*time.Second, 30*time.Millisecond, 60*time.Millisecond)
	want := Measured{Operations: 3, Failed: 2, FirstFailure: "cut", Seconds: 2, PerSecond: 1.5, P50: 2, P99: 3, CPU: 10_000, ClientCPU: 20_000, Received: 15}
	if *m != want {
		t.Errorf("summarize = %+v, want %+v", *m, want)
	}
	if m := summarize([]tally{{failed: 1, first: errors.New("cut")}}, time.Second, time.Second, 0); m.Operations != 0 || m.CPU != 0 || m.Failed != 1 {
		t.Errorf("of nothing that succeeded: %+v", *m)
	}
}

func TestRound(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]float64{0: 0, 1.23456: 1.235, 123456: 123500, 0.000123456: 0.0001235, -9.87654: -9.877, 1.0 / 3: 0.3333} {
		if got := round(v); got != want {
			t.Errorf("round(%v) = %v, want %v", v, got, want)
		}
	}
}

func TestParseStat(t *testing.T) {
	t.Parallel()
	const rest = " S 7 12 12 0 -1 4194560 100 0 0 0 250 50 30 20 20 0 9 0 100"
	for name, tt := range map[string]struct {
		text string
		want stat
		ok   bool
	}{
		"ordinary":                {"12 (nginx)" + rest, stat{7, 3500 * time.Millisecond}, true},
		"parentheses in its name": {"12 (a) S 1 (b)" + rest, stat{7, 3500 * time.Millisecond}, true},
		"cut short":               {"12 (nginx) S 7 12", stat{}, false},
		"empty":                   {"", stat{}, false},
		"no number":               {"12 (nginx)" + strings.Replace(rest, "250", "x", 1), stat{}, false},
	} {
		got, err := parseStat(tt.text)
		if (err == nil) != tt.ok || tt.ok && got != tt.want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, tt.want)
		}
	}
}

func TestParsePSS(t *testing.T) {
	t.Parallel()
	const rollup = "00400000-7fff [rollup]\nRss:      2000 kB\nPss:      1234 kB\nPss_Dirty:  17 kB\n"
	for text, want := range map[string]int64{rollup: 1234 << 10, "": 0, "Pss_Anon: 5 kB\n": 0} {
		if got, err := parsePSS([]byte(text)); got != want || err != nil {
			t.Errorf("parsePSS(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	if _, err := parsePSS([]byte("Pss: x kB\n")); err == nil {
		t.Error("a size that is no number was taken")
	}
}

// Children count with their parent, whoever that is; strangers don't.
func TestTree(t *testing.T) {
	t.Parallel()
	all := map[int]stat{1: {parent: 0}, 10: {parent: 1}, 11: {parent: 10}, 12: {parent: 11}, 20: {parent: 1}, 30: {parent: 30}}
	for pid, want := range map[int]bool{1: false, 10: true, 11: true, 12: true, 20: false, 30: false, 99: false} {
		if got := (Processes{10}).contain(all, pid); got != want {
			t.Errorf("process %d: %t, want %t", pid, got, want)
		}
	}
}

// What this process has used is told, and grows.
func TestUsage(t *testing.T) {
	t.Parallel()
	me := Processes{os.Getpid()}
	before, err := me.usageWithMemory()
	if err != nil {
		t.Fatal(err)
	}
	if before.PSS < 1<<20 || before.Descriptors < 3 {
		t.Errorf("this process has %d bytes and %d descriptors", before.PSS, before.Descriptors)
	}
	for after := before; after.CPU == before.CPU; {
		for range 1_000_000 {
			_ = fmt.Sprint
		}
		if after, err = me.usage(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := (Processes{1 << 30}).usage(); err == nil {
		t.Error("a process that is not there has used something")
	}
}

func TestReadCredentials(t *testing.T) {
	t.Parallel()
	got, err := ReadCredentials(strings.NewReader("# made by hand\n\na@example.test  s-1\nb@example.test s-2 id2 \r\n"))
	if err != nil || len(got) != 2 || got[0] != (Credential{Address: "a@example.test", secret: "s-1"}) ||
		got[1] != (Credential{Address: "b@example.test", ID: "id2", secret: "s-2"}) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, got); strings.Contains(text, "s-1") {
			t.Errorf("%s shows the secret: %s", verb, text)
		}
	}
	for text, want := range map[string]string{
		"":                      "there are no lines",
		"# nothing\n":           "there are no lines",
		"a@example.test\n":      "line 1",
		"a b\nhunter2 a b c d ": "line 2",
	} {
		_, err := ReadCredentials(strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestLoadIsBounded(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		load Load
		ok   bool
	}{
		"ordinary":        {Load{Workers: 4, Count: 100, Duration: time.Second}, true},
		"nobody":          {Load{Count: 100, Duration: time.Second}, false},
		"too many":        {Load{Workers: maxWorkers + 1, Count: maxCount, Duration: time.Second}, false},
		"without number":  {Load{Workers: 4, Duration: time.Second}, false},
		"for ever":        {Load{Workers: 4, Count: 100, Duration: 48 * time.Hour}, false},
		"without time":    {Load{Workers: 4, Count: 100}, false},
		"back in time":    {Load{Workers: 4, Count: 100, Duration: time.Second, Pace: -1}, false},
		"fewer than hold": {Load{Workers: 4, Count: 3, Duration: time.Second}, false},
	} {
		if err := tt.load.Check(); (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSource(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for n := range MaxSources {
		a := source(n)
		if !a.IsLoopback() || seen[a.String()] {
			t.Fatalf("source(%d) = %v", n, a)
		}
		seen[a.String()] = true
	}
	if got := source(0).String(); got != "127.0.1.1" {
		t.Errorf("the first is %s", got)
	}
}

// fixed is a connection whose peer has said all it will.
type fixed struct {
	net.Conn
	io.Reader
}

func (f fixed) Read(p []byte) (int, error)       { return f.Reader.Read(p) }
func (fixed) Write(p []byte) (int, error)        { return len(p), nil }
func (fixed) SetDeadline(time.Time) (none error) { return nil }

func says(text string) (net.Conn, *bufio.Reader) {
	nc := fixed{Reader: strings.NewReader(text)}
	return nc, bufio.NewReaderSize(nc, 64)
}

func TestIMAPAnswers(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1000)
	for name, tt := range map[string]struct {
		text string
		want string // of the error; empty: none
	}{
		"done":                  {"b1 OK done\r\n", ""},
		"untagged before it":    {"* 3 EXISTS\r\nb1 OK done\r\n", ""},
		"a literal":             {"* 1 FETCH (BODY[] {12}\r\nb1 NO false\n)\r\nb1 OK done\r\n", ""},
		"a literal past buffer": {"* 1 FETCH (BODY[] {1000}\r\n" + long + ")\r\nb1 OK done\r\n", ""},
		"a long line":           {"* FLAGS (" + long + ")\r\nb1 OK done\r\n", ""},
		"refused":               {"b1 NO [AUTHENTICATIONFAILED] no\r\n", `"b1 NO [AUTHENTICATIONFAILED] no"`},
		"goodbye":               {"* BYE late\r\n", `"* BYE late"`},
		"cut":                   {"* 3 EXI", "EOF"},
		"cut in a literal":      {"* 1 FETCH (BODY[] {1000}\r\nxxx", "EOF"},
		"endless literal":       {"* 1 FETCH (BODY[] {9999999999}\r\n", "more than"},
		"endless line":          {"* " + strings.Repeat(long, 20), "longer than"},
	} {
		nc, r := says(tt.text)
		err := (&session{nc: nc, r: r}).command("X")
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

func TestHTTPAnswers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		text     string
		status   int
		received int64
		open, ok bool
	}{
		"length":     {"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", 200, 5, true, true},
		"chunks":     {"HTTP/1.1 207 Multi-Status\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nA: b\r\n\r\n", 207, 21, true, true},
		"empty":      {"HTTP/1.1 204 No Content\r\n\r\n", 204, 0, true, true},
		"interim":    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 201, 0, false, true},
		"refused":    {"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno", 401, 2, true, true},
		"no length":  {"HTTP/1.1 200 OK\r\n\r\nhello", 0, 0, false, false},
		"cut":        {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", 200, 9, true, false},
		"bad length": {"HTTP/1.1 200 OK\r\nContent-Length: -9\r\n\r\nhello", 0, 0, false, false},
		"bad chunk":  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello", 200, 0, true, false},
		"no HTTP":    {"* OK IMAP4rev1 ready\r\n", 0, 0, false, false},
	} {
		nc, r := says(tt.text)
		status, received, open, err := (&httpConn{nc: nc, r: r}).do(nil)
		if (err == nil) != tt.ok || status != tt.status || received != tt.received || open != tt.open {
			t.Errorf("%s: %d, %d bytes, open %t, %v; want %+v", name, status, received, open, err, tt)
		}
	}
}

// One line for programs, and a table for people that says when a run was too short to tell.
func TestRendering(t *testing.T) {
	t.Parallel()
	share := 0.5
	r := &Result{Bench: "login", Target: "127.0.0.1:993", TLS: ImplicitTLS, QuickAck: true, Mechanism: ByLogin, Workers: 16, Resumed: &share,
		Measured: Measured{Operations: 5000, Failed: 1, FirstFailure: "EOF", Seconds: 1.5, PerSecond: 3333, P50: 1.25, P99: 4, CPU: 326.4}, hasCPU: true}
	var table bytes.Buffer
	if err := r.Print(&table); err != nil {
		t.Fatal(err)
	}
	const want = `login       127.0.0.1:993, TLS implicit, LOGIN, acknowledging at once
operations  5000 in 1.5 s, 16 at a time
failed      1; the first: EOF
rate        3333/s
p50, p99    1.25 ms, 4 ms
CPU         326.4 µs each
resumed     50 %
`
	if table.String() != want {
		t.Errorf("table:\n%swant:\n%s", &table, want)
	}
	line, err := json.Marshal(r)
	const wantLine = `{"bench":"login","target":"127.0.0.1:993","tls":"implicit","quick_ack":true,"mechanism":"LOGIN","workers":16,"operations":5000,"failed":1,` +
		`"first_failure":"EOF","seconds":1.5,"per_second":3333,"p50_ms":1.25,"p99_ms":4,"cpu_us":326.4,"resumed":0.5}`
	if err != nil || string(line) != wantLine {
		t.Errorf("JSON:\n%s, %v; want\n%s", line, err, wantLine)
	}
	r.Operations = 50
	if table.Reset(); r.Print(&table) != nil || !strings.Contains(table.String(), "too short a run to tell") {
		t.Errorf("a short run:\n%s", &table)
	}
}

func FuzzIMAPAnswers(f *testing.F) {
	for _, seed := range []string{"* 1 FETCH (BODY[] {12}\r\nb1 NO false\n)\r\nb1 OK done\r\n", "b1 OK\r\n", "* BYE\r\n", "{0}\r\n{99999999999999999999}\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		nc, r := says(text)
		s := &session{nc: nc, r: r}
		if err := s.command("X"); err == nil && !strings.Contains(text, "b1 OK") {
			t.Errorf("%q was taken for success", text)
		}
	})
}

func FuzzHTTPAnswers(f *testing.F) {
	for _, seed := range []string{"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "HTTP/1.1 207 M\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		nc, r := says(text)
		if _, received, _, err := (&httpConn{nc: nc, r: r}).do(nil); err == nil && received > int64(len(text)) {
			t.Errorf("%d bytes were read of %q", received, text)
		}
	})
}
