package davproxy_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"postern/authstore"
	"postern/internal/testlab"
)

// tricks are all requests of a row. What the app password may do is not among them.
func (r *row) tricks() []trick {
	return slices.Concat(r.spellings(), r.questions(), r.reports(), r.writes(), r.moves(), r.bodies(), r.makings(), r.actions(), r.boxes(), r.disguises(), r.failures())
}

func (r *row) closed() (list []*stash) {
	for _, s := range r.all {
		if !s.opened(r.grant) {
			list = append(list, s)
		}
	}
	return list
}

func (r *row) open() (list []*stash) {
	for _, s := range r.all {
		if s.opened(r.grant) {
			list = append(list, s)
		}
	}
	return list
}

// public is our address.
func (r *row) public() string { return r.door.url }

var mounts = []string{"cal", "card", "inbox", "outbox"}

func homeOf(mount string) string { return "/dav/" + mount + "/alicepubid/" }

// spellings asks for what is closed under every name that some server takes for it.
func (r *row) spellings() []trick {
	var list []trick
	add := func(what, at string, s *stash) {
		list = append(list, trick{name: "GET " + what, method: "GET", path: at + s.file()},
			trick{name: "PROPFIND of " + what, method: "PROPFIND", path: at, body: everyProp, header: []string{"Depth", "1"}})
	}
	for _, s := range r.closed() {
		for _, mount := range mounts {
			home := homeOf(mount)
			add("in the mount "+mount, home+s.name+"/", s)
			add("in the mount of the other account", "/dav/"+mount+"/bobspublic/"+s.name+"/", s)
			for what, at := range aliases(home, s) {
				add(what, at, s)
			}
			inner := strings.TrimPrefix(s.home(r.b), "/") + s.name + "/"
			add("with the backend's path behind the mount", home+inner, s)
			for _, up := range []string{"../", "..%2f", "%2e%2e/", "..;/", "%2e%2e%2f", "..%5c", "%252e%252e%252f", "%c0%ae%c0%ae/", "\u2024\u2024/"} {
				for depth := 1; depth <= 5; depth++ {
					add("upwards by "+up, home+strings.Repeat(up, depth)+inner, s)
				}
			}
			add("as something shared", home+s.user+"."+s.name+"/", s) // Cyrus
			add("as something shared", home+url.PathEscape(s.user)+"/"+s.name+"/", s)
		}
		add("by the backend's path", s.home(r.b)+s.name+"/", s)
		add("by the backend's URL", r.b.URL+s.home(r.b)+s.name+"/", s)
		add("by the backend's URL as ours", r.public()+s.home(r.b)+s.name+"/", s)
		add("below the principal", "/dav/p/alicepubid/"+s.name+"/", s)
		add("below a well-known name", "/.well-known/caldav"+s.home(r.b)+s.name+"/", s)
		add("below a well-known name", "/.well-known/carddav/../../dav/card/alicepubid/"+s.name+"/", s)
		for _, end := range []string{"?export", "?action=attachment-add", "?", "#x", "%3fexport", "/", "//", "/.", "%00", "%00.ics", "%20", ".", ";x=y", "%3b", "\\", "%5c", "~", ":", "::$DATA", "%0d%0aX-A:%20b", "%09", "%e2%80%8b", "%ef%bb%bf"} {
			for _, at := range []string{s.item(), homeOf(s.mount()) + s.name, homeOf("cal") + s.name + "/" + s.file()} {
				list = append(list, trick{name: "GET with an end", method: "GET", path: at + end}, trick{name: "HEAD with an end", method: "HEAD", path: at + end})
			}
		}
	}
	for _, s := range r.all { // the collection itself is never to be had: it would be an export of all of it
		for _, end := range []string{"", "?export", "?export=1", "?format=ical"} {
			for _, at := range []string{s.path(), strings.TrimSuffix(s.path(), "/"), homeOf(s.mount()), "/dav/p/alicepubid/", "/dav/" + s.mount() + "/", "/dav/", "/"} {
				list = append(list, trick{name: "GET of a collection", method: "GET", path: at + end, refuse: true}, trick{name: "HEAD of a collection", method: "HEAD", path: at + end, refuse: true})
			}
		}
	}
	return list
}

// aliases are other spellings of a collection's path.
func aliases(home string, s *stash) map[string]string {
	return map[string]string{
		"with a dot":                 home + "./" + s.name + "/",
		"through another collection": home + "zpawork/../" + s.name + "/",
		"through a missing one":      home + "missing/../" + s.name + "/",
		"escaped dots":               home + "zpawork/%2e%2e/" + s.name + "/",
		"half escaped dots":          home + "zpawork/.%2E/" + s.name + "/",
		"escaped slashes":            home + "zpawork%2f..%2f" + s.name + "%2f",
		"an escaped slash":           home + s.name + "%2f",
		"twice escaped dots":         home + "zpawork/%252e%252e/" + s.name + "/",
		"twice escaped slash":        home + "zpawork%252f..%252f" + s.name + "/",
		"two slashes":                home + "/" + s.name + "/",
		"slashes everywhere":         "//" + strings.ReplaceAll(home[1:], "/", "//") + s.name + "//",
		"a parameter":                home + "zpawork/..;x=1/" + s.name + "/",
		"a parameter of its own":     home + s.name + ";x=1/",
		"an empty parameter":         home + ";/" + s.name + "/",
		"backslashes":                home + "zpawork\\..\\" + s.name + "/",
		"escaped backslashes":        home + "zpawork%5c..%5c" + s.name + "/",
		"upper case":                 home + strings.ToUpper(s.name) + "/",
		"the mount in upper case":    strings.ToUpper(home) + s.name + "/",
		"a trailing dot":             home + s.name + "./",
		"a trailing blank":           home + s.name + "%20/",
		"a leading blank":            home + "%20" + s.name + "/",
		"a NUL":                      home + s.name + "%00/",
		"a line end":                 home + s.name + "%0a/",
		"a tab":                      home + "%09" + s.name + "/",
		"full width":                 home + strings.Map(fullWidth, s.name) + "/",
		"a combining character":      home + s.name + "%cc%81/",
		"a soft hyphen":              home + s.name[:2] + "%c2%ad" + s.name[2:] + "/",
		"a zero width space":         home + s.name[:2] + "%e2%80%8b" + s.name[2:] + "/",
		"overlong UTF-8":             home + "zpawork/%c0%ae%c0%ae/" + s.name + "/",
		"an overlong slash":          home + "zpawork%c0%af..%c0%af" + s.name + "/",
		"no UTF-8":                   home + s.name + "%ff/",
		"escaped letters":            home + escapeAll(s.name) + "/",
		"%u":                         home + "%u007a" + s.name[1:] + "/",
		"a long way":                 home + strings.Repeat("zpawork/../", 20) + s.name + "/",
		"an absolute URL":            "http://127.0.0.1" + home + s.name + "/",
		"another host":               "https://backend.example" + home + s.name + "/",
		"a user in the URL":          "https://bob@127.0.0.1" + home + s.name + "/",
		"a fragment":                 home + "zpawork/#/../" + s.name + "/",
		"a query":                    home + "zpawork/?/../" + s.name + "/",
	}
}

func fullWidth(c rune) rune { return c - '!' + '\uff01' }

func escapeAll(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02x", s[i])
	}
	return b.String()
}

const namespaces = `xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav" xmlns:D="urn:ietf:params:xml:ns:carddav" xmlns:S="http://calendarserver.org/ns/"`

const everyProp = `<propfind ` + namespaces + `><prop>` + allProps + `</prop></propfind>`

const allProps = `<resourcetype/><displayname/><getetag/><getcontenttype/><getcontentlength/><current-user-principal/><principal-URL/><owner/><acl/><acl-restrictions/>` +
	`<alternate-URI-set/><group-member-set/><group-membership/><inherited-acl-set/><principal-collection-set/><lockdiscovery/><supportedlock/><current-user-privilege-set/>` +
	`<supported-privilege-set/><supported-report-set/><sync-token/><add-member/><parent-set/><resource-id/><quota-used-bytes/><creator-displayname/>` +
	`<C:calendar-home-set/><C:calendar-user-address-set/><C:schedule-inbox-URL/><C:schedule-outbox-URL/><C:schedule-default-calendar-URL/><C:calendar-free-busy-set/>` +
	`<C:calendar-description/><C:calendar-timezone/><C:calendar-data/><C:supported-calendar-component-set/><C:managed-attachments-server-URL/><C:calendar-availability/>` +
	`<D:addressbook-home-set/><D:principal-address/><D:address-data/><D:directory-gateway/><D:addressbook-description/><D:max-resource-size/>` +
	`<S:getctag/><S:calendar-proxy-read-for/><S:calendar-proxy-write-for/><S:notification-URL/><S:dropbox-home-URL/><S:email-address-set/><S:invite/>` +
	`<S:allowed-sharing-modes/><S:publish-url/><S:pre-publish-url/><S:push-transports/><S:pushkey/><S:source/><S:shared-url/><S:me-card/>`

// questions are PROPFINDs of every level, as deep as can be.
func (r *row) questions() []trick {
	var list []trick
	bodies := map[string]string{
		"no body":   "",
		"allprop":   `<propfind xmlns="DAV:"><allprop/><include><displayname/></include></propfind>`,
		"propname":  `<propfind xmlns="DAV:"><propname/></propfind>`,
		"all props": everyProp,
	}
	for _, at := range r.places() {
		for what, body := range bodies {
			for _, depth := range []string{"0", "1", "infinity", "", "1,noroot", "2"} {
				tr := trick{name: "PROPFIND, " + what + ", depth " + depth, method: "PROPFIND", path: at, body: body}
				if depth != "" {
					tr.header = []string{"Depth", depth}
				}
				list = append(list, tr)
			}
		}
	}
	return list
}

// places are public paths of every level, of both kinds and both accounts.
func (r *row) places() []string {
	places := []string{"/", "/principals/", "/dav/", "/dav/p/", "/dav/p/alicepubid/", "/dav/p/bobspublic/", "/.well-known/caldav", "/.well-known/carddav",
		r.b.Principal(testlab.Alice), r.b.Calendars(testlab.Alice)}
	for _, mount := range mounts {
		places = append(places, "/dav/"+mount+"/", homeOf(mount), "/dav/"+mount+"/bobspublic/", homeOf(mount)+"Inbox/", homeOf(mount)+"Outbox/",
			homeOf(mount)+".in/", homeOf(mount)+".out/", homeOf(mount)+"inbox/", homeOf(mount)+"outbox/", homeOf(mount)+"calendar-proxy-read/",
			homeOf(mount)+"Attachments/", homeOf(mount)+"calendars/", homeOf(mount)+"contacts/")
	}
	for _, s := range r.all {
		places = append(places, s.path(), s.item())
	}
	return places
}

// hrefs are all ways to write where a stash's item is.
func (r *row) hrefs(s *stash, from *stash) []string {
	hrefs := []string{
		s.item(), r.public() + s.item(), homeOf("cal") + s.name + "/" + s.file(), homeOf("card") + s.name + "/" + s.file(),
		s.home(r.b) + s.name + "/" + s.file(), r.b.URL + s.home(r.b) + s.name + "/" + s.file(),
		strings.ReplaceAll(s.home(r.b), "@", "%40") + s.name + "/" + s.file(),
		"../" + s.name + "/" + s.file(), s.file(), "//127.0.0.1" + s.item(), "https://elsewhere.test" + s.item(),
		homeOf("cal") + "zpawork/../" + s.name + "/" + s.file(), homeOf("cal") + "zpawork/%2e%2e/" + s.name + "/" + s.file(), homeOf("cal") + "zpawork%2f..%2f" + s.name + "/" + s.file(),
		s.item() + "?export", " " + s.item() + "\n",
	}
	if from != nil {
		hrefs = append(hrefs, from.path()+"../"+s.name+"/"+s.file(), from.path()+"%2e%2e/"+s.name+"/"+s.file(), from.path()+"..%2f"+s.name+"%2f"+s.file(), from.path()+s.file(),
			from.path()+url.PathEscape("../"+s.name+"/"+s.file()))
	}
	return hrefs
}

// reports asks each place for each report, and names what is closed in those that name members.
func (r *row) reports() []trick {
	bodies := map[string]string{
		"calendar-query":          `<C:calendar-query ` + namespaces + `><prop><getetag/><C:calendar-data/><D:address-data/><displayname/></prop><C:filter><C:comp-filter name="VCALENDAR"/></C:filter></C:calendar-query>`,
		"calendar-query of all":   `<C:calendar-query ` + namespaces + `><prop><getetag/><C:calendar-data/></prop></C:calendar-query>`,
		"addressbook-query":       `<D:addressbook-query ` + namespaces + `><prop><getetag/><D:address-data/><C:calendar-data/><displayname/></prop><D:filter><D:prop-filter name="FN"/></D:filter></D:addressbook-query>`,
		"sync-collection":         `<sync-collection ` + namespaces + `><sync-token/><sync-level>1</sync-level><prop><getetag/><displayname/><C:calendar-data/><D:address-data/></prop></sync-collection>`,
		"endless sync-collection": `<sync-collection ` + namespaces + `><sync-token/><sync-level>infinite</sync-level><prop><getetag/><displayname/><C:calendar-data/><D:address-data/></prop></sync-collection>`,
		"expand-property": `<expand-property ` + namespaces + `><property name="current-user-principal"><property name="addressbook-home-set" namespace="urn:ietf:params:xml:ns:carddav">` +
			`<property name="displayname"/><property name="resourcetype"/></property><property name="calendar-home-set" namespace="urn:ietf:params:xml:ns:caldav"><property name="displayname"/></property>` +
			`<property name="group-membership"/></property><property name="owner"><property name="principal-URL"/></property><property name="principal-collection-set"><property name="displayname"/></property></expand-property>`,
		"principal-property-search": `<principal-property-search ` + namespaces + ` test="anyof"><property-search><prop><displayname/></prop><match></match></property-search>` +
			`<property-search><prop><C:calendar-user-address-set/></prop><match>bob</match></property-search><prop><displayname/><C:calendar-home-set/><D:addressbook-home-set/><S:email-address-set/></prop><apply-to-principal-collection-set/></principal-property-search>`,
		"principal-match":                 `<principal-match ` + namespaces + `><self/><prop><displayname/><D:addressbook-home-set/></prop></principal-match>`,
		"principal-match by property":     `<principal-match ` + namespaces + `><principal-property><owner/></principal-property><prop><displayname/></prop></principal-match>`,
		"principal-search-property-set":   `<principal-search-property-set ` + namespaces + `/>`,
		"acl-principal-prop-set":          `<acl-principal-prop-set ` + namespaces + `><prop><displayname/><D:addressbook-home-set/></prop></acl-principal-prop-set>`,
		"calendarserver-principal-search": `<S:calendarserver-principal-search ` + namespaces + ` context="user"><S:search-token>bob</S:search-token><prop><displayname/></prop></S:calendarserver-principal-search>`,
		"free-busy-query":                 `<C:free-busy-query ` + namespaces + `><C:time-range start="20200101T000000Z" end="20300101T000000Z"/></C:free-busy-query>`,
		"version-tree":                    `<version-tree ` + namespaces + `><prop><displayname/></prop></version-tree>`,
		"no report":                       `<propfind ` + namespaces + `><prop><displayname/></prop></propfind>`,
		"no body":                         ``,
	}
	var list []trick
	for _, at := range r.places() {
		for what, body := range bodies {
			for _, depth := range []string{"", "0", "1", "infinity"} {
				tr := trick{name: what + ", depth " + depth, method: "REPORT", path: at, body: body}
				if depth != "" {
					tr.header = []string{"Depth", depth}
				}
				list = append(list, tr)
			}
		}
	}
	for _, s := range r.closed() {
		for _, report := range []string{"C:calendar-multiget", "D:addressbook-multiget"} {
			for _, from := range append(r.open(), nil) {
				var hrefs strings.Builder
				for _, h := range r.hrefs(s, from) {
					hrefs.WriteString("<href>" + h + "</href>")
				}
				body := "<" + report + " " + namespaces + "><prop><getetag/><displayname/><C:calendar-data/><D:address-data/></prop>%s</" + report + ">"
				at := homeOf("cal")
				if from != nil {
					at = from.path()
				}
				list = append(list, trick{name: "multiget of what is closed", method: "REPORT", path: at, body: fmt.Sprintf(body, hrefs.String())},
					trick{name: "multiget in the closed collection", method: "REPORT", path: s.path(), body: fmt.Sprintf(body, "<href>"+s.item()+"</href>")})
				for _, h := range r.hrefs(s, from) { // a server may stop at the first that it does not like
					list = append(list, trick{name: "multiget of one that is closed", method: "REPORT", path: at, body: fmt.Sprintf(body, "<href>"+h+"</href>")})
				}
				if from != nil {
					list = append(list, trick{name: "multiget of both", method: "REPORT", path: at, body: fmt.Sprintf(body, "<href>"+from.item()+"</href><href>"+s.item()+"</href>")})
				}
			}
		}
	}
	return list
}

// methods are all that change something, and some that nobody here knows.
var changing = []string{"PUT", "DELETE", "PROPPATCH", "MKCOL", "MKCALENDAR", "POST", "PATCH", "LOCK", "UNLOCK", "ACL", "BIND", "UNBIND", "REBIND", "ORDERPATCH",
	"MKREDIRECTREF", "UPDATEREDIRECTREF", "VERSION-CONTROL", "CHECKOUT", "CHECKIN", "LABEL", "MERGE", "UPDATE", "MKWORKSPACE", "MKACTIVITY", "BASELINE-CONTROL",
	"SEARCH", "LINK", "UNLINK", "MKTICKET", "DELTICKET", "TRACE", "PURGE", "COPY", "MOVE", "QUERY"}

// writes tries each of them on what may not be changed.
func (r *row) writes() []trick {
	var list []trick
	for _, s := range r.all {
		if s.written(r.grant) {
			continue
		}
		for _, at := range []string{s.path(), s.item(), s.path() + "new" + s.file(), homeOf("cal") + s.name + "/", homeOf("cal") + s.name + "/" + s.file(), homeOf("card") + s.name + "/",
			homeOf("card") + s.name + "/" + s.file(), strings.TrimSuffix(s.path(), "/"), s.home(r.b) + s.name + "/", homeOf("cal") + "zpawork/../" + s.name + "/"} {
			list = append(list, r.change(at)...)
		}
	}
	for _, at := range []string{"/", "/dav/", "/principals/", "/dav/p/", "/dav/p/alicepubid/", "/dav/p/bobspublic/", "/dav/cal/", "/dav/card/", "/dav/inbox/", "/dav/outbox/",
		homeOf("cal"), homeOf("card"), "/dav/cal/bobspublic/", "/dav/card/bobspublic/", strings.TrimSuffix(homeOf("cal"), "/"), "/dav/inbox/bobspublic/", "/dav/outbox/bobspublic/",
		"/.well-known/caldav", r.b.Principal(testlab.Alice), "*"} {
		list = append(list, r.change(at)...)
	}
	return list
}

// makes tells whether the app password may make a collection at a place, a public path: there is none, and it may make what it likes in this home.
func (r *row) makes(at string) bool {
	at = strings.TrimPrefix(at, r.public())
	for kind, mount := range map[string]string{"calendar": "cal", "contacts": "card"} {
		name, ok := strings.CutPrefix(at, homeOf(mount))
		write := map[string]authstore.Scopes{"calendar": authstore.ScopeCalendar, "contacts": authstore.ScopeContacts}[kind]
		if !ok || !r.grant.Scopes.Any(write) || !r.grant.Whole(kind) {
			continue
		}
		name, _, _ = strings.Cut(name, "/")
		return !slices.ContainsFunc(r.all, func(s *stash) bool {
			return s.user == testlab.Alice && s.name == name && (s.kind == kind || r.b.Calendars(s.user) == r.b.AddressBooks(s.user))
		})
	}
	return false
}

// change are all changing methods at a place where none is allowed.
func (r *row) change(at string) []trick {
	if r.makes(at) && at != homeOf("cal") && at != homeOf("card") {
		return nil
	}
	var list []trick
	for _, method := range changing {
		if at == "/.well-known/caldav" && method != "TRACE" { // any method leads elsewhere
			continue
		}
		tr := trick{name: "a change", method: method, path: at, refuse: true}
		switch method {
		case "PUT", "POST", "PATCH":
			tr.body = testlab.Event("intruder")
			if strings.Contains(at, "/card/") {
				tr.body = testlab.Card("intruder")
			}
		case "PROPPATCH":
			tr.body = `<propertyupdate xmlns="DAV:"><set><prop><displayname>intruder</displayname></prop></set></propertyupdate>`
		case "MKCOL":
			tr.body = makeCard
		case "MKCALENDAR":
			tr.body = makeCal
		case "ACL":
			tr.body = grantAll
		case "BIND", "REBIND":
			tr.body = `<bind xmlns="DAV:"><segment>intruder</segment><href>/dav/cal/alicepubid/zpawork/</href></bind>`
		case "LOCK":
			tr.body = `<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>`
		case "COPY", "MOVE":
			tr.header = []string{"Destination", r.public() + homeOf("cal") + "intruder/"}
		}
		list = append(list, tr)
	}
	return list
}

const grantAll = `<acl xmlns="DAV:"><ace><principal><all/></principal><grant><privilege><read/></privilege><privilege><write/></privilege></grant></ace></acl>`

func (s *stash) whose() string { return s.user + "'s " + s.kind }

// moves tries to carry what is closed to where it can be read, and what is open over what is closed.
func (r *row) moves() []trick {
	var list []trick
	for _, s := range r.all {
		for _, to := range r.all {
			if s == to || s.written(r.grant) && to.written(r.grant) && s.kind == to.kind {
				continue
			}
			// members and whole collections, in both mounts
			for _, d := range []string{
				to.item(), r.public() + to.item(), to.path() + "moved", to.path(), homeOf(s.mount()) + to.name + "/" + to.file(), homeOf(s.mount()) + to.name + "/moved" + s.file(), homeOf(s.mount()) + to.name + "/",
				r.public() + homeOf(s.mount()) + to.name + "/", r.b.URL + to.home(r.b) + to.name + "/moved" + s.file(), to.home(r.b) + to.name + "/moved" + s.file(), "https://elsewhere.test" + to.item(),
				homeOf(s.mount()) + "x/../" + to.name + "/m" + s.file(), homeOf(s.mount()) + "%2e%2e/" + to.name + "/m" + s.file(), s.path() + "..%2f" + to.name + "%2fm" + s.file(),
			} {
				if r.makes(d) {
					continue
				}
				for _, from := range []string{s.item(), s.path(), homeOf(to.mount()) + s.name + "/" + s.file(), homeOf(to.mount()) + s.name + "/"} {
					for _, method := range []string{"COPY", "MOVE"} {
						list = append(list, trick{name: "carry " + s.whose() + " to " + to.whose(), method: method, path: from, header: []string{"Destination", d, "Overwrite", "T"}, refuse: true})
					}
				}
			}
		}
		if !s.written(r.grant) {
			for _, mount := range []string{"cal", "card"} {
				for _, method := range []string{"COPY", "MOVE"} {
					for _, to := range []string{homeOf(mount) + "intruder/", homeOf(mount), "/dav/p/alicepubid/intruder/"} {
						list = append(list, trick{name: "rename", method: method, path: s.path(), header: []string{"Destination", r.public() + to}, refuse: true},
							trick{name: "rename", method: method, path: homeOf(mount) + s.name + "/", header: []string{"Destination", r.public() + to}, refuse: true})
					}
				}
			}
		}
		for _, o := range r.open() { // a tagged list is a question about another resource
			if s.opened(r.grant) {
				continue
			}
			for _, h := range r.hrefs(s, o) {
				h = strings.TrimSpace(h)
				list = append(list,
					trick{name: "If about what is closed", method: "GET", path: o.item(), header: []string{"If", "<" + h + `> (["` + s.etag + `"])`}},
					trick{name: "If about what is closed", method: "PROPFIND", path: o.path(), body: askAll, header: []string{"Depth", "0", "If", "<" + h + "> ([\"x\"])"}})
			}
		}
	}
	return list
}

// bodies puts what does not belong there into what may be written.
func (r *row) bodies() []trick {
	var list []trick
	add := func(name, method, at, body string, header ...string) {
		list = append(list, trick{name: name, method: method, path: at, body: body, header: header, refuse: true})
	}
	for _, s := range r.all {
		if !s.written(r.grant) {
			continue
		}
		other := testlab.Card("intruder")
		if s.kind == "contacts" {
			other = testlab.Event("intruder")
		}
		for _, at := range []string{s.path() + "other.vcf", s.path() + "other.ics", s.path() + "other"} {
			for _, media := range []string{"text/vcard", "text/calendar", "text/x-vcard", "text/directory", "application/octet-stream", "text/plain", "", "application/xml", "text/html", "multipart/mixed",
				"text/calendar; charset=utf-16", "text/calendar, text/vcard", "text/calendar; component=vcard", "httpd/unix-directory"} {
				add("the other kind", "PUT", at, other, "Content-Type", media)
			}
			for _, before := range []string{"\ufeff", "\r\n", " ", "\t\n", "X:y\r\n", "<!-- -->", "\x00"} {
				add("the other kind behind something", "PUT", at, before+other, "Content-Type", map[string]string{"calendar": "text/calendar", "contacts": "text/vcard"}[s.kind])
			}
			add("no item", "PUT", at, "<html><script>alert(1)</script></html>", "Content-Type", "text/html")
			add("nothing", "PUT", at, "", "Content-Type", "text/calendar")
			add("a part", "PATCH", at, other)
			add("packed", "PUT", at, other, "Content-Encoding", "gzip")
		}
		for _, body := range []string{other, s.body(), testlab.Event("1") + testlab.Event("2"), testlab.Card("1") + testlab.Card("2")} { // Radicale makes a collection of it
			for _, at := range []string{s.path(), strings.TrimSuffix(s.path(), "/")} {
				add("PUT of a collection", "PUT", at, body)
				add("POST to a collection", "POST", at, body)
				add("POST to a collection", "POST", at+"?add-member", body)
			}
		}
		kinds := []string{`<collection/><D:addressbook/>`, `<collection/><C:calendar/>`, `<collection/><C:calendar/><D:addressbook/>`, `<collection/>`, `<principal/>`, `<collection/><C:schedule-inbox/>`, ``}
		for _, kind := range kinds {
			add("another kind of collection", "PROPPATCH", s.path(), `<propertyupdate `+namespaces+`><set><prop><resourcetype>`+kind+`</resourcetype></prop></set></propertyupdate>`)
			add("another kind besides a name", "PROPPATCH", s.path(), `<propertyupdate `+namespaces+`><set><prop><displayname>`+s.secret+`</displayname></prop></set><set><prop><resourcetype>`+kind+`</resourcetype></prop></set></propertyupdate>`)
		}
		add("no kind of collection", "PROPPATCH", s.path(), `<propertyupdate xmlns="DAV:"><remove><prop><resourcetype/></prop></remove></propertyupdate>`)
	}
	return list
}

// makings makes collections where none may be made, or of a kind that may not.
func (r *row) makings() []trick {
	var list []trick
	writes := map[string]bool{
		"cal":  r.grant.Scopes.Any(authstore.ScopeCalendar) && r.grant.Whole("calendar"),
		"card": r.grant.Scopes.Any(authstore.ScopeContacts) && r.grant.Whole("contacts"),
	}
	mkcol := func(kinds string) string {
		return `<mkcol ` + namespaces + `><set><prop><resourcetype>` + kinds + `</resourcetype><displayname>intruder</displayname></prop></set></mkcol>`
	}
	const calendars, books = `<collection/><C:calendar/>`, `<collection/><D:addressbook/>`
	for _, mount := range []string{"cal", "card", "inbox", "outbox"} {
		for _, at := range []string{homeOf(mount) + "intruder/", homeOf(mount) + "intruder", homeOf(mount) + "intruder/deep/", homeOf(mount) + "zpawork/intruder/", "/dav/" + mount + "/bobspublic/intruder/", homeOf(mount) + "Inbox/intruder/"} {
			plain := strings.HasPrefix(at, homeOf(mount)+"intruder") && !strings.Contains(at, "deep")
			for kinds, of := range map[string]string{calendars: "cal", books: "card", calendars + `<D:addressbook/>`: "", `<collection/>`: "", ``: "", `<C:calendar/>`: "", `<collection/><principal/>`: "", books + `<C:schedule-inbox/>`: ""} {
				if !plain || of != mount || !writes[mount] {
					if kinds == `<C:calendar/>` && mount == "cal" && writes["cal"] && plain { // a calendar, if an odd one
						continue
					}
					list = append(list, trick{name: "MKCOL of " + kinds, method: "MKCOL", path: at, body: mkcol(kinds), refuse: true})
				}
			}
			list = append(list, trick{name: "plain MKCOL", method: "MKCOL", path: at, refuse: true},
				trick{name: "MKCOL of an export", method: "MKCOL", path: at, body: testlab.Event("intruder"), refuse: true},
				trick{name: "MKCALENDAR of an address book", method: "MKCALENDAR", path: at, refuse: true,
					body: `<C:mkcalendar ` + namespaces + `><set><prop><resourcetype>` + books + `</resourcetype></prop></set></C:mkcalendar>`},
				trick{name: "PUT of a collection", method: "PUT", path: strings.TrimSuffix(at, "/") + "/", body: testlab.Event("intruder"), refuse: true})
			if !plain || mount != "cal" || !writes["cal"] {
				list = append(list, trick{name: "MKCALENDAR", method: "MKCALENDAR", path: at, body: makeCal, refuse: true})
			}
		}
	}
	return list
}

// actions are what only some servers know.
func (r *row) actions() []trick {
	var list []trick
	share := map[string]string{
		"share by CalendarServer": `<S:share ` + namespaces + `><S:set><href>mailto:bob@example.test</href><S:read-write/></S:set></S:share>`,
		"share by DAV":            `<share-resource ` + namespaces + `><sharee><href>mailto:bob@example.test</href><share-access><read-write/></share-access></sharee></share-resource>`,
		"publish":                 `<S:publish-calendar ` + namespaces + `/>`,
		"invite reply":            `<S:invite-reply ` + namespaces + `><S:invite-accepted/><S:hosturl><href>/dav/cal/bobspublic/zpbwork/</href></S:hosturl></S:invite-reply>`,
		"push":                    `<push-register xmlns="https://bitfire.at/webdav-push"><subscription><web-push-subscription><push-resource>https://push.example/</push-resource></web-push-subscription></subscription></push-register>`,
		"ticket":                  `<ticketinfo xmlns="http://www.xythos.com/namespaces/StorageServer"><privilege><read/></privilege></ticketinfo>`,
	}
	queries := []string{"", "?action=attachment-add&filename=a.txt", "?action=attachment-remove", "?add-member", "?export", "?action=share", "?method=DELETE", "?_method=PUT", "?ticket=1", "?sabreAction=info", "?mount"}
	for _, s := range r.all {
		for _, at := range []string{s.path(), s.item(), homeOf(s.mount())} {
			for _, query := range queries {
				list = append(list, trick{name: "POST" + query, method: "POST", path: at + query, body: "text", header: []string{"Content-Type", "text/plain"}, refuse: true},
					trick{name: "PUT" + query, method: "PUT", path: at + "x/y" + query, body: testlab.Event("intruder"), refuse: true})
			}
			for what, body := range share {
				list = append(list, trick{name: what, method: "POST", path: at, body: body, refuse: true})
			}
			for _, method := range []string{"ACL", "BIND", "LOCK", "MKTICKET"} {
				for _, tr := range r.change(at) {
					if tr.method == method {
						list = append(list, tr)
					}
				}
			}
			list = append(list, trick{name: "BIND what is closed", method: "BIND", path: at, body: `<bind xmlns="DAV:"><segment>zpbound</segment><href>/dav/card/alicepubid/zpafriends/</href></bind>`, refuse: true})
		}
	}
	for _, at := range []string{"/", "/dav/", "/dav/p/alicepubid/", homeOf("cal"), homeOf("card")} {
		list = append(list, trick{name: "a sabre/dav form", method: "POST", path: at, body: "sabreAction=mkcol&name=intruder&resourceType=%7BDAV%3A%7Dcollection", header: []string{"Content-Type", "application/x-www-form-urlencoded"}, refuse: true},
			trick{name: "SEARCH", method: "SEARCH", path: at, body: `<searchrequest xmlns="DAV:"><basicsearch><select><allprop/></select><from><scope><href>/</href><depth>infinity</depth></scope></from></basicsearch></searchrequest>`, refuse: true})
		for _, method := range []string{"OPTIONS", "GET", "HEAD"} {
			list = append(list, trick{name: method, method: method, path: at})
		}
	}
	for _, at := range r.places() {
		list = append(list, trick{name: "OPTIONS", method: "OPTIONS", path: at})
	}
	return append(list, trick{name: "OPTIONS of all", method: "OPTIONS", path: "*"})
}

// failures are what a backend refuses where all is open: its error pages are for its own administrator.
func (r *row) failures() []trick {
	var list []trick
	for _, s := range r.open() {
		missing, broken := s.path()+"missing"+s.file(), strings.Split(s.body(), "\r\n")[0]+"\r\nbroken"
		for _, method := range []string{"GET", "HEAD", "DELETE", "PROPFIND", "PROPPATCH", "COPY", "MOVE"} {
			tr := trick{name: "of what is missing", method: method, path: missing, header: []string{"Destination", r.public() + s.path() + "other" + s.file()}}
			if method == "PROPPATCH" {
				tr.body = `<propertyupdate xmlns="DAV:"><set><prop><displayname>x</displayname></prop></set></propertyupdate>`
			}
			list = append(list, tr)
		}
		list = append(list,
			trick{name: "broken", method: "PUT", path: missing, body: broken},
			trick{name: "what is there", method: "PUT", path: s.item(), body: s.body(), header: []string{"If-None-Match", "*"}},
			trick{name: "what has changed", method: "PUT", path: s.item(), body: s.body(), header: []string{"If-Match", `"other"`}},
			trick{name: "what has changed", method: "DELETE", path: s.item(), header: []string{"If-Match", `"other"`}},
			trick{name: "the same again", method: "PUT", path: s.path() + "again" + s.file(), body: s.body()},
			trick{name: "an unknown state", method: "REPORT", path: s.path(), body: `<sync-collection xmlns="DAV:"><sync-token>http://elsewhere/1</sync-token><sync-level>1</sync-level><prop><getetag/></prop></sync-collection>`},
			trick{name: "what is there", method: "MKCALENDAR", path: s.path(), body: makeCal},
			trick{name: "what is there", method: "MKCOL", path: s.path(), body: makeCard},
			trick{name: "below an item", method: "GET", path: s.item() + "/x"},
			trick{name: "of an item's members", method: "PROPFIND", path: s.item(), body: everyProp, header: []string{"Depth", "1"}},
			trick{name: "of a missing collection", method: "GET", path: homeOf(s.mount()) + "missing/1.ics"},
			trick{name: "in a missing collection", method: "PUT", path: homeOf(s.mount()) + "missing/1.ics", body: s.body()})
	}
	return list
}

const busyBob = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//lab//EN\r\nMETHOD:REQUEST\r\nBEGIN:VFREEBUSY\r\nUID:fb\r\nDTSTAMP:20260101T000000Z\r\nDTSTART:20200101T000000Z\r\nDTEND:20300101T000000Z\r\n" +
	"ORGANIZER:mailto:alice@example.test\r\nATTENDEE:mailto:bob@example.test\r\nEND:VFREEBUSY\r\nEND:VCALENDAR\r\n"

// boxes are invitations, for whom they are closed.
func (r *row) boxes() []trick {
	if r.grant.Scopes.Any(authstore.ScopeSchedule) && r.grant.Scopes.Any(authstore.ScopeCalendar|authstore.ScopeCalendarRead) && r.grant.Whole("calendar") {
		return nil
	}
	var list []trick
	for _, at := range []string{"/dav/outbox/alicepubid/", "/dav/inbox/alicepubid/", homeOf("cal") + "Outbox/", homeOf("cal") + "outbox/", homeOf("cal") + ".out/", homeOf("cal"), "/dav/outbox/bobspublic/", "/dav/p/alicepubid/"} {
		list = append(list, trick{name: "who is busy", method: "POST", path: at, body: busyBob, refuse: true, header: []string{"Originator", "mailto:alice@example.test", "Recipient", "mailto:bob@example.test"}},
			trick{name: "an invitation", method: "POST", path: at, body: strings.Replace(testlab.Event("invitation"), "VERSION:2.0", "VERSION:2.0\r\nMETHOD:REQUEST", 1), refuse: true})
	}
	return append(list, trick{name: "into the inbox", method: "PUT", path: "/dav/inbox/alicepubid/1.ics", body: testlab.Event("intruder"), refuse: true})
}

// disguises are headers that some server takes for another request, or for another person.
func (r *row) disguises() []trick {
	var list []trick
	for _, s := range r.closed() {
		inner := s.home(r.b) + s.name + "/" + s.file()
		at := []string{homeOf("cal"), s.item(), s.path()}
		for _, o := range r.open() {
			at = append(at, o.item(), o.path())
		}
		for _, p := range at {
			for _, h := range [][]string{
				{"X-Remote-User", s.user}, {"X_Remote_User", s.user}, {"Remote-User", s.user}, {"Authorize-As", s.user}, {"X-Forwarded-User", s.user}, {"X-WebAuth-User", s.user},
				{"X-Original-URL", inner}, {"X-Rewrite-URL", inner}, {"X-Forwarded-Prefix", "/../"}, {"X-Script-Name", "/x"}, {"Script-Name", inner}, {"X-Forwarded-Path", inner},
				{"Host", "bob.example.test"}, {"Host", strings.TrimPrefix(r.b.URL, "http://")}, {"Connection", "Authorization, X-Remote-User, Depth"}, {"Range", "bytes=0-10000"}, {"Translate", "f"},
				{"Content-Location", inner}, {"Ticket", "x"}, {"Cookie", "session=bob"}, {"Accept", "text/html"}, {"Accept-Encoding", "gzip, br"}, {"Expect", "100-continue"}, {"Upgrade", "h2c"}, {"Prefer", "return=representation, depth-noroot"},
				{"X-HTTP-Method-Override", "DELETE"}, {"X-Method-Override", "PROPFIND"}, {"Depth", "infinity"},
			} {
				list = append(list, trick{name: "GET in disguise", method: "GET", path: p, header: h},
					trick{name: "PROPFIND in disguise", method: "PROPFIND", path: p, header: h})
			}
		}
	}
	return list
}
