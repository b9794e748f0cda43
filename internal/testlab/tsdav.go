package testlab

import (
	"os"
	"path/filepath"
	"testing"
)

// TSDAV is the folder from which Node loads tsdav, where test.sh puts it.
func TSDAV(t testing.TB) string {
	t.Helper()
	Need(t, "node")
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "postern-test/tsdav")
	if _, err := os.Stat(filepath.Join(dir, "node_modules/tsdav")); err != nil {
		const text = "tsdav is missing; ./test.sh fetches it: %v"
		if full() {
			t.Fatalf(text, err)
		}
		t.Skipf(text, err)
	}
	return dir
}
