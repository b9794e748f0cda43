package imapsignin

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/protocols"
)

// bounded is a connection that gives a bounded number of bytes, under a deadline that is set already: imapclient moves deadlines as it
// likes, and makes text of errors.
type bounded struct {
	net.Conn

	mu     sync.Mutex // guards the fields below
	left   int        // bytes that may still be read
	failed error      // of the last read that failed
}

func (b *bounded) Read(p []byte) (int, error) {
	b.mu.Lock()
	left := b.left
	b.mu.Unlock()
	if left == 0 {
		b.note(errLong)
		return 0, errLong
	}
	n, err := b.Conn.Read(p[:min(len(p), left)])
	b.mu.Lock()
	b.left -= n
	b.mu.Unlock()
	b.note(err)
	return n, err
}

func (b *bounded) note(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil && b.failed == nil {
		b.failed = err
	}
}

// cause is why no more was read; nil: what was read made no sense.
func (b *bounded) cause() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

func (b *bounded) SetDeadline(time.Time) error      { return nil }
func (b *bounded) SetReadDeadline(time.Time) error  { return nil }
func (b *bounded) SetWriteDeadline(time.Time) error { return nil }

// greeted returns a connection whose server has sent its greeting, which is still to be read; the error of one that sends us away says so
// (RFC 9051 section 7.1.5). imapclient does not wait for a greeting before STARTTLS, and elsewhere chooses at random between a BYE and the
// end that follows it.
func greeted(nc net.Conn) (net.Conn, error) {
	r := bufio.NewReader(nc)
	b, err := r.ReadSlice('\n')
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
		return nil, err
	}
	line := string(b)
	answer, untagged := strings.CutPrefix(line, "* ")
	if kind, text, _ := strings.Cut(strings.TrimSpace(answer), " "); untagged && strings.EqualFold(kind, "BYE") {
		return nil, &imap.Error{Type: imap.StatusResponseTypeBye, Text: text}
	}
	return &again{nc, io.MultiReader(strings.NewReader(line), r)}, nil
}

// again is a connection with what was read of it to be read once more.
type again struct {
	net.Conn
	r io.Reader
}

func (a *again) Read(p []byte) (int, error) { return a.r.Read(p) }

// blame finds the cause of what imapclient says once it knows the password, without its words: they may quote what the server sent,
// which may be what we sent.
func (v *visited) blame(err error) error {
	if _, ok := errors.AsType[*imap.Error](err); ok {
		return err
	}
	if cause := v.conn.cause(); cause != nil {
		return cause
	}
	return errNoSense
}

// explain is blame for what goes wrong before the password is sent: then the words may be told.
func (v *visited) explain(err error) error {
	answer, refused := errors.AsType[*imap.Error](err)
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	cause := v.conn.cause()
	switch {
	case refused && answer.Type == imap.StatusResponseTypeBye:
		return fmt.Errorf("%w: %.200q", errSentAway, answer.Text)
	case refused:
		return fmt.Errorf("it answers %s %q", answer.Type, answer.Text)
	case certificate:
		return err
	case cause != nil:
		return cause
	}
	return fmt.Errorf("%w: %.200s", errNoSense, err.Error())
}

// logout says goodbye and waits a moment for the answer, which changes nothing.
func (v *visited) logout() {
	timer := time.AfterFunc(logoutTime, func() { v.conn.Close() })
	defer timer.Stop()
	v.client.Logout().Wait()
}

func (v *visited) close() {
	v.stop()
	v.conn.Close()
	if v.client != nil {
		v.client.Close()
	}
}

// named is the route's TLS with the name that the certificate must have.
func named(r *protocols.Route) *tls.Config {
	c := r.TLS.Clone()
	if c.ServerName == "" {
		c.ServerName, _, _ = net.SplitHostPort(r.Address)
	}
	return c
}
