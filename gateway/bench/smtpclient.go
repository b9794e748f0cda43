package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// smtpConn is one connection to a submission server. It understands as much of an answer as it takes to go on.
type smtpConn struct {
	nc   net.Conn
	r    *bufio.Reader
	stop func() bool // ends the watch over the context

	pipelining, size bool // what the server offers (RFC 2920, RFC 1870)
}

// openSMTP connects and says hello, over TLS where the target has it.
func openSMTP(ctx context.Context, t *Target, cfg *tls.Config) (*smtpConn, error) {
	nc, err := t.connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	c := &smtpConn{nc: nc, r: bufio.NewReaderSize(nc, 4<<10)}
	c.watch(ctx)
	if err := c.begin(ctx, t.Security, cfg); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// watch closes the connection when ctx ends.
func (c *smtpConn) watch(ctx context.Context) {
	nc := c.nc
	c.stop = context.AfterFunc(ctx, func() { nc.Close() })
}

func (c *smtpConn) close() {
	c.stop()
	c.nc.Close()
}

func (c *smtpConn) begin(ctx context.Context, security Security, cfg *tls.Config) error {
	if err := c.answer("220"); err != nil {
		if security == Plain {
			return fmt.Errorf("greeting: %w; a port that speaks TLS at once needs --tls implicit", err)
		}
		return fmt.Errorf("greeting: %w", err)
	}
	if err := c.hello(); err != nil || security != StartTLS {
		return err
	}
	if err := c.command("STARTTLS\r\n", "220"); err != nil {
		return err
	}
	tc, err := secure(ctx, c.nc, cfg)
	if err != nil {
		return err
	}
	c.stop()
	c.nc = tc
	c.r.Reset(tc)
	c.watch(ctx)
	return c.hello()
}

// hello asks what the server offers.
func (c *smtpConn) hello() error {
	if _, err := io.WriteString(c.nc, "EHLO bench.localhost\r\n"); err != nil {
		return err
	}
	c.pipelining, c.size = false, false
	for {
		line, last, err := c.line("250")
		if err != nil {
			return err
		}
		switch word, _, _ := bytes.Cut(line[min(4, len(line)):], []byte(" ")); strings.ToUpper(string(word)) {
		case "PIPELINING":
			c.pipelining = true
		case "SIZE":
			c.size = true
		}
		if last {
			return nil
		}
	}
}

func (c *smtpConn) logIn(who Credential) error {
	response := base64.StdEncoding.EncodeToString([]byte("\x00" + who.Address + "\x00" + who.secret))
	return c.command("AUTH PLAIN "+response+"\r\n", "235")
}

// send sends one message, which has its end with it, from an address to itself.
func (c *smtpConn) send(address string, message []byte) error {
	c.nc.SetDeadline(time.Now().Add(opTimeout))
	from := "MAIL FROM:<" + address + ">"
	if c.size {
		from += fmt.Sprintf(" SIZE=%d", len(message)-len(messageEnd)+len("\r\n"))
	}
	err := c.commands([]string{from + "\r\n", "RCPT TO:<" + address + ">\r\n", "DATA\r\n"}, []string{"250", "250", "354"})
	if err != nil {
		return err
	}
	if _, err := c.nc.Write(message); err != nil {
		return err
	}
	return c.answer("250")
}

// commands sends commands at once, where the server takes that, and wants each answered so. After an error the connection is of no use.
func (c *smtpConn) commands(texts, want []string) error {
	if !c.pipelining {
		for n, text := range texts {
			if err := c.command(text, want[n]); err != nil {
				return err
			}
		}
		return nil
	}
	if _, err := io.WriteString(c.nc, strings.Join(texts, "")); err != nil {
		return err
	}
	for _, code := range want {
		if err := c.answer(code); err != nil {
			return err
		}
	}
	return nil
}

func (c *smtpConn) command(text, want string) error {
	if _, err := io.WriteString(c.nc, text); err != nil {
		return err
	}
	return c.answer(want)
}

// answer reads a whole answer (RFC 5321 section 4.2), and is an error unless that has the wanted code.
func (c *smtpConn) answer(want string) error {
	for {
		if _, last, err := c.line(want); err != nil || last {
			return err
		}
	}
}

// line reads one line of an answer, without its end. It is valid up to the next read.
func (c *smtpConn) line(want string) (line []byte, last bool, err error) {
	line, err = c.r.ReadSlice('\n')
	if err != nil {
		return nil, false, err
	}
	line = bytes.TrimRight(line, "\r\n")
	if !bytes.HasPrefix(line, []byte(want)) {
		return nil, false, &refusedError{string(line)}
	}
	return line, len(line) == len(want) || line[len(want)] != '-', nil
}
