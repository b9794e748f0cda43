package davproxy

import (
	"net/http"
	"sync"
	"sync/atomic"
)

// maxWaiting bounds the workers that wait for a request.
const maxWaiting = 32

// workers answer requests on goroutines that are kept. On HTTP/2 net/http makes one for each, whose stack must grow first: of a
// PROPFIND's 50 us that takes 2, and handing it over 1.
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
