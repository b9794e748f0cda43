package imapproxy

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// whimsical is a backend that reads commands as the standard says, and for each decides by chance whether it reads all of it, refuses
// its literals, or does not even look at what stands behind its name. It must never read a command that may not pass.
type whimsical struct {
	r        *rand.Rand
	in       []byte
	tag      string   // of the command under way
	mood     int      // see the constants
	skip     int      // bytes of a literal
	idles    string   // tag of IDLE
	owed     []string // answers that come later
	commands []string
}

const (
	reading  = iota
	refusing // answers at the first literal
	careless // answers at the blank behind the name
	answered
)

var (
	announces = regexp.MustCompile(`~?\{(\d+)(\+?)\}\r?$`)
	blanks    = regexp.MustCompile(` `)
)

// says takes what came and returns answers.
func (b *whimsical) says(p []byte) (out string) {
	b.in = append(b.in, p...)
	for {
		if b.skip > 0 {
			n := min(b.skip, len(b.in))
			b.in = b.in[n:]
			if b.skip -= n; b.skip > 0 {
				return out
			}
		}
		if b.tag == "" && b.idles == "" {
			head, ok := b.head()
			if !ok {
				return out
			}
			out += head
		}
		n := bytes.IndexByte(b.in, '\n')
		if n < 0 {
			return out
		}
		line := string(b.in[:n])
		b.in = b.in[n+1:]
		out += b.line(line)
	}
}

// head begins a command when its name is there.
func (b *whimsical) head() (out string, ok bool) {
	end := bytes.IndexByte(b.in, '\n')
	text := string(b.in[:max(end, 0)])
	if end < 0 {
		if text = string(b.in); len(blanks.FindAllString(text, 3)) < 2 {
			return "", false
		}
	}
	words := strings.SplitN(strings.TrimSuffix(text, "\r"), " ", 3)
	tag := cmp.Or(words[0], "*")
	if len(words) < 2 {
		b.tag = tag
		b.commands = append(b.commands, "")
		b.mood = answered
		return b.tag + " BAD what?\r\n", true
	}
	name := strings.ToUpper(words[1])
	if name == "UID" && len(words) == 3 {
		second, _, whole := strings.Cut(words[2], " ")
		if !whole && end < 0 {
			return "", false
		}
		name += " " + strings.ToUpper(second)
	}
	b.tag, b.commands = tag, append(b.commands, name)
	b.mood = b.r.IntN(3)
	if b.mood == careless && len(words) == 3 {
		b.mood = answered
		return b.tag + " OK done {5}\r\n", true
	}
	return "", true
}

func (b *whimsical) line(line string) (out string) {
	if b.idles != "" {
		status := "BAD"
		if strings.EqualFold(strings.TrimSuffix(line, "\r"), "DONE") {
			status = "OK"
		}
		defer func() { b.idles = "" }()
		return b.idles + " " + status + "\r\n"
	}
	if b.mood == answered {
		b.tag = ""
		return ""
	}
	if m := announces.FindStringSubmatch(line); m != nil {
		size, _ := strconv.Atoi(m[1])
		if b.mood != reading || size > 1000 {
			out = b.tag + " NO\r\n"
			b.tag = ""
			return out
		}
		b.skip = size
		if m[2] == "" {
			return "+ go on\r\n"
		}
		return ""
	}
	tag := b.tag
	b.tag = ""
	switch {
	case b.commands[len(b.commands)-1] == "IDLE" && b.mood == reading:
		b.idles = tag
		return "* 1 EXISTS\r\n+ idling\r\n"
	case b.r.IntN(3) == 0:
		b.owed = append(b.owed, tag+" OK later\r\n")
		return ""
	}
	return "* 1 FETCH (BODY[] {9}\r\n+ a OK\r\nx)\r\n" + tag + " NO\r\n" + b.pays()
}

// pays gives an answer that is owed.
func (b *whimsical) pays() (out string) {
	if len(b.owed) > 0 {
		i := b.r.IntN(len(b.owed))
		out = b.owed[i]
		b.owed = append(b.owed[:i], b.owed[i+1:]...)
	}
	return out
}

// checkAmbiguity has a client say something in random pieces to a backend of moods.
func checkAmbiguity(t *testing.T, client string, readOnly bool, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 2))
	b := &whimsical{r: r}
	s := newScript(readOnly)
	seen := 0
	for steps := 0; steps < 10*len(client)+1000 && s.Err == nil; steps++ {
		switch n := min(1+r.IntN(30), len(client)); r.IntN(3) {
		case 0:
			s.Say(client[:n], n+1)
			client = client[n:]
		case 1:
			n := min(1+r.IntN(30), s.Backend.Len()-seen)
			if answer := b.says(s.Backend.Bytes()[seen : seen+n]); answer != "" {
				s.Hear(answer, 1+r.IntN(20))
			}
			seen += n
		case 2:
			if answer := b.pays(); answer != "" && r.IntN(5) == 0 {
				s.Hear(answer, 1+r.IntN(20))
			} else if answer != "" {
				b.owed = append(b.owed, answer)
			}
		}
	}
	for _, name := range b.commands {
		switch {
		case name == "DONE":
		case name == "LOGIN", name == "AUTHENTICATE", name == "STARTTLS", name == "UNAUTHENTICATE", readOnly && !reads[name] && name != "IDLE" && name != "ID":
			t.Fatalf("seed %d: the backend was made to read %q, among %q, by\n%q", seed, name, b.commands, s.Backend.String())
		}
	}
}

func FuzzAmbiguity(f *testing.F) {
	f.Add("a NOOP {9+}\r\nb LOGIN x\r\n\r\n", false, uint64(1))
	f.Add("a NOOP\r\na SEARCH {20}\r\nc SEARCH {10+}\r\n12345\r\nd STORE x\r\n", true, uint64(2))
	f.Add("a IDLE\r\nb SEARCH {9+}\r\nb STORE x\r\n\r\nDONE\r\n", true, uint64(3))
	f.Fuzz(func(t *testing.T, client string, readOnly bool, seed uint64) {
		checkAmbiguity(t, client, readOnly, seed)
	})
}

// What a hostile client says at random, of the pieces of which ways round are made.
func TestAmbiguity(t *testing.T) {
	t.Parallel()
	pieces := []string{"a ", "a ", "b ", "NOOP", "NOOP ", "SEARCH ", "STORE x", "LOGIN x y", "UNAUTHENTICATE", "IDLE", "IDLE ", "DONE", "DONE ", "done\r\n", "x STORE y\r\n",
		"\r\n", "\r\n", "\r\n", "\n", "{#}\r\n", "{#+}\r\n", "{#+}\r\n", "{0}\r\n", "{0+}\r\n", "~{#+}\r\n", "{5-}", "\"{#}\r\n", "UID ", "SELECT x", "x", " ", "+", "}", "{", "* ", "ID (\"name\" ", "APPEND x "}
	for range 30000 {
		seed := rand.Uint64()
		r := rand.New(rand.NewPCG(seed, 1))
		var said strings.Builder
		for range 1 + r.IntN(40) {
			said.WriteString(strings.ReplaceAll(pieces[r.IntN(len(pieces))], "#", fmt.Sprint(r.IntN(40))))
		}
		checkAmbiguity(t, said.String(), r.IntN(2) == 0, seed)
	}
}
