package davproxy

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"time"
)

// secureLine is a line over TLS.
type secureLine struct{ *line }

// ConnectionState is what net/http asks for first, in the goroutine that serves the connection: so TLS begins here. HTTP/2 net/http serves
// on nothing but a *tls.Conn: it gets that then, and serves the line no more.
func (l secureLine) ConnectionState() tls.ConnectionState {
	tc := l.Conn.(*tls.Conn)
	if !l.handshake(tc) {
		panic(http.ErrAbortHandler) // net/http closes the connection without a word
	}
	state := tc.ConnectionState()
	if state.NegotiatedProtocol == "h2" {
		l.kept.Store(true)
		l.conns.open.Delete(l)
		l.conns.open.Store(tc, l.line)
		if !l.conns.back.give(tc) {
			tc.Close()
			l.closed(tc, l.conns.reason())
		}
		panic(http.ErrAbortHandler)
	}
	return state
}

// handshake does nothing where it was done before.
func (l secureLine) handshake(tc *tls.Conn) bool {
	tc.SetDeadline(time.Now().Add(l.conn.server.o.times.header))
	err := tc.Handshake()
	tc.SetDeadline(time.Time{})
	if err == nil {
		return true
	}
	if plain, ok := errors.AsType[tls.RecordHeaderError](err); ok && plain.Conn != nil && looksLikeHTTP(plain.RecordHeader) {
		io.WriteString(plain.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
	}
	l.conn.server.o.Log.Debug("TLS handshake", "conn", l.conn.id, "proto", Protocol, "client", l.RemoteAddr().String(), "err", err)
	return false
}

// looksLikeHTTP tells whether what should be a TLS record begins with a method.
func looksLikeHTTP(b [5]byte) bool {
	for _, c := range b {
		if c != ' ' && c != '/' && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}
