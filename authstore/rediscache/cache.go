// Package rediscache is authstore's shared layer in Redis: sealed snapshots, "there is news", and the budgets of all nodes. One
// Redis, Sentinel or a Cluster will do: each command touches one key. Nothing in it is needed to be right, and all of it may be
// lost: a key holds what its reader checks. It logs nothing; a failure is an error to its caller.
package rediscache

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"postern/authstore"
)

const (
	// prefix leads all keys, and the channel's name, so that an access list can give them to Postern alone.
	prefix  = "postern:"
	channel = prefix + "news"
	// maxValue bounds what is read of a value, in bytes, whoever wrote it.
	maxValue = 256 << 10
	// pingEvery is how often a silent subscription is tried.
	pingEvery = 3 * time.Second
)

// Options say where Redis is.
type Options struct {
	Addresses  []string // host:port; several: a Cluster, with MasterName: its Sentinels
	MasterName string   // of a Sentinel's master
	Username   string
	Password   string
	Database   int         // not for a Cluster
	TLS        *tls.Config // nil: plain text
	// Timeout bounds a dial and an exchange; zero: 100 ms, beyond which a database is quicker.
	Timeout time.Duration
}

// Cache implements authstore.Cache. Goroutines may share it.
type Cache struct {
	client redis.UniversalClient
}

var _ authstore.Cache = (*Cache)(nil)

// quiet: go-redis prints to standard error what it returns as errors as well, and its logger is one for the whole process.
var quiet = sync.OnceFunc(logging.Disable)

// New makes a cache; it connects when it is first used.
func New(o Options) *Cache {
	quiet()
	if o.Timeout == 0 {
		o.Timeout = 100 * time.Millisecond
	}
	return &Cache{redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs: o.Addresses, MasterName: o.MasterName, DB: o.Database, TLSConfig: o.TLS,
		Username: o.Username, Password: o.Password,
		DialTimeout: o.Timeout, ReadTimeout: o.Timeout, WriteTimeout: o.Timeout, PoolTimeout: o.Timeout,
		ContextTimeoutEnabled:    true,
		DialerRetries:            1,
		MaxRetries:               1, // a connection that the server closed meanwhile
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})}
}

// Close closes all connections.
func (c *Cache) Close() error { return c.client.Close() }

// Ping tells whether Redis answers.
func (c *Cache) Ping(ctx context.Context) error { return c.client.Ping(ctx).Err() }

// A value is its sequence in headerSize hexadecimal digits, for the script, and then what the caller gave. The caller's own seal
// covers the sequence that counts.
const headerSize = 16

// Get returns a value without its header; nil where there is nothing, or nothing of ours.
func (c *Cache) Get(ctx context.Context, key string) ([]byte, error) {
	value, err := c.client.GetRange(ctx, prefix+key, 0, maxValue).Bytes()
	if redis.HasErrorPrefix(err, "WRONGTYPE") { // somebody else's
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read from Redis: %w", err)
	}
	if len(value) <= headerSize || len(value) > maxValue {
		return nil, nil
	}
	return value[headerSize:], nil
}

// put stores a value unless one of the same or a higher sequence is there. Numbers are compared, for Lua compares texts by locale.
var put = redis.NewScript(`
local there = redis.call('GETRANGE', KEYS[1], 0, 15)
local sequence = #there == 16 and tonumber(there, 16)
if sequence and sequence >= tonumber(string.sub(ARGV[1], 1, 16), 16) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
`)

// Put stores a value only over a lower sequence.
func (c *Cache) Put(ctx context.Context, key string, sequence uint64, value []byte, life time.Duration) error {
	b := append(fmt.Appendf(make([]byte, 0, headerSize+len(value)), "%016x", sequence), value...)
	if len(b) > maxValue {
		return errors.New("the value is too large for the cache")
	}
	if err := put.Run(ctx, c.client, []string{prefix + key}, b, life.Milliseconds()).Err(); err != nil {
		return fmt.Errorf("write to Redis: %w", err)
	}
	return nil
}

// charge is a GCRA: the key holds when the bucket is empty again, in milliseconds of Redis' clock. What somebody else
// wrote there counts as an empty bucket, or at most as a full one.
var charge = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local empty = tonumber(redis.call('GET', KEYS[1]) or '0')
if not empty or empty ~= empty or empty < now then
  empty = now
end
empty = math.min(empty + ARGV[1], now + ARGV[2])
redis.call('SET', KEYS[1], string.format('%.0f', empty), 'PX', string.format('%.0f', empty - now))
return empty - now
`)

// Charge adds a cost to a bucket of burst size that all nodes share, and returns its debt: how long until it is empty.
func (c *Cache) Charge(ctx context.Context, key string, cost, burst time.Duration) (time.Duration, error) {
	ms, err := charge.Run(ctx, c.client, []string{prefix + key}, max(cost.Milliseconds(), 1), burst.Milliseconds()).Int64()
	if err != nil {
		return 0, fmt.Errorf("charge in Redis: %w", err)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// Publish tells other nodes that there is news.
func (c *Cache) Publish(ctx context.Context) error {
	return c.client.Publish(ctx, channel, "").Err()
}

// Watch calls told for each news, and whenever some may have been missed, until ctx ends.
func (c *Cache) Watch(ctx context.Context, told func()) error {
	sub := c.client.Subscribe(ctx, channel)
	defer context.AfterFunc(ctx, func() { sub.Close() })()
	defer sub.Close()
	news := sub.ChannelWithSubscriptions(redis.WithChannelHealthCheckInterval(pingEvery))
	for range news { // a message, or that the subscription began, perhaps again
		told()
	}
	return context.Cause(ctx)
}
