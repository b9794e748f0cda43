package sqlstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

// ballast is a file that only takes up room. SQLite needs room even for an UPDATE, so on a full disk nobody could revoke;
// giving the ballast up makes that room.
type ballast struct {
	path string
	size int64
	mu   sync.Mutex // guards the file
}

// fill makes the file if it is not there. Its blocks are really written: a hole would free nothing.
func (b *ballast) fill() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if info, err := os.Stat(b.path); err == nil && info.Size() >= b.size {
		return nil
	}
	f, err := os.OpenFile(b.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 1<<16)
	for left := b.size; left > 0; left -= int64(len(block)) {
		if _, err := f.Write(block[:min(left, int64(len(block)))]); err != nil {
			os.Remove(b.path) // half a ballast would leave even less room
			return fmt.Errorf("ballast of %d bytes: %w", b.size, err)
		}
	}
	return f.Sync()
}

// free gives the room up and reports whether there was any.
func (b *ballast) free() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	err := os.Remove(b.path)
	return err == nil || !errors.Is(err, fs.ErrNotExist) && os.Truncate(b.path, 0) == nil
}
