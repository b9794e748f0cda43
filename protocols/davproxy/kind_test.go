package davproxy_test

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"postern/internal/testlab"
	"postern/protocols/davproxy"
)

// TestKindsAreForgotten: whatever may change what a collection is, the backend is asked anew behind it; where it is not known what
// became of it, each time.
func TestKindsAreForgotten(t *testing.T) {
	t.Parallel()
	props := `<propertyupdate xmlns="DAV:"><set><prop><displayname>x</displayname></prop></set></propertyupdate>`
	hang := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done(); panic(http.ErrAbortHandler) }
	says := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); w.WriteHeader(status) }
	}
	outcomes := map[string]struct {
		change  http.HandlerFunc
		doubted bool
	}{
		"done": {says(204), false}, "refused": {says(409), false}, "failed": {says(500), true}, "no answer": {hang, true},
		"hung up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, true},
	}
	methods := []struct{ method, body, destination string }{
		{"MKCALENDAR", makeCal, ""}, {"MKCOL", strings.ReplaceAll(strings.ReplaceAll(makeCard, "carddav", "caldav"), "addressbook", "calendar"), ""},
		{"PROPPATCH", props, ""}, {"DELETE", "", ""}, {"MOVE", "", "home/"}, {"COPY", "", "home/"},
	}
	for outcome, o := range outcomes {
		t.Run(outcome, func(t *testing.T) {
			t.Parallel()
			b := newFake(t, nil)
			b.is = func(string) string { return "<C:calendar/>" }
			b.handle = func(w http.ResponseWriter, r *http.Request) {
				if r.Method != "PROPFIND" {
					o.change(w, r)
					return
				}
				w.Header().Set("Content-Type", "text/xml")
				w.WriteHeader(207)
				io.WriteString(w, listOf())
			}
			d := open(t, routes{"calendar": b.route}, func(o *davproxy.Options) { o.BackendTimeout = hanging })
			asked := func(collection string) int64 {
				before := b.asked.Load()
				d.want(207, "cal", "PROPFIND", cal+collection, askAll)
				return b.asked.Load() - before
			}
			for _, m := range methods {
				asked("work/")
				asked("home/")
				if !o.doubted && asked("work/")+asked("home/") != 0 {
					t.Errorf("%s: a kind is not remembered", m.method)
				}
				var header []string
				if m.destination != "" {
					header = []string{"Destination", d.url + cal + m.destination}
				}
				d.do("cal", m.method, cal+"work/", m.body, header...)
				again := int64(0)
				if o.doubted {
					again = 1
				}
				if first, second := asked("work/"), asked("work/"); first != 1 || second != again {
					t.Errorf("%s: asked %d times behind it, then %d, want 1, %d", m.method, first, second, again)
				}
				if m.destination == "" {
					continue
				}
				if first, second := asked("home/"), asked("home/"); first != 1 || second != again {
					t.Errorf("%s: asked %d times for the destination, then %d, want 1, %d", m.method, first, second, again)
				}
			}
		})
	}
}

// TestAKindThatIsLearntDuringAChange is not remembered: it may be from before.
func TestAKindThatIsLearntDuringAChange(t *testing.T) {
	t.Parallel()
	var changed atomic.Bool
	asking, changing := make(chan struct{}), make(chan struct{})
	b := newFake(t, nil)
	b.handle = func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "MKCALENDAR" {
			changed.Store(true)
			w.WriteHeader(201)
			return
		}
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(207)
		io.WriteString(w, listOf())
	}
	var first atomic.Bool
	b.is = func(path string) string {
		was := changed.Load()
		if strings.HasSuffix(path, "/new/") && first.CompareAndSwap(false, true) {
			close(asking)
			<-changing
		}
		if was {
			return ""
		}
		return "<C:calendar/>"
	}
	d := open(t, routes{"calendar": b.route})
	old := d.start(d.client, "cal", "PROPFIND", cal+"new/", strings.NewReader(askAll))
	next(t, "the question", asking)
	d.want(201, "cal", "MKCALENDAR", cal+"new/", makeCal) // here it makes something else
	close(changing)
	got := next(t, "an answer", old)
	if err := got.rest(); err != nil || got.StatusCode != 207 {
		t.Errorf("who asked before: %+v, %v", got, err)
	}
	d.want(404, "cal", "PROPFIND", cal+"new/", askAll)
}

// TestWhatIsNoCalendar: nothing is opened that is another thing, both at once, or closed by the backend. What is of no kind is
// asked anew each time.
func TestWhatIsNoCalendar(t *testing.T) {
	t.Parallel()
	for is, want := range map[string]int{
		"": 404,
		`<addressbook xmlns="urn:ietf:params:xml:ns:carddav"/><C:calendar/>`: 404, `<C:calendar/><C:schedule-inbox/>`: 404,
		"403": 404, "404": 404, "405": 404, "410": 404, "200": 503, "500": 503,
	} {
		b := newFake(t, emptyList)
		var answered atomic.Value
		answered.Store(is)
		b.is = func(path string) string {
			if strings.HasSuffix(path, "/x/") {
				return answered.Load().(string)
			}
			return ""
		}
		d := open(t, routes{"calendar": b.route})
		d.want(want, "cal", "PROPFIND", cal+"x/", askAll)
		d.want(want, "cal", "DELETE", cal+"x/", "")
		answered.Store("<C:calendar/>")
		d.want(207, "cal", "PROPFIND", cal+"x/", askAll)
	}
}

func emptyList(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(207)
	io.WriteString(w, listOf())
}

// TestACollectionThatComesBackAsAnother is what it is now, for every password.
func TestACollectionThatComesBackAsAnother(t *testing.T) {
	t.Parallel()
	b := testlab.Radicale(t)
	d := open(t, routes{"calendar": to(b), "contacts": to(b)})
	d.want(201, "both", "MKCALENDAR", cal+"x/", makeCal)
	d.want(201, "cal", "PUT", cal+"x/1.ics", testlab.Event("1"))
	d.want(404, "card", "PROPFIND", card+"x/", askAll)
	d.want(200, "both", "DELETE", cal+"x/", "")
	d.want(201, "card", "MKCOL", card+"x/", makeCard)
	d.want(201, "card", "PUT", card+"x/1.vcf", testlab.Card("1"))
	for _, method := range []string{"PROPFIND", "GET", "REPORT", "DELETE", "PROPPATCH"} {
		path := cal + "x/"
		if method == "GET" {
			path += "1.vcf"
		}
		d.want(404, "cal", method, path, "")
	}
	d.want(404, "cal", "MOVE", cal+"x/1.vcf", "", "Destination", d.url+cal+"y/1.ics")
}
