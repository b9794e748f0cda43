package gateway

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"postern/authstore"
	"postern/config"
	"postern/protocols"
)

// An app that never hangs up is in use, however often the gateway reads its configuration again.
func TestOpenSessionsAreInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := new(Gateway)
		ctx, end := context.WithCancelCause(t.Context())
		defer end(nil)
		g.live.Enter(&authstore.Grant{Account: 1, Password: 7}, &protocols.Facts{Protocol: "imap"}, end)
		uses := 0
		used := func(grant authstore.Grant, u authstore.Use) {
			if grant.Password != 7 || u.Protocol != "imap" {
				t.Errorf("told of %+v, %+v", grant, u)
			}
			uses++
		}
		for range 10 * 24 / 6 { // each six hours another generation begins with it
			time.Sleep(6 * time.Hour)
			g.tellOpen(time.Now(), used)
			g.tellOpen(time.Now(), used)
		}
		if uses < 8 || uses > 10 || ctx.Err() != nil {
			t.Errorf("in ten days it was told %d times that the session is open", uses)
		}
	})
}

// However a network is written in a policy, clients are found in it.
func TestNetworksOfPolicies(t *testing.T) {
	list := []netip.Prefix{netip.MustParsePrefix("::ffff:192.0.2.7/120"), netip.MustParsePrefix("198.51.100.9/24"), netip.MustParsePrefix("2001:db8::1/32")}
	p := policiesOf(&config.Config{Policies: []config.Policy{{Networks: list}}}).For("alice@example.test", nil)
	want := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	if !slices.Equal(p.Networks, want) {
		t.Errorf("%v are %v, want %v", list, p.Networks, want)
	}
	for text, is := range map[string]bool{"192.0.2.8/32": true, "192.0.3.8/32": false, "198.51.100.0/25": true, "2001:db8:7::/48": true} {
		if got := p.From(netip.MustParsePrefix(text)); got != is {
			t.Errorf("%s is in there: %v, want %v", text, got, is)
		}
	}
}

// The configuration knows the presets by name only.
func TestPresetsOfPolicies(t *testing.T) {
	var names []string
	for _, p := range authstore.Presets {
		names = append(names, p.Name)
	}
	if !slices.Equal(names, config.Presets) {
		t.Errorf("config knows %v, authstore %v", config.Presets, names)
	}
}
