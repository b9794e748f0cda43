package sieveproxy

import (
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"postern/protocols/wire"
)

// strictly is how the strictest server reads a command: what it takes for none it throws away to the line's end, literals or not, as Cyrus
// and Dovecot do with what they do not like.
var strictly = regexp.MustCompile(`^(?:(?:CAPABILITY|LISTSCRIPTS|LOGOUT|NOOP(?: STR)?|HAVESPACE STR [0-9]{1,10}|(?:SETACTIVE|GETSCRIPT|DELETESCRIPT|CHECKSCRIPT) STR|(?:RENAMESCRIPT|PUTSCRIPT) STR STR)\r\n)$`)

var (
	quotedStrictly  = regexp.MustCompile(`^"(?:[ !#-\[\]-~]|\\["\\])*"`)
	literalStrictly = regexp.MustCompile(`^\{(0|[1-9][0-9]*)\+\}\r\n`)
)

// readStrictly reads what reaches a backend, and returns its commands with STR for each string; of the last it may be that more is to come.
func readStrictly(said string) (commands []string, whole bool) {
	for said != "" {
		var command strings.Builder
		for !strings.HasSuffix(command.String(), "\n") {
			if m := literalStrictly.FindStringSubmatch(said); m != nil {
				n, _ := strconv.Atoi(m[1])
				if len(said) < len(m[0])+n {
					return append(commands, command.String()), false
				}
				said = said[len(m[0])+n:]
				command.WriteString("STR")
				continue
			}
			if q := quotedStrictly.FindString(said); q != "" && len(q) <= len(`""`)+1024 {
				said = said[len(q):]
				command.WriteString("STR")
				continue
			}
			if said == "" {
				return append(commands, command.String()), false
			}
			command.WriteByte(said[0])
			said = said[1:]
		}
		commands = append(commands, command.String())
	}
	return commands, true
}

// checkStrict has a client say something, at once and in pieces.
func checkStrict(t *testing.T, client, backend string, piece int) {
	t.Helper()
	whole, pieces := newScript(), newScript()
	whole.Say(client, len(client)+1)
	for line := range strings.Lines(backend) { // what is asked for is sent before the next line is heard
		whole.Hear(line, len(line))
	}
	piece = max(1, piece%20)
	pieces.Say(client, piece)
	for line := range strings.Lines(backend) {
		pieces.Hear(line, piece)
	}
	if (whole.Err == nil) != (pieces.Err == nil) || whole.Told.String() != pieces.Told.String() {
		t.Fatalf("at once: %q, %v; in pieces of %d: %q, %v", whole.Told.String(), whole.Err, piece, pieces.Told.String(), pieces.Err)
	}
	if got := pieces.Backend.String(); whole.Backend.String() != got {
		t.Fatalf("at once the backend gets %q; in pieces of %d, %q", whole.Backend.String(), piece, got)
	}
	commands, complete := readStrictly(whole.Backend.String())
	for i, one := range commands {
		last := i == len(commands)-1 && !complete
		if !strictly.MatchString(one) && !(last && (strictly.MatchString(one+"STR\r\n") || strictly.MatchString(one+"\r\n"))) {
			t.Fatalf("the backend is made to read %q, among %q, by\n%q", one, commands, client)
		}
	}
}

// Whatever a client says, a backend reads nothing but commands of the standard, in strings that no server takes for something else.
func FuzzScanner(f *testing.F) {
	f.Add("PUTSCRIPT \"vacation\" {21+}\r\nkeep;\r\nUNAUTHENTICATE\r\n\r\nSETACTIVE \"vacation\"\r\n", "OK\r\n", 3)
	f.Add("NOOP {16+}\r\n\xff\r\nUNAUTHENTICATE\r\n\r\nUNAUTHENTICATE {4+}\r\nNOOP\r\n", "OK (TAG {4}\r\nOK\r\n) \"x\"\r\nOK\r\n", 1)
	f.Add("GETSCRIPT \"\xc3\xa4\\\"\" \r\nRENAMESCRIPT {1+}\r\na {2+}\r\n\xc3\xa4\r\nSTARTTLS\r\n", "NO {3}\r\nabc\r\nOK\r\n", 2)
	f.Add("havespace \"a\" 99999999999\r\nCHECKSCRIPT {0+}\r\nx", "BYE\r\n", 5)
	f.Fuzz(checkStrict)
}

// What a hostile client says at random, of the pieces of which ways round are made.
func TestStrict(t *testing.T) {
	t.Parallel()
	words := []string{"NOOP", "NOOP ", "GETSCRIPT ", "PUTSCRIPT ", "PUTSCRIPT \"a\" ", "CHECKSCRIPT ", "RENAMESCRIPT ", "HAVESPACE ", "LISTSCRIPTS", "UNAUTHENTICATE", "AUTHENTICATE ",
		"\r\n", "\r\n", "\r\n", "\n", "\r", "{#+}\r\n", "{#+}\r\n", "{#+}\r\n", "{0+}\r\n", "{#}\r\n", "\"a\"", "\"a\" ", "\"", "\"\xc3\xa4\"", "\xff", "\\", " ", "x", "9", "\x00", "{", "}", "(\"a\")"}
	for range 30000 {
		r := rand.New(rand.NewPCG(rand.Uint64(), 1))
		var said strings.Builder
		for range 1 + r.IntN(30) {
			said.WriteString(strings.ReplaceAll(words[r.IntN(len(words))], "#", fmt.Sprint(r.IntN(30))))
		}
		checkStrict(t, said.String(), strings.Repeat("OK\r\n", r.IntN(10)), 1+r.IntN(19))
	}
}

// boundaries is where answers end, read from the first byte on.
func boundaries(said string) (at []int) {
	announces := regexp.MustCompile(`\{([0-9]{1,9})\+?\}\r?$`)
	begin, i := true, 0
	status := false
	for {
		n := strings.IndexByte(said[i:], '\n')
		if n < 0 {
			return at
		}
		line := said[i : i+n]
		if i += n + 1; begin {
			status = regexp.MustCompile(`(?i)^(OK|NO|BYE)(\r?$| )`).MatchString(line)
		}
		if m := announces.FindStringSubmatch(line); m != nil {
			size, _ := strconv.Atoi(m[1])
			if i += size; i > len(said) {
				return at
			}
			begin = false
			continue
		}
		if begin = true; status {
			at = append(at, i)
		}
	}
}

func FuzzTracker(f *testing.F) {
	f.Add("\"a\" ACTIVE\r\n{3}\r\nOK\n\r\nOK (TAG {4}\r\nOK\r\n) {2}\r\n\r\n\r\n", 3)
	f.Add("NO {30}\r\nline 1: error {5}\r\nOK\r\nbye\n", 1)
	f.Fuzz(func(t *testing.T, said string, piece int) {
		piece = max(1, piece%20)
		var tr tracker
		var got []int
		for at := 0; at < len(said); at += piece {
			if boundary, _ := tr.down([]byte(said[at:min(at+piece, len(said))])); boundary >= 0 {
				got = append(got, at+boundary)
			}
		}
		want := boundaries(said)
		for _, at := range got {
			if !slices.Contains(want, at) {
				t.Fatalf("a boundary at %d of %q; there are %v", at, said, want)
			}
		}
		if len(want) > 0 && (len(got) == 0 || got[len(got)-1] != want[len(want)-1]) {
			t.Fatalf("boundaries of %q at %v, want %v", said, got, want)
		}
	})
}

// said is a connection on which all that comes is known.
type said struct {
	net.Conn
	in *strings.Reader
}

func (c said) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c said) Write(p []byte) (int, error) { return len(p), nil }

// Whatever a backend says, reading it ends, and nothing of it gets into a line of ours or of the log's but printable ASCII.
func FuzzResponse(f *testing.F) {
	f.Add("\"SIEVE\" \"fileinto\"\r\n{4}\r\nSASL {5}\r\nPLAIN\r\nOK (TAG {2}\r\nhi) \"ready\"\r\n")
	f.Add("NO (REFERRAL \"sieve://x\") {3}\r\nab\xff\r\n")
	f.Add("\"x\x1b\" \"\\\"\"\nBYE\n")
	f.Fuzz(func(t *testing.T, words string) {
		s := newServer(said{in: strings.NewReader(words)})
		defer s.R.Release()
		a, err := s.response()
		shown := capabilities(forClient(s.caps), true, true)
		if err == nil {
			shown += a.Error()
		}
		if strings.ContainsFunc(strings.ReplaceAll(shown, "\r\n", ""), func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Fatalf("%q leads to %q", words, shown)
		}
	})
}

// Of what a client says before its login, no byte is lost, and nothing is longer than its bound.
func FuzzRead(f *testing.F) {
	f.Add("AUTHENTICATE \"PLAIN\" {4+}\r\nAAAA\r\nLISTSCRIPTS\r\n")
	f.Add("NOOP {2+}\r\n\r\n {0+}\r\n\r\nNOOP {3}\r\n")
	f.Fuzz(func(t *testing.T, words string) {
		in := strings.NewReader(words)
		r := wire.NewReader(in)
		defer r.Release()
		var seen strings.Builder
		for {
			cmd, err := read(r, r.Line, wire.MaxLine, false)
			if err != nil {
				break
			}
			if len(cmd.All) > wire.MaxLine+wire.MaxLiteral {
				t.Fatalf("a command of %d bytes", len(cmd.All))
			}
			seen.Write(cmd.All)
			if !strings.HasPrefix(strings.ReplaceAll(words, "\r", ""), strings.ReplaceAll(seen.String(), "\r", "")) {
				t.Fatalf("%q is read from %q", seen.String(), words)
			}
			seen.WriteString("\n")
		}
	})
}
