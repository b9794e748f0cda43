package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/alexedwards/argon2id"
	"golang.org/x/sync/semaphore"
	"golang.org/x/text/unicode/norm"

	"postern/authstore"
)

// cost is OWASP's second choice for Argon2id: 19 MiB, two passes.
var cost = argon2id.Params{Memory: 19 * 1024, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32}

// whyRevoked stands at the app passwords that end with a primary password.
const whyRevoked = "the primary password was changed"

// KeepsPrimary reports whether primary passwords are kept here and can be changed.
func (p *People) KeepsPrimary() bool { return p.o.Checker == nil && !p.o.Vouched }

// Vouched reports whether another server vouches for people.
func (p *People) Vouched() bool { return p.o.Vouched }

// composed is a password in one form, whatever keyboard typed it; free clears what was made for it. Another server gets it as typed.
func composed(password []byte) (form []byte, free func()) {
	if norm.NFC.IsNormal(password) {
		return password, func() {}
	}
	form = norm.NFC.Bytes(password)
	return form, func() { clear(form) }
}

func newHash(password []byte) (string, error) {
	form, free := composed(password)
	defer free()
	return argon2id.CreateHash(string(form), &cost)
}

// hash makes the Argon2id of a password.
func (p *People) hash(ctx context.Context, password []byte) (string, error) {
	if err := p.hashing.Acquire(ctx, 1); err != nil {
		return "", err
	}
	defer p.hashing.Release(1)
	defer p.o.Hashing()()
	return newHash(password)
}

// matches checks a password against a hash, and reports whether the hash was made with what is used now.
func (p *People) matches(ctx context.Context, password []byte, hash string, queue *semaphore.Weighted) (ok, current bool, err error) {
	if err := queue.Acquire(ctx, 1); err != nil {
		return false, false, err
	}
	defer queue.Release(1)
	defer p.o.Hashing()()
	form, free := composed(password)
	defer free()
	ok, made, err := argon2id.CheckHash(string(form), hash)
	return ok, err == nil && *made == cost, err
}

// proof is a primary password that was right.
type proof struct {
	person Person // as it was when that was found
	first  bool   // nothing was kept of the account's password yet
	// firstKind is the event that tells of the first: it was chosen here, or another server took it here for the first time.
	firstKind string
	changed   bool   // another than the last one that the Checker took
	hash      Sealed // to be kept; none: that stays
	claims    Claims // the Checker's
}

// prove checks an account's primary password; ErrWrong, ErrUnavailable. Of nobody (nil), a suspended account, and one without a
// primary password it takes as long.
func (p *People) prove(ctx context.Context, person *Person, password []byte, queue *semaphore.Weighted) (*proof, error) {
	known := person != nil && person.Status == authstore.Active && len(password) > 0 && len(password) <= maxPrimary
	switch {
	case !known && !p.KeepsPrimary():
		return nil, p.heard.again(ctx)
	case !known || p.KeepsPrimary() && person.Primary.Key == 0:
		if _, _, err := p.matches(ctx, password[:min(len(password), maxPrimary)], p.dummy, queue); err != nil {
			return nil, err
		}
		return nil, ErrWrong
	}
	var c Claims
	if !p.KeepsPrimary() {
		var err error
		if c, err = p.ask(ctx, person.Names[0], password); err != nil {
			return nil, err
		}
	}
	return p.follow(ctx, *person, c, password, queue)
}

// proveNewcomer is prove for a name that nobody has and an account is made for; ErrNobody where the Checker's claims say that it is not.
func (p *People) proveNewcomer(ctx context.Context, v Visitor, name string, password []byte, queue *semaphore.Weighted) (*proof, error) {
	if len(password) == 0 || len(password) > maxPrimary {
		return nil, p.heard.again(ctx)
	}
	c, err := p.ask(ctx, name, password)
	if err != nil {
		return nil, err
	}
	person, err := p.provision(ctx, v.Actor(), name, c)
	if err != nil {
		return nil, err
	}
	return p.follow(ctx, person, c, password, queue)
}

// follow tells what follows from a primary password that the Checker took, and compares it with the one that is kept here.
func (p *People) follow(ctx context.Context, person Person, c Claims, password []byte, queue *semaphore.Weighted) (*proof, error) {
	pr := &proof{person: person, first: person.Primary.Key == 0, firstKind: "portal.first_sign_in", claims: c}
	ok := false
	if !pr.first {
		var err error
		if ok, err = p.compare(ctx, pr, password, queue); err != nil {
			return nil, err
		}
	}
	if ok {
		return pr, nil
	}
	if p.KeepsPrimary() {
		return nil, ErrWrong
	}
	pr.changed = !pr.first && p.o.OnePrimary
	var err error
	pr.hash, err = p.newPrimary(ctx, person.ID, password)
	return pr, err
}

// compare checks a password against the hash that is kept. Where that was made with older parameters or stands under an older key, the
// proof gets another.
func (p *People) compare(ctx context.Context, pr *proof, password []byte, queue *semaphore.Weighted) (bool, error) {
	kept, err := p.openRow(pr.person.Primary, primaryPlace(pr.person.ID))
	if err != nil {
		return false, err
	}
	defer clear(kept)
	ok, current, err := p.matches(ctx, password, string(kept), queue)
	if err != nil || !ok {
		return false, err
	}
	key, err := p.o.Accounts.UsableKey(ctx)
	switch {
	case err != nil:
		return false, err
	case !current:
		pr.hash, err = p.newPrimary(ctx, pr.person.ID, password)
	case key != pr.person.Primary.Key:
		pr.hash, err = p.sealWith(key, kept, primaryPlace(pr.person.ID))
	}
	return true, err
}

func (p *People) newPrimary(ctx context.Context, id authstore.AccountID, password []byte) (Sealed, error) {
	made, err := p.hash(ctx, password)
	if err != nil {
		return Sealed{}, err
	}
	plain := []byte(made)
	defer clear(plain)
	return p.sealRow(ctx, plain, primaryPlace(id))
}

// ask has the Checker check a password.
func (p *People) ask(ctx context.Context, login string, password []byte) (Claims, error) {
	began := time.Now()
	if err := p.asking.Acquire(ctx, 1); err != nil {
		return Claims{}, err
	}
	defer p.asking.Release(1)
	c, err := p.o.Checker.Check(ctx, login, password)
	switch {
	case err == nil:
		p.heard.yes()
		return c, nil
	case ctx.Err() != nil: // it is the visitor who has gone
	case errors.Is(err, ErrWrong):
		p.heard.no(time.Since(began), false)
	default:
		p.heard.no(time.Since(began), true)
	}
	if errors.Is(err, ErrWrong) {
		return Claims{}, err
	}
	return Claims{}, fmt.Errorf("%w: %v", ErrUnavailable, err)
}

// errRaced says that the account's primary password is another than the one that was proven: look again.
var errRaced = errors.New("the primary password was changed meanwhile")

// settle does in a transaction what follows from a proof: the first password is kept, and a changed one ends what the old one stood for.
func (pr *proof) settle(ctx context.Context, tx Tx, now time.Time) error {
	person, err := tx.Person(ctx)
	switch {
	case errors.Is(err, authstore.ErrNotFound):
		return ErrWrong
	case err != nil:
		return err
	case person.Status != authstore.Active:
		return ErrWrong
	case !bytes.Equal(person.Primary.Value, pr.person.Primary.Value):
		return errRaced
	}
	if pr.hash.Key != 0 {
		if err := tx.SetPrimary(ctx, pr.hash, now); err != nil {
			return err
		}
	}
	changedThere, err := heed(ctx, tx, person, pr.claims, now)
	switch {
	case err != nil:
		return err
	case pr.changed || changedThere:
		_, err = changed(ctx, tx, 0)
		return err
	case pr.first:
		return tx.Event(ctx, pr.firstKind, "")
	}
	return nil
}

// changed ends, but for one session, all that the old primary password stood for, and counts the app passwords.
func changed(ctx context.Context, tx Tx, but SessionID) (int, error) {
	n, err := tx.RevokeAll(ctx, whyRevoked)
	if err != nil {
		return 0, err
	}
	if _, err := tx.EndSessions(ctx, but); err != nil {
		return 0, err
	}
	return n, tx.Event(ctx, "primary.changed", strconv.Itoa(n))
}

// ChangePrimary changes the primary password: all app passwords and all other sessions end with it, in one transaction. ErrStepUp, ErrWrong,
// *TooMany, *Weak, ErrForeignPrimary.
func (p *People) ChangePrimary(ctx context.Context, v Visitor, s Session, old, new []byte) (Token, Session, authstore.Confirmation, error) {
	none := authstore.Confirmation{}
	if !p.KeepsPrimary() {
		return "", Session{}, none, ErrForeignPrimary
	}
	s, err := p.inFresh(ctx, p.o.Truth, s)
	if err != nil {
		return "", Session{}, none, err
	}
	if err := p.check(s.Address, new); err != nil {
		return "", Session{}, none, err
	}
	person, charges, err := p.prover(ctx, v, s.Account, p.knownDevice(v.Device, s.Account))
	if err != nil {
		return "", Session{}, none, err
	}
	if _, err := p.prove(ctx, &person, old, p.hashing); err != nil {
		return "", Session{}, none, p.giveBack(ctx, charges, err)
	}
	if bytes.Equal(old, new) {
		return "", Session{}, none, p.giveBack(ctx, charges, &Weak{Unchanged})
	}
	sealed, err := p.newPrimary(ctx, s.Account, new)
	if err != nil {
		return "", Session{}, none, p.giveBack(ctx, charges, err)
	}
	var t Token
	c, err := p.o.Truth.Act(ctx, v.Actor(), s.Account, func(tx Tx) error {
		if s, err = p.inFresh(ctx, tx, s); err != nil {
			return err
		}
		proven := &proof{person: person, hash: sealed}
		if err := proven.settle(ctx, tx, p.now()); err != nil {
			return err
		}
		if _, err := changed(ctx, tx, s.ID); err != nil {
			return err
		}
		if err := tx.Refund(ctx, charges); err != nil {
			return err
		}
		t, err = p.renew(ctx, tx, &s)
		return err
	})
	if errors.Is(err, errRaced) { // somebody has just changed it
		err = ErrWrong
	}
	if err != nil {
		return "", Session{}, none, p.giveBack(ctx, charges, err)
	}
	return t, s, p.o.Accounts.Confirm(ctx, c), nil
}

// prover reads the account whose primary password is about to be checked, and charges for it.
func (p *People) prover(ctx context.Context, v Visitor, id authstore.AccountID, device string) (Person, []Charge, error) {
	person, err := p.o.Truth.Person(ctx, id)
	if err != nil {
		return Person{}, nil, err
	}
	charges := p.signInCharges(v, person.Names[0], device)
	return person, charges, p.take(ctx, charges...)
}

// giveBack takes charges back unless the attempt was wrong, and returns its error.
func (p *People) giveBack(ctx context.Context, charges []Charge, err error) error {
	if errors.Is(err, ErrWrong) || errors.Is(err, ErrWrongCode) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	return errors.Join(err, p.o.Truth.Refund(ctx, charges))
}

// echo remembers how the Checker answered the last password that it did not take. It is not asked about names that have no account here;
// they hear the same, as late: mail servers take two seconds to refuse (Dovecot's auth_failure_delay), and time would tell who has one.
type echo struct {
	mu   sync.Mutex // guards the fields below
	at   time.Time
	took time.Duration
	down bool // it was no answer about the password
}

// downFor is how long an outage is told of that nobody with an account has met since. Each time it lapses, one name can be found out.
const downFor = time.Hour

// yes notes that a password was taken: the Checker is there.
func (e *echo) yes() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = false
}

// no notes that none was taken, and how long that took.
func (e *echo) no(took time.Duration, down bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.at, e.took, e.down = time.Now(), took, down
}

// again answers as the Checker did: ErrWrong, or ErrUnavailable.
func (e *echo) again(ctx context.Context) error {
	e.mu.Lock()
	if e.down && time.Since(e.at) > downFor {
		e.took, e.down = 0, false
	}
	took, down := e.took, e.down
	e.mu.Unlock()
	timer := time.NewTimer(took)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
	}
	if down {
		return ErrUnavailable
	}
	return ErrWrong
}
