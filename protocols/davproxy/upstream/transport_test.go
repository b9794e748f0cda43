package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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
	}{
		"all are quick":               {},
		"the client is slow":          {client: pauses{late, late, late}},
		"each step in time":           {client: pauses{soon, soon}, takes: pauses{soon, soon}, answers: pauses{soon, soon, soon, soon}},
		"the reader is slow":          {answers: pauses{0, soon, soon}, reader: pauses{late, late}},
		"it does not take a body":     {client: pauses{0, 0}, takes: pauses{late}, want: ErrStalled},
		"it stops to take it":         {client: pauses{0, 0}, takes: pauses{soon, late}, want: ErrStalled},
		"it does not answer":          {answers: pauses{late}, want: ErrStalled},
		"it stops in the answer":      {answers: pauses{0, soon, late}, want: ErrStalled},
		"it stops after a slow start": {client: pauses{late}, answers: pauses{soon, late}, want: ErrStalled},
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
