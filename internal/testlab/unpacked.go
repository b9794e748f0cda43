package testlab

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// unpacked returns the folder with a server that test.sh unpacks instead of installing its package. It is copied out of the cache, which may be root's own
// while the server never runs as root.
func unpacked(t testing.TB, name string) string {
	t.Helper()
	version, to, err := copyUnpacked(name)
	switch {
	case err == nil && version == "":
		t.Skipf("this Debian has no %s", name)
	case err != nil && full():
		t.Fatalf("%s is missing; ./test.sh fetches it: %v", name, err)
	case err != nil:
		t.Skipf("%s is missing; ./test.sh fetches it: %v", name, err)
	}
	return to
}

// unpacking keeps tests from copying the same at once.
var unpacking sync.Mutex

func copyUnpacked(name string) (version, to string, err error) {
	unpacking.Lock()
	defer unpacking.Unlock()
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", "", err
	}
	k, err := lab()
	if err != nil {
		return "", "", err
	}
	from, to := filepath.Join(cache, "postern-test", name), filepath.Join(k.root, name)
	text, err := os.ReadFile(filepath.Join(from, "version"))
	if err != nil {
		return "", "", err
	}
	if _, err := os.Stat(to); err != nil {
		err = os.CopyFS(to, os.DirFS(from))
		if err != nil {
			return "", "", err
		}
	}
	return strings.TrimSpace(string(text)), to, nil
}
