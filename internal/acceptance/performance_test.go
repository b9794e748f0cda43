package acceptance

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"postern/gateway/bench"
)

var update = flag.Bool("update", false, "write the tables of docs/performance.md from docs/performance.json")

// measurements is docs/performance.json, the output of docs/performance.sh.
type measurements struct {
	Date, Machine, Kernel, Postern, Go, Nginx, Dovecot, HAProxy string
	Runs                                                        []struct {
		Row, Server string
		Round       int
		Result      bench.Result
	}
}

// figure takes one number out of a run.
type figure func(*bench.Result) float64

func cpu(r *bench.Result) float64         { return r.CPU }
func perSecond(r *bench.Result) float64   { return r.PerSecond }
func p50(r *bench.Result) float64         { return r.P50 }
func p99(r *bench.Result) float64         { return r.P99 }
func cpuPerGB(r *bench.Result) float64    { return r.CPUPerGB }
func megabytes(r *bench.Result) float64   { return r.MBPerSecond }
func memory(r *bench.Result) float64      { return r.KiB }
func descriptors(r *bench.Result) float64 { return r.Descriptors }
func attemptCPU(r *bench.Result) float64  { return r.Storm.CPU }
func attempts(r *bench.Result) float64    { return r.Storm.PerSecond }
func p99Same(r *bench.Result) float64     { return r.Storm.Same.P99 }
func p99Another(r *bench.Result) float64  { return r.Storm.Another.P99 }
func resumed(r *bench.Result) float64 {
	if r.Resumed == nil {
		return math.NaN()
	}
	return *r.Resumed * 100
}

// line is one of a table: what it tells, from which row of the script, with a second figure in parentheses.
type line struct {
	title, row string
	of         figure
	aside      figure
	asideUnit  string
	noRatio    bool   // more is better
	goal       string // what the project wants to reach, and aims at
}

// table is one of the page's.
type table struct {
	title   string
	servers []string // by column, Postern first
	names   []string
	rivals  []string // of servers: those that check logins too
	lines   []line
}

var tables = []table{
	{
		title:   "IMAP",
		servers: []string{"postern", "nginx", "dovecot", "haproxy"},
		names:   []string{"Postern", "nginx mail + auth_http", "Dovecot proxy", "HAProxy (no login)"},
		rivals:  []string{"nginx", "dovecot"},
		lines: []line{
			{title: "login, plain text: CPU µs (per s)", row: "login-plain", of: cpu, aside: perSecond, goal: "≤ 0.95 / 0.85"},
			{title: "login, TLS 1.3: CPU µs (per s)", row: "login-tls", of: cpu, aside: perSecond, goal: "≤ 0.75 / 0.65"},
			{title: "login, TLS resumed: CPU µs (per s)", row: "login-tls-resumed", of: cpu, aside: perSecond, goal: "≤ 0.70 / 0.60"},
			{title: "of these, resumed: %", row: "login-tls-resumed", of: resumed, noRatio: true, goal: "≥ 99 %"},
			{title: "login, TLS, one ordinary client: p50 ms", row: "login-tls-ordinary", of: p50, goal: "≤ 0.10 / 0.05 of nginx"},
			{title: "NOOP, 32 sessions, plain text: CPU µs (p99)", row: "noop-plain", of: cpu, aside: p99, asideUnit: " ms", goal: "≤ 1.3 / 1.0"},
			{title: "NOOP, 32 sessions, TLS: CPU µs (p99)", row: "noop-tls", of: cpu, aside: p99, asideUnit: " ms", goal: "≤ 1.1 / 1.0"},
			{title: "FETCH 64 KiB, TLS: CPU s/GB (MB/s)", row: "fetch-64k-tls", of: cpuPerGB, aside: megabytes},
			{title: "FETCH 25 MiB, plain text: CPU s/GB (MB/s)", row: "fetch-25m-plain", of: cpuPerGB, aside: megabytes, goal: "≤ 0.40 / 0.30"},
			{title: "FETCH 25 MiB, TLS: CPU s/GB (MB/s)", row: "fetch-25m-tls", of: cpuPerGB, aside: megabytes, goal: "≤ 0.70 / 0.60"},
			{title: "session in IDLE, of 9,000, plain text: KiB (descriptors)", row: "idle-plain", of: memory, aside: descriptors, goal: "≤ 4 / 2 KiB"},
			{title: "session in IDLE, of 9,000, TLS: KiB (descriptors)", row: "idle-tls", of: memory, aside: descriptors, goal: "≤ 14 / 12 KiB"},
			{title: "wrong password, 3,000 addresses: CPU µs (per s)", row: "storm", of: attemptCPU, aside: attempts, goal: "≤ 0.35 / 0.25"},
			{title: "good logins beside these: p99 ms (without them)", row: "storm", of: p99Another, aside: p99, goal: "≤ 1.2 / 1.0"},
			{title: "24 wrong at a time from one address; good from the same: p99 ms", row: "storm-office", of: p99Same, goal: "≤ 1.2 / 1.0"},
			{title: "the same; good from another address: p99 ms", row: "storm-office", of: p99Another},
		},
	},
	{
		title:   "Sending mail",
		servers: []string{"postern", "nginx", "haproxy"},
		names:   []string{"Postern", "nginx mail + auth_http", "HAProxy (no login)"},
		rivals:  []string{"nginx"},
		lines: []line{
			{title: "16 KiB, a connection each, plain text: CPU µs (per s)", row: "send-16k-plain", of: cpu, aside: perSecond, goal: "≤ 1.0 / 0.8"},
			{title: "16 KiB, a connection each, TLS 1.3: CPU µs (per s)", row: "send-16k-tls", of: cpu, aside: perSecond, goal: "≤ 1.0 / 0.8"},
			{title: "16 KiB, 20 over a connection, TLS: CPU µs (per s)", row: "send-16k-20", of: cpu, aside: perSecond, goal: "≤ 1.0 / 0.8"},
			{title: "4 MiB, plain text: CPU µs (MB/s)", row: "send-4m-plain", of: cpu, aside: megabytes, goal: "≤ 1.0 / 0.8"},
			{title: "4 MiB, TLS: CPU µs (MB/s)", row: "send-4m-tls", of: cpu, aside: megabytes, goal: "≤ 1.0 / 0.8"},
		},
	},
	{
		title:   "Calendars and contacts, TLS 1.3",
		servers: []string{"postern", "nginx", "haproxy"},
		names:   []string{"Postern", "nginx auth_request", "HAProxy (no login)"},
		rivals:  []string{"nginx"},
		lines: []line{
			{title: "PROPFIND, HTTP/1.1: CPU µs (per s)", row: "propfind", of: cpu, aside: perSecond, goal: "≤ 1.2 / 1.0"},
			{title: "PROPFIND, a new connection each: CPU µs (per s)", row: "propfind-new", of: cpu, aside: perSecond, goal: "≤ 0.9 / 0.8"},
			{title: "PROPFIND, HTTP/2: CPU µs (per s)", row: "propfind-h2", of: cpu, aside: perSecond, goal: "≤ 1.1 / 0.9"},
			{title: "GET of 1 MiB: CPU µs (per s)", row: "get-1m", of: cpu, aside: perSecond, goal: "≤ 1.0 / 0.9"},
			{title: "idle keep-alive client, of 2,000: KiB (descriptors)", row: "idle-dav", of: memory, aside: descriptors, goal: "≤ 20 KiB"},
		},
	},
}

// median of a figure over the rounds; NaN: not measured.
func (m *measurements) median(row, server string, of figure) float64 {
	var values []float64
	for _, r := range m.Runs {
		if r.Row == row && r.Server == server {
			values = append(values, of(&r.Result))
		}
	}
	if len(values) == 0 {
		return math.NaN()
	}
	slices.Sort(values)
	middle := len(values) / 2
	if len(values)%2 == 0 {
		return (values[middle-1] + values[middle]) / 2
	}
	return values[middle]
}

// has tells whether any line of a table was measured. One that is new is shown when it was.
func (m *measurements) has(t *table) bool {
	return slices.ContainsFunc(t.lines, func(l line) bool { return m.measured(&l) })
}

func (m *measurements) measured(l *line) bool { return !math.IsNaN(m.median(l.row, "postern", l.of)) }

func (m *measurements) rounds() int {
	most := 0
	for _, r := range m.Runs {
		most = max(most, r.Round)
	}
	return most
}

// render writes what stands between the page's markers.
func (m *measurements) render() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s: %s, Linux %s. Medians of %d rounds. Postern %s (%s), nginx %s, Dovecot %s, HAProxy %s.\n",
		m.Date, m.Machine, m.Kernel, m.rounds(), m.Postern, m.Go, m.Nginx, m.Dovecot, m.HAProxy)
	for _, t := range tables {
		if !m.has(&t) {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n", t.title)
		hasGoals := slices.ContainsFunc(t.lines, func(l line) bool { return l.goal != "" })
		heading := slices.Concat([]string{""}, t.names, []string{"Postern to the best that checks logins"})
		if hasGoals {
			heading = append(heading, "goal: reach / aim")
		}
		writeRow(&b, heading)
		b.WriteString(strings.Repeat("| --- ", len(heading)) + "|\n")
		for _, l := range t.lines {
			if !m.measured(&l) {
				continue
			}
			cells := []string{l.title}
			for _, server := range t.servers {
				cells = append(cells, m.cell(&l, server))
			}
			cells = append(cells, m.ratio(&t, &l))
			if hasGoals {
				cells = append(cells, l.goal)
			}
			writeRow(&b, cells)
		}
	}
	return b.String()
}

func writeRow(b *strings.Builder, cells []string) {
	fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
}

func (m *measurements) cell(l *line, server string) string {
	v := m.median(l.row, server, l.of)
	if math.IsNaN(v) {
		return ""
	}
	text := digits(v)
	if l.aside != nil {
		text += " (" + digits(m.median(l.row, server, l.aside)) + l.asideUnit + ")"
	}
	return text
}

// ratio is Postern's figure to the least of its rivals'.
func (m *measurements) ratio(t *table, l *line) string {
	if l.noRatio {
		return ""
	}
	best := math.Inf(1)
	for _, server := range t.rivals {
		if v := m.median(l.row, server, l.of); v < best { // no NaN is
			best = v
		}
	}
	ours := m.median(l.row, "postern", l.of)
	if math.IsInf(best, 1) || math.IsNaN(ours) || best == 0 {
		return ""
	}
	return strconv.FormatFloat(ours/best, 'f', 2, 64)
}

// digits writes three digits, or whole numbers with commas.
func digits(v float64) string {
	switch {
	case v < 10 && v != math.Trunc(v):
		return strconv.FormatFloat(v, 'f', 2, 64)
	case v < 100 && v != math.Trunc(v):
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	text := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// The tables of docs/performance.md are what docs/performance.sh measured, and it measures every line.
// One that is new is shown when it was.
func TestPerformancePage(t *testing.T) {
	t.Parallel()
	var m measurements
	if err := json.Unmarshal([]byte(readFile(t, "docs/performance.json")), &m); err != nil {
		t.Fatal(err)
	}
	script := readFile(t, "docs/performance.sh")
	for _, tab := range tables {
		for _, l := range tab.lines {
			if !regexp.MustCompile(`(?m)^ +measure ` + l.row + ` `).MatchString(script) {
				t.Errorf("docs/performance.sh measures no %s for %q", l.row, l.title)
			}
		}
	}
	const begin, end = "<!-- begin: written by performance.sh -->\n", "<!-- end -->"
	page := readFile(t, "docs/performance.md")
	before, rest, ok := strings.Cut(page, begin)
	got, after, found := strings.Cut(rest, end)
	if !ok || !found {
		t.Fatalf("docs/performance.md lacks the lines %q and %q", begin, end)
	}
	want := "\n" + m.render() + "\n"
	if got == want {
		return
	}
	if !*update {
		t.Fatalf("docs/performance.md is not what docs/performance.json says; after a look at it: go test ./internal/acceptance -run TestPerformancePage -update\ngot:\n%s\nwant:\n%s", got, want)
	}
	if err := os.WriteFile(filepath.Join(root, "docs/performance.md"), []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A table that nobody has measured yet is not shown empty.
func TestTablesAreMeasured(t *testing.T) {
	t.Parallel()
	var m measurements
	if err := json.Unmarshal([]byte(`{"runs": [{"row": "send-16k-tls", "server": "postern", "round": 1, "result": {"operations": 9, "cpu_us": 240, "per_second": 4000}},
		{"row": "send-16k-tls", "server": "nginx", "round": 1, "result": {"operations": 9, "cpu_us": 480, "per_second": 2000}}]}`), &m); err != nil {
		t.Fatal(err)
	}
	const want = "| 16 KiB, a connection each, TLS 1.3: CPU µs (per s) | 240 (4,000) | 480 (2,000) |  | 0.50 | ≤ 1.0 / 0.8 |"
	if got := m.render(); !strings.Contains(got, want) || strings.Contains(got, "## IMAP") {
		t.Errorf("got:\n%s\nwant %q and no IMAP", got, want)
	}
}

func TestDigits(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0: "0", 2: "2", 8.2: "8.20", 0.256: "0.26", 14.93: "14.9", 100: "100", 326.4: "326", 8244: "8,244", 104700: "104,700", 1234567: "1,234,567"} {
		if got := digits(v); got != want {
			t.Errorf("digits(%v) = %q, want %q", v, got, want)
		}
	}
}
