package davproxy

import (
	"bytes"
	"strings"
	"testing"
)

// A folder remembers, and says what the mount says.
func TestFolderSaysWhatTheMountSays(t *testing.T) {
	m := mountAt(calendar)
	var d folder
	var hrefs []string
	for _, last := range []string{"1.ics", "2.ics", "", ".", "..", "...", "%2e%2e", "a%20b.ics", "a@b.ics", "a%40b", "~", "a;b", "a?b", "a#b", "é", "a\\b", "%00", "%", "a b", "a&b", "x/y"} {
		for _, before := range []string{"/alice@x/work/", "/alice@x/work/", "/alice%40x/work/", "http://127.0.0.1:5232/alice@x/work/", "/alice@x/other/", "/alice@x/", "/bob@x/work/", "/alice@x/work/../", "", "work/"} {
			hrefs = append(hrefs, before+last)
		}
	}
	for i := range hrefs {
		for _, href := range []string{hrefs[i], "/alice@x/work/3.ics", hrefs[i], "/alice@x/work/", hrefs[(i*7)%len(hrefs)]} {
			got, path, ok := d.outward(m, []byte(href))
			want, wantOK := m.outward(href)
			wantPath := ""
			if wantOK {
				wantPath = want.path()
			}
			want.member = ""
			if got != want || ok != wantOK || string(path) != wantPath {
				t.Fatalf("%q: got %+v, %q, %t; want %+v, %q, %t", href, got, path, ok, want, wantPath, wantOK)
			}
		}
	}
}

// What is held does not go before its turn, wherever the output is full.
func TestFilterKeepsOrderInLongAnswers(t *testing.T) {
	propstat := func(prop, status string) string {
		return "<propstat><prop>" + prop + "</prop><status>HTTP/1.1 " + status + "</status></propstat>"
	}
	missing, there := propstat("<C:x/><C:y/>", "404 Not Found"), propstat("<getetag>1</getetag>", "200 OK")
	one := func(href string, propstats ...string) string {
		return "<response><href>" + href + "</href>" + strings.Join(propstats, "") + "</response>"
	}
	var in, want bytes.Buffer
	for i := range 3_000 {
		pad := strings.Repeat("p", i%97)
		in.WriteString(one("/alice@x/work/"+pad+"1.ics", missing, there) + one("/bob@x/1.ics", missing, there))
		want.WriteString(one("/dav/cal/ID/work/"+pad+"1.ics", there, missing))
	}
	if got, err := run(&filter{m: mountAt(calendar), at: atWork, grant: owner}, many(in.String())); err != nil || got != many(want.String()) {
		t.Errorf("%v; %d bytes of %d", err, len(got), len(many(want.String())))
	}
}
