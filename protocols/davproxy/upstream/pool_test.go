package upstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/testlab"
)

// moody is a backend that answers each request with its own path, in any way that HTTP allows, and in some that it does not. What it
// says besides is nobody's answer.
type moody struct {
	t    *testing.T
	seen sync.Map // PUT's paths
}

const stray = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nSTRAY"

func (m *moody) serve(nc net.Conn) {
	defer nc.Close()
	for r := bufio.NewReader(nc); ; {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		path := req.URL.Path
		if req.Method == "PUT" {
			if _, twice := m.seen.LoadOrStore(path, true); twice {
				m.t.Errorf("%s came twice", path)
			}
		}
		mood := rand.IntN(16)
		switch {
		case mood == 0: // before it takes the body
			fmt.Fprintf(nc, "HTTP/1.1 403 x\r\nX-Of: %s\r\nContent-Length: %d\r\n\r\n%s", path, len(path), path)
			io.Copy(io.Discard, req.Body)
			continue
		case mood == 1:
			return
		case mood == 14 && req.ContentLength != 0: // in the middle of the body
			io.CopyN(io.Discard, req.Body, 100)
			return
		case mood == 15 && req.ContentLength > 0: // thanks too early
			fmt.Fprintf(nc, "HTTP/1.1 200 x\r\nX-Of: %s\r\nContent-Length: %d\r\n\r\n", path, len(path))
			io.Copy(io.Discard, req.Body)
			io.WriteString(nc, path)
			continue
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		if len(body) > 0 && !bytes.Equal(body, bytes.Repeat([]byte(path), len(body)/len(path))) {
			m.t.Errorf("the body of %s is another's", path)
		}
		text := strings.Repeat(path, 1+rand.IntN(4)*rand.IntN(2000))
		chunked := fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x;a=b\r\n%s\r\n%x\r\n%s\r\n0\r\nT: u\r\n\r\n", len(path), path, len(text), text)
		plain := fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(text), text)
		start := fmt.Sprintf("HTTP/1.1 200 x\r\nX-Of: %s\r\n", path)
		if req.Method == "HEAD" {
			plain, chunked = fmt.Sprintf("Content-Length: %d\r\n\r\n", len(text)), "Transfer-Encoding: chunked\r\n\r\n"
		}
		switch mood {
		case 2:
			io.WriteString(nc, start+"Connection: close\r\n"+plain)
			return
		case 3:
			io.WriteString(nc, start+chunked+stray)
		case 4:
			io.WriteString(nc, start+plain+stray)
		case 5: // cut short
			whole := start + plain
			io.WriteString(nc, whole[:rand.IntN(len(whole))])
			return
		case 6:
			io.WriteString(nc, start+plain)
			return
		case 7:
			io.WriteString(nc, "HTTP/1.1 102 x\r\nX-Of: STRAY\r\n\r\n"+start+plain)
		case 8:
			io.WriteString(nc, start)
			time.Sleep(rand.N(3 * time.Millisecond))
			io.WriteString(nc, plain)
		case 9, 10:
			io.WriteString(nc, start+chunked)
		default:
			io.WriteString(nc, start+plain)
		}
	}
}

// TestEachRequestGetsItsOwnAnswer whatever the backend does, and whoever breaks off.
func TestEachRequestGetsItsOwnAnswer(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %t", secure), func(t *testing.T) {
			t.Parallel()
			ca := testlab.NewCA(t)
			_, _, cert := ca.Issue()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			address := ln.Addr().String()
			if secure {
				ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}})
			}
			m := &moody{t: t}
			var serving sync.WaitGroup
			serving.Go(func() {
				for {
					nc, err := ln.Accept()
					if err != nil {
						return
					}
					serving.Go(func() { m.serve(nc) })
				}
			})
			u := New(5*time.Second, func(ctx context.Context) (net.Conn, error) {
				if secure {
					return (&tls.Dialer{Config: &tls.Config{RootCAs: ca.Pool, ServerName: "127.0.0.1"}}).DialContext(ctx, "tcp", address)
				}
				return new(net.Dialer).DialContext(ctx, "tcp", address)
			})
			const many, each = 40, 15
			var whole atomic.Int64
			var clients sync.WaitGroup
			for i := range many {
				clients.Go(func() {
					for j := range each {
						if askMoody(t, u, fmt.Sprintf("/account%d/%d/", i, j)) {
							whole.Add(1)
						}
					}
				})
			}
			clients.Wait()
			if len(u.idle) > maxIdle {
				t.Errorf("%d connections are kept", len(u.idle))
			}
			u.Close()
			ln.Close()
			serving.Wait() // no connection is left open
			if n := whole.Load(); n < many*each/8 {
				t.Errorf("%d of %d got a whole answer", n, many*each)
			}
		})
	}
}

// again is a body that can be sent once more.
type again struct{ bytes.Reader }

func (*again) Close() error { return nil }

// askMoody sends a request, breaks it off now and then, and tells whether its answer came whole.
func askMoody(t *testing.T, u *Transport, path string) (whole bool) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	method := []string{"GET", "HEAD", "PUT", "PUT", "PROPFIND"}[rand.IntN(5)]
	req, err := http.NewRequestWithContext(ctx, method, "http://backend"+path, nil)
	if err != nil {
		t.Error(err)
		return false
	}
	if method == "PUT" || method == "PROPFIND" {
		text := bytes.Repeat([]byte(path), 1+rand.IntN(2)*rand.IntN(5000))
		req.Body, req.ContentLength = &again{*bytes.NewReader(text)}, int64(len(text))
		if method == "PUT" && rand.IntN(4) == 0 {
			req.ContentLength = -1
		}
	}
	if rand.IntN(6) == 0 {
		defer time.AfterFunc(rand.N(2*time.Millisecond), cancel).Stop()
	}
	resp, err := u.RoundTrip(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	if of := resp.Header.Get("X-Of"); of != path {
		t.Errorf("%s of %s got the answer of %q", method, path, of)
		return false
	}
	switch rand.IntN(8) {
	case 0: // leaves all of it
		return false
	case 1:
		io.CopyN(io.Discard, resp.Body, rand.Int64N(100))
		return false
	case 2:
		cancel()
	}
	text, err := io.ReadAll(resp.Body)
	if strings.ReplaceAll(string(text), path, "") != "" && err == nil {
		t.Errorf("%s of %s got %.100q", method, path, text)
	}
	return err == nil
}
