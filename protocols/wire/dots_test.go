package wire

import (
	"bytes"
	"strings"
	"testing"
)

func TestDots(t *testing.T) {
	for in, want := range map[string]string{ // "E" and "O" stand where an end and something odd are found
		".\r\n":                    ".\r\nE",
		"a\r\n.\r\nb":              "a\r\n.\r\nEb",
		"a\r\n..\r\n.\r\n":         "a\r\n..\r\n.\r\nE",
		"a.\r\n.b\r\n.\r\n":        "a.\r\n.b\r\n.\r\nE",
		"a\n.\nb":                  "a\n.O\nb",
		"a\n.\r\nb":                "a\n.O\r\nb",
		"a\r\n.\nb":                "a\r\n.O\nb",
		"a\r.\rb":                  "a\r.O\rb",
		"a\r.\r\nb":                "a\r.O\r\nb",
		"a\r\n.\rb":                "a\r\n.\rOb",
		"a\r\n.\r\r\nb":            "a\r\n.\rO\r\nb",
		"a\r\n\x00.\r\nb":          "a\r\n\x00.O\r\nb",
		"a\r\n.\x00\r\nb":          "a\r\n.O\x00\r\nb",
		".\nb":                     ".O\nb",
		"a\nb\rc\r\n.x\n.y\r\r.z":  "a\nb\rc\r\n.x\n.y\r\r.z",
		"a\r\n.\r":                 "a\r\n.\r",
		"...":                      "...",
		"\r\r\n.\r\n":              "\r\r\n.\r\nE",
		"a\r\n.\r\n.\r\n":          "a\r\n.\r\nE.\r\nE",
		"a.\n.b\n. \n..\n.\r":      "a.\n.b\n. \n..\n.O\r",
		strings.Repeat(".", 40):    strings.Repeat(".", 40),
		"x\r\n.\r.\r\n":            "x\r\n.\rO.O\r\n",
		"one\r\ntwo\r\n\r\n.\r\n.": "one\r\ntwo\r\n\r\n.\r\nE.",
	} {
		for size := 1; size <= len(in); size++ {
			if got := scanned(in, size); got != want {
				t.Errorf("%q in pieces of %d: %q, want %q", in, size, got, want)
			}
		}
	}
}

// scanned is a text with what is found in it.
func scanned(in string, size int) string {
	var d Dots
	var out []byte
	for p := []byte(in); len(p) > 0; {
		piece := p[:min(size, len(p))]
		n, f := d.Scan(piece)
		out = append(out, piece[:n]...)
		if f == End {
			out = append(out, 'E')
		}
		if f == Odd {
			out = append(out, 'O')
		}
		p = p[n:]
	}
	return string(out)
}

// FuzzDots compares with a reading of the whole text: the end is CRLF "." CRLF, and a dot between any two of CR, LF and NUL is odd
// otherwise. Where it stands must not depend on the pieces.
func FuzzDots(f *testing.F) {
	for _, s := range []string{"a\r\n.\r\n", "\n.\n", "\r.\r\n.\r\n", "\r\n\x00.\r\n", ".\r\n.\r.\r\n", "a\r\n..\r\n\r\n.\n"} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		if len(in) > 1<<12 {
			return
		}
		want := reference(in)
		for _, size := range []int{1, max(1, size%7), len(in) + 1} {
			if got := scanned(string(in), size); got != want {
				t.Fatalf("%q in pieces of %d: %q, want %q", in, size, got, want)
			}
		}
	})
}

func reference(in []byte) string {
	var out []byte
	begin := 0 // of the text
	isEnd := func(c byte) bool { return c == '\r' || c == '\n' || c == 0 }
	for i := range in {
		c := in[i]
		text := append([]byte("\r\n"), in[begin:i]...) // what stands before c
		switch {
		case bytes.HasSuffix(text, []byte("\r\n.\r")):
			if c == '\n' {
				out = append(out, c, 'E')
				begin = i + 1
				continue
			}
			out = append(out, 'O')
		case bytes.HasSuffix(text, []byte(".")) && isEnd(text[len(text)-2]) && isEnd(c):
			if !bytes.HasSuffix(text, []byte("\r\n.")) || c != '\r' {
				out = append(out, 'O')
			}
		}
		out = append(out, c)
	}
	return string(out)
}

func BenchmarkDots(b *testing.B) {
	base64 := bytes.Repeat([]byte(strings.Repeat("QUJD", 19)+"\r\n"), 200)
	prose := bytes.Repeat([]byte("A sentence, and another. Lines end here and there; e.g. at a place like this.\r\n"), 200)
	for name, text := range map[string][]byte{"base64": base64, "prose": prose} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				var d Dots
				d.Scan(text)
			}
		})
	}
}
