package davproxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"postern/gateway/live"
	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/davproxy"
)

// framer is a client that sends the frames of HTTP/2 that a test wants.
type framer struct {
	*http2.Framer
	nc     net.Conn
	header bytes.Buffer
	enc    *hpack.Encoder
}

func newFramer(t testing.TB, nc net.Conn) *framer {
	t.Helper()
	f := &framer{Framer: http2.NewFramer(nc, nc), nc: nc}
	f.AllowIllegalWrites = true
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.enc = hpack.NewEncoder(&f.header)
	if _, err := io.WriteString(nc, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	return f
}

// dialHTTP2 connects with settings of the client's.
func (d *door) dialHTTP2(settings ...http2.Setting) *framer {
	d.t.Helper()
	nc, err := tls.Dial("tcp", strings.TrimPrefix(d.url, "https://"), &tls.Config{RootCAs: d.ca.Pool, NextProtos: []string{"h2"}})
	if err != nil {
		d.t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(patience))
	d.t.Cleanup(func() { nc.Close() })
	f := newFramer(d.t, nc)
	f.WriteSettings(settings...)
	return f
}

// block encodes a header from NAME, VALUE, ...
func (f *framer) block(fields ...string) []byte {
	f.header.Reset()
	for i := 0; i+1 < len(fields); i += 2 {
		f.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return f.header.Bytes()
}

func (f *framer) open(stream uint32, ends bool, fields ...string) error {
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: f.block(fields...), EndStream: ends, EndHeaders: true})
}

// answer reads until a stream has its status, and returns that; "reset", "goaway" or "cut" where there is none.
func (f *framer) answer(stream uint32) string {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return "cut"
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				f.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			if frame.StreamID == stream {
				return frame.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if frame.StreamID == stream {
				return "reset"
			}
		case *http2.GoAwayFrame:
			return "goaway"
		}
	}
}

// asks is the header of a request as alice.
func asks(method, path string, more ...string) []string {
	return slices.Clip(append([]string{":method", method, ":scheme", "https", ":path", path, ":authority", "x", "authorization", basic("cal")}, more...))
}

// without takes a field out.
func without(fields []string, name string) []string {
	i := slices.Index(fields, name)
	return slices.Clip(slices.Delete(slices.Clone(fields), i, i+2))
}

// TestSmugglingOverHTTP2: what would become two requests, or another one, in HTTP/1.1 never reaches the backend.
func TestSmugglingOverHTTP2(t *testing.T) {
	t.Parallel()
	event, path := testlab.Event("1"), cal+"work/1.ics"
	put := asks("PUT", path, "content-type", "text/calendar")
	get := asks("GET", path)
	stored, fetched := "PUT /alice@example.test/work/1.ics "+event, "GET /alice@example.test/work/1.ics "
	inner := "DELETE " + cal + "work/2.ics HTTP/1.1\r\nHost: x\r\nAuthorization: " + basic("cal") + "\r\n\r\n"
	n := fmt.Sprint(len(event))
	for name, tt := range map[string]struct {
		header  []string
		body    string
		trailer []string
		want    []string // each is right
		seen    []string
	}{
		"plain":                        {put, event, nil, []string{"201"}, []string{stored}},
		"a length":                     {append(put, "content-length", n), event, nil, []string{"201"}, []string{stored}},
		"a length that is too short":   {append(put, "content-length", "3"), event, nil, []string{"reset", "400"}, nil},
		"a length that is too long":    {append(put, "content-length", "99999"), event, nil, []string{"reset", "400", "503"}, nil},
		"two lengths":                  {append(put, "content-length", n, "content-length", "3"), event, nil, []string{"201"}, []string{stored}},
		"a bad length":                 {append(put, "content-length", "+3"), event, nil, []string{"reset", "400"}, nil},
		"a length and a body of a GET": {append(get, "content-length", fmt.Sprint(len(inner))), inner, nil, []string{"200"}, []string{fetched}},
		"chunks":                       {append(put, "transfer-encoding", "chunked"), event, nil, []string{"400"}, nil},
		"a connection header":          {append(get, "connection", "x-remote-user"), "", nil, []string{"reset", "400"}, nil},
		"an upgrade":                   {append(get, "upgrade", "h2c"), "", nil, []string{"reset", "400"}, nil},
		"te":                           {append(get, "te", "gzip"), "", nil, []string{"reset", "400"}, nil},
		"a name in capitals":           {append(get, "X-Remote-User", "bob"), "", nil, []string{"reset", "goaway"}, nil},
		"a name with a colon":          {append(get, "x:y", "bob"), "", nil, []string{"reset", "goaway"}, nil},
		"a name with a line end":       {append(get, "x\r\nx-remote-user", "bob"), "", nil, []string{"reset", "goaway"}, nil},
		"an empty name":                {append(get, "", "bob"), "", nil, []string{"reset", "goaway"}, nil},
		"a value with a line end":      {append(get, "user-agent", "a\r\nX-Remote-User: bob"), "", nil, []string{"reset", "goaway"}, nil},
		"a value with an LF":           {append(get, "user-agent", "a\nX-Remote-User: bob"), "", nil, []string{"reset", "goaway"}, nil},
		"a value with a NUL":           {append(get, "user-agent", "a\x00"), "", nil, []string{"reset", "goaway"}, nil},
		"names of an identity":         {append(get, "x-remote-user", "bob", "x_remote_user", "bob", "authorize-as", "bob", "forwarded", "for=1.2.3.4", "x-forwarded-for", "1.2.3.4", "early-data", "1", "cookie", "a=b"), "", nil, []string{"200"}, []string{fetched}},
		"two logins":                   {append(get, "authorization", basic("both")), "", nil, []string{"400"}, nil},
		"another host":                 {append(get, "host", "other.example"), "", nil, []string{"200"}, []string{fetched}},
		"a host that is a path":        {append(without(get, ":authority"), "host", "x/../y"), "", nil, []string{"200"}, []string{fetched}},
		"a path with a line end":       {asks("GET", path+" HTTP/1.1\r\nX-Remote-User: bob\r\nX: "), "", nil, []string{"400", "reset"}, nil},
		"a path with a space":          {asks("GET", path+" x"), "", nil, []string{"200"}, []string{strings.TrimSuffix(fetched, " ") + "%20x "}},
		"a path with a NUL":            {asks("GET", path+"\x00"), "", nil, []string{"400", "reset", "goaway"}, nil},
		"a path without a slash":       {asks("GET", path[1:]), "", nil, []string{"400", "reset"}, nil},
		"an empty path":                {asks("GET", ""), "", nil, []string{"400", "reset", "goaway"}, nil},
		"a path that is a URL":         {asks("GET", "https://bob@other.example"+path), "", nil, []string{"400", "reset"}, nil},
		"dots":                         {asks("GET", cal+"work/../../bobspublic/work/1.ics"), "", nil, []string{"400"}, nil},
		"a query":                      {asks("GET", path+"?x"), "", nil, []string{"400"}, nil},
		"two paths":                    {append(slices.Clone(get[:8]), append([]string{":path", "/"}, get[8:]...)...), "", nil, []string{"reset", "goaway"}, nil},
		"a path behind the others":     {append(get, ":path", "/"), "", nil, []string{"reset", "goaway"}, nil},
		"no path":                      {without(get, ":path"), "", nil, []string{"reset", "goaway"}, nil},
		"no scheme":                    {without(get, ":scheme"), "", nil, []string{"reset", "goaway"}, nil},
		"a scheme with a request":      {append(without(get, ":scheme"), ":scheme", "https://x/ HTTP/1.1\r\n\r\n"), "", nil, []string{"reset", "goaway"}, nil},
		"a method with a request":      {asks("GET / HTTP/1.1\r\nHost: x\r\n\r\nGET", path), "", nil, []string{"reset", "goaway", "405", "400"}, nil},
		"a status":                     {append([]string{":status", "200"}, get...), "", nil, []string{"reset", "goaway"}, nil},
		"a tunnel":                     {[]string{":method", "CONNECT", ":authority", "x:443", "authorization", basic("cal")}, "", nil, []string{"400", "405", "reset", "404"}, nil},
		"a websocket":                  {asks("CONNECT", path, ":protocol", "websocket"), "", nil, []string{"400", "405", "reset", "goaway"}, nil},
		"trailers":                     {append(put, "trailer", "x-remote-user"), event, []string{"x-remote-user", "bob", "x-other", "y"}, []string{"201"}, []string{stored}},
		"a path in the trailers":       {put, event, []string{":path", "/"}, []string{"reset", "goaway", "400"}, nil},
		"many cookies":                 {append(get, slices.Repeat([]string{"cookie", "a=b"}, 400)...), "", nil, []string{"200"}, []string{fetched}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFake(t, item)
			p := newTap(t, b.address)
			d := open(t, routes{"calendar": by("tap", p.address)})
			d.want(200, "cal", "GET", cal+"work/1.ics", "") // what the gateway asks for itself comes first
			if _, err := p.requests(); err != nil {
				t.Fatal(err)
			}
			f := d.dialHTTP2()
			f.open(1, tt.body == "", tt.header...)
			if tt.body != "" {
				f.WriteData(1, tt.trailer == nil, []byte(tt.body))
			}
			if tt.trailer != nil {
				f.open(1, true, tt.trailer...)
			}
			got := f.answer(1)
			if !slices.Contains(tt.want, got) {
				t.Errorf("answered %q, want one of %q", got, tt.want)
			}
			if got[0] != '2' {
				tt.seen = nil
			}
			seen, err := p.requests()
			if tt.seen == nil && errors.Is(err, io.ErrUnexpectedEOF) { // an upload that broke off is no request
				err = nil
			}
			if err != nil || !slices.Equal(seen, tt.seen) {
				t.Errorf("the backend saw %q, want %q; %v", seen, tt.seen, err)
			}
			d.want(207, "cal", "PROPFIND", self, "")
		})
	}
}

// TestFloodsOverHTTP2: who floods is cut off or waits; others are served, and memory stays what it was.
func TestFloodsOverHTTP2(t *testing.T) {
	var most, running atomic.Int64
	b := newFake(t, nil)
	b.handle = func(w http.ResponseWriter, r *http.Request) {
		now := running.Add(1)
		defer running.Add(-1)
		for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
		}
		if r.Header.Get("User-Agent") == "flood" {
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		}
		item(w, r)
	}
	go func() { // what it was asked is not looked at here
		for range b.seen {
		}
	}()
	t.Cleanup(func() { close(b.seen) })
	go func() {
		for range b.gone {
		}
	}()
	d := open(t, routes{"calendar": b.route})
	go func() {
		for range d.observer.logins {
		}
	}()
	big := strings.Repeat("x", 3000)
	request := append(without(asks("GET", "/dav/cal/bobspublic/work/1.ics"), "authorization"), "user-agent", "flood",
		"authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(testlab.Bob+":cal"))) // an account may use up its own share
	for _, flood := range []struct {
		name string
		ends bool // the client must be told that it is over
		send func(f *framer, i int) error
	}{
		{"requests that are reset at once", false, func(f *framer, i int) error {
			if err := f.open(uint32(2*i+1), true, request...); err != nil {
				return err
			}
			return f.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel)
		}},
		{"requests that are never taken", false, func(f *framer, i int) error { return f.open(uint32(2*i+1), true, request...) }},
		{"streams that break the rules", false, func(f *framer, i int) error {
			if err := f.open(uint32(2*i+1), true, request...); err != nil {
				return err
			}
			return f.WriteWindowUpdate(uint32(2*i+1), 0) // the server resets it
		}},
		{"a header that never ends", true, func(f *framer, i int) error {
			if i == 0 {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.block(request...)})
			}
			return f.WriteContinuation(1, false, f.block("x", big))
		}},
		{"a header that never ends and has nothing", false, func(f *framer, i int) error {
			if i == 0 {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.block(request...)})
			}
			return f.WriteContinuation(1, false, nil)
		}},
		{"pings", false, func(f *framer, _ int) error { return f.WritePing(false, [8]byte{}) }},
		{"settings", false, func(f *framer, _ int) error {
			return f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
		}},
		{"empty data", false, func(f *framer, i int) error {
			if i == 0 {
				return f.open(1, false, append([]string{":method", "PUT"}, append(request[2:len(request):len(request)], "content-type", "text/calendar")...)...)
			}
			return f.WriteData(1, false, nil)
		}},
		{"priorities", false, func(f *framer, i int) error {
			return f.WritePriority(uint32(2*i+1), http2.PriorityParam{StreamDep: uint32(2*i + 3)})
		}},
		{"window updates", false, func(f *framer, _ int) error { return f.WriteWindowUpdate(0, 1) }},
		{"unknown frames", false, func(f *framer, _ int) error { return f.WriteRawFrame(0xbb, 0, 0, []byte(big)) }},
	} {
		before := heap()
		f := d.dialHTTP2()
		var err error
		const frames = 10_000
		for i := 0; i < frames && err == nil; i++ {
			err = flood.send(f, i) // nobody reads the answers
		}
		if grown := int64(heap()) - int64(before); grown > 16<<20 {
			t.Errorf("%s: memory grew by %d bytes", flood.name, grown)
		}
		d.client.CloseIdleConnections()
		d.want(200, "cal", "GET", cal+"work/1.ics", "")
		if flood.ends {
			if got := f.answer(1); got != "goaway" && got != "cut" {
				t.Errorf("%s: answered %q", flood.name, got)
			}
		}
		f.nc.Close()
	}
	if n := most.Load(); n > 32 {
		t.Errorf("%d requests of one account were at the backend at once", n)
	}
	d.client.CloseIdleConnections()
	d.drain()
	if err := next(t, "Serve to return", d.served); err != nil || d.sessions.Count() != 0 || running.Load() != 0 {
		t.Errorf("Serve() = %v; %d sessions and %d requests are left", err, d.sessions.Count(), running.Load())
	}
	d.served <- nil // for the door's own cleanup
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestAHeaderBomb: a table makes few bytes a large header.
func TestAHeaderBomb(t *testing.T) {
	t.Parallel()
	d := open(t, routes{})
	f := d.dialHTTP2()
	f.open(1, true, asks("PROPFIND", self, append([]string{"x-bomb", strings.Repeat("x", 3000)}, slices.Repeat([]string{"x-bomb", strings.Repeat("x", 3000)}, 4000)...)...)...)
	if got := f.answer(1); got != "431" && got != "reset" && got != "goaway" && got != "cut" {
		t.Errorf("answered %s", got)
	}
	if attempts, _ := d.verifier.counts(); attempts != 0 {
		t.Errorf("%d attempts to log in", attempts)
	}
	d.want(207, "cal", "PROPFIND", self, "")
}

// TestHangingClientsAreCutOverHTTP2, as those of HTTP/1.1 are.
func TestHangingClientsAreCutOverHTTP2(t *testing.T) {
	t.Parallel()
	ca := testlab.NewCA(t)
	_, _, cert := ca.Issue()
	for name, tt := range map[string]struct {
		send  func(f *framer)
		again func(f *framer) error // each second
		until time.Duration
	}{
		"says nothing": {func(*framer) {}, nil, 2*time.Minute + time.Second},
		"half a frame": {func(f *framer) { f.nc.Write([]byte{0, 0, 9}) }, nil, 2*time.Minute + time.Second},
		"half a header": {func(f *framer) {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.block(asks("GET", self)...)})
		}, nil, 2*time.Minute + time.Second},
		"a body that does not come":       {func(f *framer) { f.open(1, false, asks("PROPFIND", self, "content-length", "100")...) }, nil, 4 * time.Minute},
		"a body without a login":          {func(f *framer) { f.open(1, false, without(asks("PUT", cal+"work/1.ics"), "authorization")...) }, nil, 4 * time.Minute},
		"is done":                         {func(f *framer) { f.open(1, true, asks("PROPFIND", self)...) }, nil, 2*time.Minute + time.Second},
		"is done, and sends empty frames": {func(f *framer) { f.open(1, true, asks("PROPFIND", self)...) }, func(f *framer) error { return f.WriteWindowUpdate(0, 1) }, 3 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // the minutes take no time
				ctx, end := context.WithCancel(context.Background())
				ln := newPipes()
				o := davproxy.Options{
					Verifier: &verifier{}, Sessions: &live.Registry{}, Router: routes{}, Log: slog.New(slog.DiscardHandler),
					Observer: &observer{make(chan protocols.LoginEvent, 10), make(chan protocols.EndEvent, 10)},
					TLS:      &tls.Config{Certificates: []tls.Certificate{cert}},
				}
				var served sync.WaitGroup
				served.Go(func() { davproxy.New(o).Serve(ctx, ctx, ln) })
				defer served.Wait()
				defer end()
				raw := ln.dial()
				defer raw.Close()
				client := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) // it is the year 2000 here
				began := time.Now()
				if err := client.Handshake(); err != nil {
					t.Fatal(err)
				}
				read := make(chan struct{})
				go func() { // a pipe holds nothing: answers are taken at once
					defer close(read)
					io.Copy(io.Discard, client)
				}()
				f := newFramer(t, client)
				f.WriteSettings()
				f.WriteSettingsAck()
				tt.send(f)
				if tt.again != nil {
					served.Go(func() {
						for tt.again(f) == nil {
							time.Sleep(time.Second)
						}
					})
				}
				<-read
				if d := time.Since(began); d > tt.until {
					t.Errorf("cut after %v, want %v", d, tt.until)
				}
			})
		})
	}
}
