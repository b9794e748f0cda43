package upstreamtoken

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/secret"
	"postern/authstore/sqlstore"
	"postern/internal/testlab"
)

var tester = authstore.Actor{Name: "test"}

// lab is a database, an authorization server and a clock.
type lab struct {
	t      *testing.T
	server *testlab.TokenServer
	path   string
	keys   *secret.Keyring
	later  atomic.Int64 // how far the clock is ahead
	alice  authstore.Account
	log    lines
	desk   *authstore.Accounts
}

// lines is a log.
type lines struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, server: testlab.NewTokenServer(t), path: filepath.Join(t.TempDir(), "p.db"), keys: secret.NewKeyring()}
	var err error
	l.desk, err = authstore.NewAccounts(t.Context(), authstore.AccountsOptions{Truth: l.store(), Keys: l.keys, Enforced: authstore.ScopeMail, Actor: tester, Now: l.now})
	if err != nil {
		t.Fatal(err)
	}
	if l.alice, err = l.desk.Add(t.Context(), testlab.Alice); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.desk.CreatePassword(t.Context(), authstore.PasswordRequest{Account: l.alice.ID, Label: "Phone", Scopes: authstore.ScopeMail}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.quiet)
	return l
}

// quiet fails the test where a secret of the server's stands in the log, or somebody was suspended, or an app password revoked.
func (l *lab) quiet() {
	for _, secret := range []string{"at.", "rt.", "code.", "dev.", l.server.Secret} {
		if strings.Contains(l.log.String(), secret) {
			l.t.Errorf("the log tells secrets (%q):\n%s", secret, l.log.String())
		}
	}
	s, err := sqlstore.Open(context.Background(), sqlstore.Options{Path: l.path})
	if err != nil {
		l.t.Fatal(err)
	}
	defer s.Close()
	if a, err := s.Account(context.Background(), testlab.Alice); err != nil || a.Status != authstore.Active || a.Passwords != 1 {
		l.t.Errorf("the account is %v and has %d app passwords, %v", a.Status, a.Passwords, err)
	}
}

func (l *lab) now() time.Time { return time.Now().Add(time.Duration(l.later.Load())) }

func (l *lab) pass(d time.Duration) { l.later.Add(int64(d)) }

// store opens the database as a process of its own does.
func (l *lab) store() *sqlstore.Store {
	l.t.Helper()
	s, err := sqlstore.Open(l.t.Context(), sqlstore.Options{Path: l.path, Now: l.now})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { s.Close() })
	return s
}

// node is a keeper with a database connection of its own.
func (l *lab) node(change ...func(*Provider)) *Keeper {
	l.t.Helper()
	p := Provider{Name: "lab", Issuer: l.server.URL, ClientID: l.server.ClientID, Secret: l.server.Secret, Scopes: []string{"openid", "email", "mail", "offline_access"},
		SamePerson: true, TLS: &tls.Config{RootCAs: l.server.CA.Pool}}
	for _, c := range change {
		c(&p)
	}
	k := New(Options{Store: l.store(), Keys: func() *secret.Keyring { return l.keys }, UsableKey: l.desk.UsableKey, Providers: []Provider{p},
		Needs:  func(string) []string { return []string{"lab"} },
		Logins: func(a authstore.Account, _ string) []string { return []string{a.BackendName} },
		Site:   "https://passwords.example.test", Log: slog.New(slog.NewTextHandler(&l.log, nil)), Now: l.now})
	l.t.Cleanup(k.Close)
	return k
}

// connect gives Alice's account tokens, as a consent does.
func (l *lab) connect(k *Keeper) {
	l.t.Helper()
	p := k.servers["lab"]
	e, err := p.endpoints(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	got := token{access: l.server.Issue(testlab.Alice), refresh: l.server.Refreshable(testlab.Alice), life: l.server.Life}
	if err := k.connect(l.t.Context(), tester, p, e, l.alice, "", got); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) token(k *Keeper) string {
	l.t.Helper()
	got, err := k.Token(l.t.Context(), l.alice.ID, "lab")
	if err != nil {
		l.t.Fatal(err)
	}
	return string(got.Value)
}

func (l *lab) row(k *Keeper) authstore.UpstreamToken {
	l.t.Helper()
	row, err := k.o.Store.UpstreamToken(l.t.Context(), l.alice.ID, "lab")
	if err != nil {
		l.t.Fatal(err)
	}
	return row
}

// idle waits until no refresh is under way.
func idle(k *Keeper) { k.running.Wait() }

func TestATokenIsKeptUntilItsEndIsNear(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	k := l.node()
	if _, err := k.Token(t.Context(), l.alice.ID, "lab"); !errors.Is(err, ErrNotConnected) || !strings.Contains(err.Error(), "https://passwords.example.test/connections") {
		t.Errorf("before: %v", err)
	}
	l.connect(k)
	first := l.token(k)
	l.pass(45 * time.Minute)
	if again := l.token(k); again != first || l.server.Asked("refresh_token") != 0 {
		t.Errorf("%d refreshes, another token: %v", l.server.Asked("refresh_token"), again != first)
	}
	l.pass(8 * time.Minute) // 7 are left
	if l.token(k) != first {
		t.Error("a login waited for the next token")
	}
	idle(k)
	if next := l.token(k); next == first || l.server.Valid(next) != testlab.Alice || l.server.Asked("refresh_token") != 1 {
		t.Errorf("after the refresh: %d refreshes, the same token: %v", l.server.Asked("refresh_token"), next == first)
	}
	l.pass(time.Hour) // nobody logged in meanwhile
	if next := l.token(k); l.server.Valid(next) != testlab.Alice || l.server.Asked("refresh_token") != 2 {
		t.Errorf("after its end: %d refreshes", l.server.Asked("refresh_token"))
	}
	if fresh := l.node(); l.token(fresh) != l.token(k) || l.server.Asked("refresh_token") != 2 {
		t.Error("another node does not use what stands in the store")
	}
}

// Two nodes, 200 logins at the moment at which the token ends: one refresh.
func TestOneRefreshForAllNodes(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	nodes := []*Keeper{l.node(), l.node()}
	l.connect(nodes[0])
	for _, k := range nodes {
		l.token(k)
	}
	old := l.token(nodes[0])
	for round := range 3 {
		l.pass(time.Hour)
		l.server.Expire("")
		var logins sync.WaitGroup
		given := make([]string, 200)
		start := make(chan struct{})
		for i := range given {
			logins.Go(func() {
				<-start
				got, err := nodes[i%2].Token(t.Context(), l.alice.ID, "lab")
				if err != nil {
					t.Error(err)
				}
				given[i] = string(got.Value)
			})
		}
		close(start)
		logins.Wait()
		for _, g := range given {
			if g != given[0] || g == old || l.server.Valid(g) != testlab.Alice {
				t.Fatalf("a login got %.20q, another %.20q", g, given[0])
			}
		}
		if n := l.server.Asked("refresh_token"); n != round+1 {
			t.Fatalf("%d refreshes after %d ends", n, round+1)
		}
		old = given[0]
	}
}

// A node that dies with the turn to refresh holds the others up until the turn ends, and not for ever.
func TestANodeThatDiesWhileItRefreshes(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	dead, k := l.node(), l.node()
	k.patience = patience{lock: 500 * time.Millisecond, wait: 20 * time.Second, poll: 10 * time.Millisecond, store: time.Second}
	l.connect(dead)
	turns := &turnsAsked{k.o.Store, make(chan struct{}, 1000)}
	k.o.Store = turns
	l.pass(time.Hour)
	at := place{l.alice.ID, "lab"}
	if ours, err := dead.o.Store.Lease(t.Context(), at.String(), dead.owner, l.now().Add(time.Hour)); !ours || err != nil {
		t.Fatal(ours, err)
	}
	var logins sync.WaitGroup
	for range 50 {
		logins.Go(func() {
			if got, err := k.Token(t.Context(), l.alice.ID, "lab"); err != nil || l.server.Valid(string(got.Value)) != testlab.Alice {
				t.Errorf("Token = %v", err)
			}
		})
	}
	for range 3 { // they wait, and look again and again
		<-turns.asked
	}
	if n := l.server.Asked("refresh_token"); n != 0 {
		t.Errorf("%d refreshes out of turn", n)
	}
	l.pass(2 * time.Hour) // the dead node's turn ends
	logins.Wait()
	if n := l.server.Asked("refresh_token"); n != 1 {
		t.Errorf("%d refreshes", n)
	}

	// One that has asked, and dies before the answer is written: the server has another refresh token than the store. It is the loss that rotation
	// brings; it is told, and nothing is revoked.
	row := l.row(k)
	had, err := k.open(row)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dead.servers["lab"].ask(t.Context(), map[string][]string{"grant_type": {"refresh_token"}, "refresh_token": {had.Refresh}}); err != nil {
		t.Fatal(err)
	}
	l.pass(time.Hour)
	_, err = k.Token(t.Context(), l.alice.ID, "lab")
	if f, ok := errors.AsType[*Failed](err); !ok || f.Code != "invalid_grant" {
		t.Errorf("after a lost answer: %v", err)
	}
}

// turnsAsked tells when one is asked for.
type turnsAsked struct {
	authstore.UpstreamStore
	asked chan struct{}
}

func (s *turnsAsked) Lease(ctx context.Context, name, owner string, until time.Time) (bool, error) {
	s.asked <- struct{}{}
	return s.UpstreamStore.Lease(ctx, name, owner, until)
}

// A login that waits for a turn that nobody gives back is refused in time.
func TestALoginWaitsForAnotherNodeInBounds(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	k := l.node()
	k.patience = patience{lock: time.Second, wait: 200 * time.Millisecond, poll: 10 * time.Millisecond, store: time.Second}
	l.connect(k)
	l.pass(time.Hour)
	if ours, err := k.o.Store.Lease(t.Context(), place{l.alice.ID, "lab"}.String(), "another", l.now().Add(time.Hour)); !ours || err != nil {
		t.Fatal(ours, err)
	}
	if _, err := k.Token(t.Context(), l.alice.ID, "lab"); err == nil || !strings.Contains(err.Error(), "another node") {
		t.Errorf("Token = %v", err)
	}
	if l.server.Asked("refresh_token") != 0 {
		t.Error("it refreshed out of turn")
	}
}

func TestFaultsOfTheServer(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]testlab.Fault{"500": testlab.ServerFails, "rubbish": testlab.Rubbish, "429": testlab.TooManyAtOnce, "503": testlab.Unavailable,
		"hangs up": testlab.HangsUp, "endless": testlab.EndlessAnswer, "redirects": testlab.RedirectsAway, "client": testlab.InvalidClient} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			k := l.node()
			l.connect(k)
			l.pass(55 * time.Minute)
			l.server.Fail("/token", fault)
			first := l.token(k) // its end is near
			idle(k)
			if l.token(k) != first {
				t.Error("the token that is good yet is not used")
			}
			asked := l.server.Asked("refresh_token")
			l.pass(10 * time.Minute)
			_, err := k.Token(t.Context(), l.alice.ID, "lab")
			if _, ended := errors.AsType[*Failed](err); err == nil || ended {
				t.Errorf("after its end: %v", err)
			}
			for range 20 { // it is not asked at each login
				k.Token(t.Context(), l.alice.ID, "lab")
			}
			if n := l.server.Asked("refresh_token"); n > asked+1 {
				t.Errorf("it was asked %d times by 21 logins", n-asked)
			}
			if row := l.row(k); row.Failure != "" {
				t.Errorf("the connection is marked as failed: %s", row.Failure)
			}
			if n := strings.Count(l.log.String(), "tokens are not refreshed"); n != 1 {
				t.Errorf("it stands %d times in the log:\n%s", n, l.log.String())
			}
			l.server.Fail("/token", testlab.Works)
			l.pass(longestWait)
			if got := l.token(k); l.server.Valid(got) != testlab.Alice {
				t.Error("it does not recover")
			}
		})
	}
}

func TestAServerThatHangs(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	k := l.node()
	l.connect(k)
	k.servers["lab"].http.Timeout = 200 * time.Millisecond
	l.server.Fail("/token", testlab.Hangs)
	l.pass(time.Hour)
	if _, err := k.Token(t.Context(), l.alice.ID, "lab"); err == nil {
		t.Error("a token from nowhere")
	}
	if row := l.row(k); row.Failure != "" {
		t.Errorf("the connection is marked as failed: %s", row.Failure)
	}
	k.servers["lab"].http.Timeout = askTime
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	l.pass(time.Hour)
	if _, err := k.Token(ctx, l.alice.ID, "lab"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a login that goes: %v", err)
	}
	l.server.Fail("/token", testlab.Works)
	idle(k) // what it began goes on without it
	if n := l.server.Asked("refresh_token"); l.server.Valid(l.token(k)) != testlab.Alice || l.server.Asked("refresh_token") != n {
		t.Error("what a login began, and left, was lost")
	}
}

func TestNoServerAtAll(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for name, issuer := range map[string]string{"nobody listens": "https://localhost:1", "no such name": "https://id.invalid", "another one's document": l.server.URL + "/"} {
		k := l.node(func(p *Provider) { p.Issuer = issuer })
		if err := k.Probe(t.Context(), "lab"); err == nil {
			t.Errorf("%s: Probe finds it", name)
		}
		if _, err := k.AskPerson(t.Context(), Consent{Provider: "lab"}, "", "", ""); err == nil {
			t.Errorf("%s: a person is sent there", name)
		}
	}
	k := l.node(func(p *Provider) { p.TLS = nil })
	if err := k.Probe(t.Context(), "lab"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an authority that nobody knows: %v", err)
	}
	if err := l.node().Probe(t.Context(), "lab"); err != nil {
		t.Error(err)
	}
	if n := l.server.Asked("/token"); n != 0 { // GET, which the lab does not have
		t.Errorf("Probe asked for %d tokens", n)
	}
}

func TestARefreshThatIsRefusedForGood(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]testlab.Fault{"invalid_grant": testlab.InvalidGrant, "interaction_required": testlab.ConsentMissing} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			k, other := l.node(), l.node()
			l.connect(k)
			l.pass(55 * time.Minute)
			l.server.Fail("/token", fault)
			first := l.token(k)
			idle(k)
			if row := l.row(k); row.Failure != name || row.Failed.IsZero() {
				t.Errorf("the row says %q, since %v", row.Failure, row.Failed)
			}
			if l.token(k) != first { // it is good until its end
				t.Error("another token")
			}
			l.pass(10 * time.Minute)
			for _, k := range []*Keeper{k, other} {
				_, err := k.Token(t.Context(), l.alice.ID, "lab")
				if f, ok := errors.AsType[*Failed](err); !ok || f.Code != name || !strings.Contains(err.Error(), "/connections") {
					t.Errorf("Token = %v", err)
				}
			}
			if n := l.server.Asked("refresh_token"); n != 1 {
				t.Errorf("%d refreshes", n)
			}
			if n := strings.Count(l.log.String(), "a connection has failed"); n != 1 {
				t.Errorf("it stands %d times in the log", n)
			}
			events, err := l.desk.Events(t.Context(), authstore.EventQuery{Account: l.alice.ID, Kinds: []string{authstore.KindConnectionFailed}})
			if err != nil || len(events) != 1 || events[0].Detail != "lab" {
				t.Errorf("events %+v, %v", events, err)
			}
			l.server.Fail("/token", testlab.Works)
			l.connect(other)
			for _, k := range []*Keeper{k, other} {
				if got := l.token(k); l.server.Valid(got) != testlab.Alice {
					t.Error("after a new consent it does not work")
				}
			}
			if c, err := k.Connections(t.Context(), l.alice); err != nil || len(c) != 1 || c[0].State != Connected {
				t.Errorf("Connections = %+v, %v", c, err)
			}
		})
	}
}

// What a backend refuses is fetched again, once a minute, on whatever node.
func TestATokenThatABackendRefuses(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	k, other := l.node(), l.node()
	l.connect(k)
	l.token(other)
	got, err := k.Token(t.Context(), l.alice.ID, "lab")
	if err != nil {
		t.Fatal(err)
	}
	old := string(got.Value)
	l.server.Expire("")
	for range 10 {
		got.Refused()
	}
	next := l.token(k) // which waits
	if next == old || l.server.Valid(next) != testlab.Alice || l.server.Asked("refresh_token") != 1 {
		t.Errorf("%d refreshes, the same token: %v", l.server.Asked("refresh_token"), next == old)
	}
	got, _ = k.Token(t.Context(), l.alice.ID, "lab")
	got.Refused() // within the minute
	idle(k)
	if l.token(k) != next || l.server.Asked("refresh_token") != 1 {
		t.Error("two refreshes in a minute")
	}
	stale, err := other.Token(t.Context(), l.alice.ID, "lab")
	if err != nil || string(stale.Value) != old {
		t.Fatal("the other node has read it already")
	}
	stale.Refused()
	idle(other)
	if l.token(other) != next || l.server.Asked("refresh_token") != 1 {
		t.Error("the other node fetched a token that is there")
	}
	l.pass(2 * time.Minute)
	l.server.Fail("/token", testlab.ServerFails)
	got, _ = k.Token(t.Context(), l.alice.ID, "lab")
	got.Refused()
	idle(k)
	if l.token(k) != next {
		t.Error("where no other can be fetched, the one there is is not used")
	}
}

func TestOneTokenForAll(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	client := func(p *Provider) { p.Client, p.Scopes = true, []string{"mail"} }
	nodes := []*Keeper{l.node(client), l.node(client)}
	bob, err := l.desk.Add(t.Context(), testlab.Bob)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		var logins sync.WaitGroup
		for i := range 100 {
			logins.Go(func() {
				id := []authstore.AccountID{l.alice.ID, bob.ID}[i/2%2]
				if got, err := nodes[i%2].Token(t.Context(), id, "lab"); err != nil || l.server.Valid(string(got.Value)) == "" {
					t.Errorf("Token = %v", err)
				}
			})
		}
		logins.Wait()
		if n := l.server.Asked("client_credentials"); n != round+1 {
			t.Fatalf("%d tokens fetched in round %d", n, round+1)
		}
		l.pass(time.Hour)
		l.server.Expire("")
	}
	l.server.Fail("/token", testlab.InvalidGrant) // which no person can mend
	if _, err := nodes[0].Token(t.Context(), l.alice.ID, "lab"); err == nil {
		t.Error("a token from nowhere")
	}
	if list, err := nodes[0].o.Store.UpstreamTokens(t.Context()); err != nil || len(list) != 1 || list[0].Account != 0 || list[0].Failure != "" {
		t.Errorf("the store has %+v, %v", list, err)
	}
	if c, err := nodes[0].Connections(t.Context(), l.alice); err != nil || len(c) != 0 {
		t.Errorf("people see %+v, %v", c, err)
	}
	if _, err := nodes[0].NewConsent("lab"); err == nil {
		t.Error("a person may consent")
	}
	l.server.Fail("/token", testlab.InvalidClient)
	if err := nodes[0].Probe(t.Context(), "lab"); err == nil || !strings.Contains(err.Error(), "invalid_client") {
		t.Errorf("Probe = %v", err)
	}
}

func TestAServerThatDoesNotRotate(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.server.Fixed = true
	k := l.node()
	l.connect(k)
	for range 3 {
		l.pass(2 * time.Hour)
		if got := l.token(k); l.server.Valid(got) != testlab.Alice {
			t.Error("no token")
		}
	}
}

// What nobody uses is refreshed once in thirty days, by one node.
func TestUnusedTokensAreRefreshed(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	nodes := []*Keeper{l.node(), l.node()}
	l.connect(nodes[0])
	look := func(want int) {
		t.Helper()
		for _, k := range nodes {
			if err := k.refreshUnused(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if n := l.server.Asked("refresh_token"); n != want {
			t.Errorf("%d refreshes, want %d", n, want)
		}
	}
	l.pass(29 * 24 * time.Hour)
	look(0)
	l.pass(25 * time.Hour)
	l.server.Fail("/token", testlab.ServerFails)
	look(1)
	l.server.Fail("/token", testlab.Works)
	l.pass(time.Hour)
	look(2)
	l.pass(time.Hour)
	look(2)
	if row := l.row(nodes[0]); l.now().Sub(row.Refreshed) > 3*time.Hour {
		t.Errorf("refreshed %v", row.Refreshed)
	}
}

// broken is a store that can't be written for a while.
type broken struct {
	authstore.UpstreamStore
	faults atomic.Int64
}

func (b *broken) Refresh(ctx context.Context, t authstore.UpstreamToken) (int64, error) {
	if b.faults.Add(-1) >= 0 {
		return 0, errors.New("the disk is full")
	}
	return b.UpstreamStore.Refresh(ctx, t)
}

// What was fetched is written before it is used, and tried again until it is: the server has taken the old one back.
func TestWhatWasFetchedIsWritten(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	k := l.node()
	l.connect(k)
	b := &broken{UpstreamStore: k.o.Store}
	k.o.Store = b
	k.patience.poll = 5 * time.Millisecond
	b.faults.Store(3)
	l.pass(time.Hour)
	got := l.token(k)
	row := l.row(k)
	pair, err := k.open(row)
	if err != nil || pair.Access != got || l.server.Asked("refresh_token") != 1 {
		t.Errorf("the store has another token than the login, or none: %v, %d refreshes", err, l.server.Asked("refresh_token"))
	}
	l.pass(time.Hour)
	if l.server.Valid(l.token(k)) != testlab.Alice {
		t.Error("its refresh token was lost")
	}
	b.faults.Store(1 << 30)
	k.patience.store = 50 * time.Millisecond
	l.pass(time.Hour)
	if _, err := k.Token(t.Context(), l.alice.ID, "lab"); err == nil || !strings.Contains(err.Error(), "disk is full") {
		t.Errorf("a token that is nowhere written: %v", err)
	}
}

// The keys move on as with all that is sealed, also between the question and the answer.
func TestTokensAreSealedAgain(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	k := l.node()
	l.connect(k)
	row := l.row(k)
	keys, err := l.keys.Add()
	if err != nil {
		t.Fatal(err)
	}
	l.keys = keys
	l.desk.SetKeys(keys)
	need := func(want int) {
		t.Helper()
		status, err := l.desk.Keys(t.Context())
		if err != nil || status[0].Number != row.Key || status[0].Rows != want {
			t.Errorf("keys %+v, %v; want %d rows that need the first", status, err, want)
		}
	}
	need(2) // the token, and the app password
	if n, err := l.desk.Reseal(t.Context(), row.Key); n != 1 || err != nil {
		t.Errorf("Reseal = %d, %v", n, err)
	}
	need(1)
	if err := k.keep(t.Context(), place{l.alice.ID, "lab"}, row.Version, token{access: "at", refresh: "rt", life: time.Hour}); err != nil || l.row(k).Version != row.Version+1 {
		t.Errorf("what was asked for before can't be written: %v", err)
	}
	if l.row(k).Key == row.Key {
		t.Error("it was sealed with the old key")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	k := New(Options{})
	for i := range maxHeld + 10 {
		k.take(place{authstore.AccountID(i), "lab"}, authstore.UpstreamToken{Version: 1}, fmt.Sprint(i))
	}
	if len(k.held) > maxHeld {
		t.Errorf("%d tokens in memory", len(k.held))
	}
}
