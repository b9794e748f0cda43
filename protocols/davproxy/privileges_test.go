package davproxy

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/authstore"
)

// TestPrivileges: what a client is told that it may do is what the rules let it do, and no more than the backend gives.
func TestPrivileges(t *testing.T) {
	given := func(names ...string) (m []name) {
		for _, n := range names {
			space := nsDAV
			if strings.HasPrefix(n, "schedule-") || n == "read-free-busy" {
				space = nsCalDAV
			}
			m = append(m, name{space, n})
		}
		return m
	}
	everything := given("all", "read-acl", "write-acl", "unlock", "share")
	const read = "read read-current-user-privilege-set read-free-busy"
	const write = read + " write write-properties write-content bind unbind"
	at := func(p place, k kind, collection string) target {
		return target{place: p, kind: k, id: "ID", collection: collection}
	}
	for what, tt := range map[string]struct {
		target target
		grant  *authstore.Grant
		given  []name
		want   string
	}{
		"calendar":                  {at(collection, calendar, "work"), grantOf(calW), everything, write},
		"calendar, read":            {at(collection, calendar, "work"), grantOf(calR), everything, read},
		"calendar, no scope":        {at(collection, calendar, "work"), grantOf(cardW), everything, ""},
		"calendar, not named":       {at(collection, calendar, "work"), grantOf(calW, "calendar/other"), everything, ""},
		"calendar, named":           {at(collection, calendar, "work"), grantOf(calW, "calendar/work"), everything, write},
		"event":                     {at(member, calendar, "work"), grantOf(calW), everything, write},
		"others', that may be read": {at(collection, calendar, "work"), grantOf(calW), given("read"), read},
		"others', busy times alone": {at(collection, calendar, "work"), grantOf(calW), given("read-free-busy"), "read-free-busy"},
		"nothing":                   {at(collection, calendar, "work"), grantOf(calW), given(), ""},
		"rights on rights":          {at(collection, calendar, "work"), grantOf(calW), given("write-acl", "share", "unlock"), ""},
		"a part of writing":         {at(collection, contacts, "a"), grantOf(cardW), given("read", "write-content"), read + " write-content"},
		"writing is its parts":      {at(collection, contacts, "a"), grantOf(cardW), given("write"), "write write-properties write-content bind unbind"},
		"home":                      {at(home, calendar, ""), grantOf(calW), everything, read + " bind unbind"},
		"home, read":                {at(home, calendar, ""), grantOf(calR), everything, read},
		"home, narrowed":            {at(home, calendar, ""), grantOf(calW, "calendar/work"), everything, read},
		"home, all named":           {at(home, calendar, ""), grantOf(calW, "calendar/*"), everything, read + " bind unbind"},
		"inbox":                     {at(collection, inbox, ""), grantOf(calW | sched), everything, read + " write-properties unbind schedule-deliver schedule-deliver-invite schedule-deliver-reply schedule-query-freebusy"},
		"inbox, read":               {at(collection, inbox, ""), grantOf(calR | sched), everything, read},
		"inbox, not scheduling":     {at(collection, inbox, ""), grantOf(calW), everything, ""},
		"outbox":                    {at(collection, outbox, ""), grantOf(calW | sched), given("read", "schedule-send"), read + " schedule-send schedule-send-invite schedule-send-reply schedule-send-freebusy"},
		"outbox, read":              {at(collection, outbox, ""), grantOf(calR | sched), given("read", "schedule-send"), read + " schedule-send-freebusy"},
	} {
		told := string(appendGranted(nil, privileges(tt.target, tt.grant), tt.given))
		var names []string
		for _, m := range regexp.MustCompile(`<privilege xmlns="DAV:"><([a-z-]+) xmlns="[^"]+"/></privilege>`).FindAllStringSubmatch(told, -1) {
			names = append(names, m[1])
		}
		if got := strings.Join(names, " "); got != tt.want {
			t.Errorf("%s: %s\nwant %s", what, got, tt.want)
		}
		// Each claim against the rules.
		for claim, method := range map[string]string{"write-content": "PUT", "write-properties": "PROPPATCH", "schedule-send-freebusy": "POST"} {
			target := tt.target
			if claim == "write-content" && target.place == collection {
				target.place, target.member = member, "1"
			}
			if slices.Contains(names, claim) && judge(method, target, tt.grant) != forward {
				t.Errorf("%s: claims %s, and %s is refused", what, claim, method)
			}
		}
		if tt.target.place == home && slices.Contains(names, "bind") && judge("MKCOL", at(collection, tt.target.kind, "new"), tt.grant) != forward {
			t.Errorf("%s: claims bind, and nothing can be made", what)
		}
	}
}

func TestReports(t *testing.T) {
	var all []name
	for _, k := range []kind{calendar, contacts, inbox} {
		for n := range reports[k] {
			all = append(all, n)
			if !slices.ContainsFunc(reportOrder, func(p privilege) bool { return p.name == n }) {
				t.Errorf("%v is not told", n)
			}
		}
	}
	all = append(all, name{nsDAV, "expand-property"}, name{nsDAV, "principal-property-search"}, name{nsDAV, "acl-principal-prop-set"})
	for k, want := range map[kind]int{calendar: 4, contacts: 3, inbox: 3, outbox: 0} {
		got := string(appendReported(nil, target{place: collection, kind: k, collection: "x"}, all))
		if strings.Count(got, "<supported-report ") != want || strings.Contains(got, "principal") || strings.Contains(got, "expand") {
			t.Errorf("%s: %s", k, got)
		}
	}
	if got := append(appendReported(nil, target{place: home, kind: calendar}, all), appendReported(nil, target{place: member, kind: calendar, collection: "x", member: "y"}, all)...); len(got) > 0 {
		t.Errorf("at a home and at a member: %s", got)
	}
	if got := appendReported(nil, target{place: collection, kind: calendar, collection: "x"}, nil); len(got) > 0 {
		t.Errorf("what the backend has not: %s", got)
	}
}
