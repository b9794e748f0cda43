package acceptance

import (
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"postern/internal/testlab"
)

// counted passes connections on to a server, and counts those that are open.
func counted(t *testing.T, server string) (address string, open *atomic.Int64) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	open = new(atomic.Int64)
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				open.Add(1)
				defer open.Add(-1)
				defer nc.Close()
				to, err := net.Dial("tcp", server)
				if err != nil {
					return
				}
				go func() { io.Copy(nc, to); nc.Close() }()
				io.Copy(to, nc)
				to.Close()
			}()
		}
	}()
	return ln.Addr().String(), open
}

// Connections to a backend are kept ready while people log in, and closed by a reload and a shutdown.
func TestSpareConnections(t *testing.T) {
	t.Parallel()
	s, dovecot := newSite(t), testlab.Dovecot(t)
	address, open := counted(t, dovecot.IMAPS)
	s.backend = strings.NewReplacer(dovecot.IMAP, address, `"starttls"`, `"implicit"`).Replace(dovecotBackend(t, dovecot, s.dir)) + "spare_connections = 4\n"
	g := s.serve()
	s.cli(g.config, "account", "add", alice)
	p := s.password(g.config, alice, "--for", "mail")
	logins := func() {
		t.Helper()
		for range 3 {
			c := s.login(g, alice, p.Secret)
			if _, err := c.Select("INBOX", nil).Wait(); err != nil {
				t.Fatal(err)
			}
			c.Logout().Wait()
			c.Close()
		}
	}
	spare := func() bool {
		return strings.Contains(s.cli(g.config, "session", "list", "--json"), "[]") && open.Load() > 0
	}
	logins()
	eventually(t, "some are kept without a session", spare)
	g.reload(`"msg":"reloaded"`)
	eventually(t, "they are closed by a reload", func() bool { return open.Load() == 0 })
	logins()
	eventually(t, "some are kept again", spare)
	g.Terminate()
	g.Wait()
	eventually(t, "they are closed by a shutdown", func() bool { return open.Load() == 0 })
	if strings.Contains(g.Output(), "the grace is over") {
		t.Error("they held the shutdown up")
	}
}
