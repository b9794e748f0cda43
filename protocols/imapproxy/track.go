package imapproxy

import (
	"bytes"

	"postern/protocols/wire"
)

// tracker reads what a backend sends after the login: where a response ends, so that words of ours can come between, and what
// answers the client's commands. In whatever pieces the bytes come, the outcome is the same.
type tracker struct {
	inside  bool // the line goes on with a response that had a literal
	split   bool // the line began in an earlier piece
	headed  byte
	last    byte             // how much of head is the answer that was just told of
	head    [maxTag + 8]byte // of the response, up to its second word
	end     wire.Tail
	literal int64 // bytes left of one
}

// event is something of a backend's that the scanner may wait for.
type event byte

const (
	noEvent   event = iota
	goesOn          // "+"
	completes       // a tagged answer
)

// found is what the tracker tells of some bytes.
type found struct {
	taken    int // up to the first event, and else all
	boundary int // the last offset in what was taken at which a response ends; -1: there is none
	plus     int // the offset at which a line with "+" begins or, where it began before, goes on; -1: there is none
	event    event
}

// down takes bytes of the backend.
func (t *tracker) down(p []byte) found {
	f := found{boundary: -1, plus: -1}
	i := 0
	for i < len(p) {
		if t.literal > 0 {
			n := min(t.literal, int64(len(p)-i))
			t.skip(n)
			i += int(n)
			continue
		}
		n := bytes.IndexByte(p[i:], '\n')
		line := p[i:]
		if n >= 0 {
			line = line[:n]
		}
		head := line
		if t.split || n < 0 {
			head = t.keep(line)
		}
		if !t.inside && len(head) > 0 && head[0] == '+' {
			f.plus = i
		}
		if n < 0 {
			f.taken = len(p)
			return f
		}
		i += n + 1
		if e, ended := t.lineEnded(line, head); ended {
			if f.boundary, f.event = i, e; e != noEvent {
				break
			}
		}
	}
	f.taken = i
	return f
}

// skip passes over bytes of a literal.
func (t *tracker) skip(n int64) { t.literal -= n }

// keep keeps of a line that comes in pieces what will matter at its end.
func (t *tracker) keep(b []byte) (head []byte) {
	if !t.inside {
		t.headed += byte(copy(t.head[t.headed:], b))
	}
	t.end.Keep(b)
	t.split = true
	return t.head[:t.headed]
}

// lineEnded tells whether the response is over. The text of a status may end like a literal, and is none.
func (t *tracker) lineEnded(line, head []byte) (e event, ended bool) {
	if t.split {
		line = t.end.Bytes()
	}
	if !t.inside {
		e = eventOf(head)
	}
	if endsInBrace(line) && e == noEvent && (t.inside || !isStatus(head)) {
		size, kind, err := trailingLiteral(line)
		t.inside = kind != noLiteral && err == nil
		t.literal = size
	} else {
		t.inside = false
	}
	if e == completes {
		t.last = byte(copy(t.head[:], head))
	}
	if t.split {
		t.end.Reset()
		t.headed, t.split = 0, false
	}
	return e, !t.inside
}

// eventOf reads the first line of a response. One that is none counts for nothing: what the scanner takes for an answer decides what
// may pass.
func eventOf(head []byte) event {
	switch {
	case len(head) == 0, head[0] == '*':
		return noEvent
	case head[0] == '+':
		return goesOn
	}
	_, status := firstWords(head)
	if isAny(status, "OK", "NO", "BAD") {
		return completes
	}
	return noEvent
}

// isStatus tells whether a response that begins with "*" is one line, whatever stands at its end.
func isStatus(head []byte) bool {
	first, status := firstWords(head)
	return string(first) == "*" && isAny(status, "OK", "NO", "BAD", "BYE", "PREAUTH")
}

func isAny(word []byte, words ...string) bool {
	for _, w := range words {
		if len(w) == len(word) && bytes.EqualFold(word, []byte(w)) {
			return true
		}
	}
	return false
}

func firstWords(head []byte) (first, second []byte) {
	first, at, ok := word(head, 0)
	if !ok || head[at] != ' ' {
		return first, nil
	}
	second, _, ok = word(head, at+1)
	if !ok { // it is the last
		second = head[at+1:]
	}
	return first, second
}

// answered is the tag of the answer that was just told of, and whether the command did what it should.
func (t *tracker) answered() (tag []byte, ok bool) {
	tag, status := firstWords(t.head[:t.last])
	return tag, isAny(status, "OK")
}
