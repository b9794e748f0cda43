package gateway

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificates picks a certificate by server name and loads the files again when they have changed. A changed pair that does
// not load leaves the old one in place.
type certificates struct {
	log   *slog.Logger
	pairs []pairFiles

	mu      sync.Mutex // guards the fields below
	looked  time.Time  // when the files were last looked at
	stamps  []stamp
	current []tls.Certificate
}

type pairFiles struct{ cert, key string }

// stamp tells one version of a pair of files from another.
type stamp struct{ cert, key fileStamp }

type fileStamp struct {
	modified time.Time
	size     int64
}

// lookEvery is how long a changed certificate may go unnoticed. A stat costs a microsecond, a handshake hundreds.
const lookEvery = 10 * time.Second

func loadCertificates(pairs []pairFiles, log *slog.Logger) (*certificates, error) {
	c := &certificates{log: log, pairs: pairs, looked: time.Now()}
	var errs []error
	for _, p := range pairs {
		cert, err := tls.LoadX509KeyPair(p.cert, p.key)
		if err != nil {
			errs = append(errs, fmt.Errorf("certificate %s with key %s: %w", p.cert, p.key, err))
		}
		c.current = append(c.current, cert)
		c.stamps = append(c.stamps, stampOf(p))
	}
	return c, errors.Join(errs...)
}

// get implements tls.Config.GetCertificate: of the certificates that fit the client's server name and algorithms the first with an ECDSA
// P-256 key, which signs in a twentieth of RSA's time, else the first; where none fits, the first of all.
func (c *certificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	current := c.fresh(time.Now())
	if len(current) == 0 {
		return nil, errors.New("no certificate is configured")
	}
	named := *hello
	if names := current[0].Leaf.DNSNames; named.ServerName == "" && len(names) > 0 {
		named.ServerName = names[0] // who names no server gets one of the first's
	}
	var best *tls.Certificate
	for i := range current {
		if named.SupportsCertificate(&current[i]) != nil {
			continue
		}
		if isP256(&current[i]) {
			return &current[i], nil
		}
		if best == nil {
			best = &current[i]
		}
	}
	return cmp.Or(best, &current[0]), nil
}

func isP256(c *tls.Certificate) bool {
	key, ok := c.Leaf.PublicKey.(*ecdsa.PublicKey)
	return ok && key.Curve == elliptic.P256()
}

// fresh returns the certificates after looking at the files, if it is time to.
func (c *certificates) fresh(now time.Time) []tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.looked) < lookEvery {
		return c.current
	}
	c.looked = now
	current := append([]tls.Certificate(nil), c.current...) // handshakes under way keep the old ones
	for i, p := range c.pairs {
		s := stampOf(p)
		if s == c.stamps[i] {
			continue
		}
		c.stamps[i] = s
		cert, err := tls.LoadX509KeyPair(p.cert, p.key)
		if err != nil {
			c.log.Warn("certificate not loaded; the old one stays", "cert", p.cert, "err", err)
			continue
		}
		c.log.Info("certificate loaded", "cert", p.cert, "until", cert.Leaf.NotAfter)
		current[i] = cert
	}
	c.current = current
	return current
}

func stampOf(p pairFiles) stamp { return stamp{fileStampOf(p.cert), fileStampOf(p.key)} }

func fileStampOf(path string) fileStamp {
	info, err := os.Stat(path)
	if err != nil {
		return fileStamp{}
	}
	return fileStamp{info.ModTime(), info.Size()}
}
