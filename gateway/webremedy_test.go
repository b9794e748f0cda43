package gateway

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"postern/internal/testlab"
)

// Whoever sets up a provider hears what to do about it.
func TestWebRemedy(t *testing.T) {
	t.Parallel()
	ca := testlab.NewCA(t)
	_, _, cert := ca.Issue()
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.Config.ErrorLog = nil
	s.StartTLS()
	defer s.Close()
	hangs, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := free.Addr().String()
	free.Close()
	for name, tt := range map[string]struct {
		url  string
		tls  *tls.Config
		want string
	}{
		"unknown authority": {s.URL, &tls.Config{}, "ca_file"},
		"another name":      {s.URL, &tls.Config{RootCAs: ca.Pool, ServerName: "other.example.test"}, "for another name"},
		"nobody":            {"https://" + nobody, &tls.Config{}, "nobody listens there"},
		"it hangs":          {"https://" + hangs.Addr().String(), &tls.Config{}, "does not answer in time"},
	} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: tt.tls}, Timeout: time.Second}
		resp, err := client.Get(tt.url)
		if err == nil {
			resp.Body.Close()
			t.Errorf("%s: it answers", name)
		} else if got := webRemedy(err); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q of %v", name, got, err)
		}
	}
}
