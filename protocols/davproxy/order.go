package davproxy

import "bytes"

// maxOutOfOrder bounds what is held of one response's properties, in bytes. What is longer passes in its own order.
const maxOutOfOrder = 32 << 10

// order puts the properties of a response that are there before those that are not: Thunderbird's address book passes over a response
// whose first status is no 200, and Radicale tells of the first property that was asked for first, there or not. A propstat is held while
// its properties are empty, as those that are not there are.
type order struct {
	holding  bool         // the propstat that is being read: it stands behind the output's mark
	found    bool         // the response has told of a property that is there
	later    bytes.Buffer // whole propstats
	status   []byte
	inStatus bool
}

func (o *order) reset() {
	o.later.Reset()
	*o = order{later: o.later, status: o.status[:0]}
}

// see looks at what begins inside a response, before it is passed.
func (f *filter) see(tok *token, depth int) error {
	o := &f.order
	switch {
	case depth == 3 && tok.word == davPropstat:
		o.holding, o.status, f.out.propstat = true, o.status[:0], len(f.out.b)
	case depth == 3:
		return f.release(&o.later)
	case depth == 4:
		o.inStatus = tok.word == davStatus
	case depth > 5 && f.skipping == 0:
		f.letGo()
	}
	return nil
}

// seeText looks at a text inside a response, before it is passed.
func (f *filter) seeText(tok *token, depth int) {
	o := &f.order
	switch {
	case depth == 4 && o.inStatus && len(o.status) < 64:
		o.status = tok.appendText(o.status)
	case depth > 4 && f.skipping == 0 && !tok.blank():
		f.letGo()
	}
}

// letGo passes what is held of a propstat, and the rest of it as it comes: it tells of properties that are there.
func (f *filter) letGo() {
	if f.order.holding {
		f.order.holding, f.order.found, f.out.propstat = false, true, none
	}
}

// endPropstat passes a propstat that was held, or puts it off.
func (f *filter) endPropstat() error {
	o := &f.order
	switch {
	case !o.holding:
		return f.release(&o.later)
	case o.found || bytes.Contains(o.status, []byte(" 200")):
		f.letGo()
		return f.release(&o.later)
	}
	o.later.Write(f.out.b[f.out.propstat:])
	f.out.cut(f.out.propstat)
	o.holding, f.out.propstat = false, none
	if o.later.Len() > maxOutOfOrder {
		return f.release(&o.later)
	}
	return nil
}

// release passes what was held.
func (f *filter) release(b *bytes.Buffer) error {
	if b.Len() == 0 {
		return nil
	}
	err := f.write(b.Bytes())
	b.Reset()
	return err
}
