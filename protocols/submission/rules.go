package submission

import (
	"bytes"
	"strconv"
	"strings"

	"postern/protocols"
)

// rules say which commands reach the backend.
type rules struct {
	chunking bool  // the backend has BDAT (RFC 3030)
	helo     bool  // it was last greeted without its extensions
	size     int64 // the largest message that it takes, in bytes (RFC 1870); 0: it does not say

	ownSender bool   // MAIL FROM must be an address of the account's
	asks      string // whose address this is must be known first
	sender    string // that was looked up for the command that comes next
	refusal   string // and why it may not stand there
}

// verdict is what comes of a command.
type verdict struct {
	verb    string // in capitals
	refusal string // the answer to one that does not pass, with its CRLF
	asks    bool   // its sender must be looked up first
	chunk   int64  // the bytes behind BDAT
	last    bool   // they are the message's last
}

const (
	onlyBefore = "503 5.5.1 Not after the login.\r\n"
	unknown    = "500 5.5.2 Unknown command.\r\n"
	badChunk   = "501 5.5.4 BDAT takes a size and LAST.\r\n"
	noChunk    = "502 5.5.1 No BDAT here.\r\n"
	tooLarge   = "552 5.3.4 The message is too large.\r\n"
	badSender  = "501 5.5.4 MAIL takes FROM:<address>.\r\n"
	notOwn     = "550 5.7.1 The sender must be an address of your account.\r\n"
	askLater   = "451 4.3.0 Whose address that is can't be told now; please try again later.\r\n"
)

// judge decides about a command, with its line end. It knows each one that may pass, and that is answered by one reply: behind an unknown
// one something may follow that is no command. XCLIENT and AUTH would let a client be whoever it likes to a backend that trusts us, BURL
// (RFC 4468) read mail.
func (r *rules) judge(line []byte) verdict {
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok || bytes.ContainsAny(text, "\r\x00") {
		return verdict{refusal: lineEndRefused}
	}
	word, argument, _ := bytes.Cut(text, []byte(" "))
	v := verdict{verb: verbOf(word)}
	switch v.verb {
	case "EHLO", "HELO", "RCPT", "DATA", "RSET", "NOOP", "HELP", "VRFY", "EXPN", "ETRN", "QUIT":
	case "MAIL":
		r.judgeSender(&v, argument)
	case "BDAT":
		r.judgeChunk(&v, argument)
	case "AUTH", "STARTTLS":
		v.refusal = onlyBefore
	default:
		v.refusal = unknown
	}
	return v
}

// verbs are the commands that are known.
var verbs = []string{"EHLO", "HELO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "HELP", "VRFY", "EXPN", "ETRN", "QUIT", "AUTH", "STARTTLS"}

func verbOf(word []byte) string {
	for _, v := range verbs {
		if len(v) == len(word) && strings.EqualFold(v, string(word)) {
			return v
		}
	}
	return ""
}

// maxChunk bounds BDAT's size, and maxDigits how it is written: servers do not take the bytes of one that is no number of theirs, and some
// count in 32 bits.
const (
	maxChunk  = 1<<31 - 1
	maxDigits = 20 // RFC 3030 section 2
)

// judgeChunk refuses what a backend could refuse without taking the bytes: Dovecot 2.3 then reads them as commands.
func (r *rules) judgeChunk(v *verdict, argument []byte) {
	digits, end, _ := bytes.Cut(argument, []byte(" "))
	size, err := strconv.ParseUint(string(digits), 10, 63)
	isLast := len(end) == len("LAST") && strings.EqualFold(string(end), "LAST")
	if err != nil || len(digits) > maxDigits || size > maxChunk || len(end) > 0 && !isLast {
		v.refusal = badChunk
		return
	}
	v.chunk, v.last = int64(size), isLast
	switch {
	case !r.chunking || r.helo:
		v.refusal = noChunk
	case r.size > 0 && v.chunk > r.size:
		v.refusal = tooLarge
	}
}

// judgeSender holds MAIL to the account's addresses. The null path is everybody's: reports of receipt have it (RFC 8098 section 3).
func (r *rules) judgeSender(v *verdict, argument []byte) {
	if !r.ownSender {
		return
	}
	sender, ok := senderOf(argument)
	switch {
	case !ok:
		v.refusal = badSender
	case sender == "":
	case sender != r.sender:
		v.asks, r.asks = true, sender
	default:
		v.refusal = r.refusal
	}
}

// senderOf reads FROM:<address>. What some server could read in another way is none: quotes, routes, a second bracket, a name without a
// domain, to which servers add their own.
func senderOf(argument []byte) (sender string, ok bool) {
	const from = "FROM:"
	text := strings.TrimLeft(string(argument), " ")
	if len(text) < len(from) || !strings.EqualFold(text[:len(from)], from) {
		return "", false
	}
	path, ok := strings.CutPrefix(strings.TrimLeft(text[len(from):], " "), "<")
	if !ok {
		return "", false
	}
	sender, parameters, ok := strings.Cut(path, ">")
	if !ok || parameters != "" && parameters[0] != ' ' || sender != "" && strings.IndexByte(sender, '@') <= 0 ||
		strings.ContainsFunc(sender, func(c rune) bool { return c <= ' ' || strings.ContainsRune(`<"\,;:`, c) }) {
		return "", false
	}
	return sender, true
}

// newRules are those for a client that was told of these extensions, which its backend has.
func newRules(offered protocols.Capabilities, ownSender bool) rules {
	size, _ := offered.Get("SIZE")
	most, _ := strconv.ParseInt(size, 10, 63)
	return rules{chunking: offered.Has("CHUNKING"), size: most, ownSender: ownSender}
}
