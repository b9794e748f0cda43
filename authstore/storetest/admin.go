package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
)

func firstName(a authstore.Account) string { return a.Names[0] }

// Accounts are found by parts of any of their names, page by page.
func testFind(t *testing.T, f *fixture) {
	ctx := t.Context()
	for _, name := range []string{"carol@example.test", "alice@example.test", "bob@other.test", "a_b@example.test", "axb@sub.example.test"} {
		f.account(t, name)
	}
	bob, err := f.Account(ctx, "bob@other.test")
	if err != nil {
		t.Fatal(err)
	}
	f.AddName(ctx, tester, bob.ID, "robert@example.test")
	f.SetStatus(ctx, tester, bob.ID, authstore.AccountPaused)
	carol, _ := f.Account(ctx, "carol@example.test")
	f.password(t, carol.ID, "one", time.Time{})
	f.password(t, carol.ID, "soon over", f.Now().Add(time.Hour))
	gone := f.password(t, bob.ID, "gone", time.Time{})
	f.Revoke(ctx, tester, gone.ID, "")
	f.pass(2 * time.Hour)
	for _, tt := range []struct {
		q    authstore.AccountQuery
		want string
	}{
		{authstore.AccountQuery{}, "[a_b@example.test alice@example.test axb@sub.example.test bob@other.test carol@example.test] 5 1"},
		{authstore.AccountQuery{Limit: 2}, "[a_b@example.test alice@example.test] 5 1"},
		{authstore.AccountQuery{Limit: 2, After: "alice@example.test"}, "[axb@sub.example.test bob@other.test] 5 1"},
		{authstore.AccountQuery{Text: "obert@"}, "[bob@other.test] 1 0"},
		{authstore.AccountQuery{Text: "a_b"}, "[a_b@example.test] 1 0"},
		{authstore.AccountQuery{Text: "%"}, "[] 0 0"},
		{authstore.AccountQuery{Domain: "example.test", After: "a_b@example.test"}, "[alice@example.test carol@example.test] 3 1"},
		{authstore.AccountQuery{Domain: "example"}, "[] 0 0"},
		{authstore.AccountQuery{Status: authstore.AccountPaused}, "[bob@other.test] 1 0"},
		{authstore.AccountQuery{Status: authstore.AccountGone}, "[] 0 0"},
		{authstore.AccountQuery{Open: true}, "[carol@example.test] 1 1"},
		{authstore.AccountQuery{Text: "ali", Domain: "example.test", Status: authstore.Active}, "[alice@example.test] 1 0"},
	} {
		list, err := f.FindAccounts(ctx, tt.q)
		n, passwords, countErr := f.CountAccounts(ctx, tt.q)
		if got := fmt.Sprintf("%s %d %d", kinds(list, firstName), n, passwords); err != nil || countErr != nil || got != tt.want {
			t.Errorf("%+v finds %s, %v, %v; want %s", tt.q, got, err, countErr, tt.want)
		}
	}
	list, _ := f.FindAccounts(ctx, authstore.AccountQuery{Text: "carol"})
	if a, err := f.AccountNumbered(ctx, carol.ID); err != nil || len(list) != 1 || fmt.Sprint(a) != fmt.Sprint(list[0]) || a.Passwords != 1 || a.Names[0] != "carol@example.test" {
		t.Errorf("by its number %+v, %v; found %+v", a, err, list)
	}
	if _, err := f.AccountNumbered(ctx, 4711); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("a number that nobody has: %v", err)
	}
}

// The history of all accounts, by who did it and when.
func testAudit(t *testing.T, f *fixture) {
	ctx := t.Context()
	began := f.Now()
	a := f.account(t, "alice@example.test")
	f.pass(time.Hour)
	b := f.account(t, "bob@example.test")
	p := f.password(t, b.ID, "p", time.Time{})
	f.pass(time.Hour)
	f.Revoke(ctx, eve, p.ID, "")
	f.SetStatus(ctx, eve, a.ID, authstore.AccountPaused)
	f.RemoveAccount(ctx, tester, b.ID)
	for _, tt := range []struct {
		q    authstore.EventQuery
		want string
	}{
		{authstore.EventQuery{}, "[account.removed account.suspended password.revoked password.created account.added account.added]"},
		{authstore.EventQuery{Actor: eve.Name}, "[account.suspended password.revoked]"},
		{authstore.EventQuery{Actor: eve.Name, Account: a.ID}, "[account.suspended]"},
		{authstore.EventQuery{Since: began.Add(time.Hour), Until: began.Add(2 * time.Hour)}, "[password.created account.added]"},
		{authstore.EventQuery{Until: began.Add(time.Hour)}, "[account.added]"},
		{authstore.EventQuery{Since: began.Add(2 * time.Hour), Kinds: []string{"account."}}, "[account.removed account.suspended]"},
		{authstore.EventQuery{Actor: "nobody"}, "[]"},
	} {
		got, err := f.Events(ctx, tt.q)
		if err != nil || kinds(got, func(e authstore.Event) string { return e.Kind }) != tt.want {
			t.Errorf("%+v: %+v, %v; want %s", tt.q, got, err, tt.want)
		}
	}
}

// Who made an app password for a device stands with it.
func testMadeBy(t *testing.T, f *fixture) {
	n := newPassword(f.account(t, "alice@example.test").ID, "Scanner", time.Time{})
	n.MadeBy = "admin@example.test"
	p, _, err := f.CreatePassword(t.Context(), tester, n)
	if err != nil || p.MadeBy != n.MadeBy {
		t.Errorf("%+v, %v", p, err)
	}
	f.password(t, p.Account, "own", time.Time{})
	if list, err := f.Passwords(t.Context(), p.Account, true); err != nil || len(list) != 2 || list[0].MadeBy != n.MadeBy || list[1].MadeBy != "" {
		t.Errorf("%+v, %v", list, err)
	}
}

// An administrator changes what is another's, as long as his own session goes on and he is an administrator.
func testAdministers(t *testing.T, f *people) {
	ctx := t.Context()
	admin := f.account(t, "admin@example.test").ID
	member := f.account(t, "member@example.test").ID
	f.SetAdmin(ctx, tester, admin, true)
	f.act(member, func(ctx context.Context, tx identity.Tx) error {
		return tx.SetTie(ctx, identity.Tie{Issuer: "ldap", Subject: "m", Groups: []string{"staff", "postmasters"}, Seen: f.Now()})
	})
	as := func(id authstore.AccountID, digest string) authstore.Actor {
		return authstore.Actor{Name: "admin:x", Session: int64(f.session(id, identity.SignedIn, digest)),
			Administrator: &authstore.Administrator{Account: id, Issuer: "ldap", Groups: []string{"postmasters"}}}
	}
	p := f.password(t, f.alice, "phone", time.Time{})
	acts := map[string]func(authstore.Actor) error{
		"create": func(who authstore.Actor) error {
			_, _, err := f.CreatePassword(ctx, who, newPassword(f.alice, "scanner", time.Time{}))
			return err
		},
		"edit": func(who authstore.Actor) error {
			_, err := f.EditPassword(ctx, who, p.ID, authstore.PasswordEdit{Label: "phone " + who.Name})
			return err
		},
		"resume": func(who authstore.Actor) error {
			_, err := f.SetStatus(ctx, who, f.alice, authstore.Active)
			return err
		},
		"act": func(who authstore.Actor) error {
			_, err := f.truth.Act(ctx, who, f.alice, func(tx identity.Tx) error { return tx.Event(ctx, "factors.reset", "") })
			return err
		},
		"revoke all": func(who authstore.Actor) error { _, err := f.RevokeAll(ctx, who, f.alice, ""); return err },
	}
	all := func(who authstore.Actor, want error) {
		t.Helper()
		for name, do := range acts {
			if name == "edit" && want == nil { // it has ended, by one of the others
				continue
			}
			if err := do(who); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", name, err, want)
			}
		}
	}
	before, _ := f.Events(ctx, authstore.EventQuery{Account: f.alice})
	ordinary := as(f.bob, "bob")
	all(ordinary, authstore.ErrNotAdministrator)
	other := ordinary // alice's session does not make bob an administrator, nor hers his
	other.Session = int64(f.session(f.alice, identity.SignedIn, "alice"))
	all(other, authstore.ErrSignedOut)
	half := as(admin, "half")
	half.Session = int64(f.session(admin, identity.AwaitsFactor, "awaits"))
	all(half, authstore.ErrSignedOut)
	taken := as(admin, "taken")
	f.SetAdmin(ctx, tester, admin, false)
	all(taken, authstore.ErrNotAdministrator)
	f.SetAdmin(ctx, tester, admin, true)
	ended := as(admin, "ended")
	f.act(admin, func(ctx context.Context, tx identity.Tx) error {
		return tx.EndSession(ctx, identity.SessionID(ended.Session))
	})
	all(ended, authstore.ErrSignedOut)
	left := as(member, "left")
	left.Administrator.Groups = []string{"others"}
	all(left, authstore.ErrNotAdministrator)
	for _, issuer := range []string{"https://id.example.test", ""} { // people sign in elsewhere now
		elsewhere := as(member, "elsewhere "+issuer)
		elsewhere.Administrator.Issuer = issuer
		all(elsewhere, authstore.ErrNotAdministrator)
	}
	suspended := as(member, "suspended")
	f.SetStatus(ctx, tester, member, authstore.AccountPaused)
	all(suspended, authstore.ErrSignedOut)
	f.SetStatus(ctx, tester, member, authstore.Active)
	if after, _ := f.Events(ctx, authstore.EventQuery{Account: f.alice}); len(after) != len(before) {
		t.Errorf("what was refused stands in the history: %+v", after)
	}
	all(as(admin, "admin"), nil)
	all(as(member, "member"), nil)
	if list, _ := f.Passwords(ctx, f.alice, false); slices.ContainsFunc(list, func(p authstore.AppPassword) bool { return p.Label == "phone" }) {
		t.Errorf("after \"revoke all\": %+v", list)
	}
	// What would end his own session is refused: it could not have been done in it.
	if _, err := f.SetStatus(ctx, as(admin, "own"), admin, authstore.AccountPaused); !errors.Is(err, authstore.ErrSignedOut) {
		t.Errorf("an administrator suspends himself: %v", err)
	}
}
