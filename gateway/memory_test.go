package gateway

import (
	"testing"
	"time"
)

func TestMemoryIsReleasedWhenABurstIsOver(t *testing.T) {
	const burst = quietBytes + 1
	var r releaser
	now, total := time.Unix(0, 0), uint64(0)
	for i, tt := range []struct {
		grown uint64
		want  bool
	}{
		{1000, false},                // nothing happened
		{burst, false}, {1000, true}, // over
		{1000, false},                 // nothing since
		{burst, false}, {1000, false}, // too soon after the last one
		{1000, false}, {1000, false}, {1000, true}, // a minute after it
		{burst, false}, {burst, false}, {burst, false}, {burst, false}, {burst, false}, {burst, false}, {quietBytes, true},
	} {
		now, total = now.Add(10*time.Second), total+tt.grown
		if got := r.due(now, total); got != tt.want {
			t.Errorf("step %d: due = %v, want %v", i, got, tt.want)
		}
	}
	if before := allocated(); before == 0 || allocated() < before {
		t.Error("what is allocated can't be told")
	}
}
