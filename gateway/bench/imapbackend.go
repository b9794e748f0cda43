package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// messageSizes are the messages of every mailbox of the synthetic backend, in bytes: number 1, 2 and 3.
var messageSizes = []int{64 << 10, 1 << 20, 25 << 20}

const (
	backendCaps    = "IMAP4rev1 SASL-IR LITERAL+ ID IDLE ENABLE UIDPLUS MOVE CHILDREN NAMESPACE SPECIAL-USE"
	backendPreAuth = backendCaps + " AUTH=PLAIN"
)

// ServeIMAP is a mail server that answers from memory, for benchmarks: it takes every login, and every mailbox holds messageSizes.
// It serves until ctx ends.
func ServeIMAP(ctx context.Context, ln net.Listener) error {
	return serveConns(ctx, ln, func(nc net.Conn) {
		b := &imapBackend{nc: nc, r: bufio.NewReaderSize(nc, 8<<10)}
		if b.write("* OK [CAPABILITY "+backendPreAuth+"] bench\r\n") != nil {
			return
		}
		for b.next() == nil {
		}
	})
}

// serveConns has each connection served, and closes them all when ctx ends.
func serveConns(ctx context.Context, ln net.Listener, serve func(net.Conn)) error {
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		nc, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		conns.Go(func() {
			defer nc.Close()
			defer context.AfterFunc(ctx, func() { nc.Close() })()
			serve(nc)
		})
	}
}

// imapBackend is one connection to it. It understands what gateways send, and their clients' words for benchmarks.
type imapBackend struct {
	nc net.Conn
	r  *bufio.Reader
}

func (b *imapBackend) write(text string) error {
	_, err := io.WriteString(b.nc, text)
	return err
}

func (b *imapBackend) line() (string, error) {
	line, err := b.r.ReadSlice('\n')
	return strings.TrimRight(string(line), "\r\n"), err
}

// next answers one command.
func (b *imapBackend) next() error {
	line, err := b.line()
	if err != nil {
		return err
	}
	tag, rest, _ := strings.Cut(line, " ")
	name, arguments, _ := strings.Cut(rest, " ")
	done := tag + " OK done\r\n"
	switch strings.ToUpper(name) {
	case "NOOP", "CHECK", "CLOSE", "ENABLE":
		return b.write(done)
	case "CAPABILITY":
		return b.write("* CAPABILITY " + backendPreAuth + "\r\n" + done)
	case "ID":
		return b.write("* ID (\"name\" \"bench\")\r\n" + done)
	case "LOGIN":
		return b.login(tag, arguments)
	case "AUTHENTICATE":
		return b.authenticate(tag, arguments)
	case "SELECT", "EXAMINE":
		return b.write(fmt.Sprintf("* %d EXISTS\r\n* 0 RECENT\r\n* FLAGS (\\Seen)\r\n* OK [UIDVALIDITY 1] .\r\n* OK [UIDNEXT 4] .\r\n%s OK [READ-ONLY] done\r\n", len(messageSizes), tag))
	case "FETCH":
		return b.fetch(tag, arguments)
	case "IDLE":
		return b.idle(done)
	case "LOGOUT":
		b.write("* BYE bench\r\n" + done)
		return io.EOF
	}
	return b.write(tag + " BAD not for benchmarks\r\n")
}

// login takes the literals that nginx sends.
func (b *imapBackend) login(tag, arguments string) error {
	for strings.HasSuffix(arguments, "}") {
		if !strings.HasSuffix(arguments, "+}") {
			if err := b.write("+ go on\r\n"); err != nil {
				return err
			}
		}
		var err error
		if arguments, err = b.line(); err != nil { // no secret of a benchmark has a line break
			return err
		}
	}
	return b.loggedIn(tag)
}

func (b *imapBackend) authenticate(tag, arguments string) error {
	if _, _, initial := strings.Cut(arguments, " "); !initial {
		if err := b.write("+ \r\n"); err != nil {
			return err
		}
		if _, err := b.line(); err != nil {
			return err
		}
	}
	return b.loggedIn(tag)
}

func (b *imapBackend) loggedIn(tag string) error {
	return b.write(tag + " OK [CAPABILITY " + backendCaps + "] logged in\r\n")
}

// fetch answers "FETCH number ..." with the whole message, whatever part was asked for.
func (b *imapBackend) fetch(tag, arguments string) error {
	word, _, _ := strings.Cut(arguments, " ")
	n, err := strconv.Atoi(word)
	if err != nil || n < 1 || n > len(messageSizes) {
		return b.write(tag + " OK nothing\r\n")
	}
	size := messageSizes[n-1]
	answer := net.Buffers{
		fmt.Appendf(nil, "* %d FETCH (UID %[1]d BODY[] {%d}\r\n", n, size),
		message()[:size],
		[]byte(")\r\n" + tag + " OK done\r\n"),
	}
	_, err = answer.WriteTo(b.nc)
	return err
}

// message is the largest message; the others are its beginnings.
var message = sync.OnceValue(func() []byte {
	const line = "This line of a synthetic message has sixty-six letters and a break.\r\n"
	size := messageSizes[len(messageSizes)-1]
	return []byte(strings.Repeat(line, size/len(line)+1)[:size])
})

func (b *imapBackend) idle(done string) error {
	if err := b.write("+ idling\r\n"); err != nil {
		return err
	}
	if _, err := b.line(); err != nil {
		return err
	}
	return b.write(done)
}
