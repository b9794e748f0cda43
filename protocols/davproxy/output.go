package davproxy

import "io"

// outputSize is how much is gathered before it is written, in bytes.
const outputSize = 32 << 10

// none says that a mark of an output is not set.
const none = -1

// output gathers what goes to the client. What stands behind a mark does not go yet.
type output struct {
	w        io.Writer
	b        []byte
	begun    bool // something was written
	response int  // where a response begins that is undecided
	propstat int  // inside it: where a propstat begins that may have to come later
}

// reset makes the output ready. It keeps no more memory than others need.
func (o *output) reset(w io.Writer) {
	if cap(o.b) != outputSize {
		o.b = make([]byte, 0, outputSize)
	}
	*o = output{w: w, b: o.b[:0], response: none, propstat: none}
}

// write takes bytes on. It grows beyond outputSize for an undecided response only.
func (o *output) write(p []byte) error {
	if len(o.b)+len(p) > outputSize {
		if err := o.flush(); err != nil {
			return err
		}
	}
	if o.response != none && len(o.b)-o.response+len(p) > maxUndecided {
		return errUndecided
	}
	o.b = append(o.b, p...)
	return nil
}

// flush writes what may go. While the first response that does not fit is undecided, nothing goes: the answer can still become another.
func (o *output) flush() error {
	n := len(o.b)
	switch {
	case o.response != none && !o.begun:
		return nil
	case o.response != none:
		n = o.response
	case o.propstat != none:
		n = o.propstat
	}
	if n == 0 {
		return nil
	}
	o.begun = true
	_, err := o.w.Write(o.b[:n])
	o.b = o.b[:copy(o.b, o.b[n:])]
	if o.response != none {
		o.response -= n
	}
	if o.propstat != none {
		o.propstat -= n
	}
	return err
}

// end writes the rest. Whoever wants to know is told before if it is all there is.
func (o *output) end() error {
	if w, ok := o.w.(interface{ whole(length int) }); ok && !o.begun {
		w.whole(len(o.b))
	}
	return o.flush()
}

// cut takes back what stands behind a mark.
func (o *output) cut(mark int) { o.b = o.b[:mark] }
