package imapproxy

import (
	"bytes"
	"fmt"

	"github.com/emersion/go-imap/v2"
)

// verdict is what becomes of a command.
type verdict byte

const (
	undecided verdict = iota
	passes
	examines // SELECT, as EXAMINE
	ends     // DONE
	refusal
)

// judge reads a head: tag, command and, with UID, the command's second word. n is its length without what ends it.
func (s *scanner) judge(head []byte) (v verdict, n int) {
	tag, n, ok := word(head, 0)
	if !ok {
		return undecided, 0
	}
	s.compresses = false
	valid := isTag(tag) && !isDone(tag)
	switch {
	case s.idles && isDone(tag) && head[n] != ' ':
		return s.alone(head, n, ends)
	case s.idles && valid: // the backend would take the line, or a part of it, for the end of IDLE
		return s.refuse(string(tag), "BAD", "", "Expected DONE."), n
	case s.idles:
		return s.refuse("*", "BAD", "", "Expected DONE."), n
	case head[n] != ' ' && isDone(tag): // the backend had ended IDLE by itself
		return s.refuse("*", "BAD", "", "Nothing to be done."), n
	case !valid:
		return s.refuse("*", "BAD", "", "Invalid tag."), n
	case head[n] != ' ':
		return s.refuse(string(tag), "BAD", "", "Missing command."), n
	}
	name, n, ok := word(head, n+1)
	if !ok {
		return undecided, 0
	}
	if len(name) == len("UID") && head[n] == ' ' && bytes.EqualFold(name, []byte("UID")) {
		start := n - len(name)
		if _, n, ok = word(head, n+1); !ok {
			return undecided, 0
		}
		name = head[start:n]
	}
	var upper [maxName]byte
	if !capitals(upper[:], name) {
		return s.refuse(string(tag), "BAD", "", "Unknown command."), n
	}
	v = s.rule(tag, upper[:len(name)])
	if v != refusal || s.keeps == itsBox {
		s.tagged = byte(copy(s.tag[:], tag))
	}
	if v == passes && string(upper[:len(name)]) == "IDLE" {
		return s.alone(head, n, passes)
	}
	return v, n
}

// alone is the verdict on what may be followed by nothing but the line's end. That is of its head, for servers act on IDLE before
// they have read it.
func (s *scanner) alone(head []byte, n int, v verdict) (verdict, int) {
	switch {
	case head[n] == '\n':
		return v, n + 1
	case head[n] == '\r' && n+1 == len(head):
		return undecided, 0
	case head[n] == '\r' && head[n+1] == '\n':
		return v, n + 2
	case head[n] == '\r': // which the line's reader finds fault with
		n++
	}
	return s.refuse(string(s.tag[:s.tagged]), "BAD", "", "No arguments here."), n
}

// word returns what stands from at up to a blank or a line's end.
func word(b []byte, at int) (w []byte, end int, ok bool) {
	for i := at; i < len(b); i++ {
		if b[i] == ' ' || b[i] == '\n' || b[i] == '\r' {
			return b[at:i], i, true
		}
	}
	return nil, 0, false
}

func isDone(word []byte) bool { return len(word) == 4 && bytes.EqualFold(word, []byte("DONE")) }

func isTag(word []byte) bool {
	for _, c := range word {
		if !tagBytes[c] {
			return false
		}
	}
	return 0 < len(word) && len(word) <= maxTag
}

// tagBytes are those of a tag that each server answers. Dovecot doesn't with a "]", and what may pass is counted by answers.
var tagBytes = func() (table [256]bool) {
	for i := range 0x80 {
		table[i] = !notInTag(rune(i)) && i != ']'
	}
	return table
}()

// maxName bounds a command's name, in bytes.
const maxName = 32

// capitals writes a command's name in capitals; false: that is none, for any server.
func capitals(upper, name []byte) bool {
	if len(name) == 0 || len(name) > len(upper) {
		return false
	}
	for i, c := range name {
		switch {
		case 'a' <= c && c <= 'z':
			c -= 'a' - 'A'
		case 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == ' ' && i == len("UID"):
		default:
			return false
		}
		upper[i] = c
	}
	return true
}

// rule is what becomes of a command by its name. A list of what is allowed, where only reading is: what is unknown may write.
func (s *scanner) rule(tag, name []byte) verdict {
	switch string(name) {
	case "LOGIN", "AUTHENTICATE", "STARTTLS":
		return s.refuse(string(tag), "BAD", "", "You are logged in already.")
	case "UNAUTHENTICATE": // RFC 8437: would lead to the backend's own login, and its primary passwords
		return s.refuse(string(tag), "NO", imap.ResponseCodeCannot, "Close the connection instead.")
	case "IDLE":
		return passes
	case "ID":
		if s.called != nil {
			s.keeps = itsName
		}
		return passes
	case "COMPRESS":
		if s.readOnly || s.noCompress {
			return s.refuse(string(tag), "NO", imap.ResponseCodeCannot, "No compression here.")
		}
		s.compresses = true
		return passes
	}
	switch {
	case !s.readOnly || reads[string(name)]:
		return passes
	case string(name) == "SELECT":
		return examines
	case string(name) == "MYRIGHTS": // mutt takes [READ-ONLY] for nothing where there are rights (RFC 4314)
		s.keeps = itsBox
		return s.refuse(string(tag), "NO", imap.ResponseCodeCannot, "No literal here.")
	}
	return s.refuse(string(tag), "NO", imap.ResponseCodeNoPerm, "This app password may only read.")
}

// reads are the commands that change nothing in a mailbox that was opened by EXAMINE, where FETCH sets no \Seen and CLOSE removes
// nothing (RFC 9051 sections 6.3.3 and 6.4.1).
var reads = map[string]bool{
	"CAPABILITY": true, "NOOP": true, "LOGOUT": true, "ID": true, "ENABLE": true, "NAMESPACE": true, "LANGUAGE": true, "COMPARATOR": true,
	"EXAMINE": true, "LIST": true, "LSUB": true, "XLIST": true, "RLIST": true, "RLSUB": true, "STATUS": true, "CHECK": true, "CLOSE": true,
	"UNSELECT": true, "NOTIFY": true, "ESEARCH": true, "CANCELUPDATE": true,
	"FETCH": true, "SEARCH": true, "SORT": true, "THREAD": true,
	"UID FETCH": true, "UID SEARCH": true, "UID SORT": true, "UID THREAD": true,
	"GETQUOTA": true, "GETQUOTAROOT": true, "GETACL": true, "LISTRIGHTS": true, "GETMETADATA": true,
}

// refuse sets what the client is told when the command is over. tag "*" stands for one that was none.
func (s *scanner) refuse(tag, status string, code imap.ResponseCode, text string) verdict {
	s.answer = append(append(append(s.answer[:0], tag...), ' '), status...)
	if code != "" {
		s.answer = fmt.Appendf(s.answer, " [%s]", code)
	}
	s.answer = fmt.Appendf(s.answer, " %s\r\n", text)
	return refusal
}
