package sieveproxy

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"postern/protocols/wire"
)

// dialogue is a script of what client and backend say after the login, run through a guard as a relay does.
type dialogue struct {
	g       guard
	client  []byte // said and not taken yet
	backend bytes.Buffer
	told    bytes.Buffer // the client
	err     error
}

func (d *dialogue) says(p string, piece int) {
	for len(p) > 0 {
		n := min(piece, len(p))
		d.client = append(d.client, p[:n]...)
		p = p[n:]
		d.pump()
	}
}

func (d *dialogue) pump() {
	for d.err == nil && len(d.client) > 0 {
		st, err := d.g.Up(d.client)
		d.backend.Write(st.Pass)
		d.told.Write(st.Answer)
		d.err = err
		d.client = d.client[st.Taken:]
		if st.Taken == 0 && len(st.Pass) == 0 {
			return
		}
	}
}

func (d *dialogue) hears(p string, piece int) {
	for len(p) > 0 {
		n := min(piece, len(p))
		pass, _ := d.g.Down([]byte(p[:n]))
		d.told.Write(pass)
		p = p[n:]
		d.pump()
	}
}

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

// Lines that begin with "S: " are the backend's, others the client's; "\n" stands for CRLF.
func TestScanner(t *testing.T) {
	long := strings.Repeat("x", maxName+1)
	for name, tt := range map[string]struct {
		script  []string
		backend string // what reaches it
		told    string // what the client gets
		err     error
	}{
		"each command": {[]string{"CAPABILITY\nLISTSCRIPTS\nLOGOUT\nNOOP\nNOOP \"tag\"\nHAVESPACE \"a\" 99\nSETACTIVE \"\"\nGETSCRIPT \"a\"\nDELETESCRIPT \"a\"\nRENAMESCRIPT \"a\" \"b\"\nPUTSCRIPT \"a\" \"keep;\"\nCHECKSCRIPT \"\"\n"},
			"CAPABILITY\nLISTSCRIPTS\nLOGOUT\nNOOP\nNOOP \"tag\"\nHAVESPACE \"a\" 99\nSETACTIVE \"\"\nGETSCRIPT \"a\"\nDELETESCRIPT \"a\"\nRENAMESCRIPT \"a\" \"b\"\nPUTSCRIPT \"a\" \"keep;\"\nCHECKSCRIPT \"\"\n", "", nil},
		"written anew":         {[]string{"noop  \nGetScript   \"a\\\"\\\\b\"  \nPUTSCRIPT {3+}\nabc  {005+}\nkeep;\n"}, "NOOP\nGETSCRIPT \"a\\\"\\\\b\"\nPUTSCRIPT \"abc\" {5+}\nkeep;\n", "", nil},
		"beyond ASCII":         {[]string{"PUTSCRIPT \"ä\" \"#ö\"\nRENAMESCRIPT \"ü\" {2+}\nä\nGETSCRIPT \"b\"\n"}, "PUTSCRIPT {2+}\nä {3+}\n#ö\nRENAMESCRIPT {2+}\nü {2+}\nä\nGETSCRIPT \"b\"\n", "", nil},
		"a long quoted one":    {[]string{"CHECKSCRIPT \"" + long + "\"\n"}, "CHECKSCRIPT {1025+}\n" + long + "\n", "", nil},
		"empty literals":       {[]string{"PUTSCRIPT {0+}\n {0+}\n\nNOOP\n"}, "PUTSCRIPT \"\" {0+}\n\nNOOP\n", "", nil},
		"a script of commands": {[]string{"CHECKSCRIPT {22+}\nUNAUTHENTICATE\nNOOP\n\nNOOP\n"}, "CHECKSCRIPT {22+}\nUNAUTHENTICATE\nNOOP\n\nNOOP\n", "", nil},
		"no second login": {[]string{"AUTHENTICATE \"PLAIN\" {4+}\nAAAA\nNOOP\n", "S: OK\n", "STARTTLS\nunauthenticate\nXCLIENT ADDR=1.2.3.4\n\nDELETE \"a\"\nNOOP\n"}, "NOOP\nNOOP\n",
			"NO \"You are logged in already.\"\nOK\nNO \"You are logged in already.\"\nNO \"Close the connection instead.\"\nNO \"Unknown command.\"\nNO \"Unknown command.\"\nNO \"Unknown command.\"\n", nil},
		"in its turn":            {[]string{"LISTSCRIPTS\nNOOP\nSTARTTLS\nNOOP\n", "S: \"a\" ACTIVE\nS: OK\nS: ", "S: NO {4}\nOK\n\n"}, "LISTSCRIPTS\nNOOP\nNOOP\n", "\"a\" ACTIVE\nOK\nNO {4}\nOK\n\nNO \"You are logged in already.\"\n", nil},
		"waits":                  {[]string{"LISTSCRIPTS\nSTARTTLS\nNOOP\n", "S: \"a\"\n"}, "LISTSCRIPTS\n", "\"a\"\n", nil},
		"literals of a refused":  {[]string{"FOO {5+}\nalice {0+}\n {3+}\nx\n\nNOOP\n"}, "NOOP\n", "NO \"Unknown command.\"\n", nil},
		"too much":               {[]string{"NOOP \"a\" {6+}\nNOOP\n\nLOGOUT now\nLISTSCRIPTS {6+}\nNOOP\n\nCAPABILITY {0+}\n\n"}, "", strings.Repeat("NO \"Too many arguments.\"\n", 4), nil},
		"too little":             {[]string{"GETSCRIPT\nPUTSCRIPT \"a\"\nPUTSCRIPT {1+}\na\nRENAMESCRIPT \"a\"\"b\"\nCHECKSCRIPT{6+}\nNOOP\n\n"}, "", strings.Repeat("NO \"Missing arguments.\"\n", 5), nil},
		"no arguments of theirs": {[]string{"GETSCRIPT a\nHAVESPACE \"a\" \"9\"\nHAVESPACE \"a\" {3+}\n123\nHAVESPACE \"a\" 12345678901\nGETSCRIPT \"a\nGETSCRIPT \"a\\b\"\nPUTSCRIPT (\"a\") \"b\"\nPUTSCRIPT {a} \"b\"\n"}, "", strings.Repeat("NO \"Bad arguments.\"\n", 8), nil},
		"no names":               {[]string{"GETSCRIPT \"\xff\"\nGETSCRIPT {1+}\n\xff\nGETSCRIPT \"a\tb\"\nGETSCRIPT {6+}\nNOOP\n\nGETSCRIPT \"" + long + "\"\nGETSCRIPT {1025+}\n" + long + "\n"}, "", strings.Repeat("NO \"Bad arguments.\"\n", 6), nil},
		"bare LF":                {[]string{"NOOP \"a\"", "\nNOOP \"b\"\n"}, "NOOP \"a\"\nNOOP \"b\"\n", "", nil},
		"behind a script":        {[]string{"CHECKSCRIPT {5+}\nkeep; {6+}\nNOOP\n\n"}, "CHECKSCRIPT {5+}\nkeep;", "", errScript},
		"{n}":                    {[]string{"GETSCRIPT {5}\n"}, "", "", wire.ErrLiteral},
		"{n} of a refused one":   {[]string{"FOO {5}\n"}, "", "", wire.ErrLiteral},
		"{n-}":                   {[]string{"GETSCRIPT {5-}\n"}, "", "", wire.ErrLiteral},
		"{+}":                    {[]string{"GETSCRIPT {+}\n"}, "", "", wire.ErrLiteral},
		"a brace":                {[]string{"GETSCRIPT x}\n"}, "", "", wire.ErrLiteral},
		"no end":                 {[]string{"CHECKSCRIPT {50000000000000000000000+}\n"}, "", "", wire.ErrLiteral},
		"a long line":            {[]string{"NOOP \"" + strings.Repeat("x", maxText)}, "", "", errTooLong},
		"a long refused line":    {[]string{"FOO {1+}\n" + strings.Repeat("x", maxText+2)}, "", "", errTooLong},
	} {
		t.Run(name, func(t *testing.T) {
			for _, piece := range []int{1, 2, 3, 7, 100000} {
				var d dialogue
				for _, words := range tt.script {
					said, isServer := strings.CutPrefix(crlf(words), "S: ")
					if isServer {
						d.hears(strings.ReplaceAll(said, "\r\nS: ", "\r\n"), piece)
					} else {
						d.says(said, piece)
					}
				}
				if got, want := d.backend.String(), crlf(tt.backend); got != want {
					t.Errorf("in pieces of %d: the backend gets %q, want %q", piece, got, want)
				}
				if got, want := d.told.String(), crlf(tt.told); got != want {
					t.Errorf("in pieces of %d: the client gets %q, want %q", piece, got, want)
				}
				if !errors.Is(d.err, tt.err) {
					t.Errorf("in pieces of %d: error %v, want %v", piece, d.err, tt.err)
				}
			}
		})
	}
}

// Where servers differ in the end of a line, nothing passes.
func TestLineEnds(t *testing.T) {
	for said, told := range map[string]string{
		"NOOP\nNOOP\r\n":             "NO \"A line without CRLF.\"\r\n",
		"NOOP \"a\"\rNOOP \"b\"\r\n": "NO \"A line without CRLF.\"\r\n",
		"NOOP \"a\x00\"\r\n":         "NO \"A line without CRLF.\"\r\n",
		"NOOP\r\r\n":                 "NO \"A line without CRLF.\"\r\n",
		"FOO {6+}\nNOOP\r\n\r\n":     "NO \"A line without CRLF.\"\r\n",
	} {
		var d dialogue
		d.says(said, 100)
		if got := d.told.String(); got != told || d.err != nil {
			t.Errorf("%q is answered %q, %v; want %q", said, got, d.err, told)
		}
		if strings.Contains(d.backend.String(), "a") {
			t.Errorf("%q passes %q", said, d.backend.String())
		}
	}
}

// At a boundary a word of ours may stand: never inside an answer or its literals.
func TestTracker(t *testing.T) {
	for _, marked := range []string{ // "|" stands where a boundary is
		"OK\n|NO\n|BYE\n|ok \"done\"\n|",
		"\"a\" ACTIVE\n\"b\"\nOK \"Listscripts completed.\"\n|",
		"{6}\nOK\n\n\n\nOK \"Getscript completed.\"\n|",
		"{3}\nabc ACTIVE\n{0}\n\nOK\n|",
		"\"OK\"\n\"OK {5}\"\n\"x {5}\" \"{6}\"\nOK\n|",
		"NO {21}\nline 1: error\nOK x\n\n|NO (QUOTA/MAXSIZE) {4}\nOK\n\n|",
		"OK (TAG {4}\nOK\n) \"Done\"\n|OK (TAG {2}\n\n) {4}\nNO\n\n|",
		"OKAY\nNO(X)\nBYEBYE\nOK\n|",
		"\nOK\n|",
	} {
		said := crlf(strings.ReplaceAll(marked, "|", ""))
		var want []int
		for i, part := range strings.Split(crlf(marked), "|") {
			if at := len(part); i == 0 {
				want = append(want, at)
			} else if at > 0 {
				want = append(want, want[i-1]+at)
			}
		}
		for _, piece := range []int{1, 2, 5, 1000} {
			var tr tracker
			var marks []int
			answers := 0
			for at := 0; at < len(said); at += piece {
				boundary, n := tr.down([]byte(said[at:min(at+piece, len(said))]))
				if answers += n; boundary >= 0 {
					marks = append(marks, at+boundary)
				}
			}
			if piece == 1 && fmt.Sprint(marks) != fmt.Sprint(want) {
				t.Errorf("boundaries of %q at %v, want %v", said, marks, want)
			}
			if answers != len(want) || marks[len(marks)-1] != want[len(want)-1] {
				t.Errorf("in pieces of %d: %d answers in %q, the last boundary at %v; want %v", piece, answers, said, marks, want)
			}
		}
	}
}

func TestBusy(t *testing.T) {
	var d dialogue
	want := func(when string, busy, orderly bool) {
		t.Helper()
		if b, o := d.g.Busy(false), d.g.Busy(true); b != busy || o != orderly {
			t.Errorf("%s: busy %v, in good order %v; want %v, %v", when, b, o, busy, orderly)
		}
	}
	want("at first", false, false)
	d.says("PUTSCRIPT \"a\" {5+}\r\nke", 100)
	want("in a script", false, true)
	if n := d.g.Data(true); n != 3 {
		t.Errorf("%d bytes of the script are left", n)
	}
	d.says("ep;", 100)
	want("behind it", false, true)
	d.says("\r\n", 100)
	want("before the answer", true, true)
	d.says("NO", 100)
	want("in the next command", false, true)
	d.says("OP\r\n", 100)
	d.hears("OK\r\nO", 100)
	want("before the second answer", true, true)
	d.hears("K\r\n", 100)
	want("when all are answered", false, false)
	d.hears("{5}\r\nke", 100)
	if n := d.g.Data(false); n != 3 {
		t.Errorf("%d bytes of the backend's script are left", n)
	}
	d.g.Skip(false, 3)
	if _, boundary := d.g.Down([]byte("\r\nOK\r\n")); boundary != 6 {
		t.Errorf("a boundary at %d", boundary)
	}
}
