package davproxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strings"
)

// passedIn tells which of the client's headers a backend gets, besides those that are made here. All others stay out: Authorization,
// everything with a name of its own (WSGI reads X_Remote_User as X-Remote-User), what Connection names, Range (a part of an
// item can't be judged), Accept-Encoding (nor what is compressed).
func passedIn(name string) bool {
	switch name {
	case "Accept", "Accept-Language", "If-Match", "If-Modified-Since", "If-None-Match", "If-Schedule-Tag-Match",
		"If-Unmodified-Since", "Overwrite", "Prefer", "Brief", "Schedule-Reply", "Caldav-Timezones", "User-Agent":
		return true
	}
	return false
}

// single tells which headers mean nothing when they stand twice.
func single(name string) bool {
	switch name {
	case "Content-Type", "Depth", "Destination", "If", "Overwrite":
		return true
	}
	return false
}

// makeHeader makes the backend's header from the client's.
func (x *exchange) makeHeader() answer {
	from := x.r.Header
	x.header = make(http.Header, 8)
	x.header["Accept-Encoding"] = identity
	for name, values := range from {
		switch {
		case len(values) > 1 && single(name):
			return badRequest
		case !passedIn(name), len(values) == 0:
		case len(values) == 1:
			x.header[name] = values
		default:
			x.header.Set(name, strings.Join(values, ", "))
		}
	}
	if e := from.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return wrongEncoding
	}
	if wishes := x.header["Prefer"]; wishes != nil {
		delete(x.header, "Prefer")
		if kept := withoutCopies(wishes[0]); kept != "" {
			x.header["Prefer"] = []string{kept}
		}
	}
	depth, ok := depthOf(x.r.Method, from.Get("Depth"))
	if !ok {
		return badRequest
	}
	if depth != "" {
		x.header["Depth"] = depths[depth]
	}
	if condition := from.Get("If"); condition != "" {
		mapped, ok := mapIf(condition, x.inward)
		if !ok {
			return badRequest
		}
		x.header.Set("If", mapped)
	}
	return answer{}
}

// withoutCopies takes the wish for a copy of what was stored out of a header Prefer (RFC 8144 section 3): answers to writes have no body here, and a
// client that is told of a copy would take the empty body for it.
func withoutCopies(prefer string) string {
	var kept []string
	for wish := range strings.SplitSeq(prefer, ",") {
		if !strings.Contains(strings.ToLower(wish), "representation") {
			kept = append(kept, strings.TrimSpace(wish))
		}
	}
	return strings.Join(kept, ", ")
}

// inward maps a client's href to the backend's, if it lies in the collection that the request is about.
func (x *exchange) inward(href string) (string, bool) {
	t, err := locate(href, x.r.Host)
	if err != nil || !t.in(x.at) || t.place != x.at.place && t.place != member {
		return "", false
	}
	return x.m.inward(t), true
}

// maxNamed bounds the calendars that a body at the inbox may name: each may cost the backend a question.
const maxNamed = 100

// inBody maps an href inside a body. The inbox may name calendars besides, one for what comes (schedule-default-calendar-URL) and
// those that count as busy.
func (x *exchange) inBody(href string) (string, fate) {
	if mapped, ok := x.inward(href); ok {
		return mapped, ownHref
	}
	t, err := locate(href, x.r.Host)
	if err == nil && x.at.kind == inbox && t.place == collection && t.kind == calendar && t.id == x.at.id && x.named < maxNamed {
		x.named++
		if k, err := x.server.kinds.of(x.session, x.m, t); err == nil && k == calendar {
			return x.m.inward(t), ownHref
		}
	}
	if _, err := pathOf(href, x.r.Host); err == nil || x.m.leads(href) || !hasScheme(href) {
		return "", strayHref
	}
	return "", foreignHref
}

// destination judges where COPY and MOVE lead: a place in the same mount that the grant opens, and no collection of another kind in
// between. What may not be seen is answered like what is not there.
func (x *exchange) destination() answer {
	if x.r.Method != "COPY" && x.r.Method != "MOVE" {
		return answer{}
	}
	to, err := locate(x.r.Header.Get("Destination"), x.r.Host)
	if err != nil {
		return badRequest
	}
	if !destined(x.at, to) || x.m.isBox(to) {
		return wrongPlace
	}
	if accessAt(to, &x.grant) != writeAccess {
		return noFolder
	}
	x.to = to
	x.header.Set("Destination", base(x.m.route)+x.m.inward(to))
	k, err := x.server.kinds.of(x.session, x.m, to)
	switch {
	case errors.Is(err, errNoCollection) && to.place == collection:
		return answer{}
	case errors.Is(err, errNoCollection):
		return noFolder
	case err != nil:
		return x.failed(x.m.route.Backend, err)
	case k != to.kind && to.place == member:
		return noFolder
	case k != to.kind:
		return wrongPlace
	}
	return answer{}
}

// ifPart is one piece of a header If (RFC 4918 section 10.4). What backends read in different ways has no place in it, such as brackets and quotes in
// tags and tokens: sabre/dav ends a tag at "]" and knows no quotes, so that what stands in these here would be a URL there.
var ifPart = regexp.MustCompile(`^(?:[ \t]+|(?i:not)|[()]|<[^<>()\[\]"\\\s]+>|\[(?:W/)?"[^<>()\[\]"\\\s]*"\])`)

// mapIf rewrites the URLs of a header If. Those inside parentheses are state tokens and stay.
func mapIf(condition string, inward func(string) (string, bool)) (string, bool) {
	var b strings.Builder
	inList := false
	for condition != "" {
		part := ifPart.FindString(condition)
		condition = condition[len(part):]
		switch {
		case part == "", part == "(" && inList, part == ")" && !inList:
			return "", false
		case part == "(" || part == ")":
			inList = !inList
		case part[0] == '<' && !inList:
			mapped, ok := inward(part[1 : len(part)-1])
			if !ok {
				return "", false
			}
			part = "<" + mapped + ">"
		case !inList && strings.TrimSpace(part) != "":
			return "", false
		}
		b.WriteString(part)
	}
	return b.String(), !inList
}

// takeBody judges the body before the first byte of it goes to the backend.
func (x *exchange) takeBody() answer {
	switch x.r.Method {
	case "PUT":
		return x.takeItem()
	case "POST":
		return x.takeQuestion()
	case "GET", "HEAD", "DELETE", "COPY", "MOVE":
		return answer{} // these have none; what a client sends is left unread
	}
	text, refusal := x.readAll(x.w, x.r, maxBuffer)
	if refusal.status != 0 {
		return refusal
	}
	doc, err := parse(text, x.inBody)
	if err != nil {
		return badRequest
	}
	if refusal := doc.check(x.r.Method, x.at.kind); refusal.status != 0 {
		return refusal
	}
	if doc.isMultiget() && len(doc.hrefs) == 0 {
		return x.allLost(doc)
	}
	x.doc = doc
	x.setBody(doc.bytes, xmlType)
	return answer{}
}

// allLost answers a multiget of nothing that is there; answered tells the caller so.
func (x *exchange) allLost(doc *document) answer {
	var b strings.Builder
	for _, href := range doc.lost {
		b.Write(notThereResponse(href))
	}
	multistatus(x.w, b.String())
	return done
}

// done says that the answer has been written.
var done = answer{status: -1}

// setBody sends bytes that are here with their length.
func (x *exchange) setBody(text []byte, contentType string) {
	if len(text) == 0 {
		return
	}
	x.body, x.length = hold(text), int64(len(text))
	if contentType == xmlType {
		x.header["Content-Type"] = xmlTypes
	} else {
		x.header.Set("Content-Type", contentType)
	}
}

// takeItem judges an event or card by its first bytes and lets the rest stream. A body of unknown length is sent with its length
// if it is short: WSGI servers take no chunks.
func (x *exchange) takeItem() answer {
	if x.r.ContentLength > x.server.o.MaxBody {
		return tooLarge
	}
	from := &body{from: http.MaxBytesReader(x.w, x.r.Body, x.server.o.MaxBody), w: x.w, up: &x.login.up}
	in := bufio.NewReaderSize(from, 4<<10)
	beginning, err := in.Peek(sniffed)
	if err != nil && err != io.EOF {
		return unread(err)
	}
	contentType := x.r.Header.Get("Content-Type")
	if media, _, _ := mime.ParseMediaType(contentType); media == "application/octet-stream" || media == "text/plain" {
		contentType = "" // what curl and scripts say when they say nothing
	}
	if !fits(x.at.kind, contentType, beginning) {
		if x.at.kind == calendar {
			return notCalendar
		}
		return notCard
	}
	if contentType == "" {
		contentType = mediaTypes[x.at.kind][0] + "; charset=utf-8"
	}
	x.header.Set("Content-Type", contentType)
	if x.r.ContentLength >= 0 {
		x.body, x.length = closing{in, from}, x.r.ContentLength
		return answer{}
	}
	head, err := io.ReadAll(io.LimitReader(in, maxBuffer))
	switch {
	case err != nil:
		return unread(err)
	case len(head) < maxBuffer:
		x.setBody(head, contentType)
	default:
		x.body, x.length = closing{io.MultiReader(bytes.NewReader(head), in), from}, -1
	}
	return answer{}
}

// closing is what is left of a body, some of which was read already.
type closing struct {
	io.Reader
	io.Closer
}

// readAll reads a short body whole.
func (ss *session) readAll(w *writer, r *http.Request, limit int64) ([]byte, answer) {
	if r.ContentLength > limit {
		return nil, tooLarge
	}
	from := &body{from: r.Body, w: w, up: &ss.login.up}
	if r.ContentLength >= 0 {
		text := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(from, text); err != nil {
			return nil, unread(err)
		}
		return text, answer{}
	}
	from.from = http.MaxBytesReader(w, r.Body, limit)
	text, err := io.ReadAll(from)
	if err != nil {
		return nil, unread(err)
	}
	return text, answer{}
}

// unread answers a body that could not be read.
func unread(err error) answer {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge
	}
	return badRequest
}
