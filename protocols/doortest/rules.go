package doortest

import (
	"io"
	"net"
	"regexp"
	"testing"

	"postern/authstore"
	"postern/protocols"
)

// Injection has a client of a front door with STARTTLS say words of which the first line starts it. What stands behind that in plain text
// ends the connection, however it is cut into packets, or is read as TLS, which it is none: what is told must match.
func Injection(t *testing.T, door protocols.FrontDoor, words, told string) {
	t.Helper()
	d := Serve(t, door, OverTLS(t, protocols.StartTLS))
	match := regexp.MustCompile("^(" + told + ")$")
	for cut := 0; cut <= len(words); cut++ {
		c := d.Dial(t)
		c.Conn.(*net.TCPConn).SetNoDelay(true)
		c.Send("%s", words[:cut])
		c.Send("%s", words[cut:])
		c.Conn.(*net.TCPConn).CloseWrite()
		if got, _ := io.ReadAll(c.R); !match.Match(got) {
			t.Fatalf("cut at %d: got %q", cut, got)
		}
	}
	if n := len(d.Logins); n != 0 {
		t.Errorf("%d attempts were decided", n)
	}
}

// Goodbyes has a front door, whose greeting has so many lines, say goodbye before a login, in a session, where only draining is orderly, and
// to a client that has begun to say something.
func Goodbyes(t *testing.T, door protocols.FrontDoor, greeting int, begun string, want map[error]string) {
	t.Helper()
	for reason, want := range want {
		if got := string(door.Goodbye(reason)); got != want {
			t.Errorf("Goodbye(%v) = %q, want %q", reason, got, want)
		}
		words, orderly := door.Guard(&protocols.Conn{}, authstore.Grant{}, nil).Goodbye(reason)
		if string(words) != want || orderly != (reason == protocols.ErrDraining) {
			t.Errorf("in a session: Goodbye(%v) = %q, %v; want %q", reason, words, orderly, want)
		}
	}
	d := Serve(t, door)
	c := d.Dial(t)
	for range greeting {
		c.Line()
	}
	c.Send("%s", begun)
	d.Drain(protocols.ErrDraining)
	if got := c.Rest(); got != want[protocols.ErrDraining] {
		t.Errorf("while draining: %q", got)
	}
}

// Loop has a login that went round in a circle led no further.
func Loop(t *testing.T, door protocols.FrontDoor) {
	t.Helper()
	gateway, backend := net.Pipe()
	defer gateway.Close()
	backend.Close()
	if _, err := door.LogInBackend(t.Context(), gateway, &protocols.Route{}, &protocols.Conn{Hops: 1}); err != protocols.ErrLoop {
		t.Errorf("error %v, want %v", err, protocols.ErrLoop)
	}
}
