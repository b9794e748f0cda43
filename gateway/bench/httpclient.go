package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// httpConn is one HTTP/1.1 connection with one request at a time. It understands as much of an answer as it takes to find its end.
type httpConn struct {
	nc   net.Conn
	r    *bufio.Reader
	stop func() bool
}

func openHTTP(ctx context.Context, t *Target, cfg *tls.Config) (*httpConn, error) {
	nc, err := t.connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &httpConn{nc, bufio.NewReaderSize(nc, 64<<10), context.AfterFunc(ctx, func() { nc.Close() })}, nil
}

func (c *httpConn) close() {
	c.stop()
	c.nc.Close()
}

// do sends a request, written out whole, and reads the answer. open: the connection may be used again.
func (c *httpConn) do(request []byte) (status int, received int64, open bool, err error) {
	c.nc.SetDeadline(time.Now().Add(opTimeout))
	if _, err := c.nc.Write(request); err != nil {
		return 0, 0, false, err
	}
	h, err := c.header()
	if err != nil {
		return 0, 0, false, err
	}
	switch {
	case h.status == 204 || h.status == 304:
	case h.chunked:
		received, err = c.chunks()
	case h.length >= 0:
		received = h.length
		err = c.discard(h.length)
	default:
		return 0, 0, false, errors.New("the answer tells neither its length nor comes in chunks")
	}
	return h.status, received, !h.closes, err
}

func (c *httpConn) discard(n int64) error {
	for n > 0 {
		d, err := c.r.Discard(int(min(n, maxLiteral)))
		if err != nil {
			return err
		}
		n -= int64(d)
	}
	return nil
}

// httpHeader is what is used of an answer's header.
type httpHeader struct {
	status          int
	length          int64 // -1: not told
	chunked, closes bool
}

// header reads a status line and fields (RFC 9112). Interim answers are passed over.
func (c *httpConn) header() (httpHeader, error) {
	for {
		line, err := c.line()
		if err != nil {
			return httpHeader{}, err
		}
		h := httpHeader{length: -1}
		if h.status, err = parseStatusLine(line); err != nil {
			return h, err
		}
		for {
			if line, err = c.line(); err != nil {
				return h, err
			}
			if len(line) == 0 {
				break
			}
			if err := h.field(line); err != nil {
				return h, err
			}
		}
		if h.status >= 200 {
			return h, nil
		}
	}
}

func (c *httpConn) line() ([]byte, error) {
	line, err := c.r.ReadSlice('\n')
	return bytes.TrimRight(line, "\r\n"), err
}

func parseStatusLine(line []byte) (int, error) {
	const prefix = "HTTP/1.1 "
	if len(line) < len(prefix)+3 || string(line[:len(prefix)-2]) != "HTTP/1." {
		return 0, fmt.Errorf("%.40q is no status line", line)
	}
	return strconv.Atoi(string(line[len(prefix) : len(prefix)+3]))
}

func (h *httpHeader) field(line []byte) (err error) {
	name, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimSpace(value)
	switch {
	case bytes.EqualFold(name, []byte("Content-Length")):
		if h.length, err = strconv.ParseInt(string(value), 10, 64); err != nil || h.length < 0 {
			return fmt.Errorf("%.40q is no length", value)
		}
	case bytes.EqualFold(name, []byte("Transfer-Encoding")):
		h.chunked = bytes.EqualFold(value, []byte("chunked"))
	case bytes.EqualFold(name, []byte("Connection")):
		h.closes = bytes.EqualFold(value, []byte("close"))
	}
	return nil
}

// chunks reads a body in chunks with its trailer (RFC 9112 section 7.1).
func (c *httpConn) chunks() (received int64, err error) {
	for {
		line, err := c.line()
		if err != nil {
			return received, err
		}
		word, _, _ := bytes.Cut(line, []byte(";"))
		size, err := strconv.ParseInt(string(bytes.TrimSpace(word)), 16, 64)
		if err != nil || size < 0 || size > maxLiteral {
			return received, fmt.Errorf("%.40q is no chunk's size", word)
		}
		if size == 0 {
			break
		}
		received += size
		if err := c.discard(size + 2); err != nil {
			return received, err
		}
	}
	for {
		if line, err := c.line(); err != nil || len(line) == 0 {
			return received, err
		}
	}
}
