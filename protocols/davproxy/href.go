package davproxy

import (
	"bytes"
	"encoding/xml"
	"errors"
	"slices"
)

// href is a DAV:href element. Its memory can be used again.
type href struct {
	start, end []byte // as they stood; no end: <href/>
	text       []byte // what it says, without white space around it
	whole      []byte // for what becomes of it
}

var errHref = errors.New("an href that is no plain text")

// maxHref bounds an href, in bytes.
const maxHref = 8 << 10

// read reads an href element whose start was just returned.
func (h *href) read(tokens *tokenizer, start *token) error {
	h.start, h.end, h.text = append(h.start[:0], start.raw...), h.end[:0], h.text[:0]
	for {
		tok, err := tokens.next()
		switch {
		case err != nil:
			return err
		case tok.kind == startToken, len(h.text)+len(tok.raw) > maxHref:
			return errHref
		case tok.kind == endToken:
			h.text, h.end = bytes.TrimSpace(h.text), append(h.end, tok.raw...)
			return nil
		}
		h.text = tok.appendText(h.text)
	}
}

// appendTo appends the element with another text.
func (h *href) appendTo(dst, text []byte) []byte {
	dst = append(dst, h.start...)
	if len(h.end) == 0 {
		return dst
	}
	if slices.ContainsFunc(text, func(c byte) bool { return !asItIs[c] }) {
		b := bytes.NewBuffer(dst)
		xml.EscapeText(b, text) // a bytes.Buffer takes everything
		dst = b.Bytes()
	} else {
		dst = append(dst, text...)
	}
	return append(dst, h.end...)
}

// asItIs are the bytes of a path segment that we write without escape, slash and escape sign for XML besides.
var asItIs = setOf(func(c byte) bool { return isUnreserved(c) || c == '/' || c == '%' })

// folder remembers what the folder of the last member was: the hrefs of a collection differ in their last segment only.
type folder struct {
	raw    []byte // the backend's href up to its last slash
	path   []byte // ours
	length int    // of path, up to the member's name
	target target // of a member; none: its name differs
}

func (d *folder) reset() { *d = folder{raw: d.raw[:0], path: d.path[:0]} }

// outward is mount.outward, with the target's path. The member of a target is not told.
func (d *folder) outward(m *mount, href []byte) (t target, path []byte, ok bool) {
	cut := bytes.LastIndexByte(href, '/') + 1
	last := href[cut:]
	if d.target.place == member && bytes.Equal(href[:cut], d.raw) && isSimple(last) {
		d.path = append(d.path[:d.length], last...)
		return d.target, d.path, true
	}
	text := m.path // what the backend was asked for it mostly answers, and this is a string already
	if text != string(href) {
		text = string(href)
	}
	if t, ok = m.outward(text); !ok {
		return target{}, nil, false
	}
	d.path = t.appendPath(d.path[:0])
	d.target.place = nowhere
	if t.place == member {
		t.member = ""
		d.raw, d.length, d.target = append(d.raw[:0], href[:cut]...), bytes.LastIndexByte(d.path, '/')+1, t
	}
	return t, d.path, true
}
