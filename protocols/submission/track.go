package submission

import "bytes"

// tracker reads what a backend sends after the login: where a reply ends, and its code. In whatever pieces the bytes come, the outcome is
// the same.
type tracker struct {
	head [4]byte // of a line that has not come whole
	n    int     // so much of it is there
}

// line takes bytes up to the next line's end, or all. code is 0 where no reply ends there.
func (t *tracker) line(p []byte) (taken, code int) {
	taken = bytes.IndexByte(p, '\n') + 1
	line := p[:taken]
	if taken == 0 {
		line = p
	}
	t.n += copy(t.head[t.n:], line)
	if taken == 0 {
		return len(p), 0
	}
	head := bytes.TrimRight(t.head[:t.n], "\r\n")
	t.n = 0
	code, last, ok := parseReply(head)
	if !ok || !last {
		return taken, 0
	}
	return taken, code
}
