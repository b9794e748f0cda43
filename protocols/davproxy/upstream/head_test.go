package upstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestHeadsThatAreRefused: where an answer ends must be beyond doubt.
func TestHeadsThatAreRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "\r\n", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n",
		"HTTP/2 200 OK\r\n\r\n", "HTTP/1.2 200 OK\r\n\r\n", "http/1.1 200 OK\r\n\r\n", " HTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1  200 OK\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 +20 OK\r\n\r\n", "HTTP/1.1 099 OK\r\n\r\n",
		"HTTP/1.1 200 O\x00K\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA\r\n\r\n", "HTTP/1.1 200 OK\r\n: b\r\n\r\n", "HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
		"HTTP/1.1 200 OK\r\n A: b\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\x00\r\n\r\n", "HTTP/1.1 200 OK\r\nÄ: b\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		if h, err := parseHead([]byte(text)); !errors.Is(err, errHead) {
			t.Errorf("%q: got %+v, %v", text, h, err)
		}
	}
}

// TestABadHeadIsNotQuoted: errors are logged, and what a backend says where a header should be is somebody's.
func TestABadHeadIsNotQuoted(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"SUMMARY:private\r\n\r\n", "HTTP/1.1 private\r\n\r\n", "HTTP/1.1 200 OK\r\nSet-Cookie: private\x00\r\n\r\n", "HTTP/1.1 200 OK\r\nprivate\r\n\r\n",
		"HTTP/1.1 200 OK\r\nprivate : b\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: private\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: private\r\n\r\n",
	} {
		if _, err := parseHead([]byte(text)); err == nil || strings.Contains(err.Error(), "private") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// FuzzParseHead: what we take for a head, net/http takes for the same.
func FuzzParseHead(f *testing.F) {
	for _, text := range []string{
		"HTTP/1.1 200 OK\r\nContent-Type: text/calendar\r\nContent-Length: 15\r\nETag: \"1\"\r\n\r\n",
		"HTTP/1.1 207 Multi-Status\r\nContent-Type: text/xml; charset=utf-8\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive, Close\r\n\r\n",
		"HTTP/1.0 404\nA: b\na: c\n\n", "HTTP/1.1 204 \r\nDAV: 1, 3\r\nDAV: addressbook\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := parseHead(text)
		if err != nil {
			return
		}
		method := "GET"
		r := bufio.NewReader(bytes.NewReader(text))
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("net/http: %v", err)
		}
		if _, err := r.Peek(1); err != io.EOF {
			t.Fatalf("net/http finds something behind the head: %v", err)
		}
		if resp.StatusCode != h.status || (resp.ProtoMinor == 0) != h.old || (len(resp.TransferEncoding) > 0) != h.chunked && !h.bodiless(method) {
			t.Errorf("got %+v, net/http %+v", h, resp)
		}
		if !h.bodiless(method) && !h.chunked && resp.ContentLength != h.length {
			t.Errorf("length %d, net/http %d", h.length, resp.ContentLength)
		}
		if resp.Close && !h.close && h.length >= 0 {
			t.Error("net/http would not use the connection again")
		}
		for name, want := range resp.Header {
			got := h.header[name]
			for i := range got {
				got[i] = strings.TrimSpace(got[i])
			}
			if name != "Content-Length" && !slices.Equal(got, want) {
				t.Errorf("%s: %q, net/http %q", name, got, want)
			}
		}
	})
}

// FuzzAppendHead: a head that we write is one request with the fields that were asked for, whatever is in them.
func FuzzAppendHead(f *testing.F) {
	for _, seed := range [][4]string{
		{"PROPFIND", "/alice%40x/work/", "X-Remote-User", "alice@example.test"}, {"GET", "/a b", "A", "b"}, {"GET /x HTTP/1.1\r\nA:", "/", "A", "b"},
		{"GET", "/ HTTP/1.1\r\nX: y", "A", "b"}, {"GET", "/", "A", "b\r\nX: y"}, {"GET", "/", "A: b\r\nX", "y"}, {"PUT", "/", "Content-Length", "7"},
		{"PUT", "/", "transfer-encoding", "chunked"}, {"PUT", "/", "Connection", "X-Remote-User"}, {"GET", "/", "A", "b\nX: y"}, {"GET", "/", "A", "\x00"}, {"GET", "/\x7f", "Host", "evil"},
		{"GET", "http://evil/", "A", "b"}, {"GET", "*", "A", "b"}, {"", "/", "A", "b"}, {"GET", "/ä", "A", "ä"}, {"GET", "/%", "A", "b"}, {"GET", "/%zz", "A", "b"},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	f.Fuzz(func(t *testing.T, method, path, name, value string) {
		for _, length := range []int64{0, 5, -1} {
			req := &http.Request{Method: method, URL: &url.URL{Scheme: "http", Host: "backend", Opaque: path}, Header: http.Header{name: {value}}}
			b, err := appendHead(nil, req, length)
			if err != nil {
				continue
			}
			r := bufio.NewReader(bytes.NewReader(b))
			got, err := http.ReadRequest(r)
			if err != nil {
				t.Fatalf("%q: %v", b, err)
			}
			got.Header.Del("Content-Length")
			want := strings.Trim(value, " \t")
			if got.Method != method || got.RequestURI != req.URL.RequestURI() || got.Host != "backend" || len(got.Header) != 1 || !slices.Equal(got.Header[http.CanonicalHeaderKey(name)], []string{want}) {
				t.Errorf("%q was read as %q %q at %q, %q", b, got.Method, got.RequestURI, got.Host, got.Header)
			}
			if method != "PUT" && method != "POST" && got.ContentLength != length {
				t.Errorf("%q: length %d, want %d", b, got.ContentLength, length)
			}
			if _, err := r.Peek(1); err != io.EOF && length == 0 {
				t.Errorf("%q: there is more than a head", b)
			}
		}
	})
}

// TestAnswersThatAreNoUse: none of them is taken for whole, and its connection serves nobody else.
func TestAnswersThatAreNoUse(t *testing.T) {
	t.Parallel()
	chunked, length := "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 x\r\nContent-Length: 5\r\n\r\n"
	for name, text := range map[string]string{
		"no end of chunks":      chunked + "5\r\nhello\r\n",
		"no end of a chunk":     chunked + "6\r\nhello",
		"no end of a size":      chunked + "5",
		"no end of the trailer": chunked + "5\r\nhello\r\n0\r\n",
		"a negative size":       chunked + "-5\r\nhello\r\n0\r\n\r\n",
		"a size with a sign":    chunked + "+5\r\nhello\r\n0\r\n\r\n",
		"a size with a prefix":  chunked + "0x5\r\nhello\r\n0\r\n\r\n",
		"no size":               chunked + "\r\nhello\r\n0\r\n\r\n",
		"a size beyond numbers": chunked + "10000000000000005\r\nhello\r\n0\r\n\r\n",
		"a huge size":           chunked + "fffffffffffffffb\r\nhello\r\n0\r\n\r\n",
		"a chunk that is long":  chunked + "5\r\nhello!\r\n0\r\n\r\n",
		"an endless size":       chunked + strings.Repeat("0", 1<<20),
		"an endless extension":  chunked + "5;" + strings.Repeat("x", 1<<20) + "\r\nhello\r\n0\r\n\r\n",
		"an endless trailer":    chunked + "0\r\n" + strings.Repeat("A: b\r\n", 1<<10) + "\r\n",
		"less than the length":  length + "hell",
		"interim answers only":  strings.Repeat("HTTP/1.1 102 x\r\n\r\n", 10_000) + length + "hello",
		"an endless header":     "HTTP/1.1 200 x\r\n" + strings.Repeat("A: b\r\n", 20_000) + "Content-Length: 5\r\n\r\nhello",
		"an endless line":       "HTTP/1.1 200 x\r\nA: " + strings.Repeat("b", 1<<20) + "\r\nContent-Length: 5\r\n\r\nhello",
		"another protocol":      "HTTP/1.1 101 x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				if _, err := http.ReadRequest(bufio.NewReader(theirs)); err == nil {
					io.WriteString(theirs, text)
				}
			}()
			u := New(time.Minute, func(context.Context) (net.Conn, error) { return ours, nil })
			defer u.Close()
			req, err := http.NewRequestWithContext(t.Context(), "GET", "http://backend/", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := u.RoundTrip(req)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			if err == nil && resp.StatusCode >= 200 {
				t.Error("it was taken for whole")
			}
			if len(u.idle) > 0 {
				t.Error("its connection is kept")
			}
		})
	}
}
