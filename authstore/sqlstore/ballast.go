package sqlstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

// ballast is a file that only takes up room. SQLite needs room even for an UPDATE, so on a full disk nobody could revoke;
// giving the ballast up makes that room. The gateway keeps it, and whoever revokes may give it up.
type ballast struct {
	path string
	mu   sync.Mutex // guards the file
}

// fill makes the file if it is not there in this size. Its blocks are really written: a hole would free nothing.
func (b *ballast) fill(size int64) error {
	if size == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if info, err := os.Stat(b.path); err == nil && info.Size() >= size {
		return nil
	}
	f, err := os.OpenFile(b.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 1<<16)
	for left := size; left > 0; left -= int64(len(block)) {
		if _, err := f.Write(block[:min(left, int64(len(block)))]); err != nil {
			os.Remove(b.path) // half a ballast would leave even less room
			return fmt.Errorf("ballast of %d bytes: %w", size, err)
		}
	}
	return f.Sync()
}

// free gives the room up and reports whether there was any.
func (b *ballast) free() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := os.Remove(b.path)
	return err == nil || !errors.Is(err, fs.ErrNotExist) && os.Truncate(b.path, 0) == nil
}
