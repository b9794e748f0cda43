package directory

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/authstore/secret"
	"postern/authstore/sqlstore"
	"postern/internal/testlab"
)

// place is a Postern without front doors, whose accounts are bound to people of a directory.
type place struct {
	*Looker
	t      *testing.T
	store  *sqlstore.Store
	people *identity.People

	mu  sync.Mutex // guards now
	now time.Time
}

func newPlace(t *testing.T, d *Directory) *place {
	t.Helper()
	p := &place{t: t, now: time.Now().Truncate(time.Second)}
	clock := func() time.Time {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.now
	}
	var err error
	if p.store, err = sqlstore.Open(t.Context(), sqlstore.Options{Path: filepath.Join(memory(t), "p.db"), Now: clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.store.Close() })
	accounts, err := authstore.NewAccounts(t.Context(), authstore.AccountsOptions{Truth: p.store, Keys: secret.NewKeyring(), Enforced: authstore.ScopeMail,
		Actor: authstore.Actor{Name: "cli:test"}, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	if p.people, err = identity.New(identity.Options{Truth: p.store, Accounts: accounts, Keys: accounts.Keyring, Site: "https://pw.example.test", Checker: d, Now: clock}); err != nil {
		t.Fatal(err)
	}
	p.Looker = &Looker{Directory: d, Truth: p.store, Accounts: accounts, Heed: p.people.Heed, Owner: "a", Log: slog.New(slog.DiscardHandler), Now: clock}
	return p
}

// memory is a folder in memory where there is one: thousands of commits would wait for the disk.
func memory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "postern-look-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (p *place) pass(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = p.now.Add(d)
}

// account makes an account with an app password that is bound to whom the directory knows by its address.
func (p *place) account(address string) authstore.Account {
	p.t.Helper()
	a, err := p.Accounts.Add(p.t.Context(), address)
	if err != nil {
		p.t.Fatal(err)
	}
	found, err := p.Directory.find(p.t.Context(), address)
	if err != nil {
		p.t.Fatal(err)
	}
	p.bind(a.ID, found, address)
	if _, made, err := p.Accounts.CreatePassword(p.t.Context(), authstore.PasswordRequest{Account: a.ID, Label: "app", Scopes: authstore.ScopeMail}); err != nil {
		p.t.Fatal(err)
	} else {
		made.Clear()
	}
	return a
}

// bind binds an account to a person, and keeps what the directory says of him.
func (p *place) bind(id authstore.AccountID, of *person, address string) {
	p.t.Helper()
	_, err := identity.Bind(p.t.Context(), p.store, actor, id, Issuer, of.subject)
	if err == nil {
		_, err = p.Heed(p.t.Context(), actor, id, of.claims(address))
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) look(o LookOptions) *Report {
	p.t.Helper()
	r, err := p.Look(p.t.Context(), o)
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

// is compares accounts: "active 1" has one active app password.
func (p *place) is(what string, want map[string]string) {
	p.t.Helper()
	for address, state := range want {
		a, err := p.Accounts.Get(p.t.Context(), address)
		if got := fmt.Sprintf("%s %d", a.Status, a.Passwords); err != nil || got != state {
			p.t.Errorf("%s: %s is %s, want %s (%v)", what, address, got, state, err)
		}
	}
}

// history lists the kinds of an account's events that a look can make, with their details, oldest first.
func (p *place) history(id authstore.AccountID) (kinds []string) {
	p.t.Helper()
	events, err := p.Accounts.Events(p.t.Context(), authstore.EventQuery{Account: id, Kinds: []string{"account.gone", "account.returned", "account.s", "primary.changed", "password.revoked."}})
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range slices.Backward(events) {
		kinds = append(kinds, strings.TrimSpace(e.Kind+" "+e.Detail))
	}
	return kinds
}

func TestLook(t *testing.T) {
	t.Parallel()
	s := testlab.Slapd(t, 0)
	d := directory(t, options(s))
	p := newPlace(t, d)
	a, b, carol := p.account(alice), p.account(bob), testlab.Carol
	c := p.account(carol)
	locked := testlab.PersonDN("bob")
	for _, step := range []struct {
		what string
		do   func()
		want map[string]string
		sum  Report
	}{
		{"at first", func() {}, map[string]string{alice: "active 1", bob: "active 1"}, Report{Accounts: 3, Present: 3}},
		{"disabled", func() { s.Set(locked, "pwdAccountLockedTime", "000001010000Z") }, map[string]string{alice: "active 1", bob: "gone 1"}, Report{Accounts: 3, Present: 2, Lost: 1}},
		{"still", func() {}, map[string]string{bob: "gone 1"}, Report{Accounts: 3, Present: 2}},
		{"locked by wrong passwords", func() { s.Set(testlab.PersonDN("carol"), "pwdAccountLockedTime", "20261126000000Z") }, map[string]string{carol: "active 1"}, Report{Accounts: 3, Present: 2}},
		{"back", func() { s.Set(locked, "pwdAccountLockedTime") }, map[string]string{bob: "active 1"}, Report{Accounts: 3, Present: 3, Back: 1}},
		{"suspended by an administrator", func() { p.Accounts.Suspend(t.Context(), a.ID) }, map[string]string{alice: "suspended 1"}, Report{Accounts: 3, Present: 3}},
		{"and gone", func() { s.Delete(testlab.PersonDN("alice")) }, map[string]string{alice: "suspended 1"}, Report{Accounts: 3, Present: 2}},
		{"changed", func() { s.Set(testlab.PersonDN("carol"), "userPassword", "new password") }, map[string]string{carol: "active 0", bob: "active 1"}, Report{Accounts: 3, Present: 2, Changed: 1}},
		{"not again", func() {}, map[string]string{carol: "active 0"}, Report{Accounts: 3, Present: 2}},
		{"renamed", func() {
			s.Rename(testlab.PersonDN("bob"), "uid=robert")
			s.Set(testlab.PersonDN("robert"), "mail", "robert@example.test")
		},
			map[string]string{bob: "active 1"}, Report{Accounts: 3, Present: 2}},
		{"whose address somebody else has now", func() { s.AddPerson("bob", "second", bob) }, map[string]string{bob: "gone 1"}, Report{Accounts: 3, Present: 1, Lost: 1, Reused: 1}},
		{"no more", func() { s.Delete(testlab.PersonDN("bob")) }, map[string]string{bob: "active 1"}, Report{Accounts: 3, Present: 2, Back: 1}},
	} {
		step.do()
		r := p.look(LookOptions{})
		got := Report{Accounts: r.Accounts, Present: r.Present, Lost: r.Lost, Back: r.Back, Changed: r.Changed, Reused: r.Reused, Problem: r.Problem}
		if fmt.Sprint(got) != fmt.Sprint(step.sum) {
			t.Errorf("%s: %+v", step.what, r)
		}
		p.is(step.what, step.want)
		if kept, err := p.Last(t.Context()); err != nil || kept.Present != r.Present || !kept.Good.Equal(r.At) {
			t.Errorf("%s: kept %+v, %v", step.what, kept, err)
		}
	}
	events, err := p.Accounts.Events(t.Context(), authstore.EventQuery{Account: b.ID, Kinds: []string{"account.gone"}})
	if err != nil || len(events) != 2 || events[0].Actor != actor {
		t.Errorf("events %+v, %v", events, err)
	}
	for id, want := range map[authstore.AccountID][]string{
		b.ID: {"account.gone disabled", "account.returned", "account.gone reused", "account.returned"}, c.ID: {"primary.changed 1"},
	} {
		if got := p.history(id); !slices.Equal(got, want) {
			t.Errorf("history of %d: %q, want %q", id, got, want)
		}
	}
}

// An entry that has somebody's address and does not show whose it is proves nothing.
func TestAnAddressAtAnEntryWithoutASubject(t *testing.T) {
	t.Parallel()
	s := testlab.Slapd(t, 0)
	o := options(s)
	o.Subject = "employeeNumber"
	s.Set(testlab.PersonDN("alice"), o.Subject, "1")
	p := newPlace(t, directory(t, o))
	p.account(alice)
	s.Set(testlab.PersonDN("alice"), "mail", "new@example.test")
	s.AddPerson("second", "second", alice)
	p.Directory.o.Filter = "(&(objectClass=person)(mail={address}))"
	if r := p.look(LookOptions{}); r.Problem != "" || r.Lost != 0 || len(r.Renamed) != 1 {
		t.Errorf("%+v", r)
	}
	p.is("without", map[string]string{alice: "active 1"})
	s.Set(testlab.PersonDN("second"), o.Subject, "2")
	p.look(LookOptions{})
	p.is("with one", map[string]string{alice: "gone 1"})
}

// unsteady is a store in which something happens once all accounts were gone over.
type unsteady struct {
	Truth
	over func()
}

func (u *unsteady) Tied(ctx context.Context, issuer string, after authstore.AccountID, limit int) ([]identity.Tied, error) {
	list, err := u.Truth.Tied(ctx, issuer, after, limit)
	if len(list) == 0 && u.over != nil {
		u.over()
		u.over = nil
	}
	return list, err
}

// Who was bound otherwise while a look went on is not taken for whom it found gone.
func TestBoundOtherwiseDuringALook(t *testing.T) {
	t.Parallel()
	s := testlab.Slapd(t, 0)
	p := newPlace(t, directory(t, options(s)))
	a, b := p.account(alice), p.account(bob)
	found, err := p.Directory.find(t.Context(), testlab.Carol)
	if err != nil {
		t.Fatal(err)
	}
	untie := func(id authstore.AccountID) {
		if _, err := identity.Unbind(t.Context(), p.store, actor, id, Issuer); err != nil {
			t.Error(err)
		}
	}
	u := &unsteady{Truth: p.store, over: func() {
		untie(a.ID)
		untie(b.ID)
		p.bind(a.ID, found, testlab.Carol)
	}}
	p.Looker.Truth = u
	s.Delete(testlab.PersonDN("alice"))
	s.Delete(testlab.PersonDN("bob"))
	if r := p.look(LookOptions{Accept: true}); r.Lost != 2 || u.over != nil {
		t.Errorf("%+v", r)
	}
	p.is("bound otherwise", map[string]string{alice: "active 1", bob: "active 1"})
}

// A directory that takes a connection and says nothing costs a look one question's time, not all that a look may take.
func TestLookAtASilentDirectory(t *testing.T) {
	t.Parallel()
	s := testlab.Slapd(t, 0)
	for name, o := range map[string]Options{"TLS": options(s), "STARTTLS": withStartTLS(s)} {
		silent := answering(t, func(nc net.Conn) { io.Copy(io.Discard, nc) })
		r := *o.Route
		r.Address, o.Time = silent, 50*time.Millisecond
		o.Route = &r
		p := newPlace(t, directory(t, o))
		if r := p.look(LookOptions{}); r.Problem == "" {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// Groups that the directory tells reach the sessions of their members.
func TestLookTellsGroups(t *testing.T) {
	t.Parallel()
	s := testlab.Slapd(t, 0)
	for name, change := range map[string]func(*Options){"memberOf": func(*Options) {}, "by members": func(o *Options) { o.Groups, o.GroupsAt = "", testlab.SlapdGroups }} {
		o := options(s)
		change(&o)
		p := newPlace(t, directory(t, o))
		p.account(alice)
		group := "cn=extra-" + strings.ReplaceAll(name, " ", "") + "," + testlab.SlapdGroups
		s.Add(group, map[string][]string{"objectClass": {"groupOfNames"}, "member": {testlab.PersonDN("alice")}})
		p.look(LookOptions{})
		of, err := p.store.PersonNamed(t.Context(), alice)
		if err != nil || !slices.Contains(of.Ties[0].Groups, group) {
			t.Errorf("%s: groups %v, %v", name, of.Ties, err)
		}
		s.Delete(group)
		p.look(LookOptions{})
		if of, _ = p.store.PersonNamed(t.Context(), alice); slices.Contains(of.Ties[0].Groups, group) || len(of.Ties[0].Groups) != 2 {
			t.Errorf("%s: groups %q afterwards", name, of.Ties[0].Groups)
		}
	}
}

// Three thousand people, with what servers do to large answers. Many losses at once change nothing until somebody says that they are so.
func TestLookAtMany(t *testing.T) {
	t.Parallel()
	const many = 3000
	s := testlab.Slapd(t, many, testlab.SlapdLines{Global: "sizelimit 500"})
	p := newPlace(t, directory(t, options(s)))
	p.fill(many)
	if r := p.look(LookOptions{}); r.Problem != "" || r.Accounts != many || r.Present != many {
		t.Fatalf("%+v", r)
	}
	for i := range many/10 + 1 {
		s.Delete(testlab.PersonDN(fmt.Sprintf("u%d", i)))
	}
	gone := func() (n int) {
		accounts, err := p.Accounts.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range accounts {
			if a.Status == authstore.AccountGone {
				n++
			}
		}
		return n
	}
	for _, o := range []LookOptions{{}, {}, {DryRun: true}} {
		if r := p.look(o); !r.Held || r.Lost != many/10+1 || len(r.Named) != maxNamed || gone() != 0 {
			t.Errorf("%+v: %+v; %d are gone", o, r, gone())
		}
	}
	if r := p.look(LookOptions{DryRun: true, Accept: true}); r.Held || r.Lost != many/10+1 || gone() != 0 {
		t.Errorf("dry: %+v; %d are gone", r, gone())
	}
	if r, err := p.Last(t.Context()); err != nil || !r.Held {
		t.Errorf("kept %+v, %v", r, err)
	}
	if r := p.look(LookOptions{Accept: true}); r.Held || gone() != many/10+1 {
		t.Errorf("accepted: %+v; %d are gone", r, gone())
	}
	if r := p.look(LookOptions{}); r.Problem != "" || r.Lost != 0 || r.Expected != many-many/10-1 {
		t.Errorf("afterwards: %+v", r)
	}
}

// fill makes accounts that are bound to the lab's further people.
func (p *place) fill(n int) {
	p.t.Helper()
	link, err := p.Directory.open(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	defer link.close()
	for i := range n {
		address := fmt.Sprintf("u%d@example.test", i)
		found, err := p.Directory.one(p.t.Context(), link, p.Directory.enabled(fill(p.Directory.o.Filter, address)))
		if err != nil {
			p.t.Fatal(err)
		}
		a, _, err := p.store.AddAccount(p.t.Context(), actor, address, fmt.Sprintf("public%d", i))
		if err != nil {
			p.t.Fatal(err)
		}
		p.bind(a.ID, found, address)
	}
}

// A tenth may go at once, and then no more within the hour; a single person may always.
func TestLossesThatAreBelieved(t *testing.T) {
	t.Parallel()
	s := testlab.Slapd(t, 30)
	p := newPlace(t, directory(t, options(s)))
	p.fill(30)
	p.look(LookOptions{})
	next := 0
	for i, step := range []struct {
		lose int
		wait time.Duration
		held bool
	}{{3, 0, false}, {2, 0, true}, {0, 2 * time.Hour, false}, {1, 0, false}, {1, 0, false}, {1, 0, false}, {3, 2 * time.Hour, true}} {
		for range step.lose {
			s.Delete(testlab.PersonDN(fmt.Sprintf("u%d", next)))
			next++
		}
		p.pass(step.wait + time.Minute)
		if r := p.look(LookOptions{}); r.Held != step.held {
			t.Errorf("step %d: %+v", i, r)
		}
	}
	// a directory into which all passwords were loaded anew
	p.look(LookOptions{Accept: true})
	for i := next; i < 30; i++ {
		s.Set(testlab.PersonDN(fmt.Sprintf("u%d", i)), "pwdChangedTime", "20260101000000Z")
	}
	if r := p.look(LookOptions{}); !r.Held || r.Changed != 30-next {
		t.Errorf("all changed: %+v", r)
	}
	if r := p.look(LookOptions{Accept: true}); r.Held || r.Changed != 30-next {
		t.Errorf("accepted: %+v", r)
	}
	if r := p.look(LookOptions{}); r.Problem != "" || r.Changed != 0 {
		t.Errorf("afterwards: %+v", r)
	}
}

// Who was added since losses are added up counts among those that were there.
func TestLossesAfterAnImport(t *testing.T) {
	t.Parallel()
	s := testlab.Slapd(t, 30)
	p := newPlace(t, directory(t, options(s)))
	p.look(LookOptions{})
	p.fill(30)
	p.look(LookOptions{})
	s.Delete(testlab.PersonDN("u0"))
	s.Delete(testlab.PersonDN("u1"))
	if r := p.look(LookOptions{}); r.Held || r.Lost != 2 {
		t.Errorf("2 of 30: %+v", r)
	}
	s.Delete(testlab.PersonDN("u2"))
	s.Delete(testlab.PersonDN("u3"))
	if r := p.look(LookOptions{}); !r.Held || !strings.HasPrefix(r.Problem, "4 of 30 people are suddenly gone") {
		t.Errorf("4 of 30: %+v", r)
	}
}

// Of two nodes one looks at a time, and who was lost is told once.
func TestTwoNodesLook(t *testing.T) {
	t.Parallel()
	s := testlab.Slapd(t, 0)
	p := newPlace(t, directory(t, options(s)))
	a := p.account(alice)
	s.Delete(testlab.PersonDN("alice"))
	var nodes sync.WaitGroup
	var mu sync.Mutex
	looked := 0
	for i := range 4 {
		nodes.Go(func() {
			k := *p.Looker
			k.Owner = fmt.Sprint("node", i)
			for range 5 {
				_, err := k.Look(t.Context(), LookOptions{})
				mu.Lock()
				switch err {
				case nil:
					looked++
				case ErrBusy:
				default:
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	nodes.Wait()
	if got := p.history(a.ID); looked == 0 || !slices.Equal(got, []string{"account.gone gone"}) {
		t.Errorf("looked %d times; history %q", looked, got)
	}
	ok, err := p.store.Lease(t.Context(), leaseName, "somebody else", p.Now().Add(time.Minute))
	if err != nil || !ok {
		t.Fatal(err)
	}
	if _, err := p.Look(t.Context(), LookOptions{}); err != ErrBusy {
		t.Errorf("while another looks: %v", err)
	}
	if r := p.look(LookOptions{DryRun: true}); r.Accounts != 1 {
		t.Errorf("dry, meanwhile: %+v", r)
	}
}

// The sign-in tells at once what a look would tell, and a look tells nothing twice.
func TestSignInTellsOfAChangedPassword(t *testing.T) {
	t.Parallel()
	s := testlab.Slapd(t, 0)
	p := newPlace(t, directory(t, options(s)))
	a := p.account(alice)
	s.Set(testlab.PersonDN("alice"), "userPassword", "another password")
	if _, _, err := p.people.SignIn(t.Context(), identity.Visitor{}, alice, []byte("another password")); err != nil {
		t.Fatal(err)
	}
	p.is("signed in", map[string]string{alice: "active 0"})
	p.look(LookOptions{})
	if got := p.history(a.ID); !slices.Equal(got, []string{"primary.changed 1"}) {
		t.Errorf("history %q", got)
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	s := testlab.Slapd(t, 0)
	p := newPlace(t, directory(t, options(s)))
	p.account(alice)
	s.Delete(testlab.PersonDN("alice"))
	seen := make(chan string, 10)
	p.Observe = func(outcome string) { seen <- outcome }
	p.Looker.Now = nil
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.Run(ctx, 50*time.Millisecond) }()
	if got := <-seen; got != "good" {
		t.Errorf("outcome %q", got)
	}
	p.is("after a while", map[string]string{alice: "gone 1"})
	s.Kill()
	for got := range seen {
		if got == "failed" {
			break
		}
	}
	cancel()
	<-done
	if r, err := p.Last(t.Context()); err != nil || !strings.Contains(r.Problem, "nobody listens there") || r.Good.IsZero() {
		t.Errorf("kept %+v, %v", r, err)
	}
}
