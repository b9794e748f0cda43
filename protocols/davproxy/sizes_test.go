package davproxy_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"postern/internal/testlab"
)

// Sizes of a large account.
const (
	manyEvents = 10_000
	manyCards  = 5_000
	atOnce     = 1_000 // named in a multiget
)

const (
	askTags    = `<propfind xmlns="DAV:"><prop><getetag/></prop></propfind>`
	allEvents  = `<C:calendar-query xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><prop><getetag/><C:calendar-data/></prop><C:filter><C:comp-filter name="VCALENDAR"><C:comp-filter name="VEVENT"/></C:comp-filter></C:filter></C:calendar-query>`
	someEvents = `<C:calendar-multiget xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><prop><getetag/><C:calendar-data/></prop>%s</C:calendar-multiget>`
	someCards  = `<C:addressbook-multiget xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:carddav"><prop><getetag/><C:address-data/></prop>%s</C:addressbook-multiget>`
)

// fillSabre puts so many events and cards into sabre's database: by HTTP it would take minutes.
func fillSabre(t *testing.T, b *testlab.DAVServer) {
	t.Helper()
	b.MakeCalendar(testlab.Alice, "work")
	b.MakeAddressBook(testlab.Alice, "friends")
	const counted = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %d) `
	testlab.Run(t, testlab.Command(t, "sqlite3", filepath.Join(b.Dir, "data/db.sqlite"),
		fmt.Sprintf(counted, manyEvents)+`INSERT INTO calendarobjects (calendardata, uri, calendarid, lastmodified, etag, size, componenttype, firstoccurence, lastoccurence)
			SELECT replace('`+testlab.Event("UID-OF")+`', 'UID-OF', 'uid-' || i || '.'), i || '.ics', (SELECT id FROM calendars), 1767600000, 'tag' || i, 600, 'VEVENT', 1768000000, 1778000000 FROM n;`+
			fmt.Sprintf(counted, manyCards)+`INSERT INTO cards (carddata, uri, addressbookid, lastmodified)
			SELECT replace('`+testlab.Card("UID-OF")+`', 'UID-OF', 'uid-' || i || '.'), i || '.vcf', (SELECT id FROM addressbooks), 1767600000 FROM n;`))
}

// hrefs makes multiget's list.
func hrefs(collection, suffix string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "<href>%s%d%s</href>", collection, i+1, suffix)
	}
	return b.String()
}

// distinct counts the different matches.
func distinct(text, pattern string) int {
	found := make(map[string]bool)
	for _, m := range regexp.MustCompile(pattern).FindAllString(text, -1) {
		found[m] = true
	}
	return len(found)
}

// TestALargeAccount: all of 10,000 events and 5,000 cards comes, and nothing else.
func TestALargeAccount(t *testing.T) {
	t.Parallel()
	testlab.Need(t, "sqlite3")
	b := testlab.Sabre(t)
	fillSabre(t, b)
	d := open(t, routes{"calendar": to(b), "contacts": to(b)})

	events := d.want(207, "both", "PROPFIND", cal+"work/", askTags, "Depth", "1").text
	if got := distinct(events, `href>`+cal+`work/\d+\.ics<`); got != manyEvents || distinct(events, `tag\d+`) != manyEvents {
		t.Errorf("PROPFIND tells of %d events", got)
	}
	if got := distinct(d.want(207, "both", "REPORT", cal+"work/", fmt.Sprintf(someEvents, hrefs(cal+"work/", ".ics", atOnce)), "Depth", "1").text, `UID:uid-\d+\.`); got != atOnce {
		t.Errorf("multiget gives %d events", got)
	}
	if got := distinct(d.want(207, "both", "PROPFIND", card+"friends/", askTags, "Depth", "1").text, `href>`+card+`friends/\d+\.vcf<`); got != manyCards {
		t.Errorf("PROPFIND tells of %d cards", got)
	}
	if got := distinct(d.want(207, "both", "REPORT", card+"friends/", fmt.Sprintf(someCards, hrefs(card+"friends/", ".vcf", atOnce)), "Depth", "1").text, `UID:uid-\d+\.`); got != atOnce {
		t.Errorf("multiget gives %d cards", got)
	}
	if got := distinct(d.want(207, "both", "REPORT", cal+"work/", allEvents, "Depth", "1").text, `UID:uid-\d+\.`); got != manyEvents {
		t.Errorf("calendar-query gives %d events", got)
	}
}

// TestManyLargeAnswersAtOnce: many clients fetch all events of such a calendar at once and pause in the middle; what is under way is not held in memory. It is
// not parallel, for others' memory would count.
func TestManyLargeAnswersAtOnce(t *testing.T) {
	const readers = 16
	var list strings.Builder
	list.WriteString(`<multistatus xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav">`)
	for i := range manyEvents {
		list.WriteString(responseOf(fmt.Sprintf("/alice@example.test/work/%d.ics", i), "<C:calendar-data>"+testlab.Event(strconv.Itoa(i))+"</C:calendar-data>"))
	}
	list.WriteString(`</multistatus>`)
	b := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(207)
		io.WriteString(w, list.String())
	})
	d := open(t, routes{"calendar": b.route})
	if got := distinct(d.want(207, "both", "REPORT", cal+"work/", allEvents, "Depth", "1").text, `UID:\d+`); got != manyEvents {
		t.Fatalf("calendar-query gives %d events", got)
	}
	client := d.newClient(false)
	client.Transport.(*http.Transport).DialContext = dialNarrow
	defer client.CloseIdleConnections()
	before := liveHeap()
	for range readers {
		got := next(t, "an answer", d.start(client, "both", "REPORT", cal+"work/", strings.NewReader(allEvents)))
		if got.err != nil {
			t.Fatal(got.err)
		}
		defer got.Body.Close()
		if _, err := io.CopyN(io.Discard, got.Body, 1<<20); err != nil {
			t.Fatalf("status %d, then %v", got.StatusCode, err)
		}
	}
	if grown, held := int64(liveHeap())-int64(before), int64(readers*list.Len()); grown > held/8 {
		t.Errorf("%d MiB more are in use while %d MiB are under way", grown>>20, held>>20)
	}
}

// dialNarrow connects with a small buffer, so that what is not read is not in the kernel.
func dialNarrow(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		if err := c.Control(func(fd uintptr) {
			failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 32<<10)
		}); err != nil {
			return err
		}
		return failed
	}}
	return dialer.DialContext(ctx, network, address)
}

func liveHeap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestALargeSync: a first sync tells of all cards, the next of what has changed.
func TestALargeSync(t *testing.T) {
	t.Parallel()
	const cards, hands = 500, 10 // Radicale takes 20 ms for each at the first sync, and the lab's sabre has none
	c := testlab.Cyrus(t)
	d := open(t, routes{"contacts": toCyrus(c)})
	c.MakeAddressBook(testlab.Alice, "friends")
	var puts sync.WaitGroup
	for hand := range hands {
		puts.Go(func() {
			for i := hand; i < cards; i += hands {
				d.want(201, "card", "PUT", fmt.Sprintf("%sfriends/%d.vcf", card, i), testlab.Card(fmt.Sprintf("uid-%d", i)))
			}
		})
	}
	puts.Wait()
	list := d.want(207, "card", "REPORT", card+"friends/", syncOf(), "Depth", "1").text
	if got := distinct(list, `href>`+card+`friends/\d+\.vcf<`); got != cards {
		t.Errorf("the first sync tells of %d cards", got)
	}
	token := regexp.MustCompile(`<sync-token>[^<]+</sync-token>`).FindString(list)
	if token == "" {
		t.Fatalf("no token in %.1000s", list)
	}
	d.want(204, "card", "DELETE", card+"friends/7.vcf", "")
	list = d.want(207, "card", "REPORT", card+"friends/", strings.Replace(syncOf(), "<sync-token/>", token, 1), "Depth", "1").text
	if got := distinct(list, `href>`+card+`friends/\d+\.vcf<`); got != 1 || !strings.Contains(list, card+"friends/7.vcf<") {
		t.Errorf("the second sync tells of %d cards:\n%.1000s", got, list)
	}
}
