package davproxy

import (
	"bytes"
	"unicode"
	"unicode/utf8"
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
	nsXMLNS    = "http://www.w3.org/2000/xmlns/"
)

// nameBytes are those that a name with its prefix may consist of.
var nameBytes = setOf(func(c byte) bool {
	return isNameStart(rune(c)) || isNameInner(rune(c)) || c == ':' || c >= utf8.RuneSelf
})

// nameLen returns how many bytes at the beginning may be a name.
func nameLen(b []byte) int {
	for i, c := range b {
		if !nameBytes[c] {
			return i
		}
	}
	return len(b)
}

// word is a name in the namespace DAV that is asked for at each token or element; zero: any other.
type word uint8

const (
	davMultistatus word = iota + 1
	davResponse
	davHref
	davPropstat
	davProp
	davStatus
	davError
	davResourcetype
	davResponsedescription
)

var words = map[string]word{
	"multistatus": davMultistatus, "response": davResponse, "href": davHref, "propstat": davPropstat, "prop": davProp,
	"status": davStatus, "error": davError, "resourcetype": davResourcetype, "responsedescription": davResponsedescription,
}

// qname is a name as it stands, taken apart (Namespaces in XML 1.0 section 4), with what it means. It is shared, and never changed.
type qname struct {
	whole     string
	colon     int       // where its prefix ends; 0: it has none
	name      name      // in the namespace of the last element of that name; at first in none, where nothing has a meaning
	word      word      // there
	treatment treatment // there, as a property
}

// noName is that of a text, and of what is around the root.
var noName qname

func (q *qname) prefix() string { return q.whole[:q.colon] }

// in returns the name in another namespace.
func (q *qname) in(space string) *qname {
	n := name{space, q.name.local}
	moved := &qname{whole: q.whole, colon: q.colon, name: n, treatment: treatments[n]}
	if space == nsDAV {
		moved.word = words[n.local]
	}
	return moved
}

// split takes a name apart.
func (t *tokenizer) split(b []byte) (*qname, error) {
	place := t.known.place(b)
	if q := *place; q != nil && q.whole == string(b) && !t.ascii {
		return q, nil
	}
	if t.ascii && !t.valid(b, stopsInNote) {
		return nil, errName
	}
	if q := t.known.all[string(b)]; q != nil {
		*place = q
		return q, nil
	}
	q, err := splitNew(b)
	if err == nil {
		t.known.keep(b, q)
	}
	return q, err
}

var errName = malformed("a name")

// splitNew takes a name apart that is not among the known ones.
func splitNew(b []byte) (*qname, error) {
	if len(b) > maxXMLName {
		return nil, errTooLarge
	}
	prefix, local, ok := bytes.Cut(b, []byte(":"))
	if !ok {
		prefix, local = nil, b
	}
	if ok && !isNCName(prefix) || !isNCName(local) {
		return nil, errName
	}
	whole := string(b)
	return &qname{whole: whole, colon: len(prefix), name: name{local: whole[len(whole)-len(local):]}}, nil
}

// qnames remembers names that were taken apart. Each has one place where it is found at once, which it may lose to another.
type qnames struct {
	places [256]*qname
	all    map[string]*qname
}

func newQnames() *qnames { return &qnames{all: make(map[string]*qname)} }

func (k *qnames) place(b []byte) **qname {
	n := len(b)
	if n == 0 {
		return &k.places[0]
	}
	told := uint32(b[n-1])<<24 | uint32(b[n*3/4])<<16 | uint32(b[n/2])<<8 | uint32(b[n/4])
	return &k.places[(told+uint32(n))*2654435769>>24] // spread by the golden ratio
}

// keep remembers what a name is.
func (k *qnames) keep(b []byte, q *qname) {
	if len(b) > longInterned || len(q.name.space) > longInterned {
		return
	}
	if len(k.all) == maxInterned {
		clear(k.all)
	}
	*k.place(b), k.all[q.whole] = q, q
}

// isNCName tells whether something is a name without a colon.
func isNCName(b []byte) bool {
	for i := 0; i < len(b); {
		r, n := rune(b[i]), 1
		if r >= utf8.RuneSelf {
			if r, n = utf8.DecodeRune(b[i:]); r == utf8.RuneError && n == 1 {
				return false
			}
		}
		if !isNameStart(r) && (i == 0 || !isNameInner(r)) {
			return false
		}
		i += n
	}
	return len(b) > 0
}

// isNameStart tells whether a name may begin with a character (XML 1.0 section 2.3, fifth edition, without the colon).
func isNameStart(r rune) bool {
	if r < utf8.RuneSelf {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || r == '_'
	}
	return unicode.Is(nameStarts, r)
}

// isNameInner tells what else may stand in a name.
func isNameInner(r rune) bool {
	return '0' <= r && r <= '9' || r == '-' || r == '.' || r == 0xb7 || 0x300 <= r && r <= 0x36f || r == 0x203f || r == 0x2040
}

var nameStarts = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0xc0, 0xd6, 1}, {0xd8, 0xf6, 1}, {0xf8, 0x2ff, 1}, {0x370, 0x37d, 1}, {0x37f, 0x1fff, 1}, {0x200c, 0x200d, 1},
		{0x2070, 0x218f, 1}, {0x2c00, 0x2fef, 1}, {0x3001, 0xd7ff, 1}, {0xf900, 0xfdcf, 1}, {0xfdf0, 0xfffd, 1},
	},
	R32: []unicode.Range32{{0x10000, 0xeffff, 1}},
}

// interner keeps namespaces as strings, for documents have few.
type interner map[string]string

// Bounds of what is kept.
const (
	maxInterned  = 512
	longInterned = 128 // in bytes
)

func (in interner) of(b []byte) string {
	if s, ok := in[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(s) <= longInterned {
		if len(in) == maxInterned {
			clear(in)
		}
		in[s] = s
	}
	return s
}
