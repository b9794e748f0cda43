package davproxy

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Bounds of the XML that passes in either direction.
const (
	maxXMLDepth  = 64
	maxXMLAttrs  = 64
	maxXMLToken  = 24 << 20 // one item inside calendar-data, with its attachments
	maxXMLPrefix = 256      // namespace declarations that are in force at once
)

// Reasons why a document is not passed on.
var (
	errDoctype   = errors.New("the XML has a DOCTYPE")
	errTooDeep   = errors.New("the XML is nested too deeply")
	errTooLarge  = errors.New("a part of the XML is too large")
	errMalformed = errors.New("the XML is malformed")
)

// name is an XML name with its namespace resolved.
type name struct{ space, local string }

// The namespaces that matter here.
const (
	nsDAV      = "DAV:"
	nsCalDAV   = "urn:ietf:params:xml:ns:caldav"
	nsCardDAV  = "urn:ietf:params:xml:ns:carddav"
	nsCalendar = "http://calendarserver.org/ns/"
	nsXML      = "http://www.w3.org/XML/1998/namespace"
)

type tokenKind uint8

const (
	startToken tokenKind = iota + 1
	endToken
	textToken
)

// token is one piece of a document. Its slices are good until the next call of next.
type token struct {
	kind  tokenKind
	name  name   // of an element's start and end
	text  []byte // of text, with entities and CDATA resolved
	raw   []byte // as it stood; empty for the end of <x/>
	empty bool   // the start of <x/>: its end follows, without bytes
}

// tokenizer reads one XML document strictly: UTF-8, one root, matching ends, declared prefixes, no attribute twice, no
// DOCTYPE. Whoever is more lenient than the client's parser can be told one thing while the client reads another. Comments,
// processing instructions and the declaration are left out. It is made to be replaced by a faster one: everything else
// here knows only token and next.
type tokenizer struct {
	dec   *xml.Decoder
	rec   recorder
	open  []element
	bound []binding
	rest  bool // the root has ended
}

type element struct {
	raw  xml.Name // with its prefix, for the end to match
	name name
}

type binding struct {
	prefix, space string
	depth         int
}

func newTokenizer(r io.Reader) *tokenizer {
	t := &tokenizer{rec: recorder{src: r}}
	t.dec = xml.NewDecoder(&t.rec)
	return t
}

// next returns the next start, end or text; io.EOF behind the root. Text outside the root is none.
func (t *tokenizer) next() (token, error) {
	for {
		t.rec.drop(t.dec.InputOffset())
		from := t.dec.InputOffset()
		raw, err := t.dec.RawToken()
		if err == io.EOF && (len(t.open) > 0 || !t.rest) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return token{}, err
		}
		tok, err := t.resolve(raw, from)
		if err != nil || tok.kind != 0 {
			return tok, err
		}
	}
}

// depth tells how many elements are open: 1 inside the root.
func (t *tokenizer) depth() int { return len(t.open) }

func (t *tokenizer) resolve(raw xml.Token, from int64) (token, error) {
	bytesOf := t.rec.since(from, t.dec.InputOffset())
	switch x := raw.(type) {
	case xml.StartElement:
		n, err := t.start(x)
		return token{kind: startToken, name: n, raw: bytesOf, empty: bytes.HasSuffix(bytesOf, []byte("/>"))}, err
	case xml.EndElement:
		n, err := t.end(x)
		return token{kind: endToken, name: n, raw: bytesOf}, err
	case xml.CharData:
		if len(t.open) == 0 {
			return token{}, outside(x, from)
		}
		return token{kind: textToken, text: x, raw: bytesOf}, nil
	case xml.Directive:
		return token{}, errDoctype
	}
	return token{}, nil // comments and processing instructions
}

// outside judges text before and behind the root.
func outside(text []byte, at int64) error {
	if at == 0 {
		text = bytes.TrimPrefix(text, []byte("\ufeff"))
	}
	if len(bytes.Trim(text, " \t\r\n")) > 0 {
		return fmt.Errorf("%w: text outside the root", errMalformed)
	}
	return nil
}

func (t *tokenizer) start(x xml.StartElement) (name, error) {
	switch {
	case t.rest:
		return name{}, fmt.Errorf("%w: a second root", errMalformed)
	case len(t.open) == maxXMLDepth:
		return name{}, errTooDeep
	case len(x.Attr) > maxXMLAttrs:
		return name{}, errTooLarge
	}
	depth := len(t.open) + 1
	for _, a := range x.Attr {
		if err := t.declare(a, depth); err != nil {
			return name{}, err
		}
	}
	if err := t.attributes(x.Attr); err != nil {
		return name{}, err
	}
	space, ok := t.space(x.Name.Space, true)
	if !ok {
		return name{}, fmt.Errorf("%w: an undeclared prefix", errMalformed)
	}
	n := name{space, x.Name.Local}
	t.open = append(t.open, element{x.Name, n})
	return n, nil
}

// declare takes a namespace declaration; other attributes are none of its business.
func (t *tokenizer) declare(a xml.Attr, depth int) error {
	prefix := ""
	switch {
	case a.Name.Space == "xmlns":
		prefix = a.Name.Local
		if a.Value == "" || prefix == "xmlns" || (prefix == "xml") != (a.Value == nsXML) {
			return fmt.Errorf("%w: a namespace that can't be declared", errMalformed)
		}
	case a.Name.Space == "" && a.Name.Local == "xmlns":
	default:
		return nil
	}
	if len(t.bound) == maxXMLPrefix {
		return errTooLarge
	}
	t.bound = append(t.bound, binding{prefix, a.Value, depth})
	return nil
}

// attributes refuses one that stands twice, under whatever prefix.
func (t *tokenizer) attributes(attrs []xml.Attr) error {
	seen := make([]name, 0, len(attrs))
	for _, a := range attrs {
		space, ok := t.space(a.Name.Space, false)
		if !ok {
			return fmt.Errorf("%w: an undeclared prefix", errMalformed)
		}
		n := name{space, a.Name.Local}
		if slices.Contains(seen, n) {
			return fmt.Errorf("%w: an attribute stands twice", errMalformed)
		}
		seen = append(seen, n)
	}
	return nil
}

// space resolves a prefix. The default namespace is for elements only.
func (t *tokenizer) space(prefix string, isElement bool) (string, bool) {
	switch {
	case prefix == "" && !isElement:
		return "", true
	case prefix == "xml":
		return nsXML, true
	case prefix == "xmlns":
		return "xmlns", !isElement
	}
	for i := len(t.bound) - 1; i >= 0; i-- {
		if t.bound[i].prefix == prefix {
			return t.bound[i].space, true
		}
	}
	return "", prefix == ""
}

func (t *tokenizer) end(x xml.EndElement) (name, error) {
	depth := len(t.open)
	if depth == 0 || t.open[depth-1].raw != x.Name {
		return name{}, fmt.Errorf("%w: an end without its start", errMalformed)
	}
	n := t.open[depth-1].name
	t.open = t.open[:depth-1]
	for len(t.bound) > 0 && t.bound[len(t.bound)-1].depth == depth {
		t.bound = t.bound[:len(t.bound)-1]
	}
	t.rest = depth == 1
	return n, nil
}

// parent returns the name of an open element: 0 is the innermost one.
func (t *tokenizer) parent(up int) name {
	if i := len(t.open) - 1 - up; i >= 0 {
		return t.open[i].name
	}
	return name{}
}

// recorder remembers the bytes that the decoder has read and not yet told about.
type recorder struct {
	src  io.Reader
	turn func() error // asked once, when buf becomes large; nil: nobody is
	buf  []byte
	base int64 // offset in the document of buf[0]
}

func (r *recorder) Read(p []byte) (int, error) {
	if len(r.buf) > maxXMLToken {
		return 0, errTooLarge
	}
	if r.turn != nil && len(r.buf) > largeItem {
		if err := r.turn(); err != nil {
			return 0, err
		}
		r.turn = nil
	}
	n, err := r.src.Read(p)
	r.buf = append(r.buf, p[:n]...)
	return n, err
}

// since returns the bytes between two offsets, of which the first is not dropped yet.
func (r *recorder) since(from, to int64) []byte { return r.buf[from-r.base : to-r.base] }

// drop forgets what stands before an offset; it moves the rest seldom.
func (r *recorder) drop(before int64) {
	used := int(before - r.base)
	if used < len(r.buf) && used < 1<<15 {
		return
	}
	if cap(r.buf) > 1<<18 { // one large item shall not hold its memory for the rest of the answer
		r.buf = bytes.Clone(r.buf[used:])
	} else {
		r.buf = append(r.buf[:0], r.buf[used:]...)
	}
	r.base = before
}

// escape writes text for an XML document. Bytes that XML has no place for become the replacement character.
func escape(text string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(text)) // a strings.Builder takes everything
	return b.String()
}
