package davproxy

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// TestDate: what is kept of the time is never older than the second that the header can tell.
func TestDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c clock
		for range 8 {
			if got, want := c.date(), time.Now().UTC().Format(http.TimeFormat); len(got) != 1 || got[0] != want {
				t.Errorf("date = %q, want %q", got, want)
			}
			time.Sleep(400 * time.Millisecond)
		}
	})
}

// Whatever a browser might show is guarded.
func TestGuard(t *testing.T) {
	t.Parallel()
	for method, want := range map[string]int{"GET": 3, "HEAD": 3, "POST": 3, "PROPFIND": 0, "REPORT": 0, "PUT": 0, "OPTIONS": 0, "get": 0} {
		h := make(http.Header)
		if guard(method, h); len(h) != want {
			t.Errorf("%s: %v, want %d headers", method, h, want)
		}
	}
}
