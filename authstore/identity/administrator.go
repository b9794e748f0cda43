package identity

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"postern/authstore"
)

// ErrAdministrators: at the portal nobody makes anew what an administrator signs in with. Whoever took over one administrator's session for a
// moment could stay for ever as another; only the command line does it.
var ErrAdministrators = errors.New("what an administrator signs in with is made anew at the command line only")

// Administrator is how the history names an administrator who changes others' accounts at the portal. What he does is refused once his
// session has ended, or he is none any more.
func (p *People) Administrator(v Visitor, s Session) authstore.Actor {
	who := v.Actor()
	who.Name, who.Session = "admin:"+s.Address, int64(s.ID)
	who.Administrator = &authstore.Administrator{Account: s.Account, Issuer: p.o.Vouching, Groups: p.o.AdminGroups}
	return who
}

// MayAdminister charges an administrator for a form that may change others' accounts; *TooMany.
func (p *People) MayAdminister(ctx context.Context, s Session) error {
	return p.take(ctx, p.charge(perAdministration, number(s.Account)))
}

// ByInvitation reports whether whoever has no second factor needs a link to set one up.
func (p *People) ByInvitation() bool {
	return !p.o.Vouched && (p.o.InviteOnly || p.KeepsPrimary())
}

// mayRenew refuses an administrator who would make anew what one of them signs in with; ErrAdministrators.
func (p *People) mayRenew(who authstore.Actor, of Person) error {
	if who.Administrator != nil && p.Administers(of) {
		return ErrAdministrators
	}
	return nil
}

// Administers reports whether an account is an administrator's, by its own mark or by a group, whoever told of it: it keeps others from what is
// his, and where somebody signs in may change again.
func (p *People) Administers(of Person) bool {
	return of.Admin || slices.ContainsFunc(of.Ties, func(t Tie) bool {
		return slices.ContainsFunc(t.Groups, func(g string) bool { return slices.Contains(p.o.AdminGroups, g) })
	})
}

// ResetFactors takes away all second factors and recovery codes of an account, a link that is on its way, and ends its sessions. The next
// sign-in sets up anew, or a link does: see ByInvitation. authstore.ErrNotFound, ErrAdministrators.
func (p *People) ResetFactors(ctx context.Context, who authstore.Actor, id authstore.AccountID) error {
	_, err := p.o.Truth.Act(ctx, who, id, func(tx Tx) error {
		of, err := tx.Person(ctx)
		if err != nil {
			return err
		}
		if err := p.mayRenew(who, of); err != nil {
			return err
		}
		if _, err := tx.EndSessions(ctx, 0); err != nil {
			return err
		}
		if err := tx.RemoveInvitation(ctx); err != nil {
			return err
		}
		if err := tx.RemoveFactors(ctx); err != nil {
			return err
		}
		return tx.Event(ctx, "factors.reset", strconv.Itoa(len(of.Factors)))
	})
	return err
}
