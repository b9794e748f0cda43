package authstore

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"unicode"
)

const (
	// maxUsed bounds the uses that wait to be written; beyond it some are forgotten.
	maxUsed = 10_000
	// maxApp bounds what a client may tell of itself, in bytes.
	maxApp = 64
)

type usageKey struct {
	password PasswordID
	protocol string
	app      string
	network  netip.Prefix
}

// Used notes an accepted login. It is written with the next batch; nothing on the login path waits for it.
func (s *Store) Used(g Grant, u Use) {
	key := usageKey{g.Password, u.Protocol, appName(u.App), usageNetwork(g.Client)}
	now := s.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	have, ok := s.used[key]
	if !ok {
		if len(s.used) >= maxUsed {
			return
		}
		have = Usage{Password: g.Password, Account: g.Account, Protocol: u.Protocol, App: key.app, Network: key.network, First: now}
	}
	have.Last = now
	have.Count++
	if g.rekey != nil {
		have.Rekey = g.rekey
	}
	s.used[key] = have
}

// flush writes what was used. On an error it is kept for the next time.
func (s *Store) flush(ctx context.Context) error {
	s.mu.Lock()
	used := s.used
	s.used = make(map[usageKey]Usage)
	s.mu.Unlock()
	if len(used) == 0 {
		return nil
	}
	err := s.Truth.Used(ctx, slices.Collect(maps.Values(used)))
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		for key, u := range used {
			if newer, ok := s.used[key]; ok {
				u.Last, u.Count = newer.Last, u.Count+newer.Count
			}
			if len(s.used) < maxUsed {
				s.used[key] = u
			}
		}
	}
	return err
}

// usageNetwork is how much of a client's address history keeps: an IPv4 /24, an IPv6 /48.
func usageNetwork(a netip.Addr) netip.Prefix {
	bits := 24
	if a.Is6() {
		bits = 48
	}
	p, _ := a.Prefix(bits)
	return p
}

// appName makes what a client says of itself short and printable.
func appName(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	for len(s) > maxApp {
		s = s[:len(s)-1]
	}
	return strings.TrimSpace(strings.ToValidUTF8(s, ""))
}
