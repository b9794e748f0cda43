package davproxy

import (
	"strings"
	"testing"

	"postern/authstore"
	"postern/protocols"
)

// layouts are backends by where they have things: homes that are one tree or several, inside of the principal or around it.
var layouts = map[string]struct{ principal, calendars, contacts, inbox, outbox string }{
	"Radicale":      {"/alice@x/", "/alice@x/", "/alice@x/", "", ""},
	"Xandikos":      {"/alice@x/", "/alice@x/calendars/", "/alice@x/contacts/", "/alice@x/inbox", ""},
	"Cyrus":         {"/dav/principals/user/alice@x/", "/dav/calendars/user/alice@x/", "/dav/addressbooks/user/alice@x/", "/dav/calendars/user/alice@x/Inbox/", "/dav/calendars/user/alice@x/Outbox/"},
	"DAViCal":       {"/caldav.php/alice/", "/caldav.php/alice/", "/caldav.php/alice/", "/caldav.php/alice/.in/", "/caldav.php/alice/.out/"},
	"sabre":         {"/dav.php/principals/alice/", "/dav.php/calendars/alice/", "/dav.php/addressbooks/alice/", "/dav.php/calendars/alice/inbox/", "/dav.php/calendars/alice/outbox/"},
	"Nextcloud":     {"/remote.php/dav/principals/users/alice/", "/remote.php/dav/calendars/alice/", "/remote.php/dav/addressbooks/users/alice/", "/remote.php/dav/calendars/alice/inbox/", "/remote.php/dav/calendars/alice/outbox/"},
	"Zimbra":        {"/principals/users/alice@x/", "/dav/alice@x/", "/dav/alice@x/", "/dav/alice@x/Inbox/", "/dav/alice@x/Sent/"},
	"home around":   {"/u/alice/me/", "/u/alice/", "/u/alice/", "", ""},
	"book in home":  {"/u/alice/", "/u/alice/", "/u/alice/contacts/", "/u/inbox/alice/", "/u/outbox/alice/"},
	"odd letters":   {"/p/a%20b%3B%C3%BC/", "/c/a%20b%3B%C3%BC/", "/k/a%20b%3B%C3%BC/", "/c/a%20b%3B%C3%BC/%E5%8F%97/", "/c/a%20b%3B%C3%BC/out/"},
	"boxes outside": {"/me/", "/cal/", "/card/", "/in/", "/out/"},
}

func segmentsOf(t *testing.T, path string) []string {
	t.Helper()
	if path == "" {
		return nil
	}
	segments, _, err := split(nil, path)
	if err != nil {
		t.Fatal(err)
	}
	return segments
}

// TestMapping: what lies in a home has one public path, by which it is found again, however the backend writes it.
func TestMapping(t *testing.T) {
	for server, l := range layouts {
		route := &protocols.Route{Network: "tcp", Address: "127.0.0.1:80"}
		found := map[string][]string{"schedule-inbox-URL": {l.inbox}, "schedule-outbox-URL": {l.outbox}}
		props := make(map[name][]string)
		for local, hrefs := range found {
			if hrefs[0] != "" {
				props[name{nsCalDAV, local}] = hrefs
			}
		}
		for k, homePath := range map[kind]string{calendar: l.calendars, contacts: l.contacts} {
			m := &mount{kind: k, id: "ID", route: route, principal: segmentsOf(t, l.principal), home: segmentsOf(t, homePath)}
			m.boxes = m.boxesIn(props, homePaths{principal: m.principal, home: m.home})
			if (len(m.inbox) > 0) != (l.inbox != "") || (len(m.outbox) > 0) != (l.outbox != "") {
				t.Errorf("%s: boxes %q, %q", server, m.inbox, m.outbox)
			}
			targets := []target{
				{place: home, kind: k, id: "ID"}, {place: collection, kind: k, id: "ID", collection: "work"},
				{place: collection, kind: k, id: "ID", collection: "zu hause ü;@+"}, {place: member, kind: k, id: "ID", collection: "work", member: "a b@x.ics"},
				{place: member, kind: k, id: "ID", collection: "wörk", member: "%.ics"},
			}
			if l.inbox != "" {
				targets = append(targets, target{place: collection, kind: inbox, id: "ID"}, target{place: member, kind: inbox, id: "ID", member: "x y.ics"})
			}
			if l.outbox != "" {
				targets = append(targets, target{place: collection, kind: outbox, id: "ID"})
			}
			for _, want := range targets {
				path := m.inward(want)
				for _, spelled := range []string{path, lower(path), strings.ReplaceAll(path, "@", "%40"), "http://127.0.0.1" + path, "HTTP://127.0.0.1:80" + path} {
					if got, ok := m.outward(spelled); !ok || got != want {
						t.Errorf("%s: %s is %+v, %t, want %+v", server, spelled, got, ok, want)
					}
				}
				if want.place == collection { // a backend may leave the slash out
					if got, ok := m.outward(strings.TrimSuffix(path, "/")); !ok || got != want {
						t.Errorf("%s: %s without its slash is %+v", server, path, got)
					}
				}
				if again, err := locate(want.path(), host); err != nil || again != want {
					t.Errorf("%s: %+v is public at %s, which is %+v, %v", server, want, want.path(), again, err)
				}
			}
			for _, elsewhere := range []string{
				"http://evil.example" + homePath, "https://127.0.0.1" + homePath, "//127.0.0.1" + homePath, homePath + "a/b/c", homePath + "a/b/", homePath + "../bob/", homePath + "a/%2e%2e/",
				homePath + "a%2Fb", homePath + "/a", homePath + "?x", strings.TrimPrefix(homePath, "/"), "/", "", l.outbox + "x.ics", l.inbox + "/a/b", "mailto:alice@x",
			} {
				if got, ok := m.outward(elsewhere); ok && (elsewhere != l.outbox+"x.ics" || got.kind.isBox()) {
					t.Errorf("%s: %q is %+v", server, elsewhere, got)
				}
			}
			if l.inbox != "" {
				if at := (target{place: collection, kind: k, id: "ID", collection: last(m.inbox)}); strings.HasPrefix(join(m.inbox), join(m.home)) && len(m.inbox) == len(m.home)+1 && !m.isBox(at) {
					t.Errorf("%s: %+v is the inbox at the backend, and taken for another", server, at)
				}
			}
		}
	}
}

// lower writes escapes with small letters.
func lower(path string) string {
	b := []byte(path)
	for i := range b {
		if b[i] == '%' {
			copy(b[i+1:i+3], strings.ToLower(string(b[i+1:i+3])))
		}
	}
	return string(b)
}

func last(segments []string) string { return segments[len(segments)-1] }

// TestBoxesThatOpenMoreThanThemselves are none.
func TestBoxesThatOpenMoreThanThemselves(t *testing.T) {
	m := &mount{route: &protocols.Route{Network: "tcp", Address: "127.0.0.1:80"}}
	at := homePaths{principal: []string{"p", "alice"}, home: []string{"c", "alice"}}
	for in, want := range map[string]bool{
		"/c/alice/in/": true, "/in/": true, "/c/alice/": false, "/c/": false, "/": false, "/p/alice": false, "/p/": false, "": false,
		"http://evil.example/in/": false, "/c/alice/../in/": false,
	} {
		b := m.boxesIn(map[name][]string{{nsCalDAV, "schedule-inbox-URL"}: {in}, {nsCalDAV, "schedule-outbox-URL"}: {in}}, at)
		if (len(b.inbox) > 0) != want || len(b.outbox) > 0 { // the same place is not both
			t.Errorf("%q: inbox %q, outbox %q", in, b.inbox, b.outbox)
		}
	}
}

// TestHrefsInProperties: what leads to a place that the grant does not open is left out, and what leads to no place here stays where it is data.
func TestHrefsInProperties(t *testing.T) {
	boxed := mountAt(calendar)
	boxed.inbox, boxed.outbox = []string{"alice@x", "in"}, []string{"alice@x", "out"}
	kindOf := func(c target) (kind, error) {
		switch c.collection {
		case "work", "home":
			return calendar, nil
		case "gone":
			return unknown, errNoCollection
		}
		return contacts, nil
	}
	atInbox := target{place: collection, kind: inbox, id: "ID"}
	atOutbox := target{place: collection, kind: outbox, id: "ID"}
	const href = "<href>%</href>"
	for what, tt := range map[string]struct {
		at       target
		grant    *authstore.Grant
		property string
		in, want string // "-": the property is left out
	}{
		"default calendar":          {atInbox, grantOf(calW | sched), "C:schedule-default-calendar-URL", "/alice@x/work/", "/dav/cal/ID/work/"},
		"default that is gone":      {atInbox, grantOf(calW | sched), "C:schedule-default-calendar-URL", "/alice@x/gone/", ""},
		"default that is a book":    {atInbox, grantOf(calW | sched), "C:schedule-default-calendar-URL", "/alice@x/friends/", ""},
		"default of somebody":       {atInbox, grantOf(calW | sched), "C:schedule-default-calendar-URL", "/bob@x/work/", ""},
		"free-busy set":             {atInbox, grantOf(calW | sched), "C:calendar-free-busy-set", "/alice@x/home", "/dav/cal/ID/home/"},
		"boxes at the home":         {atHome, grantOf(calR | sched), "C:schedule-inbox-URL", "/alice@x/in", "/dav/inbox/ID/"},
		"outbox at the home":        {atHome, grantOf(calR | sched), "C:schedule-outbox-URL", "/alice@x/out/", "/dav/outbox/ID/"},
		"boxes, not scheduling":     {atHome, grantOf(calW), "C:schedule-inbox-URL", "/alice@x/in", "-"},
		"boxes, narrowed":           {atHome, grantOf(calW|sched, "calendar/work"), "C:schedule-outbox-URL", "/alice@x/out", "-"},
		"user type, not scheduling": {atHome, grantOf(calW), "C:calendar-user-type", "/alice@x/", "-"},
		"own addresses":             {atHome, grantOf(calW), "C:calendar-user-address-set", "mailto:alice@x", "mailto:alice@x"},
		"a mail address elsewhere":  {atHome, grantOf(calW), "C:x", "mailto:alice@x", ""},
		"a calendar at the home":    {atHome, grantOf(calW), "C:x", "/alice@x/work/", "/dav/cal/ID/work/"},
		"a book at the home":        {atHome, grantOf(calW), "C:x", "/alice@x/friends/", ""},
		"one that is not open":      {atHome, grantOf(calW, "calendar/home"), "C:x", "/alice@x/work/", ""},
		"one that is open":          {atHome, grantOf(calW, "calendar/home"), "C:x", "/alice@x/home/", "/dav/cal/ID/home/"},
		"another at a calendar":     {atWork, grantOf(calW), "C:x", "/alice@x/home/", ""},
		"the inbox at a calendar":   {atWork, grantOf(calW), "C:x", "/alice@x/in/", ""},
		"a subscription":            {atWork, grantOf(calR), "S:source", "webcal://feeds.example/a.ics", "webcal://feeds.example/a.ics"},
		"a subscription by https":   {atWork, grantOf(calR), "S:source", "https://feeds.example/a.ics", "https://feeds.example/a.ics"},
		"one to the backend":        {atWork, grantOf(calR), "S:source", "http://127.0.0.1:5232/bob@x/a.ics", ""},
		"one to a path there":       {atWork, grantOf(calR), "S:source", "/alice@x/friends/", ""},
		"a relative one":            {atWork, grantOf(calR), "S:source", "feeds/a.ics", ""},
		"one without a scheme":      {atWork, grantOf(calR), "S:source", "//feeds.example/a.ics", ""},
		"a foreign URL elsewhere":   {atWork, grantOf(calR), "S:x", "https://feeds.example/a.ics", ""},
		"add-member":                {atWork, grantOf(calW), "add-member", "/alice@x/work/", "-"},
		"boxes at the outbox":       {atOutbox, grantOf(calW | sched), "C:schedule-outbox-URL", "/alice@x/out/", "/dav/outbox/ID/"},
	} {
		own := map[place]string{home: "/alice@x/", collection: join([]string{"alice@x", tt.at.collection})}[tt.at.place]
		if tt.at.kind.isBox() {
			own = boxed.inward(tt.at)
		}
		property := func(text string) string {
			if text == "-" {
				return ""
			}
			if text != "" {
				text = strings.Replace(href, "%", text, 1)
			}
			return `<S:a xmlns:S="` + nsCalendar + `"><S:b/></S:a><` + tt.property + ` xmlns:S="` + nsCalendar + `">` + text + "</" + tt.property + ">"
		}
		in, want := property(tt.in), property(tt.want)
		if tt.want == "-" {
			want = strings.Split(in, "<"+tt.property)[0]
		}
		f := &filter{m: boxed, at: tt.at, grant: tt.grant, kindOf: kindOf}
		got, err := run(f, many(responseWith(own, in)))
		if err != nil || got != many(responseWith(tt.at.path(), want)) {
			t.Errorf("%s: %v\ngot  %s\nwant %s", what, err, got, many(responseWith(tt.at.path(), want)))
		}
	}
}

// TestNarrowedHome shows what is named, and of it what is of the kind.
func TestNarrowedHome(t *testing.T) {
	boxed := mountAt(calendar)
	boxed.inbox = []string{"alice@x", "in"}
	asked := ""
	f := &filter{m: boxed, at: atHome, grant: grantOf(calW|cardW|sched, "calendar/work", "calendar/friends", "contacts/*"), kindOf: func(c target) (kind, error) {
		asked += c.collection + " "
		return calendar, nil
	}}
	privileged := "<current-user-privilege-set><privilege><all/></privilege></current-user-privilege-set>"
	in := many(
		responseWith("/alice@x/", privileged), responseWith("/alice@x/work/", isCalendar+privileged), responseWith("/alice@x/home/", isCalendar),
		responseWith("/alice@x/untyped/", "<displayname/>"), responseWith("/alice@x/friends/", isBook), responseWith("/alice@x/in/", isCalendar))
	got, err := run(f, in)
	want := []string{"/dav/cal/ID/<", "/dav/cal/ID/work/<"}
	if err != nil || strings.Count(got, "<response>") != 2 || !strings.Contains(got, want[0]) || !strings.Contains(got, want[1]) || asked != "" {
		t.Errorf("%v, asked for %q: %s", err, asked, got)
	}
	if first, second, _ := strings.Cut(got, "</response>"); strings.Contains(first, "bind") || !strings.Contains(second, "bind") || !strings.Contains(second, "write-content") {
		t.Errorf("privileges: %s", got)
	}
}

// TestNoBoxInTheHome, whatever a backend calls it there, nor what claims to be a calendar and a box.
func TestNoBoxInTheHome(t *testing.T) {
	boxed := mountAt(calendar)
	boxed.inbox = []string{"alice@x", "in"}
	f := &filter{m: boxed, at: atHome, grant: grantOf(calW | sched), kindOf: func(target) (kind, error) { return calendar, nil }}
	in := many(responseWith("/alice@x/in/", isCalendar), responseWith("/alice@x/in/", "<displayname/>"),
		responseWith("/alice@x/out/", "<resourcetype><collection/><C:calendar/><C:schedule-outbox/></resourcetype>"))
	if got, err := run(f, in); err != nil || got != many() {
		t.Errorf("%v: %s", err, got)
	}
}

// TestScheduleResponse: the answer to a question for free and busy times is told at the outbox, and nowhere else.
func TestScheduleResponse(t *testing.T) {
	in := `<C:schedule-response` + ns + `><C:response><C:recipient><href>%</href></C:recipient><C:request-status>2.0;Success</C:request-status>` +
		`<C:calendar-data>BEGIN:VCALENDAR&#13;METHOD:REPLY</C:calendar-data></C:response></C:schedule-response>`
	for from, to := range map[string]string{
		"<href>mailto:bob@x</href>": "<href>mailto:bob@x</href>", "<href>/alice@x/</href>": "<href>/dav/p/ID/</href>", "<href>/bob@x/</href>": "", "<href>http://evil.example/</href>": "",
	} {
		f := &filter{m: mountAt(calendar), at: target{place: collection, kind: outbox, id: "ID"}, grant: grantOf(calR | sched)}
		got, err := run(f, strings.Replace(in, "<href>%</href>", from, 1))
		if want := strings.Replace(in, "<href>%</href>", to, 1); err != nil || got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
	if got, err := run(&filter{m: mountAt(calendar), at: atWork, grant: owner}, in); err == nil {
		t.Errorf("at a calendar: %s", got)
	}
}
