package gateway

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"syscall"

	"postern/config"
	"postern/gateway/oidcsignin"
	"postern/gateway/portal"
)

// newOIDC makes the OpenID Connect provider that people sign in at. It is not asked yet: it may be down while the gateway starts.
func newOIDC(cfg *config.Config, log *slog.Logger) (*oidcsignin.Provider, error) {
	c := &cfg.Portal.OIDC
	o := oidcsignin.Options{
		Issuer: c.Issuer, ClientID: c.ClientID, Redirect: cfg.Portal.URL + portal.ProviderCallback, Scopes: c.Scopes,
		AddressClaim: c.AddressClaim, GroupsClaim: c.GroupsClaim, TrustAddresses: c.TrustAddresses, FactorACR: c.FactorACR, FactorAMR: c.FactorAMR, Log: log,
	}
	if c.ClientSecretFile != "" {
		secret, err := readSecretFile("client_secret_file", c.ClientSecretFile)
		if err != nil {
			return nil, fmt.Errorf("[portal.oidc]: %w", err)
		}
		o.ClientSecret = string(secret)
	}
	if c.CAFile != "" {
		var err error
		if o.TLS, err = clientTLS(c.CAFile, "", ""); err != nil {
			return nil, fmt.Errorf("[portal.oidc]: %w", err)
		}
	}
	return oidcsignin.New(o), nil
}

// providerName is what the provider is called on pages.
func providerName(c *config.OIDC) string {
	host := ""
	if u, err := url.Parse(c.Issuer); err == nil {
		host = u.Hostname()
	}
	return cmp.Or(c.Name, host)
}

// checkOIDC asks the provider what it is.
func checkOIDC(ctx context.Context, cfg *config.Config) Finding {
	c := &cfg.Portal.OIDC
	f := Finding{Subject: "portal sign-in", Untried: "a sign-in was not tried; redirect URI " + cfg.Portal.URL + portal.ProviderCallback}
	p, err := newOIDC(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Err = err
		return f
	}
	backChannel, err := p.Probe(ctx)
	f.Detail = c.Issuer + " answers"
	if backChannel {
		f.Detail += "; back-channel logout can be registered: " + cfg.Portal.URL + portal.ProviderLogout
	} else {
		f.Detail += "; it tells of no back-channel logout, so sessions here may outlive those there"
	}
	if err != nil {
		f.Err = fmt.Errorf("%s: %s%w", c.Issuer, webRemedy(err), err)
	}
	return f
}

// webRemedy is what is wrong with a server that was asked over https, and what to do, for people who set one up; empty: the error says it.
func webRemedy(err error) string {
	unknown, okUnknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, okName := errors.AsType[x509.HostnameError](err)
	dns, okDNS := errors.AsType[*net.DNSError](err)
	slow, okSlow := errors.AsType[net.Error](err)
	switch {
	case okUnknown:
		issuer := ""
		if unknown.Cert != nil {
			issuer = fmt.Sprintf(" (%s)", unknown.Cert.Issuer)
		}
		return "its certificate is signed by an authority that this machine does not know" + issuer + "; name the authority's certificate as ca_file: "
	case okName:
		return "its certificate is for another name; look at the address: "
	case okDNS && dns.IsNotFound:
		return "there is no such host; look at the address: "
	case okDNS:
		return "its name can't be looked up; look at this machine's name servers: "
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens there; start it, or look at the address: "
	case okSlow && slow.Timeout():
		return "it does not answer in time; look at the address and at firewalls, and whether it hangs: "
	}
	return ""
}
