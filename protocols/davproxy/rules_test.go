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
	"OPTIONS", "PROPFIND", "REPORT", "GET", "HEAD", "PROPPATCH", "PUT", "DELETE", "COPY", "MOVE", "MKCOL", "MKCALENDAR",
	"ACL", "BIND", "CONNECT", "LOCK", "PATCH", "POST", "QUERY", "SEARCH", "TRACE", "UNLOCK", "VERSION-CONTROL", "propfind", "",
}

// TestRules is the whole table. Each verdict stands as a letter at its method's place; beyond MKCALENDAR all are refused.
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
	// OPTIONS PROPFIND REPORT GET HEAD PROPPATCH PUT DELETE COPY MOVE MKCOL MKCALENDAR
	discovery := []verdict{S, S, Q, X, X, R, X, X, X, X, X, X}
	for name, tt := range map[string]struct {
		target target
		access access
		want   []verdict
		rest   verdict
	}{
		"nowhere":                     {target{place: nowhere}, writeAccess, []verdict{N, N, N, N, N, N, N, N, N, N, N, N}, N},
		"lobby":                       {target{place: lobby}, noAccess, discovery, X},
		"principal":                   {target{place: principal}, noAccess, discovery, X},
		"home, no scope":              {target{place: home, kind: calendar}, noAccess, discovery, X},
		"home, read":                  {target{place: home, kind: calendar}, readAccess, []verdict{S, F, Q, X, X, R, X, X, X, X, X, X}, X},
		"home, write":                 {target{place: home, kind: contacts}, writeAccess, []verdict{S, F, Q, X, X, R, X, X, X, X, X, X}, X},
		"calendar, no scope":          {target{place: collection, kind: calendar}, noAccess, []verdict{N, N, N, N, N, N, N, N, N, N, P, P}, N},
		"calendar, read":              {target{place: collection, kind: calendar}, readAccess, []verdict{S, F, F, X, X, R, X, P, P, P, P, P}, X},
		"calendar, write":             {target{place: collection, kind: calendar}, writeAccess, []verdict{S, F, F, X, X, F, X, F, F, F, F, F}, X},
		"address book, read":          {target{place: collection, kind: contacts}, readAccess, []verdict{S, F, F, X, X, R, X, P, P, P, P, X}, X},
		"address book, write":         {target{place: collection, kind: contacts}, writeAccess, []verdict{S, F, F, X, X, F, X, F, F, F, F, X}, X},
		"event, no scope":             {target{place: member, kind: calendar}, noAccess, []verdict{N, N, N, N, N, N, N, N, N, N, N, N}, N},
		"event, read":                 {target{place: member, kind: calendar}, readAccess, []verdict{S, F, Q, F, F, R, P, P, P, P, X, X}, X},
		"event, write":                {target{place: member, kind: calendar}, writeAccess, []verdict{S, F, Q, F, F, F, F, F, F, F, X, X}, X},
		"card, write":                 {target{place: member, kind: contacts}, writeAccess, []verdict{S, F, Q, F, F, F, F, F, F, F, X, X}, X},
		"card, read":                  {target{place: member, kind: contacts}, readAccess, []verdict{S, F, Q, F, F, R, P, P, P, P, X, X}, X},
		"well-known, after the login": {target{place: wellKnown}, writeAccess, []verdict{N, N, N, N, N, N, N, N, N, N, N, N}, N},
	} {
		for i, method := range methods {
			want := tt.rest
			if i < len(tt.want) {
				want = tt.want[i]
			}
			if got := judge(method, tt.target, tt.access); got != want {
				t.Errorf("%s: judge(%q) = %d, want %d", name, method, got, want)
			}
		}
	}
}

func TestAccess(t *testing.T) {
	for scopes, want := range map[authstore.Scopes][2]access{
		0:                           {noAccess, noAccess},
		authstore.ScopeMail:         {noAccess, noAccess},
		authstore.ScopeCalendar:     {writeAccess, noAccess},
		authstore.ScopeCalendarRead: {readAccess, noAccess},
		authstore.ScopeContacts:     {noAccess, writeAccess},
		authstore.ScopeContactsRead: {noAccess, readAccess},
		Scopes:                      {writeAccess, writeAccess},
		authstore.ScopeCalendarRead | authstore.ScopeContacts: {readAccess, writeAccess},
	} {
		if got := [2]access{accessTo(calendar, scopes), accessTo(contacts, scopes)}; got != want {
			t.Errorf("%s opens %v, want %v", scopes, got, want)
		}
		if accessTo(unknown, scopes) != noAccess {
			t.Errorf("%s opens what is no kind", scopes)
		}
	}
}

func TestAllowed(t *testing.T) {
	for _, tt := range []struct {
		target target
		access access
		want   string
	}{
		{target{place: principal}, noAccess, "OPTIONS, PROPFIND"},
		{target{place: home, kind: calendar}, writeAccess, "OPTIONS, PROPFIND"},
		{target{place: collection, kind: contacts}, writeAccess, "OPTIONS, PROPFIND, REPORT, PROPPATCH, DELETE, COPY, MOVE, MKCOL"},
		{target{place: member, kind: calendar}, readAccess, "OPTIONS, GET, HEAD, PROPFIND"},
	} {
		if got := allowed(tt.target, tt.access); got != tt.want {
			t.Errorf("allowed(%+v, %d) = %q, want %q", tt.target, tt.access, got, tt.want)
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
		{"REPORT", contacts, "<A:addressbook-query" + ns + "/>", ok},
		{"REPORT", contacts, "<sync-collection" + ns + "/>", ok},
		{"REPORT", contacts, "<C:calendar-multiget" + ns + "/>", unsupported},
		{"REPORT", contacts, "<C:free-busy-query" + ns + "/>", unsupported},
	} {
		doc, err := parse([]byte(tt.body), func(string) (string, bool) { return "", false })
		if err != nil {
			t.Fatalf("parse(%q): %v", tt.body, err)
		}
		if got := doc.check(tt.method, tt.kind); got != tt.want {
			t.Errorf("%s in %s of %s: %+v, want %+v", tt.method, tt.kind, tt.body, got, tt.want)
		}
	}
}

func TestHrefsInBodies(t *testing.T) {
	inward := func(href string) (string, bool) {
		rest, ok := strings.CutPrefix(href, "/dav/")
		return "/alice/" + rest, ok
	}
	in := `<C:calendar-multiget xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><prop><href/></prop>` +
		`<href> /dav/a&amp;b </href><href><![CDATA[/dav/]]>c</href><href>/other/c.vcf</href></C:calendar-multiget>`
	doc, err := parse([]byte(in), inward)
	if err != nil {
		t.Fatal(err)
	}
	want := xmlHeader + `<C:calendar-multiget xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><prop><href/></prop>` +
		`<href>/alice/a&amp;b</href><href>/alice/c</href></C:calendar-multiget>`
	if string(doc.bytes) != want || !slices.Equal(doc.lost, []string{"/other/c.vcf"}) || len(doc.hrefs) != 2 {
		t.Errorf("got %s\nlost %q, hrefs %q", doc.bytes, doc.lost, doc.hrefs)
	}
	for _, bad := range []string{`<href xmlns="DAV:">/dav/<b/>x</href>`, `<href xmlns="DAV:">` + strings.Repeat("x", maxHref+1) + `</href>`} {
		if _, err := parse([]byte(bad), inward); err == nil {
			t.Errorf("%.60q was taken", bad)
		}
	}
}

func TestIf(t *testing.T) {
	inward := func(href string) (string, bool) { return "/alice/work/", href == "https://dav.example/dav/cal/x/work/" }
	for in, want := range map[string]string{
		`(["tag"])`:                      `(["tag"])`,
		`(Not <DAV:no-lock> ["a<b>(c"])`: `(Not <DAV:no-lock> ["a<b>(c"])`,
		`<https://dav.example/dav/cal/x/work/> (["tag"]) (["other"])`: `</alice/work/> (["tag"]) (["other"])`,
		`<https://evil.example/> (["tag"])`:                           "-",
		`<https://dav.example/dav/cal/x/work/ (["tag"])`:              "-",
		`((["tag"])`: "-", `(["tag]`: "-", `)`: "-",
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
