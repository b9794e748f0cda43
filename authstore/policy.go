package authstore

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Policy bounds the app passwords of some accounts, in what is made and changed from now on. The zero value bounds nothing beyond what holds
// for all.
type Policy struct {
	Longest    time.Duration  // from the making to the expiry; zero: any. Above zero there must be an expiry
	MustExpire bool           // there must be an expiry
	Presets    []string       // an app password opens no more than one of these; empty: any
	Networks   []netip.Prefix // an app password may be used from these at most; empty: from anywhere
	MostActive int            // zero: MaxActive
	Idle       time.Duration  // one that is not used for so long ends, after two warnings; zero: it stays
	Yearly     bool           // people are told once a year which app passwords they have
}

// PolicyRule says whom a policy is for: accounts of one of the domains, and those of one of the groups; with neither, everybody.
type PolicyRule struct {
	Domains []string
	Groups  []string
	Policy
}

// Policies are the rules in their order: of those for an account the first counts. With none nothing is bounded.
type Policies []PolicyRule

// For is the policy of an account, by the name that it was made with and its groups.
func (ps Policies) For(address string, groups []string) Policy {
	_, domain, _ := strings.Cut(address, "@")
	for _, r := range ps {
		if len(r.Domains)+len(r.Groups) == 0 || slices.ContainsFunc(r.Domains, func(d string) bool { return strings.EqualFold(d, domain) }) ||
			slices.ContainsFunc(r.Groups, func(g string) bool { return slices.Contains(groups, g) }) {
			return r.Policy
		}
	}
	return Policy{}
}

// Most is how many app passwords may be active.
func (p Policy) Most() int {
	if p.MostActive == 0 {
		return MaxActive
	}
	return min(p.MostActive, MaxActive)
}

// Opens reports whether an app password may open some scopes.
func (p Policy) Opens(s Scopes) bool {
	return len(p.Presets) == 0 || slices.ContainsFunc(Presets, func(one Preset) bool {
		return slices.Contains(p.Presets, one.Name) && s&^one.Scopes == 0
	})
}

// From reports whether an app password may be used from a network.
func (p Policy) From(n netip.Prefix) bool {
	return len(p.Networks) == 0 || slices.ContainsFunc(p.Networks, func(wide netip.Prefix) bool {
		return wide.Bits() <= n.Bits() && wide.Contains(n.Addr())
	})
}

// Ends reports whether an app password that was made at a time may expire at another; zero: never.
func (p Policy) Ends(made, expires time.Time) bool {
	if expires.IsZero() {
		return !p.MustExpire && p.Longest == 0
	}
	return p.Longest == 0 || expires.Sub(made) <= p.Longest
}

// PolicyError says what a policy does not allow.
type PolicyError struct{ Text string }

func (e *PolicyError) Error() string { return e.Text }

const day = 24 * time.Hour

func (p Policy) checkEnd(made, expires time.Time) error {
	switch {
	case p.Ends(made, expires):
		return nil
	case p.Longest > 0:
		return &PolicyError{fmt.Sprintf("by the policy of this account an app password lives %d days at most, and must expire", p.Longest/day)}
	}
	return &PolicyError{"by the policy of this account an app password must expire"}
}

func (p Policy) checkScopes(s Scopes) error {
	if p.Opens(s) {
		return nil
	}
	return &PolicyError{"by the policy of this account an app password may be for " + strings.Join(p.Presets, ", ") + " only"}
}

// checkFrom is for networks as asked; none are those of the policy.
func (p Policy) checkFrom(asked []netip.Prefix) ([]netip.Prefix, error) {
	if len(asked) == 0 {
		return p.Networks, nil
	}
	for _, n := range asked {
		if !p.From(n) {
			return nil, &PolicyError{fmt.Sprintf("by the policy of this account an app password may be used from %s only, and %s is not in there",
				strings.Trim(fmt.Sprint(p.Networks), "[]"), n)}
		}
	}
	return asked, nil
}

// SetPolicies takes the policies of a configuration that was read again.
func (a *Accounts) SetPolicies(ps Policies) { a.policies.Store(&ps) }

// Policy is what bounds the app passwords of an account; ErrNotFound.
func (a *Accounts) Policy(ctx context.Context, id AccountID) (Policy, error) {
	ps := *a.policies.Load()
	if len(ps) == 0 {
		return Policy{}, nil
	}
	of, err := a.o.Truth.AccountNumbered(ctx, id)
	if err != nil {
		return Policy{}, err
	}
	return ps.For(of.Names[0], of.Groups), nil
}
