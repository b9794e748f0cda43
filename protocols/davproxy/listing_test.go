package davproxy

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"postern/protocols"
)

func TestReadListing(t *testing.T) {
	m := &mount{kind: calendar, route: &protocols.Route{Address: "dav.example.test:80"}, home: []string{"alice", "all"}}
	const (
		cal  = `<resourcetype><collection/><C:calendar/></resourcetype>`
		card = `<resourcetype><collection/><A:addressbook/></resourcetype>`
	)
	one := func(href, props string) string {
		return `<response><href>` + href + `</href><propstat><prop>` + props + `</prop><status>HTTP/1.1 200 OK</status></propstat></response>`
	}
	for name, tt := range map[string]struct {
		responses string
		want      string
		err       error
	}{
		"nothing":                   {"", "[]", nil},
		"the home itself":           {one("/alice/all/", `<resourcetype><collection/></resourcetype>`), "[]", nil},
		"one":                       {one("/alice/all/work/", cal+`<displayname>Arbeit</displayname>`), "[{calendar/work Arbeit}]", nil},
		"an absolute URL":           {one("http://dav.example.test/alice/all/work", cal), "[{calendar/work work}]", nil},
		"another server's":          {one("http://evil.example/alice/all/work/", cal), "[]", nil},
		"without a title":           {one("/alice/all/work/", cal+`<displayname> </displayname>`), "[{calendar/work work}]", nil},
		"a title in pieces":         {one("/alice/all/work/", cal+`<displayname>A &amp;<![CDATA[ <b> ]]>c</displayname>`), "[{calendar/work A & <b> c}]", nil},
		"a long title":              {one("/alice/all/work/", cal+`<displayname>`+strings.Repeat("ü", 5000)+`</displayname>`), "[{calendar/work " + strings.Repeat("ü", maxTitle) + "}]", nil},
		"an escaped name":           {one("/alice/all/Zu%20Hause%3b/", cal), "[{calendar/Zu Hause; Zu Hause;}]", nil},
		"an address book":           {one("/alice/all/team/", card), "[]", nil},
		"both at once":              {one("/alice/all/team/", `<resourcetype><C:calendar/><A:addressbook/></resourcetype>`), "[]", nil},
		"an inbox":                  {one("/alice/all/inbox/", `<resourcetype><collection/><C:schedule-inbox/></resourcetype>`), "[]", nil},
		"a type of no namespace":    {one("/alice/all/work/", `<resourcetype><calendar xmlns=""/></resourcetype>`), "[]", nil},
		"a type outside its place":  {one("/alice/all/work/", `<displayname><C:calendar/></displayname>`), "[]", nil},
		"elsewhere":                 {one("/bob/all/work/", cal), "[]", nil},
		"above the home":            {one("/alice/", cal), "[]", nil},
		"a member":                  {one("/alice/all/work/1.ics", cal), "[]", nil},
		"dots":                      {one("/alice/all/../all/work/", cal), "[]", nil},
		"a name that means all":     {one("/alice/all/*/", cal) + one("/alice/all/%2A/", cal), "[]", nil},
		"a name with a slash":       {one("/alice/all/a%2Fb/", cal), "[]", nil},
		"too long a name":           {one("/alice/all/"+strings.Repeat("x", 256)+"/", cal), "[]", nil},
		"the first href counts":     {`<response><href>/bob/x/</href><href>/alice/all/work/</href><propstat><prop>` + cal + `</prop></propstat></response>`, "[]", nil},
		"an href in a property":     {`<response><propstat><prop><owner><href>/alice/all/work/</href></owner>` + cal + `</prop></propstat></response>`, "[]", nil},
		"nothing stays of the last": {one("/alice/all/work/", cal+`<displayname>W</displayname>`) + one("/alice/all/other/", ""), "[{calendar/work W}]", nil},
		"too many":                  {strings.Repeat(one("/alice/all/work/", cal), maxListed+1), "[]", errManyCollections},
	} {
		document := `<multistatus xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav" xmlns:A="urn:ietf:params:xml:ns:carddav">` + tt.responses + `</multistatus>`
		list, err := readListing(strings.NewReader(document), m)
		var got []string
		for _, l := range list {
			got = append(got, "{"+l.String()+" "+l.Title+"}")
		}
		if !errors.Is(err, tt.err) || fmt.Sprint(got) != tt.want {
			t.Errorf("%s: %.200v, %v; want %.200s, %v", name, got, err, tt.want, tt.err)
		}
	}
	for name, document := range map[string]string{
		"cut":          `<multistatus xmlns="DAV:">` + one("/alice/all/work/", ""),
		"a page":       `<html></html>`,
		"a DOCTYPE":    `<!DOCTYPE x><multistatus xmlns="DAV:"/>`,
		"empty":        "",
		"another root": `<error xmlns="DAV:"/>`,
	} {
		if got, err := readListing(strings.NewReader(document), m); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}
