package rediscache

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/testlab"
)

func open(t *testing.T, r *testlab.RedisServer) *Cache {
	t.Helper()
	c := New(Options{Addresses: []string{r.Addr}, Username: r.User, Password: r.Password, Timeout: 10 * time.Second}) // the machine may be busy
	t.Cleanup(func() { c.Close() })
	return c
}

func TestPutOnlyOverALowerSequence(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := open(t, testlab.RedisAuth(t)) // with the access list that the documentation gives
	if got, err := c.Get(ctx, "a"); got != nil || err != nil {
		t.Errorf("Get of nothing = %q, %v", got, err)
	}
	for _, step := range []struct {
		sequence uint64
		value    string
		want     string
	}{
		{9, "nine", "nine"},
		{8, "eight", "nine"},
		{9, "nine again", "nine"},
		{10, "ten", "ten"},
		{1 << 50, "many", "many"},
		{1<<50 - 1, "one less", "many"},
	} {
		if err := c.Put(ctx, "a", step.sequence, []byte(step.value), time.Minute); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Get(ctx, "a"); err != nil || string(got) != step.want {
			t.Errorf("after Put(%d, %q): %q, %v; want %q", step.sequence, step.value, got, err, step.want)
		}
	}
	if ttl := c.client.PTTL(ctx, prefix+"a").Val(); ttl <= 0 || ttl > time.Minute {
		t.Errorf("it lives for %v, want a minute", ttl)
	}
	if got, _ := c.Get(ctx, "b"); got != nil {
		t.Errorf("another key holds %q", got)
	}
}

func TestPutsAtOnceKeepTheHighest(t *testing.T) {
	t.Parallel()
	c := open(t, testlab.Redis(t))
	var writers sync.WaitGroup
	for i := range 100 {
		writers.Go(func() {
			if err := c.Put(context.Background(), "a", uint64(i), []byte{byte(i)}, time.Minute); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	if got, _ := c.Get(t.Context(), "a"); !bytes.Equal(got, []byte{99}) {
		t.Errorf("the last value is %d, want 99", got)
	}
}

func TestWhatOthersWroteIsAMiss(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := open(t, testlab.Redis(t))
	for name, write := range map[string]func(key string) error{
		"short":     func(key string) error { return c.client.Set(ctx, key, "x", 0).Err() },
		"only head": func(key string) error { return c.client.Set(ctx, key, strings.Repeat("0", headerSize), 0).Err() },
		"huge":      func(key string) error { return c.client.Set(ctx, key, strings.Repeat("0", 8<<20), 0).Err() },
		"a list":    func(key string) error { return c.client.LPush(ctx, key, "x").Err() },
	} {
		if err := write(prefix + name); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Get(ctx, name); got != nil || err != nil {
			t.Errorf("%s: Get = %d bytes, %v; want nothing", name, len(got), err)
		}
	}
	c.client.Set(ctx, prefix+"no number", strings.Repeat("z", headerSize)+"value", 0)
	if err := c.Put(ctx, "no number", 1, []byte("ours"), time.Minute); err != nil {
		t.Fatal(err)
	}
	if got, _ := c.Get(ctx, "no number"); string(got) != "ours" {
		t.Errorf("over a header that is no number: %q", got)
	}
	if err := c.Put(ctx, "a", 1, make([]byte, maxValue), time.Minute); err == nil {
		t.Error("a value is written that would not be read")
	}
}

func TestCharge(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := open(t, testlab.RedisAuth(t))
	charge := func(key string, cost time.Duration) time.Duration {
		t.Helper()
		debt, err := c.Charge(ctx, key, cost, 20*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return debt.Round(time.Minute)
	}
	for i := 1; i <= 3; i++ {
		if got := charge("a", time.Minute); got != time.Duration(i)*time.Minute {
			t.Errorf("charge %d: debt %v", i, got)
		}
	}
	if got := charge("a", time.Hour); got != 20*time.Minute {
		t.Errorf("beyond the burst: debt %v, want 20 m", got)
	}
	if ttl := c.client.PTTL(ctx, prefix+"a").Val(); ttl <= 0 || ttl > 20*time.Minute {
		t.Errorf("the bucket lives for %v", ttl)
	}
	for forged, want := range map[string]time.Duration{
		"nan": time.Minute, "x": time.Minute, "-1e300": time.Minute, "1e300": 20 * time.Minute, "inf": 20 * time.Minute,
	} {
		c.client.Set(ctx, prefix+forged, forged, 0)
		if got := charge(forged, time.Minute); got != want {
			t.Errorf("over the forged %q: debt %v, want %v", forged, got, want)
		}
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	server := testlab.Redis(t)
	c, other := open(t, server), open(t, server)
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan struct{}, 100)
	done := make(chan error)
	go func() { done <- c.Watch(ctx, func() { told <- struct{}{} }) }()
	<-told // the subscription has begun
	if err := other.Publish(ctx); err != nil {
		t.Fatal(err)
	}
	<-told
	server.Kill()
	server.Start()
	<-told // what was published meanwhile may have been missed
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch = %v", err)
	}
}

func TestADeadRedisIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	server := testlab.Redis(t)
	c := New(Options{Addresses: []string{server.Addr}})
	t.Cleanup(func() { c.Close() })
	for c.Ping(t.Context()) != nil { // the machine may be busy
		if t.Context().Err() != nil {
			t.Fatal("it does not answer")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	fails := func(what string) {
		t.Helper()
		if _, err := c.Get(ctx, "a"); err == nil {
			t.Errorf("%s: Get answers", what)
		}
		if err := c.Put(ctx, "a", 1, []byte("x"), time.Minute); err == nil {
			t.Errorf("%s: Put answers", what)
		}
		if ctx.Err() != nil {
			t.Fatalf("%s: no answer within a minute", what)
		}
	}
	server.Pause()
	fails("hanging")
	server.Kill()
	fails("gone")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() // accepts nobody: the kernel does
	silent := New(Options{Addresses: []string{ln.Addr().String()}})
	defer silent.Close()
	if err := silent.Ping(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("a silent server: Ping = %v", err)
	}
}
