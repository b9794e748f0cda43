package authstore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// written is a truth that takes usage, until it has had enough.
type written struct {
	Truth
	batches [][]Usage
	enough  int // batches; zero: any
}

func (w *written) Used(_ context.Context, batch []Usage) error {
	if w.enough > 0 && len(w.batches) == w.enough {
		return errors.New("disk I/O error")
	}
	w.batches = append(w.batches, batch)
	return nil
}

// Who holds one app password may give himself as many names as he likes: they neither fill the memory nor hold the write lock, and what
// others do is written.
func TestUsageOfOneIsBounded(t *testing.T) {
	now := time.Now()
	w := usage{now: func() time.Time { now = now.Add(time.Millisecond); return now }, waiting: make(map[usageKey]Usage), each: make(map[PasswordID]int)}
	client := netip.MustParseAddr("192.0.2.1")
	for i := range maxUsed {
		w.add(Grant{Account: 1, Password: 1, Client: client}, Use{Protocol: "imap", App: fmt.Sprint("App ", i)})
	}
	w.add(Grant{Account: 2, Password: 2, Client: client}, Use{Protocol: "imap", App: "Mail"})
	store := &written{enough: 1}
	if err := w.flush(t.Context(), store); err == nil {
		t.Fatal("no error")
	}
	store.enough = 0
	if err := w.flush(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]int64)
	for _, batch := range store.batches {
		if len(batch) > usedAtOnce {
			t.Errorf("%d at once, want at most %d", len(batch), usedAtOnce)
		}
		for _, u := range batch {
			seen[u.App] += u.Count
		}
	}
	if len(seen) != maxUsedEach+1 || seen["Mail"] != 1 {
		t.Errorf("%d apps were written, want %d of the one and one of the other", len(seen), maxUsedEach)
	}
	for app, n := range seen {
		if n != 1 {
			t.Errorf("%s was counted %d times", app, n)
		}
	}
	w.add(Grant{Account: 1, Password: 1, Client: client}, Use{Protocol: "imap", App: "another"})
	if len(w.waiting) != 1 {
		t.Error("there is no room after all was written")
	}
}
