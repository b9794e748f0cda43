// Package ops is what operators see of a running gateway and do to it: metrics, health, profiles and open sessions, on a listener of
// their own. It decides no login and never sees an app password.
package ops

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"postern/authstore"
	"postern/protocols"
)

// Metrics are the gateway's Prometheus metrics. No label is taken from what a client sent.
type Metrics struct {
	Registry *prometheus.Registry

	logins   *prometheus.CounterVec
	sessions *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	verify   *prometheus.HistogramVec
	backend  *prometheus.HistogramVec
	panics   *prometheus.CounterVec
	notices  *prometheus.CounterVec
	tokens   *prometheus.CounterVec
	api      *prometheus.CounterVec
	looks    *prometheus.CounterVec
}

var _ protocols.Observer = (*Metrics)(nil)

// Gauges are read when metrics are asked for.
type Gauges struct {
	Sessions func() int           // open sessions
	FeedLag  func() time.Duration // since the change feed was last read to its end
}

// latencies reach from a cache hit (a microsecond) to a hanging server, in seconds.
var latencies = []float64{1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10}

// NewMetrics registers all metrics in a registry of their own.
func NewMetrics(g Gauges) *Metrics {
	m := &Metrics{
		Registry: prometheus.NewRegistry(),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_logins_total", Help: "Decided logins by protocol and outcome."}, []string{"protocol", "outcome"}),
		sessions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_sessions_ended_total", Help: "Ended sessions by protocol."}, []string{"protocol"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_relayed_bytes_total", Help: "Bytes of ended sessions, up (towards the backend) and down."}, []string{"protocol", "direction"}),
		verify: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "postern_verify_seconds", Help: "Time to find a login's snapshot, by the layer that had it.", Buckets: latencies}, []string{"layer"}),
		backend: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "postern_backend_seconds", Help: "Time of one step towards a backend.", Buckets: latencies}, []string{"backend", "step", "outcome"}),
		panics: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_panics_total", Help: "Connections that ended in a defect of ours; please report it."}, []string{"protocol"}),
		notices: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_notices_total", Help: "Attempts to send a notice by mail, by outcome: sent, failed, given_up."}, []string{"outcome"}),
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_token_refreshes_total", Help: "Refreshes of tokens for backends, by outcome: refreshed, failed (it is tried again), refused (the person has to connect again)."},
			[]string{"provider", "outcome"}),
		api: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_api_requests_total", Help: "Answers of the API by operation and status."}, []string{"operation", "status"}),
		looks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_directory_looks_total", Help: "Looks into the directory by outcome: good, failed (it did not answer well), held (it has lost so many people that nothing was changed)."}, []string{"outcome"}),
	}
	m.Registry.MustRegister(m.logins, m.sessions, m.bytes, m.verify, m.backend, m.panics, m.notices, m.tokens, m.api, m.looks,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "postern_sessions", Help: "Open sessions."}, func() float64 { return float64(g.Sessions()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "postern_feed_lag_seconds", Help: "Time since the change feed was last read to its end."},
			func() float64 { return g.FeedLag().Seconds() }))
	return m
}

// Login counts one decided login.
func (m *Metrics) Login(e protocols.LoginEvent) {
	m.logins.WithLabelValues(e.Protocol, Outcome(e.Err)).Inc()
}

// Ended counts one ended session.
func (m *Metrics) Ended(e protocols.EndEvent) {
	m.sessions.WithLabelValues(e.Protocol).Inc()
	m.bytes.WithLabelValues(e.Protocol, "up").Add(float64(e.Up))
	m.bytes.WithLabelValues(e.Protocol, "down").Add(float64(e.Down))
}

// Backend notes one step towards a backend.
func (m *Metrics) Backend(backend, step string, d time.Duration, err error) {
	outcome := "ok"
	if err != nil {
		outcome = "error"
	}
	m.backend.WithLabelValues(backend, step, outcome).Observe(d.Seconds())
}

// Verify notes how long a layer of the store took to give a snapshot.
func (m *Metrics) Verify(layer string, d time.Duration) {
	m.verify.WithLabelValues(layer).Observe(d.Seconds())
}

// Panic counts a connection that ended in a defect of ours.
func (m *Metrics) Panic(protocol string) { m.panics.WithLabelValues(protocol).Inc() }

// API counts one answer of the API; operation is empty where none was found, or nobody was allowed to ask.
func (m *Metrics) API(operation string, status int) {
	m.api.WithLabelValues(operation, strconv.Itoa(status)).Inc()
}

// Notice counts one attempt to send a notice; see notice.Options.Observe.
func (m *Metrics) Notice(outcome string) { m.notices.WithLabelValues(outcome).Inc() }

// Token counts one refresh of a token; see upstreamtoken.Options.Count.
func (m *Metrics) Token(provider, outcome string) { m.tokens.WithLabelValues(provider, outcome).Inc() }

// Look counts one look into the directory; see directory.Looker.Observe.
func (m *Metrics) Look(outcome string) { m.looks.WithLabelValues(outcome).Inc() }

// Outcome names a login's result for logs and metrics: "ok", a refusal's code, "authzid" where somebody wants to act as somebody else, "gone"
// where the client or we ended the connection before it was decided, "too_many" where there was no room for another session, or "backend" where our own way to the backend failed.
func Outcome(err error) string {
	if err == nil {
		return "ok"
	}
	if r, ok := errors.AsType[*authstore.Refusal](err); ok {
		return r.Code.String()
	}
	switch {
	case errors.Is(err, protocols.ErrAuthzid):
		return "authzid"
	case authstore.ErrRevoked(err):
		return "gone"
	case errors.Is(err, protocols.ErrTooMany):
		return "too_many"
	}
	for _, end := range []error{protocols.ErrClientGone, protocols.ErrLoginTimeout, protocols.ErrEvicted, protocols.ErrDraining, context.Canceled} {
		if errors.Is(err, end) {
			return "gone"
		}
	}
	return "backend"
}
