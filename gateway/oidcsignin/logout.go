package oidcsignin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"postern/authstore/identity"
)

const (
	maxEndings = 4        // logout tokens that are looked at at once
	maxToken   = 16 << 10 // bytes
	// endingFor bounds how long a logout token may be valid, for as long its number is kept. Two minutes are recommended.
	endingFor = 24 * time.Hour

	logoutEvent = "http://schemas.openid.net/event/backchannel-logout"
)

// Ended reads a logout token, by which the provider says that a session there has ended (OpenID Connect Back-Channel Logout 1.0 section 2.6). That it counts
// once is the caller's affair. ErrUntrusted, identity.ErrUnavailable.
func (p *Provider) Ended(ctx context.Context, raw string) (identity.Ending, error) {
	if raw == "" || len(raw) > maxToken || !isLogout(raw) {
		return identity.Ending{}, untrusted("it is no logout token")
	}
	ctx, cancel := context.WithTimeout(ctx, p.o.Timeout)
	defer cancel()
	select {
	case p.endings <- struct{}{}:
		defer func() { <-p.endings }()
	case <-ctx.Done():
		return identity.Ending{}, unavailable(context.Cause(ctx))
	}
	f, err := p.find(ctx)
	if err != nil {
		return identity.Ending{}, err
	}
	var keys error
	token, err := f.verifier.VerifyLogout(context.WithValue(oidc.ClientContext(ctx, p.client), noKeys{}, &keys), raw)
	switch {
	case keys != nil:
		return identity.Ending{}, p.down("fetch its keys", keys)
	case err != nil:
		return identity.Ending{}, untrusted(brief(err))
	}
	now := p.o.Now()
	var c struct {
		Events map[string]json.RawMessage `json:"events"`
	}
	switch {
	case token.Claims(&c) != nil || !strings.HasPrefix(string(c.Events[logoutEvent]), "{"):
		return identity.Ending{}, untrusted("it tells of no logout")
	case token.IssuedAt.IsZero() || token.IssuedAt.After(now.Add(clocksDiffer)) || token.Expiry.After(now.Add(endingFor)):
		return identity.Ending{}, untrusted("it is not of now; look at the clocks")
	case len(token.Subject) > 255 || len(token.SessionID) > maxWord || len(token.TokenID) > maxWord:
		return identity.Ending{}, untrusted("its names are too long")
	}
	return identity.Ending{Issuer: p.o.Issuer, Subject: token.Subject, SID: token.SessionID, ID: token.TokenID, Until: token.Expiry}, nil
}

// isLogout looks at a token's type (section 2.4): one of another type is none. Older providers write "JWT", or nothing.
func isLogout(raw string) bool {
	head, _, _ := strings.Cut(raw, ".")
	text, err := base64.RawURLEncoding.DecodeString(head)
	var h struct {
		Type string `json:"typ"`
	}
	return err == nil && json.Unmarshal(text, &h) == nil &&
		slices.Contains([]string{"", "jwt", "logout+jwt", "application/logout+jwt"}, strings.ToLower(h.Type))
}
