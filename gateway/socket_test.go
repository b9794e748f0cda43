package gateway

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSocketOutlivesItsServers(t *testing.T) {
	for name, address := range map[string]string{
		"tcp":  "127.0.0.1:0",
		"unix": "unix:" + filepath.Join(t.TempDir(), "s"),
	} {
		t.Run(name, func(t *testing.T) {
			s, err := listen(t.Context(), address)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			first, err := s.lease()
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error)
			go func() {
				_, err := first.Accept()
				ended <- err
			}()
			first.Close()
			first.Close()
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept after Close = %v, want net.ErrClosed", err)
			}
			client, err := net.Dial(first.Addr().Network(), first.Addr().String()) // waits in the queue
			if err != nil {
				t.Fatalf("between two servers: %v", err)
			}
			defer client.Close()
			second, err := s.lease()
			if err != nil {
				t.Fatal(err)
			}
			c, err := second.Accept()
			if err != nil {
				t.Fatalf("the next server's Accept = %v", err)
			}
			c.Close()
		})
	}
}

func TestListenOnAFileThatIsThere(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(t.Context(), "unix:"+plain); err == nil || !strings.Contains(err.Error(), "no socket is there") {
		t.Errorf("over a plain file: %v", err)
	}
	path := filepath.Join(dir, "s")
	s, err := listen(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listen(t.Context(), "unix:"+path); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("over a live socket: %v", err)
	}
	s.ln.(*net.UnixListener).SetUnlinkOnClose(false)
	s.Close()
	again, err := listen(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatalf("over a socket left behind: %v", err)
	}
	again.Close()
}
