package gateway

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"postern/config"
	"postern/gateway/route"
	"postern/protocols"
)

// makeOffers makes what each protocol's front doors tell of its backends before a login.
func (g *Gateway) makeOffers(n *generation) {
	n.offers = make(map[string]*protocols.Offers)
	for protocol, p := range lineProtocols {
		if p.ask != nil && slices.ContainsFunc(n.cfg.Listeners, func(l config.Listener) bool { return l.Protocol == protocol }) {
			n.offers[protocol] = protocols.NewOffers(g.log, n.routes.Backends(protocol)...)
		}
	}
}

// watchOffers asks the backends until the generation accepts no more.
func (g *Gateway) watchOffers(n *generation) {
	for protocol, offers := range n.offers {
		p := lineProtocols[protocol]
		ask := func(ctx context.Context, backend string) (protocols.Capabilities, error) {
			return p.ask(ctx, n.routes.Reach(backend))
		}
		if p.asksInside {
			ask = (&insider{desk: g.desk, protocol: protocol, routes: n.routes, ask: p.ask, asked: make(map[string]time.Time)}).asks
		}
		g.servers.Go(func() { offers.Watch(n.accepting, ask) })
	}
}

// insider asks backends that tell what they can do only to who has logged in: as one of the accounts that are led there, and once an hour,
// for it leaves a line in the backend's log.
type insider struct {
	desk     *Desk
	protocol string
	routes   *route.Table
	ask      func(ctx context.Context, r *protocols.Route) (protocols.Capabilities, error)

	mu    sync.Mutex           // guards asked
	asked map[string]time.Time // by backend: when it last answered, or let nobody in
}

const insiderPause = time.Hour

// asks returns nothing where it is too early, or nobody is led there.
func (i *insider) asks(ctx context.Context, backend string) (protocols.Capabilities, error) {
	i.mu.Lock()
	last := i.asked[backend]
	i.mu.Unlock()
	if !last.IsZero() && time.Since(last) < insiderPause {
		return nil, nil
	}
	accounts, err := i.desk.List(ctx)
	if err != nil {
		return nil, err
	}
	r, _ := routeFor(ctx, i.routes, []string{i.protocol}, backend, accounts)
	if r == nil {
		return nil, nil
	}
	list, err := i.ask(ctx, r)
	if err == nil || errors.Is(err, protocols.ErrCredential) { // once a minute it would take us for an attacker
		i.mu.Lock()
		i.asked[backend] = time.Now()
		i.mu.Unlock()
	}
	return list, err
}
