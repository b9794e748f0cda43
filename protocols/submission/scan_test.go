package submission

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"postern/authstore"
	"postern/protocols"
	"postern/protocols/doortest"
)

const me = authstore.AccountID(1)

// newGuard is the guard of a session whose backend has BDAT and takes messages of 1000 bytes.
func newGuard(d *Door) *guard {
	c := &protocols.Conn{Offered: protocols.Capabilities{{Name: "CHUNKING"}, {Name: "SIZE", Value: "1000"}}}
	return d.Guard(c, authstore.Grant{Account: me}, nil).(*guard)
}

// owner knows two addresses of ours, and one of another's.
func owner(_ context.Context, address string) (authstore.AccountID, error) {
	switch strings.ToLower(address) {
	case "alice@example.test", "sales@example.test", "alice": // where a login needs no domain
		return me, nil
	case "carol@example.test":
		return me + 1, nil
	case "down@example.test":
		return 0, errors.New("the database is down")
	}
	return 0, nil
}

var (
	passes = &Door{}
	lax    = &Door{PassSmuggling: true}
	own    = &Door{Owner: owner, Log: slog.New(slog.DiscardHandler)}
)

// In a script lines that begin with "S: " are the backend's.
func TestGuard(t *testing.T) {
	t.Parallel()
	unknown, before, longLine := plain(unknown), plain(onlyBefore), strings.Repeat("x", maxLine)
	longest := "NOOP " + strings.Repeat("x", maxLine-len("NOOP \r\n"))
	for name, tt := range map[string]struct {
		door    *Door
		script  []string
		backend string // what reaches it
		answers string
		err     error
	}{
		"a message": {passes, []string{"MAIL FROM:<a@b> SIZE=3\nRCPT TO:<c@d>\nDATA\n", "S: 250 ok\nS: 250-ok\nS: 250 ok\nS: 354 go\n", "hello\n.\n", "S: 250 queued as 1\n", "QUIT\n"},
			"MAIL FROM:<a@b> SIZE=3\nRCPT TO:<c@d>\nDATA\nhello\n.\nQUIT\n", "", nil},
		"an empty one":             {passes, []string{"DATA\n", "S: 354\n", ".\nNOOP\n"}, "DATA\n.\nNOOP\n", "", nil},
		"words behind DATA wait":   {passes, []string{"DATA\nXCLIENT LOGIN=bob\n.\n"}, "DATA\n", "", nil},
		"DATA is refused":          {passes, []string{"DATA\nXCLIENT LOGIN=bob\n.\nNOOP\n", "S: 503 no\n"}, "DATA\nNOOP\n", unknown + unknown, nil},
		"another's reply":          {passes, []string{"NOOP\nDATA\nNOOP\n", "S: 250 ok\n"}, "NOOP\nDATA\n", "", nil},
		"DATA with a blank":        {passes, []string{"DATA \nx\n.\n", "S: 354 go\n"}, "DATA \nx\n.\n", "", nil},
		"354 to something else":    {passes, []string{"NOOP\n", "S: 354 go\n", "XCLIENT LOGIN=bob\n"}, "NOOP\n", "", errConfused},
		"two messages":             {passes, []string{"DATA\n", "S: 354\n", "a\n.\nMAIL FROM:<>\nDATA\n", "S: 250 ok\nS: 250 ok\nS: 354\n", "..b\n.\n"}, "DATA\na\n.\nMAIL FROM:<>\nDATA\n..b\n.\n", "", nil},
		"who one is":               {passes, []string{"AUTH PLAIN AAAA\nSTARTTLS\nauth login\nXCLIENT LOGIN=bob\nXFORWARD NAME=x\nBURL imap://x LAST\nXEXCH50 5 1\nlhlo x\n"}, "", before + before + before + strings.Repeat(unknown, 5), nil},
		"what is no name":          {passes, []string{" NOOP\n\tNOOP\n\nNOOP\tx\nNOO\u017f\nDATA\x0bx\nMAIL:\n"}, "", strings.Repeat(unknown, 7), nil},
		"in order":                 {passes, []string{"NOOP\nXCLIENT x\nNOOP\n", "S: 250 ok\n"}, "NOOP\nNOOP\n", unknown, nil},
		"not before its turn":      {passes, []string{"NOOP\nRSET\nXCLIENT x\nNOOP\n", "S: 250 ok\n"}, "NOOP\nRSET\n", "", nil},
		"CR and NUL":               {passes, []string{"NOOP\rNOOP\nNOOP \x00\nNOOP\r\n"}, "", strings.Repeat(plain(lineEndRefused), 3), nil},
		"as long as may be":        {passes, []string{longest + "\n" + longest + "x\nNOOP\n", "S: 250 ok\n"}, longest + "\nNOOP\n", plain(lengthRefused), nil},
		"a long line":              {passes, []string{"NOOP " + longLine + "\nNOOP\n"}, "NOOP\n", plain(lengthRefused), nil},
		"... in its turn":          {passes, []string{"RSET\nNOOP " + longLine + "\nNOOP\n", "S: 250 ok\n"}, "RSET\nNOOP\n", plain(lengthRefused), nil},
		"a chunk":                  {passes, []string{"BDAT 8\nAUTH x\nBDAT 6 LAST\nHELL\nNOOP\nAUTH\n", "S: 250\nS: 250\nS: 250\n"}, "BDAT 8\nAUTH x\nBDAT 6 LAST\nHELL\nNOOP\n", before, nil},
		"an empty chunk":           {passes, []string{"BDAT 0 last\nNOOP\n"}, "BDAT 0 last\nNOOP\n", "", nil},
		"what is no chunk":         {passes, []string{"BDAT\nBDAT x\nBDAT -1\nBDAT +1\nBDAT  1\nBDAT 1 FIRST\nBDAT 1 LAST x\nBDAT 99999999999999999999\nBDAT 9000000000000000000\nBDAT 4294967297\nBDAT 1 LA\u017ft\n"}, "", strings.Repeat(plain(badChunk), 11), nil},
		"a chunk after HELO":       {passes, []string{"HELO x\n", "S: 250\n", "BDAT 8\nAUTH x\nEHLO x\n", "S: 250\n", "BDAT 6\nNOOP\n"}, "HELO x\nEHLO x\nBDAT 6\nNOOP\n", plain(noChunk), nil},
		"more digits than needed":  {passes, []string{"BDAT 00000000000000000001\nxBDAT 000000000000000000001\nBDAT " + strings.Repeat("0", 2040) + "7\nAUTH x\n"}, "BDAT 00000000000000000001\nx", "", nil},
		"too large a chunk":        {passes, []string{"BDAT 1001 LAST\n", strings.Repeat("x", 1001), "NOOP\n"}, "NOOP\n", plain(tooLarge), nil},
		"answered before it is in": {passes, []string{"BDAT 500\nxxx", "S: 552 too large\n", "MAIL FROM:<bob@example.test>\n"}, "BDAT 500\nxxx", "", errConfused},
		"an unasked goodbye":       {passes, []string{"NOOP\n", "S: 250 ok\nS: 421 bye\n", "NOOP\nXCLIENT x\n"}, "NOOP\nNOOP\n", "", nil},
		"what is no reply":         {passes, []string{"NOOP\nXCLIENT x\n", "S: hello\nS: 25\nS: 2500 x\nS: 250-more\nS: 999 x\n"}, "NOOP\n", "", nil},
		"a short reply":            {passes, []string{"NOOP\nXCLIENT x\n", "S: 250\n"}, "NOOP\n", unknown, nil},

		"any sender": {passes, []string{"MAIL FROM:<bob@example.test>\nMAIL whatever\n"}, "MAIL FROM:<bob@example.test>\nMAIL whatever\n", "", nil},
		"own senders": {own, []string{"MAIL FROM:<alice@example.test>\nmail from: <Sales@example.test> SIZE=1\nMAIL FROM:<>\nMAIL FROM:<> BODY=8BITMIME\n"},
			"MAIL FROM:<alice@example.test>\nmail from: <Sales@example.test> SIZE=1\nMAIL FROM:<>\nMAIL FROM:<> BODY=8BITMIME\n", "", nil},
		"others":              {own, []string{"MAIL FROM:<bob@example.test>\nMAIL FROM:<carol@example.test>\nMAIL FROM:<alice>\nNOOP\n"}, "NOOP\n", plain(notOwn) + plain(notOwn) + plain(badSender), nil},
		"others in turn":      {own, []string{"NOOP\nMAIL FROM:<bob@example.test>\nMAIL FROM:<alice@example.test>\n", "S: 250\n"}, "NOOP\nMAIL FROM:<alice@example.test>\n", plain(notOwn), nil},
		"who knows":           {own, []string{"MAIL FROM:<down@example.test>\n"}, "", plain(askLater), nil},
		"what is no sender":   {own, []string{"MAIL\nMAIL FROM:alice@example.test\nMAIL FROM:<alice@example.test\nMAIL FROM:<alice@example.test>x\nMAIL FROM:<@x:alice@example.test>\nMAIL FROM:<@example.test>\nMAIL FROM:<\"alice\"@example.test>\nMAIL TO:<alice@example.test>\nMAIL FROM:<alice@example.test> <bob@example.test>\n"}, "MAIL FROM:<alice@example.test> <bob@example.test>\n", strings.Repeat(plain(badSender), 8), nil},
		"each time it counts": {own, []string{"MAIL FROM:<alice@example.test>\nMAIL FROM:<bob@example.test>\n", "S: 250\n", "MAIL FROM:<alice@example.test>\n"}, "MAIL FROM:<alice@example.test>\nMAIL FROM:<alice@example.test>\n", plain(notOwn), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, piece := range []int{1, 2, 3, 7, 100000} {
				s := &doortest.Script{Guard: newGuard(tt.door)}
				s.Run(tt.script, piece)
				if got, want := s.Backend.String(), doortest.CRLF(tt.backend); got != want {
					t.Errorf("in pieces of %d the backend got %q, want %q", piece, got, want)
				}
				if got := s.Answers.String(); got != doortest.CRLF(tt.answers) {
					t.Errorf("in pieces of %d the answers are %q, want %q", piece, got, doortest.CRLF(tt.answers))
				}
				if !errors.Is(s.Err, tt.err) {
					t.Errorf("in pieces of %d it ended with %v, want %v", piece, s.Err, tt.err)
				}
			}
		})
	}
}

// plain is an answer with "\n" for its end.
func plain(answer string) string { return strings.ReplaceAll(answer, "\r\n", "\n") }

// odd are the ends of a message that some servers take for one.
var odd = []string{"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r.\n", "\n.\r", "\r\n\x00.\r\n", "\r\n.\x00\r\n", "\r\n.\r\r\n"}

// message has a client say what stands behind DATA.
func message(d *Door, words string, piece int) *doortest.Script {
	s := &doortest.Script{Guard: newGuard(d)}
	s.Say("DATA\r\n", piece)
	s.Hear("354 go\r\n", piece)
	s.Say(words, piece)
	return s
}

func TestSmuggling(t *testing.T) {
	t.Parallel()
	const attack = "MAIL FROM:<admin@example.test>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\nI am not alice\r\n.\r\n"
	for _, end := range odd {
		for _, piece := range []int{1, 2, 3, 5, 100000} {
			s := message(passes, "hello"+end+attack, piece)
			got := s.Backend.String()
			if strings.Contains(got, "MAIL") || !strings.HasPrefix("DATA\r\nhello"+end, got) || got == "DATA\r\nhello"+end {
				t.Errorf("%q in pieces of %d: the backend got %q", end, piece, got)
			}
			if s.Answers.String() != endRefused || !errors.Is(s.Err, errSmuggling) {
				t.Errorf("%q in pieces of %d: answered %q, ended with %v", end, piece, s.Answers.String(), s.Err)
			}
			s = message(lax, "hello"+end+attack, piece)
			if got, want := s.Backend.String(), "DATA\r\nhello"+end+attack; got != want || s.Err != nil {
				t.Errorf("%q in pieces of %d, passed on: the backend got %q, want %q; ended with %v", end, piece, got, want, s.Err)
			}
		}
	}
	const twice = "\r\n.\rx\r\n.\r\nNOOP\r\n" // one CR that was kept back, behind another
	for _, piece := range []int{1, 2, 3, 4, 5, 100000} {
		s := message(lax, "\r\n.\r", piece)
		s.Say("x\r\n.\r", piece)
		s.Say("\nNOOP\r\n", piece)
		if got, want := s.Backend.String(), "DATA\r\n"+twice; got != want || s.Err != nil {
			t.Errorf("in pieces of %d, passed on: the backend got %q, want %q; ended with %v", piece, got, want, s.Err)
		}
	}
	const scanned = "from\na scanner\r\n.. \r.x\n.y\r\n.\r\n"
	if s := message(passes, scanned, 3); s.Backend.String() != "DATA\r\n"+scanned || s.Err != nil {
		t.Errorf("other bare LFs: the backend got %q, ended with %v", s.Backend.String(), s.Err)
	}
}

// What is worth waiting for before a goodbye.
func TestBusy(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		script        []string
		owed, orderly bool
		boundary      bool // all that came is whole replies
	}{
		"nothing":                 {nil, false, false, false},
		"a command":               {[]string{"NOOP\n"}, false, true, false},
		"answered":                {[]string{"NOOP\n", "S: 250 ok\n"}, false, false, true},
		"half of it":              {[]string{"NOOP\n", "S: 250-ok\nS: 25"}, false, true, false},
		"a transaction":           {[]string{"MAIL FROM:<>\n", "S: 250 ok\n"}, false, true, true},
		"reset":                   {[]string{"MAIL FROM:<>\nRSET\n", "S: 250 ok\nS: 250 ok\n"}, false, false, true},
		"greeted anew":            {[]string{"MAIL FROM:<>\nEHLO x\n", "S: 250\nS: 250\n"}, false, false, true},
		"a chunk and what before": {[]string{"MAIL FROM:<>\nBDAT 5 LAST\nabcde", "S: 250\n"}, true, true, true},
		"the last chunk is taken": {[]string{"MAIL FROM:<>\nBDAT 5 LAST\nabcde", "S: 250\nS: 250\n"}, false, false, true},
		"in a message":            {[]string{"DATA\n", "S: 354\n", "a\n."}, false, true, true},
		"a message":               {[]string{"DATA\n", "S: 354\n", "a\n.\n"}, true, true, true},
		"taken":                   {[]string{"MAIL FROM:<>\nDATA\n", "S: 250\nS: 354\n", "a\n.\n", "S: 250\n"}, false, false, true},
		"and more said behind it": {[]string{"DATA\n", "S: 354\n", "a\n.\nNOOP\n", "S: 250\n"}, false, true, true},
		"in a chunk":              {[]string{"BDAT 5 LAST\nabc"}, false, true, false},
		"the last chunk":          {[]string{"BDAT 5 LAST\nabcde"}, true, true, false},
		"another chunk":           {[]string{"MAIL FROM:<>\nBDAT 5\nabcde", "S: 250\nS: 250\n"}, false, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, piece := range []int{1, 4, 1000} {
				g := newGuard(passes)
				s := &doortest.Script{Guard: g}
				s.Run(tt.script, piece)
				if owed, orderly := g.Busy(false), g.Busy(true); owed != tt.owed || orderly != tt.orderly {
					t.Errorf("in pieces of %d: Busy is %v, in good order %v; want %v, %v", piece, owed, orderly, tt.owed, tt.orderly)
				}
				if got := s.Boundary() == s.Passed.Len(); got != tt.boundary {
					t.Errorf("in pieces of %d: boundary %d of %d", piece, s.Boundary(), s.Passed.Len())
				}
			}
		})
	}
}

// Whose an address is may have changed since it was asked.
func TestSenderIsAskedEachTime(t *testing.T) {
	t.Parallel()
	asked := 0
	s := &doortest.Script{Guard: newGuard(&Door{Owner: func(context.Context, string) (authstore.AccountID, error) {
		asked++
		return me, nil
	}})}
	for range 3 {
		s.Run([]string{"MAIL FROM:<alice@example.test>\n", "S: 250 ok\n"}, 100)
	}
	if asked != 3 {
		t.Errorf("asked %d times", asked)
	}
}

// Nobody sends chunks where none are told of; who does all the same is understood.
func TestNoChunking(t *testing.T) {
	t.Parallel()
	s := &doortest.Script{Guard: passes.Guard(&protocols.Conn{}, authstore.Grant{}, nil)}
	s.Say("BDAT 7 LAST\r\nAUTH x\nNOOP\r\n", 3)
	if s.Answers.String() != noChunk || s.Backend.String() != "NOOP\r\n" {
		t.Errorf("answered %q, passed %q", s.Answers.String(), s.Backend.String())
	}
}

// What nobody needs to look at: the rest of a chunk, of the client's alone.
func TestData(t *testing.T) {
	t.Parallel()
	g := newGuard(passes)
	if st, _ := g.Up([]byte("BDAT 100\r\nabcde")); st.Bulk || g.Data(true) != 95 || g.Data(false) != 0 {
		t.Errorf("in a chunk: %d bytes are left, %d of the backend's; bulk %v", g.Data(true), g.Data(false), st.Bulk)
	}
	g.Skip(true, 95)
	g.Down([]byte("250 ok\r\n"))
	if st, _ := g.Up([]byte("DATA\r\n")); !st.Bulk || g.Data(true) != 0 {
		t.Errorf("behind it: bulk %v, %d bytes are left", st.Bulk, g.Data(true))
	}
}

// FuzzGuard: whatever a client says, a backend that reads what passes finds no command that may not pass, and a message ends only where
// both see its end.
func FuzzGuard(f *testing.F) {
	f.Add("MAIL FROM:<a@b>\r\nDATA\r\nhi\r\n.\r\nXCLIENT LOGIN=x\r\n", uint8(3))
	f.Add("BDAT 5\r\nabcdeAUTH PLAIN\r\nDATA\r\n.\r\nNOOP\nXCLIENT\r\n", uint8(1))
	f.Add("DATA\r\nx\n.\nMAIL FROM:<>\r\n.\r\n", uint8(200))
	f.Fuzz(func(t *testing.T, said string, piece uint8) {
		g := newGuard(passes)
		b := &reader{}
		rest := []byte(said)
		for client := []byte(nil); len(rest) > 0 || len(client) > 0; {
			n := min(int(piece)+1, len(rest))
			client, rest = append(client, rest[:n]...), rest[n:]
			st, err := g.Up(client)
			if err != nil || st.End != nil {
				return
			}
			replies := b.read(st.Pass)
			if b.bad != "" {
				t.Fatalf("%q: the backend read %q", said, b.bad)
			}
			g.Down([]byte(replies))
			if client = client[st.Taken:]; n == 0 && st.Taken == 0 && len(st.Pass) == 0 {
				t.Fatalf("%q: it waits for ever for %q", said, client)
			}
		}
	})
}

// reader reads as a backend does that goes by RFC 5321 and takes every DATA.
type reader struct {
	buf   string
	data  bool
	chunk int
	bad   string
}

func (b *reader) read(p []byte) (replies string) {
	b.buf += string(p)
	for {
		switch {
		case b.chunk > 0:
			n := min(b.chunk, len(b.buf))
			if b.chunk, b.buf = b.chunk-n, b.buf[n:]; b.chunk > 0 {
				return replies
			}
			replies += "250 ok\r\n"
		case b.data:
			end := strings.Index("\r\n"+b.buf, "\r\n.\r\n")
			if end < 0 {
				return replies
			}
			b.buf, b.data = b.buf[end+3:], false
			replies += "250 ok\r\n"
		default:
			end := strings.Index(b.buf, "\n")
			if end < 0 {
				return replies
			}
			line := strings.TrimSuffix(b.buf[:end], "\r")
			b.buf = b.buf[end+1:]
			verb, argument, _ := strings.Cut(line, " ")
			switch verb = strings.ToUpper(strings.TrimSpace(verb)); verb {
			case "DATA":
				b.data = true
				replies += "354 go\r\n"
				continue
			case "BDAT":
				for _, c := range argument {
					if c < '0' || c > '9' {
						break
					}
					b.chunk = b.chunk*10 + int(c-'0')
				}
				if b.chunk > 0 {
					continue
				}
			case "EHLO", "HELO", "MAIL", "RCPT", "RSET", "NOOP", "HELP", "VRFY", "EXPN", "ETRN", "QUIT":
			default:
				b.bad = line
				return replies
			}
			replies += "250 ok\r\n"
		}
	}
}
