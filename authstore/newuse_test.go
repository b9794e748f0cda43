package authstore

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestJudgeUse(t *testing.T) {
	at := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	use := func(app, network, operator string, minutes int) Usage {
		first := at.Add(time.Duration(minutes) * time.Minute)
		return Usage{Protocol: "imap", App: app, Network: netip.MustParsePrefix(network), Operator: operator, First: first, Last: first, Count: 1}
	}
	home := use("Thunderbird 128.3", "192.0.2.0/24", "AS64496 Home", 0)
	for name, tt := range map[string]struct {
		before      []Usage
		use         Usage
		kind        string
		app, places bool
	}{
		"the first of all":                    {nil, home, KindFirstUse, false, false},
		"another version":                     {[]Usage{home}, use("Thunderbird 140", "192.0.2.0/24", "AS64496 Home", 9), "", false, false},
		"another address of the operator":     {[]Usage{home}, use("Thunderbird 128.3", "203.0.113.0/24", "AS64496 Home (renamed)", 9), "", false, false},
		"another operator":                    {[]Usage{home}, use("Thunderbird 128.3", "203.0.113.0/24", "AS64497 Away", 9), KindNewUse, false, true},
		"an operator whose number begins so":  {[]Usage{home}, use("", "203.0.113.0/24", "AS644960 Away", 9), KindNewUse, false, true},
		"another operator in the same /16":    {[]Usage{home}, use("", "192.0.3.0/24", "AS64497 Away", 9), KindNewUse, false, true},
		"another app":                         {[]Usage{home}, use("K-9 Mail 6.8", "192.0.2.0/24", "AS64496 Home", 9), KindNewUse, true, false},
		"both":                                {[]Usage{home}, use("K-9 Mail 6.8", "203.0.113.0/24", "AS64497 Away", 9), KindNewUse, true, true},
		"an app without a name":               {[]Usage{home}, use("", "192.0.2.0/24", "AS64496 Home", 9), "", false, false},
		"the name comes after the login":      {[]Usage{use("", "192.0.2.0/24", "AS64496 Home", 0)}, use("Mail", "192.0.2.0/24", "AS64496 Home", 0), "", false, false},
		"the name comes much later":           {[]Usage{use("", "192.0.2.0/24", "AS64496 Home", 0)}, use("Mail", "192.0.2.0/24", "AS64496 Home", 1), KindNewUse, true, false},
		"the name comes from elsewhere":       {[]Usage{use("", "192.0.2.0/24", "AS64496 Home", 0)}, use("Mail", "192.0.9.0/24", "AS64496 Home", 0), KindNewUse, true, false},
		"an older version wrote the last":     {[]Usage{use("", "192.0.2.0/24", "", 0)}, use("", "192.0.9.0/24", "AS64496 Home", 9), "", false, false},
		"an older version, from elsewhere":    {[]Usage{use("", "192.0.2.0/24", "", 0)}, use("", "198.51.100.0/24", "AS64496 Home", 9), KindNewUse, false, true},
		"there was no database of operators":  {[]Usage{use("", "192.0.2.0/24", "192.0.0.0/16", 0)}, use("", "192.0.9.0/24", "AS64496 Home", 9), "", false, false},
		"no database, same prefix":            {[]Usage{use("", "192.0.2.0/24", "192.0.0.0/16", 0)}, use("", "192.0.9.0/24", "192.0.0.0/16", 9), "", false, false},
		"no database, another prefix":         {[]Usage{use("", "192.0.2.0/24", "192.0.0.0/16", 0)}, use("", "198.51.100.0/24", "198.51.0.0/16", 9), KindNewUse, false, true},
		"no database, IPv6":                   {[]Usage{use("", "2001:db8:1::/48", "2001:db8::/32", 0)}, use("", "2001:db8:2::/48", "2001:db8::/32", 9), "", false, false},
		"an operator that is called ASx":      {[]Usage{use("", "192.0.2.0/24", "ASx", 0)}, use("", "198.51.100.0/24", "ASx", 9), KindNewUse, false, true},
		"a local socket":                      {[]Usage{home}, use("", "0.0.0.0/0", "", 9), "", false, false},
		"known among many, by different rows": {[]Usage{home, use("Mail", "203.0.113.0/24", "AS64497 Away", 1)}, use("Mail", "192.0.2.0/24", "AS64496 Home", 9), "", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			kind, n := JudgeUse(tt.before, tt.use)
			if kind != tt.kind || kind != "" && (n.NewApp != tt.app || n.NewOperator != tt.places) {
				t.Errorf("JudgeUse = %q, %+v; want %q, app %v, operator %v", kind, n, tt.kind, tt.app, tt.places)
			}
		})
	}
}

func TestAppFamily(t *testing.T) {
	for _, same := range [][]string{
		{"Thunderbird 128.3", "Thunderbird 140.0.1esr", "thunderbird", "Thunderbird v2"},
		{"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Thunder", "Mozilla/5.0 (X11; Linux x86_64; rv:99.0) Gecko/20100101 Thunderb"},
		{"DAVx5/4.4.3-ose (2024/10/11; dav4jvm; okhttp/4.12.0) Android/14", "DAVx5/4.5-ose (2025/01/02; dav4jvm; okhttp/5.0.0) Android/15"},
		{"iOS/18.0.1 (22A3370) dataaccessd/1.0", "iOS/18.2 (22C150) dataaccessd/1.0"},
		{"Mac OS X Mail 16.0 (3731.700.6)", "Mac OS X Mail 16.0 (3774"},
		{"2000", "2000"},
	} {
		for _, other := range same[1:] {
			if a, b := appFamily(same[0]), appFamily(other); a != b {
				t.Errorf("%q is %q, and %q is %q", same[0], a, other, b)
			}
		}
	}
	for _, different := range [][2]string{{"iPhone Mail 18", "iPad Mail 18"}, {"K-9 Mail", "Mail"}, {"1", "2"}, {"(a)", "(b)"}} {
		if a := appFamily(different[0]); a == appFamily(different[1]) {
			t.Errorf("%q are both %q", different, a)
		}
	}
	if got := appFamily(""); got != "" {
		t.Errorf("no name is %q", got)
	}
}

func FuzzAppFamily(f *testing.F) {
	f.Add("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Thunder")
	f.Add("((a)) 1 /")
	f.Fuzz(func(t *testing.T, app string) {
		if got := appFamily(app); got == "" && strings.TrimSpace(app) != "" || got != appFamily(strings.ToUpper(strings.ToLower(app))) && isASCII(app) {
			t.Errorf("appFamily(%q) = %q", app, got)
		}
	})
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > 126 }) < 0
}
