package authstore_test

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/authstore"
	"postern/authstore/secret"
	"postern/authstore/sqlstore"
	"postern/protocols"
)

func TestARevocationIsInForceOnEveryNodeWhenItIsConfirmed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	nodes := []*node{s.node(authstore.Options{}), s.node(authstore.Options{})}
	for range 10 {
		p, typed := s.password(authstore.PasswordRequest{Account: a.ID})
		_, other := s.password(authstore.PasswordRequest{Account: a.ID})
		var ended, staying []*session
		for _, n := range nodes {
			ended = append(ended, n.mustLogin(attempt("alice@example.test", typed)))
			staying = append(staying, n.mustLogin(attempt("alice@example.test", other)))
		}
		s.must(s.desk.Revoke(t.Context(), p.ID, ""))
		for i, n := range nodes {
			if !ended[i].hasEnded() {
				t.Fatal("confirmed with an open session")
			}
			if !authstore.ErrRevoked(ended[i].cause) {
				t.Errorf("a session ended with %v", ended[i].cause)
			}
			_, err := n.login(attempt("alice@example.test", typed))
			wantCode(t, "after the revocation", err, authstore.Wrong)
			n.mustLogin(attempt("alice@example.test", other))
		}
		for _, other := range staying {
			if other.hasEnded() {
				t.Errorf("another app password's session ended: %v", other.cause)
			}
		}
		s.must(s.desk.RevokeAll(t.Context(), a.ID, ""))
	}
}

// Logins go on while revocations come: none that begins after a confirmation is accepted, and no accepted one is open then.
func TestRevocationsAmongLogins(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	nodes := []*node{s.node(authstore.Options{}), s.node(authstore.Options{})}
	for range 10 {
		p, typed := s.password(authstore.PasswordRequest{Account: a.ID})
		var mu sync.Mutex // guards accepted
		var accepted []*session
		var confirmed, stop atomic.Bool
		var clients sync.WaitGroup
		for i := range 4 {
			clients.Go(func() {
				for !stop.Load() {
					late := confirmed.Load()
					one, err := nodes[i%2].login(attempt("alice@example.test", typed))
					if err != nil {
						if code := codeOf(err); code != authstore.Wrong && code != authstore.Throttled {
							t.Errorf("login: %v", err)
						}
						continue
					}
					if late {
						t.Error("accepted after the revocation was confirmed")
					}
					mu.Lock()
					accepted = append(accepted, one)
					mu.Unlock()
				}
			})
		}
		for n := 0; n == 0; { // until there are sessions
			mu.Lock()
			n = len(accepted)
			mu.Unlock()
		}
		done, err := s.desk.Revoke(t.Context(), p.ID, "")
		mu.Lock()
		for _, one := range accepted {
			if len(done.Unconfirmed) == 0 && !one.hasEnded() { // on a slow machine it says who has not confirmed that
				t.Error("confirmed with an open session")
			}
		}
		mu.Unlock()
		confirmed.Store(true)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(20*time.Millisecond, func() { stop.Store(true) })
		clients.Wait()
		for _, one := range accepted {
			<-one.ended
		}
	}
}

// stopper holds all reads of a node, as SIGSTOP does in the middle of them.
type stopper struct {
	mu      sync.Mutex // guards below
	running chan struct{}
}

func newStopper(f *faulty) *stopper {
	s := &stopper{running: make(chan struct{})}
	close(s.running)
	before, after := func(string) error { s.wait(); return nil }, func(string) { s.wait() }
	f.fault.Store(&before)
	f.after.Store(&after)
	return s
}

func (s *stopper) wait() {
	s.mu.Lock()
	running := s.running
	s.mu.Unlock()
	<-running
}

func (s *stopper) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = make(chan struct{})
}

func (s *stopper) goOn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.running)
}

// A node that was stopped in the middle of a login, and missed a revocation, accepts nothing when it goes on, and ends what is open.
func TestANodeThatWasStopped(t *testing.T) {
	t.Parallel()
	for name, login := range map[string]func(n *node, a authstore.Attempt, stopped func()) (*session, error){
		"before the look-up": func(n *node, a authstore.Attempt, stopped func()) (*session, error) {
			stopped()
			return n.login(a)
		},
		"between look-up and success": func(n *node, a authstore.Attempt, stopped func()) (*session, error) {
			g, err := n.Verify(context.Background(), a)
			if err != nil {
				return nil, err
			}
			stopped()
			return n.enter(g)
		},
	} {
		for _, warm := range []bool{false, true} { // from SQL, from L1
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newSite(t)
				a := s.account("alice@example.test")
				p, typed := s.password(authstore.PasswordRequest{Account: a.ID})
				truth := &faulty{Truth: s.open()}
				stop := newStopper(truth)
				n, other := s.node(authstore.Options{Truth: truth}), s.node(authstore.Options{})
				open := n.mustLogin(attempt("alice@example.test", typed))
				if !warm {
					s.must(s.desk.SetBackendName(t.Context(), a.ID, "al")) // makes L1 a miss
				}
				result := make(chan error, 1)
				_, err := login(n, attempt("alice@example.test", typed), func() {
					stop.stop()
					done, err := s.desk.Revoke(t.Context(), p.ID, "")
					if err != nil || len(done.Unconfirmed) != 1 || !done.Waited {
						t.Errorf("Revoke = %+v, %v; want 1 unconfirmed node and its lease run out", done, err)
					}
					if !strings.Contains(done.String(), "in force everywhere; 1 node has not confirmed that open connections are closed") {
						t.Errorf("it says %q", done)
					}
					_, err = other.login(attempt("alice@example.test", typed))
					wantCode(t, "on the other node", err, authstore.Wrong)
					stop.goOn()
				})
				result <- err
				wantCode(t, "on the node that was stopped", <-result, authstore.Wrong)
				<-open.ended
			})
		}
	}
}

// The same while the read of Confirm itself is under way.
func TestANodeThatWasStoppedWhileConfirming(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	p, typed := s.password(authstore.PasswordRequest{Account: a.ID})
	truth := &faulty{Truth: s.open()}
	stop := newStopper(truth)
	n := s.node(authstore.Options{Truth: truth})
	g, err := n.Verify(t.Context(), attempt("alice@example.test", typed))
	if err != nil {
		t.Fatal(err)
	}
	s.must(s.desk.SetBackendName(t.Context(), a.ID, "al")) // Confirm must read again
	reading := make(chan struct{})
	held := sync.OnceFunc(func() { stop.stop(); close(reading) })
	after := func(method string) {
		if method == "Load" {
			held() // the truth has answered "good"; the node does not know yet
		}
		stop.wait()
	}
	truth.after.Store(&after)
	result := make(chan error)
	go func() { result <- n.Confirm(t.Context(), g) }()
	<-reading
	if done, err := s.desk.Revoke(t.Context(), p.ID, ""); err != nil || len(done.Unconfirmed) != 1 {
		t.Errorf("Revoke = %+v, %v", done, err)
	}
	stop.goOn()
	if err := <-result; err == nil {
		t.Error("accepted after the revocation was confirmed")
	}
}

// A login that joins a read from before its app password was made must not be told "wrong".
func TestANewAppPasswordWorksAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	truth := &faulty{Truth: s.open()}
	n := s.node(authstore.Options{Truth: truth})
	reading, goOn := make(chan struct{}), make(chan struct{})
	held := sync.OnceFunc(func() { close(reading); <-goOn })
	after := func(method string) {
		if method == "Load" {
			held()
		}
	}
	truth.after.Store(&after)
	wrong := make(chan error)
	go func() { _, err := n.login(attempt("alice@example.test", anotherPassword())); wrong <- err }()
	<-reading
	_, typed := s.password(authstore.PasswordRequest{Account: a.ID})
	right := make(chan error)
	go func() { _, err := n.login(attempt("alice@example.test", typed)); right <- err }()
	close(goOn)
	wantCode(t, "the old attempt", <-wrong, authstore.Wrong)
	wantCode(t, "the new app password", <-right, 0)
}

func TestEqualReadsShareOne(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	_, typed := s.password(authstore.PasswordRequest{Account: a.ID})
	truth := &faulty{Truth: s.open()}
	n := s.node(authstore.Options{Truth: truth})
	var loads atomic.Int32
	goOn := make(chan struct{})
	hold := func(method string) error {
		if method == "Load" {
			loads.Add(1)
			<-goOn
		}
		return nil
	}
	truth.fault.Store(&hold)
	var clients sync.WaitGroup
	for range 500 {
		clients.Go(func() {
			if _, err := n.login(attempt("alice@example.test", typed)); err != nil {
				t.Error(err)
			}
		})
	}
	for loads.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	close(goOn)
	clients.Wait()
	if got := loads.Load(); got > 100 { // those that came behind the first read found it in L1
		t.Errorf("500 logins made %d reads", got)
	}
}

func TestWhatEndsSessions(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(s *site, a authstore.Account) (authstore.Confirmation, error)
		byName bool // the session under the account's own name ends
		alias  bool // that under its alias ends
	}{
		"suspension": {func(s *site, a authstore.Account) (authstore.Confirmation, error) {
			return s.desk.Suspend(context.Background(), a.ID)
		}, true, true},
		"removal": {func(s *site, a authstore.Account) (authstore.Confirmation, error) {
			return s.desk.Remove(context.Background(), a.ID)
		}, true, true},
		"revoke all": {func(s *site, a authstore.Account) (authstore.Confirmation, error) {
			return s.desk.RevokeAll(context.Background(), a.ID, "")
		}, true, true},
		"alias removed": {func(s *site, a authstore.Account) (authstore.Confirmation, error) {
			return s.desk.RemoveAlias(context.Background(), a.ID, "al@example.test")
		}, false, true},
		"resumption": {func(s *site, a authstore.Account) (authstore.Confirmation, error) {
			return s.desk.Resume(context.Background(), a.ID)
		}, false, false},
		"backend name": {func(s *site, a authstore.Account) (authstore.Confirmation, error) {
			return s.desk.SetBackendName(context.Background(), a.ID, "x")
		}, true, true}, // they were led to another mailbox
		"a new one": {func(s *site, a authstore.Account) (authstore.Confirmation, error) {
			_, _, err := s.desk.CreatePassword(context.Background(), authstore.PasswordRequest{Account: a.ID, Label: "new", Scopes: authstore.ScopeMail})
			return authstore.Confirmation{}, err
		}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			a := s.account("alice@example.test")
			s.must(s.desk.AddAlias(t.Context(), a.ID, "al@example.test"))
			_, typed := s.password(authstore.PasswordRequest{Account: a.ID})
			bob := s.account("bob@example.test")
			_, bobs := s.password(authstore.PasswordRequest{Account: bob.ID})
			n := s.node(authstore.Options{})
			byName, byAlias := n.mustLogin(attempt("alice@example.test", typed)), n.mustLogin(attempt("al@example.test", typed))
			other := n.mustLogin(attempt("bob@example.test", bobs))
			s.must(tt.change(s, a))
			if byName.hasEnded() != tt.byName || byAlias.hasEnded() != tt.alias || other.hasEnded() {
				t.Errorf("ended: by name %v, by alias %v, bob's %v; want %v, %v, false", byName.hasEnded(), byAlias.hasEnded(), other.hasEnded(), tt.byName, tt.alias)
			}
		})
	}
}

// Suspended and resumed between two looks at the feed: who logged in after that stays.
func TestALoginAfterAResumptionStays(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	_, typed := s.password(authstore.PasswordRequest{Account: a.ID})
	truth := &faulty{Truth: s.open()}
	n := s.node(authstore.Options{Truth: truth})
	goOn := make(chan struct{})
	hold := func(method string) error {
		if method == "Tail" {
			<-goOn
		}
		return nil
	}
	truth.fault.Store(&hold)
	for _, status := range []authstore.Status{authstore.AccountPaused, authstore.Active} {
		if _, err := s.truth.SetStatus(t.Context(), tester, a.ID, status); err != nil {
			t.Fatal(err)
		}
	}
	g, err := n.Verify(t.Context(), attempt("alice@example.test", typed))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	defer n.live.Enter(&g, &protocols.Facts{}, func(err error) { ended <- err }).Leave()
	close(goOn)
	if err := n.Confirm(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	if len(ended) > 0 {
		t.Errorf("ended: %v", <-ended)
	}
}

// A session that does not leave holds its own node's acknowledgement back, and nothing else.
func TestASessionThatDoesNotLeave(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	p, typed := s.password(authstore.PasswordRequest{Account: a.ID})
	n := s.node(authstore.Options{})
	g, err := n.Verify(t.Context(), attempt("alice@example.test", typed))
	if err != nil {
		t.Fatal(err)
	}
	leave := n.live.Enter(&g, &protocols.Facts{}, func(error) {}).Leave
	done, err := s.desk.Revoke(t.Context(), p.ID, "")
	if err != nil || len(done.Unconfirmed) != 1 {
		t.Errorf("Revoke = %+v, %v; want 1 unconfirmed", done, err)
	}
	_, fresh := s.password(authstore.PasswordRequest{Account: a.ID})
	n.mustLogin(attempt("alice@example.test", fresh))
	leave()
	s.must(s.desk.Resume(t.Context(), a.ID))
}

// The database is yesterday's copy all of a sudden.
func TestAReplacedDatabaseIsNoticed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	old, oldTyped := s.password(authstore.PasswordRequest{Account: a.ID})
	yesterday := filepath.Join(t.TempDir(), "yesterday.db")
	if err := s.truth.Backup(t.Context(), yesterday); err != nil {
		t.Fatal(err)
	}
	_, newTyped := s.password(authstore.PasswordRequest{Account: a.ID})
	s.must(s.desk.Revoke(t.Context(), old.ID, ""))

	truth := &faulty{Truth: s.open()}
	n := s.node(authstore.Options{Truth: truth})
	open := n.mustLogin(attempt("alice@example.test", newTyped))
	copied, err := sqlstore.Open(t.Context(), sqlstore.Options{Path: yesterday})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.stop(); copied.Close() }) // in this order: it writes what waits
	for i := range 20 {                            // the copy's counter passes that of the history that was lost
		if _, _, err := copied.AddAccount(t.Context(), tester, "user"+string(rune('a'+i))+"@example.test", string(rune('a'+i))); err != nil {
			t.Fatal(err)
		}
	}
	var as authstore.Truth = copied
	truth.now.Store(&as)
	<-open.ended // its app password was never made
	_, err = n.login(attempt("alice@example.test", newTyped))
	wantCode(t, "made after the copy", err, authstore.Wrong)
	n.mustLogin(attempt("alice@example.test", oldTyped)) // the copy is the truth now: its restorer must revoke again

	desk, err := authstore.NewAccounts(t.Context(), authstore.AccountsOptions{Truth: copied, Keys: s.keys, Enforced: enforced, Changed: n.Poke})
	if err != nil {
		t.Fatal(err)
	}
	s.must(desk.Revoke(t.Context(), old.ID, "")) // confirmed by the node, in the new history's numbers
	_, err = n.login(attempt("alice@example.test", oldTyped))
	wantCode(t, "revoked again", err, authstore.Wrong)
}

func TestANodeWhoseRowIsGoneRegistersAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	_, typed := s.password(authstore.PasswordRequest{Account: a.ID})
	n := s.node(authstore.Options{})
	nodes, err := s.truth.Nodes(t.Context())
	if err != nil || len(nodes) != 1 {
		t.Fatalf("nodes %v, %v", nodes, err)
	}
	if err := s.truth.Unregister(t.Context(), nodes[0].ID); err != nil {
		t.Fatal(err)
	}
	for len(nodes) == 0 || nodes[0].Acknowledged == 0 {
		if nodes, err = s.truth.Nodes(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(nodes) == 0 {
			n.Poke()
		}
	}
	n.mustLogin(attempt("alice@example.test", typed))
	p, typed := s.password(authstore.PasswordRequest{Account: a.ID})
	s.must(s.desk.Revoke(t.Context(), p.ID, ""))
	_, err = n.login(attempt("alice@example.test", typed))
	wantCode(t, "revoked", err, authstore.Wrong)
}

func TestAStoppedNodeAcceptsNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	_, typed := s.password(authstore.PasswordRequest{Account: a.ID})
	n := s.node(authstore.Options{})
	g := n.mustLogin(attempt("alice@example.test", typed)).grant
	n.stop()
	if n.Ready() == nil {
		t.Error("it says it is ready")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	wantCode(t, "Confirm", n.Confirm(ctx, g), authstore.Unavailable)
	if nodes, err := s.truth.Nodes(t.Context()); err != nil || len(nodes) > 0 {
		t.Errorf("it is still registered: %v, %v", nodes, err)
	}
}

var errGone = errors.New("the database is gone")

// Without the database logins are "unavailable", never "wrong"; open sessions stay for session_grace, and all works when it is back.
func TestTheDatabaseGoesAndComes(t *testing.T) {
	for name, stale := range map[string]time.Duration{"": 0, " with stale_grace": time.Minute} {
		t.Run("gone"+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				defer s.truth.Close()
				a := s.account("alice@example.test")
				_, typed := s.password(authstore.PasswordRequest{Account: a.ID})
				truth := &faulty{Truth: s.truth}
				began := time.Now()
				n := s.node(authstore.Options{Truth: truth, Clock: func() time.Duration { return time.Since(began) }, StaleGrace: stale})
				defer n.stop()
				open := n.mustLogin(attempt("alice@example.test", typed))
				gone := func(string) error { return errGone }
				truth.fault.Store(&gone)
				want := func(when string, known, unknown authstore.Code) {
					t.Helper()
					_, err := n.login(attempt("alice@example.test", typed))
					wantCode(t, when+", known here", err, known)
					_, err = n.login(attempt("bob@example.test", typed))
					wantCode(t, when+", not known here", err, unknown)
				}
				want("at once", 0, authstore.Unavailable)
				time.Sleep(30 * time.Second)
				during := authstore.Unavailable
				if stale > 0 {
					during = 0
				}
				want("after 30 s", during, authstore.Unavailable)
				if (n.Ready() == nil) != (stale > 0) {
					t.Errorf("Ready = %v", n.Ready())
				}
				time.Sleep(9 * time.Minute)
				want("after 9 m", authstore.Unavailable, authstore.Unavailable)
				if open.hasEnded() {
					t.Errorf("the open session ended: %v", open.cause)
				}
				truth.fault.Store(nil)
				time.Sleep(time.Second)
				want("back", 0, authstore.Wrong)

				truth.fault.Store(&gone)
				time.Sleep(11 * time.Minute)
				if !open.hasEnded() || authstore.ErrRevoked(open.cause) {
					t.Errorf("after session_grace the session is open, or was ended as revoked: %v", open.cause)
				}
				truth.fault.Store(nil)
			})
		})
	}
}

// A node that can read but not write its sign of life, with others about, might have been taken for dead: then it accepts nothing.
func TestANodeThatCannotSayThatItLives(t *testing.T) {
	for name, others := range map[string]bool{"alone": false, "with another": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				defer s.truth.Close()
				began := time.Now()
				clock := func() time.Duration { return time.Since(began) }
				truth := &faulty{Truth: s.truth}
				n := s.node(authstore.Options{Truth: truth, Clock: clock})
				defer n.stop()
				if others {
					other := s.node(authstore.Options{Truth: s.truth, Clock: clock})
					defer other.stop()
				}
				full := func(method string) error {
					if method == "Acknowledge" || method == "Register" {
						return errors.New("the disk is full")
					}
					return nil
				}
				truth.fault.Store(&full)
				time.Sleep(authstore.NodeTimeout - time.Minute)
				if (n.Ready() == nil) == others {
					t.Errorf("Ready = %v", n.Ready())
				}
				truth.fault.Store(nil)
				time.Sleep(time.Minute)
				if n.Ready() != nil {
					t.Errorf("when it can write again: Ready = %v", n.Ready())
				}
			})
		})
	}
}

func TestUseIsWrittenInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		defer s.truth.Close()
		a := s.account("alice@example.test")
		p, typed := s.password(authstore.PasswordRequest{Account: a.ID})
		truth := &faulty{Truth: s.truth}
		var writes atomic.Int32
		failing := func(method string) error {
			if method == "Used" && writes.Add(1) == 1 {
				return errGone // nothing is lost
			}
			return nil
		}
		truth.fault.Store(&failing)
		began := time.Now()
		n := s.node(authstore.Options{Truth: truth, Clock: func() time.Duration { return time.Since(began) }})
		defer n.stop()
		g := n.mustLogin(attempt("alice@example.test", typed)).grant
		for range 1000 {
			n.Used(g, authstore.Use{Protocol: "imap", App: "Mail\r\n\x1b[1m" + strings.Repeat("é", 200)})
		}
		time.Sleep(25 * time.Second)
		n.Used(g, authstore.Use{Protocol: "dav", App: "DAVx5"})
		n.stop() // writes what waits
		got, err := s.truth.Password(t.Context(), p.ID)
		if err != nil || got.Last == nil || got.Last.Count != 1001 || got.Last.Protocol != "dav" || got.Last.Network.String() != "192.0.2.0/24" {
			t.Fatalf("last used = %+v, %v", got.Last, err)
		}
		if w := writes.Load(); w != 3 {
			t.Errorf("%d writes, want 3", w)
		}
	})
}

// Many apps say who they are after the login.
func TestNamedAfterTheLogin(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	p, typed := s.password(authstore.PasswordRequest{Account: a.ID})
	n := s.node(authstore.Options{})
	g := n.mustLogin(attempt("alice@example.test", typed)).grant
	for range 3 {
		n.Used(g, authstore.Use{Protocol: "imap"})
	}
	for range 3 {
		n.Named(g, authstore.Use{Protocol: "imap", App: "Thunderbird"})
	}
	n.stop() // writes what waits
	got, err := s.truth.Password(t.Context(), p.ID)
	if err != nil || got.Last == nil || got.Last.Count != 3 || got.Last.App != "Thunderbird" {
		t.Fatalf("last used = %+v, %v; want 3 times Thunderbird", got.Last, err)
	}
}

// What was refused to the holder of the genuine secret is told to the owner, and is no use of it. A guess is neither.
func TestRefusalsOfGenuineSecretsAreCounted(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	here, typed := s.password(authstore.PasswordRequest{Account: a.ID, Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	lost, gone := s.password(authstore.PasswordRequest{Account: a.ID})
	s.must(s.desk.Revoke(t.Context(), lost.ID, "phone lost"))
	n := s.node(authstore.Options{})
	elsewhere := attempt("alice@example.test", typed)
	elsewhere.Client = netip.MustParseAddr("203.0.113.9")
	calendar := attempt("alice@example.test", typed)
	calendar.Protocol, calendar.Need = "dav", authstore.ScopeCalendar
	for _, tt := range []struct {
		a    authstore.Attempt
		want authstore.Code
	}{
		{elsewhere, authstore.BadNetwork}, {elsewhere, authstore.BadNetwork}, {calendar, authstore.OutOfScope},
		{attempt("alice@example.test", gone), authstore.Wrong}, {attempt("alice@example.test", anotherPassword()), authstore.Wrong},
	} {
		_, err := n.login(tt.a)
		wantCode(t, tt.a.Protocol+" from "+tt.a.Client.String(), err, tt.want)
	}
	n.stop() // writes what waits
	for id, want := range map[authstore.PasswordID]int64{here.ID: 3, lost.ID: 1} {
		got, err := s.truth.Password(t.Context(), id)
		if err != nil || got.Failures != want || got.Last != nil {
			t.Errorf("app password %d: %d refusals, last used %+v, %v; want %d and never", id, got.Failures, got.Last, err, want)
		}
	}
}

func TestKeysRotate(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	p, typed := s.password(authstore.PasswordRequest{Account: a.ID})
	s.keys1to2(t)
	old, err := s.keys.Without(2)
	if err != nil {
		t.Fatal(err)
	}
	first := s.node(authstore.Options{})
	second := s.node(authstore.Options{Keys: old}) // was not reloaded yet
	_, meanwhile := s.password(authstore.PasswordRequest{Account: a.ID})
	for _, n := range []*node{first, second} {
		n.mustLogin(attempt("alice@example.test", typed))
		n.mustLogin(attempt("alice@example.test", meanwhile))
	}
	if err := s.desk.CanRetire(t.Context(), 1); err == nil {
		t.Error("key 1 may go while a node needs it")
	}
	if err := second.SetKeys(s.keys); err != nil {
		t.Fatal(err)
	}
	first.stop()
	for newest := uint32(0); newest != 2; {
		list, err := s.desk.Keys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range list {
			if k.New {
				newest = k.Number
			}
		}
	}
	var use map[uint32]int
	for deadline := time.Now().Add(10 * time.Second); use[2] != 2; { // a node may take logins before it has looked which keys the others have
		if time.Now().After(deadline) {
			t.Fatalf("rows by key %v; want 2 with key 2", use)
		}
		third := s.node(authstore.Options{})
		for _, typed := range [][]byte{typed, meanwhile} {
			third.Used(third.mustLogin(attempt("alice@example.test", typed)).grant, authstore.Use{Protocol: "imap"})
		}
		third.stop() // writes last used, and moves the digests
		var err error
		if use, err = s.truth.KeyUse(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if use[1] != 0 {
		t.Errorf("rows by key %v; want 2 with key 2", use)
	}
	second.mustLogin(attempt("alice@example.test", typed))
	if err := s.desk.CanRetire(t.Context(), 1); err != nil {
		t.Errorf("key 1 may not go: %v", err)
	}
	if err := s.desk.CanRetire(t.Context(), 2); err == nil {
		t.Error("key 2 may go")
	}
	s.must(s.desk.Revoke(t.Context(), p.ID, ""))
	_, err = second.login(attempt("alice@example.test", typed))
	wantCode(t, "revoked", err, authstore.Wrong)
}

// keys1to2 adds a root key, as "postern key add" does, and has the desk read it.
func (s *site) keys1to2(t *testing.T) {
	t.Helper()
	keys, err := s.keys.Add()
	if err != nil {
		t.Fatal(err)
	}
	s.keys = keys
	s.desk.SetKeys(keys)
}

func TestTheWrongKeyFileIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	s.password(authstore.PasswordRequest{Account: a.ID})
	two, err := s.keys.Add()
	if err != nil {
		t.Fatal(err)
	}
	lacking, err := two.Without(1)
	if err != nil {
		t.Fatal(err)
	}
	for name, keys := range map[string]*secret.Keyring{"another site's": secret.NewKeyring(), "key 1 is lacking": lacking} {
		if _, err := authstore.NewAccounts(t.Context(), authstore.AccountsOptions{Truth: s.truth, Keys: keys}); !errors.Is(err, authstore.ErrWrongKeys) {
			t.Errorf("%s: NewAccounts = %v", name, err)
		}
		n := authstore.New(authstore.Options{Truth: s.truth, Keys: keys})
		if err := n.Run(t.Context()); !errors.Is(err, authstore.ErrWrongKeys) {
			t.Errorf("%s: Run = %v", name, err)
		}
		if err := s.node(authstore.Options{}).SetKeys(keys); !errors.Is(err, authstore.ErrWrongKeys) {
			t.Errorf("%s: SetKeys = %v", name, err)
		}
	}
	if _, err := s.truth.Meta(t.Context(), "key 2"); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("a refused keyring left something behind: %v", err)
	}
}
