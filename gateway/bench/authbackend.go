package bench

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/url"
	"strconv"
)

// AuthServer answers nginx's questions about logins: auth_http of its mail module at /mail, auth_request at /http.
type AuthServer struct {
	Credentials []Credential
	Backend     *net.TCPAddr // where the mail module is sent
	Submission  *net.TCPAddr // where it is sent for SMTP
	Wait        int          // seconds that a wrong password waits for its answer (Auth-Wait)
}

// Serve answers until ctx ends.
func (s *AuthServer) Serve(ctx context.Context, ln net.Listener) error {
	known := make(map[string][sha256.Size]byte, len(s.Credentials))
	for _, c := range s.Credentials {
		known[c.Address] = sha256.Sum256([]byte(c.secret))
	}
	right := func(name, secret string) bool {
		got, want := sha256.Sum256([]byte(secret)), known[name]
		return subtle.ConstantTimeCompare(got[:], want[:]) == 1
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/mail", func(w http.ResponseWriter, r *http.Request) {
		name, nameErr := url.PathUnescape(r.Header.Get("Auth-User"))
		secret, secretErr := url.PathUnescape(r.Header.Get("Auth-Pass"))
		h := w.Header()
		if nameErr != nil || secretErr != nil || !right(name, secret) {
			h["Auth-Status"] = []string{"Invalid login or password"}
			h["Auth-Wait"] = []string{strconv.Itoa(s.Wait)}
			return
		}
		backend := s.Backend
		if r.Header.Get("Auth-Protocol") == "smtp" {
			backend = s.Submission
		}
		h["Auth-Status"] = []string{"OK"}
		h["Auth-Server"] = []string{backend.IP.String()}
		h["Auth-Port"] = []string{strconv.Itoa(backend.Port)}
	})
	mux.HandleFunc("/http", func(w http.ResponseWriter, r *http.Request) {
		if name, secret, ok := r.BasicAuth(); !ok || !right(name, secret) {
			w.Header().Set("WWW-Authenticate", `Basic realm="bench"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	return serveHTTP(ctx, ln, mux)
}
