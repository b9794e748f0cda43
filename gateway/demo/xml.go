package demo

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The namespaces that we speak. Elements of others are kept as they come, as dead properties.
const (
	davSpace      = "DAV:"
	caldavSpace   = "urn:ietf:params:xml:ns:caldav"
	carddavSpace  = "urn:ietf:params:xml:ns:carddav"
	calendarSpace = "http://calendarserver.org/ns/"
	appleSpace    = "http://apple.com/ns/ical/"
)

// prefixes are declared at the root of every answer.
var prefixes = []struct{ prefix, space string }{
	{"d", davSpace}, {"cal", caldavSpace}, {"card", carddavSpace}, {"cs", calendarSpace}, {"ical", appleSpace},
}

const (
	maxDepth = 32     // of elements in a request
	maxNodes = 10_000 // elements in a request
)

// node is an XML element, in requests, answers and dead properties alike. Text between child elements is not kept apart.
type node struct {
	name  xml.Name
	attrs []xml.Attr // without declarations of namespaces
	text  string
	nodes []*node
}

func dav(local string) xml.Name { return xml.Name{Space: davSpace, Local: local} }

func caldav(local string) xml.Name { return xml.Name{Space: caldavSpace, Local: local} }

func carddav(local string) xml.Name { return xml.Name{Space: carddavSpace, Local: local} }

func element(name xml.Name, nodes ...*node) *node { return &node{name: name, nodes: nodes} }

func text(name xml.Name, text string) *node { return &node{name: name, text: text} }

// href names a resource by its path; see target.href.
func href(path string) *node { return text(dav("href"), path) }

// child returns the first child of that name, or nil. n may be nil.
func (n *node) child(name xml.Name) *node {
	for c := range n.children(name) {
		return c
	}
	return nil
}

// children lists the children of that name. n may be nil.
func (n *node) children(name xml.Name) func(yield func(*node) bool) {
	return func(yield func(*node) bool) {
		if n == nil {
			return
		}
		for _, c := range n.nodes {
			if c.name == name && !yield(c) {
				return
			}
		}
	}
}

// attr returns an attribute without a namespace, or "".
func (n *node) attr(local string) string {
	for _, a := range n.attrs {
		if a.Name.Space == "" && a.Name.Local == local {
			return a.Value
		}
	}
	return ""
}

// parseXML reads a request's body. An empty one is nil.
func parseXML(body []byte) (*node, error) {
	d := xml.NewDecoder(bytes.NewReader(body))
	var root *node
	var open []*node
	var texts [][]byte // of the open elements; adding to a string would be quadratic
	for count := 0; ; {
		token, err := d.Token()
		if err == io.EOF {
			return root, nil
		}
		if err != nil {
			return nil, err
		}
		switch t := token.(type) {
		case xml.Directive: // a document type: nobody needs one, and entities have done harm
			return nil, errors.New("a document type is not accepted")
		case xml.StartElement:
			if count++; count > maxNodes || len(open) == maxDepth {
				return nil, fmt.Errorf("more than %d elements, or nested deeper than %d", maxNodes, maxDepth)
			}
			n := &node{name: t.Name, attrs: plainAttrs(t.Attr)}
			if !n.wellNamed() {
				return nil, errors.New("a name that begins with no letter")
			}
			switch {
			case len(open) > 0:
				parent := open[len(open)-1]
				parent.nodes = append(parent.nodes, n)
			case root == nil:
				root = n
			default:
				return nil, errors.New("more than one root")
			}
			open, texts = append(open, n), append(texts, nil)
		case xml.EndElement:
			last := len(open) - 1
			open[last].text = string(texts[last])
			open, texts = open[:last], texts[:last]
		case xml.CharData:
			if last := len(open) - 1; last >= 0 {
				texts[last] = append(texts[last], t...)
			}
		}
	}
}

// wellNamed looks at what encoding/xml lets through behind a prefix: such a name could be kept, but not be told.
func (n *node) wellNamed() bool {
	ok := func(name xml.Name) bool {
		first, _ := utf8.DecodeRuneInString(name.Local)
		return (unicode.IsLetter(first) || first == '_') && !strings.Contains(name.Local, ":")
	}
	return ok(n.name) && !slices.ContainsFunc(n.attrs, func(a xml.Attr) bool { return !ok(a.Name) })
}

func plainAttrs(attrs []xml.Attr) []xml.Attr {
	var plain []xml.Attr
	for _, a := range attrs {
		if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" {
			plain = append(plain, a)
		}
	}
	return plain
}

// document writes an answer.
func (n *node) document() []byte {
	var b bytes.Buffer
	b.WriteString(xml.Header)
	n.write(&b, true)
	b.WriteByte('\n')
	return b.Bytes()
}

func (n *node) write(b *bytes.Buffer, root bool) {
	tag, declaration := qualified(n.name)
	b.WriteString("<" + tag)
	if declaration != "" {
		writeAttr(b, declaration, n.name.Space)
	}
	if root {
		for _, p := range prefixes {
			writeAttr(b, "xmlns:"+p.prefix, p.space)
		}
	}
	for i, a := range n.attrs {
		name := a.Name.Local
		if a.Name.Space == "xml" || a.Name.Space == "http://www.w3.org/XML/1998/namespace" {
			name = "xml:" + name
		} else if a.Name.Space != "" {
			prefix := fmt.Sprintf("a%d", i)
			writeAttr(b, "xmlns:"+prefix, a.Name.Space)
			name = prefix + ":" + name
		}
		writeAttr(b, name, a.Value)
	}
	if n.text == "" && len(n.nodes) == 0 {
		b.WriteString("/>")
		return
	}
	b.WriteByte('>')
	if len(n.nodes) == 0 || strings.TrimSpace(n.text) != "" { // else it is indentation
		xml.EscapeText(b, []byte(n.text)) // CR too, so that calendar data keeps its line ends; no error: b takes all
	}
	for _, c := range n.nodes {
		c.write(b, false)
	}
	b.WriteString("</" + tag + ">")
}

// qualified gives a name's tag and, where no prefix stands for its namespace, the attribute that declares it.
func qualified(name xml.Name) (tag, declaration string) {
	for _, p := range prefixes {
		if name.Space == p.space {
			return p.prefix + ":" + name.Local, ""
		}
	}
	if name.Space == "" {
		return name.Local, "" // no default namespace is ever declared by a parent but through x
	}
	return "x:" + name.Local, "xmlns:x"
}

func writeAttr(b *bytes.Buffer, name, value string) {
	b.WriteString(" " + name + `="`)
	xml.EscapeText(b, []byte(value))
	b.WriteByte('"')
}

// all lists the children. n may be nil.
func (n *node) all() []*node {
	if n == nil {
		return nil
	}
	return n.nodes
}

// words returns the text. n may be nil.
func (n *node) words() string {
	if n == nil {
		return ""
	}
	return n.text
}
