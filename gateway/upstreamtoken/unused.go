package upstreamtoken

import (
	"context"
	"time"
)

const (
	// unusedFor is how long a refresh token lies before it is refreshed though nobody logged in: Microsoft's end when they were not used for 90 days,
	// Google's for half a year. A third of the shorter leaves time for a provider that is down.
	unusedFor = 30 * 24 * time.Hour
	lookEach  = time.Hour
	lookName  = "unused upstream tokens"
)

// Run refreshes what nobody uses, until ctx ends. Of several nodes one does.
func (k *Keeper) Run(ctx context.Context) {
	tick := time.NewTicker(lookEach)
	defer tick.Stop()
	for {
		if err := k.refreshUnused(ctx); err != nil && ctx.Err() == nil {
			k.o.Log.Warn("tokens that nobody uses are not looked at", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// refreshUnused refreshes those that are old, one after the other: there is no hurry. What fails is tried again in an hour.
func (k *Keeper) refreshUnused(ctx context.Context) error {
	if ours, err := k.o.Store.Lease(ctx, lookName, k.owner, k.o.Now().Add(lookEach)); err != nil || !ours {
		return err
	}
	rows, err := k.o.Store.UpstreamTokens(ctx)
	if err != nil {
		return err
	}
	for _, row := range rows {
		p := k.servers[row.Provider]
		if p == nil || p.Client || row.Failure != "" || k.o.Now().Sub(row.Refreshed) < unusedFor {
			continue
		}
		if k.renew(ctx, p, place{row.Account, row.Provider}, row.Version) != nil && ctx.Err() != nil { // failed has logged it
			return nil
		}
	}
	return nil
}
