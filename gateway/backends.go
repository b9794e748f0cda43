package gateway

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"postern/config"
	"postern/gateway/route"
	"postern/protocols"
)

// buildRoutes reads the secrets and authorities that the backends name and makes the route table. It tells all that is wrong.
func buildRoutes(cfg *config.Config, vault route.Vault, tokens route.Tokens, log *slog.Logger) (*route.Table, error) {
	var backends []route.Backend
	var errs []error
	for _, b := range cfg.Backends {
		built, err := buildBackend(&b, log)
		if err != nil {
			errs = append(errs, fmt.Errorf("backend %q: %w", b.Name, err))
			continue
		}
		backends = append(backends, built)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	rules := make([]route.Rule, len(cfg.Routes))
	for i, r := range cfg.Routes {
		rules[i] = route.Rule(r)
	}
	return route.New(backends, rules, vault, tokens)
}

var credentialKinds = map[string]route.Kind{"master": route.Master, "stored": route.Stored, "basic": route.Basic, "header": route.Header, "xclient": route.XClient,
	"bearer": route.Bearer, "jwt": route.JWT, "oauth": route.OAuth}

var backendSecurity = map[string]protocols.Security{"implicit": protocols.ImplicitTLS, "starttls": protocols.StartTLS, "none": protocols.PlainText}

func buildBackend(b *config.Backend, log *slog.Logger) (route.Backend, error) {
	built := route.Backend{Name: b.Name, Network: "tcp", Address: b.Address, Security: backendSecurity[b.TLS], Login: b.Login,
		Kind: credentialKinds[b.Credential], User: b.User, Spare: b.SpareConnections,
		Quirks: protocols.Quirks{NoPipelining: !b.Pipelining, NoClientID: !b.ClientID}}
	if b.Protocol == "dav" {
		built.Principal = b.Principal
	}
	if built.Kind == route.Header || built.Kind == route.Bearer {
		built.Header = b.Header
	}
	var err error
	if built.Security != protocols.PlainText {
		if built.TLS, err = clientTLS(b.CAFile, b.ServerName, b.Address); err != nil {
			return built, err
		}
	}
	if b.ClientCert != "" {
		if err = showCertificate(built.TLS, b.ClientCert, b.ClientKey, log); err != nil {
			return built, err
		}
	}
	if b.KeyFile != "" {
		if built.Signer, err = readSigner(b.KeyFile); err != nil {
			return built, err
		}
	}
	if b.PasswordFile != "" {
		built.Password, err = readPassword(b.PasswordFile)
	}
	if err == nil && built.Kind == route.Bearer && !isToken(built.Password) {
		err = fmt.Errorf("password_file %s: a token has letters, digits and -._~+/= only", b.PasswordFile)
	}
	return built, err
}

// isToken tells what a Bearer may be (RFC 6750 section 2.1), less strictly about the place of "=".
func isToken(token []byte) bool {
	return len(bytes.Trim(token, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=")) == 0
}

// showCertificate has us prove by a certificate who we are, where a server asks. Changed files are read again, as the listeners' are.
func showCertificate(c *tls.Config, certFile, keyFile string, log *slog.Logger) error {
	if err := checkPrivate("client_key", keyFile); err != nil {
		return err
	}
	pairs, err := loadCertificates([]pairFiles{{certFile, keyFile}}, log)
	if err != nil {
		return fmt.Errorf("client_cert: %w; client_cert must hold the certificate in PEM form, and client_key the key that belongs to it", err)
	}
	// It is sent also where the server names other authorities: its refusal says more than a missing one.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pairs.fresh(time.Now())[0], nil }
	return nil
}

// readSigner reads the key that signs the tokens of accounts.
func readSigner(path string) (*route.Signer, error) {
	if err := checkPrivate("key_file", path); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("key_file: %w%s", err, readerRemedy(err))
	}
	defer clear(text)
	s, err := route.NewSigner(text)
	if err != nil {
		return nil, fmt.Errorf("key_file %s: %w", path, err)
	}
	return s, nil
}

// routeTo is the way to a server of ours that is no backend of accounts.
func routeTo(name, address, security, caFile, serverName string) (r *protocols.Route, err error) {
	r = &protocols.Route{Backend: name, Network: "tcp", Address: address, Security: backendSecurity[security]}
	if r.Security != protocols.PlainText {
		r.TLS, err = clientTLS(caFile, serverName, address)
	}
	return r, err
}

// clientTLS verifies a server by name against an authority of ours or the system's.
func clientTLS(caFile, serverName, address string) (*tls.Config, error) {
	if serverName == "" {
		serverName, _, _ = net.SplitHostPort(address)
	}
	c := &tls.Config{ServerName: serverName, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(64)}
	if caFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca_file %s holds no certificate in PEM form", caFile)
	}
	return c, nil
}

// readPassword reads the first line of a file that only its owner may read.
func readPassword(path string) ([]byte, error) { return readSecretFile("password_file", path) }

// readSecretFile is readPassword for a file that another key names.
func readSecretFile(key, path string) ([]byte, error) {
	if err := checkPrivate(key, path); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w%s", key, err, readerRemedy(err))
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 {
		return nil, fmt.Errorf("%s %s holds nothing on its first line", key, path)
	}
	return line, nil
}

// checkPrivate wants a file that is not open to everybody; key names it.
func checkPrivate(key, path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w%s", key, err, readerRemedy(err))
	case info.Mode().Perm()&0o007 != 0:
		return fmt.Errorf("%s %s can be read by everybody; run: chmod 0400 %s", key, path, path)
	}
	return nil
}
