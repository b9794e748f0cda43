package upstream

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// smallAnswer is how Radicale answers a PROPFIND of depth 0.
var smallAnswer = fmt.Sprintf("HTTP/1.1 207 Multi-Status\r\nDate: Thu, 01 Jan 2026 12:00:00 GMT\r\nServer: WSGIServer/0.2 CPython/3.13.5\r\n"+
	"DAV: 1, 2, 3, calendar-access, addressbook, extended-mkcol\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: 500\r\n\r\n%s", strings.Repeat("x", 500))

// ask makes a request as davproxy does.
func ask(ctx context.Context, body *again, text []byte) *http.Request {
	body.Reset(text)
	req := http.Request{
		Method: "PROPFIND", URL: &url.URL{Scheme: "http", Host: "127.0.0.1:5232", Opaque: "/alice%40example.test/work/"},
		Header: http.Header{
			"Accept": {"*/*"}, "Accept-Encoding": {"identity"}, "Content-Type": {"application/xml; charset=utf-8"}, "Depth": {"0"},
			"User-Agent": {"DAVx5/4.4.5-ose (2025/01/01; dav4jvm; okhttp/4.12.0) Android/15"}, "X-Forwarded-For": {"192.0.2.1"}, "X-Remote-User": {"alice@example.test"},
		},
		Body: body, ContentLength: int64(len(text)),
	}
	return req.WithContext(ctx)
}

// BenchmarkRoundTrip is a request over a kept connection and its answer, with the syscalls of both sides.
func BenchmarkRoundTrip(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	go func() {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		r := bufio.NewReader(nc)
		for {
			for line := []byte(nil); len(line) != 2; { // up to the empty one
				if line, err = r.ReadSlice('\n'); err != nil {
					return
				}
			}
			r.Discard(200)
			io.WriteString(nc, smallAnswer)
		}
	}()
	u := New(time.Minute, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
	})
	defer u.Close()
	text, room := bytes.Repeat([]byte("x"), 200), make([]byte, 4<<10)
	body := &again{}
	req := ask(b.Context(), body, text)
	b.ReportAllocs()
	for b.Loop() {
		ctx, cancel := context.WithCancel(context.Background()) // each request has its own; to watch it costs more than to watch davproxy's
		body.Reset(text)
		resp, err := u.RoundTrip(req.WithContext(ctx))
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = resp.Body.Read(room)
		}
		resp.Body.Close()
		cancel()
	}
}

// BenchmarkHead is what it costs to write a request and to read the head of its answer.
func BenchmarkHead(b *testing.B) {
	b.Run("compose", func(b *testing.B) {
		text := bytes.Repeat([]byte("x"), 200)
		body := &again{}
		req := ask(b.Context(), body, text)
		b.ReportAllocs()
		for b.Loop() {
			body.Reset(text)
			m, err := compose(req)
			if err != nil {
				b.Fatal(err)
			}
			m.free()
		}
	})
	b.Run("parse", func(b *testing.B) {
		head, _, _ := strings.Cut(smallAnswer, "xxx")
		raw := []byte(head)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := parseHead(raw); err != nil {
				b.Fatal(err)
			}
		}
	})
}
