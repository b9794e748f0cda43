package authstore_test

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/authstore/secret"
	"postern/authstore/sqlstore"
)

const days = 24 * time.Hour

func TestWhosePolicy(t *testing.T) {
	t.Parallel()
	ps := authstore.Policies{
		{Domains: []string{"example.org"}, Policy: authstore.Policy{MostActive: 1}},
		{Groups: []string{"guests"}, Policy: authstore.Policy{MostActive: 2}},
		{Domains: []string{"example.com"}, Groups: []string{"staff"}, Policy: authstore.Policy{MostActive: 3}},
		{Policy: authstore.Policy{MostActive: 4}},
	}
	for _, tt := range []struct {
		address string
		groups  []string
		want    int
	}{
		{"alice@example.org", []string{"guests"}, 1},
		{"alice@sub.example.org", []string{"guests"}, 2},
		{"alice@example.com", nil, 3},
		{"alice@example.net", []string{"other", "staff"}, 3},
		{"alice@example.net", []string{"Staff"}, 4},
	} {
		if got := ps.For(tt.address, tt.groups).MostActive; got != tt.want {
			t.Errorf("%s in %v: rule %d, want %d", tt.address, tt.groups, got, tt.want)
		}
	}
	if got := ps[:3].For("alice@example.net", nil); got.Most() != authstore.MaxActive || !got.Opens(authstore.ScopePOP) || !got.Ends(time.Now(), time.Time{}) {
		t.Errorf("of nobody's: %+v", got)
	}
}

// ruled is a store whose clock is the test's.
type ruled struct {
	*authstore.Accounts
	store *sqlstore.Store
	mu    sync.Mutex // guards now
	now   time.Time
}

func newRuled(t *testing.T, ps authstore.Policies) *ruled {
	t.Helper()
	r := &ruled{now: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
	var err error
	if r.store, err = sqlstore.Open(t.Context(), sqlstore.Options{Path: filepath.Join(t.TempDir(), "p.db"), Now: r.clock, Notices: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.store.Close() })
	r.Accounts, err = authstore.NewAccounts(t.Context(), authstore.AccountsOptions{Truth: r.store, Keys: secret.NewKeyring(), Enforced: ^authstore.Scopes(0) >> 6,
		Actor: tester, Policies: ps, Now: r.clock})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *ruled) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *ruled) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

func TestPolicyBoundsWhatIsMade(t *testing.T) {
	t.Parallel()
	office := netip.MustParsePrefix("192.0.2.0/24")
	r := newRuled(t, authstore.Policies{{Groups: []string{"guests"}, Policy: authstore.Policy{Longest: 90 * days, Presets: []string{"mail-read", "calendar"},
		Networks: []netip.Prefix{office, netip.MustParsePrefix("2001:db8::/32")}, MostActive: 2}}})
	a, err := r.Add(t.Context(), "alice@example.test")
	if err != nil {
		t.Fatal(err)
	}
	make := func(change func(*authstore.PasswordRequest)) (authstore.AppPassword, error) {
		q := authstore.PasswordRequest{Account: a.ID, Label: "x", Scopes: authstore.ScopeCalendar, Expires: r.clock().Add(90 * days)}
		if change != nil {
			change(&q)
		}
		p, made, err := r.CreatePassword(t.Context(), q)
		if err == nil {
			made.Clear()
		}
		return p, err
	}
	free, err := make(func(q *authstore.PasswordRequest) { q.Scopes, q.Expires = authstore.ScopeMail, time.Time{} })
	if err != nil {
		t.Fatalf("before it is in the group: %v", err)
	}
	if _, err := r.store.Act(t.Context(), tester, a.ID, func(tx identity.Tx) error {
		return tx.SetTie(t.Context(), identity.Tie{Issuer: "ldap", Subject: "a", Groups: []string{"guests"}, Seen: r.clock()})
	}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*authstore.PasswordRequest){
		"no expiry":      func(q *authstore.PasswordRequest) { q.Expires = time.Time{} },
		"late":           func(q *authstore.PasswordRequest) { q.Expires = q.Expires.Add(time.Second) },
		"more scopes":    func(q *authstore.PasswordRequest) { q.Scopes |= authstore.ScopeContacts },
		"of two presets": func(q *authstore.PasswordRequest) { q.Scopes |= authstore.ScopeMailRead },
		"from elsewhere": func(q *authstore.PasswordRequest) {
			q.Networks = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
		},
		"from wider": func(q *authstore.PasswordRequest) { q.Networks = []netip.Prefix{netip.MustParsePrefix("192.0.0.0/16")} },
		"from here and elsewhere": func(q *authstore.PasswordRequest) {
			q.Networks = []netip.Prefix{office, netip.MustParsePrefix("2001:db9::/64")}
		},
	} {
		_, err := make(change)
		if _, ok := errors.AsType[*authstore.PolicyError](err); !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	p, err := make(nil)
	if err != nil || len(p.Networks) != 2 || p.Networks[0] != office {
		t.Errorf("what it allows: %+v, %v", p, err)
	}
	_, err = make(nil)
	if !errors.Is(err, authstore.ErrTooMany) || err.Error() != "there are 2 active app passwords already; revoke one first" {
		t.Errorf("a third: %v", err)
	}
	edit := func(p authstore.AppPassword, change func(*authstore.PasswordEdit)) error {
		e := authstore.PasswordEdit{Label: p.Label, Expires: p.Expires, Networks: p.Networks}
		change(&e)
		_, err := r.EditPassword(t.Context(), p.ID, e)
		return err
	}
	if err := edit(free, func(e *authstore.PasswordEdit) { e.Label = "older than the policy" }); err != nil {
		t.Errorf("renamed: %v", err)
	}
	r.pass(30 * days)
	for name, change := range map[string]func(*authstore.PasswordEdit){
		"never":          func(e *authstore.PasswordEdit) { e.Expires = time.Time{} },
		"later":          func(e *authstore.PasswordEdit) { e.Expires = p.Created.Add(91 * days) },
		"from elsewhere": func(e *authstore.PasswordEdit) { e.Networks = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")} },
	} {
		err := edit(p, change)
		if _, ok := errors.AsType[*authstore.PolicyError](err); !ok {
			t.Errorf("edited %s: %v", name, err)
		}
	}
	if err := edit(p, func(e *authstore.PasswordEdit) { e.Networks = nil }); err != nil {
		t.Errorf("no networks are those of the policy: %v", err)
	}
	if p, err := r.Password(t.Context(), p.ID); err != nil || len(p.Networks) != 2 {
		t.Errorf("which it has now: %+v, %v", p, err)
	}
	if _, err := r.Revoke(t.Context(), p.ID, ""); err != nil {
		t.Fatal(err)
	}
	if p, err := make(func(q *authstore.PasswordRequest) { q.Expires, q.BeyondPolicy = time.Time{}, true }); err != nil || !p.Expires.IsZero() || p.Networks != nil {
		t.Errorf("beyond the policy: %+v, %v", p, err)
	}
}

func TestIdleAppPasswords(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		idle   int
		newer  int   // days after the last use when the policy comes
		used   int   // the day after the start when it is used again; 0: never
		warned []int // on which days after the last use
		ends   int   // 0: never
	}{
		"90 days":                {idle: 90, warned: []int{76, 87}, ends: 90},
		"7 days":                 {idle: 7, warned: []int{4, 6}, ends: 8},
		"a policy that is newer": {idle: 90, newer: 400, warned: []int{400, 411}, ends: 414},
		"and nearly late":        {idle: 90, newer: 88, warned: []int{88, 99}, ends: 102},
		"used after a warning":   {idle: 90, used: 80, warned: []int{76, 156, 167}, ends: 170},
		"used after two":         {idle: 90, used: 89, warned: []int{76, 87, 165, 176}, ends: 179},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ps := authstore.Policies{{Policy: authstore.Policy{Idle: time.Duration(tt.idle) * days}}}
			r := newRuled(t, nil)
			a, _ := r.Add(t.Context(), "alice@example.test")
			p, made, err := r.CreatePassword(t.Context(), authstore.PasswordRequest{Account: a.ID, Label: "Old phone", Scopes: authstore.ScopeMail})
			if err != nil {
				t.Fatal(err)
			}
			made.Clear()
			use := func() {
				if err := r.store.Used(t.Context(), []authstore.Usage{{Password: p.ID, Account: a.ID, Protocol: "imap", App: "App", Network: netip.MustParsePrefix("192.0.2.0/24"),
					First: r.clock(), Last: r.clock(), Count: 1}}); err != nil {
					t.Fatal(err)
				}
			}
			use()
			r.pass(time.Duration(tt.newer) * days)
			r.SetPolicies(ps)
			var warned []int
			ended := 0
			for today := tt.newer; today < 500 && ended == 0; today++ { // days on which nothing is due cost little
				if today == tt.used && today > 0 {
					use()
				}
				for range 2 { // again and again, by any node
					done, err := r.ApplyPolicies(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if done.Warned > 0 {
						warned = append(warned, today)
					}
					if done.Ended > 0 {
						ended = today
					}
				}
				r.pass(days)
			}
			if len(warned) != len(tt.warned) || ended != tt.ends {
				t.Fatalf("warned on %v and ended on %d, want %v and %d", warned, ended, tt.warned, tt.ends)
			}
			for i := range warned {
				if warned[i] != tt.warned[i] {
					t.Errorf("warned on %v, want %v", warned, tt.warned)
				}
			}
			events, err := r.Events(t.Context(), authstore.EventQuery{Account: a.ID, Limit: 2})
			if err != nil || events[0].Kind != "password.revoked" || events[0].Actor.Name != "policy" || events[1].Kind != authstore.KindIdle {
				t.Errorf("history %+v, %v", events, err)
			}
			if w, err := authstore.ParseIdleWarning(events[1].Detail); err != nil || events[0].At.Before(w.Ends) || events[0].At.Sub(w.Ends) > days {
				t.Errorf("the last warning said %v, %v; it ended at %v", w, err, events[0].At)
			}
		})
	}
}

// Between the look and the end somebody may use it.
func TestUsedMeanwhile(t *testing.T) {
	t.Parallel()
	r := newRuled(t, nil)
	a, _ := r.Add(t.Context(), "alice@example.test")
	p, made, err := r.CreatePassword(t.Context(), authstore.PasswordRequest{Account: a.ID, Label: "Old phone", Scopes: authstore.ScopeMail})
	if err != nil {
		t.Fatal(err)
	}
	made.Clear()
	r.pass(100 * days)
	list, err := r.store.Idle(t.Context(), r.clock(), 0, 10)
	if err != nil || len(list) != 1 || !list[0].Since.Equal(p.Created) || list[0].Address != "alice@example.test" {
		t.Fatalf("Idle = %+v, %v", list, err)
	}
	if err := r.store.Used(t.Context(), []authstore.Usage{{Password: p.ID, Account: a.ID, Protocol: "imap", Network: netip.MustParsePrefix("192.0.2.0/24"),
		First: r.clock(), Last: r.clock(), Count: 1}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.RevokeIdle(t.Context(), tester, p.ID, list[0].Since, "idle"); !errors.Is(err, authstore.ErrNotActive) {
		t.Errorf("RevokeIdle: %v", err)
	}
	if p, _ := r.Password(t.Context(), p.ID); !p.Revoked.IsZero() {
		t.Error("it was revoked")
	}
}

// Whoever can't use an app password loses none for it.
func TestSuspendedIsNotIdle(t *testing.T) {
	t.Parallel()
	r := newRuled(t, authstore.Policies{{Policy: authstore.Policy{Idle: 30 * days, Yearly: true}}})
	a, _ := r.Add(t.Context(), "alice@example.test")
	_, made, err := r.CreatePassword(t.Context(), authstore.PasswordRequest{Account: a.ID, Label: "Old phone", Scopes: authstore.ScopeMail})
	if err != nil {
		t.Fatal(err)
	}
	made.Clear()
	if _, err := r.Suspend(t.Context(), a.ID); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		r.pass(10 * days)
		if done, err := r.ApplyPolicies(t.Context()); err != nil || done != (authstore.PolicyWork{}) {
			t.Fatalf("%+v, %v", done, err)
		}
	}
}

func TestYearly(t *testing.T) {
	t.Parallel()
	r := newRuled(t, authstore.Policies{{Domains: []string{"example.test"}, Policy: authstore.Policy{Yearly: true}}})
	for _, address := range []string{"alice@example.test", "bob@example.test", "carol@example.org"} {
		a, err := r.Add(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		if address == "bob@example.test" { // has none
			continue
		}
		_, made, err := r.CreatePassword(t.Context(), authstore.PasswordRequest{Account: a.ID, Label: "Phone of " + address, Scopes: authstore.ScopeMail})
		if err != nil {
			t.Fatal(err)
		}
		made.Clear()
	}
	var told []int
	for today := 0; today < 1100; today += 5 {
		done, err := r.ApplyPolicies(t.Context())
		if err != nil || done.Told > 1 {
			t.Fatal(done, err)
		}
		if done.Told == 1 {
			told = append(told, today)
		}
		r.pass(5 * days)
	}
	if len(told) != 3 || told[0] != 365 || told[1] != 730 || told[2] != 1095 {
		t.Errorf("told on %v", told)
	}
	a, _ := r.Get(t.Context(), "alice@example.test")
	events, _ := r.Events(t.Context(), authstore.EventQuery{Account: a.ID, Limit: 1})
	list, err := authstore.ParseYearly(events[0].Detail)
	if err != nil || len(list) != 1 || list[0].Label != "Phone of alice@example.test" || list[0].Scopes != authstore.ScopeMail || !list[0].Last.IsZero() {
		t.Errorf("%+v, %v", list, err)
	}
}

// A policy that is new tells everybody, and not all at once: other notices would wait behind that.
func TestManyAreToldInTurns(t *testing.T) {
	t.Parallel()
	const many = 310
	r := newRuled(t, authstore.Policies{{Policy: authstore.Policy{Idle: 30 * days, Yearly: true}}})
	list := make([]authstore.AccountImport, many)
	for i := range list {
		list[i].Address = fmt.Sprintf("u%d@example.test", i)
	}
	if _, err := r.Import(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	accounts, err := r.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range accounts {
		_, made, err := r.CreatePassword(t.Context(), authstore.PasswordRequest{Account: a.ID, Label: "Phone", Scopes: authstore.ScopeMail})
		if err != nil {
			t.Fatal(err)
		}
		made.Clear()
	}
	r.pass(400 * days)
	for i, want := range []authstore.PolicyWork{{Warned: 300, Told: 300}, {Warned: 10, Told: 10}, {}} {
		if done, err := r.ApplyPolicies(t.Context()); err != nil || done != want {
			t.Errorf("call %d: %+v, %v; want %+v", i+1, done, err, want)
		}
	}
}
