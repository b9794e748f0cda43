package davproxy_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"postern/authstore"
	"postern/internal/testlab"
	"postern/protocols"
)

// newSecure is a scripted backend over TLS, and the way to it.
func newSecure(t *testing.T, handle func(*visit) bool) (*scripted, func(authstore.Grant) *protocols.Route) {
	t.Helper()
	ca := testlab.NewCA(t)
	_, _, cert := ca.Issue()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	b := newScripted(t, ln, handle)
	cfg := &tls.Config{RootCAs: ca.Pool}
	return b, func(g authstore.Grant) *protocols.Route {
		r := b.route(g)
		r.Security, r.TLS = protocols.ImplicitTLS, cfg
		return r
	}
}

// together has what is written meanwhile arrive at once.
func together(t *testing.T, nc net.Conn, write func()) {
	raw, err := nc.(*tls.Conn).NetConn().(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Error(err)
		return
	}
	cork := func(on int) {
		if err := raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, on) }); err != nil {
			t.Error(err)
		}
	}
	cork(1)
	write()
	cork(0)
}

// TestWhatTLSReadAhead is no answer either: it is not in the socket any more, and nobody has asked for it.
func TestWhatTLSReadAhead(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ method, answer, more string }{
		"behind no body":     {"DELETE", "HTTP/1.1 204 x\r\n\r\n", "HTTP/1.1 403 x\r\nContent-Length: 0\r\n\r\n"},
		"a body by HEAD":     {"HEAD", "HTTP/1.1 404 x\r\nContent-Length: 38\r\n\r\n", "HTTP/1.1 403 x\r\nContent-Length: 0\r\n\r\n"},
		"behind the trailer": {"GET", "HTTP/1.1 404 x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 403 x\r\nContent-Length: 0\r\n\r\n"},
		"a goodbye":          {"GET", "HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var first atomic.Bool
			_, route := newSecure(t, func(v *visit) bool {
				if !first.CompareAndSwap(false, true) {
					if v.nth != 1 {
						t.Error("the connection was used again")
					}
					return v.event("2")
				}
				together(t, v.Conn, func() {
					io.WriteString(v, tt.answer)
					if tt.more == "" {
						v.Conn.(*tls.Conn).CloseWrite()
					}
					io.WriteString(v, tt.more)
				})
				return true
			})
			d := open(t, routes{"calendar": route})
			want := 404
			fmt.Sscanf(tt.answer, "HTTP/1.1 %d", &want)
			d.want(want, "cal", tt.method, cal+"work/1.ics", "")
			if a := d.want(200, "cal", "GET", cal+"work/2.ics", ""); !strings.Contains(a.text, "UID:2") {
				t.Errorf("the second answer is %q", a.text)
			}
		})
	}
}

// TestAnAnswerOverTLSSaysItsEnd: that a connection ends may be the doing of somebody in between, who would cut an event short.
func TestAnAnswerOverTLSSaysItsEnd(t *testing.T) {
	t.Parallel()
	for _, header := range []string{"", fmt.Sprintf("Content-Length: %d\r\n", len(testlab.Event("1"))), "Transfer-Encoding: chunked\r\n"} {
		_, route := newSecure(t, func(v *visit) bool {
			text := testlab.Event("1")
			text = text[:len(text)/2]
			if strings.HasPrefix(header, "Transfer") {
				text = fmt.Sprintf("%x\r\n%s\r\n", len(text), text)
			}
			v.say("HTTP/1.1 200 OK\r\nContent-Type: text/calendar\r\n%s\r\n%s", header, text)
			v.Conn.(*tls.Conn).NetConn().Close()
			return false
		})
		d := open(t, routes{"calendar": route})
		got := <-d.start(d.client, "cal", "GET", cal+"work/1.ics", nil)
		if got.err != nil {
			continue
		}
		text, err := io.ReadAll(got.Body)
		got.Body.Close()
		if got.StatusCode == 200 && err == nil {
			t.Errorf("%q: half an event was passed as whole: %q", header, text)
		}
	}
}
