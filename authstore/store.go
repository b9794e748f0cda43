package authstore

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/netip"
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

	// Observe is told how long it took to get a snapshot from the layer that had it: "l1", "redis", "sql". Nil: nobody is.
	Observe func(layer string, d time.Duration)
	// Operator says who runs a network: "AS64496 Example Net"; empty: not known. It is asked when "last used" is written, never while
	// somebody logs in. Nil: nobody knows.
	Operator func(netip.Addr) string
	Now      func() time.Time     // for expiry and history; nil: time.Now
	Clock    func() time.Duration // for leases; nil: the machine's, which goes on in suspend
}

// Store verifies logins, and follows the change feed so that nothing it relies on is older than a second. It is one node: Run
// must run. Goroutines may share it.
type Store struct {
	o       Options
	node    string // a random id
	keys    atomic.Pointer[secret.Keyring]
	usable  atomic.Uint32 // the newest key that all nodes have
	history *history
	l1      *l1
	limits  *throttle.Limiter
	waiting *semaphore.Weighted // refusals that wait to be told
	reads   *semaphore.Weighted // reads of the truth
	loads   singleflight.Group
	breaker breaker
	usage   usage

	poked    chan struct{} // somebody says that there is news
	fills    chan fill     // snapshots on their way to the shared cache
	settling settling
	rechecks sync.WaitGroup
	heard    atomic.Int64 // on the clock, when the node's sign of life was last written
	alone    atomic.Bool  // no other node is registered
}

// New makes a store. It reads nothing, and accepts nobody, before Run.
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
	s := &Store{
		o:        o,
		node:     rand.Text(),
		history:  newHistory(o.Clock, o.StaleGrace),
		l1:       newL1(o.L1Bytes, l1Life+o.StaleGrace),
		waiting:  semaphore.NewWeighted(int64(o.MaxWaiting)),
		reads:    semaphore.NewWeighted(int64(o.MaxReads)),
		poked:    make(chan struct{}, 1),
		fills:    make(chan fill, maxFills),
		settling: settling{wake: make(chan struct{}, 1)},
		usage:    usage{now: o.Now, operator: o.Operator, waiting: make(map[usageKey]Usage), each: make(map[PasswordID]int)},
	}
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

// SetKeys takes a keyring that was read again, because a key was added or retired. On an error, as when it is not the database's,
// the old one stays.
func (s *Store) SetKeys(k *secret.Keyring) error {
	ctx, cancel := context.WithTimeout(context.Background(), writeTime)
	defer cancel()
	if err := checkKeys(ctx, s.o.Truth, k); err != nil {
		return err
	}
	s.keys.Store(k)
	s.settling.again() // tells the other nodes which keys this one has
	return nil
}

// The reasons of refusals and endings that logs tell apart.
var (
	errRevoked   = errors.New("the app password was revoked")
	errClosed    = errors.New("the account was suspended or removed")
	errMoved     = errors.New("the account was given another address or name at the backend")
	errEnded     = errors.New("the grant has ended")
	errStoreLost = errors.New("the database has not answered for session_grace")
)

// ErrRevoked reports whether a session was ended because its grant was.
func ErrRevoked(err error) bool {
	return errors.Is(err, errRevoked) || errors.Is(err, errEnded) || ErrClosed(err) || ErrMoved(err)
}

// ErrClosed reports whether that was because its account is suspended or gone, and the app password is as good as before.
func ErrClosed(err error) bool { return errors.Is(err, errClosed) }

// ErrMoved reports whether that was because its account now leads to another mailbox: who logs in again is let in.
func ErrMoved(err error) bool { return errors.Is(err, errMoved) }

// ending is why a session ends whose grant is refused now.
func ending(c Code) error {
	switch c {
	case Wrong:
		return errRevoked
	case Suspended:
		return errClosed
	case Unavailable:
		return errMoved
	}
	return errEnded
}
