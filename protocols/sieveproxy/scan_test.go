package sieveproxy

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"postern/authstore"
	"postern/protocols/doortest"
	"postern/protocols/wire"
)

func newScript() *doortest.Script {
	return &doortest.Script{Guard: Door{}.Guard(nil, authstore.Grant{}, nil)}
}

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
		"a tag in a literal":   {[]string{"NOOP {3+}\na\"b\n"}, "NOOP \"a\\\"b\"\n", "", nil},
		"unasked":              {[]string{"S: BYE\n", "LISTSCRIPTS\nSTARTTLS\n"}, "LISTSCRIPTS\n", "BYE\n", nil},
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
				s := newScript()
				s.Run(tt.script, piece)
				if got, want := s.Backend.String(), doortest.CRLF(tt.backend); got != want {
					t.Errorf("in pieces of %d: the backend gets %q, want %q", piece, got, want)
				}
				if got, want := s.Told.String(), doortest.CRLF(tt.told); got != want {
					t.Errorf("in pieces of %d: the client gets %q, want %q", piece, got, want)
				}
				if !errors.Is(s.Err, tt.err) {
					t.Errorf("in pieces of %d: error %v, want %v", piece, s.Err, tt.err)
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
		s := newScript()
		s.Say(said, 100)
		if got := s.Told.String(); got != told || s.Err != nil {
			t.Errorf("%q is answered %q, %v; want %q", said, got, s.Err, told)
		}
		if strings.Contains(s.Backend.String(), "a") {
			t.Errorf("%q passes %q", said, s.Backend.String())
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
		"NO {0}\n\n|OK (X {0}\n) {0}\n\n|",
		"OKAY\nNO(X)\nBYEBYE\nOK\n|",
		"\nOK\n|",
	} {
		said := doortest.CRLF(strings.ReplaceAll(marked, "|", ""))
		var want []int
		for i, part := range strings.Split(doortest.CRLF(marked), "|") {
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
	s := newScript()
	want := func(when string, busy, orderly bool) {
		t.Helper()
		if b, o := s.Guard.Busy(false), s.Guard.Busy(true); b != busy || o != orderly {
			t.Errorf("%s: busy %v, in good order %v; want %v, %v", when, b, o, busy, orderly)
		}
	}
	want("at first", false, false)
	s.Say("PUTSCRIPT \"a\" {5+}\r\nke", 100)
	want("in a script", false, true)
	if n := s.Guard.Data(true); n != 3 {
		t.Errorf("%d bytes of the script are left", n)
	}
	s.Say("ep;", 100)
	want("behind it", false, true)
	s.Say("\r\n", 100)
	want("before the answer", true, true)
	s.Say("NO", 100)
	want("in the next command", false, true)
	s.Say("OP\r\n", 100)
	s.Hear("OK\r\nO", 100)
	want("before the second answer", true, true)
	s.Hear("K\r\n", 100)
	want("when all are answered", false, false)
	s.Hear("{5}\r\nke", 100)
	if n := s.Guard.Data(false); n != 3 {
		t.Errorf("%d bytes of the backend's script are left", n)
	}
	s.Guard.Skip(false, 3)
	if _, boundary := s.Guard.Down([]byte("\r\nOK\r\n")); boundary != 6 {
		t.Errorf("a boundary at %d", boundary)
	}
}
