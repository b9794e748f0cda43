package gateway

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// breachedList is a file of passwords that thieves know, in the form of Have I Been Pwned's: lines "SHA-1:COUNT" or "SHA-1" in the order of
// the hashes. It may have 40 GB, so it is searched where it lies; it is opened for each search, so that a new one can be moved into its place.
type breachedList string

const (
	maxBreachedLine = 128  // bytes, with the line end; honest ones have 60
	breachedSample  = 1000 // lines that check reads
)

// has reports whether a password stands in the list.
func (l breachedList) has(password []byte) (bool, error) {
	sum := sha1.Sum(password)
	f, err := os.Open(string(l))
	if err != nil {
		return false, fmt.Errorf("breached_passwords: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("breached_passwords: %w", err)
	}
	found, err := search(f, info.Size(), sum[:])
	if err != nil {
		return false, fmt.Errorf("breached_passwords %s: %w", string(l), err)
	}
	return found, nil
}

// search halves the range in which the line of a hash can begin until it is found or nothing is left.
func search(f io.ReaderAt, size int64, want []byte) (bool, error) {
	from, to := int64(0), size
	for from < to {
		middle := from + (to-from)/2
		line, begin, err := lineFrom(f, middle)
		if err != nil {
			return false, err
		}
		if begin >= to || line == nil { // no line begins between the middle and the end of the range
			to = middle
			continue
		}
		hash, err := hashOf(line)
		if err != nil {
			return false, fmt.Errorf("at byte %d: %w", begin, err)
		}
		switch bytes.Compare(hash, want) {
		case 0:
			return true, nil
		case -1:
			from = begin + int64(len(line))
		default:
			to = middle
		}
	}
	return false, nil
}

// lineFrom reads the first line that begins at an offset or behind it, with its end, and tells where it begins; nil: there is none.
func lineFrom(f io.ReaderAt, offset int64) (line []byte, begin int64, err error) {
	begin = max(offset-1, 0) // a line end right before the offset makes a line begin there
	buf := make([]byte, 2*maxBreachedLine)
	n, err := f.ReadAt(buf, begin)
	if err != nil && err != io.EOF {
		return nil, 0, err
	}
	rest := buf[:n]
	if offset > 0 {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 && n == len(buf) {
			return nil, 0, errLongLine
		}
		if end < 0 {
			return nil, 0, nil
		}
		rest, begin = rest[end+1:], begin+int64(end)+1
	}
	if len(rest) == 0 {
		return nil, begin, nil
	}
	if end := bytes.IndexByte(rest, '\n'); end >= 0 {
		return rest[:end+1], begin, nil
	}
	if n == len(buf) {
		return nil, 0, errLongLine
	}
	return rest, begin, nil
}

var errLongLine = errors.New("a line is too long; the file must have lines of a SHA-1 hash, a colon and a number")

func hashOf(line []byte) ([]byte, error) {
	text, _, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), ":")
	hash, err := hex.DecodeString(text)
	if err != nil || len(hash) != sha1.Size {
		return nil, fmt.Errorf("%.60q does not begin with a SHA-1 hash", line)
	}
	return hash, nil
}

// check looks at the first lines for what people may have downloaded instead: the list ordered by count, one of other hashes, an archive.
func (l breachedList) check() error {
	f, err := os.Open(string(l))
	if err != nil {
		return fmt.Errorf("%w; put the list there, or take breached_passwords out of [portal]", err)
	}
	defer f.Close()
	var last []byte
	lines := bufio.NewScanner(io.LimitReader(f, breachedSample*maxBreachedLine))
	for n := 1; n <= breachedSample && lines.Scan(); n++ {
		hash, err := hashOf(lines.Bytes())
		if err != nil {
			return fmt.Errorf("%s, line %d: %w; take the SHA-1 list of Have I Been Pwned, ordered by hash, as text", string(l), n, err)
		}
		if bytes.Compare(last, hash) >= 0 {
			return fmt.Errorf("%s, line %d: the hashes are not in order; take the list that is ordered by hash, or run: LC_ALL=C sort -u", string(l), n)
		}
		last = hash
	}
	switch {
	case lines.Err() != nil:
		return fmt.Errorf("%s: %w", string(l), lines.Err())
	case last == nil:
		return fmt.Errorf("%s is empty", string(l))
	}
	return nil
}
