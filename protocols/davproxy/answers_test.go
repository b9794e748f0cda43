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
		s := New(Options{})
		for range 8 {
			h := make(http.Header)
			s.guard(h)
			if got, want := h.Get("Date"), time.Now().UTC().Format(http.TimeFormat); got != want {
				t.Errorf("Date = %q, want %q", got, want)
			}
			time.Sleep(400 * time.Millisecond)
		}
	})
}
