package oidcsignin

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"time"
)

// The bounds of one question to the provider.
const (
	answerTime = 10 * time.Second
	maxAnswer  = 256 << 10 // bytes, unpacked
)

// newClient makes a client that waits for nobody, reads nothing long, and goes where it was sent and nowhere else.
func newClient(c *tls.Config, timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &bounded{&http.Transport{TLSClientConfig: c, Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSHandshakeTimeout: timeout / 2,
			MaxConnsPerHost: 8, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 64 << 10}},
	}
}

// errLong is of an answer that no honest provider gives.
var errLong = errors.New("its answer is too long")

// bounded cuts answers that are too long.
type bounded struct{ http.RoundTripper }

func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	switch {
	case err != nil:
	case r.Method == http.MethodGet && resp.StatusCode != http.StatusOK: // whoever tells of it would tell the page of an error
		resp.Body.Close()
		resp.Body = http.NoBody
	default:
		resp.Body = &body{resp.Body, maxAnswer}
	}
	return resp, err
}

type body struct {
	io.ReadCloser
	left int
}

func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errLong
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
