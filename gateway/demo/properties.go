package demo

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/emersion/go-vcard"
)

// resource is what has properties: a target that exists, with what stands there.
type resource struct {
	target
	collection *collection // from collectionLevel on
	item       *item       // at itemLevel
}

// resource returns the request's own.
func (r *request) resource() (resource, bool) {
	c, it := r.find()
	exists := r.level < collectionLevel || r.level == collectionLevel && c != nil || it != nil
	return resource{r.target, c, it}, exists
}

// members lists what lies directly in a resource, in a fixed order.
func (r *request) members(res resource) []resource {
	var list []resource
	t := res.target
	t.level++
	switch res.level {
	case rootLevel:
		list = append(list, resource{target: t})
	case principalLevel:
		for _, t.home = range []string{calendars, contacts} {
			list = append(list, resource{target: t})
		}
	case homeLevel:
		for _, t.collection = range slices.Sorted(maps.Keys(r.account[t.home])) {
			list = append(list, resource{t, r.account[t.home][t.collection], nil})
		}
	case collectionLevel:
		for _, t.item = range slices.Sorted(maps.Keys(res.collection.items)) {
			list = append(list, resource{t, res.collection, res.collection.items[t.item]})
		}
	}
	return list
}

// live is a property that the server makes. Its value is nil where the resource does not have it.
type live struct {
	name  xml.Name
	value func(res resource) []*node
}

// liveProperties are told in this order when all are asked for.
var liveProperties = []live{
	{dav("resourcetype"), resourceType},
	{dav("current-user-principal"), func(res resource) []*node { return principal(res) }},
	{dav("principal-URL"), func(res resource) []*node { return at(res, principalLevel, principal) }},
	{dav("owner"), func(res resource) []*node {
		if res.level < homeLevel {
			return nil
		}
		return principal(res)
	}},
	{dav("displayname"), func(res resource) []*node {
		return at(res, principalLevel, func(resource) []*node { return words(res.address) })
	}},
	{caldav("calendar-home-set"), func(res resource) []*node { return homeSet(res, calendars) }},
	{carddav("addressbook-home-set"), func(res resource) []*node { return homeSet(res, contacts) }},
	{caldav("calendar-user-address-set"), func(res resource) []*node {
		return at(res, principalLevel, func(resource) []*node { return []*node{href("mailto:" + res.address)} })
	}},
	{dav("current-user-privilege-set"), privileges},
	{dav("supported-report-set"), func(res resource) []*node { return at(res, collectionLevel, reportSet) }},
	{dav("sync-token"), func(res resource) []*node { return at(res, collectionLevel, syncToken) }},
	{xml.Name{Space: calendarSpace, Local: "getctag"}, func(res resource) []*node { return at(res, collectionLevel, syncToken) }},
	{caldav("supported-calendar-component-set"), componentSet},
	{caldav("supported-calendar-data"), func(res resource) []*node {
		return dataTypes(res, calendars, caldav("calendar-data"), "text/calendar", "2.0")
	}},
	{carddav("supported-address-data"), func(res resource) []*node {
		return dataTypes(res, contacts, carddav("address-data-type"), vcard.MIMEType, "3.0", "4.0")
	}},
	{caldav("max-resource-size"), func(res resource) []*node { return sizeLimit(res, calendars) }},
	{carddav("max-resource-size"), func(res resource) []*node { return sizeLimit(res, contacts) }},
	{dav("getetag"), func(res resource) []*node {
		return ofItem(res, func(it *item) string { return it.etag })
	}},
	{dav("getcontenttype"), func(res resource) []*node {
		return ofItem(res, func(*item) string { return res.collection.contentType() })
	}},
	{dav("getcontentlength"), func(res resource) []*node {
		return ofItem(res, func(it *item) string { return strconv.Itoa(len(it.raw)) })
	}},
	{dav("getlastmodified"), func(res resource) []*node {
		return ofItem(res, func(it *item) string { return it.modified.UTC().Format(http.TimeFormat) })
	}},
}

// isLive reports whether clients can't set the property. A collection's displayname is theirs.
func isLive(name xml.Name) bool {
	return name != dav("displayname") && slices.ContainsFunc(liveProperties, func(l live) bool { return l.name == name })
}

// words is a value that is text only; see property.
func words(s string) []*node { return []*node{{text: s}} }

// at gives the value on one level and nil elsewhere.
func at(res resource, l level, value func(resource) []*node) []*node {
	if res.level != l {
		return nil
	}
	return value(res)
}

func ofItem(res resource, value func(*item) string) []*node {
	return at(res, itemLevel, func(res resource) []*node { return words(value(res.item)) })
}

// ofCollection gives the value of a collection in one home set.
func ofCollection(res resource, home string, value ...*node) []*node {
	if res.level != collectionLevel || res.home != home {
		return nil
	}
	return value
}

func principal(res resource) []*node { return []*node{href(res.up(principalLevel).href())} }

func homeSet(res resource, home string) []*node {
	res.home = home
	return at(res, principalLevel, func(resource) []*node { return []*node{href(res.up(homeLevel).href())} })
}

func resourceType(res resource) []*node {
	kinds := []*node{element(dav("collection"))}
	switch {
	case res.level == itemLevel:
		return words("")
	case res.level == principalLevel:
		kinds = append(kinds, element(dav("principal")))
	case res.level == collectionLevel && res.home == calendars:
		kinds = append(kinds, element(caldav("calendar")))
	case res.level == collectionLevel:
		kinds = append(kinds, element(carddav("addressbook")))
	}
	return kinds
}

// privileges tells that people may do all with what is theirs (RFC 3744 section 5.4).
func privileges(res resource) []*node {
	if res.level < homeLevel {
		return nil
	}
	var list []*node
	for _, name := range []string{"read", "write", "write-properties", "write-content", "bind", "unbind", "read-current-user-privilege-set"} {
		list = append(list, element(dav("privilege"), element(dav(name))))
	}
	return list
}

func reportSet(res resource) []*node {
	var list []*node
	for _, name := range reports[res.home] {
		list = append(list, element(dav("supported-report"), element(dav("report"), element(name))))
	}
	return list
}

func compareNames(a, b xml.Name) int {
	return cmp.Or(cmp.Compare(a.Space, b.Space), cmp.Compare(a.Local, b.Local))
}

func syncToken(res resource) []*node { return words(res.collection.token(res.collection.seq)) }

func componentSet(res resource) []*node {
	if res.collection == nil {
		return nil
	}
	var list []*node
	for _, name := range res.collection.components {
		list = append(list, &node{name: caldav("comp"), attrs: attributes("name", name)})
	}
	return ofCollection(res, calendars, list...)
}

func dataTypes(res resource, home string, name xml.Name, contentType string, versions ...string) []*node {
	var list []*node
	for _, version := range versions {
		list = append(list, &node{name: name, attrs: attributes("content-type", contentType, "version", version)})
	}
	return ofCollection(res, home, list...)
}

func attributes(pairs ...string) []xml.Attr {
	var attrs []xml.Attr
	for pair := range slices.Chunk(pairs, 2) {
		attrs = append(attrs, xml.Attr{Name: xml.Name{Local: pair[0]}, Value: pair[1]})
	}
	return attrs
}

func sizeLimit(res resource, home string) []*node {
	return ofCollection(res, home, words(strconv.Itoa(maxItem))...)
}

// property returns a resource's property, or nil.
func (res resource) property(name xml.Name) *node {
	if res.level == collectionLevel && res.collection.dead[name] != nil {
		return res.collection.dead[name]
	}
	for _, l := range liveProperties {
		if l.name != name {
			continue
		}
		value := l.value(res)
		if len(value) == 1 && value[0].name.Local == "" { // words
			return text(name, value[0].text)
		}
		if value != nil {
			return element(name, value...)
		}
	}
	return nil
}

// names lists all properties of a resource.
func (res resource) names() []xml.Name {
	var names []xml.Name
	for _, l := range liveProperties {
		if res.property(l.name) != nil {
			names = append(names, l.name)
		}
	}
	if res.level == collectionLevel {
		for _, name := range slices.SortedFunc(maps.Keys(res.collection.dead), compareNames) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// response tells of properties: what is there, then what is not. Thunderbird skips a response that begins with a 404.
func (res resource) response(found []*node, missing []xml.Name) *node {
	response := element(dav("response"), href(res.href()))
	if len(found) > 0 || len(missing) == 0 {
		response.nodes = append(response.nodes, propstat(http.StatusOK, found))
	}
	if len(missing) > 0 {
		response.nodes = append(response.nodes, propstat(http.StatusNotFound, empty(missing)))
	}
	return response
}

func propstat(code int, properties []*node) *node {
	return element(dav("propstat"), element(dav("prop"), properties...), statusLine(code))
}

func statusLine(code int) *node {
	return text(dav("status"), fmt.Sprintf("HTTP/1.1 %d %s", code, http.StatusText(code)))
}

func empty(names []xml.Name) []*node {
	var nodes []*node
	for _, name := range names {
		nodes = append(nodes, element(name))
	}
	return nodes
}

// propfind serves PROPFIND (RFC 4918 section 9.1).
func (r *request) propfind(root *node) *answer {
	own, exists := r.resource()
	depth := r.Header.Get("Depth")
	switch {
	case !exists:
		return status(http.StatusNotFound)
	case root != nil && root.name != dav("propfind"):
		return status(http.StatusBadRequest)
	case depth != "0" && depth != "1":
		return refuse(http.StatusForbidden, dav("propfind-finite-depth"))
	}
	responses := []*node{own.find(root)}
	if depth == "1" {
		for _, member := range r.members(own) {
			responses = append(responses, member.find(root))
		}
	}
	return multistatus(responses...)
}

// find answers a propfind element for one resource. nil asks for everything.
func (res resource) find(root *node) *node {
	if root.child(dav("propname")) != nil {
		return res.response(empty(res.names()), nil)
	}
	wanted := root.child(dav("prop")).all()
	if wanted == nil {
		wanted = append(empty(res.names()), root.child(dav("include")).all()...)
	}
	return res.responseTo(wanted, res.property)
}

// responseTo looks up what is wanted.
func (res resource) responseTo(wanted []*node, property func(xml.Name) *node) *node {
	var found []*node
	var missing []xml.Name
	for _, w := range wanted {
		if p := property(w.name); p != nil {
			found = append(found, p)
		} else {
			missing = append(missing, w.name)
		}
	}
	return res.response(found, missing)
}

// proppatch serves PROPPATCH (RFC 4918 section 9.2): all changes or none. Only collections keep what clients set.
func (r *request) proppatch(root *node) *answer {
	own, exists := r.resource()
	if !exists {
		return status(http.StatusNotFound)
	}
	if root == nil || root.name != dav("propertyupdate") {
		return status(http.StatusBadRequest)
	}
	var names, refused []xml.Name
	dead := map[xml.Name]*node{}
	if r.level == collectionLevel {
		dead = maps.Clone(own.collection.dead)
	}
	for _, instruction := range root.nodes {
		for _, value := range instruction.child(dav("prop")).all() {
			names = append(names, value.name)
			switch {
			case r.level != collectionLevel || isLive(value.name):
				refused = append(refused, value.name)
			case instruction.name == dav("remove"):
				delete(dead, value.name)
			case instruction.name == dav("set"):
				dead[value.name] = value
			}
		}
	}
	if len(dead) > maxDead {
		return refuse(http.StatusInsufficientStorage, dav("quota-not-exceeded"))
	}
	response := element(dav("response"), href(own.href()))
	if len(refused) == 0 {
		if r.level == collectionLevel {
			own.collection.dead = dead
		}
		response.nodes = append(response.nodes, propstat(http.StatusOK, empty(names)))
		return multistatus(response)
	}
	response.nodes = append(response.nodes, propstat(http.StatusForbidden, empty(refused)))
	names = slices.DeleteFunc(names, func(name xml.Name) bool { return slices.Contains(refused, name) })
	if len(names) > 0 {
		response.nodes = append(response.nodes, propstat(http.StatusFailedDependency, empty(names)))
	}
	return multistatus(response)
}
