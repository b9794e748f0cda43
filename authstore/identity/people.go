package identity

import (
	"context"
	"fmt"
	"net/url"
	"runtime"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"
	"golang.org/x/sync/semaphore"

	"postern/authstore"
)

// People is who may sign in, and how. Goroutines may share it.
type People struct {
	o       Options
	hashing *semaphore.Weighted // Argon2id and signatures: as many at once as there are cores
	// strangers is the like of Argon2id for browsers that are not known, so that those who guess from everywhere don't stand before others.
	strangers *semaphore.Weighted
	asking    *semaphore.Weighted // the Checker
	waiting   *semaphore.Weighted // attempts of strangers and links under way
	dummy     string              // the hash that is checked where there is none
	heard     echo                // of the Checker
	rp        *webauthn.WebAuthn  // nil: no passkeys
}

const (
	maxChecks  = 32   // questions to the Checker at once
	maxWaiting = 1024 // attempts to sign in at once: beyond, the answer is ErrUnavailable
)

// cores is how many passwords are hashed at once: as many as Go uses cores by itself. It is read before the gateway, which has Go use fewer
// while there is little to do, calls New.
var cores = int64(runtime.GOMAXPROCS(0))

// New makes a People. Site must be an origin.
func New(o Options) (*People, error) {
	site, err := url.Parse(o.Site)
	if err != nil || site.Scheme == "" || site.Hostname() == "" || o.Site != site.Scheme+"://"+site.Host {
		return nil, fmt.Errorf("the portal's address %q is not an origin such as https://passwords.example.org", o.Site)
	}
	setDefault(&o.Issuer, site.Hostname())
	setDefault(&o.Idle, 30*time.Minute)
	setDefault(&o.Absolute, 12*time.Hour)
	setDefault(&o.RefusalDelay, time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Hashing == nil {
		o.Hashing = func() (done func()) { return func() {} }
	}
	p := &People{
		o:         o,
		hashing:   semaphore.NewWeighted(cores),
		strangers: semaphore.NewWeighted(cores),
		asking:    semaphore.NewWeighted(maxChecks),
		waiting:   semaphore.NewWeighted(maxWaiting),
	}
	if p.dummy, err = newHash([]byte("no password matches this")); err != nil {
		return nil, err
	}
	if p.rp, err = relyingParty(o, site); err != nil {
		return nil, err
	}
	return p, nil
}

func setDefault[T comparable](v *T, standard T) {
	var zero T
	if *v == zero {
		*v = standard
	}
}

// now is in whole seconds, as the store keeps times.
func (p *People) now() time.Time { return p.o.Now().UTC().Truncate(time.Second) }

// Prune forgets what nobody needs any more: sessions that have run out, links, budgets. The gateway calls it every few minutes; nothing
// that has run out is taken in between either.
func (p *People) Prune(ctx context.Context) error {
	now := p.now()
	return p.o.Truth.PrunePeople(ctx, Bounds{Seen: now.Add(-p.o.Idle), Began: now.Add(-p.o.Absolute), SignIn: now.Add(-SignInTime), SetUp: now.Add(-SetUpTime)})
}

// sealRow seals a secret at rest, under the newest key that every node has.
func (p *People) sealRow(ctx context.Context, plain []byte, place string) (Sealed, error) {
	key, err := p.o.Accounts.UsableKey(ctx)
	if err != nil {
		return Sealed{}, err
	}
	return p.sealWith(key, plain, place)
}

func (p *People) sealWith(key uint32, plain []byte, place string) (Sealed, error) {
	value, err := p.o.Keys().SealRow(key, plain, place)
	return Sealed{key, value}, err
}

func (p *People) openRow(s Sealed, place string) ([]byte, error) {
	plain, err := p.o.Keys().OpenRow(s.Value, place)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", place, err)
	}
	return plain, nil
}

// The places of what is sealed: table, account, row. authstore.Accounts.Reseal knows them by this form.

func primaryPlace(id authstore.AccountID) string {
	return fmt.Sprintf("primary_password/%d/%d", id, id)
}

func factorPlace(id authstore.AccountID, f FactorID) string {
	return fmt.Sprintf("factor/%d/%d", id, f)
}

func recoveryPlace(id authstore.AccountID, number int) string {
	return fmt.Sprintf("recovery_code/%d/%d", id, number)
}
