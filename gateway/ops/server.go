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
	"postern/gateway/api"
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
	API      http.Handler           // under api.Prefix; nil: it is not here
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
	if s.API == nil {
		return mux
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if api.Under(r.URL.Path) { // past the mux, which redirects what it finds untidy
			s.API.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// endingTime is how long a request under way may go on when the listener closes: a change must not be cut off from its answer.
const endingTime = 5 * time.Second

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	h := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), endingTime)
		defer cancel()
		h.Shutdown(grace)
		h.Close()
	})
	if err := h.Serve(ln); stop() {
		return err
	}
	<-ended
	return nil
}
