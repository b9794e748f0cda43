package authstore_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/authstore"
	"postern/authstore/secret"
)

// Every row of the design's table of refusals, from each layer; the order where several apply.
func TestVerify(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	bob := s.account("bob@example.test")
	hour := time.Now().Add(time.Hour)
	elsewhere := []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8:1::/48")}
	mail, mailSecret := s.password(authstore.PasswordRequest{Account: a.ID})
	_, calendar := s.password(authstore.PasswordRequest{Account: a.ID, Scopes: authstore.ScopeCalendar})
	_, away := s.password(authstore.PasswordRequest{Account: a.ID, Networks: elsewhere})
	_, here := s.password(authstore.PasswordRequest{Account: a.ID, Networks: []netip.Prefix{netip.MustParsePrefix("::ffff:192.0.2.0/120")}})
	_, brief := s.password(authstore.PasswordRequest{Account: a.ID, Expires: hour})
	_, briefAway := s.password(authstore.PasswordRequest{Account: a.ID, Expires: hour, Networks: elsewhere, Scopes: authstore.ScopeCalendar})
	_, awayCalendar := s.password(authstore.PasswordRequest{Account: a.ID, Networks: elsewhere, Scopes: authstore.ScopeCalendar})
	gone, goneSecret := s.password(authstore.PasswordRequest{Account: a.ID})
	_, bobs := s.password(authstore.PasswordRequest{Account: bob.ID, Expires: hour})
	bobGone, bobGoneSecret := s.password(authstore.PasswordRequest{Account: bob.ID})
	s.must(s.desk.Revoke(t.Context(), gone.ID, "lost"))
	s.must(s.desk.Revoke(t.Context(), bobGone.ID, "lost"))
	s.must(s.desk.Suspend(t.Context(), bob.ID))
	s.must(s.desk.AddAlias(t.Context(), a.ID, "al@example.test"))
	later := func() time.Time { return time.Now().Add(2 * time.Hour) }
	typo := slices.Clone(mailSecret)
	if typo[0]++; typo[0] == 'i' || typo[0] == 'l' || typo[0] > 'z' {
		typo[0] = 'a'
	}
	for name, tt := range map[string]struct {
		login string
		typed []byte
		now   func() time.Time
		want  authstore.Code
		named bool // the refusal names account and app password, for the log
	}{
		"good":                         {"alice@example.test", mailSecret, nil, 0, false},
		"in capitals":                  {"ALICE@Example.test", mailSecret, nil, 0, false},
		"by alias":                     {"al@example.test", mailSecret, nil, 0, false},
		"from its network":             {"alice@example.test", here, nil, 0, false},
		"not expired":                  {"alice@example.test", brief, nil, 0, false},
		"somebody else's":              {"alice@example.test", bobs, nil, authstore.Wrong, false},
		"nobody's":                     {"alice@example.test", anotherPassword(), nil, authstore.Wrong, false},
		"unknown name":                 {"carol@example.test", mailSecret, nil, authstore.Wrong, false},
		"no name":                      {"", mailSecret, nil, authstore.Wrong, false},
		"revoked":                      {"alice@example.test", goneSecret, nil, authstore.Wrong, true},
		"revoked, account suspended":   {"bob@example.test", bobGoneSecret, nil, authstore.Wrong, true},
		"primary password":             {"alice@example.test", []byte("Tr0ub4dor&3"), nil, authstore.NotAppPassword, false},
		"a letter mistyped":            {"alice@example.test", typo, nil, authstore.NotAppPassword, false},
		"empty":                        {"alice@example.test", nil, nil, authstore.NotAppPassword, false},
		"suspended":                    {"bob@example.test", bobs, nil, authstore.Suspended, true},
		"suspended, somebody else's":   {"bob@example.test", mailSecret, nil, authstore.Wrong, false},
		"suspended before expired":     {"bob@example.test", bobs, later, authstore.Suspended, true},
		"expired":                      {"alice@example.test", brief, later, authstore.Expired, true},
		"expired before network":       {"alice@example.test", briefAway, later, authstore.Expired, true},
		"another network":              {"alice@example.test", away, nil, authstore.BadNetwork, true},
		"another network before scope": {"alice@example.test", awayCalendar, nil, authstore.BadNetwork, true},
		"another scope":                {"alice@example.test", calendar, nil, authstore.OutOfScope, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := s.node(authstore.Options{Now: tt.now})
			for _, layer := range []string{"from SQL", "from L1"} { // cached or not, the answer is the same
				g, err := n.Verify(t.Context(), attempt(tt.login, tt.typed))
				wantCode(t, layer, err, tt.want)
				if r, ok := errors.AsType[*authstore.Refusal](err); ok && tt.named != (r.Account != 0 && r.Password != 0) {
					t.Errorf("%s: it names account %d, app password %d", layer, r.Account, r.Password)
				}
				if tt.want != 0 {
					continue
				}
				if g.Account != a.ID || g.Scopes != authstore.ScopeMail || g.PublicID != a.PublicID || g.Client != clientAddr {
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

func TestWithoutNeedTheFrontDoorAppliesTheScopes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	_, typed := s.password(authstore.PasswordRequest{Account: a.ID, Scopes: authstore.ScopeCalendar})
	try := attempt("alice@example.test", typed)
	try.Need = 0
	if g := s.node(authstore.Options{}).mustLogin(try).grant; g.Scopes != authstore.ScopeCalendar {
		t.Errorf("scopes %v", g.Scopes)
	}
}

// "No" takes the same time, whatever was looked at; a genuine secret is told at once.
func TestARefusalComesAtItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		a := s.account("alice@example.test")
		_, typed := s.password(authstore.PasswordRequest{Account: a.ID})
		_, calendar := s.password(authstore.PasswordRequest{Account: a.ID, Scopes: authstore.ScopeCalendar})
		began := time.Now()
		slow := &faulty{Truth: s.truth}
		n := s.node(authstore.Options{Truth: slow, RefusalDelay: 500 * time.Millisecond, Clock: func() time.Duration { return time.Since(began) }})
		defer s.truth.Close()
		defer n.stop()
		const least, most = 500 * time.Millisecond, 550 * time.Millisecond
		for name, tt := range map[string]struct {
			login string
			typed []byte
			slow  time.Duration // what the database takes
			want  authstore.Code
			after time.Duration
		}{
			"shape":           {"alice@example.test", []byte("hunter2"), 0, authstore.NotAppPassword, least},
			"unknown":         {"bob@example.test", typed, 0, authstore.Wrong, least},
			"unknown, slow":   {"carol@example.test", typed, 300 * time.Millisecond, authstore.Wrong, least},
			"unknown, slower": {"dave@example.test", typed, 700 * time.Millisecond, authstore.Wrong, 2 * least},
			"wrong":           {"alice@example.test", anotherPassword(), 0, authstore.Wrong, least},
			"no name":         {"", typed, 0, authstore.Wrong, least},
			"genuine":         {"alice@example.test", typed, 0, 0, 0},
			"out of scope":    {"alice@example.test", calendar, 0, authstore.OutOfScope, 0},
		} {
			hold := func(method string) error {
				if method == "Load" {
					time.Sleep(tt.slow)
				}
				return nil
			}
			slow.fault.Store(&hold)
			start := time.Now()
			_, err := n.Verify(t.Context(), attempt(tt.login, tt.typed))
			took := time.Since(start)
			wantCode(t, name, err, tt.want)
			if took < tt.after || took > tt.after+most-least {
				t.Errorf("%s: after %v, want %v and a tenth of the delay at most", name, took, tt.after)
			}
		}
	})
}

func TestBeyondTheBoundARefusalIsAnotherOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := authstore.New(authstore.Options{Keys: secret.NewKeyring(), MaxWaiting: 2})
		var unavailable, told atomic.Int32
		start := time.Now()
		var clients sync.WaitGroup
		for range 5 {
			clients.Go(func() {
				_, err := n.Verify(t.Context(), attempt("alice@example.test", []byte("hunter2")))
				switch took := time.Since(start); codeOf(err) {
				case authstore.NotAppPassword:
					told.Add(1)
					if took < 500*time.Millisecond {
						t.Errorf("told after %v", took)
					}
				case authstore.Unavailable:
					unavailable.Add(1)
				}
			})
		}
		clients.Wait()
		if told.Load() != 2 || unavailable.Load() != 3 {
			t.Errorf("%d told, %d unavailable; want 2 and 3", told.Load(), unavailable.Load())
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := n.Verify(ctx, attempt("alice@example.test", []byte("hunter2")))
		wantCode(t, "the client has gone", err, authstore.Unavailable)
	})
}

func TestBudgets(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	b := s.account("bob@example.test")
	gone, goneSecret := s.password(authstore.PasswordRequest{Account: a.ID})
	_, typed := s.password(authstore.PasswordRequest{Account: a.ID})
	_, bobs := s.password(authstore.PasswordRequest{Account: b.ID})
	n := s.node(authstore.Options{})
	n.mustLogin(attempt("alice@example.test", typed)) // now in L1
	s.must(s.desk.Revoke(t.Context(), gone.ID, ""))
	for range 100 { // an office behind one address, after "revoke all"
		_, err := n.Verify(t.Context(), attempt("alice@example.test", goneSecret))
		wantCode(t, "revoked", err, authstore.Wrong)
	}
	failed := 0
	for codeOf(func() error {
		_, err := n.Verify(t.Context(), attempt("alice@example.test", anotherPassword()))
		return err
	}()) == authstore.Wrong {
		failed++
	}
	if failed != 20 {
		t.Errorf("%d wrong passwords before the answer is another, want 20", failed)
	}
	fromElsewhere := attempt("bob@example.test", bobs)
	fromElsewhere.Client = netip.MustParseAddr("192.0.2.8")
	for _, tt := range []struct { // in this order: the last one makes bob known here
		name string
		a    authstore.Attempt
		want authstore.Code
	}{
		{"correct and known here", attempt("alice@example.test", typed), 0},
		{"correct, needs a look-up", attempt("bob@example.test", bobs), authstore.Throttled},
		{"misshapen", attempt("alice@example.test", []byte("hunter2")), authstore.Throttled},
		{"no name", attempt("", typed), authstore.Throttled},
		{"from elsewhere", fromElsewhere, 0},
	} {
		_, err := n.Verify(t.Context(), tt.a)
		wantCode(t, tt.name, err, tt.want)
	}
}

// A root key that is not here is our fault, never a wrong password.
func TestAnUnknownKeyIsUnavailable(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	n := s.node(authstore.Options{}) // has key 1 only
	_, old := s.password(authstore.PasswordRequest{Account: a.ID})
	digest := authstore.Digest{1}
	if _, _, err := s.truth.CreatePassword(t.Context(), tester, authstore.NewPassword{Account: a.ID, Label: "new", Key: 2,
		Scopes: authstore.ScopeMail, Digest: func(authstore.AccountID) authstore.Digest { return digest }}); err != nil {
		t.Fatal(err)
	}
	for _, layer := range []string{"from SQL", "from L1"} {
		_, err := n.Verify(t.Context(), attempt("alice@example.test", anotherPassword()))
		wantCode(t, layer, err, authstore.Unavailable)
		n.mustLogin(attempt("alice@example.test", old)) // the others work
	}
}

// Whatever happens, a node that has everything in its caches answers as one that has nothing.
func TestCachedAnswersAreTheUncachedOnes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	model := newModel(s)
	model.run(60, s.node(authstore.Options{}))
}
