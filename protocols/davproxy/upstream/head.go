package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// framing are headers that say where a message ends, or what becomes of its connection. Of a request they are ours alone to write.
var framing = []string{
	"Connection", "Content-Length", "Expect", "Host", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

func isFraming(name string) bool {
	for _, f := range framing {
		if len(f) == len(name) && strings.EqualFold(f, name) {
			return true
		}
	}
	return false
}

// errUnwritable says that a request can't be written so that everybody reads it alike.
var errUnwritable = errors.New("it can't be written as a header")

// appendHead writes a request's line and header. length is that of its body; -1: unknown, it comes in chunks; 0: there is none.
func appendHead(b []byte, req *http.Request, length int64) ([]byte, error) {
	path, host := req.URL.RequestURI(), req.URL.Host
	if !httpguts.ValidHeaderFieldName(req.Method) || !strings.HasPrefix(path, "/") || !visible(path) || !escaped(path) || host == "" || !visible(host) {
		return nil, fmt.Errorf("%w: %q %q at %q", errUnwritable, req.Method, path, host)
	}
	b = append(b, req.Method...)
	b = append(b, ' ')
	b = append(b, path...)
	b = append(b, " HTTP/1.1\r\n"...)
	b = appendField(b, "Host", host)
	for name, values := range req.Header {
		if isFraming(name) || !httpguts.ValidHeaderFieldName(name) {
			return nil, fmt.Errorf("%w: the name %q", errUnwritable, name)
		}
		for _, value := range values {
			if !httpguts.ValidHeaderFieldValue(value) {
				return nil, fmt.Errorf("%w: the value of %s", errUnwritable, name)
			}
			b = appendField(b, name, value)
		}
	}
	switch {
	case length < 0:
		b = appendField(b, "Transfer-Encoding", "chunked")
	case length > 0, req.Method == http.MethodPut, req.Method == http.MethodPost: // RFC 9110 section 8.6
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, length, 10)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...), nil
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// visible tells whether a text has nothing but printable ASCII without blanks.
func visible(text string) bool {
	for i := range len(text) {
		if text[i] <= ' ' || text[i] >= 0x7f {
			return false
		}
	}
	return true
}

// escaped tells whether what looks like an escape in a path is one.
func escaped(path string) bool {
	if !strings.Contains(path, "%") {
		return true
	}
	_, err := url.PathUnescape(path)
	return err == nil
}

// head is how an answer begins.
type head struct {
	status  int
	reason  string
	old     bool // HTTP/1.0
	header  http.Header
	length  int64 // of the body, by Content-Length; -1: it is not said
	chunked bool
	close   bool // the connection is of no use afterwards
}

// errHead says that an answer's beginning is no HTTP, or can be read in more than one way.
var errHead = errors.New("no answer in HTTP/1.1")

// parseHead reads an answer's status line and header, with the empty line behind. It is stricter than net/http: no folded lines, no
// lengths besides chunks, for where an answer ends must be beyond doubt: what follows belongs to somebody else's request. Its errors
// quote no lines: they may be a cookie, or an event that a wrong length left behind.
func parseHead(raw []byte) (head, error) {
	text := string(raw)
	line, rest, _ := strings.Cut(text, "\n")
	h := head{length: -1}
	if !h.readStatus(strings.TrimSuffix(line, "\r")) {
		return head{}, fmt.Errorf("%w: it begins with something else", errHead)
	}
	fields := bytes.Count(raw, []byte("\n")) - 2
	h.header = make(http.Header, max(0, min(fields, 100)))
	values := make([]string, 0, max(0, fields)) // of all fields, in one piece
	for {
		var ok bool
		if line, rest, ok = strings.Cut(rest, "\n"); !ok {
			return head{}, fmt.Errorf("%w: the header has no end", errHead)
		}
		line = strings.TrimSuffix(line, "\r")
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return head{}, fmt.Errorf("%w: there is a line that is no header", errHead)
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		if before := h.header[name]; before != nil {
			h.header[name] = append(before, value)
			continue
		}
		values = append(values, value)
		h.header[name] = values[len(values)-1 : len(values) : len(values)]
	}
	if rest != "" {
		return head{}, fmt.Errorf("%w: there is more than a header", errHead)
	}
	err := h.readFraming()
	return h, err
}

func (h *head) readStatus(line string) bool {
	version, rest, ok := strings.Cut(line, " ")
	if !ok || version != "HTTP/1.1" && version != "HTTP/1.0" || len(rest) < 3 || len(rest) > 3 && rest[3] != ' ' {
		return false
	}
	h.old = version == "HTTP/1.0"
	for _, c := range []byte(rest[:3]) {
		if c < '0' || c > '9' {
			return false
		}
		h.status = 10*h.status + int(c-'0')
	}
	h.reason = strings.TrimSpace(rest[3:])
	return h.status >= 100 && httpguts.ValidHeaderFieldValue(h.reason)
}

// readFraming learns where the body ends (RFC 9112 section 6.3).
func (h *head) readFraming() error {
	lengths, codings := h.header["Content-Length"], h.header["Transfer-Encoding"]
	if len(codings) > 0 {
		if h.old || len(lengths) > 0 || len(codings) > 1 || !strings.EqualFold(codings[0], "chunked") {
			return fmt.Errorf("%w: a Transfer-Encoding that is not chunked alone", errHead)
		}
		h.chunked = true
	}
	for _, length := range lengths {
		n, err := strconv.ParseUint(length, 10, 63) // it takes digits alone
		if err != nil || length != lengths[0] {
			return fmt.Errorf("%w: a Content-Length that is no number, or two of them", errHead)
		}
		h.length = int64(n)
	}
	h.close = h.old || httpguts.HeaderValuesContainsToken(h.header["Connection"], "close")
	return nil
}

// bodiless tells whether an answer has no body, whatever its header says (RFC 9110 section 6.4.1).
func (h *head) bodiless(method string) bool {
	return method == http.MethodHead || h.status < 200 || h.status == http.StatusNoContent || h.status == http.StatusNotModified
}
