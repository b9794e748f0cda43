package gateway

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/authstore"
	"postern/config"
	"postern/internal/testlab"
)

// What "postern check" says of certificates ends with what to do.
func TestCheckCertificates(t *testing.T) {
	ca := testlab.NewCA(t)
	cert, key, _ := ca.Issue("mail.example.test")
	_, other, _ := testlab.NewCA(t).Issue()
	good := []config.Certificate{{Cert: cert, Key: key}}
	for name, tt := range map[string]struct {
		hostname string
		pairs    []config.Certificate
		want     []string // in what is said of each thing looked at
	}{
		"good":              {"mail.example.test", good, []string{"ok    certificate " + cert + ": localhost mail.example.test 127.0.0.1 ::1 until "}},
		"no hostname":       {"", good, []string{"ok    certificate "}},
		"none for the name": {"imap.example.test", good, []string{"ok    certificate ", "FAIL  hostname: no certificate is for imap.example.test"}},
		"no such file":      {"imap.example.test", []config.Certificate{{Cert: "/nowhere/cert.pem", Key: key}}, []string{"put the certificate and its key there"}},
		"another's key":     {"", []config.Certificate{{Cert: cert, Key: other}}, []string{"the key that belongs to it"}},
		"no PEM":            {"", []config.Certificate{{Cert: os.DevNull, Key: key}}, []string{"must hold the chain in PEM form"}},
		"one of two":        {"imap.example.test", append([]config.Certificate{{Cert: cert, Key: other}}, good...), []string{"FAIL  certificate ", "ok    certificate "}},
	} {
		t.Run(name, func(t *testing.T) {
			var said []string
			checkCertificates(&config.Config{Hostname: tt.hostname, TLS: config.TLS{Certificates: tt.pairs}}, func(f Finding) { said = append(said, f.Text()) })
			if len(said) != len(tt.want) {
				t.Fatalf("said %q, want %q", said, tt.want)
			}
			for i := range said {
				if !strings.Contains(said[i], tt.want[i]) {
					t.Errorf("said %q, want %q in it", said[i], tt.want[i])
				}
			}
		})
	}
}

// People are told the name that their app will compare with the certificate.
func TestServerName(t *testing.T) {
	machine, _ := os.Hostname()
	ca := testlab.NewCA(t)
	cert, key, _ := ca.Issue()
	broken := filepath.Join(t.TempDir(), "broken.pem")
	if err := os.WriteFile(broken, []byte("no certificate\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pair := func(cert string) config.TLS {
		return config.TLS{Certificates: []config.Certificate{{Cert: cert, Key: key}}}
	}
	for name, tt := range map[string]struct {
		cfg  config.Config
		want string
	}{
		"configured":      {config.Config{Hostname: "mail.example.test", TLS: pair(cert)}, "mail.example.test"},
		"the certificate": {config.Config{TLS: pair(cert)}, "localhost"},
		"none to read":    {config.Config{TLS: pair(broken)}, machine},
		"no TLS":          {config.Config{}, machine},
	} {
		if got := settings(&tt.cfg, "alice@example.test", 0).Server; got != tt.want {
			t.Errorf("%s: server %q, want %q", name, got, tt.want)
		}
	}
}

// What "postern check" says of what the portal needs ends with what to do.
func TestCheckPortal(t *testing.T) {
	door := config.Listener{Protocol: "portal", Address: "127.0.0.1:8081", TLS: "none"}
	imap := testlab.Dovecot(t).IMAP
	for want, c := range map[string]config.Config{
		"ok    portal: https://pw.example.test; where a proxy is in front, everybody seems to come from it; name it in trusted_proxies": {},
		"put the list there, or take breached_passwords out":                                                                            {Portal: config.Portal{BreachedPasswords: "/nowhere"}},
		"put the file there, or take it out of [portal]":                                                                                {Portal: config.Portal{CountryDatabase: "/nowhere"}},
		"that is no mail server; look at host and port":                                                                                 {Notices: config.Notices{Address: imap, TLS: "none", From: "a@example.test"}},
	} {
		c.Listeners, c.Portal.URL = []config.Listener{door}, "https://pw.example.test"
		var said []string
		checkPortal(t.Context(), nil, &c, func(f Finding) { said = append(said, f.Text()) })
		if !strings.Contains(strings.Join(said, "\n"), want) {
			t.Errorf("said %q, want %q in it", said, want)
		}
	}
}

// Until when the certificate is good that a backend is shown, and what is wrong with one.
func TestCheckClientCert(t *testing.T) {
	issue := func(until time.Duration, usage x509.ExtKeyUsage) *config.Backend {
		key := newECDSA(t, elliptic.P256())
		p := newPair(t, key, "lab")
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab"}, NotBefore: time.Now().Add(-48 * time.Hour),
			NotAfter: time.Now().Add(until), ExtKeyUsage: []x509.ExtKeyUsage{usage}}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p.cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return &config.Backend{ClientCert: p.cert, ClientKey: p.key}
	}
	year := 365 * 24 * time.Hour
	for name, tt := range map[string]struct {
		b    *config.Backend
		want string
	}{
		"none":        {&config.Backend{}, ""},
		"good":        {issue(year, x509.ExtKeyUsageClientAuth), "; client_cert until " + time.Now().Add(year).Format(time.DateOnly)},
		"ends soon":   {issue(time.Hour, x509.ExtKeyUsageClientAuth), "(renew it soon)"},
		"has ended":   {issue(-time.Hour, x509.ExtKeyUsageClientAuth), "; renew it"},
		"of a server": {issue(year, x509.ExtKeyUsageServerAuth), "extendedKeyUsage = clientAuth"},
	} {
		text, err := checkClientCert(tt.b)
		if err != nil {
			text = err.Error()
		}
		if bad := name == "has ended" || name == "of a server"; bad != (err != nil) || !strings.Contains(text, tt.want) || tt.want == "" && text != "" {
			t.Errorf("%s: %q, %v; want %q", name, text, err, tt.want)
		}
	}
}

// Each backend is tried for an account that is led there: a domain of its own does not go to where all others do.
func TestCheckTriesWhoIsLedThere(t *testing.T) {
	cfg := &config.Config{Routes: []config.Route{{Domain: "*", Protocol: "calendar", Backend: "all"}, {Domain: "own.test", Protocol: "calendar", Backend: "own"},
		{Domain: "own.test", Protocol: "contacts", Backend: "all"}}}
	accounts := []authstore.Account{{Names: []string{"eve@own.test"}}, {Names: []string{"alice@example.test"}}}
	for _, tt := range []struct {
		backend, word, want string
	}{
		{"own", "calendar", "eve@own.test"}, {"all", "calendar", "alice@example.test"}, {"all", "contacts", "eve@own.test"}, {"own", "contacts", ""},
	} {
		got := ""
		for _, a := range ledTo(cfg, tt.backend, []string{tt.word}, accounts) {
			got += a.Names[0]
		}
		if got != tt.want {
			t.Errorf("%s at %s is tried for %q, want %q", tt.word, tt.backend, got, tt.want)
		}
	}
}
