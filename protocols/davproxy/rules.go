package davproxy

import (
	"slices"
	"strings"

	"postern/authstore"
)

// Scopes are those that this front door enforces.
const Scopes = authstore.ScopeCalendar | authstore.ScopeCalendarRead | authstore.ScopeContacts | authstore.ScopeContactsRead | authstore.ScopeSchedule

// access is what a grant may do with a kind of collections, or at one place.
type access uint8

const (
	noAccess access = iota
	readAccess
	writeAccess
)

// collectionKinds are the words for kinds in grants.
var collectionKinds = map[kind]string{calendar: authstore.CalendarCollection, contacts: authstore.ContactsCollection}

// accessTo tells what a grant opens of a kind. A grant that is narrowed to single collections of other kinds opens nothing of it.
// The boxes come with all calendars only, since invitations to all of them arrive there.
func accessTo(k kind, g *authstore.Grant) access {
	if k.isBox() {
		if !g.Scopes.Any(authstore.ScopeSchedule) || !whole(calendar, g) {
			return noAccess
		}
		k = calendar
	}
	read, write := authstore.ScopeCalendarRead, authstore.ScopeCalendar
	if k == contacts {
		read, write = authstore.ScopeContactsRead, authstore.ScopeContacts
	}
	switch {
	case k == unknown, !opensSome(k, g):
		return noAccess
	case g.Scopes.Any(write):
		return writeAccess
	case g.Scopes.Any(read):
		return readAccess
	}
	return noAccess
}

// accessAt tells what a grant opens at a target: of what lies in a home, it may be narrowed to single collections.
func accessAt(t target, g *authstore.Grant) access {
	if t.collection != "" && !g.Opens(collectionKinds[t.kind], t.collection) {
		return noAccess
	}
	return accessTo(t.kind, g)
}

// whole tells whether a grant opens all collections of a kind, as far as it is narrowed.
func whole(k kind, g *authstore.Grant) bool { return g.Whole(collectionKinds[k.content()]) }

// opensSome tells whether a grant opens any collection of a kind, as far as it is narrowed.
func opensSome(k kind, g *authstore.Grant) bool {
	return len(g.Collections) == 0 || slices.ContainsFunc(g.Collections, func(c authstore.Collection) bool { return c.Kind == collectionKinds[k] })
}

// verdict is what becomes of a request, so far as method, path and scopes tell.
type verdict uint8

const (
	forward        verdict = iota + 1 // to the backend, if the collection's kind and the body fit
	serve                             // answered here
	notFound                          // 404
	notAllowed                        // 405: nobody may do that here
	needPrivileges                    // 403: a broader scope could (RFC 3744 section 7.1.1)
	refuseProps                       // 207 with a 403 for each property: a plain 403 stalls macOS
	refuseReport                      // 403: no report is supported there (RFC 3253 section 3.6)
)

// judge is the rule for methods. It knows no other request than these: what is not named is not allowed.
func judge(method string, t target, g *authstore.Grant) verdict {
	a := accessAt(t, g)
	switch {
	case t.place == lobby, t.place == principal:
		return judgeDiscovery(method)
	case t.place == home:
		return judgeHome(method, a)
	case t.place == collection && t.kind == inbox:
		return judgeBelow(method, a, inboxMethods)
	case t.place == collection && t.kind == outbox:
		return judgeBelow(method, a, outboxMethods)
	case t.place == member && t.kind == inbox:
		return judgeBelow(method, a, invitationMethods)
	case t.place == collection && method == "MKCALENDAR" && t.kind != calendar:
		return notAllowed
	case t.place == collection && a == writeAccess && alters[method] && !whole(t.kind, g):
		return needPrivileges
	case t.place == collection:
		return judgeBelow(method, a, collectionMethods)
	case t.place == member:
		return judgeBelow(method, a, memberMethods)
	}
	return notFound
}

func judgeDiscovery(method string) verdict {
	switch method {
	case "OPTIONS", "PROPFIND":
		return serve
	case "PROPPATCH":
		return refuseProps
	case "REPORT":
		return refuseReport
	}
	return notAllowed
}

// judgeHome: a home outside the scopes exists and is empty, since clients take a missing one for an error. Nobody changes or
// deletes a home: Radicale's DELETE of it wiped an account.
func judgeHome(method string, a access) verdict {
	if method == "PROPFIND" && a != noAccess {
		return forward
	}
	return judgeDiscovery(method)
}

// methodKind says what a method does.
type methodKind uint8

const (
	asks    methodKind = iota + 1 // answered here, for anybody
	reads                         // to the backend
	patches                       // to the backend; refused property by property
	writes
	makes // writes that say 403 rather than 404 outside the scopes, for the home is there
)

var collectionMethods = map[string]methodKind{
	"OPTIONS": asks, "PROPFIND": reads, "REPORT": reads, "PROPPATCH": patches,
	"DELETE": writes, "COPY": writes, "MOVE": writes, "MKCOL": makes, "MKCALENDAR": makes,
}

var memberMethods = map[string]methodKind{
	"OPTIONS": asks, "GET": reads, "HEAD": reads, "PROPFIND": reads, "PROPPATCH": patches,
	"PUT": writes, "DELETE": writes, "COPY": writes, "MOVE": writes,
}

// The boxes are the server's own: nobody makes, fills, moves or deletes one. What came may be read and thrown away.
var (
	inboxMethods      = map[string]methodKind{"OPTIONS": asks, "PROPFIND": reads, "REPORT": reads, "PROPPATCH": patches}
	invitationMethods = map[string]methodKind{"OPTIONS": asks, "GET": reads, "HEAD": reads, "PROPFIND": reads, "DELETE": writes}
	// outboxMethods: POST asks when others are free, and changes nothing.
	outboxMethods = map[string]methodKind{"OPTIONS": asks, "PROPFIND": reads, "POST": reads}
)

// alters are the methods that make collections or do away with them, which takes all of a kind.
var alters = map[string]bool{"MKCOL": true, "MKCALENDAR": true, "DELETE": true, "COPY": true, "MOVE": true}

func judgeBelow(method string, a access, methods map[string]methodKind) verdict {
	does := methods[method]
	switch {
	case does == makes && a != writeAccess:
		return needPrivileges
	case a == noAccess:
		return notFound
	case does == 0 && method == "REPORT":
		return refuseReport
	case does == 0:
		return notAllowed
	case does == asks:
		return serve
	case does == reads || a == writeAccess:
		return forward
	case does == patches:
		return refuseProps
	}
	return needPrivileges
}

// allowed lists the methods for the header Allow.
func allowed(t target, g *authstore.Grant) string {
	var list []string
	for _, method := range []string{
		"OPTIONS", "GET", "HEAD", "PROPFIND", "REPORT", "PROPPATCH", "POST", "PUT", "DELETE", "COPY", "MOVE", "MKCOL", "MKCALENDAR",
	} {
		if v := judge(method, t, g); v == forward || v == serve {
			list = append(list, method)
		}
	}
	return strings.Join(list, ", ")
}

// compliance is the header DAV (RFC 4918 section 10.1). DAVx5 drops a service whose token is absent at the principal. b is what the
// calendars' backend has for invitations, as far as the grant opens it.
func compliance(g *authstore.Grant, b boxes) string {
	tokens := "1, 3, extended-mkcol"
	if accessTo(calendar, g) != noAccess {
		tokens += ", calendar-access"
	}
	if b.automatic {
		tokens += ", calendar-auto-schedule"
	}
	if accessTo(contacts, g) != noAccess {
		tokens += ", addressbook"
	}
	return tokens
}

// reports lists what may be asked of a collection. The report says nothing of what it is asked of: Radicale answers a
// sync-collection for calendar data with vCards, so the collection's kind counts besides. expand-property is not among them, not even at the
// principal: it walks to the other home and to other people (seen on Cyrus), and clients live without it, as with Radicale; nor is a search for principals:
// DAViCal told all users.
var reports = map[kind]map[name]bool{
	calendar: {
		{nsCalDAV, "calendar-query"}:    true,
		{nsCalDAV, "calendar-multiget"}: true,
		{nsCalDAV, "free-busy-query"}:   true,
		{nsDAV, "sync-collection"}:      true,
	},
	contacts: {
		{nsCardDAV, "addressbook-query"}:    true,
		{nsCardDAV, "addressbook-multiget"}: true,
		{nsDAV, "sync-collection"}:          true,
	},
	inbox: { // RFC 6638 section 2.2
		{nsCalDAV, "calendar-query"}:    true,
		{nsCalDAV, "calendar-multiget"}: true,
		{nsDAV, "sync-collection"}:      true,
	},
}

// destined tells whether a target may be copied or moved to another: in the same mount, and what it is now.
func destined(from, to target) bool {
	return from.place == to.place && from.kind == to.kind && from.id == to.id
}

// depthOf returns the header Depth for the backend. A PROPFIND without it, or with "infinity", would mean all there is.
func depthOf(method, asked string) (depth string, ok bool) {
	switch method {
	case "PROPFIND":
		switch strings.ToLower(asked) {
		case "0":
			return "0", true
		case "1", "", "infinity":
			return "1", true
		}
	case "REPORT": // RFC 3253 section 3.6: none means 0
		switch strings.ToLower(asked) {
		case "0", "":
			return "0", true
		case "1", "infinity":
			return "1", true
		}
	case "COPY", "MOVE", "DELETE": // RFC 4918 section 9: of a collection, all of it
		return "infinity", true
	default:
		return "", true
	}
	return "", false
}
