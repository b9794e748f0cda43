package ops

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"postern/authstore/secret"
	"postern/gateway/live"
)

// Server answers on the operations listener. Whoever reaches it may read counts and states, so it listens on loopback or a Unix socket
// only; who asks about people needs a pass.
type Server struct {
	Metrics *Metrics
	// Ready says why the gateway takes no logins now; nil: it does.
	Ready    func() error
	Sessions Sessions
	Keys     func() *secret.Keyring // those that passes are sealed with
	Log      *slog.Logger
}

// Sessions is the registry of open sessions. In production it is a live.Registry.
type Sessions interface {
	List(live.Selection) []live.Session
	End(live.Selection) (count int, left <-chan struct{})
}

// Handler serves /healthz, /readyz, /metrics and /debug/pprof/, and with a pass /sessions.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Metrics.Registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /sessions", s.withPass(s.listSessions))
	mux.HandleFunc("DELETE /sessions", s.withPass(s.endSessions))
	return mux
}

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	h := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	defer context.AfterFunc(ctx, func() { h.Close() })()
	if err := h.Serve(ln); ctx.Err() == nil {
		return err
	}
	return nil
}
