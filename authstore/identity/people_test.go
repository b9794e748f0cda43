package identity_test

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/authstore/secret"
	"postern/authstore/sqlstore"
)

const (
	site     = "https://passwords.example.test"
	alice    = "alice@example.test"
	good     = "correct horse battery staple"
	better   = "entirely different words, 7 of them"
	aBrowser = "Browser/1"
)

var (
	ctx     = context.Background()
	tester  = authstore.Actor{Name: "test"}
	visitor = identity.Visitor{Client: netip.MustParseAddr("192.0.2.7"), Agent: aBrowser, Language: "de", Zone: "Europe/Berlin"}
)

// place is a portal's people on a real database, with a clock that tests move.
type place struct {
	*identity.People
	t        *testing.T
	store    *sqlstore.Store
	keys     *secret.Keyring
	accounts *authstore.Accounts

	mu  sync.Mutex // guards now
	now time.Time
}

func newPlace(t *testing.T, change func(*identity.Options)) *place {
	t.Helper()
	p := &place{t: t, keys: secret.NewKeyring(), now: time.Now().Truncate(30 * time.Second)}
	var err error
	if p.store, err = sqlstore.Open(ctx, sqlstore.Options{Path: filepath.Join(t.TempDir(), "p.db"), Now: p.clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.store.Close() })
	p.accounts, err = authstore.NewAccounts(ctx, authstore.AccountsOptions{Truth: p.store, Keys: p.keys, Enforced: authstore.ScopeMail, Actor: tester, Now: p.clock})
	if err != nil {
		t.Fatal(err)
	}
	o := identity.Options{Truth: p.store, Accounts: p.accounts, Keys: func() *secret.Keyring { return p.accounts.Keyring() },
		Names: authstore.Names{DefaultDomain: "example.test"}, Site: site, Now: p.clock, RefusalDelay: -1}
	if change != nil {
		change(&o)
	}
	if p.People, err = identity.New(o); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *place) clock() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

func (p *place) pass(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = p.now.Add(d)
}

func (p *place) account(address string) authstore.Account {
	p.t.Helper()
	a, err := p.accounts.Add(ctx, address)
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

// session is a browser.
type session struct {
	identity.Session
	token identity.Token
	seed  string // base32, of the authenticator app
}

func (p *place) code(seed string) string {
	p.t.Helper()
	code, err := totp.GenerateCode(seed, p.clock())
	if err != nil {
		p.t.Fatal(err)
	}
	return code
}

// invited accepts an invitation: the session awaits its set-up.
func (p *place) invited(id authstore.AccountID, purpose identity.Purpose, password string) session {
	p.t.Helper()
	link, _, err := p.Invite(ctx, tester, id, purpose)
	if err != nil {
		p.t.Fatal(err)
	}
	t, s, err := p.Accept(ctx, visitor, link, []byte(password))
	if err != nil {
		p.t.Fatalf("Accept: %v", err)
	}
	return session{Session: s, token: t}
}

// enrol adds an authenticator app.
func (p *place) enrol(s session) session {
	p.t.Helper()
	e, err := p.EnrolTOTP(ctx, s.Session)
	if err != nil {
		p.t.Fatalf("EnrolTOTP: %v", err)
	}
	t, next, err := p.AddTOTP(ctx, visitor, s.Session, e.State, p.code(e.Key), "Phone")
	if err != nil {
		p.t.Fatalf("AddTOTP: %v", err)
	}
	return session{next, t, e.Key}
}

// signedUp is an account with a primary password and an authenticator app, signed in.
func (p *place) signedUp(address string) session {
	p.t.Helper()
	return p.enrol(p.invited(p.account(address).ID, identity.Begin, good))
}

func (p *place) signIn(address, password string) session {
	p.t.Helper()
	t, s, err := p.SignIn(ctx, visitor, address, []byte(password))
	if err != nil {
		p.t.Fatalf("SignIn(%s): %v", address, err)
	}
	return session{Session: s, token: t}
}

// kinds are an account's events, the oldest first.
func (p *place) kinds(id authstore.AccountID) []string {
	p.t.Helper()
	events, err := p.accounts.Events(ctx, authstore.EventQuery{Account: id, Limit: 1000})
	if err != nil {
		p.t.Fatal(err)
	}
	var kinds []string
	for _, e := range slices.Backward(events) {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

func (p *place) count(id authstore.AccountID, kind string) (n int) {
	for _, k := range p.kinds(id) {
		if k == kind {
			n++
		}
	}
	return n
}

func (p *place) password(id authstore.AccountID) authstore.AppPassword {
	p.t.Helper()
	made, _, err := p.accounts.CreatePassword(ctx, authstore.PasswordRequest{Account: id, Label: "Phone", Scopes: authstore.ScopeMail})
	if err != nil {
		p.t.Fatal(err)
	}
	return made
}

func (p *place) active(id authstore.AccountID) int {
	p.t.Helper()
	list, err := p.accounts.Passwords(ctx, id, false)
	if err != nil {
		p.t.Fatal(err)
	}
	return len(list)
}

// want checks that an error is the one that was to come.
func want(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || want == nil && err != nil {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func isTooMany(err error) bool {
	var many *identity.TooMany
	return errors.As(err, &many)
}

// dead checks that a token opens nothing any more.
func (p *place) dead(what string, t identity.Token) {
	p.t.Helper()
	_, err := p.Session(ctx, visitor, t)
	want(p.t, what, err, identity.ErrNoSession)
}

func wrongCode(right string) string {
	if right[0] == '0' {
		return "1" + right[1:]
	}
	return "0" + right[1:]
}
