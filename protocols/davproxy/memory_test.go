package davproxy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

// TestFilterMemoryTellsNothing: what a filter leaves behind, wherever it was cut, shows in no answer of another account.
func TestFilterMemoryTellsNothing(t *testing.T) {
	docOf := func(user string, r *rand.Rand) string {
		var b strings.Builder
		b.WriteString("<multistatus xmlns='DAV:' xmlns:C='urn:ietf:params:xml:ns:caldav' xmlns:A='urn:ietf:params:xml:ns:carddav' xmlns:x='" + user + "'>")
		for i := range r.IntN(12) {
			href := fmt.Sprintf("/%s@x/work/%s-%d.ics", user, user, i)
			switch r.IntN(6) {
			case 0:
				href = "/" + user + "@x/private/" + user
			case 1:
				href = "/" + user + "@x/work/%20" + user
			}
			missing := "<propstat><prop><x:" + user + "/><displayname/></prop><status>HTTP/1.1 404 Not Found</status></propstat>"
			there := "<propstat><prop><getetag>\"" + user + strings.Repeat("-", r.IntN(3000)) + "\"</getetag><owner><href>/" + user + "@x/</href></owner>" +
				"<current-user-privilege-set><privilege><read/></privilege><privilege><x:" + user + "/></privilege></current-user-privilege-set>" +
				"<C:calendar-data>BEGIN:VCALENDAR " + user + strings.Repeat(user, r.IntN(r.IntN(9000)+1)) + "</C:calendar-data></prop><status>HTTP/1.1 200 OK</status></propstat>"
			if r.IntN(2) == 0 {
				missing, there = there, missing
			}
			b.WriteString("<response><href>" + href + "</href>" + missing + there + "</response>")
		}
		b.WriteString("</multistatus>")
		return b.String()
	}
	var all sync.WaitGroup
	for g := range 8 {
		user, others := "alice", "bob"
		if g%2 == 1 {
			user, others = others, user
		}
		all.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(g)))
			m := mountAt(calendar)
			m.home, m.principal = []string{user + "@x"}, []string{user + "@x"}
			for range 40 {
				doc := docOf(user, r)
				whole := true
				switch r.IntN(4) {
				case 0:
					doc, whole = doc[:r.IntN(len(doc))], false
				case 1: // what others' documents declare does not count
					whole = !strings.Contains(doc, "<x:")
					doc = strings.Replace(doc, " xmlns:x='"+user+"'", "", 1)
				}
				var in io.Reader = strings.NewReader(doc)
				if r.IntN(2) == 0 {
					in = iotest.HalfReader(in)
				}
				var out strings.Builder
				at := atWork
				if r.IntN(3) == 0 {
					at = atHome
				}
				f := &filter{m: m, at: at, grant: reader, kindOf: func(target) (kind, error) { return calendar, nil }}
				err := f.copy(&out, in)
				if (err == nil) != whole {
					t.Errorf("%v, whole: %t", err, whole)
				}
				if strings.Contains(out.String(), others) {
					t.Errorf("%s is told of %s: %s", user, others, out.String())
					return
				}
				if err == nil {
					checkPassed(t, out.String())
				}
			}
		})
	}
	all.Wait()
}
