package demo

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestCA(t *testing.T) {
	dir := t.TempDir()
	ca, err := NewCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil || ca.File != filepath.Join(dir, "ca.pem") {
		t.Fatal(ca.File, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatal("ca.pem holds no certificate")
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{ca.Certificate}})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				conn.(*tls.Conn).HandshakeContext(t.Context())
			}()
		}
	}()
	for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		client := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: name})
		if err := client.HandshakeContext(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		conn.Close()
	}
}

func TestCACanNotVouchForOthers(t *testing.T) {
	ca, caKey, err := newAuthority()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	cert, _, err := sign(&x509.Certificate{DNSNames: []string{"bank.example"}}, ca, caKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: "bank.example"}); err == nil {
		t.Error("the demo's CA may vouch for other hosts")
	}
}

func TestCANeedsItsFolder(t *testing.T) {
	if _, err := NewCA(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no error")
	}
}
