package oidcsignin

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"golang.org/x/oauth2"

	"postern/authstore/identity"
)

// The bounds of what is kept of claims.
const (
	maxAddresses = 50
	maxGroups    = 500
	maxWord      = 254 // bytes of an address, a group, a session's name
)

// claims are a token's claims by name. What has another type than it should counts as not there.
type claims map[string]json.RawMessage

func (c claims) text(name string) string {
	var s string
	json.Unmarshal(c[name], &s)
	return s
}

// words is a list of texts, or a single one.
func (c claims) words(name string, most int) []string {
	var list []string
	if json.Unmarshal(c[name], &list) != nil {
		list = []string{c.text(name)}
	}
	list = slices.DeleteFunc(list, func(w string) bool { return w == "" || len(w) > maxWord })
	return list[:min(len(list), most)]
}

// yes is true, or the word for it, as some providers write.
func (c claims) yes(name string) bool {
	var b bool
	if json.Unmarshal(c[name], &b) == nil {
		return b
	}
	return c.text(name) == "true"
}

// time is a time in seconds; zero where there is none.
func (c claims) time(name string) time.Time {
	var n float64
	if json.Unmarshal(c[name], &n) != nil || n <= 0 || n > 1e11 {
		return time.Time{}
	}
	return time.Unix(int64(n), 0)
}

// needsMore reports whether the token lacks what the userinfo endpoint may tell.
func (p *Provider) needsMore(s *said) bool {
	lacks := func(name string) bool { return name != "" && s.claims[name] == nil }
	return lacks(p.o.AddressClaim) || lacks(p.o.GroupsClaim) || !p.o.TrustAddresses && lacks("email_verified")
}

// askMore adds what the userinfo endpoint says (OpenID Connect Core 1.0 section 5.3). An address and whether it was verified belong together.
func (p *Provider) askMore(ctx context.Context, f *found, tokens *oauth2.Token, s *said) error {
	info, err := f.provider.UserInfo(ctx, oauth2.StaticTokenSource(tokens))
	if err != nil {
		return p.down("ask for claims", err)
	}
	if info.Subject != s.subject {
		return untrusted("the claims are of somebody else")
	}
	var more claims
	if err := info.Claims(&more); err != nil {
		return p.down("ask for claims", errRubbish)
	}
	if more[p.o.AddressClaim] != nil && (s.claims[p.o.AddressClaim] == nil || s.claims["email_verified"] == nil) {
		s.claims[p.o.AddressClaim], s.claims["email_verified"] = more[p.o.AddressClaim], more["email_verified"]
	}
	if g := p.o.GroupsClaim; g != "" && s.claims[g] == nil {
		s.claims[g] = more[g]
	}
	return nil
}

// proof is what claims say in the words of identity.
func (p *Provider) proof(s *said) Proof {
	c := s.claims
	proof := Proof{Claims: identity.Claims{Issuer: p.o.Issuer, Subject: s.subject, At: c.time("auth_time")}}
	if sid := c.text("sid"); len(sid) <= maxWord {
		proof.SID = sid
	}
	if p.o.GroupsClaim != "" {
		proof.Groups = c.words(p.o.GroupsClaim, maxGroups)
	}
	addresses := c.words(p.o.AddressClaim, maxAddresses)
	if p.o.TrustAddresses || p.o.AddressClaim == "email" && c.yes("email_verified") {
		proof.Addresses = addresses
	} else {
		proof.Unverified = len(addresses) > 0
	}
	proof.Factor = slices.Contains(p.o.FactorACR, c.text("acr")) ||
		slices.ContainsFunc(c.words("amr", 50), func(m string) bool { return slices.Contains(p.o.FactorAMR, m) })
	return proof
}
