package bench

import (
	"net"
	"net/http"
	"testing"
)

// nginx is sent to another server for SMTP, and nowhere with a wrong password.
func TestAuthServerByProtocol(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &AuthServer{Credentials: []Credential{{Address: "a@example.test", secret: "s %"}},
		Backend: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 143}, Submission: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: 587}}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(t.Context(), ln) }()
	t.Cleanup(func() {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for name, tt := range map[string]struct{ protocol, secret, status, server, port string }{
		"imap":  {"imap", "s%20%25", "OK", "127.0.0.1", "143"},
		"smtp":  {"smtp", "s%20%25", "OK", "127.0.0.2", "587"},
		"wrong": {"smtp", "s", "Invalid login or password", "", ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ln.Addr().String()+"/mail", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Auth-Protocol": {tt.protocol}, "Auth-User": {"a@example.test"}, "Auth-Pass": {tt.secret}}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		h := resp.Header
		if h.Get("Auth-Status") != tt.status || h.Get("Auth-Server") != tt.server || h.Get("Auth-Port") != tt.port {
			t.Errorf("%s: %v, want %+v", name, h, tt)
		}
	}
}
