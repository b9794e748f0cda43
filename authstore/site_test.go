package authstore_test

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/secret"
	"postern/authstore/sqlstore"
	"postern/gateway/live"
	"postern/protocols"
)

var tester = authstore.Actor{Name: "test"}

// site is a database with its keys, on which nodes and an administrator's desk work.
type site struct {
	t     testing.TB
	path  string
	keys  *secret.Keyring
	truth *sqlstore.Store
	desk  *authstore.Accounts

	mu    sync.Mutex // guards nodes
	nodes []*node
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{t: t, path: filepath.Join(t.TempDir(), "postern.db"), keys: secret.NewKeyring()}
	s.truth = s.open()
	s.desk = s.accounts(s.truth, nil)
	return s
}

// open opens the database once more, as another process does.
func (s *site) open() *sqlstore.Store {
	s.t.Helper()
	truth, err := sqlstore.Open(context.Background(), sqlstore.Options{Path: s.path})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { truth.Close() })
	return truth
}

const enforced = authstore.ScopeMail | authstore.ScopeCalendar | authstore.ScopeContacts

func (s *site) accounts(truth authstore.Truth, cache authstore.Cache) *authstore.Accounts {
	s.t.Helper()
	a, err := authstore.NewAccounts(context.Background(), authstore.AccountsOptions{Truth: truth, Cache: cache, Keys: s.keys,
		Enforced: enforced, Actor: tester, Changed: s.poke})
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// poke does for the tests' sake what Redis' publish does between processes: it makes nodes quick.
func (s *site) poke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.nodes {
		n.Poke()
	}
}

// node is a running Store with its sessions.
type node struct {
	*authstore.Store
	t    testing.TB
	live *live.Registry
	stop func()
}

// node starts a node and waits until it is ready. Refusals come at once unless o says otherwise.
func (s *site) node(o authstore.Options) *node {
	s.t.Helper()
	n := s.start(o)
	for n.Ready() != nil {
		time.Sleep(time.Millisecond)
	}
	return n
}

func (s *site) start(o authstore.Options) *node {
	s.t.Helper()
	n := &node{t: s.t, live: &live.Registry{}}
	if o.Truth == nil {
		o.Truth = s.open()
	}
	if o.Keys == nil {
		o.Keys = s.keys
	}
	if o.RefusalDelay == 0 {
		o.RefusalDelay = -1
	}
	o.Sessions = n.live
	n.Store = authstore.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := n.Run(ctx); err != nil {
			s.t.Errorf("Run: %v", err)
		}
	})
	n.stop = sync.OnceFunc(func() { cancel(); done.Wait() })
	s.t.Cleanup(n.stop)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes = append(s.nodes, n)
	return n
}

// session is one login that was told success, with its connection.
type session struct {
	grant authstore.Grant
	ended chan struct{} // closed when it was ended and has left
	cause error         // after ended
	leave func()
}

// login does what a front door does: verify, enter, confirm. It leaves as soon as it is told to end.
func (n *node) login(a authstore.Attempt) (*session, error) {
	g, err := n.Verify(context.Background(), a)
	if err != nil {
		return nil, err
	}
	return n.enter(g)
}

func (n *node) enter(g authstore.Grant) (*session, error) {
	s := &session{grant: g, ended: make(chan struct{})}
	ctx, end := context.WithCancelCause(context.Background())
	s.leave = n.live.Enter(&g, &protocols.Facts{Protocol: "imap"}, end).Leave
	context.AfterFunc(ctx, func() { s.cause = context.Cause(ctx); s.leave(); close(s.ended) })
	if err := n.Confirm(context.Background(), g); err != nil {
		s.leave()
		return nil, err
	}
	return s, nil
}

func (n *node) mustLogin(a authstore.Attempt) *session {
	n.t.Helper()
	s, err := n.login(a)
	if err != nil {
		n.t.Fatalf("login of %s: %v", a.Login, err)
	}
	return s
}

func (s *session) hasEnded() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

func (s *site) account(address string) authstore.Account {
	s.t.Helper()
	a, err := s.desk.Add(context.Background(), address)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// password makes an app password for mail, unless r says otherwise.
func (s *site) password(r authstore.PasswordRequest) (authstore.AppPassword, []byte) {
	s.t.Helper()
	if r.Label == "" {
		r.Label = "app"
	}
	if r.Scopes == 0 {
		r.Scopes = authstore.ScopeMail
	}
	p, typed, err := s.desk.CreatePassword(context.Background(), r)
	if err != nil {
		s.t.Fatal(err)
	}
	return p, []byte(typed.Reveal())
}

// must is for changes that are to work and to be confirmed.
func (s *site) must(done authstore.Confirmation, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	if len(done.Unconfirmed) > 0 {
		s.t.Fatalf("not confirmed: %v", done)
	}
}

var clientAddr = netip.MustParseAddr("192.0.2.7")

func attempt(login string, typed []byte) authstore.Attempt {
	return authstore.Attempt{Protocol: "imap", Mechanism: "PLAIN", Login: login, Secret: typed, Client: clientAddr, Need: authstore.ScopeMail}
}

// anotherPassword is a well-formed app password that nobody has.
func anotherPassword() []byte {
	p := secret.Generate()
	return []byte(p.Reveal())
}

// wantCode checks that an attempt is refused with a code; zero: that it is accepted.
func wantCode(t testing.TB, what string, err error, want authstore.Code) {
	t.Helper()
	if got := codeOf(err); got != want {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// codeOf is a refusal's code; zero: accepted.
func codeOf(err error) authstore.Code {
	if err == nil {
		return 0
	}
	if r, ok := errors.AsType[*authstore.Refusal](err); ok {
		return r.Code
	}
	return -1
}

// faulty is a truth whose answers can be held back, lost, or taken from another database.
type faulty struct {
	authstore.Truth
	now   atomic.Pointer[authstore.Truth]           // another database that took its place; nil: none
	fault atomic.Pointer[func(method string) error] // called before each read; an error is the answer
	after atomic.Pointer[func(method string)]       // called behind each read, before its answer is given
}

func (f *faulty) truth() authstore.Truth {
	if t := f.now.Load(); t != nil {
		return *t
	}
	return f.Truth
}

func (f *faulty) before(method string) error {
	if do := f.fault.Load(); do != nil {
		return (*do)(method)
	}
	return nil
}

func (f *faulty) behind(method string) {
	if do := f.after.Load(); do != nil {
		(*do)(method)
	}
}

func (f *faulty) Load(ctx context.Context, address string) (*authstore.Snapshot, error) {
	if err := f.before("Load"); err != nil {
		return nil, err
	}
	defer f.behind("Load")
	return f.truth().Load(ctx, address)
}

func (f *faulty) Tail(ctx context.Context, node string, from uint64) (authstore.Tail, error) {
	if err := f.before("Tail"); err != nil {
		return authstore.Tail{}, err
	}
	defer f.behind("Tail")
	return f.truth().Tail(ctx, node, from)
}

func (f *faulty) Recent(ctx context.Context, since time.Time) (authstore.Tail, error) {
	if err := f.before("Recent"); err != nil {
		return authstore.Tail{}, err
	}
	return f.truth().Recent(ctx, since)
}

func (f *faulty) Register(ctx context.Context, node string, keys []uint32) error {
	if err := f.before("Register"); err != nil {
		return err
	}
	return f.truth().Register(ctx, node, keys)
}

func (f *faulty) Acknowledge(ctx context.Context, node string, sequence uint64, keys []uint32) error {
	if err := f.before("Acknowledge"); err != nil {
		return err
	}
	return f.truth().Acknowledge(ctx, node, sequence, keys)
}

func (f *faulty) Used(ctx context.Context, batch []authstore.Usage) error {
	if err := f.before("Used"); err != nil {
		return err
	}
	return f.truth().Used(ctx, batch)
}
