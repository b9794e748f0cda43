package identity

import (
	"context"
	"time"
)

// errandFor is how long a person may stay at the other site.
const errandFor = 15 * time.Minute

// BeginErrand seals what a session must remember while its browser is at another site, from which it comes back with the state that is returned; ErrStepUp
// without a fresh second factor. Kind tells errands apart.
func (p *People) BeginErrand(ctx context.Context, s Session, kind string, data any) (state string, err error) {
	s, err = p.inFresh(ctx, p.o.Truth, s)
	if err != nil {
		return "", err
	}
	return p.sealState(ctx, "errand "+kind, &s, data, errandFor)
}

// EndErrand opens what BeginErrand sealed in the same session, once; ErrWrongCode, ErrNoSession.
func (p *People) EndErrand(ctx context.Context, v Visitor, s Session, kind, state string, data any) error {
	used, err := p.openState("errand "+kind, &s, state, data)
	if err != nil {
		return err
	}
	_, err = p.o.Truth.Act(ctx, v.Actor(), s.Account, func(tx Tx) error {
		if _, err := p.in(ctx, tx, s, SignedIn); err != nil {
			return err
		}
		return used.spend(ctx, tx)
	})
	return err
}
