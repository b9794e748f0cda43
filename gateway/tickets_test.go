package gateway

import (
	"crypto/elliptic"
	"crypto/tls"
	"testing"
	"time"

	"postern/authstore/secret"
)

func TestSessionsResume(t *testing.T) {
	t.Parallel()
	pair := newPair(t, newECDSA(t, elliptic.P256()), "mail.example.test")
	first := secret.NewKeyring()
	both, err := first.Add()
	if err != nil {
		t.Fatal(err)
	}
	second, err := both.Without(1)
	if err != nil {
		t.Fatal(err)
	}
	node := func(k *secret.Keyring, protocol string) *tls.Config {
		c := serverConfig(t, func() *secret.Keyring { return k }, pair)
		c.NextProtos = []string{protocol}
		return c
	}
	for name, tt := range map[string]struct {
		before, after *tls.Config
		version       uint16
		spoil         func([]byte) []byte
		want          bool
	}{
		"on the same node":      {before: node(first, "imap"), after: node(first, "imap"), want: true},
		"at another door":       {before: node(first, "imap"), after: node(first, "h2"), want: true},
		"a key was added":       {before: node(first, "imap"), after: node(both, "imap"), want: true},
		"another key":           {before: node(first, "imap"), after: node(secret.NewKeyring(), "imap")},
		"its key was retired":   {before: node(first, "imap"), after: node(second, "imap")},
		"its key is not there":  {before: node(both, "imap"), after: node(first, "imap")},
		"an altered ticket":     {before: node(first, "imap"), after: node(first, "imap"), spoil: func(b []byte) []byte { b[len(b)-1]++; return b }},
		"a ticket of garbage":   {before: node(first, "imap"), after: node(first, "imap"), spoil: func([]byte) []byte { return []byte("garbage") }},
		"no session in it":      {before: node(first, "imap"), after: node(first, "imap"), spoil: func([]byte) []byte { b, _ := first.SealTicket([]byte("?"), time.Now()); return b }},
		"TLS 1.2 has no ticket": {before: node(first, "imap"), after: node(first, "imap"), version: tls.VersionTLS12},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cache := &spoiler{ClientSessionCache: tls.NewLRUClientSessionCache(1), spoil: tt.spoil}
			client := &tls.Config{ServerName: "mail.example.test", InsecureSkipVerify: true, NextProtos: []string{"imap", "h2"}, ClientSessionCache: cache, MaxVersion: tt.version}
			if shake(t, tt.before, client).DidResume {
				t.Fatal("the first session was resumed")
			}
			state := shake(t, tt.after, client)
			if state.DidResume != tt.want || state.NegotiatedProtocol != tt.after.NextProtos[0] {
				t.Errorf("resumed: %v, want %v; ALPN %q", state.DidResume, tt.want, state.NegotiatedProtocol)
			}
			if got := cache.longest > 0; got != (tt.version == 0) {
				t.Errorf("the client got a ticket: %v", got)
			}
			if state = shake(t, tt.after, client); state.DidResume != (tt.version == 0 && tt.spoil == nil) {
				t.Errorf("resumed once more: %v", state.DidResume)
			}
		})
	}
}

// spoiler is a client's memory that changes what it remembers.
type spoiler struct {
	tls.ClientSessionCache
	spoil   func(ticket []byte) []byte // nil: nothing
	longest int                        // ticket
}

func (s *spoiler) Put(key string, session *tls.ClientSessionState) {
	ticket, state, err := session.ResumptionState()
	if err == nil {
		s.longest = max(s.longest, len(ticket))
	}
	if err == nil && ticket != nil && s.spoil != nil {
		session, _ = tls.NewResumptionState(s.spoil(ticket), state)
	}
	s.ClientSessionCache.Put(key, session)
}

// Both ends of a handshake and the way between them.
func BenchmarkHandshake(b *testing.B) {
	ecdsaPair, rsaPair := newPair(b, newECDSA(b, elliptic.P256()), "mail.example.test"), newPair(b, newRSA(b), "mail.example.test")
	keys := secret.NewKeyring()
	for _, bb := range []struct {
		name   string
		pair   pairFiles
		resume bool
	}{{"P-256", ecdsaPair, false}, {"RSA", rsaPair, false}, {"resumed", ecdsaPair, true}} {
		b.Run(bb.name, func(b *testing.B) {
			server := serverConfig(b, func() *secret.Keyring { return keys }, bb.pair)
			client := &tls.Config{ServerName: "mail.example.test", InsecureSkipVerify: true}
			if bb.resume {
				client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
				shake(b, server, client)
			}
			for b.Loop() {
				if shake(b, server, client).DidResume != bb.resume {
					b.Fatal("resumed or not: the other way round")
				}
			}
		})
	}
}
