package imapproxy

import "bytes"

// tracker reads what a backend sends after the login: where a response ends, so that words of ours can come between, and what
// answers the client's commands. In whatever pieces the bytes come, the outcome is the same.
type tracker struct {
	state   trackState
	head    [maxTag + 8]byte // of the response, up to its second word
	headed  int
	last    int  // how much of head is the answer that was just told of
	inside  bool // the line goes on with a response that had a literal
	end     lineEnd
	literal int64
}

type trackState byte

const (
	inResponse trackState = iota
	inData                // a literal
)

// event is something of a backend's that the scanner may wait for.
type event byte

const (
	noEvent   event = iota
	goesOn          // "+"
	completes       // a tagged answer
)

// down takes bytes of the backend up to the first event, and else all. boundary is the last offset in what was taken at which a
// response ends; -1: there is none.
func (t *tracker) down(p []byte) (taken, boundary int, e event) {
	boundary = -1
	i := 0
	for i < len(p) {
		if t.state == inData {
			n := min(t.literal, int64(len(p)-i))
			t.skip(n)
			i += int(n)
			continue
		}
		n := bytes.IndexByte(p[i:], '\n') + 1
		if n == 0 {
			t.keep(p[i:])
			return len(p), boundary, noEvent
		}
		t.keep(p[i : i+n-1])
		i += n
		if e, ended := t.lineEnded(); ended {
			boundary = i
			if e != noEvent {
				return i, boundary, e
			}
		}
	}
	return i, boundary, noEvent
}

// skip passes over bytes of a literal.
func (t *tracker) skip(n int64) {
	if t.literal -= n; t.literal == 0 {
		t.state = inResponse
	}
}

func (t *tracker) keep(b []byte) {
	if !t.inside {
		t.headed += copy(t.head[t.headed:], b)
	}
	t.end.keep(b)
}

// lineEnded tells whether the response is over. The text of a status may end like a literal, and is none.
func (t *tracker) lineEnded() (e event, ended bool) {
	size, kind, err := t.end.literal()
	t.end.reset()
	if !t.inside {
		if e, ended = t.status(); ended {
			t.last, t.headed = t.headed, 0
			return e, true
		}
	}
	if kind == noLiteral || err != nil {
		t.headed, t.inside = 0, false
		return noEvent, true
	}
	t.inside, t.literal = true, size
	if size > 0 {
		t.state = inData
	}
	return noEvent, false
}

// status tells what a response is by its head; ok: it is one line, whatever stands at its end. The tag of an answer is answered.
func (t *tracker) status() (e event, ok bool) {
	head := bytes.TrimSuffix(t.head[:t.headed], []byte("\r"))
	first, rest, _ := bytes.Cut(head, []byte(" "))
	switch {
	case bytes.HasPrefix(first, []byte("+")):
		return goesOn, true
	case string(first) != "*":
		return completes, true
	}
	second, _, _ := bytes.Cut(rest, []byte(" "))
	for _, word := range []string{"OK", "NO", "BAD", "BYE", "PREAUTH"} {
		if bytes.EqualFold(second, []byte(word)) {
			return noEvent, true
		}
	}
	return noEvent, false
}

// answered is the tag of the answer that was just told of, and whether the command did what it should.
func (t *tracker) answered() (tag []byte, ok bool) {
	tag, rest, _ := bytes.Cut(bytes.TrimSuffix(t.head[:t.last], []byte("\r")), []byte(" "))
	word, _, _ := bytes.Cut(rest, []byte(" "))
	return tag, bytes.EqualFold(word, []byte("OK"))
}
