package demo

import (
	"encoding/xml"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-ical"
)

// reports are what a collection of each home set answers.
var reports = map[string][]xml.Name{
	calendars: {caldav("calendar-query"), caldav("calendar-multiget"), dav("sync-collection")},
	contacts:  {carddav("addressbook-query"), carddav("addressbook-multiget"), dav("sync-collection")},
}

func (r *request) report(root *node) *answer {
	own, exists := r.resource()
	switch {
	case !exists:
		return status(http.StatusNotFound)
	case root == nil:
		return status(http.StatusBadRequest)
	case !slices.Contains(reports[r.home], root.name):
		return refuse(http.StatusForbidden, dav("supported-report"))
	case root.name == dav("sync-collection"):
		return r.syncCollection(own, root)
	case strings.HasSuffix(root.name.Local, "-multiget"):
		return r.multiget(own, root)
	}
	return r.query(own, root)
}

// reportResponse tells of an item what a report asks for, which may be its data.
func (res resource) reportResponse(root *node) *node {
	wanted := root.child(dav("prop")).all()
	if wanted == nil {
		wanted = empty(res.names())
	}
	return res.responseTo(wanted, func(name xml.Name) *node {
		if res.home == calendars && name == caldav("calendar-data") || res.home == contacts && name == carddav("address-data") {
			return text(name, string(res.item.raw))
		}
		return res.property(name)
	})
}

// multiget tells of named items (RFC 4791 section 7.9, RFC 6352 section 8.7).
func (r *request) multiget(own resource, root *node) *answer {
	var responses []*node
	for h := range root.children(dav("href")) {
		res, exists := own.member(strings.TrimSpace(h.text))
		if !exists {
			responses = append(responses, gone(h.text))
			continue
		}
		responses = append(responses, res.reportResponse(root))
	}
	return multistatus(responses...)
}

// member finds an item of the collection by its href, a path or a whole URL.
func (res resource) member(ref string) (resource, bool) {
	u, err := url.Parse(ref)
	if err != nil {
		return res, false
	}
	t, ok := parseTarget(u.EscapedPath())
	if !ok || t.level != itemLevel || t.up(collectionLevel).href() != res.href() {
		return res, false
	}
	it := res.collection.items[t.item]
	return resource{t, res.collection, it}, it != nil
}

// gone tells of an item that is not there.
func gone(path string) *node {
	return element(dav("response"), href(path), statusLine(http.StatusNotFound))
}

// query tells of the items that match a filter (RFC 4791 section 7.8, RFC 6352 section 8.6).
func (r *request) query(own resource, root *node) *answer {
	filter := root.child(xml.Name{Space: root.name.Space, Local: "filter"})
	var responses []*node
	for _, res := range r.members(own) {
		if filter == nil || matchFilter(filter, res.item.component) {
			responses = append(responses, res.reportResponse(root))
		}
	}
	return multistatus(responses...)
}

func matchFilter(filter *node, c *ical.Component) bool {
	if filter.name.Space == carddavSpace {
		return matchAll(filter, c)
	}
	return hasComponent(filter.child(caldav("comp-filter")), []*ical.Component{c})
}

// syncCollection tells what has changed since a token (RFC 6578).
func (r *request) syncCollection(own resource, root *node) *answer {
	c := own.collection
	token := strings.TrimSpace(root.child(dav("sync-token")).words())
	after, known := c.since(token)
	if !known && token != "" {
		return refuse(http.StatusForbidden, dav("valid-sync-token"))
	}
	list := c.changes(after, token == "")
	now := c.seq
	limit, err := strconv.Atoi(root.child(dav("limit")).child(dav("nresults")).words())
	cut := err == nil && limit > 0 && len(list) > limit
	if cut {
		list = list[:limit]
		now = list[limit-1].seq
	}
	var responses []*node
	for _, ch := range list {
		t := own.target
		t.level, t.item = itemLevel, ch.name
		if ch.item == nil {
			responses = append(responses, gone(t.href()))
			continue
		}
		responses = append(responses, resource{t, c, ch.item}.reportResponse(root))
	}
	if cut { // the client comes back with the token (section 3.6)
		responses = append(responses, element(dav("response"), href(own.href()), statusLine(http.StatusInsufficientStorage)))
	}
	return multistatus(append(responses, text(dav("sync-token"), c.token(now)))...)
}
