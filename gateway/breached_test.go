package gateway

import (
	"crypto/sha1"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func breachedFile(t testing.TB, text string) breachedList {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pwned.txt")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return breachedList(path)
}

// Whatever the number of lines and their form: all that stand in the list are found, and nothing else is.
func TestBreached(t *testing.T) {
	t.Parallel()
	for name, form := range map[string]struct {
		hash      string
		counts    bool
		end, last string
	}{
		"with counts":       {"%X", true, "\n", "\n"},
		"without counts":    {"%X", false, "\n", "\n"},
		"as of Windows":     {"%X", true, "\r\n", "\r\n"},
		"small letters":     {"%x", true, "\n", "\n"},
		"no end":            {"%X", true, "\n", ""},
		"no end on Windows": {"%X", false, "\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, n := range []int{1, 2, 3, 7, 1000} {
				var lines []string
				for i := range n {
					count := i % 7
					for range i % 5 {
						count *= 100 // lines of different lengths
					}
					line := fmt.Sprintf(form.hash, sha1.Sum(fmt.Append(nil, "secret", i)))
					if form.counts {
						line += fmt.Sprintf(":%d", count)
					}
					lines = append(lines, line)
				}
				slices.Sort(lines)
				list := breachedFile(t, strings.Join(lines, form.end)+form.last)
				if err := list.check(); err != nil {
					t.Fatal(err)
				}
				for i := range n {
					if found, err := list.has(fmt.Append(nil, "secret", i)); !found || err != nil {
						t.Fatalf("of %d lines: secret%d: %v, %v", n, i, found, err)
					}
					if found, err := list.has(fmt.Append(nil, "good", i)); found || err != nil {
						t.Fatalf("of %d lines: good%d: %v, %v", n, i, found, err)
					}
				}
			}
		})
	}
}

func TestBreachedWrongFiles(t *testing.T) {
	t.Parallel()
	line := func(password string) string { return fmt.Sprintf("%X:1\n", sha1.Sum([]byte(password))) }
	for name, tt := range map[string]struct {
		list breachedList
		want string
	}{
		"missing":      {"/nowhere/pwned.txt", "no such file"},
		"empty":        {breachedFile(t, ""), "is empty"},
		"by count":     {breachedFile(t, "F"+line("a")[1:]+"0"+line("b")[1:]), "line 2: the hashes are not in order"},
		"NTLM":         {breachedFile(t, "32ED87BDB5FDC5E9CBA88547376818D4:1\n"), "line 1: "},
		"an archive":   {breachedFile(t, "7z\xbc\xaf\x27\x1c\x00"+strings.Repeat("x", 1000)), "line 1: "},
		"passwords":    {breachedFile(t, "123456\npassword\n"), `"123456" does not begin with a SHA-1 hash`},
		"no line ends": {breachedFile(t, strings.Repeat("A", 1<<20)), "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := tt.list.check(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("check = %v, want %q", err, tt.want)
			}
			if name == "empty" || name == "by count" {
				return
			}
			if found, err := tt.list.has([]byte("a")); found || err == nil {
				t.Errorf("has = %v, %v", found, err)
			}
		})
	}
}

func FuzzBreached(f *testing.F) {
	f.Add("5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8:1\r\n", "password")
	f.Add("5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8", "password")
	f.Fuzz(func(t *testing.T, text, password string) {
		sum := sha1.Sum([]byte(password))
		found, _ := search(strings.NewReader(text), int64(len(text)), sum[:])
		if found && !strings.Contains(strings.ToUpper(text), fmt.Sprintf("%X", sum)) {
			t.Errorf("%q is said to be in %q", password, text)
		}
	})
}
