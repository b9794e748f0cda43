package demo

import (
	"bytes"
	"testing"
)

// What a client sets as a property is told again: what was read must be written so that it reads the same.
func FuzzParseXML(f *testing.F) {
	for _, body := range []string{
		syncBody("data:,x-1", ""), query("calendar-query", `<q:filter><q:comp-filter name="VCALENDAR"/></q:filter>`),
		`<A:propfind xmlns:A="DAV:"><A:prop><A:sync-token/><B:calendar-color xmlns:B="http://apple.com/ns/ical/" symbolic-color="red"/></A:prop></A:propfind>`,
		`<?xml version="1.0"?><x xmlns="urn:x" xml:lang="de" y:z="1" xmlns:y="urn:y">a&lt;b<![CDATA[<c>]]><d xmlns=""/></x>`, "", "<",
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		root, err := parseXML(body)
		if err != nil || root == nil {
			return
		}
		written := root.document()
		again, err := parseXML(written)
		if err != nil {
			t.Fatalf("%q was read, but written as %q: %v", body, written, err)
		}
		if second := again.document(); !bytes.Equal(written, second) {
			t.Errorf("%q, then %q", written, second)
		}
	})
}

// A path that leads somewhere is told in answers such that it leads there again.
func FuzzParseTarget(f *testing.F) {
	for _, path := range []string{"/", "//", "/a@b/", personal, personal + "a%20b%25.ics", "/a/calendars/%2e%2e/x", "/a/contacts/b/c/d", "/a/calendars/b%2Fc"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		first, ok := parseTarget(path)
		if !ok {
			return
		}
		if again, ok := parseTarget(first.href()); !ok || again != first {
			t.Errorf("%q leads to %+v, told as %q, which leads to %+v", path, first, first.href(), again)
		}
	})
}
