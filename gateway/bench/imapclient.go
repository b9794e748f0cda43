package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Mechanism is how a client logs in.
type Mechanism string

// The mechanisms: the command LOGIN, and AUTHENTICATE PLAIN, in one round trip where the server takes that (SASL-IR).
const (
	ByLogin Mechanism = "LOGIN"
	ByPlain Mechanism = "PLAIN"
)

// session is one IMAP connection. It is light, so that the load generator leaves the machine to its target: it understands status
// responses and literals, nothing else.
type session struct {
	nc       net.Conn
	r        *bufio.Reader
	stop     func() bool // ends the watch over the context
	caps     string      // of the greeting, as it came
	tags     int
	skip     []byte // where literals go; made when one comes
	received int64
}

// What a server may say: a line, and a literal in one response.
const (
	maxLine    = 16 << 10
	maxLiteral = 1 << 30
	skipSize   = 256 << 10
)

// refusedError is a server's NO, BAD or BYE.
type refusedError struct{ line string }

func (e *refusedError) Error() string {
	const most = 120
	return "the server answered " + strconv.QuoteToASCII(e.line[:min(len(e.line), most)])
}

// openIMAP connects and takes the greeting, over TLS where the target has it.
func openIMAP(ctx context.Context, t *Target, cfg *tls.Config) (*session, error) {
	nc, err := t.connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s := &session{nc: nc, r: bufio.NewReaderSize(nc, 4<<10)}
	s.watch(ctx)
	if err := s.greeting(); err != nil {
		s.close()
		return nil, err
	}
	if t.Security == StartTLS {
		if err := s.startTLS(ctx, cfg); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

// watch closes the connection when ctx ends.
func (s *session) watch(ctx context.Context) {
	nc := s.nc
	s.stop = context.AfterFunc(ctx, func() { nc.Close() })
}

func (s *session) close() {
	s.stop()
	s.nc.Close()
}

func (s *session) greeting() error {
	line, err := s.line()
	if err != nil {
		if _, encrypted := s.nc.(*tls.Conn); !encrypted {
			return fmt.Errorf("greeting: %w; a port that speaks TLS at once needs --tls implicit", err)
		}
		return fmt.Errorf("greeting: %w", err)
	}
	if !bytes.HasPrefix(line, []byte("* OK")) {
		return &refusedError{string(line)}
	}
	s.caps = string(line)
	return nil
}

func (s *session) startTLS(ctx context.Context, cfg *tls.Config) error {
	if err := s.command("STARTTLS"); err != nil {
		return err
	}
	tc, err := secure(ctx, s.nc, cfg)
	if err != nil {
		return err
	}
	s.stop()
	s.nc = tc
	s.r.Reset(tc)
	s.watch(ctx)
	return nil
}

// logIn proves who we are.
func (s *session) logIn(m Mechanism, c Credential) error {
	if m == ByLogin {
		return s.command("LOGIN " + quote(c.Address) + " " + quote(c.secret))
	}
	response := base64.StdEncoding.EncodeToString([]byte("\x00" + c.Address + "\x00" + c.secret))
	if strings.Contains(s.caps, "SASL-IR") {
		return s.command("AUTHENTICATE PLAIN " + response)
	}
	tag, err := s.send("AUTHENTICATE PLAIN")
	if err != nil {
		return err
	}
	if err := s.continuation(tag); err != nil {
		return err
	}
	if _, err := io.WriteString(s.nc, response+"\r\n"); err != nil {
		return err
	}
	return s.result(tag)
}

func quote(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}

// command sends a command and waits for its OK.
func (s *session) command(text string) error {
	tag, err := s.send(text)
	if err != nil {
		return err
	}
	return s.result(tag)
}

func (s *session) send(text string) (tag string, err error) {
	s.tags++
	tag = "b" + strconv.Itoa(s.tags)
	s.nc.SetDeadline(time.Now().Add(opTimeout))
	_, err = io.WriteString(s.nc, tag+" "+text+"\r\n")
	return tag, err
}

// idle begins IDLE (RFC 2177), which done ends. In between nothing has a deadline.
func (s *session) idle() error {
	tag, err := s.send("IDLE")
	if err != nil {
		return err
	}
	if err := s.continuation(tag); err != nil {
		return err
	}
	return s.nc.SetDeadline(time.Time{})
}

func (s *session) done() error {
	s.nc.SetDeadline(time.Now().Add(opTimeout))
	if _, err := io.WriteString(s.nc, "DONE\r\n"); err != nil {
		return err
	}
	return s.result("b" + strconv.Itoa(s.tags))
}

// continuation waits for "+".
func (s *session) continuation(tag string) error {
	for {
		line, err := s.line()
		switch {
		case err != nil:
			return err
		case bytes.HasPrefix(line, []byte("+")):
			return nil
		case bytes.HasPrefix(line, []byte(tag+" ")):
			return &refusedError{string(line)}
		}
	}
}

// result reads up to a command's end.
func (s *session) result(tag string) error {
	for {
		line, err := s.line()
		if err != nil {
			return err
		}
		if err := s.literal(line); err != nil {
			return err
		}
		word, rest, _ := bytes.Cut(line, []byte(" "))
		switch {
		case string(word) != tag:
			if bytes.HasPrefix(line, []byte("* BYE")) {
				return &refusedError{string(line)}
			}
		case bytes.HasPrefix(rest, []byte("OK")):
			return nil
		default:
			return &refusedError{string(line)}
		}
	}
}

// line reads a line without its end. It is valid up to the next read.
func (s *session) line() ([]byte, error) {
	line, err := s.r.ReadSlice('\n')
	s.received += int64(len(line))
	if errors.Is(err, bufio.ErrBufferFull) {
		return s.longLine(bytes.Clone(line))
	}
	return bytes.TrimRight(line, "\r\n"), err
}

func (s *session) longLine(line []byte) ([]byte, error) {
	for len(line) < maxLine {
		more, err := s.r.ReadSlice('\n')
		s.received += int64(len(more))
		line = append(line, more...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return bytes.TrimRight(line, "\r\n"), err
		}
	}
	return nil, fmt.Errorf("the server's line is longer than %d bytes", maxLine)
}

// literal passes over the literal that a line announces, and reads no line behind it.
func (s *session) literal(line []byte) error {
	open := bytes.LastIndexByte(line, '{')
	if open < 0 || !bytes.HasSuffix(line, []byte("}")) {
		return nil
	}
	size, err := strconv.ParseInt(string(line[open+1:len(line)-1]), 10, 64)
	if err != nil || size < 0 {
		return nil
	}
	if size > maxLiteral {
		return fmt.Errorf("the server announces %d bytes; more than %d are not taken", size, maxLiteral)
	}
	return s.discard(size)
}

// discard reads what is buffered from the buffer and the rest past it, in large pieces.
func (s *session) discard(size int64) error {
	s.received += size
	n, err := s.r.Discard(int(min(size, int64(s.r.Buffered()))))
	if err != nil {
		return err
	}
	if size -= int64(n); size > 0 && s.skip == nil {
		s.skip = make([]byte, skipSize)
	}
	for size > 0 {
		n, err := s.nc.Read(s.skip[:min(size, int64(len(s.skip)))])
		if size -= int64(n); size > 0 && err != nil {
			return err
		}
	}
	return nil
}
