package protocols_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"postern/protocols"
)

// What one backend lacks is not offered, and it may lack everything.
func TestOffersOfSeveralBackends(t *testing.T) {
	list := func(names ...string) (c protocols.Capabilities) {
		for _, said := range names {
			name, value, _ := strings.Cut(said, " ")
			c.Add(name, value)
		}
		return c
	}
	for name, tt := range map[string]struct {
		lists map[string]protocols.Capabilities // by backend
		want  string
	}{
		"all the same":           {map[string]protocols.Capabilities{"a": list("TOP", "UIDL"), "b": list("TOP", "UIDL"), "c": list("UIDL", "TOP")}, "TOP UIDL "},
		"one has not answered":   {map[string]protocols.Capabilities{"b": list("TOP", "UIDL"), "c": list("UIDL")}, "UIDL "},
		"the first has nothing":  {map[string]protocols.Capabilities{"a": list(), "b": list("TOP"), "c": list("TOP")}, ""},
		"two have nothing alike": {map[string]protocols.Capabilities{"a": list("TOP"), "b": list("UIDL"), "c": list("TOP", "UIDL")}, ""},
		"the smaller number":     {map[string]protocols.Capabilities{"a": list("SIZE 9", "MAXREDIRECTS 4"), "b": list("SIZE 10", "MAXREDIRECTS 3")}, "SIZE 9 MAXREDIRECTS 3 "},
		"no limit, and none":     {map[string]protocols.Capabilities{"a": list("SIZE 0", "MAXREDIRECTS 4"), "b": list("SIZE 10", "MAXREDIRECTS 0")}, "SIZE 10 MAXREDIRECTS 0 "},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // which spends the time that Common waits for those that have not answered
				o := protocols.NewOffers(slog.New(slog.DiscardHandler), "a", "b", "c")
				for backend, list := range tt.lists {
					o.Learn(backend, list)
				}
				go o.Watch(t.Context(), func(context.Context, string) (protocols.Capabilities, error) { return nil, nil })
				got := ""
				for _, one := range o.Common(t.Context()) {
					got += strings.TrimSpace(one.Name+" "+one.Value) + " "
				}
				if got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			})
		})
	}
}

// Whoever stops the asking has no word of a backend that was being asked.
func TestOffersStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		o := protocols.NewOffers(slog.New(slog.NewTextHandler(&log, nil)), "a")
		ctx, stop := context.WithCancelCause(t.Context())
		go func() {
			synctest.Wait()
			stop(protocols.ErrDraining)
		}()
		o.Watch(ctx, func(ctx context.Context, _ string) (protocols.Capabilities, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		})
		if log.Len() > 0 {
			t.Errorf("logged %s", log.String())
		}
	})
}
