package davproxy

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

// event is about 1 KiB of calendar data, as Radicale and sabre/dav write it.
func event(i int) string {
	lines := []string{
		"BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//Example Corp.//CalDAV Client//EN", "BEGIN:VEVENT",
		fmt.Sprintf("UID:20260101T%06dZ-%d@example.com", i, i), "DTSTAMP:20260101T120000Z", "DTSTART;TZID=Europe/Berlin:20260301T090000",
		"DTEND;TZID=Europe/Berlin:20260301T100000", "RRULE:FREQ=WEEKLY;BYDAY=MO,WE,FR;UNTIL=20261231T225959Z", "SUMMARY:Weekly meeting &amp; planning",
		"LOCATION:Room 4.2\\, Hauptgeb\u00e4ude", "DESCRIPTION:" + strings.Repeat("What is to be talked about\\n", 14), "ORGANIZER;CN=Alice:mailto:alice@example.com",
		"ATTENDEE;PARTSTAT=ACCEPTED;CN=Bob:mailto:bob@example.com", "END:VEVENT", "END:VCALENDAR", "",
	}
	return strings.Join(lines, "&#13;\n")
}

// answerOf is a multistatus of n responses for the collection work.
func answerOf(n int, prop func(i int) string) []byte {
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0" encoding="utf-8"?>` + "\n" + `<d:multistatus xmlns:d="DAV:" xmlns:cal="urn:ietf:params:xml:ns:caldav">`)
	for i := range n {
		fmt.Fprintf(&b, "<d:response><d:href>/alice%%40x/work/20260101T%06dZ-%d.ics</d:href><d:propstat><d:prop>%s</d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>\n", i, i, prop(i))
	}
	b.WriteString("</d:multistatus>\n")
	return b.Bytes()
}

func etag(i int) string { return fmt.Sprintf(`<d:getetag>"%032x"</d:getetag>`, i) }

func withData(i int) string {
	return etag(i) + "<cal:calendar-data>" + event(i) + "</cal:calendar-data>"
}

// depth0 is what clients ask most often: the state of one collection.
const depth0 = `<?xml version="1.0" encoding="utf-8"?>
<multistatus xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav" xmlns:CS="http://calendarserver.org/ns/" xmlns:ICAL="http://apple.com/ns/ical/">
  <response>
    <href>/alice%40x/work/</href>
    <propstat>
      <prop>
        <resourcetype><collection/><C:calendar/></resourcetype>
        <displayname>Work</displayname>
        <CS:getctag>"5f2d8a4ce1b0d1e5a3c4a1b0d1e5a3c4"</CS:getctag>
        <sync-token>http://radicale.org/ns/sync/5f2d8a4ce1b0d1e5a3c4a1b0d1e5a3c45f2d8a4ce1b0d1e5a3c4a1b0d1e5a3c4</sync-token>
        <ICAL:calendar-color>#3366ccff</ICAL:calendar-color>
        <C:supported-calendar-component-set><C:comp name="VEVENT"/><C:comp name="VTODO"/><C:comp name="VJOURNAL"/></C:supported-calendar-component-set>
        <supported-report-set>
          <supported-report><report><C:calendar-multiget/></report></supported-report>
          <supported-report><report><C:calendar-query/></report></supported-report>
          <supported-report><report><sync-collection/></report></supported-report>
        </supported-report-set>
        <owner><href>/alice%40x/</href></owner>
        <current-user-principal><href>/alice%40x/</href></current-user-principal>
        <current-user-privilege-set>
          <privilege><read/></privilege><privilege><write/></privilege><privilege><write-properties/></privilege><privilege><write-content/></privilege>
        </current-user-privilege-set>
      </prop>
      <status>HTTP/1.1 200 OK</status>
    </propstat>
    <propstat>
      <prop><quota-available-bytes/><quota-used-bytes/><C:calendar-timezone/></prop>
      <status>HTTP/1.1 404 Not Found</status>
    </propstat>
  </response>
</multistatus>
`

// small is what the backend of `postern bench` says of one collection (gateway/bench/davbackend.go).
const small = `<?xml version="1.0" encoding="utf-8"?><D:multistatus xmlns:D="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav" xmlns:CR="urn:ietf:params:xml:ns:carddav" xmlns:CS="http://calendarserver.org/ns/">` +
	`<D:response><D:href>/alice@x/work/</D:href><D:propstat><D:prop><D:resourcetype><D:collection/><C:calendar/></D:resourcetype><D:displayname>work</D:displayname>` +
	`<D:current-user-principal><D:href>/alice@x/</D:href></D:current-user-principal><C:calendar-home-set><D:href>/alice@x/</D:href></C:calendar-home-set>` +
	`<CR:addressbook-home-set><D:href>/alice@x/</D:href></CR:addressbook-home-set><D:sync-token>urn:bench:1</D:sync-token><CS:getctag>1</CS:getctag>` +
	`</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response></D:multistatus>`

// askedProps is what `postern bench` asks (gateway/bench/dav.go).
const askedProps = `<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:" xmlns:CS="http://calendarserver.org/ns/">` +
	`<prop><resourcetype/><displayname/><sync-token/><CS:getctag/></prop></propfind>`

// BenchmarkParse: what is judged of a request's body.
func BenchmarkParse(b *testing.B) {
	body := []byte(askedProps)
	inward := func(string) (string, fate) { return "", strayHref }
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parse(body, inward); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFilter: what passes through the whole filter, in the backend's bytes.
func BenchmarkFilter(b *testing.B) {
	for _, bb := range []struct {
		name string
		in   []byte
	}{
		{"calendar-data", answerOf(8_000, withData)},
		{"etags", answerOf(40_000, etag)},
		{"depth0", []byte(depth0)},
		{"small", []byte(small)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.SetBytes(int64(len(bb.in)))
			b.ReportAllocs()
			m, in := mountAt(calendar), bytes.NewReader(nil)
			m.inward(atWork) // as a request does
			for b.Loop() {
				in.Reset(bb.in)
				if err := (&filter{m: m, grant: owner, at: atWork}).copy(io.Discard, in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
