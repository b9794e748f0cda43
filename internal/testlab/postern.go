package testlab

import (
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Postern builds the program, with the race detector if the test has it, and returns its path. It is built once for all tests of a run.
func Postern(t testing.TB) string {
	t.Helper()
	program, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// raceless are packages of others, and slow ones, that the race detector does not look into. What is handed to them it sees. test.sh names them too.
var raceless = []string{"modernc.org/sqlite/lib", "modernc.org/libc/...", "golang.org/x/crypto/argon2", "golang.org/x/crypto/blake2b"}

var built = sync.OnceValues(func() (string, error) {
	env, err := exec.Command("go", "env", "GOMOD", "GOCACHE").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	mod, cache, _ := strings.Cut(strings.TrimSpace(string(env)), "\n")
	root := filepath.Dir(mod)
	if err := noteSources(root); err != nil {
		return "", err
	}
	args, name := []string{"build", "-buildvcs=false"}, "postern" // a checkout may belong to another user, which git refuses
	if raceEnabled() {
		args, name = append(args, "-race"), "postern-race"
		for _, pkg := range raceless {
			args = append(args, "-gcflags="+pkg+"=-race=false")
		}
	}
	hash := fnv.New64a()
	hash.Write([]byte(root)) // several checkouts may be tested at once
	program := filepath.Join(cache, "testlab", fmt.Sprintf("%x", hash.Sum64()), name)
	unlock, err := lockFile(program + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	cmd := exec.Command("go", append(args, "-o", program, ".")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return program, nil
})

// raceEnabled tells whether this test program was built with the race detector.
func raceEnabled() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && hasRace(info)
}

func hasRace(info *debug.BuildInfo) bool {
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// noteSources looks at all sources of the module. go test gives the last result again while nothing has changed that the test looked at; what
// its program is built from has to be among it.
func noteSources(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		return err
	})
}

// lockFile keeps the tests of other packages from building at the same time.
func lockFile(file string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
