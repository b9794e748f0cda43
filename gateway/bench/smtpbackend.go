package bench

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strconv"
	"strings"
)

const (
	smtpGreeting = "220 bench ESMTP\r\n"
	// smtpHello answers EHLO. Gateways tell who the sender is by AUTH or by XCLIENT.
	smtpHello = "250-bench\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n" +
		"250-AUTH PLAIN\r\n250 XCLIENT NAME ADDR PORT PROTO HELO LOGIN\r\n"
)

// ServeSubmission is a submission server that answers from memory, for benchmarks: it takes every login and, from who is logged in,
// every message, and forgets it. It serves until ctx ends.
func ServeSubmission(ctx context.Context, ln net.Listener) error {
	return serveConns(ctx, ln, func(nc net.Conn) {
		b := newSMTPBackend(nc)
		defer b.w.Flush()
		b.write(smtpGreeting)
		for b.next() == nil {
		}
	})
}

// smtpBackend is one connection to it.
type smtpBackend struct {
	nc       net.Conn
	r        *bufio.Reader // reads from the backend itself
	w        *bufio.Writer
	loggedIn bool
}

func newSMTPBackend(nc net.Conn) *smtpBackend {
	b := &smtpBackend{nc: nc, w: bufio.NewWriterSize(nc, 1<<10)}
	b.r = bufio.NewReaderSize(b, 64<<10)
	return b
}

// Read sends the answers before it waits for more commands: those to a pipelined group go together (RFC 2920 section 3.2).
func (b *smtpBackend) Read(p []byte) (int, error) {
	if err := b.w.Flush(); err != nil {
		return 0, err
	}
	return b.nc.Read(p)
}

func (b *smtpBackend) write(text string) error {
	_, err := b.w.WriteString(text)
	return err
}

func (b *smtpBackend) line() (string, error) {
	line, err := b.r.ReadSlice('\n')
	return strings.TrimRight(string(line), "\r\n"), err
}

// next answers one command.
func (b *smtpBackend) next() error {
	line, err := b.line()
	if err != nil {
		return err
	}
	name, arguments, _ := strings.Cut(line, " ")
	switch strings.ToUpper(name) {
	case "EHLO":
		return b.write(smtpHello)
	case "HELO":
		return b.write("250 bench\r\n")
	case "AUTH":
		return b.authenticate(arguments)
	case "XCLIENT": // begins anew, with a greeting
		b.loggedIn = strings.Contains(strings.ToUpper(arguments), "LOGIN=")
		return b.write(smtpGreeting)
	case "MAIL":
		return b.transaction("250 2.1.0 ok\r\n")
	case "RCPT":
		return b.transaction("250 2.1.5 ok\r\n")
	case "DATA":
		return b.data()
	case "BDAT":
		return b.chunk(arguments)
	case "RSET", "NOOP":
		return b.write("250 2.0.0 ok\r\n")
	case "QUIT":
		b.write("221 2.0.0 bye\r\n")
		return io.EOF
	}
	return b.write("502 5.5.1 not for benchmarks\r\n")
}

func (b *smtpBackend) authenticate(arguments string) error {
	mechanism, _, initial := strings.Cut(arguments, " ")
	if !strings.EqualFold(mechanism, "PLAIN") {
		return b.write("504 5.5.4 PLAIN only\r\n")
	}
	if !initial {
		b.write("334 \r\n")
		if _, err := b.line(); err != nil {
			return err
		}
	}
	b.loggedIn = true
	return b.write("235 2.7.0 ok\r\n")
}

// transaction answers who is logged in: a gateway that forgets to log in is not measured.
func (b *smtpBackend) transaction(text string) error {
	if !b.loggedIn {
		text = "530 5.7.0 log in first\r\n"
	}
	return b.write(text)
}

func (b *smtpBackend) data() error {
	if !b.loggedIn {
		return b.transaction("")
	}
	b.write("354 go on\r\n")
	if err := b.skipMessage(); err != nil {
		return err
	}
	return b.write("250 2.0.0 ok\r\n")
}

// chunk takes "size" or "size LAST" (RFC 3030).
func (b *smtpBackend) chunk(arguments string) error {
	word, _, _ := strings.Cut(arguments, " ")
	size, err := strconv.ParseUint(word, 10, 30)
	if err != nil {
		b.write("501 5.5.4 no size\r\n")
		return err // nobody knows where the next command begins
	}
	if _, err := b.r.Discard(int(size)); err != nil {
		return err
	}
	return b.transaction("250 2.0.0 ok\r\n")
}

const (
	messageEnd = "\r\n.\r\n"
	// behindMessage bounds the commands that may be pipelined behind a message: its end is looked for no further from what came last.
	behindMessage = 1 << 10
)

// skipMessage reads up to a message's end, and looks at the tail of each read only.
func (b *smtpBackend) skipMessage() error {
	const empty = ".\r\n"
	if start, err := b.r.Peek(len(empty)); err != nil || string(start) == empty {
		b.r.Discard(len(start))
		return err
	}
	for {
		text, _ := b.r.Peek(b.r.Buffered())
		before := max(0, len(text)-behindMessage)
		if at := bytes.Index(text[before:], []byte(messageEnd)); at >= 0 {
			_, err := b.r.Discard(before + at + len(messageEnd))
			return err
		}
		kept := min(len(text), len(messageEnd)-1) // may be the beginning of the end
		b.r.Discard(len(text) - kept)
		if _, err := b.r.Peek(kept + 1); err != nil {
			return err
		}
	}
}
