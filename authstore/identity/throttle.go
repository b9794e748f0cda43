package identity

import (
	"context"
	"encoding/binary"
	"time"

	"postern/authstore"
	"postern/authstore/throttle"
)

// limit is a budget of attempts: so many at once, then one each so often. An attempt is charged before it is judged, so that parallel
// guesses can't pass together, and taken back where it was right.
type limit struct {
	name   string
	burst  int
	refill time.Duration
}

// The limits.
var (
	perName     = limit{"sign in", 10, time.Hour / 10}          // per name and unknown device, or per known device
	perNetwork  = limit{"network", 30, time.Minute}             // of primary passwords, per client network
	perCode     = limit{"code", 5, 15 * time.Minute / 5}        // TOTP, per account and known device
	perStranger = limit{"stranger's code", 5, 12 * time.Minute} // TOTP, per account of all other devices: 120 of a million a day, of which three are right
	perRecovery = limit{"recovery code", 5, 24 * time.Hour / 5} // likewise
	perPasskey  = limit{"passkey", 30, 15 * time.Minute / 30}   // likewise, or per client network where nobody is known yet
	// perHalf bounds the sessions that await their factor, likewise. Fewer than maxUnfinished of strangers are alive at any time.
	perHalf = limit{"half signed in", 10, SignInTime / 10}
	// perDialogue and perEnding bound, per client network, what is asked of the server that vouches for people and leads to nothing.
	perDialogue = limit{"dialogue", 30, time.Minute}
	perEnding   = limit{"ending", 60, time.Second}
	perRefusal  = limit{"told refusal", 5, 24 * time.Hour / 5} // lines of history of wrong primary passwords: ten on the first day, five on the next
)

// perChange bounds what somebody who is signed in sends, for each leaves lines in the history for ever.
var perChange = limit{"change", 100, 10 * time.Second}

// perAdministration bounds what an administrator sends about others, likewise. Ending what a large domain has takes many forms.
var perAdministration = limit{"administration", 120, 5 * time.Second}

// MayChange charges a signed-in account for a form that may change something; *TooMany.
func (p *People) MayChange(ctx context.Context, s Session) error {
	return p.take(ctx, p.charge(perChange, number(s.Account)))
}

// purposeBudget separates the buckets' names from other MACs.
const purposeBudget = "portal budget v1"

// charge is one attempt's cost. The bucket's name tells nothing, of names that nobody has either.
func (p *People) charge(l limit, parts ...string) Charge {
	keys := p.o.Keys()
	name, err := keys.MAC(keys.Numbers()[0], purposeBudget, append([]string{l.name}, parts...)...)
	if err != nil {
		panic("identity: " + err.Error()) // the key is the keyring's own
	}
	return Charge{Bucket: name, Cost: l.refill, Burst: time.Duration(l.burst) * l.refill}
}

// take charges; *TooMany.
func (p *People) take(ctx context.Context, charges ...Charge) error {
	wait, err := p.o.Truth.Charge(ctx, charges)
	if err == nil && wait > 0 {
		return &TooMany{Wait: (wait + time.Second - 1).Truncate(time.Second)}
	}
	return err
}

func network(v Visitor) string { return throttle.Source(v.Client).String() }

func number[T ~int64](id T) string { return string(binary.BigEndian.AppendUint64(nil, uint64(id))) }

// signInCharges are those of an attempt with a primary password. A device that is known has a budget of its own: strangers who guess can't
// shut its owner out. device is "" for a stranger's.
func (p *People) signInCharges(v Visitor, name, device string) []Charge {
	return []Charge{p.charge(perName, name, device), p.charge(perNetwork, network(v))}
}

// factorCharges are those of a second factor, for whoever knows the primary password alone can't shut the owner out either.
func (p *People) factorCharges(l limit, v Visitor, id authstore.AccountID) []Charge {
	device := p.knownDevice(v.Device, id)
	if l == perCode && device == "" {
		l = perStranger
	}
	return []Charge{p.charge(l, number(id), device)}
}
