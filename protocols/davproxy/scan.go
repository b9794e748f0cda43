package davproxy

import "bytes"

// maxPiece is the length at which a text is cut into tokens. It is the same however the bytes come in.
const maxPiece = windowSize / 2

// prolog reads a byte order mark and the declaration (XML 1.0 section 2.8). They stand at the very start or nowhere.
func (t *tokenizer) prolog() error {
	if t.has(0, "\ufeff") {
		t.take(len("\ufeff"))
	}
	const begin, end = "<?xml", "?>"
	if !t.has(0, begin) {
		return nil
	}
	if b, err := t.need(len(begin) + 1); err != nil || !isSpace(b[len(begin)]) {
		return cut(err) // nil: an instruction with a longer name
	}
	raw, err := t.until(len(begin), end)
	if err != nil {
		return err
	}
	return t.declaration(raw[len(begin) : len(raw)-len(end)])
}

// declaration takes nothing but UTF-8 and what is part of it. XML 1.1 has other names and line ends, and parsers that read it as 1.0.
func (t *tokenizer) declaration(b []byte) error {
	switch string(b) { // as nearly all write it: there is nothing to judge
	case ` version="1.0" encoding="utf-8"`, ` version="1.0" encoding="UTF-8"`, ` version='1.0' encoding='utf-8'`:
		return nil
	}
	var values [3][]byte
	for i, want := range []string{"version", "encoding", "standalone"} {
		if name, value, rest, err := nextAttribute(b); err == nil && string(name) == want {
			values[i], b = value, rest
		}
	}
	version, encoding, standalone := values[0], values[1], string(values[2])
	t.ascii = bytes.EqualFold(encoding, []byte("us-ascii"))
	switch {
	case len(trimSpace(b)) > 0, string(version) != "1.0", values[2] != nil && standalone != "yes" && standalone != "no":
		return malformed("its declaration")
	case encoding != nil && !t.ascii && !bytes.EqualFold(encoding, []byte("utf-8")):
		return malformed("its encoding is not UTF-8")
	}
	return nil
}

// instruction leaves a processing instruction out.
func (t *tokenizer) instruction() error {
	raw, err := t.until(2, "?>")
	if err != nil {
		return err
	}
	b := raw[2 : len(raw)-2]
	n := nameLen(b)
	if !isNCName(b[:n]) || bytes.EqualFold(b[:n], []byte("xml")) || n < len(b) && !isSpace(b[n]) || !t.valid(b, stopsInNote) {
		return malformed("a processing instruction")
	}
	return nil
}

// bang reads a CDATA section, or leaves a comment out.
func (t *tokenizer) bang() error {
	switch {
	case t.has(0, "<!--"):
		return t.comment()
	case t.has(0, cdataBegin):
		if len(t.open) == 0 {
			return errOutside
		}
		t.inCDATA = true
		return t.cdata(len(cdataBegin))
	}
	return errDoctype
}

func (t *tokenizer) comment() error {
	raw, err := t.until(4, "-->")
	if err != nil {
		return err
	}
	if b := raw[4 : len(raw)-3]; bytes.Contains(b, []byte("--")) || bytes.HasSuffix(b, []byte("-")) || !t.valid(b, stopsInNote) {
		return malformed("a comment")
	}
	return nil
}

const (
	cdataBegin = "<![CDATA["
	cdataEnd   = "]]>"
)

// chars reads text up to a tag, or a piece of it.
func (t *tokenizer) chars() error {
	for i := 0; ; {
		b, at, err := t.run(i, stopsInText)
		if err != nil {
			return err
		}
		i = at
		switch {
		case i >= maxPiece:
			raw := t.take(t.behindLine(i))
			return t.says(raw, 0, 0, true)
		case i == len(b), b[i] == '<':
			raw := t.take(i)
			return t.says(raw, 0, 0, false)
		case b[i] == '&':
			n, err := t.reference(i)
			if err != nil {
				return err
			}
			i += n
		case b[i] == ']' && !t.has(i, cdataEnd):
			i++
		default:
			return errChar
		}
	}
}

// cdata reads a CDATA section from the i-th byte on, or a piece of it.
func (t *tokenizer) cdata(i int) error {
	for from := i; ; i++ {
		b, at, err := t.run(i, stopsInCDATA)
		if err != nil {
			return err
		}
		i = at
		switch {
		case i >= maxPiece:
			raw := t.take(t.behindLine(i))
			return t.says(raw, from, 0, true)
		case i == len(b):
			_, err := t.need(i + 1)
			return cut(err)
		case b[i] != ']':
			return errChar
		case t.has(i, cdataEnd):
			t.inCDATA = false
			raw := t.take(i + len(cdataEnd))
			return t.says(raw, from, len(cdataEnd), false)
		}
	}
}

// behindLine returns where a piece that shall end at i may end: not between CR and LF, which are one line end.
func (t *tokenizer) behindLine(i int) int {
	if t.buf[t.first+i-1] == '\r' && t.has(i, "\n") {
		return i + 1
	}
	return i
}

// says judges a text by where it stands. Text outside the root is no token.
func (t *tokenizer) says(raw []byte, lead, tail int, more bool) error {
	if len(t.open) == 0 {
		if len(trimSpace(raw)) > 0 {
			return errOutside
		}
		return nil
	}
	t.tok.kind, t.tok.qname, t.tok.raw, t.tok.more = textToken, &noName, raw, more
	t.tok.cdata, t.tok.lead, t.tok.tail = t.inCDATA || tail > 0, uint8(lead), uint8(tail)
	return nil
}
