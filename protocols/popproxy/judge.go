package popproxy

import (
	"bytes"
	"strings"
)

// verdict is what matters of a command that passes.
type verdict struct {
	lines bool // +OK is followed by lines, up to one of a dot
	quits bool
}

// command says how a command is written: its name and, between blanks, so many numbers.
type command struct {
	least, most int
	lines       bool // with the least numbers, see verdict
}

// commands are those that pass (RFC 1939 sections 5 to 7, RFC 2449; LAST of RFC 1460, which old apps ask for). All others do not: a second
// login, words of proxies, and what some server may know and nobody here does.
var commands = map[string]command{
	"STAT": {}, "NOOP": {}, "RSET": {}, "LAST": {}, "QUIT": {},
	"LIST": {most: 1, lines: true},
	"UIDL": {most: 1, lines: true},
	"RETR": {least: 1, most: 1, lines: true},
	"DELE": {least: 1, most: 1},
	"TOP":  {least: 2, most: 2, lines: true},
	"CAPA": {lines: true},
}

// maxNumber is the longest number, in digits (RFC 1939 section 3).
const maxNumber = 40

// judge reads a line with its end; fault is why it does not pass. It is strict, for servers differ in what they make of other blanks, of a CR
// or a NUL inside, and of numbers that are none.
func judge(line []byte) (v verdict, fault string) {
	if len(line) > maxCommand {
		return v, "Line too long."
	}
	line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	name, rest, hasNumbers := bytes.Cut(line, []byte(" "))
	cmd, ok := commands[strings.ToUpper(string(name))]
	if !ok || bytes.ContainsFunc(line, notPrintable) { // there are letters whose capital is in ASCII
		return v, "Unknown command, or not after login."
	}
	numbers := 0
	if hasNumbers {
		for number := range bytes.SplitSeq(rest, []byte(" ")) {
			numbers++
			if !isNumber(number) {
				return v, "Bad arguments."
			}
		}
	}
	if numbers < cmd.least || numbers > cmd.most {
		return v, "Bad arguments."
	}
	return verdict{lines: cmd.lines && numbers == cmd.least, quits: strings.EqualFold(string(name), "QUIT")}, ""
}

func isNumber(word []byte) bool {
	return 0 < len(word) && len(word) <= maxNumber && !bytes.ContainsFunc(word, func(r rune) bool { return r < '0' || r > '9' })
}

func notPrintable(r rune) bool { return r < ' ' || r > '~' }
