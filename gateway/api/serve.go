package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"postern/authstore"
	"postern/authstore/apitoken"
)

// documentPath is where the document is; it tells nothing that is not on the project's pages, so no token is asked for.
const documentPath = Prefix + "/openapi.json"

// ServeHTTP answers a request; the connection's limits are the caller's affair.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Robots-Tag", "noindex")
	if r.URL.Path == documentPath && r.Method == http.MethodGet {
		h.Set("Content-Type", "application/json")
		w.Write(s.document)
		return
	}
	c := &call{client: s.o.Client(r), began: s.o.Now()}
	watched := &watched{ResponseWriter: w}
	defer s.told(c, r, watched)
	defer s.recovered(c, watched)
	r.Header.Del("Cookie") // whoever sits in a browser is nobody here
	s.serve(c, watched, r)
}

func (s *Server) serve(c *call, w *watched, r *http.Request) {
	ctx, cancel := context.WithTimeout(context.WithValue(r.Context(), callKey{}, c), requestTime)
	defer cancel()
	if p := s.authenticate(ctx, c, r); p != nil {
		p.write(w)
		return
	}
	inner := new(http.Request)
	*inner = *r
	url := *r.URL
	inner.URL = &url
	url.Path, url.RawPath = strings.TrimPrefix(r.URL.Path, Prefix), strings.TrimPrefix(r.URL.RawPath, Prefix)
	if url.Path == "" || path.Clean(url.Path) != url.Path { // the mux would redirect
		noSuchPath().write(w)
		return
	}
	handler, pattern := s.mux.Handler(inner)
	b, known := s.bounds[pattern]
	if !known {
		s.unknown(w, inner, handler)
		return
	}
	c.operation = b.operation
	if b.scope != "" && !apitoken.Holds(c.token.Scopes, b.scope) {
		forbidden(b.scope).write(w)
		return
	}
	if b.time > requestTime {
		deadline := time.Now().Add(b.time)
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(deadline) // where there are none, there is nothing to move
		_ = control.SetWriteDeadline(deadline)
		ctx, cancel = context.WithTimeout(context.WithValue(r.Context(), callKey{}, c), b.time)
		defer cancel()
	}
	inner = inner.WithContext(ctx)
	inner.Body = http.MaxBytesReader(w, r.Body, b.body)
	if b.large != nil {
		select {
		case s.importing <- struct{}{}:
			defer func() { <-s.importing }()
		default:
			p := problem(http.StatusServiceUnavailable, "another import is under way; ask again when it is done")
			p.header = http.Header{"Retry-After": {"5"}}
			p.write(w)
			return
		}
		if p := inspect(inner, b.large); p != nil {
			p.write(w)
			return
		}
	}
	s.mux.ServeHTTP(w, inner)
}

// inspect looks at a large body before anything is made of it.
func inspect(r *http.Request, look func([]byte) error) *Problem {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		status, detail, _ := readFault([]error{err})
		return problem(status, detail)
	}
	if err := look(text); err != nil {
		return unfit("%v", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(text))
	return nil
}

// unknown answers what is no operation: another path, or another method of one.
func (s *Server) unknown(w *watched, r *http.Request, handler http.Handler) {
	var other methods
	handler.ServeHTTP(&other, r)
	if other.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", other.Header().Get("Allow"))
		problem(http.StatusMethodNotAllowed, "there is no "+shown(r.Method)+" here; Allow says what there is").write(w)
		return
	}
	noSuchPath().write(w)
}

func noSuchPath() *Problem {
	return problem(http.StatusNotFound, "there is no such path; "+documentPath+" has them all")
}

// methods catches what the mux says of a method that a path does not have.
type methods struct {
	header http.Header
	status int
}

func (m *methods) Header() http.Header {
	if m.header == nil {
		m.header = make(http.Header)
	}
	return m.header
}
func (m *methods) Write(b []byte) (int, error) { return len(b), nil }
func (m *methods) WriteHeader(status int)      { m.status = status }

// call is one request: who asks.
type call struct {
	client    netip.Addr
	token     apitoken.Token
	operation string
	began     time.Time
}

type callKey struct{}

func callOf(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// actor names who asks, for the history.
func actor(ctx context.Context) authstore.Actor {
	c := callOf(ctx)
	return authstore.Actor{Name: "api:" + c.token.Name, Client: c.client}
}

// may reports whether the token that was shown has one more scope.
func may(ctx context.Context, s apitoken.Scope) bool {
	return apitoken.Holds(callOf(ctx).token.Scopes, s)
}

// authenticate finds whose request it is.
func (s *Server) authenticate(ctx context.Context, c *call, r *http.Request) *Problem {
	shown := r.Header.Values("Authorization")
	if len(shown) == 0 {
		return unauthorized("", "a token is needed: Authorization: Bearer postern_... (\"postern token create\" makes one)")
	}
	scheme, text, _ := strings.Cut(shown[0], " ")
	if len(shown) > 1 || !strings.EqualFold(scheme, "Bearer") {
		return unauthorized("invalid_request", "the header Authorization must stand there once and hold Bearer and the token")
	}
	var err error
	c.token, err = s.o.Tokens.Check(ctx, c.client, strings.TrimSpace(text))
	switch {
	case errors.Is(err, apitoken.ErrWrong):
		return unauthorized("invalid_token", err.Error())
	case errors.Is(err, apitoken.ErrThrottled):
		p := problem(http.StatusTooManyRequests, err.Error()+"; wait a minute")
		p.header = http.Header{"Retry-After": {"60"}}
		return p
	case err != nil:
		s.o.Log.Error("api", "proto", Protocol, "client", c.client, "err", err)
		return unavailable()
	}
	return nil
}

// unauthorized is RFC 6750 section 3.
func unauthorized(code, detail string) *Problem {
	p := problem(http.StatusUnauthorized, detail)
	challenge := `Bearer realm="postern"`
	if code != "" {
		challenge += `, error="` + code + `"`
	}
	p.header = http.Header{"WWW-Authenticate": {challenge}}
	return p
}

func forbidden(s apitoken.Scope) *Problem {
	p := problem(http.StatusForbidden, "the token lacks the scope "+string(s))
	p.header = http.Header{"WWW-Authenticate": {`Bearer realm="postern", error="insufficient_scope", scope="` + string(s) + `"`}}
	return p
}

func unavailable() *Problem {
	p := problem(http.StatusServiceUnavailable, "the database does not answer at the moment; nothing was changed")
	p.header = http.Header{"Retry-After": {"5"}}
	return p
}

// told writes the log's line.
func (s *Server) told(c *call, r *http.Request, w *watched) {
	if s.o.Observe != nil {
		s.o.Observe(c.operation, w.status)
	}
	if w.status == http.StatusTooManyRequests {
		return // there may be thousands in a second
	}
	s.o.Log.Info("api", "proto", Protocol, "client", c.client, "token", c.token.Name, "operation", c.operation, "status", w.status,
		"dur", s.o.Now().Sub(c.began).Round(time.Microsecond).String())
}

// recovered ends a request that met a defect of ours, and nothing else.
func (s *Server) recovered(c *call, w *watched) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	if s.o.Panicked != nil {
		s.o.Panicked(Protocol)
	}
	number := rand.Text()[:8]
	s.o.Log.Error("panic", "proto", Protocol, "number", number, "operation", c.operation, "panic", p, "stack", string(debug.Stack()))
	if w.status == 0 {
		broken(number).write(w)
	}
}

// watched remembers what was answered.
type watched struct {
	http.ResponseWriter
	status int
}

func (w *watched) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *watched) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

func (w *watched) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (p *Problem) write(w http.ResponseWriter) {
	for name, values := range p.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}
