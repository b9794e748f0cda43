package authstore_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"postern/authstore"
	"postern/authstore/rediscache"
	"postern/authstore/sqlstore"
	"postern/internal/testlab"
)

// redisSite is a site whose nodes share a real Redis, which an adversary may write to as well.
type redisSite struct {
	*site
	server    *testlab.RedisServer
	adversary *redis.Client
}

func newRedisSite(t testing.TB) *redisSite {
	t.Helper()
	r := &redisSite{site: newSite(t), server: testlab.Redis(t)}
	r.adversary = redis.NewClient(&redis.Options{Addr: r.server.Addr})
	t.Cleanup(func() { r.adversary.Close() })
	return r
}

func (r *redisSite) cache() *rediscache.Cache {
	c := rediscache.New(rediscache.Options{Addresses: []string{r.server.Addr}})
	r.t.Cleanup(func() { c.Close() })
	return c
}

// layers counts from where snapshots came.
type layers struct{ l1, redis, sql atomic.Int32 }

func (l *layers) observe(layer string, _ time.Duration) {
	map[string]*atomic.Int32{"l1": &l.l1, "redis": &l.redis, "sql": &l.sql}[layer].Add(1)
}

// node starts a node with an empty L1, and tells which layers it used.
func (r *redisSite) node(o authstore.Options) (*node, *layers) {
	r.t.Helper()
	used := &layers{}
	o.Cache, o.Observe = r.cache(), used.observe
	return r.site.node(o), used
}

// values waits until Redis holds n snapshots, and returns them by key.
func (r *redisSite) values(n int) map[string]string {
	r.t.Helper()
	ctx := context.Background()
	for {
		keys, err := r.adversary.Keys(ctx, "postern:*").Result()
		if err != nil {
			r.t.Fatal(err)
		}
		values := make(map[string]string)
		for _, key := range keys {
			if v, err := r.adversary.Get(ctx, key).Result(); err == nil && len(v) > 50 { // not a bucket
				values[key] = v
			}
		}
		if len(values) >= n {
			return values
		}
		time.Sleep(time.Millisecond)
	}
}

func (r *redisSite) put(key, value string) {
	r.t.Helper()
	if err := r.adversary.Set(context.Background(), key, value, 0).Err(); err != nil {
		r.t.Fatal(err)
	}
}

func TestNodesShareSnapshotsThroughRedis(t *testing.T) {
	t.Parallel()
	r := newRedisSite(t)
	a := r.account("alice@example.test")
	_, typed := r.password(authstore.PasswordRequest{Account: a.ID})
	first, used := r.node(authstore.Options{})
	first.mustLogin(attempt("alice@example.test", typed))
	if used.sql.Load() != 1 {
		t.Errorf("the first node read SQL %d times", used.sql.Load())
	}
	for key, value := range r.values(1) {
		for _, text := range []string{key, value} {
			if strings.Contains(text, "alice") || strings.Contains(text, "example") || strings.Contains(text, a.PublicID) {
				t.Errorf("Redis tells who it is about: %q", text)
			}
		}
	}
	second, used := r.node(authstore.Options{})
	second.mustLogin(attempt("alice@example.test", typed))
	second.mustLogin(attempt("alice@example.test", typed))
	if used.sql.Load() != 0 || used.redis.Load() != 1 || used.l1.Load() != 1 {
		t.Errorf("the second node used SQL %d, Redis %d, L1 %d times; want 0, 1, 1", used.sql.Load(), used.redis.Load(), used.l1.Load())
	}
	_, err := second.login(attempt("bob@example.test", typed))
	wantCode(t, "unknown name", err, authstore.Wrong)
	second.mustLogin(attempt("alice@example.test", typed))
	if got := len(r.values(1)); got != 1 {
		t.Errorf("Redis holds %d values; a name that nobody has must not be one", got)
	}
}

// What an adversary writes to Redis gives misses, and never a login.
func TestARedisAdversary(t *testing.T) {
	t.Parallel()
	r := newRedisSite(t)
	alice, bob := r.account("alice@example.test"), r.account("bob@example.test")
	p, alices := r.password(authstore.PasswordRequest{Account: alice.ID})
	_, bobs := r.password(authstore.PasswordRequest{Account: bob.ID})
	warm, _ := r.node(authstore.Options{})
	warm.mustLogin(attempt("alice@example.test", alices))
	warm.mustLogin(attempt("bob@example.test", bobs))
	values := r.values(2)
	keys := make([]string, 0, 2)
	for key := range values {
		keys = append(keys, key)
	}

	check := func(what string, o authstore.Options, aliceWants authstore.Code) {
		t.Helper()
		n, used := r.node(o)
		defer n.stop()
		_, err := n.login(attempt("alice@example.test", alices))
		wantCode(t, what+": alice", err, aliceWants)
		_, err = n.login(attempt("bob@example.test", bobs))
		wantCode(t, what+": bob", err, 0)
		_, err = n.login(attempt("bob@example.test", alices))
		wantCode(t, what+": alice's app password at bob's", err, authstore.Wrong)
		if used.redis.Load() != 0 {
			t.Errorf("%s: %d snapshots from Redis were used", what, used.redis.Load())
		}
	}
	r.put(keys[0], values[keys[1]])
	r.put(keys[1], values[keys[0]])
	check("swapped", authstore.Options{}, 0)
	for _, cut := range []int{17, 40, len(values[keys[0]]) / 2} {
		for _, key := range keys {
			r.put(key, values[key][:cut])
		}
		check("truncated", authstore.Options{}, 0)
	}

	// An old genuine value after a revocation; on a node that has just started; with the clock set back to when it was good.
	revoked := time.Now()
	r.must(r.desk.Revoke(t.Context(), p.ID, ""))
	r.must(r.desk.SetBackendName(t.Context(), bob.ID, "bob")) // bob's is old, too
	putBack := func() {
		for key, value := range values {
			r.put(key, value)
		}
	}
	putBack()
	_, err := warm.login(attempt("alice@example.test", alices))
	wantCode(t, "put back: alice on the node that knew her", err, authstore.Wrong)
	warm.stop() // it shares what it reads, late perhaps
	for what, now := range map[string]time.Duration{"put back": 0, "and the clock set back": -time.Minute, "by a year": -365 * 24 * time.Hour, "and forward": 4 * time.Minute, "by an hour": time.Hour} {
		putBack()
		check(what, authstore.Options{Now: func() time.Time { return revoked.Add(now) }}, authstore.Wrong)
	}
}

// Each byte matters: what was altered is a miss.
func TestAlteredValuesAreMisses(t *testing.T) {
	t.Parallel()
	r := newRedisSite(t)
	a := r.account("alice@example.test")
	_, typed := r.password(authstore.PasswordRequest{Account: a.ID})
	names := make([]string, 60) // each node keeps what it read in L1, so each try takes another name
	n, _ := r.node(authstore.Options{})
	for i := range names {
		names[i] = string([]byte{'a' + byte(i/26), 'a' + byte(i%26)}) + "@example.test"
		r.must(r.desk.AddAlias(t.Context(), a.ID, names[i]))
	}
	for _, name := range names {
		n.mustLogin(attempt(name, typed))
	}
	for key, value := range r.values(len(names)) {
		b := []byte(value)
		b[16+rand.IntN(len(b)-16)] ^= 1 << rand.IntN(8) // the header before it is Redis' own business
		r.put(key, string(b))
	}
	other, used := r.node(authstore.Options{})
	for _, name := range names {
		other.mustLogin(attempt(name, typed))
	}
	if used.redis.Load() != 0 {
		t.Errorf("%d altered values were used", used.redis.Load())
	}
}

// A restored copy of the database discards a history; what Redis holds of it is not used, though epoch and sequence fit.
func TestRedisFromADiscardedHistory(t *testing.T) {
	t.Parallel()
	r := newRedisSite(t)
	a := r.account("alice@example.test")
	yesterday := r.path + ".yesterday"
	if err := r.truth.Backup(t.Context(), yesterday); err != nil {
		t.Fatal(err)
	}
	_, typed := r.password(authstore.PasswordRequest{Account: a.ID})
	n, _ := r.node(authstore.Options{})
	n.mustLogin(attempt("alice@example.test", typed))
	r.values(1)
	n.stop()

	copied, err := sqlstore.Open(t.Context(), sqlstore.Options{Path: yesterday})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { copied.Close() })
	if _, _, err := copied.AddAccount(t.Context(), tester, "bob@example.test", "bob"); err != nil { // takes the number of the lost change
		t.Fatal(err)
	}
	fresh, used := r.node(authstore.Options{Truth: copied})
	_, err = fresh.login(attempt("alice@example.test", typed))
	wantCode(t, "an app password that was never made", err, authstore.Wrong)
	if used.redis.Load() != 0 {
		t.Error("the discarded history was used")
	}
}

func TestRedisDiesAndComesBack(t *testing.T) {
	t.Parallel()
	r := newRedisSite(t)
	a := r.account("alice@example.test")
	desk := r.accounts(r.truth, r.cache())
	nodes := []*node{}
	for range 2 {
		n, _ := r.node(authstore.Options{MaxReads: 8})
		nodes = append(nodes, n)
	}
	round := func(when string) {
		t.Helper()
		p, typed, err := desk.CreatePassword(t.Context(), authstore.PasswordRequest{Account: a.ID, Label: when, Scopes: authstore.ScopeMail})
		if err != nil {
			t.Fatal(err)
		}
		secret := []byte(typed.Reveal())
		var open []*session
		var clients sync.WaitGroup
		var mu sync.Mutex // guards open
		for i := range 50 {
			clients.Go(func() {
				one, err := nodes[i%2].login(attempt("alice@example.test", secret))
				if err != nil {
					t.Errorf("%s: %v", when, err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				open = append(open, one)
			})
		}
		clients.Wait()
		r.must(desk.Revoke(t.Context(), p.ID, ""))
		for _, one := range open {
			if !one.hasEnded() {
				t.Errorf("%s: a session is open after the confirmation", when)
			}
		}
		for _, n := range nodes {
			_, err := n.login(attempt("alice@example.test", secret))
			wantCode(t, when+", revoked", err, authstore.Wrong)
		}
	}
	round("at first")
	r.server.Pause()
	round("hanging")
	r.server.Kill()
	round("dead")
	r.server.Start()
	round("back, empty")
}

// A dead Redis is asked once a second only.
func TestTheBreaker(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dead := &deadCache{}
	n := s.node(authstore.Options{Cache: dead})
	for range 100 {
		_, err := n.login(attempt("nobody"+string(anotherPassword()[:5])+"@example.test", anotherPassword()))
		if c := codeOf(err); c != authstore.Wrong && c != authstore.Throttled {
			t.Errorf("login: %v", err)
		}
	}
	if got := dead.asked.Load(); got < 3 || got > 20 { // 3 and one a second
		t.Errorf("it was asked %d times by 100 logins", got)
	}
}

// deadCache stands for a Redis at the moment of its death, which no real one can be kept at.
type deadCache struct {
	authstore.Cache
	asked atomic.Int32
}

func (d *deadCache) Get(context.Context, string) ([]byte, error) {
	d.asked.Add(1)
	return nil, errGone
}

func (d *deadCache) Put(context.Context, string, uint64, []byte, time.Duration) error {
	d.asked.Add(1)
	return errGone
}

func (d *deadCache) Charge(context.Context, string, time.Duration, time.Duration) (time.Duration, error) {
	d.asked.Add(1)
	return 0, errGone
}

func (d *deadCache) Watch(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestBudgetsAreShared(t *testing.T) {
	t.Parallel()
	r := newRedisSite(t)
	r.account("alice@example.test")
	first, _ := r.node(authstore.Options{})
	second, _ := r.node(authstore.Options{})
	codes := func(n *node, times int) (list []authstore.Code) {
		for range times {
			_, err := n.Verify(t.Context(), attempt("alice@example.test", anotherPassword()))
			list = append(list, codeOf(err))
		}
		return list
	}
	if got := codes(first, 20); slices.Contains(got, authstore.Throttled) {
		t.Fatalf("the first node: %v", got)
	}
	if got := codes(second, 2); got[0] != authstore.Wrong || got[1] != authstore.Throttled {
		t.Errorf("the second node, after 20 wrong ones at the first: %v; want one more", got)
	}
}

// Caches of all layers or none: the answers are the same.
func TestRedisAnswersAreTheUncachedOnes(t *testing.T) {
	t.Parallel()
	r := newRedisSite(t)
	warm, _ := r.node(authstore.Options{})
	other, _ := r.node(authstore.Options{})
	newModel(r.site).run(40, warm, other)
}
