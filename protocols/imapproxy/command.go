package imapproxy

import (
	"bytes"
	"strconv"
	"strings"

	"postern/protocols/wire"
)

// maxTag bounds a tag, in bytes.
const maxTag = 64

// command is one command, read to its end. Where it ends is decided by lines and literals alone (RFC 9051 section 9), before
// anything in it is understood, so that nothing in it can be taken for the next one.
type command struct {
	tag    string
	name   string // in capitals
	bad    string // why it is none; tag is "*" if it was none
	isHTTP bool
	text   []byte // all of it, each literal behind its announcement and CRLF
	rest   []byte // of text, what is not parsed yet
}

// clear overwrites what may be credentials.
func (cmd *command) clear() { clear(cmd.text) }

// add appends to text. Where that has to move, nothing stays behind.
func (cmd *command) add(p []byte) {
	if len(cmd.text)+len(p) > cap(cmd.text) {
		grown := append(make([]byte, 0, 2*(len(cmd.text)+len(p))), cmd.text...)
		cmd.clear()
		cmd.text = grown
	}
	cmd.text = append(cmd.text, p...)
}

// read reads a command with its literals. A literal for which the client waits is asked for only where one may come: a password
// is not asked for before TLS. Then the command ends there, for the answer is no "+".
func (c *client) read() (*command, error) {
	cmd := &command{}
	lines, literals := wire.MaxLine, wire.MaxLiteral // what they may still take
	for {
		line, err := c.R.Line(lines)
		if err != nil {
			cmd.clear()
			return nil, err
		}
		if cmd.tag == "" {
			cmd.head(line)
		}
		cmd.add(line)
		lines -= len(line)
		_, literal, ok, err := wire.TrailingLiteral(line, literals)
		switch {
		case err != nil:
			cmd.clear()
			return nil, err
		case !ok, literal.Wait && !c.takesLiterals(cmd):
			cmd.rest = cmd.text[min(len(cmd.tag)+len(" ")+len(cmd.name), len(cmd.text)):]
			return cmd, nil
		case literal.Wait:
			if err := c.write("+ OK\r\n"); err != nil {
				cmd.clear()
				return nil, err
			}
		}
		octets, err := c.R.Literal(literal.Size)
		if err != nil {
			cmd.clear()
			return nil, err
		}
		cmd.add([]byte("\r\n"))
		cmd.add(octets)
		literals -= literal.Size
	}
}

func (c *client) takesLiterals(cmd *command) bool {
	return cmd.bad == "" && (cmd.name == "ID" || cmd.name == "LOGIN" && c.MayLogIn())
}

// head reads tag and name from a command's first line. A tag that is none is never sent back.
func (cmd *command) head(line []byte) {
	tag, rest, _ := bytes.Cut(line, []byte(" "))
	name, _, _ := bytes.Cut(rest, []byte(" "))
	cmd.isHTTP = bytes.Contains(line, []byte(" HTTP/"))
	cmd.tag, cmd.name = string(tag), string(bytes.Map(upperASCII, name))
	switch {
	case len(tag) == 0 || len(tag) > maxTag || bytes.ContainsFunc(tag, notInTag):
		cmd.tag, cmd.bad = "*", "Invalid tag."
	case len(name) == 0:
		cmd.bad = "Missing command."
	}
}

// upperASCII leaves what is beyond ASCII: there are letters whose capital is in it.
func upperASCII(r rune) rune {
	if 'a' <= r && r <= 'z' {
		return r - 'a' + 'A'
	}
	return r
}

// notInTag tells what is no ASTRING-CHAR, or "+" (RFC 9051 section 9).
func notInTag(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`(){%*"\+`, r) }

// hasArguments reports whether anything is left to parse.
func (cmd *command) hasArguments() bool { return len(cmd.rest) > 0 }

// space takes one space.
func (cmd *command) space() bool { return cmd.take(" ") }

func (cmd *command) take(word string) bool {
	if len(cmd.rest) < len(word) || !strings.EqualFold(string(cmd.rest[:len(word)]), word) {
		return false
	}
	cmd.rest = cmd.rest[len(word):]
	return true
}

// astring takes an atom, a quoted string or a literal. What it returns lies in the command's text. An atom may hold more than the
// standard says, as people's clients send unquoted what people type.
func (cmd *command) astring() ([]byte, bool) {
	if len(cmd.rest) > 0 && (cmd.rest[0] == '"' || cmd.rest[0] == '{') {
		return cmd.str()
	}
	end := bytes.IndexFunc(cmd.rest, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`(){"`, r) })
	if end < 0 {
		end = len(cmd.rest)
	}
	atom := cmd.rest[:end]
	cmd.rest = cmd.rest[end:]
	return atom, end > 0
}

// str takes a quoted string or a literal.
func (cmd *command) str() ([]byte, bool) {
	if cmd.take(`"`) {
		return cmd.quoted()
	}
	line, after, ok := bytes.Cut(cmd.rest, []byte("\r\n"))
	if !ok {
		return nil, false
	}
	before, literal, ok, err := wire.TrailingLiteral(line, wire.MaxLiteral)
	if !ok || err != nil || len(before) > 0 || literal.Size > len(after) {
		return nil, false
	}
	cmd.rest = after[literal.Size:]
	return after[:literal.Size], true
}

// quoted takes the rest of a quoted string and unescapes it where it stands.
func (cmd *command) quoted() ([]byte, bool) {
	n := 0
	for i := 0; i < len(cmd.rest); i++ {
		switch b := cmd.rest[i]; b {
		case '"':
			s := cmd.rest[:n]
			cmd.rest = cmd.rest[i+1:]
			return s, true
		case '\r', '\n':
			return nil, false
		case '\\':
			if i++; i == len(cmd.rest) || cmd.rest[i] != '"' && cmd.rest[i] != '\\' {
				return nil, false
			}
		}
		cmd.rest[n] = cmd.rest[i]
		n++
	}
	return nil, false
}

// hops reads x-proxy-ttl, by which Dovecot's proxies end their loops.
func hops(value []byte) (int, bool) {
	n, err := strconv.Atoi(string(value))
	return n, err == nil && n >= 0
}
