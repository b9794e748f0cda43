package testlab

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// DNS starts a dnsmasq that knows what lines of its configuration say ("host-record=", "srv-host=", "txt-record=") of names in .test, and nothing else, and returns its address.
func DNS(t testing.TB, lines ...string) string {
	t.Helper()
	Need(t, "dnsmasq")
	dir, port := Dir(t), Ports(t, 1)[0]
	config := write(t, fmt.Sprintf("port=%d\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nlocal=/test/\nhost-record=ready.test,127.0.0.1\npid-file\nuser=\ngroup=\n%s\n", port, strings.Join(lines, "\n")), dir, "dnsmasq.conf")
	address := local(port)
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	serve(t, "dnsmasq", dir, launch{
		argv: []string{find("dnsmasq"), "--keep-in-foreground", "--log-facility=-", "--conf-file=" + config},
		ready: func() error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_, err := resolver.LookupHost(ctx, "ready.test.")
			return err
		},
	})
	return address
}
