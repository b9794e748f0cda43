package davproxy

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// Bounds of the XML that passes in either direction. A tag, a comment and a processing instruction must fit into the window.
const (
	maxXMLDepth  = 64
	maxXMLAttrs  = 64
	maxXMLName   = 1 << 10 // of a name with its prefix, and of a namespace, in bytes
	maxXMLPrefix = 256     // namespace declarations that are in force at once
)

// Reasons why a document is not passed on.
var (
	errDoctype   = errors.New("the XML has a DOCTYPE")
	errTooDeep   = errors.New("the XML is nested too deeply")
	errTooLarge  = errors.New("a part of the XML is too large")
	errMalformed = errors.New("the XML is malformed")
)

func malformed(why string) error { return fmt.Errorf("%w: %s", errMalformed, why) }

type tokenKind uint8

const (
	startToken tokenKind = iota + 1
	endToken
	textToken
)

// token is one piece of a document. It is good until the next call of next.
type token struct {
	kind   tokenKind
	*qname        // the name of an element's start and end
	raw    []byte // as it stood; empty for the end of <x/>
	empty  bool   // the start of <x/>: its end follows, without bytes
	more   bool   // the text goes on in the next token: it was too long for one
	cdata  bool   // the text stands in a CDATA section
	lead   uint8  // how many bytes of raw begin a CDATA section
	tail   uint8  // how many end it
}

// tokenizer reads one XML document strictly: UTF-8, one root, matching ends, declared prefixes, no attribute twice, no DOCTYPE.
// Whoever is more lenient than the client's parser can be told one thing while the client reads another. Comments, processing
// instructions and the declaration are left out. It holds one window of the document, whatever its length.
//
// What it is made of: this file has the elements, window.go the bytes, scan.go what stands between tags, chars.go the characters,
// tag.go the tags, names.go the names.
type tokenizer struct {
	window
	tok      token // that is being read
	known    *qnames
	spaces   interner
	openings *openings

	open    []*qname // the names of elements
	bound   []binding
	attrs   []attribute  // of the tag that is being read
	text    bytes.Reader // src, if all is here
	value   []byte       // of the namespace that is being read
	begun   bool
	ascii   bool // the declaration says so
	inCDATA bool
	ending  bool // the last token was the start of <x/>
	rest    bool // the root has ended
	err     error
}

var tokenizers = sync.Pool{New: func() any {
	return &tokenizer{window: window{buf: make([]byte, windowSize)}, known: newQnames(), spaces: make(interner), openings: new(openings)}
}}

// newTokenizer returns a tokenizer, which free takes back.
func newTokenizer(r io.Reader) *tokenizer {
	t := tokenizers.Get().(*tokenizer)
	t.src = r
	return t
}

// tokenizerOf is newTokenizer for a document that is here.
func tokenizerOf(text []byte) *tokenizer {
	t := newTokenizer(nil)
	t.text.Reset(text)
	t.src = &t.text
	return t
}

// free gives the tokenizer's memory to others. Neither it nor its tokens may be used any more.
func (t *tokenizer) free() {
	t.reset()
	tokenizers.Put(t)
}

// reset forgets the document.
func (t *tokenizer) reset() {
	*t = tokenizer{
		window: window{buf: t.buf}, known: t.known, spaces: t.spaces, openings: t.openings,
		open: t.open[:0], bound: t.bound[:0], attrs: t.attrs[:0], value: t.value[:0],
	}
}

// next returns the next start, end or text; io.EOF behind the root. Text outside the root is none. After an error there is
// nothing but that error.
func (t *tokenizer) next() (*token, error) {
	if t.err != nil {
		return nil, t.err
	}
	t.tok.kind, t.tok.empty = 0, false
	for t.tok.kind == 0 {
		if err := t.read(); err != nil {
			if err == io.EOF && !t.rest {
				err = io.ErrUnexpectedEOF
			}
			t.err = err
			return nil, err
		}
	}
	return &t.tok, nil
}

// read reads the next token, or something that is none. Where it begins, the window begins.
func (t *tokenizer) read() error {
	switch {
	case t.ending:
		t.ending = false
		t.pop(nil)
		return nil
	case t.inCDATA:
		return t.cdata(0)
	case !t.begun:
		t.begun = true
		return t.prolog()
	}
	if t.last-t.first < 2 {
		if _, err := t.need(1); err != nil {
			return err
		}
		if _, err := t.need(2); err != nil && t.buf[t.first] == '<' {
			return cut(err)
		}
	}
	if t.buf[t.first] != '<' {
		return t.chars()
	}
	switch t.buf[t.first+1] {
	case '/':
		return t.end()
	case '?':
		return t.instruction()
	case '!':
		return t.bang()
	}
	return t.start()
}

// push opens an element whose namespace declarations are in force already.
func (t *tokenizer) push(raw, qname []byte, empty bool) error {
	q, err := t.split(qname)
	if err != nil {
		return err
	}
	space, ok := t.space(q.prefix(), true)
	if !ok {
		return errPrefix
	}
	if q.name.space != space {
		q = q.in(space)
		t.known.keep(qname, q)
	}
	t.open = append(t.open, q)
	t.ending = empty
	t.tok.kind, t.tok.qname, t.tok.raw, t.tok.empty = startToken, q, raw, empty
	return nil
}

// pop closes the innermost element.
func (t *tokenizer) pop(raw []byte) {
	depth := len(t.open)
	last := t.open[depth-1]
	t.open = t.open[:depth-1]
	for len(t.bound) > 0 && t.bound[len(t.bound)-1].depth == depth {
		t.bound = t.bound[:len(t.bound)-1]
	}
	t.rest = depth == 1
	t.tok.kind, t.tok.qname, t.tok.raw = endToken, last, raw
}

// depth tells how many elements are open: 1 inside the root.
func (t *tokenizer) depth() int { return len(t.open) }

// parent returns the name of an open element: 0 is the innermost one.
func (t *tokenizer) parent(up int) *qname {
	if i := len(t.open) - 1 - up; i >= 0 {
		return t.open[i]
	}
	return &noName
}

// escape writes text for an XML document. Bytes that XML has no place for become the replacement character.
func escape(text string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(text)) // a strings.Builder takes everything
	return b.String()
}
