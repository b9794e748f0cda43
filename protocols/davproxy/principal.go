package davproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Bounds of questions that are answered here.
const (
	maxQuestion = 64 << 10
	maxProps    = 256
	maxName     = 256 // bytes of a name or namespace
)

// serve answers what the backend is not asked for: OPTIONS, and PROPFIND of the account and of homes outside the scopes.
func (ss *session) serve(w *writer, r *http.Request, t target) answer {
	b, refusal := ss.boxes()
	if refusal.status != 0 {
		return refusal
	}
	if t.kind.isBox() && len(b.of(t.kind)) == 0 {
		return notThere
	}
	w.Header().Set("DAV", compliance(&ss.grant, b))
	if r.Method == "OPTIONS" {
		w.Header().Set("Allow", allowed(t, &ss.grant))
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
		return answer{}
	}
	if _, ok := depthOf("PROPFIND", r.Header.Get("Depth")); !ok {
		return badRequest
	}
	q, refusal := ss.question(w, r, name{nsDAV, "propfind"})
	if refusal.status != 0 {
		return refusal
	}
	return multistatus(w, describe(t, ss.properties(t, b), q, minimal(r.Header)))
}

// boxTime bounds waiting for the calendars' backend where contacts are asked for, maybe.
const boxTime = 5 * time.Second

// boxes are those that the grant opens. Where the backend is in trouble there are none for now: it must not take the account along.
func (ss *session) boxes() (boxes, answer) {
	if accessTo(inbox, &ss.grant) == noAccess {
		return boxes{}, answer{}
	}
	brief := *ss
	ctx, cancel := context.WithTimeout(ss.ctx, boxTime)
	defer cancel()
	brief.ctx = ctx
	m, err := brief.mountOf(calendar)
	if e, ok := errors.AsType[*endedError](err); ok && ss.ctx.Err() != nil {
		return boxes{}, refused(e.cause)
	}
	if err != nil {
		return boxes{}, answer{}
	}
	return m.boxes, answer{}
}

// minimal tells whether a client does without the properties that are not there (RFC 8144; Apple's Brief).
func minimal(h http.Header) bool {
	return strings.EqualFold(h.Get("Brief"), "t") || strings.Contains(strings.ToLower(h.Get("Prefer")), "return=minimal")
}

// multistatus sends one response.
func multistatus(w *writer, response string) answer {
	text := xmlHeader + `<multistatus xmlns="DAV:">` + response + `</multistatus>` + "\n"
	w.Header().Set("Content-Type", xmlType)
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(http.StatusMultiStatus)
	io.WriteString(w, text)
	return answer{}
}

// question is what a PROPFIND or PROPPATCH names.
type question struct {
	names []name
	all   bool // allprop, or no body
	just  bool // propname: no values
}

var errQuestion = errors.New("a question with too many or too long names")

func (ss *session) question(w *writer, r *http.Request, root name) (question, answer) {
	text, refusal := ss.readAll(w, r, maxQuestion)
	if refusal.status != 0 {
		return question{}, refusal
	}
	q, err := readQuestion(text, root)
	if err != nil {
		return question{}, badRequest
	}
	return q, answer{}
}

// readQuestion reads the names inside DAV:prop, wherever that stands: a PROPFIND has one, a PROPPATCH one or more.
func readQuestion(text []byte, root name) (question, error) {
	q := question{all: true}
	if len(bytes.TrimSpace(text)) == 0 {
		return q, nil
	}
	tokens := newTokenizer(bytes.NewReader(text))
	defer tokens.free()
	for {
		tok, err := tokens.next()
		switch {
		case err == io.EOF:
			return q, nil
		case err != nil:
			return q, err
		case tok.kind != startToken:
			continue
		case tokens.depth() == 1 && tok.name != root:
			return q, errRoot
		case tokens.depth() == 2:
			q.all = q.all && tok.name == (name{nsDAV, "allprop"})
			q.just = q.just || tok.name == (name{nsDAV, "propname"})
		}
		depth := 3
		if root.local == "propertyupdate" {
			depth = 4
		}
		if tokens.depth() != depth || tokens.parent(1).word != davProp {
			continue
		}
		if len(q.names) == maxProps || len(tok.name.space)+len(tok.name.local) > maxName {
			return q, errQuestion
		}
		q.names = append(q.names, tok.name)
	}
}

// refuseProps answers a PROPPATCH that may not be: a plain 403 stalls macOS (sabre/dav issue 935).
func (ss *session) refuseProps(w *writer, r *http.Request, t target) answer {
	q, refusal := ss.question(w, r, name{nsDAV, "propertyupdate"})
	if refusal.status != 0 {
		return refusal
	}
	if len(q.names) == 0 {
		return badRequest
	}
	return multistatus(w, responseOf(t, propstat(emptyElement, q.names, "403 Forbidden")))
}

func responseOf(t target, propstats ...string) string {
	return "<response><href>" + t.path() + "</href>" + strings.Join(propstats, "") + "</response>"
}

// propstat tells one status of several properties. Its text is as clients know it: Thunderbird compares all of it.
func propstat(tell func(name) string, names []name, status string) string {
	var b strings.Builder
	b.WriteString("<propstat><prop>")
	for _, n := range names {
		b.WriteString(tell(n))
	}
	b.WriteString("</prop><status>HTTP/1.1 " + status + "</status></propstat>")
	return b.String()
}

// emptyElement is a property without a value. Its local name is an XML name, since it was read from one.
func emptyElement(n name) string { return fmt.Sprintf(`<%s xmlns="%s"/>`, n.local, escape(n.space)) }

// describe answers a PROPFIND. What is there comes first: Thunderbird looks at the first status only.
func describe(t target, props map[name]string, q question, minimal bool) string {
	if q.all || q.just {
		q.names = append(known, q.names...)
	}
	var there, missing []name
	seen := make(map[name]bool)
	for _, n := range q.names {
		_, ok := props[n]
		switch {
		case seen[n]:
		case ok:
			there = append(there, n)
		case !q.just && !(q.all && isKnown[n]):
			missing = append(missing, n)
		}
		seen[n] = true
	}
	tell := func(n name) string {
		return fmt.Sprintf(`<%s xmlns="%s">%s</%s>`, n.local, n.space, props[n], n.local)
	}
	if q.just {
		tell = emptyElement
	}
	stats := propstat(tell, there, "200 OK")
	if len(missing) > 0 && !minimal {
		stats += propstat(emptyElement, missing, "404 Not Found")
	}
	return responseOf(t, stats)
}

// known are the properties that may be there, in the order of a list of all.
var known = []name{
	{nsDAV, "resourcetype"}, {nsDAV, "displayname"}, {nsDAV, "current-user-principal"}, {nsDAV, "principal-URL"}, {nsDAV, "owner"},
	{nsDAV, "current-user-privilege-set"}, {nsDAV, "supported-report-set"},
	{nsCalDAV, "calendar-home-set"}, {nsCardDAV, "addressbook-home-set"}, {nsCalDAV, "calendar-user-address-set"},
	{nsCalDAV, "calendar-user-type"}, {nsCalDAV, "schedule-inbox-URL"}, {nsCalDAV, "schedule-outbox-URL"},
}

var isKnown = func() map[name]bool {
	m := make(map[name]bool)
	for _, n := range known {
		m[n] = true
	}
	return m
}()

// properties are the values, as XML inside of the namespace DAV:. Both homes are told always, whatever the scopes: vdirsyncer,
// Thunderbird and Evolution take a missing one for an error. What belongs to invitations is there with the boxes only.
func (ss *session) properties(t target, b boxes) map[name]string {
	id := ss.grant.PublicID
	own := hrefTo(target{place: principal, id: id}.path())
	props := map[name]string{
		{nsDAV, "resourcetype"}:               `<collection xmlns="DAV:"/>`,
		{nsDAV, "displayname"}:                escape(ss.displayName(t)),
		{nsDAV, "current-user-principal"}:     own,
		{nsDAV, "current-user-privilege-set"}: `<privilege xmlns="DAV:"><read/></privilege>`,
		{nsDAV, "supported-report-set"}:       "",
	}
	if t.place == home {
		props[name{nsDAV, "owner"}] = own
		return props
	}
	props[name{nsDAV, "principal-URL"}] = own
	props[name{nsCalDAV, "calendar-home-set"}] = hrefTo(target{place: home, kind: calendar, id: id}.path())
	props[name{nsCardDAV, "addressbook-home-set"}] = hrefTo(target{place: home, kind: contacts, id: id}.path())
	props[name{nsCalDAV, "calendar-user-address-set"}] = hrefTo("mailto:"+ss.grant.Address) + own
	ss.invite(props, b)
	if t.place == principal {
		props[name{nsDAV, "resourcetype"}] += `<principal xmlns="DAV:"/>`
	}
	return props
}

// invite adds what a client needs for invitations (RFC 6638 section 2.4). The addresses are the backend's, where it tells some: it
// sends an organizer's invitations by these only.
func (ss *session) invite(props map[name]string, b boxes) {
	for k, property := range map[kind]string{inbox: "schedule-inbox-URL", outbox: "schedule-outbox-URL"} {
		if len(b.of(k)) == 0 {
			continue
		}
		props[name{nsCalDAV, property}] = hrefTo(target{place: collection, kind: k, id: ss.grant.PublicID}.path())
		props[name{nsCalDAV, "calendar-user-type"}] = "INDIVIDUAL"
	}
	if len(b.addresses) == 0 || len(b.inbox)+len(b.outbox) == 0 {
		return
	}
	own := ""
	for _, address := range b.addresses {
		own += hrefTo(address)
	}
	props[name{nsCalDAV, "calendar-user-address-set"}] = own + hrefTo(target{place: principal, id: ss.grant.PublicID}.path())
}

func hrefTo(url string) string { return `<href xmlns="DAV:">` + escape(url) + `</href>` }

func (ss *session) displayName(t target) string {
	if t.place == home {
		return map[kind]string{calendar: "Calendars", contacts: "Contacts"}[t.kind]
	}
	return ss.grant.Address
}
