package protocols_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"

	"postern/protocols"
)

// What one backend lacks is not offered, and it may lack everything.
func TestOffersOfSeveralBackends(t *testing.T) {
	list := func(names ...string) (c protocols.Capabilities) {
		for _, name := range names {
			c.Add(name, "")
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
					got += one.Name + " "
				}
				if got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			})
		})
	}
}
