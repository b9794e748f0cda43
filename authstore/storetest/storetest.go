// Package storetest is the one suite that every authstore.Truth passes, whatever its database.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"postern/authstore"
)

// Run runs the suite. open gives an empty store that fills its outbox; now tells and moves its clock.
func Run(t *testing.T, open func(t *testing.T, now func() time.Time) authstore.Truth) {
	for name, test := range map[string]func(*testing.T, *fixture){
		"Snapshot":         testSnapshot,
		"Names":            testNames,
		"Limit":            testLimit,
		"Revoke":           testRevoke,
		"Remove":           testRemove,
		"Feed":             testFeed,
		"Nodes":            testNodes,
		"Usage":            testUsage,
		"UsageDays":        testUsageDays,
		"NewUse":           testNewUse,
		"Edit":             testEdit,
		"Collections":      testCollections,
		"Request":          testRequest,
		"Events":           testEvents,
		"Find":             testFind,
		"Audit":            testAudit,
		"MadeBy":           testMadeBy,
		"Tokens":           testTokens,
		"Import":           testImport,
		"Outbox":           testOutbox,
		"Crowds":           testCrowds,
		"Rekey":            testRekey,
		"Sealed":           testSealed,
		"Meta":             testMeta,
		"SequencesInOrder": testSequencesInOrder,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fixture{now: time.Now().Truncate(time.Second)}
			f.Truth = open(t, f.Now)
			t.Cleanup(func() { f.Close() })
			test(t, f)
		})
	}
}

// Who changes things in the tests.
var (
	tester = authstore.Actor{Name: "test"}
	eve    = authstore.Actor{Name: "cli:eve", Client: netip.MustParseAddr("192.0.2.7"), Agent: "Browser/1"}
)

type fixture struct {
	authstore.Truth
	mu  sync.Mutex // guards now
	now time.Time
}

func (f *fixture) Now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *fixture) pass(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}

func (f *fixture) account(t *testing.T, address string) authstore.Account {
	t.Helper()
	a, c, err := f.AddAccount(t.Context(), tester, address, "id"+address)
	if err != nil {
		t.Fatalf("AddAccount(%s): %v", address, err)
	}
	if c.Sequence == 0 || c.Mark == "" || !c.Names || c.Account != a.ID {
		t.Errorf("AddAccount's change = %+v", c)
	}
	return a
}

func (f *fixture) password(t *testing.T, id authstore.AccountID, label string, expires time.Time) authstore.AppPassword {
	t.Helper()
	p, _, err := f.CreatePassword(t.Context(), tester, newPassword(id, label, expires))
	if err != nil {
		t.Fatalf("CreatePassword(%s): %v", label, err)
	}
	return p
}

func newPassword(id authstore.AccountID, label string, expires time.Time) authstore.NewPassword {
	return authstore.NewPassword{Account: id, Label: label, Key: 1, Scopes: authstore.ScopeMail, Expires: expires,
		Digest:   func(id authstore.AccountID) authstore.Digest { return authstore.Digest{byte(id), label[0]} },
		Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}}
}

func testSnapshot(t *testing.T, f *fixture) {
	ctx := t.Context()
	empty, err := f.Load(ctx, "alice@example.test")
	if err != nil || empty.Account != 0 || empty.Epoch == "" {
		t.Fatalf("Load of an unknown name = %+v, %v", empty, err)
	}
	a := f.account(t, "alice@example.test")
	lasting := f.password(t, a.ID, "lasting", time.Time{})
	brief := f.password(t, a.ID, "brief", f.Now().Add(time.Hour))
	gone := f.password(t, a.ID, "gone", time.Time{})
	if _, err := f.Revoke(ctx, tester, gone.ID, "lost"); err != nil {
		t.Fatal(err)
	}
	s, err := f.Load(ctx, "alice@example.test")
	if err != nil {
		t.Fatal(err)
	}
	if s.Account != a.ID || s.PublicID != a.PublicID || s.Status != authstore.Active || s.Sequence != 5 || s.Epoch != empty.Epoch {
		t.Errorf("snapshot = %+v", s)
	}
	if len(s.Active) != 2 || len(s.Ended) != 1 || s.Ended[0].ID != gone.ID || !s.Ended[0].Revoked {
		t.Fatalf("active %+v, ended %+v", s.Active, s.Ended)
	}
	i := slices.IndexFunc(s.Active, func(v authstore.Verifiable) bool { return v.ID == brief.ID })
	v := s.Active[i]
	if v.Key != 1 || v.Digest != (authstore.Digest{byte(a.ID), 'b'}) || v.Scopes != authstore.ScopeMail || !v.Expires.Equal(brief.Expires) || len(v.Networks) != 2 {
		t.Errorf("app password in the snapshot = %+v", v)
	}
	f.pass(2 * time.Hour)
	if s, _ = f.Load(ctx, "alice@example.test"); len(s.Active) != 1 || s.Active[0].ID != lasting.ID || len(s.Ended) != 2 {
		t.Errorf("after expiry: active %+v, ended %+v", s.Active, s.Ended)
	}
	f.pass(91 * 24 * time.Hour)
	if s, _ = f.Load(ctx, "alice@example.test"); len(s.Active) != 1 || len(s.Ended) != 0 {
		t.Errorf("after 91 days: active %+v, ended %+v", s.Active, s.Ended)
	}
	for i := range authstore.MaxEnded + 10 {
		f.pass(time.Second)
		p := f.password(t, a.ID, fmt.Sprint("e", i), time.Time{})
		if _, err := f.Revoke(ctx, tester, p.ID, ""); err != nil {
			t.Fatal(err)
		}
		gone = p
	}
	if s, _ = f.Load(ctx, "alice@example.test"); len(s.Active) != 1 || len(s.Ended) != authstore.MaxEnded || s.Ended[0].ID != gone.ID {
		t.Errorf("%d active, %d ended, newest %d; want 1, %d, %d", len(s.Active), len(s.Ended), s.Ended[0].ID, authstore.MaxEnded, gone.ID)
	}
}

func testNames(t *testing.T, f *fixture) {
	ctx := t.Context()
	alice, bob := f.account(t, "alice@example.test"), f.account(t, "bob@example.test")
	if _, _, err := f.AddAccount(ctx, tester, "alice@example.test", "other"); !errors.Is(err, authstore.ErrNameTaken) {
		t.Errorf("a second account of that name: %v", err)
	}
	if _, err := f.AddName(ctx, tester, bob.ID, "alice@example.test"); !errors.Is(err, authstore.ErrNameTaken) {
		t.Errorf("somebody else's name as an alias: %v", err)
	}
	if c, err := f.AddName(ctx, tester, alice.ID, "al@example.test"); err != nil || !c.Names || c.Account != alice.ID {
		t.Errorf("AddName = %+v, %v", c, err)
	}
	if s, _ := f.Load(ctx, "al@example.test"); s.Account != alice.ID {
		t.Errorf("the alias leads to %d", s.Account)
	}
	if a, err := f.Account(ctx, "al@example.test"); err != nil || fmt.Sprint(a.Names) != "[alice@example.test al@example.test]" {
		t.Errorf("Account = %+v, %v", a, err)
	}
	if _, err := f.RemoveName(ctx, tester, alice.ID, "alice@example.test"); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("removing the first name: %v", err)
	}
	if _, err := f.RemoveName(ctx, tester, bob.ID, "al@example.test"); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("removing somebody else's alias: %v", err)
	}
	if c, err := f.RemoveName(ctx, tester, alice.ID, "al@example.test"); err != nil || !c.Names {
		t.Errorf("RemoveName = %+v, %v", c, err)
	}
	if s, _ := f.Load(ctx, "al@example.test"); s.Account != 0 {
		t.Errorf("the removed alias leads to %d", s.Account)
	}
	if list, err := f.Accounts(ctx); err != nil || len(list) != 2 || list[1].Names[0] != "bob@example.test" {
		t.Errorf("Accounts = %+v, %v", list, err)
	}
	if _, err := f.SetBackendName(ctx, tester, bob.ID, "u17"); err != nil {
		t.Error(err)
	}
	if s, _ := f.Load(ctx, "bob@example.test"); s.BackendName != "u17" {
		t.Errorf("backend name = %q", s.BackendName)
	}
	if _, err := f.SetBackendName(ctx, tester, 99, "x"); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("backend name of nobody: %v", err)
	}
}

func testLimit(t *testing.T, f *fixture) {
	a := f.account(t, "alice@example.test")
	f.password(t, a.ID, "expires", f.Now().Add(time.Minute))
	f.pass(time.Hour) // an expired one does not count
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for i := range 200 {
		wg.Go(func() {
			_, _, err := f.CreatePassword(context.Background(), tester, newPassword(a.ID, fmt.Sprint("p", i), time.Time{}))
			if err != nil && !errors.Is(err, authstore.ErrTooMany) {
				t.Error(err)
			}
			if err == nil {
				mu.Lock()
				made++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if got, _ := f.Account(t.Context(), "alice@example.test"); made != authstore.MaxActive || got.Passwords != authstore.MaxActive {
		t.Errorf("%d made, %d active; want %d", made, got.Passwords, authstore.MaxActive)
	}
	if _, _, err := f.CreatePassword(t.Context(), tester, newPassword(99, "x", time.Time{})); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("for nobody: %v", err)
	}
}

func testRevoke(t *testing.T, f *fixture) {
	ctx := t.Context()
	a := f.account(t, "alice@example.test")
	p, q, r := f.password(t, a.ID, "p", time.Time{}), f.password(t, a.ID, "q", time.Time{}), f.password(t, a.ID, "r", time.Time{})
	first, err := f.Revoke(ctx, eve, p.ID, "phone lost")
	if err != nil || !slices.Equal(first.Ended, []authstore.PasswordID{p.ID}) || first.Account != a.ID {
		t.Fatalf("Revoke = %+v, %v", first, err)
	}
	again, err := f.Revoke(ctx, tester, p.ID, "")
	if err != nil || again.Sequence != first.Sequence {
		t.Errorf("revoked again: %+v, %v; want sequence %d", again, err, first.Sequence)
	}
	if got, _ := f.Password(ctx, p.ID); got.Why != "phone lost" || !got.Revoked.Equal(f.Now()) {
		t.Errorf("Password = %+v", got)
	}
	if _, err := f.Revoke(ctx, tester, 99, ""); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
	all, err := f.RevokeAll(ctx, tester, a.ID, "new primary password")
	slices.Sort(all.Ended)
	if err != nil || !slices.Equal(all.Ended, []authstore.PasswordID{q.ID, r.ID}) {
		t.Errorf("RevokeAll = %+v, %v", all, err)
	}
	if again, err := f.Revoke(ctx, tester, q.ID, ""); err != nil || again.Sequence != all.Sequence {
		t.Errorf("revoked again: %+v, %v; want sequence %d", again, err, all.Sequence)
	}
	if list, _ := f.Passwords(ctx, a.ID, false); len(list) != 0 {
		t.Errorf("active: %+v", list)
	}
	if list, _ := f.Passwords(ctx, a.ID, true); len(list) != 3 {
		t.Errorf("all: %+v", list)
	}
	events, err := f.Events(ctx, authstore.EventQuery{Account: a.ID, Limit: 10})
	if err != nil || len(events) != 6 || events[1].Kind != "password.revoked" || events[1].Actor != eve || events[1].Detail != "phone lost" || events[1].Password != p.ID {
		t.Errorf("Events = %+v, %v", events, err)
	}
}

func testRemove(t *testing.T, f *fixture) {
	ctx := t.Context()
	a := f.account(t, "alice@example.test")
	p := f.password(t, a.ID, "p", time.Time{})
	if c, err := f.SetStatus(ctx, tester, a.ID, authstore.AccountPaused); err != nil || !c.AllEnded || c.Version <= a.Version {
		t.Errorf("suspend = %+v, %v", c, err)
	}
	if s, _ := f.Load(ctx, "alice@example.test"); s.Status != authstore.AccountPaused || len(s.Active) != 1 {
		t.Errorf("suspended: %+v", s)
	}
	if c, err := f.SetStatus(ctx, tester, a.ID, authstore.Active); err != nil || c.AllEnded {
		t.Errorf("resume = %+v, %v", c, err)
	}
	if c, err := f.RemoveAccount(ctx, tester, a.ID); err != nil || !c.AllEnded || !c.Names || c.Account != a.ID {
		t.Errorf("remove = %+v, %v", c, err)
	}
	if _, err := f.RemoveAccount(ctx, tester, a.ID); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if _, err := f.Password(ctx, p.ID); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("its app password: %v", err)
	}
	if s, _ := f.Load(ctx, "alice@example.test"); s.Account != 0 {
		t.Errorf("its snapshot: %+v", s)
	}
	if b := f.account(t, "alice@example.test"); b.ID <= a.ID {
		t.Errorf("the id %d was used again after %d", b.ID, a.ID)
	}
}

func testFeed(t *testing.T, f *fixture) {
	ctx := t.Context()
	if tail, err := f.Recent(ctx, f.Now()); err != nil || tail.Counter != 0 || len(tail.Changes) != 0 || tail.Epoch == "" {
		t.Fatalf("Recent of an empty feed = %+v, %v", tail, err)
	}
	a := f.account(t, "alice@example.test")
	p := f.password(t, a.ID, "p", time.Time{})
	revoked, _ := f.Revoke(ctx, tester, p.ID, "")
	tail, err := f.Tail(ctx, "nobody", 2)
	if err != nil || tail.Counter != 3 || tail.Node || len(tail.Changes) != 2 || fmt.Sprint(tail.Changes[1]) != fmt.Sprint(revoked) {
		t.Errorf("Tail(2) = %+v, %v; want 2 and %+v", tail, err, revoked)
	}
	f.pass(time.Hour)
	f.password(t, a.ID, "q", time.Time{})
	if tail, _ := f.Recent(ctx, f.Now().Add(-time.Minute)); len(tail.Changes) != 1 || tail.Changes[0].Sequence != 4 {
		t.Errorf("Recent = %+v", tail)
	}
	f.pass(time.Hour)
	if tail, _ := f.Recent(ctx, f.Now()); len(tail.Changes) != 1 || tail.Changes[0].Sequence != 4 {
		t.Errorf("Recent with nothing new = %+v; want the newest change, for its mark", tail)
	}
	if err := f.Prune(ctx, f.Now()); err != nil {
		t.Fatal(err)
	}
	if tail, _ := f.Tail(ctx, "", 0); len(tail.Changes) != 1 || tail.Changes[0].Sequence != 4 {
		t.Errorf("after Prune: %+v; want the newest change only", tail)
	}
}

func testNodes(t *testing.T, f *fixture) {
	ctx := t.Context()
	if err := f.Acknowledge(ctx, "n1", 1, nil); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("acknowledged without a row: %v", err)
	}
	for _, id := range []string{"n1", "n2", "n1"} {
		if err := f.Register(ctx, id, []uint32{1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Acknowledge(ctx, "n2", 7, []uint32{1, 2}); err != nil {
		t.Fatal(err)
	}
	nodes, err := f.Nodes(ctx)
	if err != nil || len(nodes) != 2 || nodes[1].ID != "n2" || nodes[1].Acknowledged != 7 || fmt.Sprint(nodes[1].Keys) != "[1 2]" || !nodes[1].LastSeen.Equal(f.Now()) {
		t.Errorf("Nodes = %+v, %v", nodes, err)
	}
	if tail, _ := f.Tail(ctx, "n1", 0); !tail.Node {
		t.Error("the tail does not find the node's row")
	}
	f.pass(authstore.NodeTimeout + time.Minute)
	f.Acknowledge(ctx, "n2", 8, nil)
	f.Prune(ctx, f.Now())
	if nodes, _ := f.Nodes(ctx); len(nodes) != 1 || nodes[0].ID != "n2" {
		t.Errorf("after Prune: %+v", nodes)
	}
	if err := f.Unregister(ctx, "n2"); err != nil {
		t.Fatal(err)
	}
	if nodes, _ := f.Nodes(ctx); len(nodes) != 0 {
		t.Errorf("after Unregister: %+v", nodes)
	}
}

func usage(p authstore.AppPassword, app string, at time.Time, count int64) authstore.Usage {
	return authstore.Usage{Password: p.ID, Account: p.Account, Protocol: "imap", App: app,
		Network: netip.MustParsePrefix("192.0.2.0/24"), First: at, Last: at, Count: count}
}

func testUsage(t *testing.T, f *fixture) {
	ctx := t.Context()
	p := f.password(t, f.account(t, "alice@example.test").ID, "p", time.Time{})
	if p.Last != nil {
		t.Errorf("a new one was used %+v", p.Last)
	}
	at := f.Now()
	gone := usage(p, "x", at, 1)
	gone.Password = 99
	if err := f.Used(ctx, []authstore.Usage{usage(p, "Old", at, 2), usage(p, "New", at.Add(time.Hour), 1), usage(p, "Old", at.Add(-time.Hour), 3), gone}); err != nil {
		t.Fatal(err)
	}
	got, _ := f.Password(ctx, p.ID)
	if got.Last == nil || got.Last.App != "New" || !got.Last.At.Equal(at.Add(time.Hour)) || got.Last.Count != 6 || got.Last.Protocol != "imap" || got.Last.Network.String() != "192.0.2.0/24" {
		t.Errorf("last used = %+v", got.Last)
	}
	if tail, _ := f.Tail(ctx, "", 0); tail.Counter != 2 {
		t.Errorf("usage made changes: %+v", tail)
	}
	testFailures(t, f, p, at)
	var many []authstore.Usage
	for i := range 150 {
		many = append(many, usage(p, fmt.Sprint("App ", i), at.Add(time.Duration(2+i)*time.Hour), 1))
	}
	if err := f.Used(ctx, many); err != nil {
		t.Fatal(err)
	}
	if got, _ := f.Password(ctx, p.ID); got.Last == nil || got.Last.App != "App 149" || got.Last.Count != 100 {
		t.Errorf("after 150 clients: %+v, want the last of 100 that are kept", got.Last)
	}
	for i := range many {
		many[i].App, many[i].First, many[i].Last = fmt.Sprint("Other ", i), at.Add(200*time.Hour), at.Add(200*time.Hour)
	}
	if err := f.Used(ctx, many); err != nil {
		t.Fatal(err)
	}
	if list, _ := f.Usage(ctx, p.ID); len(list) != 101 {
		t.Errorf("after 150 clients in one second %d are kept, want 100, and one that was refused", len(list))
	}
}

// testFailures: what was refused is counted, and says nothing of when the app password was used.
func testFailures(t *testing.T, f *fixture, p authstore.AppPassword, at time.Time) {
	ctx := t.Context()
	failed := func(p authstore.AppPassword, app string, at time.Time, n int64) authstore.Usage {
		u := usage(p, app, at, 0)
		u.Failures = n
		return u
	}
	if err := f.Used(ctx, []authstore.Usage{failed(p, "New", at.Add(90*time.Minute), 2), failed(p, "", at.Add(90*time.Minute), 1)}); err != nil {
		t.Fatal(err)
	}
	got, _ := f.Password(ctx, p.ID)
	if got.Failures != 3 || !got.Last.At.Equal(at.Add(time.Hour)) || got.Last.App != "New" || got.Last.Count != 6 {
		t.Errorf("after 3 refusals: %d, last used %+v", got.Failures, got.Last)
	}
	q := f.password(t, p.Account, "q", time.Time{})
	if err := f.Used(ctx, []authstore.Usage{failed(q, "App", at.Add(2*time.Hour), 1), usage(q, "App", at, 1), failed(q, "App", at.Add(3*time.Hour), 1)}); err != nil {
		t.Fatal(err)
	}
	if got, _ := f.Password(ctx, q.ID); got.Failures != 2 || got.Last == nil || !got.Last.At.Equal(at) {
		t.Errorf("refused, used and refused: %d, last used %+v", got.Failures, got.Last)
	}
	var many []authstore.Usage
	for i := range 150 {
		many = append(many, failed(q, fmt.Sprint("App ", i), at.Add(time.Duration(2+i)*time.Hour), 1))
	}
	if err := f.Used(ctx, many); err != nil {
		t.Fatal(err)
	}
	if got, _ := f.Password(ctx, q.ID); got.Failures != 102 || got.Last == nil || !got.Last.At.Equal(at) || got.Last.Count != 1 {
		t.Errorf("after 150 clients that were refused: %d failures, last used %+v; want the last 100, and the use", got.Failures, got.Last)
	}
}

func testRekey(t *testing.T, f *fixture) {
	ctx := t.Context()
	a := f.account(t, "alice@example.test")
	p, q := f.password(t, a.ID, "p", time.Time{}), f.password(t, a.ID, "q", time.Time{})
	f.Revoke(ctx, tester, q.ID, "")
	rekeyed := func(p authstore.AppPassword, from uint32) authstore.Usage {
		u := usage(p, "x", f.Now(), 1)
		u.Rekey = &authstore.Rekey{From: from, To: 2, Digest: authstore.Digest{9}}
		return u
	}
	before, _ := f.Tail(ctx, "", 0)
	if err := f.Used(ctx, []authstore.Usage{rekeyed(p, 7), rekeyed(q, 1), rekeyed(p, 1), rekeyed(p, 1)}); err != nil {
		t.Fatal(err)
	}
	s, _ := f.Load(ctx, "alice@example.test")
	if s.Sequence != before.Counter+1 || s.Active[0].Key != 2 || s.Active[0].Digest != (authstore.Digest{9}) || s.Ended[0].Key != 1 {
		t.Errorf("after rekeying: %+v; want one change, the active one moved, the revoked one not", s)
	}
	if use, err := f.KeyUse(ctx); err != nil || use[1] != 1 || use[2] != 1 {
		t.Errorf("KeyUse = %v, %v", use, err)
	}
}

func testSealed(t *testing.T, f *fixture) {
	ctx := t.Context()
	a := f.account(t, "alice@example.test")
	if _, err := f.Sealed(ctx, a.ID, "hosted"); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("before: %v", err)
	}
	for _, v := range []string{"one", "two"} {
		if err := f.SetSealed(ctx, tester, a.ID, "hosted", 3, []byte(v)); err != nil {
			t.Fatal(err)
		}
	}
	if v, err := f.Sealed(ctx, a.ID, "hosted"); err != nil || string(v) != "two" {
		t.Errorf("Sealed = %q, %v", v, err)
	}
	if use, _ := f.KeyUse(ctx); use[3] != 1 {
		t.Errorf("KeyUse = %v", use)
	}
}

func testMeta(t *testing.T, f *fixture) {
	ctx := t.Context()
	if _, err := f.Meta(ctx, "x"); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("before: %v", err)
	}
	for _, v := range []string{"first", "second"} {
		if got, err := f.SetMeta(ctx, "x", []byte(v)); err != nil || string(got) != "first" {
			t.Errorf("SetMeta(%s) = %q, %v; want what stood there first", v, got, err)
		}
	}
}

// What a tail sees is a prefix: nobody who has read up to a sequence misses a change below it.
func testSequencesInOrder(t *testing.T, f *fixture) {
	a := f.account(t, "alice@example.test")
	var writers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() {
			for j := range 10 {
				p, _, err := f.CreatePassword(context.Background(), tester, newPassword(a.ID, fmt.Sprint("p", i, j), time.Time{}))
				if err == nil {
					_, err = f.Revoke(context.Background(), tester, p.ID, "")
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	stop := make(chan struct{})
	go func() { writers.Wait(); close(stop) }()
	from := uint64(1)
	for running := true; running; {
		select {
		case <-stop:
			running = false
		default:
		}
		tail, err := f.Tail(t.Context(), "", from)
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range tail.Changes {
			if c.Sequence != from+uint64(i) {
				t.Fatalf("at %d stands change %d", from+uint64(i), c.Sequence)
			}
		}
		from += uint64(len(tail.Changes))
	}
	if from != 82 {
		t.Errorf("the tail ended at %d, want 82", from)
	}
}
