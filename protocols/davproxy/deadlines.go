package davproxy

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// atOnce is how long a request may take before it counts as one that lasts: see outlive.
const atOnce = 100 * time.Millisecond

// longAgo as a deadline wakes whoever reads or writes.
var longAgo = time.Unix(1, 0)

// deadlines is the one place that moves a request's deadlines. While somebody waits for the client a timer runs, and a deadline is
// moved, into the past, only when it has run out. A deadline of its own for each read and write would be a message to another
// goroutine on HTTP/2, and would end the stream even while nobody waits. For a request that is answered at once, the one that
// http.Server has set for writing when it began is good enough; where it takes longer, that one is taken away, and the client watched.
type deadlines struct {
	ctl   http.ResponseController
	began time.Time

	mu      sync.Mutex // guards the fields below
	stands  bool       // http.Server's own deadline
	over    bool       // the request has ended, or was cut: nobody may move them any more
	stopped bool       // stopReading was called
	line    *line      // the connection, if it is only this request's; nil: it isn't
	reading time.Time  // until when somebody may wait for words of the client's; zero: nobody does
	writing time.Time  // until when somebody may wait for the client to take ours
	timer   *time.Timer
	due     time.Time         // when the timer runs out; zero: it does not run
	client  context.Context   // ends when the client leaves
	gone    func(cause error) // to be called then; nil: nobody wants to know, or client is watched already
	unwatch func() bool       // nil: client is not watched
}

// watch has gone called when the client leaves, if the request lasts: one that does not is over before that helps anybody.
func (d *deadlines) watch(client context.Context, gone func(cause error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.client, d.gone = client, gone
	d.outlive(time.Now()) // to verify it may have taken a while
}

// read says that reading may take so long from now on; 0: it is over.
func (d *deadlines) read(most time.Duration) { d.expect(&d.reading, most) }

// write says that writing may take so long from now on; 0: it is over.
func (d *deadlines) write(most time.Duration) { d.expect(&d.writing, most) }

func (d *deadlines) expect(until *time.Time, most time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if *until = (time.Time{}); most > 0 {
		now := time.Now()
		*until = now.Add(most)
		d.outlive(now)
	}
	d.wind()
}

// outlive does what is only for a request that lasts: it takes http.Server's deadline away, and begins to watch the client. It is called
// with mu held.
func (d *deadlines) outlive(now time.Time) {
	if d.over || now.Sub(d.began) < atOnce {
		return
	}
	if d.stands {
		d.stands = false
		d.ctl.SetWriteDeadline(time.Time{})
	}
	if gone := d.gone; gone != nil {
		d.gone = nil
		d.unwatch = context.AfterFunc(d.client, func() {
			if !d.hasStopped() { // else it was us who ended reading, which net/http takes for a client that has gone
				gone(context.Cause(d.client))
			}
		})
	}
}

// wind sets the timer to what comes next. One that runs is left alone: most waits are over long before, and when it runs out it is
// set to what is waited for then. It is called with mu held.
func (d *deadlines) wind() {
	next := d.reading
	if next.IsZero() || !d.writing.IsZero() && d.writing.Before(next) {
		next = d.writing
	}
	if d.over || next.IsZero() || !d.due.IsZero() && !d.due.After(next) {
		return
	}
	d.due = next
	d.timer.Reset(time.Until(next))
}

// expire wakes whoever has waited too long.
func (d *deadlines) expire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return
	}
	d.due = time.Time{}
	now := time.Now()
	d.outlive(now)
	if !d.reading.IsZero() && !now.Before(d.reading) {
		d.reading = time.Time{}
		d.ctl.SetReadDeadline(longAgo) // a server without deadlines has none
	}
	if !d.writing.IsZero() && !now.Before(d.writing) {
		d.writing = time.Time{}
		d.ctl.SetWriteDeadline(longAgo)
		d.ctl.SetReadDeadline(longAgo) // net/http reads what is left of a request before it answers
	}
	d.wind()
}

// stopReading wakes whoever reads from the client, for good.
func (d *deadlines) stopReading() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.over {
		d.stopped = true
		d.ctl.SetReadDeadline(longAgo)
	}
}

// hasStopped tells whether stopReading was called. An answer is about to be written then.
func (d *deadlines) hasStopped() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stopped
}

// cut wakes whoever reads from or writes to the client.
func (d *deadlines) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.over {
		d.leave()
		d.ctl.SetWriteDeadline(longAgo) // first: who is woken from reading shall not answer
		d.ctl.SetReadDeadline(longAgo)
		if d.line != nil {
			d.line.hangUp() // TLS would take five seconds to say goodbye to who takes nothing
		}
	}
}

// leave is called with mu held.
func (d *deadlines) leave() {
	d.over = true
	d.timer.Stop()
	if d.unwatch != nil {
		d.unwatch()
	}
}

// finish gives what net/http does after the handler its time: it reads what is left of the request, if reads, and sends the last
// bytes. The connection may serve another request then.
func (d *deadlines) finish(reads bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return
	}
	d.leave()
	now := time.Now()
	if !d.stands || now.Sub(d.began) >= atOnce {
		d.ctl.SetWriteDeadline(now.Add(stallTime))
	}
	if reads {
		d.ctl.SetReadDeadline(now.Add(restTime))
	}
}

// writer is the way to the client.
type writer struct {
	http.ResponseWriter
	deadlines deadlines
	reads     bool          // something of the request's body is left
	expects   bool          // reading it may wait for the client to take our "100 Continue"
	begun     bool          // the header was sent
	clock     *clock        // tells the header Date; nil: net/http does
	down      *atomic.Int64 // counts bytes; nil: nobody does
	corked    *corked       // nil: net/http writes an answer's header with its body, or there is no TLS
}

func newWriter(rw http.ResponseWriter, r *http.Request) *writer {
	w := &writer{ResponseWriter: rw}
	d := &w.deadlines
	d.ctl, d.began = *http.NewResponseController(rw), time.Now()
	d.mu.Lock() // expire is called by another goroutine
	defer d.mu.Unlock()
	d.due, d.timer = d.began.Add(atOnce), time.AfterFunc(atOnce, d.expire)
	srv, ok := r.Context().Value(http.ServerContextKey).(*http.Server)
	d.stands = ok && srv.WriteTimeout == stallTime
	if r.ProtoMajor == 1 {
		w.reads, w.expects = r.ContentLength != 0, r.Header.Get("Expect") != ""
		if !d.stands {
			d.ctl.SetWriteDeadline(time.Time{}) // the last request's
		}
	}
	return w
}

func (w *writer) WriteHeader(status int) {
	w.begun = true
	if w.clock != nil {
		w.Header()["Date"] = w.clock.date()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(b []byte) (int, error) {
	w.begun = true
	w.deadlines.write(stallTime)
	n, err := w.ResponseWriter.Write(b)
	w.deadlines.write(0)
	if w.down != nil {
		w.down.Add(int64(n))
	}
	return n, err
}

func (w *writer) finish() { w.deadlines.finish(w.reads) }

// body reads a request's body.
type body struct {
	from io.Reader
	w    *writer // to the client whose body it is
	up   *atomic.Int64
	over atomic.Bool // all was read, or as much as can be
}

func (b *body) Read(p []byte) (int, error) {
	b.w.deadlines.read(stallTime)
	if b.w.expects {
		b.w.deadlines.write(stallTime)
	}
	n, err := b.from.Read(p)
	b.w.deadlines.read(0)
	if b.w.expects {
		b.w.deadlines.write(0)
		b.w.expects = false
	}
	b.up.Add(int64(n))
	if err != nil {
		b.over.Store(true)
	}
	if err == io.EOF {
		b.w.reads = false // nobody writes meanwhile
	}
	return n, err
}

// Close ends a Read that is under way. What is left of the body stays unread, and the connection closes after the answer.
func (b *body) Close() error {
	if !b.over.Load() {
		b.w.deadlines.stopReading()
		// net/http gives a client that goes on sending half a second to read the answer, if it is told that the body is too large.
		http.MaxBytesReader(b.w.ResponseWriter, io.NopCloser(strings.NewReader("x")), 0).Read(make([]byte, 1))
	}
	return nil
}
