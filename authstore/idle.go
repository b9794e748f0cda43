package authstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Kinds of events by which people are told beforehand what a policy does, or what they have.
const (
	KindIdle   = "password.idle"   // it is not used, and will end
	KindYearly = "password.yearly" // these are your app passwords
)

// policyActor stands in the history of what policies do.
var policyActor = Actor{Name: "policy"}

// IdlePassword is an active app password of an active account that has not been used for some time.
type IdlePassword struct {
	ID       PasswordID
	Account  AccountID
	Address  string // the account's first name
	Groups   []string
	Since    time.Time // when it was used last, or else made
	Warnings int       // since then
	Warned   time.Time // the last of these; zero: there was none
}

// warnBefore is how long before the end the two warnings are given: two weeks and three days, less for short times.
func warnBefore(idle time.Duration) (first, second time.Duration) {
	return min(14*day, idle/2), min(3*day, idle/4)
}

// idleStep is what is due for an idle app password.
type idleStep int

const (
	leaveIdle idleStep = iota
	warnIdle
	endIdle
)

// next says what is due. Between the first warning, the second and the end passes the time that the policy's people expect, also where the
// policy is newer than the app password's last use.
func (p IdlePassword) next(idle time.Duration, now time.Time) (step idleStep, ends time.Time) {
	first, second := warnBefore(idle)
	ends = p.Since.Add(idle)
	switch p.Warnings {
	case 0:
		if earliest := now.Add(first); ends.Before(earliest) {
			ends = earliest
		}
		if now.Before(p.Since.Add(idle - first)) {
			return leaveIdle, ends
		}
		return warnIdle, ends
	case 1:
		if earliest := now.Add(second); ends.Before(earliest) {
			ends = earliest
		}
		if now.Before(p.Since.Add(idle-second)) || now.Before(p.Warned.Add(first-second)) {
			return leaveIdle, ends
		}
		return warnIdle, ends
	}
	if now.Before(ends) || now.Before(p.Warned.Add(second)) {
		return leaveIdle, ends
	}
	return endIdle, ends
}

// IdleWarning is what the detail of an event KindIdle holds, as JSON.
type IdleWarning struct {
	Ends time.Time `json:"ends"`
}

// ParseIdleWarning reads the detail of such an event.
func ParseIdleWarning(detail string) (w IdleWarning, err error) {
	err = json.Unmarshal([]byte(detail), &w)
	return w, err
}

// YearlyEntry is one app password in the detail of an event KindYearly, which is a JSON list of them.
type YearlyEntry struct {
	ID     PasswordID `json:"id"`
	Label  string     `json:"label"`
	Scopes Scopes     `json:"scopes"`
	Last   time.Time  `json:"last,omitzero"` // zero: never used
}

// ParseYearly reads the detail of such an event.
func ParseYearly(detail string) (list []YearlyEntry, err error) {
	err = json.Unmarshal([]byte(detail), &list)
	return list, err
}

// PolicyWork counts what policies have done.
type PolicyWork struct{ Warned, Ended, Told int }

const (
	// policyBatch is how many rows are read at once.
	policyBatch = 200
	// maxTold bounds the mails of a kind that one call gives to the outbox: those of a policy that is new are as many as there are people, and what
	// somebody has to know at once would wait behind them. The others are the next call's, and have their time from then on.
	maxTold = 300
)

// ApplyPolicies warns of app passwords that are not used, ends those that were warned of twice, and tells people once a year what they have. One
// process at a time does it. It goes on from where it was when it is called again, and stops at the first error.
func (a *Accounts) ApplyPolicies(ctx context.Context) (done PolicyWork, err error) {
	ps := *a.policies.Load()
	shortest := time.Duration(0)
	yearly := false
	for _, r := range ps {
		if r.Idle > 0 && (shortest == 0 || r.Idle < shortest) {
			shortest = r.Idle
		}
		yearly = yearly || r.Yearly
	}
	if shortest > 0 {
		err = a.applyIdle(ctx, ps, shortest, &done)
	}
	if yearly && err == nil {
		err = a.applyYearly(ctx, ps, &done)
	}
	return done, err
}

func (a *Accounts) applyIdle(ctx context.Context, ps Policies, shortest time.Duration, done *PolicyWork) error {
	now := a.o.Now().UTC().Truncate(time.Second)
	first, _ := warnBefore(shortest)
	for after := PasswordID(0); ; {
		list, err := a.o.Truth.Idle(ctx, now.Add(first-shortest), after, policyBatch)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, p := range list {
			after = p.ID
			idle := ps.For(p.Address, p.Groups).Idle
			if idle == 0 {
				continue
			}
			switch step, ends := p.next(idle, now); step {
			case warnIdle:
				if done.Warned == maxTold {
					continue
				}
				detail, err := json.Marshal(IdleWarning{ends})
				if err != nil {
					return err
				}
				if err := a.o.Truth.Tell(ctx, Event{Account: p.Account, Password: p.ID, Kind: KindIdle, Actor: policyActor, Detail: string(detail)}); err != nil {
					return err
				}
				done.Warned++
			case endIdle:
				c, err := a.o.Truth.RevokeIdle(ctx, policyActor, p.ID, p.Since, fmt.Sprintf("not used for %d days", idle/day))
				if errors.Is(err, ErrNotActive) { // used, or ended, meanwhile
					continue
				}
				if _, err = a.confirm(ctx, c, err); err != nil {
					return err
				}
				done.Ended++
			}
		}
	}
}

// yearlyEvery is how often people are told what they have.
const yearlyEvery = 365 * day

func (a *Accounts) applyYearly(ctx context.Context, ps Policies, done *PolicyWork) error {
	since := a.o.Now().Add(-yearlyEvery)
	for after := AccountID(0); ; {
		list, err := a.o.Truth.Unreminded(ctx, since, after, policyBatch)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, of := range list {
			after = of.ID
			if !ps.For(of.Names[0], of.Groups).Yearly {
				continue
			}
			if done.Told == maxTold {
				return nil
			}
			passwords, err := a.o.Truth.Passwords(ctx, of.ID, false)
			if err != nil {
				return err
			}
			var has []YearlyEntry
			for _, p := range passwords {
				e := YearlyEntry{ID: p.ID, Label: p.Label, Scopes: p.Scopes}
				if p.Last != nil {
					e.Last = p.Last.At
				}
				has = append(has, e)
			}
			detail, err := json.Marshal(has)
			if err != nil {
				return err
			}
			if err := a.o.Truth.Tell(ctx, Event{Account: of.ID, Kind: KindYearly, Actor: policyActor, Detail: string(detail)}); err != nil {
				return err
			}
			done.Told++
		}
	}
}
