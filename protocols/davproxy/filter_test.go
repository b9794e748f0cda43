package davproxy

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"postern/authstore"
	"postern/protocols"
)

// mountAt is a mount whose home is the principal too, as in Radicale.
func mountAt(k kind) *mount {
	return &mount{
		kind: k, id: "ID", principal: []string{"alice@x"}, home: []string{"alice@x"},
		route: &protocols.Route{Backend: "lab", Network: "tcp", Address: "127.0.0.1:5232"},
	}
}

var (
	atHome = target{place: home, kind: calendar, id: "ID"}
	atWork = target{place: collection, kind: calendar, id: "ID", collection: "work"}
)

var (
	owner  = &authstore.Grant{Scopes: authstore.ScopeCalendar}
	reader = &authstore.Grant{Scopes: authstore.ScopeCalendarRead}
)

const ns = ` xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav" xmlns:A="urn:ietf:params:xml:ns:carddav"`

func run(f *filter, in string) (string, error) {
	var out bytes.Buffer
	err := f.copy(&out, strings.NewReader(in))
	return strings.TrimPrefix(out.String(), xmlHeader), err
}

// response makes a DAV:response with one property.
func responseWith(href, prop string) string {
	return "<response><href>" + href + "</href><propstat><prop>" + prop + "</prop><status>HTTP/1.1 200 OK</status></propstat></response>"
}

func many(responses ...string) string {
	return "<multistatus" + ns + ">" + strings.Join(responses, "") + "</multistatus>"
}

const (
	isCalendar = "<resourcetype><collection/><C:calendar/></resourcetype>"
	isBook     = "<resourcetype><A:addressbook/><collection/></resourcetype>"
)

func TestFilterHome(t *testing.T) {
	looked := 0
	kindOf := func(c target) (kind, error) {
		looked++
		switch c.collection {
		case "work":
			return calendar, nil
		case "gone":
			return unknown, errNoCollection
		}
		return contacts, nil
	}
	for name, tt := range map[string]struct{ in, want string }{
		"the home itself is no principal": {
			responseWith("/alice%40x/", "<resourcetype><principal/><collection/></resourcetype>"),
			responseWith("/dav/cal/ID/", "<resourcetype><collection/></resourcetype>"),
		},
		"a calendar":                     {responseWith("/alice@x/work/", isCalendar), responseWith("/dav/cal/ID/work/", isCalendar)},
		"by full URL, without its slash": {responseWith("http://127.0.0.1:5232/alice@x/work", isCalendar), responseWith("/dav/cal/ID/work/", isCalendar)},
		"an address book":                {responseWith("/alice@x/friends/", isBook), ""},
		"both":                           {responseWith("/alice@x/odd/", "<resourcetype><C:calendar/><A:addressbook/></resourcetype>"), ""},
		"both, the calendar last":        {responseWith("/alice@x/odd/", "<resourcetype><A:addressbook/><C:calendar/></resourcetype>"), ""},
		"a plain folder":                 {responseWith("/alice@x/files/", "<resourcetype><collection/></resourcetype>"), ""},
		"Cyrus's inbox":                  {responseWith("/alice@x/Inbox/", "<resourcetype><collection/><C:schedule-inbox/></resourcetype>"), ""},
		"calendar in no namespace":       {responseWith("/alice@x/friends/", `<resourcetype><calendar xmlns=""/></resourcetype>`), ""},
		"its type after the names":       {responseWith("/alice@x/work/", "<displayname>Work</displayname>"+isCalendar), responseWith("/dav/cal/ID/work/", "<displayname>Work</displayname>"+isCalendar)},
		"no type told, looked up":        {responseWith("/alice@x/work/", "<displayname>a&amp;b</displayname>"), responseWith("/dav/cal/ID/work/", "<displayname>a&amp;b</displayname>")},
		"no type told, a book":           {responseWith("/alice@x/friends/", "<displayname/>"), ""},
		"no type told, gone":             {responseWith("/alice@x/gone/", "<displayname/>"), ""},
		"somebody else's":                {responseWith("/bob@x/work/", isCalendar), ""},
		"elsewhere":                      {responseWith("http://evil.example/alice@x/work/", isCalendar), ""},
		"a member":                       {responseWith("/alice@x/work/1.ics", isCalendar), ""},
		"dots":                           {responseWith("/alice@x/../bob@x/", isCalendar), ""},
		"no href":                        {"<response><propstat><prop>" + isCalendar + "</prop></propstat></response>", ""},
		"a relative href":                {responseWith("work/", isCalendar), ""},
		"two hrefs, one elsewhere": {
			"<response><href>/alice@x/work/</href><href>/bob@x/work/</href><status>HTTP/1.1 404 Not Found</status></response>",
			"<response><href>/dav/cal/ID/work/</href><status>HTTP/1.1 404 Not Found</status></response>",
		},
		"two hrefs, one of an address book": {
			"<response><href>/alice@x/work/</href><href>/alice@x/friends/</href><status>HTTP/1.1 200 OK</status></response>",
			"<response><href>/dav/cal/ID/work/</href><status>HTTP/1.1 200 OK</status></response>",
		},
		"two hrefs, the first of an address book": {
			"<response><href>/alice@x/friends/</href><href>/alice@x/work/</href><status>HTTP/1.1 200 OK</status></response>", "",
		},
		"two hrefs, the first elsewhere": {
			"<response><href>/bob@x/work/</href><href>/alice@x/work/</href><status>HTTP/1.1 200 OK</status></response>", "",
		},
		"an href of entities":            {responseWith("&#x2f;alice&#64;x/work&#47;", isCalendar), responseWith("/dav/cal/ID/work/", isCalendar)},
		"entities that lead elsewhere":   {responseWith("/alice@x/&#46;&#x2e;/bob@x/", isCalendar), ""},
		"an href of CDATA":               {responseWith("<![CDATA[/alice@x]]>/wor<![CDATA[k/]]>", isCalendar), responseWith("/dav/cal/ID/work/", isCalendar)},
		"CDATA that looks like entities": {responseWith("<![CDATA[/alice@x/&amp;/]]>", isCalendar), responseWith("/dav/cal/ID/%26amp%3B/", isCalendar)},
		"comments and instructions": {
			"<!-- x --><response><href>/alice@x<!-- /../bob -->/work/</href><?php x?><propstat><prop>" + isCalendar + "</prop></propstat></response>",
			"<response><href>/dav/cal/ID/work/</href><propstat><prop>" + isCalendar + "</prop></propstat></response>",
		},
	} {
		got, err := run(&filter{m: mountAt(calendar), grant: owner, at: atHome, kindOf: kindOf}, many(tt.in))
		if err != nil || got != many(tt.want) {
			t.Errorf("%s: %v\ngot  %s\nwant %s", name, err, got, many(tt.want))
		}
	}
	if looked != 6 { // those whose type is not told: three, and those with two hrefs whose first may be seen
		t.Errorf("%d kinds were looked up, want 6", looked)
	}
}

func TestFilterProperties(t *testing.T) {
	for name, tt := range map[string]struct{ in, want string }{
		"who I am":              {"<current-user-principal><href>/alice%40x/</href></current-user-principal>", "<current-user-principal><href>/dav/p/ID/</href></current-user-principal>"},
		"my own":                {"<owner><href>/alice@x/</href></owner>", "<owner><href>/dav/p/ID/</href></owner>"},
		"somebody's":            {"<owner><href>/bob@x/</href></owner>", "<owner></owner>"},
		"homes":                 {"<C:calendar-home-set><href>/alice@x/</href></C:calendar-home-set><A:addressbook-home-set><href>/alice@x/</href></A:addressbook-home-set>", "<C:calendar-home-set><href>/dav/cal/ID/</href></C:calendar-home-set><A:addressbook-home-set><href>/dav/card/ID/</href></A:addressbook-home-set>"},
		"inside this calendar":  {"<C:x><href>/alice@x/work/1.ics</href></C:x>", "<C:x><href>/dav/cal/ID/work/1.ics</href></C:x>"},
		"in another collection": {"<C:x><href>/alice@x/friends/1.vcf</href></C:x>", "<C:x></C:x>"},
		"rights":                {"<acl><ace><principal><href>/bob@x/</href></principal></ace></acl><getetag>\"1\"</getetag>", "<getetag>\"1\"</getetag>"},
		"an empty hidden one":   {"<principal-collection-set/><getetag/>", "<getetag/>"},
		"contents":              {"<C:calendar-data>BEGIN:VCALENDAR\n&lt;href>/alice@x/&lt;/href></C:calendar-data>", "<C:calendar-data>BEGIN:VCALENDAR\n&lt;href>/alice@x/&lt;/href></C:calendar-data>"},
		"contents in CDATA":     {"<C:calendar-data><![CDATA[BEGIN:VCALENDAR<href>/alice@x/</href>]]></C:calendar-data>", "<C:calendar-data><![CDATA[BEGIN:VCALENDAR<href>/alice@x/</href>]]></C:calendar-data>"},
		"elements in contents":  {"<C:calendar-data>BEGIN:VCALENDAR<href>/alice@x/</href></C:calendar-data>", "<C:calendar-data>BEGIN:VCALENDAR<href>/alice@x/</href></C:calendar-data>"},
		"a card as an event":    {"<C:calendar-data>BEGIN:VCARD</C:calendar-data><getetag/>", "<C:calendar-data></C:calendar-data><getetag/>"},
		"a card in an element":  {"<C:calendar-data><x>BEGIN:VCARD</x></C:calendar-data>", "<C:calendar-data><x></x></C:calendar-data>"},
		"a card behind spaces":  {"<C:calendar-data> &#32;<!-- --><![CDATA[ ]]>BEGIN:VCARD</C:calendar-data>", "<C:calendar-data> &#32;<![CDATA[ ]]></C:calendar-data>"},
		"a card far behind":     {"<C:calendar-data><![CDATA[" + strings.Repeat(" ", maxPiece) + "BEGIN:VCARD]]></C:calendar-data>", "<C:calendar-data></C:calendar-data>"},
		"an event after a line": {"<C:calendar-data>&#13;\nBEGIN:VCALENDAR</C:calendar-data>", "<C:calendar-data>&#13;\nBEGIN:VCALENDAR</C:calendar-data>"},
		"a card":                {"<A:address-data>BEGIN:VCARD</A:address-data><getetag/>", "<getetag/>"},
		"privileges":            {"<current-user-privilege-set><privilege><all/></privilege></current-user-privilege-set><getetag/>", "<current-user-privilege-set>" + may("read", "read-current-user-privilege-set") + `<privilege xmlns="DAV:"><read-free-busy xmlns="urn:ietf:params:xml:ns:caldav"/></privilege></current-user-privilege-set><getetag/>`},
		"empty privileges":      {"<current-user-privilege-set/><getetag/>", "<current-user-privilege-set/><getetag/>"},
	} {
		f := &filter{m: mountAt(calendar), at: atWork, grant: reader}
		in, want := many(responseWith("/alice@x/work/", tt.in)), many(responseWith("/dav/cal/ID/work/", tt.want))
		if got, err := run(f, in); err != nil || got != want {
			t.Errorf("%s: %v\ngot  %s\nwant %s", name, err, got, want)
		}
	}
	all := many(responseWith("/alice@x/work/", "<current-user-privilege-set><privilege><all/></privilege></current-user-privilege-set>"))
	if got, err := run(&filter{m: mountAt(calendar), grant: owner, at: atWork}, all); err != nil || !strings.Contains(got, may("write")) || strings.Contains(got, "all") {
		t.Errorf("privileges of who may write: %v, %s", err, got)
	}
}

// TestFilterErrors: programs are told which condition failed, and nobody what the backend is and where it has things.
func TestFilterErrors(t *testing.T) {
	for server, tt := range map[string]struct{ in, want string }{
		"sabre": {`<d:error xmlns:d="DAV:" xmlns:s="http://sabredav.org/ns"><s:exception>Sabre\DAV\Exception\NotFound</s:exception><s:message>No /calendars/alice@x/</s:message>` +
			`<s:sabredav-version>4.1.5</s:sabredav-version><s:stacktrace/><d:supported-report/></d:error>`,
			`<d:error xmlns:d="DAV:" xmlns:s="http://sabredav.org/ns"><d:supported-report/></d:error>`},
		"DAViCal": {"<error xmlns=\"DAV:\">\n <if-match/>What is at /caldav.php/alice@x/ does not match<![CDATA[!]]>\n</error>", "<error xmlns=\"DAV:\">\n <if-match/>\n</error>"},
		"Cyrus": {`<D:error xmlns:D="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><C:no-uid-conflict><D:href>/alice@x/work/1.ics</D:href></C:no-uid-conflict></D:error>`,
			`<D:error xmlns:D="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><C:no-uid-conflict><D:href>/dav/cal/ID/work/1.ics</D:href></C:no-uid-conflict></D:error>`},
		"one that says nothing": {`<error xmlns="DAV:"/>`, `<error xmlns="DAV:"/>`},
		"Calendar Server":       {`<error xmlns="DAV:"><max-size xmlns="http://calendarserver.org/ns/"/><x xmlns=""/></error>`, `<error xmlns="DAV:"><max-size xmlns="http://calendarserver.org/ns/"/></error>`},
	} {
		f := &filter{m: mountAt(calendar), at: atWork, grant: reader, lost: []string{"/lost"}}
		if got, err := run(f, tt.in); err != nil || got != tt.want {
			t.Errorf("%s: %v\ngot  %s\nwant %s", server, err, got, tt.want)
		}
	}
}

// may makes privileges as they are told.
func may(names ...string) string {
	text := ""
	for _, n := range names {
		text += `<privilege xmlns="DAV:">` + emptyElement(name{nsDAV, n}) + `</privilege>`
	}
	return text
}

func TestFilterCollection(t *testing.T) {
	tagged := "<getetag>\"1\"</getetag>"
	in := many(
		responseWith("/alice@x/work/", tagged), responseWith("/alice@x/work/a%20b.ics", tagged), responseWith("/alice@x/", tagged),
		responseWith("/alice@x/friends/1.vcf", tagged), responseWith("/alice@x/work/deep/er.ics", tagged),
		"<response><href>/alice@x/work/2.ics</href><href>/alice@x/friends/1.vcf</href><href>/alice@x/</href><href>/bob@x/work/1.ics</href><status>HTTP/1.1 404 Not Found</status></response>",
		"<response><href>/alice@x/work/</href><status>HTTP/1.1 507 Insufficient Storage</status><error><number-of-matches-within-limits/>at /alice@x/</error></response>",
		"<sync-token>http://radicale.org/ns/sync/1</sync-token>")
	want := many(
		responseWith("/dav/cal/ID/work/", tagged), responseWith("/dav/cal/ID/work/a%20b.ics", tagged),
		"<response><href>/dav/cal/ID/work/2.ics</href><status>HTTP/1.1 404 Not Found</status></response>",
		"<response><href>/dav/cal/ID/work/</href><status>HTTP/1.1 507 Insufficient Storage</status><error><number-of-matches-within-limits/></error></response>",
		"<sync-token>http://radicale.org/ns/sync/1</sync-token>",
		string(notThereResponse("/dav/<x>")))
	f := &filter{m: mountAt(calendar), grant: owner, at: atWork, lost: []string{"/dav/<x>"}}
	if got, err := run(f, in); err != nil || got != want {
		t.Errorf("%v\ngot  %s\nwant %s", err, got, want)
	}
	moved := many("<response><href>/alice@x/other/1.ics</href><status>HTTP/1.1 409 Conflict</status></response>")
	f = &filter{m: mountAt(calendar), grant: owner, at: atWork, also: target{place: member, kind: calendar, id: "ID", collection: "other", member: "1.ics"}}
	if got, err := run(f, moved); err != nil || !strings.Contains(got, "/dav/cal/ID/other/1.ics") {
		t.Errorf("the destination of MOVE: %v, %s", err, got)
	}
	conflict := "<error" + ns + "><C:no-uid-conflict><href>/alice@x/work/1.ics</href></C:no-uid-conflict></error>"
	if got, err := run(&filter{m: mountAt(calendar), grant: owner, at: atWork}, conflict); err != nil || !strings.Contains(got, ">/dav/cal/ID/work/1.ics<") {
		t.Errorf("an error's href: %v, %s", err, got)
	}
	nothing := `<d:multistatus xmlns:d="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav" />` // DAViCal, of members that are not there
	f = &filter{m: mountAt(calendar), grant: owner, at: atWork, lost: []string{"/x"}}
	if got, err := run(f, nothing); err != nil || got != strings.TrimSuffix(nothing, "/>")+">"+string(notThereResponse("/x"))+"</d:multistatus>" {
		t.Errorf("an empty answer to a multiget: %v, %s", err, got)
	}
	remarks := `<d:error xmlns:d="DAV:" xmlns:s="http://sabredav.org/ns"><s:exception>Sabre\DAV\Exception\NotFound</s:exception><s:message>calendars/alice@x/work<s:b/></s:message><s:empty/>` +
		`<d:valid-sync-token/><d:responsedescription>/alice@x/work/</d:responsedescription></d:error>`
	want = `<d:error xmlns:d="DAV:" xmlns:s="http://sabredav.org/ns"><d:valid-sync-token/></d:error>`
	if got, err := run(&filter{m: mountAt(calendar), grant: owner, at: atWork}, remarks); err != nil || got != want {
		t.Errorf("an error's remarks: %v\ngot  %s\nwant %s", err, got, want)
	}
}

// Thunderbird's address book looks at a response's first status only.
func TestFilterPutsWhatIsThereFirst(t *testing.T) {
	stat := func(status, props string) string {
		return "<propstat><prop>" + props + "</prop><status>HTTP/1.1 " + status + "</status></propstat>"
	}
	statusFirst := "<propstat><status>HTTP/1.1 404 Not Found</status><prop><x/></prop></propstat>"
	there, missing, empty := stat("200 OK", "<getetag>1</getetag>"), stat("404 Not Found", "<x/>\n <y></y>"), stat("200 OK", "<resourcetype/>")
	long := stat("404 Not Found", strings.Repeat("<x/>", maxOutOfOrder/4))
	for name, tt := range map[string]struct{ in, want string }{
		"in order":            {there + missing, there + missing},
		"not in order":        {missing + there, there + missing},
		"status first":        {statusFirst + there, there + statusFirst},
		"nothing is there":    {missing + statusFirst, missing + statusFirst},
		"an empty one":        {missing + empty, empty + missing},
		"two":                 {missing + there + statusFirst + empty, there + missing + statusFirst + empty},
		"words behind":        {missing + "<error><need-privileges/></error>", missing + "<error><need-privileges/></error>"},
		"a hidden one":        {stat("404 Not Found", "<acl><x>y</x></acl>") + there, there + stat("404 Not Found", "")},
		"too long to be held": {long + there, long + there},
		"many":                {strings.Repeat(missing, maxOutOfOrder/len(missing)+1) + there, strings.Repeat(missing, maxOutOfOrder/len(missing)+1) + there},
	} {
		in := many("<response><href>/alice@x/work/1.ics</href>"+tt.in+"</response>", responseWith("/alice@x/work/2.ics", "<getetag>2</getetag>"))
		want := many("<response><href>/dav/cal/ID/work/1.ics</href>"+tt.want+"</response>", responseWith("/dav/cal/ID/work/2.ics", "<getetag>2</getetag>"))
		if got, err := run(&filter{m: mountAt(calendar), grant: owner, at: atWork}, in); err != nil || got != want {
			t.Errorf("%s: %v\ngot  %.2000s\nwant %.2000s", name, err, got, want)
		}
	}
	in := many("<response><href>http%3A//127.0.0.1%3A5232/alice%40x/work/</href>" + there + "</response>") // Xandikos to a PROPPATCH
	want := many("<response><href>/dav/cal/ID/work/</href>" + there + "</response>")
	if got, err := run(&filter{m: mountAt(calendar), grant: owner, at: atWork, single: true}, in); err != nil || got != want {
		t.Errorf("a PROPPATCH: %v, %s", err, got)
	}
}

// hostile documents must not be passed on: each is read by some parser as another than it seems.
var hostile = map[string]string{
	"nothing":                  "",
	"no XML":                   "Internal Server Error",
	"HTML":                     "<html><body/></html>",
	"DOCTYPE":                  `<!DOCTYPE multistatus [<!ENTITY e "x">]>` + many(),
	"another root":             `<multistatus/>`,
	"cut off":                  "<multistatus" + ns + "><response>",
	"two roots":                many() + many(),
	"text before":              "x" + many(),
	"text behind":              many() + "x",
	"end of another":           "<multistatus" + ns + "><response></multistatus></response>",
	"prefix of another":        `<a:multistatus xmlns:a="DAV:" xmlns:b="DAV:"></b:multistatus>`,
	"undeclared prefix":        many("<D:response/>"),
	"undeclared attribute":     many("<response D:x=''/>"),
	"prefix that has ended":    many(`<x:a xmlns:x="x"/><x:b/>`),
	"attribute twice":          many(`<response a="1" a="2"/>`),
	"the same by two prefixes": many(`<response xmlns:x="u" xmlns:y="u" x:a="1" y:a="2"/>`),
	"namespace twice":          many(`<response xmlns:x="u" xmlns:x="v"/>`),
	"prefix xml":               many(`<response xmlns:xml="u"/>`),
	"prefix xmlns":             many(`<response xmlns:xmlns="u"/>`),
	"prefix unbound":           many(`<response xmlns:C=""/>`),
	"another encoding":         `<?xml version="1.0" encoding="utf-7"?>` + many(),
	"UTF-16":                   "\xff\xfe<\x00m\x00/\x00>\x00",
	"bad UTF-8":                many("<x>\xff</x>"),
	"NUL":                      many("<x>\x00</x>"),
	"entity":                   many("<x>&e;</x>"),
	"deep":                     many(strings.Repeat("<x>", maxXMLDepth), strings.Repeat("</x>", maxXMLDepth)),
	"attributes":               many("<x " + attributes(maxXMLAttrs+1) + "/>"),
	"an element in an href":    many("<response><href>/alice@x/<b/></href></response>"),
	"long and undecided":       many("<response><x>" + strings.Repeat("x", maxUndecided) + "</x></response>"),
}

func attributes(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(" a" + strings.Repeat("b", i) + "=''")
	}
	return b.String()
}

func TestHostileXMLIsNotPassedOn(t *testing.T) {
	for name, in := range hostile {
		f := &filter{m: mountAt(calendar), grant: owner, at: atHome}
		if got, err := run(f, in); err == nil {
			t.Errorf("%s: %q became %q", name, in, got)
		}
	}
	f := &filter{m: mountAt(calendar), grant: owner, at: atHome, kindOf: func(target) (kind, error) { return unknown, io.ErrClosedPipe }}
	if _, err := run(f, many(responseWith("/alice@x/work/", "<a/>"))); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a kind that can't be known: %v", err)
	}
	if _, err := run(&filter{m: mountAt(calendar), grant: owner, at: atWork}, many("<x y='"+strings.Repeat("z", windowSize)+"'/>")); !errors.Is(err, errTooLarge) {
		t.Errorf("a huge tag: %v", err)
	}
}

// repeated gives the same bytes several times.
type repeated struct {
	body  []byte
	times int
	at    int
}

func (r *repeated) Read(p []byte) (n int, err error) {
	for r.times > 0 && n < len(p) {
		d := copy(p[n:], r.body[r.at:])
		n += d
		if r.at += d; r.at == len(r.body) {
			r.at, r.times = 0, r.times-1
		}
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// FuzzFilter: what is passed on is well-formed, is the same whatever the portions it comes in, and leads nowhere else.
func FuzzFilter(f *testing.F) {
	for _, in := range hostile {
		f.Add([]byte(in))
	}
	for _, in := range []string{
		responseWith("/alice@x/work/", isCalendar), responseWith("/alice@x/friends/", isBook), responseWith("/alice@x/work/1.ics", "<C:calendar-data>BEGIN:VCALENDAR</C:calendar-data>"),
		responseWith("/alice@x/work/1.ics", "<C:calendar-data> <![CDATA[BEGIN:VCARD]]></C:calendar-data><C:calendar-data><x>BEGIN:VCARD</x></C:calendar-data><A:address-data>BEGIN:VCARD</A:address-data>"),
		"<response><href>/alice@x/work/1.ics</href><propstat><prop><acl/></prop><status>HTTP/1.1 404 Not Found</status></propstat><propstat><prop><getetag>1</getetag></prop><status>HTTP/1.1 200 OK</status></propstat></response>",
		"<response><href>/alice@x/work/1.ics</href><href>/alice@x/work/2.ics</href><href>/bob@x/</href><status>HTTP/1.1 404 Not Found</status></response>",

		responseWith("/bob@x/", "<owner><href>/bob@x/</href></owner><acl/>"),
	} {
		f.Add([]byte(many(in)))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, at := range []target{atHome, atWork} {
			pass := func(r io.Reader) (string, error) {
				var out bytes.Buffer
				fl := &filter{m: mountAt(calendar), at: at, grant: reader, kindOf: func(target) (kind, error) { return calendar, nil }}
				err := fl.copy(&out, r)
				return out.String(), err
			}
			got, err := pass(bytes.NewReader(in))
			again, errAgain := pass(iotest.OneByteReader(bytes.NewReader(in)))
			if (err == nil) != (errAgain == nil) || err == nil && got != again {
				t.Fatalf("in one piece %q, %v; by bytes %q, %v", got, err, again, errAgain)
			}
			if err == nil {
				checkPassed(t, got)
			}
		}
	})
}

// checkPassed reads with encoding/xml what was passed on: nothing that is to be left out shows, and nothing leads elsewhere.
func checkPassed(t *testing.T, text string) {
	dec := xml.NewDecoder(strings.NewReader(text))
	var open []name
	opaque, href, content := 0, "", ""
	for {
		tok, err := dec.Token()
		if err == io.EOF {
			return
		}
		if err != nil && strings.Contains(err.Error(), "invalid XML name") && strings.ContainsFunc(text, func(r rune) bool { return r > 0x7f }) {
			return // as in FuzzTokenizer
		}
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		switch x := tok.(type) {
		case xml.StartElement:
			n := name{x.Name.Space, x.Name.Local}
			isProperty := len(open) > 1 && open[len(open)-1] == name{nsDAV, "prop"} && open[len(open)-2] == name{nsDAV, "propstat"}
			switch {
			case opaque > 0:
			case isProperty && contents[n] == calendar:
				opaque, content = len(open)+1, ""
			case isProperty && (hidden[n] || contents[n] != unknown):
				t.Fatalf("%q tells of %q", text, n)
			}
			open, href = append(open, n), ""
		case xml.EndElement:
			if open[len(open)-1] == (name{nsDAV, "href"}) && opaque == 0 && href != "" && !strings.HasPrefix(href, "/dav/") {
				t.Fatalf("%q leads to %q", text, href)
			}
			if opaque == len(open) {
				opaque = 0
				if content = strings.Trim(content, " \t\r\n"); content != "" && !fits(calendar, "", []byte(content)) {
					t.Fatalf("%q holds %q", text, content)
				}
			}
			open = open[:len(open)-1]
		case xml.CharData:
			href += strings.TrimSpace(string(x))
			if opaque > 0 {
				content += string(x)
			}
		}
	}
}

// Four megabytes take no more memory than one: nothing per response, and nothing for the length of an item.
func TestFilterHoldsLittle(t *testing.T) {
	manyOf := func(prop func(i int) string) io.Reader {
		return stretched(answerOf(100, prop), "<d:response>", "</d:multistatus>")
	}
	for name, in := range map[string]io.Reader{
		"etags":                  manyOf(etag),
		"calendar-data":          manyOf(withData),
		"one item":               stretched(answerOf(1, withData), "What is to be talked about", "ORGANIZER"),
		"one property":           stretched(answerOf(1, func(int) string { return "<d:displayname>Work</d:displayname>" }), "Work", "</d:displayname>"),
		"one property of markup": stretched(answerOf(1, func(int) string { return "<d:x><d:y/></d:x>" }), "<d:y/>", "</d:x>"),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := (&filter{m: mountAt(calendar), grant: owner, at: atWork}).copy(io.Discard, in); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 256<<10 {
			t.Errorf("%s: %d bytes were allocated", name, got)
		}
	}
}

// stretched repeats what stands in a document from one mark up to another until it has about 4 MB.
func stretched(doc []byte, from, to string) io.Reader {
	at, end := bytes.Index(doc, []byte(from)), bytes.LastIndex(doc, []byte(to))
	body := doc[at:end]
	return io.MultiReader(bytes.NewReader(doc[:at]), &repeated{body: body, times: (4 << 20) / len(body)}, bytes.NewReader(doc[end:]))
}
