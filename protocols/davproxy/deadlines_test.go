package davproxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// oneConn is a listener with a single connection.
type oneConn struct {
	nc     chan net.Conn
	closed chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case nc := <-l.nc:
		return nc, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *oneConn) Close() error   { close(l.closed); return nil }
func (l *oneConn) Addr() net.Addr { return &net.IPAddr{} }

// TestWaitsForAClient: it may rest for a minute in each wait, and what one request waited for is no matter to the next one.
func TestWaitsForAClient(t *testing.T) {
	const soon, late = stallTime - time.Second, stallTime + time.Second
	const large, get = 3 * 32 << 10, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	put := func(length int) string {
		return fmt.Sprintf("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", length)
	}
	for name, tt := range map[string]struct {
		client func(net.Conn, *bufio.Reader) error // an error: it was cut
		works  time.Duration                       // the handler, before each 32 KiB
		reads  bool                                // the handler reads the body
		cut    time.Duration                       // when; 0: never
	}{
		"takes it at once": {client: func(nc net.Conn, r *bufio.Reader) error { return exchangeSlowly(nc, r, get, 0) }},
		"takes it slowly":  {client: func(nc net.Conn, r *bufio.Reader) error { return exchangeSlowly(nc, r, get, soon) }},
		"takes it slowly, and sent a body that nobody reads": {client: func(nc net.Conn, r *bufio.Reader) error { return exchangeSlowly(nc, r, put(1)+"x", soon) }},
		"takes it too slowly":                                {client: func(nc net.Conn, r *bufio.Reader) error { return exchangeSlowly(nc, r, get, late) }, cut: stallTime},
		"sends slowly": {reads: true, client: func(nc net.Conn, r *bufio.Reader) error {
			io.WriteString(nc, put(3))
			for range 3 {
				time.Sleep(soon)
				io.WriteString(nc, "x")
			}
			return exchangeSlowly(nc, r, "", 0)
		}},
		"stops sending": {reads: true, cut: stallTime, client: func(nc net.Conn, r *bufio.Reader) error {
			io.WriteString(nc, put(3)+"x")
			return exchangeSlowly(nc, r, "", 0)
		}},
		"waits to be told to go on, and does not listen": {reads: true, cut: stallTime, client: func(nc net.Conn, r *bufio.Reader) error {
			io.WriteString(nc, strings.Replace(put(3), "Host", "Expect: 100-continue\r\nHost", 1))
			time.Sleep(10 * time.Minute)
			return exchangeSlowly(nc, r, "", 0)
		}},
		"asks again, in a while": {reads: true, client: func(nc net.Conn, r *bufio.Reader) error {
			for _, pause := range []time.Duration{0, late, soon, keepTime - time.Second} {
				time.Sleep(pause)
				if err := exchangeSlowly(nc, r, put(1)+"x", 0); err != nil {
					return err
				}
			}
			return nil
		}},
		"asks again, and it takes a while": {reads: true, works: 2 * late, client: func(nc net.Conn, r *bufio.Reader) error {
			for range 2 {
				if err := exchangeSlowly(nc, r, put(1)+"x", soon/4); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		for server, standing := range map[string]time.Duration{"": 0, ", where http.Server has a deadline": stallTime} {
			t.Run(name+server, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ours, theirs := net.Pipe()
					ln := &oneConn{make(chan net.Conn, 1), make(chan struct{})}
					ln.nc <- theirs
					began, ended := time.Now(), make(chan time.Duration, 1)
					srv := &http.Server{ReadHeaderTimeout: headerTime, IdleTimeout: keepTime, WriteTimeout: standing, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
						w := newWriter(rw, r)
						defer w.finish()
						var err error
						if tt.reads {
							_, err = io.Copy(io.Discard, &body{from: r.Body, w: w, up: new(atomic.Int64)})
						}
						for i := 0; err == nil && i < large; i += 32 << 10 {
							time.Sleep(tt.works)
							if _, err = w.Write(make([]byte, 32<<10)); err == nil {
								err = r.Context().Err()
							}
						}
						if err != nil {
							ended <- time.Since(began)
							panic(http.ErrAbortHandler)
						}
					})}
					go srv.Serve(ln)
					err := tt.client(ours, bufio.NewReaderSize(ours, 16))
					ours.Close()
					srv.Close()
					synctest.Wait()
					select {
					case after := <-ended:
						if after != tt.cut {
							t.Errorf("cut after %v, want %v", after, tt.cut)
						}
					default:
						if err != nil || tt.cut > 0 {
							t.Errorf("got %v, want it cut after %v", err, tt.cut)
						}
					}
				})
			})
		}
	}
}

// exchangeSlowly sends a request, and rests before each 32 KiB of the answer.
func exchangeSlowly(nc net.Conn, r *bufio.Reader, text string, rests time.Duration) error {
	go io.WriteString(nc, text)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	for err == nil {
		time.Sleep(rests)
		_, err = io.CopyN(io.Discard, resp.Body, 32<<10)
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// TestAStreamMayLast: http.Server's own deadline would end a stream of HTTP/2 that nobody writes to.
func TestAStreamMayLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		ln := &oneConn{make(chan net.Conn, 1), make(chan struct{})}
		ln.nc <- theirs
		srv := &http.Server{WriteTimeout: stallTime, Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w := newWriter(rw, r)
			defer w.finish()
			for range 3 {
				time.Sleep(stallTime + time.Second)
				io.WriteString(w, "x")
			}
		})}
		srv.Protocols.SetUnencryptedHTTP2(true)
		go srv.Serve(ln)
		client := &http.Transport{Protocols: srv.Protocols, DialContext: func(context.Context, string, string) (net.Conn, error) { return ours, nil }}
		resp, err := (&http.Client{Transport: client}).Get("http://x/")
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(resp.Body); string(text) != "xxx" || err != nil {
			t.Errorf("got %q, %v", text, err)
		}
		client.CloseIdleConnections()
		srv.Close()
	})
}

// TestTheClientLeaves while the backend is waited for, however long it took to verify the request.
func TestTheClientLeaves(t *testing.T) {
	for _, verifying := range []time.Duration{0, 2 * atOnce} {
		synctest.Test(t, func(t *testing.T) {
			client, leave := context.WithCancel(t.Context())
			r, err := http.NewRequestWithContext(client, "GET", "/", nil)
			if err != nil {
				t.Fatal(err)
			}
			w := newWriter(&sink{h: make(http.Header)}, r)
			defer w.finish()
			time.Sleep(verifying)
			var gone error
			w.deadlines.watch(client, func(cause error) { gone = cause })
			time.Sleep(2 * atOnce)
			leave()
			synctest.Wait()
			if gone != context.Canceled {
				t.Errorf("verified in %v: told %v", verifying, gone)
			}
		})
	}
}
