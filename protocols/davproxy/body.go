package davproxy

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"slices"
	"strings"
)

// Bounds of request bodies.
const (
	maxBuffer = 1 << 20 // XML, and bodies of unknown length that are sent with their length
	sniffed   = 512     // of a body's beginning
)

// document is an XML request body as the backend gets it: the same bytes, but for its hrefs.
type document struct {
	root  name
	bytes []byte
	hrefs []string // multiget: what is asked for and may be
	lost  []string // multiget: what isn't there for this client, as it was written
	makes []kind   // the kinds that its resourcetype names
	typed bool     // it has a resourcetype
}

// takes tells whether a method takes a document with a root. An empty body has none.
func takes(method string, root name) bool {
	switch method {
	case "PROPFIND":
		return root == name{} || root == name{nsDAV, "propfind"}
	case "PROPPATCH":
		return root == name{nsDAV, "propertyupdate"}
	case "MKCOL":
		return root == name{nsDAV, "mkcol"}
	case "MKCALENDAR":
		return root == name{} || root == name{nsCalDAV, "mkcalendar"}
	}
	return false
}

// check judges a document for a method and a collection's kind; an answer with a status refuses it.
func (d *document) check(method string, k kind) answer {
	if method == "REPORT" {
		if !reports[k][d.root] {
			return unsupported
		}
		return answer{}
	}
	if !takes(method, d.root) {
		return badRequest
	}
	switch {
	case method == "PROPPATCH" && d.typed: // Radicale would make an address book of a calendar
		return protected
	case method == "MKCOL" && !slices.Contains(d.makes, k):
		return wrongKind
	case slices.ContainsFunc(d.makes, func(made kind) bool { return made != k }):
		return wrongKind
	}
	return answer{}
}

// isMultiget tells whether a document asks for single members.
func (d *document) isMultiget() bool {
	return d.root == (name{nsCalDAV, "calendar-multiget"}) || d.root == (name{nsCardDAV, "addressbook-multiget"})
}

// fate says what becomes of an href in a request's body.
type fate uint8

const (
	strayHref   fate = iota // it leads where the request may not: lost in a multiget; elsewhere the request is refused
	ownHref                 // it becomes the backend's
	foreignHref             // it leads to no place here or at the backend, such as a subscription's: as a property's value it stays
)

// parse reads an XML request body. inward maps a public href to the backend's.
func parse(body []byte, inward func(href string) (string, fate)) (*document, error) {
	d := &document{}
	if len(bytes.TrimSpace(body)) == 0 {
		return d, nil
	}
	out := append(make([]byte, 0, len(xmlHeader)+len(body)), xmlHeader...)
	tokens := tokenizerOf(body)
	defer tokens.free()
	var h href
	for {
		tok, err := tokens.next()
		if err == io.EOF {
			d.bytes = out
			return d, nil
		}
		if err != nil {
			return nil, err
		}
		if tok.kind == startToken {
			d.note(tokens, tok)
		}
		if tok.kind != startToken || tok.word != davHref {
			out = append(out, tok.raw...)
			continue
		}
		if err := h.read(tokens, tok); err != nil {
			return nil, err
		}
		if out, err = d.appendHref(out, &h, inward, tokens.depth() == 1 && d.isMultiget()); err != nil {
			return nil, err
		}
	}
}

func (d *document) note(tokens *tokenizer, tok *token) {
	if tokens.depth() == 1 {
		d.root = tok.name
	}
	if tok.word == davResourcetype {
		d.typed = true
	}
	if tokens.parent(1).word == davResourcetype {
		if k := kindOfType(tok.name); k != unknown {
			d.makes = append(d.makes, k)
		}
	}
}

var errStray = errors.New("an href that leads elsewhere")

// appendHref appends an href element for the backend. One without a text is the name of a property.
func (d *document) appendHref(dst []byte, h *href, inward func(string) (string, fate), asked bool) ([]byte, error) {
	text := string(h.text)
	mapped, fate := inward(text)
	switch {
	case fate == ownHref:
		if asked {
			d.hrefs = append(d.hrefs, mapped)
		}
		return h.appendTo(dst, []byte(mapped)), nil
	case asked:
		d.lost = append(d.lost, text)
		return dst, nil
	case len(h.end) == 0, fate == foreignHref && d.setsProperties():
		return h.appendTo(dst, h.text), nil
	}
	return nil, errStray
}

// setsProperties tells whether a document's hrefs are values to be kept.
func (d *document) setsProperties() bool {
	return takes("PROPPATCH", d.root) || takes("MKCOL", d.root) || takes("MKCALENDAR", d.root)
}

// hasScheme tells whether an href says by which protocol it is meant.
func hasScheme(href string) bool {
	scheme, _, found := strings.Cut(href, ":")
	return found && scheme != "" && !strings.ContainsFunc(scheme, func(r rune) bool {
		return !('a' <= r|0x20 && r|0x20 <= 'z' || '0' <= r && r <= '9' || strings.ContainsRune("+-.", r))
	})
}

// mediaTypes are the types of members, by kind.
var mediaTypes = map[kind][]string{
	calendar: {"text/calendar", "application/calendar+xml", "application/calendar+json"},
	contacts: {"text/vcard", "text/x-vcard", "text/directory", "application/vcard+xml", "application/vcard+json"},
}

// beginnings are how members begin, by kind. Text formats only: what we can't look into stays out.
var beginnings = map[kind]string{calendar: "BEGIN:VCALENDAR", contacts: "BEGIN:VCARD"}

// fits tells whether a member's media type and first bytes are those of a kind. Xandikos and DAViCal take a vCard into a
// calendar. A missing media type says nothing.
func fits(k kind, contentType string, beginning []byte) bool {
	if contentType != "" {
		media, params, err := mime.ParseMediaType(contentType)
		if err != nil || !slices.Contains(mediaTypes[k.content()], media) {
			return false
		}
		if c := params["charset"]; c != "" && !strings.EqualFold(c, "utf-8") && !strings.EqualFold(c, "us-ascii") {
			return false
		}
	}
	text := bytes.TrimLeft(bytes.TrimPrefix(beginning, []byte("\ufeff")), " \t\r\n")
	want := beginnings[k.content()]
	return want != "" && len(text) >= len(want) && strings.EqualFold(string(text[:len(want)]), want)
}
