package gateway

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"strings"

	"postern/authstore"
	"postern/config"
	"postern/gateway/appsettings"
)

var securityWords = map[string]appsettings.Security{
	"implicit": appsettings.TLS, "starttls": appsettings.STARTTLS, "none": appsettings.None, "insecure": appsettings.None,
}

// Settings tells what an app needs to use an account for some scopes.
func (d *Desk) Settings(address string, scopes authstore.Scopes) appsettings.Settings {
	return settings(d.cfg, address, scopes)
}

func settings(cfg *config.Config, address string, scopes authstore.Scopes) appsettings.Settings {
	s := appsettings.Settings{UserName: address, Server: serverName(cfg)}
	for _, l := range cfg.Listeners {
		_, number, _ := net.SplitHostPort(l.Address)
		port := appsettings.Port{Number: number, Security: securityWords[l.TLS]}
		switch {
		case l.Protocol == "imap" && scopes.Any(authstore.ScopeMail|authstore.ScopeMailRead):
			s.IMAP = append(s.IMAP, port)
		case l.Protocol == "pop3" && scopes.Any(authstore.ScopePOP):
			s.POP3 = append(s.POP3, port)
		case l.Protocol == "submission" && scopes.Any(authstore.ScopeSubmit):
			s.Submission = append(s.Submission, port)
		case l.Protocol == "managesieve" && scopes.Any(authstore.ScopeSieve):
			s.Sieve = append(s.Sieve, port)
		case l.Protocol == "dav" && s.DAV == "" && scopes.Any(authstore.ScopeCalendar|authstore.ScopeCalendarRead|authstore.ScopeContacts|authstore.ScopeContactsRead):
			s.DAV = davURL(s.Server, number, l.TLS)
		}
	}
	return s
}

// serverName is the name that apps reach this gateway by: the configured one, else the one in the certificate, which is what they
// compare with, else the machine's.
func serverName(cfg *config.Config) string {
	if cfg.Hostname != "" {
		return cfg.Hostname
	}
	for _, c := range cfg.TLS.Certificates {
		leaf, err := readLeaf(c.Cert)
		if err != nil {
			continue // "postern check" tells
		}
		for _, name := range leaf.DNSNames {
			if !strings.HasPrefix(name, "*") {
				return name
			}
		}
	}
	name, _ := os.Hostname()
	return name
}

// readLeaf reads the first certificate of a chain.
func readLeaf(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", path)
	}
	return x509.ParseCertificate(block.Bytes)
}

func davURL(host, port, security string) string {
	scheme, usual := "https", "443"
	if security != "implicit" {
		scheme, usual = "http", "80"
	}
	if port != usual {
		host = net.JoinHostPort(host, port)
	}
	return scheme + "://" + host + "/dav/"
}
