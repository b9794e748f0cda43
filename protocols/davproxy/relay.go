package davproxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"postern/protocols/davproxy/upstream"
)

// passedOut are a backend's headers that the client gets. What bodies need is set here.
var passedOut = []string{"Etag", "Last-Modified", "Schedule-Tag", "Preference-Applied", "Content-Language"}

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
	url := resp.Header[name]
	if len(url) == 0 {
		return false
	}
	t, ok := x.m.outward(url[0])
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

// relayXML filters the backend's XML. The header goes with the first 32 KiB, so that a bad short answer can still become another.
func (x *exchange) relayXML(status int, resp *http.Response) answer {
	if !isXML(resp.Header) {
		return x.unusable()
	}
	x.w.Header()["Content-Type"] = xmlTypes
	x.out = statusWriter{w: x.w, status: status}
	err := x.filter().copy(&x.out, resp.Body)
	switch {
	case err != nil && x.w.begun:
		x.abort(err)
	case err != nil:
		x.failed(x.m.route.Backend, err) // for the log
		return x.unusable()
	}
	return answer{}
}

// statusWriter sends the status with the first bytes.
type statusWriter struct {
	w      *writer
	status int
	length [1]string // the value of a header
}

// whole tells the client how long an answer is that comes with one Write.
func (s *statusWriter) whole(length int) {
	s.length[0] = strconv.Itoa(length)
	s.w.Header()["Content-Length"] = s.length[:]
	if s.w.corked != nil && s.w.deadlines.client.Err() == nil { // else nothing of it is written, and the next answer would wait
		s.w.corked.bodyFollows(length)
	}
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
