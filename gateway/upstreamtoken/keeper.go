package upstreamtoken

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"postern/authstore"
	"postern/authstore/secret"
)

// Options are what a Keeper works with.
type Options struct {
	Store     authstore.UpstreamStore
	Keys      func() *secret.Keyring
	UsableKey func(context.Context) (uint32, error) // the number of the key that new secrets are sealed with
	Providers []Provider
	// Needs names the providers whose tokens an account's backends want, and Logins the account's names at these backends.
	Needs  func(address string) []string
	Logins func(a authstore.Account, provider string) []string
	Site   string                         // the portal's origin, for words about where people connect; empty: there is none
	Log    *slog.Logger                   // nil: discarded
	Count  func(provider, outcome string) // told of each refresh: "refreshed", "failed", "refused"; nil: nobody
	Go     func(func())                   // runs a refresh that the caller of Close, or whoever else, waits for; nil: Close waits
	Now    func() time.Time               // nil: time.Now
}

// The errors of tokens that are not there. Their words are for the log.
var (
	ErrNotConnected = errors.New("the account is not connected")
	ErrUnknown      = errors.New("there is no such authorization server")
)

// Failed says that a connection can't be refreshed any more, until its person consents again.
type Failed struct{ Code string }

func (f *Failed) Error() string { return "the connection has failed (" + f.Code + ")" }

// Token is an access token.
type Token struct {
	Value   []byte // the caller clears it
	Refused func() // called when a backend has refused it
}

const (
	spare     = time.Minute      // an access token that ends sooner is given to no login
	ahead     = 10 * time.Minute // before its end, a login has the next one fetched; or in the last third of its life
	recheck   = 30 * time.Second // how long memory is believed: a connection that was taken back is used no longer
	forceEach = time.Minute      // between two refreshes because a backend refuses
	maxHeld   = 20000            // accounts whose tokens are in memory

	minBackoff = 2 * time.Second // after a refresh that failed for a reason that may pass; doubled each time
	maxBackoff = time.Minute
)

// patience is how long things may take. Tests have less of it.
type patience struct {
	lock  time.Duration // a node holds the right to refresh an account's token: longer than a question takes, for whoever comes after asks with the same token
	wait  time.Duration // a login waits for a refresh, by another node too: longer than lock, for that node may have died
	poll  time.Duration // between two looks for what another node has fetched
	store time.Duration // what was fetched is tried to be written
}

var usual = patience{lock: askTime + 5*time.Second, wait: askTime + 15*time.Second, poll: 100 * time.Millisecond, store: 2 * time.Minute}

// Keeper gives access tokens. Goroutines may share it.
type Keeper struct {
	o         Options
	servers   map[string]*server
	owner     string // this process, towards the others
	patience  patience
	refreshes singleflight.Group // by place
	running   sync.WaitGroup     // refreshes

	mu   sync.Mutex // guards held and what it holds
	held map[place]*entry
}

// place is whose token it is; account 0: one for all.
type place struct {
	account  authstore.AccountID
	provider string
}

// String names the place where its token is sealed for it, and where nodes take turns.
func (p place) String() string { return authstore.UpstreamPlace(p.account, p.provider) }

// entry is what memory knows of a token.
type entry struct {
	access    []byte
	expires   time.Time
	refreshed time.Time
	version   int64 // 0: there is none
	failure   string
	checked   time.Time // when it was last read
	refused   bool      // a backend did not take access, and another one is being fetched
	forced    time.Time // when that was last so
	tries     int       // refreshes that failed one after the other
	next      time.Time // no refresh before
	fault     error     // of the last one
}

// good reports whether a login can use the access token.
func (e *entry) good(now time.Time) bool {
	return len(e.access) > 0 && !e.refused && e.expires.Sub(now) > min(spare, e.expires.Sub(e.refreshed)/10)
}

// due reports whether it is time to fetch the next one.
func (e *entry) due(now time.Time) bool {
	return e.expires.Sub(now) < min(ahead, e.expires.Sub(e.refreshed)/3) && e.failure == "" && !now.Before(e.next)
}

// New makes a keeper.
func New(o Options) *Keeper {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Count == nil {
		o.Count = func(string, string) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	k := &Keeper{o: o, servers: make(map[string]*server), owner: rand.Text(), patience: usual, held: make(map[place]*entry)}
	if k.o.Go == nil {
		k.o.Go = k.running.Go
	}
	for _, p := range o.Providers {
		k.servers[p.Name] = newServer(p)
	}
	return k
}

// Close waits for the refreshes that are under way: what they fetch must be written.
func (k *Keeper) Close() { k.running.Wait() }

// Probe tries a provider as far as one can without a person.
func (k *Keeper) Probe(ctx context.Context, provider string) error {
	p := k.servers[provider]
	if p == nil {
		return ErrUnknown
	}
	return p.probe(ctx)
}

// Token gives an access token that is good for a while yet. One whose end is near is given, and the next one fetched meanwhile. The errors are ErrNotConnected,
// *Failed, and others where it may go well later.
func (k *Keeper) Token(ctx context.Context, id authstore.AccountID, provider string) (Token, error) {
	p := k.servers[provider]
	if p == nil {
		return Token{}, ErrUnknown
	}
	at := place{id, provider}
	if p.Client {
		at.account = 0
	}
	for tried := false; ; tried = true {
		e, err := k.look(ctx, at)
		if err != nil {
			return Token{}, err
		}
		now := k.o.Now()
		switch {
		case e.good(now):
			if e.due(now) {
				k.start(ctx, p, at, e.version)
			}
			return Token{Value: e.access, Refused: func() { k.refused(p, at, e.version) }}, nil
		case e.failure != "":
			return Token{}, fmt.Errorf("%w%s", &Failed{e.failure}, k.remedy())
		case e.version == 0 && !p.Client:
			return Token{}, fmt.Errorf("%w to %s%s", ErrNotConnected, p.Name, k.remedy())
		case now.Before(e.next):
			return Token{}, fmt.Errorf("the last refresh at %s failed: %w", p.Name, e.fault)
		case tried:
			return Token{}, fmt.Errorf("%s gives tokens that end at once", p.Name)
		}
		if err := k.renew(ctx, p, at, e.version); err != nil {
			return Token{}, err
		}
	}
}

func (k *Keeper) remedy() string {
	if k.o.Site == "" {
		return ""
	}
	return "; its person connects it at " + k.o.Site + "/connections"
}

// look tells what is known of a token, from the store where memory is too old. The access token is the caller's own.
func (k *Keeper) look(ctx context.Context, at place) (entry, error) {
	k.mu.Lock()
	if e, now := k.held[at], k.o.Now(); e != nil && now.Sub(e.checked) < recheck && e.good(now) {
		defer k.mu.Unlock()
		return e.copy(), nil
	}
	k.mu.Unlock()
	e, _, err := k.read(ctx, at)
	return e, err
}

func (e *entry) copy() entry {
	c := *e
	c.access = bytes.Clone(e.access)
	return c
}

// read reads a token from the store into memory, and gives the row beside it.
func (k *Keeper) read(ctx context.Context, at place) (entry, authstore.UpstreamToken, error) {
	row, err := k.o.Store.UpstreamToken(ctx, at.account, at.provider)
	if err != nil && !errors.Is(err, authstore.ErrNotFound) {
		return entry{}, row, fmt.Errorf("read the token of account %d at %s: %w", at.account, at.provider, err)
	}
	var pair pair
	if row.Version != 0 {
		if pair, err = k.open(row); err != nil {
			return entry{}, row, err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.take(at, row, pair.Access).copy(), row, nil
}

// take puts what was read into memory. The caller holds k.mu.
func (k *Keeper) take(at place, row authstore.UpstreamToken, access string) *entry {
	e := k.held[at]
	switch {
	case e == nil:
		k.makeRoom()
		e = new(entry)
		k.held[at] = e
	case row.Version != 0 && row.Version < e.version: // it was read before what is known was written
		return e
	}
	if row.Version != e.version {
		clear(e.access)
		*e = entry{access: []byte(access), version: row.Version, forced: e.forced}
	}
	e.expires, e.refreshed, e.failure, e.checked = row.Expires, row.Refreshed, row.Failure, k.o.Now()
	return e
}

// makeRoom forgets somebody's token where there are too many. The caller holds k.mu.
func (k *Keeper) makeRoom() {
	for at, e := range k.held {
		if len(k.held) < maxHeld {
			return
		}
		clear(e.access)
		delete(k.held, at)
	}
}

// forget drops a token from memory.
func (k *Keeper) forget(at place) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.held[at]; e != nil {
		clear(e.access)
		delete(k.held, at)
	}
}

// refused hears that a backend did not take the access token of a version: it may have been revoked before its end. Another one is fetched, at most
// one a minute, since the fault may be the backend's.
func (k *Keeper) refused(p *server, at place, version int64) {
	k.mu.Lock()
	e, now := k.held[at], k.o.Now()
	again := e != nil && e.version == version && e.failure == "" && now.Sub(e.forced) >= forceEach && !now.Before(e.next)
	if again {
		e.forced, e.refused = now, true
	}
	k.mu.Unlock()
	if again {
		k.start(context.Background(), p, at, version)
	}
}

// start fetches a token behind the back of a login.
func (k *Keeper) start(ctx context.Context, p *server, at place, from int64) {
	k.flight(ctx, p, at, from)
}

// renew fetches a token and waits for it. Whoever asks meanwhile waits for the same.
func (k *Keeper) renew(ctx context.Context, p *server, at place, from int64) error {
	select {
	case r := <-k.flight(ctx, p, at, from):
		return r.Err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// flight is the one refresh of a place in this process. It goes on when the login that began it has gone: what the server gave must be written.
func (k *Keeper) flight(ctx context.Context, p *server, at place, from int64) <-chan singleflight.Result {
	done := k.refreshes.DoChan(at.String(), func() (any, error) {
		err := k.refresh(context.WithoutCancel(ctx), p, at, from)
		if err != nil {
			k.failed(p, at, from, err)
		}
		return nil, err
	})
	out := make(chan singleflight.Result, 1)
	k.o.Go(func() { out <- <-done })
	return out
}

// refresh takes the right to ask for a token in place of the one of a version, and asks; unless another node was first.
func (k *Keeper) refresh(ctx context.Context, p *server, at place, from int64) error {
	if done, err := k.turn(ctx, p, at, from); done || err != nil {
		return err
	}
	defer func() {
		if _, err := k.o.Store.Lease(ctx, at.String(), k.owner, time.Unix(0, 0)); err != nil {
			k.o.Log.Debug("a turn is not given back; it ends by itself", "err", err)
		}
	}()
	if done, err := k.superseded(ctx, p, at, from); done || err != nil { // another one may have had the turn before
		return err
	}
	return k.fetch(ctx, p, at)
}

// turn waits for the right to ask; done: there is no need any more, for another node was first.
func (k *Keeper) turn(ctx context.Context, p *server, at place, from int64) (done bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, k.patience.wait, errors.New("another node is fetching the token and has not got it yet"))
	defer cancel()
	for {
		done, err := k.superseded(ctx, p, at, from)
		ours := false
		if err == nil && !done {
			ours, err = k.o.Store.Lease(ctx, at.String(), k.owner, k.o.Now().Add(k.patience.lock))
		}
		switch {
		case done, ours:
			return done, nil
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case err != nil:
			return false, err
		}
		select {
		case <-time.After(k.patience.poll + mathrand.N(k.patience.poll)):
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// superseded reports whether there is no need to fetch any more, or no use.
func (k *Keeper) superseded(ctx context.Context, p *server, at place, from int64) (bool, error) {
	e, _, err := k.read(ctx, at)
	clear(e.access)
	switch {
	case err != nil:
		return false, err
	case e.version != from && e.version != 0:
		return true, nil
	case e.failure != "":
		return false, &Failed{e.failure}
	case e.version == 0 && !p.Client:
		return false, ErrNotConnected
	}
	return false, nil
}

// fetch asks the server and writes what it gives. The caller has the turn.
func (k *Keeper) fetch(ctx context.Context, p *server, at place) error {
	_, row, err := k.read(ctx, at)
	if err != nil {
		return err
	}
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {strings.Join(p.Scopes, " ")}}
	var had pair
	if !p.Client {
		if had, err = k.open(row); err != nil {
			return err
		}
		if had.Refresh == "" {
			return errors.New("there is no refresh token")
		}
		form = url.Values{"grant_type": {"refresh_token"}, "refresh_token": {had.Refresh}}
	}
	asking, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	got, err := p.ask(asking, form)
	if code := ended(err); code != "" && !p.Client {
		return k.end(ctx, p, at, row, code)
	}
	if err != nil {
		return fmt.Errorf("refresh at %s: %w", p.Name, err)
	}
	if got.refresh == "" {
		got.refresh = had.Refresh // it stays as it is (RFC 6749 section 6)
	}
	if p.Client {
		got.refresh = ""
	}
	if err := k.keep(ctx, at, row.Version, got); err != nil {
		return err
	}
	k.o.Count(p.Name, "refreshed")
	return nil
}

// keep writes what the server gave, before anybody uses it: it may have taken back the refresh token that stands in the store. So it is tried for a
// while where the store does not answer.
func (k *Keeper) keep(ctx context.Context, at place, over int64, got token) error {
	ctx, cancel := context.WithTimeout(ctx, k.patience.store)
	defer cancel()
	fault := context.DeadlineExceeded // or what came before it
	for {
		row, err := k.seal(ctx, at, got)
		if err == nil {
			row.Version = over
			row.Version, err = k.o.Store.Refresh(ctx, row)
		}
		if err == nil {
			if row.Version == 0 { // the person has consented anew meanwhile, or taken it back
				_, _, err = k.read(ctx, at)
				return err
			}
			k.mu.Lock()
			defer k.mu.Unlock()
			e := k.take(at, row, got.access)
			e.tries, e.next, e.fault = 0, time.Time{}, nil
			return nil
		}
		if ctx.Err() == nil {
			fault = err
		}
		k.o.Log.Error("a token that was fetched can't be written; it is tried again", "account", int64(at.account), "provider", at.provider, "err", err)
		select {
		case <-time.After(k.patience.poll * 10):
		case <-ctx.Done():
			return fmt.Errorf("write the token of account %d at %s: %w", at.account, at.provider, fault)
		}
		if _, err := k.o.Store.Lease(ctx, at.String(), k.owner, k.o.Now().Add(k.patience.lock)); err != nil {
			continue // nor can anybody else take the turn
		}
	}
}

// end notes that a connection can't be refreshed any more, unless another one took its place meanwhile.
func (k *Keeper) end(ctx context.Context, p *server, at place, row authstore.UpstreamToken, code string) error {
	failed, err := k.o.Store.FailConnection(ctx, authstore.Actor{Name: "gateway"}, row, code)
	if err != nil {
		return fmt.Errorf("note that the connection has failed (%s): %w", code, err)
	}
	if failed {
		k.o.Count(p.Name, "refused")
		k.o.Log.Warn("a connection has failed; its person has to connect again", "account", int64(at.account), "provider", p.Name, "code", code)
	}
	if done, err := k.superseded(ctx, p, at, row.Version); done || err != nil {
		return err
	}
	return &Failed{code}
}

// failed notes a refresh that may go well later: when it is tried again, and that a token which a backend refused is the best there is.
func (k *Keeper) failed(p *server, at place, from int64, err error) {
	if _, ok := errors.AsType[*Failed](err); ok || errors.Is(err, ErrNotConnected) {
		return
	}
	k.o.Count(p.Name, "failed")
	k.mu.Lock()
	e := k.held[at]
	if e == nil {
		k.makeRoom()
		e = &entry{}
		k.held[at] = e
	}
	pause := min(minBackoff<<min(e.tries, 10), maxBackoff)
	if a, ok := errors.AsType[*Answer](err); ok {
		pause = max(pause, a.Wait)
	}
	e.tries++
	e.next, e.fault = k.o.Now().Add(pause/2+mathrand.N(pause/2)), err
	if e.version == from {
		e.refused = false
	}
	k.mu.Unlock()
	if now, last := time.Now().Unix(), p.told.Load(); now-last >= 60 && p.told.CompareAndSwap(last, now) { // one line for all that fail at once
		k.o.Log.Warn("tokens are not refreshed", "provider", p.Name, "account", int64(at.account), "err", err)
	}
}

// pair is what is sealed.
type pair struct {
	Refresh string `json:"refresh,omitempty"`
	Access  string `json:"access"`
}

func (k *Keeper) open(row authstore.UpstreamToken) (p pair, err error) {
	plain, err := k.o.Keys().OpenRow(row.Sealed, authstore.UpstreamPlace(row.Account, row.Provider))
	if err != nil {
		return p, fmt.Errorf("open the token of account %d at %s: %w", row.Account, row.Provider, err)
	}
	defer clear(plain)
	if json.Unmarshal(plain, &p) != nil {
		return pair{}, fmt.Errorf("the token of account %d at %s is not in its form", row.Account, row.Provider)
	}
	return p, nil
}

// seal makes a row of what the server gave.
func (k *Keeper) seal(ctx context.Context, at place, got token) (authstore.UpstreamToken, error) {
	row := authstore.UpstreamToken{Account: at.account, Provider: at.provider, Refreshed: k.o.Now()}
	row.Expires = row.Refreshed.Add(got.life)
	plain, err := json.Marshal(pair{got.refresh, got.access})
	if err != nil {
		return row, err
	}
	defer clear(plain)
	if row.Key, err = k.o.UsableKey(ctx); err != nil {
		return row, err
	}
	row.Sealed, err = k.o.Keys().SealRow(row.Key, plain, at.String())
	return row, err
}
