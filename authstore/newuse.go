package authstore

import (
	"encoding/json"
	"net/netip"
	"strings"
	"time"
)

// Kinds of events that the gateway itself writes when an app password is used.
const (
	KindFirstUse = "password.first_use" // the first use of all
	KindNewUse   = "password.new_use"   // by another app, or from another operator's network, than those before
)

// NewUse is what the detail of such an event holds, as JSON: people are told of it in their own language.
type NewUse struct {
	Protocol string       `json:"protocol"`
	App      string       `json:"app,omitempty"` // as it calls itself
	Network  netip.Prefix `json:"network"`
	Operator string       `json:"operator,omitempty"` // as in Usage
	// NewApp and NewOperator say what was new. Both are false for the first use of all.
	NewApp      bool `json:"new_app,omitempty"`
	NewOperator bool `json:"new_operator,omitempty"`
}

func (n NewUse) String() string {
	text, err := json.Marshal(n)
	if err != nil {
		panic("authstore: " + err.Error()) // strings and prefixes
	}
	return string(text)
}

// ParseNewUse reads the detail of such an event.
func ParseNewUse(detail string) (n NewUse, err error) {
	err = json.Unmarshal([]byte(detail), &n)
	return n, err
}

// namedWithin is how long after its login an app may tell its name, where the login was written down before.
const namedWithin = time.Minute

// JudgeUse says whether an accepted use is news to the owner of the app password, given its accepted uses before; the kind is empty where
// it is not. Addresses change all the time, for phones and for large relays alike: what counts is who operates the network.
func JudgeUse(before []Usage, u Usage) (kind string, n NewUse) {
	n = NewUse{Protocol: u.Protocol, App: u.App, Network: u.Network, Operator: u.Operator}
	if len(before) == 0 {
		return KindFirstUse, n
	}
	if late := before[0]; len(before) == 1 && late.App == "" && late.Protocol == u.Protocol && late.Network == u.Network &&
		u.First.Sub(late.First) < namedWithin {
		return "", n // the first use of all, whose app has told its name only now
	}
	family := appFamily(u.App)
	n.NewApp, n.NewOperator = family != "", u.Operator != ""
	for _, b := range before {
		n.NewApp = n.NewApp && appFamily(b.App) != family
		n.NewOperator = n.NewOperator && !sameOperator(b, u)
	}
	if n.NewApp || n.NewOperator {
		return KindNewUse, n
	}
	return "", n
}

// sameOperator compares by the number, for names change. A use that was written without a database of operators, or by an older version, is
// compared by its network: or the day on which the database is configured would be one of notices to everybody.
func sameOperator(before, now Usage) bool {
	if before.Network == now.Network {
		return true
	}
	a, b := systemNumber(before.Operator), systemNumber(now.Operator)
	if a == "" || b == "" {
		return coarseNetwork(before.Network.Addr()) == coarseNetwork(now.Network.Addr())
	}
	return a == b
}

// KnownOperator is an operator as in Usage, or empty where it is a prefix that stands for one that is not known: it tells people nothing.
func KnownOperator(operator string) string {
	if _, err := netip.ParsePrefix(operator); err == nil {
		return ""
	}
	return operator
}

// systemNumber is the AS number of an operator; empty: it has none.
func systemNumber(operator string) string {
	number, _, _ := strings.Cut(operator, " ")
	if digits, ok := strings.CutPrefix(number, "AS"); !ok || digits == "" || strings.Trim(digits, "0123456789") != "" {
		return ""
	}
	return number
}

// coarseNetwork stands for the operator where no database tells it: an IPv4 /16, an IPv6 /32.
func coarseNetwork(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return around(a, 16, 32).String()
}

// appFamily is what two versions of an app have in common: "Thunderbird 128.3" and "Thunderbird 140.0" are one app, and so are two
// user agents that differ in what stands behind slashes and in parentheses.
func appFamily(app string) string {
	var kept []string
	depth := 0
	fields := strings.FieldsFunc(strings.ToLower(strings.NewReplacer("(", " ( ", ")", " ) ").Replace(app)), func(r rune) bool { return r == ' ' })
	for _, field := range fields {
		switch {
		case field == "(":
			depth++
		case field == ")":
			depth = max(depth-1, 0)
		case depth == 0:
			name, _, _ := strings.Cut(field, "/")
			if version := strings.TrimPrefix(name, "v"); name != "" && (version == "" || version[0] < '0' || version[0] > '9') {
				kept = append(kept, name)
			}
		}
	}
	switch {
	case len(kept) == 0:
		return strings.ToLower(app)
	case len(kept) > 1 && len(app) >= maxApp-utf8Slack && depth == 0: // cut short, and where depends on how long the versions are
		kept = kept[:len(kept)-1]
	}
	return strings.Join(kept, " ")
}

// utf8Slack is how much shorter than maxApp an app's name can be that was cut: a character is not cut in half, nor does a blank stay at the end.
const utf8Slack = 4
