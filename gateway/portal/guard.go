package portal

import (
	"crypto/rand"
	"net/http"
	"runtime/debug"
)

// policy lets a page load its own files and nothing else, and run no script that stands in it, so that what clients write of themselves
// can't be one. Trusted Types close what is left of the ways from a text to a script.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; " +
	"frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'"

// guarded is what surrounds every page: headers, bounds, and the refusal of what other sites send in somebody's name.
func (s *Server) guarded(pages http.Handler) http.Handler {
	var origin http.CrossOriginProtection // the zero value refuses them
	if s.o.Provider != nil {
		origin.AddInsecureBypassPattern("POST " + providerPath + "/logout") // the provider's own word; no cookie counts there
	}
	origin.SetDenyHandler(s.page(s.crossOrigin, 0))
	pages = origin.Handler(pages)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")        // for browsers that don't know frame-ancestors
		h.Set("Referrer-Policy", "same-origin") // "no-referrer" would make a form's Origin null
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
		h.Set("X-Robots-Tag", "noindex")
		h.Set("Cache-Control", "no-store")
		if s.site.Scheme == "https" && s.site.Port() == "" { // it would bind all that the host serves on other ports as well
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		defer s.recovered(w, r)
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		pages.ServeHTTP(w, r)
	})
}

// recovered ends a request that met a defect of ours, and nothing else.
func (s *Server) recovered(w http.ResponseWriter, r *http.Request) {
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
	s.o.Log.Error("panic", "proto", Protocol, "number", number, "path", route(r), "panic", p, "stack", string(debug.Stack()))
	s.newVisit(w, r).trouble(http.StatusInternalServerError, "error.broken_title", "error.broken", number)
}

// route is what of a request's path may stand in a log: an invitation's link holds a secret.
func route(r *http.Request) string { return r.Pattern }
