package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"postern/authstore/identity"
	"postern/config"
	"postern/gateway/api"
	"postern/gateway/directory"
	"postern/gateway/notice"
	"postern/gateway/oidcsignin"
	"postern/gateway/ops"
	"postern/gateway/place"
	"postern/gateway/portal"
	"postern/gateway/route"
	"postern/gateway/upstreamtoken"
	"postern/protocols"
	"postern/protocols/davproxy"
)

// server is one front door on one listener.
type server interface {
	// Serve accepts until ctx ends, then waits for its connections, which go on until life ends.
	Serve(ctx, life context.Context, ln net.Listener) error
}

// generation is what one reading of the configuration built. After a reload its connections go on; it accepts no more.
type generation struct {
	cfg       *config.Config
	routes    *route.Table
	keeper    *upstreamtoken.Keeper        // of the tokens that backends want
	offers    map[string]*protocols.Offers // by protocol
	people    *identity.People             // nil: there is no portal
	provider  *oidcsignin.Provider         // where people sign in; nil: here
	directory *directory.Directory         // nil: it checks nobody's password
	atlas     *place.Atlas                 // of the files that are configured
	notices   *notice.Sender               // nil: nobody is sent any
	doors     []door
	ops       *ops.Server
	api       *api.Server    // nil: it is nowhere
	leases    []net.Listener // while it accepts; the last is the operations'

	accepting context.Context // of the front doors
	stop      context.CancelCauseFunc
	operating context.Context // of the operations listener, which goes on while the gateway drains
	stopOps   context.CancelFunc
}

type door struct {
	address string
	server
}

// build makes a generation and opens the sockets that are new in it.
func (g *Gateway) build(ctx context.Context, cfg *config.Config) (*generation, error) {
	keeper, err := g.desk.keeper(cfg, upstreamtoken.Options{Log: g.log, Count: g.metrics.Token, Go: g.servers.Go})
	if err != nil {
		return nil, err
	}
	table, err := buildRoutes(cfg, g.desk, backendTokens{keeper, cfg}, g.log)
	if err != nil {
		return nil, err
	}
	serverTLS, err := g.serverTLS(cfg)
	if err != nil {
		return nil, err
	}
	next := &generation{cfg: cfg, routes: table, keeper: keeper, ops: &ops.Server{Metrics: g.metrics, Ready: g.Ready, Sessions: &g.live, Keys: g.desk.Keyring, Log: g.log}}
	next.accepting, next.stop = context.WithCancelCause(context.Background())
	next.operating, next.stopOps = context.WithCancel(context.Background())
	g.makeOffers(next)
	observer := &journal{Metrics: g.metrics, log: g.log, ours: domainsOf(cfg)}
	if err = g.buildPortal(next); err != nil {
		return nil, err
	}
	if err = g.buildNotices(ctx, next); err != nil {
		return nil, err
	}
	g.buildAPI(next)
	next.ops.API = next.on("operations")
	for _, l := range cfg.Listeners {
		if l.Protocol == portal.Protocol && shared(cfg, davproxy.Protocol, l.Address) != nil {
			continue // served there
		}
		s, err := g.frontDoor(next, &l, serverTLS, observer)
		if err != nil {
			return nil, err
		}
		next.doors = append(next.doors, door{l.Address, s})
	}
	for _, address := range next.addresses() {
		if g.sockets[address] != nil {
			continue
		}
		if g.sockets[address], err = listen(ctx, address); err != nil {
			delete(g.sockets, address)
			key := ""
			if address == cfg.Operations.Address { // the default stands in no file
				key = " (address of [operations])"
			}
			return nil, fmt.Errorf("listen on %s%s: %w", address, key, err)
		}
	}
	return next, nil
}

func (n *generation) addresses() []string {
	var list []string
	for _, d := range n.doors {
		list = append(list, d.address)
	}
	return append(list, n.cfg.Operations.Address)
}

func (g *Gateway) frontDoor(n *generation, l *config.Listener, serverTLS *tls.Config, observer protocols.Observer) (server, error) {
	cfg, router := n.cfg, n.routes
	switch l.Protocol {
	case portal.Protocol:
		return g.pages(n, l, serverTLS)
	case davproxy.Protocol:
		hosts, err := g.hosts(n, l)
		if err != nil {
			return nil, err
		}
		return davproxy.New(davproxy.Options{
			Verifier: g.store, Sessions: &g.live, Router: router, Observer: observer, Log: g.log, Limits: g.limits,
			TrustedProxies: cfg.TrustedProxies, Hosts: hosts, Panicked: g.metrics.Panic,
			TLS: withTLS(l.TLS, serverTLS), Proxies: l.ProxyProtocol, MaxBody: int64(cfg.DAV.MaxBody),
		}), nil
	}
	p := lineProtocols[l.Protocol]
	return &protocols.Server{
		Door: p.door(g, cfg, n.offers[l.Protocol]), Verifier: g.store, Sessions: &g.live, Router: router, Observer: observer, Names: namesOf(cfg),
		Limits: g.limits, Log: g.log, Security: listenerSecurity[l.TLS], TLS: serverTLS, Proxies: l.ProxyProtocol,
		LoginTimeout: cfg.LoginTimeout.Duration(), IdleTimeout: p.idle(cfg), Panicked: g.metrics.Panic,
	}, nil
}

var listenerSecurity = map[string]protocols.Security{
	"implicit": protocols.ImplicitTLS, "starttls": protocols.StartTLS, "none": protocols.PlainText, "insecure": protocols.PlainText,
}

func withTLS(word string, c *tls.Config) *tls.Config {
	if listenerSecurity[word] == protocols.PlainText {
		return nil
	}
	return c
}

func (g *Gateway) serverTLS(cfg *config.Config) (*tls.Config, error) {
	var pairs []pairFiles
	for _, c := range cfg.TLS.Certificates {
		pairs = append(pairs, pairFiles{c.Cert, c.Key})
	}
	certs, err := loadCertificates(pairs, g.log)
	if err != nil {
		return nil, err
	}
	t := tickets{g.desk.Keyring}
	// Records are full from the first on: nobody looks at a mailbox before it is there, and small ones cost each a packet.
	return &tls.Config{MinVersion: cfg.MinTLS(), DynamicRecordSizingDisabled: true, CurvePreferences: cfg.KeyExchanges(), GetCertificate: certs.get,
		WrapSession: t.wrap, UnwrapSession: t.unwrap}, nil
}

// domainsOf tells which domains are ours, as far as the configuration says.
func domainsOf(cfg *config.Config) func(string) bool {
	domains := []string{cfg.DefaultDomain}
	for _, r := range cfg.Routes {
		domains = append(domains, r.Domain)
	}
	return func(d string) bool { return d != "" && slices.Contains(domains, d) }
}

// start lets a generation accept. The caller holds g.mu.
func (g *Gateway) start(n *generation) {
	g.atlas.Store(n.atlas)
	for _, d := range n.doors {
		g.serve(n, d.address, func(ln net.Listener) error { return d.Serve(n.accepting, g.life, ln) }, &g.servers)
	}
	g.watchOffers(n)
	g.watchPeople(n)
	g.watchDirectory(n)
	g.sendNotices(n)
	g.keepTokens(n)
	g.desk.SetPolicies(policiesOf(n.cfg))
	g.keepPolicies(n)
	g.serve(n, n.cfg.Operations.Address, func(ln net.Listener) error { return n.ops.Serve(n.operating, ln) }, &g.operations)
	g.log.Info("serving", "listeners", strings.Join(n.addresses(), " "))
}

func (g *Gateway) serve(n *generation, address string, serve func(net.Listener) error, group *sync.WaitGroup) {
	ln, err := g.sockets[address].lease()
	if err != nil {
		g.log.Error("listen", "listener", address, "err", err)
		return
	}
	n.leases = append(n.leases, ln)
	group.Go(func() {
		if err := serve(ln); err != nil {
			g.log.Error("serve", "listener", address, "err", err)
		}
	})
}

// retire ends a generation's accepting for another to go on.
func (n *generation) retire() {
	n.stop(nil)
	n.stopOps()
	for _, ln := range n.leases {
		ln.Close()
	}
	n.routes.Close()
}

// closeSockets closes those at other addresses.
func (g *Gateway) closeSockets(keep ...string) {
	for address, s := range g.sockets {
		if !slices.Contains(keep, address) {
			s.Close()
			delete(g.sockets, address)
		}
	}
}
