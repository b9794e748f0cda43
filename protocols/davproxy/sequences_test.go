package davproxy_test

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"postern/internal/testlab"
)

// step is one request of an app, as its source or a record of it has it, and what must come back.
type step struct {
	method, path string // {NAME} in a path is an href that an earlier answer gave for the property NAME
	depth, body  string
	header       []string
	stranger     bool // sent without credentials

	of   string   // "cal", "card": the scope that it needs; empty: none
	want int      // the status for whom it is open, or for everybody
	out  int      // without the scope; zero: the same
	ro   int      // with the right to read only; zero: the same
	has  []string // in every answer with the status want; {NAME} as above
	only []string // in the answer if it is open, and else not
	take []string // properties whose href the app goes on with
}

// The namespaces that bodies below declare, as apps write them.
const (
	nsApple   = ` xmlns:A="DAV:" xmlns:B="urn:ietf:params:xml:ns:caldav" xmlns:C="http://calendarserver.org/ns/" xmlns:D="http://apple.com/ns/ical/" xmlns:E="http://me.com/_namespace/" xmlns:F="urn:ietf:params:xml:ns:carddav"`
	nsDAVx5   = ` xmlns="DAV:" xmlns:CAL="urn:ietf:params:xml:ns:caldav" xmlns:CARD="urn:ietf:params:xml:ns:carddav" xmlns:CS="http://calendarserver.org/ns/" xmlns:P="https://bitfire.at/webdav-push"`
	nsThunder = ` xmlns:D='DAV:' xmlns:C='urn:ietf:params:xml:ns:caldav' xmlns:CS='http://calendarserver.org/ns/' xmlns:A='http://apple.com/ns/ical/' xmlns:card='urn:ietf:params:xml:ns:carddav'`
)

func apple(props string) string {
	return `<?xml version="1.0" encoding="UTF-8"?>` + "\n<A:propfind" + nsApple + ">\n  <A:prop>\n" + props + "\n  </A:prop>\n</A:propfind>\n"
}

func davx5(props string) string {
	return `<?xml version='1.0' encoding='UTF-8' ?><propfind` + nsDAVx5 + `><prop>` + props + `</prop></propfind>`
}

func thunderbird(props string) string {
	return `<?xml version="1.0" encoding="UTF-8"?>` + "\n<D:propfind" + nsThunder + "><D:prop>" + props + "</D:prop></D:propfind>"
}

var (
	appleHead = []string{"Brief", "t", "Prefer", "return=minimal", "Accept", "*/*", "Accept-Language", "en", "User-Agent", "iOS/17.5 (21F79) accountsd/1.0"}
	appleAsk  = apple("<A:current-user-principal/><A:principal-URL/><A:resourcetype/>")
	appleSelf = apple("<B:calendar-home-set/><B:calendar-user-address-set/><A:current-user-principal/><A:displayname/><C:dropbox-home-URL/><C:email-address-set/>" +
		"<C:notification-URL/><A:principal-collection-set/><A:principal-URL/><A:resource-id/><B:schedule-inbox-URL/><B:schedule-outbox-URL/><A:supported-report-set/>")
	appleHome = apple("<A:add-member/><C:allowed-sharing-modes/><D:autoprovisioned/><E:bulk-requests/><D:calendar-color/><B:calendar-description/>" +
		"<B:calendar-free-busy-set/><D:calendar-order/><B:calendar-timezone/><A:current-user-privilege-set/><B:default-alarm-vevent-date/><A:displayname/>" +
		"<C:getctag/><D:language-code/><D:location-code/><A:owner/><C:pre-publish-url/><C:publish-url/><C:push-transports/><C:pushkey/>" +
		"<A:quota-available-bytes/><A:quota-used-bytes/><D:refreshrate/><A:resource-id/><A:resourcetype/><B:schedule-calendar-transp/>" +
		"<B:schedule-default-calendar-URL/><C:source/><C:subscribed-strip-alarms/><B:supported-calendar-component-set/><B:supported-calendar-component-sets/>" +
		"<A:supported-report-set/><A:sync-token/>")
	patchOrder = `<?xml version="1.0" encoding="UTF-8"?>` + "\n<A:propertyupdate" + nsApple + "><A:set><A:prop><D:calendar-order>3</D:calendar-order></A:prop></A:set>" +
		"<A:set><A:prop><D:calendar-color symbolic-color=\"custom\">#1BADF8FF</D:calendar-color></A:prop></A:set></A:propertyupdate>"
	patchAlarm = "<A:propertyupdate" + nsApple + "><A:set><A:prop><B:default-alarm-vevent-date>BEGIN:VALARM&#13;\nEND:VALARM&#13;\n</B:default-alarm-vevent-date></A:prop></A:set></A:propertyupdate>"
	expand     = "<A:expand-property" + nsApple + `><A:property name="calendar-proxy-write-for" namespace="http://calendarserver.org/ns/"><A:property name="displayname" namespace="DAV:"/></A:property></A:expand-property>`
	searchable = `<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<A:principal-search-property-set xmlns:A="DAV:"/>`
	appleSync  = "<A:sync-collection" + nsApple + "><A:sync-token></A:sync-token><A:sync-level>1</A:sync-level><A:prop><A:getcontenttype/><A:getetag/></A:prop></A:sync-collection>"
)

// syncOf and multiget are what DAVx5 and Thunderbird fetch with.
func syncOf() string {
	return `<sync-collection xmlns="DAV:"><sync-token/><sync-level>1</sync-level><prop><getetag/></prop></sync-collection>`
}

func multiget(kind, data, href string) string {
	return fmt.Sprintf(`<X:%s-multiget xmlns="DAV:" xmlns:X="urn:ietf:params:xml:ns:%s"><prop><getetag/><X:%s/></prop><href>%s</href></X:%s-multiget>`,
		kind, map[string]string{"calendar": "caldav", "addressbook": "carddav"}[kind], data, href, kind)
}

// sequences are the apps' requests in their order (measured and read in the apps' sources). An app that finds a home or a token of the header DAV
// missing stops there; the steps go on, for another version may not.
var sequences = map[string][]step{
	"iOS and macOS, calendars": {
		{method: "PROPFIND", path: "/.well-known/caldav", depth: "0", body: appleAsk, header: appleHead, stranger: true, want: 301, take: []string{"location"}},
		{method: "PROPFIND", path: "{location}", depth: "0", body: appleAsk, header: appleHead, stranger: true, want: 401},
		{method: "PROPFIND", path: "/.well-known/caldav", depth: "0", body: appleAsk, header: appleHead, want: 301},
		{method: "PROPFIND", path: "{location}", depth: "0", body: appleAsk, header: appleHead, want: 207, take: []string{"current-user-principal"}},
		{method: "PROPFIND", path: "/principals/", depth: "0", body: appleAsk, header: appleHead, stranger: true, want: 401},
		{method: "PROPFIND", path: "/principals/", depth: "0", body: appleAsk, header: appleHead, want: 207, has: []string{"current-user-principal", "{current-user-principal}"}},
		{method: "PROPFIND", path: "/", depth: "0", body: appleAsk, header: appleHead, stranger: true, want: 401},
		{method: "PROPFIND", path: "/", depth: "0", body: appleAsk, header: appleHead, want: 207, has: []string{"{current-user-principal}"}},
		{method: "OPTIONS", path: "{current-user-principal}", header: appleHead, want: 200},
		{method: "PROPFIND", path: "{current-user-principal}", depth: "0", body: appleSelf, header: appleHead, want: 207, has: []string{"mailto:" + testlab.Alice}, take: []string{"calendar-home-set"}},
		{method: "OPTIONS", path: "{current-user-principal}", header: appleHead, want: 200},
		{method: "REPORT", path: "{current-user-principal}", depth: "0", body: searchable, header: appleHead, want: 403, has: []string{"<error"}},
		{method: "REPORT", path: "{current-user-principal}", depth: "0", body: expand, header: appleHead, want: 403, has: []string{"<error"}},
		{method: "PROPFIND", path: "{calendar-home-set}", depth: "1", body: appleHome, header: appleHead, of: "cal", want: 207, only: []string{"/work/", "sync-token", "getctag"}},
		{method: "OPTIONS", path: "{calendar-home-set}", header: appleHead, want: 200},
		{method: "PROPPATCH", path: "{calendar-home-set}", body: patchAlarm, header: appleHead, want: 207, has: []string{"403 Forbidden"}},
		{method: "PROPPATCH", path: "{calendar-home-set}work/", body: patchOrder, header: appleHead, of: "cal", want: 207, out: 404, only: []string{"calendar-color", "calendar-order"}},
		{method: "PROPFIND", path: "{calendar-home-set}work/", depth: "0", body: apple("<C:getctag/><A:sync-token/>"), header: appleHead, of: "cal", want: 207, out: 404, only: []string{"getctag", "sync-token"}},
		{method: "REPORT", path: "{calendar-home-set}work/", depth: "1", body: appleSync, header: appleHead, of: "cal", want: 207, out: 404, only: []string{"work/1.ics", "getetag>", "sync-token"}},
		{method: "REPORT", path: "{calendar-home-set}work/", depth: "1", body: multiget("calendar", "calendar-data", cal+"work/1.ics"), header: appleHead, of: "cal", want: 207, out: 404, only: []string{"BEGIN:VEVENT"}},
		{method: "MKCALENDAR", path: "{calendar-home-set}3F2504E0-4F89-11D3-9A0C-0305E82C3301/", body: makeCal, header: appleHead, of: "cal", want: 201, out: 403, ro: 403},
		{method: "PUT", path: "{calendar-home-set}3F2504E0-4F89-11D3-9A0C-0305E82C3301/A.ics", body: testlab.Event("A"), header: append([]string{"If-None-Match", "*"}, appleHead...), of: "cal", want: 201, out: 404, ro: 403},
		{method: "DELETE", path: "{calendar-home-set}3F2504E0-4F89-11D3-9A0C-0305E82C3301/", header: appleHead, of: "cal", want: 200, out: 404, ro: 403},
	},
	"iOS and macOS, contacts": {
		{method: "PROPFIND", path: "/.well-known/carddav", depth: "0", body: appleAsk, header: appleHead, stranger: true, want: 301, take: []string{"location"}},
		{method: "PROPFIND", path: "{location}", depth: "0", body: appleAsk, header: appleHead, stranger: true, want: 401},
		{method: "PROPFIND", path: "{location}", depth: "0", body: appleAsk, header: appleHead, want: 207, take: []string{"current-user-principal"}},
		{method: "PROPFIND", path: "{current-user-principal}", depth: "0", body: apple("<F:addressbook-home-set/><F:directory-gateway/><A:displayname/><C:email-address-set/><A:principal-collection-set/><A:principal-URL/><A:resource-id/><A:supported-report-set/>"),
			header: appleHead, want: 207, take: []string{"addressbook-home-set"}},
		{method: "OPTIONS", path: "{current-user-principal}", header: appleHead, want: 200},
		{method: "PROPFIND", path: "{addressbook-home-set}", depth: "1", body: apple("<A:add-member/><E:bulk-requests/><A:current-user-privilege-set/><A:displayname/><F:max-image-size/><F:max-resource-size/><C:me-card/><A:owner/><C:push-transports/><C:pushkey/><A:quota-available-bytes/><A:quota-used-bytes/><A:resource-id/><A:resourcetype/><A:supported-report-set/><A:sync-token/>"),
			header: appleHead, of: "card", want: 207, only: []string{"/friends/", "sync-token"}},
		{method: "REPORT", path: "{addressbook-home-set}friends/", depth: "1", body: appleSync, header: appleHead, of: "card", want: 207, out: 404, only: []string{"friends/1.vcf", "sync-token"}},
		{method: "REPORT", path: "{addressbook-home-set}friends/", depth: "1", body: multiget("addressbook", "address-data", card+"friends/1.vcf"), header: appleHead, of: "card", want: 207, out: 404, only: []string{"BEGIN:VCARD"}},
	},
	"DAVx5": {
		{method: "PROPFIND", path: "/", depth: "0", body: davx5("<resourcetype/><displayname/><CARD:addressbook-description/><CARD:addressbook-home-set/><current-user-principal/>"), want: 207, take: []string{"current-user-principal", "addressbook-home-set"}},
		{method: "OPTIONS", path: "{current-user-principal}", of: "card", want: 200, only: []string{"DAV: addressbook"}},
		{method: "PROPFIND", path: "/.well-known/carddav", depth: "0", body: davx5("<current-user-principal/>"), want: 301, take: []string{"location"}},
		{method: "PROPFIND", path: "{location}", depth: "0", body: davx5("<current-user-principal/>"), want: 207, has: []string{"{current-user-principal}"}},
		{method: "PROPFIND", path: "/", depth: "0", body: davx5("<resourcetype/><displayname/><CAL:calendar-description/><CAL:supported-calendar-component-set/><CAL:calendar-home-set/><current-user-principal/>"), want: 207, take: []string{"current-user-principal"}},
		{method: "OPTIONS", path: "{current-user-principal}", of: "cal", want: 200, only: []string{"DAV: calendar-access"}},
		{method: "PROPFIND", path: "{current-user-principal}", depth: "0", body: davx5("<CAL:calendar-user-address-set/>"), want: 207, has: []string{"mailto:" + testlab.Alice}},
		{method: "PROPFIND", path: "{current-user-principal}", depth: "0", body: davx5("<displayname/><CAL:calendar-home-set/><CS:calendar-proxy-read-for/><CS:calendar-proxy-write-for/><resourcetype/><group-membership/><CARD:addressbook-home-set/>"), want: 207, take: []string{"calendar-home-set"}},
		{method: "PROPFIND", path: "{calendar-home-set}", depth: "1", body: davx5("<resourcetype/><displayname/><owner/><current-user-privilege-set/><CAL:calendar-description/><CAL:calendar-timezone/><CAL:supported-calendar-component-set/><CS:source/><P:transports/><P:topic/><sync-token/><CS:getctag/>"),
			of: "cal", want: 207, only: []string{"/work/", "privilege>"}},
		{method: "PROPFIND", path: "{addressbook-home-set}", depth: "1", body: davx5("<resourcetype/><displayname/><owner/><current-user-privilege-set/><CARD:addressbook-description/><CARD:supported-address-data/><P:transports/><P:topic/>"),
			of: "card", want: 207, only: []string{"/friends/", "privilege>"}},
		{method: "PROPFIND", path: "{calendar-home-set}work/", depth: "0", body: davx5("<CAL:max-resource-size/><supported-report-set/><CS:getctag/><sync-token/>"), of: "cal", want: 207, out: 404, only: []string{"sync-collection", "getctag"}},
		{method: "REPORT", path: "{calendar-home-set}work/", depth: "0", body: syncOf(), of: "cal", want: 207, out: 404, only: []string{"work/1.ics", "sync-token"}},
		{method: "REPORT", path: "{calendar-home-set}work/", depth: "1", body: `<CAL:calendar-query xmlns="DAV:" xmlns:CAL="urn:ietf:params:xml:ns:caldav"><prop><getetag/></prop><CAL:filter><CAL:comp-filter name="VCALENDAR"><CAL:comp-filter name="VEVENT"/></CAL:comp-filter></CAL:filter></CAL:calendar-query>`,
			of: "cal", want: 207, out: 404, only: []string{"work/1.ics"}},
		{method: "REPORT", path: "{calendar-home-set}work/", depth: "0", body: multiget("calendar", "calendar-data", cal+"work/1.ics"), of: "cal", want: 207, out: 404, only: []string{"BEGIN:VEVENT"}},
		{method: "REPORT", path: "{addressbook-home-set}friends/", depth: "0", body: multiget("addressbook", "address-data", card+"friends/1.vcf"), of: "card", want: 207, out: 404, only: []string{"BEGIN:VCARD"}},
		{method: "PUT", path: "{calendar-home-set}work/davx5.ics", body: testlab.Event("davx5"), header: []string{"If-None-Match", "*"}, of: "cal", want: 201, out: 404, ro: 403},
		{method: "DELETE", path: "{calendar-home-set}work/davx5.ics", of: "cal", want: 200, out: 404, ro: 403},
		{method: "PUT", path: "{addressbook-home-set}friends/davx5.vcf", body: testlab.Card("davx5"), header: []string{"If-None-Match", "*"}, of: "card", want: 201, out: 404, ro: 403},
		{method: "DELETE", path: "{addressbook-home-set}friends/davx5.vcf", of: "card", want: 200, out: 404, ro: 403},
	},
	"Thunderbird, calendar": {
		{method: "PROPFIND", path: "/dav/", depth: "0", body: thunderbird("<D:resourcetype/><D:owner/><D:displayname/><D:current-user-principal/><D:current-user-privilege-set/><A:calendar-color/><C:calendar-home-set/>"), stranger: true, want: 401},
		{method: "PROPFIND", path: "/dav/", depth: "0", body: thunderbird("<D:resourcetype/><D:owner/><D:displayname/><D:current-user-principal/><D:current-user-privilege-set/><A:calendar-color/><C:calendar-home-set/>"), want: 207, take: []string{"calendar-home-set", "current-user-principal"}},
		{method: "PROPFIND", path: "/.well-known/caldav", depth: "0", body: thunderbird("<D:resourcetype/><D:current-user-principal/>"), stranger: true, want: 301, take: []string{"location"}},
		{method: "PROPFIND", path: "{location}", depth: "0", body: thunderbird("<D:resourcetype/><D:current-user-principal/>"), want: 207, has: []string{"{current-user-principal}"}},
		{method: "PROPFIND", path: "{current-user-principal}", depth: "0", body: thunderbird("<D:resourcetype/><C:calendar-home-set/>"), want: 207, has: []string{"{calendar-home-set}", "<principal"}},
		{method: "PROPFIND", path: "{calendar-home-set}", depth: "1", body: thunderbird("<D:resourcetype/><D:displayname/><D:current-user-privilege-set/><A:calendar-color/>"), of: "cal", want: 207, only: []string{"/work/", "privilege>"}},
		{method: "PROPFIND", path: "{calendar-home-set}work/", depth: "0", body: thunderbird("<D:resourcetype/><D:owner/><D:current-user-principal/><D:current-user-privilege-set/><D:supported-report-set/><C:supported-calendar-component-set/><CS:getctag/>"),
			of: "cal", want: 207, out: 404, only: []string{"calendar", "sync-collection", "getctag", "{current-user-principal}"}},
		{method: "OPTIONS", path: "{calendar-home-set}", of: "cal", want: 200, only: []string{"DAV: calendar-access"}},
		{method: "PROPFIND", path: "{current-user-principal}", depth: "0", body: thunderbird("<C:calendar-home-set/><C:calendar-user-address-set/><C:schedule-inbox-URL/><C:schedule-outbox-URL/>"), want: 207, has: []string{"mailto:" + testlab.Alice}},
		{method: "REPORT", path: "{calendar-home-set}work/", depth: "1", body: syncOf(), of: "cal", want: 207, out: 404, only: []string{"work/1.ics", "sync-token"}},
		{method: "REPORT", path: "{calendar-home-set}work/", depth: "1", body: multiget("calendar", "calendar-data", cal+"work/1.ics"), of: "cal", want: 207, out: 404, only: []string{"BEGIN:VEVENT"}},
		{method: "GET", path: "{calendar-home-set}work/1.ics", of: "cal", want: 200, out: 404, only: []string{"BEGIN:VEVENT"}},
	},
	"Thunderbird, contacts": {
		{method: "PROPFIND", path: "/dav/", depth: "0", body: thunderbird("<D:resourcetype/><D:displayname/><D:current-user-principal/><D:current-user-privilege-set/>"), stranger: true, want: 401},
		{method: "PROPFIND", path: "/dav/", depth: "0", body: thunderbird("<D:resourcetype/><D:displayname/><D:current-user-principal/><D:current-user-privilege-set/>"), want: 207, take: []string{"current-user-principal"}},
		{method: "PROPFIND", path: "/.well-known/carddav", depth: "0", body: thunderbird("<D:resourcetype/>"), stranger: true, want: 301, take: []string{"location"}},
		{method: "PROPFIND", path: "/", depth: "0", body: thunderbird("<D:resourcetype/><D:displayname/><D:current-user-principal/><D:current-user-privilege-set/>"), want: 207, has: []string{"{current-user-principal}"}},
		{method: "PROPFIND", path: "{current-user-principal}", depth: "0", body: thunderbird("<card:addressbook-home-set/>"), want: 207, take: []string{"addressbook-home-set"}},
		{method: "PROPFIND", path: "{addressbook-home-set}", depth: "1", body: thunderbird("<D:resourcetype/><D:displayname/><D:current-user-privilege-set/>"), of: "card", want: 207, only: []string{"/friends/", "privilege>"}},
		{method: "PROPFIND", path: "{addressbook-home-set}friends/", depth: "0", body: thunderbird("<D:resourcetype/><D:current-user-privilege-set/><D:supported-report-set/>"), of: "card", want: 207, out: 404, only: []string{"sync-collection", "addressbook"}},
		{method: "REPORT", path: "{addressbook-home-set}friends/", depth: "1", body: syncOf(), of: "card", want: 207, out: 404, only: []string{"friends/1.vcf", "sync-token"}},
		{method: "REPORT", path: "{addressbook-home-set}friends/", depth: "1", body: multiget("addressbook", "address-data", card+"friends/1.vcf"), of: "card", want: 207, out: 404, only: []string{"BEGIN:VCARD"}},
	},
	"Evolution": {
		{method: "PROPFIND", path: "/", depth: "0", body: davx5("<displayname/><resourcetype/><CAL:calendar-description/><CAL:supported-calendar-component-set/><CAL:calendar-user-address-set/><CAL:calendar-home-set/><CARD:addressbook-home-set/><current-user-principal/><principal-URL/>"),
			want: 207, take: []string{"calendar-home-set", "addressbook-home-set", "current-user-principal", "principal-URL"}},
		{method: "PROPFIND", path: "{calendar-home-set}", depth: "1", body: davx5("<displayname/><resourcetype/><CAL:calendar-description/><CAL:supported-calendar-component-set/>"), of: "cal", want: 207, only: []string{"/work/"}},
		{method: "PROPFIND", path: "{addressbook-home-set}", depth: "1", body: davx5("<displayname/><resourcetype/><CARD:addressbook-description/>"), of: "card", want: 207, only: []string{"/friends/"}},
		{method: "PROPFIND", path: "{current-user-principal}", depth: "0", body: davx5("<CAL:calendar-home-set/><CARD:addressbook-home-set/><current-user-principal/><principal-URL/>"), want: 207, has: []string{"{calendar-home-set}", "{addressbook-home-set}"}},
		{method: "PROPFIND", path: "/.well-known/caldav", depth: "0", body: davx5("<CAL:calendar-home-set/>"), want: 301},
		{method: "PROPFIND", path: "/.well-known/webdav/Notes/", depth: "0", body: davx5("<resourcetype/>"), stranger: true, want: 401},
		{method: "PROPFIND", path: "/.well-known/webdav/Notes/", depth: "0", body: davx5("<resourcetype/>"), want: 404, has: []string{"<?xml", "<error"}},
		{method: "PROPFIND", path: "/.well-known/carddav", depth: "0", body: davx5("<CARD:addressbook-home-set/>"), want: 301},
		{method: "OPTIONS", path: "{calendar-home-set}work/", of: "cal", want: 200, out: 404, only: []string{"DAV: calendar-access"}},
		{method: "OPTIONS", path: "{addressbook-home-set}friends/", of: "card", want: 200, out: 404, only: []string{"DAV: addressbook"}},
		{method: "REPORT", path: "{calendar-home-set}work/", depth: "1", body: `<C:calendar-query xmlns:D="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><D:prop><D:getetag/></D:prop><C:filter><C:comp-filter name="VCALENDAR"><C:comp-filter name="VEVENT"/></C:comp-filter></C:filter></C:calendar-query>`,
			of: "cal", want: 207, out: 404, only: []string{"work/1.ics"}},
	},
	"vdirsyncer": {
		{method: "PROPFIND", path: "/", depth: "1", body: thunderbird("<D:current-user-principal/>"), want: 207, take: []string{"current-user-principal"}},
		{method: "PROPFIND", path: "/", depth: "0", body: thunderbird("<D:current-user-principal/>"), want: 207, has: []string{"{current-user-principal}"}},
		{method: "GET", path: "/.well-known/caldav", want: 301},
		{method: "PROPFIND", path: "{current-user-principal}", depth: "0", body: thunderbird("<C:calendar-home-set/>"), want: 207, take: []string{"calendar-home-set"}},
		{method: "PROPFIND", path: "{current-user-principal}", depth: "0", body: thunderbird("<card:addressbook-home-set/>"), want: 207, take: []string{"addressbook-home-set"}},
		{method: "PROPFIND", path: "{calendar-home-set}", depth: "1", body: thunderbird("<D:resourcetype/>"), of: "cal", want: 207, only: []string{"/work/"}},
		{method: "PROPFIND", path: "{addressbook-home-set}", depth: "1", body: thunderbird("<D:resourcetype/>"), of: "card", want: 207, only: []string{"/friends/"}},
		{method: "MKCOL", path: "{calendar-home-set}made/", body: strings.NewReplacer("carddav", "caldav", "addressbook", "calendar").Replace(makeCard), of: "cal", want: 201, out: 403, ro: 403},
		{method: "DELETE", path: "{calendar-home-set}made/", of: "cal", want: 200, out: 404, ro: 403},
		{method: "MKCOL", path: "{addressbook-home-set}made/", body: makeCard, of: "card", want: 201, out: 403, ro: 403},
		{method: "DELETE", path: "{addressbook-home-set}made/", of: "card", want: 200, out: 404, ro: 403},
		{method: "PROPFIND", path: "{calendar-home-set}work/", depth: "1", body: thunderbird("<D:resourcetype/><D:getcontenttype/><D:getetag/>"), of: "cal", want: 207, out: 404, only: []string{"work/1.ics"}},
	},
	"CalDAV Synchronizer": {
		{method: "PROPFIND", path: "/.well-known/caldav/", depth: "0", body: thunderbird("<D:current-user-principal/>"), want: 301, take: []string{"location"}},
		{method: "PROPFIND", path: "{location}", depth: "0", body: thunderbird("<D:current-user-principal/>"), want: 207, take: []string{"current-user-principal"}},
		{method: "PROPFIND", path: "{current-user-principal}", depth: "0", body: thunderbird("<C:calendar-home-set/>"), want: 207, take: []string{"calendar-home-set"}},
		{method: "PROPFIND", path: "{calendar-home-set}", depth: "1", body: thunderbird("<D:resourcetype/><D:displayname/><A:calendar-color/><C:supported-calendar-component-set/><A:calendar-order/><D:current-user-privilege-set/>"), of: "cal", want: 207, only: []string{"/work/", "privilege>"}},
		{method: "PROPFIND", path: "/.well-known/carddav/", depth: "0", body: thunderbird("<D:current-user-principal/>"), want: 301},
		{method: "PROPFIND", path: "{current-user-principal}", depth: "0", body: thunderbird("<card:addressbook-home-set/>"), want: 207, take: []string{"addressbook-home-set"}},
		{method: "PROPFIND", path: "{addressbook-home-set}", depth: "1", body: thunderbird("<D:resourcetype/><D:displayname/>"), of: "card", want: 207, only: []string{"/friends/"}},
		{method: "OPTIONS", path: "{calendar-home-set}work/", of: "cal", want: 200, out: 404, only: []string{"DAV: calendar-access"}},
		{method: "MKCOL", path: "{calendar-home-set}outlook/", body: strings.NewReplacer("carddav", "caldav", "addressbook", "calendar").Replace(makeCard), of: "cal", want: 201, out: 403, ro: 403},
		{method: "DELETE", path: "{calendar-home-set}outlook/", of: "cal", want: 200, out: 404, ro: 403},
		{method: "PUT", path: "{calendar-home-set}work/outlook.ics", body: testlab.Event("outlook"), header: []string{"If-None-Match", "*"}, of: "cal", want: 201, out: 404, ro: 403},
		{method: "DELETE", path: "{calendar-home-set}work/outlook.ics", of: "cal", want: 200, out: 404, ro: 403},
	},
}

// TestRequestsOfApps: each app's requests find what its app password opens, and nothing else.
func TestRequestsOfApps(t *testing.T) {
	t.Parallel()
	for _, site := range []string{"radicale", "xandikos"} {
		t.Run(site, func(t *testing.T) {
			t.Parallel()
			d := open(t, sites[site](t))
			d.want(201, "both", "MKCALENDAR", cal+"work/", makeCal)
			d.want(201, "both", "PUT", cal+"work/1.ics", testlab.Event("1"))
			d.want(201, "both", "MKCOL", card+"friends/", makeCard)
			d.want(201, "both", "PUT", card+"friends/1.vcf", testlab.Card("1"))
			for app, steps := range sequences {
				for _, password := range []string{"both", "cal", "card", "ro", "mail"} {
					t.Run(app+", "+password, func(t *testing.T) { play(t, d, password, steps) })
				}
			}
		})
	}
}

// play sends a sequence's requests with an app password.
func play(t *testing.T, d *door, password string, steps []step) {
	kept := make(map[string]string)
	with := func(s string) string {
		for name, href := range kept {
			s = strings.ReplaceAll(s, "{"+name+"}", href)
		}
		return s
	}
	for i, s := range steps {
		open := s.of == "" || password == "both" || password == "ro" || password == s.of
		want := s.want
		switch {
		case s.stranger || s.of == "" || open && password != "ro":
		case !open && s.out != 0:
			want = s.out
		case password == "ro" && s.ro != 0:
			want = s.ro
		}
		header := slices.Clone(s.header)
		if s.depth != "" {
			header = append(header, "Depth", s.depth)
		}
		sender := password
		if s.stranger {
			sender = ""
		}
		a := d.do(sender, s.method, with(s.path), s.body, header...)
		name := fmt.Sprintf("%d. %s %s", i+1, s.method, with(s.path))
		if a.StatusCode != want && (want != 200 || a.StatusCode != 204) {
			t.Errorf("%s: status %d, want %d\n%s", name, a.StatusCode, want, a.text)
			continue
		}
		text := a.text
		for _, token := range strings.Split(a.Header.Get("Dav"), ", ") {
			text += "\nDAV: " + token + "\n"
		}
		for _, part := range s.has {
			if want == s.want && !strings.Contains(text, with(part)) {
				t.Errorf("%s: %q is missing in\n%s", name, with(part), text)
			}
		}
		for _, part := range s.only {
			if got := strings.Contains(text, with(part)); got != open && (open || !strings.HasPrefix(part, "privilege>")) {
				t.Errorf("%s: %q is there: %t, want %t, in\n%s", name, with(part), got, open, text)
			}
		}
		found := usual(t, name, a)
		for _, property := range s.take {
			if kept[property] = found[property]; kept[property] == "" {
				t.Fatalf("%s: no href for %s in\n%s", name, property, text)
			}
		}
	}
}

// reply is a multistatus as an app reads it.
type reply struct {
	XMLName   xml.Name `xml:"DAV: multistatus"`
	Responses []struct {
		Href  string `xml:"DAV: href"`
		Stats []struct {
			Status string `xml:"DAV: status"`
			Prop   struct {
				Props []struct {
					XMLName xml.Name
					Href    []string `xml:"DAV: href"`
					Inner   string   `xml:",innerxml"`
				} `xml:",any"`
			} `xml:"DAV: prop"`
		} `xml:"DAV: propstat"`
	} `xml:"DAV: response"`
}

// usual looks at what holds for every answer, and returns the hrefs by property ("location": the header's).
func usual(t *testing.T, name string, a answer) map[string]string {
	t.Helper()
	found := make(map[string]string)
	switch got := a.Header.Values("WWW-Authenticate"); {
	case a.StatusCode == 401 && (len(got) != 1 || got[0] != challenge):
		t.Errorf("%s: challenged with %q", name, got)
	case a.StatusCode != 401 && len(got) > 0:
		t.Errorf("%s: challenged with %d", name, a.StatusCode)
	case a.StatusCode == 301:
		found["location"] = a.Header.Get("Location")
	case a.StatusCode == 403 && a.Request.Method != "REPORT" && !strings.Contains(a.text, "<need-privileges"):
		t.Errorf("%s: 403 without need-privileges (DAVx5, Thunderbird): %s", name, a.text)
	case a.StatusCode >= 400 && a.Request.Method != "HEAD" && xml.Unmarshal([]byte(a.text), new(struct {
		XMLName xml.Name `xml:"DAV: error"`
	})) != nil:
		t.Errorf("%s: an error that is no XML (Evolution): %s", name, a.text)
	}
	if a.StatusCode != 207 {
		return found
	}
	var r reply
	if err := xml.Unmarshal([]byte(a.text), &r); err != nil {
		t.Fatalf("%s: %v in\n%s", name, err, a.text)
	}
	for _, response := range r.Responses {
		if !strings.HasPrefix(response.Href, "/dav/") && response.Href != "/" && response.Href != "/principals/" {
			t.Errorf("%s: a response of %s", name, response.Href)
		}
		for i, stat := range response.Stats {
			if i == 0 && len(response.Stats) > 1 && stat.Status != "HTTP/1.1 200 OK" { // Thunderbird's address book looks no further
				t.Errorf("%s: the first status of %s is %q", name, response.Href, stat.Status)
			}
			for _, p := range stat.Prop.Props {
				if len(p.Href) > 0 && stat.Status == "HTTP/1.1 200 OK" {
					found[p.XMLName.Local] = p.Href[0]
				}
			}
		}
	}
	return found
}

// TestPrivilegesByScope: Thunderbird and DAVx5 show a collection as read-only by them.
func TestPrivilegesByScope(t *testing.T) {
	t.Parallel()
	for _, site := range []string{"radicale", "xandikos"} {
		t.Run(site, func(t *testing.T) {
			t.Parallel()
			d := open(t, sites[site](t))
			d.want(201, "both", "MKCALENDAR", cal+"work/", makeCal)
			d.want(201, "both", "MKCOL", card+"friends/", makeCard)
			ask := thunderbird("<D:current-user-privilege-set/><D:resourcetype/>")
			for _, path := range []string{cal + "work/", card + "friends/"} {
				for password, writes := range map[string]bool{"both": true, "ro": false} {
					a := d.want(207, password, "PROPFIND", path, ask, "Depth", "0")
					if got := strings.Contains(a.text, "write") || strings.Contains(a.text, ":all"); got != writes || !writes && !strings.Contains(a.text, "<read") {
						t.Errorf("%s with %s: the right to write is told: %t, want %t\n%s", path, password, got, writes, a.text)
					}
				}
			}
		})
	}
}

// TestABrowserIsTold what the address is for: people paste it there.
func TestABrowserIsTold(t *testing.T) {
	t.Parallel()
	d := open(t, routes{})
	for _, method := range []string{"GET", "HEAD"} {
		for _, path := range []string{"/", "/dav/", "/dav/cal/", "/principals/", self, cal, cal + "work/"} {
			a := d.want(http.StatusMethodNotAllowed, "both", method, path, "", "Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
			if got := a.Header.Get("Content-Type"); got != "text/plain; charset=utf-8" || method == "GET" && !strings.Contains(a.text, "calendar and contacts apps") {
				t.Errorf("%s %s: %s, %q", method, path, got, a.text)
			}
			if a := d.want(http.StatusMethodNotAllowed, "both", method, path, ""); a.Header.Get("Content-Type") != "application/xml; charset=utf-8" {
				t.Errorf("an app's %s %s: %v", method, path, a.Header)
			}
		}
	}
}

// TestEveryAddressLeadsOn: whatever people type, with and without a slash, an app finds the account and both homes.
func TestEveryAddressLeadsOn(t *testing.T) {
	t.Parallel()
	d := open(t, routes{})
	ask := davx5("<current-user-principal/><principal-URL/><resourcetype/><CAL:calendar-home-set/><CARD:addressbook-home-set/><P:topic/>")
	for _, path := range []string{"/", "/principals", "/principals/", "/dav", "/dav/", "/dav/p", "/dav/p/", "/dav/cal", "/dav/cal/", "/dav/card/", strings.TrimSuffix(self, "/"), self} {
		for _, password := range []string{"both", "cal", "card", "ro", "mail"} {
			for _, depth := range []string{"0", "1", "infinity"} {
				d.want(401, "", "PROPFIND", path, ask, "Depth", depth)
				a := d.want(207, password, "PROPFIND", path, ask, "Depth", depth)
				found := usual(t, path, a)
				for property, want := range map[string]string{"current-user-principal": self, "principal-URL": self, "calendar-home-set": cal, "addressbook-home-set": card} {
					if found[property] != want {
						t.Errorf("%s with %s, Depth %s: %s is %q, want %q", path, password, depth, property, found[property], want)
					}
				}
				if !strings.Contains(a.text, "404 Not Found") {
					t.Errorf("%s: nothing is said of what is not there:\n%s", path, a.text)
				}
				short := d.want(207, password, "PROPFIND", path, ask, "Depth", depth, "Prefer", "return=minimal").text
				if brief := d.want(207, password, "PROPFIND", path, ask, "Depth", depth, "Brief", "t").text; strings.Contains(short, "404") || brief != short {
					t.Errorf("%s: a short answer:\n%s\n%s", path, short, brief)
				}
			}
			a := d.want(200, password, "OPTIONS", path, "")
			for token, opens := range map[string]string{"calendar-access": "both cal ro", "addressbook": "both card ro"} {
				if got := slices.Contains(strings.Split(a.Header.Get("Dav"), ", "), token); got != slices.Contains(strings.Fields(opens), password) {
					t.Errorf("OPTIONS %s with %s: DAV: %s", path, password, a.Header.Get("Dav"))
				}
			}
		}
	}
}

// TestShortAnswers: Apple's apps do without lists of what was set, and others may ask for a copy of what they stored.
func TestShortAnswers(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"cyrus", "davical", "sabre"} {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			b := leakBackends[server](t)
			b.MakeCalendar(testlab.Alice, "work")
			d := open(t, routes{"calendar": b.route})
			rename := `<propertyupdate xmlns="DAV:"><set><prop><displayname>Garden</displayname></prop></set></propertyupdate>`
			if a := d.do("cal", "PROPPATCH", cal+"work/", rename, appleHead...); a.StatusCode/100 != 2 {
				t.Errorf("a new title: status %d, %s", a.StatusCode, a.text)
			}
			if got := d.want(207, "cal", "PROPFIND", cal+"work/", askAll, "Depth", "0").text; !strings.Contains(got, "Garden") {
				t.Errorf("the title is not set: %s", got)
			}
			a := d.want(201, "cal", "PUT", cal+"work/1.ics", testlab.Event("1"), "Prefer", "return=representation")
			if got := a.Header.Get("Preference-Applied"); a.text != "" || got != "" {
				t.Errorf("a copy of what was stored: %q, %q", got, a.text)
			}
		})
	}
}
