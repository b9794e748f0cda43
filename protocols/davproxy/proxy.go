package davproxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"postern/protocols"
	"postern/protocols/davproxy/upstream"
)

// passedIn are the client's headers that a backend gets, besides those that are made here. All others stay out: Authorization,
// everything with a name of its own (WSGI reads X_Remote_User as X-Remote-User), what Connection names, Range (a part of an
// item can't be judged), Accept-Encoding (nor what is compressed).
var passedIn = []string{
	"Accept", "Accept-Language", "If-Match", "If-Modified-Since", "If-None-Match", "If-Schedule-Tag-Match",
	"If-Unmodified-Since", "Overwrite", "Prefer", "Brief", "Schedule-Reply", "Caldav-Timezones", "User-Agent",
}

// single are headers that mean nothing when they stand twice.
var single = []string{"Content-Type", "Depth", "Destination", "If", "Overwrite"}

// passedOut are a backend's headers that the client gets. What bodies need is set here.
var passedOut = []string{"Etag", "Last-Modified", "Schedule-Tag", "Preference-Applied", "Content-Language"}

// exchange is one request on its way to a backend and back.
type exchange struct {
	*session
	w      *writer
	r      *http.Request
	m      *mount
	at     target
	to     target    // COPY and MOVE: the destination
	doc    *document // nil: the body is no XML
	header http.Header
	body   io.ReadCloser // nil: none
	length int64         // -1: unknown
}

// forward leads a request to the backend, if what it is about is of the mount's kind.
func (ss *session) forward(w *writer, r *http.Request, t target) answer {
	m, err := ss.mountOf(t.kind)
	switch {
	case errors.Is(err, protocols.ErrNoRoute) && t.place == home:
		return ss.serve(w, r, t)
	case errors.Is(err, protocols.ErrNoRoute):
		return notThere
	case m == nil:
		return ss.failed("", err)
	case err != nil:
		return ss.failed(m.route.Backend, err)
	case m.inward(t) == "":
		return notThere
	}
	x := &exchange{session: ss, w: w, r: r, m: m, at: t}
	for _, prepare := range []func() answer{x.checkKind, x.makeHeader, x.destination, x.takeBody} {
		if refusal := prepare(); refusal.status != 0 {
			return refusal
		}
	}
	resp, err := x.send()
	if err != nil {
		return ss.failed(m.route.Backend, err)
	}
	defer discard(resp)
	return x.relay(resp)
}

// failed answers an error on the way to a backend, and logs it.
func (ss *session) failed(backend string, err error) answer {
	if e, ok := errors.AsType[*endedError](err); ok {
		return refused(e.cause)
	}
	if e, ok := errors.AsType[*upstream.BodyError](err); ok && ss.ctx.Err() == nil {
		return unread(e)
	}
	if ss.ctx.Err() == nil {
		level, message := slog.LevelWarn, "backend"
		if errors.Is(err, protocols.ErrCredential) { // nobody gets in
			level, message = slog.LevelError, "the backend refused the gateway's login"
		}
		ss.server.o.Log.Log(ss.ctx, level, message, "conn", ss.facts.Conn, "proto", Protocol, "account", ss.grant.Account, "backend", backend, "err", err)
	}
	return unavailable
}

// makesCollection tells whether a method's target is not there yet.
func makesCollection(method string) bool { return method == "MKCOL" || method == "MKCALENDAR" }

// checkKind keeps contacts out of the calendars' mount and the other way round, whatever the path says.
func (x *exchange) checkKind() answer {
	switch {
	case x.at.place == home:
		return answer{}
	case makesCollection(x.r.Method) && x.m.isBox(x.at):
		return wrongPlace
	case makesCollection(x.r.Method):
		return answer{}
	}
	return x.sameKind(x.at)
}

func (x *exchange) sameKind(t target) answer {
	k, err := x.server.kinds.of(x.session, x.m, t)
	switch {
	case errors.Is(err, errNoCollection):
		return notThere
	case err != nil:
		return x.failed(x.m.route.Backend, err)
	case k != t.kind:
		return notThere
	}
	return answer{}
}

// makeHeader makes the backend's header from the client's.
func (x *exchange) makeHeader() answer {
	from := x.r.Header
	for _, name := range single {
		if len(from[name]) > 1 {
			return badRequest
		}
	}
	if e := from.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return wrongEncoding
	}
	x.header = make(http.Header, 8)
	x.header["Accept-Encoding"] = identity
	for _, name := range passedIn {
		switch values := from[name]; len(values) {
		case 0:
		case 1:
			x.header[name] = values
		default:
			x.header.Set(name, strings.Join(values, ", "))
		}
	}
	if wishes := withoutCopies(x.header.Get("Prefer")); wishes != "" {
		x.header.Set("Prefer", wishes)
	} else {
		x.header.Del("Prefer")
	}
	depth, ok := depthOf(x.r.Method, from.Get("Depth"))
	if !ok {
		return badRequest
	}
	if depth != "" {
		x.header["Depth"] = []string{depth}
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

// inBody maps an href inside a body. The inbox may name calendars besides, one for what comes (schedule-default-calendar-URL) and
// those that count as busy.
func (x *exchange) inBody(href string) (string, fate) {
	if mapped, ok := x.inward(href); ok {
		return mapped, ownHref
	}
	t, err := locate(href, x.r.Host)
	if err == nil && x.at.kind == inbox && t.place == collection && t.kind == calendar && t.id == x.at.id {
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
	x.header.Set("Content-Type", contentType)
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

// send sends the request, and forgets what it may change.
func (x *exchange) send() (*http.Response, error) {
	req := x.m.request(x.ctx, x.r.Method, x.m.inward(x.at), x.header, x.body, x.length)
	switch x.r.Method {
	case "MKCOL", "MKCALENDAR", "DELETE", "COPY", "MOVE", "PROPPATCH":
		return x.change(req)
	}
	return x.do(x.m.route, req)
}

// change sends a request after which collections may be of another kind, or gone.
func (x *exchange) change(req *http.Request) (*http.Response, error) {
	x.forget()
	defer x.forget() // who looked in the meantime may have seen it as it was
	resp, err := x.do(x.m.route, req)
	if err != nil || resp.StatusCode >= 500 {
		x.server.kinds.doubt(x.m, x.at)
		if x.to.place != nowhere {
			x.server.kinds.doubt(x.m, x.to)
		}
	}
	return resp, err
}

func (x *exchange) forget() {
	x.server.kinds.forget(x.m, x.at)
	if x.to.place != nowhere {
		x.server.kinds.forget(x.m, x.to)
	}
}

// relay tells the client what the backend answered.
func (x *exchange) relay(resp *http.Response) answer {
	status, instead := statusOf(resp.StatusCode)
	if status == 0 {
		x.failed(x.m.route.Backend, &statusError{resp.StatusCode}) // for the log
		return instead
	}
	h := x.w.Header()
	for _, name := range passedOut {
		if v := resp.Header[name]; len(v) > 0 && v[0] != "" {
			h[name] = v[:1:1]
		}
	}
	located := x.mapLocation(resp, "Location")
	x.mapLocation(resp, "Content-Location")
	switch {
	case status == http.StatusMultiStatus:
		return x.relayXML(status, resp)
	case status == http.StatusNotModified:
		return x.empty(status)
	case status >= 400:
		return x.relayError(status, resp)
	case status >= 300 && !located, status == http.StatusPartialContent:
		return x.unusable()
	case status >= 300:
		return x.empty(status)
	}
	switch x.r.Method {
	case "GET", "HEAD":
		return x.relayItem(resp)
	case "REPORT":
		if x.doc.root == (name{nsCalDAV, "free-busy-query"}) {
			if untold(resp.Header.Get("Content-Type")) {
				resp.Header.Set("Content-Type", mediaTypes[calendar][0])
			}
			return x.relayItem(resp)
		}
		return x.unusable()
	case "POST":
		return x.relayXML(status, resp)
	case "PROPFIND":
		return x.unusable()
	}
	if makesCollection(x.r.Method) && x.relayShort(status, resp) {
		return answer{}
	}
	return x.empty(status)
}

// untold tells whether a media type says nothing. Xandikos tells free and busy times without one. What they are is seen in their beginning.
func untold(contentType string) bool {
	return contentType == "" || contentType == "application/octet-stream"
}

// mapLocation passes on a URL that leads into the collection that the request is about.
func (x *exchange) mapLocation(resp *http.Response, name string) bool {
	t, ok := x.m.outward(resp.Header.Get(name))
	ok = ok && (t.in(x.at) || x.to.place != nowhere && t.in(x.to))
	if ok {
		x.w.Header().Set(name, t.path())
	}
	return ok
}

func (x *exchange) empty(status int) answer {
	if status != http.StatusNotModified && status != http.StatusNoContent {
		x.w.Header().Set("Content-Length", "0")
	}
	x.w.WriteHeader(status)
	return answer{}
}

// relayItem passes on an event or card, if it is one, untouched: its ETag stays true. No browser shows it as a page.
func (x *exchange) relayItem(resp *http.Response) answer {
	contentType := resp.Header.Get("Content-Type")
	in := bufio.NewReaderSize(resp.Body, 32<<10)
	var beginning []byte
	if x.r.Method == "HEAD" {
		beginning = []byte(beginnings[x.at.kind.content()]) // there is none to look at
	} else {
		var err error
		if beginning, err = in.Peek(sniffed); err != nil && err != io.EOF {
			return x.failed(x.m.route.Backend, err)
		}
	}
	if contentType == "" || resp.Header.Get("Content-Encoding") != "" || !fits(x.at.kind, contentType, beginning) {
		x.clear()
		return notThere
	}
	h := x.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Disposition", "attachment")
	if resp.ContentLength >= 0 {
		h.Set("Content-Length", strconv.FormatInt(resp.ContentLength, 10))
	}
	x.w.WriteHeader(http.StatusOK)
	if _, err := io.Copy(onlyWriter{x.w}, in); err != nil {
		x.abort(err)
	}
	return answer{}
}

// abort ends an answer that has begun and will not be whole: never cleanly.
func (x *exchange) abort(err error) {
	if e, ok := errors.AsType[*upstream.AnswerError](err); ok { // else the client did not take it
		x.failed(x.m.route.Backend, e) // for the log
	}
	panic(http.ErrAbortHandler)
}

// onlyWriter hides ReadFrom, which would write without deadlines.
type onlyWriter struct{ io.Writer }

// clear takes back the headers that describe what is not told.
func (x *exchange) clear() {
	for _, name := range append(slices.Clone(passedOut), "Location", "Content-Location") {
		x.w.Header().Del(name)
	}
}

// unusable answers what the backend should not have said.
func (x *exchange) unusable() answer {
	x.clear()
	return badGateway
}

var answers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 32<<10) }}

// relayXML filters the backend's XML. The header goes with the first 32 KiB, so that a bad short answer can still become another.
func (x *exchange) relayXML(status int, resp *http.Response) answer {
	if !isXML(resp.Header) {
		return x.unusable()
	}
	x.w.Header()["Content-Type"] = xmlTypes
	out := answers.Get().(*bufio.Writer)
	out.Reset(&statusWriter{x.w, status})
	defer func() {
		out.Reset(nil)
		answers.Put(out)
	}()
	err := x.filter().copy(out, resp.Body)
	switch {
	case err != nil && x.w.begun:
		x.abort(err)
	case err != nil:
		x.failed(x.m.route.Backend, err) // for the log
		return x.unusable()
	case !x.w.begun:
		x.w.Header().Set("Content-Length", strconv.Itoa(out.Buffered()))
	}
	out.Flush() // who does not take it has gone
	return answer{}
}

// statusWriter sends the status with the first bytes.
type statusWriter struct {
	w      *writer
	status int
}

func (s *statusWriter) Write(b []byte) (int, error) {
	if !s.w.begun {
		s.w.WriteHeader(s.status)
	}
	return s.w.Write(b)
}

func (x *exchange) filter() *filter {
	f := &filter{
		m: x.m, at: x.at, also: x.to, grant: &x.grant,
		single: x.r.Method == "PROPPATCH", // Xandikos escapes the whole URL
		kindOf: func(t target) (kind, error) { return x.server.kinds.of(x.session, x.m, t) },
	}
	if x.doc != nil {
		f.lost = x.doc.lost
	}
	return f
}

// maxShort bounds XML that is told as a whole or not at all, in bytes.
const maxShort = 64 << 10

// relayError passes on what the backend's error says for programs (DAV:valid-sync-token makes a client start over); a page for
// people is replaced.
func (x *exchange) relayError(status int, resp *http.Response) answer {
	if status == http.StatusMethodNotAllowed {
		x.w.Header().Set("Allow", allowed(x.at, &x.grant))
	}
	if x.r.Method != "HEAD" && x.relayShort(status, resp) {
		return answer{}
	}
	return answer{status: status, text: http.StatusText(status)}
}

// relayShort passes on a short XML answer, if it can be told.
func (x *exchange) relayShort(status int, resp *http.Response) bool {
	var text bytes.Buffer
	if !isXML(resp.Header) || x.filter().copy(&text, io.LimitReader(resp.Body, maxShort)) != nil {
		return false
	}
	x.w.Header().Set("Content-Type", xmlType)
	x.w.Header().Set("Content-Length", strconv.Itoa(text.Len()))
	x.w.WriteHeader(status)
	x.w.Write(text.Bytes()) // who does not take it has gone
	return true
}

// plainXML is how nearly all backends say it; it needs no parsing.
var plainXML = map[string]bool{"application/xml; charset=utf-8": true, "text/xml; charset=utf-8": true, "application/xml": true, "text/xml": true}

// isXML tells whether a body is XML in UTF-8.
func isXML(h http.Header) bool {
	contentType := h.Get("Content-Type")
	if plainXML[contentType] && h["Content-Encoding"] == nil {
		return true
	}
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil || media != "application/xml" && media != "text/xml" || h.Get("Content-Encoding") != "" {
		return false
	}
	charset := params["charset"]
	return charset == "" || strings.EqualFold(charset, "utf-8") || strings.EqualFold(charset, "us-ascii")
}
