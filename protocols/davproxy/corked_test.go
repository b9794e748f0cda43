package davproxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// tape keeps what is written to it.
type tape struct {
	net.Conn
	writes []string
	at     time.Time // of the last
	err    error     // of the next write; those after it succeed
	taken  int       // how many bytes of that one went
}

func (t *tape) Write(p []byte) (int, error) {
	if err := t.err; err != nil {
		t.err = nil
		return t.taken, err
	}
	t.writes, t.at = append(t.writes, string(p)), time.Now()
	return len(p), nil
}

// What is kept back goes with the next write, and nothing is that may be the last for a while.
func TestCorked(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxJoined)
	for name, tt := range map[string]struct {
		length int // of the body that follows
		write  []string
		want   []string
	}{
		"no body is known":             {0, []string{"header", "body"}, []string{"header", "body"}},
		"a body follows":               {100, []string{"header", "body"}, []string{"headerbody"}},
		"the body may be in here":      {5, []string{"header", "body"}, []string{"header", "body"}},
		"the body is as long":          {6, []string{"header", "body"}, []string{"headerbody"}},
		"both fit":                     {100, []string{"header", long[6:]}, []string{"header" + long[6:]}},
		"the body makes it too long":   {100, []string{"header", long[5:]}, []string{"header", long[5:]}},
		"the header alone is too long": {2 * maxJoined, []string{long + "x"}, []string{long + "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { // where nothing is late
				nc := new(tape)
				c := &corked{Conn: nc}
				c.bodyFollows(tt.length)
				for _, p := range tt.write {
					if n, err := c.Write([]byte(p)); n != len(p) || err != nil {
						t.Errorf("Write of %d bytes = %d, %v", len(p), n, err)
					}
				}
				if !slices.Equal(nc.writes, tt.want) {
					t.Errorf("written: %.20q, want %.20q", nc.writes, tt.want)
				}
			})
		})
	}
}

// What nothing follows goes by itself when its time has come.
func TestCorkedLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		nc := new(tape)
		c := &corked{Conn: nc}
		for range 2 { // the second time with the timer of the first
			nc.writes = nil
			began := time.Now()
			c.bodyFollows(100)
			c.Write([]byte("header"))
			time.Sleep(time.Minute)
			synctest.Wait()
			if took := nc.at.Sub(began); took != lateTime {
				t.Errorf("it went after %v, want %v", took, lateTime)
			}
			c.Write([]byte("body"))
			if want := []string{"header", "body"}; !slices.Equal(nc.writes, want) {
				t.Errorf("written: %q, want %q", nc.writes, want)
			}
		}
	})
}

// What was kept back and can't be sent fails the next write, and all after it.
func TestCorkedFails(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxJoined)
	for name, tt := range map[string]struct {
		body  string
		wait  time.Duration // before the body
		taken int
		want  int
	}{
		"with the body":                {body: "body"},
		"within the header":            {body: "body", taken: 3},
		"within the body":              {body: "body", taken: 8, want: 2},
		"ahead of a long body":         {body: long, taken: 3},
		"by itself":                    {body: "body", wait: lateTime},
		"by itself, within the header": {body: "body", wait: lateTime, taken: 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				gone := errors.New("gone")
				nc := &tape{err: gone, taken: tt.taken}
				c := &corked{Conn: nc}
				c.bodyFollows(100)
				if n, err := c.Write([]byte("header")); n != 6 || err != nil {
					t.Errorf("the header: Write = %d, %v", n, err)
				}
				time.Sleep(tt.wait)
				synctest.Wait()
				if n, err := c.Write([]byte(tt.body)); n != tt.want || err != gone {
					t.Errorf("the body: Write = %d, %v, want %d, %v", n, err, tt.want, gone)
				}
				if n, err := c.Write([]byte("next")); n != 0 || err != gone {
					t.Errorf("the next: Write = %d, %v", n, err)
				}
				if nc.writes != nil {
					t.Errorf("written behind the gap: %.20q", nc.writes)
				}
			})
		})
	}
}

// Of a request that the client has taken back no answer is written: the next one must not wait for it.
func TestCorkedOnlyForWhoWaits(t *testing.T) {
	t.Parallel()
	for name, waits := range map[string]bool{"waits": true, "has taken it back": false} {
		client, leave := context.WithCancel(t.Context())
		defer leave()
		r, err := http.NewRequestWithContext(client, "PROPFIND", "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		w := newWriter(&sink{h: make(http.Header)}, r)
		defer w.finish()
		w.corked = new(corked)
		w.deadlines.watch(client, func(error) {})
		if !waits {
			leave()
		}
		(&statusWriter{w: w, status: http.StatusMultiStatus}).whole(100)
		if length := w.corked.length.Load(); (length == 100) != waits {
			t.Errorf("who %s: a body of %d bytes is said to follow", name, length)
		}
	}
}
