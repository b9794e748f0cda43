package gateway

import (
	"crypto/rand"
	"net/netip"
	"time"

	"postern/authstore"
	"postern/config"
)

// policiesOf are the policies of a configuration.
func policiesOf(cfg *config.Config) (ps authstore.Policies) {
	for _, p := range cfg.Policies {
		var networks []netip.Prefix
		for _, n := range p.Networks {
			networks = append(networks, authstore.PlainNetwork(n))
		}
		ps = append(ps, authstore.PolicyRule{Domains: p.Domains, Groups: p.Groups, Policy: authstore.Policy{
			Longest: days(p.LongestDays), MustExpire: p.MustExpire, Presets: p.Presets, Networks: networks,
			MostActive: p.MostActive, Idle: days(p.IdleDays), Yearly: p.YearlyNotice,
		}})
	}
	return ps
}

func days(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }

const (
	// policiesEvery is how often is looked for what policies demand.
	policiesEvery = time.Hour
	// policiesLease is how long a node may take before another one does it.
	policiesLease = 10 * time.Minute
	// stillOpen is how long a session is open before it counts as a use of its app password once more: an app that never hangs up is in use.
	stillOpen = 24 * time.Hour
)

// keepPolicies does what the policies demand, until the generation accepts no more. Of several gateways one does it at a time.
func (g *Gateway) keepPolicies(n *generation) {
	if len(n.cfg.Policies) == 0 {
		return
	}
	g.servers.Go(func() {
		owner := rand.Text()
		tick := time.NewTicker(policiesEvery)
		defer tick.Stop()
		for {
			g.tellOpen(time.Now(), g.store.Used)
			g.applyPolicies(n, owner)
			select {
			case <-n.accepting.Done():
				return
			case <-tick.C:
			}
		}
	})
}

// tellOpen notes once in stillOpen that sessions are open since before that. How often the configuration is read again is no matter: a certificate is
// new more often than that in some places, and sessions outlive it.
func (g *Gateway) tellOpen(now time.Time, used func(authstore.Grant, authstore.Use)) {
	last := g.toldOpen.Load()
	if now.Unix()-last < int64(stillOpen/time.Second) || !g.toldOpen.CompareAndSwap(last, now.Unix()) {
		return
	}
	g.live.Each(now.Add(-stillOpen), used)
}

func (g *Gateway) applyPolicies(n *generation, owner string) {
	mine, err := g.desk.truth.Lease(n.accepting, "policies", owner, time.Now().Add(policiesLease))
	var done authstore.PolicyWork
	if mine && err == nil {
		done, err = g.desk.ApplyPolicies(n.accepting)
	}
	if err != nil && n.accepting.Err() == nil {
		g.log.Warn("what policies demand is not done", "err", err)
	}
	if done != (authstore.PolicyWork{}) {
		g.log.Info("policies", "warned", done.Warned, "ended", done.Ended, "told", done.Told)
	}
}
