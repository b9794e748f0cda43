package gateway

import (
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

// get implements tls.Config.GetCertificate: the first certificate that fits the client's server name and algorithms, else the first.
func (c *certificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	current := c.fresh(time.Now())
	for i := range current {
		if hello.SupportsCertificate(&current[i]) == nil {
			return &current[i], nil
		}
	}
	if len(current) == 0 {
		return nil, errors.New("no certificate is configured")
	}
	return &current[0], nil
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
