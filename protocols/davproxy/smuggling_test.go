package davproxy_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/authstore"
	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/davproxy"
)

// tap stands before a server and keeps each byte that goes to it.
type tap struct {
	address string
	mu      sync.Mutex // guards conns
	conns   []*bytes.Buffer
}

func newTap(t *testing.T, to string) *tap {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{address: ln.Addr().String()}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			kept := &bytes.Buffer{}
			p.conns = append(p.conns, kept)
			p.mu.Unlock()
			work.Go(func() { p.relay(nc, kept, to) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		work.Wait()
	})
	return p
}

func (p *tap) relay(nc net.Conn, kept *bytes.Buffer, to string) {
	defer nc.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		io.Copy(nc, server)
		nc.Close()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := nc.Read(buf)
		p.mu.Lock()
		kept.Write(buf[:n])
		p.mu.Unlock()
		if _, werr := server.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// requests reads all that came so strictly that no server could read it in another way, and forgets it.
func (p *tap) requests() (list []string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, kept := range p.conns {
		r := bufio.NewReader(bytes.NewReader(kept.Bytes()))
		for {
			text, e := strictRequest(r)
			if e == io.EOF {
				break
			}
			if e != nil {
				return list, fmt.Errorf("%w in\n%q", e, kept.Bytes())
			}
			list = append(list, text)
		}
		kept.Reset()
	}
	return list, nil
}

var (
	strictLine   = regexp.MustCompile(`^([A-Z]+) (/[!-~]*) HTTP/1\.1\r\n$`)
	strictHeader = regexp.MustCompile(`^([A-Za-z][A-Za-z-]*): ([^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?)?\r\n$`)
	strictSize   = regexp.MustCompile(`^[0-9a-f]+\r\n$`)
)

// toldHeaders are all that a backend may be told, besides those of the body.
var toldHeaders = map[string]bool{
	"Host": true, "User-Agent": true, "Accept": true, "Accept-Encoding": true, "Accept-Language": true, "Content-Type": true, "Depth": true, "Destination": true, "If": true,
	"If-Match": true, "If-None-Match": true, "Overwrite": true, "Prefer": true, "Brief": true, "X-Forwarded-For": true, "X-Remote-User": true, "Connection": true,
}

// strictRequest reads one request and returns its method, path and body.
func strictRequest(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	m := strictLine.FindStringSubmatch(line)
	if m == nil {
		return "", fmt.Errorf("the request line %q", line)
	}
	header := make(map[string]string)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", errors.New("a header that does not end")
		}
		if line == "\r\n" {
			break
		}
		h := strictHeader.FindStringSubmatch(line)
		if h == nil {
			return "", fmt.Errorf("the header line %q", line)
		}
		name := http.CanonicalHeaderKey(h[1])
		if _, twice := header[name]; twice || !toldHeaders[name] && name != "Content-Length" && name != "Transfer-Encoding" {
			return "", fmt.Errorf("the header line %q", line)
		}
		header[name] = h[2]
	}
	if header["X-Remote-User"] != testlab.Alice || header["X-Forwarded-For"] != "" && header["X-Forwarded-For"] != "127.0.0.1" || header["Host"] == "" {
		return "", fmt.Errorf("header %v", header)
	}
	body, err := strictBody(r, header["Content-Length"], header["Transfer-Encoding"])
	return m[1] + " " + m[2] + " " + body, err
}

func strictBody(r *bufio.Reader, length, encoding string) (string, error) {
	switch {
	case length != "" && encoding != "" || encoding != "" && encoding != "chunked":
		return "", fmt.Errorf("length %q, encoding %q", length, encoding)
	case encoding == "":
		n, err := strconv.Atoi("0" + length)
		if err != nil {
			return "", err
		}
		body := make([]byte, n)
		_, err = io.ReadFull(r, body)
		return string(body), err
	}
	var body bytes.Buffer
	for {
		line, _ := r.ReadString('\n')
		n, err := strconv.ParseInt(strings.TrimSpace(line), 16, 32)
		if !strictSize.MatchString(line) || err != nil {
			return "", fmt.Errorf("the chunk's size %q", line)
		}
		if _, err := io.CopyN(&body, r, n); err != nil {
			return "", err
		}
		if end, _ := r.ReadString('\n'); end != "\r\n" {
			return "", fmt.Errorf("behind a chunk: %q", end)
		}
		if n == 0 {
			return body.String(), nil
		}
	}
}

// TestSmuggling: whatever a client writes, the backend sees well-formed requests of our own making, one for each that the client has an
// answer to, and none that stood inside another.
func TestSmugglingOverHTTP1(t *testing.T) {
	t.Parallel()
	event := testlab.Event("1")
	n := len(event)
	put := "PUT " + cal + "work/1.ics HTTP/1.1\r\nHost: x\r\nContent-Type: text/calendar\r\nAuthorization: " + basic("cal") + "\r\n"
	get := "GET " + cal + "work/1.ics HTTP/1.1\r\nHost: x\r\nAuthorization: " + basic("cal") + "\r\n"
	inner := "DELETE " + cal + "work/smuggled.ics HTTP/1.1\r\nHost: x\r\nAuthorization: " + basic("cal") + "\r\n\r\n"
	chunks := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", n, event)
	length := fmt.Sprintf("Content-Length: %d\r\n", n)
	stored, fetched := "PUT /alice@example.test/work/1.ics "+event, "GET /alice@example.test/work/1.ics "
	const cut, ok = "400", " 200" // ok: the answer to the request behind
	for name, tt := range map[string]struct {
		text string
		want string   // the statuses
		seen []string // by the backend
	}{
		"plain":  {put + length + "\r\n" + event, "201" + ok, []string{stored}},
		"chunks": {put + "Transfer-Encoding: chunked\r\n\r\n" + chunks, "201" + ok, []string{stored}},

		"two lengths":                {put + length + "Content-Length: 3\r\n\r\n" + event, cut, nil},
		"two lengths, the other way": {put + "Content-Length: 3\r\n" + length + "\r\n" + event, cut, nil},
		"one length twice":           {put + length + length + "\r\n" + event, "201" + ok, []string{stored}},
		"lengths in a list":          {put + fmt.Sprintf("Content-Length: %d, %d\r\n\r\n", n, n) + event, cut, nil},
		"a length with a sign":       {put + fmt.Sprintf("Content-Length: +%d\r\n\r\n", n) + event, cut, nil},
		"a negative length":          {put + "Content-Length: -1\r\n\r\n" + event, cut, nil},
		"a length in hex":            {put + fmt.Sprintf("Content-Length: %#x\r\n\r\n", n) + event, cut, nil},
		"a huge length":              {put + "Content-Length: 99999999999999999999\r\n\r\n" + event, cut, nil},
		"an empty length":            {put + "Content-Length: \r\n\r\n" + event, cut, nil},
		"a length with words":        {put + fmt.Sprintf("Content-Length: %d bytes\r\n\r\n", n) + event, cut, nil},
		"a length with underscore":   {put + length + "Content_Length: 3\r\n\r\n" + event, "201" + ok, []string{stored}},

		"length and chunks":               {put + length + "Transfer-Encoding: chunked\r\n\r\n" + chunks, "201" + ok, []string{stored}},
		"chunks and length":               {put + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n" + chunks + inner, "201 204" + ok, []string{stored, "DELETE /alice@example.test/work/smuggled.ics "}},
		"length and chunks, and a secret": {put + fmt.Sprintf("Content-Length: %d\r\n", len(chunks+inner)) + "Transfer-Encoding: chunked\r\n\r\n" + chunks, "201" + ok, []string{stored}},
		"encoding with a space before":    {put + length + "Transfer-Encoding : chunked\r\n\r\n" + event, cut, nil},
		"encoding with a tab":             {put + "Transfer-Encoding:\tchunked\r\n\r\n" + chunks, "201" + ok, []string{stored}},
		"encoding with a VT":              {put + "Transfer-Encoding: \x0bchunked\r\n\r\n" + chunks, cut, nil},
		"encoding in capitals":            {put + "TRANSFER-ENCODING: ChUnKeD\r\n\r\n" + chunks, "201" + ok, []string{stored}},
		"encoding in quotes":              {put + length + "Transfer-Encoding: \"chunked\"\r\n\r\n" + event, "501", nil},
		"encoding xchunked":               {put + length + "Transfer-Encoding: xchunked\r\n\r\n" + event, "501", nil},
		"encoding identity":               {put + length + "Transfer-Encoding: identity\r\n\r\n" + event, "501", nil},
		"encoding identity, chunked":      {put + length + "Transfer-Encoding: identity, chunked\r\n\r\n" + chunks, "501", nil},
		"encoding gzip, chunked":          {put + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunks, "501", nil},
		"encoding chunked twice":          {put + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, "501", nil},
		"encoding chunked, then another":  {put + length + "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n" + chunks, "501", nil},
		"encoding empty":                  {put + length + "Transfer-Encoding: \r\n\r\n" + event, "501", nil},
		"encoding folded":                 {put + "Transfer-Encoding:\r\n chunked\r\n\r\n" + chunks, "201" + ok, []string{stored}},
		"encoding by underscore":          {put + length + "Transfer_Encoding: chunked\r\n\r\n" + event, "201" + ok, []string{stored}},
		"encoding with a NUL":             {put + length + "Transfer-Encoding: chunked\x00\r\n\r\n" + event, cut, nil},
		"encoding behind a bare CR":       {put + length + "X: y\rTransfer-Encoding: chunked\r\n\r\n" + event, cut, nil},
		"encoding behind a bare LF":       {put + "X: y\nTransfer-Encoding: chunked\r\n\r\n" + chunks, "201" + ok, []string{stored}},
		"encoding named by Connection":    {put + "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, "201" + ok, []string{stored}},

		"a chunk with extensions":        {put + "Transfer-Encoding: chunked\r\n\r\n" + strings.Replace(chunks, "\r\n", ";a=b;c=\"d\"\r\n", 1), "201" + ok, []string{stored}},
		"a chunk's extension with an LF": {put + "Transfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x;\nxx\r\n%s\r\n0\r\n\r\n", n, event), cut, nil},
		"a chunk's size with 0x":         {put + "Transfer-Encoding: chunked\r\n\r\n0x" + chunks, cut, nil},
		"a chunk's size with a sign":     {put + "Transfer-Encoding: chunked\r\n\r\n+" + chunks, cut, nil},
		"a chunk's size with underscore": {put + "Transfer-Encoding: chunked\r\n\r\n0_" + chunks, cut, nil},
		"a chunk's size that overflows":  {put + "Transfer-Encoding: chunked\r\n\r\n1000000000000000" + chunks, cut, nil},
		"a chunk that is too long":       {put + "Transfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s0\r\n\r\n", n, event), cut, nil},
		"a chunk behind a bare CR":       {put + "Transfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r%s\r\n0\r\n\r\n", n, event), cut, nil},
		"trailers":                       {put + "Transfer-Encoding: chunked\r\nTrailer: X-Remote-User\r\n\r\n" + strings.TrimSuffix(chunks, "\r\n") + "X-Remote-User: bob@example.test\r\nContent-Length: 3\r\n\r\n", "201" + ok, []string{stored}},
		"a request as a trailer":         {put + "Transfer-Encoding: chunked\r\n\r\n" + strings.TrimSuffix(chunks, "\r\n") + inner, cut, nil},

		"a body of a GET":             {get + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(inner)) + inner, "200" + ok, []string{fetched}},
		"chunks of a GET":             {get + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(inner), inner), "200" + ok, []string{fetched}},
		"a body of a DELETE":          {strings.Replace(get, "GET", "DELETE", 1) + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(inner)) + inner, "204" + ok, []string{"DELETE /alice@example.test/work/1.ics "}},
		"a body of an OPTIONS":        {strings.Replace(get, "GET", "OPTIONS", 1) + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(inner)) + inner, "200" + ok, nil},
		"a body without a login":      {"PUT " + cal + "work/1.ics HTTP/1.1\r\nHost: x\r\n" + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(inner)) + inner, "401" + ok, nil},
		"a body of a well-known name": {"PUT /.well-known/caldav HTTP/1.1\r\nHost: x\r\n" + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(inner)) + inner, "301" + ok, nil},
		"two requests at once":        {get + "\r\n" + get + "\r\n", "200 200" + ok, []string{fetched, fetched}},

		"bare LFs":                     {strings.ReplaceAll(get, "\r\n", "\n") + "\n", "200" + ok, []string{fetched}},
		"a folded header":              {get + "User-Agent: a\r\n X-Remote-User: bob@example.test\r\n\r\n", "200" + ok, []string{fetched}},
		"a header folded at first":     {"GET " + cal + "work/1.ics HTTP/1.1\r\n Host: x\r\nHost: x\r\n\r\n", cut, nil},
		"a bare CR in a value":         {get + "User-Agent: a\rX-Remote-User: bob@example.test\r\n\r\n", cut, nil},
		"a NUL in a value":             {get + "User-Agent: a\x00b\r\n\r\n", cut, nil},
		"a NUL in a name":              {get + "X\x00Y: a\r\n\r\n", cut, nil},
		"a space in a name":            {get + "X Y: a\r\n\r\n", cut, nil},
		"a header without a colon":     {get + "XY\r\n\r\n", cut, nil},
		"a header without a name":      {get + ": a\r\n\r\n", cut, nil},
		"latin-1 in a value":           {get + "User-Agent: caf\xe9\r\n\r\n", "200" + ok, []string{fetched}},
		"names of an identity":         {get + "X-Remote-User: bob\r\nX_Remote_User: bob\r\nx-remote-USER: bob\r\nRemote-User: bob\r\nAuthorize-As: bob\r\nX-Forwarded-User: bob\r\nForwarded: for=1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\nProxy: http://evil.example\r\nCookie: a=b\r\nEarly-Data: 1\r\n\r\n", "200" + ok, []string{fetched}},
		"Connection names them":        {get + "Connection: X-Remote-User, X-Forwarded-For, Host, Authorization\r\n\r\n", "200" + ok, []string{fetched}},
		"two logins":                   {get + "Authorization: " + basic("both") + "\r\n\r\n", cut + ok, nil},
		"two logins, one folded":       {get + "X: y\r\nauthorization:\r\n " + basic("both") + "\r\n\r\n", cut + ok, nil},
		"a login of the proxy's":       {"GET " + cal + "work/1.ics HTTP/1.1\r\nHost: x\r\nProxy-Authorization: " + basic("cal") + "\r\n\r\n", "401" + ok, nil},
		"a long header":                {get + "X: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", "431", nil},
		"many headers":                 {get + strings.Repeat("X: y\r\n", 16<<10) + "\r\n", "431", nil},
		"a long line":                  {"GET /" + strings.Repeat("x", 64<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n", "431", nil},
		"an upgrade to h2c":            {get + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", "200" + ok, []string{fetched}},
		"an upgrade to a websocket":    {get + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", "200" + ok, []string{fetched}},
		"the preface of HTTP/2":        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", cut, nil},
		"an expectation of another":    {put + length + "Expect: 200-ok\r\n\r\n" + event, "417", nil},
		"an override of the method":    {get + "X-HTTP-Method-Override: DELETE\r\nX-Method-Override: DELETE\r\n\r\n", "200" + ok, []string{fetched}},
		"an override of the path":      {get + "X-Original-URL: /bob/\r\nX-Rewrite-URL: /bob/\r\n\r\n", "200" + ok, []string{fetched}},
		"a range":                      {get + "Range: bytes=0-1\r\nIf-Range: \"1\"\r\n\r\n", "200" + ok, []string{fetched}},
		"an absolute URL":              {strings.Replace(get, "GET ", "GET http://x", 1) + "\r\n", "200" + ok, []string{fetched}},
		"an absolute URL of another":   {strings.Replace(get, "GET ", "GET http://other.example", 1) + "\r\n", "200" + ok, []string{fetched}},
		"an absolute URL, another way": {strings.Replace(get, "GET ", "GET ftp://x", 1) + "\r\n", cut + ok, nil},
		"a URL with a name":            {strings.Replace(get, "GET ", "GET http://bob:x@x", 1) + "\r\n", cut + ok, nil},
		"a URL of the backend":         {strings.Replace(get, "GET "+cal, "GET http://x/alice@example.test/", 1) + "\r\n", "404" + ok, nil},
		"two hosts":                    {get + "Host: y\r\n\r\n", cut, nil},
		"no host":                      {strings.Replace(get, "Host: x\r\n", "", 1) + "\r\n", cut, nil},
		"a host that is a path":        {strings.Replace(get, "Host: x", "Host: x/../y", 1) + "\r\n", cut, nil},
		"a NUL in the path":            {strings.Replace(get, "1.ics", "1%00.ics", 1) + "\r\n", cut + ok, nil},
		"a raw NUL in the path":        {strings.Replace(get, "1.ics", "1\x00.ics", 1) + "\r\n", cut, nil},
		"a CRLF in the path":           {strings.Replace(get, "1.ics", "1.ics%0d%0aX-Remote-User:%20bob", 1) + "\r\n", cut + ok, nil},
		"a bad escape":                 {strings.Replace(get, "1.ics", "%zz.ics", 1) + "\r\n", cut, nil},
		"dots":                         {strings.Replace(get, "work/", "work/../../bobspublic/work/", 1) + "\r\n", cut + ok, nil},
		"dots in escapes":              {strings.Replace(get, "work/", "work/%2e%2E/%2e./bobspublic/work/", 1) + "\r\n", cut + ok, nil},
		"a slash in an escape":         {strings.Replace(get, "work/1", "work%2f1", 1) + "\r\n", cut + ok, nil},
		"an escape in an escape":       {strings.Replace(get, "work/1", "work/%252e%252e%252f1", 1) + "\r\n", cut + ok, nil},
		"a backslash":                  {strings.Replace(get, "work/", "work\\..\\", 1) + "\r\n", cut + ok, nil},
		"a fragment":                   {strings.Replace(get, "1.ics", "1.ics#/../x", 1) + "\r\n", cut + ok, nil},
		"a query":                      {strings.Replace(get, "1.ics", "1.ics?x=y", 1) + "\r\n", cut + ok, nil},
		"a semicolon":                  {strings.Replace(get, "work/", "work/..;/", 1) + "\r\n", cut + ok, nil},
		"no path":                      {"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "200" + ok, nil},
		"a tunnel":                     {"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\nAuthorization: " + basic("cal") + "\r\n\r\n", cut + ok, nil},
		"a method in small letters":    {strings.Replace(get, "GET", "get", 1) + "\r\n", "405" + ok, nil},
		"a method with a space before": {" " + get + "\r\n", cut, nil},
		"a method with a tab behind":   {strings.Replace(get, "GET ", "GET\t", 1) + "\r\n", cut, nil},
		"two spaces":                   {strings.Replace(get, "GET ", "GET  ", 1) + "\r\n", cut, nil},
		"a space in the path":          {strings.Replace(get, "1.ics", "1.ics HTTP/1.1 ", 1) + "\r\n", cut, nil},
		"HTTP/1.0":                     {strings.Replace(get, "HTTP/1.1", "HTTP/1.0", 1) + "Connection: keep-alive\r\n\r\n", "200", []string{fetched}},
		"HTTP/1.0 with chunks":         {strings.Replace(put, "HTTP/1.1", "HTTP/1.0", 1) + length + "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n" + chunks, "403", nil},
		"HTTP/1.2":                     {strings.Replace(get, "HTTP/1.1", "HTTP/1.2", 1) + "\r\n", "200" + ok, []string{fetched}},
		"HTTP/0.9":                     {"GET " + cal + "work/1.ics\r\n\r\n", cut, nil},
		"TLS":                          {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", cut, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFake(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == "DELETE" {
					w.WriteHeader(http.StatusNoContent)
					return
				}
				item(w, r)
			})
			p := newTap(t, b.address)
			d := open(t, routes{"calendar": func(g authstore.Grant) *protocols.Route { return by("tap", p.address)(g) }}, func(o *davproxy.Options) { o.TLS = nil })
			d.want(200, "cal", "GET", cal+"work/1.ics", "") // what the gateway asks for itself comes first
			if _, err := p.requests(); err != nil {
				t.Fatal(err)
			}
			nc, err := net.Dial("tcp", strings.TrimPrefix(d.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			nc.SetDeadline(time.Now().Add(patience))
			fmt.Fprintf(nc, "%sOPTIONS %s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nConnection: close\r\n\r\n", tt.text, self, basic("cal"))
			if got := strings.Join(statuses(nc), " "); got != tt.want {
				t.Errorf("answered %q, want %q", got, tt.want)
			}
			seen, err := p.requests()
			if err != nil || !slices.Equal(seen, tt.seen) {
				t.Errorf("the backend saw %q, want %q; %v", seen, tt.seen, err)
			}
		})
	}
}

// TestWhatFollowsARequestInDoubt: behind a proxy whose connections carry many people's requests, nothing follows a request whose end it may have seen
// elsewhere; net/http does not tell whether a Content-Length stood beside chunks.
func TestWhatFollowsARequestInDoubt(t *testing.T) {
	t.Parallel()
	event := testlab.Event("1")
	chunked := fmt.Sprintf("PUT %swork/1.ics HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", cal, basic("cal"), len(event), event)
	for _, tt := range []struct {
		proxies, want string
	}{{"127.0.0.0/8", "201"}, {"", "201 200"}} {
		b := newFake(t, item)
		d := open(t, routes{"calendar": b.route}, func(o *davproxy.Options) {
			o.TLS = nil
			if tt.proxies != "" {
				o.TrustedProxies = protocols.TrustedProxies{netip.MustParsePrefix(tt.proxies)}
			}
		})
		nc, err := net.Dial("tcp", strings.TrimPrefix(d.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(patience))
		fmt.Fprintf(nc, "%sOPTIONS %s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nConnection: close\r\n\r\n", chunked, self, basic("cal"))
		if got := strings.Join(statuses(nc), " "); got != tt.want {
			t.Errorf("behind %q answered %q, want %q", tt.proxies, got, tt.want)
		}
	}
}

// statuses reads answers until the connection ends.
func statuses(nc net.Conn) (list []string) {
	r := bufio.NewReader(nc)
	for {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return list
		}
		list = append(list, strconv.Itoa(resp.StatusCode))
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return append(list, "cut")
		}
	}
}
