// Package testlab gives a test real servers, certificates, sample data and client programs: what Postern stands between.
//
// Each function starts processes of its own, on free loopback ports, in a folder of its own, returns when they answer, and ends and removes them
// with the test. So tests run in parallel and see nothing of each other. A server's log is printed when its test fails.
// Only tests import it.
package testlab

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// The site that every server of the lab knows: three users, the same everywhere.
const (
	Alice = "alice@example.test"
	Bob   = "bob@example.test"
	Carol = "carol@example.test"
)

var users = []string{Alice, Bob, Carol}

// Primary is the primary password of one of the lab's users, which no app and no front door should ever take.
func Primary(user string) string { return "primary-of-" + user }

// keeperScript runs beside each test program that starts servers. Its input ends when the test program does, however that comes about: a panic, the
// time limit of go test, kill -9. Then it kills every process group that is left and removes the folder.
const keeperScript = `
groups=
while read -r verb group; do
	case $verb in
	started) groups="$groups $group" ;;
	ended)
		rest=
		for g in $groups; do [ "$g" = "$group" ] || rest="$rest $g"; done
		groups=$rest ;;
	esac
done
for g in $groups; do kill -s KILL -- "-$g"; done
rm -rf -- "$1"
`

type keeper struct {
	root string // of all folders; short, since a Unix socket's name has at most 107 bytes, and open to daemons of other users

	mu   sync.Mutex // guards tell
	tell io.Writer
}

var lab = sync.OnceValues(func() (*keeper, error) {
	root, err := os.MkdirTemp("/tmp", "postern-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(root, 0o755); err != nil {
		return nil, err
	}
	cmd := exec.Command("/bin/sh", "-c", keeperScript, "keeper", root)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a Ctrl-C is for the tests; the keeper cleans up after them
	tell, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &keeper{root: root, tell: tell}, nil
})

func (k *keeper) say(verb string, group int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	fmt.Fprintf(k.tell, "%s %d\n", verb, group)
}

// Dir makes a folder that daemons of other users can reach too, short enough for Unix sockets. It is removed with the test.
func Dir(t testing.TB) string {
	t.Helper()
	k, err := lab()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(k.root, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Ports reserves n loopback ports for a test, for servers that set SO_REUSEADDR, as Go's and all of the lab's do. They lie below the range of
// outgoing connections, and above the last that browsers refuse (10080). Nobody else gets one, also while its server is down: a socket stays
// bound to each, but does not listen.
func Ports(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	for range 1000 {
		if len(ports) == n {
			return ports
		}
		port := 10081 + rand.IntN(21900)
		release, err := reserve(port)
		if err != nil {
			continue
		}
		t.Cleanup(release)
		ports = append(ports, port)
	}
	t.Fatalf("reserve %d ports on 127.0.0.1: in 1000 tries found free only %v", n, ports)
	return nil
}

// reserve binds without SO_REUSEADDR, which fails if anybody else is bound to the port, and then allows others to bind, which only those can who
// set it themselves and were told the port.
func reserve(port int) (release func(), err error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	err = syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	if err == nil {
		err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	}
	if err != nil {
		syscall.Close(fd)
		return nil, err
	}
	return func() { syscall.Close(fd) }, nil
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func write(t testing.TB, text string, path ...string) string {
	t.Helper()
	file := filepath.Join(path...)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
