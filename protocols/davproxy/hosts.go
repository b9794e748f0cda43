package davproxy

import (
	"net"
	"net/http"
	"strings"
	"time"
)

// hostTime is how long a request to one of Options.Hosts may take, with its body and its answer: they are forms and pages.
const hostTime = 30 * time.Second

// hostName is the name in a Host header as Options.Hosts has it.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// serveHost leads a request to another handler than DAV's. Its connection counts as one that has not logged in, for that is what it is here.
// Over which connection it came is no matter: a browser may use one that it made for another name of the certificate.
func (s *Server) serveHost(c *conn, w http.ResponseWriter, r *http.Request, h http.Handler) {
	if c.locate(s.o.TrustedProxies.Client(r)) != nil {
		w.Header().Set("Connection", "close")
		w.Header().Set("Retry-After", "60")
		http.Error(w, "Too many connections from your network. Try again in a minute.", http.StatusServiceUnavailable)
		return
	}
	ctl, until := http.NewResponseController(w), time.Now().Add(hostTime)
	ctl.SetReadDeadline(until) // a server without deadlines has none
	ctl.SetWriteDeadline(until)
	h.ServeHTTP(w, r)
}
