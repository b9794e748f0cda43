package imapproxy

import (
	"fmt"
	"strings"
	"testing"
)

// At a boundary a word of ours may stand: never inside a response or its literals.
func TestTracker(t *testing.T) {
	for name, tt := range map[string]struct {
		said string // "|" stands where a boundary is
	}{
		"lines":               {"* 1 EXISTS\r\n|* OK still here\r\n|a OK done\r\n|"},
		"a literal":           {"* 1 FETCH (BODY[] {8}\r\na OK x\r\n)\r\n|b OK\r\n|"},
		"two":                 {"* LIST () \"/\" {3}\r\na\r\n x {2}\r\n* \r\n|"},
		"an empty one":        {"* 1 FETCH (BODY[] {0}\r\n)\r\n|"},
		"literal8":            {"* 1 FETCH (BINARY[1] ~{4}\r\n\r\n\x00\n)\r\n|"},
		"no literal: status":  {"* OK hello {5}\r\n|* 1 EXISTS\r\n|a NO {3}\r\n|+ go {3}\r\n|* BYE {9}\r\n|"},
		"LF":                  {"* 1 EXISTS\n|a OK\n|"},
		"a literal after OK?": {"* OKAY {2}\r\nxy\r\n|"},
	} {
		t.Run(name, func(t *testing.T) {
			said := strings.ReplaceAll(tt.said, "|", "")
			for _, piece := range []int{1, 2, 5, 1000} {
				var tr tracker
				got, at := said, 0
				var marks []int
				for at < len(said) {
					n := min(piece, len(said)-at)
					for p := []byte(said[at : at+n]); len(p) > 0; {
						f := tr.down(p)
						if f.boundary >= 0 {
							marks = append(marks, at+f.boundary)
						}
						at += f.taken
						p = p[f.taken:]
					}
				}
				want := []int{}
				for i, seen := 0, 0; i < len(tt.said); i++ {
					if tt.said[i] == '|' {
						want = append(want, i-seen)
						seen++
					}
				}
				if piece == 1 && fmt.Sprint(marks) != fmt.Sprint(want) {
					t.Errorf("boundaries of %q at %v, want %v", got, marks, want)
				}
				if len(marks) == 0 || marks[len(marks)-1] != want[len(want)-1] {
					t.Errorf("in pieces of %d: last boundary of %q at %v, want %v", piece, got, marks, want)
				}
			}
		})
	}
}

func TestAnswered(t *testing.T) {
	for said, want := range map[string]string{"a1 OK done\r\n": "a1 true", "a1 ok\r\n": "a1 true", "a1 NO\r\n": "a1 false", "a1 bad\r\n": "a1 false"} {
		var tr tracker
		tr.down([]byte("longer-tag OK before, with many words that stay in the buffer\r\n"))
		if f := tr.down([]byte(said)); f.event != completes {
			t.Fatalf("%q is no answer", said)
		}
		if tag, ok := tr.answered(); fmt.Sprint(string(tag), " ", ok) != want {
			t.Errorf("%q: %s %v, want %s", said, tag, ok, want)
		}
	}
}

func BenchmarkScanner(b *testing.B) {
	g := newScript(false).g
	p := []byte("a123 UID FETCH 17 (FLAGS)\r\n")
	b.ReportAllocs()
	for b.Loop() {
		g.Up(p)
	}
}

func BenchmarkTracker(b *testing.B) {
	g := newScript(false).g
	p := []byte("* 17 FETCH (UID 17 FLAGS (\\Seen))\r\n")
	b.ReportAllocs()
	for b.Loop() {
		g.Down(p)
	}
}
