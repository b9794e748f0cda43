package popproxy

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"postern/authstore"
	"postern/protocols/doortest"
)

func newScript() *doortest.Script {
	return &doortest.Script{Guard: Door{}.Guard(nil, authstore.Grant{}, nil)}
}

// sent makes what is sent of what is written here: "\n" stands for CRLF, "|" for an LF alone.
func sent(s string) string { return strings.NewReplacer("\n", "\r\n", "|", "\n").Replace(s) }

// hear has a backend say words up to each "~": there it waits for the next command.
func hear(s *doortest.Script, words string, piece int) {
	for part := range strings.SplitSeq(words, "~") {
		s.Hear(part, piece)
	}
}

func TestGuard(t *testing.T) {
	const unknown, bad = "-ERR Unknown command, or not after login.\n", "-ERR Bad arguments.\n"
	all := "STAT\nlist\nLIST 1\nUIDL\nuidl 2\nRETR 1\nTOP 1 0\nDELE 1\nNOOP\nRSET\nLAST\nCAPA\nQUIT\n"
	for name, tt := range map[string]struct {
		client  string
		backend string // said when the client has said all
		passes  string
		told    string
		within  int // bytes at the end of backend behind the last boundary
	}{
		"all that is allowed": {all, "", all, "", 0},
		"an answer each":      {"STAT\nQUIT\n", "+OK 1 2\n+OK\n", "STAT\nQUIT\n", "+OK 1 2\n+OK\n", 0},
		"a list":              {"LIST\n", "+OK\n1 2\n.\n", "LIST\n", "+OK\n1 2\n.\n", 0},
		"in a list":           {"LIST\n", "+OK\n1 2\n", "LIST\n", "+OK\n1 2\n", 10},
		"a list of one":       {"LIST 1\n", "+OK 1 2\n", "LIST 1\n", "+OK 1 2\n", 0},
		"no list":             {"RETR 9\nLIST\n", "-ERR no\n+OK\n.\n", "RETR 9\nLIST\n", "-ERR no\n+OK\n.\n", 0},
		"dots":                {"TOP 1 0\nSTAT\n", "+OK\n..\n.x\n|.|\n.\n+OK", "TOP 1 0\nSTAT\n", "+OK\n..\n.x\n|.|\n.\n+OK", 3},
		"a status's text":     {"RETR 1\n", "+OK\n.\n\n.\n", "RETR 1\n", "+OK\n.\n\n.\n", 0},
		"unasked":             {"", "-ERR [SYS/TEMP] bye\n", "", "-ERR [SYS/TEMP] bye\n", 0},

		"a second login":       {"USER x\nPASS y\nAUTH PLAIN\nAPOP x y\nSTLS\nXCLIENT ADDR=1.2.3.4\nUTF8\nLANG de\n", "", "", strings.Repeat(unknown, 8), 0},
		"unknown":              {"XTND\n\n STAT\nSTATS\nSTAT\t\nQUIT\x00\n\xc5\x9fTAT\n\xc5\xbfTAT\n", "", "", strings.Repeat(unknown, 8), 0},
		"bad arguments":        {"STAT 1\nSTAT \nLIST 1 2\nLIST \nLIST  1\nLIST 1 \nRETR\nRETR x\nRETR -1\nTOP 1\nTOP 1 2 3\nDELE 1.\n", "", "", strings.Repeat(bad, 12), 0},
		"CR, NUL":              {"NOOP\rQUIT\nLIST\x00\nLIST 1\rQUIT\nRETR 1\r\n", "", "", strings.Repeat(unknown, 4), 0},
		"LF alone":             {"STAT|LIST|XTND|NOOP\nDELE 1|", "+OK\n+OK\n.\n~+OK\n+OK\n", "STAT\nLIST\nNOOP\nDELE 1\n", "+OK\n+OK\n.\n" + unknown + "+OK\n+OK\n", 0},
		"in their turn":        {"STAT\nXTND\nLIST\nRETR\nNOOP\n", "+OK 1\n", "STAT\nLIST\n", "+OK 1\n" + unknown, 0},
		"in their turn, later": {"STAT\nLIST\nXTND\nRETR 1\n", "+OK 1\n+OK\n.\n", "STAT\nLIST\nRETR 1\n", "+OK 1\n+OK\n.\n" + unknown, 0},
		"behind QUIT":          {"QUIT\nSTAT\nXTND\n", "+OK\n", "QUIT\n", "+OK\n", 0},
		"a long line":          {"RETR " + strings.Repeat("1", 300) + "\nNOOP\n", "+OK\n", "NOOP\n", "-ERR Line too long.\n+OK\n", 0},
		"a long number":        {"RETR " + strings.Repeat("1", 41) + "\nRETR " + strings.Repeat("1", 40) + "\n", "", "RETR " + strings.Repeat("1", 40) + "\n", bad, 0},
		"a line without end":   {"STAT\nLIS", "+OK 1\n", "STAT\n", "+OK 1\n", 0},
		"too many at once":     {strings.Repeat("NOOP\n", maxOwed+10), "+OK\n", strings.Repeat("NOOP\n", maxOwed), "+OK\n", 0},
		"very many":            {strings.Repeat("NOOP\n", maxOwed+10), strings.Repeat("+OK\n", maxOwed), strings.Repeat("NOOP\n", maxOwed+10), strings.Repeat("+OK\n", maxOwed), 0},
	} {
		t.Run(name, func(t *testing.T) {
			backend := sent(tt.backend)
			length := len(strings.ReplaceAll(backend, "~", ""))
			for piece := 1; piece < 400; piece = piece*3/2 + 1 {
				s := newScript()
				s.Say(sent(tt.client), piece)
				hear(s, backend, piece)
				if got := s.Backend.String(); got != sent(tt.passes) {
					t.Errorf("in pieces of %d: the backend gets %q, want %q", piece, got, sent(tt.passes))
				}
				if got := s.Told.String(); got != sent(tt.told) {
					t.Errorf("in pieces of %d: the client gets %q, want %q", piece, got, sent(tt.told))
				}
				if s.Err != nil {
					t.Errorf("in pieces of %d: ended with %v", piece, s.Err)
				}
				if want := length - tt.within; want > 0 && s.Boundary() != want {
					t.Errorf("in pieces of %d: the last boundary is %d, want %d", piece, s.Boundary(), want)
				}
			}
		})
	}
}

// A session that must end waits for the answer to QUIT, and, in good order, for any.
func TestBusy(t *testing.T) {
	for name, tt := range map[string]struct {
		client, backend string
		busy, orderly   bool
	}{
		"idle":      {"", "", false, false},
		"answered":  {"STAT\nXTND\nLIST\n", "+OK 1\n~+OK\n.\n", false, false},
		"a list":    {"LIST\n", "+OK\n1 2\n", false, true},
		"QUIT":      {"STAT\nQUIT\n", "+OK\n", true, true},
		"left":      {"STAT\nQUIT\n", "+OK\n+OK\n", false, false},
		"half said": {"QUI", "", false, false},
	} {
		s := newScript()
		s.Say(sent(tt.client), 1000)
		hear(s, sent(tt.backend), 1000)
		if busy, orderly := s.Guard.Busy(false), s.Guard.Busy(true); busy != tt.busy || orderly != tt.orderly {
			t.Errorf("%s: Busy = %t, in good order %t; want %t, %t", name, busy, orderly, tt.busy, tt.orderly)
		}
	}
}

// A line without end costs no memory.
func TestEndless(t *testing.T) {
	s := newScript()
	s.Say(strings.Repeat("1", 100_000), 1000)
	if n := len(s.Guard.(*guard).line); n > maxCommand+1 || len(s.Left) > 0 {
		t.Errorf("%d bytes of a line are kept, and %d are left", n, len(s.Left))
	}
}

// Who waits for an answer is woken when it is there, or was there before.
func TestWoken(t *testing.T) {
	s := newScript()
	<-s.Guard.Woken()
	s.Say("LIST\r\nXTND\r\n", 100)
	woken := s.Guard.Woken()
	s.Guard.Down([]byte("+OK\r\n1 1\r\n"))
	select {
	case <-woken:
		t.Error("woken in the middle of an answer")
	default:
	}
	s.Guard.Down([]byte(".\r\n"))
	<-woken
}

// simple is a backend that takes lines literally, and how it answers is a matter of chance. It keeps where its answers end.
type simple struct {
	words []byte
	ends  map[int]bool
}

var (
	allowed = regexp.MustCompile(`^(?i:(STAT|NOOP|RSET|LAST|QUIT|CAPA)|(LIST|UIDL)( \d{1,40})?|(RETR|DELE) \d{1,40}|TOP \d{1,40} \d{1,40})\r\n$`)
	many    = regexp.MustCompile(`^(?i:CAPA|LIST|UIDL|RETR \d+|TOP \d+ \d+)\r\n$`)
)

func (b *simple) answer(line string, seed int) {
	switch {
	case seed%3 == 0:
		b.words = append(b.words, "-ERR no\r\n"...)
	case many.MatchString(line):
		b.words = append(b.words, []string{"+OK\r\n.\r\n", "+OK\r\n..\r\n.x\r\n+OK\r\n-ERR\r\n.\r\n", "+OK\r\n\n.\n\r.\r\x00.\r\n\r\n\r\n.\r\n"}[seed%7%3]...)
	default:
		b.words = append(b.words, "+OK 1 2\r\n"...)
	}
	b.ends[len(b.words)] = true
}

// What passes is whole commands of those allowed, in the client's order; each line has one answer, in order; words of ours come between answers
// only; and in whatever pieces all that comes, the outcome is the same.
func FuzzGuard(f *testing.F) {
	f.Add("STAT\r\nLIST\r\nRETR 1\r\nTOP 1 0\nDELE 1\r\nQUIT\r\n", 3, 5)
	f.Add("STAT\r\nUSER x\r\nPASS y\r\nNOOP\rQUIT\r\nNOOP\x00\r\nCAPA\r\n", 1, 1)
	f.Add("AUTH PLAIN AGEAYg==\nXCLIENT ADDR=1.2.3.4\r\nUIDL 1\r\nUIDL\r\n\r\n.\r\n", 2, 4)
	f.Add(strings.Repeat("NOOP\r\nXX\n", 400)+strings.Repeat("1", 300)+"\r\nLIST\r\n", 7, 2)
	f.Fuzz(func(t *testing.T, client string, piece, seed int) {
		seed, piece = max(seed, 0)&0xffff, max(1, piece%50)
		run := func(piece int) *doortest.Script {
			s, b, read := newScript(), &simple{ends: map[int]bool{}}, 0
			pass := func() { // the backend reads, and answers in pieces
				for line := range strings.Lines(s.Backend.String()[read:]) {
					if !allowed.MatchString(line) {
						t.Fatalf("%q has passed", line)
					}
					read += len(line)
					b.answer(line, seed+read)
				}
				words := b.words[s.Passed.Len():]
				s.Hear(string(words), piece)
			}
			for at := 0; at < len(client); at += piece {
				s.Say(client[at:min(len(client), at+piece)], piece)
				if (at/piece+seed)%3 > 0 {
					pass()
				}
			}
			for s.Passed.Len() < len(b.words) || read < s.Backend.Len() {
				pass()
			}
			for _, at := range s.Boundaries {
				if !b.ends[at] {
					t.Fatalf("a boundary at %d of %q", at, b.words)
				}
			}
			if s.Boundary() != len(b.words) && len(b.words) > 0 || len(s.Left) > 0 || s.Guard.Busy(true) || s.Err != nil {
				t.Fatalf("not over: %q is left, the last boundary is %d of %d; %v", s.Left, s.Boundary(), len(b.words), s.Err)
			}
			return s
		}
		whole, pieces := run(len(client)+1), run(piece)
		if whole.Backend.String() != pieces.Backend.String() || whole.Told.String() != pieces.Told.String() {
			t.Errorf("at once: %q, %q; in pieces of %d: %q, %q", whole.Backend.String(), whole.Told.String(), piece, pieces.Backend.String(), pieces.Told.String())
		}
		if want, got := expected(client), outcome(whole.Told.String(), whole.Backend.String()); want != got {
			t.Errorf("of %q came %s, want %s", client, got, want)
		}
	})
}

// expected counts the commands up to QUIT: those that pass, and the others.
func expected(client string) string {
	passes, refused := 0, 0
	for line := range strings.Lines(client) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		strict := strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r") + "\r\n"
		if !allowed.MatchString(strict) || len(line) > maxCommand {
			refused++
			continue
		}
		if passes++; strings.EqualFold(strict, "QUIT\r\n") {
			break
		}
	}
	return fmt.Sprint(passes, " passed, ", refused, " refused")
}

var ours = regexp.MustCompile(`(?m)^-ERR (Unknown command, or not after login|Bad arguments|Line too long)\.\r$`)

func outcome(told, backend string) string {
	return fmt.Sprint(strings.Count(backend, "\n"), " passed, ", len(ours.FindAllString(told, -1)), " refused")
}
