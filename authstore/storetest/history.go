package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
)

// outbox is what a store has besides, for gateway/notice.
type outbox interface {
	TakeNotices(ctx context.Context, n int, until time.Time) ([]authstore.Notice, error)
	NoticeDone(ctx context.Context, event int64) error
	NoticeFailed(ctx context.Context, event int64, next time.Time, refused bool) error
}

// take takes what is due, for a minute.
func (f *fixture) take(t *testing.T) []authstore.Notice {
	t.Helper()
	list, err := f.Truth.(outbox).TakeNotices(t.Context(), 100, f.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func kinds[E any](list []E, kind func(E) string) string {
	var all []string
	for _, e := range list {
		all = append(all, kind(e))
	}
	return fmt.Sprint(all)
}

func noticeKind(n authstore.Notice) string { return n.Kind }

// done says of all notices that they were sent.
func (f *fixture) done(t *testing.T, list []authstore.Notice) {
	t.Helper()
	for _, n := range list {
		if err := f.Truth.(outbox).NoticeDone(t.Context(), n.ID); err != nil {
			t.Fatal(err)
		}
	}
}

// What comes in crowds is told of once, and nobody fills a mailbox: see authstore.Noticed.
func testCrowds(t *testing.T, f *fixture) {
	ctx := t.Context()
	a, b := f.account(t, "alice@example.test"), f.account(t, "bob@example.test")
	refused := func(id authstore.AccountID) {
		t.Helper()
		if _, err := f.Truth.(identity.Truth).Act(ctx, eve, id, func(tx identity.Tx) error {
			return tx.Event(ctx, authstore.KindFactorRefused, "code")
		}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		refused(a.ID)
	}
	refused(b.ID)
	f.done(t, f.take(t)[:1])
	refused(a.ID)
	f.pass(2 * time.Minute)
	if list := f.take(t); len(list) != 1 || list[0].Account != b.ID {
		t.Errorf("of wrong second factors, with the first sent: %+v", list)
	}
	f.pass(25 * time.Hour)
	refused(a.ID)
	list := f.take(t)
	if len(list) != 2 { // bob's was taken and never sent
		t.Errorf("a day later: %+v", list)
	}
	f.done(t, list)
	for range 40 { // two events each
		f.Revoke(ctx, eve, f.password(t, a.ID, "p", time.Time{}).ID, "")
	}
	f.password(t, b.ID, "q", time.Time{})
	if list := f.take(t); len(list) != 20+20+1 {
		t.Errorf("%d notices of a busy day and of another account, want 20 of each kind and 1", len(list))
	}
	if _, err := f.RevokeAll(ctx, eve, a.ID, "phone lost"); err != nil { // is not hidden behind them
		t.Fatal(err)
	}
	if list := f.take(t); kinds(list, noticeKind) != "[password.revoked_all]" {
		t.Errorf("after a crowd of others: %+v", list)
	}
	if events, _ := f.Events(ctx, authstore.EventQuery{Account: a.ID, Limit: 1000}); len(events) != 1+5+80+1 {
		t.Errorf("%d events, want all", len(events))
	}
}

func testOutbox(t *testing.T, f *fixture) {
	ctx, box := t.Context(), f.Truth.(outbox)
	a := f.account(t, "alice@example.test")
	f.AddName(ctx, tester, a.ID, "al@example.test")
	if list := f.take(t); len(list) != 0 {
		t.Errorf("of what nobody is told: %+v", list)
	}
	p := f.password(t, a.ID, "Phone", time.Time{})
	f.Revoke(ctx, eve, p.ID, "lost")
	if first, err := box.TakeNotices(ctx, 1, f.Now().Add(time.Minute)); err != nil || kinds(first, noticeKind) != "[password.created]" {
		t.Errorf("the first = %+v, %v", first, err)
	}
	list := f.take(t)
	if kinds(list, noticeKind) != "[password.revoked]" {
		t.Fatalf("the rest = %+v", list)
	}
	if n := list[0]; n.Address != "alice@example.test" || n.PublicID != a.PublicID || n.Label != "Phone" || n.Scopes != authstore.ScopeMail ||
		n.Actor != eve || n.Detail != "lost" || n.Password != p.ID || !n.At.Equal(f.Now()) || n.Refusals != 0 || n.Language != "" || n.Zone != "" {
		t.Errorf("the notice = %+v", n)
	}
	if again := f.take(t); len(again) != 0 {
		t.Errorf("taken twice: %+v", again)
	}
	for _, refused := range []bool{true, false} {
		if err := box.NoticeFailed(ctx, list[0].ID, f.Now().Add(time.Hour), refused); err != nil {
			t.Fatal(err)
		}
	}
	f.pass(2 * time.Minute) // whoever took the first has died
	list2 := f.take(t)
	if kinds(list2, noticeKind) != "[password.created]" {
		t.Errorf("after the taker's death: %+v", list2)
	}
	f.done(t, list2)
	f.pass(time.Hour)
	list2 = f.take(t)
	if len(list2) != 1 || list2[0].ID != list[0].ID || list2[0].Refusals != 1 {
		t.Errorf("when the failed one is due again: %+v", list2)
	}
	f.done(t, list2)
	f.pass(48 * time.Hour)
	if list := f.take(t); len(list) != 0 {
		t.Errorf("when all are sent: %+v", list)
	}

	f.RevokeAll(ctx, tester, a.ID, "")
	f.RemoveAccount(ctx, tester, a.ID)
	if list := f.take(t); len(list) != 1 || list[0].Address != "" {
		t.Errorf("of an account that is gone: %+v", list)
	}
	if err := f.Prune(ctx, f.Now()); err != nil {
		t.Error(err)
	}
}

func testNewUse(t *testing.T, f *fixture) {
	p := f.password(t, f.account(t, "alice@example.test").ID, "p", time.Time{})
	f.done(t, f.take(t)) // that it was made
	use := func(protocol, app, network, operator string) {
		t.Helper()
		f.pass(5 * time.Minute)
		u := authstore.Usage{Password: p.ID, Account: p.Account, Protocol: protocol, App: app, Network: netip.MustParsePrefix(network), Operator: operator,
			First: f.Now(), Last: f.Now(), Count: 1}
		if err := f.Used(t.Context(), []authstore.Usage{u}); err != nil {
			t.Fatal(err)
		}
	}
	events := func() []authstore.Event {
		t.Helper()
		list, err := f.Events(t.Context(), authstore.EventQuery{Account: p.Account, Kinds: []string{authstore.KindNewUse}})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	use("imap", "Thunderbird 128.3", "192.0.2.0/24", "AS64496 Home")
	use("imap", "Thunderbird 128.4", "192.0.2.0/24", "AS64496 Home")
	use("imap", "Thunderbird 128.4", "198.51.100.0/24", "AS64496 Home Networks Ltd")
	use("submission", "", "192.0.2.0/24", "AS64496 Home")
	if list := events(); len(list) != 0 {
		t.Errorf("news of what is known: %+v", list)
	}
	if list, _ := f.Events(t.Context(), authstore.EventQuery{Account: p.Account, Kinds: []string{authstore.KindFirstUse}}); len(list) != 1 {
		t.Errorf("first uses: %+v", list)
	}
	use("imap", "Thunderbird 128.4", "203.0.113.0/24", "AS64497 Elsewhere")
	if early := f.take(t); len(early) != 0 {
		t.Errorf("told before more could gather: %+v", early)
	}
	use("dav", "DAVx5/4.4 (2024) Android/14", "192.0.2.0/24", "AS64496 Home")
	list := events()
	if len(list) != 2 {
		t.Fatalf("of a new operator and a new app: %+v", list)
	}
	for i, want := range []authstore.NewUse{
		{Protocol: "dav", App: "DAVx5/4.4 (2024) Android/14", Network: netip.MustParsePrefix("192.0.2.0/24"), Operator: "AS64496 Home", NewApp: true},
		{Protocol: "imap", App: "Thunderbird 128.4", Network: netip.MustParsePrefix("203.0.113.0/24"), Operator: "AS64497 Elsewhere", NewOperator: true},
	} {
		if got, err := authstore.ParseNewUse(list[i].Detail); err != nil || got != want || list[i].Password != p.ID || list[i].Actor.Name != "gateway" {
			t.Errorf("event %+v: %+v, %v; want %+v", list[i], got, err, want)
		}
	}
	f.pass(5 * time.Minute) // the second one's would be due as well
	notices := f.take(t)
	if len(notices) != 1 || notices[0].ID != list[1].ID {
		t.Errorf("notices %+v; want one, of the first", notices)
	}
	f.done(t, notices)
	sent := 1
	for i := range 60 { // at most five in a day are told, and 50 are written
		use("imap", fmt.Sprintf("App %c%c", 'a'+i/26, 'a'+i%26), "192.0.2.0/24", "AS64496 Home")
		f.pass(3 * time.Minute)
		notices := f.take(t)
		sent += len(notices)
		f.done(t, notices)
	}
	if list := events(); sent != 5 || len(list) != 50 {
		t.Errorf("%d notices and %d events, want 5 and 50", sent, len(list))
	}
	f.pass(25 * time.Hour)
	use("imap", "Mail", "192.0.2.0/24", "AS64496 Home")
	f.pass(2 * time.Minute)
	if notices := f.take(t); len(notices) != 1 {
		t.Errorf("the next day: %+v", notices)
	}
}

func testUsageDays(t *testing.T, f *fixture) {
	ctx := t.Context()
	p := f.password(t, f.account(t, "alice@example.test").ID, "p", time.Time{})
	f.mu.Lock()
	f.now = f.now.UTC().Truncate(24 * time.Hour).Add(time.Hour)
	f.mu.Unlock()
	first := f.Now()
	use := func(app string, count, failures int64) authstore.Usage {
		u := usage(p, app, f.Now(), count)
		u.Failures, u.Operator = failures, "AS64496 Home"
		return u
	}
	write := func(batch ...authstore.Usage) {
		t.Helper()
		if err := f.Used(ctx, batch); err != nil {
			t.Fatal(err)
		}
	}
	write(use("Mail", 2, 0), use("", 0, 1))
	write(use("Mail", 1, 0))
	f.pass(24 * time.Hour)
	write(use("Mail", 4, 0))
	days, err := f.UsageDays(ctx, p.ID, first)
	want := []authstore.UsageDay{
		{Day: first.Add(23 * time.Hour), Protocol: "imap", App: "Mail", Network: netip.MustParsePrefix("192.0.2.0/24"), Count: 4},
		{Day: first.Add(-time.Hour), Protocol: "imap", App: "Mail", Network: netip.MustParsePrefix("192.0.2.0/24"), Count: 3},
		{Day: first.Add(-time.Hour), Protocol: "imap", Network: netip.MustParsePrefix("192.0.2.0/24"), Failures: 1},
	}
	if err != nil || !slices.Equal(days, want) {
		t.Errorf("UsageDays = %+v, %v; want %+v", days, err, want)
	}
	if days, _ := f.UsageDays(ctx, p.ID, f.Now()); !slices.Equal(days, want[:1]) {
		t.Errorf("since today: %+v", days)
	}
	list, err := f.Usage(ctx, p.ID)
	if err != nil || len(list) != 2 || list[0].App != "Mail" || list[0].Count != 7 || list[0].Operator != "AS64496 Home" || list[0].Account != p.Account ||
		!list[0].First.Equal(first) || !list[0].Last.Equal(f.Now()) || list[1].Failures != 1 {
		t.Errorf("Usage = %+v, %v", list, err)
	}
	if got, _ := f.Password(ctx, p.ID); got.Last == nil || got.Last.Operator != "AS64496 Home" {
		t.Errorf("last used %+v", got.Last)
	}

	f.pass(24 * time.Hour)
	var many []authstore.Usage
	for i := range 150 {
		many = append(many, use(fmt.Sprint("App ", i), 2, 1))
	}
	write(many...)
	days, _ = f.UsageDays(ctx, p.ID, f.Now())
	var count, failures int64
	for _, d := range days {
		count, failures = count+d.Count, failures+d.Failures
	}
	if len(days) != 101 || count != 300 || failures != 150 || days[0].Count != 100 || days[0].App != "" || days[0].Network.Bits() != 0 {
		t.Errorf("150 clients are %d rows with %d and %d, the first %+v; want 100 and one for the rest", len(days), count, failures, days[0])
	}
	f.pass(89 * 24 * time.Hour)
	if err := f.Prune(ctx, f.Now()); err != nil {
		t.Fatal(err)
	}
	if days, _ := f.UsageDays(ctx, p.ID, time.Time{}); len(days) != 102 {
		t.Errorf("after 90 days %d rows are left, want those of the last two", len(days))
	}
}

func testEdit(t *testing.T, f *fixture) {
	ctx := t.Context()
	a := f.account(t, "alice@example.test")
	p := f.password(t, a.ID, "Phone", time.Time{})
	before, _ := f.Tail(ctx, "", 0)
	edit := authstore.PasswordEdit{Label: "Old phone", Expires: f.Now().UTC().Add(time.Hour), Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}
	c, err := f.EditPassword(ctx, eve, p.ID, edit)
	if err != nil || c.Sequence != before.Counter+1 || c.Account != a.ID || len(c.Ended) != 0 || c.AllEnded {
		t.Errorf("EditPassword = %+v, %v", c, err)
	}
	got, _ := f.Password(ctx, p.ID)
	if got.Label != edit.Label || !got.Expires.Equal(edit.Expires) || !slices.Equal(got.Networks, edit.Networks) {
		t.Errorf("after it: %+v", got)
	}
	if s, _ := f.Load(ctx, "alice@example.test"); !s.Active[0].Expires.Equal(edit.Expires) || !slices.Equal(s.Active[0].Networks, edit.Networks) {
		t.Errorf("the snapshot: %+v", s)
	}
	events, _ := f.Events(ctx, authstore.EventQuery{Account: a.ID, Kinds: []string{"password.edited"}})
	if len(events) != 1 || events[0].Actor != eve || events[0].Password != p.ID {
		t.Fatalf("its event: %+v", events)
	}
	if e, err := authstore.ParseEdited(events[0].Detail); err != nil || e.From.Label != "Phone" || len(e.From.Networks) != 2 || !e.From.Expires.IsZero() ||
		e.To.Label != edit.Label || !e.To.Expires.Equal(edit.Expires) || !slices.Equal(e.To.Networks, edit.Networks) {
		t.Errorf("its detail: %+v, %v", e, err)
	}
	if c, err := f.EditPassword(ctx, tester, p.ID, edit); err != nil || c.Sequence != 0 {
		t.Errorf("an edit that changes nothing is a change: %+v, %v", c, err)
	}
	f.pass(2 * time.Hour)
	for what, id := range map[string]authstore.PasswordID{"an expired one": p.ID, "none": 99} {
		if _, err := f.EditPassword(ctx, tester, id, edit); !errors.Is(err, authstore.ErrNotActive) {
			t.Errorf("edit of %s: %v", what, err)
		}
	}
}

// A form that is sent many times at once makes one app password, also where there is room for one only.
// testCollections: what an app password is narrowed to comes back with it, everywhere, with all its scopes.
func testCollections(t *testing.T, f *fixture) {
	ctx := t.Context()
	a := f.account(t, "alice@example.test")
	plain := f.password(t, a.ID, "plain", time.Time{})
	p := newPassword(a.ID, "narrow", time.Time{})
	p.Scopes |= authstore.ScopeCalendarRead | authstore.ScopeContacts
	p.Collections = []authstore.Collection{{Kind: authstore.CalendarCollection, Name: "Zu Hause, im Büro"}, {Kind: authstore.ContactsCollection, Name: authstore.EveryCollection}}
	p.Titles = authstore.Titles{p.Collections[0]: "Büro & Zuhause: \"meins\""}
	made, _, err := f.CreatePassword(ctx, eve, p)
	if err != nil || !slices.Equal(made.Collections, p.Collections) || !maps.Equal(made.Titles, p.Titles) || made.Scopes != p.Scopes {
		t.Fatalf("made %+v, %v", made, err)
	}
	if len(plain.Collections) != 0 || plain.Scopes != authstore.ScopeMail {
		t.Errorf("one that is not narrowed: %+v", plain)
	}
	s, err := f.Load(ctx, "alice@example.test")
	if err != nil || len(s.Active) != 2 {
		t.Fatalf("Load = %+v, %v", s, err)
	}
	for _, v := range s.Active {
		if v.ID == made.ID && (!slices.Equal(v.Collections, p.Collections) || v.Scopes != p.Scopes) || v.ID == plain.ID && len(v.Collections) != 0 {
			t.Errorf("in the snapshot: %+v", v)
		}
	}
	for _, list := range [2]func() ([]authstore.AppPassword, error){
		func() ([]authstore.AppPassword, error) { return f.Passwords(ctx, a.ID, false) },
		func() ([]authstore.AppPassword, error) { return f.Passwords(ctx, a.ID, true) },
	} {
		if got, err := list(); err != nil || len(got) != 2 || !slices.Equal(got[1].Collections, p.Collections) || !maps.Equal(got[1].Titles, p.Titles) || got[0].Titles != nil || got[1].Scopes != p.Scopes {
			t.Errorf("listed: %+v, %v", got, err)
		}
	}
	if events, err := f.Events(ctx, authstore.EventQuery{Account: a.ID, Password: made.ID}); err != nil || len(events) != 1 ||
		events[0].Detail != "narrow (only calendar/Zu Hause, im Büro, contacts/*)" {
		t.Errorf("history: %+v, %v", events, err)
	}
	list := f.take(t)
	if n := list[len(list)-1]; n.Password != made.ID || n.Scopes != p.Scopes || !slices.Equal(n.Collections, p.Collections) || !maps.Equal(n.Titles, p.Titles) {
		t.Errorf("the notice = %+v", n)
	}
}

func testRequest(t *testing.T, f *fixture) {
	a, b := f.account(t, "alice@example.test"), f.account(t, "bob@example.test")
	for i := range authstore.MaxActive - 1 {
		f.password(t, a.ID, fmt.Sprint(i), time.Time{})
	}
	ask := func(id authstore.AccountID, request string) (authstore.AppPassword, error) {
		n := newPassword(id, "Phone", time.Time{})
		n.Request = request
		p, _, err := f.CreatePassword(context.Background(), tester, n)
		return p, err
	}
	var mu sync.Mutex
	var made, told []authstore.PasswordID
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			p, err := ask(a.ID, "form 1")
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made = append(made, p.ID)
			} else if again, ok := errors.AsType[*authstore.ErrMade](err); ok {
				told = append(told, again.Password)
			} else {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(made) != 1 || len(told) != 19 || slices.ContainsFunc(told, func(id authstore.PasswordID) bool { return id != made[0] }) {
		t.Errorf("made %v, told %v; want one, and 19 times which", made, told)
	}
	if _, err := f.Revoke(t.Context(), tester, made[0], ""); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(a.ID, "form 1"); err == nil {
		t.Error("the form works once more when what it made is revoked")
	}
	if _, err := ask(b.ID, "form 1"); err != nil {
		t.Errorf("another account's form of that name: %v", err)
	}
	for range 2 {
		if _, err := ask(b.ID, ""); err != nil {
			t.Errorf("without a form: %v", err)
		}
	}
}

func testEvents(t *testing.T, f *fixture) {
	ctx := t.Context()
	a := f.account(t, "alice@example.test")
	p, q := f.password(t, a.ID, "p", time.Time{}), f.password(t, a.ID, "q", time.Time{})
	f.Revoke(ctx, tester, p.ID, "")
	f.SetStatus(ctx, tester, a.ID, authstore.AccountPaused)
	f.account(t, "bob@example.test")
	all, err := f.Events(ctx, authstore.EventQuery{Account: a.ID})
	if err != nil || len(all) != 5 {
		t.Fatalf("all = %+v, %v", all, err)
	}
	for want, query := range map[string]authstore.EventQuery{
		"[account.suspended password.revoked password.created password.created account.added]": {},
		"[account.suspended password.revoked]":                                                 {Limit: 2},
		"[password.created account.added]":                                                     {Before: all[2].ID},
		"[password.revoked password.created]":                                                  {Password: p.ID},
		"[password.created]":                                                                   {Password: q.ID},
		"[password.revoked password.created password.created]":                                 {Kinds: []string{"password."}},
		"[account.suspended password.created password.created]":                                {Kinds: []string{"password.created", "account.s.", "account.suspended"}},
		"[]": {Kinds: []string{"pass", "%"}},
	} {
		query.Account = a.ID
		if got, err := f.Events(ctx, query); err != nil || kinds(got, func(e authstore.Event) string { return e.Kind }) != want {
			t.Errorf("Events(%+v) = %+v, %v; want %s", query, got, err, want)
		}
	}
}
