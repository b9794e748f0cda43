package authstore_test

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/secret"
	"postern/authstore/sqlstore"
	"postern/gateway/live"
	"postern/protocols"
)

// site is a database with its keys, on which nodes and administrators work.
type site struct {
	t     testing.TB
	path  string
	keys  *secret.Keyring
	truth *sqlstore.Store
	desk  *authstore.Accounts
}

func newSite(t testing.TB) *site {
	s := &site{t: t, path: filepath.Join(t.TempDir(), "postern.db"), keys: secret.NewKeyring()}
	s.truth = s.open()
	s.desk = s.accounts(s.truth, nil)
	return s
}

func (s *site) open() *sqlstore.Store {
	s.t.Helper()
	truth, err := sqlstore.Open(context.Background(), sqlstore.Options{Path: s.path})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { truth.Close() })
	return truth
}

func (s *site) accounts(truth authstore.Truth, cache authstore.Cache) *authstore.Accounts {
	s.t.Helper()
	a, err := authstore.NewAccounts(context.Background(), authstore.AccountsOptions{Truth: truth, Cache: cache, Keys: s.keys,
		Enforced: authstore.ScopeMail | authstore.ScopeCalendar | authstore.ScopeContacts, Actor: "test"})
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// node is a running Store with its sessions.
type node struct {
	*authstore.Store
	live *live.Registry
	stop func()
}

func (s *site) node(o authstore.Options) *node {
	s.t.Helper()
	n := &node{live: &live.Registry{}}
	if o.Truth == nil {
		o.Truth = s.open()
	}
	o.Keys, o.Sessions = s.keys, n.live
	if o.RefusalDelay == 0 {
		o.RefusalDelay = -1
	}
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
	for n.Ready() != nil {
		time.Sleep(time.Millisecond)
	}
	return n
}

func (s *site) account(address string) authstore.Account {
	s.t.Helper()
	a, err := s.desk.Add(context.Background(), address)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

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

func attempt(login string, typed []byte) authstore.Attempt {
	return authstore.Attempt{Protocol: "imap", Mechanism: "PLAIN", Login: login, Secret: typed,
		Client: netip.MustParseAddr("192.0.2.7"), Need: authstore.ScopeMail}
}

// wantCode checks that an attempt is refused with a code; zero: that it is accepted.
func wantCode(t testing.TB, what string, err error, want authstore.Code) {
	t.Helper()
	r, ok := errors.AsType[*authstore.Refusal](err)
	switch {
	case err == nil && want == 0:
	case !ok || r.Code != want:
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	bob := s.account("bob@example.test")
	mail, mailSecret := s.password(authstore.PasswordRequest{Account: a.ID})
	_, calendar := s.password(authstore.PasswordRequest{Account: a.ID, Scopes: authstore.ScopeCalendar})
	_, home := s.password(authstore.PasswordRequest{Account: a.ID, Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}})
	_, brief := s.password(authstore.PasswordRequest{Account: a.ID, Expires: time.Now().Add(time.Hour)})
	gone, goneSecret := s.password(authstore.PasswordRequest{Account: a.ID})
	_, bobs := s.password(authstore.PasswordRequest{Account: bob.ID})
	if _, err := s.desk.Revoke(t.Context(), gone.ID, "lost"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.desk.Suspend(t.Context(), bob.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.desk.AddAlias(t.Context(), a.ID, "al@example.test"); err != nil {
		t.Fatal(err)
	}
	later := func() time.Time { return time.Now().Add(2 * time.Hour) }
	for name, tt := range map[string]struct {
		login string
		typed []byte
		now   func() time.Time
		want  authstore.Code
	}{
		"good":                       {"alice@example.test", mailSecret, nil, 0},
		"in capitals":                {"ALICE@Example.test", mailSecret, nil, 0},
		"by alias":                   {"al@example.test", mailSecret, nil, 0},
		"somebody else's":            {"alice@example.test", bobs, nil, authstore.Wrong},
		"unknown name":               {"carol@example.test", mailSecret, nil, authstore.Wrong},
		"no name":                    {"", mailSecret, nil, authstore.Wrong},
		"revoked":                    {"alice@example.test", goneSecret, nil, authstore.Wrong},
		"primary password":           {"alice@example.test", []byte("Tr0ub4dor&3"), nil, authstore.NotAppPassword},
		"another scope":              {"alice@example.test", calendar, nil, authstore.OutOfScope},
		"another network":            {"alice@example.test", home, nil, authstore.BadNetwork},
		"not expired":                {"alice@example.test", brief, nil, 0},
		"expired":                    {"alice@example.test", brief, later, authstore.Expired},
		"suspended":                  {"bob@example.test", bobs, nil, authstore.Suspended},
		"suspended, somebody else's": {"bob@example.test", mailSecret, nil, authstore.Wrong},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := s.node(authstore.Options{Now: tt.now})
			for _, layer := range []string{"from SQL", "from L1"} { // cached or not, the answer is the same
				g, err := n.Verify(t.Context(), attempt(tt.login, tt.typed))
				wantCode(t, layer, err, tt.want)
				if tt.want != 0 {
					continue
				}
				if g.Account != a.ID || g.Scopes != authstore.ScopeMail || g.PublicID != a.PublicID {
					t.Errorf("%s: grant = %+v", layer, g)
				}
				if err := n.Confirm(t.Context(), g); err != nil {
					t.Errorf("%s: Confirm = %v", layer, err)
				}
			}
		})
	}
	if got, _ := s.desk.Password(t.Context(), mail.ID); got.Last != nil {
		t.Error("Verify alone counts as a use")
	}
}

func TestARevocationIsInForceOnEveryNodeWhenItIsConfirmed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	nodes := []*node{s.node(authstore.Options{}), s.node(authstore.Options{})}
	for range 10 {
		p, typed := s.password(authstore.PasswordRequest{Account: a.ID})
		ended := make(chan error, 2)
		for _, n := range nodes {
			g, err := n.Verify(t.Context(), attempt("alice@example.test", typed))
			if err != nil {
				t.Fatal(err)
			}
			var leave func()
			ctx, end := context.WithCancelCause(context.Background())
			leave = n.live.Enter(g, protocols.Facts{Protocol: "imap"}, end)
			context.AfterFunc(ctx, func() { leave(); ended <- context.Cause(ctx) })
			if err := n.Confirm(t.Context(), g); err != nil {
				t.Fatal(err)
			}
		}
		done, err := s.desk.Revoke(t.Context(), p.ID, "")
		if err != nil || len(done.Unconfirmed) != 0 {
			t.Fatalf("Revoke = %v, %v", done, err)
		}
		for _, n := range nodes {
			_, err := n.Verify(t.Context(), attempt("alice@example.test", typed))
			wantCode(t, "after the revocation", err, authstore.Wrong)
			if len(ended) == 0 {
				t.Error("confirmed with an open session")
			} else if err := <-ended; !authstore.ErrRevoked(err) {
				t.Errorf("a session ended with %v", err)
			}
		}
	}
}
