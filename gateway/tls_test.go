package gateway

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"postern/authstore/secret"
)

// newPair writes a certificate for some names, signed by its own key.
func newPair(t testing.TB, key crypto.Signer, names ...string) pairFiles {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab"}, DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := pairFiles{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	for path, block := range map[string]*pem.Block{p.cert: {Type: "CERTIFICATE", Bytes: cert}, p.key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func newECDSA(t testing.TB, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newRSA(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// serverConfig is what serverTLS makes of some pairs and keys.
func serverConfig(t testing.TB, keys func() *secret.Keyring, pairs ...pairFiles) *tls.Config {
	t.Helper()
	certs, err := loadCertificates(pairs, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	tickets := tickets{keys}
	return &tls.Config{GetCertificate: certs.get, WrapSession: tickets.wrap, UnwrapSession: tickets.unwrap}
}

// shake has a client connect, read a byte and the ticket before it, and returns what it sees of the connection.
func shake(t testing.TB, server, client *tls.Config) tls.ConnectionState {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan error, 1)
	go func() {
		nc, err := ln.Accept()
		if err == nil {
			defer nc.Close()
			_, err = tls.Server(nc, server).Write([]byte{0})
		}
		done <- err
	}()
	conn, err := tls.Dial("tcp", ln.Addr().String(), client)
	if err != nil {
		t.Fatal(err, <-done)
	}
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return conn.ConnectionState()
}

func TestCertificateIsPicked(t *testing.T) {
	t.Parallel()
	oldMail, mail := newPair(t, newRSA(t), "mail.example.test", "dav.example.test"), newPair(t, newECDSA(t, elliptic.P256()), "mail.example.test")
	slow := newPair(t, newECDSA(t, elliptic.P384()), "mail.example.test")
	other := newPair(t, newECDSA(t, elliptic.P256()), "other.example.test")
	onlyRSA := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	for name, tt := range map[string]struct {
		pairs  []pairFiles
		client *tls.Config
		want   pairFiles
	}{
		"P-256 behind RSA":           {[]pairFiles{oldMail, mail}, &tls.Config{ServerName: "mail.example.test"}, mail},
		"P-256 before RSA":           {[]pairFiles{mail, oldMail}, &tls.Config{ServerName: "mail.example.test"}, mail},
		"P-256 behind P-384":         {[]pairFiles{slow, mail}, &tls.Config{ServerName: "mail.example.test"}, mail},
		"the first of two others":    {[]pairFiles{oldMail, slow}, &tls.Config{ServerName: "mail.example.test"}, oldMail},
		"a client that takes RSA":    {[]pairFiles{mail, oldMail}, &tls.Config{ServerName: "mail.example.test", MaxVersion: tls.VersionTLS12, CipherSuites: onlyRSA}, oldMail},
		"a name that only RSA has":   {[]pairFiles{mail, oldMail}, &tls.Config{ServerName: "dav.example.test"}, oldMail},
		"P-256 of another name":      {[]pairFiles{oldMail, other}, &tls.Config{ServerName: "mail.example.test"}, oldMail},
		"no name: the first's":       {[]pairFiles{oldMail, other}, &tls.Config{}, oldMail},
		"no name: the first's P-256": {[]pairFiles{oldMail, other, mail}, &tls.Config{}, mail},
		"a name that nobody has":     {[]pairFiles{oldMail, mail, other}, &tls.Config{ServerName: "else.example.test"}, oldMail},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.client.InsecureSkipVerify = true
			state := shake(t, serverConfig(t, secret.NewKeyring, tt.pairs...), tt.client)
			want, err := tls.LoadX509KeyPair(tt.want.cert, tt.want.key)
			if err != nil {
				t.Fatal(err)
			}
			if got := state.PeerCertificates[0]; !got.Equal(want.Leaf) {
				t.Errorf("got a certificate for %v with a %T", got.DNSNames, got.PublicKey)
			}
		})
	}
}
