package wire

import "bytes"

// Dots follows a text of lines that ends with a line of one dot: CRLF "." CRLF (RFC 5321 section 4.5.2, RFC 1939 section 3), in whatever
// pieces it comes. Nothing else ends it; but what looks like its end to some server, as LF "." LF does, is told, for whoever passes it on
// to one must not. The zero value stands before the first byte of a text.
type Dots struct{ state dotState }

type dotState byte

const (
	atLine   dotState = iota // behind CRLF, or before the first byte
	inText                   // behind none of those below
	afterCR                  // behind a CR
	loose                    // behind an LF without CR, or a NUL
	dot                      // behind CRLF "."
	dotCR                    // behind CRLF "." CR
	looseDot                 // behind a dot behind CR, LF or NUL: some servers may take it for a line's first byte
)

// Found is what Dots has come upon.
type Found byte

// What there is.
const (
	More Found = iota // the text goes on
	End               // this is its end
	Odd               // something that some server takes for its end: a dot between line ends of which one is not CRLF
)

// Scan looks through the next bytes of a text. n is how many of them are known to belong to it: all, or those up to the end and with it, or
// those before the last byte of something odd. That is the next to be scanned if the text goes on all the same.
func (d *Dots) Scan(p []byte) (n int, f Found) {
	for n < len(p) {
		if d.state < dot {
			if n += d.toDot(p[n:]); n == len(p) {
				break
			}
		}
		c := p[n]
		switch {
		case d.state == dotCR && c == '\n':
			d.state = atLine
			return n + 1, End
		case d.state == dot && c == '\r':
			d.state = dotCR
			n++
			continue
		case c == '\r' || c == '\n' || c == 0 || d.state == dotCR:
			if d.state == dotCR {
				d.state = afterCR
			} else {
				d.state = inText
			}
			return n, Odd
		}
		d.state = inText
	}
	return n, More
}

// toDot goes on to behind the next dot that may begin an end, or through all of p.
func (d *Dots) toDot(p []byte) (n int) {
	for {
		at := bytes.IndexByte(p[n:], '.')
		if at < 0 {
			d.pass(p[n:])
			return len(p)
		}
		d.pass(p[n : n+at])
		n += at + 1
		switch d.state {
		case atLine:
			d.state = dot
			return n
		case afterCR, loose:
			d.state = looseDot
			return n
		}
		d.state = inText
	}
}

// pass notes what stands at the end of bytes without a dot.
func (d *Dots) pass(p []byte) {
	if len(p) == 0 {
		return
	}
	before := inText
	if len(p) == 1 {
		before = d.state
	} else if p[len(p)-2] == '\r' {
		before = afterCR
	}
	switch c := p[len(p)-1]; {
	case c == '\r':
		d.state = afterCR
	case c == '\n' && before == afterCR:
		d.state = atLine
	case c == '\n', c == 0:
		d.state = loose
	default:
		d.state = inText
	}
}

// Holds tells whether the last byte that was scanned, a CR behind CRLF ".", may turn out to be odd by what follows: who passes the text on
// keeps it back.
func (d *Dots) Holds() bool { return d.state == dotCR }
