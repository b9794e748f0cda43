package protocols

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// TrustedProxies are the networks of HTTP proxies whose X-Forwarded-For names the client.
type TrustedProxies []netip.Prefix

// Client is the address of a request's client; zero: it has none. Only proxies that we trust may name another one than their own; what
// stands before the first address that is none of them, seen from our end, was written by somebody else.
func (ps TrustedProxies) Client(r *http.Request) netip.AddrPort {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.AddrPort{}
	}
	client := Unmapped(remote)
	if !ps.Trusts(client.Addr()) {
		return client
	}
	told := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for _, field := range slices.Backward(told) {
		a, err := netip.ParseAddr(strings.TrimSpace(field))
		if err != nil {
			break
		}
		client = netip.AddrPortFrom(a.Unmap().WithZone(""), 0)
		if !ps.Trusts(client.Addr()) {
			break
		}
	}
	return client
}

// Trusts reports whether an unmapped address is one of such a proxy.
func (ps TrustedProxies) Trusts(a netip.Addr) bool {
	return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Unmapped is an address in the form in which it is compared.
func Unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
