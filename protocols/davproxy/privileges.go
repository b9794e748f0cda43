package davproxy

import "postern/authstore"

// rebuilt are properties that a backend's answer has and that are told as far as they are true for the grant.
var rebuilt = map[name]bool{{nsDAV, "current-user-privilege-set"}: true, {nsDAV, "supported-report-set"}: true}

// tells are the elements that hold what such a property names. Xandikos leaves DAV:report out.
var tells = map[name]bool{{nsDAV, "privilege"}: true, {nsDAV, "report"}: true, {nsDAV, "supported-report"}: true}

// contained is what a privilege contains (RFC 3744 section 3, RFC 6638 section 6).
var contained = map[name][]name{
	{nsDAV, "write"}: {{nsDAV, "write-properties"}, {nsDAV, "write-content"}, {nsDAV, "bind"}, {nsDAV, "unbind"}},
	{nsDAV, "read"}:  {{nsDAV, "read-current-user-privilege-set"}, {nsCalDAV, "read-free-busy"}},
	{nsCalDAV, "schedule-deliver"}: {
		{nsCalDAV, "schedule-deliver-invite"}, {nsCalDAV, "schedule-deliver-reply"}, {nsCalDAV, "schedule-query-freebusy"},
	},
	{nsCalDAV, "schedule-send"}: {
		{nsCalDAV, "schedule-send-invite"}, {nsCalDAV, "schedule-send-reply"}, {nsCalDAV, "schedule-send-freebusy"},
	},
}

// privileges lists what the grant may do at a target, in the order in which it is told. Rights on rights are not among them, nor is
// "all", whatever the backend says.
func privileges(t target, g *authstore.Grant) []name {
	a := accessAt(t, g)
	if a == noAccess {
		return nil
	}
	read := append([]name{{nsDAV, "read"}}, contained[name{nsDAV, "read"}]...)
	write := append([]name{{nsDAV, "write"}}, contained[name{nsDAV, "write"}]...)
	deliver := append([]name{{nsCalDAV, "schedule-deliver"}}, contained[name{nsCalDAV, "schedule-deliver"}]...)
	send := append([]name{{nsCalDAV, "schedule-send"}}, contained[name{nsCalDAV, "schedule-send"}]...)
	switch {
	case t.kind == outbox && a == readAccess:
		return append(read, name{nsCalDAV, "schedule-send-freebusy"})
	case t.kind == outbox:
		return append(read, send...)
	case a == readAccess:
		return read
	case t.kind == inbox:
		return append(append(read, name{nsDAV, "write-properties"}, name{nsDAV, "unbind"}), deliver...)
	case t.place == home && !whole(t.kind, g):
		return read
	case t.place == home: // collections come and go in it; it has no properties that anybody changes
		return append(read, name{nsDAV, "bind"}, name{nsDAV, "unbind"})
	}
	return append(read, write...)
}

// granted returns those of the wanted privileges that a backend gives, as elements of current-user-privilege-set.
func granted(wanted []name, given map[name]bool) string {
	has := func(n name) bool {
		if given[n] || given[name{nsDAV, "all"}] {
			return true
		}
		for whole, parts := range contained {
			for _, part := range parts {
				if part == n && given[whole] {
					return true
				}
			}
		}
		return false
	}
	text := ""
	for _, n := range wanted {
		if has(n) {
			text += `<privilege xmlns="DAV:">` + emptyElement(n) + `</privilege>`
		}
	}
	return text
}

// reported returns the reports that are open at a target and that a backend has, as elements of supported-report-set.
func reported(t target, given map[name]bool) string {
	text := ""
	if t.place != collection {
		return text
	}
	for _, n := range reportOrder {
		if reports[t.kind][n] && given[n] {
			text += `<supported-report xmlns="DAV:"><report>` + emptyElement(n) + `</report></supported-report>`
		}
	}
	return text
}

var reportOrder = []name{
	{nsCalDAV, "calendar-query"}, {nsCalDAV, "calendar-multiget"}, {nsCalDAV, "free-busy-query"},
	{nsCardDAV, "addressbook-query"}, {nsCardDAV, "addressbook-multiget"}, {nsDAV, "sync-collection"},
}
