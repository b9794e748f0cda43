package davproxy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"postern/authstore"
)

var methods = []string{
	"OPTIONS", "PROPFIND", "REPORT", "GET", "HEAD", "PROPPATCH", "PUT", "DELETE", "COPY", "MOVE", "MKCOL", "MKCALENDAR", "POST",
	"ACL", "BIND", "CONNECT", "LOCK", "PATCH", "QUERY", "SEARCH", "TRACE", "UNLOCK", "VERSION-CONTROL", "propfind", "",
}

// grantOf makes a grant, narrowed to collections such as "calendar/work".
func grantOf(scopes authstore.Scopes, collections ...string) *authstore.Grant {
	g := &authstore.Grant{Scopes: scopes}
	for _, text := range collections {
		c, err := authstore.ParseCollection(text)
		if err != nil {
			panic(err)
		}
		g.Collections = append(g.Collections, c)
	}
	return g
}

const (
	calW, calR, cardW, cardR = authstore.ScopeCalendar, authstore.ScopeCalendarRead, authstore.ScopeContacts, authstore.ScopeContactsRead
	sched                    = authstore.ScopeSchedule
)

// TestRules is the whole table. Each verdict stands as a letter at its method's place; beyond POST all are refused.
func TestRules(t *testing.T) {
	const (
		F = forward
		S = serve
		N = notFound
		X = notAllowed
		P = needPrivileges
		R = refuseProps
		Q = refuseReport
	)
	at := func(p place, k kind, names ...string) target {
		t := target{place: p, kind: k, id: "ID"}
		for i, n := range names {
			*[]*string{&t.collection, &t.member}[i] = n
		}
		return t
	}
	// OPTIONS PROPFIND REPORT GET HEAD PROPPATCH PUT DELETE COPY MOVE MKCOL MKCALENDAR POST
	discovery := []verdict{S, S, Q, X, X, R, X, X, X, X, X, X, X}
	nothing := []verdict{N, N, N, N, N, N, N, N, N, N, N, N, N}
	readHome := []verdict{S, F, Q, X, X, R, X, X, X, X, X, X, X}
	closed := []verdict{N, N, N, N, N, N, N, N, N, N, P, P, N}
	readCalendar := []verdict{S, F, F, X, X, R, X, P, P, P, P, P, X}
	writeCalendar := []verdict{S, F, F, X, X, F, X, F, F, F, F, F, X}
	oneCalendar := []verdict{S, F, F, X, X, F, X, P, P, P, P, P, X}
	readMember := []verdict{S, F, Q, F, F, R, P, P, P, P, X, X, X}
	writeMember := []verdict{S, F, Q, F, F, F, F, F, F, F, X, X, X}
	work, event := at(collection, calendar, "work"), at(member, calendar, "work", "1.ics")
	friends, friend := at(collection, contacts, "friends"), at(member, contacts, "friends", "1.vcf")
	came := target{place: member, kind: inbox, id: "ID", member: "1.ics"}
	for name, tt := range map[string]struct {
		target target
		grant  *authstore.Grant
		want   []verdict
		rest   verdict
	}{
		"nowhere":                     {target{place: nowhere}, grantOf(Scopes), nothing, N},
		"well-known, after the login": {target{place: wellKnown}, grantOf(Scopes), nothing, N},
		"lobby":                       {target{place: lobby}, grantOf(0), discovery, X},
		"principal":                   {target{place: principal}, grantOf(0), discovery, X},
		"home, no scope":              {at(home, calendar), grantOf(cardW), discovery, X},
		"home, schedule alone":        {at(home, calendar), grantOf(sched), discovery, X},
		"home, read":                  {at(home, calendar), grantOf(calR), readHome, X},
		"home, write":                 {at(home, contacts), grantOf(cardW), readHome, X},
		"home, narrowed":              {at(home, calendar), grantOf(calW, "calendar/work"), readHome, X},
		"home, narrowed to others":    {at(home, calendar), grantOf(calW|cardW, "contacts/friends"), discovery, X},
		"calendar, no scope":          {work, grantOf(cardW), closed, N},
		"calendar, schedule alone":    {work, grantOf(sched), closed, N},
		"calendar, read":              {work, grantOf(calR), readCalendar, X},
		"calendar, write":             {work, grantOf(calW), writeCalendar, X},
		"calendar, named":             {work, grantOf(calW, "calendar/work"), oneCalendar, X},
		"calendar, named, read":       {work, grantOf(calR, "calendar/work"), readCalendar, X},
		"calendar, not named":         {work, grantOf(calW, "calendar/other"), closed, N},
		"calendar, a book is named":   {work, grantOf(calW|cardW, "contacts/work"), closed, N},
		"calendar, all named":         {work, grantOf(calW, "calendar/*"), writeCalendar, X},
		"address book, no scope":      {friends, grantOf(calW | sched), []verdict{N, N, N, N, N, N, N, N, N, N, P, X, N}, N},
		"address book, read":          {friends, grantOf(cardR), []verdict{S, F, F, X, X, R, X, P, P, P, P, X, X}, X},
		"address book, write":         {friends, grantOf(cardW), []verdict{S, F, F, X, X, F, X, F, F, F, F, X, X}, X},
		"address book, all named":     {friends, grantOf(cardW|calW, "calendar/work", "contacts/*"), []verdict{S, F, F, X, X, F, X, F, F, F, F, X, X}, X},
		"event, no scope":             {event, grantOf(cardW), nothing, N},
		"event, read":                 {event, grantOf(calR), readMember, X},
		"event, write":                {event, grantOf(calW), writeMember, X},
		"event, named":                {event, grantOf(calW, "calendar/work"), writeMember, X},
		"event, not named":            {event, grantOf(calW, "calendar/Work"), nothing, N},
		"card, write":                 {friend, grantOf(cardW), writeMember, X},
		"card, read":                  {friend, grantOf(cardR), readMember, X},
		"inbox, not scheduling":       {at(collection, inbox), grantOf(calW | cardW), nothing, N},
		"inbox, no calendars":         {at(collection, inbox), grantOf(sched | cardW), nothing, N},
		"inbox, one calendar":         {at(collection, inbox), grantOf(sched|calW, "calendar/work"), nothing, N},
		"inbox, read":                 {at(collection, inbox), grantOf(sched | calR), []verdict{S, F, F, X, X, R, X, X, X, X, X, X, X}, X},
		"inbox, write":                {at(collection, inbox), grantOf(sched | calW), []verdict{S, F, F, X, X, F, X, X, X, X, X, X, X}, X},
		"inbox, all calendars":        {at(collection, inbox), grantOf(sched|calW|cardW, "calendar/*", "contacts/friends"), []verdict{S, F, F, X, X, F, X, X, X, X, X, X, X}, X},
		"invitation, no scope":        {came, grantOf(calW), nothing, N},
		"invitation, read":            {came, grantOf(sched | calR), []verdict{S, F, Q, F, F, X, X, P, X, X, X, X, X}, X},
		"invitation, write":           {came, grantOf(sched | calW), []verdict{S, F, Q, F, F, X, X, F, X, X, X, X, X}, X},
		"outbox, not scheduling":      {at(collection, outbox), grantOf(calW), nothing, N},
		"outbox, read":                {at(collection, outbox), grantOf(sched | calR), []verdict{S, F, Q, X, X, X, X, X, X, X, X, X, F}, X},
		"outbox, write":               {at(collection, outbox), grantOf(sched | calW), []verdict{S, F, Q, X, X, X, X, X, X, X, X, X, F}, X},
	} {
		for i, method := range methods {
			want := tt.rest
			if i < len(tt.want) {
				want = tt.want[i]
			}
			if got := judge(method, tt.target, tt.grant); got != want {
				t.Errorf("%s: judge(%q) = %d, want %d", name, method, got, want)
			}
		}
	}
}

func TestAccess(t *testing.T) {
	for scopes, want := range map[authstore.Scopes][2]access{
		0:                    {noAccess, noAccess},
		authstore.ScopeMail:  {noAccess, noAccess},
		sched:                {noAccess, noAccess},
		calW:                 {writeAccess, noAccess},
		calR:                 {readAccess, noAccess},
		cardW:                {noAccess, writeAccess},
		cardR:                {noAccess, readAccess},
		Scopes:               {writeAccess, writeAccess},
		calR | cardW:         {readAccess, writeAccess},
		calR | cardW | sched: {readAccess, writeAccess},
	} {
		g := grantOf(scopes)
		if got := [2]access{accessTo(calendar, g), accessTo(contacts, g)}; got != want {
			t.Errorf("%s opens %v, want %v", scopes, got, want)
		}
		boxes := noAccess
		if scopes.Any(sched) {
			boxes = want[0]
		}
		if accessTo(inbox, g) != boxes || accessTo(outbox, g) != boxes {
			t.Errorf("%s opens boxes with %d, want %d", scopes, accessTo(inbox, g), boxes)
		}
		if accessTo(unknown, g) != noAccess {
			t.Errorf("%s opens what is no kind", scopes)
		}
	}
}

func TestCompliance(t *testing.T) {
	for name, tt := range map[string]struct {
		grant *authstore.Grant
		boxes boxes
		want  string
	}{
		"all":            {grantOf(calW | cardW), boxes{}, "1, 3, extended-mkcol, calendar-access, addressbook"},
		"invitations":    {grantOf(calW | sched), boxes{automatic: true}, "1, 3, extended-mkcol, calendar-access, calendar-auto-schedule"},
		"contacts":       {grantOf(cardR), boxes{}, "1, 3, extended-mkcol, addressbook"},
		"mail":           {grantOf(authstore.ScopeMail), boxes{}, "1, 3, extended-mkcol"},
		"one of no kind": {grantOf(calW|cardW, "contacts/friends"), boxes{}, "1, 3, extended-mkcol, addressbook"},
	} {
		if got := compliance(tt.grant, tt.boxes); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestAllowed(t *testing.T) {
	for _, tt := range []struct {
		target target
		grant  *authstore.Grant
		want   string
	}{
		{target{place: principal}, grantOf(0), "OPTIONS, PROPFIND"},
		{target{place: home, kind: calendar}, grantOf(calW), "OPTIONS, PROPFIND"},
		{target{place: collection, kind: contacts, collection: "a"}, grantOf(cardW), "OPTIONS, PROPFIND, REPORT, PROPPATCH, DELETE, COPY, MOVE, MKCOL"},
		{target{place: collection, kind: contacts, collection: "a"}, grantOf(cardW, "contacts/a"), "OPTIONS, PROPFIND, REPORT, PROPPATCH"},
		{target{place: member, kind: calendar, collection: "a"}, grantOf(calR), "OPTIONS, GET, HEAD, PROPFIND"},
		{target{place: collection, kind: outbox}, grantOf(calR | sched), "OPTIONS, PROPFIND, POST"},
	} {
		if got := allowed(tt.target, tt.grant); got != tt.want {
			t.Errorf("allowed(%+v, %s) = %q, want %q", tt.target, tt.grant.Scopes, got, tt.want)
		}
	}
}

func TestDepth(t *testing.T) {
	for _, tt := range []struct{ method, asked, want string }{
		{"PROPFIND", "", "1"}, {"PROPFIND", "infinity", "1"}, {"PROPFIND", "Infinity", "1"}, {"PROPFIND", "0", "0"}, {"PROPFIND", "1", "1"},
		{"PROPFIND", "2", "-"}, {"PROPFIND", "1,noroot", "-"},
		{"REPORT", "", "0"}, {"REPORT", "1", "1"}, {"REPORT", "infinity", "1"}, {"REPORT", "x", "-"},
		{"DELETE", "0", "infinity"}, {"MOVE", "", "infinity"}, {"COPY", "0", "infinity"}, {"PUT", "1", ""},
	} {
		got, ok := depthOf(tt.method, tt.asked)
		if !ok {
			got = "-"
		}
		if got != tt.want {
			t.Errorf("depthOf(%s, %q) = %q, want %q", tt.method, tt.asked, got, tt.want)
		}
	}
}

func TestBodies(t *testing.T) {
	const (
		ns       = ` xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav" xmlns:A="urn:ietf:params:xml:ns:carddav"`
		makesCal = "<resourcetype><collection/><C:calendar/></resourcetype>"
		makesAB  = "<resourcetype><collection/><A:addressbook/></resourcetype>"
	)
	ok := answer{}
	for _, tt := range []struct {
		method string
		kind   kind
		body   string
		want   answer
	}{
		{"PROPFIND", calendar, "", ok},
		{"PROPFIND", calendar, "<propfind" + ns + "><allprop/></propfind>", ok},
		{"PROPFIND", calendar, "<propertyupdate" + ns + "/>", badRequest},
		{"PROPFIND", calendar, `<propfind xmlns="dav:"/>`, badRequest},
		{"PROPPATCH", calendar, "", badRequest},
		{"PROPPATCH", calendar, "<propertyupdate" + ns + "><set><prop><displayname/></prop></set></propertyupdate>", ok},
		{"PROPPATCH", calendar, "<propertyupdate" + ns + "><set><prop>" + makesAB + "</prop></set></propertyupdate>", protected},
		{"PROPPATCH", calendar, "<propertyupdate" + ns + "><remove><prop><resourcetype/></prop></remove></propertyupdate>", protected},
		{"MKCOL", calendar, "", badRequest},
		{"MKCOL", calendar, "<mkcol" + ns + "/>", wrongKind},
		{"MKCOL", calendar, "<mkcol" + ns + "><set><prop>" + makesCal + "</prop></set></mkcol>", ok},
		{"MKCOL", contacts, "<mkcol" + ns + "><set><prop>" + makesAB + "</prop></set></mkcol>", ok},
		{"MKCOL", calendar, "<mkcol" + ns + "><set><prop>" + makesAB + "</prop></set></mkcol>", wrongKind},
		{"MKCOL", contacts, "<mkcol" + ns + "><set><prop>" + makesAB + makesCal + "</prop></set></mkcol>", wrongKind},
		{"MKCALENDAR", calendar, "", ok},
		{"MKCALENDAR", calendar, "<C:mkcalendar" + ns + "><set><prop><displayname/></prop></set></C:mkcalendar>", ok},
		{"MKCALENDAR", calendar, "<C:mkcalendar" + ns + "><set><prop>" + makesAB + "</prop></set></C:mkcalendar>", wrongKind},
		{"REPORT", calendar, "", unsupported},
		{"REPORT", calendar, "<C:calendar-query" + ns + "/>", ok},
		{"REPORT", calendar, "<C:free-busy-query" + ns + "/>", ok},
		{"REPORT", calendar, "<sync-collection" + ns + "/>", ok},
		{"REPORT", calendar, "<A:addressbook-query" + ns + "/>", unsupported},
		{"REPORT", calendar, "<A:addressbook-multiget" + ns + "/>", unsupported},
		{"REPORT", calendar, "<expand-property" + ns + "/>", unsupported},
		{"REPORT", calendar, "<principal-property-search" + ns + "/>", unsupported},
		{"REPORT", calendar, "<principal-match" + ns + "/>", unsupported},
		{"REPORT", calendar, "<acl-principal-prop-set" + ns + "/>", unsupported},
		{"MKCALENDAR", calendar, "<C:mkcalendar" + ns + "><set><prop><resourcetype><collection/><C:schedule-inbox/></resourcetype></prop></set></C:mkcalendar>", wrongKind},
		{"MKCOL", calendar, "<mkcol" + ns + "><set><prop><resourcetype><collection/><C:calendar/><C:schedule-outbox/></resourcetype></prop></set></mkcol>", wrongKind},
		{"PROPPATCH", inbox, "<propertyupdate" + ns + "><set><prop><displayname/></prop></set></propertyupdate>", ok},
		{"REPORT", inbox, "<C:calendar-query" + ns + "/>", ok},
		{"REPORT", inbox, "<sync-collection" + ns + "/>", ok},
		{"REPORT", inbox, "<C:free-busy-query" + ns + "/>", unsupported},
		{"REPORT", inbox, "<A:addressbook-query" + ns + "/>", unsupported},
		{"REPORT", outbox, "<C:calendar-query" + ns + "/>", unsupported},
		{"REPORT", contacts, "<A:addressbook-query" + ns + "/>", ok},
		{"REPORT", contacts, "<sync-collection" + ns + "/>", ok},
		{"REPORT", contacts, "<C:calendar-multiget" + ns + "/>", unsupported},
		{"REPORT", contacts, "<C:free-busy-query" + ns + "/>", unsupported},
	} {
		doc, err := parse([]byte(tt.body), func(string) (string, fate) { return "", strayHref })
		if err != nil {
			t.Fatalf("parse(%q): %v", tt.body, err)
		}
		if got := doc.check(tt.method, tt.kind); got != tt.want {
			t.Errorf("%s in %s of %s: %+v, want %+v", tt.method, tt.kind, tt.body, got, tt.want)
		}
	}
}

func TestHrefsInBodies(t *testing.T) {
	inward := func(href string) (string, fate) {
		if rest, ok := strings.CutPrefix(href, "/dav/"); ok {
			return "/alice/" + rest, ownHref
		}
		if hasScheme(href) {
			return "", foreignHref
		}
		return "", strayHref
	}
	in := `<C:calendar-multiget xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><prop><href/></prop>` +
		`<href> /dav/a&amp;b </href><href><![CDATA[/dav/]]>c</href><href>/other/c.vcf</href><href/><href>https://evil.example/</href></C:calendar-multiget>`
	doc, err := parse([]byte(in), inward)
	if err != nil {
		t.Fatal(err)
	}
	want := xmlHeader + `<C:calendar-multiget xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><prop><href/></prop>` +
		`<href>/alice/a&amp;b</href><href>/alice/c</href></C:calendar-multiget>`
	if string(doc.bytes) != want || !slices.Equal(doc.lost, []string{"/other/c.vcf", "", "https://evil.example/"}) || len(doc.hrefs) != 2 {
		t.Errorf("got %s\nlost %q, hrefs %q", doc.bytes, doc.lost, doc.hrefs)
	}
	patch := `<propertyupdate xmlns="DAV:"><set><prop><x><href>%s</href></x></prop></set></propertyupdate>`
	for in, want := range map[string]string{"/dav/work/": "/alice/work/", "webcal://feeds.example/a.ics": "webcal://feeds.example/a.ics"} {
		if doc, err := parse(fmt.Appendf(nil, patch, in), inward); err != nil || string(doc.bytes) != xmlHeader+fmt.Sprintf(patch, want) {
			t.Errorf("%s became %s, %v", in, doc.bytes, err)
		}
	}
	for _, bad := range []string{
		`<href xmlns="DAV:">/dav/<b/>x</href>`, `<href xmlns="DAV:">` + strings.Repeat("x", maxHref+1) + `</href>`,
		fmt.Sprintf(patch, "/alice/friends/"), fmt.Sprintf(patch, "../friends/"), fmt.Sprintf(patch, "//evil.example/"),
		`<sync-collection xmlns="DAV:"><x><href>https://evil.example/</href></x></sync-collection>`,
	} {
		if _, err := parse([]byte(bad), inward); err == nil {
			t.Errorf("%.90q was taken", bad)
		}
	}
}

func TestDestined(t *testing.T) {
	from := target{place: member, kind: calendar, id: "x", collection: "work", member: "1.ics"}
	for name, tt := range map[string]struct {
		to   target
		want bool
	}{
		"another calendar": {target{place: member, kind: calendar, id: "x", collection: "home", member: "2.ics"}, true},
		"a collection":     {target{place: collection, kind: calendar, id: "x", collection: "home"}, false},
		"another mount":    {target{place: member, kind: contacts, id: "x", collection: "work", member: "1.ics"}, false},
		"another account":  {target{place: member, kind: calendar, id: "y", collection: "work", member: "1.ics"}, false},
	} {
		if got := destined(from, tt.to); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestIf(t *testing.T) {
	inward := func(href string) (string, bool) { return "/alice/work/", href == "https://dav.example/dav/cal/x/work/" }
	for in, want := range map[string]string{
		`(["tag"])`: `(["tag"])`,
		`(Not <DAV:no-lock> [W/"a-b_c=:/+;{}'"])`:                     `(Not <DAV:no-lock> [W/"a-b_c=:/+;{}'"])`,
		`(<http://sabre.io/ns/sync/5?a=b>)	(["1"])`:                   `(<http://sabre.io/ns/sync/5?a=b>)	(["1"])`,
		`<https://dav.example/dav/cal/x/work/> (["tag"]) (["other"])`: `</alice/work/> (["tag"]) (["other"])`,
		`<https://evil.example/> (["tag"])`:                           "-",
		`<https://dav.example/dav/cal/x/work/ (["tag"])`:              "-",
		`((["tag"])`: "-", `(["tag]`: "-", `)`: "-", `(["tag"]`: "-", `["tag"]`: "-", `Not (["tag"])`: "-", `(tag)`: "-", `<>(["tag"])`: "-",
		// A URL that would be within a tag or a token for one reader, and not for another.
		`(["a]) </alice/friends/1.vcf> (["b])`:       "-",
		`(["a\"]) </alice/friends/1.vcf> (["b"])`:    "-",
		`(<a"b>) </alice/friends/1.vcf> (<c"d>)`:     "-",
		`(<a(b>) </alice/friends/1.vcf> (["c"])`:     "-",
		`(<a [") </alice/friends/1.vcf> ("]> ["c"])`: "-",
	} {
		got, ok := mapIf(in, inward)
		if !ok {
			got = "-"
		}
		if got != want {
			t.Errorf("mapIf(%s) = %s, want %s", in, got, want)
		}
	}
}

func TestFits(t *testing.T) {
	event, vcard := []byte("BEGIN:VCALENDAR\r\n"), []byte("BEGIN:VCARD\r\n")
	for _, tt := range []struct {
		kind        kind
		contentType string
		text        []byte
		want        bool
	}{
		{calendar, "text/calendar; charset=utf-8", event, true},
		{calendar, "", event, true},
		{calendar, "TEXT/CALENDAR", []byte("\ufeff \r\nbegin:vcalendar"), true},
		{calendar, "text/calendar", vcard, false},
		{calendar, "text/vcard", event, false},
		{calendar, "text/calendar; charset=utf-16", event, false},
		{calendar, "text/html", event, false},
		{calendar, "text/calendar", nil, false},
		{calendar, "text/calendar", []byte("BEGIN:VCAL"), false},
		{calendar, "text/calendar; charset", event, false},
		{contacts, "text/vcard", vcard, true},
		{contacts, "text/x-vcard", vcard, true},
		{contacts, "text/vcard", event, false},
		{contacts, "text/calendar", vcard, false},
		{unknown, "", event, false},
	} {
		if got := fits(tt.kind, tt.contentType, tt.text); got != tt.want {
			t.Errorf("fits(%s, %q, %q) = %t", tt.kind, tt.contentType, tt.text, got)
		}
	}
}

func TestEachRefusalHasItsAnswer(t *testing.T) {
	got := make(map[authstore.Code]int)
	for code := authstore.Wrong; !strings.HasPrefix(code.String(), "code("); code++ {
		got[code] = refused(&authstore.Refusal{Code: code}).status
	}
	want := map[authstore.Code]int{
		authstore.Wrong: 401, authstore.NotAppPassword: 401, authstore.Expired: 401, authstore.OutOfScope: 403, authstore.BadNetwork: 503,
		authstore.Suspended: 403, authstore.Throttled: 503, authstore.Unavailable: 503,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if a := refused(fmt.Errorf("anything else")); a.status != 503 || !a.later {
		t.Errorf("an unknown error is answered with %d", a.status)
	}
}
