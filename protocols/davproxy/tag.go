package davproxy

import (
	"bytes"
	"slices"
)

var (
	errPrefix    = malformed("an undeclared prefix")
	errNamespace = malformed("a namespace that can't be declared")
	errTag       = malformed("a tag")
	errOutside   = malformed("text outside the root")
)

// attribute is one of a start tag, as it stands there.
type attribute struct {
	*qname
	value []byte
	space string
}

// binding is a namespace declaration.
type binding struct {
	prefix, space string
	depth         int
}

// opening is a root's start tag that was found good, and what it declares. That hangs on nothing before it but the encoding.
type opening struct {
	raw   []byte
	bound []binding
}

// maxOpening bounds the openings that are remembered, in bytes.
const maxOpening = 512

// openings are those that need not be judged again: a backend begins each document alike, and so does an app.
type openings struct {
	known [16]opening
	turn  uint // whose place the next one gets
}

// at returns the opening at the beginning; nil: it is not known.
func (o *openings) at(b []byte) *opening {
	for i := range o.known {
		if k := &o.known[i]; len(k.raw) > 0 && bytes.HasPrefix(b, k.raw) {
			return k
		}
	}
	return nil
}

func (o *openings) add(raw []byte, bound []binding) {
	k := &o.known[o.turn%uint(len(o.known))]
	k.raw, k.bound = append(k.raw[:0], raw...), append(k.bound[:0], bound...)
	o.turn++
}

// start reads a start tag. Most have no attributes.
func (t *tokenizer) start() error {
	if t.rest {
		return malformed("a second root")
	}
	if len(t.open) == maxXMLDepth {
		return errTooDeep
	}
	b := t.buf[t.first:t.last]
	n := 1 + nameLen(b[1:])
	switch {
	case n < len(b) && b[n] == '>':
		raw := t.take(n + 1)
		return t.push(raw, raw[1:n], false)
	case n+1 < len(b) && b[n] == '/' && b[n+1] == '>':
		raw := t.take(n + 2)
		return t.push(raw, raw[1:n], true)
	}
	knowable := len(t.open) == 0 && !t.ascii
	if knowable {
		if known := t.openings.at(b); known != nil {
			t.bound = append(t.bound, known.bound...)
			raw := t.take(len(known.raw))
			return t.push(raw, raw[1:n], raw[len(raw)-2] == '/')
		}
	}
	raw, err := t.tag()
	if err != nil {
		return err
	}
	b, empty := bytes.CutSuffix(raw[1:len(raw)-1], []byte("/"))
	n = nameLen(b)
	if err := t.attributes(b[n:]); err != nil {
		return err
	}
	if knowable && len(raw) <= maxOpening {
		t.openings.add(raw, t.bound)
	}
	return t.push(raw, b[:n], empty)
}

// end reads an end tag, which must be that of the innermost element.
func (t *tokenizer) end() error {
	depth := len(t.open)
	if depth == 0 {
		return errTag
	}
	qname := t.open[depth-1].whole
	b := t.buf[t.first:t.last]
	if n := 2 + len(qname); n < len(b) && b[n] == '>' && string(b[2:n]) == qname {
		t.pop(t.take(n + 1))
		return nil
	}
	raw, err := t.tag()
	if err != nil {
		return err
	}
	if space, ok := bytes.CutPrefix(raw[2:len(raw)-1], []byte(qname)); !ok || len(trimSpace(space)) > 0 {
		return malformed("an end without its start")
	}
	t.pop(raw)
	return nil
}

// tag takes a whole tag. In a value there may be a '>', but no '<'.
func (t *tokenizer) tag() ([]byte, error) {
	quote := byte(0)
	for i, b := 1, t.buf[t.first:t.last]; ; {
		for ; i < len(b); i++ {
			switch c := b[i]; {
			case c == '<':
				return nil, errTag
			case c == quote:
				quote = 0
			case quote != 0:
			case c == '"' || c == '\'':
				quote = c
			case c == '>':
				return t.take(i + 1), nil
			}
		}
		var err error
		if b, err = t.need(i + 1); err != nil {
			return nil, cut(err)
		}
	}
}

// attributes judges what stands in a start tag behind its name, and takes its namespace declarations.
func (t *tokenizer) attributes(b []byte) error {
	t.attrs = t.attrs[:0]
	for b = trimRight(b); len(b) > 0; {
		name, value, rest, err := nextAttribute(b)
		if err != nil {
			return err
		}
		if len(t.attrs) == maxXMLAttrs {
			return errTooLarge
		}
		q, err := t.split(name)
		if err != nil {
			return err
		}
		if !t.valid(value, stopsInValue) {
			return errChar
		}
		if err := t.declare(q, value); err != nil {
			return err
		}
		t.attrs, b = append(t.attrs, attribute{q, value, ""}), rest
	}
	return t.unlike()
}

// nextAttribute reads an attribute, which begins with white space.
func nextAttribute(b []byte) (name, value, rest []byte, err error) {
	rest = trimLeft(b)
	n := nameLen(rest)
	if n == 0 || len(rest) == len(b) {
		return nil, nil, nil, errTag
	}
	name = rest[:n]
	rest, ok := bytes.CutPrefix(trimLeft(rest[n:]), []byte("="))
	rest = trimLeft(rest)
	if !ok || len(rest) == 0 || rest[0] != '"' && rest[0] != '\'' {
		return nil, nil, nil, errTag
	}
	value, rest, ok = bytes.Cut(rest[1:], rest[:1])
	if !ok {
		return nil, nil, nil, errTag
	}
	return name, value, rest, nil
}

// declare takes a namespace declaration (Namespaces in XML 1.0 sections 3 and 5); other attributes are none of its business.
// White space in a namespace is refused, for parsers do not agree what becomes of it.
func (t *tokenizer) declare(q *qname, value []byte) error {
	prefix := ""
	switch {
	case q.prefix() == "xmlns":
		prefix = q.name.local
	case q.whole != "xmlns":
		return nil
	}
	t.value = (&token{raw: value}).appendText(t.value[:0])
	if len(t.value) > maxXMLName || len(t.bound) == maxXMLPrefix {
		return errTooLarge
	}
	space := t.spaces.of(t.value)
	switch {
	case slices.ContainsFunc(t.value, isSpace), space == nsXMLNS, prefix == "xmlns", (prefix == "xml") != (space == nsXML), prefix != "" && space == "":
		return errNamespace
	}
	t.bound = append(t.bound, binding{prefix, space, len(t.open) + 1})
	return nil
}

// unlike refuses an attribute that stands twice, under whatever prefix, and a base: hrefs would lead elsewhere for who heeds it.
func (t *tokenizer) unlike() error {
	for i := range t.attrs {
		a, ok := &t.attrs[i], false
		if a.space, ok = t.space(a.prefix(), false); !ok {
			return errPrefix
		}
		if a.space == nsXML && a.name.local == "base" {
			return malformed("a base for hrefs")
		}
		for _, other := range t.attrs[:i] {
			if other.name.local == a.name.local && other.space == a.space {
				return malformed("an attribute stands twice")
			}
		}
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
		return nsXMLNS, !isElement
	}
	for i := len(t.bound) - 1; i >= 0; i-- {
		if t.bound[i].prefix == prefix {
			return t.bound[i].space, true
		}
	}
	return "", prefix == ""
}
