package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one fault of a configuration file, with what to do about it.
type Problem struct {
	Line, Column int // from 1; 0: the file as a whole
	Text         string
}

// Problems are all faults that could be told at once.
type Problems struct {
	File string
	List []Problem
}

// Error lists them as compilers do: file:line:column: text.
func (p *Problems) Error() string {
	var b strings.Builder
	for i, one := range p.List {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.File)
		if one.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", one.Line, one.Column)
		}
		b.WriteString(": " + one.Text)
	}
	return b.String()
}

// sorted returns the problems as an error in the order of the file, or nil if there are none.
func (p *Problems) sorted() error {
	if len(p.List) == 0 {
		return nil
	}
	slices.SortStableFunc(p.List, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return p
}

// nearest returns the known word that is closest to what was written, or "" if none is close.
func nearest(written string, known []string) string {
	best, distance := "", len(written)/2+1
	for _, k := range known {
		if d := edits(written, k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// similar reports whether a known word is so close to what was written that it was meant.
func similar(written string, known []string) bool {
	n := nearest(written, known)
	return n != "" && edits(written, n) <= 2
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := last
			if a[i] != b[j] {
				change++
			}
			last = row[j+1]
			row[j+1] = min(change, last+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// otherWords are what people call things that have another name here.
var otherWords = map[string]string{
	"imaps": "imap", "smtp": "submission", "smtps": "submission", "submissions": "submission", "pop": "pop3", "pop3s": "pop3",
	"sieve": "managesieve", "caldav": "calendar", "carddav": "contacts", "http": "dav", "https": "dav",
}

// suggestion is the end of a sentence about an unknown word.
func suggestion(written string, known []string) string {
	if meant := otherWords[written]; slices.Contains(known, meant) {
		return fmt.Sprintf("; did you mean %q?", meant)
	}
	if n := nearest(written, known); n != "" {
		return fmt.Sprintf("; did you mean %q?", n)
	}
	known = slices.Sorted(slices.Values(known))
	return "; known here are " + strings.Join(known, ", ")
}
