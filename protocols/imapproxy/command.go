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
	wire.Text
}

// read reads a command with its literals. A literal for which the client waits is asked for only where one may come: a password
// is not asked for before TLS. Then the command ends there, for the answer is no "+".
func (c *client) read() (*command, error) {
	cmd := &command{}
	lines, literals := wire.MaxLine, wire.MaxLiteral // what they may still take
	for {
		line, err := c.R.Line(lines)
		if err != nil {
			cmd.Clear()
			return nil, err
		}
		if cmd.tag == "" {
			cmd.head(line)
		}
		cmd.Add(line)
		lines -= len(line)
		_, literal, ok, err := wire.TrailingLiteral(line, literals)
		switch {
		case err != nil:
			cmd.Clear()
			return nil, err
		case !ok, literal.Wait && !c.takesLiterals(cmd):
			cmd.Rest = cmd.All[min(len(cmd.tag)+len(" ")+len(cmd.name), len(cmd.All)):]
			return cmd, nil
		case literal.Wait:
			if err := c.Say("+ OK\r\n"); err != nil {
				cmd.Clear()
				return nil, err
			}
		}
		octets, err := c.R.Literal(literal.Size)
		if err != nil {
			cmd.Clear()
			return nil, err
		}
		cmd.Add([]byte("\r\n"))
		cmd.Add(octets)
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
func (cmd *command) hasArguments() bool { return len(cmd.Rest) > 0 }

// space takes one space.
func (cmd *command) space() bool { return cmd.Take(" ") }

// astring takes an atom, a quoted string or a literal. What it returns lies in the command's text. An atom may hold more than the
// standard says, as people's clients send unquoted what people type.
func (cmd *command) astring() ([]byte, bool) {
	if len(cmd.Rest) > 0 && (cmd.Rest[0] == '"' || cmd.Rest[0] == '{') {
		return cmd.Str()
	}
	end := bytes.IndexFunc(cmd.Rest, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`(){"`, r) })
	if end < 0 {
		end = len(cmd.Rest)
	}
	atom := cmd.Rest[:end]
	cmd.Rest = cmd.Rest[end:]
	return atom, end > 0
}

// hops reads x-proxy-ttl, by which Dovecot's proxies end their loops.
func hops(value []byte) (int, bool) {
	n, err := strconv.Atoi(string(value))
	return n, err == nil && n >= 0
}
