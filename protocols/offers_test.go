package protocols_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
	values := func(pairs ...string) (c protocols.Capabilities) {
		for i := 0; i < len(pairs); i += 2 {
			c.Add(pairs[i], pairs[i+1])
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
		"the smaller number":     {map[string]protocols.Capabilities{"a": values("SIZE", "900"), "b": values("SIZE", "1000"), "c": values("SIZE", "950")}, "SIZE 900 "},
		"a number, and no bound": {map[string]protocols.Capabilities{"a": values("SIZE", ""), "b": values("SIZE", "1000"), "c": values("SIZE", "0")}, "SIZE 1000 "},
		"the words of all":       {map[string]protocols.Capabilities{"a": values("SIEVE", "fileinto vacation copy"), "b": values("SIEVE", "copy vacation"), "c": values("SIEVE", "fileinto vacation copy")}, "SIEVE vacation copy "},
		"no word of all":         {map[string]protocols.Capabilities{"a": values("NOTIFY", "mailto", "TOP", ""), "b": values("NOTIFY", "xmpp", "TOP", "")}, "TOP "},
		"two have nothing alike": {map[string]protocols.Capabilities{"a": list("TOP"), "b": list("UIDL"), "c": list("TOP", "UIDL")}, ""},
		"numbers of two":         {map[string]protocols.Capabilities{"a": list("SIZE 9", "MAXREDIRECTS 4"), "b": list("SIZE 10", "MAXREDIRECTS 3")}, "SIZE 9 MAXREDIRECTS 3 "},
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

// Behind one address there may be several servers: what one of them lacks is not offered again before none has lacked it for a while.
func TestOffersShrinkAtOnceAndGrowLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var more, less protocols.Capabilities
		less.Add("TOP", "")
		more = append(more, less...)
		more.Add("UIDL", "")
		o := protocols.NewOffers(slog.New(slog.DiscardHandler), "a")
		go o.Watch(t.Context(), func(context.Context, string) (protocols.Capabilities, error) { return nil, nil })
		for i, step := range []struct {
			list protocols.Capabilities
			then time.Duration
			want int
		}{{more, time.Second, 2}, {less, time.Second, 1}, {more, 5 * time.Minute, 1}, {more, time.Minute, 1}, {more, 4 * time.Minute, 1}, {more, time.Second, 2}, {less, 0, 1}} {
			o.Learn("a", step.list)
			if got := o.Common(t.Context()); len(got) != step.want {
				t.Errorf("step %d: offers %v, want %d", i, got, step.want)
			}
			time.Sleep(step.then)
		}
	})
}

// Clients wait a little for backends that do not answer, and no longer than they live; the log is told once.
func TestOffersOfSilentBackends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		o := protocols.NewOffers(slog.New(slog.NewTextHandler(&log, nil)), "a")
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		o.Common(gone)
		began := time.Now()
		go o.Watch(t.Context(), func(ctx context.Context, _ string) (protocols.Capabilities, error) {
			<-ctx.Done()
			return nil, errors.New("no answer")
		})
		if got := o.Common(t.Context()); got != nil || time.Since(began) != 3*time.Second {
			t.Errorf("offers %v after %v", got, time.Since(began))
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if n := strings.Count(log.String(), "does not say what it can do"); n != 1 {
			t.Errorf("logged %d times: %s", n, log.String())
		}
	})
}

// What would not stand well in a line of ours is left out, and so is what would make a list endless.
func TestCapabilitiesAreBounded(t *testing.T) {
	var c protocols.Capabilities
	for _, one := range [][2]string{{"", "x"}, {"A B", ""}, {"A\x1b", ""}, {"\u00e4", ""}, {"A", "\u00e4"}, {"A", "b\x00"}, {"A", strings.Repeat("x", 1<<10)}} {
		if c.Add(one[0], one[1]); len(c) > 0 {
			t.Errorf("%q is taken", one)
		}
	}
	c.Add("top", " one\t two ")
	c.Add("TOP", "three")
	if value, ok := c.Get("TOP"); len(c) != 1 || !ok || value != "one two" {
		t.Errorf("got %v", c)
	}
	for i := range 100 {
		c.Add("X"+strings.Repeat("x", i), "")
	}
	if len(c) != 60 {
		t.Errorf("%d are taken", len(c))
	}
}
