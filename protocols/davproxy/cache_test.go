package davproxy

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestCache: what is remembered dies, and clients who ask for much fill no memory.
func TestCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c cache[int, string]
		c.put(1, "a", time.Minute)
		time.Sleep(time.Minute)
		if got, ok := c.get(1); !ok || got != "a" {
			t.Errorf("in its last moment: %q, %t", got, ok)
		}
		time.Sleep(time.Nanosecond)
		if got, ok := c.get(1); ok || got != "" {
			t.Errorf("when it is dead: %q", got)
		}
		for i := range 2 * maxCache {
			c.put(i, "b", time.Minute)
		}
		if got, ok := c.get(2*maxCache - 1); len(c.entries) != maxCache || !ok || got != "b" {
			t.Errorf("%d entries are held; the last is %q", len(c.entries), got)
		}
	})
}
