package davproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is a connection's both ends.
func pair(t *testing.T) (ours, theirs *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	peer, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close(); peer.Close() })
	return nc.(*net.TCPConn), peer.(*net.TCPConn)
}

// arrived tells how many bytes are there to be read. On loopback what is sent is there when sending has ended.
func arrived(t *testing.T, nc *net.TCPConn) int {
	t.Helper()
	raw, err := nc.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if errCtl := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); errCtl != nil || err != nil {
		t.Fatal(errCtl, err)
	}
	return n
}

var past = time.Now().Add(-time.Second)

// What is kept back comes with the next write, or by itself, and nothing is that may be the last for a while.
func TestCorked(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		body  int
		write string
		kept  bool
	}{
		"no body is known":        {0, "header", false},
		"a body follows":          {100, "header", true},
		"the body may be in here": {5, "header", false},
		"the body is as long":     {6, "header", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, theirs := pair(t)
			c := newCorked(ours)
			if tt.body > 0 {
				c.bodyFollows(tt.body)
			}
			if n, err := c.Write([]byte(tt.write)); n != len(tt.write) || err != nil {
				t.Fatalf("Write = %d, %v", n, err)
			}
			if n := arrived(t, theirs); n != len(tt.write) && !tt.kept || n != 0 && tt.kept {
				t.Errorf("%d bytes have arrived", n)
			}
			if _, err := c.Write([]byte("body")); err != nil {
				t.Fatal(err)
			}
			if n := arrived(t, theirs); n != len(tt.write)+4 {
				t.Errorf("%d bytes have arrived in the end", n)
			}
			c.bodyFollows(tt.body)
			c.Write([]byte(tt.write)) // nothing follows it
			theirs.SetReadDeadline(time.Now().Add(10 * time.Second))
			if got, err := io.ReadAll(io.LimitReader(theirs, int64(2*len(tt.write)+4))); string(got) != tt.write+"body"+tt.write {
				t.Errorf("read %q, %v", got, err)
			}
		})
	}
}

// What does not fit waits for the peer, or for its deadline, and says how much of it went.
func TestCorkedStalls(t *testing.T) {
	t.Parallel()
	ours, theirs := pair(t)
	c := newCorked(ours)
	const size, taken = 64 << 20, 1 << 20 // more than the system holds
	read := make(chan error, 1)
	go func() {
		theirs.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, err := io.CopyN(io.Discard, theirs, taken)
		read <- err
	}()
	ours.SetWriteDeadline(time.Now().Add(time.Second))
	c.bodyFollows(size)
	if n, err := c.Write([]byte("header")); n != 6 || err != nil {
		t.Errorf("the header: Write = %d, %v", n, err)
	}
	if n, err := c.Write([]byte(strings.Repeat("x", size))); !errors.Is(err, os.ErrDeadlineExceeded) || n < taken-6 || n >= size {
		t.Errorf("the body: Write = %d, %v", n, err)
	}
	if err := <-read; err != nil {
		t.Errorf("read: %v", err)
	}
}

// What was kept back and can't be sent fails the next write, and all after it: they would follow a gap.
func TestCorkedFails(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil func(*net.TCPConn)
		mend  func(*net.TCPConn)
		want  error
	}{
		"a deadline":         {func(nc *net.TCPConn) { nc.SetWriteDeadline(past) }, func(nc *net.TCPConn) { nc.SetWriteDeadline(time.Time{}) }, os.ErrDeadlineExceeded},
		"it has been closed": {func(nc *net.TCPConn) { nc.Close() }, func(*net.TCPConn) {}, net.ErrClosed},
	} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", late ", late), func(t *testing.T) {
				t.Parallel()
				ours, _ := pair(t)
				c := newCorked(ours)
				c.bodyFollows(100)
				tt.spoil(ours)
				if n, err := c.Write([]byte("header")); n != 6 || err != nil {
					t.Errorf("the header: Write = %d, %v", n, err)
				}
				if late {
					for range 1000 {
						c.mu.Lock()
						waits := c.held != nil
						c.mu.Unlock()
						if !waits {
							break
						}
						time.Sleep(lateTime)
					}
				}
				for i := range 2 {
					if n, err := c.Write([]byte("body")); n != 0 || !errors.Is(err, tt.want) {
						t.Errorf("write %d of the body: Write = %d, %v", i, n, err)
					}
					tt.mend(ours)
				}
			})
		}
	}
}

// What is too long to be copied goes behind what was kept back.
func TestCorkedLong(t *testing.T) {
	t.Parallel()
	for _, size := range []int{maxJoined - 6, maxJoined - 5, 1 << 20} {
		ours, theirs := pair(t)
		c := newCorked(ours)
		c.bodyFollows(size)
		body := strings.Repeat("x", size)
		go func() {
			c.Write([]byte("header"))
			if n, err := c.Write([]byte(body)); n != size || err != nil {
				t.Errorf("%d bytes: Write = %d, %v", size, n, err)
			}
			ours.Close()
		}()
		theirs.SetReadDeadline(time.Now().Add(10 * time.Second))
		if got, err := io.ReadAll(theirs); string(got) != "header"+body || err != nil {
			t.Errorf("%d bytes: %d have arrived, %v", size, len(got), err)
		}
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
		ours, theirs := pair(t)
		w := newWriter(&sink{h: make(http.Header)}, r)
		defer w.finish()
		w.corked = newCorked(ours)
		w.deadlines.watch(client, func(error) {})
		if !waits {
			leave()
		}
		(&statusWriter{w: w, status: http.StatusMultiStatus}).whole(100)
		w.corked.Write([]byte("header"))
		if n := arrived(t, theirs); (n == 0) != waits {
			t.Errorf("who %s: %d bytes have arrived", name, n)
		}
	}
}
