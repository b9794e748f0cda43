package davproxy

import (
	"net/http"
	"sync"
	"sync/atomic"
)

const (
	// stackRoom is about what a request needs of a stack, in bytes.
	stackRoom = 6 << 10
	// maxWaiting bounds the workers that wait for a request.
	maxWaiting = 32
)

// workers answer requests on goroutines that are kept. On HTTP/2 net/http makes one for each, whose stack must grow first: 2 of a PROPFIND's
// 50 us, of which handing it over takes a third.
type workers struct {
	handle  func(*conn, http.ResponseWriter, *http.Request)
	jobs    chan *job
	spare   sync.Pool // of jobs
	waiting atomic.Int32
}

// job is one request.
type job struct {
	conn     *conn
	w        http.ResponseWriter
	r        *http.Request
	answered chan any // the value of a panic; nil: there was none
}

func newWorkers(handle func(*conn, http.ResponseWriter, *http.Request)) *workers {
	return &workers{
		handle: handle,
		jobs:   make(chan *job),
		spare:  sync.Pool{New: func() any { return &job{answered: make(chan any, 1)} }},
	}
}

// answer has a request handled, and returns or panics as the handler does.
func (ws *workers) answer(c *conn, w http.ResponseWriter, r *http.Request) {
	j := ws.spare.Get().(*job)
	j.conn, j.w, j.r = c, w, r
	select {
	case ws.jobs <- j:
	default:
		go ws.work(j)
	}
	panicked := <-j.answered
	*j = job{answered: j.answered}
	ws.spare.Put(j)
	if panicked != nil {
		panic(panicked)
	}
}

func (ws *workers) work(j *job) {
	growStack(0)
	for j != nil {
		ws.run(j)
		if ws.waiting.Add(1) > maxWaiting {
			ws.waiting.Add(-1)
			return
		}
		j = <-ws.jobs
		ws.waiting.Add(-1)
	}
}

func (ws *workers) run(j *job) {
	defer func() { j.answered <- recover() }()
	ws.handle(j.conn, j.w, j.r)
}

// end lets the workers go. Nobody may ask them any more.
func (ws *workers) end() { close(ws.jobs) }

// growStack makes room on the stack at once: the deeper we are when it runs out, the more there is to copy and to mend.
//
//go:noinline
func growStack(i byte) byte {
	var room [stackRoom]byte
	room[i]++
	return room[0]
}
