package demo

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-ical"
	"github.com/emersion/go-vcard"
	"github.com/emersion/go-webdav"
	webdavcal "github.com/emersion/go-webdav/caldav"
	webdavcard "github.com/emersion/go-webdav/carddav"
)

const (
	calendarHome = "/" + alice + "/calendars/"
	personal     = calendarHome + "personal/"
	people       = "/" + alice + "/contacts/contacts/"
)

// davClient asks as the gateway does, on one address's behalf.
type davClient struct {
	t       *testing.T
	b       *Backends
	address string
}

type davResponse struct {
	code   int
	header http.Header
	body   string
}

func newDAV(t *testing.T) davClient { return davClient{t, start(t), alice} }

// do sends a request. Headers are given as "Name: value".
func (c davClient) do(method, path, body string, headers ...string) davResponse {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, "http://"+c.b.DAVAddress+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	r.SetBasicAuth(c.address, string(c.b.DAVPassword))
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(r) // no redirects
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return davResponse{resp.StatusCode, resp.Header, string(data)}
}

// expect sends a request and checks the status.
func (c davClient) expect(code int, method, path, body string, headers ...string) davResponse {
	c.t.Helper()
	resp := c.do(method, path, body, headers...)
	if resp.code != code {
		c.t.Errorf("%s %s %q: got %d %s, want %d", method, path, headers, resp.code, resp.body, code)
	}
	return resp
}

// has checks that an answer says something, and not says something else.
func (c davClient) has(resp davResponse, want string) {
	c.t.Helper()
	if !strings.Contains(resp.body, want) {
		c.t.Errorf("no %s in %s", want, resp.body)
	}
}

func (c davClient) hasNot(resp davResponse, unwanted string) {
	c.t.Helper()
	if strings.Contains(resp.body, unwanted) {
		c.t.Errorf("%s in %s", unwanted, resp.body)
	}
}

// newEvent has its properties in an order, and a folded line, that an encoder would not keep.
func newEvent(uid, summary string) string {
	return "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:test\r\nBEGIN:VEVENT\r\nUID:" + uid +
		"\r\nX-LAST:folded\r\n  line\r\nDTSTAMP:20261123T120000Z\r\nDTSTART:20261123T120000Z\r\nSUMMARY:" + summary +
		"\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
}

func newTodo(uid, more string) string {
	return "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:test\r\nBEGIN:VTODO\r\nUID:" + uid +
		"\r\nDTSTAMP:20261123T120000Z\r\n" + more + "END:VTODO\r\nEND:VCALENDAR\r\n"
}

func newCard(uid, name string) string {
	return "BEGIN:VCARD\r\nVERSION:3.0\r\nUID:" + uid + "\r\nFN:" + name + "\r\nN:" + name + ";;;;\r\nEND:VCARD\r\n"
}

func TestDAVLoginIsTheGatewaysOnly(t *testing.T) {
	c := newDAV(t)
	basic := func(user, password string) string {
		r := http.Request{Header: http.Header{}}
		r.SetBasicAuth(user, password)
		return "Authorization: " + r.Header.Get("Authorization")
	}
	right := string(c.b.DAVPassword)
	for name, header := range map[string]string{
		"none":           "Authorization: ",
		"wrong password": basic(alice, "wrong"),
		"no password":    basic(alice, ""),
		"no address":     basic("", right),
		"slash in name":  basic("a/b", right),
	} {
		t.Run(name, func(t *testing.T) {
			c := davClient{t, c.b, c.address}
			resp := c.expect(http.StatusUnauthorized, "PROPFIND", "/", "", header, "Depth: 0")
			if !strings.HasPrefix(resp.header.Get("WWW-Authenticate"), "Basic ") {
				t.Errorf("challenge: %q", resp.header.Get("WWW-Authenticate"))
			}
		})
	}
}

func TestAccountsDoNotSeeEachOther(t *testing.T) {
	c := newDAV(t)
	bob := davClient{t, c.b, "bob@example.test"}
	for _, path := range []string{"/" + alice + "/", calendarHome, personal, personal + "dinner.ics"} {
		bob.expect(http.StatusNotFound, "PROPFIND", path, "", "Depth: 0")
	}
	bob.expect(http.StatusNotFound, "GET", personal+"dinner.ics", "")
	bob.expect(http.StatusNotFound, "PUT", personal+"new.ics", newEvent("new", "x"))
	bob.expect(http.StatusNotFound, "DELETE", personal, "")
	bobs := "/bob@example.test/calendars/personal/"
	resp := bob.expect(http.StatusMultiStatus, "REPORT", bobs, `<c:calendar-multiget xmlns:d="DAV:" xmlns:c="`+caldavSpace+
		`"><d:prop><c:calendar-data/></d:prop><d:href>`+personal+`dinner.ics</d:href></c:calendar-multiget>`)
	bob.has(resp, "404 Not Found")
	bob.hasNot(resp, "VEVENT")
	resp = bob.expect(http.StatusMultiStatus, "REPORT", bobs, `<c:calendar-multiget xmlns:d="DAV:" xmlns:c="`+caldavSpace+
		`"><d:allprop/><d:href>%zz</d:href><d:href>`+bobs+`dinner.ics</d:href></c:calendar-multiget>`)
	bob.has(resp, "<d:href>%zz</d:href><d:status>HTTP/1.1 404 Not Found")
	bob.has(resp, "<d:getetag>")
	bob.expect(http.StatusNoContent, "DELETE", bobs+"dinner.ics", "")
	c.expect(http.StatusOK, "GET", personal+"dinner.ics", "")
}

func TestPathsThatLeadNowhere(t *testing.T) {
	c := newDAV(t)
	for _, path := range []string{
		"/nobody/", "/" + alice + "/notes/", calendarHome + "none/", personal + "none.ics", personal + "dinner.ics/below",
		personal + "%2e%2e/", personal + "..%2f", "/" + alice + "%2Fcalendars/", "/" + alice + "//calendars/", "//",
	} {
		c.expect(http.StatusNotFound, "PROPFIND", path, "", "Depth: 0")
	}
}

func TestDiscovery(t *testing.T) {
	c := newDAV(t)
	for _, service := range []string{"caldav", "carddav"} {
		resp := c.expect(http.StatusMovedPermanently, "PROPFIND", "/.well-known/"+service, "")
		if got := resp.header.Get("Location"); got != "/" {
			t.Errorf("%s is at %q", service, got)
		}
	}
	resp := c.expect(http.StatusOK, "OPTIONS", calendarHome, "")
	for _, want := range []string{"calendar-access", "addressbook", "extended-mkcol"} {
		if !strings.Contains(resp.header.Get("DAV"), want) {
			t.Errorf("DAV: %s", resp.header.Get("DAV"))
		}
	}
	resp = c.expect(http.StatusMultiStatus, "PROPFIND", "/", `<d:propfind xmlns:d="DAV:" xmlns:c="`+caldavSpace+`"><d:prop>
		<c:nonsense/><d:current-user-principal/></d:prop></d:propfind>`, "Depth: 0")
	if strings.Index(resp.body, "200 OK") > strings.Index(resp.body, "404 Not Found") {
		t.Errorf("what is missing comes first: %s", resp.body)
	}
	c.expect(http.StatusForbidden, "PROPFIND", "/", "", "Depth: infinity")
	for path, want := range map[string]int{"/": 2, "/" + alice + "/": 3, calendarHome: 4, people: 11, personal + "dinner.ics": 1} {
		resp := c.expect(http.StatusMultiStatus, "PROPFIND", path, "", "Depth: 1")
		if got := strings.Count(resp.body, "<d:response>"); got != want {
			t.Errorf("%s: %d responses, want %d", path, got, want)
		}
	}
	resp = c.expect(http.StatusMultiStatus, "PROPFIND", personal, `<propfind xmlns="DAV:"><propname/></propfind>`, "Depth: 0")
	c.has(resp, "<cs:getctag/>")
	c.has(resp, "<ical:calendar-color/>")
}

func TestMethodsAtTheWrongPlace(t *testing.T) {
	c := newDAV(t)
	for _, tt := range []struct{ method, path string }{
		{"DELETE", "/" + alice + "/"}, {"DELETE", calendarHome}, {"PUT", calendarHome}, {"PUT", personal}, {"GET", personal},
		{"POST", personal}, {"LOCK", personal + "dinner.ics"}, {"MKCOL", calendarHome}, {"REPORT", calendarHome}, {"MOVE", personal},
	} {
		resp := c.expect(http.StatusMethodNotAllowed, tt.method, tt.path, "")
		if resp.header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", tt.method, tt.path)
		}
	}
}

func TestPutKeepsBytes(t *testing.T) {
	c := newDAV(t)
	path := personal + "new%20one.ics"
	first, second := newEvent("new", "first"), newEvent("new", "sécond")
	put := c.expect(http.StatusCreated, "PUT", path, first, "If-None-Match: *", "Content-Type: text/calendar; charset=utf-8")
	tag := put.header.Get("ETag")
	got := c.expect(http.StatusOK, "GET", path, "")
	if got.body != first || got.header.Get("ETag") != tag || strings.HasPrefix(tag, "W/") {
		t.Errorf("got %q %s, want %q %s", got.body, got.header.Get("ETag"), first, tag)
	}
	c.expect(http.StatusNotModified, "GET", path, "", "If-None-Match: "+tag)
	c.expect(http.StatusOK, "HEAD", path, "")

	c.expect(http.StatusPreconditionFailed, "PUT", path, second, "If-None-Match: *")
	c.expect(http.StatusPreconditionFailed, "PUT", path, second, `If-Match: "other"`)
	put = c.expect(http.StatusNoContent, "PUT", path, second, "If-Match: "+`"other", `+tag)
	resp := c.expect(http.StatusMultiStatus, "REPORT", personal, `<c:calendar-multiget xmlns:d="DAV:" xmlns:c="`+caldavSpace+
		`"><d:prop><d:getetag/><c:calendar-data/></d:prop><d:href>http://other.example`+path+`</d:href></c:calendar-multiget>`)
	var reported struct {
		Data string `xml:"response>propstat>prop>calendar-data"`
		Tag  string `xml:"response>propstat>prop>getetag"`
	}
	if err := xml.Unmarshal([]byte(resp.body), &reported); err != nil {
		t.Fatal(err)
	}
	if reported.Data != second || reported.Tag != put.header.Get("ETag") {
		t.Errorf("reported %q %s, want %q %s", reported.Data, reported.Tag, second, put.header.Get("ETag"))
	}
	c.expect(http.StatusPreconditionFailed, "DELETE", path, "", "If-Match: "+tag)
	c.expect(http.StatusNoContent, "DELETE", path, "", "If-Match: "+put.header.Get("ETag"))
	c.expect(http.StatusNotFound, "DELETE", path, "")
	c.expect(http.StatusPreconditionFailed, "PUT", path, first, "If-Match: *")
}

func TestPutRefuses(t *testing.T) {
	c := newDAV(t)
	tasks := calendarHome + "tasks/"
	for name, tt := range map[string]struct {
		path, body, contentType string
		want                    string
	}{
		"garbage":                {personal + "x.ics", "hello", "", "valid-calendar-data"},
		"no UID":                 {personal + "x.ics", strings.Replace(newEvent("x", "x"), "UID:x\r\n", "", 1), "", "valid-calendar-data"},
		"a method":               {personal + "x.ics", strings.Replace(newEvent("x", "x"), "PRODID", "METHOD:ADD\r\nPRODID", 1), "", "valid-calendar-data"},
		"control characters":     {personal + "x.ics", newEvent("x", "\x01"), "", "valid-calendar-data"},
		"not UTF-8":              {personal + "x.ics", newEvent("x", "\xff"), "", "valid-calendar-data"},
		"components without end": {personal + "x.ics", strings.Repeat("BEGIN:VEVENT\r\n", maxComponents+1), "", "valid-calendar-data"},
		"an event among tasks":   {tasks + "x.ics", newEvent("x", "x"), "", "supported-calendar-component"},
		"a card":                 {personal + "x.ics", newCard("x", "x"), "text/vcard", "supported-calendar-data"},
		"a UID twice":            {personal + "x.ics", newEvent("dinner@demo.postern.example", "x"), "", personal + "dinner.ics"},
		"no card":                {people + "x.vcf", "hello", "", "valid-address-data"},
		"an event as card":       {people + "x.vcf", newEvent("x", "x"), "text/calendar", "supported-address-data"},
		"a card's UID twice":     {people + "x.vcf", newCard("enzo@demo.postern.example", "x"), "", people + "enzo.vcf"},
	} {
		t.Run(name, func(t *testing.T) {
			c := davClient{t, c.b, c.address}
			c.has(c.expect(http.StatusForbidden, "PUT", tt.path, tt.body, "Content-Type: "+tt.contentType), tt.want)
			c.expect(http.StatusNotFound, "GET", tt.path, "")
		})
	}
	c.expect(http.StatusConflict, "PUT", calendarHome+"none/x.ics", newEvent("x", "x"))
	c.expect(http.StatusRequestEntityTooLarge, "PUT", personal+"x.ics", strings.Repeat("x", maxItem+1))
}

func TestXMLIsBounded(t *testing.T) {
	c := newDAV(t)
	for name, body := range map[string]string{
		"no XML":      "hello <",
		"deep":        strings.Repeat("<a>", maxDepth+1) + strings.Repeat("</a>", maxDepth+1),
		"wide":        "<a>" + strings.Repeat("<b/>", maxNodes) + "</a>",
		"entities":    `<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>`,
		"bad names":   `<a:0 xmlns:a="x"/>`,
		"two roots":   "<a/><b/>",
		"another one": "<a/>",
	} {
		t.Run(name, func(t *testing.T) {
			davClient{t, c.b, c.address}.expect(http.StatusBadRequest, "PROPFIND", personal, body, "Depth: 0")
		})
	}
	for _, method := range []string{"PROPPATCH", "REPORT"} {
		c.expect(http.StatusBadRequest, method, personal, "")
	}
}

func TestMakeAndDeleteCollections(t *testing.T) {
	c := newDAV(t)
	garden := calendarHome + "garden/"
	c.expect(http.StatusCreated, "MKCALENDAR", garden, `<c:mkcalendar xmlns:d="DAV:" xmlns:c="`+caldavSpace+`"><d:set><d:prop>
		<d:displayname>Garten &amp; Hof</d:displayname><c:supported-calendar-component-set><c:comp name="VTODO"/>
		</c:supported-calendar-component-set></d:prop></d:set></c:mkcalendar>`)
	c.expect(http.StatusMethodNotAllowed, "MKCALENDAR", garden, "")
	resp := c.expect(http.StatusMultiStatus, "PROPFIND", garden, "", "Depth: 0")
	c.has(resp, "<d:displayname>Garten &amp; Hof</d:displayname>")
	c.has(resp, `<cal:comp name="VTODO"/></cal:supported-calendar-component-set>`)
	c.has(resp, "<cal:calendar/>")
	c.expect(http.StatusForbidden, "PUT", garden+"x.ics", newEvent("x", "x"))
	c.expect(http.StatusCreated, "PUT", garden+"x.ics", newTodo("x", ""))
	token := syncTokenIn(t, resp)
	c.expect(http.StatusNoContent, "DELETE", garden, "")
	c.expect(http.StatusNotFound, "DELETE", garden, "")
	c.expect(http.StatusCreated, "MKCOL", garden, "")
	c.has(c.expect(http.StatusForbidden, "REPORT", garden, syncBody(token, "")), "valid-sync-token")

	friends := "/" + alice + "/contacts/friends/"
	mkcol := `<d:mkcol xmlns:d="DAV:" xmlns:c="` + carddavSpace + `"><d:set><d:prop><d:resourcetype><d:collection/>%s</d:resourcetype>
		</d:prop></d:set></d:mkcol>`
	c.expect(http.StatusForbidden, "MKCOL", friends, fmt.Sprintf(mkcol, `<x:calendar xmlns:x="`+caldavSpace+`"/>`))
	c.expect(http.StatusForbidden, "MKCALENDAR", friends, "")
	c.expect(http.StatusCreated, "MKCOL", friends, fmt.Sprintf(mkcol, "<c:addressbook/>"))
	c.expect(http.StatusCreated, "PUT", friends+"x.vcf", newCard("x", "Xaver"))
	c.expect(http.StatusForbidden, "MKCALENDAR", calendarHome+"y/", `<c:mkcalendar xmlns:d="DAV:" xmlns:c="`+caldavSpace+
		`"><d:set><d:prop><d:getetag>1</d:getetag></d:prop></d:set></c:mkcalendar>`)
	c.expect(http.StatusForbidden, "MKCALENDAR", calendarHome+"y/", `<c:mkcalendar xmlns:d="DAV:" xmlns:c="`+caldavSpace+
		`"><d:set><d:prop><c:supported-calendar-component-set/></d:prop></d:set></c:mkcalendar>`)
	for i := range maxCollections - 4 {
		c.expect(http.StatusCreated, "MKCALENDAR", fmt.Sprintf("%sc%d/", calendarHome, i), "")
	}
	c.expect(http.StatusInsufficientStorage, "MKCALENDAR", calendarHome+"more/", "")
}

func TestPropPatch(t *testing.T) {
	c := newDAV(t)
	patch := func(path, instructions string) davResponse {
		t.Helper()
		return c.expect(http.StatusMultiStatus, "PROPPATCH", path, `<d:propertyupdate xmlns:d="DAV:" xmlns:i="`+appleSpace+
			`" xmlns:v="urn:vendor" xmlns:w="urn:other" xml:lang="de">`+instructions+`</d:propertyupdate>`)
	}
	resp := patch(personal, `<d:set><d:prop><d:displayname>Privat</d:displayname><i:calendar-color w:name="rot" plain="1" xml:lang="en">#FF0000</i:calendar-color>
		<v:deep><w:er>&lt;</w:er><plain xmlns="">x</plain></v:deep></d:prop></d:set>`)
	c.hasNot(resp, "403")
	ask := `<d:propfind xmlns:d="DAV:" xmlns:i="` + appleSpace + `" xmlns:v="urn:vendor"><d:prop><d:displayname/><i:calendar-color/><v:deep/></d:prop></d:propfind>`
	resp = c.expect(http.StatusMultiStatus, "PROPFIND", personal, ask, "Depth: 0")
	c.has(resp, "<d:displayname>Privat</d:displayname>")
	c.has(resp, `<ical:calendar-color xmlns:a0="urn:other" a0:name="rot" plain="1" xml:lang="en">#FF0000</ical:calendar-color>`)
	c.has(resp, `<x:deep xmlns:x="urn:vendor"><x:er xmlns:x="urn:other">&lt;</x:er><plain>x</plain></x:deep>`)
	c.hasNot(resp, "404")

	resp = patch(personal, `<d:remove><d:prop><v:deep/></d:prop></d:remove><d:set><d:prop><d:getetag>x</d:getetag></d:prop></d:set>`)
	c.has(resp, "<d:prop><d:getetag/></d:prop><d:status>HTTP/1.1 403 Forbidden")
	c.has(resp, `<x:deep xmlns:x="urn:vendor"/></d:prop><d:status>HTTP/1.1 424 Failed Dependency`)
	c.has(c.do("PROPFIND", personal, ask, "Depth: 0"), "urn:other")
	patch(personal, `<d:remove><d:prop><v:deep/><d:displayname/></d:prop></d:remove>`)
	c.has(c.do("PROPFIND", personal, ask, "Depth: 0"), "404 Not Found")
	for _, path := range []string{"/" + alice + "/", calendarHome} {
		c.has(patch(path, `<d:set><d:prop><d:displayname>x</d:displayname></d:prop></d:set>`), "403 Forbidden")
	}
	c.expect(http.StatusNotFound, "PROPPATCH", calendarHome+"none/", "")
	var many strings.Builder
	for i := range maxDead + 1 {
		fmt.Fprintf(&many, "<v:p%d>x</v:p%d>", i, i)
	}
	c.expect(http.StatusInsufficientStorage, "PROPPATCH", personal,
		`<d:propertyupdate xmlns:d="DAV:" xmlns:v="urn:vendor"><d:set><d:prop>`+many.String()+`</d:prop></d:set></d:propertyupdate>`)
}

func syncBody(token, limit string) string {
	return `<d:sync-collection xmlns:d="DAV:"><d:sync-token>` + token + `</d:sync-token><d:sync-level>1</d:sync-level>` + limit +
		`<d:prop><d:getetag/></d:prop></d:sync-collection>`
}

var syncTokenPattern = regexp.MustCompile(`<d:sync-token>([^<]+)</d:sync-token>`)

func syncTokenIn(t *testing.T, resp davResponse) string {
	t.Helper()
	found := syncTokenPattern.FindStringSubmatch(resp.body)
	if found == nil {
		t.Fatalf("no sync token in %s", resp.body)
	}
	return found[1]
}

var hrefPattern = regexp.MustCompile(`<d:href>([^<]+)</d:href>`)

func hrefsIn(resp davResponse) []string {
	var paths []string
	for _, found := range hrefPattern.FindAllStringSubmatch(resp.body, -1) {
		paths = append(paths, found[1])
	}
	return paths
}

func TestSyncCollection(t *testing.T) {
	c := newDAV(t)
	sync := func(token string) davResponse {
		t.Helper()
		return c.expect(http.StatusMultiStatus, "REPORT", people, syncBody(token, ""))
	}
	all := sync("")
	if got := len(hrefsIn(all)); got != 10 {
		t.Fatalf("the first synchronisation tells of %d contacts, want 10", got)
	}
	token := syncTokenIn(t, all)
	if again := sync(token); syncTokenIn(t, again) != token || len(hrefsIn(again)) != 0 {
		t.Errorf("nothing happened, but got %s", again.body)
	}
	c.expect(http.StatusCreated, "PUT", people+"new.vcf", newCard("new", "Nora"))
	c.expect(http.StatusNoContent, "PUT", people+"enzo.vcf", newCard("enzo@demo.postern.example", "Enzo"))
	c.expect(http.StatusNoContent, "DELETE", people+"mei.vcf", "")
	changed := sync(token)
	if got, want := hrefsIn(changed), []string{people + "new.vcf", people + "enzo.vcf", people + "mei.vcf"}; !slices.Equal(got, want) {
		t.Errorf("changed: %q, want %q", got, want)
	}
	c.has(changed, "<d:href>"+people+"mei.vcf</d:href><d:status>HTTP/1.1 404 Not Found</d:status>")
	c.hasNot(sync(""), "mei.vcf")

	var seen []string
	for token := ""; ; {
		part := c.expect(http.StatusMultiStatus, "REPORT", people, syncBody(token, "<d:limit><d:nresults>4</d:nresults></d:limit>"))
		hrefs := hrefsIn(part)
		token = syncTokenIn(t, part)
		if !strings.Contains(part.body, "507 Insufficient Storage") {
			seen = append(seen, hrefs...)
			break
		}
		seen = append(seen, hrefs[:len(hrefs)-1]...) // the last is the collection's own
	}
	// ten that are there, and the one that is gone: it went after the first part's token
	if slices.Sort(seen); len(slices.Compact(seen)) != 11 || len(seen) != 11 {
		t.Errorf("in parts: %q", seen)
	}
	for _, bad := range []string{"nonsense", token + "0", strings.Replace(token, "data:,", "data:,x", 1)} {
		c.has(c.expect(http.StatusForbidden, "REPORT", people, syncBody(bad, "")), "valid-sync-token")
	}
	for range maxGone {
		c.expect(http.StatusCreated, "PUT", people+"brief.vcf", newCard("brief", "B"))
		c.expect(http.StatusNoContent, "DELETE", people+"brief.vcf", "")
	}
	sync(token) // one name is remembered once
}

func TestForgottenDeletionsEndTokens(t *testing.T) {
	c := newCollection(contacts)
	old := c.token(c.seq)
	for i := range maxGone + 1 {
		name := fmt.Sprint(i)
		c.put(name, &item{})
		c.remove(name)
	}
	if _, known := c.since(old); known || len(c.gone) != maxGone {
		t.Errorf("%d deletions are kept; known: %t", len(c.gone), known)
	}
	if _, known := c.since(c.token(c.floor)); !known {
		t.Error("the token right behind what is forgotten is refused")
	}
}

func TestCollectionsAreBounded(t *testing.T) {
	c := newDAV(t)
	c.expect(http.StatusOK, "GET", people+"enzo.vcf", "") // makes the samples
	c.b.dav.mu.Lock()
	book := c.b.dav.accounts[alice][contacts]["contacts"]
	for i := len(book.items); i < maxItems; i++ {
		book.items[fmt.Sprint(i)] = &item{}
	}
	c.b.dav.mu.Unlock()
	c.expect(http.StatusInsufficientStorage, "PUT", people+"more.vcf", newCard("more", "M"))
	c.expect(http.StatusNoContent, "PUT", people+"enzo.vcf", newCard("enzo@demo.postern.example", "Enzo"))
}

func TestUnknownReport(t *testing.T) {
	c := newDAV(t)
	c.has(c.expect(http.StatusForbidden, "REPORT", personal, `<d:expand-property xmlns:d="DAV:"/>`), "supported-report")
	c.has(c.expect(http.StatusForbidden, "REPORT", people, `<c:calendar-query xmlns:c="`+caldavSpace+`"/>`), "supported-report")
	c.expect(http.StatusNotFound, "REPORT", calendarHome+"none/", syncBody("", ""))
}

func TestLibraryClients(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	hc := webdav.HTTPClientWithBasicAuth(nil, alice, string(b.DAVPassword))
	base := "http://" + b.DAVAddress
	cal, err := webdavcal.NewClient(hc, base)
	if err != nil {
		t.Fatal(err)
	}
	me, err := cal.FindCurrentUserPrincipal(ctx)
	if err != nil {
		t.Fatal(err)
	}
	home, err := cal.FindCalendarHomeSet(ctx, me)
	if err != nil {
		t.Fatal(err)
	}
	found, err := cal.FindCalendars(ctx, home)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range found {
		names = append(names, f.Name)
	}
	if want := []string{"Personal", "Tasks", "Work"}; !slices.Equal(names, want) {
		t.Errorf("calendars: %q, want %q", names, want)
	}

	now := time.Now()
	monday := now.AddDate(0, 0, -(int(now.Weekday())+6)%7).Truncate(24 * time.Hour)
	week := &webdavcal.CalendarQuery{
		CompRequest: webdavcal.CalendarCompRequest{Name: "VCALENDAR", AllProps: true, AllComps: true},
		CompFilter: webdavcal.CompFilter{Name: "VCALENDAR", Comps: []webdavcal.CompFilter{
			{Name: "VEVENT", Start: monday, End: monday.AddDate(0, 0, 7)},
		}},
	}
	for path, want := range map[string]int{"personal/": 5, "work/": 3, "tasks/": 0} {
		objects, err := cal.QueryCalendar(ctx, home+path, week)
		if err != nil || len(objects) != want {
			t.Errorf("%s: %d events this week, %v; want %d", path, len(objects), err, want)
		}
	}
	ev := ical.NewCalendar()
	ev.Props.SetText(ical.PropVersion, "2.0")
	ev.Props.SetText(ical.PropProductID, "test")
	e := ical.NewEvent()
	e.Props.SetText(ical.PropUID, "lib")
	e.Props.SetDateTime(ical.PropDateTimeStamp, now.UTC())
	e.Props.SetDateTime(ical.PropDateTimeStart, now.UTC())
	ev.Children = append(ev.Children, e.Component)
	if _, err := cal.PutCalendarObject(ctx, home+"personal/lib.ics", ev); err != nil {
		t.Fatal(err)
	}
	got, err := cal.MultiGetCalendar(ctx, home+"personal/", &webdavcal.CalendarMultiGet{
		Paths: []string{home + "personal/lib.ics"}, CompRequest: week.CompRequest,
	})
	if err != nil || len(got) != 1 {
		t.Errorf("multiget: %v, %v", got, err)
	}
	if err := cal.RemoveAll(ctx, home+"personal/lib.ics"); err != nil {
		t.Error(err)
	}

	card, err := webdavcard.NewClient(hc, base+me)
	if err != nil {
		t.Fatal(err)
	}
	if err := card.HasSupport(ctx); err != nil {
		t.Error(err)
	}
	books, err := card.FindAddressBookHomeSet(ctx, me)
	if err != nil {
		t.Fatal(err)
	}
	list, err := card.FindAddressBooks(ctx, books)
	if err != nil || len(list) != 1 || list[0].Name != "Contacts" {
		t.Fatalf("address books: %v, %v", list, err)
	}
	synced, err := card.SyncCollection(ctx, list[0].Path, &webdavcard.SyncQuery{DataRequest: webdavcard.AddressDataRequest{AllProp: true}})
	if err != nil || len(synced.Updated) != 10 {
		t.Errorf("synchronised: %v, %v", synced, err)
	}
	queried, err := card.QueryAddressBook(ctx, list[0].Path, &webdavcard.AddressBookQuery{
		DataRequest: webdavcard.AddressDataRequest{AllProp: true},
		PropFilters: []webdavcard.PropFilter{{Name: vcard.FieldFormattedName, TextMatches: []webdavcard.TextMatch{{Text: "jörg"}}}},
	})
	if err != nil || len(queried) != 1 || queried[0].Card.Value(vcard.FieldFormattedName) != "Jörg Weiß" {
		t.Errorf("query: %v, %v", queried, err)
	}
}

func TestHrefsAreWhatClientsMustAskFor(t *testing.T) {
	c := davClient{t, start(t), "o'neil+çedilla@example.test"}
	resp := c.expect(http.StatusMultiStatus, "PROPFIND", "/", `<propfind xmlns="DAV:"><prop><current-user-principal/></prop></propfind>`, "Depth: 0")
	root := hrefsIn(resp)[1]
	name, err := url.PathUnescape(strings.Trim(root, "/"))
	if err != nil || name != c.address {
		t.Fatalf("principal %s", root)
	}
	path := root + "calendars/personal/a%2Fb%3F.ics"
	c.expect(http.StatusNotFound, "PUT", path, newEvent("x", "x")) // a slash in a name is more than clients agree on
	path = root + "calendars/personal/b%3F%20%25.ics"
	c.expect(http.StatusCreated, "PUT", path, newEvent("x", "x"))
	if got := hrefsIn(c.do("PROPFIND", path, "", "Depth: 0"))[0]; got != path {
		t.Errorf("got %s, want %s", got, path)
	}
}
