package protocols

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"

	"postern/protocols/wire"
)

// Errors of backends, in words for those who set one up.
var (
	ErrLoop            = errors.New("the login has gone round in a circle of proxies; look at where this backend's proxies lead")
	ErrBackendInjected = errors.New("it sent words behind its answer to STARTTLS, in plain text; somebody may be in between")
	ErrNoStartTLS      = errors.New("it does not offer STARTTLS; look at its TLS settings, or at the port")
	errEndless         = errors.New("it says too much before the login is over")
)

// maxResponses bounds the lines that a backend may say before its login is over.
const maxResponses = 200

// Talk is the dialogue with a backend before its login is over, for FrontDoor.LogInBackend. A backend is not trusted either: its lines
// are bounded, and how many of them come.
type Talk struct {
	Conn net.Conn
	R    *wire.Reader

	responses int
}

// NewTalk begins one.
func NewTalk(nc net.Conn) Talk { return Talk{Conn: nc, R: wire.NewReader(nc)} }

// Line reads a line, of not too many.
func (t *Talk) Line() ([]byte, error) {
	if t.responses++; t.responses > maxResponses {
		return nil, errEndless
	}
	return t.R.Line(wire.MaxLine)
}

// Send sends words.
func (t *Talk) Send(words []byte) error {
	_, err := t.Conn.Write(words)
	return err
}

// SendSecret sends words and behind them a secret, as one line, and overwrites the copy that this takes.
func (t *Talk) SendSecret(words string, secret []byte) error {
	line := make([]byte, 0, len(words)+len(secret)+len("\r\n"))
	defer func() { clear(line[:cap(line)]) }()
	return t.Send(append(append(append(line, words...), secret...), "\r\n"...))
}

// OverTLS tells whether the words are encrypted.
func (t *Talk) OverTLS() bool {
	_, ok := t.Conn.(*tls.Conn)
	return ok
}

// Secure starts TLS after the backend has agreed to. Whatever it said before counts for nothing.
func (t *Talk) Secure(ctx context.Context, r *Route) error {
	if len(t.R.Buffered()) > 0 {
		return ErrBackendInjected
	}
	tc, err := Secure(ctx, t.Conn, r)
	if err != nil {
		return err
	}
	t.Conn = tc
	t.R.Reset(tc)
	return nil
}

// Answered is what a backend said, as an error tells it in the log: quoted and cut short, for its words are foreign.
func Answered(words string) string {
	const most = 120
	return "it answered " + strconv.QuoteToASCII(words[:min(len(words), most)])
}

// XCLIENT is what a backend is told of the client, in the words of Dovecot's command for POP3 and ManageSieve. Nothing in it needs quoting.
func (c *Conn) XCLIENT() string {
	address := ""
	if c.Client.IsValid() {
		address = fmt.Sprintf("ADDR=%s PORT=%d ", c.Client.Addr(), c.Client.Port())
	}
	return fmt.Sprintf("XCLIENT %sSESSION=%s TTL=%d", address, c.Facts.Conn, c.Hops-1)
}
