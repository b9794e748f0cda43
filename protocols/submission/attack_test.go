package submission_test

import (
	"context"
	"strings"
	"testing"

	"postern/authstore"
	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/doortest"
	"postern/protocols/submission"
)

// newPostfixDoor leads to a Postfix, which is told by XCLIENT who logs in. Alice may send as herself only.
func newPostfixDoor(t testing.TB, p *testlab.PostfixServer) *doortest.Door {
	door := &submission.Door{Name: "mx.example.test", Offers: doortest.Offers(t, some...)}
	door.Owner = func(_ context.Context, address string) (authstore.AccountID, error) {
		if strings.EqualFold(address, testlab.Alice) {
			return 1, nil
		}
		return 0, nil
	}
	return doortest.Serve(t, door, func(d *doortest.Door) {
		d.Routes = func(g authstore.Grant) (*protocols.Route, error) {
			return &protocols.Route{Backend: "backend", Network: "tcp", Address: p.Relay, Login: g.Address, XClient: true}, nil
		}
	})
}

func logIn(t testing.TB, d *doortest.Door) *doortest.Client {
	t.Helper()
	c := d.Dial(t)
	c.Send("EHLO client.example.test\r\nAUTH PLAIN %s\r\n", b64("\x00"+testlab.Alice+"\x00"+doortest.AppPassword))
	for line := c.Line(); line != "235 2.7.0 Logged in."; line = c.Line() {
		if line[0] != '2' {
			t.Fatalf("login: %q", line)
		}
	}
	return c
}

// Postfix reads only the first 2048 bytes of a command, which may be another one than the whole: a chunk of nothing, say, whose bytes it then
// reads as commands.
func TestCutLines(t *testing.T) {
	t.Parallel()
	p := testlab.Postfix(t)
	d := newPostfixDoor(t, p)
	const mail = "RSET\r\nMAIL FROM:<bob@example.test>\r\nRCPT TO:<carol@example.test>\r\nBDAT 9 LAST\r\nnot me!\r\n"
	for _, zeros := range []int{0, 15, 30, 1000, 2030, 2040, 2041, 2042, 2043, 2100, 4000} {
		c := logIn(t, d)
		c.Send("BDAT %s%d LAST\r\n%sQUIT\r\n", strings.Repeat("0", zeros), len(mail), mail)
		c.Rest()
	}
	for blanks := 2000; blanks < 2050; blanks++ {
		c := logIn(t, d)
		c.Send("NOOP %s\r\nMAIL FROM:<%s>%s SIZE=1\r\nRSET\r\nQUIT\r\n", strings.Repeat("x", blanks), testlab.Alice, strings.Repeat(" ", blanks))
		if got := c.Rest(); strings.Count(got, "\n") != 4 || !strings.HasSuffix(got, "221 2.0.0 Bye\r\n") {
			t.Errorf("%d blanks: got %q", blanks, got)
		}
	}
	for _, m := range p.Messages() {
		t.Errorf("a message of %s was taken", m.Sender)
	}
}
