package davproxy_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-vcard"
	"github.com/emersion/go-webdav"
	"github.com/emersion/go-webdav/caldav"
	"github.com/emersion/go-webdav/carddav"

	"postern/internal/testlab"
	"postern/protocols/davproxy"
)

// sites are what an account's calendars and contacts may lie on. In a Radicale both lie in one tree.
var sites = map[string]func(testing.TB) routes{
	"radicale": func(t testing.TB) routes { b := to(testlab.Radicale(t)); return routes{"calendar": b, "contacts": b} },
	"xandikos": func(t testing.TB) routes { b := to(testlab.Xandikos(t)); return routes{"calendar": b, "contacts": b} },
	"calendars on radicale, contacts on xandikos": func(t testing.TB) routes {
		return routes{"calendar": to(testlab.Radicale(t)), "contacts": to(testlab.Xandikos(t))}
	},
	"calendars on xandikos, contacts on radicale": func(t testing.TB) routes {
		return routes{"calendar": to(testlab.Xandikos(t)), "contacts": to(testlab.Radicale(t))}
	},
}

func eachSite(t *testing.T, test func(t *testing.T, d *door)) {
	t.Parallel()
	for name, site := range sites {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t, site(t)))
		})
	}
}

func TestEventsAndContactsOnEachSite(t *testing.T) {
	eachSite(t, func(t *testing.T, d *door) {
		d.want(201, "both", "MKCALENDAR", cal+"work", makeCal)
		d.want(201, "both", "MKCOL", card+"friends/", makeCard)
		lifeOf(t, d, cal+"work/größe%20@ 1+1.ics", testlab.Event("one"), strings.Replace(testlab.Event("one"), "SUMMARY:", "SUMMARY:Not ", 1))
		lifeOf(t, d, card+"friends/one.vcf", testlab.Card("one"), strings.Replace(testlab.Card("one"), "FN:", "FN:Dr. ", 1))

		list := d.want(207, "both", "PROPFIND", cal, askAll, "Depth", "1").text
		if !strings.Contains(list, cal+"work/<") || strings.Contains(list, "friends") || strings.Contains(list, "example.test/") {
			t.Errorf("the calendars' list:\n%s", list)
		}
		d.want(207, "both", "PROPPATCH", cal+"work/", `<propertyupdate xmlns="DAV:"><set><prop><displayname>Arbeit</displayname></prop></set></propertyupdate>`)
		if list := d.want(207, "both", "PROPFIND", cal+"work/", askAll).text; !strings.Contains(list, "Arbeit") {
			t.Errorf("the new name does not show:\n%s", list)
		}
		d.do("both", "DELETE", cal+"work/", "")
		d.want(404, "both", "PROPFIND", cal+"work/", askAll)
	})
}

// lifeOf creates, reads, changes and deletes an item.
func lifeOf(t *testing.T, d *door, path, first, second string) {
	t.Helper()
	path = strings.ReplaceAll(path, " ", "%20")
	d.want(201, "both", "PUT", path, first, "If-None-Match", "*")
	if a := d.do("both", "PUT", path, first, "If-None-Match", "*"); a.StatusCode != 412 {
		t.Errorf("PUT of what is there already: %d", a.StatusCode)
	}
	got := d.want(200, "both", "GET", path, "")
	tag := got.Header.Get("Etag")
	if tag == "" || got.text == "" {
		t.Fatalf("GET %s: ETag %q, body %q", path, tag, got.text)
	}
	if a := d.do("both", "PUT", path, second, "If-Match", `"other"`); a.StatusCode != 412 {
		t.Errorf("PUT over another version: %d", a.StatusCode)
	}
	put := d.do("both", "PUT", path, second, "If-Match", tag)
	if put.StatusCode/100 != 2 {
		t.Errorf("PUT over the known version: %d\n%s", put.StatusCode, put.text)
	}
	head := d.want(200, "both", "HEAD", path, "")
	if now := head.Header.Get("Etag"); now == tag || put.Header.Get("Etag") != "" && now != put.Header.Get("Etag") {
		t.Errorf("ETags: first %s, PUT %s, then %s", tag, put.Header.Get("Etag"), now)
	}
	if a := d.do("both", "DELETE", path, "", "If-Match", head.Header.Get("Etag")); a.StatusCode/100 != 2 || a.text != "" {
		t.Errorf("DELETE: %d %q", a.StatusCode, a.text)
	}
	d.want(404, "both", "GET", path, "")
}

// TestItemsStayAsTheyAre: a strong ETag that was told for bytes must not be told for others (RFC 4791 section 5.3.4).
func TestItemsStayAsTheyAre(t *testing.T) {
	t.Parallel()
	b := testlab.Radicale(t)
	d := open(t, routes{"calendar": to(b)})
	path := b.MakeCalendar(testlab.Alice, "work") + "1.ics"
	b.Put(testlab.Alice, path, testlab.Event("1"))
	_, direct := b.Do(testlab.Alice, "GET", path, "")
	if got := d.want(200, "cal", "GET", cal+"work/1.ics", "").text; got != direct {
		t.Errorf("got %q, want %q", got, direct)
	}
}

func TestGoWebDAV(t *testing.T) {
	eachSite(t, func(t *testing.T, d *door) {
		ctx := t.Context()
		client := webdav.HTTPClientWithBasicAuth(d.client, testlab.Alice, "both")
		c, err := caldav.NewClient(client, d.url+"/dav/")
		if err != nil {
			t.Fatal(err)
		}
		own, err := c.FindCurrentUserPrincipal(ctx)
		if err != nil || own != self {
			t.Fatalf("FindCurrentUserPrincipal() = %q, %v", own, err)
		}
		home, err := c.FindCalendarHomeSet(ctx, own)
		if err != nil || home != cal {
			t.Fatalf("FindCalendarHomeSet() = %q, %v", home, err)
		}
		d.want(201, "both", "MKCALENDAR", home+"work/", makeCal)
		d.want(201, "both", "PUT", home+"work/1.ics", testlab.Event("one"))
		calendars, err := c.FindCalendars(ctx, home)
		if err != nil || len(calendars) == 0 {
			t.Fatalf("FindCalendars() = %v, %v", calendars, err)
		}
		events, err := c.QueryCalendar(ctx, home+"work/", &caldav.CalendarQuery{
			CompRequest: caldav.CalendarCompRequest{Name: "VCALENDAR", AllProps: true, AllComps: true},
			CompFilter:  caldav.CompFilter{Name: "VCALENDAR", Comps: []caldav.CompFilter{{Name: "VEVENT"}}},
		})
		if err != nil || len(events) != 1 || events[0].Path != home+"work/1.ics" {
			t.Errorf("QueryCalendar() = %v, %v", events, err)
		}
		contactsBy(t, d, client)
	})
}

func contactsBy(t *testing.T, d *door, client webdav.HTTPClient) {
	c, err := carddav.NewClient(client, d.url+"/dav/")
	if err != nil {
		t.Fatal(err)
	}
	home, err := c.FindAddressBookHomeSet(t.Context(), self)
	if err != nil || home != card {
		t.Fatalf("FindAddressBookHomeSet() = %q, %v", home, err)
	}
	d.want(201, "both", "MKCOL", home+"friends/", makeCard)
	one, err := vcard.NewDecoder(strings.NewReader(testlab.Card("one"))).Decode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutAddressObject(t.Context(), home+"friends/1.vcf", one); err != nil {
		t.Fatal(err)
	}
	got, err := c.MultiGetAddressBook(t.Context(), home+"friends/", &carddav.AddressBookMultiGet{
		Paths: []string{home + "friends/1.vcf"}, DataRequest: carddav.AddressDataRequest{AllProp: true},
	})
	if err != nil || len(got) != 1 || got[0].Card.Value("UID") != one.Value("UID") {
		t.Errorf("MultiGetAddressBook() = %v, %v", got, err)
	}
	changes, err := c.SyncCollection(t.Context(), home+"friends/", &carddav.SyncQuery{DataRequest: carddav.AddressDataRequest{}})
	if err != nil || len(changes.Updated) != 1 || changes.SyncToken == "" {
		t.Fatalf("SyncCollection() = %v, %v", changes, err)
	}
	if err := c.RemoveAll(t.Context(), home+"friends/1.vcf"); err != nil {
		t.Error(err)
	}
	changes, err = c.SyncCollection(t.Context(), home+"friends/", &carddav.SyncQuery{SyncToken: changes.SyncToken})
	if err != nil || len(changes.Deleted) != 1 || changes.Deleted[0] != home+"friends/1.vcf" {
		t.Errorf("SyncCollection() after a deletion = %v, %v", changes, err)
	}
}

func TestCurl(t *testing.T) {
	t.Parallel()
	b := testlab.Radicale(t)
	d := open(t, routes{"calendar": to(b), "contacts": to(b)})
	b.MakeCalendar(testlab.Alice, "work")
	file := filepath.Join(t.TempDir(), "event.ics")
	if err := os.WriteFile(file, []byte(testlab.Event("1")), 0o600); err != nil {
		t.Fatal(err)
	}
	curl := func(args ...string) string {
		args = append([]string{"--silent", "--show-error", "--cacert", d.ca.File, "--user", testlab.Alice + ":cal", "--write-out", "%{http_code}"}, args...)
		return testlab.Run(t, testlab.Command(t, "curl", args...))
	}
	for _, version := range []string{"--http1.1", "--http2"} {
		if got := curl(version, "--upload-file", file, d.url+cal+"work/"+version[2:]+".ics"); got != "201" {
			t.Errorf("upload by %s: %q", version, got)
		}
		if got := curl(version, "-H", "Expect: 100-continue", "-H", "Transfer-Encoding: chunked", "--upload-file", file, d.url+cal+"work/"+version[2:]+".ics"); got[0] != '2' {
			t.Errorf("chunked upload by %s: %q", version, got)
		}
		if got := curl(version, d.url+cal+"work/"+version[2:]+".ics"); !strings.Contains(got, "BEGIN:VEVENT") {
			t.Errorf("download by %s: %q", version, got)
		}
		d.want(200, "cal", "DELETE", cal+"work/"+version[2:]+".ics", "")
	}
}

func TestHTTP1AndHTTP2(t *testing.T) {
	t.Parallel()
	b := testlab.Radicale(t)
	d := open(t, routes{"calendar": to(b)})
	for _, major := range []int{1, 2} {
		d.client = d.newClient(major == 2)
		if a := d.want(http.StatusMultiStatus, "cal", "PROPFIND", cal, askAll, "Depth", "1"); a.ProtoMajor != major {
			t.Errorf("HTTP/%d, want %d", a.ProtoMajor, major)
		}
		d.client.CloseIdleConnections()
	}
	plain := open(t, routes{"calendar": to(b)}, func(o *davproxy.Options) { o.TLS = nil })
	plain.want(http.StatusMultiStatus, "cal", "PROPFIND", cal, askAll, "Depth", "1")
}
