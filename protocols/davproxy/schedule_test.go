package davproxy_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"postern/internal/testlab"
)

const (
	inbox  = "/dav/inbox/alicepubid/"
	outbox = "/dav/outbox/alicepubid/"

	askScheduling = `<propfind xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><prop><resourcetype/><current-user-privilege-set/><supported-report-set/>` +
		`<C:schedule-inbox-URL/><C:schedule-outbox-URL/><C:calendar-user-address-set/><C:calendar-user-type/><C:schedule-default-calendar-URL/></prop></propfind>`
)

// choose is a PROPPATCH of where what comes is to go.
const choose = `<propertyupdate xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><set><prop><C:schedule-default-calendar-URL><href>%s</href></C:schedule-default-calendar-URL></prop></set></propertyupdate>`

// bobs logs bob in.
func bobs(password string) []string {
	return []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(testlab.Bob+":"+password))}
}

// meeting is an event that alice invites bob to. It is to come for long: nobody is invited to what is over.
func meeting(uid string) string {
	return strings.Replace(strings.ReplaceAll(testlab.Event(uid), ":2026", ":2096"), "END:VEVENT", "ORGANIZER:mailto:"+testlab.Alice+"\r\nATTENDEE;PARTSTAT=ACCEPTED:mailto:"+testlab.Alice+
		"\r\nATTENDEE;PARTSTAT=NEEDS-ACTION;RSVP=TRUE:mailto:"+testlab.Bob+"\r\nEND:VEVENT", 1)
}

// TestInvitationsOnCyrus: what a client of RFC 6638 needs is there for who has the scope, and for nobody else.
func TestInvitationsOnCyrus(t *testing.T) {
	t.Parallel()
	c := testlab.Cyrus(t)
	c.MakeCalendar(testlab.Alice, "work")
	c.MakeCalendar(testlab.Bob, "Default") // where Cyrus puts what he is invited to, and the invitation into his inbox
	c.MakeAddressBook(testlab.Alice, "friends")
	d := open(t, routes{"calendar": toCyrus(c), "contacts": toCyrus(c)})

	for password, automatic := range map[string]bool{"sched": true, "schedro": true, "cal": false, "both": false, "work": false, "card": false} {
		for _, path := range []string{self, cal} {
			if got := d.want(200, password, "OPTIONS", path, "").Header.Get("DAV"); strings.Contains(got, "calendar-auto-schedule") != automatic {
				t.Errorf("%s at %s: DAV: %s", password, path, got)
			}
		}
		got := d.want(207, password, "PROPFIND", self, askScheduling, "Depth", "0").text
		for _, want := range []string{inbox + "<", outbox + "<", "INDIVIDUAL"} {
			if strings.Contains(got, want) != automatic {
				t.Errorf("%s: %q in the principal: %t\n%s", password, want, !automatic, got)
			}
		}
		if !strings.Contains(got, "<href xmlns=\"DAV:\">mailto:"+testlab.Alice+"<") {
			t.Errorf("%s: no address\n%s", password, got)
		}
		if automatic {
			continue
		}
		for _, path := range []string{inbox, outbox, inbox + "1.ics", cal + "Inbox/", cal + "Outbox/", cal + "Inbox/1.ics"} {
			for _, method := range []string{"OPTIONS", "PROPFIND", "REPORT", "GET", "PUT", "DELETE", "PROPPATCH", "POST", "MOVE", "COPY"} {
				if strings.HasPrefix(path, cal) && (method == "OPTIONS" && password != "card" && password != "work" || method == "PUT" || method == "POST" || method == "GET" || method == "REPORT") {
					continue // answered without a look at what is there
				}
				a := d.do(password, method, path, map[string]string{"PROPFIND": askAll, "PUT": meeting("x"), "POST": freeBusy}[method])
				if a.StatusCode != 404 {
					t.Errorf("%s: %s %s: %d\n%s", password, method, path, a.StatusCode, a.text)
				}
			}
		}
	}
	for _, password := range []string{"sched", "cal"} { // the boxes lie in Cyrus's home; here they do not
		if got := d.want(207, password, "PROPFIND", cal, askScheduling, "Depth", "1").text; strings.Contains(strings.ToLower(got), "inbox/") || strings.Contains(strings.ToLower(got), "outbox/") || strings.Contains(got, "schedule-send") {
			t.Errorf("%s: the home shows the boxes\n%s", password, got)
		}
		d.want(404, password, "PROPFIND", cal+"Inbox/", askAll)
		d.want(404, password, "DELETE", cal+"Inbox/", "")
		d.want(403, password, "MKCALENDAR", cal+"Outbox/", makeCal)
		d.want(403, password, "MOVE", cal+"work/", "", "Destination", d.url+cal+"Inbox/")
	}

	// An invitation arrives, is read in each way, and thrown away.
	d.want(201, "sched", "PUT", cal+"work/meeting.ics", meeting("meeting"))
	const his = "/dav/inbox/bobspublic/"
	list := d.want(207, "sched", "PROPFIND", his, askAll, append(bobs("sched"), "Depth", "1")...).text
	name := between(list, "<href>"+his, "</href><propstat>", ".ics")
	if name == "" {
		t.Fatalf("no invitation:\n%s", list)
	}
	if got := d.want(200, "sched", "GET", his+name, "", bobs("sched")...).text; !strings.Contains(got, "METHOD:REQUEST") || !strings.Contains(got, "UID:meeting") {
		t.Errorf("the invitation: %q", got)
	}
	ask := `<C:calendar-multiget xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><prop><C:calendar-data/></prop><href>%s</href><href>%s</href></C:calendar-multiget>`
	got := d.want(207, "sched", "REPORT", his, fmt.Sprintf(ask, his+name, "/dav/cal/bobspublic/Default/x.ics"), bobs("sched")...).text
	if !strings.Contains(got, "UID:meeting") || !strings.Contains(got, "404 Not Found") {
		t.Errorf("by calendar-multiget:\n%s", got)
	}
	sync := `<sync-collection xmlns="DAV:"><sync-token/><sync-level>1</sync-level><prop><getetag/></prop></sync-collection>`
	if got := d.want(207, "sched", "REPORT", his, sync, bobs("sched")...).text; !strings.Contains(got, his+name) || strings.Contains(got, "/dav/calendars/") {
		t.Errorf("by sync-collection:\n%s", got)
	}
	query := `<C:calendar-query xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><prop><getetag/></prop><C:filter><C:comp-filter name="VCALENDAR"/></C:filter></C:calendar-query>`
	if got := d.want(207, "sched", "REPORT", his, query, append(bobs("sched"), "Depth", "1")...).text; !strings.Contains(got, his+name) {
		t.Errorf("by calendar-query:\n%s", got)
	}
	d.want(403, "sched", "DELETE", his+name, "", bobs("schedro")...)
	d.want(404, "sched", "DELETE", his+name, "", bobs("cal")...)
	d.want(405, "sched", "PUT", his+name, meeting("x"), bobs("sched")...)
	d.want(204, "sched", "DELETE", his+name, "", bobs("sched")...)
	d.want(404, "sched", "GET", his+name, "", bobs("sched")...)
	if got := d.want(207, "sched", "PROPFIND", inbox, askScheduling, "Depth", "0").text; !strings.Contains(got, "schedule-deliver-invite") || strings.Contains(got, "admin") || strings.Contains(got, "expand-property") || !strings.Contains(got, "calendar-multiget") {
		t.Errorf("the inbox:\n%s", got)
	}

	// Where what comes is to go.
	if got := d.want(207, "sched", "PROPPATCH", inbox, fmt.Sprintf(choose, cal+"work/")).text; !strings.Contains(got, " 200 OK") {
		t.Errorf("choosing a calendar:\n%s", got)
	}
	if got := d.want(207, "sched", "PROPFIND", inbox, askScheduling, "Depth", "0").text; !strings.Contains(got, cal+"work/<") {
		t.Errorf("the chosen calendar:\n%s", got)
	}
	if got := d.want(207, "schedro", "PROPPATCH", inbox, fmt.Sprintf(choose, cal+"work/")).text; !strings.Contains(got, " 403 Forbidden") {
		t.Errorf("choosing a calendar with a password that reads:\n%s", got)
	}
	for _, elsewhere := range []string{cal + "friends/", card + "friends/", "/dav/cal/bobspublic/Default/", c.Calendars(testlab.Alice) + "work/", cal, ""} {
		d.want(400, "sched", "PROPPATCH", inbox, fmt.Sprintf(choose, elsewhere))
	}

	// Whether others are free.
	for _, password := range []string{"sched", "schedro"} {
		got := d.want(200, password, "POST", outbox, freeBusy).text
		if !strings.Contains(got, ">mailto:"+testlab.Bob+"<") || !strings.Contains(got, "2.0;Success") || !strings.Contains(got, "BEGIN:VFREEBUSY") {
			t.Errorf("%s: the answer:\n%s", password, got)
		}
	}
	d.want(403, "sched", "POST", outbox, meeting("other"))
	d.want(403, "sched", "POST", outbox, strings.Replace(freeBusy, "METHOD:REQUEST", "METHOD:PUBLISH", 1))
	d.want(413, "sched", "POST", outbox, strings.Replace(freeBusy, "UID:", "UID:"+strings.Repeat("x", 64<<10), 1))
	d.want(415, "sched", "POST", outbox, freeBusy, "Content-Type", "text/plain")
	d.want(405, "sched", "PUT", outbox, meeting("x"))
	d.want(404, "sched", "PUT", outbox+"x.ics", meeting("x"))
	d.want(403, "sched", "REPORT", outbox, query)
	if got := d.want(207, "schedro", "PROPFIND", outbox, askScheduling, "Depth", "1").text; !strings.Contains(got, "schedule-send-freebusy") || strings.Contains(got, "schedule-send-invite") || strings.Contains(got, "<write") {
		t.Errorf("the outbox of who reads:\n%s", got)
	}
}

// between returns what stands between two texts and ends as wanted; empty: nothing does.
func between(text, before, behind, end string) string {
	for _, piece := range strings.Split(text, before)[1:] {
		if name, _, ok := strings.Cut(piece, behind); ok && strings.HasSuffix(name, end) {
			return name
		}
	}
	return ""
}

const freeBusy = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//Lab//EN\r\nMETHOD:REQUEST\r\nBEGIN:VFREEBUSY\r\nUID:question\r\nDTSTAMP:20260101T000000Z\r\n" +
	"DTSTART:20260101T000000Z\r\nDTEND:20260201T000000Z\r\nORGANIZER:mailto:" + testlab.Alice + "\r\nATTENDEE:mailto:" + testlab.Bob + "\r\nEND:VFREEBUSY\r\nEND:VCALENDAR\r\n"

// TestInvitationsElsewhere: Xandikos has an inbox beside the home and nothing else; Radicale has nothing.
func TestInvitationsElsewhere(t *testing.T) {
	t.Parallel()
	x, r := testlab.Xandikos(t), testlab.Radicale(t)
	x.MakeCalendar(testlab.Alice, "work")
	r.MakeCalendar(testlab.Alice, "work")
	d := open(t, routes{"calendar": to(x)})
	got := d.want(207, "sched", "PROPFIND", self, askScheduling, "Depth", "0").text
	if !strings.Contains(got, inbox+"<") || strings.Contains(got, outbox) || !strings.Contains(got, "mailto:"+testlab.Alice) {
		t.Errorf("the principal on Xandikos:\n%s", got)
	}
	if got := d.want(200, "sched", "OPTIONS", self, "").Header.Get("DAV"); strings.Contains(got, "schedul") {
		t.Errorf("Xandikos promises %s", got)
	}
	if got := d.want(207, "sched", "PROPFIND", inbox, askScheduling, "Depth", "1").text; !strings.Contains(got, "<"+"ns0:href>"+inbox+"<") || !strings.Contains(got, "schedule-inbox") {
		t.Errorf("the inbox on Xandikos:\n%s", got)
	}
	d.want(404, "sched", "POST", outbox, freeBusy)
	d.want(404, "sched", "OPTIONS", outbox, "")
	d.want(404, "cal", "PROPFIND", inbox, askAll)
	d = open(t, routes{"calendar": to(r)})
	if got := d.want(207, "sched", "PROPFIND", self, askScheduling, "Depth", "0").text; strings.Contains(got, inbox) || strings.Contains(got, "INDIVIDUAL") {
		t.Errorf("the principal on Radicale:\n%s", got)
	}
	for _, path := range []string{inbox, outbox} {
		for _, method := range []string{"OPTIONS", "PROPFIND", "POST"} {
			if a := d.do("sched", method, path, ""); a.StatusCode != 404 && a.StatusCode != 405 {
				t.Errorf("%s %s on Radicale: %d", method, path, a.StatusCode)
			}
		}
	}
}

// TestInvitationsOnDAViCalAndSabre: boxes in the one home that both kinds share, and an outbox alone, as old versions of sabre have it.
func TestInvitationsOnDAViCalAndSabre(t *testing.T) {
	t.Parallel()
	for server, tt := range map[string]struct {
		start func(testing.TB) *testlab.DAVServer
		inbox bool
		free  string
	}{"davical": {testlab.DAViCal, true, "3.8;No authority"}, "sabre": {testlab.Sabre, false, "BEGIN:VFREEBUSY"}} {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			b := tt.start(t)
			b.MakeCalendar(testlab.Alice, "work")
			b.MakeAddressBook(testlab.Alice, "friends")
			b.MakeCalendar(testlab.Bob, "home")
			d := open(t, routes{"calendar": to(b), "contacts": to(b)})
			got := d.want(207, "sched", "PROPFIND", self, askScheduling, "Depth", "0").text
			if strings.Contains(got, inbox) != tt.inbox || !strings.Contains(got, outbox) || strings.Contains(got, "caldav.php") {
				t.Errorf("the principal:\n%s", got)
			}
			if got := d.want(200, "sched", "POST", outbox, freeBusy).text; !strings.Contains(got, ">mailto:"+testlab.Bob+"<") || !strings.Contains(got, tt.free) {
				t.Errorf("whether bob is free:\n%s", got)
			}
			for _, contentType := range []string{"text/plain", "application/calendar+xml", "text/calendar; charset=utf-16", "text/calendar; charset"} {
				d.want(415, "sched", "POST", outbox, freeBusy, "Content-Type", contentType)
			}
			if tt.inbox {
				if got := d.want(207, "sched", "PROPFIND", inbox, askScheduling, "Depth", "1").text; !strings.Contains(got, inbox+"<") || strings.Contains(got, "alice%40") {
					t.Errorf("the inbox:\n%s", got)
				}
				d.want(400, "sched", "PROPPATCH", inbox, fmt.Sprintf(choose, cal+"friends/"))
			} else {
				d.want(404, "sched", "PROPFIND", inbox, askScheduling)
			}
			for _, password := range []string{"sched", "cal", "work"} {
				got := d.want(207, password, "PROPFIND", cal, askScheduling, "Depth", "1").text
				if strings.Contains(got, "schedule-inbox/>") || strings.Contains(got, "schedule-outbox/>") || strings.Contains(got, "/.") || strings.Contains(got, "friends") {
					t.Errorf("%s: the home shows what is not in it:\n%s", password, got)
				}
				if password == "sched" {
					continue
				}
				if strings.Contains(got, "/dav/inbox/") || strings.Contains(got, "/dav/outbox/") || strings.Contains(got, "INDIVIDUAL") {
					t.Errorf("%s: the home names the boxes:\n%s", password, got)
				}
				d.want(404, password, "POST", outbox, freeBusy)
			}
			for _, box := range []string{".in/", ".out/", "inbox/", "outbox/"} {
				for _, mount := range []string{cal, card} {
					d.want(404, "both", "PROPFIND", mount+box, askAll)
					d.want(404, "both", "DELETE", mount+box, "")
				}
			}
		})
	}
}

// TestNothingIsMadeWhereABoxIs: a backend that has not made its box yet would take another collection there.
func TestNothingIsMadeWhereABoxIs(t *testing.T) {
	t.Parallel()
	b := newFake(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(201) })
	at := "/" + testlab.Alice + "/"
	b.has = "<C:schedule-inbox-URL><href>" + at + ".in</href></C:schedule-inbox-URL><C:schedule-outbox-URL><href>" + at + ".out/</href></C:schedule-outbox-URL>" +
		`<A:addressbook-home-set xmlns:A="urn:ietf:params:xml:ns:carddav"><href>` + at + "</href></A:addressbook-home-set>"
	d := open(t, routes{"calendar": b.route, "contacts": b.route})
	for _, box := range []string{".in/", ".out/"} {
		d.want(403, "both", "MKCALENDAR", cal+box, makeCal)
		d.want(403, "both", "MKCOL", card+box, makeCard)
		d.want(403, "both", "COPY", cal+"work/", "", "Destination", d.url+cal+box)
		d.want(409, "both", "MOVE", cal+"work/1.ics", "", "Destination", d.url+cal+box+"1.ics")
	}
	for len(b.seen) > 0 {
		if r := <-b.seen; r.Method != "OPTIONS" { // the gateway's own, at the home
			t.Errorf("the backend was asked: %s %s", r.Method, r.RequestURI)
		}
	}
	d.want(201, "both", "MKCALENDAR", cal+"new/", makeCal)
}

// TestCalendarsThatTheInboxNames: who names thousands that are not there has the backend asked for a few.
func TestCalendarsThatTheInboxNames(t *testing.T) {
	t.Parallel()
	b := newFake(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200) })
	const maxNamed = 100 // in one body
	b.has = "<C:schedule-inbox-URL><href>/" + testlab.Alice + "/.in/</href></C:schedule-inbox-URL>"
	b.is = func(path string) string {
		switch {
		case strings.HasSuffix(path, "/.in/"):
			return "<C:schedule-inbox/>"
		case strings.Contains(path, "/there"):
			return "<C:calendar/>"
		case strings.Contains(path, "/gone"):
			return "404"
		}
		return ""
	}
	d := open(t, routes{"calendar": b.route})
	hrefs := func(n int, name string) string {
		var list strings.Builder
		for i := range n {
			fmt.Fprintf(&list, "<href>%s%s%d/</href>", cal, name, i)
		}
		return list.String()
	}
	d.want(200, "sched", "PROPPATCH", inbox, `<propertyupdate xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><set><prop><C:calendar-free-busy-set>`+
		hrefs(maxNamed, "there")+`</C:calendar-free-busy-set></prop></set></propertyupdate>`)
	before := b.asked.Load()
	d.want(207, "sched", "REPORT", inbox, `<C:calendar-multiget xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><prop><getetag/></prop>`+
		hrefs(10*maxNamed, "gone")+`</C:calendar-multiget>`)
	if asked := b.asked.Load() - before; asked > maxNamed+10 {
		t.Errorf("the backend was asked %d questions", asked)
	}
}
