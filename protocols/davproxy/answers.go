package davproxy

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"postern/authstore"
)

// answer is what a request gets that the backend does not answer. Its body is XML: Evolution shows any other one as a warning.
type answer struct {
	status    int
	condition name   // the precondition of the standard inside DAV:error; zero: none
	text      string // for people
	plain     bool   // for a person alone: no XML around it
	challenge bool
	later     bool // Retry-After
}

// realm never changes: Thunderbird keys saved passwords by it.
const realm = "Postern"

// retryAfter is when a client shall come again, in seconds.
const retryAfter = 30

// The answers. 401 is given for a secret that is definitely no good, nothing else: Thunderbird forgets a saved password on it.
// 429 is never given: DAVx5 takes it for a hard error, and 503 with Retry-After for a delay.
var (
	unauthenticated = answer{status: http.StatusUnauthorized, text: "Log in with your mail address and an app password.", challenge: true}
	unavailable     = answer{status: http.StatusServiceUnavailable, text: "Temporarily unavailable; try again later.", later: true}
	badRequest      = answer{status: http.StatusBadRequest, text: "The request is not well-formed, or can be read in more than one way."}
	badGateway      = answer{status: http.StatusBadGateway, text: "The calendar and contacts server gave an answer that can't be used."}
	notThere        = answer{status: http.StatusNotFound, text: "There is nothing here."}
	wrongMethod     = answer{status: http.StatusMethodNotAllowed, text: "This can't be done here."}
	noPage          = answer{status: http.StatusMethodNotAllowed, text: "This address is for calendar and contacts apps: type it into one. There is no page here.", plain: true}
	tooLarge        = answer{status: http.StatusRequestEntityTooLarge, text: "The request is too large."}
	unprivileged    = answer{status: http.StatusForbidden, condition: name{nsDAV, "need-privileges"}, text: "This app password does not allow that."}
	unsupported     = answer{status: http.StatusForbidden, condition: name{nsDAV, "supported-report"}, text: "This report is not supported here."}
	wrongPlace      = answer{status: http.StatusForbidden, text: "It can't be put there."}
	protected       = answer{status: http.StatusForbidden, condition: name{nsDAV, "cannot-modify-protected-property"}, text: "The kind of a collection can't be changed."}
	noFolder        = answer{status: http.StatusConflict, text: "There is no such collection."} // RFC 4918 section 9.8.5
	notAQuestion    = answer{status: http.StatusForbidden, condition: name{nsCalDAV, "valid-scheduling-message"}, text: "Only questions for free and busy times are taken here."}
	wrongEncoding   = answer{status: http.StatusUnsupportedMediaType, text: "Send the request without a content encoding."}
	notCalendar     = answer{status: http.StatusForbidden, condition: name{nsCalDAV, "supported-calendar-data"}, text: "Only iCalendar data belongs here."}
	notCard         = answer{status: http.StatusForbidden, condition: name{nsCardDAV, "supported-address-data"}, text: "Only vCards belong here."}
	wrongKind       = answer{status: http.StatusForbidden, condition: name{nsDAV, "valid-resourcetype"}, text: "This kind of collection can't be made here."}
	disallowed      = answer{status: http.StatusForbidden, text: "This account is suspended. Ask your administrator."}
)

// refusals is the table of docs/security.md for DAV.
var refusals = map[authstore.Code]answer{
	authstore.Wrong:          unauthenticated,
	authstore.NotAppPassword: unauthenticated,
	authstore.Expired:        unauthenticated,
	authstore.OutOfScope:     unprivileged,
	authstore.BadNetwork:     unavailable, // 403 would make Thunderbird disable calendars
	authstore.Suspended:      disallowed,
	authstore.Throttled:      unavailable,
	authstore.Unavailable:    unavailable,
}

// refused answers an error of Verify or Confirm. No unknown error becomes a wrong password.
func refused(err error) answer {
	if r, ok := errors.AsType[*authstore.Refusal](err); ok {
		if a, ok := refusals[r.Code]; ok {
			return a
		}
	}
	return unavailable
}

// write sends the answer.
func (a answer) write(w http.ResponseWriter) {
	h := w.Header()
	if a.challenge {
		h.Set("WWW-Authenticate", fmt.Sprintf(`Basic realm="%s", charset="UTF-8"`, realm)) // RFC 7617; Digest can't be checked against a hash
	}
	if a.later {
		h.Set("Retry-After", strconv.Itoa(retryAfter))
	}
	contentType, body := xmlType, a.body()
	if a.plain {
		contentType, body = "text/plain; charset=utf-8", a.text+"\n"
	}
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(a.status)
	w.Write([]byte(body)) // who does not take it has gone
}

// isBrowser tells whether a person looks at the answer.
func isBrowser(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && strings.Contains(r.Header.Get("Accept"), "text/html")
}

func (a answer) body() string {
	condition := ""
	if a.condition.local != "" {
		condition = fmt.Sprintf(`<%s xmlns="%s"/>`, a.condition.local, a.condition.space)
	}
	return fmt.Sprintf(`%s<error xmlns="DAV:">%s<message xmlns="urn:postern">%s</message></error>`+"\n", xmlHeader, condition, escape(a.text))
}

const (
	xmlType   = "application/xml; charset=utf-8"
	xmlHeader = `<?xml version="1.0" encoding="utf-8"?>` + "\n"
)

// Values of headers that are nobody's to change: Set would make them for each message.
var (
	sandbox, nosniff, private = []string{"sandbox; default-src 'none'"}, []string{"nosniff"}, []string{"private, no-cache"}
	identity, xmlTypes        = []string{"identity"}, []string{xmlType}
	depths                    = map[string][]string{"0": {"0"}, "1": {"1"}, "infinity": {"infinity"}}
)

// guard sets the headers of what a browser might show: it belongs to others, so no browser may run it, show it as a page, or keep it for all.
// Answers to other methods are neither shown nor cached, and these headers were 1 of a PROPFIND's 47 us on HTTP/2.
func guard(method string, h http.Header) {
	if method != http.MethodGet && method != http.MethodHead && method != http.MethodPost {
		return
	}
	h["Content-Security-Policy"] = sandbox
	h["X-Content-Type-Options"] = nosniff
	h["Cache-Control"] = private
}

// clock keeps the header Date for a second: net/http would write it anew for each answer, which takes 1 of a PROPFIND's 69 us on HTTP/2.
type clock struct{ last atomic.Pointer[dated] }

type dated struct {
	second int64
	header []string
}

func (c *clock) date() []string {
	now := time.Now()
	d := c.last.Load()
	if d == nil || d.second != now.Unix() {
		d = &dated{now.Unix(), []string{now.UTC().Format(http.TimeFormat)}}
		c.last.Store(d)
	}
	return d.header
}

// statusOf maps a backend's status to ours; zero: the backend's answer can't be told, and there is another one.
func statusOf(backend int) (status int, instead answer) {
	switch {
	case backend == http.StatusTooManyRequests, backend == http.StatusRequestTimeout:
		return 0, unavailable
	case backend == http.StatusNotImplemented, backend == http.StatusInsufficientStorage: // nothing that passes by itself
		return backend, answer{}
	case backend >= 500:
		return 0, unavailable
	case backend < 200:
		return 0, badGateway
	}
	return backend, answer{}
}
