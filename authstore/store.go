package authstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"postern/authstore/secret"
	"postern/authstore/throttle"
)

// Options of a Store. Truth, Sessions and Keys are needed; the zero value of the others is a good choice.
type Options struct {
	Truth    Truth
	Cache    Cache // nil: none
	Sessions Sessions
	Keys     *secret.Keyring
	Names    Names
	Log      *slog.Logger // nil: discarded

	RefusalDelay time.Duration // how long after the attempt "wrong" is answered; 0: 500 ms, below 0: at once
	MaxWaiting   int           // how many such answers may wait; 0: 4096
	MaxReads     int           // how many reads of the truth may run at once; 0: 64
	L1Bytes      int           // 0: 64 MiB
	SessionGrace time.Duration // how long open sessions outlive the database; 0: 10 minutes
	StaleGrace   time.Duration // how long a node may answer from caches without the database, beyond the lease; 0: not at all

	Observe func(layer string, d time.Duration) // told how long a layer ("l1", "redis", "sql") took; nil: nobody
	Now     func() time.Time                    // nil: time.Now
	Clock   func() time.Duration                // of leases; nil: CLOCK_BOOTTIME
}

// Store verifies logins, and follows the change feed so that what it knows is never older than a second. It is one node:
// Run must run.
type Store struct {
	Options
	node    string
	keys    atomic.Pointer[secret.Keyring]
	usable  atomic.Uint32 // the newest key that all nodes have
	view    *view
	limits  *throttle.Limiter
	waiting *semaphore.Weighted
	reads   *semaphore.Weighted
	loads   singleflight.Group
	breaker breaker
	poked   chan struct{}

	mu    sync.Mutex // guards used
	used  map[usageKey]Usage
	ready atomic.Bool // has registered and read the feed at least once
}

// New makes a store. It reads and serves nothing before Run.
func New(o Options) *Store {
	setDefault(&o.RefusalDelay, 500*time.Millisecond)
	setDefault(&o.MaxWaiting, 4096)
	setDefault(&o.MaxReads, 64)
	setDefault(&o.L1Bytes, 64<<20)
	setDefault(&o.SessionGrace, 10*time.Minute)
	if o.Observe == nil {
		o.Observe = func(string, time.Duration) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Clock == nil {
		o.Clock = bootTime
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{Options: o, node: rand.Text(), poked: make(chan struct{}, 1), used: make(map[usageKey]Usage),
		view:    newView(o.L1Bytes, o.StaleGrace, o.Clock),
		waiting: semaphore.NewWeighted(int64(o.MaxWaiting)), reads: semaphore.NewWeighted(int64(o.MaxReads))}
	s.limits = throttle.New(s.sharedLimits(), o.Now)
	s.keys.Store(o.Keys)
	s.usable.Store(o.Keys.Numbers()[0])
	return s
}

func setDefault[T comparable](v *T, standard T) {
	var zero T
	if *v == zero {
		*v = standard
	}
}

// SetKeys takes a keyring that was read again: a key was added or retired.
func (s *Store) SetKeys(k *secret.Keyring) { s.keys.Store(k) }

// Verify decides one login: this is the only place that does. It answers with a grant or a *Refusal, and has no effect on
// "last used". A correct password that is known here passes whatever else its network did; budgets bind failures and look-ups
// beyond the process. Wrong and NotAppPassword are answered a fixed time after the attempt, which hides what was known.
func (s *Store) Verify(ctx context.Context, a Attempt) (Grant, error) {
	began := time.Now()
	g, err := s.decide(ctx, a)
	if r, ok := err.(*Refusal); ok && (r.Code == Wrong || r.Code == NotAppPassword) {
		return Grant{}, s.answerLater(ctx, began, r)
	}
	return g, err
}

func (s *Store) decide(ctx context.Context, a Attempt) (Grant, error) {
	a.Client = a.Client.Unmap().WithZone("")
	typed, err := secret.Parse(a.Secret)
	if err != nil {
		if s.limits.Over(a.Client) {
			return Grant{}, &Refusal{Code: Throttled}
		}
		s.limits.Misshapen(ctx, a.Client)
		return Grant{}, &Refusal{Code: NotAppPassword, Cause: err}
	}
	defer typed.Clear()
	name, err := s.Names.Canonical(a.Login)
	if err != nil {
		if s.limits.Over(a.Client) {
			return Grant{}, &Refusal{Code: Throttled}
		}
		s.limits.Wrong(ctx, a.Client, a.Login, typed[:])
		return Grant{}, &Refusal{Code: Wrong, Cause: err}
	}

	began := time.Now()
	snap := s.view.get(name)
	if snap != nil {
		s.Observe("l1", time.Since(began))
		if g, code, err := s.judge(snap, name, &a, &typed); err == nil && code != Wrong {
			return g, refusal(g, code)
		}
	}
	if s.limits.Over(a.Client) {
		return Grant{}, &Refusal{Code: Throttled}
	}
	if snap == nil {
		if snap, err = s.load(ctx, name); err != nil {
			return Grant{}, &Refusal{Code: Unavailable, Cause: err}
		}
	}
	g, code, err := s.judge(snap, name, &a, &typed)
	if err != nil {
		return Grant{}, &Refusal{Code: Unavailable, Cause: err, Account: snap.Account}
	}
	if code == Wrong {
		r := &Refusal{Code: Wrong, Account: snap.Account, Password: g.Password}
		if g.Password != 0 { // genuine, but revoked: a forgotten phone
			r.Cause = errRevoked
			return Grant{}, r
		}
		s.limits.Wrong(ctx, a.Client, name, typed[:])
		return Grant{}, r
	}
	return g, refusal(g, code)
}

// The reasons of refusals and endings that logs tell apart.
var (
	errRevoked   = errors.New("the app password was revoked")
	errEnded     = errors.New("the grant has ended")
	errStoreLost = errors.New("the database has not answered for session_grace")
)

// ErrRevoked reports whether a session was ended because its grant was.
func ErrRevoked(err error) bool { return errors.Is(err, errRevoked) || errors.Is(err, errEnded) }

func refusal(g Grant, code Code) error {
	if code == 0 {
		return nil
	}
	return &Refusal{Code: code, Account: g.Account, Password: g.Password}
}

// judge matches a secret against a snapshot: one HMAC for each root key in use, each record compared in constant time. With
// code Wrong, the grant names the app password if the secret was one that was revoked. An error means that it can't tell.
func (s *Store) judge(snap *Snapshot, name string, a *Attempt, typed *secret.Password) (Grant, Code, error) {
	v, err := s.match(snap, typed)
	if v == nil {
		return Grant{}, Wrong, err
	}
	g := Grant{Account: snap.Account, PublicID: snap.PublicID, Address: name, Password: v.ID, Scopes: v.Scopes, Version: snap.Version,
		BackendName: snap.BackendName, Expires: v.Expires, Client: a.Client, epoch: snap.Epoch, sequence: snap.Sequence}
	switch {
	case v.Revoked:
		return g, Wrong, nil
	case snap.Status != Active:
		return g, Suspended, nil
	case v.expired(s.Now()):
		return g, Expired, nil
	case !v.allows(a.Client):
		return g, BadNetwork, nil
	case a.Need != 0 && !v.Scopes.Any(a.Need):
		return g, OutOfScope, nil
	}
	if newest := s.usable.Load(); v.Key < newest {
		if d, err := s.keys.Load().Digest(newest, int64(snap.Account), typed); err == nil {
			g.rekey = &Rekey{From: v.Key, To: newest, Digest: d}
		}
	}
	return g, 0, nil
}

// match finds the app password of a snapshot that a secret belongs to. If none fits but one could not be compared, for its root
// key is not here, it says so: that is no wrong password.
func (s *Store) match(snap *Snapshot, typed *secret.Password) (*Verifiable, error) {
	keys := s.keys.Load()
	var number uint32
	var digest Digest
	var unknown error
	for _, list := range [2][]Verifiable{snap.Active, snap.Ended} {
		for i := range list {
			v := &list[i]
			if v.Key != number {
				d, err := keys.Digest(v.Key, int64(snap.Account), typed)
				if err != nil {
					unknown = fmt.Errorf("app password %d: key %d: %w", v.ID, v.Key, err)
					continue
				}
				number, digest = v.Key, d
			}
			if secret.Equal(digest[:], v.Digest[:]) {
				return v, nil
			}
		}
	}
	return nil, unknown
}

// answerLater holds a refusal back until its time, if there is room to wait; it is never told early.
func (s *Store) answerLater(ctx context.Context, began time.Time, r *Refusal) error {
	if s.RefusalDelay < 0 {
		return r
	}
	if !s.waiting.TryAcquire(1) {
		return &Refusal{Code: Unavailable, Cause: errors.New("too many refusals are waiting to be told"), Account: r.Account}
	}
	defer s.waiting.Release(1)
	timer := time.NewTimer(time.Until(began.Add(s.RefusalDelay + jitter(s.RefusalDelay/10))))
	defer timer.Stop()
	select {
	case <-timer.C:
		return r
	case <-ctx.Done():
		return &Refusal{Code: Unavailable, Cause: ctx.Err(), Account: r.Account}
	}
}

// Confirm is the last act before success is told. With a live lease and no change known that touches the account it costs nothing;
// otherwise it reads the truth once more.
func (s *Store) Confirm(ctx context.Context, g Grant) error {
	if !g.Expires.IsZero() && !g.Expires.After(s.Now()) {
		return refusal(g, Expired)
	}
	if s.view.stillGood(g) {
		return nil
	}
	code, err := s.recheck(ctx, g)
	if err != nil {
		return &Refusal{Code: Unavailable, Cause: err, Account: g.Account, Password: g.Password}
	}
	return refusal(g, code)
}

// recheck reads the truth and says why a grant has ended; zero: it has not. The login name must still lead to its account.
func (s *Store) recheck(ctx context.Context, g Grant) (Code, error) {
	if err := s.reads.Acquire(ctx, 1); err != nil {
		return 0, err
	}
	defer s.reads.Release(1)
	snap, err := s.Truth.Load(ctx, g.Address)
	if err != nil {
		return 0, err
	}
	return snap.refuses(g, s.Now()), nil
}

// load reads a snapshot from the shared cache, else from the truth. Equal reads share one.
func (s *Store) load(ctx context.Context, name string) (*Snapshot, error) {
	result := s.loads.DoChan(name, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout) // it is not this caller's alone
		defer cancel()
		return s.read(ctx, name)
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*Snapshot), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// readTimeout bounds one look-up beyond the process.
const readTimeout = 5 * time.Second

func (s *Store) read(ctx context.Context, name string) (*Snapshot, error) {
	began := time.Now()
	if snap := s.fromCache(ctx, name); snap != nil {
		s.Observe("redis", time.Since(began))
		s.view.keep(name, snap)
		return snap, nil
	}
	if err := s.reads.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("too many reads wait for the database: %w", err)
	}
	defer s.reads.Release(1)
	began = time.Now()
	snap, err := s.Truth.Load(ctx, name)
	if err != nil {
		return nil, err
	}
	s.Observe("sql", time.Since(began))
	s.view.keep(name, snap)
	s.toCache(ctx, name, snap)
	return snap, nil
}
