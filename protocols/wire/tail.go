package wire

// maxTail is the longest announcement of a literal, in bytes: "~{", 18 digits, "+}", CR.
const maxTail = 24

// Tail is what stands right before the end of a line that comes in pieces: enough to find a literal's announcement there. The zero value
// stands before a line's first byte.
type Tail struct {
	last [maxTail]byte
	n    int8
}

// Keep remembers the last bytes of a piece.
func (t *Tail) Keep(p []byte) {
	if len(p) >= maxTail {
		t.n = int8(copy(t.last[:], p[len(p)-maxTail:]))
		return
	}
	if over := int(t.n) + len(p) - maxTail; over > 0 {
		t.n = int8(copy(t.last[:], t.last[over:t.n]))
	}
	t.n += int8(copy(t.last[t.n:], p))
}

// Bytes are the last ones of the line, good until the next call.
func (t *Tail) Bytes() []byte { return t.last[:t.n] }

// Reset begins another line.
func (t *Tail) Reset() { t.n = 0 }
