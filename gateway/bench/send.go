package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
)

// Submission is a run against a submission server. Its messages go from each address to itself: nobody else gets mail of a benchmark.
type Submission struct {
	Target      *Target
	Load        Load         // its Count is of messages, rounded up to whole connections
	Credentials []Credential // taken in turn
	Messages    int          // over each connection
	Size        int          // of a message in bytes, rounded up to whole lines
}

// What a run may be told to send.
const (
	maxMessages    = 10_000
	maxMessageSize = 64 << 20
)

// check turns the bound of messages into one of connections.
func (o *Submission) check() error {
	if o.Messages < 1 || o.Messages > maxMessages {
		return fmt.Errorf("%d messages over each connection: must be 1 to %d", o.Messages, maxMessages)
	}
	if o.Size < 1 || o.Size > maxMessageSize {
		return fmt.Errorf("messages of %d bytes: must be 1 to %d", o.Size, maxMessageSize)
	}
	connections := (o.Load.Count + o.Messages - 1) / o.Messages
	if connections < o.Load.Workers {
		return fmt.Errorf("%d messages, %d over each connection: fewer connections than are wanted at a time (%d)", o.Load.Count, o.Messages, o.Load.Workers)
	}
	o.Load.Count = connections
	return nil
}

// Send measures sending: connect, TLS, EHLO, AUTH PLAIN, the messages one after the other, QUIT. An operation is a message that the
// server has taken; its share of the login is in all that is told of it.
func Send(ctx context.Context, o Submission) (*Result, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	var resumed resumptions
	message := mail(o.Size)
	m, err := o.Load.run(ctx, o.Target.Processes, func(ctx context.Context, n int) (worker, error) {
		cfg := o.Target.clientTLS()
		if cfg != nil {
			cfg.DynamicRecordSizingDisabled = true // mail apps fill their records; Go's first ones have a segment's size
		}
		return &sender{ctx: ctx, o: &o, cfg: cfg, message: message, next: n, resumed: &resumed}, nil
	})
	if err != nil {
		return nil, err
	}
	m.share(o.Messages)
	r := newResult("send", o.Target, o.Load, m)
	r.Request = fmt.Sprintf("%d over each connection, of %d bytes", o.Messages, o.Size)
	r.Sent = int64(m.Operations) * int64(len(message))
	if o.Target.Resume {
		r.Resumed = resumed.share()
	}
	if r.Sent > large {
		r.transferred(r.Sent)
	}
	return r, nil
}

// sender is a client that sends over one connection after the other, with each credential in turn. Its operation is a connection.
type sender struct {
	ctx        context.Context
	o          *Submission
	cfg        *tls.Config
	message    []byte
	next, done int
	resumed    *resumptions
}

func (s *sender) once() (int64, error) {
	who := s.o.Credentials[s.next%len(s.o.Credentials)]
	c, err := openSMTP(s.ctx, s.o.Target, s.cfg)
	if err != nil {
		return 0, err
	}
	defer c.close()
	if err := c.logIn(who); err != nil {
		return 0, fmt.Errorf("log in as %s: %w", who, err)
	}
	for n := range s.o.Messages {
		if err := c.send(who.Address, s.message); err != nil {
			return 0, fmt.Errorf("message %d of %d: %w", n+1, s.o.Messages, err)
		}
	}
	c.command("QUIT\r\n", "221") // that the server hangs up first changes nothing: it has the messages
	s.next += s.o.Load.Workers
	if s.done++; s.done > 1 {
		s.resumed.note(c.nc)
	}
	return 0, nil
}

func (s *sender) close() {}

const mailHeader = "From: Postern <bench@localhost>\r\nTo: Postern <bench@localhost>\r\nSubject: bench\r\nDate: Thu, 01 Jan 2026 09:00:00 +0000\r\n" +
	"Message-ID: <bench@localhost>\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"

// mail makes a message as an app sends a photograph: base64 in lines of 76 letters, then the end.
func mail(size int) []byte {
	const inLine = 57 // bytes that 76 letters stand for
	var b bytes.Buffer
	b.WriteString(mailHeader)
	random := rand.NewChaCha8([32]byte{}) // always the same
	line := make([]byte, inLine)
	for b.Len() < size {
		random.Read(line)
		b.WriteString(base64.StdEncoding.EncodeToString(line) + "\r\n")
	}
	b.WriteString(messageEnd[len("\r\n"):])
	return b.Bytes()
}
