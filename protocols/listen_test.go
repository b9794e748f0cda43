package protocols

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// header writes a PROXY header as a load balancer does.
func header(t *testing.T, version byte, command proxyproto.ProtocolVersionAndCommand, from, to string) string {
	t.Helper()
	h := proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from)), net.TCPAddrFromAddrPort(netip.MustParseAddrPort(to)))
	h.Command = command
	var b bytes.Buffer
	if _, err := h.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestListener(t *testing.T) {
	for name, tt := range map[string]struct {
		proxies []netip.Prefix
		sent    string
		client  string // "": the peer itself
		read    string
		refused bool
	}{
		"no proxies":              {nil, "a NOOP", "", "a NOOP", false},
		"no proxies, a header":    {nil, "PROXY TCP4 192.0.2.7 192.0.2.1 4000 993\r\n", "", "PROXY TCP4 192.0.2.7 192.0.2.1 4000 993\r\n", false},
		"version 1":               {loopback, "PROXY TCP4 192.0.2.7 192.0.2.1 4000 993\r\na NOOP", "192.0.2.7:4000", "a NOOP", false},
		"version 1, IPv6":         {loopback, "PROXY TCP6 2001:db8::7 2001:db8::1 4000 993\r\na NOOP", "[2001:db8::7]:4000", "a NOOP", false},
		"version 1, unknown":      {loopback, "PROXY UNKNOWN\r\na NOOP", "", "a NOOP", false},
		"version 2":               {loopback, header(t, 2, proxyproto.PROXY, "192.0.2.7:4000", "192.0.2.1:993") + "a NOOP", "192.0.2.7:4000", "a NOOP", false},
		"version 2, IPv6":         {loopback, header(t, 2, proxyproto.PROXY, "[2001:db8::7]:4000", "[2001:db8::1]:993") + "a NOOP", "[2001:db8::7]:4000", "a NOOP", false},
		"version 2, health check": {loopback, header(t, 2, proxyproto.LOCAL, "192.0.2.7:4000", "192.0.2.1:993") + "a NOOP", "", "a NOOP", false},
		"no header":               {loopback, "a NOOP\r\n", "", "", true},
		"half a header":           {loopback, "PROXY TCP4 192.0.2.7", "", "", true},
		"bad address":             {loopback, "PROXY TCP4 192.0.2.777 192.0.2.1 4000 993\r\n", "", "", true},
		"endless header":          {loopback, "PROXY " + string(bytes.Repeat([]byte("x"), 1000)), "", "", true},
		"huge version 2":          {loopback, string(proxyproto.SIGV2) + "\x21\x11\xff\xff" + string(bytes.Repeat([]byte("x"), 1000)), "", "", true},
		"nothing":                 {loopback, "", "", "", true},
		"not one of the proxies":  {[]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, "PROXY TCP4 192.0.2.7 192.0.2.1 4000 993\r\na NOOP", "", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tcp, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			refused := make(chan error, 1)
			ln := &Listener{Listener: tcp, Proxies: tt.proxies, Refused: func(_ net.Addr, err error) { refused <- err }}
			type accepted struct {
				client, read string
			}
			got := make(chan accepted, 1)
			go func() {
				for {
					nc, err := ln.Accept()
					if err != nil {
						return
					}
					client := nc.RemoteAddr().String()
					b, _ := io.ReadAll(nc)
					nc.Close()
					got <- accepted{client, string(b)}
				}
			}()
			nc, err := net.Dial("tcp", tcp.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(nc, tt.sent)
			nc.(*net.TCPConn).CloseWrite()
			io.ReadAll(nc) // until it is closed
			tcp.Close()
			if tt.refused {
				if err := <-refused; err == nil {
					t.Error("refused without a reason")
				}
				return
			}
			want := accepted{tt.client, tt.read}
			if want.client == "" {
				want.client = nc.LocalAddr().String()
			}
			if a := <-got; a != want {
				t.Errorf("got %+v, want %+v", a, want)
			}
		})
	}
}

func TestSilentLoadBalancer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		p := &proxied{Conn: server, refused: func(net.Addr, error) {}}
		began := time.Now()
		if _, err := p.Read(make([]byte, 1)); err == nil || time.Since(began) != headerTime {
			t.Errorf("Read: %v after %v", err, time.Since(began))
		}
	})
}

// net/http serves the listener as it is, and the client's address comes through.
func TestListenerServesHTTP(t *testing.T) {
	t.Parallel()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) })}
	go srv.Serve(&Listener{Listener: tcp, Proxies: loopback})
	defer srv.Close()
	nc, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	io.WriteString(nc, "PROXY TCP4 192.0.2.7 192.0.2.1 4000 443\r\nGET / HTTP/1.0\r\n\r\n")
	if got, err := io.ReadAll(nc); !bytes.HasSuffix(got, []byte("192.0.2.7:4000")) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestAcceptErrorsPass(t *testing.T) {
	broken := errors.New("no descriptors left")
	if _, err := (&Listener{Listener: failing{err: broken}}).Accept(); err != broken {
		t.Errorf("Accept = %v", err)
	}
}

type failing struct {
	net.Listener
	err error
}

func (f failing) Accept() (net.Conn, error) { return nil, f.err }

// Connections that nobody logs in on have their place until they are closed, by their client's network; those of HTTP proxies by none.
func TestListenerCounts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		limits  *Limits
		proxies []netip.Prefix
		sent    string
		trusted TrustedProxies
		want    int // that are served at once, of three
	}{
		"by network":              {&Limits{PreAuthPerNetwork: 2}, nil, "x", nil, 2},
		"in all":                  {&Limits{PreAuth: 2}, nil, "x", nil, 2},
		"behind a load balancer":  {&Limits{PreAuthPerNetwork: 2}, loopback, "PROXY TCP4 192.0.2.7 192.0.2.1 4000 443\r\nx", nil, 2},
		"behind an HTTP proxy":    {&Limits{PreAuthPerNetwork: 2}, nil, "x", loopback, 3},
		"room for all":            {&Limits{PreAuthPerNetwork: 3}, nil, "x", nil, 3},
		"a network beside others": {&Limits{PreAuthPerNetwork: 2}, nil, "x", TrustedProxies{netip.MustParsePrefix("192.0.2.0/24")}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tcp, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer tcp.Close()
			ln := &Listener{Listener: tcp, Proxies: tt.proxies, Limits: tt.limits, TrustedProxies: tt.trusted}
			go func() {
				for {
					nc, err := ln.Accept()
					if err != nil {
						return
					}
					go func() {
						defer nc.Close()
						io.Copy(nc, nc)
					}()
				}
			}()
			served := func() (n int, close func()) {
				var all []net.Conn
				for range 3 {
					nc, err := net.Dial("tcp", tcp.Addr().String())
					if err != nil {
						t.Fatal(err)
					}
					all = append(all, nc)
					io.WriteString(nc, tt.sent)
					nc.SetReadDeadline(time.Now().Add(10 * time.Second))
					nc.Read(make([]byte, 1)) // until it is served, or cut
				}
				for _, nc := range all {
					io.WriteString(nc, "x")
					if _, err := nc.Read(make([]byte, 1)); err == nil {
						n++
					}
				}
				return n, func() {
					for _, nc := range all {
						nc.Close()
					}
				}
			}
			for range 2 { // the places are given back
				n, closeAll := served()
				if n != tt.want {
					t.Errorf("%d are served, want %d", n, tt.want)
				}
				closeAll()
				for left := true; left; time.Sleep(time.Millisecond) {
					tt.limits.mu.Lock()
					left = tt.limits.waiting.Len() > 0
					tt.limits.mu.Unlock()
				}
			}
		})
	}
}
