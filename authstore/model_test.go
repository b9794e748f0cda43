package authstore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"postern/authstore"
)

// model changes accounts at random and knows what each attempt must give.
type model struct {
	s         *site
	random    *rand.Rand
	accounts  []*modelAccount
	passwords []*modelPassword
}

type modelAccount struct {
	authstore.Account
	names           []string
	suspended, gone bool
}

type modelPassword struct {
	of      *modelAccount
	id      authstore.PasswordID
	typed   []byte
	mail    bool
	here    bool
	revoked bool
}

func newModel(s *site) *model {
	seed := rand.Uint64()
	s.t.Logf("seed %d", seed)
	return &model{s: s, random: rand.New(rand.NewPCG(seed, 0))}
}

// run makes changes, and after each lets all nodes answer for everything.
func (m *model) run(changes int, nodes ...*node) {
	for i := range changes {
		m.change(i)
		fresh := m.s.node(authstore.Options{})
		for _, n := range append(nodes, fresh) {
			m.check(i, n)
		}
		fresh.stop()
		if m.s.t.Failed() {
			return
		}
	}
}

func (m *model) change(i int) {
	ctx, desk := context.Background(), m.s.desk
	if len(m.accounts) == 0 || m.random.IntN(8) == 0 {
		name := fmt.Sprintf("user%d@example.test", i)
		m.accounts = append(m.accounts, &modelAccount{Account: m.s.account(name), names: []string{name}})
		return
	}
	a := m.accounts[m.random.IntN(len(m.accounts))]
	if a.gone {
		return
	}
	switch m.random.IntN(10) {
	case 0:
		m.s.must(desk.Suspend(ctx, a.ID))
		a.suspended = true
	case 1:
		m.s.must(desk.Resume(ctx, a.ID))
		a.suspended = false
	case 2:
		name := fmt.Sprintf("alias%d@example.test", i)
		m.s.must(desk.AddAlias(ctx, a.ID, name))
		a.names = append(a.names, name)
	case 3:
		if len(a.names) > 1 {
			m.s.must(desk.RemoveAlias(ctx, a.ID, a.names[1]))
			a.names = append(a.names[:1:1], a.names[2:]...)
		}
	case 4:
		m.s.must(desk.RevokeAll(ctx, a.ID, ""))
		m.revoke(func(p *modelPassword) bool { return p.of == a })
	case 5, 6:
		if len(m.passwords) > 0 {
			one := m.passwords[m.random.IntN(len(m.passwords))]
			if !one.of.gone {
				m.s.must(desk.Revoke(ctx, one.id, ""))
				one.revoked = true
			}
		}
	case 7:
		if m.random.IntN(3) == 0 {
			m.s.must(desk.Remove(ctx, a.ID))
			a.gone = true
		}
	default:
		m.create(a)
	}
}

func (m *model) create(a *modelAccount) {
	p := &modelPassword{of: a, mail: m.random.IntN(4) > 0, here: m.random.IntN(4) > 0}
	r := authstore.PasswordRequest{Account: a.ID, Scopes: authstore.ScopeCalendar}
	if p.mail {
		r.Scopes = authstore.ScopeMail
	}
	if !p.here {
		r.Networks = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	}
	made, typed := m.s.password(r)
	p.id, p.typed = made.ID, typed
	m.passwords = append(m.passwords, p)
}

func (m *model) revoke(which func(*modelPassword) bool) {
	for _, p := range m.passwords {
		p.revoked = p.revoked || which(p)
	}
}

// want is the rule once more, in the model's terms.
func (m *model) want(a *modelAccount, p *modelPassword) authstore.Code {
	switch {
	case a.gone || p.of != a || p.revoked:
		return authstore.Wrong
	case a.suspended:
		return authstore.Suspended
	case !p.here:
		return authstore.BadNetwork
	case !p.mail:
		return authstore.OutOfScope
	}
	return 0
}

// check tries every app password with every name, from places that have not used up their budget.
func (m *model) check(round int, n *node) {
	m.s.t.Helper()
	for i, a := range m.accounts {
		for _, name := range a.names {
			for _, p := range m.passwords {
				try := attempt(name, p.typed)
				try.Client = netip.AddrFrom4([4]byte{10, byte(m.random.Uint32()), byte(m.random.Uint32()), byte(m.random.Uint32())})
				_, err := n.login(try)
				if got, want := codeOf(err), m.want(a, p); got != want {
					m.s.t.Errorf("%v round %d: account %d as %s with app password %d: %v, want %v", time.Now(), round, i, name, p.id, err, want)
				}
			}
		}
	}
}
