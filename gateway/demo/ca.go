package demo

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// certificateLife is how long the demo's certificates are good for: longer than anybody leaves a demo running.
const certificateLife = 30 * 24 * time.Hour

// CA is the demo's certificate authority. Its key is forgotten once it has signed its only certificate, and it is
// constrained to names of this machine, so that an app which was told to trust it is in no danger afterwards.
type CA struct {
	File        string          // its certificate, PEM
	Certificate tls.Certificate // the front doors', for localhost, 127.0.0.1 and ::1
}

// NewCA makes an authority and writes its certificate to ca.pem in dir, over what is there.
func NewCA(dir string) (*CA, error) {
	ca, caKey, err := newAuthority()
	if err != nil {
		return nil, fmt.Errorf("make the demo's CA: %w", err)
	}
	server, key, err := sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "localhost"},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, caKey)
	if err != nil {
		return nil, fmt.Errorf("make the demo's certificate: %w", err)
	}
	file := filepath.Join(dir, "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})
	if err := os.WriteFile(file, block, 0o644); err != nil {
		return nil, fmt.Errorf("write the demo's CA: %w", err)
	}
	return &CA{
		File:        file,
		Certificate: tls.Certificate{Certificate: [][]byte{server.Raw, ca.Raw}, PrivateKey: key, Leaf: server},
	}, nil
}

// newAuthority makes a CA that can vouch for this machine only.
func newAuthority() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	return sign(&x509.Certificate{
		Subject:                     pkix.Name{CommonName: "Postern demo CA"},
		IsCA:                        true,
		BasicConstraintsValid:       true,
		MaxPathLenZero:              true,
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:                 []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         []string{"localhost"},
		PermittedIPRanges: []*net.IPNet{
			{IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)},
			{IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)},
		},
	}, nil, nil)
}

// sign makes a certificate for a fresh key. Without a parent it signs itself.
func sign(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	template.NotBefore = time.Now().Add(-time.Hour) // clocks of virtual machines on this one may be behind
	template.NotAfter = time.Now().Add(certificateLife)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}
