package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestLine(t *testing.T) {
	for name, tt := range map[string]struct {
		in   string
		want string
		err  error
		rest string
	}{
		"CRLF":                {"a NOOP\r\nb", "a NOOP", nil, "b"},
		"bare LF":             {"a NOOP\nb", "a NOOP", nil, "b"},
		"empty":               {"\r\nb", "", nil, "b"},
		"as long as allowed":  {strings.Repeat("x", 30) + "\r\nb", strings.Repeat("x", 30), nil, "b"},
		"one too long":        {strings.Repeat("x", 31) + "\r\nb", "", ErrTooLong, ""},
		"no end":              {strings.Repeat("x", 100), "", ErrTooLong, ""},
		"NUL":                 {"a NO\x00OP\r\nb", "", ErrNUL, "b"},
		"ends too soon":       {"a NOOP", "", io.EOF, "a NOOP"},
		"CR inside is no end": {"a\rb\r\n", "a\rb", nil, ""},
		"two CR: one goes":    {"a\r\r\n", "a\r", nil, ""},
		"nothing":             {"", "", io.EOF, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for how, wrap := range map[string]func(io.Reader) io.Reader{"at once": all, "bytewise": iotest.OneByteReader, "with EOF": iotest.DataErrReader} {
				r := NewReader(wrap(strings.NewReader(tt.in)))
				got, err := r.Line(32)
				if string(got) != tt.want || !errors.Is(err, tt.err) {
					t.Errorf("%s: Line = %q, %v; want %q, %v", how, got, err, tt.want, tt.err)
				}
				if errors.Is(err, ErrTooLong) {
					continue // whoever sent that is not listened to any more
				}
				rest, err := io.ReadAll(io.MultiReader(bytes.NewReader(r.Take()), r.src))
				if string(rest) != tt.rest || err != nil {
					t.Errorf("%s: rest = %q, %v; want %q", how, rest, err, tt.rest)
				}
			}
		})
	}
}

func all(r io.Reader) io.Reader { return r }

func TestLiteral(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", MaxLiteral/16)
	r := NewReader(strings.NewReader("a LOGIN {4096}\r\n" + long + " x\r\n" + "a\x00b"))
	if _, err := r.Line(MaxLine); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Literal(MaxLiteral); string(got) != long || err != nil {
		t.Fatalf("Literal = %d bytes, %v", len(got), err)
	}
	if got, err := r.Line(MaxLine); string(got) != " x" || err != nil {
		t.Fatalf("the line behind it = %q, %v", got, err)
	}
	if got, err := r.Literal(0); len(got) != 0 || err != nil {
		t.Fatalf("an empty literal = %q, %v", got, err)
	}
	if _, err := r.Literal(3); !errors.Is(err, ErrNUL) {
		t.Errorf("NUL in a literal: %v", err)
	}
	if _, err := r.Literal(1 << 20); !errors.Is(err, ErrTooLong) {
		t.Errorf("a megabyte: %v", err)
	}
}

// A deadline interrupts a read, and what came before it is still there.
func TestInterruptedReadLosesNothing(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	r := NewReader(server)
	server.SetReadDeadline(time.Now().Add(-time.Hour))
	if _, err := r.Line(MaxLine); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	server.SetReadDeadline(time.Time{})
	go func() {
		client.Write([]byte("a NO"))
		server.SetReadDeadline(time.Now().Add(-time.Hour))
	}()
	if _, err := r.Line(MaxLine); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	server.SetReadDeadline(time.Time{})
	go client.Write([]byte("OP\r\n"))
	if got, err := r.Line(MaxLine); string(got) != "a NOOP" || err != nil {
		t.Errorf("Line = %q, %v", got, err)
	}
}

func TestWatch(t *testing.T) {
	r := NewReader(strings.NewReader("b SELECT INBOX\r\n"))
	if err := r.Watch(); err != io.EOF {
		t.Errorf("Watch = %v, want EOF", err)
	}
	if got := string(r.Take()); got != "b SELECT INBOX\r\n" {
		t.Errorf("what came meanwhile = %q", got)
	}
	if r.Take() != nil {
		t.Error("Take gave bytes twice")
	}
	r = NewReader(strings.NewReader(strings.Repeat("x", 3*MaxLine)))
	if err := r.Watch(); err != ErrFull {
		t.Errorf("Watch of a flood = %v, want %v", err, ErrFull)
	}
	if n := len(r.Buffered()); n > largeBuffer {
		t.Errorf("%d bytes were read ahead", n)
	}
}

func TestReleaseClears(t *testing.T) {
	secret := "a LOGIN alice abcde-fghjk-mnopq-rstuv\r\n"
	r := NewReader(io.MultiReader(strings.NewReader(secret), strings.NewReader(strings.Repeat("y", smallBuffer)), strings.NewReader("\r\n")))
	r.Line(MaxLine)
	old := *r.buf
	r.Line(MaxLine) // moves to the large buffer
	if len(*r.buf) != largeBuffer {
		t.Fatalf("the buffer has %d bytes", len(*r.buf))
	}
	if bytes.Contains(old, []byte("abcde")) {
		t.Error("a grown reader left the secret in its small buffer")
	}
	grown := *r.buf
	r.Release()
	if n := len(bytes.Trim(grown, "\x00")); n != 0 {
		t.Errorf("%d bytes left in the released buffer", n)
	}
	r.Release() // twice does no harm
	r.Reset(strings.NewReader("c NOOP\r\n"))
	if got, err := r.Line(MaxLine); string(got) != "c NOOP" || err != nil {
		t.Errorf("after Reset: %q, %v", got, err)
	}
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

func TestSourceWithoutProgress(t *testing.T) {
	if _, err := NewReader(stuck{}).Line(MaxLine); err != io.ErrNoProgress {
		t.Errorf("Line = %v, want %v", err, io.ErrNoProgress)
	}
}

func TestTrailingLiteral(t *testing.T) {
	for line, want := range map[string]struct {
		before string
		Announced
		ok  bool
		err error
	}{
		"a LOGIN alice x":             {before: "a LOGIN alice x"},
		"a LOGIN {5}":                 {before: "a LOGIN ", Announced: Announced{5, true}, ok: true},
		"a LOGIN {5+}":                {before: "a LOGIN ", Announced: Announced{5, false}, ok: true},
		"a LOGIN {0}":                 {before: "a LOGIN ", Announced: Announced{0, true}, ok: true},
		"a LOGIN {005}":               {before: "a LOGIN ", Announced: Announced{5, true}, ok: true},
		"a LOGIN {4096+}":             {before: "a LOGIN ", Announced: Announced{4096, false}, ok: true},
		"a LOGIN {4097+}":             {err: ErrLiteral},
		"a LOGIN {4097}":              {err: ErrLiteral},
		"a LOGIN {5-}":                {err: ErrLiteral},
		"a LOGIN {-5}":                {err: ErrLiteral},
		"a LOGIN {5++}":               {err: ErrLiteral},
		"a LOGIN { 5}":                {err: ErrLiteral},
		"a LOGIN {}":                  {err: ErrLiteral},
		"a LOGIN {+}":                 {err: ErrLiteral},
		"a LOGIN x}":                  {err: ErrLiteral},
		"a LOGIN {99999999999999999}": {err: ErrLiteral},
		"a LOGIN {5} ":                {before: "a LOGIN {5} "},
		"":                            {},
	} {
		before, a, ok, err := TrailingLiteral([]byte(line), MaxLiteral)
		if err != want.err || err == nil && (string(before) != want.before || a != want.Announced || ok != want.ok) {
			t.Errorf("TrailingLiteral(%q) = %q, %+v, %v, %v; want %+v", line, before, a, ok, err, want)
		}
	}
}

// FuzzReader reads lines and the literals that they announce, in pieces of any size. The property: no line over the limit, and all
// that was read together with what is left is the input, byte by byte.
func FuzzReader(f *testing.F) {
	f.Add([]byte("a001 LOGIN \"alice@example.test\" \"abcde-fghjk\"\r\nb SELECT INBOX\r\n"), uint8(7), uint16(64))
	f.Add([]byte("1 LOGIN {5+}\r\nalice {3}\r\nxyz\r\n"), uint8(1), uint16(32))
	f.Add([]byte("A1 ID (\"name\" \"Thunderbird\")\nA2 AUTHENTICATE PLAIN AGEAYg==\r\n"), uint8(3), uint16(2000))
	f.Add([]byte("\x16\x03\x01\x00\x00"), uint8(2), uint16(16))
	f.Fuzz(func(t *testing.T, in []byte, step uint8, max uint16) {
		limit := int(max)%MaxSASLLine + 2
		src := &stepReader{in, int(step)%64 + 1}
		r := NewReader(src)
		defer r.Release()
		var seen []byte
		var err error
		for err == nil {
			var line, literal []byte
			if line, err = r.Line(limit); err != nil {
				break
			}
			if len(line) >= limit {
				t.Fatalf("a line of %d bytes, the limit is %d", len(line), limit)
			}
			if bytes.ContainsAny(line, "\x00\n") {
				t.Fatalf("Line = %q", line)
			}
			seen = append(seen, line...)
			if in[len(seen)] == '\r' {
				seen = append(seen, '\r')
			}
			seen = append(seen, '\n')
			if _, a, ok, bad := TrailingLiteral(line, MaxLiteral); ok && bad == nil {
				literal, err = r.Literal(a.Size)
				seen = append(seen, literal...)
			}
		}
		if errors.Is(err, ErrNUL) {
			return // that line is gone, and so is the connection
		}
		if got := slices.Concat(seen, r.Take(), src.rest); !bytes.Equal(got, in) {
			t.Fatalf("got %q, want %q", got, in)
		}
	})
}

// stepReader gives at most step bytes at a time.
type stepReader struct {
	rest []byte
	step int
}

func (s *stepReader) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.rest[:min(s.step, len(s.rest))])
	s.rest = s.rest[n:]
	return n, nil
}
