package demo

import (
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"
)

func query(root, filter string) string {
	return `<q:` + root + ` xmlns:d="DAV:" xmlns:q="` + caldavSpace + `"><d:prop><d:getetag/></d:prop>` + filter + `</q:` + root + `>`
}

func namesIn(resp davResponse) string {
	var names []string
	for _, h := range hrefsIn(resp) {
		names = append(names, strings.TrimSuffix(path.Base(h), path.Ext(h)))
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestCalendarQuery(t *testing.T) {
	c := newDAV(t)
	cal := calendarHome + "q/"
	c.expect(http.StatusCreated, "MKCALENDAR", cal, "")
	at := func(uid, lines string) string {
		return strings.Replace(newEvent(uid, uid), "DTSTART:20261123T120000Z\r\n", lines, 1)
	}
	for name, body := range map[string]string{
		"hour":     at("hour", "DTSTART:20261123T120000Z\r\nDTEND:20261123T130000Z\r\n"),
		"moment":   at("moment", "DTSTART:20261123T130000Z\r\n"),
		"day":      at("day", "DTSTART;VALUE=DATE:20261124\r\n"),
		"weekly":   at("weekly", "DTSTART:20200106T230000Z\r\nDURATION:PT2H\r\nRRULE:FREQ=WEEKLY\r\n"),
		"ended":    at("ended", "DTSTART:20200106T230000Z\r\nRRULE:FREQ=WEEKLY;COUNT=3\r\n"),
		"daily":    at("daily", "DTSTART:19700101T000000Z\r\nRRULE:FREQ=DAILY;UNTIL=19700201T000000Z\r\n"),
		"endless":  at("endless", "DTSTART:19700101T000000Z\r\nRRULE:FREQ=DAILY\r\n"),
		"minutely": at("minutely", "DTSTART:19700101T000000Z\r\nRRULE:FREQ=MINUTELY;COUNT=1\r\n"),
		"zone":     at("zone", "DTSTART;TZID=Nowhere:20200101T000000\r\n"),
		"dates":    at("dates", "DTSTART:20200101T000000Z\r\nRDATE:20261123T120000Z\r\n"),
		"odd":      at("odd", "DTSTART:20200101T000000Z\r\nRRULE:FREQ=WEEKLY\r\nEXDATE:nonsense\r\n"),
		"undated":  newTodo("undated", ""),
		"due":      newTodo("due", "DUE:20261123T150000Z\r\nSTATUS:COMPLETED\r\nSUMMARY:Bread\\, butter\r\n"),
	} {
		c.expect(http.StatusCreated, "PUT", cal+name+".ics", body)
	}
	comp := func(inner string) string {
		return `<q:filter><q:comp-filter name="VCALENDAR">` + inner + `</q:comp-filter></q:filter>`
	}
	todo := func(inner string) string { return comp(`<q:comp-filter name="VTODO">` + inner + `</q:comp-filter>`) }
	between := func(start, end string) string {
		return comp(`<q:comp-filter name="VEVENT"><q:time-range start="` + start + `" end="` + end + `"/></q:comp-filter>`)
	}
	doubtful := "dates endless minutely odd zone"
	for name, tt := range map[string]struct{ filter, want string }{
		"everything":      {"", "daily dates day due ended endless hour minutely moment odd undated weekly zone"},
		"no component":    {comp(`<q:comp-filter name="VJOURNAL"/>`), ""},
		"no journals":     {comp(`<q:comp-filter name="VJOURNAL"><q:is-not-defined/></q:comp-filter>`), "daily dates day due ended endless hour minutely moment odd undated weekly zone"},
		"no events":       {comp(`<q:comp-filter name="vevent"><q:is-not-defined/></q:comp-filter>`), "due undated"},
		"to-dos":          {todo(""), "due undated"},
		"at noon":         {between("20261123T110000Z", "20261123T123000Z"), doubtful + " hour"},
		"end is outside":  {between("20261123T130000Z", "20261123T140000Z"), doubtful + " moment"},
		"start is inside": {between("20261123T123000Z", "20261123T130000Z"), doubtful + " hour"},
		"second half":     {between("20261124T003000Z", "20261124T004000Z"), doubtful + " day weekly"},
		"a past month":    {between("19700110T000000Z", "19700111T000000Z"), "daily dates endless minutely odd zone"},
		"without end":     {comp(`<q:comp-filter name="VEVENT"><q:time-range start="20261124T120000Z"/></q:comp-filter>`), doubtful + " day weekly"},
		"to-do by time":   {todo(`<q:time-range start="20261124T000000Z" end="20261125T000000Z"/>`), "undated"},
		"to-do in time":   {todo(`<q:time-range start="20261123T000000Z" end="20261124T000000Z"/>`), "due undated"},
		"open to-dos":     {todo(`<q:prop-filter name="STATUS"><q:is-not-defined/></q:prop-filter>`), "undated"},
		"with a status":   {todo(`<q:prop-filter name="status"/>`), "due"},
		"text":            {todo(`<q:prop-filter name="SUMMARY"><q:text-match>BREAD, b</q:text-match></q:prop-filter>`), "due"},
		"octets":          {todo(`<q:prop-filter name="SUMMARY"><q:text-match collation="i;octet">BREAD</q:text-match></q:prop-filter>`), ""},
		"not text":        {todo(`<q:prop-filter name="SUMMARY"><q:text-match negate-condition="yes">beer</q:text-match></q:prop-filter>`), "due"},
		"text of a time":  {todo(`<q:prop-filter name="DUE"><q:text-match>20261123</q:text-match></q:prop-filter>`), "due"},
		"empty filter":    {"<q:filter/>", "daily dates day due ended endless hour minutely moment odd undated weekly zone"},
		"property's time": {todo(`<q:prop-filter name="DUE"><q:time-range start="20261123T000000Z" end="20261124T000000Z"/></q:prop-filter>`), "due"},
		"and not then":    {todo(`<q:prop-filter name="DUE"><q:time-range start="20261125T000000Z"/></q:prop-filter>`), ""},
		"parameter": {comp(`<q:comp-filter name="VEVENT"><q:prop-filter name="DTSTART"><q:param-filter name="VALUE"><q:text-match>date</q:text-match>
			</q:param-filter></q:prop-filter></q:comp-filter>`), "day"},
		"another value": {comp(`<q:comp-filter name="VEVENT"><q:prop-filter name="DTSTART"><q:param-filter name="VALUE"><q:text-match>period</q:text-match>
			</q:param-filter></q:prop-filter></q:comp-filter>`), ""},
		"any parameter": {comp(`<q:comp-filter name="VEVENT"><q:prop-filter name="DTSTART"><q:param-filter name="TZID"/></q:prop-filter></q:comp-filter>`), "zone"},
		"no parameter": {comp(`<q:comp-filter name="VEVENT"><q:prop-filter name="DTSTART"><q:param-filter name="VALUE"><q:is-not-defined/></q:param-filter>
			<q:param-filter name="TZID"><q:is-not-defined/></q:param-filter></q:prop-filter><q:prop-filter name="RRULE"/></q:comp-filter>`),
			"daily ended endless minutely odd weekly"},
	} {
		t.Run(name, func(t *testing.T) {
			c := davClient{t, c.b, c.address}
			want := strings.Fields(tt.want)
			slices.Sort(want)
			resp := c.expect(http.StatusMultiStatus, "REPORT", cal, query("calendar-query", tt.filter))
			if got := namesIn(resp); got != strings.Join(want, " ") {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestAddressbookQuery(t *testing.T) {
	c := newDAV(t)
	prop := func(name, test, inner string) string {
		return `<q:prop-filter name="` + name + `"` + test + `>` + inner + `</q:prop-filter>`
	}
	match := func(kind, text string) string {
		return `<q:text-match match-type="` + kind + `">` + text + `</q:text-match>`
	}
	for name, tt := range map[string]struct{ filter, want string }{
		"everybody":        {"<q:filter/>", "enzo joerg library lukasz mei okonkwo priya sofia tomas zoe"},
		"contains":         {"<q:filter>" + prop("FN", "", match("contains", "ö")) + "</q:filter>", "joerg"},
		"starts":           {"<q:filter>" + prop("FN", "", match("starts-with", "jÖ")) + "</q:filter>", "joerg"},
		"ends":             {"<q:filter>" + prop("EMAIL", "", match("ends-with", ".jp")) + "</q:filter>", "mei"},
		"equals":           {"<q:filter>" + prop("FN", "", match("equals", "mei")) + "</q:filter>", ""},
		"any property":     {"<q:filter>" + prop("FN", "", match("contains", "mei")) + prop("ORG", "", match("contains", "choir")) + "</q:filter>", "lukasz mei"},
		"all properties":   {`<q:filter test="allof">` + prop("FN", "", match("contains", "r")) + prop("BDAY", "", "") + "</q:filter>", "joerg sofia"},
		"any text":         {"<q:filter>" + prop("FN", "", match("contains", "mei")+match("contains", "zoë")) + "</q:filter>", "mei zoe"},
		"all texts":        {"<q:filter>" + prop("FN", ` test="allof"`, match("contains", "mei")+match("contains", "tanaka")) + "</q:filter>", "mei"},
		"nobody's address": {`<q:filter test="allof">` + prop("ADR", "", "<q:is-not-defined/>") + prop("ORG", "", "<q:is-not-defined/>") + "</q:filter>", "sofia zoe"},
	} {
		t.Run(name, func(t *testing.T) {
			c := davClient{t, c.b, c.address}
			body := strings.ReplaceAll(query("addressbook-query", tt.filter), caldavSpace, carddavSpace)
			if got := namesIn(c.expect(http.StatusMultiStatus, "REPORT", people, body)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
