package davproxy_test

import (
	"fmt"
	"strings"
	"testing"

	"postern/authstore"
	"postern/internal/testlab"
	"postern/protocols"
)

// TestSingleCollections: a password for the calendar "work" alone reaches nothing else by any trick, on servers of each layout.
func TestSingleCollections(t *testing.T) {
	t.Parallel()
	for server, start := range map[string]func(*testing.T) (*testlab.DAVServer, func(authstore.Grant) *protocols.Route){
		"davical": func(t *testing.T) (*testlab.DAVServer, func(authstore.Grant) *protocols.Route) {
			b := testlab.DAViCal(t)
			return b, to(b)
		},
		"sabre": func(t *testing.T) (*testlab.DAVServer, func(authstore.Grant) *protocols.Route) {
			b := testlab.Sabre(t)
			return b, to(b)
		},
		"radicale": func(t *testing.T) (*testlab.DAVServer, func(authstore.Grant) *protocols.Route) {
			b := testlab.Radicale(t)
			return b, to(b)
		},
		"xandikos": func(t *testing.T) (*testlab.DAVServer, func(authstore.Grant) *protocols.Route) {
			b := testlab.Xandikos(t)
			return b, to(b)
		},
		"cyrus": func(t *testing.T) (*testlab.DAVServer, func(authstore.Grant) *protocols.Route) {
			b := testlab.Cyrus(t)
			return b.DAVServer, toCyrus(b)
		},
	} {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			lab, route := start(t)
			d := open(t, routes{"calendar": route, "contacts": route})
			const secret = "secret-uid"
			for _, name := range []string{"work", "private"} {
				lab.MakeCalendar(testlab.Alice, name)
			}
			lab.MakeAddressBook(testlab.Alice, "friends")
			d.want(201, "both", "PUT", cal+"work/1.ics", testlab.Event("1"))
			d.want(201, "both", "PUT", cal+"private/2.ics", testlab.Event(secret))
			d.want(201, "both", "PUT", card+"friends/3.vcf", testlab.Card(secret))
			hides := func(a answer) {
				t.Helper()
				for _, word := range []string{secret, "friends"} {
					if strings.Contains(a.text, word) || strings.Contains(fmt.Sprint(a.Header), word) {
						t.Errorf("%s %s tells of %q:\n%s", a.Request.Method, a.Request.URL.Path, word, a.text)
					}
				}
			}
			list := d.want(207, "work", "PROPFIND", cal, strings.Replace(askAll, "<prop>", "<prop><current-user-privilege-set/>", 1), "Depth", "1")
			hides(list)
			if !strings.Contains(list.text, cal+"work/<") || strings.Contains(list.text, "private") || strings.Count(list.text, "href>"+cal) != 2 {
				t.Errorf("the list:\n%s", list.text)
			}
			if got := d.want(207, "work", "PROPFIND", cal, strings.Replace(askAll, "<prop>", "<prop><current-user-privilege-set/>", 1), "Depth", "0").text; strings.Contains(got, "bind") || strings.Contains(got, "write") {
				t.Errorf("privileges at the home:\n%s", got)
			}
			hides(d.want(207, "work", "PROPFIND", card, askAll, "Depth", "1"))
			if got := d.want(200, "work", "OPTIONS", self, "").Header.Get("DAV"); strings.Contains(got, "addressbook") || strings.Contains(got, "schedule") {
				t.Errorf("DAV: %s", got)
			}

			// What is named is open, but stays where it is.
			d.want(200, "work", "GET", cal+"work/1.ics", "")
			d.want(201, "work", "PUT", cal+"work/4.ics", testlab.Event("4"))
			d.want(207, "work", "PROPPATCH", cal+"work/", `<propertyupdate xmlns="DAV:"><set><prop><displayname>Arbeit</displayname></prop></set></propertyupdate>`)
			for _, m := range []string{"DELETE", "MKCALENDAR", "COPY", "MOVE"} {
				if got := d.want(403, "work", m, cal+"work/", "", "Destination", d.url+cal+"new/"); !strings.Contains(got.text, "need-privileges") {
					t.Errorf("%s of a named calendar: %s", m, got.text)
				}
			}
			for _, path := range []string{cal + "new/", cal + "private/", card + "new/", card + "friends/"} {
				d.want(403, "work", "MKCOL", path, makeCard)
			}
			d.want(403, "work", "MKCALENDAR", cal+"new/", makeCal)
			d.want(403, "worknew", "MKCALENDAR", cal+"new/", makeCal) // named, and yet it takes all calendars
			d.want(201, "worknew", "MKCOL", card+"new/", makeCard)    // of which it has all

			// What is not named is not there.
			for _, path := range []string{cal + "private/", cal + "private/2.ics", card + "friends/", card + "friends/3.vcf", cal + "friends/", cal + "friends/3.vcf", inbox, outbox, inbox + "1.ics"} {
				for _, m := range []string{"OPTIONS", "GET", "HEAD", "PROPFIND", "REPORT", "PROPPATCH", "PUT", "POST", "DELETE", "COPY", "MOVE", "ACL", "LOCK"} {
					a := d.want(404, "work", m, path, map[string]string{"PUT": testlab.Event("x"), "PROPFIND": askAll}[m], "Destination", d.url+cal+"work/9.ics")
					hides(a)
				}
			}
			ask := `<C:calendar-multiget xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><prop><getetag/><C:calendar-data/></prop><href>%swork/1.ics</href><href>%[1]sprivate/2.ics</href></C:calendar-multiget>`
			a := d.want(207, "work", "REPORT", cal+"work/", fmt.Sprintf(ask, cal))
			hides(a)
			if !strings.Contains(a.text, "UID:1\r") && !strings.Contains(a.text, "UID:1\n") && !strings.Contains(a.text, "UID:1&#13;") || !strings.Contains(a.text, "404 Not Found") {
				t.Errorf("multiget:\n%s", a.text)
			}
			for _, m := range []string{"COPY", "MOVE"} {
				d.want(409, "work", m, cal+"work/1.ics", "", "Destination", d.url+cal+"private/1.ics")
				d.want(409, "work", m, cal+"work/1.ics", "", "Destination", d.url+cal+"nowhere/1.ics")
				d.want(403, "work", m, cal+"work/1.ics", "", "Destination", d.url+card+"friends/1.ics")
				d.want(409, "cal", m, cal+"work/1.ics", "", "Destination", d.url+cal+"friends/1.ics") // there or not
			}
			d.want(400, "work", "PUT", cal+"work/5.ics", testlab.Event("5"), "If", "<"+d.url+cal+"private/2.ics> ([\"x\"])")
			d.want(404, "both", "GET", cal+"private/1.ics", "")
			d.want(200, "both", "GET", cal+"work/1.ics", "")
			d.want(200, "both", "GET", cal+"private/2.ics", "")
		})
	}
}

// TestDomainsOnServersOfTheirOwn: each account is led to its own server, and one door serves two of them on one connection.
func TestDomainsOnServersOfTheirOwn(t *testing.T) {
	t.Parallel()
	ours, theirs := testlab.Radicale(t), testlab.Xandikos(t)
	ours.MakeCalendar(testlab.Alice, "work")
	theirs.MakeCalendar(testlab.Bob, "work")
	route := map[string]func(authstore.Grant) *protocols.Route{testlab.Alice: to(ours), testlab.Bob: to(theirs)}
	by := func(g authstore.Grant) *protocols.Route { return route[g.Address](g) }
	d := open(t, routes{"calendar": by, "contacts": by})
	his := "/dav/cal/bobspublic/work/1.ics"
	d.want(201, "both", "PUT", cal+"work/1.ics", testlab.Event("hers"))
	d.want(201, "both", "PUT", his, testlab.Event("his"), bobs("both")...)
	for path, want := range map[string]struct {
		uid    string
		header []string
	}{cal + "work/1.ics": {"UID:hers", nil}, his: {"UID:his", bobs("both")}} {
		if got := d.want(200, "both", "GET", path, "", want.header...).text; !strings.Contains(got, want.uid) {
			t.Errorf("%s: %q", path, got)
		}
		collection := path[:strings.LastIndex(path, "/")+1]
		if got := d.want(207, "both", "PROPFIND", collection, askAll, append(want.header, "Depth", "1")...).text; !strings.Contains(got, ">"+path+"<") {
			t.Errorf("%s: %s", collection, got)
		}
	}
	// The public id tells two accounts in one client apart, and opens nothing by itself.
	d.want(404, "both", "GET", his, "")
	d.want(404, "both", "GET", cal+"work/1.ics", "", bobs("both")...)
	d.want(404, "both", "PROPFIND", "/dav/p/bobspublic/", "")
	d.want(404, "sched", "PROPFIND", "/dav/inbox/bobspublic/", "")
	d.want(403, "both", "COPY", cal+"work/1.ics", "", "Destination", d.url+"/dav/cal/bobspublic/work/2.ics")
}
