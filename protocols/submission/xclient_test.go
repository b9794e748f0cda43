package submission

import (
	"net/netip"
	"testing"

	"postern/protocols"
)

// A backend is told what it takes, in a form that can hold nothing more than a value.
func TestXCLIENT(t *testing.T) {
	const all = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN"
	for name, tt := range map[string]struct {
		said, client, host, login string
		want                      string
	}{
		"all":              {all, "192.0.2.7:4000", "client.example.test", "alice", " NAME=[UNAVAILABLE] ADDR=192.0.2.7 PORT=4000 PROTO=ESMTP HELO=client.example.test LOGIN=alice"},
		"some":             {"XCLIENT ADDR LOGIN", "192.0.2.7:4000", "client.example.test", "alice", " ADDR=192.0.2.7 LOGIN=alice"},
		"IPv6":             {"XCLIENT ADDR LOGIN", "[2001:db8::7%eth0]:4000", "", "a", " ADDR=IPV6:2001:db8::7 LOGIN=a"},
		"IPv4 in IPv6":     {"XCLIENT ADDR LOGIN", "[::ffff:192.0.2.7]:4000", "", "a", " ADDR=192.0.2.7 LOGIN=a"},
		"odd hosts: blank": {"XCLIENT HELO LOGIN", "", "a LOGIN=bob", "a", " LOGIN=a"},
		"odd hosts: =":     {"XCLIENT HELO LOGIN", "", "a=b", "a", " LOGIN=a"},
		"odd hosts: +":     {"XCLIENT HELO LOGIN", "", "a+20b", "a", " LOGIN=a"},
		"odd logins":       {"XCLIENT LOGIN", "", "", "a b\r\n+=\u00e4", " LOGIN=a+20b+0D+0A+2B+3D+C3+A4"},
	} {
		c := &protocols.Conn{Host: tt.host}
		c.Client, _ = netip.ParseAddrPort(tt.client)
		s := &server{said: said(tt.said + "\n")}
		if got := s.xclient(&protocols.Route{XClient: true, Login: tt.login}, c, c.Client); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}
