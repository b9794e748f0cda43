// Package gateway builds Postern from its configuration and runs it: stores, listeners, front doors, routes, operations. It
// reloads without closing a connection and drains before it stops. What decides a login is authstore; what speaks to
// clients and backends is protocols.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postern/authstore"
	"postern/authstore/apitoken"
	"postern/config"
	"postern/gateway/live"
	"postern/gateway/ops"
	"postern/gateway/place"
	"postern/protocols"
	"postern/protocols/davproxy"
)

// Gateway is one running Postern.
type Gateway struct {
	log        *slog.Logger
	desk       *Desk
	store      *authstore.Store
	live       live.Registry
	limits     *protocols.Limits
	metrics    *ops.Metrics
	apiTokens  *apitoken.Tokens
	draining   atomic.Bool
	toldOpen   atomic.Int64                // when open sessions were last told to be in use, in Unix seconds; 0: never
	atlas      atomic.Pointer[place.Atlas] // of the generation that accepts
	servers    sync.WaitGroup              // front doors of all generations, with their connections
	operations sync.WaitGroup              // the operations listeners of all generations, keepMemory and keepCores

	mu      sync.Mutex      // guards the fields below
	life    context.Context // of the connections; set by Run
	sockets map[string]*socket
	current *generation
}

// New opens the stores and all listeners; nothing is served before Run.
func New(ctx context.Context, cfg *config.Config, log *slog.Logger) (*Gateway, error) {
	g := &Gateway{log: log, sockets: make(map[string]*socket), limits: &protocols.Limits{
		PreAuth: cfg.Limits.Preauth, PreAuthPerNetwork: cfg.Limits.PreauthPerNetwork, Sessions: cfg.Limits.Sessions}}
	g.metrics = ops.NewMetrics(ops.Gauges{Sessions: g.live.Count, FeedLag: func() time.Duration { return g.store.Lag() }})
	var err error
	if g.desk, err = openDesk(ctx, cfg, deskOptions{actor: authstore.Actor{Name: "gateway"}, log: log, ballast: true,
		changed: func() { g.store.Poke() }}); err != nil {
		return nil, err
	}
	g.store = authstore.New(authstore.Options{
		Truth: g.desk.truth, Cache: g.desk.sharedCache(), Sessions: &g.live, Keys: g.desk.Keyring(), Names: namesOf(cfg), Log: log,
		SessionGrace: cfg.Store.SessionGrace.Duration(), StaleGrace: cfg.Store.StaleGrace.Duration(), Observe: g.metrics.Verify,
		Operator: func(a netip.Addr) string { return g.atlas.Load().Operator(a) },
	})
	g.apiTokens = newAPITokens(g.desk)
	if g.current, err = g.build(ctx, cfg); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// Close closes what New opened, for a gateway that does not Run.
func (g *Gateway) Close() error {
	g.closeSockets()
	return g.desk.Close()
}

// Run serves until ctx ends, then drains and closes everything. It may be called once.
func (g *Gateway) Run(ctx context.Context) error {
	life, endLife := context.WithCancel(context.WithoutCancel(ctx))
	defer endLife()
	nodeCtx, endNode := context.WithCancel(context.WithoutCancel(ctx))
	defer endNode()
	node := make(chan error, 1)
	go func() { node <- g.store.Run(nodeCtx) }()
	g.operations.Go(func() { keepMemory(nodeCtx) })
	g.operations.Go(func() { keepCores(nodeCtx) })
	g.mu.Lock()
	g.life = life
	g.start(g.current)
	g.mu.Unlock()

	var failed error
	select {
	case <-ctx.Done():
	case failed = <-node: // it only returns when it can't go on
	}
	g.drain()
	endLife()
	g.servers.Wait()
	g.current.stopOps()
	endNode()
	g.operations.Wait()
	if failed == nil {
		failed = <-node
	}
	g.log.Info("stopped")
	return errors.Join(failed, g.Close())
}

// drain closes the listeners, ends the mail sessions over half of the grace, lets requests under way finish, and returns when all have
// left, or after the grace.
func (g *Gateway) drain() {
	g.draining.Store(true)
	g.mu.Lock()
	defer g.mu.Unlock()
	grace := g.current.cfg.ShutdownGrace.Duration()
	g.log.Info("draining", "sessions", g.live.Count(), "grace", grace.String())
	g.current.stop(protocols.ErrDraining)
	g.current.routes.Close()
	g.closeSockets(g.current.cfg.Operations.Address)
	g.live.Drain(func(protocol string) bool { return protocol != davproxy.Protocol }, grace/2)
	ended := make(chan struct{})
	go func() { g.servers.Wait(); close(ended) }()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		g.log.Warn("the grace is over; what is left is cut", "sessions", g.live.Count())
	}
}

// Ready says why the gateway takes no logins now; nil: it does.
func (g *Gateway) Ready() error {
	if g.draining.Load() {
		return errors.New("draining")
	}
	return g.store.Ready()
}

// Reload takes a configuration that was read again, and the key file. On an error the old one stays in force. Open connections go
// on as they were accepted.
func (g *Gateway) Reload(ctx context.Context, cfg *config.Config) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining.Load() {
		return errors.New("the gateway is shutting down")
	}
	old := g.current
	if err := sameFoundation(old.cfg, cfg); err != nil {
		return err
	}
	keys, err := readKeys(cfg.KeyFile())
	if err != nil {
		return err
	}
	next, err := g.build(ctx, cfg)
	if err == nil {
		err = g.store.SetKeys(keys)
	}
	if err == nil {
		g.desk.SetKeys(keys) // which opens stored credentials
	}
	if err != nil {
		g.closeSockets(old.addresses()...)
		return err
	}
	old.retire()
	g.current = next
	g.start(next)
	g.closeSockets(next.addresses()...)
	return nil
}

// sameFoundation refuses what can't change while the gateway runs.
func sameFoundation(old, next *config.Config) error {
	var changed []string
	for _, part := range []struct {
		name      string
		old, next any
	}{
		{"[store]", old.Store, next.Store},
		{"[redis]", old.Redis, next.Redis},
		{"[limits]", old.Limits, next.Limits},
		{"default_domain", old.DefaultDomain, next.DefaultDomain},
		{"plus_addressing", old.PlusAddressing, next.PlusAddressing},
		{"whether there are [notices]", old.Notices.Address != "", next.Notices.Address != ""},
	} {
		if fmt.Sprint(part.old) != fmt.Sprint(part.next) {
			changed = append(changed, part.name)
		}
	}
	if changed != nil {
		return fmt.Errorf("%s can't change while the gateway runs; restart it", strings.Join(changed, ", "))
	}
	return nil
}
