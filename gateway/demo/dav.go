package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-ical"
	"github.com/emersion/go-vcard"
)

// davServer is a CalDAV and CardDAV server over a store in memory. go-webdav's handlers can't be used for it: what they lack
// (MKCALENDAR, PROPPATCH, sync-collection, most properties) or break (conditional DELETE, the bytes of an item, the order of
// propstats, queries for what is not defined) is most of what clients ask. From it comes the check of calendar objects.
type davServer struct {
	http     *http.Server
	password [sha256.Size]byte // its hash: both sides of the comparison have one length

	mu       sync.Mutex // guards accounts and all that they hold but items; never held over I/O
	accounts map[string]account
}

func startDAV(ln net.Listener, password []byte, errorLog *log.Logger) *davServer {
	s := &davServer{password: sha256.Sum256(password), accounts: make(map[string]account)}
	s.http = &http.Server{
		Handler:           s,
		ErrorLog:          errorLog,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    32 << 10,
	}
	go s.http.Serve(ln) // ends with close
	return s
}

// close waits a moment for requests that are being answered.
func (s *davServer) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		return s.http.Close()
	}
	return nil
}

// level says what a path leads to.
type level int

const (
	rootLevel level = iota
	principalLevel
	homeLevel
	collectionLevel
	itemLevel
)

// target is a path taken apart: /ADDRESS/HOME/COLLECTION/ITEM.
type target struct {
	level                           level
	address, home, collection, item string
}

// parseTarget takes a path apart, as the client wrote it: an escaped slash belongs to a name.
func parseTarget(escaped string) (target, bool) {
	var names [4]string
	path := strings.TrimPrefix(escaped, "/")
	if path == "" {
		return target{}, true
	}
	parts := strings.Split(strings.TrimSuffix(path, "/"), "/")
	if len(parts) > len(names) {
		return target{}, false
	}
	for i, part := range parts {
		name, err := url.PathUnescape(part)
		if err != nil || name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
			return target{}, false
		}
		names[i] = name
	}
	t := target{level(len(parts)), names[0], names[1], names[2], names[3]}
	return t, t.level < homeLevel || t.home == calendars || t.home == contacts
}

// href is the target's path, escaped; collections end in a slash.
func (t target) href() string {
	names := []string{t.address, t.home, t.collection, t.item}[:t.level]
	for i, name := range names {
		names[i] = (&url.URL{Path: name}).EscapedPath()
	}
	path := "/" + strings.Join(names, "/")
	if t.level == rootLevel || t.level == itemLevel {
		return path
	}
	return path + "/"
}

// up returns the target's ancestor of that level.
func (t target) up(l level) target {
	t.level = l
	return t
}

// answer is what a request gets. An error's body names the condition that was not met (RFC 4918 section 16).
type answer struct {
	status int
	header http.Header
	body   []byte
}

func status(code int) *answer { return &answer{status: code, header: http.Header{}} }

func multistatus(nodes ...*node) *answer {
	return withXML(http.StatusMultiStatus, element(dav("multistatus"), nodes...))
}

func refuse(code int, condition xml.Name, details ...*node) *answer {
	return withXML(code, element(dav("error"), element(condition, details...)))
}

func withXML(code int, n *node) *answer {
	a := status(code)
	a.header.Set("Content-Type", "application/xml; charset=utf-8")
	a.body = n.document()
	return a
}

func (s *davServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("DAV", "1, 3, extended-mkcol, calendar-access, addressbook")
	address, ok := s.authenticate(r)
	if !ok {
		w.Header().Set("WWW-Authenticate", `Basic realm="Postern demo", charset="UTF-8"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxItem))
	if err != nil {
		code := http.StatusBadRequest
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			code = http.StatusRequestEntityTooLarge
		}
		w.WriteHeader(code)
		return
	}
	a, it := s.answer(r, address, body)
	for key, values := range a.header {
		w.Header()[key] = values
	}
	if it != nil { // ServeContent knows HEAD, conditions and ranges
		http.ServeContent(w, r, "", it.modified, bytes.NewReader(it.raw))
		return
	}
	w.WriteHeader(a.status)
	w.Write(a.body) // an error: the gateway has gone
}

// authenticate returns the address on whose behalf the gateway asks.
func (s *davServer) authenticate(r *http.Request) (address string, ok bool) {
	address, password, ok := r.BasicAuth()
	sum := sha256.Sum256([]byte(password))
	right := subtle.ConstantTimeCompare(sum[:], s.password[:]) == 1
	return address, ok && right && address != "" && !strings.Contains(address, "/")
}

// request is one request inside the lock.
type request struct {
	*http.Request
	target
	account account
	body    []byte
}

// answer decides. Where an item is to be served, it is returned besides the header.
func (s *davServer) answer(r *http.Request, address string, body []byte) (*answer, *item) {
	if r.URL.Path == "/.well-known/caldav" || r.URL.Path == "/.well-known/carddav" {
		a := status(http.StatusMovedPermanently)
		a.header.Set("Location", "/")
		return a, nil
	}
	t, ok := parseTarget(r.URL.EscapedPath())
	if !ok || t.level > rootLevel && t.address != address {
		return status(http.StatusNotFound), nil
	}
	t.address = address
	s.mu.Lock()
	defer s.mu.Unlock()
	acc, err := s.account(address)
	if err != nil {
		return status(http.StatusInternalServerError), nil
	}
	return (&request{Request: r, target: t, account: acc, body: body}).answer()
}

// account returns an address's data. At its first request it gets the samples.
func (s *davServer) account(address string) (account, error) {
	if a := s.accounts[address]; a != nil {
		return a, nil
	}
	a, err := newAccount(newSamples(address))
	if err != nil {
		return nil, fmt.Errorf("make the sample calendars and contacts: %w", err)
	}
	s.accounts[address] = a
	return a, nil
}

// allowed lists the methods that make sense at each level.
var allowed = [...]string{
	rootLevel:       "OPTIONS, PROPFIND",
	principalLevel:  "OPTIONS, PROPFIND, PROPPATCH",
	homeLevel:       "OPTIONS, PROPFIND, PROPPATCH",
	collectionLevel: "OPTIONS, PROPFIND, PROPPATCH, REPORT, MKCOL, MKCALENDAR, DELETE",
	itemLevel:       "OPTIONS, PROPFIND, GET, HEAD, PUT, DELETE",
}

func (r *request) answer() (*answer, *item) {
	methods := allowed[r.level]
	known := false
	for method := range strings.SplitSeq(methods, ", ") {
		known = known || method == r.Method
	}
	if !known || r.Method == http.MethodOptions {
		a := status(http.StatusOK)
		if !known {
			a.status = http.StatusMethodNotAllowed
		}
		a.header.Set("Allow", methods)
		return a, nil
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return r.get()
	}
	switch r.Method {
	case http.MethodPut:
		return r.put(), nil
	case http.MethodDelete:
		return r.delete(), nil
	}
	root, err := parseXML(r.body)
	if err != nil {
		return status(http.StatusBadRequest), nil
	}
	switch r.Method {
	case "PROPFIND":
		return r.propfind(root), nil
	case "PROPPATCH":
		return r.proppatch(root), nil
	case "REPORT":
		return r.report(root), nil
	}
	return r.makeCollection(root), nil // MKCOL and MKCALENDAR
}

// find returns what stands at the target: nil where there is nothing.
func (r *request) find() (*collection, *item) {
	c := r.account[r.home][r.collection]
	if c == nil || r.level < itemLevel {
		return c, nil
	}
	return c, c.items[r.item]
}

func (r *request) get() (*answer, *item) {
	c, it := r.find()
	if it == nil {
		return status(http.StatusNotFound), nil
	}
	a := status(http.StatusOK)
	a.header.Set("Content-Type", c.contentType())
	a.header.Set("ETag", it.etag)
	return a, it
}

func (r *request) put() *answer {
	c, old := r.find()
	switch {
	case c == nil:
		return status(http.StatusConflict) // RFC 4918 section 9.7.1
	case !r.conditionsHold(old):
		return status(http.StatusPreconditionFailed)
	case !r.ofType(c):
		return refuse(http.StatusForbidden, c.condition("supported-data"))
	case old == nil && len(c.items) >= maxItems:
		return refuse(http.StatusInsufficientStorage, dav("quota-not-exceeded"))
	}
	it, err := c.parse(r.body)
	if errors.Is(err, errComponent) {
		return refuse(http.StatusForbidden, caldav("supported-calendar-component"))
	}
	if err != nil {
		return refuse(http.StatusForbidden, c.condition("valid-data"))
	}
	if name, found := c.holder(it.uid, r.item); found {
		other := r.target
		other.item = name
		return refuse(http.StatusForbidden, c.condition("no-uid-conflict"), href(other.href()))
	}
	c.put(r.item, it)
	a := status(http.StatusCreated)
	if old != nil {
		a.status = http.StatusNoContent
	}
	a.header.Set("ETag", it.etag)
	return a
}

// ofType reports whether the body's declared type, if there is one, is what the collection holds.
func (r *request) ofType(c *collection) bool {
	declared := r.Header.Get("Content-Type")
	if declared == "" {
		return true
	}
	got, _, err := mime.ParseMediaType(declared)
	want := ical.MIMEType
	if c.home == contacts {
		want = vcard.MIMEType
	}
	return err == nil && got == want
}

// condition names what a PUT must meet (RFC 4791 section 5.3.2.1, RFC 6352 section 6.3.2.1).
func (c *collection) condition(name string) xml.Name {
	names := map[string][2]string{
		"supported-data":  {"supported-calendar-data", "supported-address-data"},
		"valid-data":      {"valid-calendar-data", "valid-address-data"},
		"no-uid-conflict": {"no-uid-conflict", "no-uid-conflict"},
	}[name]
	if c.home == contacts {
		return carddav(names[1])
	}
	return caldav(names[0])
}

// conditionsHold looks at If-Match and If-None-Match (RFC 9110 section 13.1). it may be nil.
func (r *request) conditionsHold(it *item) bool {
	if match := r.Header.Get("If-Match"); match != "" && !matches(match, it) {
		return false
	}
	none := r.Header.Get("If-None-Match")
	return none == "" || !matches(none, it)
}

func matches(header string, it *item) bool {
	if it == nil {
		return false
	}
	for tag := range strings.SplitSeq(header, ",") {
		if tag = strings.TrimSpace(tag); tag == "*" || tag == it.etag {
			return true
		}
	}
	return false
}

func (r *request) delete() *answer {
	c, it := r.find()
	switch {
	case c == nil, r.level == itemLevel && it == nil:
		return status(http.StatusNotFound)
	case r.level == collectionLevel:
		delete(r.account[r.home], r.collection)
	case !r.conditionsHold(it):
		return status(http.StatusPreconditionFailed)
	default:
		c.remove(r.item)
	}
	return status(http.StatusNoContent)
}

// makeCollection serves MKCALENDAR (RFC 4791 section 5.3.1) and MKCOL, plain and extended (RFC 5689).
func (r *request) makeCollection(root *node) *answer {
	home := r.account[r.home]
	switch {
	case home[r.collection] != nil:
		return refuse(http.StatusMethodNotAllowed, dav("resource-must-be-null"))
	case r.Method == "MKCALENDAR" && r.home != calendars:
		return refuse(http.StatusForbidden, caldav("calendar-collection-location-ok"))
	case len(home) >= maxCollections:
		return refuse(http.StatusInsufficientStorage, dav("quota-not-exceeded"))
	}
	c := newCollection(r.home)
	for set := range root.children(dav("set")) {
		for _, value := range set.child(dav("prop")).all() {
			if !c.initialise(value) {
				return refuse(http.StatusForbidden, dav("valid-resourcetype"))
			}
		}
	}
	home[r.collection] = c
	return status(http.StatusCreated)
}

// initialise takes a property of a collection that is being made.
func (c *collection) initialise(value *node) bool {
	switch value.name {
	case dav("resourcetype"):
		want := caldav("calendar")
		if c.home == contacts {
			want = carddav("addressbook")
		}
		return value.child(want) != nil
	case caldav("supported-calendar-component-set"):
		c.components = nil
		for comp := range value.children(caldav("comp")) {
			c.components = append(c.components, strings.ToUpper(comp.attr("name")))
		}
		return len(c.components) > 0
	}
	if isLive(value.name) || len(c.dead) >= maxDead {
		return false
	}
	c.dead[value.name] = value
	return true
}
