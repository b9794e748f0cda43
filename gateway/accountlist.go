package gateway

import (
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"postern/gateway/view"
)

// Bounds of a list of accounts.
const (
	maxListing  = 64 << 20 // bytes of a file
	maxListed   = 1_000_000
	maxAliases  = 100 // of one account
	sampleBytes = 64 << 10
)

// listColumns are the columns of a list, with the names that other programs give them.
var listColumns = map[string]string{
	"address": "address", "email": "address", "e-mail": "address", "mail": "address", "email address": "address",
	"aliases": "aliases", "alias": "aliases",
	"backend_name": "backend_name", "backend name": "backend_name", "login": "backend_name",
	"issuer": "issuer", "subject": "subject",
}

const columnWords = "address, aliases, backend_name, issuer, subject"

// ReadAccountList reads a CSV file (RFC 4180) whose first line names the columns; Excel's semicolons, tabs, byte order marks and UTF-16 are
// understood. Lines that are wrong stand in the list with what is wrong of them; an error says that none of it can be read.
func ReadAccountList(r io.Reader) ([]Wanted, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxListing+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxListing {
		return nil, fmt.Errorf("the list has more than %d MiB; split it", maxListing>>20)
	}
	if text, err = inUTF8(text); err != nil {
		return nil, err
	}
	skipped := 0
	if rest, ok := bytes.CutPrefix(text, []byte("sep=")); ok { // Excel's own first line
		_, text, _ = bytes.Cut(rest, []byte("\n"))
		skipped = 1
	}
	c := csv.NewReader(bytes.NewReader(text))
	c.Comma, c.FieldsPerRecord, c.TrimLeadingSpace, c.ReuseRecord = separator(text), -1, true, true
	columns, err := readColumns(c)
	if err != nil {
		return nil, err
	}
	var list []Wanted
	for {
		fields, err := c.Read()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if p, ok := errors.AsType[*csv.ParseError](err); ok {
			// where a quotation mark is lost, nobody can know where the next account begins
			return nil, fmt.Errorf("line %d: %w; nothing behind it can be read", p.StartLine+skipped, quoteWords(p.Err))
		}
		if err != nil {
			return nil, err
		}
		if len(list) == maxListed {
			return nil, fmt.Errorf("the list has more than %d accounts; split it", maxListed)
		}
		if empty := !slices.ContainsFunc(fields, func(f string) bool { return strings.TrimSpace(f) != "" }); empty { // as Excel leaves behind
			continue
		}
		line, _ := c.FieldPos(0)
		list = append(list, wanted(fields, columns, line+skipped))
	}
}

// inUTF8 takes what spreadsheets write: UTF-8 with or without a mark, UTF-16 with one.
func inUTF8(text []byte) ([]byte, error) {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(text, []byte{0xff, 0xfe}):
		order = binary.LittleEndian
	case bytes.HasPrefix(text, []byte{0xfe, 0xff}):
		order = binary.BigEndian
	default:
		text = bytes.TrimPrefix(text, []byte("\ufeff"))
		if !utf8.Valid(text) {
			return nil, errors.New("the list is not in UTF-8; save it as \"CSV UTF-8\"")
		}
		return text, nil
	}
	if len(text)%2 != 0 {
		return nil, errors.New("the list looks like UTF-16 and ends in the middle of a character; save it as \"CSV UTF-8\"")
	}
	units := make([]uint16, 0, len(text)/2-1)
	for i := 2; i < len(text); i += 2 {
		units = append(units, order.Uint16(text[i:]))
	}
	return []byte(string(utf16.Decode(units))), nil
}

// separator is what stands between the names of the columns.
func separator(text []byte) rune {
	first, _, _ := bytes.Cut(text[:min(len(text), sampleBytes)], []byte("\n"))
	for _, sep := range ";\t" {
		if bytes.ContainsRune(first, sep) {
			return sep
		}
	}
	return ','
}

// readColumns reads the first line.
func readColumns(c *csv.Reader) ([]string, error) {
	names, err := c.Read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("the list is empty; its first line names the columns: %s", columnWords)
	}
	if p, ok := errors.AsType[*csv.ParseError](err); ok {
		return nil, fmt.Errorf("line %d: %w", p.StartLine, quoteWords(p.Err))
	}
	if err != nil {
		return nil, err
	}
	var columns []string
	for _, name := range names {
		known, ok := listColumns[strings.ToLower(strings.TrimSpace(name))]
		switch {
		case !ok && strings.Contains(name, "@"):
			return nil, fmt.Errorf("the first line must name the columns: %s (only address is needed)", columnWords)
		case !ok:
			return nil, fmt.Errorf("line 1: unknown column %.60q; the columns are %s; take others out", name, columnWords)
		case slices.Contains(columns, known):
			return nil, fmt.Errorf("line 1: the column %s stands there twice", known)
		}
		columns = append(columns, known)
	}
	if !slices.Contains(columns, "address") {
		return nil, errors.New("line 1: there is no column address")
	}
	return columns, nil
}

func quoteWords(err error) error {
	switch {
	case errors.Is(err, csv.ErrQuote), errors.Is(err, csv.ErrBareQuote):
		return errors.New("a quotation mark stands alone; inside quoted text it is written twice")
	}
	return err
}

func wanted(fields, columns []string, line int) Wanted {
	w := Wanted{Where: fmt.Sprintf("line %d", line)}
	for i, field := range fields {
		field = strings.Clone(strings.TrimSpace(field))
		if i >= len(columns) {
			if field != "" {
				w.Err = fmt.Errorf("it has more fields than the first line has columns (%d)", len(columns))
			}
			continue
		}
		switch columns[i] {
		case "address":
			w.Address = field
		case "aliases":
			for alias := range strings.FieldsFuncSeq(field, func(r rune) bool { return strings.ContainsRune(" ,;|\t\n", r) }) {
				if w.Aliases = append(w.Aliases, alias); len(w.Aliases) > maxAliases {
					break // one line may be as long as the file
				}
			}
		case "backend_name":
			w.BackendName = field
		case "issuer":
			w.Issuer = field
		case "subject":
			w.Subject = field
		}
	}
	switch {
	case w.Err != nil:
	case w.Address == "":
		w.Err = errors.New("the address is missing")
	case len(w.Aliases) > maxAliases:
		w.Err = fmt.Errorf("it has more than %d aliases", maxAliases)
	}
	return w
}

// maxReported bounds the lines of a report, so that an import of a hundred thousand is told in some megabytes.
const maxReported = 10_000

// View shows an import. Lines that change nothing are only counted.
func (i *Import) View() view.Import {
	v := view.Import{Done: i.Done, Added: i.Count(Added), Changed: i.Count(Changed), Unchanged: i.Count(Unchanged), Wrong: i.Count(Wrong), Lines: []view.ImportLine{}}
	for _, wrong := range []bool{true, false} { // what is wrong goes before what is well
		for _, l := range i.Lines {
			if l.Outcome == Unchanged || (l.Outcome == Wrong) != wrong {
				continue
			}
			if len(v.Lines) == maxReported {
				v.Left++
				continue
			}
			one := view.ImportLine{Where: l.Where, Address: l.Address, Outcome: string(l.Outcome), Changes: l.Changes}
			if l.Err != nil {
				one.Error = l.Err.Error()
			}
			v.Lines = append(v.Lines, one)
		}
	}
	return v
}
