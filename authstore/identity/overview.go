package identity

import (
	"context"
	"strconv"

	"postern/authstore"
)

// Overview is what an administrator sees of how an account signs in.
type Overview struct {
	Admin    bool // an administrator, by the account or by a group
	Primary  bool // a primary password is known: one that was set here, or the last that the Checker took
	Factors  Factors
	Ties     []Tie     // what binds it to people at other servers
	Sessions []Session // that are signed in, the latest first
}

// Overview tells how an account signs in; authstore.ErrNotFound.
func (p *People) Overview(ctx context.Context, id authstore.AccountID) (Overview, error) {
	person, err := p.o.Truth.Person(ctx, id)
	if err != nil {
		return Overview{}, err
	}
	o := Overview{Admin: p.Administers(person), Primary: person.Primary.Key != 0, Factors: factorsOf(person), Ties: person.Ties}
	o.Sessions, err = p.signedIn(ctx, id)
	return o, err
}

// SignOutAll ends all sessions of an account in an administrator's name, and counts those that were signed in; authstore.ErrNotFound.
func (p *People) SignOutAll(ctx context.Context, who authstore.Actor, id authstore.AccountID) (n int, err error) {
	_, err = p.o.Truth.Act(ctx, who, id, func(tx Tx) error {
		if n, err = tx.EndSessions(ctx, 0); err != nil || n == 0 {
			return err
		}
		return tx.Event(ctx, "portal.sessions_ended", strconv.Itoa(n))
	})
	return n, err
}
