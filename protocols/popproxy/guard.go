package popproxy

import (
	"bytes"
	"errors"
	"slices"
	"sync"

	"postern/authstore"
	"postern/protocols"
	"postern/protocols/relay"
)

// maxOwed bounds how many commands may be under way. One more waits until all are answered.
const maxOwed = 256

// guard watches a session after its login. It implements relay.Guard. Answers have no names: which command one belongs to is known by their
// order alone, so nothing passes of which a backend could make more commands than one, or another one than this guard.
type guard struct {
	mu    sync.Mutex // guards the fields below; held for as long as it takes to look through a buffer
	line  []byte     // what has come of a command that came in pieces
	owed  []bool     // for each command under way, the oldest first: whether +OK is followed by lines
	quits bool       // QUIT has passed: it is the last command
	track tracker
	woken relay.Alarm // when all commands are answered
}

// Guard watches what passes after the login.
func (Door) Guard(*protocols.Conn, authstore.Grant, func(app string)) relay.Guard { return &guard{} }

// Up takes what the client sent: whole lines that pass as they are, many at once, or one other.
func (g *guard) Up(p []byte) (relay.Step, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n := g.passing(p); n > 0 {
		return relay.Step{Taken: n, Pass: p[:n]}, nil
	}
	return g.other(p), nil
}

// passing notes the commands at the beginning of p that pass as they are, and returns their length.
func (g *guard) passing(p []byte) (n int) {
	for len(g.line) == 0 {
		end := n + bytes.IndexByte(p[n:], '\n') + 1
		line := p[n:end]
		if cmd, fault := judge(line); fault != "" || !bytes.HasSuffix(line, crlf) || !g.passes(cmd) {
			break
		}
		n = end
	}
	return n
}

var crlf = []byte("\r\n")

// passes notes a command that is to pass; false: it can't now.
func (g *guard) passes(cmd verdict) bool {
	if g.quits || len(g.owed) >= maxOwed {
		return false
	}
	g.owed = append(g.owed, cmd.lines)
	g.quits = cmd.quits
	return true
}

// other takes a line that came in pieces or ends in LF alone, one that is refused, or the beginning of one. What is refused is answered when all
// before it are: until then nothing is taken.
func (g *guard) other(p []byte) relay.Step {
	end := bytes.IndexByte(p, '\n') + 1
	switch {
	case g.quits: // nobody reads it
		return relay.Step{Taken: len(p)}
	case end == 0:
		g.line = g.joined(p)
		return relay.Step{Taken: len(p)}
	}
	line := g.joined(p[:end])
	cmd, fault := judge(line)
	switch {
	case fault != "" && len(g.owed) > 0, fault == "" && !g.passes(cmd):
		return relay.Step{}
	case fault != "":
		g.line = nil
		return relay.Step{Taken: end, Answer: []byte("-ERR " + fault + "\r\n")}
	}
	g.line = nil
	return relay.Step{Taken: end, Pass: append(bytes.TrimRight(line, "\r\n"), crlf...)}
}

// joined is the line with its next piece, up to what makes it too long.
func (g *guard) joined(piece []byte) []byte {
	room := maxCommand + 1 - len(g.line)
	return append(g.line, piece[:min(len(piece), room)]...)
}

// Down takes what the backend sent.
func (g *guard) Down(p []byte) (pass []byte, boundary int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	boundary = -1
	for i := 0; i < len(p); {
		n, ended := g.track.down(p[i:], len(g.owed) > 0 && g.owed[0])
		if i += n; ended {
			boundary = i
			g.answered()
		}
	}
	return p, boundary
}

// answered notes that the oldest command is answered. It is called with mu held.
func (g *guard) answered() {
	if len(g.owed) == 0 { // the backend speaks unasked
		return
	}
	if g.owed = slices.Delete(g.owed, 0, 1); len(g.owed) == 0 {
		g.woken.Ring()
	}
}

// Woken says that Up may take what it did not.
func (g *guard) Woken() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.woken.Await(len(g.owed) > 0)
}

// Data is nothing: nobody knows how long an answer is.
func (*guard) Data(bool) int64 { return 0 }

// Skip is never called.
func (*guard) Skip(bool, int64) {}

// Busy tells whether an answer is owed. That to QUIT tells whether messages were deleted (RFC 1939 section 6): it is worth waiting for.
func (g *guard) Busy(orderly bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.owed) > 0 && (orderly || g.quits)
}

// Goodbye is what a client is told at the next end of an answer.
func (*guard) Goodbye(reason error) (words []byte, orderly bool) {
	return goodbye(reason), errors.Is(reason, protocols.ErrDraining)
}
