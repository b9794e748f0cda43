package bench

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"
)

// Measured is what every run tells.
type Measured struct {
	Operations   int     `json:"operations"` // that succeeded
	Failed       int     `json:"failed"`
	FirstFailure string  `json:"first_failure,omitempty"`
	Seconds      float64 `json:"seconds"`
	PerSecond    float64 `json:"per_second,omitzero"`
	P50          float64 `json:"p50_ms,omitzero"`
	P99          float64 `json:"p99_ms,omitzero"`
	CPU          float64 `json:"cpu_us,omitzero"`        // of the target's processes, for one operation
	ClientCPU    float64 `json:"client_cpu_us,omitzero"` // of this process, which takes the cores away from a target on the same machine
	Received     int64   `json:"received_bytes,omitzero"`
}

// share divides what was measured of operations that each stand for n smaller ones.
func (m *Measured) share(n int) {
	m.Operations *= n
	m.Failed *= n
	m.PerSecond = round(m.PerSecond * float64(n))
	for _, each := range []*float64{&m.P50, &m.P99, &m.CPU, &m.ClientCPU} {
		*each = round(*each / float64(n))
	}
}

// Result is one run's, as one line of JSON. What does not apply is left out.
type Result struct {
	Bench     string    `json:"bench"`
	Target    string    `json:"target"`
	TLS       Security  `json:"tls"`
	QuickAck  bool      `json:"quick_ack,omitzero"`
	Mechanism Mechanism `json:"mechanism,omitempty"`
	Request   string    `json:"request,omitempty"` // of DAV; of what is sent
	Message   int       `json:"message,omitzero"`  // of FETCH
	Workers   int       `json:"workers"`
	Measured
	Resumed     *float64 `json:"resumed,omitempty"` // share of connections that resumed TLS
	Sent        int64    `json:"sent_bytes,omitzero"`
	MBPerSecond float64  `json:"mb_per_second,omitzero"`
	CPUPerGB    float64  `json:"cpu_s_per_gb,omitzero"`
	KiB         float64  `json:"kib_per_session,omitzero"` // PSS
	Descriptors float64  `json:"descriptors_per_session,omitzero"`
	Storm       *Storm   `json:"storm,omitempty"`

	hasCPU bool // the target's processes were named
}

func newResult(bench string, t *Target, l Load, m *Measured) *Result {
	return &Result{Bench: bench, Target: t.Address, TLS: t.Security, QuickAck: t.QuickAck, Workers: l.Workers, Measured: *m,
		hasCPU: len(t.Processes) > 0}
}

// summarize adds up what the workers saw.
func summarize(tallies []tally, took, cpu, client time.Duration) *Measured {
	m := &Measured{Seconds: round(took.Seconds())}
	var all []time.Duration
	for _, t := range tallies {
		all = append(all, t.took...)
		m.Received += t.received
		m.Failed += t.failed
		if t.first != nil && m.FirstFailure == "" {
			m.FirstFailure = t.first.Error()
		}
	}
	m.Operations = len(all)
	if m.Operations == 0 {
		return m
	}
	slices.Sort(all)
	m.P50, m.P99 = millis(percentile(all, 50)), millis(percentile(all, 99))
	m.PerSecond = round(float64(m.Operations) / took.Seconds())
	m.CPU = round(float64(cpu.Microseconds()) / float64(m.Operations))
	m.ClientCPU = round(float64(client.Microseconds()) / float64(m.Operations))
	return m
}

// percentile is the least of the sorted values that p percent of them do not exceed.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(1, (len(sorted)*p+99)/100)-1]
}

func millis(d time.Duration) float64 { return round(float64(d) / float64(time.Millisecond)) }

// round keeps four digits: nothing here is known better.
func round(v float64) float64 {
	if v == 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return 0
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}

// transferred fills what is told of many bytes. A GB has 10^9 of them.
func (r *Result) transferred(bytes int64) {
	r.MBPerSecond = round(float64(bytes) / 1e6 / r.Seconds)
	r.CPUPerGB = round(r.CPU / 1e6 * float64(r.Operations) / (float64(bytes) / 1e9))
}

// weighed fills what is told of idle sessions.
func (r *Result) weighed(before, after usage) {
	if r.Operations == 0 {
		return
	}
	n := float64(r.Operations)
	r.KiB = round(float64(after.PSS-before.PSS) / 1024 / n)
	r.Descriptors = round(float64(after.Descriptors-before.Descriptors) / n)
	r.CPU = round(float64((after.CPU - before.CPU).Microseconds()) / n)
}

// Print writes a table.
func (r *Result) Print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range r.lines() {
		fmt.Fprintf(tw, "%s\t%s\n", line[0], line[1])
	}
	return tw.Flush()
}

func (r *Result) lines() [][2]string {
	lines := [][2]string{
		{r.Bench, r.how()},
		{"operations", fmt.Sprintf("%d in %s s, %d at a time", r.Operations, number(r.Seconds), r.Workers)},
	}
	add := func(shown bool, name, format string, values ...any) {
		if shown {
			lines = append(lines, [2]string{name, fmt.Sprintf(format, values...)})
		}
	}
	add(r.Failed > 0, "failed", "%d; the first: %s", r.Failed, r.FirstFailure)
	add(r.PerSecond > 0, "rate", "%s/s", number(r.PerSecond))
	add(r.P50 > 0, "p50, p99", "%s ms, %s ms", number(r.P50), number(r.P99))
	add(r.hasCPU, "CPU", "%s", r.cpu("%s µs each", r.CPU))
	add(r.hasCPU && r.ClientCPU > 0, "client's CPU", "%s", r.cpu("%s µs each", r.ClientCPU))
	if r.Resumed != nil {
		add(true, "resumed", "%s %%", number(round(*r.Resumed*100)))
	}
	add(r.MBPerSecond > 0, "throughput", "%s MB/s", number(r.MBPerSecond))
	add(r.MBPerSecond > 0 && r.hasCPU, "CPU", "%s", r.cpu("%s s/GB", r.CPUPerGB))
	add(r.Bench == "idle" && r.hasCPU, "memory", "%s KiB each (PSS)", number(r.KiB))
	add(r.Bench == "idle" && r.hasCPU, "descriptors", "%s each", number(r.Descriptors))
	if r.Storm != nil {
		lines = append(lines, r.Storm.lines(r.hasCPU)...)
	}
	return lines
}

// leastCPU is what the target must have worked for its share to be known, in µs: the kernel tells it in steps of 10 ms.
const leastCPU = 200_000

func (r *Result) cpu(format string, v float64) string {
	if r.CPU*float64(r.Operations) < leastCPU {
		return "too short a run to tell; raise --count"
	}
	return fmt.Sprintf(format, number(v))
}

// how tells a run from others of its kind.
func (r *Result) how() string {
	text := r.Target + ", TLS " + string(r.TLS)
	if r.Request != "" {
		text += ", " + r.Request
	}
	if r.Mechanism != "" {
		text += ", " + string(r.Mechanism)
	}
	if r.Message > 0 {
		text += ", message " + strconv.Itoa(r.Message)
	}
	if r.QuickAck {
		text += ", acknowledging at once"
	}
	return text
}

// number writes at most four digits, and no exponent.
func number(v float64) string { return strconv.FormatFloat(round(v), 'f', -1, 64) }
