package davproxy

import (
	"strings"
	"testing"
)

const host = "dav.example.test"

func TestLocate(t *testing.T) {
	for raw, want := range map[string]target{
		"/":                              {place: lobby, public: "/"},
		"/dav":                           {place: lobby, public: "/dav/"},
		"/dav/":                          {place: lobby, public: "/dav/"},
		"/principals/":                   {place: lobby, public: "/principals/"},
		"/dav/p/":                        {place: lobby, public: "/dav/p/"},
		"/dav/cal":                       {place: lobby, public: "/dav/cal/"},
		"/dav/p/ID":                      {place: principal, id: "ID"},
		"/dav/p/ID/x":                    {},
		"/dav/cal/ID/":                   {place: home, kind: calendar, id: "ID"},
		"/dav/card/ID":                   {place: home, kind: contacts, id: "ID"},
		"/dav/cal/ID/work":               {place: collection, kind: calendar, id: "ID", collection: "work"},
		"/dav/cal/ID/work/":              {place: collection, kind: calendar, id: "ID", collection: "work"},
		"/dav/cal/ID/w%C3%B6rk/a%20b":    {place: member, kind: calendar, id: "ID", collection: "wörk", member: "a b"},
		"/dav/cal/ID/work/a+b;c.ics":     {place: member, kind: calendar, id: "ID", collection: "work", member: "a+b;c.ics"},
		"/dav/cal/ID/work/a.ics/":        {},
		"/dav/cal/ID/work/a/b":           {},
		"/dav/file/ID/":                  {},
		"/DAV/":                          {},
		"/dav/cal%20/ID/":                {},
		"/principals/users/x/":           {},
		"/.well-known/caldav":            {place: wellKnown},
		"/.well-known/carddav/":          {place: wellKnown},
		"/.well-known/webdav":            {},
		"https://dav.example.test/dav/":  {place: lobby, public: "/dav/"},
		"HTTPS://DAV.example.test:443/":  {place: lobby, public: "/"},
		"http://dav.example.test:80/dav": {place: lobby, public: "/dav/"},
		"https://dav.example.test":       {place: lobby, public: "/"},
		"/dav/%63al/ID/":                 {place: home, kind: calendar, id: "ID"},
		"/dav/cal/ID/...":                {place: collection, kind: calendar, id: "ID", collection: "..."},
		"/dav/cal/ID/100%25":             {place: collection, kind: calendar, id: "ID", collection: "100%"},
	} {
		got, err := locate(raw, host)
		if err != nil || got != want {
			t.Errorf("locate(%q) = %+v, %v, want %+v", raw, got, err, want)
		}
	}
}

// aliases are spellings under which Radicale, Xandikos, Cyrus or some proxy serves what stands elsewhere.
var aliases = []string{
	"", "*", "dav", "dav/", "//", "///", "//dav/", "/dav//", "/dav//cal/ID/", "/dav/cal/ID//", "/dav/cal/ID//work/",
	"/dav/cal/ID/work//a.ics", "/dav/cal/ID/..", "/dav/cal/ID/../", "/dav/cal/ID/../../card/ID/", "/dav/./cal/ID/", "/dav/cal/ID/.",
	"/dav/cal/ID/%2e%2e/", "/dav/cal/ID/%2E%2e/x", "/dav/cal/ID/.%2e/", "/dav/cal/ID/%2e/", "/dav/cal/ID/..;/x", "/dav/cal/ID/..;a=b/x", "/dav/cal/ID/.;/x",
	"/dav/cal/ID/%2f", "/dav/cal/ID/a%2Fb", "/dav/cal%2fID/", "/dav/cal/ID/%2e%2e%2fcard", "/dav/cal/ID/a%5cb", `/dav/cal/ID/a\b`, `\dav\`, `/dav/cal/ID/..\card`,
	"/dav/cal/ID/a%00", "/dav/cal/ID/%00/", "/dav/cal/ID/a%0a", "/dav/cal/ID/a%0d%0aX: y", "/dav/cal/ID/a\x00", "/dav/cal/ID/\x7f", "/dav/cal/ID/%7f", "/dav/cal/ID/%c2%85",
	"/dav/cal/ID/%252e%252e/", "/dav/cal/ID/a%252fb", "/dav/cal/ID/a%255cb", "/dav/cal/ID/%2525",
	"/dav/cal/ID/%c0%ae%c0%ae/", "/dav/cal/ID/%c0%af", "/dav/cal/ID/%ff", "/dav/cal/ID/\xff", "/dav/cal/ID/%e0%80%af", "/dav/cal/ID/%ed%a0%80", "/dav/cal/ID/%ef%bb%bf",
	"/dav/cal/ID/%", "/dav/cal/ID/%2", "/dav/cal/ID/%zz", "/dav/cal/ID/%u002e",
	"/dav/?x", "/dav/cal/ID/work/a.ics?action=attachment-add", "/dav/cal/ID/?", "/dav/#x", "?", "#",
	"https://evil.example/dav/", "https://dav.example.test.evil.example/", "https://dav.example.test@evil.example/", "https://evil@dav.example.test/",
	"https:/dav/", "https:///dav/", "ftp://dav.example.test/", "javascript:alert(1)", "https://dav.example.test:444/", "//evil.example/dav/",
}

func TestAliasesAreRefused(t *testing.T) {
	for _, raw := range aliases {
		if got, err := locate(raw, host); err == nil {
			t.Errorf("locate(%q) = %+v, want an error", raw, got)
		}
	}
	if _, err := locate("https:///dav/", ""); err == nil {
		t.Error("no host was taken for ours")
	}
}

// FuzzLocate: what is taken has one spelling, which is read as the same, and which no backend reads otherwise.
func FuzzLocate(f *testing.F) {
	for _, raw := range aliases {
		f.Add(raw)
	}
	for _, raw := range []string{"/dav/cal/ID/work/a%20b.ics", "/dav/card/ID/fr%C3%BCnde/", "/dav/p/ID", "/.well-known/caldav", "https://dav.example.test/dav/cal/ID/"} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := locate(raw, host)
		if err != nil || got.place == nowhere || got.place == wellKnown {
			return
		}
		path := got.path()
		if again, err := locate(path, host); err != nil || again != got {
			t.Fatalf("%q is %+v, spelled %q, which is %+v, %v", raw, got, path, again, err)
		}
		for _, bad := range []string{"//", "/./", "/../", "%2F", "%5C", "%00", "%2E", "\\", ";", "?", "#"} {
			if strings.Contains(path, bad) {
				t.Fatalf("%q is spelled %q", raw, path)
			}
		}
		for _, c := range []byte(path) {
			if c <= ' ' || c >= 0x7f {
				t.Fatalf("%q is spelled %q", raw, path)
			}
		}
	})
}
