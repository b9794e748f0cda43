package davproxy_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAnAnswerIsOnePacket, with its header and its body, also on HTTP/2, where net/http writes them one behind the other.
func TestAnAnswerIsOnePacket(t *testing.T) {
	t.Parallel()
	b := newScripted(t, nil, func(v *visit) bool {
		return v.xml(listOf(responseOf(v.req.URL.Path, "<displayname>Work</displayname>")))
	})
	d := open(t, routes{"calendar": b.route})
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		var socket syscall.RawConn
		d.client = &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: d.ca.Pool}, ForceAttemptHTTP2: h2,
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				nc, err := new(net.Dialer).DialContext(ctx, network, address)
				if err == nil {
					socket, err = nc.(syscall.Conn).SyscallConn()
				}
				return nc, err
			},
		}}
		packets := func() uint32 { // with data, that the client has got
			var info *unix.TCPInfo
			var err error
			if errCtl := socket.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); errCtl != nil || err != nil {
				t.Fatal(errCtl, err)
			}
			return info.Data_segs_in
		}
		least := uint32(100)
		for range 20 { // the first come with what begins a connection
			before := uint32(0)
			if socket != nil {
				before = packets()
			}
			if a := d.want(207, "cal", "PROPFIND", cal+"work/", askAll); (a.ProtoMajor == 2) != h2 {
				t.Fatalf("%s: got %s", name, a.Proto)
			}
			least = min(least, packets()-before)
		}
		if least != 1 {
			t.Errorf("%s: %d packets", name, least)
		}
		d.client.CloseIdleConnections()
	}
}
