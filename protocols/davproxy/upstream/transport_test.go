package upstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// slow yields a byte now and then.
type slow struct{ pauses []time.Duration }

func (s *slow) Read(p []byte) (int, error) {
	if len(s.pauses) == 0 {
		return 0, io.EOF
	}
	time.Sleep(s.pauses[0])
	s.pauses = s.pauses[1:]
	return copy(p, "x"), nil
}

// TestOnlyTheBackendsTimeCounts: a backend may do nothing for a minute, the client and whoever reads as long as they like.
func TestOnlyTheBackendsTimeCounts(t *testing.T) {
	const limit, soon, late = time.Minute, 59 * time.Second, 61 * time.Second
	type pauses = []time.Duration
	for name, tt := range map[string]struct {
		client, takes, answers, reader pauses // the client writes, the backend takes and answers, our reader rests
		want                           error
		after                          time.Duration // when the error comes
	}{
		"all are quick":               {},
		"the client is slow":          {client: pauses{late, late, late}},
		"each step in time":           {client: pauses{soon, soon}, takes: pauses{soon, soon}, answers: pauses{soon, soon, soon, soon}},
		"the reader is slow":          {answers: pauses{0, soon, soon}, reader: pauses{late, late}},
		"it does not take a body":     {client: pauses{0, 0}, takes: pauses{late}, want: ErrStalled, after: limit},
		"it stops to take it":         {client: pauses{0, 0}, takes: pauses{soon, late}, want: ErrStalled, after: soon + limit},
		"it does not answer":          {answers: pauses{late}, want: ErrStalled, after: limit},
		"it stops in the answer":      {answers: pauses{0, soon, late}, want: ErrStalled, after: soon + limit},
		"it stops after a slow start": {client: pauses{late}, answers: pauses{soon, late}, want: ErrStalled, after: late + soon + limit},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				var backend sync.WaitGroup
				defer backend.Wait()
				defer theirs.Close()
				defer ours.Close()
				backend.Go(func() {
					r := bufio.NewReader(theirs)
					for line := ""; line != "\r\n"; { // a chunk is three lines, the last one two
						line, _ = r.ReadString('\n')
					}
					for line := ""; line != "0\r\n"; {
						if len(tt.takes) > 0 {
							time.Sleep(tt.takes[0])
							tt.takes = tt.takes[1:]
						}
						var err error
						if line, err = r.ReadString('\n'); err != nil {
							return
						}
						io.CopyN(io.Discard, r, 2)
						if line != "0\r\n" {
							io.CopyN(io.Discard, r, 1)
						}
					}
					if len(tt.answers) == 0 {
						tt.answers = pauses{0}
					}
					time.Sleep(tt.answers[0])
					fmt.Fprintf(theirs, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(tt.answers)-1)
					io.Copy(theirs, &slow{tt.answers[1:]})
				})
				u := New(limit, func(context.Context) (net.Conn, error) { return ours, nil })
				defer u.Close()
				req, err := http.NewRequestWithContext(t.Context(), "PUT", "http://backend/", &slow{pauses: tt.client})
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				resp, err := u.RoundTrip(req)
				if err == nil {
					defer resp.Body.Close()
				}
				for err == nil {
					if _, err = resp.Body.Read(make([]byte, 1)); err == nil && len(tt.reader) > 0 {
						time.Sleep(tt.reader[0])
						tt.reader = tt.reader[1:]
					}
				}
				if !errors.Is(err, tt.want) && (tt.want != nil || err != io.EOF) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				if after := time.Since(began); tt.want != nil && after != tt.after {
					t.Errorf("after %v, want %v", after, tt.after)
				}
			})
		})
	}
}

// TestIdleConnectionsAreClosed after a time, and at the end.
func TestIdleConnectionsAreClosed(t *testing.T) {
	for name, tt := range map[string]struct {
		act  func(*Transport)
		want time.Duration
	}{"unused": {func(*Transport) {}, idleTime}, "closed": {(*Transport).Close, 0}} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			ended := make(chan time.Time, 1)
			go func() {
				req, err := http.ReadRequest(bufio.NewReader(theirs))
				if err != nil || req.Method != "DELETE" {
					t.Errorf("%s: %v", name, err)
				}
				fmt.Fprint(theirs, "HTTP/1.1 204 x\r\n\r\n")
				theirs.Read(make([]byte, 1))
				ended <- time.Now()
			}()
			u := New(time.Minute, func(context.Context) (net.Conn, error) { return ours, nil })
			req, err := http.NewRequestWithContext(t.Context(), "DELETE", "http://backend/", nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := u.RoundTrip(req); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			tt.act(u)
			if d := (<-ended).Sub(began); d != tt.want {
				t.Errorf("%s: closed after %v, want %v", name, d, tt.want)
			}
		})
	}
}

// revoking is a body whose request is ended while its last bytes are read.
type revoking struct {
	io.Reader
	end func()
}

func (b *revoking) Read(p []byte) (int, error) {
	b.end()
	return b.Reader.Read(p)
}

func (*revoking) Close() error { return nil }

// TestARequestThatEndedIsNotSent, although a connection is ready for it.
func TestARequestThatEndedIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		sent := make(chan string, 10)
		go func() {
			for r := bufio.NewReader(theirs); ; {
				req, err := http.ReadRequest(r)
				if err != nil {
					close(sent)
					return
				}
				sent <- req.Method
				io.Copy(io.Discard, req.Body)
				fmt.Fprint(theirs, "HTTP/1.1 204 x\r\n\r\n")
			}
		}()
		u := New(time.Minute, func(context.Context) (net.Conn, error) { return ours, nil })
		revoked := errors.New("revoked")
		ask := func(method string, end func(context.CancelCauseFunc)) error {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			req, err := http.NewRequestWithContext(ctx, method, "http://backend/", &revoking{strings.NewReader("x"), func() { end(cancel) }})
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = 1
			_, err = u.RoundTrip(req)
			return err
		}
		if err := ask("POST", func(context.CancelCauseFunc) {}); err != nil {
			t.Fatal(err)
		}
		if err := ask("PUT", func(cancel context.CancelCauseFunc) { cancel(revoked) }); err != revoked {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		u.Close()
		for method := range sent {
			if method != "POST" {
				t.Errorf("%s was sent", method)
			}
		}
	})
}

// answering is a backend behind a pipe that answers each request with the same words. gone is closed when it has been left.
func answering(words string) (ours net.Conn, gone chan struct{}) {
	ours, theirs := net.Pipe()
	gone = make(chan struct{})
	go func() {
		defer close(gone)
		defer theirs.Close()
		for r := bufio.NewReader(theirs); ; {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			io.WriteString(theirs, words)
		}
	}()
	return ours, gone
}

// TestConnectionsThatAreNotKept, although their answers are whole.
func TestConnectionsThatAreNotKept(t *testing.T) {
	for name, end := range map[string]func(u *Transport, cancel func()){
		"the request was ended": func(_ *Transport, cancel func()) { cancel() },
		"the pool was closed":   func(u *Transport, _ func()) { u.Close() },
		"there are enough":      func(u *Transport, _ func()) { u.idle = make([]*link, maxIdle) },
	} {
		synctest.Test(t, func(t *testing.T) {
			ours, gone := answering("HTTP/1.1 200 x\r\nContent-Length: 5\r\n\r\nhello")
			u := New(time.Minute, func(context.Context) (net.Conn, error) { return ours, nil })
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, "GET", "http://backend/", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := u.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			end(u, cancel)
			synctest.Wait()
			io.Copy(io.Discard, resp.Body) // it came with the header
			synctest.Wait()
			select {
			case <-gone:
			default:
				t.Errorf("%s: the connection is open", name)
			}
			ours.Close()
		})
	}
}

// TestABodyThatEndsEarly is not waited for, nor taken for whole.
func TestABodyThatEndsEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, gone := answering("HTTP/1.1 201 x\r\nContent-Length: 0\r\n\r\n")
		u := New(time.Minute, func(context.Context) (net.Conn, error) { return ours, nil })
		req, err := http.NewRequestWithContext(t.Context(), "PUT", "http://backend/", io.NopCloser(bytes.NewReader(make([]byte, maxAtOnce))))
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = maxAtOnce + 1
		began := time.Now()
		resp, err := u.RoundTrip(req)
		if _, ok := errors.AsType[*BodyError](err); !ok || time.Since(began) > 0 {
			t.Errorf("got %v, %v after %v", resp, err, time.Since(began))
		}
		<-gone
	})
}

// TestACutStays: whoever moves a deadline must not take back that a request has ended.
func TestACutStays(t *testing.T) {
	for name, act := range map[string]func(l *link){
		"begin": (*link).begin,
		"send":  (*link).send,
		"sent":  func(l *link) { l.send(); l.sent(nil) },
		"read":  func(l *link) { l.Read(make([]byte, 1)) },
		"write": func(l *link) { l.write([]byte("x")) },
	} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer theirs.Close()
			defer ours.Close()
			l := newLink(ours, time.Minute)
			l.begin()
			time.Sleep(time.Minute / 2)
			l.cut()
			began := time.Now()
			act(l)
			_, errRead := l.Read(make([]byte, 1))
			_, errWrite := l.write([]byte("x"))
			if waited := time.Since(began); waited > 0 || !isTimeout(errRead) || !isTimeout(errWrite) {
				t.Errorf("%s: %v, %v after %v", name, errRead, errWrite, waited)
			}
		})
	}
}

// TestSendingThatWasStoppedStays so while the answer is read.
func TestSendingThatWasStoppedStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		defer ours.Close()
		l := newLink(ours, time.Minute)
		l.begin()
		l.send()
		time.Sleep(time.Minute / 2)
		began := time.Now()
		if !l.stopSending() {
			t.Error("there was nothing to stop")
		}
		if _, err := l.write([]byte("x")); !isTimeout(err) || time.Since(began) > 0 {
			t.Errorf("writing ended with %v after %v", err, time.Since(began))
		}
		go func() {
			time.Sleep(time.Minute - time.Second)
			io.WriteString(theirs, "x")
		}()
		l.sent(io.ErrClosedPipe)
		if _, err := l.Read(make([]byte, 1)); err != nil {
			t.Errorf("reading ended with %v", err)
		}
		if whole, _ := l.outcome(); whole {
			t.Error("it counts as whole")
		}
	})
}

// TestAnAnswerThatIsLeft takes its connection along: the rest may come any time.
func TestAnAnswerThatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, gone := answering("HTTP/1.1 200 x\r\nContent-Length: 5\r\n\r\nhe")
		u := New(time.Minute, func(context.Context) (net.Conn, error) { return ours, nil })
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://backend/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := u.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		io.CopyN(io.Discard, resp.Body, 2)
		resp.Body.Close()
		if len(u.idle) > 0 {
			t.Error("it is kept")
		}
		ours.Close()
		<-gone
	})
}

// TestABackendThatStalls is not asked again over another connection: that would take as long again.
func TestABackendThatStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		ours, theirs := net.Pipe()
		go func() {
			r := bufio.NewReader(theirs)
			for {
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				if asked++; asked == 1 {
					io.WriteString(theirs, "HTTP/1.1 204 x\r\n\r\n")
				}
			}
		}()
		dialled := 0
		u := New(time.Minute, func(context.Context) (net.Conn, error) {
			if dialled++; dialled > 1 {
				return nil, errors.New("dialled again")
			}
			return ours, nil
		})
		for _, want := range []error{nil, ErrStalled} {
			req, err := http.NewRequestWithContext(t.Context(), "GET", "http://backend/", nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := u.RoundTrip(req); err != want {
				t.Errorf("got %v, want %v", err, want)
			}
		}
	})
}

// TestARefusalThatStalls while a body was being sent: the wait for its rest is bounded like any other.
func TestARefusalThatStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		go func() {
			if _, err := http.ReadRequest(bufio.NewReader(theirs)); err == nil {
				io.WriteString(theirs, "HTTP/1.1 413 x\r\nContent-Length: 5\r\n\r\nhe")
			}
		}()
		u := New(time.Minute, func(context.Context) (net.Conn, error) { return ours, nil })
		client, _ := io.Pipe() // it says nothing
		req, err := http.NewRequestWithContext(t.Context(), "PUT", "http://backend/", client)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := u.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		began := time.Now()
		if _, err := io.ReadAll(resp.Body); !errors.Is(err, ErrStalled) || time.Since(began) != time.Minute {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
	})
}
