package davproxy

import (
	"slices"

	"postern/authstore"
)

// rebuilt are properties that a backend's answer has and that are told as far as they are true for the grant.
var rebuilt = map[name]bool{{nsDAV, "current-user-privilege-set"}: true, {nsDAV, "supported-report-set"}: true}

// tells tells whether an element holds what such a property names. Xandikos leaves DAV:report out.
func tells(n name) bool {
	return n.space == nsDAV && (n.local == "privilege" || n.local == "report" || n.local == "supported-report")
}

// privilege is one that a grant may hold.
type privilege struct {
	name    name
	within  name   // what contains it, besides "all" (RFC 3744 section 3, RFC 6638 section 6)
	element string // as it is told
}

func privilegesIn(space, within string, names ...string) (list []privilege) {
	for _, local := range names {
		n := name{space, local}
		if local == "read-free-busy" {
			n.space = nsCalDAV
		}
		list = append(list, privilege{n, name{space, within}, `<privilege xmlns="DAV:">` + emptyElement(n) + `</privilege>`})
	}
	return list
}

// What a grant holds at one place, in the order in which it is told. Rights on rights are not among them, nor is "all", whatever a
// backend says.
var (
	toRead    = privilegesIn(nsDAV, "read", "read", "read-current-user-privilege-set", "read-free-busy")
	toWrite   = slices.Concat(toRead, privilegesIn(nsDAV, "write", "write", "write-properties", "write-content", "bind", "unbind"))
	toKeep    = slices.Concat(toRead, privilegesIn(nsDAV, "write", "bind", "unbind")) // a home: collections come and go, properties stay
	toReceive = slices.Concat(toRead, privilegesIn(nsDAV, "write", "write-properties", "unbind"),
		privilegesIn(nsCalDAV, "schedule-deliver", "schedule-deliver", "schedule-deliver-invite", "schedule-deliver-reply", "schedule-query-freebusy"))
	toAsk  = slices.Concat(toRead, privilegesIn(nsCalDAV, "schedule-send", "schedule-send-freebusy"))
	toSend = slices.Concat(toRead, privilegesIn(nsCalDAV, "schedule-send", "schedule-send", "schedule-send-invite", "schedule-send-reply", "schedule-send-freebusy"))
)

// privileges lists what the grant may do at a target.
func privileges(t target, g *authstore.Grant) []privilege {
	a := accessAt(t, g)
	switch {
	case a == noAccess:
		return nil
	case t.kind == outbox && a == readAccess:
		return toAsk
	case t.kind == outbox:
		return toSend
	case a == readAccess, t.place == home && !whole(t.kind, g):
		return toRead
	case t.kind == inbox:
		return toReceive
	case t.place == home:
		return toKeep
	}
	return toWrite
}

// appendGranted appends those of the wanted privileges that a backend gives, as elements of current-user-privilege-set.
func appendGranted(dst []byte, wanted []privilege, given []name) []byte {
	all := slices.Contains(given, name{nsDAV, "all"})
	for i := range wanted {
		p := &wanted[i]
		if all || slices.Contains(given, p.name) || slices.Contains(given, p.within) {
			dst = append(dst, p.element...)
		}
	}
	return dst
}

// appendReported appends the reports that are open at a target and that a backend has, as elements of supported-report-set.
func appendReported(dst []byte, t target, given []name) []byte {
	if t.place != collection {
		return dst
	}
	for _, r := range reportOrder {
		if reports[t.kind][r.name] && slices.Contains(given, r.name) {
			dst = append(dst, r.element...)
		}
	}
	return dst
}

// reportOrder is how reports are told.
var reportOrder = func() (list []privilege) {
	for _, n := range []name{
		{nsCalDAV, "calendar-query"}, {nsCalDAV, "calendar-multiget"}, {nsCalDAV, "free-busy-query"},
		{nsCardDAV, "addressbook-query"}, {nsCardDAV, "addressbook-multiget"}, {nsDAV, "sync-collection"},
	} {
		list = append(list, privilege{name: n, element: `<supported-report xmlns="DAV:"><report>` + emptyElement(n) + `</report></supported-report>`})
	}
	return list
}()
