package davproxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"postern/authstore"
)

// maxUndecided bounds what is held of one response before it is known whether it may pass, in bytes.
const maxUndecided = 256 << 10

// filter passes a backend's XML to the client, byte for byte, but for what the client must not see and for hrefs, which are
// rewritten. It holds one token and one undecided response, whatever the length of the document. It fails closed: an error of
// copy means that the document must not be ended cleanly.
type filter struct {
	m      *mount
	at     target                                // what was asked
	also   target                                // the destination of COPY and MOVE
	single bool                                  // whatever a response calls it, it is about what was asked
	grant  *authstore.Grant                      // what may be seen
	kindOf func(collection target) (kind, error) // for lists that do not say it
	lost   []string                              // hrefs as the client wrote them, to be told as not there

	tokens   *tokenizer
	skipping int    // depth of the element that is left out, with all it holds; 0: none
	opaque   int    // depth of calendar-data or address-data; 0: none
	begun    bool   // opaque: its text has begun
	foreign  bool   // opaque: its text is of another kind, and left out
	telling  bool   // a property that is rebuilt is being read
	closing  []byte // the end tag of a root that had none
	response *response
	*work
}

// work is the memory of a filter, which the next one gets.
type work struct {
	out    output
	order  order
	link   href   // that is being read
	folder folder // of the last member
	one    response
	told   []name // the names in a property that is rebuilt
	text   []byte // what becomes of it
}

var works = sync.Pool{New: func() any { return new(work) }}

// take gives the filter its memory for as long as it writes to w, until giveBack.
func (f *filter) take(w io.Writer) {
	f.work = works.Get().(*work)
	f.out.reset(w)
	f.order.reset()
	f.folder.reset()
}

func (f *filter) giveBack() {
	f.out.w = nil
	works.Put(f.work)
	f.work = nil
}

// response is one DAV:response that is being read.
type response struct {
	state   responseState
	target  target // of its first href
	located bool
	typed   bool // it has a resourcetype that says something
	kind    kind
	mixed   bool // both kinds at once
}

type responseState uint8

const (
	undecided responseState = iota
	passing
	dropping
)

// Errors of documents that are not passed on.
var (
	errRoot      = errors.New("the XML is no answer to this request")
	errUndecided = errors.New("a response is too long to be judged")
)

// answerRoots are what a backend's XML may be besides a multistatus.
var answerRoots = map[name]bool{
	{nsDAV, "error"}: true, {nsDAV, "mkcol-response"}: true, {nsCalDAV, "mkcalendar-response"}: true,
	{nsDAV, "mkcalendar-response"}: true, // Xandikos
}

// copy passes a document from r to w.
func (f *filter) copy(w io.Writer, r io.Reader) error {
	f.tokens = newTokenizer(r)
	defer f.tokens.free()
	f.take(w)
	defer f.giveBack()
	if err := f.put([]byte(xmlHeader)); err != nil {
		return err
	}
	for {
		tok, err := f.tokens.next()
		if err == io.EOF {
			return f.out.end()
		}
		if err == nil {
			err = f.pass(tok)
		}
		if err != nil {
			return err
		}
	}
}

func (f *filter) pass(tok *token) error {
	switch tok.kind {
	case startToken:
		return f.start(tok)
	case endToken:
		return f.end(tok)
	}
	return f.characters(tok)
}

// characters passes a text.
func (f *filter) characters(tok *token) error {
	depth := f.tokens.depth()
	if f.response != nil {
		f.seeText(tok, depth)
	}
	if f.opaque == depth && !f.begun {
		f.begin(tok)
	}
	if f.opaque > 0 && f.foreign || f.tokens.parent(0).word == davError && !tok.blank() {
		return nil
	}
	return f.put(tok.raw)
}

// begin looks whether contents begin as they must. White space without end is taken for others' as well.
func (f *filter) begin(tok *token) {
	text := tok.inner()
	if !fits(f.at.kind, "", text) {
		text = tok.appendText(nil)
	}
	f.begun = tok.more || len(bytes.TrimSpace(text)) > 0
	f.foreign = f.begun && !fits(f.at.kind, "", text)
}

// put passes bytes on, unless they are left out.
func (f *filter) put(b []byte) error {
	if f.skipping > 0 {
		return nil
	}
	if f.order.holding && len(f.out.b)-f.out.propstat+len(b) > maxOutOfOrder {
		f.letGo()
	}
	return f.write(b)
}

// write is put for what stands in its place.
func (f *filter) write(b []byte) error {
	if r := f.response; r != nil && r.state == dropping {
		return nil
	}
	return f.out.write(b)
}

func (f *filter) start(tok *token) error {
	depth := f.tokens.depth()
	if f.response != nil {
		if err := f.see(tok, depth); err != nil {
			return err
		}
	}
	if f.telling && len(f.told) < maxTold && tells(f.tokens.parent(1).name) {
		f.told = append(f.told, tok.name)
	}
	if f.opaque > 0 && !f.begun { // contents are text; what is in an element is not looked into
		f.begun, f.foreign = true, true
	}
	if f.skipping > 0 || f.opaque > 0 {
		return f.put(tok.raw)
	}
	switch in := f.tokens.parent(1).word; {
	case depth == 1:
		return f.root(tok)
	case depth == 2 && tok.word == davResponse:
		f.one = response{}
		f.response, f.order.found, f.out.response = &f.one, false, len(f.out.b)
	case tok.word == davHref:
		return f.href(tok)
	case in == davProp && f.tokens.parent(2).word == davPropstat:
		return f.property(tok, depth)
	case isRemark(tok, in):
		f.skipping = depth
	case in == davResourcetype:
		f.resourceType(tok, depth)
	}
	return f.put(tok.raw)
}

// root judges the document; an empty root may have to take what is lost.
func (f *filter) root(tok *token) error {
	if tok.word != davMultistatus && !answerRoots[tok.name] && !(f.at.kind == outbox && tok.name == name{nsCalDAV, "schedule-response"}) {
		return fmt.Errorf("%w: %q", errRoot, tok.name.local)
	}
	if tok.empty && len(f.lost) > 0 && tok.word == davMultistatus { // so answers DAViCal when nothing that is asked for is there
		f.closing = slices.Concat([]byte("</"), tok.raw[1:1+nameLen(tok.raw[1:])], []byte(">"))
		return f.put(slices.Concat(bytes.TrimSuffix(tok.raw, []byte("/>")), []byte(">")))
	}
	return f.put(tok.raw)
}

// isRemark tells whether the element that just began is what a backend says for people or of itself. It may hold its paths, its
// version, and where in its program an error arose (sabre/dav, Cyrus). Of errors only what the standards name is passed on.
func isRemark(tok *token, in word) bool {
	return tok.word == davResponsedescription || in == davError && !standards[tok.name.space]
}

func (f *filter) property(tok *token, depth int) error {
	switch how := tok.treatment; how {
	case hides:
		f.skipping = depth
	case schedules:
		if accessTo(inbox, f.grant) == noAccess {
			f.skipping = depth
		}
	case holdsEvents, holdsCards:
		if (how == holdsEvents) == (f.at.kind.content() == calendar) {
			f.opaque, f.begun, f.foreign = depth, false, false
		} else {
			f.skipping = depth
		}
	case rebuilds:
		if tok.empty {
			break
		}
		err := f.put(tok.raw)
		f.skipping, f.telling, f.told = depth, true, f.told[:0]
		return err
	}
	return f.put(tok.raw)
}

// resourceType notes the kind of what a response is about. In a tree that holds both kinds the home is the principal too, which
// would lead clients astray: here it is not.
func (f *filter) resourceType(tok *token, depth int) {
	if tok.name == (name{nsDAV, "principal"}) {
		f.skipping = depth
	}
	r := f.response
	if r == nil {
		return
	}
	r.typed = true
	if k := kindOfType(tok.name); k != unknown {
		r.mixed = r.mixed || r.kind != unknown && r.kind != k
		r.kind = k
	}
}

func (f *filter) end(tok *token) error {
	depth := f.tokens.depth() + 1 // of the element that just ended
	switch {
	case f.skipping == depth && f.telling:
		f.skipping, f.telling = 0, false
		f.text = append(f.appendRebuilt(f.text[:0], tok.name), tok.raw...)
		return f.put(f.text)
	case f.skipping == depth:
		f.skipping = 0
		return nil
	case f.skipping > 0:
		return nil
	case f.opaque == depth:
		f.opaque = 0
	case depth == 3 && f.response != nil && tok.word == davPropstat:
		if err := f.put(tok.raw); err != nil {
			return err
		}
		return f.endPropstat()
	case depth == 2 && f.response != nil:
		return f.endResponse(tok)
	case depth == 1 && tok.word == davMultistatus: // not an error, which is about the whole question
		for _, href := range f.lost {
			if err := f.put(notThereResponse(href)); err != nil {
				return err
			}
		}
		if f.closing != nil {
			return f.put(f.closing)
		}
	}
	return f.put(tok.raw)
}

// appendRebuilt appends what a property holds whose names were read.
func (f *filter) appendRebuilt(dst []byte, property name) []byte {
	t := f.at
	if r := f.response; r != nil && r.located {
		t = r.target
	}
	if property == (name{nsDAV, "supported-report-set"}) {
		return appendReported(dst, t, f.told)
	}
	return appendGranted(dst, privileges(t, f.grant), f.told)
}

func notThereResponse(href string) []byte {
	return []byte(`<response xmlns="DAV:"><href>` + escape(href) + `</href><status>HTTP/1.1 404 Not Found</status></response>`)
}

func (f *filter) endResponse(tok *token) error {
	if err := f.release(&f.order.later); err != nil {
		return err
	}
	if err := f.decide(true); err != nil {
		return err
	}
	err := f.put(tok.raw)
	if f.response.state == dropping {
		f.out.cut(f.out.response)
	}
	f.response, f.out.response = nil, none
	return err
}

// decide judges a response as soon as it can be judged, at its end at the latest.
func (f *filter) decide(atEnd bool) error {
	r := f.response
	if r.state != undecided {
		return nil
	}
	switch {
	case !r.located:
		if atEnd {
			r.state = dropping
		}
		return nil
	case !f.asked(r.target), !f.open(r.target):
		r.state = dropping
		return nil
	case f.at.place == home && r.target.place == collection:
		if !atEnd {
			return nil
		}
		if !r.typed {
			k, err := f.kindOf(r.target)
			if err != nil && !errors.Is(err, errNoCollection) {
				return err
			}
			r.kind = k
		}
		if r.kind != f.at.kind || r.mixed {
			r.state = dropping
			return nil
		}
	}
	r.state, f.out.response = passing, none
	return nil
}

// open tells whether the grant opens a target.
func (f *filter) open(t target) bool { return accessAt(t, f.grant) != noAccess }

// asked tells whether a request for f.at may be answered with a response about t.
func (f *filter) asked(t target) bool {
	if f.at.place == home {
		return t.kind == f.at.kind && (t.place == home || t.place == collection)
	}
	return t.place != home && (t.in(f.at) || f.also.place != nowhere && t.in(f.also))
}
