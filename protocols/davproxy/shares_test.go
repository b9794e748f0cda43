package davproxy

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
)

func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShares()
		var first func()
		for range maxLarge {
			done, err := s.turn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			first = done
		}
		if _, err := s.turn(t.Context()); !errors.Is(err, errBusy) {
			t.Errorf("one too many: %v", err)
		}
		first()
		if _, err := s.turn(t.Context()); err != nil {
			t.Errorf("after one is done: %v", err)
		}
	})
}

// Only a large item needs its turn, and needs it once.
func TestLargeItemsWaitForTheirTurn(t *testing.T) {
	for size, want := range map[int]int{10 << 10: 0, 3 << 20: 1} {
		asked := 0
		tokens := newTokenizer(strings.NewReader("<a>" + strings.Repeat("x", size) + "</a>"))
		tokens.turn = func() error { asked++; return nil }
		for {
			if _, err := tokens.next(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if asked != want {
			t.Errorf("an item of %d bytes asked %d times, want %d", size, asked, want)
		}
	}
	tokens := newTokenizer(strings.NewReader("<a>" + strings.Repeat("x", 3<<20) + "</a>"))
	tokens.turn = func() error { return errBusy }
	var err error
	for err == nil {
		_, err = tokens.next()
	}
	if !errors.Is(err, errBusy) {
		t.Errorf("without a turn: %v", err)
	}
}
