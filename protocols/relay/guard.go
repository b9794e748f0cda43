package relay

import (
	"errors"
	"io"
	"time"

	"postern/protocols/parking"
)

// Guard looks at what passes in a session, and knows where words of ours can come between. Up is called by one goroutine, Down by
// another, and so are the others for the two directions.
type Guard interface {
	// Up takes bytes of the client, and may change them. What is not taken comes again: at once, or, if the step is empty, after Woken.
	Up(p []byte) (Step, error)
	// Woken is received from when Up has to wait for the backend.
	Woken() <-chan struct{}
	// Down takes bytes of the backend, and may change them. pass is for the client, and shares p's memory; it may be empty. boundary is
	// the last offset in it at which words of ours can come between; -1: none.
	Down(p []byte) (pass []byte, boundary int)
	// Data tells how many bytes come next that nobody needs to look at, and Skip that so many of them pass now.
	Data(up bool) int64
	Skip(up bool, n int64)
	// Busy tells whether the client waits for something that goes before its goodbye: for the end of anything, where that is to be
	// orderly, and else for what must not be lost if it comes in time.
	Busy(orderly bool) bool
	// Goodbye is what the client is told when its session must end for this reason; nil: nothing can be told. orderly: what the client
	// waits for may end before, however long it takes.
	Goodbye(reason error) (words []byte, orderly bool)
}

// Step is what a guard wants done about some bytes of a client.
type Step struct {
	Taken  int    // so many of them are done with
	Pass   []byte // for the backend, good until the next call
	Answer []byte // for the client, at the next boundary; good until the next call
	Bulk   bool   // what comes next is much
	End    error  // the session ends for this reason, behind the answer; nil: it goes on
}

// Alarm wakes who waits for a guard. The zero value is ready; what guards the guard guards it.
type Alarm struct{ waiting chan struct{} }

// Await is what to receive from until Ring is called; waits: there is something to wait for. It is made when it is needed: most sessions
// are idle, and have nobody who waits.
func (a *Alarm) Await(waits bool) <-chan struct{} {
	if !waits {
		return noWaiting
	}
	if a.waiting == nil {
		a.waiting = make(chan struct{})
	}
	return a.waiting
}

// Ring wakes all.
func (a *Alarm) Ring() {
	if a.waiting != nil {
		close(a.waiting)
		a.waiting = nil
	}
}

// noWaiting is for who asks when it has come.
var noWaiting = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// goodbyeTime is how long a client waits for the end of a response to be told goodbye. With the time for a revocation to get
// here it must stay below a second.
const goodbyeTime = 600 * time.Millisecond

// lastTime is how long a client that was told goodbye may take to close its end. What it still sends is thrown away: closing a socket
// with bytes unread resets it, and the goodbye would be lost.
const lastTime = 200 * time.Millisecond

// maxWords bounds the answers that wait to be told, in bytes: in the middle of a response that it does not read, a client can have
// commands refused for ever.
const maxWords = 64 << 10

var errUnread = errors.New("answers that the client does not read")

// errLeaving ends a direction whose session says goodbye.
var errLeaving = errors.New("leaving")

// longAgo as a deadline wakes whoever reads.
var longAgo = time.Unix(1, 0)

// leave ends a session with a goodbye, if there is one.
func (s *Session) leave(reason error) {
	var words []byte
	var orderly bool
	if s.pair.Guard != nil {
		words, orderly = s.pair.Guard.Goodbye(reason)
	}
	if words == nil {
		s.end(reason)
		return
	}
	s.mu.Lock()
	if s.closed || s.goodbye != nil && (orderly || !s.orderly) {
		s.mu.Unlock()
		return
	}
	if s.goodbye != nil { // it was to end in good order
		s.reason = nil
	}
	s.because(reason)
	s.goodbye, s.orderly = words, orderly
	if !orderly {
		s.stopReading()
		time.AfterFunc(goodbyeTime, func() { s.end(nil) })
	}
	s.mu.Unlock()
	s.flush()
}

// stopReading ends the direction from the client. It is called with mu held.
func (s *Session) stopReading() {
	if !s.leaving && !s.closed { // either has woken who waits
		s.wakeWaiter()
		s.leaving = true
		s.pair.Client.SetReadDeadline(longAgo)
		s.up.finishParked()
	}
}

// passUp hands on what the guard lets through.
func (d *copier) passUp(p []byte) error {
	for len(p) > 0 {
		st, err := d.pair.Guard.Up(p)
		if d.hasTold() {
			return errLeaving
		}
		if len(st.Pass) > 0 {
			if err := d.write(st.Pass); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		if st.Bulk {
			d.expects = largeBuffer
		}
		if len(st.Answer) > 0 {
			if err := d.say(st.Answer); err != nil {
				return err
			}
		}
		if st.End != nil {
			d.leave(st.End)
			return errLeaving
		}
		if p = p[st.Taken:]; len(p) == 0 {
			return nil
		}
		if st.Taken == 0 && len(st.Pass) == 0 {
			select {
			case <-d.pair.Guard.Woken():
				d.read = d.touch()
			case <-d.ended():
			}
		}
		if d.isStopped() { // while it waited or wrote
			return errLeaving
		}
	}
	return nil
}

// passDown writes to the client, with words of ours where they can come between.
func (d *copier) passDown(p []byte) error {
	d.toward.Lock() // before the guard knows of p: nobody tells what goes behind it, or takes it for told
	p, boundary := d.pair.Guard.Down(p)
	d.mu.Lock()
	if d.told { // behind a goodbye nothing more is written
		d.mu.Unlock()
		d.toward.Unlock()
		return nil
	}
	d.atBoundary = false
	var words, goodbye []byte
	if boundary >= 0 {
		words, goodbye = d.lastWords()
	}
	d.mu.Unlock()
	err := d.writeWith(p, boundary, words, goodbye)
	d.mu.Lock()
	d.atBoundary = boundary == len(p)
	waits := d.words != nil || d.goodbye != nil
	d.toward.Unlock() // with mu held: who says something from now on finds it free
	d.mu.Unlock()
	switch {
	case err != nil:
	case goodbye != nil:
		d.farewell()
	case waits:
		d.flush()
	}
	return err
}

// writeWith writes p with words of ours at the boundary. Behind a goodbye nothing more is written.
func (d *copier) writeWith(p []byte, boundary int, words, goodbye []byte) error {
	if words == nil && goodbye == nil && len(p) > 0 {
		return d.write(p)
	}
	at := max(0, boundary)
	for _, part := range [][]byte{p[:at], words, goodbye, p[at:]} {
		if len(part) == 0 {
			continue
		}
		if err := d.write(part); err != nil {
			return err
		}
		if goodbye != nil && &part[0] == &goodbye[0] {
			return nil
		}
	}
	return nil
}

// lastWords takes what waits to be told at a boundary. It is called with mu held.
func (s *Session) lastWords() (words, goodbye []byte) {
	words, s.words = s.words, nil
	if s.mayLeave() {
		goodbye, s.told = s.goodbye, true
		s.stopReading()
	}
	return words, goodbye
}

// mayLeave tells whether the goodbye is due at the next boundary. It is called with mu held.
func (s *Session) mayLeave() bool {
	return s.goodbye != nil && !s.told && !s.pair.Guard.Busy(s.orderly)
}

// hasTold tells whether the client was told goodbye. What the guard has taken since passes no more: had it come before, the guard would have
// been busy with it.
func (s *Session) hasTold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.told
}

// say tells the client something at the next boundary.
func (s *Session) say(words []byte) error {
	s.mu.Lock()
	s.words = append(s.words, words...)
	waiting := len(s.words)
	s.mu.Unlock()
	if waiting > maxWords {
		return errUnread
	}
	s.flush()
	return nil
}

// flush tells the client what waits, if this is a boundary and nobody else is writing: who is does it afterwards.
func (s *Session) flush() {
	for {
		s.mu.Lock()
		// With mu held: a direction that parks has both for a moment, and tells nobody anything afterwards.
		if !s.atBoundary || s.closed || s.told || s.words == nil && !s.mayLeave() || !s.toward.TryLock() {
			s.mu.Unlock()
			return
		}
		words, goodbye := s.lastWords()
		s.mu.Unlock()
		s.pair.Client.SetWriteDeadline(time.Now().Add(s.relay.stall()))
		_, err := s.pair.Client.Write(append(words, goodbye...))
		s.toward.Unlock()
		switch {
		case err != nil:
			s.end(ErrClientClosed)
			return
		case goodbye != nil:
			s.farewell()
			return
		}
	}
}

// farewell closes the client's side after the goodbye, and then the session.
func (s *Session) farewell() {
	closeWrite(s.pair.Client)
	low := parking.Lowest(s.pair.Client)
	low.SetReadDeadline(time.Now().Add(lastTime))
	io.CopyN(io.Discard, low, 64<<10)
	s.end(nil)
}
