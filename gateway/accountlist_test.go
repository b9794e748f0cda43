package gateway

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"
)

func utf16of(text string, order binary.ByteOrder) string {
	var b bytes.Buffer
	binary.Write(&b, order, append([]uint16{0xfeff}, utf16.Encode([]rune(text))...))
	return b.String()
}

// Lists as spreadsheets and directories write them.
func TestReadAccountList(t *testing.T) {
	t.Parallel()
	const plain = "address,aliases,backend_name,issuer,subject\nalice@example.test,al@example.test a@example.test,u17,ldap,4711\nbob@example.test,,,,\n"
	want := "[line 2 alice@example.test [al@example.test a@example.test] u17 ldap 4711 <nil>] [line 3 bob@example.test []    <nil>] "
	excel := strings.NewReplacer(",", ";", "\n", "\r\n").Replace(plain)
	for name, text := range map[string]string{
		"plain": plain, "CRLF": strings.ReplaceAll(plain, "\n", "\r\n"), "a byte order mark": "\ufeff" + plain, "Excel": excel, "Excel's mark": "\ufeff" + excel,
		"tabs": strings.ReplaceAll(plain, ",", "\t"), "UTF-16": utf16of(strings.ReplaceAll(plain, ",", "\t"), binary.LittleEndian), "big endian": utf16of(excel, binary.BigEndian),
		"other names":        strings.Replace(plain, "address,aliases,backend_name", " E-Mail , Alias ,\"Backend name\"", 1),
		"quoted aliases":     strings.Replace(plain, "al@example.test a@example.test", `"al@example.test, a@example.test"`, 1),
		"no last line break": strings.TrimSpace(plain) + ",",
		"empty lines":        plain + "\n,,,,\n  \n",
	} {
		list, err := ReadAccountList(strings.NewReader(text))
		got := ""
		for _, w := range list {
			got += fmt.Sprint([]any{w.Where, w.Address, w.Aliases, w.BackendName, w.Issuer, w.Subject, w.Err}) + " "
		}
		if name == "no last line break" {
			got = strings.Replace(got, "it has more fields than the first line has columns (5)", "<nil>", 1)
		}
		if err != nil || got != want {
			t.Errorf("%s: %v\n got %s\nwant %s", name, err, got, want)
		}
	}
	if list, err := ReadAccountList(strings.NewReader("sep=;\r\naddress;aliases\r\nalice@example.test;\r\n")); err != nil || len(list) != 1 || list[0].Where != "line 3" {
		t.Errorf("Excel's first line: %+v, %v", list, err)
	}
}

// What can't be read says which line it is, and why.
func TestWrongLists(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ text, want string }{
		"nothing":           {"", "the list is empty; its first line names the columns: address, aliases"},
		"no columns":        {"alice@example.test,al@example.test\n", "the first line must name the columns: address"},
		"an unknown column": {"address,name\n", `line 1: unknown column "name"; the columns are address`},
		"a column twice":    {"address,mail\n", "line 1: the column address stands there twice"},
		"no address":        {"aliases,subject\n", "line 1: there is no column address"},
		"Latin-1":           {"address\nj\xfcrgen@example.test\n", "the list is not in UTF-8"},
		"half UTF-16":       {utf16of("address\n", binary.LittleEndian) + "x", "ends in the middle of a character"},
		"a lone quote":      {"address,aliases\nalice@example.test,\"al@example.test\nbob@example.test,\n", "line 2: a quotation mark stands alone"},
		"a bare quote":      {"address\nalice@example.test\nb\"ob@example.test\n", "line 3: a quotation mark stands alone"},
	} {
		list, err := ReadAccountList(strings.NewReader(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v; want %q", name, list, err, tt.want)
		}
	}
	list, err := ReadAccountList(strings.NewReader("address,aliases\n,al@example.test\nalice@example.test,,x\nbob@example.test," + strings.Repeat("a@example.test ", 101) + "\ngood@example.test\n"))
	if err != nil || len(list) != 4 {
		t.Fatalf("%+v, %v", list, err)
	}
	for i, want := range []string{"the address is missing", "more fields than the first line has columns (2)", "more than 100 aliases", "<nil>"} {
		if got := fmt.Sprint(list[i].Err); !strings.Contains(got, want) || list[i].Where != fmt.Sprintf("line %d", i+2) {
			t.Errorf("%s: %s, want %q", list[i].Where, got, want)
		}
	}
}

// Whatever stands in a file, each account has a line of its own, in order, and no text is longer than what was read.
func FuzzReadAccountList(f *testing.F) {
	for _, text := range []string{"address\nalice@example.test\n", "sep=;\naddress;aliases\nx;y z\n", "\ufeffaddress\tsubject\n\"a\nb\"\tc\n", utf16of("address\nx\n", binary.LittleEndian), "address\n\"", "\xff\xfe\x00"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := ReadAccountList(bytes.NewReader(text))
		if err != nil {
			return
		}
		last := 0
		for _, w := range list {
			var line int
			if _, err := fmt.Sscanf(w.Where, "line %d", &line); err != nil || line <= last {
				t.Fatalf("%q stands behind line %d", w.Where, last)
			}
			last = line
			if w.Err == nil && w.Address == "" || len(w.Address)+len(w.BackendName) > 2*len(text)+3 {
				t.Errorf("read %+v of %q", w, text)
			}
		}
	})
}
