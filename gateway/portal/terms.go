package portal

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"postern/authstore"
)

const day = 24 * time.Hour

// lifetimes are the expiries to choose from, in days.
var lifetimes = []int{30, 90, 365}

// mistakes are what is wrong with a form, by field, in the reader's words.
type mistakes map[string]string

// terms are the fields that making an app password and changing it have in common, as typed.
type terms struct {
	Named  string // the label
	Choice string // of the expiry: "never", "30", "date"; when it is changed, "keep" too
	Until  string // the date, as YYYY-MM-DD
	From   string // networks, one on a line
	Wrong  mistakes

	// what there is to choose
	Keeps    bool      // the expiry may stay as it is
	Ends     time.Time // how it is
	Days     []int
	Must     bool // there must be an expiry
	Longest  int  // days; 0: any
	First    string
	Last     string // the last date; empty: any
	Here     netip.Addr
	HereWide netip.Prefix
	Within   string // the networks that it may be used from at most; empty: any

	policy authstore.Policy
	had    []netip.Prefix // the networks that it has, when it is changed: they may be older than the policy
}

// newTerms are the choices, now, for an app password that begins at a time.
func (v *visit) newTerms(begins, now time.Time) (terms, error) {
	policy, err := v.bounds()
	now = now.In(v.zone)
	t := terms{Wrong: make(mistakes), First: now.Format(time.DateOnly), Here: v.s.o.Client(v.r), Within: networkList(policy.Networks), policy: policy}
	t.HereWide = wide(t.Here)
	for _, n := range lifetimes {
		if policy.Ends(begins, now.Add(time.Duration(n)*day)) {
			t.Days = append(t.Days, n)
		}
	}
	t.Must = !policy.Ends(begins, time.Time{})
	if longest := policy.Longest; longest > 0 {
		t.Longest = int(longest / day)
		t.Last = begins.Add(longest).In(v.zone).Format(time.DateOnly)
	}
	return t, err
}

// wide is the network around an address that a household has.
func wide(a netip.Addr) netip.Prefix {
	bits := 24
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// readTerms reads the fields of a form, and notes what is wrong with them.
func (v *visit) readTerms(t *terms) (networks []netip.Prefix) {
	t.Named, t.Choice, t.Until, t.From = v.field("label"), v.field("expires"), v.field("until"), v.field("networks")
	switch {
	case t.Named == "":
		t.Wrong["label"] = v.text.Say("create.label_missing")
	case utf8.RuneCountInString(t.Named) > authstore.MaxLabel:
		t.Wrong["label"] = v.text.Say("create.label_long", authstore.MaxLabel)
	default:
		if _, err := authstore.CleanLabel(t.Named); err != nil {
			t.Wrong["label"] = v.text.Say("create.label_signs")
		}
	}
	networks, wrong := v.readNetworks(t.From)
	if i := slices.IndexFunc(networks, func(n netip.Prefix) bool { return !t.policy.From(n) }); i >= 0 && !slices.Equal(networks, t.had) {
		wrong = v.text.Say("create.network_outside", networkText(networks[i]), t.Within)
	}
	if wrong != "" {
		t.Wrong["networks"] = wrong
	}
	return networks
}

// readExpiry reads when an app password that began at a time is to end, chosen now; zero: never.
func (v *visit) readExpiry(t *terms, begins, now time.Time) time.Time {
	now = now.In(v.zone)
	var end time.Time
	switch n, err := strconv.Atoi(t.Choice); {
	case t.Until != "" && t.Choice != "date": // which of the two was meant can't be known
		t.Wrong["expires"] = v.text.Say("create.date_unchosen")
		return end
	case t.Choice == "never":
	case err == nil && slices.Contains(lifetimes, n):
		end = now.Add(time.Duration(n) * day)
	case t.Choice == "date":
		date, err := time.ParseInLocation(time.DateOnly, t.Until, v.zone)
		if err != nil {
			t.Wrong["expires"] = v.text.Say("create.date_missing")
			return end
		}
		end = date.AddDate(0, 0, 1).Add(-time.Second) // it works on that day
		if last := begins.Add(t.policy.Longest); t.Last == t.Until && end.After(last) {
			end = last
		}
		if !end.After(now) {
			t.Wrong["expires"] = v.text.Say("create.date_past")
			return end
		}
		if end.UTC().Year() > authstore.LastYear { // no browser's date field goes on after that
			t.Wrong["expires"] = v.text.Say("create.date_missing")
			return end
		}
	default:
		t.Wrong["expires"] = v.text.Say("create.expires_missing")
		return end
	}
	switch {
	case t.policy.Ends(begins, end):
	case t.Longest > 0:
		t.Wrong["expires"] = v.text.Say("create.expires_long", t.Longest)
	default:
		t.Wrong["expires"] = v.text.Say("create.expires_must")
	}
	return end
}

// readNetworks reads addresses and networks, one on a line; commas and blanks part them as well.
func (v *visit) readNetworks(typed string) (list []netip.Prefix, wrong string) {
	for _, word := range strings.FieldsFunc(typed, func(r rune) bool { return r == ',' || r == ';' || unicode.IsSpace(r) }) {
		n, err := parseNetwork(word)
		switch {
		case err != nil:
			return nil, v.text.Say("create.network_wrong", short(word))
		case n.Bits() == 0:
			return nil, v.text.Say("create.network_all", short(word))
		}
		if !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	if len(list) > authstore.MaxNetworks {
		return nil, v.text.Say("create.networks_many", authstore.MaxNetworks)
	}
	return list, ""
}

var (
	errZone  = errors.New("an address with a zone is this machine's affair")
	errMixed = errors.New("this is IPv4 and IPv6 at once")
)

// parseNetwork reads an address, or a network by its first address and length, in the form in which clients are compared.
func parseNetwork(s string) (netip.Prefix, error) {
	n, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, err
		}
		if a.Zone() != "" {
			return netip.Prefix{}, errZone
		}
		n = netip.PrefixFrom(a, a.BitLen())
	}
	if n.Addr().Is4In6() {
		if n.Bits() < 96 { // "::ffff:192.0.2.0/24" would be a network that nobody has
			return netip.Prefix{}, errMixed
		}
		n = netip.PrefixFrom(n.Addr().Unmap(), n.Bits()-96)
	}
	return n.Masked(), nil
}

// short cuts what is repeated to the person.
func short(s string) string {
	const most = 50
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}
