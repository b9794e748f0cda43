package sieveproxy

import (
	"bytes"

	"postern/protocols/wire"
)

// tracker reads what a backend sends after the login: where the answer to a command ends, so that words of ours can come behind it. In
// whatever pieces the bytes come, the outcome is the same.
type tracker struct {
	inside  bool // the line goes on with one that had a literal
	headed  byte
	head    [4]byte // of the response's first line
	tail    wire.Tail
	literal int64 // bytes left of one
}

// down takes bytes of the backend. boundary is where in them the last answer ends; -1: none does.
func (t *tracker) down(p []byte) (boundary, answers int) {
	boundary = -1
	for i := 0; i < len(p); {
		if t.literal > 0 {
			n := min(t.literal, int64(len(p)-i))
			t.skip(n)
			i += int(n)
			continue
		}
		n := bytes.IndexByte(p[i:], '\n')
		if n < 0 {
			t.keep(p[i:])
			break
		}
		t.keep(p[i : i+n])
		if i += n + 1; t.lineEnded() {
			boundary, answers = i, answers+1
		}
	}
	return boundary, answers
}

// skip passes over bytes of a literal.
func (t *tracker) skip(n int64) { t.literal -= n }

// keep keeps of a piece of a line what will matter at its end.
func (t *tracker) keep(p []byte) {
	if !t.inside {
		t.headed += byte(copy(t.head[t.headed:], p))
	}
	t.tail.Keep(p)
}

// lineEnded tells whether an answer is over. A literal may stand in its code or be its text, too.
func (t *tracker) lineEnded() (answered bool) {
	_, literal, announced, err := wire.TrailingLiteral(bytes.TrimSuffix(t.tail.Bytes(), []byte("\r")), maxScript)
	t.tail.Reset()
	if announced && err == nil {
		t.inside, t.literal = true, int64(literal.Size)
		return false
	}
	answered = isStatus(t.head[:t.headed])
	t.inside, t.headed = false, 0
	return answered
}

// isStatus tells whether a line that begins so ends a response. Any other begins with a string.
func isStatus(head []byte) bool {
	switch firstWord(bytes.TrimSuffix(head, []byte("\r"))) {
	case "OK", "NO", "BYE":
		return true
	}
	return false
}
