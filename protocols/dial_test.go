package protocols

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/testlab"
)

// answering starts a server that talks to each connection.
func answering(t *testing.T, talk func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				talk(nc)
			}()
		}
	}()
	return ln.Addr().String()
}

func greeting(_ context.Context, nc net.Conn) (*Backend, error) {
	line, err := bufio.NewReader(nc).ReadString('\n')
	if err != nil {
		return nil, err
	}
	return &Backend{Conn: nc, Capabilities: line}, nil
}

func TestConnect(t *testing.T) {
	ca, other := testlab.NewCA(t), testlab.NewCA(t)
	_, _, cert := ca.Issue("mail.example.test")
	secure := answering(t, func(nc net.Conn) {
		tc := tls.Server(nc, &tls.Config{Certificates: []tls.Certificate{cert}})
		io.WriteString(tc, "hello\n")
		io.ReadAll(tc)
	})
	plain := answering(t, func(nc net.Conn) { io.WriteString(nc, "hello\n"); io.ReadAll(nc) })
	nobody := answering(t, func(net.Conn) {})
	refused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused.Close()
	for name, tt := range map[string]struct {
		route Route
		words string // in what Explain says; "": it connects
	}{
		"plain":                {Route{Network: "tcp", Address: plain}, ""},
		"TLS":                  {Route{Network: "tcp", Address: secure, Security: ImplicitTLS, TLS: &tls.Config{RootCAs: ca.Pool}}, ""},
		"TLS by another name":  {Route{Network: "tcp", Address: secure, Security: ImplicitTLS, TLS: &tls.Config{RootCAs: ca.Pool, ServerName: "mail.example.test"}}, ""},
		"unknown authority":    {Route{Network: "tcp", Address: secure, Security: ImplicitTLS, TLS: &tls.Config{RootCAs: other.Pool}}, "ca_file"},
		"wrong name":           {Route{Network: "tcp", Address: secure, Security: ImplicitTLS, TLS: &tls.Config{RootCAs: ca.Pool, ServerName: "imap.example.com"}}, "server_name"},
		"certificate is old":   {Route{Network: "tcp", Address: secure, Security: ImplicitTLS, TLS: &tls.Config{RootCAs: ca.Pool, Time: func() time.Time { return time.Now().AddDate(9, 0, 0) }}}, "renew it"},
		"no TLS there":         {Route{Network: "tcp", Address: plain, Security: ImplicitTLS, TLS: &tls.Config{RootCAs: ca.Pool}}, "starttls"},
		"nobody listens":       {Route{Network: "tcp", Address: refused.Addr().String()}, "nobody listens there"},
		"hangs up":             {Route{Network: "tcp", Address: nobody}, "EOF"},
		"plain, far away":      {Route{Network: "tcp", Address: "192.0.2.1:143"}, "without TLS only loopback"},
		"no such socket":       {Route{Network: "unix", Address: filepath.Join(t.TempDir(), "none")}, "no such socket"},
		"TLS without a name":   {Route{Network: "tcp", Address: secure, Security: ImplicitTLS, TLS: &tls.Config{}}, "ca_file"},
		"no such host":         {Route{Network: "tcp", Address: "host.invalid:993"}, "looked up|no such host"},
		"certificate unusable": {Route{Network: "tcp", Address: secure, Security: ImplicitTLS, TLS: nameless(ca)}, "ca_file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.route.Backend = "store"
			var steps []string
			b, err := Connect(t.Context(), &tt.route, func(step string, _ time.Duration, err error) {
				steps = append(steps, step)
			}, greeting)
			if tt.words == "" {
				if err != nil || b.Capabilities != "hello\n" || strings.Join(steps, " ") != "connect login" {
					t.Fatalf("Connect: %v, steps %v", err, steps)
				}
				b.Conn.Close()
				return
			}
			if err == nil {
				t.Fatal("it connects")
			}
			explained := Explain(&tt.route, err, "").Error()
			found := false
			for _, words := range strings.Split(tt.words, "|") {
				found = found || strings.Contains(explained, words)
			}
			if !found || !strings.HasPrefix(explained, tt.route.Address+": ") {
				t.Errorf("explained as %s; want %q", explained, tt.words)
			}
		})
	}
}

// nameless trusts nobody.
func nameless(*testlab.CA) *tls.Config { return &tls.Config{} }

func TestConnectEndsWithItsContext(t *testing.T) {
	reached := make(chan struct{})
	hanging := answering(t, func(nc net.Conn) { close(reached); io.ReadAll(nc) })
	gone := errors.New("client gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-reached; cancel(gone) }()
	_, err := Connect(ctx, &Route{Backend: "store", Network: "tcp", Address: hanging}, nil, greeting)
	if !errors.Is(err, gone) {
		t.Errorf("Connect = %v, want %v", err, gone)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Millisecond)
	defer stop()
	route := &Route{Backend: "store", Network: "tcp", Address: answering(t, func(nc net.Conn) { io.ReadAll(nc) })}
	if _, err := Connect(ctx, route, nil, greeting); err == nil || !strings.Contains(Explain(route, err, "").Error(), "does not answer in time") {
		t.Errorf("Connect = %v", err)
	}
}
